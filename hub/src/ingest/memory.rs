//! What a hub remembers of messages that it has taken: which deliveries the broker may repeat, and what each topic said last of records. It is
//! in the store, and here, for as long as this hub has the turn: nobody else changes it then.

use std::collections::BTreeMap;

use mobo_adapters::desk::{Cell, Done, Statement};
use mobo_core::ingest::{self, Arrival, BadMessage, Delivery, Parts, RefusedMessage, Tally};
use mobo_core::limits;
use mobo_core::schema::Schema;
use mobo_core::store::StoreError;
use mobo_core::time::Wall;

use super::first_number;
use crate::auth::rows::{bytes, number};

/// What [`Memory::read`] wants, in this order.
pub(super) const READ: [&str; 3] = [
    "SELECT n, deliveries FROM mobo_ingest_taken ORDER BY n",
    "SELECT topic, hash, n FROM mobo_ingest_said",
    "SELECT CAST(COALESCE(MAX(n), 0) AS bigint) FROM mobo_ingest_refused",
];
const TAKEN: &str = "INSERT INTO mobo_ingest_taken(n, deliveries) VALUES ($1, $2)";
const FORGET: &str = "DELETE FROM mobo_ingest_taken WHERE n <= $1";
const SAID: &str = "INSERT INTO mobo_ingest_said(topic, hash, n) VALUES ($1, $2, $3) \
                    ON CONFLICT (topic) DO UPDATE SET hash = excluded.hash, n = excluded.n";
const SAID_CUT: &str = "DELETE FROM mobo_ingest_said WHERE n <= (SELECT n FROM mobo_ingest_said ORDER BY n DESC LIMIT 1 OFFSET $1)";
const REFUSED: &str = "INSERT INTO mobo_ingest_refused(n, topic, payload, bytes, why, at_us) VALUES ($1, $2, $3, $4, $5, $6)";
const REFUSED_CUT: &str =
    "DELETE FROM mobo_ingest_refused WHERE n <= (SELECT n FROM mobo_ingest_refused ORDER BY n DESC LIMIT 1 OFFSET $1)";

type Hash = [u8; 16];
/// Bytes of a delivery in the store: its packet id and its hash.
const DELIVERY_BYTES: usize = 18;

/// What was taken.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The last number that was given to a row.
    last: i64,
    /// The last delivery under each packet id, and the number of its row.
    taken: BTreeMap<u16, (i64, Hash)>,
    /// What each topic said last of records, by the topic's hash, and the number of its row.
    said: BTreeMap<Hash, (i64, Hash)>,
    /// Up to here deliveries are forgotten.
    forgotten: i64,
}

impl Memory {
    /// What is in the store.
    pub(super) fn read(last: i64, done: &[Done]) -> Result<Self, StoreError> {
        let damaged = || StoreError::Damaged("the memory of deliveries of sensors cannot be read".to_owned());
        let [taken, said, refused] = done else { return Err(damaged()) };
        let mut memory = Self { last: last.max(first_number(refused).unwrap_or_default()), ..Self::default() };
        for row in &taken.rows {
            let (n, deliveries) = number(row, 0).zip(bytes(row, 1)).ok_or_else(damaged)?;
            for (packet, hash) in deliveries.chunks_exact(DELIVERY_BYTES).filter_map(delivery) {
                memory.taken.insert(packet, (n, hash));
            }
        }
        for row in &said.rows {
            let hash = |at| bytes(row, at).and_then(|bytes| Hash::try_from(bytes).ok());
            let (topic, (hash, n)) = hash(0).zip(hash(1).zip(number(row, 2))).ok_or_else(damaged)?;
            memory.said.insert(topic, (n, hash));
        }
        Ok(memory)
    }

    pub(super) fn forget_all(&mut self) {
        self.taken.clear();
    }

    /// Remembers what was committed.
    pub(super) fn keep(&mut self, plan: Plan) -> Tally {
        self.last = plan.last;
        self.taken.extend(plan.taken);
        if let (forgotten, true) = plan.forgotten {
            self.forgotten = forgotten;
            self.taken.retain(|_, (n, _)| *n > forgotten);
        }
        self.said.extend(plan.said);
        while self.said.len() as u64 > limits::INGEST_TOPICS_MAX {
            let Some(oldest) = self.said.iter().min_by_key(|(_, (n, _))| *n).map(|(topic, _)| *topic) else { break };
            self.said.remove(&oldest);
        }
        Tally { remembered: self.last.cast_unsigned(), ..plan.tally }
    }
}

fn delivery(bytes: &[u8]) -> Option<(u16, Hash)> {
    let (packet, hash) = bytes.split_first_chunk()?;
    Some((u16::from_le_bytes(*packet), hash.try_into().ok()?))
}

/// What a batch of messages would change.
#[derive(Debug)]
pub(super) struct Plan {
    /// Rows.
    pub(super) parts: Parts,
    /// The last number that it gives to a row.
    pub(super) last: i64,
    /// Up to here deliveries are forgotten, and whether these are more than before.
    forgotten: (i64, bool),
    tally: Tally,
    taken: BTreeMap<u16, (i64, Hash)>,
    said: BTreeMap<Hash, (i64, Hash)>,
    refused: Vec<(i64, RefusedMessage)>,
}

impl Plan {
    pub(super) fn of(memory: &Memory, schema: &Schema, arrivals: &[Arrival], (now, forget): (Wall, u64)) -> Self {
        // Rows whose packet ids are all in use again say nothing more, whether the broker has answered since or not.
        let before_live = memory.taken.values().map(|(n, _)| n - 1).min().unwrap_or(memory.last);
        let forgotten = memory.forgotten.max(forget.cast_signed()).max(before_live);
        let mut plan = Self {
            parts: Parts::default(),
            // The first number is of the row of deliveries.
            last: memory.last + 1,
            forgotten: (forgotten, forgotten > memory.forgotten),
            tally: Tally::default(),
            taken: BTreeMap::new(),
            said: BTreeMap::new(),
            refused: Vec::new(),
        };
        let row = plan.last;
        for arrival in arrivals {
            if plan.is_known(memory, arrival, row) || plan.is_stale(memory, arrival, schema) {
                plan.tally.repeats += 1;
                continue;
            }
            match arrival.rows.clone().and_then(|rows| Parts::of(rows, schema, now)) {
                Ok(parts) => plan.parts.add(parts),
                Err(BadMessage(why)) => plan.keep_aside(arrival, why, now),
            }
        }
        plan
    }

    /// True for a repeat of what was taken; anything else is remembered from now on.
    fn is_known(&mut self, memory: &Memory, arrival: &Arrival, row: i64) -> bool {
        let Some(Delivery { packet, is_repeat }) = arrival.delivery else { return false };
        let hash = ingest::mark(&arrival.topic, &arrival.payload);
        let held = self.taken.get(&packet).or_else(|| memory.taken.get(&packet).filter(|(n, _)| *n > self.forgotten.0));
        if is_repeat && held.is_some_and(|(_, held)| *held == hash) {
            return true;
        }
        // A packet id that is used for another message was acknowledged for the one before.
        self.taken.insert(packet, (row, hash));
        false
    }

    /// True for a message that the broker has kept and that says of records what its topic said last: somebody may have changed them since.
    /// What a topic says is remembered from now on.
    fn is_stale(&mut self, memory: &Memory, arrival: &Arrival, schema: &Schema) -> bool {
        let Some(said) = arrival.said(arrival.rows.as_deref().unwrap_or_default(), schema) else { return false };
        let topic = ingest::mark(&arrival.topic, &[]);
        let held = self.said.get(&topic).or_else(|| memory.said.get(&topic));
        if held.is_some_and(|(_, held)| *held == said) {
            return arrival.is_retained;
        }
        self.last += 1;
        self.said.insert(topic, (self.last, said));
        false
    }

    fn keep_aside(&mut self, arrival: &Arrival, why: String, now: Wall) {
        self.last += 1;
        self.tally.refused += 1;
        let message = RefusedMessage {
            n: self.last.cast_unsigned(),
            topic: arrival.topic.clone(),
            payload: RefusedMessage::kept(&arrival.payload).to_vec(),
            bytes: arrival.payload.len() as u64,
            why,
            at_us: now.0,
        };
        self.refused.push((self.last, message));
    }

    /// What is to be noted beside its rows.
    pub(super) fn notes(&self) -> Vec<Statement> {
        let (forgotten, is_more) = self.forgotten;
        let mut notes: Vec<Statement> = is_more.then(|| Statement::new(FORGET, [Cell::Int(forgotten)])).into_iter().collect();
        if let Some((n, _)) = self.taken.values().next() {
            let deliveries = self.taken.iter().flat_map(|(packet, (_, hash))| packet.to_le_bytes().into_iter().chain(*hash)).collect();
            notes.push(Statement::new(TAKEN, [Cell::Int(*n), Cell::Bytes(deliveries)]));
        }
        for (topic, (n, said)) in &self.said {
            notes.push(Statement::new(SAID, [Cell::Bytes(topic.to_vec()), Cell::Bytes(said.to_vec()), Cell::Int(*n)]));
        }
        if !self.said.is_empty() {
            notes.push(Statement::new(SAID_CUT, [Cell::Int(limits::INGEST_TOPICS_MAX.cast_signed())]));
        }
        for (n, message) in &self.refused {
            // No database of ours holds U+0000 in a text.
            let text = |text: &str| Cell::Text(text.replace('\0', "\u{fffd}"));
            let (bytes, at) = (i64::try_from(message.bytes).unwrap_or(i64::MAX), Cell::Int(message.at_us));
            let payload = Cell::Bytes(message.payload.clone());
            let cells = [Cell::Int(*n), text(&message.topic), payload, Cell::Int(bytes), text(&message.why), at];
            notes.push(Statement::new(REFUSED, cells));
        }
        if !self.refused.is_empty() {
            notes.push(Statement::new(REFUSED_CUT, [Cell::Int(limits::INGEST_REFUSED_MAX.cast_signed())]));
        }
        notes
    }
}
