//! What collections and columns are called in GraphQL: as pg_graphql calls tables with inflection, `work_orders` is the type `WorkOrders` and
//! the field `workOrdersCollection`, `is_done` is `isDone`.

use std::collections::BTreeSet;

use mobo_core::query::{Column, columns};
use mobo_core::schema::Collection;

/// Names of types that are there whatever the collections are called.
const TAKEN: [&str; 20] = [
    "Query",
    "Mutation",
    "Subscription",
    "PageInfo",
    "OrderByDirection",
    "FilterIs",
    "ChangeType",
    "BigInt",
    "Datetime",
    "JSON",
    "Opaque",
    "Counter",
    "StringFilter",
    "BigIntFilter",
    "FloatFilter",
    "BooleanFilter",
    "DatetimeFilter",
    "JSONFilter",
    "OpaqueFilter",
    "Int",
];
/// What a collection's types are called, behind its own name.
const SUFFIXES: [&str; 11] = [
    "",
    "Connection",
    "Edge",
    "Filter",
    "OrderBy",
    "InsertInput",
    "UpdateInput",
    "InsertResponse",
    "UpdateResponse",
    "DeleteResponse",
    "Change",
];
/// Names that the fields of filters and nodes have already.
const RESERVED: [&str; 4] = ["nodeId", "and", "or", "not"];

/// Gives every collection a name of its own.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeSet<String>);

impl Names {
    /// The name of a collection's type, of which no derived name is that of another type.
    pub(super) fn of_type(&mut self, collection: &str) -> String {
        let mut base = pascal(collection);
        let derived = |base: &str| SUFFIXES.map(|suffix| format!("{base}{suffix}"));
        while derived(&base).iter().any(|name| self.0.contains(name) || TAKEN.contains(&name.as_str())) {
            base.push('_');
        }
        self.0.extend(derived(&base));
        base
    }
}

/// The columns of a collection with their names: its own where two would have the same.
pub(super) fn of_columns(collection: &Collection) -> Vec<(String, Column)> {
    let all = columns(collection);
    let is_taken = |name: &str| RESERVED.contains(&name) || all.iter().filter(|other| camel(&other.name) == name).count() > 1;
    let name = |column: &Column| match camel(&column.name) {
        name if is_taken(&name) && column.name != name => column.name.clone(),
        name if is_taken(&name) => format!("{name}_"),
        name => name,
    };
    all.iter().map(|column| (name(column), column.clone())).collect()
}

/// `work_orders` as `WorkOrders`.
pub(super) fn pascal(name: &str) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
    };
    name.split('_').map(capital).collect()
}

/// `WorkOrders` as `workOrders`.
pub(super) fn uncapital(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_ascii_lowercase().to_string() + letters.as_str())
}

/// `is_done` as `isDone`.
pub(super) fn camel(name: &str) -> String {
    let (first, rest) = name.split_once('_').unwrap_or((name, ""));
    first.to_owned() + &pascal(rest)
}

#[cfg(test)]
mod tests {
    use mobo_core::ids::{CollectionId, FieldId, Lane};
    use mobo_core::schema::{Field, FieldType, Kind};

    use super::*;

    #[test]
    fn names_are_inflected_and_never_meet() {
        let mut names = Names::default();
        for (name, want) in [
            ("todos", "Todos"),
            ("work_orders", "WorkOrders"),
            ("todos_filter", "TodosFilter_"),
            ("query", "Query_"),
            ("work__orders", "WorkOrders_"),
        ] {
            assert_eq!(names.of_type(name), want);
        }
        let fields = ["is_done", "is__done", "and", "node_id", "n"];
        let field = |(id, name): (u64, &str)| Field {
            id: FieldId::new(id).unwrap(),
            name: name.to_owned(),
            kind: FieldType::Text,
            retired: false,
            references: None,
        };
        let collection = Collection {
            id: CollectionId::new(1).unwrap(),
            name: "t".to_owned(),
            kind: Kind::Table,
            rev: 1,
            fields: (1..).zip(fields).map(field).collect(),
            rules: Vec::new(),
            lane: Lane::State,
            store: "default".to_owned(),
        };
        let named: Vec<String> = of_columns(&collection).into_iter().map(|(name, _)| name).collect();
        assert_eq!(named, ["id", "is_done", "is__done", "and_", "node_id", "n"]);
    }
}
