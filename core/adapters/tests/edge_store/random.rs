//! Everything at once, by chance: devices write, push, lose answers, pull in pieces, restart, clone, while the hub writes, too.

use mobo_core::author::Intent;
use mobo_core::ids::{Incarnation, Lane};
use serde_json::{Value as Json, json};

use crate::world::{Answer, Device, Rng, World, edit};

const SCHEDULES: u64 = 6;
const STEPS: u64 = 150;

/// One device and what is on its way to it.
struct Party {
    device: Device,
    answers: Vec<Answer>,
    batches: Vec<mobo_core::message::Batch>,
}

fn edits(rng: &mut Rng, increments: &mut i64) -> (&'static str, Intent, String, Json) {
    let id = format!("r{}", rng.below(6));
    let title = format!("t{}", rng.below(1_000));
    match rng.below(10) {
        0..3 => {
            // Only increments, so that their sum is known at the end.
            let by = rng.below(9).cast_signed() - 3;
            *increments += by;
            ("orders", Intent::Merge, "meter".to_owned(), json!({"hours": {"$inc": by}}))
        }
        3 => ("orders", Intent::Put, id, json!({"title": title, "hours": rng.below(5)})),
        4 => ("orders", Intent::Merge, id, json!({"n": rng.below(100), "hours": {"$inc": 1}})),
        5 => ("orders", Intent::Delete, id, json!({})),
        6 => ("notes", Intent::Merge, id, json!({"title": title, "likes": {"$inc": 1}})),
        7 => ("notes", if rng.chance(30) { Intent::Delete } else { Intent::Patch }, id, json!({})),
        _ => {
            let site = ["x", "y", "z"][rng.below(3) as usize];
            ("pumps", Intent::Merge, id, json!({"site": site, "line": rng.below(2), "runs": {"$inc": 1}}))
        }
    }
}

impl Party {
    async fn step(&mut self, world: &World, rng: &mut Rng, increments: &mut i64) {
        match rng.below(12) {
            0..4 => {
                let (collection, intent, id, fields) = edits(rng, increments);
                self.device.write(world, collection, intent, &id, fields).await;
            }
            4 => {
                self.device.append(world, &[0.5; 3]).await;
            }
            5 | 6 => {
                let lane = if rng.chance(80) { Lane::State } else { Lane::Telemetry };
                let after = self.device.acked(lane).await;
                self.answers.extend(self.device.push(world, lane, after, 1 + rng.below(6) as usize).await);
            }
            7 => {
                // Answers come late, twice, in another order, or not at all; a refusal does not come after its own ack here.
                while !self.answers.is_empty() {
                    let answer = self.answers.swap_remove(rng.below(self.answers.len() as u64) as usize);
                    match rng.below(4) {
                        0 => {}
                        1 => {
                            self.device.take(answer.clone()).await;
                            self.device.take(answer).await;
                        }
                        _ => self.device.take(answer).await,
                    }
                }
            }
            8 => self.batches.extend(self.device.pull(world, 1 + rng.below(4) as usize).await.0),
            9 | 10 => {
                while !self.batches.is_empty() {
                    let batch = self.batches.swap_remove(rng.below(self.batches.len() as u64) as usize);
                    let _ = self.device.store.apply(batch.clone()).await;
                    if rng.chance(20) {
                        let _ = self.device.store.apply(batch).await;
                    }
                }
            }
            _ => {
                if rng.chance(50) {
                    self.device.reopen();
                } else if rng.chance(30) {
                    self.device.store.refence(None, Incarnation::from_entropy(world.draw())).await.unwrap();
                    self.device.hello(world).await;
                    self.answers.clear();
                } else {
                    self.device.catch_up(world).await;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_schedule_ends_equal_with_exact_counters() {
    let first = std::env::var("MOBO_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    for seed in first..first + SCHEDULES {
        println!("MOBO_SEED={seed}");
        schedule(seed).await;
    }
}

async fn schedule(seed: u64) {
    let mut rng = Rng(seed);
    let world = World::new().await;
    let mut parties = Vec::new();
    for (name, buckets) in [("a", &["all", "site:x", "site:y", "site:z", "line:0", "line:1"][..]), ("b", &["all", "site:x", "line:1"])] {
        parties.push(Party { device: world.device(name, buckets).await, answers: Vec::new(), batches: Vec::new() });
    }
    let mut increments = 0;
    for _ in 0..STEPS {
        let nth = rng.below(parties.len() as u64 + 1) as usize;
        match parties.get_mut(nth) {
            Some(party) => party.step(&world, &mut rng, &mut increments).await,
            None => {
                let (collection, intent, id, fields) = edits(&mut rng, &mut increments);
                world.write(collection, vec![edit(intent, &id, fields)]).await;
            }
        }
    }
    for party in &parties {
        party.device.is_sound().await;
        party.device.push_all(&world).await;
    }
    for _ in 0..2 {
        for party in &parties {
            party.device.sync(&world).await;
        }
    }
    let [a, b] = parties.as_slice() else { panic!() };
    for collection in ["orders", "notes"] {
        let want = world.rows(collection).await;
        assert_eq!(a.device.rows(&world, collection).await, want);
        assert_eq!(b.device.rows(&world, collection).await, want);
    }
    assert_eq!(a.device.rows(&world, "pumps").await, world.rows("pumps").await);
    let in_b = |row: &Json| row["site"] == "x" || row["line"] == 1;
    let want: Vec<Json> = world.rows("pumps").await.into_iter().filter(in_b).collect();
    assert_eq!(b.device.rows(&world, "pumps").await, want);
    assert_eq!(a.device.row(&world, "orders", "meter").await["hours"].as_i64().unwrap_or_default(), increments);
    for party in &parties {
        let device = party.device.keys.device().to_string();
        let own = world.rows("vitals").await.into_iter().filter(|row| row["device"] == device.as_str()).collect::<Vec<_>>();
        let mut mine = party.device.rows(&world, "vitals").await;
        mine.iter_mut().for_each(|row| row["at"] = Json::Null);
        assert_eq!(mine.len(), own.len());
        let left = "SELECT (SELECT count(*) FROM mobo_overlay) + (SELECT count(*) FROM mobo_base)
                      + (SELECT count(*) FROM mobo_outbox WHERE state = 0)";
        assert_eq!(party.device.count(left), 0);
    }
}
