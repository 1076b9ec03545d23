//! The projects of a store, each of which has a key of its own in the repository.

use std::collections::BTreeSet;
use std::fmt;

use mobo_core::ids::ProjectId;
use mobo_core::store::transfer::{Table, TableName};
use mobo_core::store::{Cut, Filter};

use super::BackupFailure;
use super::state::Cells;

/// Random bytes for one shipment.
#[derive(Clone, Copy)]
pub struct Fresh {
    /// The name of a repository that is made.
    pub repository: [u8; 16],
    /// Its first data key.
    pub data: [u8; 32],
    /// What the keys of new projects are made of.
    pub projects: [u8; 32],
}

impl fmt::Debug for Fresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fresh")
    }
}

/// The projects that there are.
pub(super) async fn projects(cut: &mut dyn Cut) -> Result<BTreeSet<ProjectId>, BackupFailure> {
    let table = Table { name: TableName::Own("project".to_owned()), columns: vec!["id".to_owned()] };
    cut.open(table.clone(), Filter::default()).await?;
    let mut found = BTreeSet::new();
    loop {
        let page = cut.next().await?;
        if page.is_empty() {
            return Ok(found);
        }
        for row in &page {
            found.extend(ProjectId::from_sql(Cells { columns: &table.columns, row }.int("id")?));
        }
    }
}
