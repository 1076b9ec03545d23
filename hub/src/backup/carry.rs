//! One shipment: what is new in a cut goes into objects, and a manifest names them.

use mobo_core::backup::manifest::{Anchor, Manifest, Member, Retained, hash};
use mobo_core::backup::seal::Kind;
use mobo_core::ids::{BucketId, Position, Timeline};
use mobo_core::limits;
use mobo_core::store::{BackupRow, Cut, HubStore, StoreError};
use mobo_core::time::Eff;

use super::BackupFailure;
use super::gather::{Gather, Gathered};
use super::marks::Marks;
use super::opened::Open;
use super::pack::Packer;
use super::ship::micros;

/// What is being shipped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) is_base: bool,
    pub(super) now: Eff,
    pub(super) bytes_per_s: u64,
}

/// A manifest, with what it has of the store.
pub(super) type Carried = Option<(Manifest, Anchor, Gathered)>;

/// Ships what a plan asks for, as one manifest. `None` when nothing is new.
pub(super) async fn carry(mut cut: Box<dyn Cut>, (open, store): (&Open, &dyn HubStore), plan: Plan) -> Result<Carried, BackupFailure> {
    let Plan { is_base, now, bytes_per_s } = plan;
    let number = open.head.as_ref().map_or(0, |(anchor, _)| anchor.number) + 1;
    let kind = if is_base { Kind::Snapshot } else { Kind::Segment };
    let mut packer = Packer::new((&open.repository, &open.workbench), (kind, number), (bytes_per_s, now));
    let none = Marks::default();
    let gather = Gather::begin(cut.as_mut(), &mut packer, open.marks.as_ref().filter(|_| !is_base).unwrap_or(&none)).await?;
    let gathered = match is_base {
        true => gather.everything(now.0).await?,
        false => gather.news(now.0, now.0 - open.quiet_us >= micros(limits::BACKUP_IDLE)).await?,
    };
    cut.end().await?;
    drop(cut);
    let members = packer.finish().await?;
    let timeline = gathered.timeline.ok_or_else(|| StoreError::Damaged("there is no hub in the store".to_owned()))?;
    if open.head.as_ref().is_some_and(|(_, head)| kind == Kind::Segment && head.timeline != timeline) {
        return Err(BackupFailure::Refused("the hub has gone on under a new timeline: a snapshot begins it".to_owned()));
    }
    if members.is_empty() && open.retiring.is_none() {
        return Ok(None);
    }
    let manifest = next(open, (number, is_base), (timeline, now), members, &gathered);
    let hash = hash(&manifest.sign(&open.repository.keyring().hub));
    // Where the store has no room to know of it, nothing is written that it would not know.
    store.try_backup(manifest.repository, Anchor { number, hash }).await?;
    let anchor = open.repository.publish(&manifest).await?;
    Ok(Some((manifest, anchor, gathered)))
}

fn next(
    open: &Open,
    (number, is_base): (u64, bool),
    (timeline, now): (Timeline, Eff),
    members: Vec<Member>,
    gathered: &Gathered,
) -> Manifest {
    let keyring = open.repository.keyring();
    let head = open.head.as_ref();
    let base = head.filter(|_| !is_base).map_or(number, |(_, head)| head.base);
    let before = || head.map_or((1, Retained::default()), |(_, head)| (head.floor, head.retained.clone()));
    let (floor, retained) = open.retiring.clone().unwrap_or_else(before);
    Manifest {
        project: keyring.project,
        repository: keyring.repository,
        number,
        previous: head.map_or([0; 32], |(anchor, _)| anchor.hash),
        timeline,
        taken_us: now.0,
        keys: open.repository.keys().clone(),
        base,
        members,
        totals: gathered.totals,
        state: gathered.state,
        floor,
        retained,
    }
}

/// What the store is to note: of the heads, those that have moved.
pub(super) fn record(place: String, manifest: &Manifest, (anchor, gathered): (Anchor, &Gathered), known: Option<&Marks>) -> BackupRow {
    let heads = gathered.marks.heads.iter().filter(|(bucket, head)| known.is_none_or(|known| known.heads.get(*bucket) != Some(*head)));
    let heads = heads.filter_map(|(bucket, head)| Some((BucketId::from_sql(*bucket)?, Position(head.cast_unsigned()))));
    let (repository, taken_us, base) = (manifest.repository, manifest.taken_us, manifest.base);
    BackupRow { repository, place, anchor, taken_us, base, heads: heads.collect() }
}
