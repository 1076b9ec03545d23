//! Generated queries, given to two stores and to the rule itself: the same rows, or the same refusal.

#![allow(clippy::indexing_slicing, reason = "a harness of tests: the panic is the report")]

mod related;

use std::sync::Arc;

use mobo_core::author::Intent;
use mobo_core::query::{Filter, Page, Parser, Query, Row, Select, columns};
use mobo_core::store::StoreError;
use serde_json::{Map, Value as Json, json};

use crate::seed::Rng;
use crate::store_conformance::World;

/// Texts that are awkward to compare, to escape, to fold or to bind.
const TEXTS: [&str; 16] = ["", "a", "A", "ab", "a%b", "a_b", "ä", "Ä", "x,y", "\"q\"", "(p)", "10", "9", "null", "a\\b", "' OR 1=1 --"];
const JSONS: [&str; 18] = [
    "1",
    "1.5",
    "1e21",
    "1e-7",
    "-0",
    "true",
    "null",
    "\"a\"",
    "\"10\"",
    "[]",
    "{}",
    "[1,2,\"a\"]",
    "{\"a\":1}",
    "{\"a\":{\"b\":[1,null]}}",
    "{\"a\":\"x\",\"0\":\"zero\"}",
    "[[1],{\"a\":1}]",
    "{\"bb\":1,\"a\":[{\"c\":\"\\u0001\\\"\"}]}",
    "{\"a\":null}",
];
const PATTERNS: [&str; 9] = ["*", "a*", "*b", "_", "A_b", "%25", "a\\*b", "*Ä*", "**a**"];

const REGEXES: [&str; 12] =
    ["a", "^a", "B$", "^(a|Ä).?$", "[^a-z]", "\\d+", "^\\W", "x,y|^$", "a{1,2}b", "[\\\\%_]", "\\.|\\s-", "^(?:1|9)*0?$"];

/// Makes what generated queries need beside the collections of every world.
///
/// # Panics
///
/// When the world has it already.
pub async fn prepare(world: &mut World) {
    related::create(world).await;
}

/// What both stores hold, once they are [prepared](prepare).
///
/// # Panics
///
/// When a row is refused.
pub async fn fill(world: &World, rng: &mut Rng) {
    for n in 0..60 {
        let fields = json!({
            "title": maybe(rng, |rng| json!(rng.pick(&TEXTS))),
            "n": maybe(rng, |rng| json!(i64::try_from(rng.below(7)).unwrap_or_default() - 3)),
            "ratio": maybe(rng, |rng| json!([0.0, -1.5, 1e300, 2.0, 10.0][usize::try_from(rng.below(5)).unwrap_or_default()])),
            "done": maybe(rng, |rng| json!(rng.chance(50))),
            "due": maybe(rng, |rng| json!(["1969-12-31T23:59:59.5Z", "2026-02-03T04:05:06Z", "9999-12-31T23:59:59.999999Z"]
                [usize::try_from(rng.below(3)).unwrap_or_default()])),
            "meta": maybe(rng, |rng| serde_json::from_str(rng.pick::<&str>(&JSONS)).unwrap_or(Json::Null)),
            "photo": maybe(rng, |rng| json!(["", "AAE=", "/w=="][usize::try_from(rng.below(3)).unwrap_or_default()])),
            "hours": rng.below(3),
        });
        world.merged(world.local("work_orders", Intent::Insert, &format!("r{n:02}"), &fields)).await;
        let note = json!({
            "title": maybe(rng, |rng| json!(rng.pick(&TEXTS))),
            "tags": maybe(rng, |rng| json!([rng.pick(&TEXTS), rng.pick(&TEXTS), rng.below(3)])),
            "likes": rng.below(3),
            "rank": maybe(rng, |rng| json!(rng.below(3))),
        });
        world.merged(world.local("notes", Intent::Insert, &format!("n{n:02}"), &note)).await;
    }
    related::fill(world, rng).await;
}

fn maybe(rng: &mut Rng, value: impl Fn(&mut Rng) -> Json) -> Json {
    if rng.chance(20) { Json::Null } else { value(rng) }
}

/// Gives `count` generated queries to both; gives how many had rows.
///
/// # Panics
///
/// When they do not agree, with the query.
pub async fn agree(left: &World, right: &World, rng: &mut Rng, count: usize) -> usize {
    let (orders, notes, parts) = (left.rows("work_orders").await, left.rows("notes").await, left.rows("parts").await);
    assert_eq!((&orders, &parts), (&right.rows("work_orders").await, &right.rows("parts").await));
    let rows = |name: &str| match name {
        "notes" => notes.as_slice(),
        "parts" => parts.as_slice(),
        _ => orders.as_slice(),
    };
    let relations = related::All(Arc::clone(&left.schema));
    let mut with_rows = 0;
    for _ in 0..count {
        let (name, parameters) = if rng.chance(25) {
            let name = *rng.pick(&["work_orders", "parts"]);
            (name, related::parameters(rng, name))
        } else {
            let name = if rng.chance(75) { "work_orders" } else { "notes" };
            (name, parameters(rng, name))
        };
        let near = left.collection(name);
        let columns = columns(near);
        let mut parser = Parser::new(name, &columns).with_relations(near, &relations);
        // One grammar for both nodes: what it refuses, it refuses before any store is asked.
        if parameters.iter().any(|(name, value)| parser.parameter(name, value).is_err()) {
            continue;
        }
        let query = parser.finish();
        let (a, b) = (page(left, name, &query).await, page(right, name, &query).await);
        assert_eq!(a, b, "{name}?{parameters:?}");
        let Ok(page) = a else { continue };
        with_rows += usize::from(!page.rows.is_empty());
        let is_given = |row: &&Map<String, Json>| related::is_given(&rows, row, &query.filter, &query.embeds);
        let held = rows(name).iter().filter_map(Json::as_object).filter(is_given).count() as u64;
        assert_eq!(page.total, Some(held), "what a policy would let through: {name}?{parameters:?}");
    }
    with_rows
}

/// Whatever was parsed is answered, but for a value that cannot be cast.
async fn page(world: &World, name: &str, query: &Query) -> Result<Page, &'static str> {
    match world.store.select(select(world, name, query)).await {
        Ok(page) => Ok(page),
        Err(StoreError::BadValue(_)) => Err("a cast"),
        Err(error) => panic!("{error}: {query:?}"),
    }
}

fn lets_through(filter: &Filter, row: &Map<String, Json>) -> bool {
    filter.lets_through(row as &dyn Row)
}

fn select(world: &World, name: &str, query: &Query) -> Select {
    let all = world.all(name);
    Select {
        columns: query.select.clone().unwrap_or_else(|| all.columns.clone()),
        filter: query.filter.clone(),
        order: query.order.clone(),
        limit: query.limit.unwrap_or(1_000),
        offset: query.offset.unwrap_or(0),
        count: true,
        embeds: query.related(world.project),
        ..all
    }
}

fn parameters(rng: &mut Rng, name: &str) -> Vec<(String, String)> {
    let mut parameters = Vec::new();
    for _ in 0..rng.below(4) {
        if rng.chance(30) {
            let word = *rng.pick(&["and", "or", "not.and", "not.or"]);
            parameters.push((word.to_owned(), tree(rng, name, 3)));
        } else {
            let operand = operand(rng, name);
            let comparison = comparison(rng, &operand, false);
            parameters.push((operand, comparison));
        }
    }
    if rng.chance(40) {
        let terms: Vec<String> = (0..=rng.below(2))
            .map(|_| format!("{}{}", operand(rng, name), rng.pick(&["", ".desc", ".asc.nullsfirst", ".desc.nullslast"])))
            .collect();
        parameters.push(("order".to_owned(), terms.join(",")));
    }
    if rng.chance(40) {
        let items: Vec<String> = (0..=rng.below(3))
            .map(|n| format!("c{n}:{}{}", operand(rng, name), rng.pick(&["", "", "::text", "::int", "::float", "::bool", "::json"])))
            .collect();
        parameters.push(("select".to_owned(), items.join(",")));
    }
    if rng.chance(30) {
        parameters.push(("limit".to_owned(), rng.below(20).to_string()));
        parameters.push(("offset".to_owned(), rng.below(20).to_string()));
    }
    parameters
}

fn tree(rng: &mut Rng, name: &str, depth: usize) -> String {
    let nodes: Vec<String> = (0..=rng.below(3))
        .map(|_| {
            if depth > 0 && rng.chance(30) {
                return format!("{}{}", rng.pick(&["and", "or", "not.and", "not.or"]), tree(rng, name, depth - 1));
            }
            let operand = operand(rng, name);
            format!("{operand}.{}", comparison(rng, &operand, true))
        })
        .collect();
    format!("({})", nodes.join(","))
}

fn operand(rng: &mut Rng, name: &str) -> String {
    const ORDERS: [&str; 9] = ["id", "title", "n", "ratio", "done", "due", "meta", "photo", "hours"];
    const NOTES: [&str; 5] = ["id", "title", "tags", "likes", "rank"];
    let column = if name == "notes" { *rng.pick(&NOTES) } else { *rng.pick(&ORDERS) };
    if !["meta", "tags"].contains(&column) || rng.chance(25) {
        return column.to_owned();
    }
    let step = |rng: &mut Rng| *rng.pick(&["a", "b", "0", "-1", "1", "c", "bb"]);
    let path: String = (0..rng.below(3)).map(|_| format!("->{}", step(rng))).collect();
    format!("{column}{path}{}{}", rng.pick(&["->", "->>"]), step(rng))
}

fn comparison(rng: &mut Rng, operand: &str, nested: bool) -> String {
    let not = if rng.chance(20) { "not." } else { "" };
    let quote = |text: &str| {
        if nested { format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")) } else { text.to_owned() }
    };
    let value = |rng: &mut Rng| {
        let text = operand.contains("->>") || ["id", "title"].contains(&operand);
        match operand {
            _ if text || rng.chance(5) => (*rng.pick(&TEXTS)).to_owned(),
            "n" | "hours" | "likes" | "rank" => (i64::try_from(rng.below(7)).unwrap_or_default() - 3).to_string(),
            "ratio" => (*rng.pick(&["0", "-1.5", "2.0", "1e300", "9.99"])).to_owned(),
            "done" => (*rng.pick(&["true", "false"])).to_owned(),
            "due" => (*rng.pick(&["1970-01-01T00:00:00Z", "2026-02-03T04:05:06Z"])).to_owned(),
            "photo" => (*rng.pick(&["", "AAE=", "AA=="])).to_owned(),
            _ => (*rng.pick(&JSONS)).to_owned(),
        }
    };
    let word = *rng.pick(&[
        "eq",
        "neq",
        "gt",
        "gte",
        "lt",
        "lte",
        "isdistinct",
        "in",
        "is",
        "like",
        "ilike",
        "match",
        "imatch",
        "cs",
        "cd",
        "ov",
        "eq(any)",
        "gt(all)",
        "like(any)",
    ]);
    let items = |rng: &mut Rng| {
        let quoted = |text: String| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        (0..rng.below(4)).map(|_| quoted(value(rng))).collect::<Vec<_>>().join(",")
    };
    let given = match word {
        "in" => format!("({})", items(rng)),
        "is" => (*rng.pick(&["null", "not_null", "true", "false", "unknown"])).to_owned(),
        "like" | "ilike" => quote(rng.pick::<&str>(&PATTERNS)),
        "match" | "imatch" => quote(rng.pick::<&str>(&REGEXES)),
        "ov" => (*rng.pick(&["{a,1}", "{}", "[1]", "[\"a\",{\"a\":1}]"])).to_owned(),
        "eq(any)" | "gt(all)" | "like(any)" => format!("{{{}}}", items(rng)),
        _ => quote(&value(rng)),
    };
    format!("{not}{word}.{given}")
}
