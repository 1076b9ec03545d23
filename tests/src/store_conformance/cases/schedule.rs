//! Random schedules of writes by several devices and the hub itself, the same for the same seed.

use mobo_core::author::Intent;
use mobo_core::ids::Lane;
use mobo_core::merge::Prepared;
use serde_json::{Value as Json, json};

use crate::seed::{Rng, Seed};
use crate::store_conformance::world::World;
use crate::store_conformance::{Device, Place, samples};

/// Devices that write, and what the next step will be.
#[derive(Debug)]
pub struct Schedule {
    /// The devices.
    pub devices: Vec<Device>,
    pushed: Vec<(usize, usize)>,
    rng: Rng,
}

const SITES: [&str; 3] = ["a", "b", "c"];

impl Schedule {
    /// Three devices that may write everywhere.
    pub async fn new(world: &World, seed: &Seed) -> Self {
        let mut devices = Vec::new();
        let buckets = ["all", "site:a", "site:b", "site:c", "line:0", "line:1"];
        for name in ["a", "b", "c"] {
            devices.push(Device::enrolled(world, name, &buckets).await);
        }
        Self { pushed: vec![(0, 0); devices.len()], devices, rng: seed.rng() }
    }

    /// Some batches of pushes and local writes; pushes overlap what was pushed before.
    pub async fn run(&mut self, world: &World, batches: usize) {
        for _ in 0..batches {
            let mut submissions = Vec::new();
            for index in 0..self.devices.len() {
                for _ in 0..self.rng.below(4) {
                    self.step(world, index);
                }
                submissions.extend(self.push(world, index));
            }
            if self.rng.chance(40) {
                let (collection, intent, id, fields) = self.edit();
                submissions.push(world.local(collection, intent, &id, &fields));
            }
            world.merge(submissions).await;
        }
    }

    fn step(&mut self, world: &World, index: usize) {
        if self.rng.chance(15) {
            let cpu: Vec<f64> = (0..=self.rng.below(3)).map(|_| self.rng.below(1_000) as f64 / 8.0).collect();
            self.devices[index].append(world, &samples(world, &cpu));
            return;
        }
        let (collection, intent, id, fields) = self.edit();
        self.devices[index].write(world, collection, intent, (&id, fields));
    }

    fn edit(&mut self) -> (&'static str, Intent, String, Json) {
        let rng = &mut self.rng;
        let intent = *rng.pick(&[Intent::Put, Intent::Merge, Intent::Merge, Intent::Patch, Intent::Patch, Intent::Delete]);
        let (id, number) = (format!("r{}", rng.below(5)), rng.below(100));
        let (collection, fields) = match rng.below(3) {
            0 => ("work_orders", json!({"title": format!("t{number}"), "hours": {"$inc": number}, "n": number, "done": number % 2 == 0})),
            1 => {
                let site = if rng.chance(20) { Json::Null } else { json!(rng.pick(&SITES)) };
                ("pumps", json!({"site": site, "line": number % 2, "speed": number as f64 / 4.0, "runs": {"$inc": 1}}))
            }
            _ => ("notes", json!({"title": format!("t{number}"), "likes": {"$inc": 1}, "rank": number, "state": {"k": number}})),
        };
        let fields = if intent == Intent::Delete { json!({}) } else { fields };
        (collection, intent, id, fields)
    }

    fn push(&mut self, world: &World, index: usize) -> Vec<Prepared> {
        let device = &self.devices[index];
        let (state, telemetry) = &mut self.pushed[index];
        let mut pushes = Vec::new();
        for (lane, pushed) in [(Lane::State, state), (Lane::Telemetry, telemetry)] {
            let sealed = device.lanes.get(&lane).map_or(0, Vec::len);
            if sealed > *pushed {
                let again = self.rng.below(3).min(*pushed as u64);
                pushes.push(device.push_from(world, lane, *pushed as u64 + 1 - again));
                *pushed = sealed;
            }
        }
        pushes
    }
}

/// What a store answers after the schedule of a seed: the same from every store.
pub async fn answers(place: Box<dyn Place>, seed: u64) -> Vec<(String, Json)> {
    let world = World::new(place, seed).await;
    let mut schedule = Schedule::new(&world, &Seed::fixed(seed)).await;
    schedule.run(&world, 25).await;
    world.is_sound().await;
    let answers = told(&world).await;
    world.store.close().await;
    answers
}

/// What a store says of everything in it.
pub async fn told(world: &World) -> Vec<(String, Json)> {
    let mut answers = Vec::new();
    for collection in ["work_orders", "pumps", "notes", "vitals"] {
        answers.push((collection.to_owned(), Json::Array(world.rows(collection).await)));
    }
    let counts = world.store.counts(world.project).await.unwrap();
    answers.push(("records".to_owned(), json!([counts.records, counts.conflicts, counts.quarantined, counts.devices])));
    for (id, key, head, digest) in counts.buckets {
        answers.push((key, json!([id.get(), head.0, digest.to_string()])));
    }
    for lane in world.store.audit_lanes(world.project).await.unwrap() {
        answers.push((format!("{:?}", lane.lane), json!([lane.last.get(), lane.entries])));
    }
    for row in world.store.conflicts(world.project, None, 1_000).await.unwrap() {
        answers.push((
            format!("{} {} {}", row.collection, row.id, row.field),
            json!([row.kind, row.loser, row.winner, row.at.0, format!("{:?} {:?}", row.loser_stamp, row.winner_stamp)]),
        ));
    }
    answers
}
