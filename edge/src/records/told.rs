//! What a device can tell of how a record came about: its own writes as far as it keeps them, and who wrote what stands.

use std::collections::{BTreeMap, BTreeSet};

use mobo_core::ids::{DeviceId, RecordId, RecordKey};
use mobo_core::record::RecordState;
use mobo_core::schema::{Collection, Kind};
use mobo_core::stamp::Stamp;
use mobo_core::table::past::RowLog;
use mobo_core::trust::Certificate;
use mobo_gate::backend::{BackendError, History, Writer};

use crate::node::Edge;

/// What is known of a record; `None` where it is not here.
pub(super) async fn told(edge: &Edge, collection: &Collection, id: RecordId) -> Result<Option<History>, BackendError> {
    let store = edge.store()?;
    let key = RecordKey { collection: collection.id, id };
    let Some(record) = store.record(key.clone()).await? else { return Ok(None) };
    let log = if collection.kind == Kind::Table { store.past(key).await? } else { RowLog::default() };
    let identity = store.node().await?.identity;
    let name = |device: DeviceId| match &identity {
        Some(known) if known.device == device => {
            Certificate::decode(&known.certificate).map_or_else(|_| device.to_string(), |certificate| certificate.name)
        }
        Some(known) if DeviceId::of(&known.hub_key) == device => "hub".to_owned(),
        _ => device.to_string(),
    };
    let stamps: BTreeSet<Stamp> = match &record.state {
        RecordState::Table(state) => state.stamps().into_iter().collect(),
        RecordState::Document(_) => BTreeSet::new(),
    };
    let entry_of = |stamp: &Stamp| (stamp.device, stamp.ordinal, stamp.seq);
    let mut writers: BTreeMap<_, _> =
        stamps.iter().map(|stamp| (entry_of(stamp), Writer { device: name(stamp.device), author: None })).collect();
    for write in &log.writes {
        let stamp = write.stamp();
        writers.insert(entry_of(&stamp), Writer { device: name(stamp.device), author: write.by.clone() });
    }
    Ok(Some(History { state: record.state, changes: BTreeMap::new(), has_times: false, log, decisions: Vec::new(), writers }))
}
