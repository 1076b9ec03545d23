//! Records of a backup that are written into the running hub.

use std::sync::Arc;

use mobo_core::author::{Edit, Intent};
use mobo_core::ids::{RecordId, RecordKey};
use mobo_gate::backend::{Backend, WriteRequest};
use serde_json::{Map, Value, json};

use super::{Desk, no_collection, text};
use crate::admin::AdminError;
use crate::backup::fields;
use crate::records::HubRecords;

impl Desk {
    /// Makes records what they were in a backup, by a write of the hub's own, which its devices get like any other. What is like that already is
    /// left alone, and so are fields that the backup does not know. Says how many came back, were changed, and were the same.
    pub(super) async fn restore_records(&self, args: &Value) -> Result<Value, AdminError> {
        let (opened, schema) = (self.0.opened()?, self.0.schema()?);
        let name = text(args, "collection");
        let collection = schema.by_name(&name).ok_or_else(|| no_collection(&schema, &name))?;
        let (mut edits, mut back, mut changed, mut same) = (Vec::new(), 0, 0, 0);
        for row in args.get("rows").and_then(Value::as_array).into_iter().flatten() {
            let (id, was) = record(row)?;
            let key = RecordKey { collection: collection.id, id: id.clone() };
            let now = opened.store.record(opened.project, key).await?.and_then(|row| fields(collection, &row.state));
            match now {
                None => back += 1,
                Some(now) if was.iter().all(|(name, value)| now.get(name) == Some(value)) => {
                    same += 1;
                    continue;
                }
                Some(_) => changed += 1,
            }
            edits.push(Edit { id, intent: Intent::Merge, fields: was });
        }
        let is_trial = args.get("dry_run").and_then(Value::as_bool) == Some(true);
        if !edits.is_empty() && !is_trial {
            let records = HubRecords::new(Arc::clone(&self.0), opened.project);
            let write = WriteRequest { collection: Arc::new(collection.clone()), edits, author: None, patience: None, bounds: None };
            records.write(write).await.map_err(|error| AdminError::Usage(format!("{name}: {error}")))?;
        }
        Ok(json!({ "back": back, "changed": changed, "same": same }))
    }
}

fn record(row: &Value) -> Result<(RecordId, Map<String, Value>), AdminError> {
    let fields = row.get("fields").and_then(Value::as_object);
    let id = RecordId::new(text(row, "id")).ok();
    id.zip(fields.cloned()).ok_or_else(|| AdminError::Usage("that is no record".to_owned()))
}
