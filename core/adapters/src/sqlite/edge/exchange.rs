//! What the hub says, as the session hands it over: acks, refusals, batches, checkpoints, rights, definitions.

use mobo_core::ids::{BucketId, Incarnation, Lane, Position, RecordKey};
use mobo_core::message::{Ack, Batch, Checkpoint, Grant, Offer, Refence, Reject, SchemaUpdate, Welcome};
use mobo_core::recover::Former;
use mobo_core::store::StoreError;
use rusqlite::Connection;

use super::answers::{Acknowledged, Admitted, Applied, ApplyError, Change, Compared, Keep, Pending, Refenced};
use super::counts::EdgeAudit;
use super::members::{self, Sweep};
use super::refence::Why;
use super::refusals::{self, Refused};
use super::{EdgeStore, Inner, ack, apply, compare, definitions, levels, outbox, records, recover, refence, stranded};
use crate::sqlite::error::Failure;

impl EdgeStore {
    /// Takes in a welcome: session, history, rights, and how far the lanes are merged.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn admit(&self, welcome: Welcome) -> Result<Admitted, StoreError> {
        let work = move |conn: &Connection, inner: &Inner| apply::welcome(conn, &*inner.schema.get(conn)?, &welcome);
        let tell = |inner: &Inner, admitted: &Admitted| {
            inner.tell(records(&admitted.changed));
            inner.tell(levels::settled(Lane::ALL));
        };
        self.commit(work, tell).await
    }

    /// Takes in an ack, and drops entries that need not be kept any more.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn acked(&self, ack: Ack, keep: Keep) -> Result<Acknowledged, StoreError> {
        let work = move |conn: &Connection, inner: &Inner| {
            let acknowledged = ack::take(conn, &*inner.schema.get(conn)?, &ack)?;
            ack::trim(conn, &keep)?;
            Ok((acknowledged, ack.lane))
        };
        let told = self.commit(work, |inner, (_, lane)| inner.tell(levels::settled([*lane]))).await?;
        Ok(told.0)
    }

    /// Drops entries that need not be kept any more; says how many (rule R21).
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn trim(&self, keep: Keep) -> Result<u64, StoreError> {
        self.commit(move |conn, _| ack::trim(conn, &keep), |_, _| {}).await
    }

    /// Takes in that an entry was refused: it goes to the inbox, what it did is shown no more, and what was built on it is written again
    /// without it. Gives the records that changed.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn rejected(&self, reject: Reject) -> Result<Vec<RecordKey>, StoreError> {
        let work = move |conn: &Connection, inner: &Inner| {
            let heard = (inner.sources.moment)().wall;
            let nonce = || (inner.sources.nonce)();
            Ok((refusals::take(conn, &*inner.schema.get(conn)?, (&reject, heard), nonce)?, reject.lane))
        };
        let tell = |inner: &Inner, (refused, lane): &(Refused, Lane)| {
            inner.tell(records(&refused.changed));
            inner.tell(levels::settled([*lane]));
            if refused.appended {
                inner.tell(vec![Change::LaneAppended(*lane)]);
            }
        };
        Ok(self.commit(work, tell).await?.0.changed)
    }

    /// Applies a batch, if it continues its bucket's cursor.
    ///
    /// # Errors
    ///
    /// [`ApplyError`]; nothing of the batch has happened then.
    pub async fn apply(&self, batch: Batch) -> Result<Applied, ApplyError> {
        let work = move |conn: &Connection, inner: &Inner| {
            let heard = (inner.sources.moment)().wall;
            let mut nonce = || (inner.sources.nonce)();
            match apply::batch(conn, &*inner.schema.get(conn)?, batch, (heard, &mut nonce)) {
                Err(ApplyError::Store(error)) => Err(Failure::from(error)),
                answer => Ok(answer),
            }
        };
        let tell = |inner: &Inner, answer: &Result<Applied, ApplyError>| {
            if let Ok(applied) = answer {
                inner.tell(records(&applied.changed));
                inner.tell(applied.appended.iter().map(|lane| Change::LaneAppended(*lane)).collect());
            }
        };
        self.commit(work, tell).await?
    }

    /// Compares the buckets with what the hub read in one snapshot. Buckets that differ are reset, to be pulled from the start.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn checkpoint(&self, checkpoint: Checkpoint) -> Result<Compared, StoreError> {
        let work = move |conn: &Connection, inner: &Inner| {
            let heard = (inner.sources.moment)().wall;
            let mut nonce = || (inner.sources.nonce)();
            compare::checkpoint(conn, &*inner.schema.get(conn)?, &checkpoint, (heard, &mut nonce))
        };
        let tell = |inner: &Inner, compared: &Compared| {
            inner.tell(records(&compared.changed));
            inner.tell(compared.appended.iter().map(|lane| Change::LaneAppended(*lane)).collect());
        };
        self.commit(work, tell).await
    }

    /// A page of what is to be offered of a bucket, from the start or behind a position; with its last position where more follow.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn offer(&self, bucket: BucketId, after: Option<Position>) -> Result<(Offer, Option<Position>), StoreError> {
        let work = move |conn: &Connection, inner: &Inner| {
            if let Some(joined) = after {
                recover::sent(conn, bucket, joined)?;
            }
            recover::page(conn, &*inner.schema.get(conn)?, bucket, after)
        };
        self.commit(work, |_, _| {}).await
    }

    /// Takes in that the hub has joined all of a bucket.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn offered(&self, bucket: BucketId) -> Result<(), StoreError> {
        let work = move |conn: &Connection, inner: &Inner| recover::offered(conn, &*inner.schema.get(conn)?, bucket);
        self.commit(work, |inner, changed| inner.tell(records(changed))).await.map(|_| ())
    }

    /// Where each bucket is to be pulled from.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn cursors(&self) -> Result<Vec<(BucketId, Position)>, StoreError> {
        self.read(|conn, _| Ok(members::buckets(conn)?.iter().map(|bucket| (bucket.grant.bucket, bucket.cursor)).collect())).await
    }

    /// Starts the pull of a bucket over, because the hub has forgotten what is older; ended by a checkpoint or a sweep.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn resync(&self, bucket: BucketId) -> Result<(), StoreError> {
        let work = move |conn: &Connection, inner: &Inner| compare::restart(conn, &*inner.schema.get(conn)?, bucket, Sweep::Remove);
        self.commit(work, |_, ()| {}).await
    }

    /// Mends what a health check has found: records are laid over what was delivered again, and buckets with a damaged record or digest
    /// are pulled from the start. Gives those buckets; a session that is live must start anew.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn repair(&self, audit: EdgeAudit) -> Result<Vec<BucketId>, StoreError> {
        let work = move |conn: &Connection, inner: &Inner| compare::repair(conn, &*inner.schema.get(conn)?, &audit);
        self.commit(work, |_, _| {}).await
    }

    /// Ends a pull that started over: what it did not name is gone. Nothing happens before the pull has got to `to`.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn sweep(&self, bucket: BucketId, to: Position) -> Result<Vec<RecordKey>, StoreError> {
        let work = move |conn: &Connection, inner: &Inner| compare::sweep(conn, &*inner.schema.get(conn)?, bucket, to);
        self.commit(work, |inner, changed| inner.tell(records(changed))).await
    }

    /// Takes in that a bucket may be read.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn grant(&self, grant: Grant) -> Result<(), StoreError> {
        let work = move |conn: &Connection, inner: &Inner| apply::grant(conn, &*inner.schema.get(conn)?, &grant);
        self.commit(work, |_, ()| {}).await
    }

    /// Takes in that a bucket may not be read any more: its records go, unless another bucket or pending entries hold them.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn revoke(&self, bucket: BucketId) -> Result<Vec<RecordKey>, StoreError> {
        let work = move |conn: &Connection, inner: &Inner| compare::revoke(conn, &*inner.schema.get(conn)?, bucket);
        self.commit(work, |inner, changed| inner.tell(records(changed))).await
    }

    /// Starts the log `fresh`, because of the hub's order, or without one because this machine is not the one that the log was started
    /// on. What the hub does not have is authored again.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn refence(&self, order: Option<Refence>, fresh: Incarnation) -> Result<Refenced, StoreError> {
        let work = move |conn: &Connection, inner: &Inner| {
            refence::refence(conn, &*inner.schema.get(conn)?, (order.as_ref(), fresh, Why::Twice), &inner.sources)
        };
        self.commit(work, |inner, _| {
            inner.tell(Lane::ALL.map(Change::LaneAppended).to_vec());
            inner.tell(levels::settled(Lane::ALL));
        })
        .await
    }

    /// Starts the log `fresh`, because a restored hub has lost entries of the old one that are not kept any more (rule R22).
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn begin_again(&self, fresh: Incarnation) -> Result<Refenced, StoreError> {
        let work = move |conn: &Connection, inner: &Inner| {
            refence::refence(conn, &*inner.schema.get(conn)?, (None, fresh, Why::Trimmed), &inner.sources)
        };
        self.commit(work, |inner, _| {
            inner.tell(Lane::ALL.map(Change::LaneAppended).to_vec());
            inner.tell(levels::settled(Lane::ALL));
        })
        .await
    }

    /// The next entries of a log that was left behind, which a restored hub may have lost: at most so many and so many bytes, but at least
    /// one. [`Pending::Trimmed`] where the hub is further back than what is kept of it.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn former(&self, former: Former, max: (usize, usize)) -> Result<Pending, StoreError> {
        self.inner.readers.read(move |conn| outbox::former(conn, &former, max)).await
    }

    /// The hub does not go on with a lane of a log that was left behind, of which it lacks what is kept nowhere. What is still laid over rows is
    /// authored again where these come back without it.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn strand(&self, former: Former) -> Result<(), StoreError> {
        let work = move |conn: &Connection, _: &Inner| stranded::strand(conn, (former.incarnation, former.lane));
        self.commit(work, |_, ()| {}).await
    }

    /// Everything that a restored hub may have lost was given back to it.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn given_back(&self) -> Result<(), StoreError> {
        self.commit(|conn: &Connection, _: &Inner| recover::given_back(conn), |_, ()| {}).await
    }

    /// Takes in collection definitions.
    ///
    /// # Errors
    ///
    /// A [`StoreError`].
    pub async fn put_schema(&self, update: SchemaUpdate) -> Result<(), StoreError> {
        let work = move |conn: &Connection, inner: &Inner| definitions::put(conn, &inner.schema, &update);
        self.commit(work, |inner, ()| inner.tell(vec![Change::SchemaChanged])).await
    }
}
