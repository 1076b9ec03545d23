use serde_json::json;

use super::*;
use crate::ids::{CollectionId, FieldId, Lane};
use crate::schema::{Field, FieldType};

fn collection(kind: Kind, fields: &[(&str, FieldType)]) -> Collection {
    let field = |(n, (name, kind)): (u64, &(&str, FieldType))| Field {
        id: FieldId::new(n).unwrap(),
        name: (*name).to_owned(),
        kind: *kind,
        retired: false,
        references: None,
    };
    Collection {
        id: CollectionId::new(1).unwrap(),
        name: "c".to_owned(),
        kind,
        rev: 1,
        fields: (1..).zip(fields).map(field).collect(),
        rules: Vec::new(),
        lane: Lane::State,
        store: "default".to_owned(),
    }
}

fn climate() -> Collection {
    use FieldType::{Bool, Float, Int, Text};
    let fields = [
        ("sensor", Text),
        ("temperature", Float),
        ("humidity", Float),
        ("battery", Int),
        ("linkquality", Int),
        ("occupancy", Bool),
        ("watts", Float),
        ("total", Float),
        ("state", Bool),
        ("note", Text),
    ];
    collection(Kind::Stream, &fields)
}

/// The samples that one rule makes of a message, or the sentence that says why not.
fn samples(rule: &str, topic: &str, payload: &str) -> Result<Vec<Json>, String> {
    let rules = Rules::parse(rule).map_err(|error| error.to_string())?;
    let rows = rules.take(topic, payload.as_bytes(), None).map_err(|error| error.to_string())?;
    let fit = |row: Row| match row.fit(&climate()) {
        Ok(Fitted::Sample(fields)) => Ok(Json::Object(fields)),
        Ok(Fitted::Record(id, fields)) => Ok(json!([id.as_str(), fields])),
        Err(error) => Err(error.to_string()),
    };
    rows.into_iter().map(fit).collect()
}

/// What zigbee2mqtt publishes for an Aqara climate sensor, a motion sensor and a plug; what Tasmota publishes for a plug and a DS18B20.
const AQARA: &str =
    r#"{"battery":97,"humidity":53.46,"linkquality":134,"power_outage_count":3,"pressure":1008.4,"temperature":21.44,"voltage":2975}"#;
const MOTION: &str =
    r#"{"battery":100,"illuminance":12,"linkquality":78,"occupancy":true,"update":{"installed_version":-1,"state":"idle"}}"#;
const TASMOTA_ENERGY: &str = r#"{"Time":"2026-03-01T12:30:05","ENERGY":{"TotalStartTime":"2025-08-14T11:18:31","Total":148.223,"Yesterday":0.717,"Today":0.294,"Period":1,"Power":61,"ApparentPower":72,"Factor":0.85,"Voltage":231,"Current":0.312}}"#;
const TASMOTA_DS18B20: &str = r#"{"Time":"2026-03-01T12:30:05","DS18B20":{"Id":"0000059AFE44","Temperature":-3.5},"TempUnit":"C"}"#;

#[test]
fn messages_become_samples() {
    let z2m = "zigbee2mqtt/{sensor} -> climate sensor={sensor} *=$";
    for (rule, topic, payload, want) in [
        (
            z2m,
            "zigbee2mqtt/attic",
            AQARA,
            json!([{"sensor": "attic", "battery": 97, "humidity": 53.46, "linkquality": 134, "temperature": 21.44}]),
        ),
        (z2m, "zigbee2mqtt/hall", MOTION, json!([{"sensor": "hall", "battery": 100, "linkquality": 78, "occupancy": true}])),
        (z2m, "zigbee2mqtt/hall/availability", "online", json!([])),
        (z2m, "zigbee2mqtt", "{}", json!([])),
        (
            "tele/{plug}/SENSOR -> power sensor={plug} watts=$.ENERGY.Power total=$.ENERGY.Total at=$.Time",
            "tele/press-3/SENSOR",
            TASMOTA_ENERGY,
            json!([{"sensor": "press-3", "watts": 61, "total": 148.223, "at": "2026-03-01T12:30:05Z"}]),
        ),
        (
            "tele/+/SENSOR -> climate sensor=$.DS18B20.Id temperature=$.DS18B20.Temperature",
            "tele/tank/SENSOR",
            TASMOTA_DS18B20,
            json!([{"sensor": "0000059AFE44", "temperature": -3.5}]),
        ),
        ("stat/{plug}/POWER -> power sensor={plug} state=$", "stat/press-3/POWER", "ON", json!([{"sensor": "press-3", "state": true}])),
        (
            "plant/{site}/{unit}/t -> climate sensor={site}-{unit} temperature=$",
            "plant/4/7/t",
            " 21.5\n",
            json!([{"sensor": "4-7", "temperature": 21.5}]),
        ),
        (
            "t/# -> climate sensor={topic} temperature=$[1].v",
            "t/a/b",
            r#"[0,{"v":"3.25"}]"#,
            json!([{"sensor": "t/a/b", "temperature": 3.25}]),
        ),
        ("t/{rest...} -> climate sensor={rest} battery=$", "t/a/b", "21.0", json!([{"sensor": "a/b", "battery": 21}])),
        ("t -> climate note=\"Plant 4\" temperature=$[\"a b\"]", "t", r#"{"a b":1}"#, json!([{"note": "Plant 4", "temperature": 1}])),
        (
            "t -> climate temperature=$.t at=$.ms",
            "t",
            r#"{"t":1,"ms":1772368205000}"#,
            json!([{"temperature": 1, "at": "2026-03-01T12:30:05.000000Z"}]),
        ),
        (
            "t -> climate at=$.s note=$.s",
            "t",
            r#"{"s":"1772368205"}"#,
            json!([{"at": "2026-03-01T12:30:05.000000Z", "note": "1772368205"}]),
        ),
        ("t -> climate temperature=$.t humidity=$.h", "t", r#"{"t":1}"#, json!([{"temperature": 1}])),
        ("# -> climate temperature=$", "$SYS/load", "1", json!([])),
        ("$SYS/load -> climate temperature=$", "$SYS/load", "1", json!([{"temperature": 1}])),
    ] {
        assert_eq!(samples(rule, topic, payload).map(Json::Array), Ok(want), "{rule} on {topic}");
    }
}

#[test]
fn thingsboards_topics_are_taken_as_it_defines_them() {
    let me = "v1/devices/me/telemetry -> climate temperature=$.t";
    let gateway = "v1/gateway/telemetry -> climate sensor={device} *=$";
    for (rule, topic, payload, want) in [
        (me, "v1/devices/me/telemetry", r#"{"t":1}"#, json!([{"temperature": 1}])),
        (
            me,
            "v1/devices/me/telemetry",
            r#"{"ts":1772368205000,"values":{"t":2}}"#,
            json!([{"temperature": 2, "at": "2026-03-01T12:30:05.000000Z"}]),
        ),
        (
            me,
            "v1/devices/me/telemetry",
            r#"[{"ts":1772368205000,"values":{"t":2}},{"t":3}]"#,
            json!([{"temperature": 2, "at": "2026-03-01T12:30:05.000000Z"}, {"temperature": 3}]),
        ),
        (
            gateway,
            "v1/gateway/telemetry",
            r#"{"A":[{"ts":1772368205000,"values":{"temperature":1,"other":2}}],"B":[{"ts":1772368205001,"values":{"humidity":9}}]}"#,
            json!([
                {"sensor": "A", "temperature": 1, "at": "2026-03-01T12:30:05.000000Z"},
                {"sensor": "B", "humidity": 9, "at": "2026-03-01T12:30:05.001000Z"}
            ]),
        ),
    ] {
        assert_eq!(samples(rule, topic, payload).map(Json::Array), Ok(want), "{rule} {payload}");
    }
    let rules = Rules::parse("v1/devices/me/attributes -> sensors id={device} *=$").unwrap();
    let rows = rules.take("v1/devices/me/attributes", br#"{"note":"x","serial":7}"#, Some("pump-7")).unwrap();
    let table = collection(Kind::Table, &[("note", FieldType::Text)]);
    let fitted: Vec<Fitted> = rows.into_iter().map(|row| row.fit(&table).unwrap()).collect();
    let want = json!({"note": "x"}).as_object().unwrap().clone();
    assert_eq!(fitted, [Fitted::Record(RecordId::new("pump-7").unwrap(), want)]);
}

/// A message that cannot be taken says why: somebody reads that in the quarantine.
#[test]
fn what_cannot_be_taken_says_why() {
    let rule = "t -> climate temperature=$.a.t";
    for (rule, topic, payload, want) in [
        (rule, "t", "{\"a\":", "its payload is not JSON"),
        (rule, "t", "", "its payload is empty"),
        (rule, "t", "{}", "it has nothing at $.a.t"),
        (rule, "t", "7", "it has nothing at $.a.t"),
        ("t -> climate *=$.values", "t", "{}", "there is no object with members at $.values"),
        ("v1/gateway/telemetry -> climate *=$", "v1/gateway/telemetry", "[1]", "on this topic the payload is a JSON object"),
        ("v1/devices/me/telemetry -> climate *=$", "v1/devices/me/telemetry", "7", "telemetry is a JSON object"),
    ] {
        let error = samples(rule, topic, payload).unwrap_err();
        assert!(error.starts_with(want), "{rule}, {payload}: {error}");
    }
    let rules = Rules::parse(rule).unwrap();
    assert_eq!(rules.take("t", b"\xff", None).unwrap_err().0, "its payload is not UTF-8");
    let long = "1".repeat(limits::INGEST_PAYLOAD_BYTES_MAX + 1);
    assert!(rules.take("t", long.as_bytes(), None).unwrap_err().0.contains("bytes, and at most"));
    let table = collection(Kind::Table, &[]);
    let row = Rules::parse("t -> c x=$").unwrap().take("t", b"1", None).unwrap().remove(0);
    assert!(row.fit(&table).unwrap_err().0.contains("the rule needs id="));
}

#[test]
fn a_line_that_is_no_rule_says_what_would_do() {
    for (text, want) in [
        ("t => c x=$", "line 1: a rule is TOPIC -> COLLECTION"),
        ("# remark\n\n -> c x=$", "line 3: it names no topic"),
        ("t ->", "line 1: it names no collection"),
        ("t -> c", "line 1: it takes nothing"),
        ("t -> c x", "line 1: \"x\" is not FIELD=SOURCE"),
        ("t -> c x=$..a", "line 1: \"$..a\" is no path"),
        ("t -> c x=$[a]", "line 1: \"$[a]\" is no path"),
        ("t -> c *=7", "line 1: *= takes the members"),
        ("t/#/u -> c x=$", "line 1: # and {name...} take all"),
        ("t/{a...}/u -> c x=$", "line 1: # and {name...} take all"),
        ("t/a+ -> c x=$", "line 1: \"a+\" is no level"),
        ("t/{a b} -> c x=$", "line 1: \"{a b}\" is no level"),
        ("t/{a} -> c x={b}", "line 1: {b} is no level of the topic"),
        ("t -> c x=\"a", "line 1: a quote is not closed"),
    ] {
        let error = Rules::parse(text).unwrap_err().to_string();
        assert!(error.starts_with(want), "{text}: {error}");
    }
}

#[test]
fn filters_are_what_a_broker_knows() {
    let rules = Rules::parse("a/{x}/b -> c x={x} y=$\na/+/b -> d y=$\nq/{rest...} -> c y=$\n").unwrap();
    assert_eq!(rules.filters(), ["a/+/b", "q/#"]);
    assert_eq!(rules.collections(), ["c", "d"]);
    assert_eq!(rules.about(|name| name == "d").filters(), ["a/+/b"]);
    assert_eq!(rules.take("a/1/b", b"2", None).unwrap().len(), 2, "every rule takes it");
}
