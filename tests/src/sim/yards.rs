//! Records that move between buckets, and rights that come and go while devices are connected and while they are away (replication.md D4, D5):
//! a device sees what its buckets hold and nothing else, what it wrote and nobody has decided about stays with it, and of whatever the hub
//! refuses its author hears.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mobo_adapters::sqlite::edge::{Reached, Sealed};
use mobo_core::author::{Edit, Intent};
use mobo_core::buckets::rights_of;
use mobo_core::ids::{BucketId, DeviceId, RecordId};
use mobo_core::level::AckLevel;
use mobo_core::limits;
use mobo_core::message::{Code, Message};
use mobo_core::store::{HubStore, QuarantineRow};
use mobo_core::time::Eff;
use mobo_core::value::Value;
use mobo_runtime::machine::random;
use serde_json::{Value as Json, json};

use super::device::Life;
use super::kept;
use super::model::{HUB, What, Write};
use super::trace::{Try, Violation};
use super::world::{Event, World};

/// Carts that everybody pushes around.
const CARTS: u64 = 3;
const SITES: [&str; 2] = ["a", "b"];

/// When each device lost the right to read a bucket, in µs of the world.
pub(super) type Lost = BTreeMap<(DeviceId, BucketId), u64>;

impl World {
    /// Something happens to a cart, or to who may see it.
    pub(super) fn yard(&mut self) -> Try {
        let Some(pause) = self.plan.yards_every_us.filter(|_| !self.healed) else { return Ok(()) };
        self.soon((pause / 4, pause * 2), Event::Yard);
        let device = self.rng.below(self.devices.len() as u64) as usize;
        match self.rng.below(10) {
            0..=4 => self.write_cart(device),
            5 | 6 => self.move_cart(),
            _ => self.change_rights(device),
        }
    }

    /// A device counts on a cart that it sees, or sends it to the other yard; one that it does not see it puts into its own.
    fn write_cart(&mut self, device: usize) -> Try {
        let (Self { model, rng, devices, .. }, carts) = (&mut *self, What::Carts.collection());
        let node = &mut devices[device];
        let (site, history) = (node.site, node.history);
        let Some(life) = node.life.as_mut() else { return Ok(()) };
        let store = Arc::clone(&life.store);
        let Ok(schema) = life.wait(store.schema()) else { return self.after(device) };
        if schema.get(carts.id).is_none() {
            return Ok(());
        }
        let hot = format!("cart{}", rng.below(CARTS));
        let Ok(shown) = life.wait(store.record(What::Carts.key(&hot))) else { return self.after(device) };
        let columns = shown.and_then(|record| record.state.project(&carts));
        let mut write = Write { refusable: true, ..model.write(history, What::Carts, hot) };
        let text = json!(format!("w{}", write.id));
        let (intent, fields) = match columns {
            None => {
                (write.text, write.visible) = (Some(text.clone()), Some(true));
                (Intent::Put, json!({ "a": text, "site": site }))
            }
            Some(columns) if rng.chance(30) => (Intent::Patch, json!({ "site": other_than(&columns) })),
            Some(_) => {
                write.delta = 1 + rng.below(5).cast_signed();
                (Intent::Patch, json!({ "n": { "$inc": write.delta } }))
            }
        };
        let witness = json!({ "a": text, "n": { "$inc": 1 }, "site": site });
        let edits = vec![edit(&write.hot, intent, &fields), edit(&format!("w{}", write.id), Intent::Put, &witness)];
        let result = life.wait(store.write(carts.id, edits, None));
        self.trace.count("writes to carts");
        self.written(device, write, result)?;
        self.wake(device);
        self.after(device)
    }

    /// Somebody moves a cart through the hub's API.
    fn move_cart(&mut self) -> Try {
        let Some(life) = self.hub.life.as_mut() else { return Ok(()) };
        let (store, project) = (Arc::clone(&life.store), life.opened.project);
        let hot = format!("cart{}", self.rng.below(CARTS));
        let record = life.wait(store.record(project, What::Carts.key(&hot))).ok().flatten();
        let Some(columns) = record.and_then(|record| record.state.project(&What::Carts.collection())) else { return Ok(()) };
        let write = self.model.write(HUB, What::Carts, hot);
        let witness = json!({ "a": "moved", "n": { "$inc": 1 }, "site": SITES[0] });
        let moved = edit(&write.hot, Intent::Patch, &json!({ "site": other_than(&columns) }));
        let edits = vec![moved, edit(&format!("w{}", write.id), Intent::Put, &witness)];
        self.trace.count("carts moved by the hub");
        self.hub_edits(write, edits)
    }

    /// A device gets a yard, for writing or for reading only, or loses it.
    fn change_rights(&mut self, device: usize) -> Try {
        let id = self.devices[device].keys.device();
        let key = format!("yard:{}", self.rng.pick(&SITES));
        let (is_kind, writes, now) = (self.rng.chance(50), self.rng.chance(80), self.now());
        let Some(life) = self.hub.life.as_mut() else { return Ok(()) };
        let (store, project, door) = (Arc::clone(&life.store), life.opened.project, Arc::clone(&life.door));
        let Ok(Some(row)) = life.wait(store.device(project, id)) else { return self.after_hub() };
        let Ok((_, grants)) = life.wait(async { door.rights(&row).await }) else { return self.after_hub() };
        let is_held = grants.iter().any(|grant| grant.key == key);
        let fresh = BucketId::from_entropy(random(self.hub.machine.as_ref()).unwrap_or_default());
        let Ok(ensured) = life.wait(store.ensure_buckets(project, vec![(key.clone(), fresh)])) else { return self.after_hub() };
        let until = if is_kind { life.opened.time.now() } else { Eff(i64::MIN) };
        let done = match is_held {
            true => life.wait(store.ungrant(project, id, key.clone(), until)),
            false => life.wait(store.grant(project, id, key.clone(), writes)),
        };
        // Of what failed, nobody knows whether it is so.
        self.rights_lost.retain(|(of, bucket), _| *of != id || ensured.iter().all(|ensured| ensured.1 != *bucket));
        if let Ok(true) = done {
            life.sessions.rights_changed(Some(id));
            if is_held {
                self.rights_lost.extend(ensured.iter().map(|(_, bucket)| ((id, *bucket), now)));
            }
            self.trace.count(if is_held { "rights taken away" } else { "rights given" });
        }
        let (name, what) = (self.devices[device].name.clone(), if is_held { "loses" } else { "gets" });
        self.say(format_args!("{name} {what} {key}: {}", done.is_ok()));
        let links: Vec<u64> = self.hub.life.as_ref().map(|life| life.talks.keys().copied().collect()).unwrap_or_default();
        links.into_iter().for_each(|link| self.wake_hub(link));
        self.after_hub()
    }

    /// Nothing is delivered of a bucket some seconds after the right to read it has ended.
    pub(super) fn check_delivery(&self, device: usize, message: &Message) -> Try {
        let Message::Batch(batch) = message else { return Ok(()) };
        let node = &self.devices[device];
        let Some(lost) = self.rights_lost.get(&(node.keys.device(), batch.bucket)) else { return Ok(()) };
        if self.now() - lost <= limits::REVOCATION_MAX.as_micros() as u64 {
            return Ok(());
        }
        let what = format!("{} is sent {} records of {} that it may not read any more", node.name, batch.items.len(), batch.bucket);
        Err(Violation::new("D5", what))
    }

    /// By device, the buckets that it may read as the hub has it.
    pub(super) fn readable(&mut self) -> Try<BTreeMap<DeviceId, BTreeSet<String>>> {
        let life = self.hub.life.as_mut().expect("it is up");
        let (store, project) = (Arc::clone(&life.store), life.opened.project);
        let failed = |error: mobo_core::store::StoreError| Violation::new("store", error.to_string());
        let schema = life.wait(store.schema(project)).map_err(failed)?;
        let devices = life.wait(store.devices(project)).map_err(failed)?;
        Ok(devices.into_iter().map(|row| (row.id, rights_of(&schema, &[], &row).buckets.into_keys().collect())).collect())
    }
}

/// True if a refusal of the hub is one that a cart may meet: its author could not know where it was by then.
pub(super) fn may_be_refused(row: &QuarantineRow) -> bool {
    let is_cart = row.record.as_ref().is_some_and(|(collection, _)| *collection == What::Carts.collection().id);
    is_cart && Code(row.code) == Code::FORBIDDEN
}

/// A write of a device is not there any more: that is right where the hub has it, or has refused it.
pub(super) fn is_decided(life: &mut Life, write: &Write) -> bool {
    let store = Arc::clone(&life.store);
    let Some(mut at) = write.sealed else { return false };
    loop {
        match life.wait(store.level(at)) {
            Ok(Reached::Moved(to)) => at = to,
            Ok(Reached::Level(AckLevel::Local)) => return is_gone(life, &at),
            Ok(Reached::Level(_)) => return true,
            Ok(Reached::Refused { .. }) | Err(_) => return true,
        }
    }
}

/// True for an entry that its device does not keep any more: of such a one it says no more than of the least of those that it has written again.
fn is_gone(life: &mut Life, at: &Sealed) -> bool {
    let kept = kept::entries(life).unwrap_or_default();
    kept.iter().all(|(kept, _)| *kept != (at.incarnation, at.lane, at.seq))
}

/// Where a write has been, and how far it is, for a person to read.
pub(super) fn trail(life: &mut Life, write: &Write) -> String {
    let store = Arc::clone(&life.store);
    let mut said = format!("{:?}", write.sealed);
    let mut next = write.sealed;
    while let Some(at) = next.take() {
        let reached = life.wait(store.level(at));
        said.push_str(&format!(", then {reached:?}"));
        if let Ok(Reached::Moved(to)) = reached {
            next = Some(to);
        }
    }
    said
}

fn other_than(columns: &[Value]) -> &'static str {
    let here = columns.get(2);
    if here == Some(&Value::Text(SITES[0].to_owned())) { SITES[1] } else { SITES[0] }
}

fn edit(id: &str, intent: Intent, fields: &Json) -> Edit {
    let fields = fields.as_object().cloned().unwrap_or_default();
    Edit { id: RecordId::new(id.to_owned()).expect("a record id"), intent, fields }
}
