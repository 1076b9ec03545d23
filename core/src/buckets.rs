//! Buckets: named sets of records. A record's own fields say which it is in (rule R3).
//!
//! A rule is a template such as `site:{site}`. A field that is absent makes that rule yield no bucket. No joins, no clock, and, as version 1
//! declares no references between collections, no hop to another record.
//!
//! The same templates give a device its buckets: over its claims, instead of over a record's fields. With `site=plant-4` the rule
//! `site:{site}` gives it `site:plant-4`. Every device has the claim `device`, its own id.

use std::collections::BTreeMap;

use crate::ids::RecordKey;
use crate::limits;
use crate::merge::Grants;
use crate::schema::{Collection, FieldType, Kind, Schema, SchemaError};
use crate::store::{DeviceRow, Rebucketing};
use crate::value::Value;

/// The bucket of a collection without rules.
pub const ALL: &str = "all";

/// Checks that `rule` is a template over fields that can name a bucket.
///
/// # Errors
///
/// [`SchemaError::BadRule`].
pub fn check_template(rule: &str, collection: &Collection) -> Result<(), SchemaError> {
    let usable = |name: &str| {
        collection.field(name).is_some_and(|field| {
            matches!(field.kind, FieldType::Text | FieldType::Int | FieldType::Bool)
                && !(field.kind == FieldType::Text && collection.kind == Kind::Document)
        })
    };
    let good = is_bucket_key(&rule.replace(['{', '}'], ""))
        && parts(rule).is_some_and(|parts| {
            parts.iter().all(|part| match part {
                Part::Literal(_) => true,
                Part::Field(name) => *name == "id" || usable(name),
            })
        });
    if good { Ok(()) } else { Err(SchemaError::BadRule { rule: rule.to_owned() }) }
}

/// True for a text that can be the key of a bucket.
#[must_use]
pub fn is_bucket_key(key: &str) -> bool {
    !key.is_empty()
        && key.len() <= limits::BUCKET_KEY_BYTES_MAX
        && !key.chars().any(|c| c.is_control() || c.is_whitespace() || c == '{' || c == '}')
}

/// The keys of the buckets that a record is in, ascending and without repeats; empty when no rule applies to it.
pub fn keys_of<'v>(collection: &Collection, id: &str, field: impl Fn(&str) -> Option<&'v Value>) -> Vec<String> {
    if collection.rules.is_empty() {
        return vec![ALL.to_owned()];
    }
    let mut keys: Vec<String> = collection.rules.iter().filter_map(|rule| expand(rule, id, &field)).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The keys of the buckets that a record of these columns is in.
#[must_use]
pub fn keys_in(collection: &Collection, key: &RecordKey, columns: &[Value]) -> Vec<String> {
    keys_of(collection, key.id.as_str(), |name| {
        let index = collection.fields.iter().position(|field| field.name == name)?;
        columns.get(index)
    })
}

/// The claim that every device has.
pub const DEVICE_CLAIM: &str = "device";

/// What a device may read and write.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DeviceRights {
    /// The buckets that it may read, and whether it may write there.
    pub buckets: BTreeMap<String, bool>,
    /// Where it may write, and where it might until when.
    pub grants: Grants,
    /// True if its claims give it more buckets than [`limits::BUCKETS_PER_DEVICE_MAX`]: it has the first of them.
    pub truncated: bool,
}

/// What a device may read and write under the rules of `schema`: what it was granted, and what its claims give it. What was granted or taken
/// away by name goes before what follows from claims. While records are still being placed by new rules, the old ones give it buckets, too,
/// so that a record that has not been placed yet is not gone with its old bucket.
#[must_use]
pub fn rights_of(schema: &Schema, moving: &[Rebucketing], device: &DeviceRow) -> DeviceRights {
    let mut rights = DeviceRights { buckets: device.grants.iter().cloned().collect(), ..DeviceRights::default() };
    let own = (DEVICE_CLAIM.to_owned(), device.id.to_string());
    let claims: Vec<&(String, String)> = device.claims.iter().filter(|claim| claim.0 != DEVICE_CLAIM).chain([&own]).collect();
    let rules = schema.iter().filter(|collection| collection.kind != Kind::Stream).flat_map(|collection| &collection.rules);
    for rule in rules.chain(moving.iter().flat_map(|moving| &moving.rules)) {
        for key in claimed(rule, &claims) {
            if rights.buckets.contains_key(&key) || device.ended.iter().any(|(ended, _)| *ended == key) {
                continue;
            }
            if rights.buckets.len() >= limits::BUCKETS_PER_DEVICE_MAX {
                rights.truncated = true;
                break;
            }
            rights.buckets.insert(key, true);
        }
    }
    let live = rights.buckets.iter().filter(|(_, write)| **write).map(|(key, _)| key.clone()).collect();
    rights.grants = Grants { live, ended: device.ended.iter().cloned().collect(), owes_offers: false };
    rights
}

/// The buckets that a rule gives to a device with these claims. A rule without fields gives none: it says nothing about the device.
fn claimed(rule: &str, claims: &[&(String, String)]) -> Vec<String> {
    let Some(parts) = parts(rule) else { return Vec::new() };
    if !parts.iter().any(|part| matches!(part, Part::Field(_))) {
        return Vec::new();
    }
    let mut keys = vec![String::new()];
    for part in parts {
        let values: Vec<&str> = match part {
            Part::Literal(text) => vec![text],
            // A record's id is nothing that a device could claim.
            Part::Field("id") => Vec::new(),
            Part::Field(name) => claims.iter().filter(|claim| claim.0 == name).map(|claim| claim.1.as_str()).collect(),
        };
        keys = keys.iter().flat_map(|key| values.iter().map(move |value| format!("{key}{value}"))).collect();
        // Several values of several claims multiply.
        keys.truncate(limits::BUCKETS_PER_DEVICE_MAX + 1);
    }
    keys.retain(|key| is_bucket_key(key));
    keys
}

/// True for what can be a claim: the name of a field, and a value that can stand in a bucket's key.
#[must_use]
pub fn is_claim(name: &str, value: &str) -> bool {
    is_bucket_key(name) && name.len() <= limits::NAME_BYTES_MAX && name != "id" && name != DEVICE_CLAIM && is_bucket_key(value)
}

/// True if a record of this collection can be in the bucket of that key, whatever its fields are.
#[must_use]
pub fn can_name(collection: &Collection, key: &str) -> bool {
    if collection.rules.is_empty() {
        return key == ALL;
    }
    collection.rules.iter().filter_map(|rule| parts(rule)).any(|parts| match parts.as_slice() {
        [Part::Literal(whole)] => *whole == key,
        [Part::Literal(first), .., Part::Literal(last)] => {
            key.len() > first.len() + last.len() && key.starts_with(first) && key.ends_with(last)
        }
        _ => false,
    })
}

fn expand<'v>(rule: &str, id: &str, field: impl Fn(&str) -> Option<&'v Value>) -> Option<String> {
    let mut key = String::new();
    for part in parts(rule)? {
        match part {
            Part::Literal(text) => key.push_str(text),
            Part::Field("id") => key.push_str(id),
            Part::Field(name) => match field(name)? {
                Value::Text(text) => key.push_str(text),
                Value::Int(number) => key.push_str(&number.to_string()),
                Value::Bool(value) => key.push_str(if *value { "true" } else { "false" }),
                Value::Null | Value::Float(_) | Value::Bytes(_) | Value::Timestamp(_) | Value::Json(_) | Value::Unknown(_) => return None,
            },
        }
    }
    is_bucket_key(&key).then_some(key)
}

enum Part<'r> {
    Literal(&'r str),
    Field(&'r str),
}

fn parts(rule: &str) -> Option<Vec<Part<'_>>> {
    let mut parts = Vec::new();
    let mut rest = rule;
    while let Some((literal, tail)) = rest.split_once('{') {
        let (name, after) = tail.split_once('}')?;
        if literal.contains('}') || name.is_empty() {
            return None;
        }
        parts.push(Part::Literal(literal));
        parts.push(Part::Field(name));
        rest = after;
    }
    (!rest.contains('}')).then(|| {
        parts.push(Part::Literal(rest));
        parts
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{CollectionId, DeviceId, FieldId, Lane, PublicKey};
    use crate::schema::Field;
    use crate::time::Eff;

    fn pumps(rules: &[&str]) -> Collection {
        let field =
            |id, name: &str, kind| Field { id: FieldId::new(id).unwrap(), name: name.into(), kind, retired: false, references: None };
        Collection {
            id: CollectionId::new(1).unwrap(),
            name: "pumps".into(),
            kind: Kind::Table,
            rev: 1,
            fields: vec![field(1, "site", FieldType::Text), field(2, "line", FieldType::Int), field(3, "speed", FieldType::Float)],
            rules: rules.iter().map(|rule| (*rule).to_owned()).collect(),
            lane: Lane::State,
            store: "default".into(),
        }
    }

    #[test]
    fn fields_name_buckets() {
        let value = |name: &str| match name {
            "site" => Some(Box::leak(Box::new(Value::Text("plant-4".into()))) as &Value),
            "line" => Some(&Value::Int(7)),
            _ => None,
        };
        let cases: [(&[&str], &[&str]); 5] = [
            (&[], &["all"]),
            (&["site:{site}"], &["site:plant-4"]),
            (&["site:{site}", "line:{site}/{line}", "site:{site}"], &["line:plant-4/7", "site:plant-4"]),
            (&["speed:{speed}"], &[]),
            (&["one:{id}"], &["one:p1"]),
        ];
        for (rules, want) in cases {
            assert_eq!(keys_of(&pumps(rules), "p1", value), want, "{rules:?}");
        }
    }

    #[test]
    fn a_collection_can_name_what_its_rules_spell() {
        let cases: [(&[&str], &[&str], &[&str]); 3] = [
            (&[], &["all"], &["site:a"]),
            (&["site:{site}", "fw"], &["site:a", "fw"], &["site:", "fw2", "all", "line:a"]),
            (&["site:{site}/{line}!"], &["site:a/7!"], &["site:a/7", "site:!"]),
        ];
        for (rules, can, cannot) in cases {
            let collection = pumps(rules);
            assert!(can.iter().all(|key| can_name(&collection, key)), "{rules:?}");
            assert!(!cannot.iter().any(|key| can_name(&collection, key)), "{rules:?}");
        }
    }

    #[test]
    fn bad_templates_are_refused_when_the_collection_is_made() {
        for rule in ["site:{nope}", "speed:{speed}", "site:{site", "site:}site{", "", "{ }", "a b"] {
            assert!(check_template(rule, &pumps(&[])).is_err(), "{rule}");
        }
        assert!(check_template("site:{site}", &pumps(&[])).is_ok());
    }

    #[test]
    fn claims_name_buckets_as_fields_do() {
        let mut device = DeviceRow {
            id: DeviceId([0xab; 16]),
            key: PublicKey([0; 32]),
            name: "pi".into(),
            certificate: vec![],
            enrolled: Eff(0),
            revoked: None,
            seen: None,
            grants: vec![("all".into(), true), ("site:c".into(), false)],
            claims: vec![],
            ended: vec![],
        };
        let own = format!("of:{}", device.id);
        let cases: [(&[&str], &[&str], &[&str]); 8] = [
            (&["site:{site}"], &[], &[]),
            (&["site:{site}"], &["site=a"], &["site:a"]),
            (&["site:{site}"], &["site=a", "site=b"], &["site:a", "site:b"]),
            (&["site:{site}/{line}"], &["site=a", "site=b", "line=7"], &["site:a/7", "site:b/7"]),
            (&["site:{site}/{line}"], &["site=a"], &[]),
            (&["site:{site}"], &["site=c"], &["site:c read only"]),
            (&["site:{site}"], &["site=gone"], &[]),
            (&["fw", "one:{id}", "of:{device}"], &["id=7", "device=else"], &[&own]),
        ];
        device.ended = vec![("site:gone".into(), Eff(5))];
        for (rules, claims, want) in cases {
            device.claims =
                claims.iter().filter_map(|claim| claim.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect();
            let rights = rights_of(&Schema::new(1, [pumps(rules)]), &[], &device);
            let shown = |(key, write): (&String, &bool)| if *write { key.clone() } else { format!("{key} read only") };
            let mut got: Vec<String> = rights.buckets.iter().map(shown).filter(|key| key != "all").collect();
            got.retain(|key| key != "site:c read only" || want.contains(&"site:c read only"));
            assert_eq!(got, want, "{rules:?} {claims:?}");
            assert!(rights.grants.live.contains("all") && !rights.grants.live.contains("site:c"), "read-only is not for writing");
            assert_eq!(rights.grants.ended, [("site:gone".to_owned(), Eff(5))].into());
        }
        device.claims = vec![("site".into(), "a".into())];
        let moving =
            Rebucketing { collection: CollectionId::new(1).unwrap(), rules: vec!["old:{site}".into()], done: 0, moved: 0, total: 1 };
        let rights = rights_of(&Schema::new(1, [pumps(&["new:{site}"])]), &[moving], &device);
        assert_eq!(rights.grants.live.iter().filter(|key| key.ends_with(":a")).collect::<Vec<_>>(), ["new:a", "old:a"]);
        device.claims = (0..100).map(|n| ("site".to_owned(), format!("s{n}"))).collect();
        let rights = rights_of(&Schema::new(1, [pumps(&["site:{site}"])]), &[], &device);
        assert!(rights.truncated && rights.buckets.len() == limits::BUCKETS_PER_DEVICE_MAX);
    }
}
