//! Where the conformance suite keeps a store on Postgres.

use std::sync::Arc;

use mobo_core::future::BoxFuture;
use mobo_core::store::{HubStore, StoreError};
use mobo_hub::postgres::PostgresHubStore;

use crate::postgres::Database;
use crate::store_conformance::Place;

impl Place for Database {
    fn open(&self) -> BoxFuture<'_, Result<Arc<dyn HubStore>, StoreError>> {
        Box::pin(async move {
            let store = PostgresHubStore::open(&self.url()).await?;
            Ok(Arc::new(store) as Arc<dyn HubStore>)
        })
    }

    fn sql<'a>(&'a self, statement: &'a str) -> BoxFuture<'a, Result<Option<String>, String>> {
        let rows = self.try_rows(&own(statement));
        Box::pin(async move { Ok(rows?.into_iter().next().and_then(|row| row.into_iter().next())) })
    }

    fn repair<'a>(&'a self, statement: &'a str) -> BoxFuture<'a, Result<(), String>> {
        let rows = self.try_rows(&format!("SET mobo.applying = 'on'; {}", own(statement)));
        Box::pin(async move { rows.map(|_| ()) })
    }
}

fn own(statement: &str) -> String {
    statement.replace("{own}", "mobo.")
}
