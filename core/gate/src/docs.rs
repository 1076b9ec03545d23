//! `/docs`: each collection that the caller may use, with lines to paste that hold this address. One page without scripts, for people who look.

use std::fmt::Write as _;

use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use mobo_core::query::columns;
use mobo_core::schema::{Collection, FieldType, Kind};
use serde_json::{Map, Value as Json, json};

use crate::access::Guard;
use crate::backend::NodeKind;
use crate::gate::Gate;
use crate::problem::{CODES, OWN, Problem};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:54rem;padding:0 1rem;color:#1b1f24;background:#fff}\
    pre{background:#f4f5f7;padding:.8rem;overflow-x:auto;border-radius:6px}code,pre{font:14px/1.45 ui-monospace,monospace}\
    h2{margin-top:3rem;border-top:1px solid #d8dbe0;padding-top:1rem}table{border-collapse:collapse}td,th{padding:.2rem 1rem .2rem 0;text-align:left}\
    @media(prefers-color-scheme:dark){body{color:#e6e8eb;background:#15181c}pre{background:#20252b}h2{border-color:#333a42}}";

pub(crate) async fn page(State(gate): State<Gate>, request: Request) -> Result<Response, Problem> {
    let _place = gate.admit()?;
    let parts = request.into_parts().0;
    let collections = Guard::of_anybody(&gate, &parts).await?.map(|guard| guard.usable()).unwrap_or_default();
    let url = address(&gate, &parts);
    let node = gate.backend().node().name();
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>mobo {node}</title><style>{STYLE}</style><h1>mobo {node}</h1><p>The API of this node, at <code>{url}</code>: PostgREST's \
         conventions, the same on a device and on a hub. <a href=\"/openapi.json\">/openapi.json</a> is the contract; errors are RFC 9457 \
         problems with a stable <code>code</code>. Send a key as <code>apikey</code>; a program on the device itself needs none, and sends \
         <code>local</code> where a library insists on one.</p>"
    );
    if collections.is_empty() {
        html.push_str(
            "<p>There is no collection that you may use: show a key, or make one with <code>mobo-hub collection create</code>.</p>",
        );
    }
    if cfg!(feature = "graphql") && gate.backend().node() == NodeKind::Hub {
        html.push_str("<p>GraphQL is at <code>/graphql/v1</code>, in pg_graphql's names: <code>{ todosCollection { edges { node { id } } } }</code>.</p>");
    }
    for collection in collections {
        section(&mut html, &collection, &url);
    }
    html.push_str(GRAMMAR);
    html.push_str("<h2>Errors</h2><p>Every problem has a <code>code</code> for programs, which stays as it is; those of accounts are GoTrue's.</p><table><tr><th>code<th>says");
    for (code, meaning) in CODES.iter().chain(&OWN) {
        let _ = write!(html, "<tr><td><code>{code}</code><td>{meaning}");
    }
    html.push_str("</table>");
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-cache"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ];
    Ok((headers, html).into_response())
}

const GRAMMAR: &str = "<h2>Filters</h2><table><tr><th>operator<th>means<tr><td><code>eq neq gt gte lt lte</code><td>compares\
    <tr><td><code>in.(a,b)</code><td>one of these<tr><td><code>is.null is.not_null is.true is.false is.unknown</code><td>is\
    <tr><td><code>isdistinct</code><td>is another, or one of both is null<tr><td><code>like ilike</code><td>of a pattern, with <code>*</code> \
    and <code>_</code><tr><td><code>cs cd ov</code><td>JSON and lists: holds, is held, have something in common\
    <tr><td><code>eq(any).{a,b}</code><td>any or all of several<tr><td><code>not.</code><td>in front of any of them\
    <tr><td><code>or=(a.eq.1,and(b.gt.2,c.is.null))</code><td>trees<tr><td><code>meta-&gt;a-&gt;&gt;b</code><td>a path into JSON\
    <tr><td><code>select=*,site(name)&amp;site.city=eq.Ulm</code><td>with the record that a reference names; <code>!inner</code>: only those that have one</table>\
    <p><code>select=name:title,n::text,meta-&gt;&gt;a</code> chooses, names and casts; <code>order=rank.desc.nullslast</code> sorts; \
    <code>limit</code>, <code>offset</code> and <code>Range</code> cut; the header <code>link</code> leads to the next page.</p>";

/// Where the caller found this page; nothing but letters that an address has.
fn address(gate: &Gate, parts: &Parts) -> String {
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).or(parts.uri.authority().map(|authority| authority.as_str()));
    let plain = |host: &&str| !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte));
    let scheme = if gate.settings().secure.is_some() { "https" } else { "http" };
    format!("{scheme}://{}", host.filter(plain).unwrap_or("localhost:8000"))
}

fn section(html: &mut String, collection: &Collection, url: &str) {
    // Names of collections and fields are letters, digits and underscores.
    let (name, kind) = (&collection.name, collection.kind.name());
    let _ = write!(html, "<h2 id=\"{name}\">{name}</h2><p>A {kind}.</p><table><tr><th>column<th>type");
    for column in columns(collection) {
        let _ = write!(html, "<tr><td><code>{}</code><td>{}", column.name, column.kind.field().name());
    }
    html.push_str("</table>");
    let example = Json::Object(example(collection)).to_string();
    let filter = collection
        .live_fields()
        .find(|field| field.kind == FieldType::Text)
        .map_or("limit=10".to_owned(), |field| format!("{}=like.*pump*", field.name));
    let (field, value) = filter.split_once('=').unwrap_or_default();
    let (curl, js) = (
        format!(
            "curl '{url}/rest/v1/{name}?{filter}' -H 'apikey: KEY'\ncurl '{url}/rest/v1/{name}' -H 'apikey: KEY' -H 'content-type: application/json' -d '{example}'"
        ),
        format!(
            "import {{ createClient }} from '@supabase/supabase-js'\nconst db = createClient('{url}', 'KEY')\n\
             await db.from('{name}').insert({example})\nconst {{ data }} = await db.from('{name}').select()"
        ),
    );
    let python = format!(
        "import requests\nurl, headers = '{url}/rest/v1/{name}', {{'apikey': 'KEY'}}\n\
         requests.post(url, json={}, headers=headers).raise_for_status()\nrows = requests.get(url, params={{'{field}': '{value}'}}, headers=headers).json()",
        python(&example)
    );
    let rust = format!(
        "let http = reqwest::Client::new();\nhttp.post(\"{url}/rest/v1/{name}\").header(\"apikey\", \"KEY\").json(&serde_json::json!({example})).send().await?;\n\
         let rows: serde_json::Value = http.get(\"{url}/rest/v1/{name}?{filter}\").header(\"apikey\", \"KEY\").send().await?.json().await?;"
    );
    for (title, text) in [("curl", curl), ("supabase-js", js), ("Python", python), ("Rust", rust), ("MQTT", mqtt(collection))] {
        let _ = write!(html, "<h3>{title}</h3><pre>{}</pre>", escaped(&text));
    }
}

/// How messages of a broker become rows on a device.
fn mqtt(collection: &Collection) -> String {
    let name = &collection.name;
    let mut example = example(collection);
    // A message says what is; what it adds, nobody knows who gets it twice.
    example.retain(|_, value| !value.is_object());
    let (topic, id, at) = if collection.kind == Kind::Stream { ("", "", "") } else { ("/{id}", "id={id} ", "/7") };
    format!(
        "# mobo.toml of a device\n[mqtt]\ningest_url = \"mqtt://127.0.0.1:1883\"\ningest = \"apps/{name}{topic} -> {name} {id}*=$\"\n\n\
         mosquitto_pub -t 'apps/{name}{at}' -m '{}'",
        Json::Object(example)
    )
}

/// A row with a value for each field.
fn example(collection: &Collection) -> Map<String, Json> {
    let value = |kind| match kind {
        FieldType::Text => json!("Check pump 7"),
        FieldType::Int => json!(3),
        FieldType::Float => json!(1.5),
        FieldType::Bool => json!(false),
        FieldType::Timestamp => json!("2026-03-01T08:00:00Z"),
        FieldType::Json => json!({ "site": "north" }),
        FieldType::Bytes => json!("AAE="),
        FieldType::Counter if collection.kind == Kind::Stream => json!(1),
        FieldType::Counter => json!({ "$inc": 1 }),
        FieldType::List => json!(["a"]),
    };
    collection.live_fields().take(6).map(|field| (field.name.clone(), value(field.kind))).collect()
}

/// JSON as Python writes it; the examples hold no such words in texts.
fn python(json: &str) -> String {
    json.replace(":false", ":False").replace(":true", ":True")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
