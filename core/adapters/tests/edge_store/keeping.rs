//! Acks, and what is kept past them (R7, R17, R21).

use mobo_adapters::sqlite::edge::{Acknowledged, Keep, Pending};
use mobo_core::author::Intent;
use mobo_core::ids::{Chain, Lane};
use mobo_core::message::Ack;
use serde_json::json;

use crate::world::{Device, World, seq};

const NOTHING: Keep = Keep { age_us: u64::MAX, bytes_max: 0 };
const ALL: Keep = Keep { age_us: u64::MAX, bytes_max: u64::MAX };

async fn write_and_push(world: &World, device: &Device, entries: u64) -> Ack {
    for n in 0..entries {
        device.write(world, "orders", Intent::Put, "o", json!({ "n": n })).await;
    }
    device.push(world, Lane::State, device.acked(Lane::State).await, 50).await.unwrap().ack
}

#[tokio::test]
async fn r7_acks_move_forward_only_and_keep_what_the_hub_decided() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    let ack = write_and_push(&world, &device, 3).await;
    let old = Ack {
        acked: seq(2),
        chain: device.outgoing(Lane::State, None, 2).await.unwrap().head_chain,
        effs: ack.effs[..2].to_vec(),
        ..ack.clone()
    };
    let cases = [
        (ack.clone(), Acknowledged::Advanced),
        (ack.clone(), Acknowledged::Known),
        (old, Acknowledged::Known),
        (Ack { acked: seq(9), ..ack.clone() }, Acknowledged::Foreign),
        (Ack { chain: Chain([0; 32]), ..ack.clone() }, Acknowledged::Foreign),
        (Ack { lane: Lane::Events, ..ack.clone() }, Acknowledged::Foreign),
    ];
    for (ack, want) in cases {
        assert_eq!(device.store.acked(ack, ALL).await.unwrap(), want);
        assert_eq!(device.acked(Lane::State).await, Some(seq(3)));
    }
    let again = device.outgoing(Lane::State, None, 50).await.unwrap();
    assert_eq!(again.entries.iter().map(|entry| entry.eff.unwrap()).collect::<Vec<_>>(), ack.effs);
    // A push of what is known is answered with the same decisions.
    assert_eq!(device.push(&world, Lane::State, Some(seq(1)), 50).await.unwrap().ack.effs, ack.effs[1..]);
    let proof = device.store.report().await.unwrap().lanes[0].proof.unwrap();
    assert_eq!((proof.acked, proof.chain, proof.timeline), (seq(3), ack.chain, world.timeline));
}

/// The welcome after a lost ack says that the hub has the entries, not what it decided: they are pushed again, and answered alike.
#[tokio::test]
async fn r7_a_lost_ack_is_made_up_for() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    let first = write_and_push(&world, &device, 2).await;
    device.store.acked(first, ALL).await.unwrap();
    let lost = write_and_push(&world, &device, 3).await;
    device.append(&world, &[0.5; 10]).await;
    let lost_samples = device.push(&world, Lane::Telemetry, None, 50).await.unwrap().ack;
    let rows = world.rows("vitals").await;
    device.write(&world, "orders", Intent::Put, "o", json!({ "n": 9 })).await;
    let admitted = device.hello(&world).await;
    assert_eq!(admitted.undecided, [(Lane::State, seq(3)), (Lane::Telemetry, seq(1))]);
    for (lane, from) in admitted.undecided {
        let after = mobo_core::ids::Seq::new(from.get() - 1);
        let answer = device.push(&world, lane, after, 50).await.unwrap();
        device.take(answer).await;
    }
    let kept = device.outgoing(Lane::State, Some(seq(2)), 50).await.unwrap();
    let effs: Vec<_> = kept.entries.iter().map(|entry| entry.eff.unwrap()).collect();
    assert_eq!(effs[..3], lost.effs, "what the hub decided first");
    let samples = device.outgoing(Lane::Telemetry, None, 50).await.unwrap();
    assert_eq!(samples.entries[0].eff, Some(lost_samples.effs[0]));
    assert_eq!(device.rows(&world, "vitals").await.len(), rows.len());
    assert_eq!(device.hello(&world).await.undecided, [], "nothing is pushed twice for nothing");
    device.sync(&world).await;
    assert_eq!(world.rows("vitals").await, rows, "and nothing was merged twice");
}

/// A welcome that says more than the last ack moves what is acknowledged, not the proof: that stays with the position that was signed.
#[tokio::test]
async fn r17_a_proof_is_reported_with_the_position_that_it_is_of() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    let first = write_and_push(&world, &device, 2).await;
    device.store.acked(first.clone(), ALL).await.unwrap();
    let lost = write_and_push(&world, &device, 3).await;
    assert_eq!(device.hello(&world).await.forked, None);
    assert_eq!(device.acked(Lane::State).await, Some(seq(5)), "the welcome says what the lost ack would have");
    for (late, want) in [(None, &first), (Some(&lost), &lost)] {
        if let Some(ack) = late {
            device.store.acked(ack.clone(), ALL).await.unwrap();
        }
        let proof = device.store.report().await.unwrap().lanes[0].proof.unwrap();
        assert_eq!((proof.acked, proof.chain, proof.signature), (want.acked, want.chain, want.signature));
        let chain = device.outgoing(Lane::State, None, usize::try_from(proof.acked.get()).unwrap()).await.unwrap().head_chain;
        assert_eq!(proof.chain, chain, "the chain is that of its own position");
    }
}

/// What a push takes is bounded, but never nothing.
#[tokio::test]
async fn pushes_are_cut_to_size() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    for n in 0..5 {
        device.write(&world, "orders", Intent::Put, &format!("o{n}"), json!({"title": "x".repeat(1_000)})).await;
    }
    for (entries_max, bytes_max, want) in [(50, 1 << 20, 5), (2, 1 << 20, 2), (50, 2_500, 2), (50, 1, 1), (0, 1 << 20, 1)] {
        let Pending::Entries(outgoing) = device.store.pending(Lane::State, None, entries_max, bytes_max).await.unwrap() else { panic!() };
        assert_eq!(outgoing.entries.len(), want);
        let behind = device.outgoing(Lane::State, Some(seq(want as u64)), 50).await;
        assert!(behind.is_none_or(|behind| behind.prev_chain == outgoing.head_chain));
    }
    assert_eq!(device.store.pending(Lane::State, Some(seq(5)), 50, 1).await.unwrap(), Pending::Nothing);
    assert_eq!(device.store.pending(Lane::Events, None, 50, 1).await.unwrap(), Pending::Nothing);
}

/// The table of rule R21: with and without a backup, by age and by size, and never what is pending or still shown.
#[tokio::test]
async fn r21_entries_are_kept_past_the_ack() {
    // (safe, keep, delivered) → kept state entries of four, three of which are acknowledged.
    let hour_us = 3_600_000_000;
    let cases = [
        (None, ALL, true, 4),
        (None, NOTHING, true, 1),
        (None, NOTHING, false, 4),
        (Some(2), NOTHING, true, 2),
        (Some(3), NOTHING, true, 1),
        (None, Keep { age_us: hour_us, bytes_max: u64::MAX }, true, 4),
        (None, Keep { age_us: 1, bytes_max: u64::MAX }, true, 2),
        (Some(1), Keep { age_us: 1, bytes_max: u64::MAX }, true, 3),
    ];
    for (safe, keep, delivered, want) in cases {
        let world = World::new().await;
        let device = world.device("a", &["all"]).await;
        let ack = write_and_push(&world, &device, 3).await;
        if delivered {
            device.catch_up(&world).await;
        }
        device.write(&world, "orders", Intent::Put, "pending", json!({})).await;
        let ack = Ack { safe: safe.map(seq), ..ack };
        device.store.acked(ack.clone(), keep).await.unwrap();
        let counts = device.store.counts().await.unwrap();
        assert_eq!((counts.kept, counts.pending), (want, 1), "{safe:?} {keep:?}");
        let bytes = device.count("SELECT coalesce(sum(length(header) + length(payload)), 0) FROM mobo_outbox");
        assert_eq!(counts.kept_bytes.cast_signed(), bytes);
        device.is_sound().await;
        // Trimmed or not, the log goes on where the hub is.
        device.sync(&world).await;
        let first_kept = 4 - want + 1;
        if first_kept > 1 {
            let pending = device.store.pending(Lane::State, None, 9, 1 << 20).await.unwrap();
            assert_eq!(pending, Pending::Trimmed(seq(first_kept)));
            let outgoing = device.outgoing(Lane::State, Some(seq(first_kept - 1)), 50).await.unwrap();
            assert_eq!(outgoing.entries.len() as u64, want);
        }
    }
}

/// Where room is short, acknowledged samples go before state, even before they are safe.
#[tokio::test]
async fn r21_streams_go_first() {
    let world = World::new().await;
    let device = world.device("a", &["all"]).await;
    let ack = write_and_push(&world, &device, 2).await;
    device.catch_up(&world).await;
    device.store.acked(Ack { safe: Some(seq(1)), ..ack }, ALL).await.unwrap();
    for _ in 0..3 {
        device.append(&world, &[0.5; 100]).await;
    }
    device.push_all(&world).await;
    device.append(&world, &[0.5; 100]).await;
    let rows = device.rows(&world, "vitals").await;
    let kept = |device: &Device, lane: u8| device.count(&format!("SELECT count(*) FROM mobo_outbox WHERE lane = {lane}"));
    assert_eq!((kept(&device, 0), kept(&device, 2)), (2, 4));
    let bytes = device.store.counts().await.unwrap().kept_bytes;
    assert_eq!(device.store.trim(Keep { age_us: u64::MAX, bytes_max: bytes - 1 }).await.unwrap(), 1);
    assert_eq!((kept(&device, 0), kept(&device, 2)), (2, 3));
    assert_eq!(device.store.trim(NOTHING).await.unwrap(), 3);
    assert_eq!((kept(&device, 0), kept(&device, 2)), (1, 1), "not what is pending, nor state that is not safe");
    assert_eq!(device.rows(&world, "vitals").await, rows, "the samples themselves stay");
    device.sync(&world).await;
}
