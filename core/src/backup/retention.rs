//! Which restore points stay: pure, and by counting, so that no clock removes anything.
//!
//! A restore point is a base (a manifest with a whole snapshot). The newest of them stay together with everything that was written behind
//! them, so that any moment since can be brought back; from the older ones, some stay alone, as they are: one for each of the last hours, days,
//! weeks, months and years *that have one*. Nothing is measured against the time of day. A clock that jumps ten years ahead makes one more
//! hour, day, week, month and year, and the points before it still are the last ones of theirs.

use std::collections::BTreeSet;
use std::fmt;

use crate::rfc3339;

/// A restore point.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Point {
    /// The number of its manifest: what is newer has a higher one, whatever the clock said.
    pub number: u64,
    /// When it was taken, by the hub's time in µs.
    pub taken_us: i64,
    /// True if it was read and found whole, or restored.
    pub verified: bool,
    /// True if somebody wants it kept, whatever the policy.
    pub held: bool,
}

/// How many stay.
#[derive(Clone, Copy, Debug, Eq, PartialEq, PartialOrd)]
pub struct Policy {
    /// Newest points that stay with everything behind them; at least 1.
    pub log: u32,
    /// Newest points that stay in any case.
    pub min: u32,
    /// The last hours of which one point stays.
    pub hourly: u32,
    /// Likewise days.
    pub daily: u32,
    /// Likewise weeks, from Monday.
    pub weekly: u32,
    /// Likewise months.
    pub monthly: u32,
    /// Likewise years.
    pub yearly: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { log: 3, min: 5, hourly: 24, daily: 7, weekly: 5, monthly: 12, yearly: 3 }
    }
}

/// Why a point stays.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// It is one of the newest, with everything behind it.
    Log,
    /// It is one of the newest.
    Minimum,
    /// It is the newest of its hour.
    Hourly,
    /// Of its day.
    Daily,
    /// Of its week.
    Weekly,
    /// Of its month.
    Monthly,
    /// Of its year.
    Yearly,
    /// Somebody wants it kept.
    Held,
    /// It is the newest that is known to be whole.
    Verified,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Log => "log",
            Self::Minimum => "min",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
            Self::Held => "held",
            Self::Verified => "verified",
        })
    }
}

/// What becomes of the points.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// The oldest point that stays with everything behind it; `None` where there are no points.
    pub floor: Option<u64>,
    /// Every point, newest first, and why it stays; one without a reason goes.
    pub points: Vec<(Point, Vec<Reason>)>,
}

impl Plan {
    /// Points below the floor that stay as they are, without what was written behind them; newest first.
    pub fn kept_alone(&self) -> impl Iterator<Item = u64> {
        let stays = |reasons: &[Reason]| !reasons.is_empty() && !reasons.contains(&Reason::Log);
        self.points.iter().filter(move |(_, reasons)| stays(reasons)).map(|(point, _)| point.number)
    }

    /// Points that go; newest first.
    pub fn dropped(&self) -> impl Iterator<Item = u64> {
        self.points.iter().filter(|(_, reasons)| reasons.is_empty()).map(|(point, _)| point.number)
    }
}

/// Decides which of these points stay. Where none of those that would stay is verified, the newest verified one stays as well: there is never
/// less than one point that is known to be whole, if there was one.
#[must_use]
pub fn plan(points: &[Point], policy: &Policy) -> Plan {
    let mut points = points.to_vec();
    points.sort_unstable_by_key(|point| std::cmp::Reverse(point.number));
    points.dedup_by_key(|point| point.number);
    let mut reasons: Vec<Vec<Reason>> = vec![Vec::new(); points.len()];
    let newest = [(policy.log.max(1), Reason::Log), (policy.min, Reason::Minimum)];
    for (count, reason) in newest {
        reasons.iter_mut().take(count as usize).for_each(|reasons| reasons.push(reason));
    }
    for (count, reason) in [
        (policy.hourly, Reason::Hourly),
        (policy.daily, Reason::Daily),
        (policy.weekly, Reason::Weekly),
        (policy.monthly, Reason::Monthly),
        (policy.yearly, Reason::Yearly),
    ] {
        let mut seen = BTreeSet::new();
        for (point, reasons) in points.iter().zip(&mut reasons) {
            if seen.len() < count as usize && seen.insert(period(point.taken_us, reason)) {
                reasons.push(reason);
            }
        }
    }
    for (point, reasons) in points.iter().zip(&mut reasons) {
        if point.held {
            reasons.push(Reason::Held);
        }
    }
    let is_proven = points.iter().zip(&reasons).any(|(point, reasons)| point.verified && !reasons.is_empty());
    if !is_proven && let Some((_, reasons)) = points.iter().zip(&mut reasons).find(|(point, _)| point.verified) {
        reasons.push(Reason::Verified);
    }
    let floor = points.get(..points.len().min(policy.log.max(1) as usize)).and_then(<[Point]>::last).map(|point| point.number);
    Plan { floor, points: points.into_iter().zip(reasons).collect() }
}

/// The name of the hour, day, week, month or year that a time lies in (UTC).
fn period(at_us: i64, reason: Reason) -> String {
    let text = rfc3339::format(at_us);
    let until = match reason {
        Reason::Hourly => 13,
        Reason::Daily => 10,
        Reason::Monthly => 7,
        Reason::Yearly => 4,
        // 1 January 1970 was a Thursday.
        Reason::Weekly => return (at_us.div_euclid(86_400_000_000) + 3).div_euclid(7).to_string(),
        Reason::Log | Reason::Minimum | Reason::Held | Reason::Verified => 0,
    };
    text.get(..until).unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;
    const DAY: i64 = 24 * HOUR;
    const NONE: Policy = Policy { log: 1, min: 0, hourly: 0, daily: 0, weekly: 0, monthly: 0, yearly: 0 };

    fn start() -> i64 {
        rfc3339::parse("2026-01-01T00:00:00Z").unwrap()
    }

    fn point(number: u64, taken_us: i64) -> Point {
        Point { number, taken_us, verified: true, held: false }
    }

    /// A point every six hours for that many days.
    fn steady(days: u64) -> Vec<Point> {
        (0..days * 4).map(|at| point(10 * (at + 1), start() + 6 * HOUR * at.cast_signed())).collect()
    }

    fn kept(points: &[Point], policy: &Policy) -> Vec<u64> {
        plan(points, policy).points.into_iter().filter(|(_, reasons)| !reasons.is_empty()).map(|(point, _)| point.number).collect()
    }

    #[test]
    fn each_rule_keeps_what_it_says() {
        let points = steady(3);
        for (policy, want) in [
            (NONE, &[120][..]),
            (Policy { log: 0, ..NONE }, &[120]),
            (Policy { log: 3, ..NONE }, &[120, 110, 100]),
            (Policy { min: 4, ..NONE }, &[120, 110, 100, 90]),
            (Policy { hourly: 2, ..NONE }, &[120, 110]),
            (Policy { daily: 2, ..NONE }, &[120, 80]),
            (Policy { daily: 9, ..NONE }, &[120, 80, 40]),
            (Policy { min: 2, daily: 3, ..NONE }, &[120, 110, 80, 40]),
        ] {
            assert_eq!(kept(&points, &policy), want, "{policy:?}");
        }
        assert_eq!(plan(&points, &Policy { log: 3, ..NONE }).floor, Some(100));
        assert_eq!(plan(&points, &Policy { log: 99, ..NONE }).floor, Some(10));
        assert_eq!(plan(&[], &Policy::default()), Plan::default());
        // 1 January 2026 was a Thursday; weeks begin on Monday.
        let weekly = Policy { weekly: 3, ..NONE };
        assert_eq!(kept(&steady(14), &weekly), [560, 440, 160]);
        let long = Policy { monthly: 2, yearly: 2, ..NONE };
        assert_eq!(kept(&steady(400), &long), [16_000, 15_840, 14_600]);
    }

    #[test]
    fn what_is_held_stays_and_so_does_the_last_that_is_known_to_be_whole() {
        let mut points = steady(10);
        points[0].held = true;
        assert_eq!(kept(&points, &NONE), [400, 10]);
        points.iter_mut().for_each(|point| point.verified = false);
        points[5].verified = true;
        points[3].verified = true;
        assert_eq!(kept(&points, &NONE), [400, 60, 10]);
        let plan = plan(&points, &NONE);
        assert_eq!(plan.kept_alone().collect::<Vec<_>>(), [60, 10]);
        assert_eq!(plan.dropped().count(), 37);
        assert_eq!(plan.points.iter().find(|(point, _)| point.number == 60).unwrap().1, [Reason::Verified]);
    }

    /// A clock that is ten years ahead, for one point or from now on, removes nothing that would not have gone anyway; one that hops about
    /// for ever leaves the newest.
    // faults: B-9
    #[test]
    fn a_wrong_clock_removes_nothing() {
        let policy = Policy::default();
        let points = steady(30);
        let before = kept(&points, &policy);
        let mut ahead = points.clone();
        ahead.push(point(10_000, start() + 3_652 * DAY));
        let with = kept(&ahead, &policy);
        assert_eq!(with[0], 10_000);
        let lost: Vec<u64> = before.iter().copied().filter(|number| !with.contains(number)).collect();
        // At most the oldest of each rule, whose place the new point has.
        assert!(lost.len() <= 7, "{lost:?}");
        let mut back = ahead;
        back.extend((1..=4).map(|at| point(10_000 + at, start() + 30 * DAY + 6 * HOUR * at.cast_signed())));
        assert!(kept(&back, &policy).iter().filter(|number| **number < 10_000).count() > before.len() / 2);

        let mut drawn = 7_u64;
        let hops: Vec<Point> = (1..500)
            .map(|number| {
                drawn = drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                point(number, start() + i64::try_from(drawn >> 40).unwrap() * HOUR)
            })
            .collect();
        let kept = kept(&hops, &policy);
        assert!(kept.len() >= 24 && (495..500).all(|number| kept.contains(&number)), "{kept:?}");
    }

    /// Pruning again and again, after each new point, loses nothing that pruning once would have kept of the long periods.
    #[test]
    fn pruning_often_keeps_the_long_periods() {
        let policy = Policy { log: 2, min: 3, hourly: 4, daily: 3, weekly: 2, monthly: 3, yearly: 2 };
        let mut stored: Vec<Point> = Vec::new();
        for next in steady(500) {
            stored.push(next);
            let plan = plan(&stored, &policy);
            let dropped: BTreeSet<u64> = plan.dropped().collect();
            stored.retain(|point| !dropped.contains(&point.number));
        }
        let months: BTreeSet<String> = stored.iter().map(|point| period(point.taken_us, Reason::Monthly)).collect();
        let years: BTreeSet<String> = stored.iter().map(|point| period(point.taken_us, Reason::Yearly)).collect();
        assert!(months.len() >= 3 && years.len() == 2, "{months:?} {years:?}");
        assert!(stored.len() <= 19, "{}", stored.len());
    }
}
