//! Samples as a caller wrote them, as the columns of one entry.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::EditError;
use crate::ids::FieldId;
use crate::json::value_from_json;
use crate::limits;
use crate::names;
use crate::schema::{Collection, FieldType};
use crate::stream::{Column, Segment};
use crate::time::Wall;
use crate::value::Value;

/// The samples of one write. A sample without `at` was taken now, and none is taken later than now.
///
/// # Errors
///
/// [`EditError`] with the field to blame.
pub fn segment(rows: Vec<Map<String, Json>>, collection: &Collection, now: Wall) -> Result<Segment, EditError> {
    let samples = rows.len();
    let mut before_us = Vec::with_capacity(samples);
    let mut columns: BTreeMap<FieldId, Vec<Value>> = BTreeMap::new();
    for (n, mut row) in rows.into_iter().enumerate() {
        before_us.push(age_us(row.remove("at").as_ref(), now)?);
        for (field, value) in values(row, collection)? {
            if !columns.contains_key(&field) && samples * (columns.len() + 1) > limits::ENTRY_CELLS_MAX {
                let why = format!("one write takes at most {} values of samples, nulls included: split it", limits::ENTRY_CELLS_MAX);
                return Err(EditError::TooLarge(why));
            }
            let column = columns.entry(field).or_insert_with(|| vec![Value::Null; samples]);
            column.iter_mut().skip(n).take(1).for_each(|place| place.clone_from(&value));
        }
    }
    let columns = columns.into_iter().map(|(field, values)| (field, Column::Typed(values))).collect();
    Ok(Segment { collection: collection.id, before_us, columns, author: None })
}

fn age_us(at: Option<&Json>, now: Wall) -> Result<u64, EditError> {
    let Some(at) = at else { return Ok(0) };
    match value_from_json(at, FieldType::Timestamp) {
        Ok(Value::Timestamp(at)) => Ok(u64::try_from(now.0.saturating_sub(at)).unwrap_or(0)),
        Ok(_) => Ok(0),
        Err(why) => Err(EditError::BadValue { field: "at".to_owned(), why: why.0 }),
    }
}

/// The values of one sample that are not null.
fn values(row: Map<String, Json>, collection: &Collection) -> Result<Vec<(FieldId, Value)>, EditError> {
    let mut values = Vec::with_capacity(row.len());
    for (name, given) in row {
        let Some(field) = collection.field(&name) else {
            let known = collection.live_fields().map(|field| field.name.as_str()).chain(["at"]);
            let near = names::nearest(&name, known).map(str::to_owned);
            return Err(EditError::UnknownField { collection: collection.name.clone(), field: name, near });
        };
        match value_from_json(&given, field.kind) {
            Ok(Value::Null) => {}
            Ok(value) => values.push((field.id, value)),
            Err(why) => return Err(EditError::BadValue { field: name, why: why.0 }),
        }
    }
    Ok(values)
}
