//! Thinning: minimum, maximum and mean of each minute, in place of samples for which there is no room.

use std::collections::BTreeMap;

use super::{Column, Segment};
use crate::ids::{CollectionId, FieldId};
use crate::limits;
use crate::value::Value;

const MINUTE_US: i64 = 60_000_000;

/// Samples of one stream, minute by minute. Times are microseconds on any one clock.
#[derive(Clone, Debug, Default)]
pub struct Thinner {
    minutes: BTreeMap<i64, Minute>,
    taken: u64,
}

#[derive(Clone, Debug, Default)]
struct Minute {
    samples: u64,
    first: i64,
    last: i64,
    fields: BTreeMap<FieldId, Seen>,
}

/// What is known of one field within a minute.
#[derive(Clone, Debug)]
struct Seen {
    least: Value,
    most: Value,
    sum: f64,
    count: f64,
    /// What has no mean: the last one stands for all.
    last: Value,
}

impl Thinner {
    /// Takes in the samples of an entry that was sealed at `sealed_us`. Columns of unknown fields cannot be thinned, and go.
    pub fn take(&mut self, sealed_us: i64, segment: &Segment) {
        for (index, before) in segment.before_us.iter().enumerate() {
            let at = sealed_us.saturating_sub(i64::try_from(*before).unwrap_or(i64::MAX));
            let minute = self.minutes.entry(at.div_euclid(MINUTE_US)).or_default();
            if minute.samples == 0 {
                (minute.first, minute.last) = (at, at);
            }
            (minute.first, minute.last) = (minute.first.min(at), minute.last.max(at));
            minute.samples += 1;
            self.taken += 1;
            for (field, column) in &segment.columns {
                let Column::Typed(values) = column else { continue };
                match values.get(index) {
                    None | Some(Value::Null) => {}
                    Some(value) => minute.see(*field, value),
                }
            }
        }
    }

    /// How many samples were taken in.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// How many are left.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.minutes.values().map(|minute| minute.samples.min(3)).sum()
    }

    /// What is left, as entries that are sealed at `now_us`.
    #[must_use]
    pub fn finish(self, collection: CollectionId, now_us: i64) -> Vec<Segment> {
        let mut rows: Vec<(i64, BTreeMap<FieldId, Value>)> = Vec::new();
        for minute in self.minutes.into_values() {
            minute.rows(&mut rows);
        }
        let chunks = rows.chunks(limits::ENTRY_SAMPLES_MAX / 10);
        chunks.map(|rows| segment(collection, now_us, rows)).collect()
    }
}

impl Minute {
    fn see(&mut self, field: FieldId, value: &Value) {
        let number = number(value);
        let seen = self.fields.entry(field).or_insert_with(|| Seen {
            least: value.clone(),
            most: value.clone(),
            sum: 0.0,
            count: 0.0,
            last: value.clone(),
        });
        seen.last = value.clone();
        let Some(number) = number else { return };
        if self::number(&seen.least).is_none_or(|least| number < least) {
            seen.least = value.clone();
        }
        if self::number(&seen.most).is_none_or(|most| number > most) {
            seen.most = value.clone();
        }
        (seen.sum, seen.count) = (seen.sum + number, seen.count + 1.0);
    }

    /// Minima at the first moment of the minute, means in the middle, maxima at the last; fewer rows where there were fewer samples.
    fn rows(self, rows: &mut Vec<(i64, BTreeMap<FieldId, Value>)>) {
        let row = |pick: fn(&Seen) -> Value| self.fields.iter().map(|(field, seen)| (*field, pick(seen))).collect();
        let middle = self.first + (self.last - self.first) / 2;
        if self.samples >= 2 {
            rows.push((self.first, row(|seen| if seen.count > 0.0 { seen.least.clone() } else { seen.last.clone() })));
        }
        if self.samples != 2 {
            rows.push((middle, row(Seen::mean)));
        }
        if self.samples >= 2 {
            rows.push((self.last, row(|seen| if seen.count > 0.0 { seen.most.clone() } else { seen.last.clone() })));
        }
    }
}

impl Seen {
    fn mean(&self) -> Value {
        match self.last {
            Value::Float(_) if self.count > 0.0 => Value::Float(self.sum / self.count),
            #[expect(clippy::cast_possible_truncation, reason = "a mean of 64-bit integers; the cast saturates")]
            Value::Int(_) if self.count > 0.0 => Value::Int((self.sum / self.count).round() as i64),
            Value::Float(_)
            | Value::Int(_)
            | Value::Null
            | Value::Bool(_)
            | Value::Text(_)
            | Value::Bytes(_)
            | Value::Timestamp(_)
            | Value::Json(_)
            | Value::Unknown(_) => self.last.clone(),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "for comparing and for means")]
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        Value::Null | Value::Bool(_) | Value::Text(_) | Value::Bytes(_) | Value::Timestamp(_) | Value::Json(_) | Value::Unknown(_) => None,
    }
}

fn segment(collection: CollectionId, now_us: i64, rows: &[(i64, BTreeMap<FieldId, Value>)]) -> Segment {
    let mut columns: BTreeMap<FieldId, Vec<Value>> = BTreeMap::new();
    for (index, (_, values)) in rows.iter().enumerate() {
        for (field, value) in values {
            let column = columns.entry(*field).or_insert_with(|| vec![Value::Null; rows.len()]);
            column.iter_mut().skip(index).take(1).for_each(|place| place.clone_from(value));
        }
    }
    let before_us = rows.iter().map(|(at, _)| u64::try_from(now_us.saturating_sub(*at)).unwrap_or(0)).collect();
    let columns = columns.into_iter().map(|(field, values)| (field, Column::Typed(values))).collect();
    Segment { collection, before_us, columns, author: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: u64 = 5;

    fn field(number: u64) -> FieldId {
        FieldId::new(number).unwrap()
    }

    fn thinned(seconds: &[i64], degrees: &[f64]) -> Vec<(i64, Option<Value>, Option<Value>)> {
        let collection = CollectionId::new(STREAM).unwrap();
        let mut thinner = Thinner::default();
        for (second, degree) in seconds.iter().zip(degrees) {
            let columns = [
                (field(1), Column::Typed(vec![Value::Float(*degree)])),
                (field(2), Column::Typed(vec![Value::Text(format!("at {second}"))])),
            ];
            // Sealed a second after it was taken.
            let segment = Segment { collection, before_us: vec![1_000_000], columns: columns.into(), author: None };
            thinner.take((second + 1) * 1_000_000, &segment);
        }
        assert_eq!(thinner.taken(), seconds.len() as u64);
        let left = thinner.left();
        let segments = thinner.finish(collection, 1_000_000_000);
        let rows: Vec<_> = segments
            .iter()
            .flat_map(|segment| {
                let value = |number: u64, index: usize| match segment.columns.get(&field(number)) {
                    Some(Column::Typed(values)) => Some(values[index].clone()),
                    _ => None,
                };
                let at = |before: u64| (1_000_000_000 - i64::try_from(before).unwrap()) / 1_000_000;
                segment.before_us.iter().enumerate().map(move |(index, before)| (at(*before), value(1, index), value(2, index)))
            })
            .collect();
        assert_eq!(rows.len() as u64, left);
        rows
    }

    #[test]
    fn each_minute_keeps_least_mean_and_most() {
        let (float, text) = (|number| Some(Value::Float(number)), |text: &str| Some(Value::Text(text.to_owned())));
        let got = thinned(&[0, 10, 20, 30, 61, 125, 130], &[4.0, 1.0, 7.0, 0.0, 5.0, 2.0, 3.0]);
        let want = vec![
            (0, float(0.0), text("at 30")),
            (15, float(3.0), text("at 30")),
            (30, float(7.0), text("at 30")),
            (61, float(5.0), text("at 61")),
            (125, float(2.0), text("at 130")),
            (130, float(3.0), text("at 130")),
        ];
        assert_eq!(got, want);
        assert!(thinned(&[], &[]).is_empty());
    }
}
