//! What a device has made itself comes back by name, from a real hub on each of its stores.
//!
//! Method: a device of the tests' own pulls the same page twice, spelled out and by name, and makes what is named of its entries.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::wildcard_enum_match_arm, reason = "a test: the panic is the report")]

use mobo_core::author::Intent;
use mobo_core::entry::Payload;
use mobo_core::ids::{BucketId, Lane, Mac, Position, RecordKey, StateHash};
use mobo_core::link::{Channel, Link};
use mobo_core::message::{Ack, Batch, ItemBody, Message, Pull};
use mobo_core::table::own::{OwnEntry, OwnLog, Sameness};
use mobo_core::time::Eff;
use mobo_tests::cluster::{Cluster, Place};
use mobo_tests::wire::{WireDevice, dial, next, send};
use serde_json::json;

#[test]
fn r14_own_rows_come_back_by_name_from_sqlite() {
    come_back(Place::Sqlite);
}

#[test]
fn r14_own_rows_come_back_by_name_from_postgres() {
    come_back(Place::Postgres);
}

fn come_back(place: Place) {
    let cluster = Cluster::boot(place);
    cluster.create(&[&["work_orders", "title:text", "hours:float", "visits:counter"]]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut other = WireDevice::enrol(&cluster.invite("other")).await.unwrap();
        let session = other.connect().await.unwrap();
        other.write("work_orders", Intent::Put, ("theirs", json!({"title": "not mine"})));
        session.push(other.push(Lane::State, 1)).await.unwrap();
        session.close().await;
        let mut device = WireDevice::enrol(&cluster.invite("pump")).await.unwrap();
        device.connect().await.unwrap().close().await;
        for (id, fields) in [("w-1", json!({"title": "oil", "hours": 1.5})), ("w-2", json!({"visits": 3})), ("w-3", json!({"title": "Öl"}))]
        {
            device.write("work_orders", Intent::Put, (id, fields));
        }
        device.write("work_orders", Intent::Patch, ("w-3", json!({"title": "twice written"})));
        compare(&device).await;
    });
    cluster.healthy();
}

/// Pushes all that the device has, pulls it in both ways, and makes it.
async fn compare(device: &WireDevice) {
    let link = dial(&device.token).await;
    let hello = device.sign(device.hello(), &link.binding());
    send(link.as_ref(), Channel::Control, &Message::Hello(Box::new(hello))).await.unwrap();
    let Message::Welcome(welcome) = next(link.as_ref()).await.unwrap() else { panic!("it is not let in") };
    send(link.as_ref(), Channel::Lane(Lane::State), &Message::Push(device.push(Lane::State, 1))).await.unwrap();
    let ack = acked(link.as_ref()).await;
    let bucket = welcome.grants[0].bucket;
    let spelled = pull(link.as_ref(), (1, bucket), false).await;
    let named = pull(link.as_ref(), (2, bucket), true).await;
    assert_eq!((spelled.items.len(), &spelled.own), (4, &None), "as ever to who did not ask for names");
    let ids: Vec<&str> = named.items.iter().map(|item| item.id.as_str()).collect();
    assert_eq!(ids, ["theirs", "w-3"]);
    let own = named.own.unwrap();
    let log = OwnLog { device: device.keys.device(), incarnation: own.incarnation, ordinal: welcome.ordinal };
    assert_eq!((own.incarnation, own.rows()), (device.incarnation, 2));
    let (mut sameness, mut macs): (Sameness, Vec<Mac>) = (Sameness::default(), Vec::new());
    for run in &own.runs {
        let nth = usize::try_from(run.seq.get() - 1).unwrap();
        let Payload::Present(payload) = &device.sealed[&Lane::State][nth].payload else { panic!() };
        let entry = OwnEntry { log, counts_under: log.incarnation, seq: run.seq, eff: ack.effs[nth], before: Eff(i64::MIN), payload };
        for made in entry.rows(&[run.op]).unwrap() {
            let sent = spelled.items.iter().find(|item| item.id == made.key.id).unwrap();
            assert!(matches!(&sent.body, ItemBody::State { bytes, .. } if *bytes == made.bytes), "{}", made.key.id.as_str());
            assert_eq!(sent.ver, run.ver);
            macs.push(sent.mac);
            let key = RecordKey { collection: sent.collection, id: sent.id.clone() };
            sameness.add(&key, StateHash(made.state_hash().0));
        }
    }
    assert_eq!(sameness.finish(), own.sameness);
    assert_eq!(macs, own.runs.iter().flat_map(|run| run.macs.clone()).collect::<Vec<_>>());
    link.close("done").await;
}

async fn acked(link: &dyn Link) -> Ack {
    loop {
        if let Message::Ack(ack) = next(link).await.unwrap() {
            return ack;
        }
    }
}

async fn pull(link: &dyn Link, (pull, bucket): (u64, BucketId), takes_own: bool) -> Batch {
    let message = Pull { pull, wants: vec![(bucket, Position(0))], credit_bytes: 1 << 20, live: false, takes_own };
    send(link, Channel::Control, &Message::Pull(message)).await.unwrap();
    loop {
        match next(link).await.unwrap() {
            Message::Batch(batch) if batch.pull == pull => return batch,
            _ => {}
        }
    }
}
