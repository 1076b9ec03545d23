//! Bounded disk: how much room the database may take, and who gives way when it is used up.
//!
//! Samples may use all but a reserve, which is for changes of records. Above that, in this order: rows of samples that the hub has go, then
//! entries that the hub has, then what the hub does not have, by the policy of its stream. What is lost so is told to the hub in an entry
//! of its own, on the stream's lane; the dropped entries keep their places in the chain by their hashes.

mod passed;

use std::collections::BTreeMap;

use mobo_core::entry::{Entry, Header, Payload};
use mobo_core::ids::{CollectionId, Lane, Nonce};
use mobo_core::limits;
use mobo_core::schema::{Collection, Kind, Schema};
use mobo_core::store::StoreError;
use mobo_core::stream::thin::Thinner;
use mobo_core::stream::{Loss, LossReason, Segment, peek_collection, peek_samples};
use mobo_core::time::{Moment, WallQuality};
use rusqlite::Connection;

use super::ack;
use super::counts::LossCount;
use super::fault::{Try, all};
use super::meta::{self, Log};
use super::outbox::{self, EntryRow, seq_sql};
use super::stream;
use super::write::header;
use crate::sqlite::error::known;
use crate::sqlite::table::quoted;
use passed::Passed;

/// What gives way when a stream has no more room.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum FullPolicy {
    /// The oldest samples go.
    #[default]
    DropOldest,
    /// Of the oldest samples, minimum, maximum and mean of each minute stay.
    Thin,
    /// Nothing: new samples are refused.
    Stop,
}

impl FullPolicy {
    /// The policy for a word: `drop_oldest`, `thin`, `stop`.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "drop_oldest" => Some(Self::DropOldest),
            "thin" => Some(Self::Thin),
            "stop" => Some(Self::Stop),
            _ => None,
        }
    }
}

/// How much room the device's database may take.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Room {
    /// All of it, in bytes; local writes are refused beyond.
    pub bytes_max: u64,
    /// The part that samples may not take.
    pub reserve_bytes: u64,
    /// What gives way, by the name of the stream.
    pub streams: BTreeMap<String, FullPolicy>,
    /// What gives way in all other streams.
    pub others: FullPolicy,
}

impl Default for Room {
    fn default() -> Self {
        let (bytes_max, reserve_bytes) = (limits::EDGE_STORE_BYTES_MAX, limits::EDGE_STORE_RESERVE_BYTES);
        Self { bytes_max, reserve_bytes, streams: BTreeMap::new(), others: FullPolicy::default() }
    }
}

impl Room {
    fn policy(&self, collection: &Collection) -> FullPolicy {
        self.streams.get(&collection.name).copied().unwrap_or(self.others)
    }

    fn for_samples(&self) -> u64 {
        self.bytes_max.saturating_sub(self.reserve_bytes)
    }
}

/// Bytes of the database that hold something.
pub(super) fn used(conn: &Connection) -> Try<u64> {
    let pragma = |name: &str| conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    let pages = pragma("page_count")? - pragma("freelist_count")?;
    Ok(u64::try_from(pages * pragma("page_size")?).unwrap_or_default())
}

/// Refuses a change of a record where there is no room left for it.
pub(super) fn for_records(conn: &Connection, room: &Room) -> Try<()> {
    let before = used(conn)?;
    if before <= room.bytes_max {
        return Ok(());
    }
    // What is only kept for a hub that goes back in time goes first.
    let mut freed = 0;
    for (incarnation, lane) in ack::lanes(conn)? {
        for _ in 0..limits::RELIEF_ENTRIES_MAX {
            let gone = ack::drop_acked(conn, incarnation, lane)?;
            freed += gone;
            if gone == 0 {
                break;
            }
        }
    }
    if freed > 0 || used(conn)? <= room.bytes_max {
        return Ok(());
    }
    Err(full(before, room.bytes_max, "sync, so that entries may go, or raise store.bytes_max").into())
}

/// Makes room for samples, or refuses them.
pub(super) fn for_samples(
    conn: &Connection,
    schema: &Schema,
    (room, wanted): (&Room, CollectionId),
    seal: impl FnMut() -> (Moment, Nonce),
) -> Try<()> {
    let limit = room.for_samples();
    let before = used(conn)?;
    let (Some(collection), Some(log)) = (schema.get(wanted), Log::read(conn)?) else { return Ok(()) };
    if before <= limit || collection.kind != Kind::Stream {
        return Ok(());
    }
    let stopped = || full(before, limit, "its policy is stop: sync, or raise store.bytes_max");
    if room.policy(collection) == FullPolicy::Stop {
        return Err(stopped().into());
    }
    let freed = Relief { conn, schema, log, room, target: limit - limit / 16 }.give(seal)?;
    let after = used(conn)?;
    // What was dropped keeps its place in the chain, and that takes room, too: half of the reserve, and no more.
    if after <= limit || (freed && after <= limit + room.reserve_bytes / 2) {
        return Ok(());
    }
    Err(full(before, limit, "no sample can give way: sync, or raise store.bytes_max").into())
}

fn full(used: u64, limit: u64, advice: &str) -> StoreError {
    StoreError::Full(format!("this device's store takes {used} bytes of {limit}; {advice}"))
}

/// What was dropped of each stream, for `status`.
pub(super) fn losses(conn: &Connection) -> Try<Vec<LossCount>> {
    let mut statement = conn.prepare_cached("SELECT collection, samples, entries FROM mobo_loss ORDER BY collection")?;
    all(statement.query([])?, |row| {
        let collection = known(CollectionId::from_sql(row.get(0)?), "collection")?;
        Ok(LossCount { collection, samples: row.get::<_, i64>(1)?.cast_unsigned(), entries: row.get::<_, i64>(2)?.cast_unsigned() })
    })
}

/// True for an entry that was dropped here, and for one that says what was: the hub's refusal of them is no news.
pub(super) fn is_known_loss(row: &EntryRow) -> bool {
    match &row.entry.payload {
        Payload::Lost(_) => true,
        Payload::Present(payload) => {
            let stream = Header::decode(&row.entry.header).ok().and_then(|header| header.kind()) == Some(Kind::Stream);
            stream && Loss::decode(payload).is_ok_and(|loss| loss.is_some())
        }
    }
}

/// How long before `now` an entry was sealed, as far as this device can know.
fn age_us(sealed: &Moment, now: &Moment) -> u64 {
    if sealed.boot == now.boot {
        return now.mono.0.saturating_sub(sealed.mono.0);
    }
    let clocks = sealed.quality != WallQuality::None && now.quality != WallQuality::None;
    let elapsed = u64::try_from(now.wall.0.saturating_sub(sealed.wall.0)).unwrap_or_default();
    // It is not younger than this boot.
    if clocks { elapsed.max(now.mono.0) } else { now.mono.0 }
}

struct Relief<'c> {
    conn: &'c Connection,
    schema: &'c Schema,
    log: Log,
    room: &'c Room,
    /// Bytes to come down to.
    target: u64,
}

/// What gave way in one stream.
#[derive(Default)]
struct Victims {
    samples: u64,
    entries: u64,
    /// Of these, what was told before in an entry that gave way itself.
    told: (u64, u64),
    /// The oldest and the youngest sample.
    ages_us: Option<(u64, u64)>,
    thinner: Thinner,
}

impl Victims {
    fn spans(&mut self, oldest: u64, youngest: u64) {
        let (from, to) = self.ages_us.unwrap_or((oldest, youngest));
        self.ages_us = Some((from.max(oldest), to.min(youngest)));
    }
}

impl Relief<'_> {
    /// True if anything gave way.
    fn give(&self, mut seal: impl FnMut() -> (Moment, Nonce)) -> Try<bool> {
        let mut freed = self.rows_of_the_hub()?;
        freed |= self.entries_of_the_hub()?;
        if self.is_enough()? {
            return Ok(freed);
        }
        let (now, _) = seal();
        let mut victims: BTreeMap<CollectionId, Victims> = BTreeMap::new();
        for lane in [Lane::Blobs, Lane::Telemetry, Lane::Events] {
            self.drop_oldest(lane, &now, &mut victims)?;
        }
        for (collection, gone) in victims {
            freed = true;
            if let Some(collection) = self.schema.get(collection) {
                self.tell(collection, gone, &mut seal)?;
            }
        }
        Ok(freed)
    }

    fn is_enough(&self) -> Try<bool> {
        Ok(used(self.conn)? <= self.target)
    }

    /// Rows of samples that the hub has: it shows them, too.
    fn rows_of_the_hub(&self) -> Try<bool> {
        let mut freed = false;
        for collection in self.schema.iter().filter(|collection| collection.kind == Kind::Stream) {
            let sql = format!(
                "DELETE FROM {0} WHERE (device, _incarnation, _lane, _seq, _index) IN (
                   SELECT t.device, t._incarnation, t._lane, t._seq, t._index FROM {0} t JOIN mobo_lane l ON l.incarnation = t._incarnation
                   AND l.lane = t._lane AND t._seq <= l.acked ORDER BY t.at LIMIT {1})",
                quoted(&collection.name),
                limits::RELIEF_ROWS_MAX
            );
            if !self.is_enough()? {
                freed |= self.conn.prepare_cached(&sql)?.execute([])? > 0;
            }
        }
        Ok(freed)
    }

    fn entries_of_the_hub(&self) -> Try<bool> {
        let mut freed = 0;
        for (incarnation, lane) in ack::lanes(self.conn)?.into_iter().filter(|(_, lane)| *lane != Lane::State) {
            for _ in 0..limits::RELIEF_ENTRIES_MAX {
                let gone = if self.is_enough()? { 0 } else { ack::drop_acked(self.conn, incarnation, lane)? };
                freed += gone;
                if gone == 0 {
                    break;
                }
            }
        }
        Ok(freed > 0)
    }

    /// Goes on where this ended the last time.
    fn drop_oldest(&self, lane: Lane, now: &Moment, victims: &mut BTreeMap<CollectionId, Victims>) -> Try<()> {
        let passed = Passed::of(self.conn, self.room, (self.log.incarnation, lane))?;
        let from = passed.read(self.conn)?;
        let to = self.drop_behind((lane, from), now, victims)?;
        if to > from { passed.keep(self.conn, to) } else { Ok(()) }
    }

    /// Walks on past what may not go, as samples of a stream that stops: others have to give way before somebody is refused. Gives up to where.
    fn drop_behind(&self, (lane, from): (Lane, i64), now: &Moment, victims: &mut BTreeMap<CollectionId, Victims>) -> Try<i64> {
        let sql = "SELECT seq, substr(payload, 1, ?5) FROM mobo_outbox
                   WHERE incarnation = ?1 AND lane = ?2 AND seq > ?3 AND state = 0 AND payload IS NOT NULL ORDER BY seq LIMIT ?4";
        let mut statement = self.conn.prepare_cached(sql)?;
        let (mut after, mut dropped) = (from, 0);
        loop {
            let key = (self.log.incarnation.sql(), lane.number(), after, limits::RELIEF_ENTRIES_MAX, limits::SEGMENT_HEAD_BYTES);
            let page: Vec<(i64, Vec<u8>)> = all(statement.query(key)?, |row| Ok((row.get(0)?, row.get(1)?)))?;
            if page.is_empty() {
                return Ok(after);
            }
            for (seq, head) in &page {
                if !self.may_go(head) {
                    after = *seq;
                    continue;
                }
                // Pages come free by the dozen: looking each time would only take time.
                if dropped == limits::RELIEF_ENTRIES_MAX || dropped % 32 == 0 && self.is_enough()? {
                    return Ok(after);
                }
                dropped += 1;
                after = *seq;
                let seq = known(outbox::seq(*seq), "position of an entry")?;
                if let Some(row) = outbox::entry(self.conn, self.log.incarnation, lane, seq)? {
                    self.drop(lane, &row, now, victims)?;
                }
            }
        }
    }

    /// False for what begins like samples of a stream that nothing is taken from.
    fn may_go(&self, head: &[u8]) -> bool {
        let collection = peek_collection(head).ok().and_then(|id| self.schema.get(id));
        collection.is_some_and(|collection| self.room.policy(collection) != FullPolicy::Stop)
    }

    fn drop(&self, lane: Lane, row: &EntryRow, now: &Moment, victims: &mut BTreeMap<CollectionId, Victims>) -> Try<()> {
        let (Payload::Present(payload), Ok(header)) = (&row.entry.payload, Header::decode(&row.entry.header)) else { return Ok(()) };
        let Some(collection) = peek_collection(payload).ok().and_then(|id| self.schema.get(id)) else { return Ok(()) };
        let policy = self.room.policy(collection);
        if header.kind() != Some(Kind::Stream) || policy == FullPolicy::Stop {
            return Ok(());
        }
        let gone = victims.entry(collection.id).or_default();
        let age = age_us(&header.moment, now);
        if let Ok(Some(loss)) = Loss::decode(payload) {
            // What it told is told again, with the rest.
            (gone.samples, gone.entries) = (gone.samples + loss.samples, gone.entries + loss.entries);
            gone.told = (gone.told.0 + loss.samples, gone.told.1 + loss.entries);
            gone.spans(age.saturating_add(loss.from_before_us), age.saturating_add(loss.to_before_us));
        } else {
            let segment = Segment::decode(payload, collection).ok();
            let samples =
                segment.as_ref().map_or_else(|| peek_samples(payload).unwrap_or_default(), |segment| segment.before_us.len() as u64);
            let before = segment.iter().flat_map(|segment| &segment.before_us);
            let (oldest, youngest) = (before.clone().max().copied().unwrap_or_default(), before.min().copied().unwrap_or_default());
            (gone.samples, gone.entries) = (gone.samples + samples, gone.entries + 1);
            gone.spans(age.saturating_add(oldest), age.saturating_add(youngest));
            if let (FullPolicy::Thin, Some(segment)) = (policy, &segment) {
                gone.thinner.take(sealed_us(now, age), segment);
            }
        }
        self.lose(lane, row, payload)?;
        stream::drop_samples(self.conn, collection, (self.log.lane(self.log.incarnation, lane), row.seq))
    }

    /// The payload goes; header and hash stay, so that the chain stays whole.
    fn lose(&self, lane: Lane, row: &EntryRow, payload: &[u8]) -> Try<()> {
        let sql = "UPDATE mobo_outbox SET payload = NULL WHERE incarnation = ?1 AND lane = ?2 AND seq = ?3";
        self.conn.prepare_cached(sql)?.execute((self.log.incarnation.sql(), lane.number(), seq_sql(row.seq)))?;
        meta::add(self.conn, meta::OUTBOX_BYTES, 32 - outbox::sql_len(payload.len()))
    }

    /// Seals what is left of the samples, and what the hub is to know of the others.
    fn tell(&self, collection: &Collection, mut gone: Victims, seal: &mut impl FnMut() -> (Moment, Nonce)) -> Try<()> {
        let mut reason = LossReason::DropOldest;
        let thinner = std::mem::take(&mut gone.thinner);
        // Where little would be won, as with what was thinned before, the oldest go.
        if thinner.left() > 0 && thinner.left() <= thinner.taken() / 2 {
            reason = LossReason::Thin;
            gone.samples -= thinner.left().min(gone.samples);
            let (moment, _) = seal();
            for segment in thinner.finish(collection.id, sealed_us(&moment, 0)) {
                let (_, nonce) = seal();
                stream::seal(self.conn, (&self.log, collection), &segment, (moment, nonce)).map_err(|error| {
                    if let super::answers::WriteError::Store(error) = error { error } else { StoreError::Refused(error.to_string()) }
                })?;
            }
        }
        let (moment, nonce) = seal();
        let (from_before_us, to_before_us) = gone.ages_us.unwrap_or_default();
        let loss = Loss { collection: collection.id, samples: gone.samples, entries: gone.entries, from_before_us, to_before_us, reason };
        let entry = Entry::seal(&header(collection, &self.log, moment, nonce), loss.encode());
        outbox::append(self.conn, &self.log, collection.lane, &entry, moment.wall.0)?;
        let sql = "INSERT INTO mobo_loss VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (collection) DO UPDATE SET
                     samples = samples + excluded.samples, entries = entries + excluded.entries, reason = excluded.reason,
                     last_us = excluded.last_us";
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let code = if reason == LossReason::Thin { 2 } else { 1 };
        let (samples, entries) = (loss.samples.saturating_sub(gone.told.0), loss.entries.saturating_sub(gone.told.1));
        self.conn.prepare_cached(sql)?.execute((collection.id.sql(), count(samples), count(entries), code, moment.wall.0))?;
        tracing::warn!(stream = collection.name, samples = loss.samples, entries = loss.entries, %reason, "samples are lost for want of room");
        Ok(())
    }
}

/// A moment so long before `now`, on a clock that only this job uses.
fn sealed_us(now: &Moment, age_us: u64) -> i64 {
    i64::try_from(now.mono.0).unwrap_or(i64::MAX).saturating_sub(i64::try_from(age_us).unwrap_or(i64::MAX))
}
