//! What the hub refused, for those who decide about it.

use mobo_core::store::StoreError;
use rusqlite::Connection;
use serde_json::{Map, Value as Json};

use super::answers::{WriteError, Written};
use super::counts::InboxRow;
use super::{EdgeStore, Inner, inbox, retry, sorted, written};

impl EdgeStore {
    /// What the hub refused and nobody has decided about, newest first; behind number `after`, where one is given.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn inbox(&self, after: Option<u64>, limit: u32) -> Result<Vec<InboxRow>, StoreError> {
        self.read(move |conn, _| inbox::open(conn, after, limit)).await
    }

    /// One refused entry, whatever became of it; `None` when there is none of that number.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn refused(&self, n: u64) -> Result<Option<InboxRow>, StoreError> {
        self.read(move |conn, _| inbox::one(conn, n)).await
    }

    /// Writes a refused entry again, against what is shown now; `corrections` take the place of fields that it had.
    ///
    /// # Errors
    ///
    /// [`WriteError`], by what the caller should change; the entry stays open then.
    pub async fn retry(&self, n: u64, corrections: Option<Map<String, Json>>) -> Result<Written, WriteError> {
        let work = move |conn: &Connection, inner: &Inner| {
            let schema = inner.schema.get(conn)?;
            sorted(retry::retry(conn, &schema, (n, corrections.as_ref()), inner.sources.seal()))
        };
        self.commit(work, written).await?
    }

    /// Lets a refused entry go. It stays on record.
    ///
    /// # Errors
    ///
    /// A [`StoreError`], [`StoreError::Refused`] when it is not open.
    pub async fn forget_refused(&self, n: u64) -> Result<(), StoreError> {
        let work = move |conn: &Connection, inner: &Inner| retry::drop(conn, n, (inner.sources.moment)());
        self.commit(work, |_, ()| {}).await
    }
}
