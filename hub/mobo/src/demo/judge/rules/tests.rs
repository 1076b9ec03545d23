use serde_json::json;

use super::*;

/// The acknowledged writes of a small demo: two rounds, the second one apart.
fn journal() -> Vec<Entry> {
    let order = |fields| Written::Record { collection: "orders".to_owned(), id: "w".to_owned(), fields };
    let note = |fields| Written::Record { collection: "notes".to_owned(), id: "n".to_owned(), fields };
    let set = |field: &str, value: Value| (field.to_owned(), Change::Set(value));
    let add = |number| ("hours".to_owned(), Change::Add(number));
    let insert = |token: &str| ("body".to_owned(), Change::Insert(token.to_owned()));
    let push = |item: &str| ("tags".to_owned(), Change::Push(item.to_owned()));
    let sample = |cpu: f64| Written::Sample(json!({ "cpu": cpu, "rx": 7 }).as_object().unwrap().clone());
    let writes = [
        ("hub", 0, order(vec![set("who", json!("hub")), add(1)])),
        ("hub", 0, note(vec![insert("[h-1]"), push("h-1")])),
        ("one", 1, order(vec![set("who", json!("one")), add(2)])),
        ("two", 1, order(vec![set("who", json!("two")), add(4)])),
        ("two", 1, order(vec![set("who", json!("two again"))])),
        ("one", 1, note(vec![insert("[o-1]"), push("o-1")])),
        ("two", 1, note(vec![insert("[t-1]"), push("t-1"), set("meta", json!({"by": "two"}))])),
        ("one", 0, sample(1.5)),
        ("one", 0, sample(1.5)),
        ("one", 1, sample(2.0)),
    ];
    let entry = |(n, (origin, round, write)): (u64, (&str, u32, Written))| Entry {
        origin: origin.to_owned(),
        round,
        sent_us: n * 10,
        known_us: n * 10 + 5,
        outcome: Outcome::Acknowledged,
        write,
    };
    (0..).zip(writes).map(entry).collect()
}

/// What is right to be seen of it everywhere.
fn view(name: &str) -> View {
    let rows = |id: &str, row: Value| Rows::from([(id.to_owned(), row.as_object().unwrap().clone())]);
    let order = json!({ "id": "w", "who": "two again", "hours": 7 });
    let note = json!({ "id": "n", "body": "x [o-1] [h-1] [t-1]", "tags": ["h-1", "t-1", "o-1"], "meta": { "by": "two" } });
    let samples = [
        (sample(json!({ "rx": 7.0, "cpu": 1.5 }).as_object().unwrap()), 2),
        (sample(json!({ "cpu": 2, "rx": 7 }).as_object().unwrap()), 1),
    ];
    View {
        name: name.to_owned(),
        records: BTreeMap::from([("orders".to_owned(), rows("w", order)), ("notes".to_owned(), rows("n", note))]),
        samples: BTreeMap::from([("one".to_owned(), Samples::from(samples))]),
    }
}

fn ledger() -> Vec<Loser> {
    vec![Loser { collection: "orders".to_owned(), id: "w".to_owned(), field: "who".to_owned(), value: json!("one") }]
}

type Case = (Vec<Entry>, Vec<View>, Vec<Loser>);

/// Breaks something, and compares (lost, duplicated, differing) and the beginning of the first finding.
#[track_caller]
fn check(broken: impl FnOnce(&mut Case), want: (u64, u64, u64), finding: &str) {
    let mut case = (journal(), vec![view("hub"), view("one")], ledger());
    broken(&mut case);
    let count = count(&case.0, &case.1, &case.2);
    assert_eq!((count.lost, count.duplicated, count.differing), want, "{:#?}", count.findings);
    assert!(count.findings.first().map_or(finding.is_empty(), |found| found.starts_with(finding)), "{:#?}", count.findings);
}

/// Sets a field in some of the views.
fn put(views: &mut [View], collection: &str, field: &str, value: &Value) {
    for view in views {
        for row in view.records.get_mut(collection).unwrap().values_mut() {
            row.insert(field.to_owned(), value.clone());
        }
    }
}

fn unknown(journal: &mut [Entry], n: usize) {
    journal[n].outcome = Outcome::Unknown;
}

#[test]
fn what_is_right_is_right() {
    check(|_| (), (0, 0, 0), "");
    // Equal numbers, spelled differently by a database.
    check(|case| put(&mut case.1, "orders", "hours", &plain(json!(7.0))), (0, 0, 0), "");
}

#[test]
fn losses_are_caught() {
    check(|case| case.1[1].records.get_mut("orders").unwrap().clear(), (1, 0, 0), "orders w was acknowledged and is not there (one)");
    check(|case| drop(case.1[0].records.remove("notes")), (1, 0, 0), "notes n was acknowledged");
    check(|case| put(&mut case.1, "orders", "hours", &json!(5)), (1, 0, 0), "orders w, hours: 7 was added");
    check(|case| put(&mut case.1, "orders", "hours", &json!(null)), (1, 0, 0), "orders w, hours: 7 was added");
    check(|case| put(&mut case.1, "notes", "body", &json!("x [o-1] [h-1]")), (1, 0, 0), "notes n, body: \"[t-1]\" was acknowledged");
    check(|case| put(&mut case.1, "notes", "tags", &json!(["t-1", "o-1"])), (1, 0, 0), "notes n, tags: \"h-1\" was");
    check(|case| put(&mut case.1, "notes", "meta", &json!({"by": "nobody"})), (1, 0, 0), "notes n, meta: {\"by\":\"two\"} of two was");
    let forget = |case: &mut Case| case.1[0].samples.get_mut("one").unwrap().retain(|_, times| *times == 2);
    check(forget, (1, 0, 0), "a sample of one was acknowledged 1 times and is there 0 times");
    let forget_one_of_two = |case: &mut Case| case.1[1].samples.get_mut("one").unwrap().values_mut().for_each(|times| *times = 1);
    check(forget_one_of_two, (1, 0, 0), "a sample of one was acknowledged 2 times and is there 1 times");
}

#[test]
fn a_loser_must_be_on_the_ledger() {
    check(|case| case.2.clear(), (1, 0, 0), "orders w, who: \"one\" of one was acknowledged; \"two again\" is there");
    check(|case| case.2[0].field = "other".to_owned(), (1, 0, 0), "orders w, who: \"one\" of one");
    check(|case| case.2[0].id = "v".to_owned(), (1, 0, 0), "orders w, who: \"one\" of one");
    // The later write of the same node does not excuse the other node's, nor does an earlier round's.
    check(|case| put(&mut case.1, "orders", "who", &json!("hub")), (1, 0, 0), "orders w, who: \"two again\" of two");
    // Had the nodes known of each other, no ledger would be needed.
    let rounds = |case: &mut Case| {
        case.2.clear();
        case.0.iter_mut().skip(3).for_each(|entry| entry.round += 1);
    };
    check(rounds, (0, 0, 0), "");
}

#[test]
fn duplicates_are_caught() {
    check(|case| put(&mut case.1, "orders", "hours", &json!(14)), (0, 1, 0), "orders w, hours: 7 was added");
    check(
        |case| put(&mut case.1, "notes", "body", &json!("x [o-1] [h-1] [t-1] [o-1]")),
        (0, 1, 0),
        "notes n, body: \"[o-1]\" is there 2 times",
    );
    check(|case| put(&mut case.1, "notes", "tags", &json!(["h-1", "t-1", "o-1", "h-1"])), (0, 1, 0), "notes n, tags: \"h-1\" is there 2");
    let double = |case: &mut Case| case.1[0].samples.get_mut("one").unwrap().values_mut().for_each(|times| *times = 2);
    check(double, (0, 1, 0), "a sample of one was acknowledged 1 times and is there 2 times");
}

#[test]
fn what_is_unknown_may_be_there_once_or_not() {
    for hours in [3, 7] {
        let maybe = |case: &mut Case| {
            unknown(&mut case.0, 3);
            put(&mut case.1, "orders", "hours", &json!(hours));
        };
        check(maybe, (0, 0, 0), "");
    }
    let more = |case: &mut Case| {
        unknown(&mut case.0, 3);
        put(&mut case.1, "orders", "hours", &json!(11));
    };
    check(more, (0, 1, 0), "orders w, hours: 3 was added and acknowledged, 4 is unknown");
    for (body, want) in [("[o-1] [h-1]", (0, 0, 0)), ("[o-1] [h-1] [t-1] [t-1]", (0, 1, 0))] {
        let maybe = |case: &mut Case| {
            unknown(&mut case.0, 6);
            put(&mut case.1, "notes", "body", &json!(body));
        };
        check(maybe, want, if want.1 == 0 { "" } else { "notes n, body: \"[t-1]\" is there 2" });
    }
    // An unknown write excuses an earlier one only where it happened.
    let happened = |case: &mut Case| unknown(&mut case.0, 4);
    check(happened, (0, 0, 0), "");
    let vanished = |case: &mut Case| {
        unknown(&mut case.0, 4);
        put(&mut case.1, "orders", "who", &json!("hub"));
    };
    check(vanished, (1, 0, 0), "orders w, who: \"two\" of two");
}

#[test]
fn nodes_must_agree_and_hold_nothing_else() {
    let tags = json!(["t-1", "h-1", "o-1"]);
    check(|case| put(&mut case.1[1..], "notes", "tags", &tags), (0, 0, 1), "notes n differs");
    let stranger = |case: &mut Case| drop(case.1[1].records.get_mut("orders").unwrap().insert("v".to_owned(), Map::new()));
    check(stranger, (0, 0, 1), "orders v is there, and nobody wrote it");
    let stranger = |case: &mut Case| case.1[0].samples.get_mut("one").unwrap().extend([("{}".to_owned(), 1)]);
    check(stranger, (0, 0, 1), "a sample of one that nobody took is there: {}");
}
