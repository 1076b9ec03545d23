//! Records as rows, read back: one place for merges, pulls, audits and people who ask for one record.

use std::collections::{BTreeMap, BTreeSet};

use mobo_core::document::Document;
use mobo_core::ids::{BucketId, CollectionId, FieldId, Position, ProjectId, RecordId, RecordKey, StateHash, Ver};
use mobo_core::limits;
use mobo_core::record::RecordState;
use mobo_core::schema::{Collection, FieldType, Kind, Schema};
use mobo_core::table::row;
use mobo_core::value::Value;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row};

use super::cells;
use super::error::{Failure, known};
use super::session::Tx;
use super::table::{quoted, registers, table};

/// A record as it was found.
#[derive(Debug)]
pub(super) struct Found {
    /// Which.
    pub(super) key: RecordKey,
    /// Its state, or what is wrong with its row.
    pub(super) state: Result<RecordState, String>,
    /// The canonical bytes of a row's state; `None` of a document, and of what is damaged.
    pub(super) bytes: Option<Vec<u8>>,
    /// Its version.
    pub(super) ver: Ver,
    /// True if its row is in its collection's table.
    pub(super) visible: bool,
    /// The hash that was written with it; zeros where not even that can be read.
    pub(super) state_hash: StateHash,
    /// Its first bucket and its position there.
    pub(super) home: Option<(BucketId, Position)>,
}

/// A record as it is delivered.
#[derive(Debug)]
pub(super) struct Deliverable {
    /// Which.
    pub(super) key: RecordKey,
    /// Its epoch and the bytes of its state, or what is wrong with its row.
    pub(super) state: Result<(u32, Vec<u8>), String>,
    /// Its version.
    pub(super) ver: Ver,
    /// The hash of the state, recomputed from the row.
    pub(super) state_hash: StateHash,
}

impl From<Found> for Deliverable {
    fn from(found: Found) -> Self {
        let Found { key, state, bytes, ver, state_hash, .. } = found;
        let state = state.map(|state| bytes.map_or_else(|| state.encode(), |bytes| (0, bytes)));
        Self { key, state, ver, state_hash }
    }
}

/// Where the rows of a collection are, and how they are read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Source {
    /// In the collection's table: visible rows.
    Table,
    /// In `mobo.hidden`.
    Hidden,
    /// In `mobo.document`, visible or not.
    Document,
}

impl Source {
    /// The sources of a collection's records.
    pub(super) const fn of(kind: Kind) -> &'static [Self] {
        match kind {
            Kind::Table => &[Self::Table, Self::Hidden],
            Kind::Document => &[Self::Document],
            Kind::Stream => &[],
        }
    }

    /// A `SELECT` of whole records without its conditions, which may follow; `$1` is the project and `$2` the collection.
    pub(super) fn select(self, collection: &Collection) -> String {
        self.select_with(collection, "", "")
    }

    /// The same, with what the records show to readers of SQL: for [`Self::is_shown`].
    pub(super) fn select_shown(self, collection: &Collection) -> String {
        let fields =
            |alias: &str| -> String { collection.fields.iter().map(|field| format!(", {alias}.{}", quoted(&field.name))).collect() };
        match self {
            Self::Table => self.select_with(collection, &format!(", r.mobo_ver{}", fields("r")), ""),
            Self::Hidden => self.select(collection),
            Self::Document => {
                let join = format!("LEFT JOIN {} s ON s.id = r.id", table(collection));
                self.select_with(collection, &format!(", s.mobo_ver{}", fields("s")), &join)
            }
        }
    }

    fn select_with(self, collection: &Collection, columns: &str, join: &str) -> String {
        match self {
            Self::Table => {
                let fields: String = registers(collection).map(|field| format!(", r.{}", quoted(&field.name))).collect();
                let name = table(collection);
                format!("SELECT r.id, r.mobo_ver, r._bucket, r._position, r._mobo{fields}{columns} FROM {name} r WHERE true")
            }
            Self::Hidden => {
                "SELECT r.id, r.ver, r.bucket, r.position, r.row FROM mobo.hidden r WHERE r.project = $1 AND r.collection = $2".to_owned()
            }
            Self::Document => format!(
                "SELECT r.id, r.ver, r.bucket, r.position, r.doc, r.epoch, r.state_hash, r.visible{columns} FROM mobo.document r {join} \
                 WHERE r.project = $1 AND r.collection = $2"
            ),
        }
    }

    /// True if a row of [`Self::select_shown`] shows exactly what the state of its record says, in every column.
    pub(super) fn is_shown(self, row: &PgRow, collection: &Collection, found: &Found) -> Result<bool, Failure> {
        let Ok(state) = &found.state else { return Ok(false) };
        let projected = state.project(collection);
        let first = match self {
            Self::Table => 5 + registers(collection).count(),
            Self::Hidden => return Ok(projected.is_none()),
            Self::Document => 8,
        };
        let ver: Option<i64> = row.try_get(first)?;
        let Some(want) = projected else { return Ok(ver.is_none() && !found.visible) };
        if !found.visible || ver != Some(found.ver.0.cast_signed()) {
            return Ok(false);
        }
        for ((index, field), want) in (first + 1..).zip(&collection.fields).zip(&want) {
            // What its column cannot hold is null there.
            let want = if matches!(want, Value::Unknown(_)) { &Value::Null } else { want };
            if cells::value(row, index, field.kind)?.as_ref() != Some(want) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads a row of [`Self::select`], as it is delivered.
    fn deliver(self, found: &PgRow, collection: &Collection) -> Result<Deliverable, Failure> {
        if self != Self::Table {
            return self.read(found, collection).map(Deliverable::from);
        }
        let id = RecordId::new(found.try_get::<String, _>(0)?);
        let key = RecordKey { collection: collection.id, id: id.map_err(|error| Failure::damaged(error.to_string()))? };
        let ver = Ver(known(u64::try_from(found.try_get::<i64, _>(1)?).ok(), "version")?);
        let mut failed = None;
        let read = row::delivered(found.try_get(4)?, |field, writer| {
            let place = (5..).zip(registers(collection)).find(|(_, register)| register.id == field);
            let Some((index, field)) = place else { return false };
            cells::encode(found, index, field.kind, writer).unwrap_or_else(|failure| {
                failed = Some(failure);
                false
            })
        });
        if let Some(failure) = failed {
            return Err(failure);
        }
        let (state, state_hash) = match read {
            Err(malformed) => (Err(malformed.to_string()), StateHash([0; 32])),
            Ok((_, meta)) if meta.ver != ver => (Err("its version was changed".to_owned()), meta.state_hash),
            Ok((bytes, meta)) => (Ok((0, bytes)), meta.state_hash),
        };
        Ok(Deliverable { key, state, ver, state_hash })
    }

    /// Reads a row of [`Self::select`].
    pub(super) fn read(self, found: &PgRow, collection: &Collection) -> Result<Found, Failure> {
        let id = RecordId::new(found.try_get::<String, _>(0)?);
        let key = RecordKey { collection: collection.id, id: id.map_err(|error| Failure::damaged(error.to_string()))? };
        let ver = Ver(known(u64::try_from(found.try_get::<i64, _>(1)?).ok(), "version")?);
        let home = home(found.try_get(2)?, found.try_get(3)?)?;
        let bytes: Vec<u8> = found.try_get(4)?;
        match self {
            Self::Table => {
                let values = values(found, collection)?;
                let (read, state_hash) = read_row(&bytes, collection, ver, values);
                let (state, bytes) = apart(read);
                Ok(Found { key, state, bytes, ver, visible: true, state_hash, home })
            }
            Self::Hidden => {
                let (read, state_hash) = read_row(&bytes, collection, ver, Ok(BTreeMap::new()));
                let (state, bytes) = apart(read);
                Ok(Found { key, state, bytes, ver, visible: false, state_hash, home })
            }
            Self::Document => {
                let epoch = known(u32::try_from(found.try_get::<i32, _>(5)?).ok(), "epoch")?;
                let state_hash = StateHash(found.try_get(6)?);
                let state = read_document(key.clone(), epoch, bytes, state_hash);
                Ok(Found { key, state, bytes: None, ver, visible: found.try_get(7)?, state_hash, home })
            }
        }
    }
}

/// The records of these keys that exist.
pub(super) async fn load(
    tx: &mut Tx,
    project: ProjectId,
    schema: &Schema,
    keys: &BTreeSet<RecordKey>,
) -> Result<BTreeMap<RecordKey, Found>, Failure> {
    let read = |source: Source, row: &PgRow, collection: &Collection| {
        let found = source.read(row, collection)?;
        Ok((found.key.clone(), found))
    };
    load_as(tx, (project, schema), keys, read).await
}

/// The same, as they are delivered.
pub(super) async fn load_deliverable(
    tx: &mut Tx,
    project: ProjectId,
    schema: &Schema,
    keys: &BTreeSet<RecordKey>,
) -> Result<BTreeMap<RecordKey, Deliverable>, Failure> {
    let read = |source: Source, row: &PgRow, collection: &Collection| {
        let found = source.deliver(row, collection)?;
        Ok((found.key.clone(), found))
    };
    load_as(tx, (project, schema), keys, read).await
}

async fn load_as<T>(
    tx: &mut Tx,
    (project, schema): (ProjectId, &Schema),
    keys: &BTreeSet<RecordKey>,
    read: impl Fn(Source, &PgRow, &Collection) -> Result<(RecordKey, T), Failure>,
) -> Result<BTreeMap<RecordKey, T>, Failure> {
    let mut records = BTreeMap::new();
    for (collection, mut missing) in by_collection(schema, keys) {
        for source in Source::of(collection.kind) {
            // A row that only stands there is no record.
            let stated = if *source == Source::Table && tx.standing.is_some() { " AND r._mobo <> ''" } else { "" };
            let sql = format!("{} AND r.id = ANY($3){stated}", source.select(collection));
            for some in missing.chunks(limits::POSTGRES_ROWS_MAX) {
                let statement = sqlx::query(AssertSqlSafe(sql.clone())).bind(project.sql()).bind(collection.id.sql()).bind(ids(some));
                for row in tx.rows(statement).await? {
                    let (key, found) = read(*source, &row, collection)?;
                    records.insert(key, found);
                }
            }
            missing.retain(|key| !records.contains_key(*key));
            if missing.is_empty() {
                break;
            }
        }
    }
    Ok(records)
}

/// The keys of each collection, ascending. Those that no collection of the schema can hold are left out.
pub(super) fn by_collection<'s, 'k>(schema: &'s Schema, keys: &'k BTreeSet<RecordKey>) -> Vec<(&'s Collection, Vec<&'k RecordKey>)> {
    let mut groups: BTreeMap<CollectionId, Vec<&RecordKey>> = BTreeMap::new();
    for key in keys {
        groups.entry(key.collection).or_default().push(key);
    }
    groups.into_iter().filter_map(|(id, keys)| Some((schema.get(id)?, keys))).collect()
}

/// The ids in some keys, to be bound as one array.
pub(super) fn ids<'k>(keys: &[&'k RecordKey]) -> Vec<&'k str> {
    keys.iter().map(|key| key.id.as_str()).collect()
}

/// First bucket and position, where a record has them.
pub(super) fn home(bucket: Option<i64>, position: Option<i64>) -> Result<Option<(BucketId, Position)>, Failure> {
    match (bucket, position) {
        (Some(bucket), Some(position)) => {
            let bucket = known(BucketId::from_sql(bucket), "bucket")?;
            Ok(Some((bucket, Position(known(u64::try_from(position).ok(), "position")?))))
        }
        (None, None) => Ok(None),
        _ => Err(Failure::damaged("a record has half a place in a bucket")),
    }
}

type Values = BTreeMap<FieldId, Value>;

/// The registers of a row by field; the inner error names a column with a value that was never written there.
fn values(found: &PgRow, collection: &Collection) -> Result<Result<Values, String>, Failure> {
    let mut values = BTreeMap::new();
    for (index, field) in (5..).zip(registers(collection)) {
        match cells::value(found, index, field.kind)? {
            Some(value) => values.insert(field.id, value),
            None => return Ok(Err(format!("column \"{}\" holds no {}", field.name, FieldType::name(field.kind)))),
        };
    }
    Ok(Ok(values))
}

/// A row, and its canonical bytes.
type Intact = Result<(RecordState, Vec<u8>), String>;

fn apart(read: Intact) -> (Result<RecordState, String>, Option<Vec<u8>>) {
    match read {
        Ok((state, bytes)) => (Ok(state), Some(bytes)),
        Err(why) => (Err(why), None),
    }
}

fn read_row(bytes: &[u8], collection: &Collection, ver: Ver, values: Result<Values, String>) -> (Intact, StateHash) {
    let (values, odd) = match values {
        Ok(values) => (values, None),
        Err(odd) => (BTreeMap::new(), Some(odd)),
    };
    let column = |field: FieldId| values.get(&field).cloned().unwrap_or(Value::Null);
    match row::decode(bytes, collection, column) {
        Err(malformed) => (Err(malformed.to_string()), StateHash([0; 32])),
        Ok((state, meta)) => {
            let state = match odd {
                Some(odd) => Err(odd),
                None if meta.ver != ver => Err("its version was changed".to_owned()),
                None => match row::intact_bytes(&state, &meta) {
                    Some(bytes) => Ok((RecordState::Table(state), bytes)),
                    None => Err("it does not fit its own hash".to_owned()),
                },
            };
            (state, meta.state_hash)
        }
    }
}

fn read_document(key: RecordKey, epoch: u32, saved: Vec<u8>, state_hash: StateHash) -> Result<RecordState, String> {
    let document = Document::load(key, epoch, saved).map_err(|refusal| refusal.detail)?;
    let state = RecordState::Document(document);
    if state.state_hash() == state_hash { Ok(state) } else { Err("it does not fit its own hash".to_owned()) }
}
