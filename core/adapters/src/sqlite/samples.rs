//! Samples of streams as rows. Their identity is (device, incarnation, lane, position, index): what is there already stays as it is.

use std::fmt::Write as _;

use mobo_core::ids::{LaneKey, Seq};
use mobo_core::rfc3339;
use mobo_core::schema::Collection;
use mobo_core::stream::{Column, Segment};
use mobo_core::time::Eff;
use mobo_core::value::Value;
use rusqlite::{CachedStatement, Connection};

use super::columns::Bound;
use super::error::Failure;
use super::live::LiveLog;
use super::table::quoted;

/// Parameters before the fields, and one.
const FIRST_FIELD: usize = 7;

/// Writes the samples of one stream.
pub(crate) struct SampleWriter<'c> {
    collection: &'c Collection,
    insert: CachedStatement<'c>,
    /// Where somebody follows the stream.
    live: Option<LiveLog<'c>>,
}

impl<'c> SampleWriter<'c> {
    /// A writer of `collection`, which is a stream.
    pub(crate) fn new(connection: &'c Connection, collection: &'c Collection) -> Result<Self, Failure> {
        let (mut names, mut marks) = (String::new(), String::new());
        for (field, place) in collection.fields.iter().zip(FIRST_FIELD..) {
            let _ = write!(names, ", {}", quoted(&field.name));
            let _ = write!(marks, ", ?{place}");
        }
        let insert = format!(
            "INSERT INTO {}(at, device, _incarnation, _lane, _seq, _index{names}) VALUES (?1, ?2, ?3, ?4, ?5, ?6{marks}) \
             ON CONFLICT DO NOTHING",
            quoted(&collection.name)
        );
        Ok(Self { collection, insert: connection.prepare_cached(&insert)?, live: LiveLog::of(connection, collection)? })
    }

    /// Writes the samples of one entry, sealed at `eff`.
    pub(crate) fn write(&mut self, lane: &LaneKey, seq: Seq, eff: Eff, segment: &Segment) -> Result<(), Failure> {
        let columns: Vec<&[Value]> = self
            .collection
            .fields
            .iter()
            .map(|field| match segment.columns.get(&field.id) {
                Some(Column::Typed(values)) => values.as_slice(),
                Some(Column::Unknown(_)) | None => &[],
            })
            .collect();
        let insert = &mut self.insert;
        insert.raw_bind_parameter(2, lane.device.to_string())?;
        insert.raw_bind_parameter(3, lane.incarnation.sql())?;
        insert.raw_bind_parameter(4, lane.lane.number())?;
        insert.raw_bind_parameter(5, seq.get().cast_signed())?;
        for (index, before_us) in segment.before_us.iter().enumerate() {
            insert.raw_bind_parameter(1, rfc3339::format(eff.before(*before_us).0))?;
            insert.raw_bind_parameter(6, i64::try_from(index).unwrap_or(i64::MAX))?;
            for (place, column) in (FIRST_FIELD..).zip(&columns) {
                insert.raw_bind_parameter(place, Bound(column.get(index).unwrap_or(&Value::Null)))?;
            }
            insert.raw_execute()?;
        }
        self.live.as_mut().map_or(Ok(()), |live| live.sampled(lane, eff, segment))
    }
}
