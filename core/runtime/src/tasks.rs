//! Named, supervised tasks: a panic has an owner, and whoever holds a stop open has a name.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mobo_core::kernel::{ComponentName, Input};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::motherboard::Message;

/// The tasks of one part. Clones share them.
///
/// There are two kinds. A **service** ([`spawn`](Self::spawn)) is what the part lives by: when it ends before the board stops the part,
/// however it ends, the part has failed and is started again later. A **job** ([`spawn_job`](Self::spawn_job)) is one conversation or one
/// piece of work: it may end, and its panic is logged and harms nobody. Both should end soon after [`stopping`](Self::stopping) is cancelled.
#[derive(Clone)]
pub struct Tasks(Arc<Shared>);

struct Shared {
    component: ComponentName,
    life: u64,
    stopping: CancellationToken,
    tracker: TaskTracker,
    running: Mutex<Running>,
    inbox: mpsc::Sender<Message>,
}

#[derive(Default)]
struct Running {
    next: u64,
    /// Everything was cut: what comes later is cut as well.
    cut: bool,
    by_number: BTreeMap<u64, (String, Option<AbortHandle>)>,
}

impl Tasks {
    pub(crate) fn new(component: ComponentName, life: u64, inbox: mpsc::Sender<Message>) -> Self {
        Self(Arc::new(Shared {
            component,
            life,
            stopping: CancellationToken::new(),
            tracker: TaskTracker::new(),
            running: Mutex::default(),
            inbox,
        }))
    }

    /// Tasks that belong to no board, for the test of one part: a service that ends is not reported to anybody.
    #[must_use]
    pub fn detached(component: ComponentName) -> Self {
        Self::new(component, 0, mpsc::channel(1).0)
    }

    /// Spawns a task that the part lives by.
    pub fn spawn<F>(&self, name: impl Into<String>, service: F)
    where
        F: Future<Output: Outcome> + Send + 'static,
    {
        let (name, shared) = (name.into(), self.0.clone());
        self.track(name.clone(), async move {
            let reason = match caught(service).await {
                Ok(outcome) if shared.stopping.is_cancelled() => return log_late(&shared.component, &name, outcome),
                Ok(outcome) => match outcome.trouble() {
                    Some(trouble) => format!("task {name} failed: {trouble}"),
                    None => format!("task {name} ended"),
                },
                Err(panic) => format!("task {name} panicked: {panic}"),
            };
            let (component, life) = (shared.component.clone(), shared.life);
            // A board that is over has no use for the news.
            let _ = shared.inbox.send(Message::Input(Input::Exited { component, life, reason })).await;
        });
    }

    /// Spawns a task that may end: a connection, a request, a sweep. The caller bounds how many there are.
    pub fn spawn_job<F>(&self, name: impl Into<String>, job: F)
    where
        F: Future<Output: Outcome> + Send + 'static,
    {
        let (name, component) = (name.into(), self.0.component.clone());
        self.track(name.clone(), async move {
            match caught(job).await {
                Ok(outcome) => log_late(&component, &name, outcome),
                Err(panic) => tracing::error!(%component, task = name, panic, "a job panicked"),
            }
        });
    }

    /// The part that they belong to.
    pub(crate) fn component(&self) -> &ComponentName {
        &self.0.component
    }

    /// Cancelled when the part is to stop: take no new work, finish what is begun.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.0.stopping.clone()
    }

    /// The names of the tasks that still run, oldest first.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.running().by_number.values().map(|(name, _)| name.clone()).collect()
    }

    /// Waits until every task is over. Tasks spawned meanwhile count.
    pub async fn finished(&self) {
        self.0.tracker.close();
        self.0.tracker.wait().await;
    }

    /// Cuts every task at its next await.
    pub fn abort(&self) {
        self.0.stopping.cancel();
        let mut running = self.running();
        running.cut = true;
        for (_, handle) in running.by_number.values() {
            handle.iter().for_each(AbortHandle::abort);
        }
    }

    fn track(&self, name: String, task: impl Future<Output = ()> + Send + 'static) {
        let number = {
            let mut running = self.running();
            running.next += 1;
            let number = running.next;
            running.by_number.insert(number, (name, None));
            number
        };
        let entry = Entry { shared: self.0.clone(), number };
        // Boxed: each kind of task would be code of its own in the program.
        let task: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            let _entry = entry;
            task.await;
        });
        let handle = self.0.tracker.spawn(task);
        // The task may be over by now, and its entry gone.
        let mut running = self.running();
        if running.cut {
            handle.abort();
        }
        if let Some((_, slot)) = running.by_number.get_mut(&number) {
            *slot = Some(handle.abort_handle());
        }
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("component", &self.0.component).field("running", &self.names()).finish()
    }
}

/// Takes its task off the list however the task ends.
struct Entry {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.shared.running.lock().unwrap_or_else(PoisonError::into_inner).by_number.remove(&self.number);
    }
}

/// How a task may end: with nothing, or with a result.
pub trait Outcome: Send {
    /// What went wrong; `None` when nothing did.
    fn trouble(self) -> Option<String>;
}

impl Outcome for () {
    fn trouble(self) -> Option<String> {
        None
    }
}

impl<E: fmt::Display + Send> Outcome for Result<(), E> {
    fn trouble(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}

fn log_late(component: &ComponentName, task: &str, outcome: impl Outcome) {
    if let Some(trouble) = outcome.trouble() {
        tracing::warn!(%component, task, trouble, "a task ended with an error");
    }
}

/// Runs a future to its end; a panic becomes its message.
pub(crate) async fn caught<F: Future>(future: F) -> Result<F::Output, String> {
    let mut future = pin!(future);
    poll_fn(move |context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => std::task::Poll::Ready(Err(message(panic.as_ref()))),
    })
    .await
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks() -> (Tasks, mpsc::Receiver<Message>) {
        let (inbox, outbox) = mpsc::channel(4);
        (Tasks::new(ComponentName::fixed("part"), 1, inbox), outbox)
    }

    async fn poison() {
        panic!("at {}", 7);
    }

    #[tokio::test]
    async fn a_service_that_ends_is_reported_however_it_ends() {
        let (tasks, mut reports) = tasks();
        let mut reason = async || match reports.recv().await {
            Some(Message::Input(Input::Exited { reason, life: 1, .. })) => reason,
            _ => panic!("no report"),
        };
        tasks.spawn("listener", async {});
        assert_eq!(reason().await, "task listener ended");
        tasks.spawn("listener", async { Err::<(), _>("port gone") });
        assert_eq!(reason().await, "task listener failed: port gone");
        tasks.spawn("listener", poison());
        assert_eq!(reason().await, "task listener panicked: at 7");
        tasks.finished().await;
        assert_eq!(tasks.names(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn jobs_and_services_that_wind_down_are_not() {
        let (tasks, mut reports) = tasks();
        tasks.spawn_job("request", poison());
        tasks.spawn_job("request", async { Err::<(), _>("gone") });
        let stopping = tasks.stopping();
        tasks.spawn("listener", async move { stopping.cancelled().await });
        tasks.stopping().cancel();
        tasks.finished().await;
        drop(tasks);
        assert!(reports.recv().await.is_none());
    }

    #[tokio::test]
    async fn what_holds_a_stop_open_has_a_name_and_can_be_cut() {
        let (tasks, _reports) = tasks();
        tasks.spawn("stuck", std::future::pending::<()>());
        tasks.spawn_job("stuck too", std::future::pending::<()>());
        assert_eq!(tasks.names(), ["stuck", "stuck too"]);
        tasks.abort();
        tasks.finished().await;
        assert_eq!(tasks.names(), Vec::<String>::new());
        // One that is spawned in the moment of the cut does not live on.
        tasks.spawn_job("late", std::future::pending::<()>());
        tasks.finished().await;
        assert_eq!(tasks.names(), Vec::<String>::new());
    }
}
