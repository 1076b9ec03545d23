//! What happens when a part fails: it is cut, what needs it goes too, and the board decides whether it can be without them.

use super::{Board, Effect, ExitReason, Failure, Phase, Slot, Stage, Work, failure_of};
use crate::kernel::{Check, ComponentName, ComponentState};
use crate::time::Instant;

impl Board {
    /// All parts have tested themselves: is there a board without those that failed?
    pub(super) fn judge(&mut self, now: Instant) {
        let failed: Vec<Slot> = (0..self.parts.len()).filter(|slot| self.part(*slot).failure.is_some()).collect();
        let mut fatal = Vec::new();
        for slot in failed {
            let reason = self.part(slot).failure.clone().unwrap_or_default();
            let lost = self.strike(slot, &reason);
            if lost.iter().any(|slot| self.part(*slot).spec.required) {
                fatal.push(Failure { component: self.part(slot).spec.name.clone(), reason });
            }
        }
        if fatal.is_empty() {
            self.enter(Phase::Loading, Stage::Loading, Work::Load);
        } else {
            self.stop(now, ExitReason::Refused(fatal));
        }
    }

    pub(super) fn exited(&mut self, now: Instant, component: &ComponentName, reason: String) {
        let Some(slot) = self.parts.iter().position(|part| part.spec.name == *component) else { return };
        match self.part(slot).state {
            ComponentState::Loading | ComponentState::Loaded | ComponentState::Starting | ComponentState::Running => {
                self.lose(now, slot, Check::fail("task", reason, "the log has more; a restart of the node starts it again"));
            }
            ComponentState::Unloaded | ComponentState::Stopping | ComponentState::Stopped | ComponentState::Failed => {}
        }
    }

    pub(super) fn timed_out(&mut self, now: Instant) {
        let Some(step) = self.step.filter(|step| step.deadline <= now) else { return };
        let took = now.since(step.since);
        let reason = format!("no answer within {} s", took.as_secs());
        let check = Check::fail(step.work.words(), reason, "the log has more; try again, and report it when it stays").taking(took);
        match step.work {
            Work::Check => {
                self.step = None;
                self.abort(step.slot);
                self.checked(step.slot, vec![check]);
            }
            Work::Load | Work::Start | Work::Stop => self.lose(now, step.slot, check),
        }
    }

    /// Takes a part out that failed, and with it all that need it; stops the board when it cannot be without one of them.
    pub(super) fn lose(&mut self, now: Instant, slot: Slot, check: Check) {
        let failure = Failure { component: self.part(slot).spec.name.clone(), reason: failure_of(&check).reason };
        self.show(failure.component.clone(), check);
        let lost = self.strike(slot, &failure.reason);
        if self.phase == Phase::Stopping {
            self.unclean.push(failure);
        } else if lost.iter().any(|slot| self.part(*slot).spec.required) {
            let served = self.phase == Phase::Running;
            let reason = if served { ExitReason::Failed(failure) } else { ExitReason::Refused(vec![failure]) };
            self.stop(now, reason);
        } else {
            lost.iter().for_each(|slot| self.queue.push_front((Work::Stop, *slot)));
        }
    }

    /// Marks a part and, one by one, all that need it. Gives their slots in boot order.
    fn strike(&mut self, slot: Slot, reason: &str) -> Vec<Slot> {
        self.cut(slot, ComponentState::Failed);
        self.part_mut(slot).failure = Some(reason.to_owned());
        let mut lost = vec![slot];
        for later in slot + 1..self.parts.len() {
            let needed = |need: &&ComponentName| lost.iter().any(|slot| self.part(*slot).spec.name == **need);
            let Some(need) = self.part(later).spec.needs.iter().find(needed).cloned() else { continue };
            let state = self.part(later).state;
            if matches!(state, ComponentState::Stopping | ComponentState::Stopped | ComponentState::Failed) {
                continue;
            }
            lost.push(later);
            let reason = format!("needs {need}, which failed");
            self.part_mut(later).failure.get_or_insert(reason.clone());
            self.show(self.part(later).spec.name.clone(), Check::warn("need", reason, format!("it works again once {need} does")));
            // What is up is stopped in its turn, and counts as failed from then on.
            if !matches!(state, ComponentState::Loaded | ComponentState::Running) {
                self.cut(later, ComponentState::Failed);
            }
        }
        lost
    }

    /// Ends whatever a part does, without asking it.
    pub(super) fn cut(&mut self, slot: Slot, state: ComponentState) {
        if self.step.is_some_and(|step| step.slot == slot) {
            self.step = None;
        }
        let idle = matches!(self.part(slot).state, ComponentState::Unloaded | ComponentState::Stopped | ComponentState::Failed);
        if !idle {
            self.abort(slot);
        }
        self.part_mut(slot).state = state;
    }

    pub(super) fn abort(&mut self, slot: Slot) {
        let name = self.part(slot).spec.name.clone();
        self.effects.push_back(Effect::Abort(name));
    }
}
