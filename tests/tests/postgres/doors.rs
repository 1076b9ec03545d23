//! Opening: what is said to whom gives a wrong address, and what happens to a database that is not as expected.

use mobo_core::store::StoreError;
use mobo_hub::postgres::PostgresHubStore;
use mobo_tests::postgres::Database;

async fn refused(url: &str) -> StoreError {
    PostgresHubStore::open(url).await.expect_err("it must not open")
}

#[tokio::test]
async fn an_address_that_does_not_lead_to_a_database_is_named_without_its_password() {
    let database = Database::fresh();
    let (name, url) = (database.value("SELECT current_database()"), database.url());
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        (url.replace(&name, "no_such_database"), "createdb no_such_database"),
        (format!("{url}&password=s3cret").replace("user=mobo", "user=nobody_like_this"), "check user and password"),
        (format!("postgres://ann:s3cret@127.0.0.1:1/plant?host={}", folder.path().display()), "cannot be reached"),
        ("postgres://ann:s3cret@host:port/plant".to_owned(), "write it as postgres://"),
    ];
    for (url, want) in cases {
        let error = refused(&url).await.to_string();
        assert!(error.contains(want) && !error.contains("s3cret"), "{error}");
    }
}

#[tokio::test]
async fn hubs_that_open_a_fresh_database_together_make_its_tables_once() {
    let database = Database::fresh();
    let url = database.url();
    let opened = tokio::join!(PostgresHubStore::open(&url), PostgresHubStore::open(&url), PostgresHubStore::open(&url));
    for store in [opened.0, opened.1, opened.2] {
        let shown = format!("{:?}", store.expect("each of them opens"));
        assert!(shown.contains("PostgresHubStore"), "{shown}");
    }
    let made = database.rows("SELECT version, name FROM mobo.migration ORDER BY version");
    let versions: Vec<String> = (1..=made.len()).map(|version| version.to_string()).collect();
    assert_eq!(made.iter().map(|row| &row[0]).collect::<Vec<_>>(), versions.iter().collect::<Vec<_>>(), "each once: {made:?}");
    assert_eq!(made[0][1], "hub");
}

// faults: H-17
#[tokio::test]
async fn a_database_of_a_newer_hub_or_of_somebody_else_is_left_alone() {
    let database = Database::fresh();
    drop(PostgresHubStore::open(&database.url()).await.unwrap());
    database.rows("INSERT INTO mobo.migration(version, name) VALUES (1000, 'of tomorrow')");
    let error = refused(&database.url()).await.to_string();
    assert!(error.contains("newer mobo-hub") && error.contains("upgrade this hub"), "{error}");

    let database = Database::fresh();
    database.rows("CREATE SCHEMA mobo; CREATE TABLE mobo.things(x int)");
    let error = refused(&database.url()).await.to_string();
    assert!(error.contains("not ours"), "{error}");
    assert_eq!(database.value("SELECT count(*) FROM pg_tables WHERE schemaname = 'mobo'"), "1");
}

#[tokio::test]
async fn a_database_in_another_encoding_is_refused() {
    let database = Database::fresh();
    let name = format!("{}_latin", database.value("SELECT current_database()"));
    database.rows(&format!("CREATE DATABASE {name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"));
    let url = database.url().replace(&database.value("SELECT current_database()"), &name);
    let error = refused(&url).await.to_string();
    database.rows(&format!("DROP DATABASE {name}"));
    assert!(error.contains("LATIN1") && error.contains("UTF8"), "{error}");
}
