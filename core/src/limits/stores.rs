//! The limits of the databases.

use std::time::Duration;

// SQLite
/// How often a hub looks for SQL of other programs in a database that cannot tell of it.
pub const HUB_INTAKE_LOOK: Duration = Duration::from_millis(40);
/// Rows of SQL that one transaction of a hub takes in, unless one that wrote them has more.
pub const HUB_INTAKE_ROWS_MAX: usize = 5_000;
/// How often a device looks for SQL of other programs where the system cannot tell it of changes in its folder.
pub const INTAKE_POLL: Duration = Duration::from_millis(25);
/// How long a statement waits for another process that holds the database.
pub const SQLITE_BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Prepared statements that one connection keeps.
pub const SQLITE_STATEMENTS_MAX: usize = 256;
/// Pages in the write-ahead log at which they are carried over into the database.
pub const SQLITE_WAL_PAGES: i64 = 1_000;
/// Pages in the write-ahead log at which the writer waits for readers, so that it does not grow without end.
pub const SQLITE_WAL_PAGES_MAX: i64 = 16_000;
/// How long the writer waits so.
pub const SQLITE_WAL_WAIT: Duration = Duration::from_millis(500);
/// Bytes of the write-ahead log's file that are kept for the next round.
pub const SQLITE_WAL_FILE_BYTES: i64 = 4 * 1024 * 1024;
/// Reads that run at the same time on a hub's database.
pub const SQLITE_HUB_READERS_MAX: usize = 4;
/// A read of a few pages that takes longer has waited for the disk, or for a core: waking a thread takes about a tenth of it.
pub const SQLITE_GLANCE_MAX: Duration = Duration::from_micros(300);
/// Such reads that are done on other threads after a slow one.
pub const SQLITE_AWAY_MIN: u32 = 4;
/// The same while the first one after these is slow again, and again.
pub const SQLITE_AWAY_MAX: u32 = 1_024;
/// Pages that each connection of a hub keeps in memory, in KiB.
pub const SQLITE_HUB_CACHE_KIB: u32 = 16 * 1024;
/// How often an audit is made again whose tables other programs write into meanwhile.
pub const AUDIT_TRIES_MAX: usize = 5;
/// How often what they wrote is taken in before one.
pub const AUDIT_INTAKES_MAX: usize = 1_000;
/// Records that an audit names for each bucket.
pub const AUDIT_DAMAGED_MAX: usize = 20;

// Postgres
/// Connections that one hub holds to its database.
pub const POSTGRES_CONNECTIONS_MAX: u32 = 8;
/// Longest wait for one of them.
pub const POSTGRES_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the database to answer at boot.
pub const POSTGRES_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest run of one statement, enforced by the database; the hub itself gives up on an answer a little later.
pub const POSTGRES_STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// The same where a statement may take its time: a migration, or a page of a health check.
pub const POSTGRES_LONG_STATEMENT_TIMEOUT: Duration = Duration::from_secs(600);
/// Longest wait of a statement for the locks of another hub.
pub const POSTGRES_LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// The same in a merge of several submissions, which is parted then: whoever nobody keeps out does not wait for the others.
pub const MERGE_LOCK_TIMEOUT: Duration = Duration::from_millis(500);
/// The same in a merge of one submission, which fails then; everybody behind it in the queue waits so long.
pub const MERGE_LOCK_TIMEOUT_ALONE: Duration = Duration::from_secs(3);
/// The database takes back the locks of a hub that has stood still in the middle of a transaction for this long.
pub const POSTGRES_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Prepared statements that one connection keeps.
pub const POSTGRES_STATEMENTS_MAX: usize = 512;
/// Rows that one statement writes or reads at once.
pub const POSTGRES_ROWS_MAX: usize = 1_000;
/// Keys of buckets that are kept in memory.
pub const POSTGRES_BUCKET_KEYS_MAX: usize = 10_000;
