//! SQL that was written into the tables of collections, taken in as writes of the hub's own (rule R24).
//!
//! Triggers note each row as it was and as it is. The intake takes what is committed, makes each row again what it was before the first
//! statement that touched it, and merges what was done to it, a transaction as one entry, in the order in which they were committed. A merge
//! that finds a record of its own waiting here takes it in first, and begins again: no merge works on a row that nobody has stamped.

use std::collections::{BTreeMap, BTreeSet};

use mobo_core::author::{Edit, Intent};
use mobo_core::ids::{BootId, CollectionId, DeviceId, Lane, Nonce, RecordId, RecordKey, Ver};
use mobo_core::json::value_to_json;
use mobo_core::limits;
use mobo_core::merge::{HubAuthor, LocalBody, LocalWrite, Outcome, Prepared, SeenEdit};
use mobo_core::schema::{Collection, FieldType, Schema};
use mobo_core::store::{MergeBatch, MergeReport};
use mobo_core::time::{Moment, Mono, Wall, WallQuality};
use mobo_core::value::Value;
use serde_json::{Map, Value as Json, json};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row};

use super::Inner;
use super::error::{Failure, known};
use super::hub;
use super::merge;
use super::schemas;
use super::session::{Purpose, Tx};
use super::table::table;

/// One intake at a time, in all hubs of the database. Any number, as long as it is the same in every hub.
const LOCK: i64 = 0x6d6f_626f_696e_746b;

/// True if something waits.
pub(super) async fn waits(tx: &mut Tx) -> Result<bool, Failure> {
    let row = tx.row(sqlx::query("SELECT EXISTS (SELECT 1 FROM mobo.intake)")).await?;
    Ok(known(row, "answer")?.try_get(0)?)
}

/// True if one of these records waits.
pub(super) async fn touches(tx: &mut Tx, keys: &BTreeSet<RecordKey>) -> Result<bool, Failure> {
    if keys.is_empty() || !waits(tx).await? {
        return Ok(false);
    }
    let (collections, ids): (Vec<i64>, Vec<&str>) = keys.iter().map(|key| (key.collection.sql(), key.id.as_str())).unzip();
    let look = sqlx::query(
        "SELECT EXISTS (SELECT 1 FROM mobo.intake i JOIN unnest($1::int8[], $2::text[]) AS w(collection, id) USING (collection, id))",
    );
    let row = tx.row(look.bind(collections).bind(ids)).await?;
    Ok(known(row, "answer")?.try_get(0)?)
}

/// A statement's work on one record.
struct Noted {
    n: i64,
    txid: i64,
    key: RecordKey,
    old: Option<Map<String, Json>>,
    new: Option<Map<String, Json>>,
}

/// Takes in everything that is committed; `None` when nothing is.
pub(super) async fn take_in(store: &Inner, batch: &MergeBatch) -> Result<Option<MergeReport>, Failure> {
    let mut tx = Tx::begin(&store.pool, Purpose::Read).await?;
    let waits = waits(&mut tx).await;
    if !tx.finish(waits).await? {
        return Ok(None);
    }
    loop {
        let mut tx = Tx::begin(&store.pool, Purpose::Merge).await?;
        match taking(&mut tx, store, batch).await {
            Ok(merge::Attempt::Done(report, keys)) => {
                let report = tx.finish(Ok(report)).await?;
                store.known.keep_buckets(batch.project, keys);
                return Ok(Some(report));
            }
            Ok(merge::Attempt::LanesMissing(missing)) => {
                tx.rollback().await?;
                merge::make_lanes(store, batch.project, &missing).await?;
            }
            Ok(merge::Attempt::Nothing(report)) => return tx.finish(Ok(Some(report))).await,
            Ok(merge::Attempt::Waiting) => return tx.finish(Err(Failure::damaged("an intake waits for itself"))).await,
            Err(failure) => return tx.finish(Err(failure)).await,
        }
    }
}

async fn taking(tx: &mut Tx, store: &Inner, batch: &MergeBatch) -> Result<merge::Attempt, Failure> {
    tx.patient().await?;
    tx.run(sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK)).await?;
    let schema = schemas::current(tx, &store.known, batch.project).await?;
    let hub = hub::read(tx).await?;
    let author = HubAuthor { device: DeviceId::of(&hub.key), incarnation: hub.incarnation };
    let rows = tx.rows(sqlx::query("DELETE FROM mobo.intake RETURNING n, txid, collection, id, old::text, new::text")).await?;
    let mut noted = rows.iter().map(note).collect::<Result<Vec<Noted>, Failure>>()?;
    noted.sort_unstable_by_key(|noted| noted.n);
    // Of a collection that is gone, or that this version does not know.
    noted.retain(|noted| schema.get(noted.key.collection).is_some());
    let works = works(&schema, &noted);
    let submissions: Vec<Prepared> =
        (0_u32..).zip(&works).filter_map(|(nth, work)| local(batch, author, nth, work.edits.clone())).collect();
    let own = MergeBatch { submissions, schema, ..batch.clone() };
    let firsts = firsts(&noted);
    let attempt = merge::attempt(tx, store, &own, Some(&firsts)).await?;
    let outcomes = match &attempt {
        merge::Attempt::Done(report, _) | merge::Attempt::Nothing(report) => &report.outcomes,
        merge::Attempt::LanesMissing(_) | merge::Attempt::Waiting => return Ok(attempt),
    };
    for (outcome, work) in outcomes.iter().zip(&works) {
        if let Outcome::Refused(error) = outcome {
            refuse(tx, work, &error.to_string()).await?;
        }
    }
    Ok(attempt)
}

fn note(row: &PgRow) -> Result<Noted, Failure> {
    let map = |column: usize| -> Result<Option<Map<String, Json>>, Failure> {
        let text: Option<String> = row.try_get(column)?;
        text.map(|text| serde_json::from_str(&text).map_err(|error| Failure::damaged(error.to_string()))).transpose()
    };
    let collection = known(CollectionId::from_sql(row.try_get(2)?), "collection")?;
    let id = RecordId::new(row.try_get::<String, _>(3)?).map_err(|error| Failure::damaged(error.to_string()))?;
    let key = RecordKey { collection, id };
    Ok(Noted { n: row.try_get(0)?, txid: row.try_get(1)?, key, old: map(4)?, new: map(5)? })
}

/// What is to be one entry: a transaction, or a part of one that does not fit.
struct Work<'n> {
    edits: Vec<SeenEdit>,
    noted: Vec<&'n Noted>,
}

/// The transactions in the order in which they were committed, as far as they met: whoever wrote a row later has its last number later.
fn works<'n>(schema: &Schema, noted: &'n [Noted]) -> Vec<Work<'n>> {
    let mut lasts: BTreeMap<i64, i64> = BTreeMap::new();
    for noted in noted {
        lasts.insert(noted.txid, noted.n);
    }
    let order: BTreeMap<i64, i64> = lasts.iter().map(|(txid, last)| (*last, *txid)).collect();
    let mut works = Vec::new();
    for txid in order.values() {
        let (mut work, mut bytes) = (Work { edits: Vec::new(), noted: Vec::new() }, 0);
        for noted in noted.iter().filter(|noted| noted.txid == *txid) {
            let Some(collection) = schema.get(noted.key.collection) else { continue };
            let Some(seen) = edit(collection, noted) else { continue };
            let more = Json::Object(seen.edit.fields.clone()).to_string().len() + 128;
            if !work.edits.is_empty() && (work.edits.len() >= limits::ENTRY_OPS_MAX || bytes + more > limits::ENTRY_PAYLOAD_BYTES_MAX / 2) {
                works.push(std::mem::replace(&mut work, Work { edits: Vec::new(), noted: Vec::new() }));
                bytes = 0;
            }
            bytes += more;
            work.edits.push(seen);
            work.noted.push(noted);
        }
        if !work.edits.is_empty() {
            works.push(work);
        }
    }
    works
}

/// What a statement did to a record, as somebody would write it; `None` for nothing.
fn edit(collection: &Collection, noted: &Noted) -> Option<SeenEdit> {
    let (intent, mut fields) = match (&noted.old, &noted.new) {
        (None, None) => return None,
        (Some(_), None) => (Intent::Delete, Map::new()),
        (None, Some(_)) => (Intent::Put, Map::new()),
        (Some(_), Some(_)) => (Intent::Patch, Map::new()),
    };
    if let Some(new) = &noted.new {
        for field in collection.live_fields() {
            let value = new.get(&field.name).unwrap_or(&Json::Null);
            let before = noted.old.as_ref().map(|old| old.get(&field.name).unwrap_or(&Json::Null));
            if before == Some(value) {
                continue;
            }
            fields.insert(field.name.clone(), shown(field.kind, before, value));
        }
        if intent == Intent::Patch && fields.is_empty() {
            return None;
        }
    }
    let ver = |row: &Option<Map<String, Json>>| row.as_ref().and_then(|row| row.get("mobo_ver")).and_then(Json::as_u64);
    // A version that its writer gave is the one that it has read.
    let seen = ver(&noted.new).filter(|given| noted.old.is_some() && Some(*given) != ver(&noted.old)).map(Ver);
    let edit = Edit { id: noted.key.id.clone(), intent, fields };
    Some(SeenEdit { collection: collection.id, edit, seen })
}

/// A value as callers of the API write it: bytes in base64; what a counter was raised by.
fn shown(kind: FieldType, before: Option<&Json>, value: &Json) -> Json {
    match (kind, value) {
        (FieldType::Bytes, Json::String(hex)) => value_to_json(&Value::Bytes(bytes(hex)), kind),
        (FieldType::Counter, value) => {
            let seen = before.and_then(Json::as_i64).unwrap_or_default();
            json!({ "$inc": value.as_i64().unwrap_or_default().saturating_sub(seen) })
        }
        (_, value) => value.clone(),
    }
}

/// The bytes that `\x00ff` stands for.
fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.strip_prefix("\\x").unwrap_or(hex).as_bytes();
    let digit = |byte: u8| u8::try_from(char::from(byte).to_digit(16).unwrap_or_default()).unwrap_or_default();
    digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, one| byte << 4 | digit(*one))).collect()
}

fn local(batch: &MergeBatch, author: HubAuthor, nth: u32, edits: Vec<SeenEdit>) -> Option<Prepared> {
    let collection = edits.first()?.collection;
    let random = batch.entropy.first_chunk().copied().map_or(0, u64::from_le_bytes);
    let nonce = Nonce(random.wrapping_add(u64::from(nth)).to_le_bytes());
    let moment = Moment { boot: BootId([0; 8]), mono: Mono(0), wall: Wall(batch.now.0), quality: WallQuality::Set };
    let body = LocalBody::Seen(edits);
    let lane = author.lane(Lane::State);
    Some(Prepared::Local(Box::new(LocalWrite { lane, collection, body, moment, nonce, author: Some("sql".to_owned()), bounds: None })))
}

/// The rows as they were before anybody touched them, by record.
pub(super) struct Firsts<'n>(BTreeMap<&'n RecordKey, Option<&'n Map<String, Json>>>);

fn firsts(noted: &[Noted]) -> Firsts<'_> {
    let mut firsts = BTreeMap::new();
    for noted in noted {
        firsts.entry(&noted.key).or_insert(noted.old.as_ref());
    }
    Firsts(firsts)
}

/// Makes the rows what they were. Their lanes are locked.
pub(super) async fn put_back(tx: &mut Tx, schema: &Schema, firsts: &Firsts<'_>) -> Result<(), Failure> {
    let mut groups: BTreeMap<CollectionId, (Vec<&str>, Vec<String>)> = BTreeMap::new();
    for (key, old) in &firsts.0 {
        let (ids, rows) = groups.entry(key.collection).or_default();
        ids.push(key.id.as_str());
        rows.extend(old.map(|old| Json::Object(old.clone()).to_string()));
    }
    for (collection, (ids, rows)) in groups {
        let Some(collection) = schema.get(collection) else { continue };
        let name = table(collection);
        // Locked in the order in which everybody locks them.
        let lock = format!("SELECT id FROM {name} WHERE id = ANY($1) ORDER BY id FOR UPDATE");
        tx.rows(sqlx::query(AssertSqlSafe(lock)).bind(&ids)).await?;
        tx.run(sqlx::query(AssertSqlSafe(format!("DELETE FROM {name} WHERE id = ANY($1)"))).bind(&ids)).await?;
        if !rows.is_empty() {
            let insert =
                format!("INSERT INTO {name} SELECT (jsonb_populate_record(NULL::{name}, r::jsonb)).* FROM unnest($1::text[]) AS r");
            tx.run(sqlx::query(AssertSqlSafe(insert)).bind(rows)).await?;
        }
    }
    Ok(())
}

async fn refuse(tx: &mut Tx, work: &Work<'_>, why: &str) -> Result<(), Failure> {
    tracing::warn!(why, rows = work.noted.len(), "a transaction of SQL cannot be taken in: its rows are as they were before");
    let collections: Vec<i64> = work.noted.iter().map(|noted| noted.key.collection.sql()).collect();
    let ids: Vec<&str> = work.noted.iter().map(|noted| noted.key.id.as_str()).collect();
    let news: Vec<Option<String>> = work.noted.iter().map(|noted| noted.new.clone().map(|new| Json::Object(new).to_string())).collect();
    let insert = sqlx::query(
        "INSERT INTO mobo.intake_refused(collection, id, new, detail) SELECT w.collection, w.id, w.new::jsonb, $4 \
         FROM unnest($1::int8[], $2::text[], $3::text[]) AS w(collection, id, new)",
    );
    tx.run(insert.bind(collections).bind(ids).bind(news).bind(why)).await.map(|_| ())
}
