//! Who may use the device's API, as the hub said last, and writes of those whom policies bind.

use std::sync::Arc;

use mobo_core::author::Edit;
use mobo_core::ids::CollectionId;
use mobo_core::message::AccessUpdate;
use mobo_core::rights::Bounds;
use mobo_core::store::StoreError;
use mobo_core::time::Eff;
use rusqlite::Connection;

use super::answers::{Change, WriteError, Written};
use super::{EdgeStore, Inner, meta, room, sorted, write, written};

const TEXT: &str = "access";
const HUB_TIME: &str = "access_hub_time";

impl EdgeStore {
    /// Keeps what the hub says of callers, in place of what it said before.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn put_access(&self, update: AccessUpdate) -> Result<(), StoreError> {
        let work = move |conn: &Connection, _: &Inner| {
            meta::set(conn, TEXT, &update.text)?;
            meta::set(conn, HUB_TIME, update.hub_time.0)
        };
        self.commit(work, |inner, ()| inner.tell(vec![Change::AccessChanged])).await
    }

    /// What the hub said last of callers; `None` where it never did.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn access(&self) -> Result<Option<AccessUpdate>, StoreError> {
        self.read(|conn, _| {
            let said = meta::get::<String>(conn, TEXT)?.zip(meta::get::<i64>(conn, HUB_TIME)?);
            Ok(said.map(|(text, hub_time)| AccessUpdate { hub_time: Eff(hub_time), text }))
        })
        .await
    }

    /// As [`write`](Self::write), within bounds to which each edit is held, with its row as it is when it is written.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write); [`EditError::Denied`](mobo_core::author::EditError::Denied) for what the bounds do not allow.
    pub async fn write_within(
        &self,
        collection: CollectionId,
        edits: Vec<Edit>,
        author: Option<String>,
        bounds: Arc<Bounds>,
    ) -> Result<Written, WriteError> {
        let work = move |conn: &Connection, inner: &Inner| {
            let schema = inner.schema.get(conn)?;
            room::for_records(conn, &inner.room())?;
            sorted(write::write_within(conn, &schema, (collection, &edits, author.as_deref()), inner.sources.seal(), &bounds))
        };
        self.commit(work, written).await?
    }
}
