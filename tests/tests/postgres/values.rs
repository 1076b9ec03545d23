//! What SQL tools see, and what survives the way through Postgres' own types bit for bit.

use mobo_adapters::desk::{Desk as _, Outcome, Statement};
use mobo_core::author::Intent;
use mobo_core::store::transfer::Cell;
use mobo_core::value::{TIMESTAMP_MAX, TIMESTAMP_MIN};
use mobo_core::{limits, rfc3339};
use mobo_hub::postgres::PostgresHubStore;
use mobo_tests::postgres::Database;
use serde_json::json;

use crate::{another_hub, world};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_is_a_plain_typed_table_and_what_sql_cannot_write_says_so() {
    let world = world(1).await;
    world.merged(world.local("work_orders", Intent::Insert, "w-1", &json!({"title": "oil the pump"}))).await;
    let columns = "SELECT string_agg(column_name || ' ' || data_type, ', ' ORDER BY ordinal_position) FROM information_schema.columns \
                   WHERE table_schema = 'public' AND table_name = 'work_orders'";
    let want = "id text, title text, hours bigint, n bigint, ratio double precision, done boolean, due timestamp with time zone, \
                meta jsonb, photo bytea, mobo_ver bigint, _extra jsonb, _mobo bytea, _bucket bigint, _position bigint";
    assert_eq!(world.sql(columns).await, want);
    for write in ["UPDATE notes SET title = 'x'", "DELETE FROM vitals", "TRUNCATE notes", "TRUNCATE work_orders"] {
        let error = world.place.sql(write).await.unwrap_err();
        assert!(error.contains("is kept by mobo: write through its API or on a device"), "{write}: {error}");
        assert!(error.contains("SET mobo.applying"), "{write}: {error}");
    }
    assert_eq!(world.sql("SELECT title FROM work_orders").await, "oil the pump");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_at_their_limits_come_back_bit_for_bit() {
    let world = world(2).await;
    let times = [TIMESTAMP_MIN, TIMESTAMP_MIN + 1, -1, 0, 1, 4_102_444_799_999_999, TIMESTAMP_MAX - 1, TIMESTAMP_MAX];
    let floats = [f64::MIN, -f64::MIN_POSITIVE, 5e-324, 0.1, 1.0 / 3.0, 1e21, 9_007_199_254_740_993.0, f64::MAX];
    let numbers = [i64::MIN, -9_007_199_254_740_993, -1, 0, 1, 9_007_199_254_740_993, i64::MAX - 1, i64::MAX];
    for (index, ((time, float), number)) in times.iter().zip(floats).zip(numbers).enumerate() {
        let fields =
            json!({"due": rfc3339::format(*time), "ratio": float, "n": number, "title": "ä\u{1F600}'\\\u{7f}", "photo": "AAECAw=="});
        let id = format!("w-{index}");
        world.merged(world.local("work_orders", Intent::Insert, &id, &fields)).await;
        let row = world.rows("work_orders").await.pop().unwrap();
        for (name, value) in fields.as_object().unwrap() {
            assert_eq!(row[name], *value, "{id} {name}");
        }
        let exact = format!("SELECT (extract(epoch FROM due) * 1000000)::bigint FROM work_orders WHERE id = '{id}'");
        assert_eq!(world.sql(&exact).await, time.to_string());
        let same = format!("SELECT ratio = '{float:e}'::float8 FROM work_orders WHERE id = '{id}'");
        assert_eq!(world.sql(&same).await, "t");
    }
    world.is_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_comes_back_in_its_canonical_form_however_postgres_writes_it() {
    let world = world(3).await;
    let wide: Vec<f64> = (0..9_000).map(|index| 1e300 + f64::from(index) * 1e290).collect();
    let cases = [
        json!({"b": 1, "a": {"ü": [], "z": null, "A": "\u{7f}\\\"/\u{10FFFF}"}, "": ""}),
        json!([1e300, 5e-324, 1e21, 1e-7, 0.000001, 123_456_789_012_345_680_000_f64, -9_007_199_254_740_993_i64, 1.5, 100.0]),
        json!("text"),
        json!(false),
        json!(wide.get(..3_000)),
    ];
    for (index, meta) in cases.iter().enumerate() {
        world.merged(world.local("work_orders", Intent::Insert, &format!("w-{index}"), &json!({"meta": meta}))).await;
    }
    world.is_sound().await;
    // Postgres writes these numbers out in full: what comes back is longer than what a value may be.
    let written: usize = world.sql("SELECT max(length(meta::text)) FROM work_orders").await.parse().unwrap();
    assert!(written > limits::VALUE_BYTES_MAX, "{written}");
    let other = another_hub(&world).await;
    for audit in other.audit_buckets(world.project).await.unwrap() {
        assert_eq!((audit.damaged, audit.stored), (vec![], audit.computed));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn samples_from_before_the_calendar_are_clamped_and_refused_by_nobody() {
    let world = world(4).await;
    let mut device = mobo_tests::store_conformance::Device::enrolled(&world, "device", &["all"]).await;
    let mut segment = mobo_tests::store_conformance::samples(&world, &[1.0, 2.0]);
    segment.before_us = vec![i64::MAX as u64, 0];
    device.append(&world, &segment);
    world.merged(device.push_from(&world, mobo_core::ids::Lane::Telemetry, 1)).await;
    let rows = world.rows("vitals").await;
    assert_eq!(rows[0]["at"], json!(rfc3339::format(TIMESTAMP_MIN)));
    assert_eq!(rows.len(), 2);
}

/// A statement that is kept prepared keeps the types of its first cells: a null among them must not become the type of what comes later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cell_that_was_null_once_takes_a_number_the_next_time() {
    const SET: &str = "UPDATE mobo_account SET banned_us = CAST($2 AS bigint) WHERE project = $1";
    let database = Database::fresh();
    let store = PostgresHubStore::open(&database.url()).await.unwrap();
    for banned in [Cell::Null, Cell::Int(1), Cell::Null, Cell::Int(2)] {
        let done = store.run(vec![Statement::new(SET, [Cell::Int(0), banned.clone()])]).await;
        assert!(matches!(done, Ok(Outcome::Done(_))), "{banned:?}: {done:?}");
    }
}
