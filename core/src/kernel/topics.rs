//! The topics of a node, and a function for each that makes an event of it.

use std::time::Duration;

use super::bus::{Datum, Event, FieldSpec, Priority, TopicSpec};
use super::{BoardState, ComponentName, ComponentState, ExitReason, Fault, Health, News};

const fn topic(name: &'static str, priority: Priority, doc: &'static str, fields: &'static [FieldSpec]) -> TopicSpec {
    TopicSpec { name, doc, priority, fields }
}

const COMPONENT: FieldSpec = FieldSpec::text("component");
const FROM: FieldSpec = FieldSpec::text("from");
const TO: FieldSpec = FieldSpec::text("to");
const DETAIL: FieldSpec = FieldSpec::text("detail").or_absent();
const DEVICE: FieldSpec = FieldSpec::text("device");

static BOOT: TopicSpec = topic("system.boot", Priority::High, "The node boots.", &[FieldSpec::text("node"), FieldSpec::flag("unclean")]);
static READY: TopicSpec =
    topic("system.ready", Priority::High, "The node serves.", &[FieldSpec::text("state"), FieldSpec::number("took_ms")]);
static STOPPING: TopicSpec = topic("system.stopping", Priority::High, "The node stops serving.", &[FieldSpec::text("reason")]);
static CONFIG: TopicSpec = topic(
    "system.config",
    Priority::High,
    "The settings were read again: how many took effect at once, which wait for the next boot, or what is wrong with them.",
    &[FieldSpec::number("taken"), FieldSpec::text("waiting"), DETAIL],
);
static STATE: TopicSpec =
    topic("component.state", Priority::Normal, "A component went from one state to another.", &[COMPONENT, FROM, TO, DETAIL]);
static RESTART: TopicSpec = topic(
    "component.restart",
    Priority::High,
    "A component failed and is started again after a pause.",
    &[COMPONENT, FieldSpec::number("failures"), FieldSpec::number("pause_ms")],
);
static CIRCUIT: TopicSpec = topic(
    "component.circuit",
    Priority::High,
    "A component has failed too often and is left alone, or is trusted again.",
    &[COMPONENT, FieldSpec::flag("open"), FieldSpec::number("failures")],
);
static SWAP: TopicSpec =
    topic("component.swap", Priority::High, "What fills a component's socket was replaced.", &[COMPONENT, FieldSpec::text("said")]);
static SETTINGS: TopicSpec = topic(
    "component.settings",
    Priority::High,
    "A component did not take its new settings, and goes on with those it had.",
    &[COMPONENT, FieldSpec::text("reason"), FieldSpec::text("advice")],
);
static HEALTH: TopicSpec = topic("health.changed", Priority::High, "A component's health changed.", &[COMPONENT, FROM, TO, DETAIL]);
static ENROLLED: TopicSpec =
    topic("security.enrolled", Priority::High, "A device joined with an invitation.", &[DEVICE, FieldSpec::text("name")]);
static REVOKED: TopicSpec = topic("security.revoked", Priority::High, "A device was shut out for good.", &[DEVICE]);
static TURNED_AWAY: TopicSpec =
    topic("security.refused", Priority::Normal, "A peer was not let in.", &[FieldSpec::text("peer"), FieldSpec::text("reason")]);
static KEY: TopicSpec =
    topic("api.key", Priority::High, "An API key was made or revoked.", &[FieldSpec::text("name"), FieldSpec::text("change")]);
static MERGED: TopicSpec = topic(
    "data.conflict",
    Priority::Normal,
    "A merge took decisions that are in the ledger: see `conflict list`; `entries` are the submissions of that merge.",
    &[FieldSpec::number("conflicts"), FieldSpec::number("entries")],
);
static QUARANTINED: TopicSpec = topic(
    "data.quarantined",
    Priority::High,
    "An entry was refused and put aside: see `quarantine list`.",
    &[DEVICE, FieldSpec::number("lane"), FieldSpec::number("seq"), FieldSpec::text("code"), DETAIL],
);
static COLLECTION: TopicSpec =
    topic("data.collection", Priority::Normal, "A collection was made or changed.", &[FieldSpec::text("name"), FieldSpec::text("kind")]);
static SESSION: TopicSpec =
    topic("sync.session", Priority::Normal, "A session went live or ended.", &[DEVICE, FieldSpec::flag("live"), DETAIL]);
static REFENCED: TopicSpec = topic(
    "sync.refenced",
    Priority::High,
    "A device's log does not continue what the hub has: it starts a new incarnation.",
    &[DEVICE, FieldSpec::text("reason")],
);
static BACKUP: TopicSpec = topic(
    "backup.finished",
    Priority::High,
    "A backup, a verification, a restore or a drill ended: `what` says which.",
    &[FieldSpec::text("what"), FieldSpec::flag("ok"), DETAIL],
);
static PUBLISHING: TopicSpec = topic(
    "api.publishing",
    Priority::High,
    "The server that changes are published to takes them no more, or again; `dropped` of them were given up since the last such event.",
    &[FieldSpec::flag("ok"), FieldSpec::number("dropped"), DETAIL],
);

/// Every topic of a node.
pub static ALL: [&TopicSpec; 21] = [
    &BOOT,
    &READY,
    &STOPPING,
    &CONFIG,
    &STATE,
    &RESTART,
    &CIRCUIT,
    &SWAP,
    &SETTINGS,
    &HEALTH,
    &ENROLLED,
    &REVOKED,
    &TURNED_AWAY,
    &KEY,
    &MERGED,
    &QUARANTINED,
    &COLLECTION,
    &SESSION,
    &REFENCED,
    &BACKUP,
    &PUBLISHING,
];

/// The functions below give each field a value of its kind, which a test checks for each.
fn made<const N: usize>(topic: &'static TopicSpec, data: [Datum; N]) -> Event {
    Event::new(topic, data).expect("BUG: an event is made as its topic has it")
}

/// The node boots; `unclean` when it was not shut down cleanly.
#[must_use]
pub fn boot(node: &str, unclean: bool) -> Event {
    made(&BOOT, [node.into(), unclean.into()])
}

/// The node serves.
#[must_use]
pub fn ready(state: BoardState, took: Duration) -> Event {
    made(&READY, [state.word().into(), millis(took)])
}

/// The node stops serving.
#[must_use]
pub fn stopping(reason: &ExitReason) -> Event {
    made(&STOPPING, [reason.to_string().into()])
}

/// The settings were read again: `taken` of them took effect, those named in `waiting` do at the next boot; `problem` says why nothing was
/// changed.
#[must_use]
pub fn reloaded(taken: u64, waiting: &str, problem: Option<String>) -> Event {
    made(&CONFIG, [taken.into(), waiting.into(), problem.into()])
}

/// What the board tells of its parts.
#[must_use]
pub fn news(news: &News) -> Event {
    let name = |component: &ComponentName| Datum::from(component.as_str());
    match news {
        News::State { component, from, to, detail } => state(component, (*from, *to), detail.clone()),
        News::Health { component, from, to, detail } => health(component, (*from, *to), detail.clone()),
        News::Restart { component, failures, pause } => made(&RESTART, [name(component), (*failures).into(), millis(*pause)]),
        News::Circuit { component, open, failures } => made(&CIRCUIT, [name(component), (*open).into(), (*failures).into()]),
    }
}

fn state(component: &ComponentName, (from, to): (ComponentState, ComponentState), detail: Option<String>) -> Event {
    made(&STATE, [component.as_str().into(), from.word().into(), to.word().into(), detail.into()])
}

fn health(component: &ComponentName, (from, to): (Health, Health), detail: Option<String>) -> Event {
    made(&HEALTH, [component.as_str().into(), from.word().into(), to.word().into(), detail.into()])
}

/// What fills a part's socket was replaced.
#[must_use]
pub fn swap(component: &ComponentName, said: &str) -> Event {
    made(&SWAP, [component.as_str().into(), said.into()])
}

/// A part did not take its new settings.
#[must_use]
pub fn settings_refused(component: &ComponentName, fault: &Fault) -> Event {
    made(&SETTINGS, [component.as_str().into(), fault.reason.as_str().into(), fault.advice.as_str().into()])
}

/// A device joined.
#[must_use]
pub fn enrolled(device: &str, name: &str) -> Event {
    made(&ENROLLED, [device.into(), name.into()])
}

/// A device was shut out.
#[must_use]
pub fn revoked(device: &str) -> Event {
    made(&REVOKED, [device.into()])
}

/// A peer was not let in.
#[must_use]
pub fn turned_away(peer: &str, reason: &str) -> Event {
    made(&TURNED_AWAY, [peer.into(), reason.into()])
}

/// An API key was `created` or `revoked`. Its name is shown, never the key.
#[must_use]
pub fn key(name: &str, change: &str) -> Event {
    made(&KEY, [name.into(), change.into()])
}

/// A merge of so many entries took so many decisions.
#[must_use]
pub fn conflicts(conflicts: u64, entries: u64) -> Event {
    made(&MERGED, [conflicts.into(), entries.into()])
}

/// An entry was refused and put aside.
#[must_use]
pub fn quarantined(device: &str, (lane, seq): (u8, u64), code: &str, detail: Option<String>) -> Event {
    made(&QUARANTINED, [device.into(), u64::from(lane).into(), seq.into(), code.into(), detail.into()])
}

/// A collection was made or changed.
#[must_use]
pub fn collection(name: &str, kind: &str) -> Event {
    made(&COLLECTION, [name.into(), kind.into()])
}

/// A session went live, or ended for a reason.
#[must_use]
pub fn session(device: &str, live: bool, detail: Option<String>) -> Event {
    made(&SESSION, [device.into(), live.into(), detail.into()])
}

/// A device starts a new incarnation.
#[must_use]
pub fn refenced(device: &str, reason: &str) -> Event {
    made(&REFENCED, [device.into(), reason.into()])
}

/// A backup, a verification, a restore or a drill ended.
#[must_use]
pub fn backup(what: &str, ok: bool, detail: Option<String>) -> Event {
    made(&BACKUP, [what.into(), ok.into(), detail.into()])
}

/// Whether changes are published, and how many were given up since this was last told.
#[must_use]
pub fn publishing(ok: bool, dropped: u64, detail: Option<String>) -> Event {
    made(&PUBLISHING, [ok.into(), dropped.into(), detail.into()])
}

fn millis(span: Duration) -> Datum {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).into()
}

#[cfg(test)]
mod tests {
    use super::super::Topics;
    use super::*;

    #[test]
    fn every_topic_is_sound_and_every_function_fits_its_topic() {
        let mut topics = Topics::default();
        ALL.iter().for_each(|topic| topics.register(topic).unwrap());
        let part = ComponentName::fixed("gate");
        let of_news = [
            News::State {
                component: part.clone(),
                from: ComponentState::Running,
                to: ComponentState::Failed,
                detail: Some("x".to_owned()),
            },
            News::Health { component: part.clone(), from: Health::Healthy, to: Health::Degraded, detail: None },
            News::Restart { component: part.clone(), failures: 1, pause: Duration::MAX },
            News::Circuit { component: part.clone(), open: true, failures: u64::MAX },
        ];
        let mut events: Vec<Event> = of_news.iter().map(news).collect();
        events.extend([
            boot("hub", true),
            ready(BoardState::Ready, Duration::ZERO),
            stopping(&ExitReason::Stopped),
            reloaded(1, "http.listen", None),
            swap(&part, "done"),
            settings_refused(&part, &Fault::new("r", "a")),
            enrolled("d", "n"),
            revoked("d"),
            turned_away("p", "r"),
            key("k", "created"),
            conflicts(1, 2),
            quarantined("d", (0, 7), "corrupt", None),
            collection("c", "table"),
            session("d", false, Some("gone".to_owned())),
            refenced("d", "behind"),
            backup("create", true, None),
            publishing(false, 3, None),
        ]);
        assert_eq!(events.len(), ALL.len());
        for topic in ALL {
            assert!(events.iter().any(|event| event.topic() == topic), "{}", topic.name);
        }
        let families = ["system", "component", "health", "security", "data", "sync", "api", "backup"];
        for family in families {
            assert!(ALL.iter().any(|topic| topic.name.starts_with(&format!("{family}."))), "{family}");
        }
    }
}
