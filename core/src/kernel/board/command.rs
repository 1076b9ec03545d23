//! What operators want of single parts of a running board, and when they hear of it.

use super::{Ask, Board, BoardState, Effect, Phase, Slot};
use crate::kernel::{ComponentName, ComponentState};
use crate::{limits, names};

/// What an operator wants of a part.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Command {
    /// Put it to work; one whose circuit is open is trusted again.
    Start {
        /// Which part.
        component: ComponentName,
        /// Start what it needs as well.
        cascade: bool,
    },
    /// Let it finish and close.
    Stop {
        /// Which part.
        component: ComponentName,
        /// Stop what needs it as well.
        cascade: bool,
    },
    /// Stop it and start it again.
    Restart {
        /// Which part.
        component: ComponentName,
        /// Restart what needs it as well.
        cascade: bool,
    },
    /// Replace what fills its socket without stopping it.
    Swap {
        /// Which part.
        component: ComponentName,
        /// What to fill the socket with.
        address: String,
    },
}

impl Command {
    const fn component(&self) -> &ComponentName {
        match self {
            Self::Start { component, .. }
            | Self::Stop { component, .. }
            | Self::Restart { component, .. }
            | Self::Swap { component, .. } => component,
        }
    }
}

/// The number of a command; never used again.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CommandId(pub u64);

/// What a command did.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Done {
    /// The parts that it moved, in boot order; none when all was as wished already.
    pub moved: Vec<ComponentName>,
    /// What a part has to say about it.
    pub said: Option<String>,
}

/// Why a command was not carried out.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The board has no such part.
    #[error("there is no component \"{name}\"{}", near.as_ref().map(|near| format!("; perhaps you meant \"{near}\"")).unwrap_or_default())]
    NoSuch {
        /// What was asked for.
        name: ComponentName,
        /// A similar name.
        near: Option<ComponentName>,
    },
    /// The board is not running.
    #[error("the board is {}: components are started and stopped one by one only while it runs", .0.word())]
    NotServing(BoardState),
    /// Others need it.
    #[error("{component} is needed by {}: stop them first, or say --cascade", list(by))]
    NeededBy {
        /// The part.
        component: ComponentName,
        /// Who needs it and is up.
        by: Vec<ComponentName>,
    },
    /// It needs others that do not run.
    #[error("{component} needs {}: start them first, or say --cascade", list(needs))]
    NeedsFirst {
        /// The part.
        component: ComponentName,
        /// What does not run.
        needs: Vec<ComponentName>,
    },
    /// It cannot be stopped by itself.
    #[error("{component} cannot be stopped by itself: {why}")]
    Kept {
        /// The part.
        component: ComponentName,
        /// Why.
        why: &'static str,
    },
    /// It tried and failed.
    #[error("{component} failed: {reason}")]
    Failed {
        /// The part that failed.
        component: ComponentName,
        /// How.
        reason: String,
    },
    /// Only a running part can do it.
    #[error("{component} is {}: start it first", state.word())]
    NotRunning {
        /// The part.
        component: ComponentName,
        /// What it is.
        state: ComponentState,
    },
    /// Its socket cannot be filled with that, or not while it runs; it works on as before.
    #[error("{component} was not swapped: {reason}")]
    NotSwapped {
        /// The part.
        component: ComponentName,
        /// Why, and what to do.
        reason: String,
    },
    /// Another command came in between.
    #[error("another command changed {component} meanwhile")]
    Overtaken {
        /// The part.
        component: ComponentName,
    },
    /// Too many commands wait.
    #[error("{max} commands are under way already: wait for one of them", max = limits::COMMANDS_MAX)]
    Busy,
    /// The board began to stop.
    #[error("the board is stopping")]
    Stopping,
}

fn list(names: &[ComponentName]) -> String {
    names.iter().map(ComponentName::as_str).collect::<Vec<_>>().join(", ")
}

/// A command under way.
#[derive(Clone, Debug)]
pub(super) struct Order {
    id: CommandId,
    goal: Goal,
    /// Each part that moves, and its life when the command came.
    moved: Vec<(Slot, u64)>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Goal {
    Up,
    Renewed,
    Down,
    Swapped,
}

impl Board {
    /// Takes a command or refuses it; gives the parts that are to go down for it.
    pub(super) fn take_order(&mut self, id: CommandId, command: Command) -> Vec<Slot> {
        match self.plan(id, command) {
            Ok(order) => {
                let goes = matches!(order.goal, Goal::Down | Goal::Renewed);
                let slots = order.moved.iter().map(|(slot, _)| *slot).filter(|_| goes).collect();
                self.orders.push(order);
                slots
            }
            Err(refusal) => {
                self.answer(id, Err(refusal));
                Vec::new()
            }
        }
    }

    /// Changes what is wanted of parts; the board then does what is missing.
    fn plan(&mut self, id: CommandId, command: Command) -> Result<Order, Refusal> {
        let name = command.component().clone();
        let slot = self.parts.iter().position(|part| part.spec.name == name).ok_or_else(|| self.no_such(&name))?;
        if self.phase != Phase::Running {
            return Err(Refusal::NotServing(self.state()));
        }
        if self.orders.len() >= limits::COMMANDS_MAX {
            return Err(Refusal::Busy);
        }
        let (goal, slots) = match command {
            Command::Start { cascade, .. } => (Goal::Up, self.plan_start(slot, cascade)?),
            Command::Stop { cascade, .. } => (Goal::Down, self.plan_stop(slot, cascade)?),
            Command::Restart { cascade, .. } => {
                let slots = self.plan_stop(slot, cascade)?;
                slots.iter().for_each(|slot| self.part_mut(*slot).bounce = true);
                (Goal::Renewed, slots)
            }
            Command::Swap { address, .. } => {
                let state = self.part(slot).state;
                if state != ComponentState::Running {
                    return Err(Refusal::NotRunning { component: name, state });
                }
                self.queue.push_back((Ask::Swap(address), slot));
                (Goal::Swapped, vec![slot])
            }
        };
        for slot in &slots {
            let wanted = goal != Goal::Down;
            let trusted = wanted && goal != Goal::Swapped;
            self.part_mut(*slot).wanted = wanted;
            if trusted && self.part_mut(*slot).restarts.close() {
                self.tell_circuit(*slot, false);
            }
        }
        Ok(Order { id, goal, moved: slots.into_iter().map(|slot| (slot, self.part(slot).life)).collect() })
    }

    fn plan_start(&self, slot: Slot, cascade: bool) -> Result<Vec<Slot>, Refusal> {
        let mut missing: Vec<Slot> = Vec::new();
        for below in (0..slot).rev() {
            let is_needed = [slot].iter().chain(&missing).any(|above| self.needs(*above, below));
            if is_needed && self.part(below).state != ComponentState::Running {
                missing.insert(0, below);
            }
        }
        if !missing.is_empty() && !cascade {
            let needs = missing.iter().map(|slot| self.name(*slot)).collect();
            return Err(Refusal::NeedsFirst { component: self.name(slot), needs });
        }
        let running = self.part(slot).state == ComponentState::Running;
        missing.extend((!running).then_some(slot));
        Ok(missing)
    }

    fn plan_stop(&self, slot: Slot, cascade: bool) -> Result<Vec<Slot>, Refusal> {
        let mut slots = vec![slot];
        for above in slot + 1..self.parts.len() {
            if self.is_alive(above) && slots.iter().any(|below| self.needs(above, *below)) {
                slots.push(above);
            }
        }
        let component = self.name(slot);
        if slots.len() > 1 && !cascade {
            let by = slots.iter().skip(1).map(|slot| self.name(*slot)).collect();
            return Err(Refusal::NeededBy { component, by });
        }
        let kept = slots.iter().find_map(|slot| self.part(*slot).spec.kept.map(|why| (self.name(*slot), why)));
        match kept {
            Some((component, why)) => Err(Refusal::Kept { component, why }),
            None => Ok(slots),
        }
    }

    fn no_such(&self, name: &ComponentName) -> Refusal {
        let near = names::nearest(name.as_str(), self.parts.iter().map(|part| part.spec.name.as_str()));
        let near = near.and_then(|near| ComponentName::new(near).ok());
        Refusal::NoSuch { name: name.clone(), near }
    }

    /// Answers the commands whose parts are where they should be, or cannot get there.
    pub(super) fn settle(&mut self) {
        for order in std::mem::take(&mut self.orders) {
            match self.outcome(&order) {
                Some(result) => self.answer(order.id, result),
                None => self.orders.push(order),
            }
        }
    }

    fn outcome(&self, order: &Order) -> Option<Result<Done, Refusal>> {
        let mut arrived = true;
        for (slot, life) in &order.moved {
            let part = self.part(*slot);
            let component = self.name(*slot);
            let there = match order.goal {
                Goal::Down if part.wanted => return Some(Err(Refusal::Overtaken { component })),
                Goal::Up | Goal::Renewed if !part.wanted => return Some(Err(Refusal::Overtaken { component })),
                Goal::Down => !self.is_alive(*slot),
                Goal::Up | Goal::Renewed if part.state == ComponentState::Failed && part.life > *life => {
                    return Some(Err(Refusal::Failed { component, reason: part.failure.clone().unwrap_or_default() }));
                }
                Goal::Up => part.state == ComponentState::Running,
                Goal::Renewed => part.state == ComponentState::Running && part.life > *life,
                Goal::Swapped if part.state == ComponentState::Running => false,
                Goal::Swapped => return Some(Err(Refusal::NotRunning { component, state: part.state })),
            };
            arrived &= there;
        }
        let moved = || order.moved.iter().map(|(slot, _)| self.name(*slot)).collect();
        arrived.then(|| Ok(Done { moved: moved(), said: None }))
    }

    /// A part has answered a swap.
    pub(super) fn swapped(&mut self, slot: Slot, result: Result<String, String>) {
        let component = self.name(slot);
        let mut swaps = self.orders.iter().enumerate().filter(|(_, order)| order.goal == Goal::Swapped);
        // Swaps of one part are asked for in the order in which they came.
        let Some((index, _)) = swaps.find(|(_, order)| order.moved.iter().any(|(moved, _)| *moved == slot)) else { return };
        let order = self.orders.remove(index);
        let done = |said| Done { moved: vec![component.clone()], said: Some(said) };
        self.answer(order.id, result.map(done).map_err(|reason| Refusal::NotSwapped { component: component.clone(), reason }));
    }

    /// The board stops: nobody is left waiting.
    pub(super) fn dismiss(&mut self) {
        for order in std::mem::take(&mut self.orders) {
            self.answer(order.id, Err(Refusal::Stopping));
        }
    }

    fn answer(&mut self, id: CommandId, result: Result<Done, Refusal>) {
        self.effects.push_back(Effect::Answered { id, result });
    }

    pub(super) fn needs(&self, above: Slot, below: Slot) -> bool {
        self.part(above).spec.needs.contains(&self.part(below).spec.name)
    }

    pub(super) fn name(&self, slot: Slot) -> ComponentName {
        self.part(slot).spec.name.clone()
    }

    /// True for a part that owns something, or is about to.
    pub(super) fn is_alive(&self, slot: Slot) -> bool {
        matches!(
            self.part(slot).state,
            ComponentState::Loading
                | ComponentState::Loaded
                | ComponentState::Starting
                | ComponentState::Running
                | ComponentState::Stopping
        )
    }
}
