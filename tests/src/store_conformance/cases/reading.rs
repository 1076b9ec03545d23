//! Queries: both databases give the same rows in the same order and the same JSON.

use mobo_core::author::Intent;
use mobo_core::query::{Condition, Filter, Op, Order, Page, Select};
use mobo_core::value::Value;
use serde_json::{Value as Json, json};

use crate::store_conformance::world::World;
use crate::store_conformance::{Device, Place, samples};

/// A world with rows `(id, fields)` in `work_orders`.
async fn with_rows(place: Box<dyn Place>, rows: &[(&str, Json)]) -> World {
    let world = World::new(place, 40).await;
    for (id, fields) in rows {
        world.merged(world.local("work_orders", Intent::Insert, id, fields)).await;
    }
    world
}

impl World {
    fn query(&self, filters: &[(&str, Op, bool)], order: Vec<Order>) -> Select {
        let filter = |(name, op, negated): &(&str, Op, bool)| {
            let filter = Filter::Is(Condition { operand: self.order("work_orders", name, false).operand, op: op.clone() });
            if *negated { filter.negated() } else { filter }
        };
        Select { filter: Filter::And(filters.iter().map(filter).collect()), order, ..self.all("work_orders") }
    }

    async fn ids(&self, filters: &[(&str, Op, bool)], order: Vec<Order>) -> String {
        self.column(self.query(filters, order), "id").await
    }
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

/// Filters with nulls as in SQL, order with nulls where Postgres puts them, limits and totals.
pub async fn filters_orders_and_counts(place: Box<dyn Place>) {
    let rows = [
        ("a", json!({"title": "x", "n": 1, "ratio": 0.5, "done": true, "hours": 5})),
        ("b", json!({"title": "y", "n": 3, "ratio": -1.5, "done": false})),
        ("c", json!({"title": "x", "n": 2})),
        ("d", json!({"n": 3, "ratio": 2.0, "due": "2026-02-03T04:05:06.000001Z", "photo": "AAE="})),
        ("e", json!({"title": "z", "due": "1969-12-31T23:59:59.5Z", "meta": {"z": 1.0, "a": [true, null, "ä"]}})),
    ];
    let world = with_rows(place, &rows).await;
    let is = |op: Op| (op, false);
    let not = |op: Op| (op, true);
    let cases = [
        ("title", is(Op::Eq(text("x"))), "a c"),
        ("title", not(Op::Eq(text("x"))), "b e"),
        ("title", is(Op::Neq(text("x"))), "b e"),
        ("title", is(Op::Eq(Value::Null)), ""),
        ("title", is(Op::IsNull), "d"),
        ("title", not(Op::IsNull), "a b c e"),
        ("title", is(Op::In(vec![text("y"), text("z")])), "b e"),
        ("title", not(Op::In(vec![text("y"), text("z")])), "a c"),
        ("title", is(Op::In(vec![])), ""),
        ("title", not(Op::In(vec![])), "a b c d e"),
        ("n", is(Op::Gt(Value::Int(1))), "b c d"),
        ("n", is(Op::Gte(Value::Int(3))), "b d"),
        ("n", not(Op::Gte(Value::Int(3))), "a c"),
        ("n", is(Op::In(vec![Value::Int(1), Value::Int(2)])), "a c"),
        ("ratio", is(Op::Lt(Value::Float(0.5))), "b"),
        ("ratio", is(Op::Lte(Value::Float(0.5))), "a b"),
        ("done", is(Op::Eq(Value::Bool(false))), "b"),
        ("due", is(Op::Gt(Value::Timestamp(0))), "d"),
        ("due", is(Op::Lt(Value::Timestamp(0))), "e"),
        ("due", is(Op::Eq(Value::Timestamp(-500_000))), "e"),
        ("photo", is(Op::Eq(Value::Bytes(vec![0, 1]))), "d"),
        ("hours", is(Op::Eq(Value::Int(5))), "a"),
        ("hours", is(Op::Eq(Value::Int(0))), "b c d e"),
        ("id", is(Op::Gte(text("d"))), "d e"),
        ("title", is(Op::Eq(text("' OR 1=1 --"))), ""),
    ];
    for (name, (op, negated), want) in cases {
        assert_eq!(world.ids(&[(name, op.clone(), negated)], vec![]).await, want, "{name} {op:?} negated {negated}");
    }
    let both = [("title", Op::Eq(text("x")), false), ("n", Op::Gt(Value::Int(1)), false)];
    assert_eq!(world.ids(&both, vec![]).await, "c", "all must hold");

    let by = |name: &str, descending| world.order("work_orders", name, descending);
    assert_eq!(world.ids(&[], vec![by("title", false)]).await, "a c b e d", "nulls last, ties by key");
    assert_eq!(world.ids(&[], vec![by("title", true)]).await, "d e b a c", "nulls first");
    assert_eq!(world.ids(&[], vec![by("n", true), by("id", true)]).await, "e d b c a");
    let nulls = |nulls_first| Order { nulls_first, ..by("n", !nulls_first) };
    assert_eq!(world.ids(&[], vec![nulls(true)]).await, "e a c b d", "nulls first, ascending");
    assert_eq!(world.ids(&[], vec![nulls(false)]).await, "b d c a e", "nulls last, descending");

    pages_and_json(&world).await;
}

async fn pages_and_json(world: &World) {
    let by_n = || vec![world.order("work_orders", "n", false)];
    let page = |limit, offset| Select { limit, offset, count: true, ..world.query(&[("n", Op::IsNull, true)], by_n()) };
    for (limit, offset, want) in [(2, 0, vec!["a", "c"]), (2, 3, vec!["d"]), (0, 0, vec![]), (9, 9, vec![])] {
        let Page { rows, total } = world.store.select(page(limit, offset)).await.unwrap();
        assert_eq!(rows.iter().map(|row| row["id"].as_str().unwrap()).collect::<Vec<_>>(), want, "{limit} from {offset}");
        assert_eq!(total, Some(4));
    }
    // What JSON it is, byte for byte.
    let e = world.rows("work_orders").await.remove(4);
    let want = r#"{"id":"e","title":"z","hours":0,"n":null,"ratio":null,"done":null,"due":"1969-12-31T23:59:59.500000Z","meta":{"a":[true,null,"ä"],"z":1},"photo":null}"#;
    let want: Json = serde_json::from_str(want).unwrap();
    assert_eq!(e.to_string(), want.to_string());
    let mut alias = world.all("work_orders");
    alias.columns.truncate(1);
    alias.columns[0].alias = "Schlüssel \"x\"".to_owned();
    alias.limit = 1;
    assert_eq!(world.select(alias).await, [json!({"Schlüssel \"x\"": "a"})]);
    let mut unknown = world.all("work_orders");
    unknown.columns[0].operand.column.name = "_mobo\" --".to_owned();
    assert!(world.store.select(unknown).await.is_err(), "only columns of the collection");
}

/// Text and bytes compare byte by byte, floats and counters as numbers, whatever the database's locale.
pub async fn compares_as_bytes_and_numbers(place: Box<dyn Place>) {
    let titles = ["Z", "a", "B", "b", "ä", "é", "z", "\u{10348}", "\u{ffff}", " ", "10", "9", "~", ""];
    let numbers: [f64; 14] = [0.0, -1.5, 1e300, -1e-300, 2.0, 10.0, 9.5, 0.1, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
    let rows: Vec<_> = titles.iter().zip(numbers).map(|(title, ratio)| json!({"title": title, "ratio": ratio})).collect();
    let ids: Vec<String> = (0..rows.len()).map(|index| format!("r{index:02}")).collect();
    let rows: Vec<_> = ids.iter().map(String::as_str).zip(rows).collect();
    let world = with_rows(place, &rows).await;
    let sorted = |mut indexes: Vec<usize>, compare: &dyn Fn(&usize, &usize) -> std::cmp::Ordering| {
        indexes.sort_by(|a, b| compare(a, b));
        indexes.iter().map(|index| ids[*index].clone()).collect::<Vec<_>>().join(" ")
    };
    let all: Vec<usize> = (0..titles.len()).collect();
    let want = sorted(all.clone(), &|a, b| titles[*a].as_bytes().cmp(titles[*b].as_bytes()));
    assert_eq!(world.ids(&[], vec![world.order("work_orders", "title", false)]).await, want);
    let want = sorted(all.clone(), &|a, b| numbers[*a].total_cmp(&numbers[*b]));
    assert_eq!(world.ids(&[], vec![world.order("work_orders", "ratio", false)]).await, want);
    let above: Vec<usize> = all.into_iter().filter(|index| titles[*index].as_bytes() > "Z".as_bytes()).collect();
    let want = sorted(above, &|a, b| a.cmp(b));
    assert_eq!(world.ids(&[("title", Op::Gt(text("Z")), false)], vec![]).await, want);
    for (row, number) in world.rows("work_orders").await.iter().zip(numbers) {
        assert_eq!(row["ratio"].as_f64().map(f64::to_bits), Some(f64::to_bits(number)), "bit for bit");
    }
    // Times at both ends of the calendar.
    for (id, due) in [("t1", "0001-01-01T00:00:00.000000Z"), ("t2", "9999-12-31T23:59:59.999999Z"), ("t3", "1970-01-01T00:00:00.000001Z")] {
        world.merged(world.local("work_orders", Intent::Insert, id, &json!({"due": due}))).await;
        let rows = world.select(world.query(&[("id", Op::Eq(text(id)), false)], vec![])).await;
        assert_eq!(rows[0]["due"], json!(due));
    }
    let due = world.order("work_orders", "due", false);
    assert_eq!(world.ids(&[("due", Op::IsNull, true)], vec![due]).await, "t1 t3 t2");
}

/// Samples come by time, then by who took them; within one entry in the order in which they were taken.
pub async fn reads_samples_in_order(place: Box<dyn Place>) {
    let world = World::new(place, 42).await;
    let (mut a, mut b) = (Device::enrolled(&world, "a", &["all"]).await, Device::enrolled(&world, "b", &["all"]).await);
    a.append(&world, &samples(&world, &[1.0, 2.0, 3.0]));
    b.append(&world, &samples(&world, &[4.0, 5.0]));
    let mut burst = samples(&world, &[6.0, 7.0, 8.0]);
    burst.before_us = vec![0, 0, 0];
    a.append(&world, &burst);
    let push = |device: &Device| device.push_from(&world, mobo_core::ids::Lane::Telemetry, 1);
    world.merge(vec![push(&b), push(&a)]).await;
    let rows = world.rows("vitals").await;
    assert_eq!(rows.len(), 8);
    assert!(rows.is_sorted_by_key(|row| row["at"].as_str().map(str::to_owned)), "{rows:?}");
    let cpu = |rows: &[Json]| rows.iter().map(|row| row["cpu"].as_f64().unwrap()).collect::<Vec<_>>();
    assert_eq!(cpu(&rows[5..]), [6.0, 7.0, 8.0], "of one moment: as they were taken");
    let newest = Order { descending: true, ..world.order("vitals", "at", false) };
    let last = Select { order: vec![newest], limit: 3, count: true, ..world.all("vitals") };
    let page = world.store.select(last).await.unwrap();
    assert_eq!(page.total, Some(8));
    assert_eq!(page.rows.iter().map(|row| row["cpu"].as_f64().unwrap()).collect::<Vec<_>>(), [6.0, 7.0, 8.0], "ties by key");
    let device = world.order("vitals", "device", false).operand;
    let only = Filter::Is(Condition { operand: device, op: Op::Eq(text(&b.id().to_string())) });
    let rows = world.select(Select { filter: only, ..world.all("vitals") }).await;
    assert_eq!(cpu(&rows), [4.0, 5.0]);
    assert_eq!(rows[0]["state"], json!(null));
}
