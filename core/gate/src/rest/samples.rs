//! POST to a stream.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::CONTENT_RANGE;
use axum::response::{IntoResponse, Response};
use mobo_core::author::EditError;
use mobo_core::ids::FieldId;
use mobo_core::json::value_from_json;
use mobo_core::limits;
use mobo_core::names;
use mobo_core::schema::{Collection, FieldType};
use mobo_core::stream::{Column, Segment};
use mobo_core::time::Wall;
use mobo_core::value::Value;
use serde_json::{Map, Value as Json};

use super::insert::keep;
use super::{Call, range, written};
use crate::body::{self, Rows, Spelling};
use crate::prefer::Return;
use crate::problem::Problem;

pub(super) async fn append(call: &Call<'_>, body: &mut Body) -> Result<Response, Problem> {
    if call.prefer.returns == Return::Representation {
        return Err(Problem::unsupported("return=representation for samples").hint("nothing was written; send return=minimal"));
    }
    let spelling = Spelling::of(&call.parts.headers)?;
    let held = body::read(call.gate, &call.parts.headers, body).await?;
    let mut rows = spelling.rows(&held)?;
    rows.iter_mut().for_each(|row| keep(row, call.query.fields.as_deref()));
    let count = rows.len() as u64;
    let mut response = StatusCode::CREATED.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_RANGE, range::content_range(0, 0, call.prefer.count.then_some(count)));
    if count > 0 {
        let segment = segment(rows, &call.collection, call.gate.backend().now())?;
        let level = call.gate.backend().append(Arc::clone(&call.collection), segment).await?;
        headers.extend(written::ack(Some(level)));
    }
    Ok(response)
}

/// The samples as columns. A sample without `at` was taken now, and none is taken later than now.
fn segment(rows: Rows, collection: &Collection, now: Wall) -> Result<Segment, Problem> {
    let samples = rows.len();
    let mut before_us = Vec::with_capacity(samples);
    let mut columns: BTreeMap<FieldId, Vec<Value>> = BTreeMap::new();
    for (n, mut row) in rows.into_iter().enumerate() {
        before_us.push(age_us(row.remove("at").as_ref(), now)?);
        for (field, value) in values(row, collection)? {
            if !columns.contains_key(&field) && samples * (columns.len() + 1) > limits::ENTRY_CELLS_MAX {
                let message = format!("one request takes at most {} values of samples, nulls included", limits::ENTRY_CELLS_MAX);
                return Err(Problem::too_large(message).hint("send the samples in several requests; nothing was written"));
            }
            let column = columns.entry(field).or_insert_with(|| vec![Value::Null; samples]);
            column.iter_mut().skip(n).take(1).for_each(|place| place.clone_from(&value));
        }
    }
    let columns = columns.into_iter().map(|(field, values)| (field, Column::Typed(values))).collect();
    Ok(Segment { collection: collection.id, before_us, columns, author: None })
}

fn age_us(at: Option<&Json>, now: Wall) -> Result<u64, Problem> {
    let Some(at) = at else { return Ok(0) };
    match value_from_json(at, FieldType::Timestamp) {
        Ok(Value::Timestamp(at)) => Ok(u64::try_from(now.0.saturating_sub(at)).unwrap_or(0)),
        Ok(_) => Ok(0),
        Err(why) => Err(EditError::BadValue { field: "at".to_owned(), why: why.0 }.into()),
    }
}

/// The values of one sample that are not null.
fn values(row: Map<String, Json>, collection: &Collection) -> Result<Vec<(FieldId, Value)>, Problem> {
    let mut values = Vec::with_capacity(row.len());
    for (name, given) in row {
        let Some(field) = collection.field(&name) else {
            let known = collection.live_fields().map(|field| field.name.as_str()).chain(["at"]);
            let near = names::nearest(&name, known).map(str::to_owned);
            return Err(EditError::UnknownField { collection: collection.name.clone(), field: name, near }.into());
        };
        match value_from_json(&given, field.kind) {
            Ok(Value::Null) => {}
            Ok(value) => values.push((field.id, value)),
            Err(why) => return Err(EditError::BadValue { field: name, why: why.0 }.into()),
        }
    }
    Ok(values)
}
