//! `health check`: everything recomputed from what is stored, nothing believed.

use mobo_core::ids::DeviceId;
use mobo_core::record::RecordState;
use mobo_core::schema::{Collection, FieldType};
use mobo_core::store::{BucketAudit, LaneAudit, RecordRow};
use serde_json::{Map, Value, json};

use super::Desk;
use crate::admin::{AdminError, show_time};

/// The word for the health of a board in this state.
pub(super) fn word(state: &str) -> &'static str {
    match state {
        "ready" => "healthy",
        "degraded" => "degraded",
        "failed" => "failed",
        _ => "starting",
    }
}

/// The word for a kind of conflict.
pub(super) fn conflict_kind(code: u8) -> &'static str {
    match code {
        1 => "concurrent",
        2 => "hidden_by_delete",
        3 => "time_uncertain",
        _ => "unknown",
    }
}

impl Desk {
    /// Recomputes digests from rows and chains from entries.
    pub(super) async fn health_check(&self) -> Result<Value, AdminError> {
        let opened = self.0.opened()?;
        let schema = self.0.schema()?;
        let info = opened.store.info().await?;
        let store = format!("{} {} at {}", info.kind, info.version, info.place);
        let mut checks = vec![json!({ "name": "store", "ok": true, "detail": store })];
        for bucket in opened.store.audit_buckets(opened.project).await? {
            let damaged = bucket.damaged.iter().map(|key| {
                let name = schema.get(key.collection).map_or_else(|| key.collection.to_string(), |collection| collection.name.clone());
                format!("{name}/{}", key.id)
            });
            checks.push(show_bucket(&bucket, damaged.collect()));
        }
        for lane in opened.store.audit_lanes(opened.project).await? {
            checks.push(show_lane(&lane));
        }
        let ok = checks.iter().all(|check| check.get("ok") == Some(&Value::Bool(true)));
        Ok(json!({ "ok": ok, "health": if ok { "healthy" } else { "failed" }, "at": show_time(opened.time.now()), "checks": checks }))
    }
}

fn show_bucket(bucket: &BucketAudit, damaged: Vec<String>) -> Value {
    let ok = bucket.stored == bucket.computed && damaged.is_empty() && bucket.position_max <= bucket.head;
    let detail = if ok {
        format!("digest {} at {}", bucket.computed, bucket.head.0)
    } else if damaged.is_empty() {
        format!("bucket {} does not fit its digest: stored {}, recomputed from its rows {}", bucket.key, bucket.stored, bucket.computed)
    } else {
        format!("bucket {} holds damaged records: {}; restore them from a backup or a device", bucket.key, damaged.join(", "))
    };
    json!({
        "name": format!("bucket {}", bucket.key), "ok": ok, "detail": detail, "bucket": bucket.key, "head": bucket.head.0,
        "stored": bucket.stored.to_string(), "computed": bucket.computed.to_string(), "damaged": damaged,
    })
}

fn show_lane(lane: &LaneAudit) -> Value {
    let name = format!("lane {} of {}", lane.lane.lane.number(), lane.lane.device);
    let counted = lane.entries == lane.last.get();
    let ok = lane.broken_at.is_none() && counted;
    let detail = match lane.broken_at {
        Some(seq) => format!("the chain breaks at entry {}: an entry was changed after it was merged", seq.get()),
        None if counted => format!("{} entries, chain whole", lane.entries),
        None => format!("{} entries on record, {} expected", lane.entries, lane.last.get()),
    };
    json!({ "name": name, "ok": ok, "detail": detail, "entries": lane.entries, "last": lane.last.get() })
}

/// A record's fields with who wrote each last.
pub(super) fn show_record(collection: &Collection, row: &RecordRow, name: impl Fn(DeviceId) -> String) -> Value {
    let columns = row.state.project(collection);
    let mut fields = Map::new();
    for (index, field) in collection.fields.iter().enumerate() {
        let value = columns.as_ref().and_then(|columns| columns.get(index));
        let kind = if field.kind == FieldType::Counter { FieldType::Int } else { field.kind };
        let mut shown = Map::new();
        shown.insert("value".to_owned(), value.map_or(Value::Null, |value| mobo_core::json::value_to_json(value, kind)));
        if let RecordState::Table(state) = &row.state {
            if let Some(cell) = state.cells.get(&field.id) {
                shown.insert("by".to_owned(), json!(name(cell.stamp.device)));
                shown.insert("at".to_owned(), json!(show_time(cell.stamp.eff)));
            }
            if let Some(tallies) = state.counters.get(&field.id) {
                let parts = tallies.iter().map(|(origin, tally)| json!({ "by": name(origin.device), "added": tally.sum.to_string() }));
                shown.insert("from".to_owned(), Value::Array(parts.collect()));
            }
        }
        fields.insert(field.name.clone(), Value::Object(shown));
    }
    json!({ "visible": columns.is_some(), "ver": row.ver.0, "fields": fields })
}
