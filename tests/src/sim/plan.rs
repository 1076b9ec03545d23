//! The plan of a run: which faults, how often, and what is written. All of it is drawn from the seed, so that every run is another mixture.

use crate::seed::Rng;

/// What happens from time to time.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Fault {
    /// A link breaks; both ends notice.
    CutLink,
    /// A link breaks, and only one end notices before its patience is over.
    HalfOpen,
    /// A link delivers part of a frame and breaks.
    Truncate,
    /// No frame gets from a device to the hub, or back, or neither.
    Partition,
    /// A device's process is killed.
    KillDevice,
    /// A device loses power at one of the next writes and syncs.
    PowerDevice,
    /// The hub's process is killed.
    KillHub,
    /// The hub loses power at one of the next writes and syncs.
    PowerHub,
    /// One of the next writes and syncs of a device fails.
    EioDevice,
    /// The same on the hub.
    EioHub,
    /// A device's disk is full for a while.
    FullDevice,
    /// The same on the hub.
    FullHub,
    /// A wall clock jumps by up to ten years.
    ClockJump,
    /// A device's folder is put back to what it was earlier.
    RestoreDevice,
    /// A device's folder is copied, and both copies run.
    CloneDevice,
    /// A device's disk lies about syncs for a while, then loses power.
    LieDevice,
    /// The hub's folder is put back to what it was earlier; sometimes half of the devices are destroyed with it.
    RestoreHub,
    /// The hub's wall clock jumps by up to ten years, and nothing else does.
    HubClock,
    /// The operator ends a recovery before every device was seen.
    EndRecovery,
}

/// How long everything may take to converge after all is well, in simulated µs.
const LIVENESS_US: u64 = 240_000_000;
/// Of 100 worlds, so many are long.
const LONG: u64 = 15;
/// Of 100 worlds, in so many records move between buckets.
const YARDS: u64 = 25;
/// Of 100 writes to jobs, so many are forbidden.
const FORBIDDEN: u64 = 8;
/// 90 days.
const AWAY_US: u64 = 90 * 86_400_000_000;

/// Those that a seed draws from.
const FAULTS: [Fault; 17] = [
    Fault::CutLink,
    Fault::HalfOpen,
    Fault::Truncate,
    Fault::Partition,
    Fault::KillDevice,
    Fault::PowerDevice,
    Fault::KillHub,
    Fault::PowerHub,
    Fault::EioDevice,
    Fault::EioHub,
    Fault::FullDevice,
    Fault::FullHub,
    Fault::ClockJump,
    Fault::RestoreDevice,
    Fault::CloneDevice,
    Fault::LieDevice,
    Fault::RestoreHub,
];

/// Which faults are drawn from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Faults {
    /// All of them.
    All,
    /// All but a hub that is put back.
    HubStays,
}

/// What frames go through.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pipe {
    /// Each channel keeps its order until the link breaks, as QUIC does.
    Stream,
    /// Frames are lost, doubled and reordered, each in so many of 100 cases.
    Datagrams {
        /// Lost.
        lost: u64,
        /// Doubled.
        doubled: u64,
    },
    /// As `Stream`, through a thin line that is the same for both directions, in good times and bad.
    Thin {
        /// What it carries.
        bits_per_second: u64,
        /// Of 100 packets, so many are lost and come again a round trip later.
        lost: u64,
    },
}

/// A plan.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Devices at the start.
    pub devices: usize,
    /// How long faults last, in simulated µs.
    pub safety_us: u64,
    /// Mean pause between writes of a device, in µs.
    pub write_every_us: u64,
    /// Mean pause between writes of the hub's API, in µs; `None`: none.
    pub hub_write_every_us: Option<u64>,
    /// Faults with the mean pause between two of them, in µs.
    pub faults: Vec<(Fault, u64)>,
    /// How frames travel.
    pub pipe: Pipe,
    /// Latency of links, in µs: from, to.
    pub latency_us: (u64, u64),
    /// Of 100 unsynced sectors, so many are there after a power cut.
    pub sectors_kept: u64,
    /// Records that everybody writes.
    pub hot_records: u64,
    /// Weights of what is written: table, document, stream, table in buckets of its own.
    pub mix: [u64; 4],
    /// Of 100 writes to jobs, so many are into the bucket of another site, which the hub refuses.
    pub forbidden: u64,
    /// True: half of the devices have no clock.
    pub clockless: bool,
    /// Drift of the devices' clocks, in parts of a million.
    pub drift_ppm: u64,
    /// Bytes of acknowledged entries that a device keeps.
    pub keep_bytes: u64,
    /// True: no device meets the hub before all is well.
    pub away: bool,
    /// True: what goes wrong lasts as long as it may in the field; else two fifths of that.
    pub is_long: bool,
    /// True: the first two devices have one seed of randomness, and so one key.
    pub one_seed: bool,
    /// True: a record of a site is in a second bucket as well, which the devices of that site hold, too.
    pub crews: bool,
    /// Mean pause between what happens to records that move between buckets and to rights, in µs; `None`: there are no such records.
    pub yards_every_us: Option<u64>,
    /// Records that the first device makes and deletes besides, with each of its writes.
    pub flood: u64,
    /// Operations that each device may push in an hour; 0: as many as it likes.
    pub writes_per_hour: u64,
    /// How long everything may take to converge after all is well, in simulated µs.
    pub liveness_us: u64,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn draw(rng: &mut Rng, faults: Faults) -> Self {
        let calm = rng.chance(10);
        // Most worlds are short, with as many faults as the long ones: they come and end in less time.
        let is_long = rng.chance(LONG);
        let brief = |us: u64| if is_long { us } else { us * 2 / 5 };
        let drawn = FAULTS.iter().filter_map(|fault| {
            let (on, pause_us) = (rng.chance(if rare(*fault) { 25 } else { 45 }), brief((4 + rng.below(56)) * 1_000_000));
            let on = on && (faults == Faults::All || *fault != Fault::RestoreHub);
            (on && !calm).then_some((*fault, pause_us * if rare(*fault) { 2 } else { 1 }))
        });
        let drawn: Vec<(Fault, u64)> = drawn.collect();
        let pipe = match rng.chance(25) {
            true => Pipe::Datagrams { lost: rng.below(20), doubled: rng.below(30) },
            false => Pipe::Stream,
        };
        // What a restored hub has lost comes back exactly only from who has kept it.
        let restores = drawn.iter().any(|(fault, _)| *fault == Fault::RestoreHub);
        let keeps_all = restores && rng.chance(60);
        let latency_us = *rng.pick(&[(100, 2_000), (1_000, 30_000), (20_000, 400_000)]);
        Self {
            devices: 1 + rng.below(4) as usize,
            safety_us: brief((20 + rng.below(100)) * 1_000_000),
            write_every_us: brief(*rng.pick(&[700_000, 1_500_000, 6_000_000])),
            hub_write_every_us: rng.chance(60).then(|| brief(2_000_000 + rng.below(6_000_000))),
            faults: drawn,
            pipe,
            latency_us,
            sectors_kept: *rng.pick(&[0, 10, 50, 90, 100]),
            hot_records: 1 + rng.below(5),
            mix: [6, if rng.chance(40) { 2 } else { 0 }, if rng.chance(50) { 2 } else { 0 }, if rng.chance(50) { 3 } else { 0 }],
            forbidden: FORBIDDEN,
            clockless: rng.chance(30),
            drift_ppm: *rng.pick(&[0, 50, 500]),
            keep_bytes: if keeps_all { 64 << 20 } else { *rng.pick(&[64 << 20, 2_000, 0]) },
            away: false,
            is_long,
            one_seed: false,
            // Drawn aside, so that what follows is what it was before there were any.
            crews: rng.clone().chance(30),
            yards_every_us: yards(rng.clone(), restores).then(|| brief(1_500_000)),
            flood: 0,
            writes_per_hour: 0,
            liveness_us: LIVENESS_US,
        }
    }

    /// A plan without faults: one device that makes some 200 writes of all kinds.
    #[must_use]
    pub fn calm() -> Self {
        Self {
            devices: 1,
            safety_us: 75_000_000,
            write_every_us: 400_000,
            hub_write_every_us: None,
            faults: Vec::new(),
            pipe: Pipe::Stream,
            latency_us: (1_000, 30_000),
            sectors_kept: 50,
            hot_records: 3,
            mix: [6, 2, 2, 3],
            forbidden: FORBIDDEN,
            clockless: false,
            drift_ppm: 0,
            keep_bytes: 2_000,
            away: false,
            is_long: true,
            one_seed: false,
            crews: false,
            yards_every_us: None,
            flood: 0,
            writes_per_hour: 0,
            liveness_us: LIVENESS_US,
        }
    }

    /// A device that makes so many writes while it is away for 90 days, and comes back over a thin line.
    #[must_use]
    pub fn offline(writes: u64) -> Self {
        Self {
            safety_us: AWAY_US,
            // A fifth of all writes are of three on average, and pauses are as long as a write takes its turn.
            write_every_us: AWAY_US / writes * 4 / 3,
            pipe: Pipe::Thin { bits_per_second: 20_000, lost: 3 },
            latency_us: (700_000, 700_000),
            mix: [6, 0, 2, 3],
            away: true,
            keep_bytes: 64 << 20,
            liveness_us: AWAY_US,
            ..Self::calm()
        }
    }

    /// So many devices, whose hub goes away and comes back for all of them at once.
    #[must_use]
    pub fn herd(devices: usize) -> Self {
        Self {
            devices,
            safety_us: 60_000_000,
            write_every_us: 30_000_000 * devices as u64 / 50,
            faults: vec![(Fault::KillHub, 12_000_000)],
            latency_us: (1_000, 30_000),
            mix: [6, 0, 2, 3],
            liveness_us: 1_800_000_000,
            ..Self::calm()
        }
    }

    /// A device that signs everything as it should, and floods its hub with records and what deletes leave of them.
    #[must_use]
    pub fn flood() -> Self {
        Self {
            devices: 3,
            safety_us: 30_000_000,
            flood: 40,
            writes_per_hour: 1_200,
            mix: [6, 2, 0, 0],
            liveness_us: 48 * 3_600_000_000,
            ..Self::calm()
        }
    }

    /// A pause as long as it is in this world.
    pub(super) fn pause(&self, (from, to): (u64, u64)) -> (u64, u64) {
        (from, if self.is_long { to } else { from.max(to * 2 / 5) })
    }

    /// True if the frames of a channel arrive in order, or not at all.
    #[must_use]
    pub fn keeps_order(&self) -> bool {
        !matches!(self.pipe, Pipe::Datagrams { .. }) && !self.faults.iter().any(|(fault, _)| *fault == Fault::Truncate)
    }

    /// True if a write of the hub may fail.
    #[must_use]
    pub fn hub_disk_fails(&self) -> bool {
        self.faults.iter().any(|(fault, _)| matches!(fault, Fault::EioHub | Fault::FullHub))
    }

    /// True if a device may come back with less than it had said to be durable.
    #[must_use]
    pub fn rolls_back(&self) -> bool {
        self.faults.iter().any(|(fault, _)| matches!(fault, Fault::RestoreDevice | Fault::CloneDevice | Fault::LieDevice))
    }
}

/// Whether a world has records that move, drawn aside.
fn yards(mut aside: Rng, restores: bool) -> bool {
    aside.next_u64();
    aside.chance(YARDS) && !restores
}

/// Faults after which much is to be done again.
pub(super) const fn rare(fault: Fault) -> bool {
    matches!(fault, Fault::RestoreDevice | Fault::CloneDevice | Fault::LieDevice | Fault::RestoreHub | Fault::FullHub)
}
