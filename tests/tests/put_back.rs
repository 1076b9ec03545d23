//! A device whose folder was put back to what it was some sessions ago.
//!
//! What broke: the hub ordered a new log, as it should; the device, whose folder remembers an old session whatever its log, came back with
//! the new log and was sent away again, for ever. The simulated world found it in its first ten seeds.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::wildcard_enum_match_arm, reason = "a test: the panic is the report")]

use mobo_core::author::Intent;
use mobo_core::ids::{Incarnation, Lane, Seq};
use mobo_core::message::{Message, Parent, RefenceReason};
use mobo_tests::cluster::{Cluster, Place};
use mobo_tests::wire::{WireDevice, dial, next, random, send};
use serde_json::json;

// faults: I-3
#[test]
fn a_device_that_was_put_back_by_several_sessions_is_let_in_with_its_new_log() {
    let cluster = Cluster::boot(Place::Sqlite);
    cluster.create(&[&["work_orders", "title:text"]]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut device = WireDevice::enrol(&cluster.invite("pump")).await.unwrap();
        let session = device.connect().await.unwrap();
        device.write("work_orders", Intent::Put, ("w-1", json!({"title": "oil the pump"})));
        session.push(device.push(Lane::State, 1)).await.unwrap();
        session.close().await;
        let mut put_back = device.clone();
        for _ in 0..3 {
            device.connect().await.unwrap().close().await;
        }
        // The log as it was: a new one is due.
        let link = dial(&put_back.token).await;
        let hello = put_back.sign(put_back.hello(), &link.binding());
        send(link.as_ref(), mobo_core::link::Channel::Control, &Message::Hello(Box::new(hello))).await.unwrap();
        let Message::Refence(refence) = next(link.as_ref()).await.unwrap() else { panic!("a copy of an old session is let in") };
        assert_eq!(refence.reason, RefenceReason::StaleSession);
        // The new log, with the session that the folder remembers.
        let (old, seq) = (put_back.incarnation, refence.hub_last);
        put_back.incarnation = Incarnation::from_entropy(random());
        put_back.sealed.clear();
        let link = dial(&put_back.token).await;
        let hello = mobo_core::message::Hello { parent: Some(Parent { incarnation: old, seq }), ..put_back.hello() };
        let hello = put_back.sign(hello, &link.binding());
        let session = put_back.greet(link, hello).await.expect("its new log has no entry that could be behind");
        put_back.write("work_orders", Intent::Put, ("w-2", json!({"title": "after the restore"})));
        let pushed = session.push(put_back.push(Lane::State, 1)).await.unwrap();
        assert_eq!(pushed.rejects.len(), 0);
        assert_eq!(pushed.ack.acked, Seq::FIRST);
    });
    cluster.healthy();
}
