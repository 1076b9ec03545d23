//! The way up: six stages, and the question whether there is a board without the parts that failed their self-test.

use super::{Ask, Board, Effect, ExitReason, Failure, Phase, Slot, Stage};
use crate::kernel::{BootOrder, Check, Verdict};
use crate::time::Instant;

impl Board {
    pub(super) fn boot(&mut self, now: Instant, checks: Vec<Check>, unclean: bool) {
        if self.phase != Phase::Off {
            return;
        }
        self.verify = unclean;
        self.effects.push_back(Effect::Stage(Stage::PreBoot));
        if unclean {
            let advice = "what is stored is verified before it is used; look at the log and at the power supply when it happens again";
            self.show(Self::NAME, Check::warn("last stop", "this node was not shut down cleanly", advice));
        }
        let failures: Vec<_> = checks.iter().filter(|check| check.verdict == Verdict::Fail).map(failure_of).collect();
        checks.into_iter().for_each(|check| self.show(Self::NAME, check));
        if !failures.is_empty() {
            return self.stop(now, ExitReason::Refused(failures));
        }
        self.effects.push_back(Effect::Stage(Stage::KernelInit));
        match BootOrder::of(self.parts.iter().map(|part| part.spec.clone()).collect()) {
            Ok(order) => {
                let policy = self.policy;
                self.parts = order.into_specs().into_iter().map(|spec| super::Part::new(spec, policy)).collect();
                self.parts.iter_mut().for_each(|part| part.since = now);
                let detail = format!("{} in order of need", self.parts.len());
                self.show(Self::NAME, Check::pass("components", detail));
                self.enter(Phase::Post, Stage::Post, &[Ask::Check]);
            }
            Err(error) => {
                let check = Check::fail("components", error.to_string(), "this is a mistake in the program: report it");
                let failure = failure_of(&check);
                self.show(Self::NAME, check);
                self.stop(now, ExitReason::Refused(vec![failure]));
            }
        }
    }

    fn enter(&mut self, phase: Phase, stage: Stage, asks: &[Ask]) {
        self.phase = phase;
        self.effects.push_back(Effect::Stage(stage));
        self.queue.extend((0..self.parts.len()).flat_map(|slot| asks.iter().map(move |ask| (ask.clone(), slot))));
    }

    /// Asks parts for what is queued, one after the other, and turns the phase when nothing is.
    pub(super) fn proceed(&mut self, now: Instant) {
        self.advance(now);
        if self.phase == Phase::Running {
            self.settle();
            self.probe(now);
            // A probe may have found a part that should mend itself.
            self.advance(now);
        }
    }

    fn advance(&mut self, now: Instant) {
        while self.step.is_none() {
            if let Some((ask, slot)) = self.queue.pop_front() {
                self.ask(now, ask, slot);
                continue;
            }
            match self.phase {
                Phase::Post => self.judge(now),
                Phase::Loading => self.enter(Phase::Starting, Stage::Starting, &[Ask::Start]),
                Phase::Starting => self.ready(),
                Phase::Stopping => self.leave(),
                Phase::Running => match self.missing(now) {
                    Some((ask, slot)) => self.ask(now, ask, slot),
                    None => return,
                },
                Phase::Off | Phase::Done => return,
            }
        }
    }

    pub(super) fn checked(&mut self, slot: Slot, checks: Vec<Check>) {
        let failed = checks.iter().find(|check| check.verdict == Verdict::Fail);
        self.part_mut(slot).failure = failed.map(|check| failure_of(check).reason);
        let name = self.name(slot);
        checks.into_iter().for_each(|check| self.show(name.clone(), check));
    }

    pub(super) fn verified(&mut self, now: Instant, slot: Slot, mut checks: Vec<Check>) {
        let failed = checks.iter().position(|check| check.verdict == Verdict::Fail).map(|at| checks.remove(at));
        let name = self.name(slot);
        checks.into_iter().for_each(|check| self.show(name.clone(), check));
        if let Some(check) = failed {
            self.lose(now, slot, &Ask::Verify, check);
        }
    }

    /// All parts have tested themselves: is there a board without those that failed?
    fn judge(&mut self, now: Instant) {
        let failed: Vec<Slot> = (0..self.parts.len()).filter(|slot| self.part(*slot).failure.is_some()).collect();
        let mut fatal = Vec::new();
        for slot in failed {
            let reason = self.part(slot).failure.clone().unwrap_or_default();
            let lost = self.strike(now, slot, &reason);
            if lost.iter().any(|slot| self.part(*slot).spec.required) {
                fatal.push(Failure { component: self.name(slot), reason });
            } else {
                self.restart_later(now, slot);
            }
        }
        if fatal.is_empty() {
            let asks: &[Ask] = if self.verify { &[Ask::Load, Ask::Verify] } else { &[Ask::Load] };
            self.enter(Phase::Loading, Stage::Loading, asks);
        } else {
            self.stop(now, ExitReason::Refused(fatal));
        }
    }

    fn ready(&mut self) {
        self.phase = Phase::Running;
        let degraded = self.state() != super::BoardState::Ready;
        self.effects.push_back(Effect::Stage(Stage::Ready));
        self.effects.push_back(Effect::Ready { degraded });
    }
}

pub(super) fn failure_of(check: &Check) -> Failure {
    Failure { component: Board::NAME, reason: format!("{}: {}", check.name, check.detail) }
}
