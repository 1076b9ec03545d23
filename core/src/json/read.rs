//! JSON as somebody sends it. An object that names a member twice is refused: whichever of the two were kept, the other would be lost in
//! silence (RFC 7493, section 2.3).

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value as Json};

/// The value that a text says.
///
/// # Errors
///
/// What is wrong with the text, and where: also a member that is there twice, and more than 128 levels.
///
/// ```
/// use mobo_core::json;
///
/// assert_eq!(json::read(br#"{"title": "Pump"}"#).unwrap()["title"], "Pump");
/// assert!(json::read(br#"{"title": "Pump", "title": "Fan"}"#).is_err());
/// ```
pub fn read(text: &[u8]) -> Result<Json, serde_json::Error> {
    serde_json::from_slice(text).map(|Unique(value)| value)
}

struct Unique(Json);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reading)
    }
}

struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Unique, E> {
        Ok(Unique(Json::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Unique, A::Error> {
        let mut list = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Unique(list.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Unique, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom(format_args!("\"{name}\" is there twice")));
            }
            let Unique(value) = members.next_value()?;
            object.insert(name, value);
        }
        Ok(Unique(object.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_reads_is_what_serde_reads() {
        let texts = [
            "null",
            "true",
            "-0",
            "-1",
            "18446744073709551615",
            "18446744073709551616",
            "1e999",
            "0.1",
            "-1.5e-7",
            "\"\\u00e9\\ud83d\\ude00\"",
            "\"\\ud800\"",
            "[]",
            "[1,[2,{}],\"x\"]",
            "{\"b\":1,\"a\":{\"b\":[]}}",
            "{\"a\":1",
            "[1,]",
            "{} {}",
            "",
            "nul",
            "\u{feff}1",
        ];
        let deep = ["[".repeat(127) + &"]".repeat(127), "[".repeat(128) + &"]".repeat(128)];
        for text in texts.into_iter().chain(deep.iter().map(String::as_str)) {
            let (ours, theirs) = (read(text.as_bytes()), serde_json::from_str::<Json>(text));
            assert_eq!(ours.map_err(|error| error.to_string()), theirs.map_err(|error| error.to_string()), "{text}");
        }
    }

    #[test]
    fn a_member_that_is_there_twice_is_refused_with_its_place() {
        for (text, says) in [
            ("{\"a\":1,\"a\":1}", "\"a\" is there twice at line 1 column 10"),
            ("[{\"x\":{\"n\":1,\n\"n\":2}}]", "\"n\" is there twice at line 2 column 3"),
            ("{\"a\":1,\"\\u0061\":2}", "\"a\" is there twice at line 1 column 15"),
        ] {
            assert_eq!(read(text.as_bytes()).unwrap_err().to_string(), says, "{text}");
        }
    }
}
