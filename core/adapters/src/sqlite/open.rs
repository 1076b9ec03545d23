//! Opening a database: its settings, whose it is, and how it gets from one version of mobo to the next.

use std::fmt;
use std::path::Path;

use mobo_core::limits;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::error::Failure;

/// A version of SQLite.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct SqliteVersion {
    /// 3, for ever.
    pub major: u16,
    /// Counts releases with new features.
    pub minor: u16,
    /// Counts corrections of one.
    pub patch: u16,
}

impl fmt::Display for SqliteVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The oldest version without the race that corrupts a database when its write-ahead log is reset.
pub const VERSION_MIN: SqliteVersion = SqliteVersion { major: 3, minor: 51, patch: 3 };

/// The version that this program was built with.
#[must_use]
pub fn version() -> SqliteVersion {
    let number = rusqlite::version_number();
    let part = |divisor: i32, modulus: i32| u16::try_from(number / divisor % modulus).unwrap_or_default();
    SqliteVersion { major: part(1_000_000, 1_000), minor: part(1_000, 1_000), patch: part(1, 1_000) }
}

/// Which node keeps its rows here. A device's database is no hub's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    /// A hub.
    Hub,
    /// A device.
    Edge,
}

impl Role {
    /// What the file says about itself: `mobH` or `mobE`.
    const fn application_id(self) -> i32 {
        match self {
            Self::Hub => i32::from_be_bytes(*b"mobH"),
            Self::Edge => i32::from_be_bytes(*b"mobE"),
        }
    }

    /// Every migration, in order, with its name. What has been released is never edited.
    const fn migrations(self) -> &'static [(&'static str, &'static [&'static str])] {
        const NODE: &str = include_str!("schema/0001_node.sql");
        match self {
            Self::Hub => &[
                ("0001_hub", &[NODE, include_str!("schema/0001_hub.sql")]),
                ("0002_hub_changes", &[include_str!("schema/0002_hub_changes.sql")]),
                ("0003_hub_rights", &[include_str!("schema/0003_hub_rights.sql")]),
                ("0004_hub_recovery", &[include_str!("schema/0004_hub_recovery.sql")]),
                ("0005_live", &[include_str!("schema/0005_live.sql")]),
                ("0006_hub_backup", &[include_str!("schema/0006_hub_backup.sql")]),
                ("0007_hub_conflicts", &[include_str!("schema/0007_hub_conflicts.sql")]),
                ("0008_hub_accounts", &[include_str!("schema/0008_hub_accounts.sql")]),
                ("0009_hub_intake", &[include_str!("schema/0009_hub_intake.sql")]),
                ("0010_hub_trace", &[include_str!("schema/0010_hub_trace.sql")]),
                ("0011_hub_tried", &[include_str!("schema/0011_hub_tried.sql")]),
                ("0012_hub_publisher", &[include_str!("schema/0012_hub_publisher.sql")]),
                ("0013_hub_ingest", &[include_str!("schema/0013_hub_ingest.sql")]),
            ],
            Self::Edge => &[
                ("0001_edge", &[NODE, include_str!("schema/0001_edge.sql")]),
                ("0002_edge_refusals", &[include_str!("schema/0002_edge_refusals.sql")]),
                ("0003_edge_offers", &[include_str!("schema/0003_edge_offers.sql")]),
                ("0004_live", &[include_str!("schema/0005_live.sql")]),
                ("0005_edge_losses", &[include_str!("schema/0005_edge_losses.sql")]),
                ("0006_edge_intake", &[include_str!("schema/0006_edge_intake.sql")]),
                ("0007_edge_ingest", &[include_str!("schema/0007_edge_ingest.sql")]),
                ("0008_edge_ingest_said", &[include_str!("schema/0008_edge_ingest_said.sql")]),
                ("0009_edge_ack_room", &[include_str!("schema/0009_edge_ack_room.sql")]),
                ("0010_edge_decided", &[include_str!("schema/0010_edge_decided.sql")]),
                ("0011_edge_reached", &[include_str!("schema/0011_edge_reached.sql")]),
            ],
        }
    }
}

fn check_version(found: SqliteVersion) -> Result<(), Failure> {
    if found >= VERSION_MIN {
        return Ok(());
    }
    Err(Failure::refused(format!("SQLite {found} can corrupt a database when its log is reset: build mobo with {VERSION_MIN} or later")))
}

/// The connection that writes, on a database that is brought to this version. The file is made when it is not there.
pub(crate) fn open_writer(path: &Path, role: Role, cache_kib: u32) -> Result<Connection, Failure> {
    open_writer_on((path, None), role, cache_kib)
}

/// The same in a file system of the caller's: a simulator's, that can lose power.
pub(crate) fn open_writer_on((path, vfs): (&Path, Option<&str>), role: Role, cache_kib: u32) -> Result<Connection, Failure> {
    check_version(version())?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = connect(path, flags, vfs)?;
    settings(&connection, cache_kib)?;
    check_owner(&connection, path, role)?;
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(Failure::refused(format!(
            "{} cannot be opened in WAL mode (it stays {mode}): use a local file system",
            path.display()
        )));
    }
    connection.execute_batch(&format!(
        "PRAGMA synchronous = {}; PRAGMA journal_size_limit = {}; PRAGMA wal_autocheckpoint = 0;",
        if mobo_core::protect!("sqlite.sync", true) { "FULL" } else { "NORMAL" },
        limits::SQLITE_WAL_FILE_BYTES
    ))?;
    // The triggers refuse everybody else's writes; this connection is the one that may.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    migrate(&mut connection, path, role)?;
    Ok(connection)
}

/// A connection that only reads.
pub(crate) fn open_reader(path: &Path, cache_kib: u32) -> Result<Connection, Failure> {
    open_reader_on((path, None), cache_kib)
}

/// The same in a file system of the caller's.
pub(crate) fn open_reader_on((path, vfs): (&Path, Option<&str>), cache_kib: u32) -> Result<Connection, Failure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = connect(path, flags, vfs)?;
    settings(&connection, cache_kib)?;
    Ok(connection)
}

fn connect(path: &Path, flags: OpenFlags, vfs: Option<&str>) -> Result<Connection, Failure> {
    Ok(match vfs {
        Some(vfs) => Connection::open_with_flags_and_vfs(path, flags, vfs)?,
        None => Connection::open_with_flags(path, flags)?,
    })
}

/// Reads every page and checks that the trees hold together.
pub(crate) fn quick_check(connection: &Connection) -> Result<(), Failure> {
    checked(connection, "PRAGMA quick_check(1)")
}

/// Checks besides that every index says what its table says: a reader that is led by a damaged index passes rows over.
pub(crate) fn integrity_check(connection: &Connection) -> Result<(), Failure> {
    checked(connection, "PRAGMA integrity_check(1)")
}

fn checked(connection: &Connection, pragma: &str) -> Result<(), Failure> {
    let found: String = connection.query_row(pragma, [], |row| row.get(0))?;
    if found == "ok" { Ok(()) } else { Err(Failure::damaged(found)) }
}

fn settings(connection: &Connection, cache_kib: u32) -> Result<(), Failure> {
    connection.busy_timeout(limits::SQLITE_BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(limits::SQLITE_STATEMENTS_MAX);
    super::functions::add(connection)?;
    // A plan is made once: without this a statement with `LIMIT ?` is compiled anew each time that it runs.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.execute_batch(&format!(
        "PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY; \
         PRAGMA cache_size = -{cache_kib};"
    ))?;
    Ok(())
}

fn number(connection: &Connection, pragma: &str) -> Result<i32, Failure> {
    Ok(connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0))?)
}

/// Refuses a file that is not ours before anything in it is touched.
fn check_owner(connection: &Connection, path: &Path, role: Role) -> Result<(), Failure> {
    let (owner, version) = (number(connection, "application_id")?, number(connection, "user_version")?);
    if owner == role.application_id() {
        return Ok(());
    }
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if owner == 0 && version == 0 && tables == 0 {
        return Ok(());
    }
    let whose = match owner {
        owner if owner == Role::Hub.application_id() => "the database of a hub",
        owner if owner == Role::Edge.application_id() => "the database of a device",
        _ => "a database of something else",
    };
    Err(Failure::refused(format!("{} is {whose}: give this node a data folder of its own", path.display())))
}

fn migrate(connection: &mut Connection, path: &Path, role: Role) -> Result<(), Failure> {
    let known = role.migrations();
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let version = number(&transaction, "user_version")?;
    let done = usize::try_from(version).map_err(|_| Failure::damaged("the database has a negative version"))?;
    let Some(due) = known.get(done..) else {
        let place = path.display();
        let known = known.len();
        return Err(Failure::refused(format!(
            "{place} was written by a later version of mobo (its tables are at {done}, this version knows {known}): upgrade this program"
        )));
    };
    if due.is_empty() {
        return Ok(());
    }
    for (name, parts) in due {
        for part in *parts {
            transaction
                .execute_batch(part)
                .map_err(|error| Failure::refused(format!("migration {name} of {}: {error}", path.display())))?;
        }
    }
    transaction.pragma_update(None, "application_id", role.application_id())?;
    transaction.pragma_update(None, "user_version", i64::try_from(known.len()).unwrap_or_default())?;
    transaction.commit()?;
    Ok(())
}

/// How an empty store answers a question: its steps, as `EXPLAIN QUERY PLAN` has them.
#[cfg(test)]
pub(crate) fn plan_of(role: Role, sql: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let connection = open_writer(&folder.path().join("store.db"), role, 100).unwrap();
    let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    // What is not bound is null, which no plan depends on.
    let steps = plan.raw_query().mapped(|row| row.get(3)).collect::<Result<_, _>>();
    steps.unwrap()
}

#[cfg(test)]
mod tests {
    use mobo_core::store::StoreError;

    use super::*;

    #[track_caller]
    fn refusal(path: &Path, role: Role) -> String {
        match open_writer(path, role, 100) {
            Err(Failure(StoreError::Refused(why))) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_database_opens_again_and_only_for_its_own_kind_of_node() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hub.db");
        for _ in 0..2 {
            let connection = open_writer(&path, Role::Hub, 100).unwrap();
            quick_check(&connection).unwrap();
            assert_eq!(number(&connection, "user_version").unwrap(), Role::Hub.migrations().len() as i32);
            assert_eq!(number(&connection, "synchronous").unwrap(), 2, "FULL");
        }
        assert!(refusal(&path, Role::Edge).contains("the database of a hub"));
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 70).unwrap();
        assert!(refusal(&path, Role::Hub).contains("upgrade this program"));
    }

    #[test]
    fn a_foreign_file_is_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("foreign.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs(a)").unwrap();
        let before = std::fs::read(&path).unwrap();
        assert!(refusal(&path, Role::Hub).contains("something else"));
        assert_eq!(std::fs::read(&path).unwrap(), before);
        std::fs::write(&path, "not a database at all, but a text of some length".repeat(20)).unwrap();
        assert!(matches!(open_writer(&path, Role::Hub, 100), Err(Failure(StoreError::Damaged(_)))));
    }

    // faults: S-15
    #[test]
    fn an_old_sqlite_is_refused() {
        assert_eq!(version().to_string(), rusqlite::version());
        check_version(version()).unwrap();
        let Failure(refusal) = check_version(SqliteVersion { patch: 2, ..VERSION_MIN }).unwrap_err();
        assert!(refusal.to_string().contains("3.51.3"), "{refusal}");
    }
}
