//! What a client wants of a channel that it joins.

use std::collections::BTreeMap;
use std::sync::Arc;

use mobo_core::ids::CollectionId;
use mobo_core::limits;
use mobo_core::live::{LiveChange, LiveKind, LivePoint};
use mobo_core::query::{Column, ColumnType, Filter};
use mobo_core::rfc3339;
use mobo_core::rights::Action;
use mobo_core::schema::{Collection, FieldType, Schema};
use serde_json::{Value as Json, json};

use super::super::viewer::{View, Viewer};
use super::super::wanted::{self, Wanted};
use crate::access::Guard;
use crate::problem::Problem;

/// One `postgres_changes` of a channel.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) id: u64,
    /// As the client wrote it, which it wants back.
    given: Json,
    kind: Option<LiveKind>,
    pub(super) wanted: Vec<Wanted>,
}

/// Settings of a channel.
#[derive(Clone, Debug, Default)]
pub(super) struct Config {
    pub(super) broadcast_self: bool,
    pub(super) broadcast_ack: bool,
    pub(super) presence_key: String,
    pub(super) private: bool,
    /// Where the client wants to go on, if it knows the extension and has a place.
    pub(super) resume: Option<Option<LivePoint>>,
}

impl Config {
    /// Reads them.
    ///
    /// # Errors
    ///
    /// For what this version does not have: a client that was told nothing would think that nothing was said before.
    pub(super) fn read(config: &Json) -> Result<Self, Problem> {
        if config.pointer("/broadcast/replay").is_some_and(|replay| !replay.is_null()) {
            return Err(Problem::unsupported("replay of broadcasts").hint("write what shall be kept into a collection, and read it"));
        }
        let flag = |path: &str| config.pointer(path).and_then(Json::as_bool).unwrap_or(false);
        let resume = config.get("mobo").map(|mobo| {
            let log = mobo.get("stream_id").and_then(Json::as_str)?;
            let n = mobo.get("serial").and_then(Json::as_u64)?;
            // A place that is none is one that has expired.
            Some(format!("{log}-{n}").parse().unwrap_or(LivePoint { log: 0, n: 0 }))
        });
        Ok(Self {
            broadcast_self: flag("/broadcast/self"),
            broadcast_ack: flag("/broadcast/ack"),
            presence_key: config.pointer("/presence/key").and_then(Json::as_str).unwrap_or_default().to_owned(),
            private: flag("/private"),
            resume,
        })
    }
}

/// What all bindings of a channel are read with.
#[derive(Debug)]
pub(super) struct Reading {
    guard: Guard,
    schema: Arc<Schema>,
    /// Those that were named before: bindings share them.
    collections: BTreeMap<CollectionId, Arc<Collection>>,
    /// Collections, each counted with every binding that looks at it, that the client may have yet.
    views_left: usize,
}

impl Reading {
    /// For a client as it may look now.
    ///
    /// # Errors
    ///
    /// As `access` says.
    pub(super) async fn of(viewer: &Viewer, views_left: usize) -> Result<Self, Problem> {
        let (guard, schema) = (viewer.guard().await?, viewer.gate().backend().schema());
        Ok(Self { guard, schema, collections: BTreeMap::new(), views_left })
    }

    /// The collections that a binding names.
    fn named(&mut self, table: &str) -> Result<Vec<Arc<Collection>>, Problem> {
        let found = match table {
            "" | "*" => {
                let (guard, shared) = (&self.guard, &mut self.collections);
                let open = self.schema.iter().filter(|collection| guard.may(collection, Action::Read));
                open.map(|collection| Arc::clone(shared.entry(collection.id).or_insert_with(|| Arc::new(collection.clone())))).collect()
            }
            name => {
                let collection = self.guard.collection(name)?;
                vec![Arc::clone(self.collections.entry(collection.id).or_insert(collection))]
            }
        };
        let left = self.views_left.checked_sub(found.len());
        self.views_left = left.ok_or_else(|| {
            let max = limits::VIEWS_PER_SOCKET_MAX;
            Problem::too_large(format!("one connection looks at no more than {max} collections, each counted with every postgres_changes"))
        })?;
        Ok(found)
    }

    /// Reads what is wanted, and asks whether it may be had.
    ///
    /// # Errors
    ///
    /// 400 for what is not understood, 413 for more than one connection looks at, and as `access` says.
    pub(super) fn binding(&mut self, id: u64, given: &Json) -> Result<Binding, Problem> {
        let word = |name: &str| given.get(name).and_then(Json::as_str).unwrap_or_default();
        let kind = match word("event").to_ascii_uppercase().as_str() {
            "*" | "" => None,
            "INSERT" => Some(LiveKind::Insert),
            "UPDATE" => Some(LiveKind::Update),
            "DELETE" => Some(LiveKind::Delete),
            other => return Err(Problem::parse(format!("event is *, INSERT, UPDATE or DELETE, not {other}"))),
        };
        if !["", "public", "*"].contains(&word("schema")) {
            return Err(Problem::parse(format!("there is no schema \"{}\"; collections are in public", word("schema"))));
        }
        let text = word("filter");
        let collections = self.named(word("table"))?;
        let select = given.get("select").and_then(Json::as_array);
        let select = select.map(|names| names.iter().filter_map(Json::as_str).map(str::to_owned).collect::<Vec<_>>());
        let mut wanted = Vec::new();
        for collection in collections {
            let view = View::of(&self.guard, &collection, &Filter::all())?;
            let filter = match text {
                "" => Filter::all(),
                text => wanted::filter(&collection, &view.columns(&collection), &side_by_side(text))?,
            };
            wanted.push(Wanted { collection, filter, select: select.clone(), view });
        }
        if wanted.is_empty() {
            return Err(Problem::no_policy());
        }
        Ok(Binding { id, given: given.clone(), kind, wanted })
    }
}

impl Binding {
    /// As it is confirmed.
    pub(super) fn confirmed(&self) -> Json {
        let mut shown = self.given.clone();
        if let Json::Object(members) = &mut shown {
            members.insert("id".to_owned(), self.id.into());
        }
        shown
    }

    /// What it tells of a change, without its id.
    pub(super) fn tell(&self, change: &LiveChange) -> Option<Json> {
        let wanted = self.wanted.iter().find(|wanted| wanted.id() == change.collection)?;
        let seen = wanted.seen_as_is(change).filter(|seen| self.kind.is_none_or(|kind| kind == seen.kind))?;
        let mut told = json!({
            "schema": "public",
            "table": wanted.collection.name,
            "commit_timestamp": rfc3339::format(change.at.0),
            "type": seen.kind.name().to_ascii_uppercase(),
            "columns": shown_columns(&wanted.columns()),
            "errors": null,
        });
        if let Json::Object(members) = &mut told {
            members.extend(seen.new.map(|row| ("record".to_owned(), Json::Object(row.into_owned()))));
            members.extend(seen.old.map(|row| ("old_record".to_owned(), Json::Object(row.into_owned()))));
        }
        Some(told)
    }
}

/// Conditions with commas between them as they are in a query.
fn side_by_side(text: &str) -> String {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    let part = |letter: char| {
        let ends = letter == ',' && depth == 0 && !quoted;
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '(' | '{' if !quoted => depth += 1,
            ')' | '}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        if ends { '&' } else { letter }
    };
    text.chars().map(part).collect()
}

fn shown_columns(columns: &[Column]) -> Json {
    let name = |kind: ColumnType| match kind {
        ColumnType::Key | ColumnType::Field(FieldType::Text) => "text",
        ColumnType::Field(FieldType::Int | FieldType::Counter) => "int8",
        ColumnType::Field(FieldType::Float) => "float8",
        ColumnType::Field(FieldType::Bool) => "bool",
        ColumnType::Field(FieldType::Timestamp) => "timestamptz",
        ColumnType::Field(FieldType::Bytes) => "bytea",
        ColumnType::Field(FieldType::Json | FieldType::List) => "jsonb",
    };
    columns.iter().map(|column| json!({ "name": column.name, "type": name(column.kind) })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_part_conditions_where_they_are_bare() {
        for (text, want) in [
            ("a=eq.1", "a=eq.1"),
            ("a=eq.1,b=gt.2", "a=eq.1&b=gt.2"),
            ("a=in.(1,2),b=eq.x", "a=in.(1,2)&b=eq.x"),
            (r#"a=in.("x,\"y",z),b=eq.1"#, r#"a=in.("x,\"y",z)&b=eq.1"#),
        ] {
            assert_eq!(side_by_side(text), want);
        }
    }

    #[test]
    fn settings_have_defaults() {
        let read = |given: Json| Config::read(&given).unwrap();
        let config = read(json!({}));
        assert!(!config.broadcast_self && !config.broadcast_ack && !config.private && config.resume.is_none());
        let config = read(json!({ "broadcast": { "self": true }, "presence": { "key": "k" }, "mobo": { "stream_id": "a", "serial": 7 } }));
        assert!(config.broadcast_self);
        assert_eq!((config.presence_key.as_str(), config.resume), ("k", Some(Some(LivePoint { log: 10, n: 7 }))));
        assert_eq!(read(json!({ "mobo": {} })).resume, Some(None));
        assert_eq!(read(json!({ "mobo": { "stream_id": "?", "serial": 1 } })).resume, Some(Some(LivePoint { log: 0, n: 0 })));
        assert!(!read(json!({ "broadcast": { "replay": null } })).broadcast_self);
        let replay = Config::read(&json!({ "broadcast": { "replay": { "since": 1, "limit": 10 } } })).unwrap_err();
        assert!(replay.message().contains("replay of broadcasts"), "{}", replay.message());
    }
}
