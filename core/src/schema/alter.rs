//! How a collection changes while devices of older versions of it write: fields come, get other labels, and retire. None goes, and none changes
//! its type: what was written by whatever version keeps its place, because fields are known by their ids.

use super::{Collection, Field, SchemaError, check_collection};

/// What becomes of a collection's fields, in this order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FieldChanges {
    /// Labels before and after.
    pub rename: Vec<(String, String)>,
    /// Fields that are not shown or written any more.
    pub retire: Vec<String>,
    /// New fields, under ids that nobody had.
    pub add: Vec<Field>,
}

/// The next definition of a collection.
///
/// # Errors
///
/// A [`SchemaError`]: there is no such field, or the collection could not be made so.
pub fn altered(collection: &Collection, changes: &FieldChanges) -> Result<Collection, SchemaError> {
    let mut next = Collection { rev: collection.rev + 1, ..collection.clone() };
    for (before, after) in &changes.rename {
        live(&mut next, before)?.name.clone_from(after);
    }
    for name in &changes.retire {
        live(&mut next, name)?.retired = true;
    }
    next.fields.extend(changes.add.iter().cloned());
    check_collection(&next)?;
    Ok(next)
}

fn live<'c>(collection: &'c mut Collection, name: &str) -> Result<&'c mut Field, SchemaError> {
    let near = crate::names::nearest(name, collection.live_fields().map(|field| field.name.as_str())).map(str::to_owned);
    let found = collection.fields.iter_mut().find(|field| field.name == name && !field.retired);
    found.ok_or_else(|| SchemaError::NoField { name: name.to_owned(), near })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{CollectionId, FieldId, Lane};
    use crate::schema::{FieldType, Kind};

    fn field(id: u64, name: &str, kind: FieldType) -> Field {
        Field { id: FieldId::new(id).unwrap(), name: name.into(), kind, retired: false, references: None }
    }

    fn pumps() -> Collection {
        let fields = vec![field(1, "site", FieldType::Text), field(2, "load", FieldType::Text)];
        let (id, rules) = (CollectionId::new(1).unwrap(), vec!["site:{site}".into()]);
        Collection { id, name: "pumps".into(), kind: Kind::Table, rev: 3, fields, rules, lane: Lane::State, store: "default".into() }
    }

    fn pair(before: &str, after: &str) -> (String, String) {
        (before.into(), after.into())
    }

    #[test]
    fn a_type_changes_by_a_new_field_under_the_old_label() {
        let changes = FieldChanges {
            rename: vec![pair("load", "load_text")],
            retire: vec!["load_text".into()],
            add: vec![field(3, "load", FieldType::Float)],
        };
        let next = altered(&pumps(), &changes).unwrap();
        let shown: Vec<_> = next.fields.iter().map(|field| (field.id.get(), field.name.as_str(), field.retired)).collect();
        assert_eq!((next.rev, shown), (4, vec![(1, "site", false), (2, "load_text", true), (3, "load", false)]));
        assert_eq!(next.field("load").map(|field| field.kind), Some(FieldType::Float));
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_reason() {
        let cases = [
            (FieldChanges { retire: vec!["sit".into()], ..FieldChanges::default() }, "perhaps you meant \"site\""),
            (FieldChanges { add: vec![field(3, "load", FieldType::Int)], ..FieldChanges::default() }, "declared twice"),
            (FieldChanges { rename: vec![pair("load", "site")], ..FieldChanges::default() }, "declared twice"),
            (FieldChanges { rename: vec![pair("site", "place")], ..FieldChanges::default() }, "bucket rule"),
        ];
        for (changes, want) in cases {
            let error = altered(&pumps(), &changes).unwrap_err().to_string();
            assert!(error.contains(want), "{changes:?}: {error}");
        }
    }
}
