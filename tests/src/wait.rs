//! Waiting for something that sends no event, such as the convergence of three processes.

use std::time::{Duration, Instant};

/// Pause between two looks.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Looks until `probe` answers, and returns its answer.
///
/// For events, wait for the event: [`Node::wait_line`](crate::process::Node::wait_line),
/// [`Node::wait_exit`](crate::process::Node::wait_exit).
///
/// # Panics
///
/// When `timeout` has passed without an answer; the message says what was waited for.
#[track_caller]
pub fn until<T>(what: &str, timeout: Duration, probe: impl FnMut() -> Option<T>) -> T {
    until_every(what, timeout, LOOK_AGAIN_AFTER, probe)
}

/// The same, with a longer pause between two looks.
///
/// # Panics
///
/// As [`until`].
#[track_caller]
pub fn until_every<T>(what: &str, timeout: Duration, pause: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {} s in vain for {what}", timeout.as_secs_f32());
        std::thread::park_timeout(pause);
    }
}

/// Does something again, five times at most, until it was quick, and gives what came of it: a machine may be busy once, and what waits for
/// something waits each time. The attempt says how long what counts of it took.
///
/// # Panics
///
/// When each attempt took as long as `bound`, or longer.
#[track_caller]
pub fn quickly<T>(bound: Duration, mut attempt: impl FnMut(u32) -> (T, Duration)) -> T {
    let mut all = Vec::new();
    for number in 0..5 {
        let (done, took) = attempt(number);
        if took < bound {
            return done;
        }
        all.push(took);
    }
    panic!("more than {bound:?} each time: {all:?}")
}
