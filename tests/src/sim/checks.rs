//! What must hold, while it runs and in the end.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mobo_core::document;
use mobo_core::ids::{ProjectId, RecordKey, StateHash};
use mobo_core::message::Code;
use mobo_core::query::Select;
use mobo_core::record::RecordState;
use mobo_core::store::{HubStore, QuarantineRow, StoreError};
use mobo_core::value::Value;
use mobo_vfs::Disk;
use serde_json::{Value as Json, json};

use super::device::Life;
use super::model::{Expected, What, Write};
use super::trace::{Try, Violation};
use super::world::{Event, MINUTE_US, World};
use super::writes::delta_is_known;
use super::yards::{is_decided, may_be_refused, trail};

pub(super) fn store_failed(error: StoreError) -> Violation {
    Violation::new("store", error.to_string())
}

impl World {
    /// Everything that each device was told to be kept is there after it came back.
    pub(super) fn check_kept(&mut self, device: usize) -> Try {
        let may_be_unheard = self.refusals_may_be_lost();
        let (node, Some(project)) = (&mut self.devices[device], self.project) else { return Ok(()) };
        let Some(life) = node.life.as_mut() else { return Ok(()) };
        let mut shown = BTreeMap::new();
        let histories: BTreeSet<usize> = node.lineage.iter().copied().chain([node.history]).collect();
        for write in self.model.writes.iter().filter(|write| histories.contains(&write.history) && !write.doubt) {
            if write.what == What::Samples || write.forbidden {
                continue;
            }
            // In one go: a device comes back often, and has much to show.
            if let Entry::Vacant(place) = shown.entry(write.what) {
                match self::shown(life, project, write.what) {
                    Ok(ids) => {
                        place.insert(ids);
                    }
                    Err(_) if node.sick || node.disk.is_down() => return Ok(()),
                    Err(error) => return Err(Violation::new("L0", format!("{} cannot read: {error}", node.name))),
                }
            }
            let there = shown[&write.what].contains(write.witness().id.as_str());
            // Whether the hub has it, or keeps it in quarantine, is looked at in the end.
            let may_be_gone = write.refusable || may_be_unheard && write.what == What::Notes;
            let is_accounted_for = there || may_be_gone && is_decided(life, write);
            if !is_accounted_for {
                let trail = trail(life, write);
                let what = format!("{} was told that write {} is kept, and has lost it: {trail}", node.name, write.id);
                return Err(Violation::new("L0", what));
            }
        }
        Ok(())
    }

    /// Everything that the hub has acknowledged is there after it came back.
    pub(super) fn check_acked(&mut self) -> Try {
        let Some(life) = self.hub.life.as_mut() else { return Ok(()) };
        let (store, project) = (Arc::clone(&life.store), life.opened.project);
        for (lane, (seq, chain)) in &self.acked {
            match life.wait(store.chain_at(project, *lane, *seq)) {
                Ok(found) if found == Some(*chain) => {}
                Ok(found) => {
                    let what = format!("entry {} of {lane:?} was acknowledged with {chain:?}, and is {found:?}", seq.get());
                    return Err(Violation::new("I3", what));
                }
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Recomputes what is stored beside the rows, on every node that is up.
    pub(super) fn audit(&mut self) -> Try {
        self.trace.count("audits");
        self.check_acked()?;
        self.audit_hub()?;
        for node in &mut self.devices {
            let (Some(life), ops) = (node.life.as_mut(), node.disk.ops()) else { continue };
            // A disk that has done nothing holds what it held.
            if life.sound_at == Some(ops) {
                continue;
            }
            let store = Arc::clone(&life.store);
            if let Ok(audit) = life.wait(store.audit()) {
                if !audit.is_clean() {
                    return Err(Violation::new("I12", format!("{} is not what its rows say: {audit:?}", node.name)));
                }
                life.sound_at = Some(ops);
            }
        }
        Ok(())
    }

    fn audit_hub(&mut self) -> Try {
        let ops = self.hub.disk.ops();
        let Some(life) = self.hub.life.as_mut() else { return Ok(()) };
        if let Some((_, lanes)) = life.sound_at.as_ref().filter(|sound| sound.0 == ops) {
            return if lanes.is_empty() { Ok(()) } else { self.told.lanes(lanes) };
        }
        let (store, project) = (Arc::clone(&life.store), life.opened.project);
        let buckets = life.wait(store.audit_buckets(project));
        for bucket in buckets.iter().flatten() {
            if bucket.stored != bucket.computed || !bucket.damaged.is_empty() {
                return Err(Violation::new("I12", format!("the hub's bucket is not the sum of its rows: {bucket:?}")));
            }
            if bucket.head < bucket.position_max {
                return Err(Violation::new("I5", format!("a position is above its bucket's head: {bucket:?}")));
            }
        }
        let lanes = life.wait(store.audit_lanes(project));
        if let Some(lanes) = lanes.as_ref().ok().filter(|lanes| !lanes.is_empty()) {
            self.told.lanes(lanes)?;
        }
        for lane in lanes.iter().flatten() {
            if lane.entries != lane.last.get() || lane.broken_at.is_some() {
                return Err(Violation::new("I1", format!("a lane is not what its entries make: {lane:?}")));
            }
        }
        life.sound_at = buckets.ok().and(lanes.ok()).map(|lanes| (ops, lanes));
        Ok(())
    }

    /// Counts what the disks did.
    pub(super) fn tally_disks(&mut self) {
        let disks = self.devices.iter().map(|device| &device.disk).chain([&self.hub.disk]);
        let tallies: Vec<_> = disks.map(Disk::tally).collect();
        for tally in tallies {
            self.trace.add("disk writes", tally.writes);
            self.trace.add("disk syncs", tally.syncs);
            self.trace.add("disk errors", tally.errors);
            self.trace.add("disk full", tally.full);
            self.trace.add("syncs that were lies", tally.lies);
            self.trace.add("sectors lost", tally.sectors_lost);
        }
    }

    /// True while every device is away: then the hub has weeks in which nothing happens.
    pub(super) fn nobody_comes(&self) -> bool {
        self.plan.away && !self.healed
    }

    /// Every connected minute, more of what devices have written is at the hub for good, until all of it is.
    pub(super) fn progress(&mut self, before: u64) -> Try {
        let acked: u64 = self.acked.values().map(|(seq, _)| seq.get()).sum();
        // What several sensors said at once is one entry.
        let entries = self.model.writes.iter().filter_map(|write| write.sealed.map(|at| (at.incarnation, at.lane, at.seq)));
        let written = entries.collect::<BTreeSet<_>>().len() as u64;
        if acked >= written {
            return Ok(());
        }
        if acked == before {
            return Err(Violation::new(
                "N-6",
                format!("a connected minute has passed, and the hub has {acked} of {written} writes as before"),
            ));
        }
        self.trace.count("connected minutes with progress");
        self.soon((MINUTE_US, MINUTE_US), Event::Progress(acked));
        Ok(())
    }

    /// Whether everybody has what everybody wrote: once, and the same.
    pub(super) fn converged(&mut self) -> Try {
        let late = |what: String| Err(Violation::new("liveness", what));
        for node in self.devices.iter().filter(|node| !node.destroyed) {
            let Some(talk) = node.life.as_ref().and_then(|life| life.talk.as_ref()) else {
                return late(format!("{} has no session", node.name));
            };
            if !node.life.as_ref().is_some_and(|life| life.uplink.status.borrow().drained) {
                return late(format!("{} has not pushed and pulled everything on link {}", node.name, talk.link));
            }
        }
        let Some(life) = self.hub.life.as_mut() else { return late("the hub is not up".to_owned()) };
        if life.desk.waits() {
            return late("the hub has not merged everything".to_owned());
        }
        if life.opened.history.era().recovering {
            return late("the hub still waits for devices to give back what it lost".to_owned());
        }
        let merged = self.merged()?;
        self.check_records(&merged)?;
        self.check_order(&merged)?;
        self.check_effs()?;
        self.check_promised()?;
        self.check_refused(&merged)?;
        self.check_devices()
    }

    /// No link of the product loses a frame and goes on, and none lets one overtake another of its channel. Where frames come one by one, a
    /// refusal may be lost, or be overtaken by the ack that covers it and still be on its way when the link breaks.
    fn refusals_may_be_lost(&self) -> bool {
        self.trace.counts.contains_key("frames in no order")
    }

    /// What was refused is not silently gone: its author knows.
    fn check_refused(&mut self, merged: &BTreeSet<u64>) -> Try {
        let mut known = BTreeSet::new();
        for node in &mut self.devices {
            let Some(life) = node.life.as_mut() else { continue };
            let store = Arc::clone(&life.store);
            for row in life.wait(store.inbox(None, 1_000)).map_err(store_failed)? {
                known.extend(row.record);
            }
        }
        let may_be_lost = self.refusals_may_be_lost();
        // Whoever was destroyed with all that it had is told nothing.
        let nodes = self.devices.iter().filter(|node| !node.destroyed);
        let alive: BTreeSet<usize> = nodes.flat_map(|node| node.lineage.iter().copied().chain([node.history])).collect();
        let is_known = |write: &&Write| {
            let by_record = known.contains(&write.witness()) || write.refusable && known.contains(&write.what.key(&write.hot));
            may_be_lost || write.doubt || write.vague || by_record || !alive.contains(&write.history)
        };
        let is_refused = |write: &&Write| write.forbidden || write.refusable && !merged.contains(&write.id);
        match self.model.writes.iter().filter(is_refused).find(|write| !is_known(write)) {
            Some(write) => Err(Violation::new("I4", format!("the hub refused a write, and nobody on the device knows: {write:?}"))),
            None => Ok(()),
        }
    }

    /// Of every row and document that a device held when the hub was restored, and holds yet, the hub has all that was in it (rule R22).
    fn check_promised(&mut self) -> Try {
        let Some(life) = self.hub.life.as_mut() else { return Ok(()) };
        let (store, project) = (Arc::clone(&life.store), life.opened.project);
        for (_, key, held) in &self.promised {
            let Some(what) = What::ALL.into_iter().find(|what| what.collection().id == key.collection) else { continue };
            let collection = what.collection();
            let record = life.wait(store.record(project, key.clone())).map_err(store_failed)?;
            let Some(record) = record else {
                return Err(Violation::new("R22", format!("{key:?} was held by a device when the hub was restored, and is gone")));
            };
            let both = record.state.join(&collection, &counted_elsewhere(held, &record.state));
            if both.as_ref().map(RecordState::state_hash).ok() != Some(record.state.state_hash()) {
                let what = format!("{key:?} lacks what a device held when the hub was restored: {record:?}, and it held {held:?}");
                return Err(Violation::new("R22", what));
            }
        }
        Ok(())
    }

    /// The hub refused nothing that should be merged. Gives the documents of entries that their devices had to write again, and did not: where
    /// the ack came without the refusal before it, they took the document without the entry for the hub's word on it.
    fn check_quarantine(&mut self) -> Try<BTreeSet<RecordKey>> {
        let may_be_unheard = self.refusals_may_be_lost();
        let life = self.hub.life.as_mut().expect("it is up");
        let (store, project) = (Arc::clone(&life.store), life.opened.project);
        let forbidden = self.model.writes.iter().filter(|write| write.forbidden);
        let forbidden: BTreeSet<String> = forbidden.map(|write| write.witness().id.as_str().to_owned()).collect();
        let mut unheard = BTreeSet::new();
        for row in life.wait(store.quarantine(project, None, 1_000)).map_err(store_failed)? {
            if may_be_refused(&row) || row.record.as_ref().is_some_and(|(_, id)| forbidden.contains(id)) {
                continue;
            }
            if !may_be_unheard || !is_about_place(&row) {
                return Err(Violation::new("quarantine", format!("the hub refused what should be merged: {row:?}")));
            }
            let entry = life.wait(store.quarantined(project, row.n)).map_err(store_failed)?;
            let ops = entry.and_then(|entry| document::op::decode_payload(&entry.payload).ok());
            unheard.extend(ops.into_iter().flatten().map(|op| op.key));
        }
        Ok(unheard)
    }

    /// The writes that the hub has, each once; and none may be missing that somebody was told is kept.
    fn merged(&mut self) -> Try<BTreeSet<u64>> {
        let samples = self.samples()?;
        let unheard = self.check_quarantine()?;
        let life = self.hub.life.as_mut().expect("it is up");
        let (store, project) = (Arc::clone(&life.store), life.opened.project);
        let mut merged = BTreeSet::new();
        for write in &self.model.writes {
            let times = match write.what {
                What::Samples => samples.get(&write.id).copied().unwrap_or(0),
                _ => {
                    let record = life.wait(store.record(project, write.witness())).map_err(store_failed)?;
                    record.map_or(0, |record| counter(write.what, &record.state))
                }
            };
            match times {
                0 if write.doubt || write.vague || write.forbidden || write.refusable || unheard.contains(&write.witness()) => {}
                _ if write.forbidden => return Err(Violation::new("I13", format!("it may not be written there: {write:?}"))),
                1 => {
                    merged.insert(write.id);
                }
                0 => return Err(Violation::new("A", format!("write {} is not at the hub: {write:?}", write.id))),
                _ if write.vague => {
                    merged.insert(write.id);
                }
                times => return Err(Violation::new("I11b", format!("write {} was merged {times} times: {write:?}", write.id))),
            }
        }
        Ok(merged)
    }

    fn samples(&mut self) -> Try<BTreeMap<u64, i64>> {
        let life = self.hub.life.as_mut().expect("it is up");
        let (store, project) = (Arc::clone(&life.store), life.opened.project);
        let collection = Arc::new(What::Samples.collection());
        let select = Select { limit: 100_000, ..Select::all(project, collection) };
        let page = life.wait(store.select(select)).map_err(store_failed)?;
        let mut samples = BTreeMap::new();
        for row in page.rows {
            *samples.entry(row.get("v").and_then(Json::as_u64).unwrap_or_default()).or_default() += 1;
        }
        Ok(samples)
    }

    /// Each record that everybody writes is what the merged writes can make of it.
    fn check_records(&mut self, merged: &BTreeSet<u64>) -> Try {
        let vague: BTreeSet<(What, String)> = self
            .model
            .writes
            .iter()
            .filter(|write| merged.contains(&write.id) && !delta_is_known(write))
            .map(|write| (write.what, write.hot.clone()))
            .collect();
        let life = self.hub.life.as_mut().expect("it is up");
        let (store, project) = (Arc::clone(&life.store), life.opened.project);
        for ((what, hot), expected) in self.model.expect(merged) {
            let record = life.wait(store.record(project, what.key(&hot))).map_err(store_failed)?;
            let Some(record) = record else {
                // A delete of the hub's may have come to a record that nobody had made: then there is none.
                if expected.vague || expected.texts.is_empty() && expected.visible.iter().all(|(_, may)| !may) {
                    continue;
                }
                return Err(Violation::new("A", format!("{hot} of {} is not at the hub: {expected:?}", what.name())));
            };
            let vague = expected.vague || vague.contains(&(what, hot.clone()));
            check_record((what, &hot), &record.state, &expected, vague)?;
        }
        Ok(())
    }

    /// Every device holds of each record what the hub holds.
    fn check_devices(&mut self) -> Try {
        let mut keys: BTreeMap<RecordKey, Write> = BTreeMap::new();
        for write in self.model.writes.iter().filter(|write| write.what != What::Samples) {
            keys.insert(write.witness(), write.clone());
            if !write.forbidden {
                keys.insert(write.what.key(&write.hot), write.clone());
            }
        }
        let readable = self.readable()?;
        let life = self.hub.life.as_mut().expect("it is up");
        let (store, project) = (Arc::clone(&life.store), life.opened.project);
        for (key, write) in keys {
            let record = life.wait(store.record(project, key.clone())).map_err(store_failed)?;
            let want = record.as_ref().map(|record| record.state.state_hash());
            let site = record.as_ref().and_then(|record| site(write.what, &record.state));
            for node in self.devices.iter_mut().filter(|node| !node.destroyed) {
                let held = match write.what {
                    What::Jobs => site.as_deref() == Some(node.site),
                    What::Carts => site.as_ref().is_some_and(|site| readable[&node.keys.device()].contains(&format!("yard:{site}"))),
                    What::Things | What::Notes | What::Samples => true,
                };
                let Some(edge) = node.life.as_mut() else { continue };
                let store = Arc::clone(&edge.store);
                let found = edge.wait(store.record(key.clone())).map_err(store_failed)?;
                let hash = found.as_ref().map(|record| record.state.state_hash());
                let same = if held { hash == want } else { hash.is_none() || write.what == What::Jobs && hidden(want, hash) };
                if !same {
                    let what = format!("{}: {key:?} is {found:?}, and at the hub {record:?}", node.name);
                    return Err(Violation::new("I6", what));
                }
            }
        }
        Ok(())
    }
}

/// What a device held, without what the hub may count in the log that it was sealed in first: the device held it as authored again by a copy. How
/// often each write counts is looked at by itself.
fn counted_elsewhere(held: &RecordState, has: &RecordState) -> RecordState {
    let (RecordState::Table(held), RecordState::Table(has)) = (held, has) else { return held.clone() };
    let mut held = held.clone();
    for (field, tallies) in &mut held.counters {
        let Some(known) = has.counters.get(field) else { continue };
        tallies.retain(|origin, tally| {
            let mut others = known.iter().filter(|(other, _)| other.device == origin.device);
            known.contains_key(origin) || others.all(|(_, other)| other.last < tally.last)
        });
    }
    RecordState::Table(held)
}

/// True for a refusal because of what a document holds, and not of what the entry is: its device writes it again by itself.
fn is_about_place(row: &QuarantineRow) -> bool {
    matches!(Code(row.code), Code::MISSING_DEPENDENCY | Code::BLOCKED | Code::BAD_CHANGE)
}

/// A hidden record stays in the bucket that it was in, which its fields do not tell any more.
fn hidden(want: Option<StateHash>, found: Option<StateHash>) -> bool {
    want == found
}

/// The ids of what a device shows of a collection.
fn shown(life: &mut Life, project: ProjectId, what: What) -> Result<BTreeSet<String>, StoreError> {
    let (store, collection) = (Arc::clone(&life.store), Arc::new(what.collection()));
    if life.wait(store.schema())?.get(collection.id).is_none() {
        return Ok(BTreeSet::new());
    }
    let mut select = Select::all(project, collection);
    select.columns.truncate(1);
    let page = life.wait(store.select(select))?;
    Ok(page.rows.iter().filter_map(|row| Some(row.get("id")?.as_str()?.to_owned())).collect())
}

fn check_record((what, hot): (What, &str), state: &RecordState, expected: &Expected, vague: bool) -> Try {
    let columns = state.project(&what.collection());
    let visible = columns.is_some();
    if counter(what, state) != expected.counter && !vague && (visible || what != What::Notes) {
        let found = counter(what, state);
        let what = format!("{hot} of {} counts {found}, and its writers added {}", what.name(), expected.counter);
        return Err(Violation::new("I11b", what));
    }
    if !expected.visible.iter().any(|(_, may)| *may == visible) && (!expected.vague || visible) {
        let what = format!("{hot} of {} is visible: {visible}, and nobody wrote that: {:?}", what.name(), expected.visible);
        return Err(Violation::new("I10", what));
    }
    let text = columns.and_then(|columns| columns.into_iter().next()).map(|value| match value {
        Value::Text(text) => json!(text),
        Value::Int(number) => json!(number),
        _ => Json::Null,
    });
    if let Some(text) = text
        && !expected.texts.iter().any(|(_, may)| *may == text)
        && text != Json::Null
    {
        let what = format!("{hot} of {} is {text}, and the last words were {:?}", what.name(), expected.texts);
        return Err(Violation::new("I9", what));
    }
    Ok(())
}

/// The counter of a record, hidden ones of tables included.
fn counter(what: What, state: &RecordState) -> i64 {
    let collection = what.collection();
    match state {
        RecordState::Table(state) => state.counter(collection.fields[1].id),
        RecordState::Document(_) => match state.project(&collection).and_then(|columns| columns.into_iter().nth(1)) {
            Some(Value::Int(number)) => number,
            _ => 0,
        },
    }
}

fn site(what: What, state: &RecordState) -> Option<String> {
    match state.project(&what.collection())?.into_iter().nth(2)? {
        Value::Text(site) => Some(site),
        _ => None,
    }
}
