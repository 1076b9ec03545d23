//! `health check`: everything recomputed from what is stored, nothing believed.

use mobo_core::limits;
use mobo_core::store::{BucketAudit, LaneAudit};
use serde_json::{Value, json};

use super::Desk;
use crate::admin::{AdminError, show_time};
use crate::intake;
use crate::node::Opened;

impl Desk {
    /// Recomputes digests from rows and chains from entries.
    pub(super) async fn health_check(&self) -> Result<Value, AdminError> {
        let opened = self.0.opened()?;
        let schema = self.0.schema()?;
        let info = opened.store.info().await?;
        let store = format!("{} {} at {}", info.kind, info.version, info.place);
        let mut checks = vec![json!({ "name": "store", "ok": true, "detail": store })];
        for bucket in self.audited(&opened).await? {
            let damaged = bucket.damaged.iter().map(|key| {
                let name = schema.get(key.collection).map_or_else(|| key.collection.to_string(), |collection| collection.name.clone());
                format!("{name}/{}", key.id)
            });
            checks.push(show_bucket(&bucket, damaged.collect()));
        }
        for lane in opened.store.audit_lanes(opened.project).await? {
            checks.push(show_lane(&lane));
        }
        checks.extend(mobo_runtime::board_desk::checks(&self.0.board));
        let ok = checks.iter().all(|check| check.get("ok") == Some(&Value::Bool(true)));
        Ok(json!({ "ok": ok, "health": if ok { "healthy" } else { "failed" }, "at": show_time(opened.time.now()), "checks": checks }))
    }

    /// The buckets, with nothing in their tables that SQL has written and nobody has taken in: such rows are not damaged, they wait. Where
    /// other programs write all the time, what was found the last time counts.
    async fn audited(&self, opened: &Opened) -> Result<Vec<BucketAudit>, AdminError> {
        let mut audits = Vec::new();
        for _ in 0..limits::AUDIT_TRIES_MAX {
            for _ in 0..limits::AUDIT_INTAKES_MAX {
                if !intake::step(&self.0, opened).await? {
                    break;
                }
            }
            audits = opened.store.audit_buckets(opened.project).await?;
            if audits.iter().all(is_sound) || !intake::step(&self.0, opened).await? {
                break;
            }
        }
        Ok(audits)
    }
}

fn is_sound(bucket: &BucketAudit) -> bool {
    bucket.stored == bucket.computed && bucket.damaged.is_empty() && bucket.position_max <= bucket.head
}

fn show_bucket(bucket: &BucketAudit, damaged: Vec<String>) -> Value {
    let ok = is_sound(bucket);
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
