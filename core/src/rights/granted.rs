//! What a caller may do, as it is applied to rows: before a query runs, and to every edit with its record locked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::author::{Edit, EditError, Intent, VERSION_KEY};
use crate::query::{Column, ColumnType, Filter, columns};
use crate::record::RecordState;
use crate::schema::Collection;
use crate::value::Value;

/// What a caller may do to a collection with one action.
#[derive(Clone, Debug, PartialEq)]
pub struct Granted {
    /// The rows.
    pub rows: Filter,
    /// The fields; `None` for all. `id` of a record and `at` and `device` of a sample are always among them.
    pub fields: Option<BTreeSet<String>>,
}

impl Granted {
    /// True for all rows and all fields.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.rows.is_all() && self.fields.is_none()
    }

    /// True for a column that the caller may use.
    #[must_use]
    pub fn has(&self, column: &Column) -> bool {
        let is_key = column.kind == ColumnType::Key || column.name == "at";
        is_key || self.fields.as_ref().is_none_or(|fields| fields.contains(&column.name))
    }

    /// The columns of a collection that there are for this caller.
    #[must_use]
    pub fn columns(&self, collection: &Collection) -> Vec<Column> {
        columns(collection).into_iter().filter(|column| self.has(column)).collect()
    }

    /// A column that a filter looks at and the caller may not use.
    #[must_use]
    pub fn hidden<'f>(&self, filter: &'f Filter) -> Option<&'f Column> {
        let mut hidden = None;
        filter.each(&mut |condition| {
            if hidden.is_none() && !self.has(&condition.operand.column) {
                hidden = Some(&condition.operand.column);
            }
        });
        hidden
    }
}

/// What the author of edits may do to the rows that he finds. [`allows`](Self::allows) is asked where nobody else's write can come between
/// the answer and the edit. What is absent, he may not do at all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bounds {
    /// Rows that he may make.
    pub create: Option<Arc<Granted>>,
    /// Rows that he may change: what they are and what they become.
    pub update: Option<Arc<Granted>>,
    /// Rows that he may remove.
    pub delete: Option<Arc<Granted>>,
}

impl Bounds {
    /// Whether the author may make this edit, which turns a record from one state into another.
    ///
    /// # Errors
    ///
    /// [`EditError::Denied`], with what keeps it.
    pub fn allows(&self, collection: &Collection, edit: &Edit, (before, after): (&RecordState, &RecordState)) -> Result<(), EditError> {
        let (old, new) = (row(collection, edit, before), row(collection, edit, after));
        let (granted, what) = match (&old, edit.intent) {
            (_, Intent::Delete) => (&self.delete, "deleted"),
            (None, _) => (&self.create, "made"),
            (Some(_), _) => (&self.update, "changed"),
        };
        let Some(granted) = granted else { return Err(denied(format!("no policy lets \"{}\" be {what}", edit.id))) };
        let is_kept = |name: &String| name != VERSION_KEY && granted.fields.as_ref().is_some_and(|fields| !fields.contains(name));
        let nothing = Row::new();
        let is_another = |name: &&String| old.as_ref().unwrap_or(&nothing).get(*name) != new.as_ref().unwrap_or(&nothing).get(*name);
        let written = edit.fields.keys().find(|name| is_kept(name));
        // Replacing a row empties the fields that are not given.
        let emptied = old.iter().flat_map(Row::keys).find(|name| *name != "id" && is_kept(name) && is_another(name));
        if let Some(field) = written {
            return Err(denied(format!("a policy keeps the field \"{field}\" from being written")));
        }
        // Which field that is, this author may not be allowed to know.
        if emptied.is_some() && edit.intent != Intent::Delete {
            return Err(denied(
                "replacing this row would empty a field that a policy keeps from being written: change it with PATCH".to_owned(),
            ));
        }
        if !old.iter().chain(new.iter()).all(|row| granted.rows.lets_through(row)) {
            let is_delete = edit.intent == Intent::Delete;
            let why = if is_delete {
                "a policy keeps one of these rows from being deleted"
            } else {
                "new row violates the policy of this collection"
            };
            return Err(denied(why.to_owned()));
        }
        Ok(())
    }
}

type Row = BTreeMap<String, Value>;

/// The row that readers see; `None` where there is none.
fn row(collection: &Collection, edit: &Edit, state: &RecordState) -> Option<Row> {
    let values = state.project(collection)?;
    let fields = collection.fields.iter().map(|field| field.name.clone()).zip(values);
    Some(fields.chain([("id".to_owned(), Value::Text(edit.id.as_str().to_owned()))]).collect())
}

fn denied(message: String) -> EditError {
    EditError::Denied(message)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::author::{Writer, author};
    use crate::engine::Author;
    use crate::ids::{CollectionId, DeviceId, FieldId, Incarnation, Lane, Ordinal, RecordId, RecordKey, Ver};
    use crate::overlay::provisional;
    use crate::query::Parser;
    use crate::schema::{Field, FieldType, Kind};

    fn orders() -> Collection {
        let fields = [("owner", FieldType::Text), ("secret", FieldType::Text), ("hours", FieldType::Counter)];
        let field = |(n, (name, kind)): (u64, (&str, FieldType))| Field {
            id: FieldId::new(n).unwrap(),
            name: name.to_owned(),
            kind,
            retired: false,
            references: None,
        };
        Collection {
            id: CollectionId::new(7).unwrap(),
            name: "orders".to_owned(),
            kind: Kind::Table,
            rev: 1,
            fields: (1..).zip(fields).map(field).collect(),
            rules: Vec::new(),
            lane: Lane::State,
            store: "default".to_owned(),
        }
    }

    fn granted(rows: &str, fields: &[&str]) -> Option<Arc<Granted>> {
        let (collection, mut filter) = (orders(), Filter::all());
        if !rows.is_empty() {
            let columns = columns(&collection);
            let mut parser = Parser::new("orders", &columns);
            parser.filters(rows).unwrap();
            filter = parser.finish().filter;
        }
        let fields = (!fields.is_empty()).then(|| fields.iter().map(|field| (*field).to_owned()).collect());
        Some(Arc::new(Granted { rows: filter, fields }))
    }

    fn edit(intent: Intent, fields: &Json) -> Edit {
        Edit { id: RecordId::new("a").unwrap(), intent, fields: fields.as_object().cloned().unwrap_or_default() }
    }

    /// Makes an edit of a state, as a store does it.
    fn made(state: &RecordState, edit: &Edit, nth: u64) -> RecordState {
        let collection = orders();
        let me = Author {
            device: DeviceId([1; 16]),
            incarnation: Incarnation::new(1).unwrap(),
            ordinal: Ordinal(1),
            ancestors: BTreeSet::new(),
        };
        let writer = Writer { collection: &collection, device: me.device, incarnation: me.incarnation, base_ver: Ver(0) };
        let op = author(&writer, state, edit).unwrap().unwrap();
        provisional(&collection, state, &op, (&me, nth)).unwrap()
    }

    /// Whether ann, who owns rows and may not write `secret`, may make that edit of the row; of none where it is null.
    #[track_caller]
    fn check(row: &Json, intent: Intent, fields: &Json, want: Option<&str>) {
        let collection = orders();
        let key = RecordKey { collection: collection.id, id: RecordId::new("a").unwrap() };
        let empty = RecordState::empty(&collection, &key).unwrap();
        let before = if row.is_null() { empty } else { made(&empty, &edit(Intent::Insert, row), 1) };
        let edit = edit(intent, fields);
        let after = made(&before, &edit, 2);
        let own = granted("owner=eq.ann", &["owner", "hours"]);
        let few = granted("owner=eq.ann&hours=lte.8", &["owner", "hours"]);
        let bounds = Bounds { create: own.clone(), update: few, delete: own };
        let found = bounds.allows(&collection, &edit, (&before, &after)).err().map(|error| error.to_string());
        assert_eq!(found.as_deref(), want, "{row} {intent:?} {fields}");
        assert!(Bounds::default().allows(&collection, &edit, (&before, &after)).is_err());
    }

    #[test]
    fn an_edit_is_measured_by_the_row_that_it_finds_and_the_row_that_it_makes() {
        let (hers, his) = (json!({ "owner": "ann", "secret": "s", "hours": 2 }), json!({ "owner": "bob", "hours": 2 }));
        let (row, secret) =
            (Some("new row violates the policy of this collection"), Some("a policy keeps the field \"secret\" from being written"));
        let emptied = Some("replacing this row would empty a field that a policy keeps from being written: change it with PATCH");
        for (before, intent, fields, want) in [
            (&Json::Null, Intent::Insert, json!({ "owner": "ann" }), None),
            (&Json::Null, Intent::Insert, json!({ "owner": "bob" }), row),
            (&Json::Null, Intent::Insert, json!({}), row),
            (&Json::Null, Intent::Merge, json!({ "owner": "ann", "secret": "x" }), secret),
            (&hers, Intent::Patch, json!({ "hours": 8 }), None),
            (&hers, Intent::Patch, json!({ "hours": { "$inc": 6 } }), None),
            // An operation is measured by what it makes of the row that is there.
            (&hers, Intent::Patch, json!({ "hours": { "$inc": 7 } }), row),
            (&hers, Intent::Patch, json!({ "owner": "bob" }), row),
            (&his, Intent::Patch, json!({ "owner": "ann" }), row),
            (&his, Intent::Merge, json!({ "owner": "ann" }), row),
            (&hers, Intent::Patch, json!({ "secret": "x" }), secret),
            // Replacing the row would empty what she may not write.
            (&hers, Intent::Put, json!({ "owner": "ann" }), emptied),
            (&hers, Intent::Delete, Json::Null, None),
            (&his, Intent::Delete, Json::Null, Some("a policy keeps one of these rows from being deleted")),
        ] {
            check(before, intent, &fields, want);
        }
    }
}
