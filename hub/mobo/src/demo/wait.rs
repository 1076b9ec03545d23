//! Waiting for something that sends no event, such as the convergence of three processes; and being told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;

/// Pause between two looks.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(25);

/// Set once somebody wants the demo to end.
#[derive(Clone, Debug, Default)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Ends every wait.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it is set.
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Fails once it is set.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.is_set() { Err(Interrupted.into()) } else { Ok(()) }
    }
}

/// Somebody wanted the demo to end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Looks until `probe` has something, and gives it. A probe that cannot look yet says why; that is told when the time is up.
pub(super) fn until<T>(
    what: &str,
    timeout: Duration,
    interrupt: &Interrupt,
    mut probe: impl FnMut() -> anyhow::Result<Look<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        interrupt.check()?;
        match probe()? {
            Look::Found(found) => return Ok(found),
            Look::NotYet(why) if Instant::now() >= deadline => bail!("waited {} s in vain for {what}: {why}", timeout.as_secs()),
            Look::NotYet(_) => std::thread::park_timeout(LOOK_AGAIN_AFTER),
        }
    }
}

/// What one look gave.
#[derive(Debug)]
pub(super) enum Look<T> {
    /// What was waited for.
    Found(T),
    /// How it stands.
    NotYet(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_what_it_waited_for_or_says_what_is_missing() {
        let (interrupt, mut looks) = (Interrupt::default(), 0);
        let found = until("three", Duration::from_secs(10), &interrupt, || {
            looks += 1;
            Ok(if looks == 3 { Look::Found(looks) } else { Look::NotYet(String::new()) })
        });
        assert_eq!(found.unwrap(), 3);
        let late = until::<()>("a miracle", Duration::ZERO, &interrupt, || Ok(Look::NotYet("2 of 3".to_owned())));
        assert_eq!(late.unwrap_err().to_string(), "waited 0 s in vain for a miracle: 2 of 3");
        let broken = until::<()>("it", Duration::from_secs(10), &interrupt, || bail!("broken"));
        assert_eq!(broken.unwrap_err().to_string(), "broken");
        interrupt.set();
        let ended = until::<()>("it", Duration::from_secs(10), &interrupt, || Ok(Look::NotYet(String::new())));
        assert!(ended.unwrap_err().is::<Interrupted>());
    }
}
