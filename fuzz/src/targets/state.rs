//! What is kept and delivered as a record's state, and the samples of a stream.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use mobo_core::cbor::{Malformed, Reader, Writer};
use mobo_core::schema::{Collection, FieldType};
use mobo_core::stream::{Column, Loss, Segment};
use mobo_core::table::{TableState, row};
use mobo_core::value::Value;

use super::{Answer, answer, outcome};
use crate::shelf;

/// The collection of the golden vectors.
static ORDERS: LazyLock<Collection> = LazyLock::new(|| {
    let golden = shelf::from_hex(include_str!("../../../protocol/vectors/core/definition.hex")).expect("the vector is hex");
    definition(&golden).expect("the vector is a definition")
});

/// Rows, their stored columns, definitions and values: each decoder gets the same bytes.
pub(super) fn state(bytes: &[u8]) -> Answer {
    let state = TableState::decode(bytes, &ORDERS).inspect(|state| {
        assert_eq!(state.encode(), bytes, "a state has one spelling");
    });
    let stored = row::decode(bytes, &ORDERS, |_| Value::Null).map(|(state, meta)| row::encode(&state, &meta, &ORDERS));
    let definition = definition(bytes).inspect(|collection| {
        let mut writer = Writer::new();
        collection.encode(&mut writer);
        assert_eq!(self::definition(&writer.into_bytes()).as_ref(), Ok(collection), "a definition stays the same");
    });
    let values = FieldType::ALL.map(|kind| {
        let value = Value::decode(bytes, Some(kind)).inspect(|value| {
            assert_eq!(value.to_cbor(), bytes, "a value has one spelling");
        });
        outcome(&value)
    });
    answer(&(outcome(&state), outcome(&stored), outcome(&definition), values))
}

/// Segments of samples.
pub(super) fn stream(bytes: &[u8]) -> Answer {
    let segment = Segment::decode(bytes, &ORDERS).inspect(|segment| {
        let again = segment.encode(&ORDERS).expect("what was decoded can be encoded");
        assert_eq!(Segment::decode(&again, &ORDERS).as_ref(), Ok(segment), "samples stay the same");
    });
    let loss = Loss::decode(bytes).inspect(|loss| {
        if let Some(loss) = loss {
            assert_eq!(Loss::decode(&loss.encode()).as_ref(), Ok(&Some(*loss)), "what is lost stays the same");
        }
    });
    answer(&(outcome(&segment), outcome(&loss)))
}

/// A segment of each type, empty values and full ones.
pub(super) fn stream_seeds() -> Vec<Vec<u8>> {
    let segment = |(field, values): (_, Vec<Value>)| {
        let before_us = (0..values.len() as u64).map(|sample| sample * 1_000_003).collect();
        let columns = BTreeMap::from([(field, Column::Typed(values))]);
        Segment { collection: ORDERS.id, before_us, columns, author: None }.encode(&ORDERS)
    };
    let columns = ORDERS.fields.iter().map(|field| (field.id, samples(field.kind)));
    columns.filter_map(|column| segment(column).ok()).collect()
}

fn samples(kind: FieldType) -> Vec<Value> {
    let value = |number: i64| match kind {
        FieldType::Bool => Some(Value::Bool(number > 0)),
        FieldType::Int => Some(Value::Int(number)),
        FieldType::Float => Value::float(number as f64 / 8.0),
        FieldType::Text => Value::text(&number.to_string()),
        FieldType::Bytes => Value::bytes(&number.to_be_bytes()),
        FieldType::Timestamp => Value::timestamp(number),
        FieldType::Json | FieldType::List | FieldType::Counter => None,
    };
    let numbers = [0, 1, 2, -1, 1_000_000, i64::from(i32::MAX), i64::from(i32::MIN)];
    numbers.into_iter().map(|number| value(number).unwrap_or(Value::Null)).chain([Value::Null]).collect()
}

fn definition(bytes: &[u8]) -> Result<Collection, Malformed> {
    let mut reader = Reader::new(bytes);
    let collection = Collection::decode(&mut reader)?;
    reader.end()?;
    Ok(collection)
}
