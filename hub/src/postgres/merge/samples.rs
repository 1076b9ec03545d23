//! Samples as rows of their stream's table.

use mobo_core::limits;
use mobo_core::merge::SampleWrite;
use mobo_core::schema::{Collection, Schema};
use mobo_core::stream;
use mobo_core::value::Value;
use sqlx::AssertSqlSafe;

use crate::postgres::cells::{Column, Micros};
use crate::postgres::error::Failure;
use crate::postgres::live;
use crate::postgres::session::Tx;
use crate::postgres::table::{quoted, table};

/// Writes the samples of a batch.
pub(super) async fn write(tx: &mut Tx, schema: &Schema, samples: &[SampleWrite]) -> Result<(), Failure> {
    let mut segments: Vec<&SampleWrite> = samples.iter().collect();
    segments.sort_by_key(|sample| sample.segment.collection);
    for group in segments.chunk_by(|a, b| a.segment.collection == b.segment.collection) {
        let Some(collection) = group.first().and_then(|first| schema.get(first.segment.collection)) else { continue };
        let mut rest = group;
        while !rest.is_empty() {
            let (some, others) = rest.split_at(fitting(rest));
            write_some(tx, collection, some).await?;
            rest = others;
        }
    }
    Ok(())
}

/// How many segments one statement takes: one at least.
fn fitting(segments: &[&SampleWrite]) -> usize {
    let mut samples = 0;
    let fits = |segment: &&&SampleWrite| {
        samples += segment.segment.before_us.len();
        samples <= limits::ENTRY_SAMPLES_MAX
    };
    segments.iter().take_while(fits).count().max(1)
}

#[derive(Default)]
struct Keys {
    at: Vec<Micros>,
    devices: Vec<String>,
    incarnations: Vec<i64>,
    lanes: Vec<i16>,
    seqs: Vec<i64>,
    indexes: Vec<i32>,
}

async fn write_some(tx: &mut Tx, collection: &Collection, segments: &[&SampleWrite]) -> Result<(), Failure> {
    let mut keys = Keys::default();
    let mut columns: Vec<Column<'_>> = collection.fields.iter().map(|field| Column::of(field.kind, 0)).collect();
    for sample in segments {
        let device = sample.lane.device.to_string();
        for (index, before) in (0_i32..).zip(&sample.segment.before_us) {
            keys.at.push(Micros(sample.eff.before(*before).0));
            keys.devices.push(device.clone());
            keys.incarnations.push(sample.lane.incarnation.sql());
            keys.lanes.push(i16::from(sample.lane.lane.number()));
            keys.seqs.push(sample.seq.get().cast_signed());
            keys.indexes.push(index);
        }
        for (field, column) in collection.fields.iter().zip(&mut columns) {
            let values = match sample.segment.columns.get(&field.id) {
                Some(stream::Column::Typed(values)) => values.as_slice(),
                Some(stream::Column::Unknown(_)) | None => &[],
            };
            for index in 0..sample.segment.before_us.len() {
                column.push(values.get(index).unwrap_or(&Value::Null));
            }
        }
    }
    let mut statement = sqlx::query(AssertSqlSafe(insert(collection, &columns)))
        .bind(keys.at)
        .bind(keys.devices)
        .bind(keys.incarnations)
        .bind(keys.lanes)
        .bind(keys.seqs)
        .bind(keys.indexes);
    for column in columns {
        statement = column.bind(statement);
    }
    tx.run(statement).await?;
    live::sampled(tx, collection, segments);
    Ok(())
}

fn insert(collection: &Collection, columns: &[Column<'_>]) -> String {
    use std::fmt::Write as _;
    let (mut names, mut values, mut arrays, mut aliases) = (String::new(), String::new(), String::new(), String::new());
    for (index, (field, column)) in collection.fields.iter().zip(columns).enumerate() {
        let _ = write!(names, ", {}", quoted(&field.name));
        let _ = write!(values, ", u.c{index}{}", column.cast());
        let _ = write!(arrays, ", ${}::{}", index + 7, column.array_type());
        let _ = write!(aliases, ", c{index}");
    }
    format!(
        "INSERT INTO {}(at, device, _incarnation, _lane, _seq, _index{names}) \
         SELECT u.at, u.device, u.incarnation, u.lane, u.seq, u.index{values} \
         FROM unnest($1::timestamptz[], $2::text[], $3::int8[], $4::int2[], $5::int8[], $6::int4[]{arrays}) \
         AS u(at, device, incarnation, lane, seq, index{aliases}) ON CONFLICT DO NOTHING",
        table(collection)
    )
}
