use std::path::Path;

use mobo_adapters::sqlite::SqliteHubStore;
use mobo_core::cbor::Writer;
use mobo_core::ids::{BucketId, CollectionId, FieldId, Lane, Ordinal, RecordId, RecordKey, Seq, Ver};
use mobo_core::message::{Definition, Item, ItemBody, Offer};
use mobo_core::record::RecordState;
use mobo_core::schema::{Collection, Field, FieldType, Kind};
use mobo_core::stamp::Stamp;
use mobo_core::table::TableState;
use mobo_core::time::Eff;
use mobo_runtime::clock::Clock;

use super::*;
use crate::node::Opened;

const YEAR_US: u64 = 365 * 86_400_000_000;

fn orders() -> Collection {
    let field = Field { id: FieldId::new(1).unwrap(), name: "title".to_owned(), kind: FieldType::Text, retired: false, references: None };
    Collection {
        id: CollectionId::new(1).unwrap(),
        name: "orders".to_owned(),
        kind: Kind::Table,
        rev: 1,
        fields: vec![field],
        rules: Vec::new(),
        lane: Lane::State,
        store: "default".to_owned(),
    }
}

/// A new hub in this folder.
async fn a_hub(folder: &Path) -> Opened {
    let store: Arc<dyn HubStore> = Arc::new(SqliteHubStore::open(&folder.join("hub.db")).unwrap());
    crate::node::assemble(store, &KeyPair::from_secret(&[7; 32]), Arc::new(Clock::start().unwrap())).await.unwrap()
}

/// What broke: a hub whose wall clock had been ahead was restored, and a device gave back a row that was written then. Whatever was written into
/// it after that lost to it, until the hub's time was there again.
// faults: H-5
#[tokio::test]
async fn r6_time_goes_on_above_what_devices_give_back() {
    let folder = tempfile::tempdir().unwrap();
    let opened = a_hub(folder.path()).await;
    let (project, orders) = (opened.project, orders());
    let schema = opened.store.create_collection(project, orders.clone()).await.unwrap();
    opened.schema.send_replace(Arc::new(schema));

    let start = || async {
        HubTime::start(Arc::new(Clock::start().unwrap()), Arc::clone(&opened.store), opened.store.current().await.unwrap().time)
            .await
            .unwrap()
    };
    let beside = start().await;
    let (before, lost) = (opened.time.now(), opened.history.era().timeline.timeline);
    opened.history.fork(lost, Vec::new()).await.unwrap();
    let leapt = opened.time.now();
    assert!(leapt >= before.plus(60_000_000), "a new timeline begins above what a lost hub may have said: {before:?}, {leapt:?}");

    let written = leapt.plus(YEAR_US);
    let offer = |eff: Eff, forged: bool| {
        let device = DeviceId([9; 16]);
        let put = Some(Stamp { eff, device, ordinal: Ordinal(1), seq: Seq::new(1).unwrap(), op: 0 });
        let state = RecordState::Table(TableState { put, ..TableState::default() });
        let key = RecordKey { collection: orders.id, id: RecordId::new("o").unwrap() };
        let mac = opened.history.era().identity.offer.row(project, &key, (lost, Ver(u64::from(!forged))), state.state_hash());
        let (epoch, bytes) = state.encode();
        let item = Item { collection: key.collection, id: key.id, ver: Ver(1), body: ItemBody::State { epoch, bytes }, mac };
        (device, Offer { bucket: BucketId::new(1).unwrap(), timeline: lost, rows: vec![item], more: false })
    };
    for (eff, forged, joined) in [(written.plus(YEAR_US), true, 0), (before, false, 1)] {
        let (device, offer) = offer(eff, forged);
        assert_eq!(opened.history.join(device, offer, &[]).await.unwrap().joined, joined);
        assert!(opened.time.now() < leapt.plus(YEAR_US / 2), "time follows no forged row, and none of the past");
    }
    let (device, offer) = offer(written, false);
    assert_eq!(opened.history.join(device, offer, &[]).await.unwrap().joined, 1);
    assert!(opened.time.now() > written);
    assert!(beside.now() < written);
    beside.reserve().await.unwrap();
    assert!(beside.now() > written, "another hub of the store goes on from there, too");
    assert!(start().await.now() > written, "and so does one that starts anew");
    // Who finds it out later begins no timeline, and moves no time.
    let (era, now) = (opened.history.era(), opened.time.now());
    opened.history.fork(lost, Vec::new()).await.unwrap();
    assert_eq!(opened.history.era().timeline, era.timeline);
    assert!(opened.time.now() < now.plus(30_000_000));
}

/// What broke: the hub tried the timelines that it knew of, and the one of the offer. What it had delivered on another, which it had forgotten
/// when it went back a second time, it refused.
#[tokio::test]
async fn r19_a_row_bears_any_timeline_that_its_device_has_named() {
    let folder = tempfile::tempdir().unwrap();
    let opened = a_hub(folder.path()).await;
    let (project, device, orders) = (opened.project, DeviceId([9; 16]), orders());
    let schema = opened.store.create_collection(project, orders.clone()).await.unwrap();
    opened.schema.send_replace(Arc::new(schema));
    let (delivered_on, left_on) = (Timeline([5; 16]), Timeline([6; 16]));
    let put = Some(Stamp { eff: Eff(1), device, ordinal: Ordinal(1), seq: Seq::new(1).unwrap(), op: 0 });
    let state = RecordState::Table(TableState { put, ..TableState::default() });
    let key = RecordKey { collection: orders.id, id: RecordId::new("o").unwrap() };
    let mac = opened.history.era().identity.offer.row(project, &key, (delivered_on, Ver(1)), state.state_hash());
    let (epoch, bytes) = state.encode();
    let item = Item { collection: key.collection, id: key.id, ver: Ver(1), body: ItemBody::State { epoch, bytes }, mac };
    let offer = Offer { bucket: BucketId::new(1).unwrap(), timeline: left_on, rows: vec![item], more: false };
    for (named, want) in [(&[left_on][..], 0), (&[left_on, delivered_on], 1)] {
        assert_eq!(opened.history.join(device, offer.clone(), named).await.unwrap().joined, want, "{named:?}");
    }
}

/// What broke: a device that had a collection of a timeline that the hub has forgotten, and neither an ack nor a checkpoint of it to show, was told
/// that the hub could not take the collection back. Its entries were refused after that, and so were its rows.
#[tokio::test]
async fn r18_a_definition_bears_any_timeline_that_its_device_has_named() {
    let folder = tempfile::tempdir().unwrap();
    let opened = a_hub(folder.path()).await;
    let (delivered_on, left_on) = (Timeline([5; 16]), Timeline([6; 16]));
    let mut writer = Writer::new();
    orders().encode(&mut writer);
    let bytes = writer.into_bytes();
    let mac = opened.history.era().identity.offer.schema(opened.project, orders().id, delivered_on, &bytes);
    let definitions = vec![Definition { bytes, collection: Some(orders()), mac }];
    let update = SchemaUpdate { timeline: left_on, rev: 1, definitions, more: false };
    for (named, taken) in [(&[left_on][..], false), (&[left_on, delivered_on], true)] {
        let refused = opened.history.adopt(update.clone(), named).await.unwrap();
        assert_eq!((refused.is_none(), opened.schema.borrow().get(orders().id).is_some()), (taken, taken), "{named:?}: {refused:?}");
    }
}
