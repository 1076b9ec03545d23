//! One cut after the other.

use super::*;

/// The next cut has the connection of the last one, sees what was written since, and knows a table that has come.
#[tokio::test]
async fn a_connection_serves_one_cut_after_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let place = (folder.path().join("hub.db"), None);
    let writer = crate::sqlite::open::open_writer(&place.0, crate::sqlite::open::Role::Hub, 100).unwrap();
    let cuts = Arc::new(Cuts::default());
    let meta = Table { name: TableName::Own("rights".to_owned()), columns: vec!["project".to_owned()] };
    let (mut before, mut threads) = (0, Vec::new());
    for round in 1..=3 {
        writer.execute_batch(&format!("INSERT INTO mobo_rights VALUES ({round}, 0); CREATE TABLE mobo_new{round}(a)")).unwrap();
        let mut cut = SqliteCut::begin(Arc::clone(&cuts), place.clone()).await.unwrap();
        let tables = cut.tables().await.unwrap().len();
        assert!(round == 1 || tables == before + 1, "{tables} tables in round {round}");
        before = tables;
        cut.open(meta.clone(), Filter::default()).await.unwrap();
        assert_eq!(cut.next().await.unwrap().len(), round);
        assert_eq!(cut.next().await.unwrap(), Vec::<Row>::new());
        drop(cut);
        threads.push(desk::tests::waiting(&cuts).await);
    }
    threads.dedup();
    assert_eq!(threads.len(), 1, "one thread serves them all");
    assert!(desk::tests::knows_its_tables(&cuts).await);
    cuts.close();
    assert!(!desk::tests::waits(&cuts));
    let cut = SqliteCut::begin(Arc::clone(&cuts), place).await.unwrap();
    drop(cut);
    // Whatever is under way when it is closed is not kept: the last holder of it is the thread.
    while Arc::strong_count(&cuts) > 1 {
        tokio::task::yield_now().await;
    }
    assert!(!desk::tests::waits(&cuts));
}

/// Only what was read to its end has ended.
#[tokio::test]
async fn a_reader_that_dies_in_a_table_is_no_end_of_it() {
    let (asks, _asked) = blocking::sync_channel(2);
    let (pages, coming) = mpsc::channel(4);
    let mut cut = SqliteCut { asks, pages: Some(coming), packed: None };
    pages.send(Ok((vec![vec![Cell::Int(1)]], false))).await.unwrap();
    drop(pages);
    assert_eq!(cut.next().await, Ok(vec![vec![Cell::Int(1)]]));
    assert_eq!(cut.next().await, Err(gone()));
    let (pages, coming) = mpsc::channel(4);
    cut.pages = Some(coming);
    pages.send(Ok((Vec::new(), true))).await.unwrap();
    drop(pages);
    assert_eq!((cut.next().await, cut.next().await), (Ok(Vec::new()), Ok(Vec::new())));
    let (pages, coming) = mpsc::channel(4);
    cut.packed = Some(coming);
    drop(pages);
    assert_eq!(cut.next_packed().await.map(|rows| rows.len()), Err(gone()), "nor of packed ones");
}
