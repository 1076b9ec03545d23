//! The state machine that boots, watches, restarts and stops the parts of a node.

mod boot;
mod command;
mod io;
mod loss;
mod run;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use super::restart::Dice;
use super::{
    Check, ComponentName, ComponentReport, ComponentSpec, ComponentState, Fault, Health, HealthPolicy, Monitor, RestartPolicy, Restarts,
};
use crate::limits;
use crate::time::Instant;

pub use command::{Command, CommandId, Done, Refusal};
pub use io::{Answer, Ask, BoardState, Effect, ExitReason, Failure, Input, News, Stage, Turn};

use command::Order;

/// A node's parts and where they are in their lives.
///
/// **Contract.** Feed [`Input::Boot`] once. After every [`handle`](Self::handle), call [`poll_effect`](Self::poll_effect) until it
/// gives `None` and carry the effects out in that order, then wait for the next input, at most until
/// [`poll_timeout`](Self::poll_timeout). `now` never goes backwards. At most one part is asked something at a time, and beside that each
/// part how it is; answers that come too late, or that nobody asked for, change nothing. After [`Effect::Exit`] the board is deaf.
#[derive(Debug)]
pub struct Board {
    /// In boot order from kernel init on.
    parts: Vec<Part>,
    policy: Policy,
    phase: Phase,
    queue: VecDeque<(Ask, Slot)>,
    step: Option<Step>,
    orders: Vec<Order>,
    effects: VecDeque<Effect>,
    turn: u64,
    dice: Dice,
    exit: Option<ExitReason>,
    /// Parts verify what they own.
    verify: bool,
    /// What went wrong while stopping.
    faults: Vec<Failure>,
    stop_by: Option<Instant>,
    signalled: bool,
}

/// How a board treats its parts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Policy {
    /// When parts that fail are started again.
    pub restart: RestartPolicy,
    /// How often parts are asked how they are.
    pub health: HealthPolicy,
}

#[derive(Debug)]
struct Part {
    spec: ComponentSpec,
    state: ComponentState,
    since: Instant,
    failure: Option<String>,
    /// How often it was loaded.
    life: u64,
    /// False once an operator has stopped it.
    wanted: bool,
    /// It is to stop and start again.
    bounce: bool,
    restarts: Restarts,
    monitor: Monitor,
    /// The open health question.
    probe: Option<Turn>,
}

/// The index of a part: made only from `parts`, which never shrinks.
type Slot = usize;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Off,
    Post,
    Loading,
    Starting,
    Running,
    Stopping,
    Done,
}

/// What a part was asked and has not answered.
#[derive(Clone, Debug)]
struct Step {
    turn: Turn,
    ask: Ask,
    slot: Slot,
    since: Instant,
    deadline: Instant,
}

impl Board {
    /// The name under which the board shows its own checks.
    pub const NAME: ComponentName = ComponentName::fixed("board");

    /// A board that has not booted. Parts that cannot be put in order are refused in kernel init. `seed` is 64 random bits for the jitter
    /// of restarts.
    #[must_use]
    pub fn new(specs: Vec<ComponentSpec>, policy: Policy, seed: u64) -> Self {
        Self {
            parts: specs.into_iter().map(|spec| Part::new(spec, policy)).collect(),
            policy,
            phase: Phase::Off,
            queue: VecDeque::new(),
            step: None,
            orders: Vec::new(),
            effects: VecDeque::new(),
            turn: 0,
            dice: Dice::new(seed),
            exit: None,
            verify: false,
            faults: Vec::new(),
            stop_by: None,
            signalled: false,
        }
    }

    /// Takes one input. Never waits.
    pub fn handle(&mut self, now: Instant, input: Input) {
        if self.phase == Phase::Done {
            return;
        }
        match input {
            Input::Boot { checks, unclean } => self.boot(now, checks, unclean),
            Input::Answer { turn, answer } => {
                if let Some(step) = self.step.take_if(|step| step.turn == turn) {
                    self.answered(now, step, answer);
                }
            }
            Input::Probed { turn, vital } => self.probed(now, turn, vital),
            Input::Exited { component, life, reason } => self.exited(now, &component, life, reason),
            Input::Command { id, command } => self.command(now, id, command),
            Input::Stop => self.stop(now, ExitReason::Stopped),
            Input::Signal if self.signalled => self.force(),
            Input::Signal => {
                self.signalled = true;
                self.stop(now, ExitReason::Stopped);
            }
            Input::Timeout => self.timed_out(now),
        }
        self.proceed(now);
    }

    /// The next thing to do; `None` when all is said until the next input.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When to feed [`Input::Timeout`]; `None` when nothing is awaited. Changes with every input.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let step = self.step.as_ref().map(|step| step.deadline);
        if self.phase != Phase::Running {
            return step;
        }
        let watched = self.parts.iter().filter_map(|part| part.monitor.poll_timeout()).min();
        // What may start already waits for the open step, which has a deadline.
        let restart = if step.is_some() { None } else { self.next_restart() };
        step.into_iter().chain(watched).chain(restart).min()
    }

    /// The state of the whole.
    #[must_use]
    pub fn state(&self) -> BoardState {
        let down = |part: &&Part| part.state != ComponentState::Running;
        match self.phase {
            Phase::Off | Phase::Post | Phase::Loading | Phase::Starting => BoardState::Booting,
            Phase::Running if self.parts.iter().filter(down).any(|part| part.spec.required && part.wanted) => BoardState::Critical,
            Phase::Running if self.parts.iter().any(|part| down(&part)) => BoardState::Degraded,
            Phase::Running => BoardState::Ready,
            Phase::Stopping => BoardState::Stopping,
            Phase::Done if matches!(self.exit, Some(ExitReason::Stopped)) => BoardState::Stopped,
            Phase::Done => BoardState::Failed,
        }
    }

    /// The health of the whole: the worst of the required parts; others make it degraded at most. What an operator stopped counts so, too.
    #[must_use]
    pub fn health(&self) -> Health {
        let of = |part: &Part| match part.health() {
            None => Health::Degraded,
            Some(health) if part.spec.required => health,
            Some(health) => health.min(Health::Degraded),
        };
        self.parts.iter().map(of).max().unwrap_or(Health::Healthy)
    }

    /// Every part, in boot order.
    #[must_use]
    pub fn report(&self) -> Vec<ComponentReport> {
        self.parts.iter().map(Part::report).collect()
    }

    /// Asks a part for one thing, unless something that happened since it was queued makes that void.
    fn ask(&mut self, now: Instant, ask: Ask, slot: Slot) {
        let limit = now.after(ask.timeout());
        let deadline = self.stop_by.map_or(limit, |stop_by| stop_by.min(limit));
        let next = match (&ask, self.part(slot).state) {
            (Ask::Check, ComponentState::Unloaded) => ComponentState::Unloaded,
            (Ask::Load, ComponentState::Unloaded) => ComponentState::Loading,
            // Once more; a boot leaves out what has failed.
            (Ask::Load, ComponentState::Stopped | ComponentState::Failed) if self.phase == Phase::Running => ComponentState::Loading,
            (Ask::Verify, ComponentState::Loaded) => ComponentState::Loaded,
            (Ask::Start, ComponentState::Loaded) => ComponentState::Starting,
            (Ask::Stop, ComponentState::Loaded | ComponentState::Running) => ComponentState::Stopping,
            (Ask::Recover | Ask::Swap(_), ComponentState::Running) => ComponentState::Running,
            _ => return,
        };
        if ask == Ask::Load {
            self.part_mut(slot).life += 1;
        }
        if ask == Ask::Stop {
            self.unwatch(slot);
        }
        self.turn_to(now, slot, next);
        let turn = self.next_turn();
        let (component, life) = (self.name(slot), self.part(slot).life);
        self.step = Some(Step { turn, ask: ask.clone(), slot, since: now, deadline });
        self.effects.push_back(Effect::Ask { turn, component, ask, life, deadline });
    }

    fn answered(&mut self, now: Instant, step: Step, answer: Answer) {
        match (answer, &step.ask) {
            (Answer::Checks(checks), Ask::Check) => self.checked(step.slot, checks),
            (Answer::Checks(checks), Ask::Verify) => self.verified(now, step.slot, checks),
            (Answer::Did(result), Ask::Load | Ask::Start | Ask::Stop | Ask::Recover) => self.advanced(now, &step, result),
            (Answer::Swapped(result), Ask::Swap(_)) => self.swapped(step.slot, result.map_err(|fault| fault.to_string())),
            // An answer to something else than was asked: the driver's mistake, and as good as none.
            (Answer::Checks(_) | Answer::Did(_) | Answer::Swapped(_), _) => self.step = Some(step),
        }
    }

    /// A part has loaded, started, stopped or mended itself, or could not.
    fn advanced(&mut self, now: Instant, step: &Step, result: Result<(), Fault>) {
        let took = now.since(step.since);
        if let Err(fault) = result {
            let check = Check::fail(step.ask.words(), fault.reason, fault.advice).taking(took);
            return self.lose(now, step.slot, &step.ask, check);
        }
        let failed = self.part(step.slot).failure.is_some();
        let state = match step.ask {
            Ask::Load => ComponentState::Loaded,
            Ask::Start => ComponentState::Running,
            Ask::Stop if failed => ComponentState::Failed,
            Ask::Stop => ComponentState::Stopped,
            Ask::Check | Ask::Verify | Ask::Recover | Ask::Swap(_) => self.part(step.slot).state,
        };
        if step.ask == Ask::Start {
            self.part_mut(step.slot).failure = None;
        }
        self.turn_to(now, step.slot, state);
        if step.ask == Ask::Start {
            self.watch(now, step.slot);
        }
        if step.ask != Ask::Recover {
            let name = self.name(step.slot);
            self.show(name, Check::pass(step.ask.words(), state.word()).taking(took));
        }
    }

    fn stop(&mut self, now: Instant, reason: ExitReason) {
        if matches!(self.phase, Phase::Stopping | Phase::Done) {
            return;
        }
        self.phase = Phase::Stopping;
        self.stop_by = Some(now.after(limits::SHUTDOWN_TIMEOUT));
        (0..self.parts.len()).for_each(|slot| self.unwatch(slot));
        let up = |slot: &Slot| matches!(self.part(*slot).state, ComponentState::Loaded | ComponentState::Running);
        self.queue = (0..self.parts.len()).rev().filter(up).map(|slot| (Ask::Stop, slot)).collect();
        if self.step.is_some() || !self.queue.is_empty() {
            self.effects.push_back(Effect::Stopping(reason.clone()));
        }
        self.dismiss();
        match self.step.as_ref().map(|step| (step.ask.clone(), step.slot)) {
            Some((Ask::Check | Ask::Verify | Ask::Recover | Ask::Swap(_), slot)) => {
                self.step = None;
                self.abort(slot);
            }
            Some((Ask::Load | Ask::Start, slot)) => self.cut(now, slot, ComponentState::Stopped),
            Some((Ask::Stop, _)) | None => {}
        }
        self.exit = Some(reason);
    }

    fn leave(&mut self) {
        let asked = matches!(self.exit, Some(ExitReason::Stopped));
        if asked && !self.faults.is_empty() {
            self.exit = Some(ExitReason::Unclean(std::mem::take(&mut self.faults)));
        }
        self.phase = Phase::Done;
        self.effects.extend(self.exit.clone().map(Effect::Exit));
    }

    fn force(&mut self) {
        self.phase = Phase::Done;
        self.step = None;
        self.queue.clear();
        self.effects.clear();
        self.exit = Some(ExitReason::Forced);
        self.effects.push_back(Effect::Exit(ExitReason::Forced));
    }

    fn turn_to(&mut self, now: Instant, slot: Slot, state: ComponentState) {
        let part = self.part_mut(slot);
        let from = std::mem::replace(&mut part.state, state);
        if from == state {
            return;
        }
        part.since = now;
        if !matches!(state, ComponentState::Loaded | ComponentState::Running) {
            part.bounce = false;
        }
        let (component, detail) = (part.spec.name.clone(), part.failure.clone().filter(|_| state == ComponentState::Failed));
        self.effects.push_back(Effect::Tell(News::State { component, from, to: state, detail }));
    }

    fn next_turn(&mut self) -> Turn {
        self.turn += 1;
        Turn(self.turn)
    }

    fn show(&mut self, component: ComponentName, check: Check) {
        self.effects.push_back(Effect::Show { component, check });
    }

    #[expect(clippy::indexing_slicing, reason = "a slot is an index of parts, which never shrinks")]
    fn part(&self, slot: Slot) -> &Part {
        &self.parts[slot]
    }

    #[expect(clippy::indexing_slicing, reason = "a slot is an index of parts, which never shrinks")]
    fn part_mut(&mut self, slot: Slot) -> &mut Part {
        &mut self.parts[slot]
    }
}

impl Part {
    fn new(spec: ComponentSpec, policy: Policy) -> Self {
        Self {
            spec,
            state: ComponentState::Unloaded,
            since: Instant::default(),
            failure: None,
            life: 0,
            wanted: true,
            bounce: false,
            restarts: Restarts::new(policy.restart),
            monitor: Monitor::new(policy.health),
            probe: None,
        }
    }

    fn health(&self) -> Option<Health> {
        if !self.wanted {
            return None;
        }
        match self.state {
            ComponentState::Running => Some(self.monitor.health()),
            ComponentState::Failed => Some(Health::Failed),
            ComponentState::Unloaded
            | ComponentState::Loading
            | ComponentState::Loaded
            | ComponentState::Starting
            | ComponentState::Stopping
            | ComponentState::Stopped => Some(self.monitor.health().max(Health::Recovering)),
        }
    }

    fn report(&self) -> ComponentReport {
        ComponentReport {
            name: self.spec.name.clone(),
            version: self.spec.version.clone(),
            state: self.state,
            needs: self.spec.needs.clone(),
            required: self.spec.required,
            enabled: self.wanted,
            health: self.health(),
            since: self.since,
            failures: self.restarts.total(),
            circuit_open: self.restarts.is_open(),
            detail: self.failure.clone().or_else(|| self.monitor.detail().map(str::to_owned)),
        }
    }
}
