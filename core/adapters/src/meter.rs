//! Who is charged for the time that a thread works.
//!
//! What one part of a node wants done is done on many threads: those of its tasks, which it shares with every other part, the one that writes
//! into a store, those that read from it, those that wait for a disk. A [`Meter`] counts the time of processors of all of it: what runs while
//! it [charges](Meter::charge) a future is its work, and takes it along to whichever thread goes on with it.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

thread_local! {
    /// Whose work this thread does now.
    static CHARGED: RefCell<Option<Meter>> = const { RefCell::new(None) };
}

/// Time of processors that was spent on one thing. Clones count together.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use mobo_adapters::meter::{Meter, carried};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let meter = Meter::default();
/// let work = async {
///     // On another thread, and charged all the same.
///     tokio::task::spawn_blocking(carried(|| (0..1_000_000_u64).map(std::hint::black_box).sum::<u64>())).await
/// };
/// assert_eq!(meter.charge(work).await.ok(), Some(499_999_500_000));
/// assert!(meter.spent() > Duration::ZERO);
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<AtomicU64>);

impl Meter {
    /// What was spent so far.
    #[must_use]
    pub fn spent(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    /// Runs a future, and counts what it takes; not what it waits. Two readings of a clock for each time that it is woken.
    pub async fn charge<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        std::future::poll_fn(|context| self.count(|| future.as_mut().poll(context))).await
    }

    /// Does work on this thread, and counts it here and nowhere else.
    fn count<T>(&self, work: impl FnOnce() -> T) -> T {
        let _counting = Counting { before: CHARGED.replace(Some(self.clone())), began: thread_time(), meter: self };
        work()
    }
}

/// Work that is counted where the caller's is, on whichever thread it is done.
pub fn carried<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let charged = Charged::now();
    move || charged.count(work)
}

/// Who is charged for what this thread does, if anybody is.
pub(crate) struct Charged(Option<Meter>);

impl Charged {
    pub(crate) fn now() -> Self {
        Self(CHARGED.with_borrow(Clone::clone))
    }

    /// Does work that is theirs.
    pub(crate) fn count<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.0 {
            Some(meter) => meter.count(work),
            None => work(),
        }
    }
}

/// Ends a count, also where the work panics.
struct Counting<'m> {
    meter: &'m Meter,
    began: Duration,
    before: Option<Meter>,
}

impl Drop for Counting<'_> {
    fn drop(&mut self) {
        let spent = thread_time().saturating_sub(self.began);
        let nanos = u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX);
        self.meter.0.fetch_add(nanos, Ordering::Relaxed);
        CHARGED.set(self.before.take());
    }
}

/// How long this thread has worked.
fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// Keeps a thread at work for a while.
    fn toil() {
        let began = thread_time();
        while thread_time() - began < Duration::from_millis(5) {}
    }

    #[tokio::test]
    async fn work_is_charged_to_who_wants_it_wherever_it_is_done() {
        let here = || async { toil() };
        let carried_away = || async { std::thread::spawn(carried(toil)).join().unwrap() };
        let not_carried = || async { std::thread::spawn(toil).join().unwrap() };
        let panics = || async { catch_unwind(AssertUnwindSafe(carried(|| [toil()].map(|()| panic!("at work"))))).unwrap_err() };
        let (least, none) = (Duration::from_millis(5), Duration::from_millis(4));

        let meter = Meter::default();
        meter.charge(here()).await;
        assert!(meter.spent() >= least);

        let meter = Meter::default();
        meter.charge(carried_away()).await;
        assert!(meter.spent() >= least);

        let meter = Meter::default();
        meter.charge(not_carried()).await;
        assert!(meter.spent() < none, "{:?}", meter.spent());

        let meter = Meter::default();
        meter.charge(panics()).await;
        assert!(meter.spent() >= least);

        // What comes behind is nobody's.
        let (meter, other) = (Meter::default(), Meter::default());
        meter.charge(other.charge(async {})).await;
        carried(toil)();
        assert!(meter.spent() < none && other.spent() < none);
    }
}
