//! The demo, act by act.

use std::path::PathBuf;
use std::process::ChildStdin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use serde_json::{Value, json};

use super::cluster::{DEVICES, HUB, Node, ask_for, same_everywhere};
use super::collections::{NOTES, VITALS, WORK_ORDERS};
use super::court::Court;
use super::judge::{Case, Database, Verdict, Witness};
use super::narrator::Narrator;
use super::plan::{Author, Choices, HUB_THIRD, NOTE_COUNT, ORDERS, Task};
use super::proxy::Wire;
use super::vitals::Vitals;
use super::wait::{Interrupt, Interrupted, Look, until};
use super::writers::{Crew, Ended, Target};

/// How long the nodes may take to hold the same.
const CONVERGE_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a device may take to learn of a collection, or to be live again.
const LINK_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the writing before the kill may take.
const KILL_TIMEOUT: Duration = Duration::from_secs(120);

/// Everything that the demo has set up.
#[derive(Debug)]
pub(super) struct Story<'a> {
    pub(super) hub: Node,
    pub(super) devices: [Node; 2],
    pub(super) key: String,
    narrator: &'a Narrator,
    interrupt: &'a Interrupt,
    wires: [Wire; 2],
    store: Option<String>,
    court: Court,
    authors: [Author; 3],
    choices: Choices,
}

/// What a story is told with.
#[derive(Debug)]
pub(super) struct Setting<'a> {
    /// The demo's folder.
    pub(super) home: PathBuf,
    /// A Postgres URL; absent for SQLite.
    pub(super) store: Option<&'a str>,
    /// Where the choices come from.
    pub(super) seed: u64,
    /// Who tells it.
    pub(super) narrator: &'a Narrator,
    /// What ends it.
    pub(super) interrupt: &'a Interrupt,
}

/// How many writes to records a story has.
pub(super) fn steps() -> usize {
    let mut authors = authors(0);
    authors.iter_mut().map(|author| author.creation().len() + author.together().len() + author.apart().len() + author.report().len()).sum()
}

fn authors(seed: u64) -> [Author; 3] {
    [Author::new(HUB, HUB_THIRD, seed), Author::new(DEVICES[0], 0, seed), Author::new(DEVICES[1], 1, seed)]
}

impl<'a> Story<'a> {
    /// Everything in its place; nothing runs yet but the judge.
    pub(super) fn new(setting: &Setting<'a>, wires: [Wire; 2]) -> anyhow::Result<Self> {
        let home = setting.home.as_path();
        let advertised = wires.iter().map(|wire| wire.address.to_string()).collect::<Vec<_>>().join(",");
        let hub = Node::new(HUB, "hub", home).set("quic.listen", "127.0.0.1:0").set("quic.advertise", &advertised);
        let hub = hub.set("mqtt.listen", "127.0.0.1:0");
        // The wires that are cut carry QUIC: over another transport the devices would get past them.
        let device = |(name, wire): (&'static str, &Wire)| {
            Node::new(name, "edge", home).set("hub.url", &wire.address.to_string()).set("link.transport", "quic")
        };
        let [one, two] = &wires;
        Ok(Self {
            hub: hub.set("store.url", setting.store.unwrap_or("sqlite")),
            devices: [device((DEVICES[0], one)), device((DEVICES[1], two))],
            key: String::new(),
            narrator: setting.narrator,
            interrupt: setting.interrupt,
            wires,
            store: setting.store.map(str::to_owned),
            court: Court::open(&home.join("journal.jsonl"))?,
            authors: authors(setting.seed),
            choices: Choices::new(setting.seed),
        })
    }

    /// All acts, and the verdict.
    ///
    /// # Errors
    ///
    /// With what was waited for, or what was refused, and what the nodes said last.
    pub(super) fn play(&mut self) -> anyhow::Result<Verdict> {
        self.acts().map_err(|error| {
            if error.root_cause().is::<Interrupted>() {
                return error;
            }
            let nodes = std::iter::once(&self.hub).chain(&self.devices);
            let tails: String = nodes.filter_map(Node::tail).map(|tail| format!("\n  {tail}")).collect();
            anyhow!("{error:#}{tails}")
        })
    }

    fn acts(&mut self) -> anyhow::Result<Verdict> {
        self.boot()?;
        let vitals = self.start_vitals()?;
        self.together()?;
        self.apart(&vitals)?;
        self.heal(vitals)?;
        self.judge()
    }

    fn boot(&mut self) -> anyhow::Result<()> {
        self.hub.boot(self.interrupt)?;
        let quic = self.hub.address("quic")?;
        self.wires.iter().for_each(|wire| wire.lead_to(quic));
        for shape in [&WORK_ORDERS, &NOTES, &VITALS] {
            let fields: Vec<String> = shape.fields.iter().map(|(name, kind)| format!("{name}:{kind}")).collect();
            ask_for(&self.hub.folder, "collection create", json!({ "name": shape.name, "kind": shape.kind, "fields": fields }))?;
        }
        self.key = word(&ask_for(&self.hub.folder, "key create", json!({ "role": "service", "name": "demo" }))?, "key")?;
        let store = word(&self.hub.status()?, "store")?;
        self.narrator.say(&format!("a hub is up, on {store}, with work orders (a table), notes (documents) and vitals (a stream)"));
        for device in &mut self.devices {
            let token = word(&ask_for(&self.hub.folder, "device invite", json!({ "name": device.name }))?, "token")?;
            device.join(&token)?;
            device.boot(self.interrupt)?;
        }
        for device in &self.devices {
            let mut client = target(device, None)?.client();
            until(&format!("{} to learn of {}", device.name, VITALS.name), LINK_TIMEOUT, self.interrupt, || {
                let answer = client.send("GET", &format!("/rest/v1/{}?limit=1", VITALS.name), None)?;
                Ok(if answer.status == 200 { Look::Found(()) } else { Look::NotYet(answer.text()) })
            })?;
        }
        self.narrator.say("two devices made their own keys, joined with a token each, and are live");
        Ok(())
    }

    fn start_vitals(&self) -> anyhow::Result<[Vitals; 2]> {
        let [one, two] = &self.devices;
        let start = |device| Vitals::start(target(device, None)?, self.court.journal());
        let vitals = [start(one)?, start(two)?];
        self.narrator.say("each device measures this machine ten times a second: processor, memory, disk, network");
        Ok(vitals)
    }

    /// Everything works, everybody writes.
    fn together(&mut self) -> anyhow::Result<()> {
        let tasks = self.authors.each_mut().map(Author::creation);
        self.write(0, tasks)?;
        self.converge("everybody to have all records", false)?;
        self.narrator.say(&format!("{ORDERS} work orders and {NOTE_COUNT} notes, written in three places, are everywhere"));
        let tasks = self.authors.each_mut().map(Author::together);
        self.write(1, tasks)?;
        self.converge("everybody to have all changes", false)?;
        self.narrator.say(&format!("{} writes acknowledged so far; all three hold the same", self.court.journal().records()));
        Ok(())
    }

    /// The links are cut, everybody writes to the same records, and one device dies.
    fn apart(&mut self, vitals: &[Vitals; 2]) -> anyhow::Result<()> {
        self.wires.iter().for_each(|wire| wire.set_cut(true));
        let (cut, before) = (Instant::now(), self.court.journal().records());
        self.narrator.say(&format!("BOTH LINKS ARE CUT. All three now edit the same {ORDERS} work orders and {NOTE_COUNT} notes"));
        let mut left = self.until_killed()?;
        let dead = Instant::now();
        self.devices[1].boot(self.interrupt)?;
        let took = dead.elapsed().as_millis();
        self.narrator.say(&format!(
            "{} is back after {took} ms, still cut off, and goes on with the {} edits it was at",
            DEVICES[1],
            left.len()
        ));
        vitals[1].move_to(target(&self.devices[1], None)?);
        let [_, one, two] = self.authors.each_mut().map(Author::report);
        left.extend(two);
        self.write(2, [Vec::new(), one, left])?;
        let apart = self.court.journal().records() - before;
        self.narrator.say(&format!("{apart} writes acknowledged while cut off; the telemetry goes on until the devices notice"));
        self.noticed(cut)
    }

    /// Waits until both devices know that nobody hears them: after that, nothing of their old connections is left.
    fn noticed(&self, cut: Instant) -> anyhow::Result<()> {
        let mut reason = String::new();
        for device in self.devices.iter().rev() {
            self.narrator.waiting(&format!("{} to notice", device.name));
            reason = until(&format!("{} to notice that its link is cut", device.name), LINK_TIMEOUT, self.interrupt, || {
                let link = link(device)?;
                let why = || link.get("last_error").and_then(Value::as_str).unwrap_or("no reason given").to_owned();
                Ok(if is_live(&link) { Look::NotYet(link.to_string()) } else { Look::Found(why()) })
            })?;
        }
        self.narrator.waiting("");
        let (seconds, name) = (cut.elapsed().as_secs_f64(), DEVICES[0]);
        let dropped: u64 = self.wires.iter().map(|wire| wire.counts().1).sum();
        self.narrator.say(&format!("{name} notices after {seconds:.1} s (\"{reason}\"); {dropped} datagrams went nowhere"));
        Ok(())
    }

    /// All three write, until the second device is killed in the middle of it; gives what it has not done.
    fn until_killed(&mut self) -> anyhow::Result<Vec<Task>> {
        let [for_hub, for_one, for_two] = self.authors.each_mut().map(Author::apart);
        let [hub, one, two] = self.targets()?;
        let fatal = for_two.len() / 3 + self.choices.below(for_two.len() / 3);
        let (journal, interrupt, narrator) = (self.court.journal(), self.interrupt, self.narrator);
        let progress = || narrator.step();
        let crew = || Crew { journal: &journal, round: 2, interrupt, progress: &progress, done: AtomicUsize::new(0) };
        let crews = [crew(), crew(), crew()];
        let doomed = &mut self.devices[1];
        let ended = std::thread::scope(|scope| {
            let writing = [
                scope.spawn(|| crews[0].write(&hub, for_hub)),
                scope.spawn(|| crews[1].write(&one, for_one)),
                scope.spawn(|| crews[2].write(&two, for_two)),
            ];
            let killed = until("the moment to kill a device", KILL_TIMEOUT, interrupt, || {
                let done = crews[2].done.load(Ordering::SeqCst);
                let over = done >= fatal || writing[2].is_finished();
                Ok(if over { Look::Found(()) } else { Look::NotYet(format!("{done} of {fatal} writes are acknowledged")) })
            });
            let killed = killed.and_then(|()| doomed.kill());
            let ended = writing.map(|thread| thread.join().unwrap_or_else(|_| bail!("a writer panicked")));
            killed.map(|()| ended)
        })?;
        let [hub, one, two] = ended;
        if hub?.node_gone || one?.node_gone {
            bail!("a node that nobody killed has gone");
        }
        let Ended { left, node_gone } = two?;
        if !node_gone {
            bail!("{} was not killed in the middle of its writes: it had written everything", DEVICES[1]);
        }
        let done = crews[2].done.load(Ordering::SeqCst);
        let unknown = journal.unknown();
        narrator.say(&format!("{} IS KILLED (SIGKILL) after {done} of these writes; {unknown} requests got no answer", DEVICES[1]));
        Ok(left)
    }

    /// The links carry again.
    fn heal(&mut self, vitals: [Vitals; 2]) -> anyhow::Result<()> {
        let healing = Instant::now();
        self.wires.iter().for_each(|wire| wire.set_cut(false));
        self.narrator.say("THE LINKS ARE HEALED");
        for device in &self.devices {
            // As `mobo edge sync` does: connect now, whatever pause was planned.
            ask_for(&device.folder, "sync", json!({ "timeout_ms": 0 }))?;
            until(&format!("{} to be live again", device.name), LINK_TIMEOUT, self.interrupt, || {
                let link = link(device)?;
                Ok(if is_live(&link) { Look::Found(()) } else { Look::NotYet(link.to_string()) })
            })?;
        }
        for vitals in vitals {
            vitals.stop()?;
        }
        self.converge("everybody to hold the same", true)?;
        let took = healing.elapsed().as_secs_f64();
        let digest = self.hub.status()?.pointer("/buckets/0/digest").and_then(Value::as_str).unwrap_or_default().to_owned();
        self.narrator.say(&format!(
            "converged {took:.1} s after that: digest {}… on all three, nothing pending",
            digest.get(..16).unwrap_or_default()
        ));
        Ok(())
    }

    fn judge(&mut self) -> anyhow::Result<Verdict> {
        let journal = self.court.journal();
        let (records, samples) = (journal.records(), journal.samples());
        self.narrator
            .say(&format!("a judge, who kept a list of {records} writes and {samples} samples, reads three APIs and three databases"));
        let mut nodes = Vec::new();
        for node in [&self.hub, &self.devices[0], &self.devices[1]] {
            let status = node.status()?;
            let key = (node.name == HUB).then(|| self.key.clone());
            let device = word(&status, if node.name == HUB { "id" } else { "device" })?;
            let database = match (&self.store, node.name == HUB) {
                (Some(url), true) => Database::Postgres(url.clone()),
                (None, true) => Database::Sqlite(node.folder.join("hub.db")),
                (_, false) => Database::Sqlite(node.folder.join("edge.db")),
            };
            nodes.push(Witness {
                name: node.name.to_owned(),
                folder: node.folder.clone(),
                device,
                http: node.address("http")?,
                key,
                database,
            });
        }
        self.court.verdict(&Case { nodes }, self.interrupt)
    }

    fn targets(&self) -> anyhow::Result<[Target; 3]> {
        let [one, two] = &self.devices;
        Ok([target(&self.hub, Some(&self.key))?, target(one, None)?, target(two, None)?])
    }

    /// The hub, the first and the second device write at the same time.
    fn write(&self, round: u32, tasks: [Vec<Task>; 3]) -> anyhow::Result<()> {
        let journal = self.court.journal();
        let progress = || self.narrator.step();
        let crew = Crew { journal: &*journal, round, interrupt: self.interrupt, progress: &progress, done: AtomicUsize::new(0) };
        let all = self.targets()?.into_iter().zip(tasks);
        std::thread::scope(|scope| {
            let crew: &Crew<'_, ChildStdin> = &crew;
            let writing: Vec<_> = all.map(|(target, tasks)| scope.spawn(move || crew.write(&target, tasks))).collect();
            for thread in writing {
                let ended = thread.join().unwrap_or_else(|_| bail!("a writer panicked"))?;
                if ended.node_gone {
                    bail!("a node has gone in the middle of the writing");
                }
            }
            Ok(())
        })
    }

    fn converge(&self, what: &str, all_lanes: bool) -> anyhow::Result<()> {
        self.narrator.waiting(what);
        until(what, CONVERGE_TIMEOUT, self.interrupt, || {
            // The hub last: what a device has pushed by then is in what the hub holds.
            let [one, two] = &self.devices;
            let (one, two) = (one.status()?, two.status()?);
            let statuses = [self.hub.status()?, one, two];
            Ok(same_everywhere(&statuses, all_lanes).map_or_else(Look::NotYet, Look::Found))
        })?;
        self.narrator.waiting("");
        Ok(())
    }

    /// Starts everything once more, to run on without the demo, whose wires end with it.
    pub(super) fn leave(&mut self) -> anyhow::Result<()> {
        let address = |key: &str| self.hub.address(key).map(|address| address.to_string());
        let (http, quic, mqtt) = (address("http")?, address("quic")?, address("mqtt")?);
        let store = self.store.as_deref().unwrap_or("sqlite");
        for device in &mut self.devices {
            let http = device.address("http")?.to_string();
            device.stop(self.interrupt)?;
            device.settle(&[("http.listen", &http), ("hub.url", &quic)])?;
        }
        self.hub.stop(self.interrupt)?;
        self.hub.settle(&[("http.listen", &http), ("quic.listen", &quic), ("mqtt.listen", &mqtt), ("store.url", store)])?;
        let nodes = std::iter::once(&mut self.hub).chain(&mut self.devices);
        for node in nodes {
            node.boot(self.interrupt)?;
        }
        self.hub.leave();
        self.devices.iter_mut().for_each(Node::leave);
        Ok(())
    }

    /// Acknowledged so far: writes to records, and samples.
    pub(super) fn acknowledged(&self) -> u64 {
        let journal = self.court.journal();
        journal.records() + journal.samples()
    }
}

fn target(node: &Node, key: Option<&str>) -> anyhow::Result<Target> {
    Ok(Target { name: node.name, http: node.address("http")?, key: key.map(str::to_owned) })
}

fn link(device: &Node) -> anyhow::Result<Value> {
    Ok(device.status()?.get("link").cloned().unwrap_or_default())
}

fn is_live(link: &Value) -> bool {
    link.get("state").and_then(Value::as_str) == Some("live")
}

fn word(answer: &Value, key: &str) -> anyhow::Result<String> {
    answer.get(key).and_then(Value::as_str).map(str::to_owned).with_context(|| format!("no {key} in {answer}"))
}
