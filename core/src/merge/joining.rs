//! What a device offers on a new timeline, joined with what the hub has left (rules R11, R18, R19).
//!
//! The steps are those of a merge: records are locked and read after that, buckets come last. An offer has no author and needs no rights:
//! what bears the hub's own MAC was decided by the hub before it went back in time, and anything else is refused and kept.

use std::collections::{BTreeMap, BTreeSet};

use super::apply::{Applied, Stored, Working};
use super::place::{bucket_keys, present_keys};
use super::{Context, Writes};
use crate::document::Document;
use crate::ids::{BucketId, DeviceId, Position, ProjectId, RecordKey, Seq, StateHash, Timeline, Ver};
use crate::message::{Code, Item, ItemBody, Offer};
use crate::record::RecordState;
use crate::schema::{Collection, Kind, Schema};
use crate::stamp::Stamp;
use crate::table::again::{self, Counted};
use crate::time::Eff;
use crate::trust::OfferKey;

/// One page of an offer.
#[derive(Clone, Debug)]
pub struct Offered<'a> {
    /// What the device sent.
    pub offer: &'a Offer,
    /// The key of the MACs.
    pub key: &'a OfferKey,
    /// The timelines besides the offer's own on which a MAC may have been made.
    pub timelines: &'a [Timeline],
    /// Where each bucket stood when the timeline began: what has got no position since then gets one, so that everybody is told of it.
    pub heads: &'a BTreeMap<BucketId, Position>,
    /// The key of the bucket that it is offered in; `None` where the hub has no such bucket.
    pub bucket: Option<&'a str>,
}

/// An offered record that was not joined. It is kept, for somebody to look at.
#[derive(Clone, Debug, PartialEq)]
pub struct RefusedOffer {
    /// As it was offered.
    pub item: Item,
    /// Why, for programs.
    pub code: Code,
    /// Why, for people.
    pub detail: String,
}

/// An offer at its start.
#[derive(Debug)]
pub struct Joining<'a> {
    context: Context<'a>,
    told: Told<'a>,
    valid: Vec<(Item, RecordState)>,
    refused: Vec<RefusedOffer>,
    counted: Counted,
}

/// Who is told of what is joined.
#[derive(Clone, Copy, Debug)]
struct Told<'a> {
    heads: &'a BTreeMap<BucketId, Position>,
    bucket: Option<&'a str>,
}

/// What became of an offer.
#[derive(Debug, Default)]
pub struct Joined {
    /// Records that the hub holds now as they were offered, or newer.
    pub joined: u64,
    /// Those that it refused.
    pub refused: Vec<RefusedOffer>,
    /// When the latest of what was joined was written; `None` where nothing says so.
    pub latest: Option<Eff>,
}

impl<'a> Joining<'a> {
    /// Decodes what is offered and checks its MACs.
    #[must_use]
    pub fn new(context: Context<'a>, offered: &Offered<'a>) -> Self {
        let (mut valid, mut refused) = (Vec::new(), Vec::new());
        for item in &offered.offer.rows {
            match check(context.project, context.schema, offered, item) {
                Ok(state) => valid.push((item.clone(), state)),
                Err((code, detail)) => refused.push(RefusedOffer { item: item.clone(), code, detail }),
            }
        }
        Self { context, told: Told { heads: offered.heads, bucket: offered.bucket }, valid, refused, counted: Counted::new() }
    }

    /// The positions of entries that the store must look up where it has merged them as themselves: an offered row may count them once more. None,
    /// but of devices that were copied.
    #[must_use]
    pub fn doubtful(&self, stored: &BTreeMap<RecordKey, Stored>) -> BTreeSet<(DeviceId, Seq)> {
        let mut found = BTreeSet::new();
        for (item, state) in &self.valid {
            let mine = stored.get(&key_of(item)).and_then(|stored| stored.state.as_ref().ok());
            if let (RecordState::Table(offered), Some(RecordState::Table(mine))) = (state, mine) {
                found.extend(again::doubtful(mine, offered));
            }
        }
        found
    }

    /// Takes in what the store has found of that.
    #[must_use]
    pub fn knowing(self, counted: Counted) -> Self {
        Self { counted, ..self }
    }

    /// The records to lock, ascending, and to read in a later statement.
    #[must_use]
    pub fn wants(&self) -> BTreeSet<RecordKey> {
        self.valid.iter().map(|(item, _)| key_of(item)).collect()
    }

    /// When the latest write of a device was made that is offered; `None` where nothing says so. What the device writes now comes after it (rule
    /// R5): a hub that was put back may be behind that, and what it knows of the device's clock then is, too.
    #[must_use]
    pub fn latest_of(&self, device: DeviceId) -> Option<Eff> {
        let states = self.valid.iter().map(|(_, state)| state);
        states.flat_map(stamps).filter(|stamp| stamp.device == device).map(|stamp| stamp.eff).max()
    }

    /// Joins what is offered with the records that the store read. What comes out goes on as a merge does, from its buckets.
    #[must_use]
    pub fn join(self, mut stored: BTreeMap<RecordKey, Stored>) -> (Applied<'a>, Joined) {
        let mut records: BTreeMap<RecordKey, Working> = BTreeMap::new();
        let mut joined = Joined { joined: 0, refused: self.refused, latest: None };
        for (item, mut state) in self.valid {
            let key = key_of(&item);
            let Some(collection) = self.context.schema.get(key.collection) else { continue };
            let working = match records.remove(&key) {
                Some(working) => Ok(working),
                None => working(collection, &key, stored.remove(&key)),
            };
            if let (Ok(Working { state: RecordState::Table(mine), .. }), RecordState::Table(offered)) = (&working, &mut state) {
                again::drop_counted(offered, mine, &self.counted);
            }
            let done = working.and_then(|working| join_one(collection, &key, working, (&state, item.ver), self.told));
            match done {
                Ok(working) => {
                    joined.joined += 1;
                    joined.latest = joined.latest.max(latest(&state));
                    records.insert(key, working);
                }
                Err((code, detail)) => joined.refused.push(RefusedOffer { item, code, detail }),
            }
        }
        (Applied { context: self.context, records, writes: Writes::default(), outcomes: Vec::new() }, joined)
    }
}

type Refused = (Code, String);

fn latest(state: &RecordState) -> Option<Eff> {
    stamps(state).into_iter().map(|stamp| stamp.eff).max()
}

/// The changes of a document are in no order of time.
fn stamps(state: &RecordState) -> Vec<Stamp> {
    match state {
        RecordState::Table(state) => state.stamps(),
        RecordState::Document(_) => Vec::new(),
    }
}

fn key_of(item: &Item) -> RecordKey {
    RecordKey { collection: item.collection, id: item.id.clone() }
}

fn check(project: ProjectId, schema: &Schema, offered: &Offered<'_>, item: &Item) -> Result<RecordState, Refused> {
    let key = key_of(item);
    let unknown = || (Code::UNKNOWN_COLLECTION, format!("no collection has the id {}", key.collection));
    let collection = schema.get(key.collection).ok_or_else(unknown)?;
    let ItemBody::State { epoch, bytes } = &item.body else {
        return Err((Code::BAD_PAYLOAD, "an offer holds states, and this is a leave".to_owned()));
    };
    // automerge believes what it is given, so of a document the MAC is looked at first, over the heads that it says it has.
    let claimed = match collection.kind {
        Kind::Document => Some(Document::claimed_hash(*epoch, bytes).map_err(|refusal| (refusal.code, refusal.detail))?),
        Kind::Table | Kind::Stream => None,
    };
    let is_ours = |hash: StateHash| {
        let bears = |timeline: &Timeline| offered.key.row(project, &key, (*timeline, item.ver), hash) == item.mac;
        bears(&offered.offer.timeline) || offered.timelines.iter().any(bears)
    };
    let foreign = || (Code::BAD_SIGNATURE, "this state does not bear this hub's MAC: the hub has never delivered it so".to_owned());
    if claimed.is_some_and(|hash| !is_ours(hash)) {
        return Err(foreign());
    }
    let state = RecordState::decode_foreign(collection, &key, *epoch, bytes).map_err(|error| (Code::BAD_PAYLOAD, error.to_string()))?;
    if is_ours(state.state_hash()) { Ok(state) } else { Err(foreign()) }
}

fn working(collection: &Collection, key: &RecordKey, stored: Option<Stored>) -> Result<Working, Refused> {
    let state = match &stored {
        Some(Stored { state: Err(why), .. }) => {
            return Err((Code::CORRUPT_RECORD, format!("the stored record is damaged: {why}; run `mobo-hub health check`")));
        }
        Some(Stored { state: Ok(state), .. }) => Some(state.clone()),
        None => RecordState::empty(collection, key),
    };
    let state = state.ok_or((Code::WRONG_KIND, format!("\"{}\" holds no records", collection.name)))?;
    let ver = stored.as_ref().map_or(Ver(0), |stored| stored.ver);
    let buckets = present_keys(stored.as_ref());
    Ok(Working { stored, state, ver, touched: false, buckets })
}

fn join_one(
    collection: &Collection,
    key: &RecordKey,
    mut working: Working,
    (offered, ver): (&RecordState, Ver),
    told: Told<'_>,
) -> Result<Working, Refused> {
    let before = working.state.state_hash();
    let state = working.state.join(collection, offered).map_err(|refusal| (refusal.code, refusal.detail))?;
    let changed = working.stored.is_none() || state.state_hash() != before;
    if !working.touched && !changed && was_told(working.stored.as_ref(), told.heads) {
        return Ok(working);
    }
    working.state = state;
    // Above whatever anybody holds, so that the joined state is the newer one for everybody.
    working.ver = Ver(working.ver.0.max(ver.0).max(working.stored.as_ref().map_or(0, |stored| stored.ver.0)) + u64::from(!working.touched));
    working.touched = true;
    working.buckets = bucket_keys(collection, key, &working);
    if working.buckets.is_empty() && !working.state.is_visible(collection) {
        // What is deleted has no fields to say where it was. In no bucket, nobody would be told of it, and whoever offered it would drop it.
        working.buckets.extend(told.bucket.map(str::to_owned));
    }
    Ok(working)
}

/// True if the record has got a position on this timeline.
fn was_told(stored: Option<&Stored>, heads: &BTreeMap<BucketId, Position>) -> bool {
    let memberships = stored.map(|stored| stored.memberships.as_slice()).unwrap_or_default();
    memberships.iter().all(|member| heads.get(&member.bucket).is_none_or(|head| member.position > *head))
}
