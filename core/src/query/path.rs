//! Inside of JSON, as Postgres' `jsonb` sees it: paths, text, containment, and the part of its order that no locale decides.

use std::cmp::Ordering;

use serde_json::{Map, Value as Json};

/// What is at that path (`#>` of Postgres): names lead into objects, and indexes, from the end where they are below 0, into arrays.
#[must_use]
pub fn follow<'j>(json: &'j Json, path: &[String]) -> Option<&'j Json> {
    path.iter().try_fold(json, |json, step| match json {
        Json::Object(members) => members.get(step),
        Json::Array(items) => items.get(index(step, items.len())?),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
    })
}

fn index(step: &str, len: usize) -> Option<usize> {
    let number: i32 = step.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']).parse().ok()?;
    match usize::try_from(number) {
        Ok(index) => Some(index),
        Err(_) => len.checked_sub(usize::try_from(number.unsigned_abs()).ok()?),
    }
}

/// The text of a JSON value as `jsonb` writes it: members by the length of their names, blanks after `:` and `,`, numbers in full.
#[must_use]
pub fn jsonb_text(json: &Json) -> String {
    let mut text = String::new();
    write(json, &mut text);
    text
}

fn write(json: &Json, text: &mut String) {
    match json {
        Json::Null => text.push_str("null"),
        Json::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        Json::Number(number) => match number.as_i64() {
            Some(integer) => text.push_str(&integer.to_string()),
            // Never with an exponent.
            None => text.push_str(&number.as_f64().unwrap_or_default().to_string()),
        },
        Json::String(value) => quote(value, text),
        Json::Array(items) => {
            text.push('[');
            for (n, item) in items.iter().enumerate() {
                text.push_str(if n == 0 { "" } else { ", " });
                write(item, text);
            }
            text.push(']');
        }
        Json::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| (name.len(), name.as_bytes()));
            text.push('{');
            for (n, (name, member)) in members.into_iter().enumerate() {
                text.push_str(if n == 0 { "" } else { ", " });
                quote(name, text);
                text.push_str(": ");
                write(member, text);
            }
            text.push('}');
        }
    }
}

fn quote(value: &str, text: &mut String) {
    text.push('"');
    for letter in value.chars() {
        match letter {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            letter if letter < ' ' => text.push_str(&format!("\\u{:04x}", u32::from(letter))),
            letter => text.push(letter),
        }
    }
    text.push('"');
}

/// True when `outer` holds everything that `inner` says (`@>` of Postgres).
#[must_use]
pub fn contains(outer: &Json, inner: &Json) -> bool {
    match (outer, inner) {
        // An array holds a value that is one of its items.
        (Json::Array(items), Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_)) => items.iter().any(|item| same(item, inner)),
        _ => within(outer, inner),
    }
}

fn within(outer: &Json, inner: &Json) -> bool {
    match (outer, inner) {
        (Json::Object(outer), Json::Object(inner)) => within_object(outer, inner),
        (Json::Array(outer), Json::Array(inner)) => inner.iter().all(|wanted| outer.iter().any(|item| within(item, wanted))),
        _ => same(outer, inner),
    }
}

fn within_object(outer: &Map<String, Json>, inner: &Map<String, Json>) -> bool {
    inner.iter().all(|(name, wanted)| outer.get(name).is_some_and(|member| within(member, wanted)))
}

/// Equality of values that are neither objects nor arrays: a number is equal to one that is written otherwise.
fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => a.as_f64() == b.as_f64(),
        (Json::Array(_) | Json::Object(_), _) => false,
        _ => a == b,
    }
}

/// How a value follows a number, a boolean or null in the order of `jsonb`: objects, arrays, booleans, numbers, text, null, from high to low.
/// `None` where `scalar` is none of these: texts are ordered by the locale of a database, and the rest by its storage.
#[must_use]
pub fn jsonb_order(value: &Json, scalar: &Json) -> Option<Ordering> {
    match (value, scalar) {
        (_, Json::String(_) | Json::Array(_) | Json::Object(_)) => None,
        (Json::Bool(a), Json::Bool(b)) => Some(a.cmp(b)),
        (Json::Number(a), Json::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        _ => Some(rank(value).cmp(&rank(scalar))),
    }
}

fn rank(json: &Json) -> u8 {
    match json {
        // So it is in Postgres, and cannot be mended there.
        Json::Array(items) if items.is_empty() => 0,
        Json::Null => 1,
        Json::String(_) => 2,
        Json::Number(_) => 3,
        Json::Bool(_) => 4,
        Json::Array(_) => 5,
        Json::Object(_) => 6,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_to_what_is_there() {
        let json = json!({"a": {"b": [1, {"c": null}]}, "0": "zero"});
        for (path, want) in [
            (vec!["a", "b", "0"], Some(json!(1))),
            (vec!["a", "b", "-1", "c"], Some(json!(null))),
            (vec!["a", "b", "-3"], None),
            (vec!["a", "b", "x"], None),
            (vec!["0"], Some(json!("zero"))),
            (vec!["0", "0"], None),
        ] {
            let path: Vec<String> = path.into_iter().map(str::to_owned).collect();
            assert_eq!(follow(&json, &path), want.as_ref(), "{path:?}");
        }
    }

    #[test]
    fn text_is_as_postgres_writes_it() {
        let json = json!({"bb": [1, 1.5, 1e21, 1e-7], "a": "x\"\u{1}\u{7f}\n", "c": {}, "n": null});
        let want = "{\"a\": \"x\\\"\\u0001\u{7f}\\n\", \"c\": {}, \"n\": null, \"bb\": [1, 1.5, 1000000000000000000000, 0.0000001]}";
        assert_eq!(jsonb_text(&json), want);
    }

    #[test]
    fn containment_is_as_in_postgres() {
        for (outer, inner, want) in [
            (json!({"a": [1, 2], "b": 1}), json!({"a": [2]}), true),
            (json!({"a": [1, 2]}), json!({"a": 1}), false),
            (json!(["x", ["y"]]), json!("x"), true),
            (json!(["x", ["y"]]), json!("y"), false),
            (json!("x"), json!("x"), true),
            (json!("x"), json!(["x"]), false),
            (json!([1, 2, [1, 3]]), json!([[3]]), true),
            (json!([1.0]), json!([1]), true),
            (json!({}), json!({}), true),
            (json!([]), json!({}), false),
            (json!([1]), json!([1, 1]), true),
            (json!([{"a": 1, "b": 2}]), json!([{"a": 1}]), true),
        ] {
            assert_eq!(contains(&outer, &inner), want, "{outer} @> {inner}");
        }
    }
}
