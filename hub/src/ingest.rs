//! Plain sensors: messages of a broker, by rules, as rows of this hub.
//!
//! How a broker is heard is in [`mobo_adapters::mqtt::ingest`]. A transaction holds what messages say, as writes of the hub's own, what was kept
//! aside, and the memory of their deliveries; only then are they acknowledged. Of the hubs of a store one hears the broker at a time, under a
//! name that all have in common, so that the next one goes on with its session. Each of its transactions begins by holding its turn: one that was
//! given to another hub meanwhile can commit nothing.

mod memory;
pub mod refused;

use std::sync::Arc;
use std::time::Duration;

use mobo_adapters::desk::{Cell, Done, Noted, NotingDesk, Outcome, Statement};
use mobo_adapters::mqtt::ingest::Taker;
use mobo_core::author::segment;
use mobo_core::ids::{CollectionId, Nonce};
use mobo_core::ingest::{Arrival, BadMessage, Parts, Tally};
use mobo_core::limits;
use mobo_core::merge::{LocalBody, LocalWrite, Prepared};
use mobo_core::schema::Schema;
use mobo_core::store::StoreError;
use mobo_core::time::{Eff, Wall};
use mobo_runtime::clock::Clock;
use mobo_runtime::entropy;
use tokio::sync::Mutex;

use crate::auth::rows::number;
use crate::merger::MergeQueue;
use crate::metrics;
use crate::node::Opened;
use memory::{Memory, Plan};

/// Takes the turn where it is ours or nobody's.
const TAKE: &str = "UPDATE mobo_ingest SET holder = $1, until_us = $2 WHERE holder = $1 OR until_us < $3 RETURNING n";
/// Goes on with it, and waits for whoever holds it in a transaction.
const HOLD: &str = "UPDATE mobo_ingest SET until_us = $2 WHERE holder = $1";
/// The same, with the numbers that are given.
const HOLD_AT: &str = "UPDATE mobo_ingest SET until_us = $2, n = $3 WHERE holder = $1";
const END: &str = "UPDATE mobo_ingest SET holder = $2, until_us = 0 WHERE holder = $1";
const FORGET_ALL: &str = "DELETE FROM mobo_ingest_taken";

/// A hub's store, as sensors see it.
#[derive(Debug)]
pub struct HubTaker {
    store: Inbox,
    /// By which it knows itself again; the same at every start where no other hub can use the store.
    me: Vec<u8>,
    is_alone: bool,
    memory: Mutex<Memory>,
}

/// Where rows of messages go.
#[derive(Clone, Debug)]
pub struct Inbox {
    /// The store.
    pub desk: Arc<dyn NotingDesk>,
    /// What is known of it.
    pub opened: Arc<Opened>,
    /// The hub's clocks.
    pub clock: Clock,
    /// Whom to tell of what has changed; nobody in a test.
    pub merges: Option<MergeQueue>,
}

impl Inbox {
    fn wall(&self) -> Wall {
        Wall(self.opened.time.now().0)
    }

    /// What messages say, as writes of the hub's own; the error says which rows are too much for one.
    fn submissions(&self, schema: &Schema, parts: Parts) -> Result<Result<Vec<Prepared>, BadMessage>, StoreError> {
        let mut submissions = Vec::new();
        for (id, rows) in parts.samples {
            let Some(collection) = schema.get(id) else { continue };
            let segment = match segment(rows, collection, self.wall()) {
                Ok(segment) => segment,
                Err(error) => return Ok(Err(BadMessage(error.to_string()))),
            };
            submissions.push(self.local(schema, id, LocalBody::Append(segment))?);
        }
        for (id, edits) in parts.edits {
            submissions.push(self.local(schema, id, LocalBody::Edits(edits))?);
        }
        Ok(Ok(submissions))
    }

    fn local(&self, schema: &Schema, collection: CollectionId, body: LocalBody) -> Result<Prepared, StoreError> {
        let gone = || StoreError::Unavailable("a collection went while messages were taken".to_owned());
        let lane = schema.get(collection).ok_or_else(gone)?.lane;
        let author = matches!(body, LocalBody::Edits(_)).then(|| "mqtt".to_owned());
        let lane = self.opened.history.era().author.lane(lane);
        let nonce = Nonce(entropy::bytes().map_err(|error| StoreError::Unavailable(error.to_string()))?);
        let write = LocalWrite { lane, collection, body, moment: self.clock.moment(), nonce, author, bounds: None };
        Ok(Prepared::Local(Box::new(write)))
    }

    /// Merges what messages say, with notes in the same transaction.
    pub(crate) async fn merge(&self, parts: Parts, notes: Vec<Statement>) -> Result<Noted, StoreError> {
        let schema = Arc::clone(&self.opened.schema.borrow());
        let submissions = match self.submissions(&schema, parts)? {
            Ok(submissions) => submissions,
            Err(BadMessage(why)) => return Ok(Noted::Refused(0, why)),
        };
        let noted = metrics::timed("ingest", self.desk.merge_noting(self.opened.batch(submissions)?, notes)).await?;
        if let Noted::Done(report) = &noted {
            metrics::merged(&schema, report);
            if let Some(merges) = &self.merges {
                merges.tell(report.hints.clone());
            }
        }
        Ok(noted)
    }
}

impl HubTaker {
    /// One that has its store alone, or shares it with the other hubs of a database.
    ///
    /// # Errors
    ///
    /// The system gives no randomness.
    pub fn new(store: Inbox, is_alone: bool) -> Result<Self, entropy::NoEntropy> {
        let me: [u8; 16] = if is_alone { [1; 16] } else { entropy::bytes()? };
        Ok(Self { store, me: me.to_vec(), is_alone, memory: Mutex::default() })
    }

    fn me(&self) -> Cell {
        Cell::Bytes(self.me.clone())
    }

    fn now(&self) -> Eff {
        self.store.opened.time.now()
    }

    fn until(&self) -> Cell {
        Cell::Int(self.now().plus(u64::try_from(limits::INGEST_TURN.as_micros()).unwrap_or(u64::MAX)).0)
    }

    /// Asks for the turn; gives what its last holder remembered, or nothing while it is another hub's.
    async fn ask(&self) -> Result<Option<Memory>, StoreError> {
        let take = Statement::must(TAKE, [self.me(), self.until(), Cell::Int(self.now().0)]);
        let mut statements = vec![take];
        statements.extend(memory::READ.map(|sql| Statement::new(sql, [])));
        let Outcome::Done(done) = self.store.desk.run(statements).await? else { return Ok(None) };
        let [held, read @ ..] = done.as_slice() else { return Ok(None) };
        let last = held.rows.first().and_then(|row| number(row, 0)).unwrap_or_default();
        Ok(Some(Memory::read(last, read)?))
    }

    /// Asks once whether it is this hub's turn, and takes it.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn ask_turn(&self) -> Result<bool, StoreError> {
        let Some(read) = self.ask().await? else { return Ok(false) };
        *self.memory.lock().await = read;
        Ok(true)
    }

    /// True where this hub still has the turn, and `more` was done in the same transaction.
    async fn hold(&self, more: Option<&'static str>) -> Result<bool, StoreError> {
        let mut statements = vec![Statement::must(HOLD, [self.me(), self.until()])];
        statements.extend(more.map(|sql| Statement::new(sql, [])));
        Ok(matches!(self.store.desk.run(statements).await?, Outcome::Done(_)))
    }

    /// Takes messages in one transaction, and remembers them; the sentence says why they cannot be taken together.
    async fn commit(&self, memory: &mut Memory, arrivals: &[Arrival], forget: u64) -> Result<Result<Tally, String>, StoreError> {
        let schema = Arc::clone(&self.store.opened.schema.borrow());
        let mut plan = Plan::of(memory, &schema, arrivals, (self.store.wall(), forget));
        let parts = std::mem::take(&mut plan.parts);
        let rows = parts.rows();
        let mut notes = vec![Statement::must(HOLD_AT, [self.me(), self.until(), Cell::Int(plan.last)])];
        notes.extend(plan.notes());
        match self.store.merge(parts, notes).await {
            Ok(Noted::Done(_)) => {
                let mut tally = memory.keep(plan);
                tally.rows = rows;
                Ok(Ok(tally))
            }
            // Also what the database says of the rows: an index of somebody's own that they do not fit, for one.
            Ok(Noted::Refused(_, why)) | Err(StoreError::Refused(why) | StoreError::Damaged(why) | StoreError::BadValue(why)) => {
                Ok(Err(why))
            }
            Ok(Noted::Missed(_)) => Err(theirs()),
            Err(error) => Err(error),
        }
    }

    /// Takes a message by itself; what cannot be taken is put aside, once it was tried as often as an entry of a device is.
    async fn take_alone(&self, memory: &mut Memory, mut arrival: Arrival, forget: u64) -> Result<Tally, StoreError> {
        let mut attempt = 1;
        loop {
            let alone = std::slice::from_ref(&arrival);
            match self.commit(memory, alone, forget).await? {
                Ok(tally) => return Ok(tally),
                Err(why) if arrival.rows.is_err() => return Err(StoreError::Refused(why)),
                Err(why) if attempt == limits::MERGE_ATTEMPTS_ALONE_MAX => arrival.rows = Err(BadMessage(why)),
                Err(_) => attempt += 1,
            }
        }
    }
}

fn theirs() -> StoreError {
    StoreError::Unavailable("another hub of this store hears the sensors now".to_owned())
}

impl Taker for HubTaker {
    async fn schema(&self, held: Option<&Schema>) -> Result<Arc<Schema>, StoreError> {
        let mut schema = self.store.opened.schema.subscribe();
        let found = schema.wait_for(|schema| held != Some(&**schema)).await;
        found.map(|schema| Arc::clone(&schema)).map_err(|_| StoreError::Unavailable("the store is closed".to_owned()))
    }

    async fn turn(&self) -> Result<(), StoreError> {
        while !self.ask_turn().await? {
            tokio::time::sleep(limits::INGEST_TURN_LOOK).await;
        }
        Ok(())
    }

    async fn turn_over(&self) -> String {
        loop {
            let pause = if self.is_alone { Duration::MAX } else { limits::INGEST_TURN_RENEW };
            tokio::time::sleep(pause).await;
            match self.hold(None).await {
                Ok(true) => {}
                Ok(false) => return theirs().to_string(),
                // What comes meanwhile fails by itself, and is not acknowledged.
                Err(error) => tracing::debug!(%error, "the turn to hear sensors is not renewed yet"),
            }
        }
    }

    async fn end(&self) {
        let end = Statement::new(END, [self.me(), Cell::Bytes(Vec::new())]);
        if let Err(error) = self.store.desk.run(vec![end]).await {
            tracing::debug!(%error, "whoever hears the sensors next waits until this turn is over");
        }
    }

    async fn forget_deliveries(&self) -> Result<(), StoreError> {
        if !self.hold(Some(FORGET_ALL)).await? {
            return Err(theirs());
        }
        self.memory.lock().await.forget_all();
        Ok(())
    }

    async fn take(&self, arrivals: Vec<Arrival>, forget: u64) -> Result<Tally, StoreError> {
        let mut memory = self.memory.lock().await;
        let why = match self.commit(&mut memory, &arrivals, forget).await? {
            Ok(tally) => return Ok(tally),
            Err(why) => why,
        };
        tracing::debug!(why, messages = arrivals.len(), "messages of sensors cannot be taken together: each by itself");
        let mut total = Tally::default();
        for arrival in arrivals {
            let tally = self.take_alone(&mut memory, arrival, forget).await?;
            total.rows += tally.rows;
            total.refused += tally.refused;
            total.repeats += tally.repeats;
            total.remembered = tally.remembered;
        }
        Ok(total)
    }
}

/// The first cell of the first row.
pub(crate) fn first_number(done: &Done) -> Option<i64> {
    done.rows.first().and_then(|row| number(row, 0))
}
