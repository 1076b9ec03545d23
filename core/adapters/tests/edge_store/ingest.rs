//! Messages of plain sensors: each once, whatever the broker repeats; what cannot be taken is kept aside and harms no neighbour.

use mobo_core::ingest::{Arrival, Delivery, Rules, Tally};
use mobo_core::limits;
use serde_json::json;

use crate::world::{Device, World};

const RULES: &str = "t/{id} -> vitals cpu=$\norders/{id} -> orders id={id} title=$.title n=$.n";

/// A message, by its packet id; a negative one is a repeat, 0 wants no acknowledgement.
fn message(packet: i32, topic: &str, payload: &str) -> Arrival {
    let delivery = Delivery { packet: u16::try_from(packet.unsigned_abs()).unwrap(), is_repeat: packet < 0 };
    Arrival {
        topic: topic.to_owned(),
        payload: payload.as_bytes().to_vec(),
        delivery: (packet != 0).then_some(delivery),
        is_retained: false,
        rows: Rules::parse(RULES).unwrap().take(topic, payload.as_bytes(), None),
    }
}

async fn ingest(device: &Device, forget: u64, messages: &[(i32, &str, &str)]) -> Tally {
    let arrivals = messages.iter().map(|(packet, topic, payload)| message(*packet, topic, payload)).collect();
    device.store.ingest(arrivals, forget).await.unwrap().tally
}

#[tokio::test]
async fn a_repeat_is_known_as_long_as_the_broker_may_send_it() {
    let world = World::new().await;
    let mut device = world.device("a", &["all"]).await;
    let first = ingest(&device, 0, &[(1, "t/a", "1"), (2, "t/a", "2"), (0, "t/a", "3"), (3, "orders/x", r#"{"title":"pump"}"#)]).await;
    assert_eq!((first.rows, first.refused, first.repeats, first.remembered), (4, 0, 0, 3));
    device.reopen();
    // What was taken before the power cut comes again, and one that was on its way.
    let again = [(-1, "t/a", "1"), (-2, "t/a", "2"), (-3, "orders/x", r#"{"title":"pump"}"#), (-4, "t/a", "4")];
    let again = ingest(&device, 0, &again).await;
    assert_eq!((again.rows, again.repeats), (1, 3));
    // Another message under a packet id that was used before; and the same message under another.
    let more = ingest(&device, 0, &[(1, "t/a", "5"), (5, "t/a", "2"), (-2, "t/b", "2")]).await;
    assert_eq!((more.rows, more.repeats), (3, 0));
    // A broker that knows the acknowledgement sends a repeat of a new message only.
    let forgotten = ingest(&device, more.remembered, &[(-5, "t/a", "2")]).await;
    assert_eq!((forgotten.rows, forgotten.repeats), (1, 0));
    device.store.forget_deliveries().await.unwrap();
    assert_eq!(device.count("SELECT count(*) FROM mobo_ingest_taken"), 0);
    assert_eq!(device.rows(&world, "vitals").await.len(), 8);
    device.is_sound().await;
    device.sync(&world).await;
    assert_eq!((world.rows("vitals").await.len(), world.rows("orders").await.len()), (8, 1));
}

#[tokio::test]
async fn what_cannot_be_taken_is_kept_aside_and_harms_no_neighbour() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    let messages = [
        (1, "t/a", "1"),
        (2, "t/a", "broken"),
        (3, "t/a", "{\"x\":"),
        (4, "orders/x", r#"{"title":"a","n":1}"#),
        (5, "orders/y", r#"{"title":"b","n":"none"}"#),
        (6, "orders/x", r#"{"n":2}"#),
    ];
    let done = ingest(&device, 0, &messages).await;
    assert_eq!((done.rows, done.refused), (3, 3));
    let row = device.row(&world, "orders", "x").await;
    assert_eq!((&row["title"], &row["n"]), (&json!("a"), &json!(2)), "in their order");
    let aside = device.store.refused_messages(None, 10).await.unwrap();
    let shown: Vec<(&str, &[u8])> = aside.iter().map(|message| (message.topic.as_str(), message.payload.as_slice())).collect();
    assert_eq!(shown, [("orders/y", &br#"{"title":"b","n":"none"}"#[..]), ("t/a", b"{\"x\":"), ("t/a", b"broken")]);
    assert!(aside[0].why.contains("field \"n\""), "{}", aside[0].why);
    // They are acknowledged as well, so that they never come again.
    assert_eq!(ingest(&device, 0, &[(-2, "t/a", "broken")]).await.repeats, 1);
    let mended = Rules::parse("orders/{id} -> orders id={id} title=$.title").unwrap();
    let rows = mended.take(&aside[0].topic, &aside[0].payload, None).unwrap();
    assert_eq!(device.store.retry_refused_message(aside[0].n, rows).await.unwrap(), 1);
    assert!(device.store.drop_refused_message(aside[1].n).await.unwrap());
    assert_eq!(device.store.refused_messages_count().await.unwrap(), 1);
    assert_eq!(device.row(&world, "orders", "y").await["title"], "b");
    device.sync(&world).await;
}

#[tokio::test]
async fn what_is_kept_aside_is_bounded() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    let long = format!("x{}", " x".repeat(limits::INGEST_KEPT_BYTES_MAX));
    let arrivals = |count: u64| (0..count).map(|_| message(0, "t/a", &long)).collect::<Vec<_>>();
    for _ in 0..4 {
        device.store.ingest(arrivals(limits::INGEST_REFUSED_MAX / 3), 0).await.unwrap();
    }
    assert_eq!(device.store.refused_messages_count().await.unwrap(), limits::INGEST_REFUSED_MAX);
    let last = device.store.refused_messages(None, 1).await.unwrap().remove(0);
    assert_eq!((last.payload.len(), last.bytes), (limits::INGEST_KEPT_BYTES_MAX, long.len() as u64));
}

/// A broker sends what it has kept again at every subscription; that says nothing new over what somebody has written since.
#[tokio::test]
async fn what_a_broker_has_kept_is_taken_once() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    let kept = |payload: &str| Arrival { is_retained: true, ..message(0, "orders/x", payload) };
    let take = async |arrival: Arrival| device.store.ingest(vec![arrival], 0).await.unwrap().tally;
    let title = async || device.row(&world, "orders", "x").await["title"].clone();
    assert_eq!(take(kept(r#"{"title":"21"}"#)).await.rows, 1);
    assert_eq!(take(Arrival { is_retained: false, ..kept(r#"{"title":"22"}"#) }).await.rows, 1);
    let again = take(kept(r#"{"title":"22"}"#)).await;
    assert_eq!((again.rows, again.repeats), (0, 1));
    // What came while nobody was listening is news, and so is a message that says the same anew.
    assert_eq!(take(kept(r#"{"title":"23"}"#)).await.rows, 1);
    assert_eq!(title().await, "23");
    assert_eq!(take(message(0, "orders/x", r#"{"title":"23"}"#)).await.rows, 1);
    // Other rules make something else of it.
    let other = Rules::parse("orders/{id} -> orders id={id} note=$.title").unwrap();
    let rows = other.take("orders/x", br#"{"title":"23"}"#, None);
    let before = take(Arrival { rows: rows.clone(), ..kept(r#"{"title":"23"}"#) }).await;
    assert_eq!((before.rows, before.refused + before.repeats), (0, 1), "there is no such field, which is said once");
    assert_eq!(take(Arrival { rows, ..kept(r#"{"title":"23"}"#) }).await.repeats, 1);
    assert_eq!(device.count("SELECT count(*) FROM mobo_ingest_said"), 1);
}
