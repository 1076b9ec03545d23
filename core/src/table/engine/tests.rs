//! Rules R9 to R12 on rows, as schedules in one line each.
//!
//! A schedule is a list of writes `device@time base action`, applied in the order given and in every other order; the resulting row must be
//! the same (R8), and is compared with what the rule says.

use super::*;
use crate::engine::Author;
use crate::ids::{CollectionId, DeviceId, Incarnation, Lane, Ordinal, RecordId, RecordKey, Seq};
use crate::schema::{Field, Kind};
use crate::table::stands_for;
use crate::time::Eff;

const TITLE: FieldId = FieldId::new(1).unwrap();
const HOURS: FieldId = FieldId::new(2).unwrap();

fn collection() -> Collection {
    let field = |id, name: &str, kind| Field { id, name: name.into(), kind, retired: false, references: None };
    Collection {
        id: CollectionId::new(1).unwrap(),
        name: "orders".into(),
        kind: Kind::Table,
        rev: 1,
        fields: vec![field(TITLE, "title", FieldType::Text), field(HOURS, "hours", FieldType::Counter)],
        rules: vec![],
        lane: Lane::State,
        store: "default".into(),
    }
}

#[derive(Clone, Debug)]
struct Step {
    device: u8,
    seq: u64,
    eff: i64,
    base: u64,
    action: Action,
    title: Option<String>,
    hours: i128,
}

/// `a@5 base=1 put title=x hours=2`
fn step(text: &str, seq: u64) -> Step {
    let mut words = text.split_whitespace();
    let (device, eff) = words.next().unwrap().split_once('@').unwrap();
    let mut step =
        Step { device: device.as_bytes()[0], seq, eff: eff.parse().unwrap(), base: 0, action: Action::Patch, title: None, hours: 0 };
    for word in words {
        match word.split_once('=') {
            Some(("base", base)) => step.base = base.parse().unwrap(),
            Some(("title", title)) => step.title = Some(title.into()),
            Some(("hours", hours)) => step.hours = hours.parse().unwrap(),
            None if word == "put" => step.action = Action::Put,
            None if word == "delete" => step.action = Action::Delete,
            None if word == "patch" => {}
            _ => panic!("{word}"),
        }
    }
    step
}

fn apply(state: &mut TableState, step: &Step, ver: u64) -> Vec<Conflict> {
    let author = Author {
        device: DeviceId([step.device; 16]),
        incarnation: Incarnation::new(1).unwrap(),
        ordinal: Ordinal(1),
        ancestors: BTreeSet::new(),
    };
    let seq = Seq::new(step.seq).unwrap();
    let is_shared = step.device == b'h';
    let applying = Applying { author: &author, seq, ver: Ver(ver), uncertain: None, same_timeline: true, is_shared };
    let op = TableOp {
        key: RecordKey { collection: CollectionId::new(1).unwrap(), id: RecordId::new("r").unwrap() },
        action: step.action,
        before_us: 0,
        base_ver: Ver(step.base),
        fields: step.title.iter().map(|title| (TITLE, Value::Text(title.clone()).to_cbor())).collect(),
        deltas: (step.hours != 0).then_some((HOURS, step.hours)).into_iter().collect(),
    };
    let stamp = Stamp { eff: Eff(step.eff), device: author.device, ordinal: Ordinal(1), seq, op: 0 };
    TableEngine.apply(&collection(), state, &[Stamped { op: &op, stamp }], &applying).unwrap().conflicts
}

fn run(steps: &[Step]) -> (TableState, Vec<Conflict>) {
    let mut state = TableState::default();
    let conflicts = steps.iter().zip(1..).flat_map(|(step, ver)| apply(&mut state, step, ver)).collect();
    (state, conflicts)
}

fn show(state: &TableState) -> String {
    match TableEngine.project(&collection(), state).as_deref() {
        None => "hidden".into(),
        Some([Value::Text(title), Value::Int(hours)]) => format!("{title} {hours}"),
        Some([Value::Null, Value::Int(hours)]) => format!("- {hours}"),
        other => panic!("{other:?}"),
    }
}

fn permutations(steps: &[Step]) -> Vec<Vec<Step>> {
    if steps.len() < 2 {
        return vec![steps.to_vec()];
    }
    (0..steps.len())
        .flat_map(|index| {
            let mut rest = steps.to_vec();
            let first = rest.remove(index);
            permutations(&rest).into_iter().map(move |mut tail| {
                tail.insert(0, first.clone());
                tail
            })
        })
        .collect()
}

/// Positions of one device must arrive in order, as lanes guarantee.
fn lanes_in_order(steps: &[Step]) -> bool {
    steps
        .iter()
        .enumerate()
        .all(|(index, step)| steps[..index].iter().all(|earlier| earlier.device != step.device || earlier.seq < step.seq))
}

#[track_caller]
fn check(schedule: &[&str], want: &str, conflicts: usize) {
    let steps: Vec<Step> = schedule.iter().zip(1..).map(|(text, seq)| step(text, seq)).collect();
    let (state, found) = run(&steps);
    assert_eq!(show(&state), want, "{schedule:?}");
    assert_eq!(found.len(), conflicts, "{schedule:?}: {found:#?}");
    for order in permutations(&steps).into_iter().filter(|order| lanes_in_order(order)) {
        assert_eq!(run(&order).0.hash(), state.hash(), "R8, I8: order {order:?}");
    }
}

#[test]
fn r5_latest_effective_time_wins_and_the_loser_is_on_record() {
    check(&["a@1 put title=x", "b@2 base=1 patch title=y"], "y 0", 0);
    check(&["a@1 put title=x", "b@3 base=1 patch title=y", "c@2 base=1 patch title=z"], "y 0", 1);
    check(&["a@1 put title=x", "b@3 base=1 patch title=y", "c@3 base=1 patch title=z"], "z 0", 1);
    check(&["a@1 put title=x", "b@3 base=1 patch title=y", "c@4 base=1 patch title=y"], "y 0", 0);
    check(&["a@1 put title=x", "a@2 patch title=y"], "y 0", 0);
}

#[test]
fn r24_who_writes_through_the_hub_has_seen_what_it_says_and_not_what_others_wrote_there() {
    check(&["h@1 put title=x", "h@2 base=1 patch title=y", "h@3 base=1 patch title=z"], "z 0", 1);
    check(&["h@1 put title=x", "h@2 base=1 patch title=y", "h@3 base=2 patch title=z"], "z 0", 0);
    check(&["a@1 put title=x", "a@2 base=1 patch title=y", "a@3 base=1 patch title=z"], "z 0", 0);
}

#[test]
fn r9_a_delete_hides_and_wins_over_concurrent_updates() {
    check(&["a@1 put title=x", "b@2 base=1 delete"], "hidden", 0);
    check(&["a@1 put title=x", "b@2 base=1 delete", "c@3 base=1 patch title=z"], "hidden", 1);
    check(&["a@1 put title=x", "c@3 base=1 patch title=z", "b@4 base=1 delete"], "hidden", 1);
    check(&["a@1 put title=x", "b@2 base=1 delete", "c@3 base=2 put title=z"], "z 0", 0);
    check(&["a@1 patch title=x"], "hidden", 0);
}

#[test]
fn r9_a_field_older_than_the_delete_reads_as_its_default() {
    check(&["a@1 put title=x", "b@2 base=1 delete", "c@3 base=2 put hours=1"], "- 1", 0);
}

#[test]
fn r9_a_revived_row_counts_what_the_deleter_had_not_seen() {
    // b saw 5 hours and takes them; c's 3 were unseen and stay.
    check(&["a@1 put title=x hours=5", "c@2 base=1 patch hours=3", "b@3 base=1 delete hours=-5", "a@4 base=3 put title=y"], "y 3", 0);
}

#[test]
fn r10_increments_add_up_once_each() {
    check(&["a@1 put title=x hours=2", "b@2 base=1 patch hours=3", "c@1 patch hours=-1"], "x 4", 0);
    let mut state = TableState::default();
    let increment = step("a@1 put title=x hours=2", 1);
    apply(&mut state, &increment, 1);
    apply(&mut state, &increment, 2);
    assert_eq!(show(&state), "x 2", "an entry at or below last_seq adds nothing");
}

#[test]
fn r10_sums_are_wide_and_reading_clamps() {
    let mut state = TableState::default();
    for seq in 1..4 {
        apply(&mut state, &Step { hours: i128::from(i64::MAX), ..step("a@1 put title=x", seq) }, seq);
    }
    assert_eq!(state.counter(HOURS), i64::MAX);
    apply(&mut state, &Step { hours: -3 * i128::from(i64::MAX), ..step("a@9 patch", 4) }, 4);
    assert_eq!(state.counter(HOURS), 0);
}

#[test]
fn r11_join_is_commutative_associative_and_idempotent() {
    let base = run(&[step("a@1 put title=x hours=1", 1)]).0;
    let branch = |text| {
        let mut state = base.clone();
        apply(&mut state, &step(text, 2), 2);
        state
    };
    let (a, b, c) = (branch("b@4 patch title=y hours=2"), branch("c@3 delete hours=-1"), branch("d@5 put title=w"));
    let join = |left: &TableState, right: &TableState| TableEngine.join(&collection(), left, right).unwrap();
    assert_eq!(join(&a, &b).hash(), join(&b, &a).hash());
    assert_eq!(join(&join(&a, &b), &c).hash(), join(&a, &join(&b, &c)).hash());
    assert_eq!(join(&a, &a).hash(), a.hash());
    assert_eq!(show(&join(&join(&a, &b), &c)), "w 2");
}

#[test]
fn r13_the_row_is_the_state() {
    use crate::table::row;
    let (state, _) = run(&[step("a@1 put title=x hours=5", 1), step("b@2 base=1 patch title=y hours=1", 2)]);
    let meta = row::RowMeta { ver: Ver(2), mac: None, state_hash: state.hash() };
    let column = row::encode(&state, &meta, &collection());
    let read = |title: &str| row::decode(&column, &collection(), |_| Value::Text(title.into())).unwrap();
    let (back, kept) = read("y");
    assert_eq!((&back, kept), (&state, meta));
    assert!(row::is_intact(&back, &kept));
    let (flipped, kept) = read("z");
    assert!(!row::is_intact(&flipped, &kept), "a changed byte in a column is found");
    assert_eq!(TableState::decode(&state.encode(), &collection()).unwrap().hash(), state.hash());
}

#[test]
fn a_bad_value_refuses_the_whole_entry_and_changes_nothing() {
    let (mut state, _) = run(&[step("a@1 put title=x", 1)]);
    let before = state.clone();
    let author =
        Author { device: DeviceId([7; 16]), incarnation: Incarnation::new(1).unwrap(), ordinal: Ordinal(1), ancestors: BTreeSet::new() };
    let applying = Applying { author: &author, seq: Seq::FIRST, ver: Ver(2), uncertain: None, same_timeline: true, is_shared: false };
    let stamp = Stamp { eff: Eff(9), device: author.device, ordinal: Ordinal(1), seq: Seq::FIRST, op: 0 };
    let op = |field, value: Value| TableOp {
        key: RecordKey { collection: CollectionId::new(1).unwrap(), id: RecordId::new("r").unwrap() },
        action: Action::Put,
        before_us: 0,
        base_ver: Ver(0),
        fields: BTreeMap::from([(field, value.to_cbor())]),
        deltas: BTreeMap::new(),
    };
    let good = op(TITLE, Value::Text("good".into()));
    for bad in [op(TITLE, Value::Int(1)), op(HOURS, Value::Int(1))] {
        let ops = [Stamped { op: &good, stamp }, Stamped { op: &bad, stamp }];
        let refusal = TableEngine.apply(&collection(), &mut state, &ops, &applying).unwrap_err();
        assert_eq!(refusal.code, Code::BAD_VALUE);
        assert_eq!(state, before);
    }
}

/// A state with one tally of device 1 on the counter.
fn counted(incarnation: Incarnation, last: u64, sum: i128) -> TableState {
    let origin = Origin { device: DeviceId([1; 16]), incarnation };
    let counter = [(origin, Tally { sum, last: Seq::new(last).unwrap() })].into();
    TableState { counters: [(HOURS, counter)].into(), ..TableState::default() }
}

/// faults: S-1
#[test]
fn what_was_authored_again_and_came_back_counts_once_in_every_order() {
    let log = |number: u64| Incarnation::new(number).unwrap();
    let again = |first: u64, seq: u64| stands_for(DeviceId([1; 16]), log(first), Seq::new(seq).unwrap());
    let tallies = [
        (log(1), 3, 30),
        (log(2), 5, 50),
        // In the first log's tally, in the second's, and in none of them.
        (again(1, 2), 2, 1),
        (again(2, 5), 5, 2),
        (again(1, 4), 4, 4),
        (again(9, 1), 1, 8),
    ];
    let mut order: Vec<usize> = (0..tallies.len()).collect();
    for turn in 0..720 {
        // Each turn swaps by its digits in the factorial base, so each order comes once.
        let mut rest = turn;
        for at in 1..order.len() {
            order.swap(at, rest % (at + 1));
            rest /= at + 1;
        }
        let mut state = TableState::default();
        for index in &order {
            let (incarnation, last, sum) = tallies[*index];
            state = TableEngine.join(&collection(), &state, &counted(incarnation, last, sum)).unwrap();
        }
        assert_eq!((state.counter(HOURS), state.counters[&HOURS].len()), (92, 4), "{order:?}");
    }
}

#[test]
fn a_device_counts_in_so_many_logs_at_most() {
    let mut state = TableState::default();
    let own = |number: u64| Origin { device: DeviceId([b'a'; 16]), incarnation: Incarnation::new(number + 1).unwrap() };
    let tally = Tally { sum: 1, last: Seq::new(1).unwrap() };
    let full = limits::TALLIES_PER_DEVICE_MAX as u64;
    state.counters.insert(HOURS, (1..=full).map(|number| (own(number), tally)).collect());
    let before = state.clone();
    let increment = |state: &mut TableState, text: &str| {
        let step = step(text, 9);
        let author = Author {
            device: DeviceId([step.device; 16]),
            incarnation: Incarnation::new(1).unwrap(),
            ordinal: Ordinal(1),
            ancestors: BTreeSet::new(),
        };
        let key = RecordKey { collection: CollectionId::new(1).unwrap(), id: RecordId::new("r").unwrap() };
        let deltas = [(HOURS, step.hours)].into();
        let op = TableOp { key, action: step.action, before_us: 0, base_ver: Ver(0), fields: BTreeMap::new(), deltas };
        let seq = Seq::new(9).unwrap();
        let applying = Applying { author: &author, seq, ver: Ver(1), uncertain: None, same_timeline: true, is_shared: false };
        let stamp = Stamp { eff: Eff(step.eff), device: author.device, ordinal: Ordinal(1), seq, op: 0 };
        TableEngine.apply(&collection(), state, &[Stamped { op: &op, stamp }], &applying).map(|_| ())
    };
    assert_eq!(increment(&mut state, "a@5 put hours=2").unwrap_err().code, Code::TOO_LARGE);
    assert_eq!(state, before);
    increment(&mut state, "b@5 put hours=2").unwrap();
    assert_eq!(state.counter(HOURS), i64::try_from(full).unwrap() + 2);
}
