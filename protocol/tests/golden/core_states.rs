//! Canonical bytes of merge states, and what is computed from them.

use std::collections::{BTreeMap, BTreeSet};

use mobo_core::digest::Digest;
use mobo_core::document;
use mobo_core::engine::{Applying, Author, MergeEngine, Stamped};
use mobo_core::ids::{Incarnation, Mac, Nonce, Ordinal, StateHash, Ver};
use mobo_core::life::Life;
use mobo_core::schema::FieldType;
use mobo_core::stamp::Origin;
use mobo_core::table::row::{self as column, RowMeta};
use mobo_core::table::{Action, Cell, TableEngine, TableOp, TableState, Tally};
use mobo_core::value::{TIMESTAMP_MAX, TIMESTAMP_MIN, Value};

use crate::core_forms::form;
use crate::hex_files::hex;
use crate::vectors::Form;
use crate::world::{
    COST, DUE, EXTRA, HOURS, INCARNATION, NOTES, OPEN, ORDERS, PARENT, PHOTO, TITLE, UNKNOWN, device, key, life, orders, row, seq, stamp,
    stranger, tombstone,
};

pub(crate) fn cases() -> Vec<Form> {
    let mut cases = states();
    cases.extend(columns());
    cases.extend(sums());
    cases
}

fn states() -> Vec<Form> {
    vec![
        state("state-row", "State of a row that one put wrote: one stamp, shared by all.", row()),
        state("state-tombstone", "The same row after a delete by the hub: its fields stay.", tombstone()),
        state("state-patched-only", "State of a row that was patched and never put: not visible.", patched_only()),
        state("state-many-stamps", "State with three stamps, every type, nulls, and a field that the schema does not have.", many_stamps()),
        state(
            "state-counters",
            "State with a counter of three origins (sums of 8 and 16 bytes, negative, positive) and one of an unknown field.",
            counters(),
        ),
        state(
            "state-lives",
            "State with a counter that a log has added 1 to in each of its lives 0 to 10: 0 is the log's own, 1 and 2 are added up, 3 to 10 apart.",
            lives(0..=10),
        ),
        form(
            "state-lives-join",
            "The state that holds what core/state-lives holds, and a row of lives 0 to 3 to which a copy has added 100 in a life 4 of its own.",
            joined_lives(&lives(0..=10), &copied()).encode(),
            |golden| {
                let both = joined_lives(&copied(), &lives(0..=10));
                assert_eq!(both.counter(HOURS), 11 + 100);
                assert_eq!(hex(&both.encode()), hex(golden));
                assert_eq!(hex(&joined_lives(&both, &copied()).encode()), hex(golden));
            },
        ),
        form(
            "state-join",
            "The state that holds what core/state-many-stamps, core/state-counters and core/state-tombstone hold, in any order.",
            joined(),
            |golden| {
                let parts = [many_stamps(), counters(), tombstone()];
                let join = |left: &TableState, right: &TableState| TableEngine.join(&orders(), left, right).unwrap();
                for (a, b, c) in [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)] {
                    let both = join(&join(&parts[a], &parts[b]), &parts[c]);
                    assert_eq!(hex(&both.encode()), hex(golden));
                    assert_eq!(join(&both, &parts[a]).encode(), golden);
                    assert_eq!(join(&parts[a], &join(&parts[b], &parts[c])).encode(), golden);
                }
            },
        ),
    ]
}

fn state(name: &'static str, about: &'static str, state: TableState) -> Form {
    form(name, about, state.encode(), move |golden| {
        let decoded = TableState::decode(golden, &orders()).unwrap();
        assert_eq!(decoded, state, "{name}");
        assert_eq!(decoded.encode(), golden, "{name}");
        assert_eq!(decoded.hash().0, *blake3::hash(golden).as_bytes(), "{name}");
    })
}

fn patched_only() -> TableState {
    let cell = Cell { stamp: stamp(5, stranger(), 1, 3), value: Value::Null };
    TableState { cells: [(TITLE, cell)].into(), ..TableState::default() }
}

fn many_stamps() -> TableState {
    let put = stamp(1_760_000_000_000_001, device().device(), 1, 0);
    let later = stamp(1_760_000_000_000_001, device().device(), 1, 1);
    let before_1970 = stamp(-7, stranger(), 1 << 33, 4_999);
    let cells = [
        (TITLE, before_1970, Value::Text("ä\u{1f527}".into())),
        (DUE, put, Value::Timestamp(TIMESTAMP_MAX)),
        (COST, later, Value::Float(0.1)),
        (OPEN, put, Value::Null),
        (EXTRA, later, Value::Json("{\"a\":1e+30}".into())),
        (PHOTO, put, Value::Bytes(vec![0, 255])),
        (UNKNOWN, before_1970, Value::Unknown(vec![0xc0, 0x61, 0x78])),
    ];
    let cells = cells.into_iter().map(|(field, stamp, value)| (field, Cell { stamp, value })).collect();
    TableState { put: Some(put), delete: Some(before_1970), cells, ..TableState::default() }
}

fn counters() -> TableState {
    let tally = |device, incarnation, sum, last| (Origin { device, incarnation }, Tally { sum, last: seq(last) });
    let hours = [
        tally(device().device(), PARENT, 5, 17),
        tally(device().device(), INCARNATION, i128::from(u64::MAX) + 1, 42),
        tally(stranger(), INCARNATION, i128::MIN, 1),
    ];
    let unknown = [tally(stranger(), PARENT, -1 - i128::from(u64::MAX), 2)];
    let counters = [(HOURS, BTreeMap::from(hours)), (UNKNOWN, BTreeMap::from(unknown))].into();
    TableState { counters, ..row() }
}

fn lives(numbers: std::ops::RangeInclusive<u32>) -> TableState {
    let mut state = row();
    for number in numbers {
        let counts_under = if number == 0 { INCARNATION } else { life(number).counts_under(device().device(), INCARNATION) };
        count(&mut state, counts_under, (u64::from(number) * 10 + 1, 1));
    }
    state
}

/// An entry at that place adds to a counter.
fn count(state: &mut TableState, counts_under: Incarnation, (at, delta): (u64, i128)) {
    let (fields, deltas) = (BTreeMap::new(), [(HOURS, delta)].into());
    let op = TableOp { key: key(ORDERS, "wo-1"), action: Action::Patch, before_us: 0, base_ver: Ver(0), fields, deltas };
    let author = Author { device: device().device(), incarnation: counts_under, ordinal: Ordinal(1), ancestors: BTreeSet::new() };
    let applying = Applying { author: &author, seq: seq(at), ver: Ver(1), uncertain: None, same_timeline: true, is_shared: false };
    let stamp = stamp(1, device().device(), at, 0);
    TableEngine.apply(&orders(), state, &[Stamped { op: &op, stamp }], &applying).unwrap();
    state.vers.clear();
}

fn copied() -> TableState {
    let mut state = lives(0..=3);
    let other = Life::of(4, Nonce([0xdd; 8])).unwrap();
    count(&mut state, other.counts_under(device().device(), INCARNATION), (35, 100));
    state
}

fn joined_lives(one: &TableState, other: &TableState) -> TableState {
    TableEngine.join(&orders(), one, other).unwrap()
}

fn joined() -> Vec<u8> {
    let many = TableEngine.join(&orders(), &many_stamps(), &counters()).unwrap();
    TableEngine.join(&orders(), &many, &tombstone()).unwrap().encode()
}

fn columns() -> Vec<Form> {
    let hub_state = {
        let mut state = many_stamps();
        state.counters = counters().counters;
        state.vers = state.stamps().into_iter().zip([3, 1, 2]).map(|(stamp, ver)| (stamp, Ver(ver))).collect();
        state
    };
    let hub_meta = RowMeta { ver: Ver(3), mac: None, state_hash: hub_state.hash() };
    let device_meta = RowMeta { ver: Ver(2), mac: Some(Mac([0x3c; 16])), state_hash: row().hash() };
    vec![
        mobo_column(
            "mobo-column-hub",
            "Column _mobo of a hub: versions of the stamps, no MAC. The typed columns hold the\nvalues; the unknown field's and the one that the delete masks are here.",
            hub_state,
            hub_meta,
        ),
        mobo_column("mobo-column-device", "Column _mobo of a device: the hub's MAC, no versions of stamps.", row(), device_meta),
        hidden(),
    ]
}

/// A row that has no columns.
fn hidden() -> Form {
    let meta = RowMeta { ver: Ver(5), mac: None, state_hash: tombstone().hash() };
    let about = "Column _mobo of a hidden row, which has no typed columns: every value is here.";
    form("mobo-column-hidden", about, column::encode_inline(&tombstone(), &meta), move |golden| {
        let (decoded, kept) = column::decode(golden, &orders(), |_| panic!("there are no columns")).unwrap();
        assert_eq!((decoded, kept), (tombstone(), meta));
    })
}

fn mobo_column(name: &'static str, about: &'static str, state: TableState, meta: RowMeta) -> Form {
    form(name, about, column::encode(&state, &meta, &orders()), move |golden| {
        let typed = |field| state.cells.get(&field).map_or(Value::Null, |cell| cell.value.clone());
        let (decoded, kept) = column::decode(golden, &orders(), typed).unwrap();
        assert_eq!((&decoded, kept), (&state, meta), "{name}");
        assert!(column::is_intact(&decoded, &kept), "{name}");
        assert_eq!(column::encode(&decoded, &kept, &orders()), golden, "{name}");
    })
}

fn sums() -> Vec<Form> {
    let heads = [[0xb0; 32], [0x0b; 32]];
    let one = Digest::of(&key(ORDERS, "w-1"), row().hash());
    let two = Digest::of(&key(NOTES, "n-1"), document::op::state_hash(0, &heads));
    vec![
        form(
            "values",
            "Canonical values, one after the other: null, bools, ints, floats of 2, 4 and 8 bytes, text, bytes, timestamps, json.",
            values().iter().flat_map(|(_, value)| value.to_cbor()).collect(),
            |golden| {
                let mut reader = mobo_core::cbor::Reader::new(golden);
                for (kind, value) in values() {
                    assert_eq!(Value::decode(reader.raw().unwrap(), Some(kind)).unwrap(), value);
                }
                reader.end().unwrap();
            },
        ),
        form("state-hash-table", "state_hash of core/state-row.", row().hash().0.to_vec(), |golden| {
            assert_eq!(golden, blake3::hash(&row().encode()).as_bytes())
        }),
        form(
            "state-hash-document",
            "state_hash of a document of epoch 0 with the heads 32 x 0b and 32 x b0, given in any order; then of epoch 1.",
            [document::op::state_hash(0, &heads).0, document::op::state_hash(1, &heads).0].concat(),
            move |golden| {
                assert_eq!(document::op::state_hash(0, &[heads[1], heads[0]]), StateHash(golden[..32].try_into().unwrap()));
            },
        ),
        form(
            "digest",
            "Contributions of a row and of a document, their sum, and the sum of the sum and 32 x ff. 32 bytes each, little-endian.",
            [one, two, one.plus(two), one.plus(two).plus(Digest([0xff; 32]))].iter().flat_map(|digest| digest.0).collect(),
            |golden| {
                let part = |index: usize| Digest(golden[32 * index..32 * (index + 1)].try_into().unwrap());
                assert_eq!(part(0).plus(part(1)), part(2));
                assert_eq!(part(2).minus(part(1)), part(0));
                assert_eq!(part(3).minus(Digest([0xff; 32])), part(2), "the sum is taken modulo 2^256");
            },
        ),
    ]
}

fn values() -> Vec<(FieldType, Value)> {
    let json = Value::json("{\"\u{20ac}\":\"\\u000a\",\"1\":[1e3,-0,0.000001,1e21]}").unwrap();
    vec![
        (FieldType::Text, Value::Null),
        (FieldType::Bool, Value::Bool(false)),
        (FieldType::Bool, Value::Bool(true)),
        (FieldType::Int, Value::Int(0)),
        (FieldType::Int, Value::Int(-1)),
        (FieldType::Int, Value::Int(i64::MAX)),
        (FieldType::Int, Value::Int(i64::MIN)),
        (FieldType::Float, Value::Float(0.0)),
        (FieldType::Float, Value::Float(1.5)),
        (FieldType::Float, Value::Float(100_000.0)),
        (FieldType::Float, Value::Float(0.1)),
        (FieldType::Float, Value::Float(-5e-324)),
        (FieldType::Text, Value::Text(String::new())),
        (FieldType::Text, Value::Text("Grüße".into())),
        (FieldType::Bytes, Value::Bytes(vec![])),
        (FieldType::Bytes, Value::Bytes(vec![0; 24])),
        (FieldType::Timestamp, Value::Timestamp(TIMESTAMP_MIN)),
        (FieldType::Timestamp, Value::Timestamp(TIMESTAMP_MAX)),
        (FieldType::Json, json),
    ]
}
