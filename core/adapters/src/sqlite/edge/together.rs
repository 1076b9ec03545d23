//! Rows of a batch that lie beside each other, taken in together: what this device has of them is read, and what was laid over them is
//! removed, by a few statements for all of them. What is not that plain is given back, and goes the way of a single record.

use mobo_core::ids::{CollectionId, RecordKey, StateHash, Ver};
use mobo_core::schema::{Collection, Kind};
use rusqlite::{Connection, Row, Rows};

use super::apply::own::{Arrived, OwnRow};
use super::bases;
use super::desk::{Desk, OwnMerged, drops_merged, lies_over};
use super::fault::Try;
use super::members::{Spot, is_confirmed};
use super::meta::Log;
use super::overlays::{self, EntryAt};
use super::rows::{Kept, meta_row};
use crate::sqlite::table::quoted;

/// Fewer are taken in one by one.
const TOGETHER_MIN: usize = 8;

/// A record of a batch.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) key: RecordKey,
    pub(super) spot: Spot,
    /// `None`: it leaves.
    pub(super) delivered: Option<Arrived>,
}

impl Desk<'_> {
    /// Takes in what can be taken in together, and gives back the rest.
    pub(super) fn deliver_together(&mut self, mut arrivals: Vec<Arrival>, own_merged: &OwnMerged) -> Try<Vec<Arrival>> {
        let is_plain = arrivals.len() >= TOGETHER_MIN && arrivals.iter().all(|arrival| arrival.delivered.is_some());
        if !is_plain || self.any_others()? {
            return Ok(arrivals);
        }
        let (mut ordered, mut left) = (std::mem::take(&mut arrivals), Vec::new());
        ordered.sort_by(|a, b| a.key.cmp(&b.key));
        if ordered.windows(2).any(|pair| matches!(pair, [a, b] if a.key == b.key)) {
            ordered.sort_by_key(|arrival| arrival.spot.1);
            return Ok(ordered);
        }
        while let Some(first) = ordered.first() {
            let of = first.key.collection;
            let later = ordered.split_off(ordered.iter().take_while(|arrival| arrival.key.collection == of).count());
            left.extend(self.deliver_group(of, std::mem::replace(&mut ordered, later), own_merged)?);
        }
        Ok(left)
    }

    /// Records of one collection, by id.
    fn deliver_group(&mut self, of: CollectionId, group: Vec<Arrival>, own_merged: &OwnMerged) -> Try<Vec<Arrival>> {
        let Some(collection) = self.rows.collection(of).filter(|collection| collection.kind == Kind::Table) else { return Ok(group) };
        let Some(here) = Here::read(self.conn, &self.log, collection, &group)? else { return Ok(group) };
        let (mut left, mut settled) = (Vec::new(), Settled::default());
        for (arrival, of) in group.into_iter().zip(&here.records) {
            let is_over = self.is_over(&of.over, own_merged)?;
            match self.deliver_plain(collection, &arrival, of, is_over)? {
                Way::Alone => left.push(arrival),
                Way::Delivered => self.changed.push(arrival.key),
                Way::Settled => {
                    settled.overlays += of.over.len();
                    settled.keys.push(arrival.key.clone());
                    self.changed.push(arrival.key);
                }
            }
        }
        settled.remove(self.conn, &here)?;
        Ok(left)
    }

    /// True unless what the hub delivers of a record has all own entries that are laid over it. Those that it has refused are to be written
    /// again.
    fn is_over(&mut self, over: &[EntryAt], own_merged: &OwnMerged) -> Try<bool> {
        for at in over {
            if !overlays::is_merged(at, own_merged) || self.refused.holds(self.conn, *at)? {
                return Ok(true);
            }
        }
        Ok(!over.is_empty() && !drops_merged())
    }

    /// As [`deliver`](Self::deliver), where that is no more than a row written.
    fn deliver_plain(&mut self, collection: &Collection, arrival: &Arrival, of: &OfRecord, is_over: bool) -> Try<Way> {
        let (key, spot, Some(delivered)) = (&arrival.key, arrival.spot, &arrival.delivered) else { return Ok(Way::Alone) };
        let home = of.kept.and_then(|kept| kept.home);
        // What is shown as it was delivered has nothing of its own laid over it.
        let base = of.base.filter(|_| of.kept.is_some_and(|kept| kept.mac.is_none()));
        let held = match base {
            Some((ver, hash)) => hash.map(|hash| (ver, hash)),
            None => of.kept.map(|kept| (kept.ver, kept.state_hash)),
        };
        let confirmed = home.is_some_and(|home| is_confirmed(home.1));
        let is_later = confirmed && held.is_some_and(|held| held.0 > delivered.ver());
        if is_later || home.is_some_and(|home| home.0 != spot.0) || (lies_over(base.is_some()) && is_over) {
            return Ok(Way::Alone);
        }
        let counted = held.map(|held| held.1).filter(|_| confirmed);
        self.digests.replace(self.conn, spot.0, key, (counted, Some(delivered.state_hash())))?;
        match delivered {
            Arrived::Spelled(delivered) => self.rows.write(key, of.kept.as_ref(), &delivered.row(Some(spot)))?,
            Arrived::Own(own) if of.is_only(own) && self.rows.restamp(key, &of.mobo, own, spot)? => {}
            Arrived::Own(own) => self.rows.write(key, of.kept.as_ref(), &own.spelled(collection, key)?.row(Some(spot)))?,
        }
        Ok(if lies_over(base.is_some()) { Way::Settled } else { Way::Delivered })
    }
}

/// What became of a record.
enum Way {
    /// Nothing: it must be taken in by itself.
    Alone,
    /// It is shown as it was delivered.
    Delivered,
    /// The same, and what was laid over it is to be removed.
    Settled,
}

/// What this device has of one record.
#[derive(Clone, Debug, Default)]
struct OfRecord {
    kept: Option<Kept>,
    /// Version and hash of what was delivered before own entries were laid over it; no hash where nothing was.
    base: Option<(Ver, Option<StateHash>)>,
    over: Vec<EntryAt>,
    /// The column `_mobo`, where something of this device's own is shown.
    mobo: Vec<u8>,
}

impl OfRecord {
    /// True if it shows what this put made, and nothing else was ever here.
    fn is_only(&self, own: &OwnRow) -> bool {
        let is_shown = self.kept.is_some_and(|kept| kept.visible && kept.mac.is_none());
        is_shown && self.base == Some((Ver(0), None)) && self.over == [own.at]
    }
}

/// What this device has of the records of a group, and how much there is between the first and the last of them.
struct Here {
    records: Vec<OfRecord>,
    first: RecordKey,
    last: RecordKey,
    bases: usize,
    overlays: usize,
}

impl Here {
    /// `None` where it cannot be read together: too much else lies between, or something hidden.
    fn read(conn: &Connection, log: &Log, collection: &Collection, group: &[Arrival]) -> Try<Option<Self>> {
        let [first, .., last] = group else { return Ok(None) };
        let (first, last) = (&first.key, &last.key);
        let (of, from, to) = (collection.id.sql(), first.id.as_str(), last.id.as_str());
        let hidden = "SELECT 1 FROM mobo_hidden WHERE project = ?1 AND collection = ?2 AND id BETWEEN ?3 AND ?4";
        if conn.prepare_cached(hidden)?.exists((log.project.sql(), of, from, to))? {
            return Ok(None);
        }
        let mut records = vec![OfRecord::default(); group.len()];
        let is_named = group.iter().any(|arrival| matches!(arrival.delivered, Some(Arrived::Own(_))));
        let name = quoted(&collection.name);
        let shown = format!("SELECT _mobo, mobo_ver, _bucket, _position, 1, id FROM {name} WHERE id BETWEEN ?1 AND ?2 ORDER BY id");
        let mut shown = conn.prepare_cached(&shown)?;
        let shown = each(shown.query((from, to))?, (group, 5, &mut records), |row, of| {
            let kept = of.kept.insert(meta_row(row)?);
            if is_named && kept.mac.is_none() {
                of.mobo = row.get_ref(0)?.as_bytes().unwrap_or_default().to_vec();
            }
            Ok(())
        })?;
        let bases = "SELECT id, ver, state_hash FROM mobo_base WHERE collection = ?1 AND id BETWEEN ?2 AND ?3 ORDER BY id";
        let mut bases = conn.prepare_cached(bases)?;
        let bases = each(bases.query((of, from, to))?, (group, 0, &mut records), |row, of| {
            of.base = Some((Ver(row.get::<_, i64>(1)?.cast_unsigned()), row.get::<_, Option<[u8; 32]>>(2)?.map(StateHash)));
            Ok(())
        })?;
        let over = "SELECT incarnation, lane, seq, id FROM mobo_overlay WHERE collection = ?1 AND id BETWEEN ?2 AND ?3 ORDER BY id";
        let mut over = conn.prepare_cached(over)?;
        let overlays = each(over.query((of, from, to))?, (group, 3, &mut records), |row, of| {
            of.over.push(overlays::entry_at(row)?);
            Ok(())
        })?;
        let (Some(_), Some(bases), Some(overlays)) = (shown, bases, overlays) else { return Ok(None) };
        Ok(Some(Self { records, first: first.clone(), last: last.clone(), bases, overlays }))
    }
}

/// Goes through rows that come by id, and hands over those of the group's records. How many there were; `None` where they are too many.
fn each(
    mut rows: Rows<'_>,
    (group, id, records): (&[Arrival], usize, &mut [OfRecord]),
    mut take: impl FnMut(&Row<'_>, &mut OfRecord) -> Try<()>,
) -> Try<Option<usize>> {
    let (mut seen, mut wanted) = (0, group.iter().zip(records).peekable());
    while let Some(row) = rows.next()? {
        seen += 1;
        if seen > 4 * group.len() {
            return Ok(None);
        }
        let id = row.get_ref(id)?.as_bytes().unwrap_or_default();
        while wanted.next_if(|(arrival, _)| arrival.key.id.as_str().as_bytes() < id).is_some() {}
        if let Some((arrival, of)) = wanted.peek_mut()
            && arrival.key.id.as_str().as_bytes() == id
        {
            take(row, of)?;
        }
    }
    Ok(Some(seen))
}

/// Records that have nothing laid over them any more.
#[derive(Default)]
struct Settled {
    keys: Vec<RecordKey>,
    overlays: usize,
}

impl Settled {
    fn remove(&self, conn: &Connection, here: &Here) -> Try<()> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let (of, from, to) = (here.first.collection.sql(), here.first.id.as_str(), here.last.id.as_str());
        // Where all that lies between the first and the last is theirs, it goes as a whole.
        if self.keys.len() == here.bases {
            conn.prepare_cached("DELETE FROM mobo_base WHERE collection = ?1 AND id BETWEEN ?2 AND ?3")?.execute((of, from, to))?;
        } else {
            for key in &self.keys {
                bases::remove(conn, key)?;
            }
        }
        if self.overlays == here.overlays {
            conn.prepare_cached("DELETE FROM mobo_overlay WHERE collection = ?1 AND id BETWEEN ?2 AND ?3")?.execute((of, from, to))?;
            return Ok(());
        }
        let mut statement = conn.prepare_cached("DELETE FROM mobo_overlay WHERE collection = ?1 AND id = ?2")?;
        for key in &self.keys {
            statement.execute((of, key.id.as_str()))?;
        }
        Ok(())
    }
}
