//! How a record came about, for whoever asks over the API: who wrote it, from which device, and what merges decided.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use mobo_adapters::desk::{Cell, Statement};
use mobo_core::cbor::Reader;
use mobo_core::ids::{DeviceId, Ordinal, RecordId, RecordKey, Seq};
use mobo_core::limits;
use mobo_core::record::RecordState;
use mobo_core::schema::{Collection, Kind};
use mobo_core::stamp::Stamp;
use mobo_core::store::{HubStore, RecordRow, StoreError};
use mobo_core::table::past::RowLog;
use mobo_core::time::Eff;
use mobo_gate::backend::{BackendError, Decision, History, Writer};
use tokio::time::Instant;

use super::HubRecords;
use crate::auth::rows::{bytes, number, word};

impl HubRecords {
    /// What is known of a record; `None` where it was never written.
    pub(super) async fn told(&self, collection: &Collection, id: RecordId) -> Result<Option<History>, BackendError> {
        let opened = self.hub.opened()?;
        let key = RecordKey { collection: collection.id, id };
        let Some((row, log)) = self.with_log(opened.store.as_ref(), collection, &key).await? else { return Ok(None) };
        let decisions = self.decisions(collection, &key).await?;
        let mut wanted = writes_of(&row);
        wanted.extend(decisions.iter().flat_map(|decision| [decision.winner_stamp, decision.loser_stamp]).map(|stamp| write_of(&stamp)));
        let names: BTreeMap<DeviceId, String> =
            opened.store.devices(self.project).await?.into_iter().map(|device| (device.id, device.name)).collect();
        let name = |device: DeviceId| match names.get(&device) {
            _ if device == self.hub.keys.device() => "hub".to_owned(),
            Some(name) => name.clone(),
            None => device.to_string(),
        };
        let said = log.writes.iter().map(|write| (write_of(&write.stamp()), &write.by));
        let mut writers: BTreeMap<_, _> = said.map(|(write, by)| (write, Writer { device: name(write.0), author: by.clone() })).collect();
        for write in wanted {
            if let Entry::Vacant(unnamed) = writers.entry(write) {
                unnamed.insert(Writer { device: name(write.0), author: self.author(write).await? });
            }
        }
        let RecordRow { state, changes, .. } = row;
        Ok(Some(History { state, changes, has_times: true, log, decisions, writers }))
    }

    /// A record and, where it is a row, the writes that are kept of it: all that made it what it is, and no later ones.
    async fn with_log(
        &self,
        store: &dyn HubStore,
        collection: &Collection,
        key: &RecordKey,
    ) -> Result<Option<(RecordRow, RowLog)>, BackendError> {
        let Some(mut row) = self.taken_in(store, key).await? else { return Ok(None) };
        if collection.kind != Kind::Table {
            return Ok(Some((row, RowLog { restored: self.restored().await?, ..RowLog::default() })));
        }
        let deadline = Instant::now() + limits::HISTORY_WAIT;
        // One at a time: a crowd that asks for what was leaves the store to those who write what is.
        let Ok(_telling) = tokio::time::timeout(limits::HISTORY_WAIT, self.telling.lock()).await else {
            return Err(BackendError::Unavailable("the past of other records is being read; ask again".to_owned()));
        };
        loop {
            while store.trace(self.project).await? {
                if Instant::now() >= deadline {
                    let why = "the log is being read so that it can tell what rows were, which it was not asked for some time; ask again";
                    return Err(BackendError::Unavailable(why.to_owned()));
                }
            }
            let log = store.past(self.project, key.clone()).await?;
            let before = row.state.state_hash();
            let Some(now) = self.taken_in(store, key).await? else { return Ok(None) };
            row = now;
            // Otherwise somebody has written it meanwhile, and the log tells more or less than the row.
            if row.state.state_hash() == before {
                return Ok(Some((row, log)));
            }
            if Instant::now() >= deadline {
                return Err(BackendError::Unavailable("this record is written again and again; ask again".to_owned()));
            }
        }
    }

    /// A record. One that SQL has just written does not fit its hash until that is taken in, a moment later.
    async fn taken_in(&self, store: &dyn HubStore, key: &RecordKey) -> Result<Option<RecordRow>, StoreError> {
        let deadline = Instant::now() + limits::HISTORY_WAIT;
        loop {
            match store.record(self.project, key.clone()).await {
                Err(StoreError::Damaged(_)) if Instant::now() < deadline => tokio::time::sleep(limits::HUB_INTAKE_LOOK).await,
                found => return found,
            }
        }
    }

    /// When the hub was restored last.
    async fn restored(&self) -> Result<Option<Eff>, BackendError> {
        let rows = self.small("SELECT since_us FROM mobo_recovery", []).await?;
        Ok(rows.first().and_then(|row| number(row, 0)).map(Eff))
    }

    /// What merges decided about a record, newest first.
    async fn decisions(&self, collection: &Collection, key: &RecordKey) -> Result<Vec<Decision>, BackendError> {
        const LOOK: &str = "SELECT field, CAST(kind AS bigint), CAST(winner AS text), CAST(loser AS text), winner_stamp, loser_stamp, at_us, \
                            CAST(status AS bigint) FROM mobo_conflict WHERE project = $1 AND collection = $2 AND id = $3 \
                            ORDER BY at_us DESC, field LIMIT $4";
        let most = Cell::Int(i64::try_from(limits::HISTORY_CHANGES_MAX).unwrap_or(i64::MAX));
        let cells = [Cell::Int(self.project.sql()), Cell::Int(collection.id.sql()), Cell::Text(key.id.as_str().to_owned()), most];
        let read = |row: &Vec<Cell>| {
            let json = |at| word(row, at).and_then(|text| serde_json::from_str(&text).ok());
            let field = number(row, 0)?.cast_unsigned();
            Some(Decision {
                field: collection.fields.iter().find(|known| known.id.get() == field).map(|field| field.name.clone()),
                kind: match number(row, 1)? {
                    1 => "concurrent",
                    2 => "hidden_by_delete",
                    _ => "time_uncertain",
                },
                winner: json(2).unwrap_or_default(),
                loser: json(3).unwrap_or_default(),
                winner_stamp: Stamp::decode(&mut Reader::new(&bytes(row, 4)?)).ok()?,
                loser_stamp: Stamp::decode(&mut Reader::new(&bytes(row, 5)?)).ok()?,
                at: Eff(number(row, 6)?),
                settled: number(row, 7)? != 0,
            })
        };
        Ok(self.small(LOOK, cells).await?.iter().filter_map(read).collect())
    }

    /// The user of an entry, where its author has named one.
    async fn author(&self, (device, ordinal, seq): (DeviceId, Ordinal, Seq)) -> Result<Option<String>, BackendError> {
        const LOOK: &str = "SELECT e.payload FROM mobo_entry AS e JOIN mobo_incarnation AS i ON i.project = e.project AND i.device = e.device \
                            AND i.incarnation = e.incarnation WHERE e.project = $1 AND e.device = $2 AND i.ordinal = $3 AND e.lane = 0 \
                            AND e.seq = $4";
        let seq = Cell::Int(i64::try_from(seq.get()).unwrap_or(i64::MAX));
        let cells = [Cell::Int(self.project.sql()), Cell::Bytes(device.as_bytes().to_vec()), Cell::Int(i64::from(ordinal.0)), seq];
        let rows = self.small(LOOK, cells).await?;
        Ok(rows.first().and_then(|row| mobo_core::author::of_payload(&bytes(row, 0)?)))
    }

    async fn small(&self, sql: &'static str, cells: impl IntoIterator<Item = Cell>) -> Result<Vec<Vec<Cell>>, BackendError> {
        let accounts = self.hub.accounts().ok_or_else(|| StoreError::Unavailable("the store is not open yet".to_owned()))?;
        Ok(accounts.rows_of(Statement::new(sql, cells)).await?)
    }
}

fn write_of(stamp: &Stamp) -> (DeviceId, Ordinal, Seq) {
    (stamp.device, stamp.ordinal, stamp.seq)
}

/// The entries that a record is by, as far as it still knows them; the last of a long history.
fn writes_of(row: &RecordRow) -> BTreeSet<(DeviceId, Ordinal, Seq)> {
    let mut stamps: Vec<Stamp> = match &row.state {
        RecordState::Table(state) => state.cells.values().map(|cell| cell.stamp).chain(state.put).chain(state.delete).collect(),
        RecordState::Document(_) => row.changes.values().copied().collect(),
    };
    stamps.sort_unstable_by(|a, b| b.cmp(a));
    stamps.iter().take(limits::HISTORY_CHANGES_MAX).map(write_of).collect()
}
