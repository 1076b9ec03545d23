//! Segments: what goes in comes out, what is hostile is refused, and what steady telemetry costs.

use super::*;
use crate::ids::Lane;
use crate::schema::{Field, FieldType, Kind};

const TYPES: [FieldType; 7] =
    [FieldType::Int, FieldType::Timestamp, FieldType::Float, FieldType::Bool, FieldType::Text, FieldType::Json, FieldType::Bytes];

fn id(number: u64) -> FieldId {
    FieldId::new(number).unwrap()
}

/// One field of each type, its id being its place in [`TYPES`] from 1.
fn stream() -> Collection {
    let field = |(id, kind): (u64, FieldType)| Field {
        id: FieldId::new(id).unwrap(),
        name: kind.name().into(),
        kind,
        retired: false,
        references: None,
    };
    Collection {
        id: CollectionId::new(7).unwrap(),
        name: "vitals".into(),
        kind: Kind::Stream,
        rev: 1,
        fields: (1..).zip(TYPES).map(field).collect(),
        rules: vec![],
        lane: Lane::Telemetry,
        store: "default".into(),
    }
}

fn segment(before_us: Vec<u64>, columns: impl IntoIterator<Item = (u64, Column)>) -> Segment {
    let columns = columns.into_iter().map(|(field, column)| (id(field), column)).collect();
    Segment { collection: CollectionId::new(7).unwrap(), before_us, columns, author: None }
}

#[track_caller]
fn round_trip(segment: &Segment) -> usize {
    let payload = segment.encode(&stream()).unwrap();
    assert_eq!(peek_collection(&payload).unwrap(), segment.collection);
    assert_eq!(&Segment::decode(&payload, &stream()).unwrap(), segment);
    payload.len()
}

/// A small deterministic generator: the same seed gives the same segments everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn signed(&mut self) -> i64 {
        let bits = self.below(64);
        match self.below(8) {
            0 => i64::MIN,
            1 => i64::MAX,
            _ => self.next().cast_signed() >> bits,
        }
    }

    fn value(&mut self, kind: FieldType) -> Value {
        let text: String = (0..self.below(9)).map(|_| char::from(b'a' + u8::try_from(self.below(26)).unwrap())).collect();
        match kind {
            FieldType::Int => Value::Int(self.signed()),
            FieldType::Timestamp => Value::timestamp(self.signed()).unwrap_or(Value::Timestamp(-1)),
            FieldType::Float if self.below(4) == 0 => Value::float(f64::from_bits(self.next())).unwrap_or(Value::Float(-1.0e-300)),
            FieldType::Float => Value::float(self.signed() as f64 / 1_000.0).unwrap(),
            FieldType::Bool => Value::Bool(self.below(2) == 0),
            FieldType::Text => Value::Text(text),
            FieldType::Json => Value::json(&format!("{{\"{text}\":[{}]}}", self.below(99))).unwrap(),
            FieldType::Bytes => Value::Bytes(text.into_bytes()),
            FieldType::Counter | FieldType::List => unreachable!("streams have neither"),
        }
    }

    fn segment(&mut self) -> Segment {
        let samples = 1 + self.below(40);
        let before_us = (0..samples).map(|_| self.signed().unsigned_abs().min(i64::MAX.cast_unsigned())).collect();
        let mut columns = Vec::new();
        for (field, kind) in (1..).zip(TYPES) {
            let nulls = self.below(3);
            let value = |random: &mut Self| if random.below(3) < nulls { Value::Null } else { random.value(kind) };
            if self.below(4) > 0 {
                columns.push((field, Column::Typed((0..samples).map(|_| value(self)).collect())));
            }
        }
        columns.push((1_000 + self.below(9), Column::Unknown(self.next().to_le_bytes().to_vec())));
        Segment { author: (self.below(2) == 0).then(|| "ann".to_owned()), ..segment(before_us, columns) }
    }
}

#[test]
fn what_goes_in_comes_out() {
    let mut random = Random(0x5eed);
    for _ in 0..1_000 {
        round_trip(&random.segment());
    }
}

#[test]
fn the_ends_of_every_range_come_out() {
    let ints = [i64::MIN, i64::MAX, 0, i64::MIN, -1, i64::MAX].map(Value::Int).to_vec();
    let times = [crate::value::TIMESTAMP_MIN, crate::value::TIMESTAMP_MAX, 0, -1, 1, 0].map(Value::Timestamp).to_vec();
    let floats = [f64::MIN, f64::MAX, f64::MIN_POSITIVE, 5e-324, 0.1, -0.1].map(Value::Float).to_vec();
    let decimals = [9_007_199_254.740_992, -9_007_199_254.740_992, 0.0, 0.000_001, -0.5, 3.0].map(Value::Float).to_vec();
    let before = vec![0, i64::MAX.cast_unsigned(), 0, 1, 5, i64::MAX.cast_unsigned()];
    for (field, values) in [(1, ints), (2, times), (3, floats), (3, decimals)] {
        round_trip(&segment(before.clone(), [(field, Column::Typed(values))]));
    }
    let most = vec![1; limits::ENTRY_SAMPLES_MAX];
    round_trip(&segment(most, [(4, Column::Typed(vec![Value::Bool(true); limits::ENTRY_SAMPLES_MAX]))]));
}

#[test]
fn minus_zero_is_zero() {
    for other in [0.25, 1.0e300] {
        let column = |zero: f64| Column::Typed(vec![Value::Float(zero), Value::Float(other)]);
        let payload = segment(vec![1, 0], [(3, column(-0.0))]).encode(&stream()).unwrap();
        let decoded = Segment::decode(&payload, &stream()).unwrap();
        assert_eq!(payload, segment(vec![1, 0], [(3, column(0.0))]).encode(&stream()).unwrap());
        assert!(matches!(&decoded.columns[&id(3)], Column::Typed(values) if values[0] == Value::Float(0.0)));
    }
}

#[test]
fn what_cannot_be_sealed_is_refused_by_name() {
    let typed = |value: Value| [(3, Column::Typed(vec![value]))];
    let many = (1..=30).map(|field| (field, Column::Unknown(vec![])));
    let cases = [
        (segment(vec![], []), BadSegment::Size),
        (segment(vec![0; limits::ENTRY_SAMPLES_MAX + 1], []), BadSegment::Size),
        (segment(vec![0; limits::ENTRY_SAMPLES_MAX], many), BadSegment::Size),
        (segment(vec![0, 0], typed(Value::Float(1.0))), BadSegment::Ragged(id(3))),
        (segment(vec![0], typed(Value::Float(f64::NAN))), BadSegment::Value(id(3))),
        (segment(vec![0], typed(Value::Int(1))), BadSegment::Value(id(3))),
        (segment(vec![0], [(2, Column::Typed(vec![Value::Timestamp(i64::MAX)]))]), BadSegment::Value(id(2))),
        (segment(vec![0], [(5, Column::Typed(vec![Value::Text("\0".into())]))]), BadSegment::Value(id(5))),
        (segment(vec![0], [(6, Column::Typed(vec![Value::Json("{ }".into())]))]), BadSegment::Value(id(6))),
        (segment(vec![0], [(9, Column::Typed(vec![Value::Int(1)]))]), BadSegment::Value(id(9))),
        (segment(vec![u64::MAX], []), BadSegment::Time),
    ];
    for (segment, want) in cases {
        assert_eq!(segment.encode(&stream()), Err(want));
    }
}

/// A payload of `samples` samples with one column as it comes.
fn payload(samples: u64, before: &[u8], field: u64, column: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.map(5).u64(0).u64(7).u64(1).u64(1).u64(2).u64(samples).u64(3).bytes(before).u64(4).map(1).u64(field).bytes(column);
    writer.into_bytes()
}

/// Samples, times, field, column, and what is wrong.
type Hostile<'a> = (u64, &'a [u8], u64, &'a [u8], &'a str);

#[test]
fn hostile_payloads_are_refused() {
    let long = [&[0][..], &[0xff; 9], &[0x02]].concat();
    let cases: [Hostile<'_>; 18] = [
        (0, &[], 1, &[2], "no samples"),
        (u64::MAX, &[0], 1, &[2], "more samples than memory"),
        (2, &[0], 1, &[2], "fewer times than samples"),
        (1, &[0, 0], 1, &[2], "more times than samples"),
        (2, &[0, 1], 1, &[2], "a sample from the future"),
        (1, &[0], 1, &[], "no presence"),
        (1, &[0], 1, &[3], "an unknown presence"),
        (1, &[0], 1, &[1, 2], "a bit beyond the samples"),
        (1, &[0], 1, &[0], "no value"),
        (1, &[0], 1, &[0, 0, 0], "two values"),
        (1, &[0], 1, &[0, 0x80, 0], "a padded varint"),
        (1, &[0], 1, &long, "a varint over 64 bits"),
        (1, &[0], 3, &[0, 0, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f], "a NaN"),
        (1, &[0], 3, &[0, 1, 7, 0], "seven decimal places"),
        (1, &[0], 3, &[0, 2, 0, 0], "an unknown form of floats"),
        (1, &[0], 5, &[0, 2, 0xff, 0xff], "text that is not UTF-8"),
        (1, &[0], 6, &[0, 3, b'{', b' ', b'}'], "JSON that is not canonical"),
        (1, &[0], 7, &[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], "a length beyond the input"),
    ];
    for (samples, before, field, column, what) in cases {
        assert!(Segment::decode(&payload(samples, before, field, column), &stream()).is_err(), "{what}");
    }
    for field in [FieldType::Counter, FieldType::List] {
        let mut odd = stream();
        odd.fields[0].kind = field;
        assert!(Segment::decode(&payload(1, &[0], 1, &[0, 0]), &odd).is_err(), "{field:?} in a stream");
    }
    let mut other = payload(1, &[0], 1, &[2]);
    assert_eq!(other[4], 1, "the encoding");
    other[4] = 3;
    assert!(Segment::decode(&other, &stream()).is_err(), "an encoding to come");
}

/// A payload of one sample whose body is these bytes, deflated.
fn deflated(encoding: u64, deflated: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.map(4).u64(0).u64(7).u64(1).u64(encoding).u64(2).u64(1).u64(6).bytes(deflated);
    writer.into_bytes()
}

// faults: X-2
#[test]
fn hostile_deflated_payloads_are_refused() {
    let pack = |bytes: &[u8]| miniz_oxide::deflate::compress_to_vec(bytes, DEFLATE_LEVEL);
    let mut body = Writer::new();
    body.map(2).u64(3).bytes(&[0]).u64(4).map(1).u64(1).bytes(&[2]);
    let body = body.into_bytes();
    assert!(Segment::decode(&deflated(2, &pack(&body)), &stream()).is_ok());
    let bomb = pack(&vec![0; limits::ENTRY_PAYLOAD_BYTES_MAX + 1]);
    assert!(bomb.len() < 1_000, "a bomb is small");
    let cases = [
        (deflated(1, &pack(&body)), "columns where the encoding has them plain"),
        (deflated(2, &bomb), "more than a payload may hold"),
        (deflated(2, &pack(&pack(&body))), "two layers"),
        (deflated(2, &[]), "nothing"),
        (deflated(2, &pack(&body)[1..]), "a stream without its beginning"),
        (deflated(2, &pack(&[body.as_slice(), &[0]].concat())), "bytes behind the columns"),
        (deflated(2, &pack(&body[..body.len() - 1])), "columns cut short"),
    ];
    for (payload, what) in cases {
        assert!(Segment::decode(&payload, &stream()).is_err(), "{what}");
    }
}

// faults: X-2
#[test]
fn columns_of_nulls_cannot_fill_the_memory() {
    let columns = (1..=27).map(|field| (1_000 + field, Column::Unknown(vec![2]))).collect::<Vec<_>>();
    let samples = limits::ENTRY_CELLS_MAX / columns.len();
    let small = segment(vec![0; samples], columns.clone()).encode(&stream()).unwrap();
    let mut schema = stream();
    let like = schema.fields[0].clone();
    schema.fields.extend(columns.iter().map(|(field, _)| Field { id: id(*field), ..like.clone() }));
    assert_eq!(Segment::decode(&small, &schema).unwrap().before_us.len(), samples);
    assert_eq!(segment(vec![0; samples + 1], columns).encode(&stream()), Err(BadSegment::Size));
}

#[test]
fn any_bytes_get_an_answer() {
    let mut random = Random(0xbad);
    for _ in 0..4_000 {
        let mut payload = random.segment().encode(&stream()).unwrap();
        for _ in 0..=random.below(3) {
            let index = usize::try_from(random.below(payload.len() as u64)).unwrap();
            payload[index] = u8::try_from(random.below(256)).unwrap();
        }
        payload.truncate(payload.len() - usize::try_from(random.below(4)).unwrap());
        if let Ok(segment) = Segment::decode(&payload, &stream()) {
            round_trip(&segment);
        }
    }
}

/// Readings of two decimals, one a second, walking slowly; `jitter_us` is how far each is off its second.
fn telemetry(jitter_us: u64) -> Segment {
    let mut random = Random(0x7e1e);
    let mut reading = 2_150_i64;
    let (mut before_us, mut values) = (Vec::new(), Vec::new());
    for sample in (0..3_600_u64).rev() {
        before_us.push(sample * 1_000_000 + random.below(jitter_us + 1));
        reading += random.below(21).cast_signed() - 10;
        values.push(Value::Float(reading as f64 / 100.0));
    }
    segment(before_us, [(3, Column::Typed(values))])
}

#[test]
fn steady_readings_take_less_than_a_byte_each() {
    for (jitter_us, bytes_each_max) in [(0, 0.75), (2_000, 2.7)] {
        let bytes_each = round_trip(&telemetry(jitter_us)) as f64 / 3_600.0;
        println!("jitter {jitter_us} us: {bytes_each:.3} B/sample");
        assert!(bytes_each <= bytes_each_max, "jitter {jitter_us} us: {bytes_each} B/sample");
    }
}
