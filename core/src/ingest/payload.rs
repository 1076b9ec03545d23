//! Payloads: JSON, a bare value, or one of the forms of ThingsBoard's device API.

use serde_json::{Map, Value as Json};

use super::BadMessage;

/// One set of values of a message.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reading {
    /// The values.
    pub(super) payload: Json,
    /// Whose they are, where the message says it.
    pub(super) device: Option<String>,
    /// When they were, where the form of the payload says it.
    pub(super) at: Option<Json>,
}

/// The sets of values of a message.
pub(super) fn readings(topic: &str, payload: &[u8], user: Option<&str>) -> Result<Vec<Reading>, BadMessage> {
    let text = std::str::from_utf8(payload).map_err(|_| BadMessage("its payload is not UTF-8".to_owned()))?;
    let text = text.trim();
    let parsed = serde_json::from_str::<Json>(text);
    let device = user.map(str::to_owned);
    let readings = match topic {
        "v1/devices/me/telemetry" => telemetry(&object_or_list(parsed)?, device.as_ref())?,
        "v1/devices/me/attributes" => vec![Reading { payload: object(parsed)?.into(), device, at: None }],
        "v1/gateway/telemetry" => {
            let devices = object(parsed)?.into_iter();
            let of = |(device, values): (String, Json)| telemetry(&values, Some(&device));
            devices.map(of).collect::<Result<Vec<_>, _>>()?.concat()
        }
        "v1/gateway/attributes" => {
            let reading = |(device, values)| Reading { payload: values, device: Some(device), at: None };
            object(parsed)?.into_iter().map(reading).collect()
        }
        _ => {
            // A payload that is no JSON is a bare text, as many sensors send their state.
            let payload = match parsed {
                Ok(payload) => payload,
                Err(error) if text.starts_with(['{', '[']) => return Err(not_json(&error)),
                Err(_) if text.is_empty() => return Err(BadMessage("its payload is empty".to_owned())),
                Err(_) => Json::String(text.to_owned()),
            };
            vec![Reading { payload, device, at: None }]
        }
    };
    Ok(readings)
}

fn not_json(error: &serde_json::Error) -> BadMessage {
    BadMessage(format!("its payload is not JSON: {error}"))
}

fn object(parsed: serde_json::Result<Json>) -> Result<Map<String, Json>, BadMessage> {
    match parsed.map_err(|error| not_json(&error))? {
        Json::Object(members) => Ok(members),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => {
            Err(BadMessage("on this topic the payload is a JSON object".to_owned()))
        }
    }
}

fn object_or_list(parsed: serde_json::Result<Json>) -> Result<Json, BadMessage> {
    parsed.map_err(|error| not_json(&error))
}

/// `{"key": value}`, `{"ts": ms, "values": {…}}`, or a list of these.
fn telemetry(values: &Json, device: Option<&String>) -> Result<Vec<Reading>, BadMessage> {
    let one = |values: &Json| {
        let Json::Object(members) = values else {
            return Err(BadMessage("telemetry is a JSON object of values, {\"ts\": ms, \"values\": {…}}, or a list of these".to_owned()));
        };
        let (payload, at) = match (members.get("ts"), members.get("values")) {
            (at, Some(values @ Json::Object(_))) => (values.clone(), at.cloned()),
            (_, Some(_) | None) => (values.clone(), None),
        };
        Ok(Reading { payload, device: device.cloned(), at })
    };
    if let Json::Array(list) = values { list.iter().map(one).collect() } else { Ok(vec![one(values)?]) }
}
