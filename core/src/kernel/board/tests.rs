//! Boards as text: each test gives the parts, how they behave and what happens, and reads back everything the board asked for.
//!
//! Parts: `gate:store,keys` needs two others, `cache?` is optional. Behaviour: `gate.start=fail`, `store.stop=hang`. Events, in order:
//! `ready` and `stopping` wait for that, `exit NAME`, `stop`, `signal`.

mod ends;
mod lives;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::*;
use crate::kernel::{Verdict, Vital};

struct World {
    board: Board,
    now: Instant,
    behaviour: BTreeMap<String, String>,
    log: Vec<String>,
    /// The last question to each part, for answers that come late.
    asked: BTreeMap<String, (Turn, Ask)>,
    lives: BTreeMap<String, u64>,
    answers: Vec<String>,
    unclean: bool,
}

impl World {
    fn new(parts: &str, behaviour: &str) -> Self {
        Self::with(parts, behaviour, Policy::default())
    }

    fn with(parts: &str, behaviour: &str, policy: Policy) -> Self {
        let specs = parts.split_whitespace().map(|part| {
            let (own, needs) = part.split_once(':').unwrap_or((part, ""));
            let needs = needs.split(',').filter(|need| !need.is_empty()).map(name);
            let own = own.strip_suffix('!').map_or((own, false), |own| (own, true));
            let spec = match own.0.strip_suffix('?') {
                Some(own) => ComponentSpec::optional(name(own), "1"),
                None => ComponentSpec::required(name(own.0), "1"),
            };
            let spec = if own.1 { spec.kept("it carries this command") } else { spec };
            spec.needing(needs)
        });
        let mut world = Self {
            board: Board::new(specs.collect(), policy, 7),
            now: Instant(7),
            behaviour: BTreeMap::new(),
            log: Vec::new(),
            asked: BTreeMap::new(),
            lives: BTreeMap::new(),
            answers: Vec::new(),
            unclean: false,
        };
        world.behave_as(behaviour);
        world
    }

    /// How parts behave from now on.
    fn behave_as(&mut self, behaviour: &str) {
        let behaviour = behaviour.split_whitespace().filter_map(|item| item.split_once('='));
        self.behaviour = behaviour.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    }

    fn boot(&mut self) {
        let unclean = self.unclean;
        self.feed(Input::Boot { checks: Vec::new(), unclean });
    }

    fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.board.handle(self.now, input);
            while let Some(effect) = self.board.poll_effect() {
                inputs.extend(self.act(effect));
            }
        }
    }

    /// Writes an effect down and gives the part's answer; `None` for a part that hangs.
    fn act(&mut self, effect: Effect) -> Option<Input> {
        let (line, answer) = match effect {
            Effect::Stage(stage) => (format!("[{}]", stage.words()), None),
            Effect::Show { check, .. } if check.verdict == Verdict::Pass => return None,
            Effect::Show { component, check } => (format!("{} {component} {}: {}", check.verdict.word(), check.name, check.detail), None),
            Effect::Ask { turn, component, ask, life, .. } => {
                self.asked.insert(component.to_string(), (turn, ask.clone()));
                self.lives.insert(component.to_string(), life);
                let answer = self.behave(&component, &ask).map(|answer| Input::Answer { turn, answer });
                if ask == Ask::Check {
                    return answer;
                }
                (format!("{} {component}", ask.words()), answer)
            }
            Effect::Probe { turn, component, .. } => {
                let vital = match self.how(&component, "health") {
                    "ok" => Vital::Fine,
                    "warn" => Vital::Worn("worn".to_owned()),
                    "fail" => Vital::Failing("broken".to_owned()),
                    _ => return None,
                };
                return Some(Input::Probed { turn, vital });
            }
            Effect::CutProbe(_) | Effect::Tell(News::State { .. }) => return None,
            // Of interest while the board serves.
            Effect::Tell(_) if !matches!(self.board.state(), BoardState::Ready | BoardState::Degraded | BoardState::Critical) => {
                return None;
            }
            Effect::Abort(component) => (format!("abort {component}"), None),
            Effect::Drop(component) => (format!("drop {component}"), None),
            Effect::Answered { id, result } => {
                let said = result.map_or_else(
                    |refusal| refusal.to_string(),
                    |done| {
                        let moved: Vec<_> = done.moved.iter().map(ComponentName::as_str).collect();
                        format!("ok {}{}", moved.join(","), done.said.map(|said| format!(" ({said})")).unwrap_or_default())
                    },
                );
                self.answers.push(format!("{}: {said}", id.0));
                return None;
            }
            Effect::Tell(News::Health { component, from, to, .. }) => (format!("{component} {from} -> {to}"), None),
            Effect::Tell(News::Restart { component, .. }) => (format!("{component} restarts later"), None),
            Effect::Tell(News::Circuit { component, open, failures }) => {
                (format!("{component} circuit open={open} after {failures}"), None)
            }
            Effect::Ready { degraded } => (format!("ready degraded={degraded}"), None),
            Effect::Stopping(reason) => (format!("stopping: {reason}"), None),
            Effect::Exit(reason) => (format!("exit {}: {reason}", reason.code()), None),
        };
        self.log.push(line);
        answer
    }

    fn how(&self, component: &ComponentName, verb: &str) -> &str {
        self.behaviour.get(&format!("{component}.{verb}")).map_or("ok", String::as_str)
    }

    fn behave(&self, component: &ComponentName, ask: &Ask) -> Option<Answer> {
        let verb = if *ask == Ask::Check { "post" } else { ask.words() };
        let how = self.how(component, verb);
        let result = match how {
            "ok" | "warn" => Ok(()),
            "fail" => Err(Fault::new("broken", "mend it")),
            _ => return None,
        };
        Some(match ask {
            Ask::Check | Ask::Verify => Answer::Checks(match how {
                "ok" => vec![Check::pass("self", "fine")],
                "warn" => vec![Check::warn("self", "worn", "look")],
                _ => vec![Check::pass("other", "fine"), Check::fail("self", "broken", "mend it")],
            }),
            Ask::Swap(address) => Answer::Swapped(result.map(|()| format!("now {address}"))),
            Ask::Load | Ask::Start | Ask::Stop | Ask::Recover => Answer::Did(result),
        })
    }

    fn event(&mut self, event: &str) {
        let (verb, rest) = event.split_once(' ').unwrap_or((event, ""));
        match verb {
            "stop" => self.feed(Input::Stop),
            "signal" => self.feed(Input::Signal),
            "exit" => {
                let life = self.lives.get(rest).copied().unwrap_or_default();
                self.feed(Input::Exited { component: name(rest), life, reason: "boom".into() });
            }
            "timeout" => self.timeout(),
            "wait" => self.wait(Duration::from_secs(rest.parse().unwrap())),
            "do" => self.order(rest),
            other => panic!("no such event: {other}"),
        }
    }

    /// A part answers its last question, late.
    fn late(&mut self, component: &str, answer: Answer) {
        let turn = self.asked[component].0;
        self.feed(Input::Answer { turn, answer });
    }

    fn timeout(&mut self) {
        self.now = self.board.poll_timeout().expect("something is awaited").max(self.now);
        self.feed(Input::Timeout);
    }

    /// Lets so much time pass, with everything that becomes due in it.
    fn wait(&mut self, span: Duration) {
        let end = self.now.after(span);
        let mut steps = 0;
        while let Some(due) = self.board.poll_timeout().filter(|due| *due <= end) {
            self.now = due.max(self.now);
            self.feed(Input::Timeout);
            steps += 1;
            assert!(steps < 10_000, "the board turns in circles at {:?}", self.now);
        }
        self.now = end;
    }

    /// `stop gate`, `restart store --cascade`, `swap vault folder:///x`.
    fn order(&mut self, words: &str) {
        let words: Vec<&str> = words.split(' ').collect();
        let (component, cascade) = (name(words[1]), words.contains(&"--cascade"));
        let command = match words[0] {
            "start" => Command::Start { component, cascade },
            "stop" => Command::Stop { component, cascade },
            "restart" => Command::Restart { component, cascade },
            _ => Command::Swap { component, address: words[2].to_owned() },
        };
        let id = CommandId(u64::try_from(self.answers.len()).unwrap() + 1);
        self.feed(Input::Command { id, command });
    }
}

fn name(text: &str) -> ComponentName {
    ComponentName::new(text).unwrap()
}

/// Boots the parts and plays the events; the log must be `want`, line by line, and so the final state.
#[track_caller]
fn check(parts: &str, behaviour: &str, events: &[&str], want: &str) -> World {
    let mut world = World::new(parts, behaviour);
    world.boot();
    events.iter().for_each(|event| world.event(event));
    let want: Vec<_> = want.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let stages = ["[pre-boot]", "[kernel init]", "[POST]"];
    let log: Vec<_> = world.log.iter().map(String::as_str).filter(|line| !stages.contains(line)).collect();
    assert_eq!(log, want, "\n{}", log.join("\n"));
    world
}

fn states(world: &World) -> String {
    let states: Vec<_> = world.board.report().iter().map(|part| format!("{}={}", part.name, part.state.word())).collect();
    format!("{}: {}", world.board.state().word(), states.join(" "))
}

#[test]
fn boots_by_need_and_stops_in_reverse() {
    let world = check(
        "gate:store store link:store",
        "",
        &["stop", "stop"],
        "[component loading]
         load store
         load gate
         load link
         [service start]
         start store
         start gate
         start link
         [ready]
         ready degraded=false
         stopping: stopped
         stop link
         stop gate
         stop store
         exit 0: stopped",
    );
    assert_eq!(states(&world), "stopped: store=stopped gate=stopped link=stopped");
}

#[test]
fn every_stage_is_announced_and_the_checks_of_the_node_come_first() {
    let mut world = World::new("", "");
    world.feed(Input::Boot { checks: vec![Check::warn("clock", "unset", "set it")], unclean: false });
    let stages: Vec<_> = Stage::ALL.iter().map(|stage| format!("[{}]", stage.words())).collect();
    let said: Vec<_> = world.log.iter().filter(|line| line.starts_with('[')).cloned().collect();
    assert_eq!(said, stages);
    assert_eq!(world.log.get(1).map(String::as_str), Some("warn board clock: unset"));

    let mut world = World::new("store", "");
    world.feed(Input::Boot { checks: vec![Check::fail("data folder", "is read-only", "choose another")], unclean: false });
    assert_eq!(world.log, ["[pre-boot]", "fail board data folder: is read-only", "exit 1: boot refused: board: data folder: is read-only"]);
    assert_eq!(states(&world), "failed: store=unloaded");
}

#[test]
fn parts_that_cannot_be_ordered_are_refused_by_name() {
    for (parts, why) in [
        ("a:b b:a", "components need each other: a -> b -> a; drop one of these needs"),
        ("a:ghost", "a needs ghost, which is not on this board: plug it in, or drop the need"),
        ("a a", "two components are called a: give one of them another name"),
    ] {
        check(
            parts,
            "",
            &[],
            &format!(
                "fail board components: {why}
                 exit 1: boot refused: board: components: {why}"
            ),
        );
    }
}

#[test]
fn post_refuses_a_required_part_by_name_after_asking_all() {
    check(
        "store gate:store link",
        "store.post=fail link.post=fail",
        &[],
        "fail store self: broken
         fail link self: broken
         warn gate need: needs store, which failed
         exit 1: boot refused: store: self: broken; link: self: broken",
    );
}

#[test]
fn post_without_an_optional_part_boots_degraded() {
    let world = check(
        "store mqtt? bridge?:mqtt",
        "mqtt.post=fail store.post=warn",
        &[],
        "warn store self: worn
         fail mqtt self: broken
         warn bridge need: needs mqtt, which failed
         [component loading]
         load store
         [service start]
         start store
         [ready]
         ready degraded=true",
    );
    assert_eq!(states(&world), "degraded: store=running mqtt=failed bridge=failed");
    let details: Vec<_> = world.board.report().into_iter().filter_map(|part| part.detail).collect();
    assert_eq!(details, ["self: broken", "needs mqtt, which failed"]);
}

#[test]
fn an_optional_part_that_a_required_one_needs_is_required() {
    check(
        "cache? gate:cache",
        "cache.post=fail",
        &[],
        "fail cache self: broken
         warn gate need: needs cache, which failed
         exit 1: boot refused: cache: self: broken",
    );
}

#[test]
fn a_failed_start_rolls_back_what_was_started_and_loaded() {
    let world = check(
        "store gate:store link:store",
        "gate.start=fail",
        &[],
        "[component loading]
         load store
         load gate
         load link
         [service start]
         start store
         start gate
         fail gate start: broken
         abort gate
         stopping: boot refused: gate: start: broken
         stop link
         stop store
         exit 1: boot refused: gate: start: broken",
    );
    assert_eq!(states(&world), "failed: store=stopped gate=failed link=stopped");
}

#[test]
fn a_failed_optional_start_takes_only_its_dependents() {
    let world = check(
        "store mqtt?:store bridge?:mqtt link:store",
        "mqtt.start=fail",
        &["signal"],
        "[component loading]
         load store
         load mqtt
         load bridge
         load link
         [service start]
         start store
         start mqtt
         fail mqtt start: broken
         abort mqtt
         warn bridge need: needs mqtt, which failed
         stop bridge
         start link
         [ready]
         ready degraded=true
         stopping: stopped
         stop link
         stop store
         exit 0: stopped",
    );
    assert_eq!(states(&world), "stopped: store=stopped mqtt=failed bridge=failed link=stopped");
}
