//! SQLite on a disk that loses power: at every write and sync of a run, what was committed stays and nothing is damaged.

use rusqlite::{Connection, OpenFlags};

use crate::{Disk, Failure, NAME};

const COMMITS: i64 = 12;

fn open(disk: &Disk) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags_and_vfs(disk.folder().join("a.db"), flags, NAME)?;
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY, b)")?;
    Ok(connection)
}

/// Commits until something goes wrong; the last number that was said to be committed.
fn work(disk: &Disk, mut last: i64) -> i64 {
    let Ok(connection) = open(disk) else { return last };
    while last < COMMITS {
        if connection.execute("INSERT INTO t VALUES (?1, randomblob(3000))", [last + 1]).is_err() {
            return last;
        }
        last += 1;
        if last % 4 == 0 && connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).is_err() {
            return last;
        }
    }
    last
}

fn rows(disk: &Disk) -> i64 {
    let connection = open(disk).unwrap();
    let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    let (count, max): (i64, i64) =
        connection.query_row("SELECT count(*), coalesce(max(n), 0) FROM t", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(count, max, "a commit in the middle is gone");
    count
}

/// Keeps about `percent` of the sectors, the same ones in every run.
fn keep(percent: u64, seed: u64) -> impl FnMut() -> bool {
    let mut bits = seed;
    move || {
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (bits >> 33) % 100 < percent
    }
}

// faults: S-1, S-3
#[test]
fn a_cut_at_every_write_and_sync_loses_no_commit() {
    let whole = Disk::new();
    assert_eq!(work(&whole, 0), COMMITS);
    for at in 0..whole.ops() {
        for percent in [0, 50, 100] {
            let disk = Disk::new();
            disk.fail_after(at, Failure::PowerCut);
            let said = work(&disk, 0);
            disk.cut(&mut keep(percent, at));
            let there = rows(&disk);
            assert!(there == said || there == said + 1, "cut at {at}, {percent} % kept: {said} were committed, {there} are there");
        }
    }
    assert!(whole.ops() > 40, "{:?}", whole.tally());
}

#[test]
fn a_disk_that_lies_loses_commits() {
    let disk = Disk::new();
    assert_eq!(rows(&disk), 0);
    disk.lie();
    assert_eq!(work(&disk, 0), COMMITS);
    disk.cut(&mut || false);
    assert_eq!(rows(&disk), 0);
    assert!(disk.tally().lies > 0 && disk.tally().sectors_lost > 0);
}

#[test]
fn errors_and_fullness_are_told() {
    let disk = Disk::new();
    let connection = open(&disk).unwrap();
    disk.fill(0);
    assert!(connection.execute("INSERT INTO t VALUES (1, randomblob(30000))", []).is_err());
    disk.heal();
    connection.execute("INSERT INTO t VALUES (1, randomblob(30000))", []).unwrap();
    disk.fail_after(0, Failure::Io);
    assert!(connection.execute("INSERT INTO t VALUES (2, 'b')", []).is_err());
    assert_eq!((disk.tally().full, disk.tally().errors), (1, 1));
    disk.kill();
    assert!(connection.query_row("SELECT count(*) FROM t", [], |_| Ok(())).is_err() || connection.execute("DELETE FROM t", []).is_err());
    drop(connection);
    assert_eq!(rows(&disk), 1);
}

#[test]
fn a_reader_sees_what_the_writer_commits_beside_it() {
    let disk = Disk::new();
    let (writer, reader) = (open(&disk).unwrap(), open(&disk).unwrap());
    let count = || reader.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count(), 0);
    writer.execute("INSERT INTO t VALUES (1, 'a')", []).unwrap();
    assert_eq!(count(), 1);
    let image = disk.image();
    writer.execute("INSERT INTO t VALUES (2, 'b')", []).unwrap();
    assert_eq!(rows(&Disk::from_image(&image)), 1, "a copy of the folder");
}
