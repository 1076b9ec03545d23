//! The `_extra` column: fields that this node's schema does not have, as JSON for people. Nothing reads it back: `_mobo` has the bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minicbor::data::Type;
use serde_json::{Map, Value as Json};

use super::state::TableState;
use crate::cbor::{Malformed, Reader};
use crate::schema::Collection;
use crate::value::Value;

/// The canonical text (RFC 8785) of `{ "<field id>": value }` for the fields of a row that `collection` does not have, and for values that
/// their field's type cannot hold; `None` when there are none.
#[must_use]
pub fn extra(state: &TableState, collection: &Collection) -> Option<String> {
    let mut members = Map::new();
    for (field, cell) in &state.cells {
        if let Value::Unknown(item) = &cell.value
            && Some(cell.stamp) > state.delete
        {
            members.insert(field.get().to_string(), item_to_json(item));
        }
    }
    for field in state.counters.keys().filter(|field| collection.field_by_id(**field).is_none()) {
        members.insert(field.get().to_string(), Json::from(state.counter(*field)));
    }
    if members.is_empty() {
        return None;
    }
    serde_json_canonicalizer::to_string(&members).ok()
}

/// One CBOR item as JSON, as well as JSON can: bytes are base64, what has no counterpart is null.
#[must_use]
pub fn item_to_json(item: &[u8]) -> Json {
    read(&mut Reader::new(item)).unwrap_or(Json::Null)
}

/// The input was read once as a whole when it was decoded, so its nesting is bounded.
fn read(reader: &mut Reader<'_>) -> Result<Json, Malformed> {
    Ok(match reader.peek()? {
        Type::Bool => Json::Bool(reader.bool()?),
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => Json::from(reader.u64()?),
        Type::I8 | Type::I16 | Type::I32 | Type::I64 => Json::from(reader.i64()?),
        Type::F16 | Type::F32 | Type::F64 => Json::from(reader.f64()?),
        Type::String => Json::from(reader.text()?.replace('\0', "\u{fffd}")),
        Type::Bytes => Json::from(STANDARD.encode(reader.bytes()?)),
        Type::Array => {
            let len = reader.array()?;
            Json::Array((0..len).map(|_| read(reader)).collect::<Result<_, _>>()?)
        }
        Type::Map => {
            let len = reader.map()?;
            let mut members = Map::new();
            for _ in 0..len {
                let name = match read(reader)? {
                    Json::String(name) => name,
                    other @ (Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_)) => other.to_string(),
                };
                members.insert(name, read(reader)?);
            }
            Json::Object(members)
        }
        Type::Null
        | Type::Undefined
        | Type::Simple
        | Type::Int
        | Type::Tag
        | Type::BytesIndef
        | Type::StringIndef
        | Type::ArrayIndef
        | Type::MapIndef
        | Type::Break
        | Type::Unknown(_) => {
            reader.skip()?;
            Json::Null
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cbor::Writer;

    #[test]
    fn items_become_json_as_well_as_json_can() {
        let mut writer = Writer::new();
        writer.map(2).u64(1).array(5).i64(-2).f64(1.5).bool(true).null().bytes(&[0, 1]).text("b").text("a\0");
        assert_eq!(item_to_json(&writer.into_bytes()), json!({"1": [-2, 1.5, true, null, "AAE="], "b": "a\u{fffd}"}));
        for (item, want) in [(&[0xc2, 0x41, 0x01][..], json!(null)), (&[0x18], json!(null)), (&[0xf9, 0x7e, 0x00], json!(null))] {
            assert_eq!(item_to_json(item), want, "{item:02x?}");
        }
    }
}
