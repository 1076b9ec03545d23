use std::path::PathBuf;
use std::sync::mpsc::sync_channel;
use std::task::Poll;

use tokio::task::JoinSet;

use super::*;
use crate::sqlite::open::{Role, open_writer};
use crate::sqlite::readers::Readers;

struct Store {
    writer: Writer,
    readers: Readers,
}

async fn store(path: PathBuf) -> Arc<Store> {
    let writer = Writer::start(open_writer(&path, Role::Hub, 100).unwrap()).unwrap();
    writer.run(|connection| Ok(connection.execute_batch("CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY)")?)).await.unwrap();
    Arc::new(Store { writer, readers: Readers::new(path, 2, 100) })
}

fn insert(connection: &Connection, n: i64) -> Result<(), Failure> {
    connection.prepare_cached("INSERT INTO t VALUES (?1)")?.execute([n])?;
    Ok(())
}

impl Store {
    async fn numbers(&self) -> Vec<i64> {
        let numbers = self.readers.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT n FROM t ORDER BY n")?;
            let numbers = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            Ok(numbers)
        });
        numbers.await.unwrap()
    }

    fn commits(&self) -> u64 {
        self.writer.counters().commits.load(Ordering::Relaxed)
    }
}

// faults: H-14
#[tokio::test]
async fn what_waits_together_is_committed_together_and_each_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path().join("a.db")).await;
    let before = store.commits();
    // The thread is held in the first job until all the others are in the queue.
    let (release, held) = sync_channel(1);
    let (begin, begun) = tokio::sync::oneshot::channel();
    let first = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            let hold = move |connection: &Connection| {
                begin.send(()).unwrap();
                held.recv().unwrap();
                work(connection, 100)
            };
            store.writer.run(hold).await
        }
    });
    begun.await.unwrap();
    let mut others: Vec<_> = (0..100).map(|n| Box::pin(store.writer.run(move |connection| work(connection, n)))).collect();
    std::future::poll_fn(|context| {
        others.iter_mut().for_each(|other| assert!(other.as_mut().poll(context).is_pending()));
        Poll::Ready(())
    })
    .await;
    release.send(()).unwrap();
    let mut ends = vec![first.await.unwrap()];
    for other in others {
        ends.push(other.await);
    }
    let want: Vec<i64> = (0..=100).filter(|n| n % 10 < 7).collect();
    assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), want.len());
    assert_eq!(store.numbers().await, want, "a job that failed has left nothing, and has taken nobody with it");
    let commits = store.commits() - before;
    assert!(commits <= 3, "{commits} commits for 101 jobs");
}

fn work(connection: &Connection, n: i64) -> Result<(), Failure> {
    insert(connection, n)?;
    match n % 10 {
        7 => Err(Failure::refused("seven")),
        8 => insert(connection, n),
        9 => panic!("a defect, on purpose"),
        _ => Ok(()),
    }
}

#[tokio::test]
async fn closing_finishes_what_waits_and_nothing_comes_after() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let open = store(path.clone()).await;
    let mut tasks = JoinSet::new();
    for n in 0..20 {
        let store = Arc::clone(&open);
        tasks.spawn(async move { store.writer.run(move |connection| insert(connection, n)).await });
    }
    tokio::task::yield_now().await;
    open.writer.close().await;
    open.readers.close().await;
    assert!(tasks.join_all().await.iter().all(Result::is_ok));
    let after = open.writer.run(|connection| insert(connection, 99)).await;
    assert!(matches!(after, Err(StoreError::Unavailable(_))), "{after:?}");
    assert!(matches!(open.readers.read(|_| Ok(())).await, Err(StoreError::Unavailable(_))));
    assert_eq!(std::fs::metadata(path.with_extension("db-wal")).map_or(0, |file| file.len()), 0, "the log is carried over");
    assert_eq!(store(path).await.numbers().await, (0..20).collect::<Vec<_>>());
}

// faults: S-7
#[tokio::test]
async fn a_full_disk_refuses_writes_and_ends_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path().join("a.db")).await;
    let limit = |pages: i64| store.writer.run(move |connection| Ok(connection.pragma_update(None, "max_page_count", pages)?));
    let large = || {
        store.writer.run(|connection| {
            connection.execute_batch("CREATE TABLE large AS SELECT zeroblob(1000000) AS b")?;
            Ok(())
        })
    };
    store.writer.run(|connection| insert(connection, 1)).await.unwrap();
    limit(1).await.unwrap();
    for _ in 0..2 {
        assert!(matches!(large().await, Err(StoreError::Full(_))));
    }
    store.writer.run(|connection| insert(connection, 2)).await.unwrap();
    assert_eq!(store.numbers().await, [1, 2], "reads, and writes that fit, go on");
    limit(1_000_000).await.unwrap();
    large().await.unwrap();
}

// faults: S-4
#[tokio::test]
async fn after_a_failed_sync_nothing_is_written_until_it_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let broken = store(path.clone()).await;
    broken.writer.run(|connection| insert(connection, 1)).await.unwrap();
    let failed = broken.writer.run(|connection| {
        insert(connection, 2)?;
        let error = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC);
        Err::<(), _>(rusqlite::Error::SqliteFailure(error, None).into())
    });
    assert!(matches!(failed.await, Err(StoreError::Poisoned(_))));
    for _ in 0..2 {
        let refused = broken.writer.run(|connection| insert(connection, 3)).await;
        assert!(matches!(refused, Err(StoreError::Poisoned(_))), "{refused:?}");
    }
    assert_eq!(broken.numbers().await, [1], "reads go on");
    broken.writer.close().await;
    let again = store(path).await;
    again.writer.run(|connection| insert(connection, 4)).await.unwrap();
    assert_eq!(again.numbers().await, [1, 4]);
}

// faults: S-12
#[tokio::test]
async fn a_long_reader_holds_the_log_up_but_not_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = store(path.clone()).await;
    let pages = |pages: i64| {
        move |connection: &Connection| {
            let sql = "INSERT INTO blobs SELECT zeroblob(4000) FROM generate_series(1, ?1)";
            let sql = sql.replace(
                "generate_series(1, ?1)",
                "(WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < ?1) SELECT x FROM c)",
            );
            connection.execute(&sql, [pages])?;
            Ok(())
        }
    };
    store.writer.run(|connection| Ok(connection.execute_batch("CREATE TABLE blobs(b BLOB)")?)).await.unwrap();
    let (release, held) = sync_channel::<()>(1);
    let reading = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let work = move |connection: &Connection| {
                let count = |connection: &Connection| connection.query_row("SELECT count(*) FROM blobs", [], |row| row.get::<_, i64>(0));
                let before = count(connection)?;
                held.recv().unwrap();
                Ok((before, count(connection)?))
            };
            store.readers.read(work).await.unwrap()
        })
    };
    for _ in 0..4 {
        store.writer.run(pages(limits::SQLITE_WAL_PAGES)).await.unwrap();
    }
    let held_up = std::fs::metadata(path.with_extension("db-wal")).unwrap().len();
    release.send(()).unwrap();
    let (before, after) = reading.await.unwrap();
    assert_eq!(before, after, "a read is of one moment");
    for _ in 0..4 {
        store.writer.run(pages(limits::SQLITE_WAL_PAGES)).await.unwrap();
    }
    let later = std::fs::metadata(path.with_extension("db-wal")).unwrap().len();
    assert!(later <= held_up, "the log begins again once nobody needs it: {held_up} bytes, then {later}");
}
