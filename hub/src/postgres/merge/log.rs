//! Writes what a batch leaves behind of its entries: lanes, identities, refusals, decisions.

use mobo_core::entry::Payload;
use mobo_core::ids::ProjectId;
use mobo_core::limits;
use mobo_core::merge::{EntryWrite, LaneWrite, PreparedEntry, QuarantineWrite};
use mobo_core::schema::{Kind, Schema};
use mobo_core::time::Eff;

use super::lanes::LaneKeys;
use crate::postgres::error::Failure;
use crate::postgres::session::Tx;

/// Moves the heads of lanes.
pub(super) async fn write_lanes(tx: &mut Tx, project: ProjectId, lanes: &[LaneWrite]) -> Result<(), Failure> {
    if lanes.is_empty() {
        return Ok(());
    }
    let keys = LaneKeys::of(lanes.iter().map(|lane| &lane.key));
    let last: Vec<i64> = lanes.iter().map(|lane| lane.last.get().cast_signed()).collect();
    let chains: Vec<[u8; 32]> = lanes.iter().map(|lane| lane.chain.0).collect();
    let effs: Vec<i64> = lanes.iter().map(|lane| lane.eff.0).collect();
    let (boots, monos): (Vec<Option<[u8; 8]>>, Vec<Option<i64>>) =
        lanes.iter().map(|lane| lane.clock.map(|(boot, mono)| (boot.0, mono.0.cast_signed())).unzip()).unzip();
    let signatures: Vec<Option<&[u8]>> = lanes.iter().map(|lane| lane.signature.as_ref().map(|signature| signature.as_bytes())).collect();
    let update = sqlx::query(
        "UPDATE mobo.lane l SET last = u.last, chain = u.chain, eff = u.eff, boot = u.boot, mono = u.mono, \
         signature = coalesce(u.signature, l.signature) \
         FROM unnest($2::bytea[], $3::int8[], $4::int2[], $5::int8[], $6::bytea[], $7::int8[], $8::bytea[], $9::int8[], $10::bytea[]) \
         AS u(device, incarnation, lane, last, chain, eff, boot, mono, signature) \
         WHERE l.project = $1 AND l.device = u.device AND l.incarnation = u.incarnation AND l.lane = u.lane",
    );
    let update = update.bind(project.sql()).bind(keys.devices).bind(keys.incarnations).bind(keys.lanes);
    tx.run(update.bind(last).bind(chains).bind(effs).bind(boots).bind(monos).bind(signatures)).await.map(|_| ())
}

/// Puts entries on record.
pub(super) async fn write_entries(tx: &mut Tx, project: ProjectId, entries: &[EntryWrite]) -> Result<(), Failure> {
    for some in entries.chunks(limits::POSTGRES_ROWS_MAX) {
        let keys = LaneKeys::of(some.iter().map(|entry| &entry.lane));
        let seqs: Vec<i64> = some.iter().map(|entry| entry.seq.get().cast_signed()).collect();
        let eids: Vec<Option<[u8; 16]>> = some.iter().map(|entry| entry.eid.map(|eid| eid.0)).collect();
        let origins: Vec<Option<[u8; 16]>> = some.iter().map(|entry| entry.origin.map(|eid| eid.0)).collect();
        let chains: Vec<[u8; 32]> = some.iter().map(|entry| entry.chain.0).collect();
        let effs: Vec<i64> = some.iter().map(|entry| entry.eff.0).collect();
        let outcomes: Vec<i16> = some.iter().map(|entry| i16::from(entry.outcome.code())).collect();
        let headers: Vec<&[u8]> = some.iter().map(|entry| entry.prepared.entry.header.as_slice()).collect();
        let payloads: Vec<&[u8]> = some.iter().map(|entry| payload(&entry.prepared)).collect();
        let insert = sqlx::query(
            "INSERT INTO mobo.entry(project, device, incarnation, lane, seq, eid, origin_eid, chain, eff, outcome, header, payload) \
             SELECT $1, u.* FROM unnest($2::bytea[], $3::int8[], $4::int2[], $5::int8[], $6::bytea[], $7::bytea[], $8::bytea[], \
             $9::int8[], $10::int2[], $11::bytea[], $12::bytea[]) AS u",
        );
        let insert = insert.bind(project.sql()).bind(keys.devices).bind(keys.incarnations).bind(keys.lanes).bind(seqs);
        let insert = insert.bind(eids).bind(origins).bind(chains).bind(effs).bind(outcomes).bind(headers).bind(payloads);
        tx.run(insert).await?;
    }
    Ok(())
}

/// Keeps refused entries, and notes whose later changes to a document build on nothing now.
pub(super) async fn write_quarantine(
    tx: &mut Tx,
    (project, now): (ProjectId, Eff),
    schema: &Schema,
    refused: &[QuarantineWrite],
) -> Result<(), Failure> {
    for some in refused.chunks(limits::POSTGRES_ROWS_MAX) {
        let keys = LaneKeys::of(some.iter().map(|write| &write.lane));
        let seqs: Vec<i64> = some.iter().map(|write| write.reject.seq.get().cast_signed()).collect();
        let (collections, ids) = records(some.iter());
        let codes: Vec<i32> = some.iter().map(|write| i32::from(write.reject.code.0)).collect();
        // Text of a device may be quoted in it, and Postgres takes no U+0000.
        let details: Vec<String> = some.iter().map(|write| write.reject.detail.replace('\0', "\u{fffd}")).collect();
        let headers: Vec<&[u8]> = some.iter().map(|write| write.prepared.entry.header.as_slice()).collect();
        let payloads: Vec<&[u8]> = some.iter().map(|write| payload(&write.prepared)).collect();
        let insert = sqlx::query(
            "INSERT INTO mobo.quarantine(project, device, incarnation, lane, seq, collection, id, code, detail, header, payload, at_us) \
             SELECT $1, u.*, $2 FROM unnest($3::bytea[], $4::int8[], $5::int2[], $6::int8[], $7::int8[], $8::text[], $9::int4[], \
             $10::text[], $11::bytea[], $12::bytea[]) AS u ON CONFLICT DO NOTHING",
        );
        let insert = insert.bind(project.sql()).bind(now.0).bind(keys.devices).bind(keys.incarnations).bind(keys.lanes).bind(seqs);
        tx.run(insert.bind(collections).bind(ids).bind(codes).bind(details).bind(headers).bind(payloads)).await?;
    }
    let is_document = |write: &&QuarantineWrite| {
        let collection = write.reject.record.as_ref().and_then(|(collection, _)| schema.get(*collection));
        collection.is_some_and(|collection| collection.kind == Kind::Document)
    };
    let documents: Vec<&QuarantineWrite> = refused.iter().filter(is_document).collect();
    if documents.is_empty() {
        return Ok(());
    }
    let keys = LaneKeys::of(documents.iter().map(|write| &write.lane));
    let seqs: Vec<i64> = documents.iter().map(|write| write.reject.seq.get().cast_signed()).collect();
    let (collections, ids) = records(documents.iter().copied());
    let insert = sqlx::query(
        "INSERT INTO mobo.blocked(project, collection, id, device, incarnation, seq) \
         SELECT $1, u.* FROM unnest($2::int8[], $3::text[], $4::bytea[], $5::int8[], $6::int8[]) AS u ON CONFLICT DO NOTHING",
    );
    tx.run(insert.bind(project.sql()).bind(collections).bind(ids).bind(keys.devices).bind(keys.incarnations).bind(seqs)).await?;
    Ok(())
}

/// The payload, or the hash of one that is lost.
fn payload(prepared: &PreparedEntry) -> &[u8] {
    match &prepared.entry.payload {
        Payload::Present(bytes) => bytes,
        Payload::Lost(hash) => hash,
    }
}

fn records<'w>(writes: impl Iterator<Item = &'w QuarantineWrite>) -> (Vec<Option<i64>>, Vec<Option<&'w str>>) {
    writes.map(|write| write.reject.record.as_ref().map(|(collection, id)| (collection.sql(), id.as_str())).unzip()).unzip()
}
