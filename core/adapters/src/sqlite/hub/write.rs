//! What a merge changes, written in its transaction.

use mobo_core::cbor::Writer;
use mobo_core::entry::Payload;
use mobo_core::ids::ProjectId;
use mobo_core::merge::{BucketState, LaneWrite, MemberWrite, QuarantineWrite, RecordWrite, SampleWrite, Writes};
use mobo_core::schema::{Collection, Kind, Schema};
use mobo_core::stamp::Stamp;
use mobo_core::time::Eff;
use rusqlite::Connection;

use super::{changes, entries};
use crate::sqlite::error::Failure;
use crate::sqlite::records::{NewRecord, RecordWriter};
use crate::sqlite::samples::SampleWriter;

/// Writes everything.
pub(super) fn write(connection: &Connection, project: ProjectId, (schema, now): (&Schema, Eff), writes: &Writes) -> Result<(), Failure> {
    records(connection, project, schema, &writes.records)?;
    samples(connection, schema, &writes.samples)?;
    members(connection, &writes.members)?;
    buckets(connection, project, &writes.buckets)?;
    lanes(connection, project, &writes.lanes)?;
    entries::write(connection, project, &writes.entries)?;
    quarantine(connection, project, (schema, now), &writes.quarantine)?;
    super::quarantine::write(connection, project, now, &writes.retried)?;
    super::quarantine::replaced(connection, project, now, &writes.entries)?;
    changes::write(connection, project, &writes.changes)?;
    super::conflicts::write(connection, project, (schema, now), &writes.conflicts)?;
    super::conflicts::settle(connection, project, &writes.settled)
}

fn records(connection: &Connection, project: ProjectId, schema: &Schema, writes: &[RecordWrite]) -> Result<(), Failure> {
    for group in writes.chunk_by(|a, b| a.key.collection == b.key.collection) {
        let Some(collection) = group.first().and_then(|write| schema.get(write.key.collection)) else { continue };
        let mut writer = RecordWriter::new(connection, project, collection)?;
        for write in group {
            writer.write(&NewRecord {
                id: &write.key.id,
                before: write.before,
                state: &write.state,
                state_hash: write.state_hash,
                ver: write.ver,
                mac: None,
                columns: write.columns.as_deref(),
                home: write.home,
            })?;
        }
    }
    Ok(())
}

fn samples(connection: &Connection, schema: &Schema, writes: &[SampleWrite]) -> Result<(), Failure> {
    for group in writes.chunk_by(|a, b| a.segment.collection == b.segment.collection) {
        let Some(collection) = group.first().and_then(|write| schema.get(write.segment.collection)) else { continue };
        let mut writer = SampleWriter::new(connection, collection)?;
        for write in group {
            writer.write(&write.lane, write.seq, write.eff, &write.segment)?;
        }
    }
    Ok(())
}

fn members(connection: &Connection, writes: &[MemberWrite]) -> Result<(), Failure> {
    let mut put = connection.prepare_cached(
        "INSERT INTO mobo_member(bucket, collection, id, position, present) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (bucket, collection, id) DO UPDATE SET position = excluded.position, present = excluded.present",
    )?;
    let mut drop = connection.prepare_cached("DELETE FROM mobo_member WHERE bucket = ?1 AND collection = ?2 AND id = ?3")?;
    for write in writes {
        let key = (write.bucket.sql(), write.key.collection.sql(), write.key.id.as_str());
        match write.at {
            Some((position, present)) => put.execute((key.0, key.1, key.2, position.0.cast_signed(), present))?,
            None => drop.execute(key)?,
        };
    }
    Ok(())
}

fn buckets(connection: &Connection, project: ProjectId, writes: &[BucketState]) -> Result<(), Failure> {
    let mut statement = connection.prepare_cached("UPDATE mobo_bucket SET head = ?1, digest = ?2 WHERE project = ?3 AND id = ?4")?;
    for bucket in writes {
        statement.execute((bucket.head.0.cast_signed(), bucket.digest.0, project.sql(), bucket.id.sql()))?;
    }
    Ok(())
}

fn lanes(connection: &Connection, project: ProjectId, writes: &[LaneWrite]) -> Result<(), Failure> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO mobo_lane(project, device, incarnation, lane, last, chain, eff, boot, mono, signature) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
         ON CONFLICT (project, device, incarnation, lane) DO UPDATE SET last = excluded.last, chain = excluded.chain, eff = excluded.eff, \
         boot = excluded.boot, mono = excluded.mono, signature = coalesce(excluded.signature, signature)",
    )?;
    for lane in writes {
        statement.execute((
            project.sql(),
            lane.key.device.as_bytes(),
            lane.key.incarnation.sql(),
            lane.key.lane.number(),
            lane.last.get().cast_signed(),
            lane.chain.as_bytes(),
            lane.eff.0,
            lane.clock.as_ref().map(|(boot, _)| boot.as_bytes()),
            lane.clock.map(|(_, mono)| mono.0.cast_signed()),
            lane.signature.as_ref().map(|signature| signature.as_bytes()),
        ))?;
    }
    Ok(())
}

fn quarantine(
    connection: &Connection,
    project: ProjectId,
    (schema, now): (&Schema, Eff),
    writes: &[QuarantineWrite],
) -> Result<(), Failure> {
    let mut keep = connection.prepare_cached(
        "INSERT INTO mobo_quarantine(project, device, incarnation, lane, seq, collection, id, code, detail, header, payload, at_us) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?;
    let mut block = connection.prepare_cached(
        "INSERT INTO mobo_blocked(project, collection, id, device, incarnation, seq) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT DO NOTHING",
    )?;
    for write in writes {
        let (lane, reject, entry) = (&write.lane, &write.reject, &write.prepared.entry);
        let device = lane.device.as_bytes();
        let seq = reject.seq.get().cast_signed();
        let payload = match &entry.payload {
            Payload::Present(bytes) => Some(bytes),
            Payload::Lost(_) => None,
        };
        let record = reject.record.as_ref();
        keep.execute((
            project.sql(),
            device,
            lane.incarnation.sql(),
            lane.lane.number(),
            seq,
            record.map(|record| record.0.sql()),
            record.map(|record| record.1.as_str()),
            reject.code.0,
            &reject.detail,
            &entry.header,
            payload,
            now.0,
        ))?;
        let is_document = |collection: &Collection| collection.kind == Kind::Document;
        if let Some((collection, id)) = record.filter(|record| schema.get(record.0).is_some_and(is_document)) {
            block.execute((project.sql(), collection.sql(), id.as_str(), device, lane.incarnation.sql(), seq))?;
        }
    }
    Ok(())
}

/// A stamp as it is kept.
pub(super) fn encode(stamp: &Stamp) -> Vec<u8> {
    let mut writer = Writer::new();
    stamp.encode(&mut writer);
    writer.into_bytes()
}
