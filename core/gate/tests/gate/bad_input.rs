//! What a caller can get wrong: each with its name, a status, a code, and words that help. Nothing is ever written.

use std::sync::atomic::Ordering;

use mobo_gate::{BackendError, NodeKind};
use serde_json::{Value as Json, json};

use crate::{Headers, World, Wrong};

struct Case {
    name: &'static str,
    line: &'static str,
    headers: Headers<'static>,
    body: &'static str,
    want: Wrong<'static>,
}

const fn case(name: &'static str, line: &'static str, body: &'static str, want: Wrong<'static>) -> Case {
    Case { name, line, headers: &[], body, want }
}

const fn with(case: Case, headers: Headers<'static>) -> Case {
    Case { headers, ..case }
}

const POST: &str = "POST /rest/v1/work_orders";
const GET: &str = "GET /rest/v1/work_orders";
const PATCH: &str = "PATCH /rest/v1/work_orders?id=eq.a";

#[rustfmt::skip]
const CASES: &[Case] = &[
    case("a path that is not there", "GET /nothing", "", (404, "PGRST125", "/rest/v1/{collection}")),
    case("a path below a collection", "GET /rest/v1/work_orders/a", "", (404, "PGRST125", "nothing at this path")),
    case("a path that is not UTF-8", "GET /rest/v1/%FF", "", (404, "PGRST125", "nothing at this path")),
    case("no collection", "GET /rest/v1/", "", (404, "PGRST125", "nothing at this path")),
    case("an unknown collection", "GET /rest/v1/workorders", "", (404, "PGRST205", "Perhaps you meant 'work_orders'")),
    case("an unlike collection", "POST /rest/v1/colours", "{}", (404, "PGRST205", "collection create")),
    case("a name to attack a page with", "GET /rest/v1/%3Cscript%3E", "", (404, "PGRST205", "<script>")),
    case("a method that records do not have", "TRACE /rest/v1/work_orders?id=eq.a", "{}", (405, "PGRST117", "it takes GET, HEAD, POST, PUT, PATCH, DELETE")),
    case("a method that probes do not have", "POST /livez", "", (405, "PGRST117", "the Allow header lists")),
    case("an unknown column", "GET /rest/v1/work_orders?titel=eq.x", "", (400, "42703", "Perhaps you meant 'title'")),
    case("a retired column", "GET /rest/v1/work_orders?old=eq.x", "", (400, "42703", "work_orders.old does not exist")),
    case("an unknown operator", "GET /rest/v1/work_orders?rank=equals.1", "", (400, "PGRST100", "\\\"equals\\\" is not an operator")),
    case("an operator of a later version", "GET /rest/v1/work_orders?title=fts.x", "", (400, "PGRST127", "operator fts of title")),
    case("a pattern that others read otherwise", "GET /rest/v1/work_orders?title=match.%5Cbx", "", (400, "PGRST127", "of the escapes")),
    case("a pattern that is none", "GET /rest/v1/work_orders?title=match.(x", "", (400, "22P02", "without its )")),
    case("a pattern of a number", "GET /rest/v1/work_orders?rank=match.1", "", (400, "42883", "match on")),
    case("a value of another type", "GET /rest/v1/work_orders?rank=eq.high", "", (400, "22P02", "an integer of 64 bits")),
    case("SQL in a value of another type", "GET /rest/v1/work_orders?rank=eq.1;drop%20table", "", (400, "22P02", "1;drop table")),
    case("a negative limit", "GET /rest/v1/work_orders?limit=-1", "", (416, "PGRST103", "below 0")),
    with(case("a range backwards", GET, "", (416, "PGRST103", "ends before it begins")), &[("range", "5-2")]),
    with(case("a form that is not there", GET, "", (406, "PGRST107", "image/png")), &[("accept", "image/png")]),
    with(case("strict, with a preference that is not there", GET, "", (400, "PGRST122", "tx=rollback")), &[("prefer", "handling=strict, tx=rollback")]),
    with(case("a rollback that is asked for", POST, "{}", (400, "PGRST127", "committed or refused")), &[("prefer", "tx=rollback")]),
    with(case("times of another zone", GET, "", (400, "PGRST127", "the preference timezone=europe/berlin")), &[("prefer", "timezone=Europe/Berlin")]),
    case("files", "GET /storage/v1/object/a", "", (400, "PGRST127", "files at /storage/v1")),
    case("JSON that breaks off", POST, "{\"title\":\n \"Pump", (400, "PGRST102", "line 2 column 6")),
    case("JSON with a slip", POST, "{\"title\": Pump}", (400, "PGRST102", "line 1 column 11")),
    case("a member that is there twice", POST, "{\"title\":\"a\",\n\"title\":\"b\"}", (400, "PGRST102", "\\\"title\\\" is there twice at line 2 column 7")),
    case("a member of a value that is there twice", POST, "{\"meta\":{\"a\":1,\"a\":2}}", (400, "PGRST102", "is there twice at line 1")),
    with(case("CSV that names a column twice", POST, "title,rank,title\na,1,b\n", (400, "PGRST102", "names \\\"title\\\" twice")), &[("content-type", "text/csv")]),
    case("JSON and more", POST, "{} {}", (400, "PGRST102", "trailing characters at line 1 column 4")),
    case("a number out of range", POST, "{\"load\":1e999}", (400, "PGRST102", "number out of range")),
    case("no body", POST, "", (400, "PGRST102", "the body is empty")),
    case("a body of spaces", POST, " \n", (400, "PGRST102", "the body is empty")),
    case("a body that is a number", POST, "7", (400, "PGRST102", "row 1 is not an object")),
    case("a row that is a list", POST, "[{\"title\":\"a\"},[]]", (400, "PGRST102", "row 2 is not an object")),
    with(case("XML", POST, "<a/>", (415, "PGRST107", "application/xml")), &[("content-type", "application/xml")]),
    with(case("a form with a field of another type", POST, "rank=high", (400, "22P02", "an integer of 64 bits")), &[("content-type", "application/x-www-form-urlencoded")]),
    with(case("CSV that is too narrow", POST, "id,title\na\n", (400, "PGRST102", "line 2 has 1 fields")), &[("content-type", "text/csv")]),
    case("PUT by more than its key", "PUT /rest/v1/work_orders?id=eq.a&rank=eq.1", "{}", (405, "PGRST105", "?id=eq.7")),
    case("PUT of another id", "PUT /rest/v1/work_orders?id=eq.a", "{\"id\":\"b\"}", (400, "PGRST102", "another id")),
    case("a cursor that is none", "GET /rest/v1/work_orders?after=x", "", (400, "PGRST100", "not a cursor")),
    with(case("a version that is not there", PATCH, "{\"rank\":1}", (412, "MB412", "its new ETag")), &[("if-match", "\"0\"")]),
    with(case("a version of many", "PATCH /rest/v1/work_orders?rank=is.null", "{\"rank\":1}", (400, "PGRST100", "one record")), &[("if-match", "\"0\"")]),
    with(case("an empty key of a write", POST, "{}", (400, "MB400", "Idempotency-Key")), &[("idempotency-key", "\"\"")]),
    with(case("a compressed body", POST, "{}", (415, "PGRST107", "compressed")), &[("content-encoding", "gzip")]),
    with(case("a line that is not JSON", POST, "{}\n{}\n{x}\n", (400, "PGRST102", "line 3 column 2")), &[("content-type", "application/x-ndjson")]),
    case("an unknown field", POST, "{\"titel\":\"x\"}", (400, "PGRST204", "Perhaps you meant the column 'title'")),
    case("a retired field", POST, "{\"old\":\"x\"}", (400, "PGRST204", "'old' column of 'work_orders'")),
    case("a field of another type", POST, "{\"rank\":\"high\"}", (400, "22P02", "field \\\"rank\\\": takes an integer")),
    case("a fraction for an integer", POST, "{\"rank\":1.5}", (400, "22P02", "field \\\"rank\\\"")),
    case("text with U+0000", POST, "{\"title\":\"a\\u0000\"}", (400, "22P02", "field \\\"title\\\"")),
    case("a counter that is text", POST, "{\"hours\":\"2\"}", (400, "22P02", "$inc")),
    case("a counter with two words", POST, "{\"hours\":{\"$inc\":1,\"$dec\":1}}", (400, "22P02", "$inc")),
    case("an id that is null", POST, "{\"id\":null}", (400, "23502", "leave id out")),
    case("an id that is empty", POST, "{\"id\":\"\"}", (400, "22P02", "an id is 1 to 256 bytes")),
    case("an id with a line break", POST, "{\"id\":\"a\\nb\"}", (400, "22P02", "control characters")),
    case("an id that is a fraction", POST, "{\"id\":1.5}", (400, "22P02", "id: takes text")),
    case("an id that is a list", POST, "{\"id\":[\"a\"]}", (400, "22P02", "id: takes text")),
    with(case("a version of an insert", POST, "{}", (400, "PGRST100", "If-None-Match: *")), &[("if-match", "\"0\"")]),
    with(case("an insert of what is not there", POST, "{}", (400, "PGRST100", "If-None-Match: *")), &[("if-none-match", "*")]),
    with(case("only making what is there", "PUT /rest/v1/work_orders?id=eq.a", "{}", (412, "MB412", "must not be")), &[("if-none-match", "*")]),
    with(case("a change of what must not be there", PATCH, "{\"rank\":1}", (412, "MB412", "must not be")), &[("if-none-match", "*")]),
    with(case("a removal of what must not be there", "DELETE /rest/v1/work_orders?id=eq.a", "", (412, "MB412", "must not be")), &[("if-none-match", "*")]),
    with(case("what must not be there, of many", "DELETE /rest/v1/work_orders?rank=is.null", "", (400, "PGRST100", "one record")), &[("if-none-match", "*")]),
    with(case("rows of another schema", GET, "", (406, "PGRST106", "Invalid schema: stock")), &[("accept-profile", "stock")]),
    with(case("a write into another schema", POST, "{}", (406, "PGRST106", "are exposed: public")), &[("content-profile", "stock")]),
    case("a function", "POST /rest/v1/rpc/add", "{\"a\":1}", (404, "PGRST202", "public.add")),
    case("a function that is asked for", "GET /rest/v1/rpc/add?a=1", "", (404, "PGRST202", "no functions to call")),
    case("the field that is to blame", POST, "{\"ra/nk\":1}", (400, "PGRST204", "\"pointer\":\"/ra~1nk\"")),
    case("the word that is to blame", "GET /rest/v1/work_orders?limit=x", "", (400, "PGRST100", "\"parameter\":\"limit\"")),
    case("upsert by another column", "POST /rest/v1/work_orders?on_conflict=title", "{}", (400, "PGRST100", "no unique constraint")),
    case("a change without a filter", "PATCH /rest/v1/work_orders", "{\"rank\":1}", (400, "21000", "PATCH requires a filter")),
    case("a removal without a filter", "DELETE /rest/v1/work_orders", "", (400, "21000", "DELETE requires a filter")),
    case("a limit is not a filter", "DELETE /rest/v1/work_orders?limit=1", "", (400, "21000", "DELETE requires a filter")),
    with(case("more than the caller allows", "DELETE /rest/v1/work_orders", "", (400, "PGRST124", "would change 2 rows")), &[("prefer", "handling=strict, max-affected=1")]),
    case("another id in a change", PATCH, "{\"id\":\"b\",\"rank\":1}", (400, "22P02", "another id than that of the row \\\"a\\\"")),
    case("a change that is a list of two", PATCH, "[{\"rank\":1},{\"rank\":2}]", (400, "PGRST102", "PATCH takes one object")),
    case("a change of an unknown field", PATCH, "{\"rankk\":1}", (400, "PGRST204", "Perhaps you meant the column 'rank'")),
    case("a change to another type", PATCH, "{\"open\":\"yes\"}", (400, "22P02", "field \\\"open\\\"")),
];

#[tokio::test]
async fn every_slip_has_an_answer_and_changes_nothing() {
    let world = World::new(NodeKind::Edge);
    world.send(POST, json!([{ "id": "a" }, { "id": "b" }]), 201).await;
    let before = world.rows("/rest/v1/work_orders").await;
    for Case { name, line, headers, body, want: (status, code, words) } in CASES {
        let answer = world.ask(line, headers, *body).await;
        answer.is_problem(name, *status, code, words);
    }
    assert_eq!(world.rows("/rest/v1/work_orders").await, before);
    assert_eq!(world.memory.entries.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn large_requests_are_refused_before_they_are_work() {
    let world = World::new(NodeKind::Edge);
    let spaces = " ".repeat(10 * 1024 * 1024);
    let large = world.ask(POST, &[], spaces).await;
    large.is_problem("a body of 10 MB", 413, "54000", "at most 4194304 bytes");
    let many = world.ask(POST, &[], Json::from(vec![json!({}); 5_001]).to_string()).await;
    many.is_problem("5001 rows", 413, "54000", "at most 5000 rows");
    let shown = world.ask(POST, &[("prefer", "return=representation")], Json::from(vec![json!({}); 1_001]).to_string()).await;
    shown.is_problem("1001 rows to be shown", 413, "54000", "return=minimal");
    let deep = world.ask(POST, &[], format!("{{\"meta\":{}}}", "[".repeat(200))).await;
    deep.is_problem("200 brackets", 400, "PGRST102", "recursion limit");
    let deep = world.ask(POST, &[], format!("{{\"meta\":{}{}}}", "[".repeat(100), "]".repeat(100))).await;
    deep.is_problem("100 levels", 400, "22P02", "64 levels deep");
    assert_eq!(world.memory.entries.load(Ordering::Relaxed), 0);
    world.send(POST, Json::from(vec![json!({}); 5_000]), 201).await;
    let rows = world.ask(GET, &[("prefer", "count=exact")], "").await;
    assert_eq!((rows.status, rows.header("content-range")), (206, "0-999/5000"), "an answer has a bound, too");
    let all = world.ask("PATCH /rest/v1/work_orders?id=not.is.null", &[], r#"{"rank":1}"#).await;
    assert_eq!(all.status, 204, "5000 rows in one change");
    world.send(POST, json!({}), 201).await;
    let more = world.ask("PATCH /rest/v1/work_orders?id=not.is.null", &[], r#"{"rank":2}"#).await;
    more.is_problem("a change of 5001 rows", 413, "54000", "narrow the filter");
}

#[tokio::test]
async fn trouble_behind_the_gate_has_a_status_and_a_next_step() {
    let world = World::new(NodeKind::Edge);
    let trouble = [
        (BackendError::Unavailable("connection refused".into()), 503, "08006", "/readyz?verbose", "2"),
        (BackendError::Full("no space left".into()), 507, "53100", "free some space", ""),
        (BackendError::TooLarge("an entry is at most 256 KiB: split it".into()), 413, "54000", "split it", ""),
        (BackendError::Damaged("row a".into()), 500, "XX001", "health check", ""),
        (BackendError::BadValue("invalid input syntax for type bigint: \"x\"".into()), 400, "22P02", "leave the cast out", ""),
        (BackendError::Refused("the collection is gone".into()), 400, "P0001", "the collection is gone", ""),
    ];
    for (error, status, code, words, retry) in trouble {
        world.memory.fail(Some(error));
        for (line, body) in [(GET, ""), (POST, "{}"), ("POST /rest/v1/vitals", "{}")] {
            let answer = world.ask(line, &[], body).await;
            answer.is_problem(line, status, code, words);
            assert_eq!(answer.header("retry-after"), retry);
        }
    }
    world.memory.fail(None);
    let panic = world.ask("GET /rest/v1/broken", &[("x-request-id", "0190a7a0-0000-7000-8000-000000000001")], "").await;
    panic.is_problem("a panic", 500, "XX000", "urn:uuid:0190a7a0-0000-7000-8000-000000000001");
    assert!(!panic.text.contains("the store is broken"), "a panic's words are for the log");
    assert_eq!(world.rows("/rest/v1/work_orders").await, json!([]), "and the next request is answered");
}
