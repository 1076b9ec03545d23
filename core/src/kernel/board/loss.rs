//! What happens when a part fails: it is cut, what needs it goes too, and it is started again when its time comes. While the board boots,
//! it decides whether it can be without them.

use super::boot::failure_of;
use super::{Ask, Board, Command, CommandId, Effect, ExitReason, Failure, Phase, Slot};
use crate::kernel::{Check, ComponentName, ComponentState};
use crate::time::Instant;

impl Board {
    pub(super) fn exited(&mut self, now: Instant, component: &ComponentName, life: u64, reason: String) {
        let Some(slot) = self.parts.iter().position(|part| part.spec.name == *component && part.life == life) else { return };
        match self.part(slot).state {
            state @ (ComponentState::Loading | ComponentState::Loaded | ComponentState::Starting | ComponentState::Running) => {
                let ask = if state == ComponentState::Running { Ask::Recover } else { Ask::Start };
                self.lose(now, slot, &ask, Check::fail("task", reason, "the log has more; it is started again by itself"));
            }
            ComponentState::Unloaded | ComponentState::Stopping | ComponentState::Stopped | ComponentState::Failed => {}
        }
    }

    pub(super) fn timed_out(&mut self, now: Instant) {
        let Some(step) = self.step.take_if(|step| step.deadline <= now) else { return };
        let took = now.since(step.since);
        let reason = format!("no answer within {} s", took.as_secs());
        let check = Check::fail(step.ask.words(), reason, "the log has more; try again, and report it when it stays").taking(took);
        match step.ask {
            Ask::Check => {
                self.abort(step.slot);
                self.checked(step.slot, vec![check]);
            }
            Ask::Verify => {
                // It reads, and may read on for hours: what it has not found by now does not keep the node from its work.
                self.abort_call(step.slot);
                let advice = "run `health check` when the node has time";
                self.verified(now, step.slot, vec![Check::warn(check.name, "not through in time", advice).taking(took)]);
            }
            Ask::Swap(_) => {
                self.abort_call(step.slot);
                self.swapped(step.slot, Err(check.detail));
            }
            Ask::Load | Ask::Start | Ask::Stop | Ask::Recover => {
                self.step = Some(step.clone());
                self.lose(now, step.slot, &step.ask, check);
            }
        }
    }

    /// Takes a part out that failed at something, and with it all that need it. While it serves, the board starts it again later; while it
    /// boots, it stops when it cannot be without one of them.
    pub(super) fn lose(&mut self, now: Instant, slot: Slot, at: &Ask, check: Check) {
        let failure = Failure { component: self.name(slot), reason: failure_of(&check).reason };
        self.show(failure.component.clone(), check);
        let lost = self.strike(now, slot, &failure.reason);
        match self.phase {
            Phase::Stopping => self.faults.push(failure),
            // It did not stop as it should, but it is down: that is no reason to wait with its next start.
            Phase::Running if *at == Ask::Stop => {}
            Phase::Running => self.restart_later(now, slot),
            Phase::Off | Phase::Post | Phase::Loading | Phase::Starting | Phase::Done => {
                if lost.iter().any(|slot| self.part(*slot).spec.required) {
                    return self.stop(now, ExitReason::Refused(vec![failure]));
                }
                lost.iter().for_each(|slot| self.queue.push_front((Ask::Stop, *slot)));
                self.restart_later(now, slot);
            }
        }
    }

    /// Marks a part and, one by one, all that need it. Gives their slots in boot order.
    pub(super) fn strike(&mut self, now: Instant, slot: Slot, reason: &str) -> Vec<Slot> {
        self.part_mut(slot).failure = Some(reason.to_owned());
        self.cut(now, slot, ComponentState::Failed);
        let change = self.part_mut(slot).monitor.lost(reason.to_owned());
        self.tell_health(slot, change);
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
            self.show(self.name(later), Check::warn("need", reason, format!("it works again once {need} does")));
            // What is up is stopped in its turn, and counts as failed from then on.
            if !matches!(state, ComponentState::Loaded | ComponentState::Running) {
                self.cut(now, later, ComponentState::Failed);
            }
        }
        lost
    }

    /// Ends whatever a part does, without asking it.
    pub(super) fn cut(&mut self, now: Instant, slot: Slot, state: ComponentState) {
        if self.step.as_ref().is_some_and(|step| step.slot == slot) {
            self.step = None;
        }
        let idle = matches!(self.part(slot).state, ComponentState::Unloaded | ComponentState::Stopped | ComponentState::Failed);
        if !idle {
            self.abort(slot);
        }
        self.unwatch(slot);
        self.turn_to(now, slot, state);
    }

    pub(super) fn abort(&mut self, slot: Slot) {
        let name = self.name(slot);
        self.effects.push_back(Effect::Abort(name));
    }

    /// Drops the open question to a part, whose tasks go on.
    fn abort_call(&mut self, slot: Slot) {
        let name = self.name(slot);
        self.effects.push_back(Effect::Drop(name));
    }

    pub(super) fn command(&mut self, now: Instant, id: CommandId, command: Command) {
        for slot in self.take_order(id, command) {
            // What is only on its way up has nothing to finish.
            if matches!(self.part(slot).state, ComponentState::Loading | ComponentState::Starting) {
                self.cut(now, slot, ComponentState::Stopped);
            }
        }
    }
}
