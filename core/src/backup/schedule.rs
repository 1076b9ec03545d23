//! When something is due: cron lines, with a share of chance that is the same on every boot, and missed runs caught up once.
//!
//! Times are UTC, and the caller's: the hub gives its own time, which never goes back (rule R6). A clock that jumps ahead makes one run due, not
//! one for each that was jumped over.

use std::fmt;
use std::str::FromStr;

use crate::rfc3339;

const MINUTE_US: i64 = 60_000_000;
const DAY_MINUTES: i64 = 24 * 60;
/// A schedule that has no moment in so many days has none: 29 February comes again after eight years at most.
const DAYS_MAX: i64 = 8 * 366 + 1;

/// Why a text is no schedule.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "\"{text}\" is no schedule ({why}): write five fields such as \"30 3 * * 1-5\" (minute hour day month weekday, UTC), @hourly, @daily, @weekly or never"
)]
pub struct BadSchedule {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

/// A schedule. A set of minutes, hours, days, months and weekdays; or none at all.
#[derive(Clone, Debug, Eq, PartialEq, PartialOrd)]
pub struct Schedule {
    text: String,
    /// A bit for each value that fits. `None` for never.
    fields: Option<Fields>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, PartialOrd)]
struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// As cron has it: where both are restricted, a day that fits one of them fits.
    either_day: bool,
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Schedule {
    type Err = BadSchedule;

    fn from_str(text: &str) -> Result<Self, BadSchedule> {
        let text = text.trim();
        let line = match text {
            "never" => return Ok(Self { text: text.to_owned(), fields: None }),
            "@hourly" => "0 * * * *",
            "@daily" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            line => line,
        };
        let bad = |why: String| BadSchedule { text: text.to_owned(), why };
        let parts: Vec<&str> = line.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = parts.as_slice() else {
            return Err(bad(format!("it has {} fields", parts.len())));
        };
        let weekdays = field(weekday, (0, 7), WEEKDAYS).map_err(bad)?;
        let fields = Fields {
            minutes: field(minute, (0, 59), &[]).map_err(bad)?,
            hours: field(hour, (0, 23), &[]).map_err(bad)?,
            days: field(day, (1, 31), &[]).map_err(bad)?,
            months: field(month, (1, 12), MONTHS).map_err(bad)?,
            // Sunday is 0 and 7.
            weekdays: (weekdays | weekdays >> 7) & 0x7f,
            either_day: !day.starts_with('*') && !weekday.starts_with('*'),
        };
        let schedule = Self { text: text.to_owned(), fields: Some(fields) };
        if schedule.next(0).is_none() { Err(bad("no day of any year fits it".to_owned())) } else { Ok(schedule) }
    }
}

/// What is due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Due {
    /// When the last of the runs that are due should have been, jitter included: what to remember as run.
    pub at_us: i64,
    /// True if it should have been in an earlier period of the schedule: the hub was down, or busy.
    pub late: bool,
}

/// A schedule and the share of chance that spreads many hubs over their storage.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Timetable {
    /// The schedule.
    pub schedule: Schedule,
    /// How long after each of its moments a run may be, at most, in µs; less, where the next moment comes sooner.
    pub jitter_us: u64,
    /// What the share is drawn from: random, and kept, so that it is the same at every boot.
    pub seed: u64,
}

impl Schedule {
    /// True for a schedule without any run.
    #[must_use]
    pub fn is_never(&self) -> bool {
        self.fields.is_none()
    }

    /// The first moment of it after `after_us` (µs since 1970 UTC); `None` if there is none.
    #[must_use]
    pub fn next(&self, after_us: i64) -> Option<i64> {
        let fields = self.fields?;
        let from = after_us.div_euclid(MINUTE_US) + 1;
        let (first_day, mut minute) = (from.div_euclid(DAY_MINUTES), from.rem_euclid(DAY_MINUTES));
        for day in first_day..=first_day + DAYS_MAX {
            if fields.has_day(day)
                && let Some(found) = (minute..DAY_MINUTES).find(|minute| fields.has_minute(*minute))
            {
                return Some((day * DAY_MINUTES + found) * MINUTE_US);
            }
            minute = 0;
        }
        None
    }

    /// The last moment of it at or before `until_us`; `None` if there is none.
    fn last(&self, until_us: i64) -> Option<i64> {
        let fields = self.fields?;
        let from = until_us.div_euclid(MINUTE_US);
        let (last_day, mut minute) = (from.div_euclid(DAY_MINUTES), from.rem_euclid(DAY_MINUTES));
        for day in (last_day - DAYS_MAX..=last_day).rev() {
            if fields.has_day(day)
                && let Some(found) = (0..=minute).rev().find(|minute| fields.has_minute(*minute))
            {
                return Some((day * DAY_MINUTES + found) * MINUTE_US);
            }
            minute = DAY_MINUTES - 1;
        }
        None
    }
}

impl Timetable {
    /// What is due at `now_us`, when the last run was for the moment `last_us`: one run, however many were missed. `None` when nothing is.
    #[must_use]
    pub fn due(&self, last_us: i64, now_us: i64) -> Option<Due> {
        let (at_us, moment) = self.run_before(now_us)?;
        let late = self.run_before_moment(moment).is_some_and(|(before, _)| before > last_us);
        (at_us > last_us).then_some(Due { at_us, late })
    }

    /// The last run at or before `now_us`, and the moment of the schedule that it is for.
    fn run_before(&self, now_us: i64) -> Option<(i64, i64)> {
        let moment = self.schedule.last(now_us)?;
        let at_us = moment.saturating_add(self.share(moment));
        if at_us <= now_us { Some((at_us, moment)) } else { self.run_before_moment(moment).filter(|(at_us, _)| *at_us <= now_us) }
    }

    fn run_before_moment(&self, moment: i64) -> Option<(i64, i64)> {
        let before = self.schedule.last(moment.saturating_sub(1))?;
        Some((before.saturating_add(self.share(before)), before))
    }

    /// The next run after the one for the moment `last_us`, jitter included.
    #[must_use]
    pub fn next(&self, last_us: i64) -> Option<i64> {
        // The run of the moment before may still be to come.
        let mut moment = self.schedule.last(last_us).or_else(|| self.schedule.next(last_us))?;
        loop {
            let run = moment.saturating_add(self.share(moment));
            if run > last_us {
                return Some(run);
            }
            moment = self.schedule.next(moment)?;
        }
    }

    /// How long after this moment its run is: always before the next moment.
    fn share(&self, moment: i64) -> i64 {
        let room = self.schedule.next(moment).map_or(u64::MAX, |next| next.abs_diff(moment));
        let jitter_us = self.jitter_us.min(room);
        if jitter_us == 0 {
            return 0;
        }
        let mut bytes = self.seed.to_be_bytes().to_vec();
        bytes.extend_from_slice(&moment.to_be_bytes());
        let drawn = blake3::hash(&bytes).as_bytes().first_chunk().map_or(0, |half| u64::from_be_bytes(*half));
        i64::try_from(drawn % jitter_us).unwrap_or(0)
    }
}

impl Fields {
    fn has_day(&self, day: i64) -> bool {
        let date = rfc3339::format(day.saturating_mul(DAY_MINUTES * MINUTE_US));
        let number = |range| date.get(range).and_then(|text: &str| text.parse::<u32>().ok()).unwrap_or(0);
        let (month, monthday) = (number(5..7), number(8..10));
        // 1 January 1970 was a Thursday.
        let weekday = (day + 4).rem_euclid(7);
        let (by_month, by_week) = (self.days >> monthday & 1 == 1, self.weekdays >> weekday & 1 == 1);
        let fits = if self.either_day { by_month || by_week } else { by_month && by_week };
        fits && self.months >> month & 1 == 1
    }

    fn has_minute(&self, minute: i64) -> bool {
        self.hours >> (minute / 60) & 1 == 1 && self.minutes >> (minute % 60) & 1 == 1
    }
}

const MONTHS: &[&str] = &["", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A list of numbers, ranges and steps: `*`, `*/15`, `1-5`, `10-50/10`, `mon,wed`.
fn field(text: &str, (min, max): (u32, u32), names: &[&str]) -> Result<u64, String> {
    let value = |text: &str| {
        let named = names.iter().position(|name| !name.is_empty() && name.eq_ignore_ascii_case(text)).and_then(|at| u32::try_from(at).ok());
        let number = named.or_else(|| text.parse().ok()).filter(|number| (min..=max).contains(number));
        number.ok_or_else(|| format!("\"{text}\" is not {min} to {max}"))
    };
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (min, max),
            Some((first, last)) => (value(first)?, value(last)?),
            None => value(range).map(|value| (value, if step.is_some() { max } else { value }))?,
        };
        let step =
            step.map_or(Ok(1), |step| step.parse::<usize>().ok().filter(|step| *step > 0).ok_or(format!("\"{step}\" is no step")))?;
        if first > last {
            return Err(format!("\"{part}\" runs backwards"));
        }
        bits = (first..=last).step_by(step).fold(bits, |bits, value| bits | 1 << value);
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(text: &str) -> i64 {
        rfc3339::parse(text).unwrap()
    }

    fn schedule(text: &str) -> Schedule {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_next_moment_is_the_one_that_cron_would_take() {
        for (line, after, want) in [
            ("* * * * *", "2026-02-03T04:05:06Z", "2026-02-03T04:06:00Z"),
            ("@hourly", "2026-02-03T04:00:00Z", "2026-02-03T05:00:00Z"),
            ("@daily", "2026-12-31T04:00:00Z", "2027-01-01T00:00:00Z"),
            ("@weekly", "2026-11-22T00:00:00Z", "2026-11-29T00:00:00Z"),
            ("@monthly", "2026-01-31T00:00:00Z", "2026-02-01T00:00:00Z"),
            ("30 3 * * 1-5", "2026-11-20T03:30:00Z", "2026-11-23T03:30:00Z"),
            ("*/20 8-9 * * *", "2026-11-20T08:41:00Z", "2026-11-20T09:00:00Z"),
            ("5/25 * * * *", "2026-11-20T08:31:00Z", "2026-11-20T08:55:00Z"),
            ("0 0 29 2 *", "2025-03-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 29 2 *", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z"),
            ("0 12 13 * fri", "2026-11-14T00:00:00Z", "2026-11-20T12:00:00Z"),
            ("0 12 * JAN,jul Sun", "2026-11-20T00:00:00Z", "2027-01-03T12:00:00Z"),
            ("0 0 * * 7", "2026-11-20T00:00:00Z", "2026-11-22T00:00:00Z"),
            ("59 23 31 12 *", "1969-12-31T00:00:00Z", "1969-12-31T23:59:00Z"),
        ] {
            assert_eq!(schedule(line).next(us(after)).map(rfc3339::format), Some(rfc3339::format(us(want))), "{line} after {after}");
        }
        assert!(schedule("never").is_never() && schedule("never").next(0).is_none());
    }

    #[test]
    fn what_is_no_schedule_is_named() {
        for (line, why) in [
            ("", "0 fields"),
            ("* * * *", "4 fields"),
            ("60 * * * *", "\"60\" is not 0 to 59"),
            ("* * 0 * *", "\"0\" is not 1 to 31"),
            ("* * * foo *", "\"foo\" is not 1 to 12"),
            ("*/0 * * * *", "\"0\" is no step"),
            ("5-3 * * * *", "runs backwards"),
            ("0 0 31 2 *", "no day of any year"),
            ("@yearlong", "1 fields"),
        ] {
            let error = line.parse::<Schedule>().unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("@daily"), "{line}: {error}");
        }
    }

    /// A hub that was away for weeks, or whose clock jumped ten years, has one run to make.
    // faults: B-9
    #[test]
    fn missed_runs_are_caught_up_once() {
        let table = Timetable { schedule: schedule("0 3 * * *"), jitter_us: 0, seed: 1 };
        let last = us("2026-11-20T03:00:00Z");
        for (now, want) in [
            ("2026-11-20T23:00:00Z", None),
            ("2026-11-21T02:59:59Z", None),
            ("2026-11-21T03:00:00Z", Some(("2026-11-21T03:00:00Z", false))),
            ("2026-12-08T02:00:00Z", Some(("2026-12-07T03:00:00Z", true))),
            ("2036-11-20T04:00:00Z", Some(("2036-11-20T03:00:00Z", true))),
            ("2076-11-20T04:00:00Z", Some(("2076-11-20T03:00:00Z", true))),
            ("2020-01-01T00:00:00Z", None),
        ] {
            let due = table.due(last, us(now));
            assert_eq!(due, want.map(|(at, late)| Due { at_us: us(at), late }), "{now}");
            if let Some(due) = due {
                assert_eq!(table.due(due.at_us, us(now)), None, "once");
            }
        }
        let never = Timetable { schedule: schedule("never"), ..table };
        assert_eq!(never.due(last, i64::MAX), None);
    }

    #[test]
    fn jitter_spreads_hubs_and_stays_the_same() {
        let runs: Vec<i64> = (0..20)
            .map(|seed| {
                let table = Timetable { schedule: schedule("@daily"), jitter_us: 3_600_000_000, seed };
                let mut last = us("2026-11-20T00:00:00Z");
                for day in 21..28 {
                    let next = table.next(last).unwrap();
                    let moment = us(&format!("2026-11-{day}T00:00:00Z"));
                    // The share of the day before may lie behind the start.
                    let from = if day == 21 { us("2026-11-20T00:00:00Z") } else { moment };
                    assert!((from..moment + 3_600_000_000).contains(&next), "{}", rfc3339::format(next));
                    assert_eq!((table.next(last), table.due(last, next - 1)), (Some(next), None));
                    assert_eq!(table.due(last, next), Some(Due { at_us: next, late: false }));
                    last = if next < moment { table.next(next).unwrap() } else { next };
                }
                last
            })
            .collect();
        let mut distinct = runs.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert!(distinct.len() > 17, "{}", distinct.len());
    }
}
