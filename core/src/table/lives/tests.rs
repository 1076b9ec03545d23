use super::*;
use crate::engine::{Applying, Author, MergeEngine, Stamped};
use crate::ids::{CollectionId, DeviceId, FieldId, Incarnation, Lane, Nonce, Ordinal, RecordId, RecordKey, Seq, Ver};
use crate::life::Life;
use crate::schema::{Collection, Field, FieldType, Kind};
use crate::stamp::Stamp;
use crate::table::{Action, TableEngine, TableOp, TableState};
use crate::time::Eff;

const DEVICE: DeviceId = DeviceId([7; 16]);
const FIELD: fn() -> FieldId = || FieldId::new(1).unwrap();

fn collection() -> Collection {
    let fields = vec![Field { id: FIELD(), name: "n".into(), kind: FieldType::Counter, retired: false, references: None }];
    let (name, store) = ("c".into(), "default".into());
    Collection { id: CollectionId::new(4).unwrap(), name, kind: Kind::Table, rev: 1, fields, rules: vec![], lane: Lane::State, store }
}

/// The name of a life of the log 9, of a run that drew this; the log's own for its first life.
fn life(number: u32, drawn: u8) -> Incarnation {
    let log = Incarnation::new(9).unwrap();
    Life::of(number, Nonce([drawn; 8])).map_or(log, |life| life.counts_under(DEVICE, log))
}

/// Adds to the counter: an entry at this place, of a life.
fn add(state: &mut TableState, counts_under: Incarnation, (seq, delta): (u64, i128)) {
    let key = RecordKey { collection: CollectionId::new(4).unwrap(), id: RecordId::new("x").unwrap() };
    let (fields, deltas) = (std::collections::BTreeMap::new(), [(FIELD(), delta)].into());
    let op = TableOp { key, action: Action::Patch, before_us: 0, base_ver: Ver(0), fields, deltas };
    let author = Author { device: DEVICE, incarnation: counts_under, ordinal: Ordinal(1), ancestors: Default::default() };
    let seq = Seq::new(seq).unwrap();
    let applying = Applying { author: &author, seq, ver: Ver(1), uncertain: None, same_timeline: true, is_shared: false };
    let stamp = Stamp { eff: Eff(5), device: DEVICE, ordinal: Ordinal(1), seq, op: 0 };
    TableEngine.apply(&collection(), state, &[Stamped { op: &op, stamp }], &applying).unwrap();
}

fn joined(one: &TableState, other: &TableState) -> TableState {
    let both = TableEngine.join(&collection(), one, other).unwrap();
    assert_eq!(TableEngine.join(&collection(), other, one).unwrap(), both, "whichever comes first");
    assert_eq!(TableEngine.join(&collection(), &both, one).unwrap(), both, "and once more");
    both
}

/// A row that a log has counted on in these lives, with two entries in each.
fn lived(numbers: std::ops::RangeInclusive<u32>) -> TableState {
    let mut state = TableState::default();
    for number in numbers {
        for seq in [1, 2] {
            add(&mut state, life(number, 1), (u64::from(number) * 10 + seq, 1));
        }
    }
    state
}

// faults: I-1
#[test]
fn two_copies_of_a_log_count_apart() {
    let base = lived(0..=3);
    let (mut one, mut other) = (base.clone(), base);
    for seq in 41..=43 {
        add(&mut one, life(4, 1), (seq, 1));
        add(&mut other, life(4, 2), (seq, 100));
    }
    assert_eq!(joined(&one, &other).counter(FIELD()), 8 + 3 + 300);
}

#[test]
fn lives_that_are_over_for_long_are_one_tally() {
    let state = lived(0..=40);
    let tallies = &state.counters[&FIELD()];
    assert_eq!(state.counter(FIELD()), 82);
    assert_eq!(tallies.len(), 1 + 1 + limits::LIVES_APART_MAX as usize, "the first, those that are over, and the last eight");
    for (number, seq) in [(0, 1), (1, 11), (20, 202), (32, 322), (33, 331), (40, 402)] {
        let mut again = state.clone();
        add(&mut again, life(number, 1), (seq, 1));
        assert_eq!(again.counters, state.counters, "an entry of life {number} comes again");
    }
}

#[test]
fn what_one_side_has_added_up_is_not_counted_twice() {
    let whole = lived(0..=20);
    for until in 0..=20 {
        let earlier = lived(0..=until);
        assert_eq!(joined(&whole, &earlier).counter(FIELD()), 42, "beside a row of life {until}");
        let mut branch = earlier;
        add(&mut branch, life(until + 1, 2), (u64::from(until) * 10 + 11, 1_000));
        let want = if until + 1 > 20 - limits::LIVES_APART_MAX { 1_042 } else { continue };
        assert_eq!(joined(&whole, &branch).counter(FIELD()), want, "a copy began at life {until}");
    }
}

/// Other names of the device are drawn at random: they stay what they are.
#[test]
fn tallies_of_other_logs_are_left_alone() {
    let mut state = lived(0..=7);
    for log in 0..40_u8 {
        add(&mut state, Incarnation::from_entropy([log, 200 - log, 3, 99, log, 7, 201, log]), (u64::from(log) + 1, 1));
    }
    let before = state.counters[&FIELD()].len();
    for number in 8..=30 {
        add(&mut state, life(number, 1), (u64::from(number) * 10, 1));
    }
    assert_eq!(before, 48);
    assert_eq!(state.counters[&FIELD()].len(), 40 + 1 + 1 + limits::LIVES_APART_MAX as usize);
    assert_eq!(state.counter(FIELD()), 16 + 40 + 23);
}
