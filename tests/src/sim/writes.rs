//! What is written in the world: on devices, and through the hub's API.

use std::sync::Arc;

use mobo_adapters::sqlite::edge::{WriteError, Written};
use mobo_core::author::{Edit, Intent, segment};
use mobo_core::future::BoxFuture;
use mobo_core::ids::{Nonce, RecordKey};
use mobo_core::merge::{LocalBody, LocalWrite, Outcome, Prepared};
use mobo_core::record::RecordState;
use mobo_core::store::{HubStore, StoreError};
use mobo_runtime::machine::{Machine, random};
use serde_json::{Map, Value as Json, json};

use super::flood::{FLOODER, junk};
use super::machine::{all, poll};
use super::model::{HUB, View, What, Write};
use super::trace::{Try, Violation};
use super::world::{Event, World};
use crate::seed::Rng;

/// Of 100 samples, so many come from sensors beside the device.
const SENSED: u64 = 40;

impl World {
    /// A device writes something.
    pub(super) fn write(&mut self, device: usize) -> Try {
        if !self.healed {
            let pause = self.plan.write_every_us;
            self.soon((pause / 10, pause * 2), Event::Write(device));
        }
        if self.healed || self.devices[device].life.is_none() {
            return Ok(());
        }
        let count = if self.rng.chance(20) { 2 + self.rng.below(3) } else { 1 };
        let (Self { model, rng, plan, devices, .. }, mut writes) = (&mut *self, Vec::new());
        let mut sensed = Vec::new();
        let node = &mut devices[device];
        let (site, history) = (node.site, node.history);
        let life = node.life.as_mut().expect("it is there");
        let store = Arc::clone(&life.store);
        let Ok(schema) = life.wait(store.schema()) else { return self.after(device) };
        let mut futures: Vec<BoxFuture<'_, Result<Written, WriteError>>> = Vec::new();
        for nth in 0..count {
            let what = draw(rng, plan.mix);
            let collection = what.collection();
            if schema.get(collection.id).is_none() {
                continue;
            }
            if what == What::Samples {
                let write = model.sample(history);
                if rng.chance(SENSED) {
                    sensed.push(write);
                    continue;
                }
                let rows = vec![sample(&write)];
                let now = node.machine.wall();
                let segment = segment(rows, &collection, now).map_err(|error| Violation::new("write", error.to_string()))?;
                futures.push(Box::pin(store.append(segment)));
                writes.push(write);
                continue;
            }
            if what == What::Jobs && rng.chance(plan.forbidden) {
                let draft = model.trespass(history, site);
                futures.push(Box::pin(store.write(collection.id, draft.edits, None)));
                writes.push(draft.write);
                continue;
            }
            // Writes that share a commit are of different records: what an author sees is known then.
            let hot = hot((what, site), (rng.below(plan.hot_records) + nth * plan.hot_records) % (plan.hot_records * 4));
            let view = |key: &RecordKey| {
                let record = life.wait(store.record(key.clone())).ok().flatten();
                record.map(|record| view(what, &record.state)).unwrap_or_default()
            };
            let mut draft = model.draft(rng, (what, hot, site), history, view);
            if device == FLOODER {
                draft.edits.extend(junk(draft.write.id, plan.flood));
            }
            futures.push(Box::pin(store.write(collection.id, draft.edits, None)));
            writes.push(draft.write);
        }
        let has_failed = node.disk.tally().errors > life.errors;
        let results = life.wait(all(futures));
        not_after_failure(has_failed, (&node.name, results.iter().any(Result::is_ok)))?;
        for (write, result) in writes.into_iter().zip(results) {
            self.written(device, write, result)?;
        }
        if !sensed.is_empty() {
            self.sense(device, sensed)?;
        }
        self.wake(device);
        self.after(device)
    }

    pub(super) fn written(&mut self, device: usize, mut write: Write, result: Result<Written, WriteError>) -> Try {
        let node = &self.devices[device];
        let (name, lying) = (node.name.clone(), node.lies.is_some());
        match result {
            Ok(Written { entry: Some(entry), .. }) => {
                write.sealed = Some(entry);
                write.doubt = lying;
                write.kept_at = node.disk.ops();
                self.trace.count("writes");
                self.say(format_args!(
                    "{name} writes {} {} {}: lane {} seq {}",
                    write.what.name(),
                    write.id,
                    write.hot,
                    entry.lane.number(),
                    entry.seq.get()
                ));
            }
            Ok(Written { entry: None, .. }) => return Err(Violation::new("write", format!("{name}: {write:?} made no entry"))),
            Err(error) => {
                let excused = node.sick || node.disk.is_down() || node.life.as_ref().is_none_or(|life| life.writer.poison().is_some());
                self.say(format_args!("{name} cannot write {}: {error}", write.id));
                if !excused {
                    return Err(Violation::new("K-2", format!("{name} refuses write {}: {error}", write.id)));
                }
                self.trace.count("writes refused");
                write.doubt = true;
            }
        }
        self.model.writes.push(write);
        Ok(())
    }

    /// Somebody writes through the hub's API.
    pub(super) fn hub_write(&mut self) -> Try {
        let Some(pause) = self.plan.hub_write_every_us.filter(|_| !self.healed) else { return Ok(()) };
        self.soon((pause / 10, pause * 2), Event::HubWrite);
        let Some(life) = self.hub.life.as_mut() else { return Ok(()) };
        let what = loop {
            let what = draw(&mut self.rng, self.plan.mix);
            if what != What::Samples {
                break what;
            }
        };
        let site = *self.rng.pick(&["a", "b"]);
        let hot = hot((what, site), self.rng.below(self.plan.hot_records));
        let (store, project) = (Arc::clone(&life.store), life.opened.project);
        let waits = life.desk.waits();
        let draft = self.model.draft(&mut self.rng, (what, hot, site), HUB, |key| {
            let record = life.wait(store.record(project, key.clone())).ok().flatten();
            record.map(|record| view(what, &record.state)).unwrap_or_default()
        });
        let mut write = draft.write;
        match draft.edits.first().map(|edit| edit.intent) {
            // Others are merged before it, and may have counted or made the record: what it took from the counter is not known.
            Some(Intent::Delete) if waits => {
                write.delta = i64::MIN;
                write.visible.get_or_insert(false);
            }
            // Or they may have deleted it: then it makes the record, with nothing in what it does not name.
            Some(Intent::Merge) if waits => {
                write.visible.get_or_insert(true);
                write.text.get_or_insert(Json::Null);
            }
            _ => {}
        }
        self.hub_edits(write, draft.edits)
    }

    /// The hub merges edits of its own, and is seen to.
    pub(super) fn hub_edits(&mut self, mut write: Write, edits: Vec<Edit>) -> Try {
        let Some(life) = self.hub.life.as_mut() else { return Ok(()) };
        let has_failed = self.hub.disk.tally().errors > life.errors;
        let (what, collection, hot) = (write.what, write.what.collection(), write.hot.clone());
        // What others have written before it is merged first, and its author has not seen that.
        let waited = life.desk.waits();
        let nonce = random(self.hub.machine.as_ref()).unwrap_or_default();
        let local = LocalWrite {
            lane: life.opened.history.era().author.lane(collection.lane),
            collection: collection.id,
            body: LocalBody::Edits(edits),
            moment: self.hub.machine.moment(),
            nonce: Nonce(nonce),
            author: None,
            bounds: None,
        };
        // What the author sees must be what is merged with: everything that waits goes first.
        let queue = life.queue.clone();
        let mut merging = Box::pin(queue.merge(Prepared::Local(Box::new(local))));
        let mut answer = poll(&mut merging);
        while answer.is_none() && life.merge() {
            answer = poll(&mut merging);
        }
        drop(merging);
        write.doubt = !matches!(answer, Some(Ok(Outcome::Merged(_))));
        not_after_failure(has_failed, ("the hub", !write.doubt))?;
        if let Some(Ok(Outcome::Merged(merged))) = &answer
            && !waited
        {
            write.eff = merged.effs.first().map(|eff| eff.0);
        }
        if let (Some(eff), Some(life)) = (write.eff, self.hub.life.as_mut()) {
            let (store, project) = (Arc::clone(&life.store), life.opened.project);
            let record = life.wait(store.record(project, what.key(&hot))).ok().flatten();
            not_above(eff, record.map(|record| record.state).as_ref(), &hot)?;
        }
        let (delta, told) = (write.delta, if write.doubt { "?" } else { "done" });
        self.say(format_args!("the hub writes {} {} {hot} {delta:+}: {told}", what.name(), write.id));
        self.trace.count("writes through the hub");
        self.excuse_hub(&answer)?;
        self.model.writes.push(write);
        self.hub_merge()
    }

    fn excuse_hub(&self, answer: &Option<Result<Outcome, StoreError>>) -> Try {
        match answer {
            Some(Ok(Outcome::Merged(_))) => Ok(()),
            _ if self.plan.hub_disk_fails() || self.hub.disk.is_down() => Ok(()),
            other => Err(Violation::new("write", format!("the hub refuses a write: {other:?}"))),
        }
    }
}

/// After a write or a sync has failed, nobody is told by that process that anything is kept: what the disk holds is not known (S-4).
fn not_after_failure(has_failed: bool, (name, is_told): (&str, bool)) -> Try {
    if has_failed && is_told {
        return Err(Violation::new("S-4", format!("{name} says that a write is kept, and its disk has failed one since it started")));
    }
    Ok(())
}

/// What the hub writes now is later than whatever it holds of the record: otherwise its users write, and nothing comes of it (rule R6). Entries
/// of one lane that were made at once are a µs apart each.
fn not_above(eff: i64, state: Option<&RecordState>, hot: &str) -> Try {
    let Some(RecordState::Table(state)) = state else { return Ok(()) };
    match state.stamps().into_iter().map(|stamp| stamp.eff.0).max() {
        Some(latest) if latest > eff + 1_000_000 => {
            Err(Violation::new("R6", format!("the hub writes {hot} at {eff}, and holds of it what was made at {latest}")))
        }
        _ => Ok(()),
    }
}

fn draw(rng: &mut Rng, mix: [u64; 4]) -> What {
    let mut at = rng.below(mix.iter().sum());
    for (what, weight) in What::ALL.into_iter().zip([mix[0], mix[1], mix[2], mix[3]]) {
        if at < weight {
            return what;
        }
        at -= weight;
    }
    What::Things
}

/// A record of a site is that site's for ever: nobody else may write it.
fn hot((what, site): (What, &str), number: u64) -> String {
    let site = if what == What::Jobs { site } else { "" };
    format!("hot{site}{number}")
}

fn sample(write: &Write) -> Map<String, Json> {
    match json!({ "v": write.id }) {
        Json::Object(row) => row,
        _ => Map::new(),
    }
}

/// What a reader sees of a hot record.
pub(super) fn view(what: What, state: &RecordState) -> View {
    let collection = what.collection();
    let visible = state.project(&collection).is_some();
    let counter = match state {
        RecordState::Table(state) => state.counter(collection.fields[1].id),
        RecordState::Document(_) => 0,
    };
    View { visible, counter }
}

/// The drafts that a hub makes are checked like all others.
pub(super) fn delta_is_known(write: &Write) -> bool {
    write.delta != i64::MIN
}
