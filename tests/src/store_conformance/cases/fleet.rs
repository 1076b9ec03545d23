//! The hub's own facts, devices, and keys.

use mobo_core::ids::{BucketId, Incarnation, Lane, Ordinal, Position, ProjectId, PublicKey, Seq, Timeline};
use mobo_core::limits;
use mobo_core::message::{Parent, TimelineInfo, TimelineParent};
use mobo_core::store::{ApiKeyRow, Arrival, DeviceRow, HubRow, Invite, InviteState};
use mobo_core::time::Eff;
use mobo_core::trust::KeyPair;
use serde_json::json;

use crate::store_conformance::world::{START, World};
use crate::store_conformance::{Device, Place};
use mobo_core::author::Intent;

/// A store belongs to one hub, and its time never goes back (R6).
pub async fn hub_and_time_are_kept(place: Box<dyn Place>) {
    let store = place.open().await.unwrap();
    let heads = vec![(BucketId::new(3).unwrap(), Position(9))];
    let parents =
        vec![TimelineParent { timeline: Timeline([1; 16]), heads }, TimelineParent { timeline: Timeline([2; 16]), heads: vec![] }];
    let row = HubRow {
        key: PublicKey([7; 32]),
        incarnation: Incarnation::new(4).unwrap(),
        timeline: TimelineInfo { timeline: Timeline([3; 16]), parents },
        time: Eff(50),
    };
    let project = ProjectId::new(8).unwrap();
    assert_eq!(store.hub(row.clone(), project).await.unwrap(), (row.clone(), project));
    let other = HubRow { key: PublicKey([8; 32]), time: Eff(99), ..row.clone() };
    assert_eq!(store.hub(other.clone(), ProjectId::new(9).unwrap()).await.unwrap(), (row.clone(), project), "the first stays");
    for (until, want) in [(40, 50), (70, 70), (60, 70)] {
        assert_eq!(store.reserve_time(Eff(until)).await.unwrap(), Eff(want));
    }
    store.close().await;
    let store = place.open().await.unwrap();
    assert_eq!(store.hub(other, project).await.unwrap().0, HubRow { time: Eff(70), ..row });
    let info = store.info().await.unwrap();
    assert!(!info.version.is_empty() && !info.place.is_empty() && ["sqlite", "postgres"].contains(&info.kind), "{info:?}");
}

/// An invitation lets one device in, once; the same device may ask again.
pub async fn invitations_are_used_once(place: Box<dyn Place>) {
    let world = World::new(place, 4).await;
    let (store, project, hash) = (&world.store, world.project, [5; 32]);
    let buckets = vec!["all".to_owned(), "site:a".to_owned()];
    let claims = vec![("site".to_owned(), "plant-4".to_owned()), ("site".to_owned(), "plant \"5\"".to_owned())];
    let expires = Eff(START + 100);
    let invite = Invite { secret_hash: hash, name: "pi".to_owned(), buckets: buckets.clone(), claims: claims.clone(), expires };
    store.invite(project, invite.clone()).await.unwrap();
    let state = |hash, now| store.invite_state(project, hash, Eff(now));
    assert_eq!(state(hash, START).await.unwrap(), InviteState::Open(invite.clone()));
    assert_eq!(state(hash, START + 100).await.unwrap(), InviteState::Expired);
    assert_eq!(state([6; 32], START).await.unwrap(), InviteState::Unknown);

    let row = |byte: u8| DeviceRow { claims: claims.clone(), ..Device::row(&KeyPair::from_secret(&[byte; 32]), "pi", &buckets) };
    let (one, two) = (row(1), row(2));
    let enrol = |hash, device: &DeviceRow| store.enrol(project, hash, device.clone());
    let late = DeviceRow { enrolled: Eff(START + 100), ..one.clone() };
    assert_eq!(enrol(hash, &late).await.unwrap(), InviteState::Expired);
    assert_eq!(enrol([6; 32], &one).await.unwrap(), InviteState::Unknown);
    assert_eq!(store.device(project, one.id).await.unwrap(), None, "nothing has happened");
    assert_eq!(enrol(hash, &one).await.unwrap(), InviteState::Open(invite.clone()), "as it was found");
    assert_eq!(enrol(hash, &one).await.unwrap(), InviteState::Used(one.id));
    assert_eq!(enrol(hash, &two).await.unwrap(), InviteState::Used(one.id));
    assert_eq!(state(hash, START + 100).await.unwrap(), InviteState::Used(one.id));
    assert_eq!(store.device(project, one.id).await.unwrap(), Some(one.clone()));
    assert_eq!(store.device(project, two.id).await.unwrap(), None);

    assert!(!store.revoke(project, two.id, Eff(START + 1)).await.unwrap());
    assert!(store.revoke(project, one.id, Eff(START + 1)).await.unwrap());
    assert!(store.revoke(project, one.id, Eff(START + 2)).await.unwrap());
    let revoked = DeviceRow { revoked: Some(Eff(START + 1)), ..one.clone() };
    assert_eq!(store.devices(project).await.unwrap(), [revoked]);
    assert_eq!(store.counts(project).await.unwrap().devices, 0);
    // Another invitation takes it in again.
    store.invite(project, Invite { secret_hash: [7; 32], buckets: vec!["all".to_owned()], ..invite.clone() }).await.unwrap();
    let again = DeviceRow { enrolled: Eff(START + 5), certificate: vec![9], grants: vec![("all".to_owned(), true)], claims: vec![], ..one };
    assert!(matches!(enrol([7; 32], &again).await.unwrap(), InviteState::Open(_)));
    assert_eq!(store.device(project, again.id).await.unwrap(), Some(again));
}

/// Sessions are counted, logs are numbered in the order in which they are met, and nothing that was confirmed is forgotten.
pub async fn hellos_are_numbered(place: Box<dyn Place>) {
    let world = World::new(place, 5).await;
    let mut device = Device::enrolled(&world, "pi", &["all"]).await;
    let known = world.store.device(world.project, device.id()).await.unwrap().unwrap();
    assert!(known.seen.is_some());
    for (shown, session, confirmed) in [(0, 2, 0), (2, 3, 2), (1, 4, 2), (9, 10, 9)] {
        let admission = device.arrive(&world, None, shown).await;
        assert_eq!((admission.session, admission.confirmed, admission.ordinal), (session, confirmed, Ordinal(1)), "shown {shown}");
    }
    device.write(&world, "work_orders", Intent::Put, ("w", json!({"title": "a"})));
    device.write(&world, "work_orders", Intent::Put, ("w", json!({"title": "b"})));
    let merged = world.merged(device.push_all(&world)).await;
    let admission = device.arrive(&world, None, 10).await;
    let lanes: Vec<_> = admission.lanes.iter().map(|lane| (lane.lane, lane.last.map(Seq::get), lane.safe)).collect();
    let nothing = [Lane::Events, Lane::Telemetry, Lane::Blobs].map(|lane| (lane, None, None));
    assert_eq!(lanes, [&[(Lane::State, Some(2), None)][..], &nothing].concat(), "every lane, also one without entries");
    assert_eq!(admission.lanes[0].chain, merged.chain);
    assert_eq!(admission.lanes[1].chain, device.chain(&world, Lane::Events, 0), "where it would begin");
    for (seq, want) in [(1, true), (2, true), (3, false)] {
        let chain = world.store.chain_at(world.project, device.lane(Lane::State), Seq::new(seq).unwrap()).await.unwrap();
        assert_eq!(chain, want.then(|| device.chain(&world, Lane::State, seq)));
    }

    let first = device.incarnation;
    assert_eq!(device.refence(&world, Seq::new(2)).await.ordinal, Ordinal(2));
    world.store.fence(world.project, device.id(), first).await.unwrap();
    let arrival = |incarnation, ordinal| Arrival {
        device: device.id(),
        incarnation,
        parent: Some(Parent { incarnation: first, seq: Seq::new(2) }),
        ordinal,
        boot: Some((mobo_core::ids::BootId([3; 8]), 0)),
        now: Eff(START),
        session: 0,
    };
    let arrive = |arrival| world.store.arrive(world.project, arrival);
    assert!(arrive(arrival(first, None)).await.unwrap().fenced);
    let incarnation = |number| Incarnation::new(number).unwrap();
    for (number, asked, want) in [(101, Some(7), 7), (102, Some(2), 8), (101, Some(3), 7), (103, None, 9)] {
        let admission = arrive(arrival(incarnation(number), asked.map(Ordinal))).await.unwrap();
        assert_eq!((admission.ordinal, admission.fenced), (Ordinal(want), false), "{number} asks for {asked:?}");
    }

    let at = |position| vec![(BucketId::new(1).unwrap(), Position(position))];
    for position in [5, 9, 7] {
        world.store.cursors(world.project, device.id(), at(position), Eff(START)).await.unwrap();
    }
    assert_eq!(world.sql("SELECT position FROM {own}cursor").await, "9");
}

/// A merge reads what is known of a device's boots and logs: a device that starts a thousand times, or says so, makes no merge slower.
///
/// What broke: each hello could leave a boot and a log behind, and nothing ever took one away.
pub async fn boots_and_logs_are_bounded(place: Box<dyn Place>) {
    let world = World::new(place, 9).await;
    let mut device = Device::enrolled(&world, "a", &["all"]).await;
    device.write(&world, "work_orders", Intent::Put, ("w", json!({ "n": 1 })));
    world.merged(device.push_all(&world)).await;
    let of = |table: &str| format!("SELECT count(*) FROM {{own}}{table} WHERE device = (SELECT id FROM {{own}}device)");
    let most = u64::from(limits::DEVICE_BOOTS_MAX.max(limits::DEVICE_EMPTY_LOGS_MAX));
    let arrive = async |n: u64, incarnation: Incarnation, parent: Option<Parent>, offset: i64| {
        let boot = Some((mobo_core::ids::BootId((n + 1).to_be_bytes()), offset));
        let arrival = Arrival { device: device.id(), incarnation, parent, ordinal: None, boot, now: Eff(START), session: 0 };
        world.store.arrive(world.project, arrival).await.unwrap()
    };
    let parent = Some(Parent { incarnation: device.incarnation, seq: Seq::new(1) });
    let next = arrive(0, Incarnation::new(500).unwrap(), parent, 0).await;
    for n in 1..most + 20 {
        arrive(n, Incarnation::new(1_000 + n).unwrap(), None, i64::try_from(n).unwrap()).await;
    }
    assert_eq!(world.sql(&of("boot")).await, limits::DEVICE_BOOTS_MAX.to_string());
    let logs: u64 = world.sql(&of("incarnation")).await.parse().unwrap();
    assert!(logs <= u64::from(limits::DEVICE_EMPTY_LOGS_MAX) + 2, "{logs} logs");
    assert_eq!(world.sql(&format!("SELECT count(*) FROM {{own}}incarnation WHERE incarnation = {}", device.incarnation.sql())).await, "1");
    // What was forgotten is noted anew; the log that has entries is what it was, and the boot that speaks is known.
    assert!(arrive(0, Incarnation::new(500).unwrap(), parent, -5).await.ordinal > next.ordinal);
    assert_eq!(world.sql("SELECT count(*) FROM {own}boot WHERE offset_us = -5").await, "1");
    device.write(&world, "work_orders", Intent::Patch, ("w", json!({ "n": 2 })));
    world.merged(device.push_last(&world)).await;
    world.is_sound().await;
}

/// Keys are found by their hash until they are revoked.
pub async fn api_keys_are_found_by_their_hash(place: Box<dyn Place>) {
    let world = World::new(place, 6).await;
    let (store, project) = (&world.store, world.project);
    let key = |id: u64, name: &str, role: &str| ApiKeyRow {
        id,
        name: name.to_owned(),
        prefix: format!("mobo_{role}_{id}"),
        hash: [u8::try_from(id).unwrap(); 32],
        role: role.to_owned(),
        scopes: vec!["read:work_orders".to_owned()],
        created: Eff(START),
        expires: (id == 2).then_some(Eff(START + 5)),
        revoked: None,
    };
    let (one, two) = (key(1, "z", "admin"), key(2, "a", "anon"));
    for key in [&one, &two] {
        store.create_key(project, key.clone()).await.unwrap();
    }
    assert!(store.create_key(project, ApiKeyRow { id: 3, ..one.clone() }).await.is_err(), "the same key again");
    assert_eq!(store.keys(project).await.unwrap(), [two.clone(), one.clone()]);
    assert_eq!(store.key_by_hash(one.hash).await.unwrap(), Some((project, one.clone())));
    assert_eq!(store.key_by_hash([9; 32]).await.unwrap(), None);
    assert!(!store.revoke_key(project, "nobody".to_owned(), Eff(START + 1)).await.unwrap());
    assert!(store.revoke_key(project, "z".to_owned(), Eff(START + 1)).await.unwrap());
    assert!(store.revoke_key(project, "2".to_owned(), Eff(START + 2)).await.unwrap());
    assert_eq!(store.key_by_hash(one.hash).await.unwrap(), None);
    let revoked = |key: ApiKeyRow, at| ApiKeyRow { revoked: Some(Eff(START + at)), ..key };
    assert_eq!(store.keys(project).await.unwrap(), [revoked(two, 2), revoked(one, 1)]);
}
