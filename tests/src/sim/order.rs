//! Who wins is decided by when it was done, not by who came first (rules R5 and R9), and every node has one answer to when that was (rule R7).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mobo_core::store::HubStore;
use mobo_core::value::Value;
use serde_json::{Value as Json, json};

use super::checks::store_failed;
use super::kept;
use super::model::{What, Write};
use super::trace::{Try, Violation};
use super::world::World;

/// What was done last to a part of a record, and when; `None` where it is not known of each who did.
type Last<T> = Option<Option<(i64, T)>>;

/// A write, and when it was made, where that is known.
type Timed<'w> = (Option<i64>, &'w Write);

impl World {
    /// Of each row that everybody writes, the text and whether it is visible are as the latest write has made them.
    pub(super) fn check_order(&mut self, merged: &BTreeSet<u64>) -> Try {
        // Who was put back or copied, and what came back to a hub that was, may have been merged under another name at another time.
        if self.hub_restored || self.devices.iter().any(|node| node.rolled_back) {
            return Ok(());
        }
        let mut records: BTreeMap<(What, String), Vec<Timed<'_>>> = BTreeMap::new();
        let is_row = |write: &&Write| matches!(write.what, What::Things | What::Jobs) && !write.forbidden;
        for write in self.model.writes.iter().filter(is_row).filter(|write| merged.contains(&write.id)) {
            let eff = write.eff.or_else(|| self.told.eff(write.sealed.map(|at| (at.incarnation, at.lane, at.seq))?));
            records.entry((write.what, write.hot.clone())).or_default().push((eff, write));
        }
        let life = self.hub.life.as_mut().expect("it is up");
        let (store, project) = (Arc::clone(&life.store), life.opened.project);
        for ((what, hot), writes) in records {
            let Some(record) = life.wait(store.record(project, what.key(&hot))).map_err(store_failed)? else { continue };
            let columns = record.state.project(&what.collection());
            let wrong = |is: String, want: String| {
                Err(Violation::new("R5", format!("{hot} of {} {is}, and the latest write has made it {want}", what.name())))
            };
            let visible = last(writes.iter().map(|(eff, write)| (*eff, write.visible)));
            if let Some(Some((at, visible))) = visible
                && visible != columns.is_some()
            {
                return wrong(format!("is visible: {}", columns.is_some()), format!("{visible} at {at}"));
            }
            let text = last(writes.iter().map(|(eff, write)| (*eff, write.text.clone())));
            if let (Some(columns), Some(Some((at, text)))) = (columns, text)
                && shown(&columns) != text
            {
                return wrong(format!("is {}", shown(&columns)), format!("{text} at {at}"));
            }
        }
        Ok(())
    }

    /// What a device keeps of when its entries were made is what the hub has said last.
    pub(super) fn check_effs(&mut self) -> Try {
        let Self { told, devices, .. } = self;
        for node in devices.iter_mut().filter(|node| !node.destroyed) {
            let Some(life) = node.life.as_mut() else { continue };
            for (at, eff) in kept::entries(life).map_err(store_failed)? {
                if let (Some(eff), Some(told)) = (eff, told.eff(at))
                    && eff.0 != told
                {
                    return Err(Violation::new("R7", format!("{} has {at:?} at {}, and the hub at {told}", node.name, eff.0)));
                }
            }
        }
        Ok(())
    }
}

/// The latest of what was done.
fn last<T: Clone>(done: impl Iterator<Item = (Option<i64>, Option<T>)>) -> Last<T> {
    let mut last: Option<(i64, T)> = None;
    let mut is_tie = false;
    for (eff, what) in done {
        let Some(what) = what else { continue };
        let eff = eff?;
        match &last {
            Some((latest, _)) if *latest > eff => {}
            Some((latest, _)) if *latest == eff => is_tie = true,
            _ => (last, is_tie) = (Some((eff, what)), false),
        }
    }
    (!is_tie).then_some(last)
}

fn shown(columns: &[Value]) -> Json {
    match columns.first() {
        Some(Value::Text(text)) => json!(text),
        _ => Json::Null,
    }
}
