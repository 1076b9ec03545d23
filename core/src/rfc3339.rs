//! Timestamps as text: RFC 3339 in the proleptic Gregorian calendar, exact to the microsecond.

use crate::value::{TIMESTAMP_MAX, TIMESTAMP_MIN};

const SECOND_US: i64 = 1_000_000;
const DAY_S: i64 = 86_400;
/// Days from 0000-03-01, where the calendar's years are taken to begin, to 1970-01-01.
const EPOCH_DAY: i64 = 719_468;
/// Days of 400 years: the calendar repeats.
const ERA_DAYS: i64 = 146_097;

/// The text of a timestamp in microseconds since 1970 UTC: always six digits of fraction, always `Z`. Times outside years 1 to 9999 are
/// clamped to them.
#[must_use]
pub fn format(us: i64) -> String {
    let us = us.clamp(TIMESTAMP_MIN, TIMESTAMP_MAX);
    let (seconds, fraction) = (us.div_euclid(SECOND_US), us.rem_euclid(SECOND_US));
    let (days, second) = (seconds.div_euclid(DAY_S), seconds.rem_euclid(DAY_S));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let mut text = String::with_capacity(27);
    let parts = [
        (year, 1_000, '-'),
        (month, 10, '-'),
        (day, 10, 'T'),
        (hour, 10, ':'),
        (minute, 10, ':'),
        (second, 10, '.'),
        (fraction, 100_000, 'Z'),
    ];
    for (number, highest, behind) in parts {
        let mut place = highest;
        while place > 0 {
            text.push(char::from_digit(u32::try_from(number / place % 10).unwrap_or(0), 10).unwrap_or('0'));
            place /= 10;
        }
        text.push(behind);
    }
    text
}

/// Microseconds since 1970 UTC for a text such as `2026-02-03T04:05:06.789Z` or `2026-02-03 05:05:06+01:00`.
///
/// The offset must be there: without one, nobody knows the moment. Digits of the fraction after the sixth are cut off; second 60 is the
/// first second of the next minute. `None` for what is no such text, no day of the calendar, or not in years 1 to 9999 UTC.
#[must_use]
pub fn parse(text: &str) -> Option<i64> {
    let mut rest = text.as_bytes();
    let (year, month, day) = (number(&mut rest, 4)?, separated(&mut rest, b"-")?, separated(&mut rest, b"-")?);
    let (hour, minute, second) = (separated(&mut rest, b"Tt ")?, separated(&mut rest, b":")?, separated(&mut rest, b":")?);
    let fraction = fraction(&mut rest)?;
    let offset = offset(rest)?;
    let is_day = (1..=12).contains(&month) && (1..=month_days(year, month)).contains(&day);
    if year == 0 || !is_day || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days(year, month, day) * DAY_S + hour * 3_600 + minute * 60 + second - offset;
    let us = seconds * SECOND_US + fraction;
    (TIMESTAMP_MIN..=TIMESTAMP_MAX).contains(&us).then_some(us)
}

fn separated(rest: &mut &[u8], separators: &[u8]) -> Option<i64> {
    let (first, tail) = rest.split_first()?;
    *rest = tail;
    if separators.contains(first) { number(rest, 2) } else { None }
}

fn number(rest: &mut &[u8], digits: usize) -> Option<i64> {
    let (head, tail) = rest.split_at_checked(digits)?;
    *rest = tail;
    head.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

fn fraction(rest: &mut &[u8]) -> Option<i64> {
    let Some((b'.', tail)) = rest.split_first() else {
        return Some(0);
    };
    let digits = tail.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (head, tail) = tail.split_at_checked(digits)?;
    *rest = tail;
    let six = head.iter().chain(std::iter::repeat(&b'0')).take(6);
    (digits > 0).then(|| six.fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
}

/// The seconds that the local time is ahead of UTC.
fn offset(mut rest: &[u8]) -> Option<i64> {
    let sign = match rest.split_first()? {
        (b'Z' | b'z', []) => return Some(0),
        (b'+', tail) => {
            rest = tail;
            1
        }
        (b'-', tail) => {
            rest = tail;
            -1
        }
        _ => return None,
    };
    let (hours, minutes) = (number(&mut rest, 2)?, separated(&mut rest, b":")?);
    (rest.is_empty() && hours <= 23 && minutes <= 59).then_some(sign * (hours * 3_600 + minutes * 60))
}

fn month_days(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01. Years are taken to begin in March, so that the leap day is the last one and the months before it have a pattern.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let of_year = (153 * month + 2) / 5 + day - 1;
    let of_years = year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    of_years + of_year - EPOCH_DAY
}

/// Year, month and day of a day counted from 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    let day = days + EPOCH_DAY;
    let (era, of_era) = (day.div_euclid(ERA_DAYS), day.rem_euclid(ERA_DAYS));
    let of_era_year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (of_era_year * 365 + of_era_year / 4 - of_era_year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (of_era_year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        let cases = [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:00.000001Z", 1),
            ("1969-12-31T23:59:59.999999Z", -1),
            ("2000-02-29T12:00:00Z", 951_825_600_000_000),
            ("2026-02-03T04:05:06.789Z", 1_770_091_506_789_000),
            ("2026-02-03t05:05:06.789+01:00", 1_770_091_506_789_000),
            ("2026-02-02 22:35:06.789-05:30", 1_770_091_506_789_000),
            ("2026-02-03T04:05:06.789000999z", 1_770_091_506_789_000),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000_000),
            ("0001-01-01T00:00:00Z", TIMESTAMP_MIN),
            ("9999-12-31T23:59:59.999999Z", TIMESTAMP_MAX),
        ];
        for (text, us) in cases {
            assert_eq!(parse(text), Some(us), "{text}");
            assert_eq!(parse(&format(us)), Some(us), "{text}");
        }
        assert_eq!(format(1_770_091_506_789_000), "2026-02-03T04:05:06.789000Z");
        assert_eq!(format(i64::MIN), "0001-01-01T00:00:00.000000Z");
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        let cases = [
            "",
            "2026-02-03",
            "2026-02-03T04:05:06",
            "2026-02-03T04:05Z",
            "2026-02-30T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:61Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00+1:00",
            "2026-01-01T00:00:00+01:00x",
            "2026-01-01T00:00:00+24:00",
            "0000-12-31T00:00:00Z",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "+2026-01-01T00:00:00Z",
            "２026-01-01T00:00:00Z",
        ];
        for text in cases {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let (first, last) = (TIMESTAMP_MIN / SECOND_US / DAY_S, TIMESTAMP_MAX / SECOND_US / DAY_S);
        let mut want = (1, 1, 1);
        for day in first..=last {
            assert_eq!(civil(day), want);
            assert_eq!(days(want.0, want.1, want.2), day);
            want = match want {
                (year, 12, 31) => (year + 1, 1, 1),
                (year, month, day) if day == month_days(year, month) => (year, month + 1, 1),
                (year, month, day) => (year, month, day + 1),
            };
        }
        assert_eq!(want, (10_000, 1, 1));
    }
}
