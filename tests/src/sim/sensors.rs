//! Plain sensors and their broker: it repeats whatever it has no acknowledgement for, and each value is to be taken once.

use std::sync::Arc;

use mobo_adapters::sqlite::edge::Ingested;
use mobo_core::ingest::{Arrival, Delivery, Rules};

use super::model::Write;
use super::trace::{Try, Violation};
use super::world::World;

/// Of 100 acknowledgements, so many never get to the broker.
const ACKS_LOST: u64 = 30;
const RULE: &str = "sensors/v -> samples v=$";
const TOPIC: &str = "sensors/v";
/// Of 100 times, so often the broker sends what it has kept again, as it does at each subscription.
const KEPT: u64 = 30;
const KEPT_RULE: &str = "kept/{id} -> things id={id} a=$";
const KEPT_TOPIC: &str = "kept/of-the-broker";

/// A broker beside a device.
#[derive(Debug, Default)]
pub(super) struct Broker {
    packet: u16,
    /// What it has no acknowledgement for: packet, write, and whether it was sent before.
    open: Vec<(u16, u64, bool)>,
    /// Deliveries whose acknowledgements it knows.
    known: u64,
    /// True once what it has kept was taken.
    kept: bool,
}

impl Broker {
    /// The device is not the one that it was: the broker has no session for it.
    pub(super) fn forget(&mut self) {
        (self.open, self.known, self.kept) = (Vec::new(), 0, false);
    }
}

impl World {
    /// Sensors say something, and the broker delivers that, and again what was not acknowledged.
    pub(super) fn sense(&mut self, device: usize, writes: Vec<Write>) -> Try {
        let Self { model, rng, devices, trace, .. } = self;
        let node = &mut devices[device];
        for write in writes {
            node.broker.packet = node.broker.packet.wrapping_add(1).max(1);
            node.broker.open.push((node.broker.packet, write.id, false));
            // Until it is taken, nobody was told that it is kept.
            model.writes.push(Write { doubt: true, ..write });
        }
        let rules = Rules::parse(RULE).map_err(|error| Violation::new("write", error.to_string()))?;
        let arrival = |(packet, id, is_repeat): &(u16, u64, bool)| {
            let payload = id.to_string().into_bytes();
            let rows = rules.take(TOPIC, &payload, None);
            Arrival {
                topic: TOPIC.to_owned(),
                payload,
                delivery: Some(Delivery { packet: *packet, is_repeat: *is_repeat }),
                is_retained: false,
                rows,
            }
        };
        let arrivals: Vec<Arrival> = node.broker.open.iter().map(arrival).collect();
        trace
            .add("messages that were repeated", arrivals.iter().filter(|one| one.delivery.is_some_and(|how| how.is_repeat)).count() as u64);
        let (lying, forget, life) = (node.lies.is_some(), node.broker.known, node.life.as_mut().expect("it writes"));
        let store = Arc::clone(&life.store);
        let taken = life.wait(store.ingest(arrivals, forget));
        node.broker.open.iter_mut().for_each(|open| open.2 = true);
        let Ok(Ingested { tally, written }) = taken else { return Ok(()) };
        if tally.refused > 0 {
            return Err(Violation::new("write", format!("{} keeps messages of its sensors aside: {tally:?}", node.name)));
        }
        let (sealed, kept_at) = (written.iter().find_map(|written| written.entry), node.disk.ops());
        for (_, id, _) in &node.broker.open {
            let mut written = model.writes.iter().rev();
            if let Some(write) = written.find(|write| write.id == *id).filter(|write| write.sealed.is_none()).cloned() {
                // Its place is now: a copy of the device that was made since the sensor spoke has not got it.
                model.writes.push(Write { sealed, doubt: lying, kept_at, ..write });
            }
        }
        let before = node.broker.open.len();
        node.broker.open.retain(|_| rng.chance(ACKS_LOST));
        if node.broker.open.is_empty() {
            node.broker.known = tally.remembered;
        }
        self.send_again(device)?;
        let Self { trace, .. } = &mut *self;
        trace.add("values of sensors", tally.rows);
        trace.add("writes", tally.rows);
        let node = &self.devices[device];
        let (name, open) = (node.name.clone(), node.broker.open.len());
        self.say(format_args!(
            "{name} takes {before} messages of sensors, {} for the first time; {open} are not known to be taken",
            tally.rows
        ));
        Ok(())
    }

    /// The broker sends what it has kept: it is news once, however often somebody has changed the record since.
    fn send_again(&mut self, device: usize) -> Try {
        // Drawn aside, so that what follows is what it was before there was any.
        if !self.rng.clone().chance(KEPT) {
            return Ok(());
        }
        let node = &mut self.devices[device];
        let (lying, Some(life)) = (node.lies.is_some(), node.life.as_mut()) else { return Ok(()) };
        let rules = Rules::parse(KEPT_RULE).map_err(|error| Violation::new("write", error.to_string()))?;
        let payload = b"\"kept\"".to_vec();
        let rows = rules.take(KEPT_TOPIC, &payload, None);
        let arrival = Arrival { topic: KEPT_TOPIC.to_owned(), payload, delivery: None, is_retained: true, rows };
        let store = Arc::clone(&life.store);
        let Ok(Ingested { tally: taken, .. }) = life.wait(store.ingest(vec![arrival], node.broker.known)) else { return Ok(()) };
        if node.broker.kept && taken.rows > 0 {
            return Err(Violation::new("X", format!("{} takes again what its broker has kept: {taken:?}", node.name)));
        }
        node.broker.kept |= !lying && taken.rows + taken.repeats > 0;
        self.trace.count("messages that a broker has kept");
        Ok(())
    }
}
