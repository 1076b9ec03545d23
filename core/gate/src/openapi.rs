//! `/openapi.json`: the contract of this node, made from its collections as they are now, and of no more than the caller may use.

use axum::extract::{Request, State};
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use mobo_core::limits;
use mobo_core::query::{ColumnType, columns};
use mobo_core::schema::{Collection, FieldType, Kind};
use serde_json::{Map, Value as Json, json};

use crate::access;
use crate::gate::Gate;
use crate::problem::Problem;

pub(crate) async fn document(State(gate): State<Gate>, request: Request) -> Result<Response, Problem> {
    let _place = gate.admit()?;
    let caller = access::principal(&gate, &request.into_parts().0).await?;
    let schema = gate.backend().schema();
    let mut collections: Vec<&Collection> =
        schema.iter().filter(|_| caller.as_ref().is_some_and(|caller| caller.role.is_trusted())).collect();
    collections.sort_by(|a, b| a.name.cmp(&b.name));
    let mut paths = node_paths();
    let mut schemas = Map::from_iter([("Problem".to_owned(), problem())]);
    for collection in collections {
        paths.insert(format!("/rest/v1/{}", collection.name), path(collection));
        schemas.insert(collection.name.clone(), row(collection));
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
    Ok(([(CACHE_CONTROL, "no-cache")], axum::Json(document)).into_response())
}

fn node_paths() -> Map<String, Json> {
    let text = |id: &str, summary: &str, statuses: &[&str]| {
        let response = |status: &&str| ((*status).to_owned(), json!({ "description": summary, "content": { "text/plain": {} } }));
        let responses: Map<String, Json> = statuses.iter().map(response).collect();
        json!({ "get": { "operationId": id, "summary": summary, "security": [], "responses": responses } })
    };
    let object = |id: &str, summary: &str| {
        let ok = json!({ "description": summary, "content": { "application/json": {} } });
        json!({ "get": { "operationId": id, "summary": summary, "responses": { "200": ok } } })
    };
    Map::from_iter([
        ("/".to_owned(), object("about", "What this node is")),
        ("/openapi.json".to_owned(), object("openapi", "This document")),
        ("/livez".to_owned(), text("livez", "The node answers", &["200"])),
        ("/readyz".to_owned(), text("readyz", "The parts that requests depend on", &["200", "503"])),
        ("/healthz".to_owned(), text("healthz", "As /readyz", &["200", "503"])),
    ])
}

fn path(collection: &Collection) -> Json {
    let name = &collection.name;
    let filters: Vec<Json> = columns(collection).iter().map(|column| filter(&column.name)).collect();
    let with = |more: &[&str]| {
        let shared = more.iter().map(|name| json!({ "$ref": format!("#/components/parameters/{name}") }));
        filters.iter().cloned().chain(shared).collect::<Vec<Json>>()
    };
    let rows = json!({ "type": "array", "items": { "$ref": format!("#/components/schemas/{name}") } });
    let answer = |description: &str| json!({ "description": description, "content": { "application/json": { "schema": rows } } });
    let wrong = json!({ "$ref": "#/components/responses/Problem" });
    let operation = |verb: &str, summary: String, parameters: Vec<Json>, responses: Json| json!({ "operationId": format!("{verb}_{name}"), "summary": summary, "tags": [name], "parameters": parameters, "responses": responses });
    let read = answer("Rows");
    let get = operation(
        "list",
        format!("Reads {name}"),
        with(&["select", "order", "limit", "offset", "count"]),
        json!({ "200": read, "206": answer("A part of the rows"), "default": wrong }),
    );
    let prefer = json!({ "$ref": "#/components/parameters/prefer" });
    let post = operation("insert", format!("Writes to {name}"), vec![prefer], json!({ "201": answer("Written"), "default": wrong }));
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
    json!({ "get": get, "post": post, "patch": patch, "delete": delete })
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
        "description": "operator.value, with eq neq gt gte lt lte, in.(a,b), is.null, and not. in front of any",
        "schema": { "type": "string", "pattern": "^(not\\.)?(eq|neq|gt|gte|lt|lte|in|is)\\." },
    })
}

fn parameters() -> Json {
    let query =
        |name: &str, description: &str, schema: Json| json!({ "name": name, "in": "query", "description": description, "schema": schema });
    let prefer =
        |description: &str| json!({ "name": "Prefer", "in": "header", "description": description, "schema": { "type": "string" } });
    json!({
        "select": query("select", "Columns, as column or alias:column", json!({ "type": "string" })),
        "order": query("order", "Columns, each with .asc or .desc, .nullsfirst or .nullslast", json!({ "type": "string" })),
        "limit": query("limit", "Rows at most", json!({ "type": "integer", "minimum": 0, "maximum": limits::ROWS_MAX })),
        "offset": query("offset", "Rows to pass over", json!({ "type": "integer", "minimum": 0 })),
        "count": prefer("count=exact"),
        "prefer": prefer("return=minimal|headers-only|representation, resolution=merge-duplicates|ignore-duplicates, count=exact"),
    })
}

fn row(collection: &Collection) -> Json {
    let property = |kind| match kind {
        ColumnType::Key => json!({ "type": "string", "maxLength": limits::RECORD_ID_BYTES_MAX }),
        ColumnType::Field(kind) => field(kind),
    };
    let properties: Map<String, Json> = columns(collection).into_iter().map(|column| (column.name, property(column.kind))).collect();
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
    json!({
        "type": "object",
        "required": ["type", "title", "status", "detail", "instance", "code", "message"],
        "properties": {
            "type": text, "title": text, "status": { "type": "integer" }, "detail": text, "instance": text,
            "code": text, "message": text, "details": optional, "hint": optional,
        },
    })
}
