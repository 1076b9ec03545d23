//! What one job does to records: the delivered base, what is laid over it, and the buckets it counts in (rules R14, R20).

use mobo_core::ids::{BucketId, Incarnation, Lane, Mac, RecordKey, Seq, StateHash, Ver};
use mobo_core::record::RecordState;
use mobo_core::schema::Schema;
use rusqlite::Connection;

use super::apply::own::OwnRow;
use super::bases::{self, BaseRow};
use super::fault::Try;
use super::members::{self, Digests, Spot, is_confirmed};
use super::meta::Log;
use super::overlays::{self, Decoded, Refused};
use super::redo::{Laid, Misfits};
use super::rows::{Kept, NewRow, Rows};

/// How far the device's lanes are merged in what is applied.
pub(super) type OwnMerged = [(Lane, Incarnation, Seq)];

/// A record as the hub delivered it.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) ver: Ver,
    pub(super) mac: Mac,
    pub(super) state: RecordState,
    /// Recomputed from what was delivered.
    pub(super) state_hash: StateHash,
}

impl Delivered {
    pub(super) fn row(&self, home: Option<Spot>) -> NewRow<'_> {
        NewRow { state: &self.state, ver: self.ver, mac: Some(self.mac), state_hash: self.state_hash, home }
    }
}

/// One job at work on records.
#[derive(Debug)]
pub(super) struct Desk<'c> {
    pub(super) conn: &'c Connection,
    pub(super) log: Log,
    pub(super) rows: Rows<'c>,
    pub(super) digests: Digests,
    pub(super) decoded: Decoded,
    pub(super) refused: Refused,
    /// Own entries that what was delivered leaves without what they build on.
    pub(super) misfits: Misfits,
    pub(super) changed: Vec<RecordKey>,
    /// False once it is known that no record is in more than one bucket.
    has_others: Option<bool>,
}

impl<'c> Desk<'c> {
    pub(super) fn new(conn: &'c Connection, schema: &'c Schema, log: Log) -> Self {
        let rows = Rows::new(conn, log.project, schema);
        let (digests, decoded, refused, misfits) = (Digests::default(), Decoded::default(), Refused::default(), Misfits::default());
        Self { conn, log, rows, digests, decoded, refused, misfits, changed: Vec::new(), has_others: None }
    }

    /// Writes the digests that have changed, and gives the records that have.
    pub(super) fn finish(self) -> Try<Vec<RecordKey>> {
        self.digests.store(self.conn)?;
        let mut changed = self.changed;
        changed.sort_unstable();
        changed.dedup();
        Ok(changed)
    }

    /// A delivered state *replaces* the base; the device's own entries that it does not hold are laid over it.
    pub(super) fn deliver(&mut self, key: &RecordKey, spot: Spot, delivered: Delivered, own_merged: &OwnMerged) -> Try<()> {
        let kept = self.rows.kept(key)?;
        // What is shown as it was delivered has nothing of its own laid over it.
        let is_own = kept.is_some_and(|kept| kept.mac.is_none());
        let base = if is_own { bases::row(self.conn, key)? } else { None };
        let mut spots = self.spots(key, kept.as_ref())?;
        let held = held(kept.as_ref(), base.as_ref());
        let hash = held.map(|held| held.1);
        let counted = hash.filter(|_| spots.counts_in(spot.0));
        if held.is_some_and(|held| held.0 > delivered.ver) && spots.all().any(|spot| is_confirmed(spot.1)) {
            // Another bucket has brought a later state already; this one brings the membership only.
            self.digests.replace(self.conn, spot.0, key, (counted, hash))?;
            return self.put_spot(key, &mut spots, spot);
        }
        for (bucket, _) in spots.all().filter(|other| other.0 != spot.0 && is_confirmed(other.1)).collect::<Vec<_>>() {
            self.digests.replace(self.conn, bucket, key, (hash, Some(delivered.state_hash)))?;
        }
        self.digests.replace(self.conn, spot.0, key, (counted, Some(delivered.state_hash)))?;
        if !lies_over(base.is_some()) {
            self.put(key, &mut spots, spot)?;
            self.changed.push(key.clone());
            return self.rows.write(key, kept.as_ref(), &delivered.row(spots.home));
        }
        let laid = match &base {
            Some(base) => self.find_misfits(key, base, (&delivered.state, own_merged))?,
            None => None,
        };
        let is_over = if drops_merged() {
            overlays::drop_merged(self.conn, key, own_merged, &mut self.refused)?
        } else {
            overlays::is_over(self.conn, key)?
        };
        if !is_over {
            // Nothing of its own is left over it: what was delivered is what is shown, and one row says it all.
            self.put(key, &mut spots, spot)?;
            bases::remove(self.conn, key)?;
            self.changed.push(key.clone());
            return self.rows.write(key, kept.as_ref(), &delivered.row(spots.home));
        }
        self.put_spot(key, &mut spots, spot)?;
        bases::put(self.conn, key, &BaseRow::of(&delivered.row(None)))?;
        self.show(key, (Some(delivered.state), laid))
    }

    /// The same with a row that this device has made.
    pub(super) fn deliver_own(&mut self, key: &RecordKey, spot: Spot, row: &OwnRow, own_merged: &OwnMerged) -> Try<()> {
        let Some(collection) = self.rows.collection(key.collection) else { return Ok(()) };
        self.deliver(key, spot, row.spelled(collection, key)?, own_merged)
    }

    /// True if what is held of a record is of the version that is delivered now, and not the same: what a digest did not agree about.
    pub(super) fn differs(&mut self, key: &RecordKey, (ver, state_hash): (Ver, StateHash)) -> Try<bool> {
        let (kept, base) = (self.rows.kept(key)?, bases::row(self.conn, key)?);
        Ok(held(kept.as_ref(), base.as_ref()).is_some_and(|held| held.0 == ver && held.1 != state_hash))
    }

    /// The record has left a bucket: nothing is said about its existence. What is pending stays.
    pub(super) fn leave(&mut self, key: &RecordKey, bucket: BucketId, own_merged: &OwnMerged) -> Try<()> {
        let Some(kept) = self.rows.kept(key)? else { return Ok(()) };
        let mut spots = self.spots(key, Some(&kept))?;
        if spots.counts_in(bucket) {
            let hash = held(Some(&kept), bases::row(self.conn, key)?.as_ref()).map(|held| held.1);
            self.digests.replace(self.conn, bucket, key, (hash, None))?;
        }
        if spots.remove(self.conn, key, bucket)? {
            self.rows.set_home(key, spots.home)?;
        }
        if spots.home.is_some() {
            return Ok(());
        }
        overlays::drop_merged(self.conn, key, own_merged, &mut self.refused)?;
        self.show(key, (None, None))
    }

    /// Shows a record anew after its base, its overlay or its memberships have changed. A record that nothing holds any more is gone.
    /// `base_state` spares reading the base when it is at hand, `laid` laying the same entries over it again.
    pub(super) fn show(&mut self, key: &RecordKey, (base_state, laid): (Option<RecordState>, Option<Laid>)) -> Try<()> {
        let Some(collection) = self.rows.collection(key.collection) else { return Ok(()) };
        let kept = self.rows.kept(key)?;
        let home = kept.as_ref().and_then(|kept| kept.home);
        let base = bases::row(self.conn, key)?;
        let entries = overlays::of_record(self.conn, key)?;
        self.changed.push(key.clone());
        let base_state = match (base_state, &base) {
            (Some(state), _) => Some(state),
            (None, Some(base)) => base.state(collection, key)?,
            (None, None) => None,
        };
        if !entries.is_empty() {
            let Some(base_state) = base_state.or_else(|| RecordState::empty(collection, key)) else { return Ok(()) };
            let whose = (self.log.device, self.log.incarnation);
            let state = match laid.filter(|laid| laid.entries == entries) {
                Some(laid) => laid.state,
                None => overlays::lay((self.conn, &mut self.decoded), whose, (collection, key), &base_state, &entries)?,
            };
            let ver = base.map_or(Ver(0), |base| base.ver);
            let row = NewRow { state: &state, ver, mac: None, state_hash: state.state_hash(), home };
            return self.rows.write(key, kept.as_ref(), &row);
        }
        bases::remove(self.conn, key)?;
        match (base, base_state) {
            (Some(base), Some(state)) if home.is_some() => {
                let state_hash = base.state_hash.unwrap_or_else(|| state.state_hash());
                let row = NewRow { state: &state, ver: base.ver, mac: base.mac, state_hash, home };
                self.rows.write(key, kept.as_ref(), &row)
            }
            (None, _) if home.is_some() => Ok(()),
            _ => self.rows.remove(key),
        }
    }

    /// Shows a damaged record as it was delivered, where that is kept aside. Gives the buckets that it has to be fetched with again.
    pub(super) fn mend(&mut self, key: &RecordKey) -> Try<Vec<BucketId>> {
        let Some(collection) = self.rows.collection(key.collection) else { return Ok(Vec::new()) };
        let kept = self.rows.kept(key)?;
        let buckets = self.spots(key, kept.as_ref())?.all().map(|spot| spot.0).collect();
        if bases::row(self.conn, key)?.is_some_and(|base| base.state(collection, key).is_ok()) {
            self.show(key, (None, None))?;
        }
        Ok(buckets)
    }

    fn put_spot(&mut self, key: &RecordKey, spots: &mut Spots, spot: Spot) -> Try<()> {
        if self.put(key, spots, spot)? { self.rows.set_home(key, spots.home) } else { Ok(()) }
    }

    fn put(&mut self, key: &RecordKey, spots: &mut Spots, spot: Spot) -> Try<bool> {
        let is_first = spots.put(self.conn, key, spot)?;
        if !is_first {
            self.has_others = Some(true);
        }
        Ok(is_first)
    }

    /// True if a record may be in more than one bucket.
    pub(super) fn any_others(&mut self) -> Try<bool> {
        Ok(match self.has_others {
            Some(known) => known,
            None => *self.has_others.insert(members::has_others(self.conn)?),
        })
    }

    fn spots(&mut self, key: &RecordKey, kept: Option<&Kept>) -> Try<Spots> {
        let home = kept.and_then(|kept| kept.home);
        let has_others = self.any_others()?;
        Ok(Spots { home, others: if has_others { members::others(self.conn, key)? } else { Vec::new() } })
    }
}

/// True if what is delivered goes under something of the device's own: a base is kept.
pub(super) fn lies_over(has_base: bool) -> bool {
    mobo_core::protect!("overlay.kept-over-delivery", has_base)
}

/// True: what a delivered row holds is laid over it no more.
pub(super) fn drops_merged() -> bool {
    mobo_core::protect!("overlay.dropped-when-merged:batch", true)
}

/// Version and hash of the record as it was delivered; `None` when it never was.
fn held(kept: Option<&Kept>, base: Option<&BaseRow>) -> Option<(Ver, StateHash)> {
    match base {
        Some(base) => base.state_hash.map(|hash| (base.ver, hash)),
        None => kept.map(|kept| (kept.ver, kept.state_hash)),
    }
}

/// Hash of a record as it was delivered; `None` when it never was.
pub(super) fn delivered_hash(conn: &Connection, rows: &mut Rows<'_>, key: &RecordKey) -> Try<Option<StateHash>> {
    let kept = rows.kept(key)?;
    Ok(held(kept.as_ref(), bases::row(conn, key)?.as_ref()).map(|held| held.1))
}

/// The buckets that a record is in: the first stands with its row.
struct Spots {
    home: Option<Spot>,
    others: Vec<Spot>,
}

impl Spots {
    fn all(&self) -> impl Iterator<Item = Spot> {
        self.home.into_iter().chain(self.others.iter().copied())
    }

    fn counts_in(&self, bucket: BucketId) -> bool {
        self.all().any(|spot| spot.0 == bucket && is_confirmed(spot.1))
    }

    /// Puts the record in a bucket, or at another place there. True if the first one is changed by it: its row has to say so.
    fn put(&mut self, conn: &Connection, key: &RecordKey, spot: Spot) -> Try<bool> {
        if self.home.is_none_or(|home| home.0 == spot.0) {
            self.home = Some(spot);
            return Ok(true);
        }
        members::put(conn, key, spot)?;
        Ok(false)
    }

    /// Takes the record out of a bucket. True if that was the first one.
    fn remove(&mut self, conn: &Connection, key: &RecordKey, bucket: BucketId) -> Try<bool> {
        if self.home.is_none_or(|home| home.0 != bucket) {
            self.others.retain(|spot| spot.0 != bucket);
            members::remove(conn, key, bucket)?;
            return Ok(false);
        }
        self.home = if self.others.is_empty() { None } else { Some(self.others.remove(0)) };
        if let Some(home) = self.home {
            members::remove(conn, key, home.0)?;
        }
        Ok(true)
    }
}
