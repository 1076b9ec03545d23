//! Whether a store still holds what the newest manifest of its repository says.
//!
//! A store may go back under a repository that stays: a disk is put back to an older state, a database fails over to a copy that lags. What is
//! shipped on top of the manifests of the time that is gone would verify, and not restore. So the store's own record of its backups is read in
//! each cut: it is written behind every manifest, and a store that went back has an older one, or none.

use std::collections::BTreeSet;

use mobo_core::backup::RepositoryId;
use mobo_core::backup::manifest::{Anchor, Manifest};
use mobo_core::ids::Timeline;
use mobo_core::store::transfer::{Row, Table, TableName};
use mobo_core::store::{BackupRow, Cut, Filter, HubStore, StoreError};
use mobo_core::time::Eff;

use super::marks::Marks;
use super::pages::Pages;
use super::state::{Cells, StateHash};

/// How a store whose record is not the newest manifest stands to that one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Standing {
    /// It holds the same: the manifest was written, and not noted.
    Same,
    /// It holds as much or more. Whether that is what the manifest has is not known.
    Unsure,
    /// It holds less: it went back.
    Behind,
    /// It has gone on under another timeline, which comes from that of the manifest.
    Forked {
        /// It holds less than the manifest says.
        is_less: bool,
    },
    /// The manifest is of a history that it does not come from.
    Foreign,
}

/// What a store has on record of its repository.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Noted {
    /// The newest manifest, and when it was taken; `None` where none is noted.
    newest: Option<(Anchor, i64)>,
    /// Manifests that a hub of this store was about to write.
    tried: BTreeSet<[u8; 32]>,
}

impl Noted {
    /// The newest manifest.
    pub(super) fn anchor(&self) -> Option<Anchor> {
        self.newest.map(|(anchor, _)| anchor)
    }

    /// True where a hub of this store has written this manifest, or would have: the store holds what is in it.
    pub(super) fn knows(&self, manifest: &Anchor) -> bool {
        self.anchor() == Some(*manifest) || self.tried.contains(&manifest.hash)
    }

    /// The newest manifest and its age, where it is newer than this one.
    pub(super) fn beyond(&self, number: u64, now: Eff) -> Option<(Anchor, i64)> {
        self.newest.filter(|(anchor, _)| anchor.number > number).map(|(anchor, taken_us)| (anchor, now.0.saturating_sub(taken_us)))
    }
}

/// What the store has on record of this repository.
pub(super) async fn noted(cut: &mut dyn Cut, repository: RepositoryId) -> Result<Noted, StoreError> {
    let mut noted = Noted::default();
    let tables = [("backup", &["repository", "number", "hash", "taken_us"][..]), ("backup_tried", &["repository", "hash"])];
    let readings = tables.map(|(table, columns)| reading(table, columns));
    let found = Pages::of(readings.to_vec()).all(cut).await?;
    for (((table, _), (Table { columns, .. }, _)), rows) in tables.into_iter().zip(readings).zip(found) {
        for row in &rows {
            let cells = Cells { columns: &columns, row };
            if cells.bytes("repository")? != repository.0 {
                continue;
            }
            let bad = |_| StoreError::Damaged("the record of the backups has no hash".to_owned());
            let hash = cells.bytes("hash")?.try_into().map_err(bad)?;
            if table == "backup" {
                let anchor = Anchor { number: cells.int("number")?.cast_unsigned(), hash };
                noted.newest = Some((anchor, cells.int("taken_us")?));
            } else {
                noted.tried.insert(hash);
            }
        }
    }
    Ok(noted)
}

/// How the store stands to the newest manifest. `under` is the timeline of the last manifest that it has noted.
pub(super) async fn stands(cut: &mut dyn Cut, head: &Manifest, under: Option<Timeline>) -> Result<Standing, StoreError> {
    let timeline = timelines(cut, "hub").await?.first().copied();
    let parents = timelines(cut, "timeline_parent").await?;
    let is_same = timeline == Some(head.timeline);
    // Whoever has shipped under a timeline goes on under it, or under one that comes from it.
    if !is_same && (!parents.contains(&head.timeline) || under.is_some_and(|under| Some(under) == timeline)) {
        return Ok(Standing::Foreign);
    }
    let mut heads = StateHash::default();
    let lane: &[&str] = &["project", "device", "incarnation", "lane", "last", "chain"];
    for (table, names) in [("lane", lane), ("bucket", &["id", "head", "digest"])] {
        let (columns, rows) = read(cut, table, names).await?;
        rows.iter().try_for_each(|row| heads.add(table, &columns, row))?;
    }
    let (is, was) = (heads.totals(), head.totals);
    let is_less = is.lanes < was.lanes || is.entries < was.entries || is.buckets < was.buckets || is.positions < was.positions;
    Ok(match () {
        () if !is_same => Standing::Forked { is_less },
        () if heads.hash() == head.state => Standing::Same,
        () if is_less => Standing::Behind,
        () => Standing::Unsure,
    })
}

async fn timelines(cut: &mut dyn Cut, table: &str) -> Result<Vec<Timeline>, StoreError> {
    let (columns, rows) = read(cut, table, &["timeline"]).await?;
    let bad = |_| StoreError::Damaged("a timeline has not its 16 bytes".to_owned());
    rows.iter().map(|row| Cells { columns: &columns, row }.bytes("timeline")?.try_into().map(Timeline).map_err(bad)).collect()
}

/// What the hub shipped before it was started again: small tables are not remembered, and are shipped whole.
pub(super) async fn remembered(store: &dyn HubStore, record: &BackupRow) -> Result<Marks, StoreError> {
    let mut marks = Marks { taken_us: record.taken_us, ..Marks::default() };
    marks.heads = record.heads.iter().map(|(bucket, head)| (bucket.sql(), head.0.cast_signed())).collect();
    let mut cut = store.cut().await?;
    let (columns, rows) = read(cut.as_mut(), "lane", &["project", "device", "incarnation", "lane", "safe"]).await?;
    cut.end().await?;
    for row in &rows {
        let cells = Cells { columns: &columns, row };
        let lane = (cells.int("project")?, cells.bytes("device")?, cells.int("incarnation")?, cells.int("lane")?);
        marks.lanes.insert(lane, cells.int("safe")?);
    }
    Ok(marks)
}

pub(super) async fn read(cut: &mut dyn Cut, table: &str, columns: &[&str]) -> Result<(Vec<String>, Vec<Row>), StoreError> {
    let (table, filter) = reading(table, columns);
    let columns = table.columns.clone();
    Ok((columns, Pages::of(vec![(table, filter)]).all(cut).await?.pop().unwrap_or_default()))
}

/// These columns of all rows of one of our own tables.
fn reading(table: &str, columns: &[&str]) -> (Table, Filter) {
    let columns = columns.iter().map(|name| (*name).to_owned()).collect();
    (Table { name: TableName::Own(table.to_owned()), columns }, Filter::default())
}
