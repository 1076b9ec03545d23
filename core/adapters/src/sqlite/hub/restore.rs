//! A hub's database that is filled from a backup: changes are applied in their order, each object in one transaction.

use mobo_core::backup::change::{Change, Deed};
use mobo_core::schema::Collection;
use mobo_core::store::StoreError;
use mobo_core::store::transfer::{Table, TableName};
use rusqlite::{Connection, params_from_iter};

use super::transfer::{Bound, Import, collections, name_in_sql};
use crate::sqlite::error::Failure;
use crate::sqlite::table::{self, quoted};

impl Import {
    /// Applies the changes of one object of a backup, in order and at once.
    ///
    /// # Errors
    ///
    /// [`StoreError::Refused`] for a table or a column that this version does not have: a later one wrote the backup. Else what the database
    /// says of a row; nothing of this database counts then.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let transaction = self.connection.transaction().map_err(Failure::from)?;
        for change in changes {
            apply(&transaction, change)?;
        }
        transaction.commit().map_err(Failure::from)?;
        self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).map_err(Failure::from)?;
        Ok(())
    }
}

fn apply(connection: &Connection, change: &Change) -> Result<(), Failure> {
    let definitions = matches!(&change.table, TableName::Own(name) if name == "collection");
    let before = if definitions { collections(connection)? } else { Vec::new() };
    rows(connection, change)?;
    if definitions && change.deed == Deed::Put { shape(connection, &before) } else { Ok(()) }
}

fn rows(connection: &Connection, change: &Change) -> Result<(), Failure> {
    let table = Table { name: change.table.clone(), columns: change.columns.clone() };
    let name = name_in_sql(&table);
    let unknown = |error: rusqlite::Error| -> Failure {
        if let rusqlite::Error::SqliteFailure(_, Some(said)) = &error
            && (said.starts_with("no such") || said.contains("has no column"))
        {
            return Failure::refused(format!("{said}: a later version of mobo has written this backup; upgrade this one"));
        }
        Failure::from(error)
    };
    let columns: Vec<String> = change.columns.iter().map(|column| quoted(column)).collect();
    let sql = match change.deed {
        Deed::Clear => {
            connection.execute(&format!("DELETE FROM {name}"), []).map_err(unknown)?;
            return Ok(());
        }
        Deed::Drop => {
            let found: Vec<String> = columns.iter().map(|column| format!("{column} = ?")).collect();
            format!("DELETE FROM {name} WHERE {}", found.join(" AND "))
        }
        Deed::Put => format!("INSERT OR REPLACE INTO {name}({}) VALUES ({})", columns.join(", "), vec!["?"; columns.len()].join(", ")),
    };
    let mut statement = connection.prepare_cached(&sql).map_err(unknown)?;
    for row in &change.rows {
        statement.execute(params_from_iter(row.iter().map(Bound)))?;
    }
    Ok(())
}

/// Makes and extends tables of collections as their definitions come.
fn shape(connection: &Connection, before: &[Collection]) -> Result<(), Failure> {
    for new in collections(connection)? {
        match before.iter().find(|old| old.id == new.id) {
            None => table::create(connection, &new)?,
            Some(old) if *old != new => table::extend(connection, old, &new)?,
            Some(_) => {}
        }
    }
    Ok(())
}
