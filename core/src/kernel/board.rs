//! The state machine that boots, watches and stops the parts of a node.

mod io;
mod loss;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use super::{BootOrder, Check, ComponentName, ComponentReport, ComponentSpec, ComponentState, Fault, Verdict};
use crate::limits;
use crate::time::Instant;

pub use io::{BoardState, Effect, ExitReason, Failure, Input, Stage};

/// A node's parts and where they are in their lives.
///
/// **Contract.** Feed [`Input::Boot`] once. After every [`handle`](Self::handle), call [`poll_effect`](Self::poll_effect) until it
/// gives `None` and carry the effects out in that order, then wait for the next input, at most until
/// [`poll_timeout`](Self::poll_timeout). `now` never goes backwards. At most one part is asked something at a time; answers that come
/// too late, or that nobody asked for, change nothing. After [`Effect::Exit`] the board is deaf.
#[derive(Debug)]
pub struct Board {
    /// In boot order from kernel init on.
    parts: Vec<Part>,
    phase: Phase,
    queue: VecDeque<(Work, Slot)>,
    step: Option<Step>,
    effects: VecDeque<Effect>,
    exit: Option<ExitReason>,
    unclean: Vec<Failure>,
    stop_by: Option<Instant>,
    signalled: bool,
}

#[derive(Debug)]
struct Part {
    spec: ComponentSpec,
    state: ComponentState,
    failure: Option<String>,
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

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Work {
    Check,
    Load,
    Start,
    Stop,
}

impl Work {
    const fn words(self) -> &'static str {
        match self {
            Self::Check => "self-test",
            Self::Load => "load",
            Self::Start => "start",
            Self::Stop => "stop",
        }
    }

    const fn timeout(self) -> Duration {
        match self {
            Self::Check => limits::CHECK_TIMEOUT,
            Self::Load => limits::LOAD_TIMEOUT,
            Self::Start => limits::START_TIMEOUT,
            Self::Stop => limits::STOP_TIMEOUT,
        }
    }
}

/// What a part was asked and has not answered.
#[derive(Clone, Copy, Debug)]
struct Step {
    work: Work,
    slot: Slot,
    since: Instant,
    deadline: Instant,
}

impl Board {
    /// The name under which the board shows its own checks.
    pub const NAME: ComponentName = ComponentName::fixed("board");

    /// A board that has not booted. Parts that cannot be put in order are refused in kernel init.
    #[must_use]
    pub fn new(specs: Vec<ComponentSpec>) -> Self {
        Self {
            parts: specs.into_iter().map(Part::new).collect(),
            phase: Phase::Off,
            queue: VecDeque::new(),
            step: None,
            effects: VecDeque::new(),
            exit: None,
            unclean: Vec::new(),
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
            Input::Boot { checks } => self.boot(now, checks),
            Input::Checked { component, checks } => {
                if let Some(step) = self.answered(Work::Check, &component) {
                    self.checked(step.slot, checks);
                }
            }
            Input::Loaded { component, result } => {
                if let Some(step) = self.answered(Work::Load, &component) {
                    self.advanced(now, step, result);
                }
            }
            Input::Started { component, result } => {
                if let Some(step) = self.answered(Work::Start, &component) {
                    self.advanced(now, step, result);
                }
            }
            Input::Stopped { component, result } => {
                if let Some(step) = self.answered(Work::Stop, &component) {
                    self.advanced(now, step, result);
                }
            }
            Input::Exited { component, reason } => self.exited(now, &component, reason),
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
        self.step.map(|step| step.deadline)
    }

    /// The state of the whole.
    #[must_use]
    pub fn state(&self) -> BoardState {
        match self.phase {
            Phase::Off | Phase::Post | Phase::Loading | Phase::Starting => BoardState::Booting,
            Phase::Running if self.parts.iter().any(|part| part.failure.is_some()) => BoardState::Degraded,
            Phase::Running => BoardState::Ready,
            Phase::Stopping => BoardState::Stopping,
            Phase::Done if matches!(self.exit, Some(ExitReason::Stopped)) => BoardState::Stopped,
            Phase::Done => BoardState::Failed,
        }
    }

    /// Every part, in boot order.
    #[must_use]
    pub fn report(&self) -> Vec<ComponentReport> {
        self.parts.iter().map(Part::report).collect()
    }

    fn boot(&mut self, now: Instant, checks: Vec<Check>) {
        if self.phase != Phase::Off {
            return;
        }
        self.effects.push_back(Effect::Stage(Stage::PreBoot));
        let failures: Vec<_> = checks.iter().filter(|check| check.verdict == Verdict::Fail).map(failure_of).collect();
        checks.into_iter().for_each(|check| self.show(Self::NAME, check));
        if !failures.is_empty() {
            return self.stop(now, ExitReason::Refused(failures));
        }
        self.effects.push_back(Effect::Stage(Stage::KernelInit));
        match BootOrder::of(self.parts.iter().map(|part| part.spec.clone()).collect()) {
            Ok(order) => {
                self.parts = order.into_specs().into_iter().map(Part::new).collect();
                let detail = format!("{} in order of need", self.parts.len());
                self.show(Self::NAME, Check::pass("components", detail));
                self.enter(Phase::Post, Stage::Post, Work::Check);
            }
            Err(error) => {
                let check = Check::fail("components", error.to_string(), "this is a mistake in the program: report it");
                let failure = failure_of(&check);
                self.show(Self::NAME, check);
                self.stop(now, ExitReason::Refused(vec![failure]));
            }
        }
    }

    fn enter(&mut self, phase: Phase, stage: Stage, work: Work) {
        self.phase = phase;
        self.effects.push_back(Effect::Stage(stage));
        self.queue.extend((0..self.parts.len()).map(|slot| (work, slot)));
    }

    /// Asks parts for what is queued, one after the other, and turns the phase when nothing is.
    fn proceed(&mut self, now: Instant) {
        while self.step.is_none() {
            if let Some((work, slot)) = self.queue.pop_front() {
                self.ask(now, work, slot);
                continue;
            }
            match self.phase {
                Phase::Post => self.judge(now),
                Phase::Loading => self.enter(Phase::Starting, Stage::Starting, Work::Start),
                Phase::Starting => self.ready(),
                Phase::Stopping => self.leave(),
                Phase::Off | Phase::Running | Phase::Done => return,
            }
        }
    }

    /// Asks a part for one thing, unless something that happened since it was queued makes that void.
    fn ask(&mut self, now: Instant, work: Work, slot: Slot) {
        let limit = now.after(work.timeout());
        let deadline = self.stop_by.map_or(limit, |stop_by| stop_by.min(limit));
        let part = self.part_mut(slot);
        let component = part.spec.name.clone();
        let (state, effect) = match (work, part.state) {
            (Work::Check, ComponentState::Unloaded) => (ComponentState::Unloaded, Effect::Check(component)),
            (Work::Load, ComponentState::Unloaded) => (ComponentState::Loading, Effect::Load(component)),
            (Work::Start, ComponentState::Loaded) => (ComponentState::Starting, Effect::Start(component)),
            (Work::Stop, ComponentState::Loaded | ComponentState::Running) => {
                (ComponentState::Stopping, Effect::Stop { component, deadline })
            }
            _ => return,
        };
        part.state = state;
        self.step = Some(Step { work, slot, since: now, deadline });
        self.effects.push_back(effect);
    }

    /// The open step, taken, if this is its answer.
    fn answered(&mut self, work: Work, component: &ComponentName) -> Option<Step> {
        let step = self.step?;
        let answers = step.work == work && self.part(step.slot).spec.name == *component;
        if answers { self.step.take() } else { None }
    }

    fn checked(&mut self, slot: Slot, checks: Vec<Check>) {
        let failed = checks.iter().find(|check| check.verdict == Verdict::Fail);
        self.part_mut(slot).failure = failed.map(|check| failure_of(check).reason);
        let name = self.part(slot).spec.name.clone();
        checks.into_iter().for_each(|check| self.show(name.clone(), check));
    }

    /// A part has loaded, started or stopped, or could not.
    fn advanced(&mut self, now: Instant, step: Step, result: Result<(), Fault>) {
        let took = now.since(step.since);
        if let Err(fault) = result {
            let check = Check::fail(step.work.words(), fault.reason, fault.advice).taking(took);
            return self.lose(now, step.slot, check);
        }
        let part = self.part_mut(step.slot);
        part.state = match step.work {
            Work::Check => part.state,
            Work::Load => ComponentState::Loaded,
            Work::Start => ComponentState::Running,
            Work::Stop if part.failure.is_some() => ComponentState::Failed,
            Work::Stop => ComponentState::Stopped,
        };
        let (name, detail) = (part.spec.name.clone(), part.state.word());
        self.show(name, Check::pass(step.work.words(), detail).taking(took));
    }

    fn stop(&mut self, now: Instant, reason: ExitReason) {
        if matches!(self.phase, Phase::Stopping | Phase::Done) {
            return;
        }
        self.phase = Phase::Stopping;
        self.stop_by = Some(now.after(limits::SHUTDOWN_TIMEOUT));
        let up = |slot: &Slot| matches!(self.part(*slot).state, ComponentState::Loaded | ComponentState::Running);
        self.queue = (0..self.parts.len()).rev().filter(up).map(|slot| (Work::Stop, slot)).collect();
        if self.step.is_some() || !self.queue.is_empty() {
            self.effects.push_back(Effect::Stopping(reason.clone()));
        }
        match self.step {
            Some(Step { work: Work::Check, slot, .. }) => {
                self.step = None;
                self.abort(slot);
            }
            Some(Step { work: Work::Load | Work::Start, slot, .. }) => self.cut(slot, ComponentState::Stopped),
            Some(Step { work: Work::Stop, .. }) | None => {}
        }
        self.exit = Some(reason);
    }

    fn ready(&mut self) {
        self.phase = Phase::Running;
        let degraded = self.state() == BoardState::Degraded;
        self.effects.push_back(Effect::Stage(Stage::Ready));
        self.effects.push_back(Effect::Ready { degraded });
    }

    fn leave(&mut self) {
        let asked = matches!(self.exit, Some(ExitReason::Stopped));
        if asked && !self.unclean.is_empty() {
            self.exit = Some(ExitReason::Unclean(std::mem::take(&mut self.unclean)));
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
    fn new(spec: ComponentSpec) -> Self {
        Self { spec, state: ComponentState::Unloaded, failure: None }
    }

    fn report(&self) -> ComponentReport {
        ComponentReport {
            name: self.spec.name.clone(),
            version: self.spec.version.clone(),
            state: self.state,
            needs: self.spec.needs.clone(),
            required: self.spec.required,
            detail: self.failure.clone(),
        }
    }
}

fn failure_of(check: &Check) -> Failure {
    Failure { component: Board::NAME, reason: format!("{}: {}", check.name, check.detail) }
}
