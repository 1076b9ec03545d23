//! What the hub has told must stay true: its time goes on, an entry's effective time is decided once, a closed log is closed, and an older image
//! of a device is found out by its session (rules R5, R6, R7; replication.md D2).

use std::collections::{BTreeMap, BTreeSet};

use mobo_core::ids::{BucketId, DeviceId, Incarnation, Lane, LaneKey, Seq, Timeline};
use mobo_core::limits;
use mobo_core::message::{Ack, Message};
use mobo_core::store::LaneAudit;

use super::net::End;
use super::trace::{Try, Violation};

/// So far it may fall behind half its speed: it stands at what is reserved while the wall clock is ahead of that, and where it was until there
/// while that is set back.
const STANDS_US: i64 = 12_000_000;
/// Entries of one lane that were made at once are a µs apart each.
const LANE_AHEAD_US: i64 = 1_000_000;

/// A log, and the timeline on which it said hello.
type Log = (DeviceId, Incarnation);

/// The hub's clock, whenever it is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// The hub's time.
    pub(super) now: i64,
    /// What its wall clock shows.
    pub(super) wall: i64,
    pub(super) timeline: Timeline,
    /// The time of the world.
    pub(super) at_us: u64,
    /// True if its wall clock was ever set.
    pub(super) is_set: bool,
    /// True if its store may be away: then time stands still at what is reserved.
    pub(super) may_stand: bool,
}

/// What a hello showed.
#[derive(Clone, Copy, Debug)]
struct Shown {
    log: Log,
    session: Option<(Timeline, u64)>,
    /// A log that has nothing cannot be behind.
    is_empty: bool,
}

/// All that was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    time: i64,
    /// The look at this process of the hub that asks most of all later ones.
    ahead: Option<Clock>,
    /// On each timeline, the latest that it said.
    latest: BTreeMap<Timeline, Clock>,
    effs: BTreeMap<LaneKey, BTreeMap<u64, i64>>,
    hellos: BTreeMap<u64, Shown>,
    /// By log and timeline: the generation that was given, and the one that had been shown.
    welcomed: BTreeMap<(Log, Timeline), Vec<(u64, u64)>>,
    /// Closed logs, and where their lanes ended.
    closed: BTreeMap<Log, Option<BTreeMap<Lane, u64>>>,
    /// Logs that a device has left behind and gives back: these grow, closed or not.
    given_back: BTreeSet<Log>,
    /// By link, the buckets that may not be read any more.
    revoked: BTreeSet<(u64, BucketId)>,
}

impl Told {
    /// The hub was put back: what it said since does not bind it.
    pub(super) fn forget(&mut self) {
        (self.time, self.effs, self.closed) = (0, BTreeMap::new(), BTreeMap::new());
        self.given_back.clear();
    }

    /// The hub has started.
    pub(super) fn started(&mut self) {
        self.ahead = None;
    }

    /// Looks at a frame that a session has sent; `now` is the hub's time.
    pub(super) fn frame(&mut self, link: u64, from: End, message: &Message, now: i64) -> Try {
        match (from, message) {
            (End::Device, Message::Hello(signed)) => {
                let hello = &signed.hello;
                let is_empty = hello.lanes.is_empty();
                self.hellos.insert(link, Shown { log: (hello.device, hello.incarnation), session: hello.session, is_empty });
                Ok(())
            }
            (End::Hub, Message::Welcome(welcome)) => self.welcome(link, (welcome.timeline.timeline, welcome.session)),
            (End::Hub, Message::Revoke(bucket)) => {
                self.revoked.insert((link, *bucket));
                Ok(())
            }
            (End::Hub, Message::Grant(grant)) => {
                self.revoked.remove(&(link, grant.bucket));
                Ok(())
            }
            (End::Hub, Message::Batch(batch)) if self.revoked.contains(&(link, batch.bucket)) => {
                let what = format!(
                    "{} records of {} are sent, and this session was told that it may not read it",
                    batch.items.len(),
                    batch.bucket
                );
                Err(Violation::new("D5", what))
            }
            (End::Hub, Message::Refence(_)) => {
                if let Some(shown) = self.hellos.get(&link) {
                    self.closed.entry(shown.log).or_default();
                }
                Ok(())
            }
            (End::Device, Message::Push(push)) => {
                if let Some(shown) = self.hellos.get(&link).filter(|shown| shown.log.1 != push.incarnation) {
                    self.given_back.insert((shown.log.0, push.incarnation));
                }
                Ok(())
            }
            (End::Hub, Message::Ack(ack)) => {
                let Some(shown) = self.hellos.get(&link) else { return Ok(()) };
                let lane = LaneKey { device: shown.log.0, incarnation: ack.incarnation, lane: ack.lane };
                self.acked(lane, ack, now)
            }
            _ => Ok(()),
        }
    }

    /// The hub's time, whenever it is looked at: it never goes back, it goes on, and a hub that was put back goes on above what was said.
    pub(super) fn time(&mut self, clock: Clock) -> Try {
        let wrong = |what: String| Err(Violation::new("R6", what));
        let now = clock.now;
        if now < self.time {
            return wrong(format!("the hub's time was {} and is {now}", self.time));
        }
        self.time = now;
        let ahead = *self.ahead.get_or_insert(clock);
        // It goes at half speed at the least, wherever the wall clock has taken it.
        let must = ahead.now.saturating_add((clock.at_us - ahead.at_us).cast_signed() / 2);
        if now < must - STANDS_US && !clock.may_stand {
            return wrong(format!("the hub's time was {} at {} and is {now} at {}", ahead.now, ahead.at_us, clock.at_us));
        }
        if now > must {
            self.ahead = Some(clock);
        }
        if !self.latest.contains_key(&clock.timeline) && !clock.is_set {
            let was_near = |said: &&Clock| said.now - said.wall <= limits::TIME_LEAP.as_micros() as i64;
            if let Some(said) = self.latest.values().filter(was_near).find(|said| said.now > now) {
                return wrong(format!("a hub that was put back begins at {now}, and the one that is lost has said {}", said.now));
            }
        }
        self.latest.insert(clock.timeline, clock);
        Ok(())
    }

    /// True for entries of another log than the one that said hello on that link.
    pub(super) fn is_former(&self, link: u64, incarnation: Incarnation) -> bool {
        self.hellos.get(&link).is_some_and(|shown| shown.log.1 != incarnation)
    }

    fn welcome(&mut self, link: u64, (timeline, given): (Timeline, u64)) -> Try {
        let Some(shown) = self.hellos.get(&link) else { return Ok(()) };
        let session = shown.session.filter(|session| session.0 == timeline).map_or(0, |session| session.1);
        let welcomed = self.welcomed.entry((shown.log, timeline)).or_default();
        let earlier = welcomed.iter().find(|(gave, showed)| *gave < given && *showed > session);
        // Of a log of which the hub has nothing, no copy is behind another: whichever pushes first goes on with it.
        let is_begun = self.effs.keys().any(|lane| (lane.device, lane.incarnation) == shown.log);
        if let Some((_, showed)) = earlier.filter(|_| is_begun && !shown.is_empty) {
            let what = format!("a device that shows session {session} is welcome, and the same log has shown {showed} before");
            return Err(Violation::new("D2", what));
        }
        welcomed.push((given, session));
        Ok(())
    }

    fn acked(&mut self, lane: LaneKey, ack: &Ack, now: i64) -> Try {
        let known = self.effs.entry(lane).or_default();
        for (seq, eff) in (ack.eff_first.get()..).zip(&ack.effs) {
            let wrong = |rule, what: &str| Err(Violation::new(rule, format!("entry {seq} of {lane:?} is of {}: {what}", eff.0)));
            let before = known.range(..seq).next_back().map(|(seq, eff)| (*seq, *eff));
            match known.get(&seq) {
                Some(told) if *told != eff.0 => return wrong("R7", &format!("it was told to be of {told}")),
                Some(_) => continue,
                None => {}
            }
            if before.is_some_and(|(_, before)| before >= eff.0) || known.range(seq + 1..).next().is_some_and(|(_, later)| *later <= eff.0)
            {
                return wrong("R5", "not between its neighbours");
            }
            // Of what came before a restore, nobody knows how far that had pushed the lane: not this far.
            let follows = before.filter(|(at, _)| at + 1 == seq).map_or(now + LANE_AHEAD_US, |(_, before)| before + 1);
            if eff.0 > now.max(follows) {
                return wrong("R5", &format!("in the future, at {now}"));
            }
            known.insert(seq, eff.0);
        }
        Ok(())
    }

    /// When the hub has decided that an entry was made, where it was told since the hub was last put back.
    pub(super) fn eff(&self, at: (Incarnation, Lane, Seq)) -> Option<i64> {
        let mut lanes = self.effs.iter().filter(|(lane, _)| (lane.incarnation, lane.lane) == (at.0, at.1));
        lanes.find_map(|(_, effs)| effs.get(&at.2.get()).copied())
    }

    /// The log that said hello on that link is closed, and its lanes end here.
    pub(super) fn close(&mut self, link: u64, lanes: &[LaneAudit]) {
        let Some(log) = self.hellos.get(&link).map(|shown| shown.log) else { return };
        self.closed.entry(log).or_default().get_or_insert_with(|| ends(lanes, log));
    }

    /// Looks at the lanes as the hub has them.
    pub(super) fn lanes(&mut self, lanes: &[LaneAudit]) -> Try {
        for (log, ends) in self.closed.iter_mut().filter(|(log, _)| !self.given_back.contains(log)) {
            let now = self::ends(lanes, *log);
            let ends = ends.get_or_insert_with(|| now.clone());
            if *ends != now {
                return Err(Violation::new("D2", format!("a closed log has grown from {ends:?} to {now:?}: {log:?}")));
            }
        }
        Ok(())
    }
}

/// Where the lanes of a log end.
fn ends(lanes: &[LaneAudit], log: Log) -> BTreeMap<Lane, u64> {
    let own = lanes.iter().filter(|audit| (audit.lane.device, audit.lane.incarnation) == log);
    own.map(|audit| (audit.lane.lane, audit.last.get())).collect()
}
