//! What an API call becomes.

use super::*;

/// Makes a record of `before` (null: none), edits it, and compares; `want` null means that nothing is to be done.
#[track_caller]
fn check(before: Json, intent: Intent, fields: Json, want: Json) {
    let mut person = Person::new(1);
    if !before.is_null() {
        person.edit(Intent::Put, before);
    }
    let op = person.try_edit(intent, &fields).unwrap();
    if want.is_null() {
        assert_eq!(op, None, "{fields}");
    } else {
        let op = op.expect("a change");
        assert_eq!(person.row(), want, "{fields}");
        assert_eq!((op.changes.len(), op.epoch), (1, 0));
    }
}

#[test]
fn registers_keep_their_types() {
    let all = json!({
        "body": "Ä b", "count": -7, "ratio": 1.5, "done": true, "due": "2026-02-03T04:05:06.000007Z",
        "extra": {"a": [1, null]}, "blob": "AAE=", "hours": 2, "tags": ["x", 1, 2.5, null, true, {"a": [1]}, ["y"]],
    });
    check(json!(null), Intent::Put, all.clone(), all.clone());
    check(all.clone(), Intent::Put, all.clone(), json!(null));
    check(all.clone(), Intent::Patch, json!({}), json!(null));
    check(json!(null), Intent::Put, json!({}), json!({}));
    check(json!({"count": 1, "extra": 2}), Intent::Patch, json!({"count": null}), json!({"extra": 2}));
    check(json!({"extra": 2}), Intent::Patch, json!({"count": null}), json!(null));
}

#[test]
fn a_put_writes_every_field_and_a_patch_only_what_it_names() {
    let before = json!({"body": "a", "count": 1, "hours": 5, "tags": [1]});
    check(before.clone(), Intent::Patch, json!({"done": true}), json!({"body": "a", "count": 1, "done": true, "hours": 5, "tags": [1]}));
    check(before, Intent::Put, json!({"done": true}), json!({"done": true, "hours": 5}));
}

#[test]
fn text_is_spliced() {
    let before = json!({"body": "Hällo wörld"});
    check(before.clone(), Intent::Patch, json!({"body": "Hällo, dear wörld!"}), json!({"body": "Hällo, dear wörld!"}));
    check(before.clone(), Intent::Patch, json!({"body": {"$splice": [1, 4, "i"]}}), json!({"body": "Hi wörld"}));
    check(before.clone(), Intent::Patch, json!({"body": {"$splice": [11, 0, "!"]}}), json!({"body": "Hällo wörld!"}));
    check(before.clone(), Intent::Patch, json!({"body": {"$splice": [3, 0, ""]}}), json!(null));
    check(before.clone(), Intent::Patch, json!({"body": null, "done": true}), json!({"done": true}));
    let long = "abcdefgh ".repeat(700);
    check(before, Intent::Patch, json!({"body": long}), json!({"body": long}));
}

#[test]
fn lists_are_spliced() {
    let before = json!({"tags": [1, 2, 3]});
    check(before.clone(), Intent::Patch, json!({"tags": {"$push": [4, "x"]}}), json!({"tags": [1, 2, 3, 4, "x"]}));
    check(before.clone(), Intent::Patch, json!({"tags": {"$splice": [1, 1, ["y", "z"]]}}), json!({"tags": [1, "y", "z", 3]}));
    check(before.clone(), Intent::Patch, json!({"tags": [0, 1, 3]}), json!({"tags": [0, 1, 3]}));
    check(before.clone(), Intent::Patch, json!({"tags": [1, 2, 3]}), json!(null));
    check(before.clone(), Intent::Patch, json!({"tags": {"$push": []}}), json!(null));
    check(before, Intent::Patch, json!({"tags": null, "count": 1}), json!({"count": 1}));
}

#[test]
fn counters_move() {
    check(json!(null), Intent::Put, json!({"hours": 3}), json!({"hours": 3}));
    check(json!(null), Intent::Put, json!({"hours": {"$inc": 3}}), json!({"hours": 3}));
    check(json!({"hours": 3}), Intent::Patch, json!({"hours": {"$inc": -1}}), json!({"hours": 2}));
    check(json!({"hours": 3}), Intent::Patch, json!({"hours": 10}), json!({"hours": 10}));
    check(json!({"hours": 3}), Intent::Patch, json!({"hours": 3}), json!(null));
    check(json!({"hours": 3}), Intent::Patch, json!({"hours": {"$inc": 0}}), json!(null));
}

#[test]
fn what_is_not_there_is_not_patched_or_deleted() {
    check(json!(null), Intent::Patch, json!({"count": 1}), json!(null));
    check(json!(null), Intent::Delete, json!({}), json!(null));
    let mut person = Person::new(1);
    person.edit(Intent::Put, json!({"count": 1}));
    assert!(matches!(person.try_edit(Intent::Insert, &json!({})), Err(EditError::Exists { .. })));
    assert_eq!(person.edit(Intent::Delete, json!({})).row(), json!(null));
    assert_eq!(person.try_edit(Intent::Delete, &json!({})).unwrap(), None);
}

#[test]
fn a_later_put_revives_a_record_from_nothing() {
    let mut person = Person::new(1);
    person.edit(Intent::Put, json!({"body": "old", "count": 1, "hours": 5, "tags": ["old"]})).edit(Intent::Delete, json!({}));
    let deleted = person.clone();
    person.edit(Intent::Insert, json!({"done": true}));
    assert_eq!(person.row(), json!({"done": true}));
    let mut other = deleted.clone();
    other.edit(Intent::Put, json!({"body": {"$splice": [0, 0, "new"]}, "hours": {"$inc": 2}, "tags": {"$push": ["old", "new"]}}));
    assert_eq!(other.row(), json!({"body": "new", "hours": 2, "tags": ["old", "new"]}));
    let mut other = deleted;
    assert_eq!(other.edit(Intent::Put, json!({})).row(), json!({}));
}

#[test]
fn bad_values_are_refused_by_field() {
    let big = "x".repeat(crate::limits::VALUE_BYTES_MAX + 1);
    let cases = [
        json!({"body": 1}),
        json!({"body": "a\0"}),
        json!({"body": big}),
        json!({"body": {"$splice": [0, 9, ""]}}),
        json!({"body": {"$splice": [-1, 0, ""]}}),
        json!({"body": {"$splice": [0, 0]}}),
        json!({"body": {"$splice": [0, 0, 1]}}),
        json!({"count": "1"}),
        json!({"ratio": "1"}),
        json!({"due": "tomorrow"}),
        json!({"blob": "?"}),
        json!({"hours": 1.5}),
        json!({"hours": {"$inc": "1"}}),
        json!({"hours": {"$inc": crate::limits::COUNTER_STEP_MAX + 1}}),
        json!({"tags": "x"}),
        json!({"tags": ["a\0"]}),
        json!({"tags": [{"a": "\0"}]}),
        json!({"tags": {"$push": "x"}}),
        json!({"tags": {"$splice": [0, 2, []]}}),
        json!({"tags": vec![0; crate::limits::LIST_LEN_MAX + 1]}),
    ];
    for fields in cases {
        let mut person = Person::new(1);
        person.edit(Intent::Put, json!({"body": "b", "tags": [1]}));
        let name = fields.as_object().unwrap().keys().next().unwrap().clone();
        match person.try_edit(Intent::Patch, &fields) {
            Err(EditError::BadValue { field, why }) => assert!(field == name && !why.is_empty(), "{fields}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_text_as_long_as_a_change_may_be_is_written_at_once() {
    let text: String = ('a'..='z').cycle().take(60_000).collect();
    check(json!(null), Intent::Put, json!({"body": text}), json!({"body": text}));
    let mut person = Person::new(1);
    let too_much = json!({"body": text, "extra": text});
    assert!(matches!(person.try_edit(Intent::Put, &too_much), Err(EditError::Refused(why)) if why.contains("bytes")));
}
