//! `/openapi.json`: the contract of this node, made from its collections as they are now, and of no more than the caller may use.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use mobo_core::ids::CollectionId;
use mobo_core::limits;
use mobo_core::query::{ColumnType, columns};
use mobo_core::schema::{Collection, FieldType, Kind};
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value as Json, json};

use crate::access::Guard;
use crate::backend::NodeKind;
use crate::gate::Gate;
use crate::problem::{CODES, OWN, Problem};

pub(crate) async fn document(State(gate): State<Gate>, request: Request) -> Result<Response, Problem> {
    let _place = gate.admit()?;
    let parts = request.into_parts().0;
    let collections = Guard::of_anybody(&gate, &parts).await?.map(|guard| guard.usable()).unwrap_or_default();
    let mut paths = node_paths();
    if cfg!(feature = "graphql") && gate.backend().node() == NodeKind::Hub {
        paths.insert("/graphql/v1".to_owned(), graphql());
    }
    let mut schemas = Map::from_iter([("Problem".to_owned(), problem())]);
    let names: BTreeMap<CollectionId, String> = collections.iter().map(|collection| (collection.id, collection.name.clone())).collect();
    for collection in collections {
        paths.insert(format!("/rest/v1/{}", collection.name), path(&collection));
        if collection.kind != Kind::Stream {
            paths.insert(format!("/rest/v1/{}/{{id}}/history", collection.name), history(&collection));
        }
        schemas.insert(collection.name.clone(), row(&collection, &names));
    }
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": format!("mobo {}", gate.backend().node().name()),
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Records and samples in PostgREST's conventions. Errors are RFC 9457 problems.",
        },
        "servers": [{ "url": "/" }],
        "security": [{ "apikey": [] }, { "bearer": [] }, {}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": parameters(),
            "responses": { "Problem": {
                "description": "What went wrong, and what to do",
                "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
            } },
            "securitySchemes": {
                "apikey": { "type": "apiKey", "in": "header", "name": "apikey" },
                "bearer": { "type": "http", "scheme": "bearer" },
            },
        },
    });
    let text = document.to_string();
    let tag = tag(&text);
    let headers = [(CACHE_CONTROL, HeaderValue::from_static("no-cache")), (ETAG, tag.clone())];
    if parts.headers.get(IF_NONE_MATCH) == Some(&tag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    Ok((headers, [(CONTENT_TYPE, "application/json")], text).into_response())
}

fn tag(text: &str) -> HeaderValue {
    let hash = digest(&SHA256, text.as_bytes());
    let hex: String = hash.as_ref().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::try_from(format!("\"{hex}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

fn node_paths() -> Map<String, Json> {
    let text = |id: &str, summary: &str, statuses: &[&str]| {
        let response = |status: &&str| ((*status).to_owned(), json!({ "description": summary, "content": { "text/plain": {} } }));
        let wrong = ("default".to_owned(), json!({ "$ref": "#/components/responses/Problem" }));
        let responses: Map<String, Json> = statuses.iter().map(response).chain([wrong]).collect();
        json!({ "get": { "operationId": id, "summary": summary, "security": [], "responses": responses } })
    };
    let object = |id: &str, summary: &str| {
        let ok = json!({ "description": summary, "content": { "application/json": {} } });
        json!({ "get": { "operationId": id, "summary": summary, "responses": { "200": ok, "default": { "$ref": "#/components/responses/Problem" } } } })
    };
    Map::from_iter([
        ("/".to_owned(), object("about", "What this node is")),
        ("/docs".to_owned(), page()),
        ("/openapi.json".to_owned(), object("openapi", "This document")),
        ("/livez".to_owned(), text("livez", "The node answers", &["200"])),
        ("/readyz".to_owned(), text("readyz", "The parts that requests depend on", &["200", "503"])),
        ("/healthz".to_owned(), text("healthz", "As /readyz", &["200", "503"])),
    ])
}

fn page() -> Json {
    let summary = "Every collection, with lines to paste";
    let ok = json!({ "description": summary, "content": { "text/html": {} } });
    json!({ "get": { "operationId": "docs", "summary": summary, "responses": { "200": ok, "default": { "$ref": "#/components/responses/Problem" } } } })
}

/// GraphQL tells its own schema: this is how it is asked.
fn graphql() -> Json {
    let text = |name: &str, required: bool| json!({ "name": name, "in": "query", "required": required, "schema": { "type": "string" } });
    let answer = json!({ "type": "object", "properties": { "data": {}, "errors": { "type": "array", "items": { "type": "object" } } } });
    let responses = json!({
        "200": { "description": "What was asked for, and what went wrong", "content": { "application/json": { "schema": answer } } },
        "default": { "$ref": "#/components/responses/Problem" },
    });
    let operation = |id: &str, summary: &str| json!({ "operationId": id, "summary": summary, "tags": ["graphql"], "responses": responses });
    let asked = json!({ "type": "object", "required": ["query"], "properties": {
        "query": { "type": "string" }, "operationName": { "type": ["string", "null"] }, "variables": { "type": ["object", "null"] },
    } });
    let mut get = operation("graphql_get", "Asks by GraphQL");
    if let Some(members) = get.as_object_mut() {
        members.insert("parameters".to_owned(), json!([text("query", true), text("operationName", false), text("variables", false)]));
    }
    json!({ "get": get, "post": taking(operation("graphql", "Asks, writes and listens by GraphQL"), &asked) })
}

fn path(collection: &Collection) -> Json {
    let name = &collection.name;
    let filters: Vec<Json> = columns(collection).iter().map(|column| filter(&column.name)).collect();
    let with = |more: &[&str]| {
        let shared = more.iter().map(|name| json!({ "$ref": format!("#/components/parameters/{name}") }));
        filters.iter().cloned().chain(shared).collect::<Vec<Json>>()
    };
    let rows = json!({ "type": "array", "items": { "$ref": format!("#/components/schemas/{name}") } });
    let one_row = json!({ "$ref": format!("#/components/schemas/{name}") });
    let answer = |description: &str| {
        json!({ "description": description, "content": {
            "application/json": { "schema": rows },
            "application/vnd.pgrst.object+json": { "schema": one_row },
            "text/csv": {},
        } })
    };
    let wrong = json!({ "$ref": "#/components/responses/Problem" });
    let operation = |verb: &str, summary: String, parameters: Vec<Json>, responses: Json| json!({ "operationId": format!("{verb}_{name}"), "summary": summary, "tags": [name], "parameters": parameters, "responses": responses });
    let read = answer("Rows");
    let mut words = vec!["select", "order", "limit", "offset", "after", "and", "or", "count"];
    if collection.kind != Kind::Stream && collection.field("at").is_none() {
        words.push("at");
    }
    let get = operation(
        "list",
        format!("Reads {name}"),
        with(&words),
        json!({ "200": read, "206": answer("A part of the rows"), "304": { "description": "As If-None-Match has it" }, "default": wrong }),
    );
    let prefer = json!({ "$ref": "#/components/parameters/prefer" });
    let post = operation(
        "insert",
        format!("Writes to {name}"),
        vec![prefer],
        json!({ "201": { "description": "Written; with return=representation, the rows" }, "default": wrong }),
    );
    let put = |schema: &Json| {
        let key = json!({ "name": "id", "in": "query", "required": true, "description": "eq.KEY", "schema": { "type": "string", "pattern": "^eq\\." } });
        let responses = json!({ "200": answer("The row"), "201": { "description": "Made; with return=representation, the row" }, "204": { "description": "Replaced" }, "default": wrong });
        let put = operation(
            "put",
            format!("Makes or replaces one record of {name}"),
            vec![key, json!({ "$ref": "#/components/parameters/prefer" })],
            responses,
        );
        taking(put, schema)
    };
    let one = json!({ "$ref": format!("#/components/schemas/{name}") });
    let written = json!({ "oneOf": [one, { "type": "array", "maxItems": limits::ROWS_PER_WRITE_MAX, "items": one }] });
    let post = taking(post, &written);
    if collection.kind == Kind::Stream {
        return json!({ "get": get, "post": post });
    }
    let changed = json!({ "200": answer("The rows"), "204": { "description": "Done" }, "default": wrong });
    let patch = operation("update", format!("Changes the rows of {name} that the filters let through"), with(&["prefer"]), changed.clone());
    let patch = taking(patch, &one);
    let delete = operation("delete", format!("Removes the rows of {name} that the filters let through"), with(&["prefer"]), changed);
    json!({ "get": get, "post": post, "put": put(&one), "patch": patch, "delete": delete })
}

/// Who changed a record, what, and what merges decided.
fn history(collection: &Collection) -> Json {
    let name = &collection.name;
    let query =
        |name: &str, description: &str, schema: Json| json!({ "name": name, "in": "query", "description": description, "schema": schema });
    let id = json!({ "name": "id", "in": "path", "required": true, "schema": { "type": "string", "minLength": 1, "maxLength": limits::RECORD_ID_BYTES_MAX } });
    let limit = json!({ "type": "integer", "minimum": 1, "maximum": limits::HISTORY_CHANGES_MAX });
    let (text, time) = (json!({ "type": ["string", "null"] }), json!({ "type": ["string", "null"], "format": "date-time" }));
    let who = json!({ "at": time, "device": text, "by": text, "version": text });
    let with = |more: Json| {
        let mut properties = who.clone();
        if let (Some(properties), Json::Object(more)) = (properties.as_object_mut(), more) {
            properties.extend(more);
        }
        json!({ "type": "object", "properties": properties })
    };
    let change = with(json!({ "action": { "enum": ["insert", "update", "delete", "write"] }, "changed": { "type": "object" } }));
    let decision = json!({ "type": "object", "properties": {
        "field": text, "kind": { "enum": ["concurrent", "hidden_by_delete", "time_uncertain"] }, "at": time, "settled": { "type": "boolean" },
        "winner": with(json!({ "value": {} })), "loser": with(json!({ "value": {} })),
    } });
    let told = json!({ "type": "object", "required": ["collection", "id", "complete", "changes", "decisions"], "properties": {
        "collection": { "type": "string" }, "id": { "type": "string" }, "record": { "type": ["object", "null"] },
        "complete": { "type": "boolean" }, "since": time, "note": text, "restored": time, "next": text,
        "changes": { "type": "array", "items": change }, "decisions": { "type": "array", "items": decision },
    } });
    let summary = format!("Tells who changed a record of {name}, from which device, and what merges decided, newest first");
    json!({ "get": {
        "operationId": format!("history_{name}"), "summary": summary, "tags": [name],
        "parameters": [id, query("limit", "Changes at most", limit), query("after", "The place behind which changes are wanted, as next gives it", json!({ "type": "string" }))],
        "responses": {
            "200": { "description": "What is known of how it came about", "content": { "application/json": { "schema": told } } },
            "default": { "$ref": "#/components/responses/Problem" },
        },
    } })
}

/// The operation with a body.
fn taking(mut operation: Json, schema: &Json) -> Json {
    let body = json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    if let Some(members) = operation.as_object_mut() {
        members.insert("requestBody".to_owned(), body);
    }
    operation
}

fn filter(column: &str) -> Json {
    json!({
        "name": column,
        "in": "query",
        "description": "operator.value, with eq neq gt gte lt lte like ilike match imatch isdistinct cs cd ov, in.(a,b), is.null, eq(any).{a,b}, and not. in \
            front of any",
        "schema": { "type": "string", "pattern": "^(not\\.)?(eq|neq|gt|gte|lt|lte|like|ilike|match|imatch|in|is|isdistinct|cs|cd|ov|(eq|gt|gte|lt|lte|like|ilike|match|imatch)\\((any|all)\\))\\." },
    })
}

fn parameters() -> Json {
    let query =
        |name: &str, description: &str, schema: Json| json!({ "name": name, "in": "query", "description": description, "schema": schema });
    let prefer =
        |description: &str| json!({ "name": "Prefer", "in": "header", "description": description, "schema": { "type": "string" } });
    json!({
        "select": query("select", "Columns, as column, alias:column, column->path->>key or column::type; and records of a related collection, as name(columns), alias:name!inner(columns) or ...name(columns), which filters name.column, name.order and name.limit narrow", json!({ "type": "string" })),
        "order": query("order", "Columns, each with .asc or .desc, .nullsfirst or .nullslast", json!({ "type": "string" })),
        "limit": query("limit", "Rows at most", json!({ "type": "integer", "minimum": 0, "maximum": limits::ROWS_MAX })),
        "offset": query("offset", "Rows to pass over", json!({ "type": "integer", "minimum": 0 })),
        "after": query("after", "The place behind which rows are wanted, as the header link gives it", json!({ "type": "string" })),
        "at": query("at", "A time, or a version as the history of the record names it: with id=eq.KEY, the record as it was then", json!({ "type": "string" })),
        "and": query("and", "Filters that all hold: (a.eq.1,or(b.gt.2,c.is.null))", json!({ "type": "string", "pattern": "^\\(.*\\)$" })),
        "or": query("or", "Filters of which one holds", json!({ "type": "string", "pattern": "^\\(.*\\)$" })),
        "count": prefer("count=exact"),
        "prefer": prefer("return=minimal|headers-only|representation, resolution=merge-duplicates|ignore-duplicates, count=exact"),
    })
}

fn row(collection: &Collection, names: &BTreeMap<CollectionId, String>) -> Json {
    let property = |kind| match kind {
        ColumnType::Key => json!({ "type": "string", "maxLength": limits::RECORD_ID_BYTES_MAX }),
        ColumnType::Field(kind) => field(kind),
    };
    let mut properties: Map<String, Json> = columns(collection).into_iter().map(|column| (column.name, property(column.kind))).collect();
    for field in collection.live_fields() {
        // Of a collection that the caller may not use, not even the name is said.
        let target = field.references.and_then(|target| names.get(&target));
        if let (Some(target), Some(property)) = (target, properties.get_mut(&field.name).and_then(Json::as_object_mut)) {
            property.insert(
                "description".to_owned(),
                json!(format!("The id of a record of {target}: {}({{columns}}) in select gives it", field.name)),
            );
            property.insert("x-references".to_owned(), json!(target));
        }
    }
    json!({ "type": "object", "description": format!("A {}", collection.kind.name()), "properties": properties })
}

fn field(kind: FieldType) -> Json {
    match kind {
        FieldType::Text => json!({ "type": ["string", "null"] }),
        FieldType::Int => json!({ "type": ["integer", "null"], "format": "int64" }),
        FieldType::Float => json!({ "type": ["number", "null"], "format": "double" }),
        FieldType::Bool => json!({ "type": ["boolean", "null"] }),
        FieldType::Timestamp => json!({ "type": ["string", "null"], "format": "date-time" }),
        FieldType::Json => json!({}),
        FieldType::Bytes => json!({ "type": ["string", "null"], "contentEncoding": "base64" }),
        FieldType::List => json!({ "type": ["array", "null"] }),
        FieldType::Counter => {
            let increment =
                json!({ "type": "object", "properties": { "$inc": { "type": "integer", "format": "int64" } }, "required": ["$inc"] });
            json!({ "oneOf": [{ "type": "integer", "format": "int64" }, increment] })
        }
    }
}

fn problem() -> Json {
    let text = json!({ "type": "string" });
    let optional = json!({ "type": ["string", "null"] });
    let codes: Vec<String> = CODES.iter().chain(&OWN).map(|(code, meaning)| format!("{code}: {meaning}")).collect();
    let code = json!({ "type": "string", "description": format!("Stable. {}. Accounts have GoTrue's.", codes.join("; ")) });
    let error = json!({ "type": "object", "required": ["code", "message"], "properties": {
        "pointer": { "type": "string", "description": "The field of the body" },
        "parameter": { "type": "string", "description": "The word of the address" },
        "code": text, "message": text,
    } });
    json!({
        "type": "object",
        "required": ["type", "title", "status", "detail", "instance", "code", "message", "hint"],
        "properties": {
            "type": text, "title": text, "status": { "type": "integer" }, "detail": text, "instance": text,
            "code": code, "message": text, "details": optional, "hint": text,
            "errors": { "type": "array", "items": error },
            "violated-policies": { "type": "array", "items": text, "description": "With 429: the bound, of which limit, window_s and retry_after_s say more" },
            "limit": { "type": "integer" }, "window_s": { "type": "integer" }, "retry_after_s": { "type": "integer" },
        },
    })
}
