//! A simulated world: many devices and a hub, with everything that the field does to them, in one thread and from one seed.
//!
//! The code of the product runs as it is: the session machines, what carries out their effects (`mobo_edge::uplink::driver`,
//! `mobo_hub::sessions::Conversation`, admission, merger), merge, both SQLite stores, and the protocol on every frame. What is simulated is
//! what is below: the network (`net`, `network`), clocks and randomness (`machine`), and the disk under SQLite ([`mobo_vfs`]).
//!
//! A run has two phases. While faults are on, nothing that holds always may break (`checks`); then all is well, and before a deadline
//! everybody must have what everybody wrote, once, and the same. What was written and what its author was told is in `model`.
//!
//! Each seed draws which faults are on and how often (`plan`). One seed is one run, bit for bit: [`run`] gives the hash of its trace.

#![allow(
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test: a panic in the simulated world is reported with its seed, like everything else that it finds"
)]

mod arrivals;
mod checks;
pub mod cli;
mod device;
pub mod disks;
mod faults;
mod flood;
mod hub;
mod kept;
#[cfg(feature = "mutants")]
mod leans;
mod machine;
mod model;
pub mod mutants;
mod nacks;
mod net;
mod network;
mod order;
mod plan;
pub mod power;
mod restores;
mod sensors;
mod sessions;
mod templates;
mod told;
mod trace;
mod world;
mod writes;
mod yards;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use world::World;

use crate::seed::Rng;

pub use plan::{Fault, Faults, Pipe, Plan};
pub use trace::Violation;

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// The hash of everything that happened.
    pub trace: [u8; 32],
    /// How long it took, in simulated µs.
    pub simulated_us: u64,
    /// What was injected, written and checked, and how often.
    pub counts: BTreeMap<&'static str, u64>,
    /// What it broke; `None`: nothing.
    pub failure: Option<Failure>,
}

/// What a run broke, with what one needs to find out why.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The invariant and what was found.
    pub violation: Violation,
    /// The plan of the run.
    pub plan: Plan,
    /// The last lines of its trace.
    pub last: Vec<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{:?}", self.plan)?;
        for line in &self.last {
            writeln!(f, "{line}")?;
        }
        write!(f, "{}: {}", self.violation.invariant, self.violation.what)
    }
}

/// Runs the world of a seed; `whole` prints its trace.
#[must_use]
pub fn run(seed: u64, faults: Faults, whole: bool) -> Outcome {
    run_world(seed, World::new(seed, faults, whole))
}

/// Runs a world of that plan.
#[must_use]
pub fn run_plan(seed: u64, plan: Plan) -> Outcome {
    run_world(seed, World::with(Rng::new(seed), plan, false))
}

/// Runs the world of a seed, with a plan that leans towards what a protection is needed for.
#[cfg(feature = "mutants")]
fn run_leaning(seed: u64, name: &str, whole: bool) -> Outcome {
    let mut rng = Rng::new(seed);
    let plan = leans::leaning(Plan::draw(&mut rng, Faults::All), name);
    run_world(seed, World::with(rng, plan, whole))
}

fn run_world(seed: u64, mut world: World) -> Outcome {
    let ran = catch_unwind(AssertUnwindSafe(|| world.run()));
    let violation = match ran {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(violation),
        Err(panic) => {
            let what = panic.downcast_ref::<String>().cloned();
            let what = what.or_else(|| panic.downcast_ref::<&str>().map(|what| (*what).to_owned()));
            Some(Violation { invariant: "panic", what: what.unwrap_or_else(|| "a panic without words".to_owned()) })
        }
    };
    world.tally_disks();
    let failure = violation.map(|violation| Failure { violation, plan: world.plan.clone(), last: world.trace.last() });
    Outcome { seed, trace: world.trace.hash(), simulated_us: world.now(), counts: world.trace.counts.clone(), failure }
}
