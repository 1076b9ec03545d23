//! Carries out what the board of `core` decides.

mod calls;
mod handle;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mobo_core::kernel::{
    Board, Check, Command, CommandId, ComponentName, ComponentSpec, Done, Effect, ExitReason, Input, News, Policy, Refusal, Turn, topics,
};
use mobo_core::limits;
use mobo_core::time::Instant;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::clock::Clock;
use crate::component::Component;
use crate::config::Config;
use crate::console::Console;
use crate::notify::Notifier;
use crate::state::State;
use crate::tasks::Tasks;
use crate::{entropy, health};

pub use handle::{BoardHandle, BoardReport};

/// A node: its parts, and what drives them.
///
/// Make one, give its [`handle`](Self::handle) to the parts that report or stop it, [`plug`](Self::plug) the parts in, and
/// [`run`](Self::run) it. Shutdown is this list, and there is no other one; its deadlines are in `mobo_core::kernel::SHUTDOWN`:
///
/// 1. The service manager hears that the node stops; `status` says `stopping`; health checks and restarts end, and commands that wait for a
///    part are told.
/// 2. Parts stop one after the other, each before what it needs. For one part: its tasks are told to wind down
///    ([`Tasks::stopping`]); [`Component::stop`] finishes and closes; the board waits for its tasks, and after a while the log names those
///    that hold it open.
/// 3. A part that is not done at its deadline is cut, and the log names the tasks that held it open.
/// 4. Subscribers of the bus hear the last events.
/// 5. What the node remembers says that it was stopped cleanly, if it was.
/// 6. [`run`](Self::run) gives the reason, and with it the exit code.
pub struct Motherboard {
    title: String,
    clock: Clock,
    began: Instant,
    console: Console,
    notifier: Notifier,
    bus: Bus,
    plugs: Vec<Plug>,
    checks: Vec<Check>,
    config: Option<Config>,
    state: Option<State>,
    unclean: bool,
    addresses: Option<Addresses>,
    /// The call that a part has not answered.
    call: Option<(ComponentName, AbortHandle)>,
    probes: BTreeMap<Turn, AbortHandle>,
    replies: BTreeMap<CommandId, (Command, Reply)>,
    commands: u64,
    inbox: mpsc::Receiver<Message>,
    outbox: mpsc::Sender<Message>,
    report: watch::Sender<BoardReport>,
    stop: CancellationToken,
    /// When to tell the service manager that the node is alive; `None` while nobody asks.
    pulse: Option<tokio::time::Interval>,
}

type Addresses = Box<dyn FnOnce() -> Vec<String> + Send>;
type Reply = oneshot::Sender<Result<Done, Refusal>>;

/// What reaches the board from its parts and from operators.
pub(crate) enum Message {
    Input(Input),
    Command(Command, Reply),
    /// Hot settings have new values.
    Settings,
}

struct Plug {
    spec: ComponentSpec,
    component: Arc<dyn Component>,
    /// Those of its life of now.
    tasks: Tasks,
}

impl Motherboard {
    /// A board without parts. `title` is the first line that people see, as in `mobo-edge 0.1.0`.
    #[must_use]
    pub fn new(title: impl Into<String>, clock: Clock, console: Console) -> Self {
        let (outbox, inbox) = mpsc::channel(limits::BOARD_QUEUE_MAX);
        Self {
            title: title.into(),
            clock,
            began: clock.now(),
            console,
            notifier: Notifier::from_env(),
            bus: Bus::new(clock),
            plugs: Vec::new(),
            checks: Vec::new(),
            config: None,
            state: None,
            unclean: false,
            addresses: None,
            call: None,
            probes: BTreeMap::new(),
            replies: BTreeMap::new(),
            commands: 0,
            inbox,
            outbox,
            report: watch::Sender::new(BoardReport::default()),
            stop: CancellationToken::new(),
            pulse: None,
        }
    }

    /// A view of this board for its parts: how it is, what happens, and how to stop it.
    #[must_use]
    pub fn handle(&self) -> BoardHandle {
        BoardHandle::new(self.report.subscribe(), self.stop.clone(), self.outbox.clone(), (self.bus.clone(), self.clock))
    }

    /// Adds a part. The order matters only between parts that do not need each other.
    pub fn plug(&mut self, component: impl Component) {
        self.plug_shared(Arc::new(component));
    }

    /// Adds a part that something else keeps hold of.
    pub fn plug_shared(&mut self, component: Arc<dyn Component>) {
        let spec = component.spec();
        let tasks = Tasks::new(spec.name.clone(), 0, self.outbox.clone());
        self.plugs.push(Plug { spec, component, tasks });
    }

    /// Adds a check that the node made before there was a board: folder, lock, settings. One that failed refuses the boot.
    pub fn checked(&mut self, check: Check) {
        self.checks.push(check);
    }

    /// The settings that parts take in [`Component::configure`], and that say how parts are watched.
    pub fn configured(&mut self, config: Config) {
        self.config = Some(config);
    }

    /// What the node remembers of its last boot, and whether that ended cleanly: the board adds to it, and says at its end how it ended. After
    /// an unclean end parts verify what they own.
    pub fn remembers(&mut self, state: State, was_clean: bool) {
        (self.state, self.unclean) = (Some(state), !was_clean);
    }

    /// What to print once the board is ready: the addresses, a line each. Called then, when ports are known.
    pub fn announce(&mut self, addresses: impl FnOnce() -> Vec<String> + Send + 'static) {
        self.addresses = Some(Box::new(addresses));
    }

    /// Boots, serves until asked to stop, and stops.
    ///
    /// SIGTERM and SIGINT stop in order; a second one of either leaves the process at once, with code 1, and does not return.
    pub async fn run(mut self) -> ExitReason {
        let (sender, signals) = mpsc::channel(2);
        let listener = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(mut terminate), Ok(mut interrupt)) => Some(tokio::spawn(async move {
                loop {
                    tokio::select! {
                        _ = terminate.recv() => {}
                        _ = interrupt.recv() => {}
                    }
                    // Only a board that is over, or that has two signals to read, does not take it.
                    let _ = sender.try_send(());
                }
            })),
            (Err(error), _) | (_, Err(error)) => {
                let advice = "without signals the node could not be stopped: raise the limit on open files";
                self.checked(Check::fail("signals", format!("cannot be watched: {error}"), advice));
                None
            }
        };
        let reason = self.drive(signals).await;
        listener.iter().for_each(|listener| listener.abort());
        if reason == ExitReason::Forced {
            std::process::exit(reason.code().into());
        }
        reason
    }

    /// The same inside another program, whose signals are its own: only [`BoardHandle::stop`] stops it.
    pub async fn run_embedded(self) -> ExitReason {
        let (_sender, signals) = mpsc::channel(1);
        self.drive(signals).await
    }

    async fn drive(mut self, mut signals: mpsc::Receiver<()>) -> ExitReason {
        self.pulse = Notifier::watchdog().map(tokio::time::interval);
        self.console.title(&self.title);
        let node = self.title.split(' ').next().unwrap_or_default();
        self.bus.publish(topics::boot(node, self.unclean));
        let policy = Policy { health: self.config.as_ref().map(health::policy).unwrap_or_default(), ..Policy::default() };
        let seed = entropy::bytes().map_or(0, u64::from_le_bytes);
        let mut board = Board::new(self.plugs.iter().map(|plug| plug.spec.clone()).collect(), policy, seed);
        let mut input = Input::Boot { checks: std::mem::take(&mut self.checks), unclean: self.unclean };
        loop {
            tracing::trace!(?input, "board");
            board.handle(self.clock.now(), input);
            self.publish(&board);
            while let Some(effect) = board.poll_effect() {
                if let Some(reason) = self.act(&board, effect) {
                    self.end(&reason).await;
                    return reason;
                }
            }
            input = self.next(board.poll_timeout(), &mut signals).await;
        }
    }

    async fn next(&mut self, timeout: Option<Instant>, signals: &mut mpsc::Receiver<()>) -> Input {
        let alarm = async {
            match timeout {
                Some(instant) => tokio::time::sleep_until(self.clock.at(instant)).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(alarm);
        loop {
            tokio::select! {
                biased;
                Some(()) = signals.recv() => return Input::Signal,
                () = self.stop.cancelled() => {
                    // Heard once: the board remembers.
                    self.stop = CancellationToken::new();
                    return Input::Stop;
                }
                () = beat(self.pulse.as_mut()) => self.notifier.alive(),
                Some(message) = self.inbox.recv() => match message {
                    Message::Input(input) => return input,
                    Message::Command(command, reply) => {
                        self.commands += 1;
                        let id = CommandId(self.commands);
                        self.replies.insert(id, (command.clone(), reply));
                        return Input::Command { id, command };
                    }
                    Message::Settings => self.reconfigure(),
                },
                // Last: what has been answered by now is not late, however long this process stood still.
                () = &mut alarm => return Input::Timeout,
            }
        }
    }

    fn publish(&self, board: &Board) {
        let listens = |plug: &Plug| (plug.spec.name.clone(), plug.component.listens());
        let report = BoardReport {
            state: board.state(),
            health: board.health(),
            components: board.report(),
            unclean: self.unclean,
            listens: self.plugs.iter().map(listens).collect(),
        };
        self.report.send_if_modified(|known| {
            let changed = *known != report;
            *known = report;
            changed
        });
    }

    /// Carries out one effect; the last one gives the reason to leave.
    fn act(&mut self, board: &Board, effect: Effect) -> Option<ExitReason> {
        match effect {
            Effect::Stage(stage) => self.console.stage(stage),
            Effect::Show { component, check } => self.console.check(&component, &check),
            Effect::Ask { turn, component, ask, life, deadline } => self.ask((turn, life), &component, ask, deadline),
            Effect::Probe { turn, component, .. } => self.probe(turn, &component),
            Effect::CutProbe(turn) => self.probes.remove(&turn).iter().for_each(AbortHandle::abort),
            Effect::Abort(name) => self.abort(&name),
            Effect::Drop(name) => {
                tracing::warn!(component = %name, "a call was cut");
                self.drop_call(&name);
            }
            Effect::Answered { id, result } => self.answered(id, result),
            Effect::Tell(news) => self.tell(&news),
            Effect::Ready { degraded } => self.ready(board, degraded),
            Effect::Stopping(reason) => {
                self.notifier.stopping();
                self.bus.publish(topics::stopping(&reason));
                self.console.stopping(&reason);
            }
            Effect::Exit(reason) => {
                self.console.exit(&reason);
                return Some(reason);
            }
        }
        None
    }

    fn tell(&mut self, news: &News) {
        match news {
            News::State { component, from, to, detail } => {
                tracing::debug!(%component, from = from.word(), to = to.word(), detail, "component");
            }
            News::Health { component, from, to, detail } => tracing::info!(%component, %from, %to, detail, "health changed"),
            News::Restart { component, failures, pause } => {
                tracing::warn!(%component, failures, pause_ms = pause.as_millis(), "a component failed and is started again");
                self.remember(component, *pause);
            }
            News::Circuit { component, open: true, failures } => {
                tracing::error!(%component, failures, "a component failed too often: its circuit is open until `component start {component}`");
            }
            News::Circuit { component, open: false, .. } => tracing::info!(%component, "the circuit of a component is closed"),
        }
        self.bus.publish(topics::news(news));
    }

    fn remember(&mut self, component: &ComponentName, pause: Duration) {
        let report = self.report.borrow();
        let part = report.components.iter().find(|part| part.name == *component);
        let reason = part.and_then(|part| part.detail.clone()).unwrap_or_default();
        drop(report);
        if let Some(state) = &mut self.state {
            state.restarted(component.as_str(), &reason, u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
        }
    }

    fn ready(&mut self, board: &Board, degraded: bool) {
        let took = self.clock.now().since(self.began);
        let addresses = self.addresses.take().map(|addresses| addresses()).unwrap_or_default();
        self.console.ready(degraded, took, &addresses);
        self.notifier.ready();
        self.bus.publish(topics::ready(board.state(), took));
    }

    async fn end(&mut self, reason: &ExitReason) {
        if *reason == ExitReason::Forced {
            return;
        }
        self.bus.close().await;
        if let Some(state) = self.state.as_mut().filter(|_| *reason == ExitReason::Stopped) {
            state.stopped();
        }
    }
}

impl fmt::Debug for Motherboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self.plugs.iter().map(|plug| plug.spec.name.as_str()).collect();
        f.debug_struct("Motherboard").field("title", &self.title).field("parts", &parts).finish_non_exhaustive()
    }
}

async fn beat(pulse: Option<&mut tokio::time::Interval>) {
    match pulse {
        Some(pulse) => drop(pulse.tick().await),
        None => std::future::pending().await,
    }
}
