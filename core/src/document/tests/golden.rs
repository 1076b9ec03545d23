//! Bytes that never change: every node must make the same beginning, and stored documents must be read for years.

use super::*;
use crate::document::{Actor, genesis};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn actors_follow_from_identities() {
    assert_eq!(hex(&Actor::of(origin(1)).0), "f46158523b945141347566bb31449567");
    assert_eq!(hex(&Actor::of_genesis(&key(), field("body")).0), "1320284222d007d3ce6f74e96eea058e");
}

#[test]
fn the_genesis_of_a_field_is_the_same_everywhere() {
    let cases = [
        ("body", "856f4a83f0f14ab4012c00101320284222d007d3ce6f74e96eea058e010100000005150334014202560270027f0131017f047f007f00"),
        ("tags", "856f4a83199adcda012c0010441912b3b0bea263a37874a33624e742010100000005150334014202560270027f0139017f027f007f00"),
        ("hours", "856f4a8319d3b2b6012f0010db34b76cad337572ce4e3bcc0a3936270101000000061503340142025602570170027f0138017f017f18007f00"),
    ];
    for (name, want) in cases {
        let kind = FIELDS.iter().find(|(known, _)| *known == name).unwrap().1;
        let change = genesis::change(&key(), field(name), kind).unwrap();
        assert_eq!(hex(change.raw_bytes()), want, "{name}");
        assert_eq!(genesis::field_of(&key(), &change), Some((field(name), kind)));
    }
    assert!(genesis::change(&key(), field("count"), FieldType::Int).is_none());
}

#[test]
fn automerge_itself_would_write_the_same_genesis() {
    use automerge::transaction::{CommitOptions, Transactable};
    use automerge::{Automerge, ObjType, ROOT, ScalarValue};
    for (name, kind) in FIELDS.into_iter().filter(|(_, kind)| genesis::is_container(*kind)) {
        let mut doc = Automerge::new().with_actor(Actor::of_genesis(&key(), field(name)).to_automerge());
        let mut transaction = doc.transaction();
        let number = field(name).get().to_string();
        if kind == FieldType::Counter {
            transaction.put(ROOT, number, ScalarValue::counter(0)).unwrap();
        } else {
            let object = if kind == FieldType::Text { ObjType::Text } else { ObjType::List };
            transaction.put_object(ROOT, number, object).unwrap();
        }
        transaction.commit_with(CommitOptions::default().with_time(0));
        let own = genesis::change(&key(), field(name), kind).unwrap();
        assert_eq!(doc.get_last_local_change().unwrap().raw_bytes(), own.raw_bytes(), "{name}");
    }
}
