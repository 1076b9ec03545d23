//! The records that were written by SQL: as they were, and as they are.

use mobo_core::ids::{FieldId, ProjectId, RecordId, RecordKey, Ver};
use mobo_core::rfc3339;
use mobo_core::schema::{Collection, FieldType};
use mobo_core::table::TableState;
use mobo_core::value::Value;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, Row, ToSql};

use super::triggers::before;
use crate::sqlite::error::Failure;
use crate::sqlite::records::{HiddenReader, Shape, StoredRecord};
use crate::sqlite::table::quoted;

/// A record that was written.
pub(crate) struct Touched {
    pub(crate) key: RecordKey,
    /// As it was before: what is wrong with its row, where something is; `None`: it was not there.
    pub(crate) was: Option<StoredRecord>,
    /// True if it was written whole: inserted, or replaced.
    pub(crate) whole: bool,
    /// When it was first written, in microseconds since 1970 by the machine's clock.
    pub(crate) at_us: i64,
    /// Its columns now, in the order of the fields, and the version that the writer gave; `None`: there is no row.
    pub(crate) now: Option<(Vec<Cell>, i64)>,
}

impl Touched {
    /// The version that its writer gave as the one that it has read (rule R24); `None` where that is the latest, or nothing was said.
    pub(crate) fn seen(&self, given: i64, latest: Ver) -> Option<Ver> {
        u64::try_from(given).ok().filter(|given| !self.whole && *given > 0 && *given < latest.0).map(Ver)
    }
}

/// The bytes of an id: of text, as SQLite means it, which need not be UTF-8.
pub(crate) struct RawId(Vec<u8>);

impl RawId {
    /// For people.
    pub(crate) fn lossy(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

impl From<&RecordId> for RawId {
    fn from(id: &RecordId) -> Self {
        Self(id.as_str().as_bytes().to_vec())
    }
}

impl ToSql for RawId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(&self.0)))
    }
}

/// A row that was written.
pub(crate) enum Written {
    /// Of a record.
    Record(Box<Touched>),
    /// Under an id that no record can have.
    Nameless(RawId),
}

/// A value as SQL left it: one of the field's, or what is wrong with it.
pub(crate) type Cell = Result<Value, String>;

/// The way through what was written into one table.
pub(crate) struct Scan<'c> {
    conn: &'c Connection,
    collection: &'c Collection,
    shape: Shape<'c>,
    hidden: HiddenReader<'c>,
    statement: CachedStatement<'c>,
    after: RawId,
}

/// Columns of the scan before those of [`Shape::select`].
const HEAD: usize = 5;

impl<'c> Scan<'c> {
    pub(crate) fn new(conn: &'c Connection, project: ProjectId, collection: &'c Collection) -> Result<Self, Failure> {
        let (table, before) = (quoted(&collection.name), before(collection));
        let (mut olds, mut news) = (String::new(), String::new());
        for field in &collection.fields {
            olds.push_str(&format!(", s.{}", quoted(&field.name)));
            news.push_str(&format!(", t.{}", quoted(&field.name)));
        }
        let sql = format!(
            "SELECT s.mobo_was, s.mobo_whole, s.mobo_at, t.id IS NOT NULL, t.mobo_ver, s.id, s.mobo_ver, s._bucket, s._position, s._mobo\
             {olds}{news} FROM {before} s LEFT JOIN {table} t ON t.id = s.id WHERE s.id > ?1 ORDER BY s.id LIMIT ?2"
        );
        let shape = Shape::at(collection, HEAD);
        let hidden = HiddenReader::new(conn, project, collection)?;
        Ok(Self { conn, collection, shape, hidden, statement: conn.prepare_cached(&sql)?, after: RawId(Vec::new()) })
    }

    /// The next rows, at most so many.
    pub(crate) fn next(&mut self, rows_max: usize) -> Result<Vec<Written>, Failure> {
        let (mut found, mut last) = (Vec::new(), None);
        let mut rows = self.statement.query((&self.after, i64::try_from(rows_max).unwrap_or(i64::MAX)))?;
        while let Some(row) = rows.next()? {
            let id = row.get_ref(HEAD)?.as_bytes().map_err(|_| Failure::damaged("a row has an id that is no text"))?.to_vec();
            let read = std::str::from_utf8(&id).ok().and_then(|id| RecordId::new(id).ok());
            found.push(match read {
                Some(id) => Written::Record(Box::new(touched(row, id, (self.collection, &self.shape), &mut self.hidden)?)),
                None => Written::Nameless(RawId(id.clone())),
            });
            last = Some(id);
        }
        drop(rows);
        if let Some(last) = last {
            self.after = RawId(last);
        }
        Ok(found)
    }

    /// All is taken in.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        self.conn.prepare_cached(&format!("DELETE FROM {}", before(self.collection)))?.execute([])?;
        Ok(())
    }
}

fn touched(
    row: &Row<'_>,
    id: RecordId,
    (collection, shape): (&Collection, &Shape<'_>),
    hidden: &mut HiddenReader<'_>,
) -> Result<Touched, Failure> {
    let key = RecordKey { collection: collection.id, id };
    let stored = if row.get(0)? { Some(shape.visible(row)?) } else { hidden.read(&key.id)? };
    let now = if row.get(3)? {
        let first = shape.end();
        let cells = collection.fields.iter().enumerate().map(|(index, field)| Ok(cell(row.get_ref(first + index)?, field.kind)));
        Some((cells.collect::<Result<Vec<Cell>, Failure>>()?, row.get(4)?))
    } else {
        None
    };
    // Days since noon of a Monday long ago, as SQLite counts.
    let at_us = ((row.get::<_, f64>(2)? - 2_440_587.5) * 86_400e6) as i64;
    Ok(Touched { key, was: stored, whole: row.get(1)?, at_us, now })
}

/// A value in the form that the field has: times and JSON come in many.
fn cell(stored: ValueRef<'_>, kind: FieldType) -> Cell {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| "takes UTF-8".to_owned());
    match (kind, stored) {
        (_, ValueRef::Null) => Ok(Value::Null),
        (FieldType::Bool, ValueRef::Integer(number @ (0 | 1))) => Ok(Value::Bool(number == 1)),
        (FieldType::Int | FieldType::Counter, ValueRef::Integer(number)) => Ok(Value::Int(number)),
        (FieldType::Float, ValueRef::Real(number)) => Value::float(number).ok_or_else(|| "takes a finite number".to_owned()),
        (FieldType::Text, ValueRef::Text(bytes)) => {
            Value::text(&text(bytes)?).ok_or_else(|| "takes shorter text, without U+0000".to_owned())
        }
        (FieldType::Bytes, ValueRef::Blob(bytes)) => Value::bytes(bytes).ok_or_else(|| "takes fewer bytes".to_owned()),
        (FieldType::Json | FieldType::List, ValueRef::Text(bytes)) => {
            Value::json(&text(bytes)?).ok_or_else(|| "takes JSON whose numbers a double holds".to_owned())
        }
        (FieldType::Timestamp, ValueRef::Text(bytes)) => {
            let text = text(bytes)?;
            // As SQLite means it: without an offset it is UTC.
            let us = rfc3339::parse(&text).or_else(|| rfc3339::parse(&format!("{text}Z")));
            us.and_then(Value::timestamp).ok_or_else(|| "takes a time such as 2026-02-03T04:05:06Z".to_owned())
        }
        _ => Err(format!("takes {}", kind.name())),
    }
}

/// A register as its column shows it.
pub(crate) fn shown(state: &TableState, field: FieldId) -> Value {
    let value = state.value(field);
    if matches!(value, Value::Unknown(_)) { Value::Null } else { value.clone() }
}

/// What a counter was raised by: on a new row the number, else its difference to what its writer saw (rule R10). NULL is 0.
pub(crate) fn increment(state: &TableState, field: FieldId, value: &Value) -> i128 {
    let number = if let Value::Int(number) = value { *number } else { 0 };
    let seen = if state.is_visible() { state.counter(field) } else { 0 };
    i128::from(number) - i128::from(seen)
}

/// Makes the row what it was before it was written.
pub(crate) fn put_back(conn: &Connection, collection: &Collection, id: &RawId) -> Result<(), Failure> {
    let (table, before) = (quoted(&collection.name), before(collection));
    conn.prepare_cached(&format!("DELETE FROM {table} WHERE id = ?1"))?.execute([id])?;
    let mut names = String::from("id, mobo_ver, _extra, _mobo, _bucket, _position");
    for field in &collection.fields {
        names.push_str(", ");
        names.push_str(&quoted(&field.name));
    }
    let sql = format!("INSERT INTO {table}({names}) SELECT {names} FROM {before} WHERE id = ?1 AND mobo_was = 1");
    conn.prepare_cached(&sql)?.execute([id])?;
    Ok(())
}
