//! What plain sensors send, and the rules that an operator writes for it: `rules`, a zero byte, a topic, a zero byte, a payload.

use mobo_core::author::segment;
use mobo_core::ids::{CollectionId, FieldId, Lane};
use mobo_core::ingest::{Fitted, Rules};
use mobo_core::limits;
use mobo_core::schema::{Collection, Field, FieldType, Kind};
use mobo_core::time::Wall;

use super::{Answer, answer, outcome, shape};

fn collection(kind: Kind) -> Collection {
    let field = |(n, kind): (u64, FieldType)| Field {
        id: FieldId::new(n).expect("not 0"),
        name: format!("f{}", kind.name()),
        kind,
        retired: false,
        references: None,
    };
    Collection {
        id: CollectionId::new(1).expect("not 0"),
        name: "things".to_owned(),
        kind,
        rev: 1,
        fields: (1..).zip(FieldType::ALL).map(field).collect(),
        rules: Vec::new(),
        lane: Lane::Telemetry,
        store: "default".to_owned(),
    }
}

/// Reads rules, takes a message by them, and looks whether what came of it can be sealed or is refused with a sentence.
pub(super) fn ingest(bytes: &[u8]) -> Answer {
    let mut parts = bytes.splitn(3, |byte| *byte == 0);
    let mut text = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let (rules, topic) = (text(), text());
    let payload = parts.next().unwrap_or_default();
    let rules = match Rules::parse(&rules) {
        Ok(rules) => rules,
        Err(error) => return answer(&shape(&error.to_string())),
    };
    assert_eq!(rules.is_empty(), rules.filters().is_empty(), "a rule has a filter");
    let taken = rules.take(&topic, payload, None);
    let Ok(rows) = &taken else { return answer(&outcome(&taken)) };
    assert!(rows.len() <= limits::INGEST_ROWS_MAX, "rows are bounded");
    let mut seen = Vec::new();
    for (row, kind) in rows.iter().flat_map(|row| [(row, Kind::Stream), (row, Kind::Table)]) {
        let collection = collection(kind);
        let fitted = row.clone().fit(&collection);
        seen.push(outcome(&fitted));
        if let Ok(Fitted::Sample(sample)) = fitted
            && let Ok(segment) = segment(vec![sample], &collection, Wall(1_772_368_205_000_000))
        {
            seen.push(outcome(&segment.encode(&collection).map(|bytes| bytes.is_empty())));
        }
    }
    answer(&seen)
}

/// Rules and messages of every kind, to start from.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    [
        ("zigbee2mqtt/{s} -> things ftext={s} *=$", "zigbee2mqtt/attic", r#"{"ffloat":21.4,"fint":"7","fbool":"ON","x":null}"#),
        ("tele/+/SENSOR -> things ffloat=$.E.Power at=$.Time", "tele/a/SENSOR", r#"{"Time":"2026-03-01T12:30:05","E":{"Power":61}}"#),
        ("# r\nt/{r...} -> things ftext=\"{r} {topic}\" fint=$[0][\"a b\"]", "t/a/b", r#"[{"a b":2.0}]"#),
        ("t -> things ffloat=$ id=x", "t", " 21.5\n"),
        ("v1/devices/me/telemetry -> things *=$", "v1/devices/me/telemetry", r#"[{"ts":1772368205000,"values":{"fint":2}},{"fint":3}]"#),
        ("v1/gateway/telemetry -> things ftext={device} *=$", "v1/gateway/telemetry", r#"{"A":[{"ts":1,"values":{"fcounter":1}}]}"#),
        ("v1/gateway/attributes -> things id={device} *=$", "v1/gateway/attributes", r#"{"A":{"fjson":[1]}}"#),
    ]
    .map(|(rules, topic, payload)| [rules, topic, payload].join("\0").into_bytes())
    .to_vec()
}
