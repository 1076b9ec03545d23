//! What an operator decides about the decisions of merges.

use mobo_core::author::{Edit, Intent};
use mobo_core::ids::{Nonce, RecordId, RecordKey};
use mobo_core::limits;
use mobo_core::merge::{LocalBody, LocalWrite, Outcome, Prepared};
use mobo_core::schema::Collection;
use mobo_core::store::{ConflictPolicy, ConflictRow};
use mobo_runtime::entropy;
use serde_json::{Map, Value, json};

use super::{Desk, no_collection, text};
use crate::admin::{AdminError, show_time};

impl Desk {
    pub(super) async fn settle(&self, verb: &str, args: &Value) -> Result<Value, AdminError> {
        let schema = self.0.schema()?;
        let name = text(args, "collection");
        let collection = schema.by_name(&name).ok_or_else(|| no_collection(&schema, &name))?;
        let field = match text(args, "field").as_str() {
            "" => None,
            field => Some(collection.field(field).ok_or_else(|| AdminError::Usage(format!("{name} has no field \"{field}\"")))?),
        };
        if verb == "conflict policy" {
            let word = text(args, "policy");
            let unknown = || AdminError::Usage(format!("\"{word}\" is no policy: take silent, log or review"));
            let policy = ConflictPolicy::from_name(&word).ok_or_else(unknown)?;
            let id = field.map_or(0, |field| field.id.get());
            let opened = self.0.opened()?;
            opened.store.set_conflict_policy(opened.project, collection.id, id, policy).await?;
            return Ok(json!({ "collection": name, "field": field.map(|field| &field.name), "policy": word }));
        }
        let id = RecordId::new(text(args, "id")).map_err(|error| AdminError::Usage(error.to_string()))?;
        let key = RecordKey { collection: collection.id, id };
        let mut found = self.conflicts_of(&key).await?;
        found.retain(|row| field.is_none_or(|field| row.field == field.id.get()));
        if found.is_empty() {
            let what = field.map_or_else(|| "the record".to_owned(), |field| format!("field \"{}\"", field.name));
            return Err(AdminError::NoSuch { what: "conflict", name: format!("{name} {} of {what}", key.id), near: None });
        }
        if verb == "conflict show" {
            return Ok(Value::Array(found.iter().map(|row| shown(collection, row)).collect()));
        }
        let mut fields = Map::new();
        if let (Some(value), Some(field)) = (args.get("value").and_then(Value::as_str), field) {
            let value = serde_json::from_str(value).map_err(|error| AdminError::Usage(format!("--value is no JSON: {error}")))?;
            fields.insert(field.name.clone(), value);
        } else if args.get("loser").and_then(Value::as_bool) == Some(true) {
            // Oldest first, so that the latest stays.
            for row in found.iter().rev() {
                let field = collection.fields.iter().find(|field| field.id.get() == row.field);
                let Some(field) = field else {
                    return Err(AdminError::Usage("what a delete has hidden is written anew with put".to_owned()));
                };
                fields.insert(field.name.clone(), row.loser.clone());
            }
        }
        if !fields.is_empty() {
            self.write(collection, Edit { id: key.id.clone(), intent: Intent::Patch, fields }).await?;
        }
        let opened = self.0.opened()?;
        let settled = opened.store.settle_conflicts(opened.project, key, field.map(|field| field.id.get())).await?;
        Ok(json!({ "resolved": found.len().max(usize::try_from(settled).unwrap_or(0)) }))
    }

    /// The open conflicts of a record, newest first.
    async fn conflicts_of(&self, key: &RecordKey) -> Result<Vec<ConflictRow>, AdminError> {
        let opened = self.0.opened()?;
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = opened.store.conflicts(opened.project, after.take(), limits::CONTROL_PAGE_ROWS_MAX).await?;
            let Some(last) = page.last().map(ConflictRow::place) else { return Ok(found) };
            found.extend(page.into_iter().filter(|row| row.collection == key.collection && row.id == key.id.as_str()));
            after = Some(last);
        }
    }

    /// An ordinary write of the hub's own.
    async fn write(&self, collection: &Collection, edit: Edit) -> Result<(), AdminError> {
        let opened = self.0.opened()?;
        let write = LocalWrite {
            lane: opened.history.era().author.lane(collection.lane),
            collection: collection.id,
            body: LocalBody::Edits(vec![edit]),
            moment: self.0.clock.moment(),
            nonce: Nonce(entropy::bytes()?),
            author: None,
            bounds: None,
        };
        match self.0.merges()?.merge(Prepared::Local(Box::new(write))).await? {
            Outcome::Merged(merged) if merged.rejects.is_empty() => Ok(()),
            Outcome::Merged(merged) => {
                Err(AdminError::Usage(merged.rejects.first().map_or_else(String::new, |reject| reject.detail.clone())))
            }
            Outcome::Refused(error) => Err(AdminError::Usage(error.to_string())),
            Outcome::Nack { .. } | Outcome::Refence { .. } => {
                Err(AdminError::Usage("the hub's own log is not open: restart it".to_owned()))
            }
        }
    }
}

fn shown(collection: &Collection, row: &ConflictRow) -> Value {
    let field = collection.fields.iter().find(|field| field.id.get() == row.field).map(|field| &field.name);
    json!({
        "field": field, "winner": row.winner, "loser": row.loser, "winner_device": row.winner_stamp.device.to_string(),
        "winner_at": show_time(row.winner_stamp.eff), "loser_device": row.loser_stamp.device.to_string(),
        "loser_at": show_time(row.loser_stamp.eff), "at": show_time(row.at),
    })
}
