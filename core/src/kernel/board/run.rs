//! While the board serves: what is missing between what parts are and what they should be, and how healthy they are.

use super::{Ask, Board, Effect, News, Phase, Slot, Turn};
use crate::kernel::{ComponentState, HealthChange, Next, Vital};
use crate::time::Instant;

impl Board {
    /// The next thing to ask of a part, so that it becomes what it should be; `None` when all are, or must wait.
    pub(super) fn missing(&self, now: Instant) -> Option<(Ask, Slot)> {
        let slots = 0..self.parts.len();
        let down = slots.clone().rev().find(|slot| self.must_go(*slot)).map(|slot| (Ask::Stop, slot));
        down.or_else(|| slots.clone().find_map(|slot| self.may_come(now, slot).map(|ask| (ask, slot))))
    }

    fn must_go(&self, slot: Slot) -> bool {
        let part = self.part(slot);
        let is_up = matches!(part.state, ComponentState::Loaded | ComponentState::Running);
        let is_free = (slot + 1..self.parts.len()).all(|above| !self.needs(above, slot) || !self.is_alive(above));
        is_up && is_free && (!part.wanted || part.bounce || self.part_needs_missing(slot) || self.below_must_go(slot))
    }

    /// True when something below it is about to stop.
    fn below_must_go(&self, slot: Slot) -> bool {
        (0..slot).any(|below| self.needs(slot, below) && (self.part(below).bounce || !self.part(below).wanted || self.below_must_go(below)))
    }

    fn part_needs_missing(&self, slot: Slot) -> bool {
        (0..slot).any(|below| self.needs(slot, below) && self.part(below).state != ComponentState::Running)
    }

    fn may_come(&self, now: Instant, slot: Slot) -> Option<Ask> {
        let part = self.part(slot);
        if !part.wanted || self.part_needs_missing(slot) || self.below_must_go(slot) {
            return None;
        }
        match part.state {
            ComponentState::Loaded => Some(Ask::Start),
            ComponentState::Unloaded | ComponentState::Stopped | ComponentState::Failed => {
                part.restarts.may_start(now).then_some(Ask::Load)
            }
            ComponentState::Loading | ComponentState::Starting | ComponentState::Running | ComponentState::Stopping => None,
        }
    }

    /// When the next part may be started again that waits for nothing but its pause.
    pub(super) fn next_restart(&self) -> Option<Instant> {
        let waits = |slot: &Slot| {
            let part = self.part(*slot);
            part.wanted && !self.is_alive(*slot) && !self.part_needs_missing(*slot)
        };
        (0..self.parts.len()).filter(waits).filter_map(|slot| self.part(slot).restarts.due()).min()
    }

    /// Notes a failure and when the part is started again.
    pub(super) fn restart_later(&mut self, now: Instant, slot: Slot) {
        let entropy = self.dice.roll();
        let was_open = self.part(slot).restarts.is_open();
        let next = self.part_mut(slot).restarts.failed(now, entropy);
        let (component, failures) = (self.name(slot), self.part(slot).restarts.total());
        match next {
            Next::After(pause) => self.effects.push_back(Effect::Tell(News::Restart { component, failures, pause })),
            Next::Open if was_open => {}
            Next::Open => self.tell_circuit(slot, true),
        }
    }

    pub(super) fn tell_circuit(&mut self, slot: Slot, open: bool) {
        let (component, failures) = (self.name(slot), self.part(slot).restarts.total());
        self.effects.push_back(Effect::Tell(News::Circuit { component, open, failures }));
    }

    /// Begins to watch a part that works now. Parts take turns within an interval.
    pub(super) fn watch(&mut self, now: Instant, slot: Slot) {
        let count = u32::try_from(self.parts.len()).unwrap_or(u32::MAX).max(1);
        let turn = u32::try_from(slot + 1).unwrap_or(u32::MAX);
        let offset = self.policy.health.interval.saturating_mul(turn) / count;
        let change = self.part_mut(slot).monitor.watch(now, offset);
        self.tell_health(slot, change);
    }

    /// Stops watching a part; the open question is dropped.
    pub(super) fn unwatch(&mut self, slot: Slot) {
        self.part_mut(slot).monitor.pause();
        let probe = self.part_mut(slot).probe.take();
        self.effects.extend(probe.map(Effect::CutProbe));
    }

    /// Gives up on late answers, and asks the parts whose time has come.
    pub(super) fn probe(&mut self, now: Instant) {
        for slot in 0..self.parts.len() {
            if self.part(slot).monitor.is_late(now) {
                let probe = self.part_mut(slot).probe.take();
                self.effects.extend(probe.map(Effect::CutProbe));
                let silence = self.part(slot).monitor.silence();
                self.vital(now, slot, silence);
            }
            if self.part_mut(slot).steady(now) {
                self.tell_circuit(slot, false);
            }
            if self.part(slot).monitor.is_due(now) {
                let turn = self.next_turn();
                let deadline = self.part_mut(slot).monitor.asked(now);
                self.part_mut(slot).probe = Some(turn);
                let component = self.name(slot);
                self.effects.push_back(Effect::Probe { turn, component, deadline });
            }
        }
    }

    pub(super) fn probed(&mut self, now: Instant, turn: Turn, vital: Vital) {
        let Some(slot) = self.parts.iter().position(|part| part.probe == Some(turn)) else { return };
        self.part_mut(slot).probe = None;
        self.vital(now, slot, vital);
    }

    fn vital(&mut self, now: Instant, slot: Slot, vital: Vital) {
        let change = self.part_mut(slot).monitor.answered(now, vital);
        self.tell_health(slot, change);
        let idle = !self.queue.iter().any(|(ask, queued)| *ask == Ask::Recover && *queued == slot);
        if self.phase == Phase::Running && idle && self.part(slot).monitor.wants_recovery() {
            self.queue.push_back((Ask::Recover, slot));
        }
    }

    pub(super) fn tell_health(&mut self, slot: Slot, change: Option<HealthChange>) {
        let component = self.name(slot);
        let news = change.map(|HealthChange { from, to, detail }| Effect::Tell(News::Health { component, from, to, detail }));
        self.effects.extend(news);
    }
}

impl super::Part {
    fn steady(&mut self, now: Instant) -> bool {
        self.state == ComponentState::Running && self.restarts.steady(now, self.since)
    }
}
