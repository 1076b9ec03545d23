//! `mobo_meta`: what the device knows of itself.

use mobo_core::cbor::{Malformed, Reader, Writer};
use mobo_core::ids::{BucketId, DeviceId, Incarnation, Lane, LaneKey, Ordinal, Position, ProjectId, PublicKey, Seq, Signature, Timeline};
use mobo_core::life::Life;
use mobo_core::limits;
use mobo_core::message::{Parent, TimelineInfo, TimelineParent};
use rusqlite::Connection;

use super::answers::{Identity, Node};
use super::fault::{Try, damaged};
use super::life;
pub(super) use crate::sqlite::meta::{get, set};

pub(super) const FINGERPRINT: &str = "fingerprint";
pub(super) const HUB_ADDRESSES: &str = "hub_addresses";
pub(super) const SCHEMA_REV: &str = "schema_rev";
/// Counts the changes of any definition, whatever the hub's revision: how a cached schema is known to be the stored one.
pub(super) const SCHEMA_CHANGES: &str = "schema_changes";
/// Bytes of sealed entries in the outbox.
pub(super) const OUTBOX_BYTES: &str = "outbox_bytes";
/// Before the number of a lane: how far it was looked through for what may give way.
pub(super) const ROOM_PASSED: &str = "room_passed_";
/// Before the number of a lane: when the latest of its entries that are kept no more was made.
pub(super) const TRIMMED_EFF: &str = "trimmed_eff_";
/// There while entries of logs that were left behind are to be pushed to a restored hub.
pub(super) const GIVING_BACK: &str = "giving_back";
const INCARNATION: &str = "incarnation";
/// The number of the life that was written in last, and behind it the mark of its run.
const LIFE: &str = "life";
/// There where all entries on tables of the log say in which life they were written: its first ones were sealed by a version that does.
const IS_LIVED: &str = "is_lived";
const PARENT_INCARNATION: &str = "parent_incarnation";
const PARENT_SEQ: &str = "parent_seq";
const ORDINAL: &str = "ordinal";
const TIMELINE: &str = "timeline";
const TIMELINE_PARENTS: &str = "timeline_parents";
/// Those on which the hub has welcomed this device.
const TIMELINES: &str = "timelines";
const SESSION: &str = "session";
const SESSION_TIMELINE: &str = "session_timeline";
const CHECKPOINT: &str = "checkpoint";
const CHECKPOINT_SIGNATURE: &str = "checkpoint_signature";

pub(super) fn clear(conn: &Connection, key: &str) -> Try<()> {
    conn.prepare_cached("DELETE FROM mobo_meta WHERE key = ?1")?.execute([key])?;
    Ok(())
}

/// Adds to a number that starts at 0.
pub(super) fn add(conn: &Connection, key: &str, delta: i64) -> Try<()> {
    let sql = "INSERT INTO mobo_meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = value + excluded.value";
    conn.prepare_cached(sql)?.execute((key, delta))?;
    Ok(())
}

/// The log that local writes are sealed in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Log {
    pub(super) project: ProjectId,
    pub(super) device: DeviceId,
    pub(super) incarnation: Incarnation,
    pub(super) timeline: Option<Timeline>,
    /// The life of it that is written in; `None` for the first one, and for who does not write.
    pub(super) life: Option<Life>,
}

impl Log {
    /// The same, to write into it.
    pub(super) fn writing(conn: &Connection) -> Try<Option<Self>> {
        let Some(log) = Self::read(conn)? else { return Ok(None) };
        Ok(Some(Self { life: life::now(conn)?, ..log }))
    }

    /// The log; `None` before the device has joined.
    pub(super) fn read(conn: &Connection) -> Try<Option<Self>> {
        let project = get::<i64>(conn, "project")?.and_then(ProjectId::from_sql);
        let device = bytes::<16>(conn, "device")?.map(DeviceId);
        let incarnation = get::<i64>(conn, INCARNATION)?.and_then(Incarnation::from_sql);
        let timeline = bytes::<16>(conn, TIMELINE)?.map(Timeline);
        Ok(match (project, device, incarnation) {
            (Some(project), Some(device), Some(incarnation)) => Some(Self { project, device, incarnation, timeline, life: None }),
            _ => None,
        })
    }

    pub(super) fn lane(&self, incarnation: Incarnation, lane: Lane) -> LaneKey {
        LaneKey { device: self.device, incarnation, lane }
    }
}

/// Everything that the device knows of itself.
pub(super) fn node(conn: &Connection) -> Try<Node> {
    let parent = get::<i64>(conn, PARENT_INCARNATION)?.and_then(Incarnation::from_sql);
    let parent_seq = get::<i64>(conn, PARENT_SEQ)?.and_then(|seq| Seq::new(seq.cast_unsigned()));
    let session = get::<i64>(conn, SESSION)?.map(i64::cast_unsigned);
    Ok(Node {
        identity: identity(conn)?,
        incarnation: get::<i64>(conn, INCARNATION)?.and_then(Incarnation::from_sql),
        parent: parent.map(|incarnation| Parent { incarnation, seq: parent_seq }),
        ordinal: ordinal(conn)?,
        timeline: timeline(conn)?,
        session: bytes::<16>(conn, SESSION_TIMELINE)?.map(Timeline).zip(session),
        schema_rev: get::<i64>(conn, SCHEMA_REV)?.unwrap_or_default().cast_unsigned(),
        fingerprint: get(conn, FINGERPRINT)?,
    })
}

/// The number of the log at the hub, once there is one.
pub(super) fn ordinal(conn: &Connection) -> Try<Option<Ordinal>> {
    Ok(get::<u32>(conn, ORDINAL)?.map(Ordinal))
}

fn identity(conn: &Connection) -> Try<Option<Identity>> {
    let Some(project) = get::<i64>(conn, "project")?.and_then(ProjectId::from_sql) else { return Ok(None) };
    let missing = || damaged("mobo_meta lacks a part of the device's identity");
    Ok(Some(Identity {
        project,
        device: DeviceId(bytes(conn, "device")?.ok_or_else(missing)?),
        hub_key: PublicKey(bytes(conn, "hub_key")?.ok_or_else(missing)?),
        hub_addresses: addresses(&get::<String>(conn, HUB_ADDRESSES)?.unwrap_or_default()),
        certificate: get(conn, "certificate")?.ok_or_else(missing)?,
        certificate_signature: Signature(bytes(conn, "certificate_signature")?.ok_or_else(missing)?),
    }))
}

pub(super) fn set_identity(conn: &Connection, identity: &Identity) -> Try<()> {
    set(conn, "project", identity.project.sql())?;
    set(conn, "device", identity.device.as_bytes())?;
    set(conn, "hub_key", identity.hub_key.as_bytes())?;
    set_addresses(conn, &identity.hub_addresses)?;
    set(conn, "certificate", &identity.certificate)?;
    set(conn, "certificate_signature", identity.certificate_signature.as_bytes())
}

pub(super) fn set_addresses(conn: &Connection, addresses: &[String]) -> Try<()> {
    // An address holds no line break.
    set(conn, HUB_ADDRESSES, addresses.join("\n"))
}

fn addresses(lines: &str) -> Vec<String> {
    lines.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Starts a log; what belonged to the one before it, its number at the hub, goes.
pub(super) fn set_incarnation(conn: &Connection, incarnation: Incarnation, parent: Option<Parent>) -> Try<()> {
    set(conn, INCARNATION, incarnation.sql())?;
    clear(conn, ORDINAL)?;
    clear(conn, LIFE)?;
    clear(conn, IS_LIVED)?;
    let Some(parent) = parent else { return Ok(()) };
    set(conn, PARENT_INCARNATION, parent.incarnation.sql())?;
    match parent.seq {
        Some(seq) => set(conn, PARENT_SEQ, seq.get().cast_signed()),
        None => clear(conn, PARENT_SEQ),
    }
}

/// The life of the log that was written in last: its number, and the mark of its run.
pub(super) fn life(conn: &Connection) -> Try<Option<(u32, u32)>> {
    let split = |bits: i64| Some((u32::try_from(bits >> 32).ok()?, u32::try_from(bits & i64::from(u32::MAX)).ok()?));
    Ok(get::<i64>(conn, LIFE)?.and_then(split))
}

pub(super) fn set_life(conn: &Connection, (number, mark): (u32, u32)) -> Try<()> {
    set(conn, LIFE, i64::from(number) << 32 | i64::from(mark))
}

pub(super) fn is_lived(conn: &Connection) -> Try<bool> {
    Ok(get::<i64>(conn, IS_LIVED)?.is_some())
}

pub(super) fn set_lived(conn: &Connection) -> Try<()> {
    set(conn, IS_LIVED, 1)
}

/// Notes what a welcome says of this session and of the hub's history.
pub(super) fn set_session(conn: &Connection, session: u64, ordinal: Ordinal, timeline: &TimelineInfo) -> Try<()> {
    let mut known = timelines(conn)?;
    if known.first() != Some(&timeline.timeline) {
        known.retain(|known| *known != timeline.timeline);
        known.insert(0, timeline.timeline);
        known.truncate(limits::TIMELINE_PARENTS_MAX);
        set(conn, TIMELINES, known.iter().flat_map(|known| known.0).collect::<Vec<u8>>())?;
    }
    set(conn, SESSION, session.cast_signed())?;
    set(conn, SESSION_TIMELINE, timeline.timeline.as_bytes())?;
    set(conn, ORDINAL, ordinal.0)?;
    set(conn, TIMELINE, timeline.timeline.as_bytes())?;
    set(conn, TIMELINE_PARENTS, encode_parents(&timeline.parents))
}

/// The timelines on which the hub has welcomed this device, the latest first: what it holds was delivered on one of them, whatever the hub knows
/// of them by now.
pub(super) fn timelines(conn: &Connection) -> Try<Vec<Timeline>> {
    if let Some(known) = get::<Vec<u8>>(conn, TIMELINES)? {
        return Ok(known.as_chunks().0.iter().map(|bytes| Timeline(*bytes)).collect());
    }
    // An earlier version noted only the last one, and what that came from.
    let Some(info) = timeline(conn)? else { return Ok(Vec::new()) };
    Ok(std::iter::once(info.timeline).chain(info.parents.iter().map(|parent| parent.timeline)).collect())
}

pub(super) fn checkpoint(conn: &Connection) -> Try<Option<(Vec<u8>, Signature)>> {
    let signature = bytes::<64>(conn, CHECKPOINT_SIGNATURE)?.map(Signature);
    Ok(get::<Vec<u8>>(conn, CHECKPOINT)?.zip(signature))
}

pub(super) fn set_checkpoint(conn: &Connection, checkpoint: &[u8], signature: &Signature) -> Try<()> {
    set(conn, CHECKPOINT, checkpoint)?;
    set(conn, CHECKPOINT_SIGNATURE, signature.as_bytes())
}

fn timeline(conn: &Connection) -> Try<Option<TimelineInfo>> {
    let Some(timeline) = bytes::<16>(conn, TIMELINE)?.map(Timeline) else { return Ok(None) };
    let parents: Vec<u8> = get(conn, TIMELINE_PARENTS)?.unwrap_or_default();
    let parents = if parents.is_empty() { Vec::new() } else { decode_parents(&parents).map_err(|error| damaged(&error.to_string()))? };
    Ok(Some(TimelineInfo { timeline, parents }))
}

/// `[[timeline, [[bucket, position], …]], …]`
fn encode_parents(parents: &[TimelineParent]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.array(parents.len());
    for parent in parents {
        writer.array(2).bytes(parent.timeline.as_bytes()).array(parent.heads.len());
        for (bucket, position) in &parent.heads {
            writer.array(2).u64(bucket.get()).u64(position.0);
        }
    }
    writer.into_bytes()
}

fn decode_parents(bytes: &[u8]) -> Result<Vec<TimelineParent>, Malformed> {
    let mut reader = Reader::new(bytes);
    let len = reader.array()?;
    (0..len)
        .map(|_| {
            reader.tuple(2, |reader| {
                let timeline = Timeline(reader.fixed()?);
                let len = reader.array()?;
                let head = |reader: &mut Reader<'_>| {
                    let bucket = BucketId::new(reader.u64()?).ok_or_else(|| Malformed::what("bucket"))?;
                    Ok((bucket, Position(reader.u63()?)))
                };
                let heads = (0..len).map(|_| reader.tuple(2, head)).collect::<Result<_, Malformed>>()?;
                Ok(TimelineParent { timeline, heads })
            })
        })
        .collect()
}

fn bytes<const N: usize>(conn: &Connection, key: &str) -> Try<Option<[u8; N]>> {
    match get::<Vec<u8>>(conn, key)? {
        Some(bytes) => bytes.try_into().map(Some).map_err(|_| damaged("a value in mobo_meta has the wrong length")),
        None => Ok(None),
    }
}
