//! What a log tells of a row, whole and with parts missing.

use super::*;
use crate::ids::{BootId, CollectionId, Lane, Nonce, RecordId};
use crate::schema::{Field, FieldType};
use crate::table::op::encode_payload;
use crate::time::{Moment, Mono, Wall, WallQuality};

const TITLE: FieldId = FieldId::new(1).unwrap();
const N: FieldId = FieldId::new(2).unwrap();
const HOURS: FieldId = FieldId::new(3).unwrap();

fn collection() -> Collection {
    let field = |id, name: &str, kind| Field { id, name: name.into(), kind, retired: false, references: None };
    Collection {
        id: CollectionId::new(1).unwrap(),
        name: "orders".into(),
        kind: Kind::Table,
        rev: 1,
        fields: vec![field(TITLE, "title", FieldType::Text), field(N, "n", FieldType::Int), field(HOURS, "hours", FieldType::Counter)],
        rules: vec![],
        lane: Lane::State,
        store: "default".into(),
    }
}

fn key() -> RecordKey {
    RecordKey { collection: CollectionId::new(1).unwrap(), id: RecordId::new("r").unwrap() }
}

/// `a1@5 put title=x n=2 hours=3`: entry 1 of device a, made at 5.
fn write(text: &str) -> PastWrite {
    let mut words = text.split(' ');
    let (who, eff) = words.next().unwrap().split_once('@').unwrap();
    let (device, seq) = (who.as_bytes()[0], who[1..].parse().unwrap());
    let mut op =
        TableOp { key: key(), action: Action::Patch, before_us: 0, base_ver: Ver(0), fields: BTreeMap::new(), deltas: BTreeMap::new() };
    for word in words {
        match word.split_once('=') {
            None if word == "put" => op.action = Action::Put,
            None => op.action = Action::Delete,
            Some(("title", title)) => drop(op.fields.insert(TITLE, Value::Text(title.into()).to_cbor())),
            Some(("n", n)) => drop(op.fields.insert(N, Value::Int(n.parse().unwrap()).to_cbor())),
            Some((_, hours)) => drop(op.deltas.insert(HOURS, hours.parse().unwrap())),
        }
    }
    let header = Header {
        engine: Kind::Table.code(),
        moment: Moment { boot: BootId([0; 8]), mono: Mono(1), wall: Wall(0), quality: WallQuality::None },
        nonce: Nonce([device; 8]),
        timeline: None,
        provenance: None,
        life: None,
    };
    let entry = PastEntry {
        lane: LaneKey { device: DeviceId([device; 16]), incarnation: Incarnation::new(1).unwrap(), lane: Lane::State },
        ordinal: Ordinal(1),
        seq: Seq::new(seq).unwrap(),
        eff: Eff(eff.parse().unwrap()),
        before: Eff(0),
        retried: false,
        header: header.encode(),
        payload: encode_payload(&[op], Some("user:u")),
    };
    PastWrite::of(entry, &key()).unwrap()
}

/// In the order in which they were merged: the last one came late.
const ALL: [&str; 6] = [
    "a1@10 put title=one n=1 hours=2",
    "b1@20 title=two",
    "a2@30 n=3 hours=5",
    "a3@40 delete hours=-7",
    "a4@50 put title=new n=9",
    "c1@25 n=2",
];

fn log(of: &[&str]) -> RowLog {
    RowLog { writes: of.iter().map(|text| write(text)).collect(), ..RowLog::default() }
}

fn now() -> TableState {
    let mut state = TableState::default();
    ALL.iter().for_each(|text| write(text).apply(&collection(), &mut state, Eff(i64::MAX)));
    state
}

/// `title n hours`, or nothing.
fn shown(row: Option<&Vec<Value>>) -> String {
    let value = |value: &Value| {
        if let Value::Text(text) = value {
            return text.clone();
        }
        if let Value::Int(number) = value { number.to_string() } else { format!("{value:?}") }
    };
    row.map_or_else(|| "-".to_owned(), |row| row.iter().map(value).collect::<Vec<_>>().join(" "))
}

fn was(log: &RowLog, time: i64) -> String {
    match at(&collection(), &now(), log, Eff(time)) {
        Was::Row(row) => shown(row.as_ref()),
        Was::NoVersion => "none".to_owned(),
        Was::Unknown(known) => format!("{known:?}"),
    }
}

#[test]
fn r8_a_whole_log_tells_every_moment_whatever_came_late() {
    let log = log(&ALL);
    for (time, want) in [
        (9, "-"),
        (10, "one 1 2"),
        (20, "two 1 2"),
        (25, "two 2 2"),
        (30, "two 3 7"),
        (39, "two 3 7"),
        (40, "-"),
        (50, "new 9 0"),
        (i64::MAX, "new 9 0"),
    ] {
        assert_eq!(was(&log, time), want, "at {time}");
    }
    let told = steps(&collection(), &now(), &log, (None, 100));
    assert_eq!((told.known, told.more), (Known::Whole, false));
    let rows: Vec<String> = told
        .steps
        .iter()
        .map(|step| {
            let [before, after] = step.rows.as_ref().unwrap();
            format!("{}: {} > {}", step.stamp.eff.0, shown(before.as_ref()), shown(after.as_ref()))
        })
        .collect();
    let want = [
        "50: - > new 9 0",
        "40: two 3 7 > -",
        "30: two 2 2 > two 3 7",
        "25: two 1 2 > two 2 2",
        "20: one 1 2 > two 1 2",
        "10: - > one 1 2",
    ];
    assert_eq!(rows, want);
    assert_eq!(told.steps.iter().map(|step| step.is_delete).collect::<Vec<_>>(), [false, true, false, false, false, false]);
}

#[test]
fn pages_and_versions_name_the_same_writes() {
    let (log, all) = (log(&ALL), steps(&collection(), &now(), &log(&ALL), (None, 100)));
    let (mut behind, mut paged) = (None, Vec::new());
    for _ in 0..3 {
        let page = steps(&collection(), &now(), &log, (behind, 2));
        behind = page.steps.last().map(|step| step.stamp);
        assert_eq!(page.more, paged.len() < 4);
        paged.extend(page.steps);
    }
    assert_eq!(paged, all.steps);
    for step in &all.steps {
        let name = name(&step.eid.unwrap());
        let [_, after] = step.rows.clone().unwrap();
        assert_eq!(version(&collection(), &now(), &log, &name), Was::Row(after), "{name}");
    }
    assert_eq!(version(&collection(), &now(), &log, ""), Was::NoVersion, "several begin so");
    assert_eq!(version(&collection(), &now(), &log, "zz"), Was::NoVersion);
}

#[test]
fn what_a_log_lacks_is_not_made_up() {
    // Without its beginning, and with a lost write in the middle; what stands is in the row.
    for (kept, cut, restored, want) in [
        (&ALL[2..], true, None, "Unknown until 50"),
        (&ALL[..4], false, Some(45), "Unknown until 50"),
        (&ALL[..0], false, None, "Unknown until 50"),
    ] {
        let log = RowLog { is_cut: cut, restored: restored.map(Eff), ..log(kept) };
        let told = steps(&collection(), &now(), &log, (None, 100));
        let Known::Since(since) = told.known else { panic!("{kept:?}: {told:?}") };
        assert_eq!(format!("Unknown until {}", since.0), want, "{kept:?}");
        assert_eq!(was(&log, since.0 - 1), format!("Since(Eff({}))", since.0), "{kept:?}");
        assert_eq!(was(&log, i64::MAX), "new 9 0", "{kept:?}");
        assert!(told.steps.iter().all(|step| step.rows.is_none() || step.stamp.eff > since), "{told:?}");
        assert_eq!(told.steps[0].stamp.eff, Eff(50), "what stands is told: {told:?}");
    }
    let own = RowLog { is_own: true, ..log(&["b1@20 title=two"]) };
    let told = steps(&collection(), &now(), &own, (None, 100));
    assert_eq!((told.known, was(&own, i64::MAX).as_str()), (Known::Now, "Now"));
    assert_eq!(told.steps.iter().map(|step| step.stamp.eff.0).collect::<Vec<_>>(), [50, 40, 20]);
    assert_eq!(told.steps[2].wrote, BTreeMap::from([(TITLE, Value::Text("two".into()))]));
}

/// What broke: a write that was lost, and that a kept one had overwritten, left a history that called itself whole.
#[test]
fn nothing_is_whole_across_a_restore() {
    for (restored, since) in [(5, 10), (15, 40), (45, 50), (60, 60)] {
        let log = RowLog { restored: Some(Eff(restored)), ..log(&ALL) };
        let told = steps(&collection(), &now(), &log, (None, 100));
        assert_eq!(told.known, Known::Since(Eff(since)), "restored at {restored}");
        assert_eq!(told.steps.len(), ALL.len());
        assert!(told.steps.iter().all(|step| step.rows.is_some() == (step.stamp.eff > Eff(since))), "{told:?}");
        assert_eq!(was(&log, since - 1), format!("Since(Eff({since}))"), "restored at {restored}");
        assert_eq!(was(&log, i64::MAX), "new 9 0", "restored at {restored}");
    }
}

/// What broke: entries that wrote a thousand other rows, too, were read as long as what they wrote to this one was little.
#[test]
fn what_is_read_of_a_log_is_bounded() {
    let read = |others: usize, most: usize| {
        let (key, other) = (key(), RecordKey { id: RecordId::new("other").unwrap(), ..key() });
        let op = |key: &RecordKey, text: &str| TableOp {
            key: key.clone(),
            action: Action::Put,
            before_us: 0,
            base_ver: Ver(0),
            fields: BTreeMap::from([(TITLE, Value::Text(text.into()).to_cbor())]),
            deltas: BTreeMap::new(),
        };
        let payload = encode_payload(&[op(&key, "x"), op(&other, &"y".repeat(others))], None);
        let header = Header {
            engine: Kind::Table.code(),
            moment: Moment { boot: BootId([0; 8]), mono: Mono(1), wall: Wall(0), quality: WallQuality::None },
            nonce: Nonce([0; 8]),
            timeline: None,
            provenance: None,
            life: None,
        };
        let entry = |seq: usize| PastEntry {
            lane: LaneKey { device: DeviceId([1; 16]), incarnation: Incarnation::new(1).unwrap(), lane: Lane::State },
            ordinal: Ordinal(1),
            seq: Seq::new(seq as u64 + 1).unwrap(),
            eff: Eff(seq as i64 + 1),
            before: Eff(0),
            retried: false,
            header: header.encode(),
            payload: payload.clone(),
        };
        let mut gathering = Gathering::new(&key, None);
        let taken = (0..most).take_while(|seq| gathering.goes_on() && (gathering.take(Some(entry(*seq))), true).1).count();
        (taken, gathering.finish().is_cut)
    };
    const LARGE: usize = 60_000;
    let fit = crate::limits::HISTORY_READ_BYTES_MAX.div_ceil(LARGE);
    let (taken, is_cut) = read(LARGE, fit + 10);
    assert!((fit - 1..=fit).contains(&taken) && is_cut, "{taken} of {fit}");
    assert_eq!(read(10, 20), (20, false));
    let mut gathering_key = key();
    gathering_key.id = RecordId::new("kept no more").unwrap();
    let mut gathering = Gathering::new(&gathering_key, None);
    assert!(gathering.goes_on());
    gathering.take(None);
    assert!(gathering.finish().is_cut);
}
