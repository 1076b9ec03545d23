//! Effective time: decided once for each entry, by the hub (rules R5, R7).

use std::collections::BTreeMap;

use crate::ids::BootId;
use crate::time::{Eff, Moment, Mono, WallQuality};

/// What is known of a lane's clock so far.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LaneTime {
    /// Effective time of the last entry; at the start of a log, that of its parent's fork entry or of the enrolment.
    pub eff: Eff,
    /// Boot and mono of the last entry.
    pub clock: Option<(BootId, Mono)>,
}

/// A decision.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Decided {
    /// The effective time: later than the lane's last.
    pub eff: Eff,
    /// Where it was clamped into an interval, that interval.
    pub uncertain: Option<(Eff, Eff)>,
}

/// Hub time minus `mono` for each boot of one device that the hub has talked to.
pub type Boots = BTreeMap<BootId, i64>;

/// The exact effective time of a moment of a known boot.
#[must_use]
pub fn known(boots: &Boots, moment: &Moment) -> Option<Eff> {
    boots.get(&moment.boot).map(|offset| Eff(*offset).plus(moment.mono.0))
}

/// Decides the effective time of the next entry of a lane.
///
/// `given` is an earlier hub's decision, reused when it does not lie in the future (R7). `next` is the exact time of the nearest later
/// entry whose boot is known; `now` is the hub's time. Without a `moment` (an unreadable header) the lower bound is taken.
#[must_use]
pub fn decide(lane: &LaneTime, moment: Option<&Moment>, boots: &Boots, given: Option<Eff>, (next, now): (Option<Eff>, Eff)) -> Decided {
    let floor = if crate::protect!("eff.monotonic", true) { lane.eff.plus(1) } else { Eff(i64::MIN) };
    if let Some(eff) = given.filter(|eff| !crate::protect!("eff.not-in-future", *eff > now)) {
        return Decided { eff: eff.max(floor), uncertain: None };
    }
    let Some(moment) = moment else { return Decided { eff: floor, uncertain: None } };
    if let Some(exact) = known(boots, moment) {
        return Decided { eff: exact.min(now).max(floor), uncertain: None };
    }
    let low = match lane.clock {
        // Not beyond now: an earlier entry may have been said to be as late as that.
        Some((boot, mono)) if boot == moment.boot => lane.eff.plus(moment.mono.0.saturating_sub(mono.0)).min(now).max(floor),
        _ => floor,
    };
    let high = next.map_or(now, |next| next.min(now)).max(low);
    let eff = match moment.quality {
        WallQuality::None => low,
        WallQuality::Set | WallQuality::Synchronised => Eff(moment.wall.0).clamp(low, high),
    };
    Decided { eff, uncertain: Some((low, high)) }
}

/// The effective time of an operation made `before_us` before its entry was sealed: after the lane's last entry, not after this one.
#[must_use]
pub fn of_op(lane_before: Eff, entry: Eff, before_us: u64) -> Eff {
    entry.before(before_us).max(lane_before.plus(1)).min(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Wall;

    const KNOWN: BootId = BootId([1; 8]);
    const OTHER: BootId = BootId([2; 8]);

    #[track_caller]
    fn check(
        lane: (i64, Option<(BootId, u64)>),
        moment: (BootId, u64, i64, WallQuality),
        given: Option<i64>,
        next: Option<i64>,
        want: (i64, bool),
    ) {
        let lane = LaneTime { eff: Eff(lane.0), clock: lane.1.map(|(boot, mono)| (boot, Mono(mono))) };
        let moment = Moment { boot: moment.0, mono: Mono(moment.1), wall: Wall(moment.2), quality: moment.3 };
        let decided = decide(&lane, Some(&moment), &Boots::from([(KNOWN, 1_000)]), given.map(Eff), (next.map(Eff), Eff(5_000)));
        assert_eq!((decided.eff.0, decided.uncertain.is_some()), want);
    }

    // faults: K-1, K-2, K-4
    #[test]
    fn r5_a_known_boot_is_exact_whatever_the_wall_clock_says() {
        check((10, None), (KNOWN, 500, -9, WallQuality::Set), None, None, (1_500, false));
        check((10, None), (KNOWN, 500, i64::MAX, WallQuality::Synchronised), None, None, (1_500, false));
        check((10, None), (KNOWN, 9_000, 0, WallQuality::None), None, None, (5_000, false));
        check((2_000, None), (KNOWN, 500, 0, WallQuality::None), None, None, (2_001, false));
    }

    // faults: K-1, K-3
    #[test]
    fn r5_k1_k3_an_unknown_boot_is_clamped() {
        // Ten years ahead: not later than the hub's time, or than the next known entry.
        check((10, None), (OTHER, 500, i64::MAX, WallQuality::Set), None, None, (5_000, true));
        check((10, None), (OTHER, 500, i64::MAX, WallQuality::Set), None, Some(3_000), (3_000, true));
        // 1970: not earlier than the previous entry plus the time that has passed since.
        check((10, Some((OTHER, 400))), (OTHER, 500, 0, WallQuality::Set), None, None, (110, true));
        check((10, Some((KNOWN, 400))), (OTHER, 500, 0, WallQuality::Set), None, None, (11, true));
        // The one before was said to be as late as the hub's time, and a second has passed on the device since: this one is no later.
        check((5_000, Some((OTHER, 400))), (OTHER, 1_400, i64::MAX, WallQuality::Set), None, None, (5_001, true));
        check((4_900, Some((OTHER, 400))), (OTHER, 1_400, 0, WallQuality::None), None, None, (5_000, true));
        check((10, None), (OTHER, 500, 2_500, WallQuality::Set), None, None, (2_500, true));
        check((10, None), (OTHER, 500, 2_500, WallQuality::None), None, None, (11, true));
    }

    #[test]
    fn r7_a_decision_is_never_taken_twice() {
        check((10, None), (KNOWN, 500, 0, WallQuality::None), Some(700), None, (700, false));
        check((10, None), (KNOWN, 500, 0, WallQuality::None), Some(5_001), None, (1_500, false));
        check((900, None), (KNOWN, 500, 0, WallQuality::None), Some(700), None, (901, false));
    }

    #[test]
    fn operations_stay_between_their_entry_and_the_one_before() {
        assert_eq!(of_op(Eff(10), Eff(100), 30), Eff(70));
        assert_eq!(of_op(Eff(10), Eff(100), 99_999), Eff(11));
        assert_eq!(of_op(Eff(10), Eff(100), 0), Eff(100));
    }
}
