//! What the device knows of itself, and what it tells a hub of it.

use std::path::PathBuf;

use mobo_core::ids::Incarnation;
use mobo_core::store::StoreError;
use rusqlite::Connection;

use super::answers::{Identity, Node, Refenced, Report};
use super::fault::Try;
use super::refence::{self, Why};
use super::{EdgeStore, Inner, floor, life, members, meta, outbox};
use crate::sqlite::error::Failure;

impl EdgeStore {
    /// What the device knows of itself.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn node(&self) -> Result<Node, StoreError> {
        self.read(|conn, _| meta::node(conn)).await
    }

    /// Keeps whose device this is, and starts its log with `fresh` where there is none. Joining the same hub again brings new papers.
    ///
    /// # Errors
    ///
    /// [`StoreError::Refused`] when the folder belongs to another device, project or hub already.
    pub async fn join(&self, identity: Identity, fresh: Incarnation) -> Result<(), StoreError> {
        let work = move |conn: &Connection, inner: &Inner| {
            let node = meta::node(conn)?;
            if let Some(known) = &node.identity
                && (known.project, known.device, known.hub_key) != (identity.project, identity.device, identity.hub_key)
            {
                return Err(Failure::refused(format!(
                    "{} belongs to device {} of another hub or project already: join with a new data folder",
                    folder(&inner.place),
                    known.device
                )));
            }
            meta::set_identity(conn, &identity)?;
            if node.incarnation.is_none() {
                meta::set_incarnation(conn, fresh, None)?;
                life::first(conn)?;
            }
            Ok(())
        };
        self.commit(work, |_, ()| {}).await
    }

    /// Keeps where the hub is now.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn set_hub_addresses(&self, addresses: Vec<String>) -> Result<(), StoreError> {
        self.commit(move |conn, _| meta::set_addresses(conn, &addresses), |_, ()| {}).await
    }

    /// Keeps what the machine looks like that the log belongs to: another one at a later start means that this is a copy.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn set_fingerprint(&self, fingerprint: Vec<u8>) -> Result<(), StoreError> {
        self.commit(move |conn, _| meta::set(conn, meta::FINGERPRINT, fingerprint), |_, ()| {}).await
    }

    /// Looks whether the machine is the one that the log was started on, before anything is written: where it is another, this is a copy,
    /// and it goes on under the log `fresh`. What it looks like now is kept. `None` where nothing had to be done.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn settle_fingerprint(&self, now: Vec<u8>, fresh: Incarnation) -> Result<Option<Refenced>, StoreError> {
        let work = move |conn: &Connection, inner: &Inner| {
            let node = meta::node(conn)?;
            let is_copy = node.fingerprint.as_ref().is_some_and(|known| *known != now) && node.incarnation.is_some();
            meta::set(conn, meta::FINGERPRINT, now)?;
            if !is_copy {
                return Ok(None);
            }
            refence::refence(conn, &*inner.schema.get(conn)?, (None, fresh, Why::Twice), &inner.sources).map(Some)
        };
        self.commit(work, |_, _| {}).await
    }

    /// What a hello says, read in one snapshot.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn report(&self) -> Result<Report, StoreError> {
        self.take_in().await?;
        self.read(|conn, _| report(conn)).await
    }
}

fn report(conn: &Connection) -> Try<Report> {
    let node = meta::node(conn)?;
    let lanes = match node.incarnation {
        Some(incarnation) => outbox::reports(conn, incarnation)?,
        None => Vec::new(),
    };
    let buckets = members::buckets(conn)?.iter().map(members::BucketRow::report).collect();
    Ok(Report { node, lanes, buckets, checkpoint: meta::checkpoint(conn)?, told: floor::told(conn)? })
}

fn folder(place: &str) -> String {
    PathBuf::from(place).parent().map_or_else(|| place.to_owned(), |folder| folder.display().to_string())
}
