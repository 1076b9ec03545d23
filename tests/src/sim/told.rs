//! What the hub has told must stay true: its time goes on, an entry's effective time is decided once, a closed log is closed, and an older image
//! of a device is found out by its session (rules R5, R6, R7; replication.md D2).

use std::collections::{BTreeMap, BTreeSet};

use mobo_core::ids::{DeviceId, Incarnation, Lane, LaneKey, Timeline};
use mobo_core::message::{Ack, Message};
use mobo_core::store::LaneAudit;

use super::net::End;
use super::trace::{Try, Violation};

/// A log, and the timeline on which it said hello.
type Log = (DeviceId, Incarnation);

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
    effs: BTreeMap<LaneKey, BTreeMap<u64, i64>>,
    hellos: BTreeMap<u64, Shown>,
    /// By log and timeline: the generation that was given, and the one that had been shown.
    welcomed: BTreeMap<(Log, Timeline), Vec<(u64, u64)>>,
    /// Closed logs, and where their lanes ended.
    closed: BTreeMap<Log, Option<BTreeMap<Lane, u64>>>,
    /// Logs that a device has left behind and gives back: these grow, closed or not.
    given_back: BTreeSet<Log>,
}

impl Told {
    /// The hub was put back: what it said since does not bind it.
    pub(super) fn forget(&mut self) {
        (self.time, self.effs, self.closed) = (0, BTreeMap::new(), BTreeMap::new());
        self.given_back.clear();
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

    /// The hub's time, whenever it is looked at.
    pub(super) fn time(&mut self, now: i64) -> Try {
        if now < self.time {
            return Err(Violation::new("R6", format!("the hub's time was {} and is {now}", self.time)));
        }
        self.time = now;
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
            if before.is_some_and(|(at, before)| at + 1 == seq && eff.0 > now.max(before + 1)) {
                return wrong("R5", &format!("in the future, at {now}"));
            }
            known.insert(seq, eff.0);
        }
        Ok(())
    }

    /// Looks at the lanes as the hub has them.
    pub(super) fn lanes(&mut self, lanes: &[LaneAudit]) -> Try {
        for (log, ends) in self.closed.iter_mut().filter(|(log, _)| !self.given_back.contains(log)) {
            let own = lanes.iter().filter(|audit| (audit.lane.device, audit.lane.incarnation) == *log);
            let now: BTreeMap<Lane, u64> = own.map(|audit| (audit.lane.lane, audit.last.get())).collect();
            let ends = ends.get_or_insert_with(|| now.clone());
            if *ends != now {
                return Err(Violation::new("D2", format!("a closed log has grown from {ends:?} to {now:?}: {log:?}")));
            }
        }
        Ok(())
    }
}
