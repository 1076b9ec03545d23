//! Carries out what the board of `core` decides.

mod handle;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use mobo_core::kernel::{Board, Check, ComponentName, ComponentSpec, Effect, ExitReason, Fault, Input};
use mobo_core::limits;
use mobo_core::time::Instant;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::component::{BoxFuture, Component};
use crate::console::Console;
use crate::notify::Notifier;
use crate::tasks::{Tasks, caught};

pub use handle::{BoardHandle, BoardReport};

/// A node: its parts, and what drives them.
///
/// Make one, give its [`handle`](Self::handle) to the parts that report or stop it, [`plug`](Self::plug) the parts in, and
/// [`run`](Self::run) it. Shutdown is this list, and there is no other one:
///
/// 1. The service manager hears that the node stops; `status` says `stopping`.
/// 2. Parts stop one after the other, each before what it needs. For one part: its tasks are told to wind down
///    ([`Tasks::stopping`]); [`Component::stop`] finishes and closes; the board waits for its tasks.
/// 3. A part that is not done at its deadline is cut, and the log names the tasks that held it open.
/// 4. [`run`](Self::run) gives the reason, and with it the exit code.
pub struct Motherboard {
    title: String,
    clock: Clock,
    began: Instant,
    console: Console,
    notifier: Notifier,
    plugs: Vec<Plug>,
    checks: Vec<Check>,
    addresses: Option<Addresses>,
    /// The call that a part has not answered.
    call: Option<AbortHandle>,
    inbox: mpsc::Receiver<Input>,
    outbox: mpsc::Sender<Input>,
    report: watch::Sender<BoardReport>,
    stop: CancellationToken,
}

type Addresses = Box<dyn FnOnce() -> Vec<String> + Send>;

struct Plug {
    spec: ComponentSpec,
    component: Arc<dyn Component>,
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
            plugs: Vec::new(),
            checks: Vec::new(),
            addresses: None,
            call: None,
            inbox,
            outbox,
            report: watch::Sender::new(BoardReport::default()),
            stop: CancellationToken::new(),
        }
    }

    /// A view of this board for its parts: how it is, and how to stop it.
    #[must_use]
    pub fn handle(&self) -> BoardHandle {
        BoardHandle::new(self.report.subscribe(), self.stop.clone())
    }

    /// Adds a part. The order matters only between parts that do not need each other.
    pub fn plug(&mut self, component: impl Component) {
        self.plug_shared(Arc::new(component));
    }

    /// Adds a part that something else keeps hold of.
    pub fn plug_shared(&mut self, component: Arc<dyn Component>) {
        let spec = component.spec();
        let tasks = Tasks::new(spec.name.clone(), self.outbox.clone());
        self.plugs.push(Plug { spec, component, tasks });
    }

    /// Adds a check that the node made before there was a board: folder, lock, settings. One that failed refuses the boot.
    pub fn checked(&mut self, check: Check) {
        self.checks.push(check);
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

    async fn drive(mut self, mut signals: mpsc::Receiver<()>) -> ExitReason {
        self.console.title(&self.title);
        let mut board = Board::new(self.plugs.iter().map(|plug| plug.spec.clone()).collect());
        let mut input = Input::Boot { checks: std::mem::take(&mut self.checks) };
        loop {
            tracing::debug!(?input, "board");
            board.handle(self.clock.now(), input);
            self.report.send_replace(BoardReport { state: board.state(), components: board.report() });
            while let Some(effect) = board.poll_effect() {
                if let Some(reason) = self.act(effect) {
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
        tokio::select! {
            biased;
            Some(()) = signals.recv() => Input::Signal,
            () = self.stop.cancelled() => {
                // Heard once: the board remembers.
                self.stop = CancellationToken::new();
                Input::Stop
            }
            Some(input) = self.inbox.recv() => input,
            () = alarm => Input::Timeout,
        }
    }

    /// Carries out one effect; the last one gives the reason to leave.
    fn act(&mut self, effect: Effect) -> Option<ExitReason> {
        match effect {
            Effect::Stage(stage) => self.console.stage(stage),
            Effect::Show { component, check } => self.console.check(&component, &check),
            Effect::Check(name) => self.call(name, |part, _, component| Box::pin(check(part, component))),
            Effect::Load(name) => self.call(name, |part, _, component| {
                Box::pin(async move {
                    let result = settled(part.load()).await;
                    Input::Loaded { component, result }
                })
            }),
            Effect::Start(name) => self.call(name, |part, tasks, component| {
                Box::pin(async move {
                    let result = settled(part.start(tasks)).await;
                    Input::Started { component, result }
                })
            }),
            Effect::Stop { component, deadline } => {
                let deadline = self.clock.at(deadline);
                self.call(component, move |part, tasks, component| {
                    Box::pin(async move {
                        tasks.stopping().cancel();
                        let result = settled(part.stop(deadline)).await;
                        tasks.finished().await;
                        Input::Stopped { component, result }
                    })
                });
            }
            Effect::Abort(name) => self.abort(&name),
            Effect::Ready { degraded } => self.ready(degraded),
            Effect::Stopping(reason) => {
                self.notifier.stopping();
                self.console.stopping(&reason);
            }
            Effect::Exit(reason) => {
                self.console.exit(&reason);
                return Some(reason);
            }
        }
        None
    }

    /// Calls a part from a task of its own, so that it can neither block nor break the board; the answer comes through the inbox.
    fn call(&mut self, name: ComponentName, call: impl FnOnce(Arc<dyn Component>, Tasks, ComponentName) -> BoxFuture<'static, Input>) {
        let Some(plug) = self.plugs.iter().find(|plug| plug.spec.name == name) else { return };
        let future = call(plug.component.clone(), plug.tasks.clone(), name);
        let outbox = self.outbox.clone();
        let task = tokio::spawn(async move {
            let input = future.await;
            // A board that is over has no use for the answer.
            let _ = outbox.send(input).await;
        });
        self.call = Some(task.abort_handle());
    }

    fn abort(&mut self, name: &ComponentName) {
        // At most one call is open, and an abort comes before the next one.
        self.call.take().iter().for_each(AbortHandle::abort);
        let Some(plug) = self.plugs.iter().find(|plug| plug.spec.name == *name) else { return };
        let held_by = plug.tasks.names();
        tracing::warn!(component = %name, ?held_by, "cut");
        plug.tasks.abort();
    }

    fn ready(&mut self, degraded: bool) {
        let addresses = self.addresses.take().map(|addresses| addresses()).unwrap_or_default();
        self.console.ready(degraded, self.clock.now().since(self.began), &addresses);
        self.notifier.ready();
    }
}

impl fmt::Debug for Motherboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self.plugs.iter().map(|plug| plug.spec.name.as_str()).collect();
        f.debug_struct("Motherboard").field("title", &self.title).field("parts", &parts).finish_non_exhaustive()
    }
}

async fn check(part: Arc<dyn Component>, component: ComponentName) -> Input {
    let began = tokio::time::Instant::now();
    let mut checks = match caught(part.post()).await {
        Ok(checks) => checks,
        Err(panic) => {
            let Fault { reason, advice } = panicked(&panic);
            vec![Check::fail("self-test", reason, advice)]
        }
    };
    if let [only] = checks.as_mut_slice()
        && only.took.is_zero()
    {
        only.took = began.elapsed();
    }
    Input::Checked { component, checks }
}

async fn settled(call: BoxFuture<'_, Result<(), Fault>>) -> Result<(), Fault> {
    caught(call).await.unwrap_or_else(|panic| Err(panicked(&panic)))
}

fn panicked(panic: &str) -> Fault {
    Fault::new(format!("panicked: {panic}"), "this is a mistake in the program: report it with the log")
}
