//! Buckets: named sets of records. A record's own fields say which it is in (rule R3).
//!
//! A rule is a template such as `site:{site}`. A field that is absent makes that rule yield no bucket. No joins, no clock.

use crate::limits;
use crate::schema::{Collection, FieldType, SchemaError};
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
                && !(field.kind == FieldType::Text && collection.kind == crate::schema::Kind::Document)
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
    use crate::ids::{CollectionId, FieldId, Lane};
    use crate::schema::{Field, Kind};

    fn pumps(rules: &[&str]) -> Collection {
        let field = |id, name: &str, kind| Field { id: FieldId::new(id).unwrap(), name: name.into(), kind, retired: false };
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
    fn bad_templates_are_refused_when_the_collection_is_made() {
        for rule in ["site:{nope}", "speed:{speed}", "site:{site", "site:}site{", "", "{ }", "a b"] {
            assert!(check_template(rule, &pumps(&[])).is_err(), "{rule}");
        }
        assert!(check_template("site:{site}", &pumps(&[])).is_ok());
    }
}
