//! The floor under a catch-up: the same rows, read from the device's SQLite and put into an empty table in one transaction, committed with
//! fsync; in Postgres by one stream to `COPY`, in SQLite by one prepared statement. It makes no history, merges nothing and tells nobody; no
//! replication can be faster with this database on this machine.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::mpsc;

use crate::postgres::Database;
use crate::records::{COLLECTION, FIELDS};

/// Bytes that are sent at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks that wait for the database.
const CHUNKS_MAX: usize = 16;

/// How long it takes to carry the collection of the device in `folder` over, and how many rows that were. Without a database it goes into
/// another file beside the device's.
pub(crate) async fn measure(folder: &Path, database: Option<&Database>) -> anyhow::Result<(Duration, u64)> {
    match database {
        Some(database) => postgres(folder, database).await,
        None => {
            let folder = folder.to_owned();
            tokio::task::spawn_blocking(move || sqlite(&folder)).await?
        }
    }
}

fn sqlite(folder: &Path) -> anyhow::Result<(Duration, u64)> {
    let mut to = Connection::open(folder.join("floor.db"))?;
    to.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")?;
    let columns: Vec<String> = FIELDS.iter().map(|(name, ..)| format!("{name} ANY")).collect();
    to.execute_batch(&format!("CREATE TABLE floor(id TEXT PRIMARY KEY, {}) STRICT, WITHOUT ROWID", columns.join(", ")))?;
    let started = Instant::now();
    let from = Connection::open_with_flags(folder.join("edge.db"), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let fields: Vec<&str> = FIELDS.iter().map(|(name, ..)| *name).collect();
    let mut read = from.prepare(&format!("SELECT id, {} FROM {COLLECTION}", fields.join(", ")))?;
    let mut rows = read.query([])?;
    let transaction = to.transaction()?;
    let mut write = transaction.prepare(&format!("INSERT INTO floor VALUES (?{})", ", ?".repeat(FIELDS.len())))?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        for column in 0..=FIELDS.len() {
            write.raw_bind_parameter(column + 1, rusqlite::types::ToSqlOutput::Borrowed(row.get_ref(column)?))?;
        }
        write.raw_execute()?;
        count += 1;
    }
    drop(write);
    transaction.commit()?;
    Ok((started.elapsed(), count))
}

async fn postgres(folder: &Path, database: &Database) -> anyhow::Result<(Duration, u64)> {
    let mut connection = database.connect().await?;
    let columns: Vec<String> = FIELDS.iter().map(|(name, _, kind)| format!("{name} {kind}")).collect();
    let table = format!("CREATE TABLE public.mobo_bench_floor (id text PRIMARY KEY, {})", columns.join(", "));
    sqlx::raw_sql(sqlx::AssertSqlSafe(table)).execute(&mut connection).await?;
    let started = Instant::now();
    let (chunks, mut waiting) = mpsc::channel::<Vec<u8>>(CHUNKS_MAX);
    let path = folder.join("edge.db");
    let reading = tokio::task::spawn_blocking(move || read(&path, &chunks));
    let mut copy = connection.copy_in_raw("COPY public.mobo_bench_floor FROM STDIN").await?;
    while let Some(chunk) = waiting.recv().await {
        copy.send(chunk).await?;
    }
    // Only a whole read may be committed.
    if let Err(error) = reading.await? {
        copy.abort("the source cannot be read").await?;
        return Err(error);
    }
    let rows = copy.finish().await?;
    Ok((started.elapsed(), rows))
}

/// Reads all rows in the text form of `COPY`.
fn read(path: &PathBuf, chunks: &mpsc::Sender<Vec<u8>>) -> anyhow::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).with_context(|| format!("{} cannot be opened", path.display()))?;
    let fields: Vec<&str> = FIELDS.iter().map(|(name, ..)| *name).collect();
    let mut statement = connection.prepare(&format!("SELECT id, {} FROM {COLLECTION}", fields.join(", ")))?;
    let mut rows = statement.query([])?;
    let mut text = String::with_capacity(CHUNK_BYTES + 1_024);
    while let Some(row) = rows.next()? {
        for column in 0..=FIELDS.len() {
            if column > 0 {
                text.push('\t');
            }
            put(&mut text, row.get_ref(column)?);
        }
        text.push('\n');
        if text.len() >= CHUNK_BYTES {
            let full = std::mem::replace(&mut text, String::with_capacity(CHUNK_BYTES + 1_024));
            chunks.blocking_send(full.into_bytes()).context("the database went away")?;
        }
    }
    chunks.blocking_send(text.into_bytes()).context("the database went away")
}

fn put(text: &mut String, value: ValueRef<'_>) {
    // Writing to a string cannot fail.
    let _ = match value {
        ValueRef::Null => write!(text, "\\N"),
        ValueRef::Integer(number) => write!(text, "{number}"),
        ValueRef::Real(number) => write!(text, "{number:?}"),
        ValueRef::Text(bytes) => {
            for character in String::from_utf8_lossy(bytes).chars() {
                match character {
                    '\\' => text.push_str("\\\\"),
                    '\t' => text.push_str("\\t"),
                    '\n' => text.push_str("\\n"),
                    '\r' => text.push_str("\\r"),
                    other => text.push(other),
                }
            }
            Ok(())
        }
        ValueRef::Blob(bytes) => {
            text.push_str("\\\\x");
            bytes.iter().try_for_each(|byte| write!(text, "{byte:02x}"))
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_spelled_as_copy_reads_them() {
        let cases = [
            (ValueRef::Null, "\\N"),
            (ValueRef::Integer(-7), "-7"),
            (ValueRef::Real(0.5), "0.5"),
            (ValueRef::Real(1e300), "1e300"),
            (ValueRef::Text("a\tb\\c\nÖ".as_bytes()), "a\\tb\\\\c\\nÖ"),
            (ValueRef::Blob(&[1, 255]), "\\\\x01ff"),
        ];
        for (value, want) in cases {
            let mut text = String::new();
            put(&mut text, value);
            assert_eq!(text, want);
        }
    }
}
