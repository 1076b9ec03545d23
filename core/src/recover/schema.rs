//! Definitions that devices give back (rule R18).

use crate::ids::CollectionId;
use crate::message::Definition;
use crate::schema::{Collection, Schema, check_collection};

/// What a hub does with offered definitions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Adoption {
    /// Collections that were lost: they come back with their ids. With their bytes, which are kept as they are.
    pub lost: Vec<(Collection, Vec<u8>)>,
    /// Collections whose rules were changed since: records are placed by these again. With their bytes.
    pub rules: Vec<(Collection, Vec<u8>)>,
    /// The names of those that cannot be taken back.
    pub refused: Vec<String>,
}

/// Sorts offered definitions by what is to be done about them. What the hub has, or has newer, is in none of the lists.
#[must_use]
pub fn adopt(schema: &Schema, offered: &[Definition]) -> Adoption {
    let mut adoption = Adoption::default();
    for definition in offered {
        let Some(collection) = &definition.collection else { continue };
        let with_bytes = (collection.clone(), definition.bytes.clone());
        match schema.get(collection.id) {
            Some(held) if held.rev >= collection.rev => {}
            Some(held) if same_fields(held, collection) => adoption.rules.push(with_bytes),
            None if check_collection(collection).is_ok() && is_free(schema, &adoption, collection) => adoption.lost.push(with_bytes),
            Some(_) | None => adoption.refused.push(collection.name.clone()),
        }
    }
    adoption
}

fn same_fields(held: &Collection, offered: &Collection) -> bool {
    (held.kind, &held.name, &held.fields, held.lane) == (offered.kind, &offered.name, &offered.fields, offered.lane)
}

fn is_free(schema: &Schema, adoption: &Adoption, collection: &Collection) -> bool {
    let taken = |id: CollectionId, name: &str| id == collection.id || name == collection.name;
    schema.by_name(&collection.name).is_none() && !adoption.lost.iter().any(|(lost, _)| taken(lost.id, &lost.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{FieldId, Lane, Mac};
    use crate::schema::{Field, FieldType, Kind};

    fn collection(id: u64, name: &str, rev: u64, field: &str) -> Collection {
        Collection {
            id: CollectionId::new(id).unwrap(),
            name: name.into(),
            kind: Kind::Table,
            rev,
            fields: vec![Field {
                id: FieldId::new(5).unwrap(),
                name: field.into(),
                kind: FieldType::Text,
                retired: false,
                references: None,
            }],
            rules: vec![],
            lane: Lane::State,
            store: "default".into(),
        }
    }

    #[test]
    fn r18_what_was_lost_comes_back_under_its_ids_and_what_is_newer_stays() {
        let held = Schema::new(3, [collection(1, "pumps", 2, "a"), collection(2, "orders", 1, "a")]);
        let cases: [(Collection, [usize; 3]); 7] = [
            (collection(1, "pumps", 2, "a"), [0, 0, 0]),
            (collection(1, "pumps", 1, "a"), [0, 0, 0]),
            (collection(1, "pumps", 3, "a"), [0, 1, 0]),
            (collection(1, "pumps", 3, "b"), [0, 0, 1]),
            (collection(3, "valves", 1, "a"), [1, 0, 0]),
            (collection(3, "pumps", 1, "a"), [0, 0, 1]),
            (collection(3, "no name!", 1, "a"), [0, 0, 1]),
        ];
        for (offered, want) in cases {
            let definition = Definition { bytes: vec![1], collection: Some(offered.clone()), mac: Mac([0; 16]) };
            let adoption = adopt(&held, &[definition]);
            assert_eq!([adoption.lost.len(), adoption.rules.len(), adoption.refused.len()], want, "{offered:?}");
        }
    }
}
