//! What a hub takes of its sensors, on both stores: each message once, whatever the broker repeats and whichever hub of the store hears it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::sync::Arc;

use mobo_adapters::desk::{NotingDesk, Outcome, Statement};
use mobo_adapters::mqtt::ingest::Taker as _;
use mobo_adapters::sqlite::SqliteHubStore;
use mobo_core::ids::{CollectionId, FieldId, Lane};
use mobo_core::ingest::{Arrival, Delivery, Rules};
use mobo_core::query::Select;
use mobo_core::schema::{Collection, Field, FieldType, Kind};
use mobo_core::store::{HubStore, StoreError};
use mobo_core::trust::KeyPair;
use mobo_hub::ingest::{HubTaker, Inbox, refused};
use mobo_hub::node::{Opened, assemble};
use mobo_hub::postgres::PostgresHubStore;
use mobo_runtime::clock::Clock;
use mobo_tests::postgres::Database;

const RULES: &str = "t/{id} -> vitals cpu=$\norders/{id} -> orders id={id} title=$.title n=$.n";

/// A store with two collections, and its hubs.
struct Bench {
    desk: Arc<dyn NotingDesk>,
    opened: Arc<Opened>,
    clock: Clock,
    _folder: tempfile::TempDir,
    _database: Option<Database>,
}

fn collection(n: u64, name: &str, kind: Kind, fields: &[(&str, FieldType)]) -> Collection {
    let field = |(at, (name, kind)): (u64, &(&str, FieldType))| Field {
        id: FieldId::new(n * 10 + at).unwrap(),
        name: (*name).to_owned(),
        kind: *kind,
        retired: false,
        references: None,
    };
    Collection {
        id: CollectionId::new(n).unwrap(),
        name: name.to_owned(),
        kind,
        rev: 1,
        fields: (1..).zip(fields).map(field).collect(),
        rules: Vec::new(),
        lane: if kind == Kind::Stream { Lane::Telemetry } else { Lane::State },
        store: "default".to_owned(),
    }
}

impl Bench {
    async fn on_sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteHubStore::open(&folder.path().join("hub.db")).unwrap());
        Self::of((Arc::clone(&store) as _, store), folder, None).await
    }

    async fn on_postgres() -> Self {
        let database = Database::fresh();
        let store = Arc::new(PostgresHubStore::open(&database.url()).await.unwrap());
        Self::of((Arc::clone(&store) as _, store), tempfile::tempdir().unwrap(), Some(database)).await
    }

    async fn of((store, desk): (Arc<dyn HubStore>, Arc<dyn NotingDesk>), folder: tempfile::TempDir, database: Option<Database>) -> Self {
        let (keys, clock) = (KeyPair::from_secret(&[7; 32]), Clock::start().unwrap());
        let opened = assemble(store, &keys, Arc::new(clock)).await.unwrap();
        let vitals = collection(1, "vitals", Kind::Stream, &[("cpu", FieldType::Float)]);
        let orders = collection(2, "orders", Kind::Table, &[("title", FieldType::Text), ("n", FieldType::Int)]);
        for collection in [vitals, orders] {
            let schema = opened.store.create_collection(opened.project, collection).await.unwrap();
            opened.schema.send_replace(Arc::new(schema));
        }
        Self { desk, opened: Arc::new(opened), clock, _folder: folder, _database: database }
    }

    fn inbox(&self) -> Inbox {
        Inbox { desk: Arc::clone(&self.desk), opened: Arc::clone(&self.opened), clock: self.clock, merges: None }
    }

    /// A hub that has just started, and has the turn.
    async fn hub(&self) -> HubTaker {
        let hub = HubTaker::new(self.inbox(), true).unwrap();
        hub.turn().await.unwrap();
        hub
    }

    async fn count(&self, collection: &str) -> usize {
        let schema = Arc::clone(&self.opened.schema.borrow());
        let select = Select::all(self.opened.project, Arc::clone(schema.shared(collection).unwrap()));
        self.opened.store.select(select).await.unwrap().rows.len()
    }
}

/// A message, by its packet id; a negative one is a repeat.
fn message((packet, topic, payload): &(i32, &str, &str)) -> Arrival {
    let delivery = Delivery { packet: u16::try_from(packet.unsigned_abs()).unwrap(), is_repeat: *packet < 0 };
    Arrival {
        topic: (*topic).to_owned(),
        payload: payload.as_bytes().to_vec(),
        delivery: (*packet != 0).then_some(delivery),
        is_retained: false,
        rows: Rules::parse(RULES).unwrap().take(topic, payload.as_bytes(), None),
    }
}

/// Rows, refused and repeats.
async fn take(hub: &HubTaker, forget: u64, messages: &[(i32, &str, &str)]) -> (u64, u64, u64) {
    let tally = hub.take(messages.iter().map(message).collect(), forget).await.unwrap();
    (tally.rows, tally.refused, tally.repeats)
}

async fn a_repeat_is_known_also_by_the_hub_that_starts_next(bench: &Bench) {
    let hub = bench.hub().await;
    let messages = [(1, "t/a", "1"), (2, "t/a", "2"), (0, "t/a", "3"), (3, "orders/x", r#"{"title":"pump"}"#)];
    assert_eq!(take(&hub, 0, &messages).await, (4, 0, 0));
    let next = bench.hub().await;
    let again = [(-1, "t/a", "1"), (-2, "t/a", "2"), (-3, "orders/x", r#"{"title":"pump"}"#), (-4, "t/a", "4"), (-4, "t/a", "4")];
    assert_eq!(take(&next, 0, &again).await, (1, 0, 4));
    // Another message under a packet id that was used before; the same under another; and the same again, that is no repeat.
    assert_eq!(take(&next, 0, &[(1, "t/a", "5"), (5, "t/a", "2"), (-2, "t/b", "2"), (2, "t/b", "2")]).await, (4, 0, 0));
    let remembered = next.take(Vec::new(), 0).await.unwrap().remembered;
    assert_eq!(take(&next, remembered, &[(-5, "t/a", "2")]).await, (1, 0, 0), "a broker that knows repeats only what is new");
    next.forget_deliveries().await.unwrap();
    assert_eq!(take(&bench.hub().await, 0, &[(-5, "t/a", "2")]).await, (1, 0, 0));
    assert_eq!((bench.count("vitals").await, bench.count("orders").await), (10, 1));
}

async fn what_cannot_be_taken_is_kept_aside_and_harms_no_neighbour(bench: &Bench) {
    let hub = bench.hub().await;
    let mut bad = message(&(5, "orders/y", r#"{"title":"b"}"#));
    // The rule names a field that the collection has not: only the merge finds that.
    bad.rows = Rules::parse("orders/{id} -> orders id={id} nothing=$.title").unwrap().take(&bad.topic, &bad.payload, None);
    let mut messages: Vec<Arrival> = [(1, "t/a", "1"), (2, "t/a", "broken"), (3, "t/a", "{\"x\":")].iter().map(message).collect();
    messages.extend([message(&(4, "orders/x", r#"{"title":"a","n":1}"#)), bad.clone(), message(&(6, "orders/x", r#"{"n":2}"#))]);
    let tally = hub.take(messages, 0).await.unwrap();
    assert_eq!((tally.rows, tally.refused), (3, 3));
    let desk = bench.inbox().desk;
    let aside = refused::list(&*desk, None, 10).await.unwrap();
    let topics: Vec<&str> = aside.iter().map(|message| message.topic.as_str()).collect();
    assert_eq!(topics, ["orders/y", "t/a", "t/a"], "the newest first");
    assert!(aside[0].why.contains("nothing"), "{}", aside[0].why);
    // They are acknowledged as well, so that they never come again.
    bad.delivery = Some(Delivery { packet: 5, is_repeat: true });
    assert_eq!(bench.hub().await.take(vec![bad], 0).await.unwrap().repeats, 1);
    let rows = aside[0].rows(&Rules::parse(RULES).unwrap()).unwrap();
    assert_eq!(refused::retry(&bench.inbox(), aside[0].n, rows.clone()).await, Ok(1));
    assert!(refused::retry(&bench.inbox(), aside[0].n, rows).await.is_err(), "it is taken once");
    refused::let_go(&*desk, aside[1].n).await.unwrap();
    assert_eq!(refused::count(&*desk).await, Ok(1));
    assert_eq!(bench.count("orders").await, 2);
}

/// What broke: one message that the database did not take came again and again, and nothing behind it was heard any more.
async fn what_somebodys_own_index_refuses_stops_nobody(bench: &Bench) {
    let unique = Statement::new("CREATE UNIQUE INDEX one_title ON orders(title)", []);
    bench.desk.run(vec![unique]).await.unwrap();
    let hub = bench.hub().await;
    let (x, y) = ((1, "orders/x", r#"{"title":"a"}"#), (2, "orders/y", r#"{"title":"a"}"#));
    assert_eq!(take(&hub, 0, &[x, y, (3, "t/a", "1")]).await, (2, 1, 0));
    assert_eq!(take(&hub, 0, &[(-2, y.1, y.2), (4, "t/a", "2")]).await, (1, 0, 1), "it is put aside, and never comes again");
    assert_eq!((bench.count("orders").await, bench.count("vitals").await), (1, 2));
    let aside = refused::list(&*bench.inbox().desk, None, 10).await.unwrap();
    assert_eq!(aside.iter().map(|message| message.topic.as_str()).collect::<Vec<_>>(), ["orders/y"]);
}

/// What broke: a connection that never lived long enough for the broker's answer to a ping made the memory longer with each message.
async fn memory_is_no_longer_than_packet_ids(bench: &Bench) {
    let hub = bench.hub().await;
    for n in 0..50 {
        assert_eq!(take(&hub, 0, &[(1 + n % 2, "t/a", &n.to_string())]).await, (1, 0, 0));
    }
    let rows = Statement::new("SELECT n FROM mobo_ingest_taken", []);
    let Ok(Outcome::Done(done)) = bench.desk.run(vec![rows]).await else { panic!("it can be read") };
    assert!(done[0].rows.len() <= 3, "{} rows for two packet ids", done[0].rows.len());
    assert_eq!(take(&bench.hub().await, 0, &[(-2, "t/a", "49"), (-1, "t/a", "48")]).await, (0, 0, 2));
}

async fn what_a_broker_has_kept_is_taken_once(bench: &Bench) {
    let hub = bench.hub().await;
    let kept = |title: &str| Arrival { is_retained: true, ..message(&(0, "orders/x", &format!(r#"{{"title":"{title}"}}"#))) };
    let news = |title: &str| Arrival { is_retained: false, ..kept(title) };
    for (next, (rows, repeats)) in [(kept("1"), (1, 0)), (news("2"), (1, 0)), (kept("2"), (0, 1)), (kept("3"), (1, 0)), (news("3"), (1, 0))]
    {
        let shown = format!("{next:?}");
        let tally = hub.take(vec![next], 0).await.unwrap();
        assert_eq!((tally.rows, tally.repeats), (rows, repeats), "{shown}");
    }
    assert_eq!(bench.hub().await.take(vec![kept("3")], 0).await.unwrap().repeats, 1, "also after a restart");
}

async fn a_hub_that_has_lost_its_turn_commits_nothing(bench: &Bench) {
    let [first, second] = [0, 1].map(|_| HubTaker::new(bench.inbox(), false).unwrap());
    first.turn().await.unwrap();
    assert!(!second.ask_turn().await.unwrap(), "it is the first one's turn");
    assert_eq!(take(&first, 0, &[(1, "t/a", "1")]).await, (1, 0, 0));
    // It stands still for longer than its turn lasts, with a message in its hands.
    let over = Statement::new("UPDATE mobo_ingest SET until_us = 0", []);
    bench.desk.run(vec![over]).await.unwrap();
    second.turn().await.unwrap();
    let late = first.take(vec![message(&(2, "t/a", "2"))], 0).await;
    assert!(matches!(&late, Err(StoreError::Unavailable(why)) if why.contains("another hub")), "{late:?}");
    assert!(first.forget_deliveries().await.is_err());
    assert_eq!(take(&second, 0, &[(-1, "t/a", "1"), (-2, "t/a", "2")]).await, (1, 0, 1));
    second.end().await;
    first.turn().await.unwrap();
    assert_eq!(take(&first, 0, &[(-2, "t/a", "2")]).await, (0, 0, 1), "it knows what the other one has taken");
    assert_eq!(bench.count("vitals").await, 2);
}

/// Goal: what each of these says holds on SQLite and on Postgres.
async fn all(bench: impl AsyncFn() -> Bench) {
    a_repeat_is_known_also_by_the_hub_that_starts_next(&bench().await).await;
    what_cannot_be_taken_is_kept_aside_and_harms_no_neighbour(&bench().await).await;
    what_somebodys_own_index_refuses_stops_nobody(&bench().await).await;
    memory_is_no_longer_than_packet_ids(&bench().await).await;
    what_a_broker_has_kept_is_taken_once(&bench().await).await;
    a_hub_that_has_lost_its_turn_commits_nothing(&bench().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_counts_once_on_sqlite() {
    all(Bench::on_sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_counts_once_on_postgres() {
    all(Bench::on_postgres).await;
}
