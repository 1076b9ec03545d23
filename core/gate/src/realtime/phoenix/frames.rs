//! Messages of version 2 of Phoenix' serializer: arrays of five, and two kinds of bytes for broadcasts.

use mobo_core::limits;
use serde_json::{Value as Json, json};

use super::super::rooms::Note;
use super::super::socket::Close;

/// A message of a client.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Message {
    pub(super) join_ref: Option<String>,
    pub(super) reference: Option<String>,
    pub(super) topic: String,
    pub(super) event: String,
    pub(super) payload: Payload,
}

/// What it carries.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Payload {
    /// JSON.
    Json(Json),
    /// A broadcast: its event, and bytes that nobody looks into.
    Bytes(String, Vec<u8>),
}

fn malformed(why: &str) -> Close {
    Close(1007, why.to_owned())
}

/// Reads a text.
pub(super) fn read_text(text: &str) -> Result<Message, Close> {
    let parts: [Json; 5] = match serde_json::from_str::<Vec<Json>>(text).map(<[Json; 5]>::try_from) {
        Ok(Ok(parts)) => parts,
        _ => return Err(malformed("a message is [join_ref, ref, topic, event, payload]: use vsn=2.0.0")),
    };
    let [join_ref, reference, topic, event, payload] = parts;
    let (Json::String(topic), Json::String(event)) = (topic, event) else { return Err(malformed("topic and event are texts")) };
    let reference_of = |json: Json| match json {
        Json::String(text) => Some(text),
        Json::Number(number) => Some(number.to_string()),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    };
    Ok(Message { join_ref: reference_of(join_ref), reference: reference_of(reference), topic, event, payload: Payload::Json(payload) })
}

/// Reads bytes: kind 3, a client's broadcast.
pub(super) fn read_binary(bytes: &[u8]) -> Result<Message, Close> {
    let cut = || malformed("these bytes are no broadcast");
    let (head, mut rest) = bytes.split_at_checked(7).ok_or_else(cut)?;
    let [3, join_ref, reference, topic, event, metadata, encoding] = *head else { return Err(cut()) };
    let mut take = |length: u8| {
        let (part, others) = rest.split_at_checked(usize::from(length))?;
        rest = others;
        String::from_utf8(part.to_vec()).ok()
    };
    let mut text = |length| take(length).ok_or_else(cut);
    let (join_ref, reference, topic, event) = (text(join_ref)?, text(reference)?, text(topic)?, text(event)?);
    text(metadata)?;
    let payload = match encoding {
        0 => Payload::Bytes(event, rest.to_vec()),
        1 => {
            let payload: Json = serde_json::from_slice(rest).map_err(|_| cut())?;
            Payload::Json(json!({ "type": "broadcast", "event": event, "payload": payload }))
        }
        _ => return Err(cut()),
    };
    let some = |text: String| (!text.is_empty()).then_some(text);
    Ok(Message { join_ref: some(join_ref), reference: some(reference), topic, event: "broadcast".to_owned(), payload })
}

/// A message to a client.
pub(super) fn push(join_ref: Option<&str>, topic: &str, event: &str, payload: &Json) -> Note {
    Note::text(json!([join_ref, null, topic, event, payload]).to_string())
}

/// An answer.
pub(super) fn reply(message: &Message, status: &str, response: &Json) -> Note {
    let payload = json!({ "status": status, "response": response });
    Note::text(json!([message.join_ref, message.reference, message.topic, "phx_reply", payload]).to_string())
}

/// A broadcast of bytes: kind 4.
pub(super) fn broadcast_bytes(topic: &str, event: &str, payload: &[u8]) -> Option<Note> {
    let (topic_length, event_length) = (u8::try_from(topic.len()).ok()?, u8::try_from(event.len()).ok()?);
    let head = [4, topic_length, event_length, 0, 0];
    Some(Note::Binary([&head, topic.as_bytes(), event.as_bytes(), payload].concat().into()))
}

/// True for a name that a topic can have.
pub(super) fn is_topic(topic: &str) -> bool {
    !topic.is_empty() && topic.chars().count() <= limits::CHANNEL_NAME_MAX + "realtime:".len() && !topic.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read() {
        let message = read_text(r#"["1","2","realtime:a","phx_join",{"config":{}}]"#).unwrap();
        assert_eq!((message.join_ref.as_deref(), message.reference.as_deref()), (Some("1"), Some("2")));
        assert_eq!((message.topic.as_str(), message.event.as_str()), ("realtime:a", "phx_join"));
        for bad in ["", "{}", "[]", "[1,2,3,4,5]", r#"["1","2","t","e"]"#, r#"{"topic":"t","event":"e","payload":{},"ref":"1"}"#] {
            assert!(read_text(bad).is_err(), "{bad}");
        }
        let mut bytes = vec![3, 1, 1, 3, 2, 0, 1];
        bytes.extend(b"12top");
        bytes.extend(b"ev{\"a\":1}");
        let message = read_binary(&bytes).unwrap();
        assert_eq!((message.topic.as_str(), message.event.as_str()), ("top", "broadcast"));
        assert_eq!(message.payload, Payload::Json(json!({ "type": "broadcast", "event": "ev", "payload": { "a": 1 } })));
        bytes[6] = 0;
        assert_eq!(read_binary(&bytes).unwrap().payload, Payload::Bytes("ev".to_owned(), b"{\"a\":1}".to_vec()));
        for cut in 0..bytes.len() {
            // Whatever is cut off, nothing is read beyond the end.
            let _ = read_binary(&bytes[..cut]);
        }
        bytes[3] = 255;
        assert!(read_binary(&bytes).is_err());
    }

    #[test]
    fn bytes_are_written_as_the_client_reads_them() {
        let Some(Note::Binary(bytes)) = broadcast_bytes("top", "ev", &[9, 8]) else { panic!() };
        assert_eq!(&*bytes, [&[4, 3, 2, 0, 0][..], b"topev", &[9, 8]].concat());
        assert!(broadcast_bytes(&"x".repeat(256), "ev", &[]).is_none());
    }
}
