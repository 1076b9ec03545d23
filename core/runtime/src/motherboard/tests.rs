//! Boards of scripted parts, on tokio's paused clock.

mod lives;

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use mobo_core::kernel::{BoardState, Fault};

use super::*;
use crate::component::BoxFuture;

/// Keeps what the parts did and what the console printed, in order.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    fn note(&self, line: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Write for Diary {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        text.split('\n').map(str::trim_end).filter(|line| !line.is_empty()).for_each(|line| self.note(line.to_owned()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Part {
    spec: ComponentSpec,
    how: &'static str,
    diary: Diary,
}

impl Part {
    async fn play(&self, verb: &str) -> Result<(), Fault> {
        self.diary.note(format!("{verb} {}", self.spec.name));
        match self.how.strip_prefix(verb) {
            Some(" panics") => panic!("in {verb}"),
            Some(" hangs") => std::future::pending().await,
            Some(" fails") => Err(Fault::new("broken", "mend it")),
            _ => Ok(()),
        }
    }
}

impl Component for Part {
    fn spec(&self) -> ComponentSpec {
        self.spec.clone()
    }

    fn post(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async {
            match self.play("post").await {
                Ok(()) => vec![Check::pass("self", "fine")],
                Err(fault) => vec![Check::fail("self", fault.reason, fault.advice)],
            }
        })
    }

    fn load(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(self.play("load"))
    }

    fn start(&self, tasks: Tasks) -> BoxFuture<'_, Result<(), Fault>> {
        let (how, stopping, diary) = (self.how, tasks.stopping(), self.diary.clone());
        tasks.spawn("work", async move {
            match how {
                "task panics" => panic!("in task"),
                "task leaks" => std::future::pending().await,
                _ => stopping.cancelled().await,
            }
            diary.note("task over".to_owned());
        });
        Box::pin(self.play("start"))
    }

    fn stop(&self, _deadline: tokio::time::Instant) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(self.play("stop"))
    }
}

/// A board of `(name?, how, needs)`: a name with `?` is optional.
fn board(parts: &[(&'static str, &'static str, &[&'static str])]) -> (Motherboard, Diary) {
    let diary = Diary::default();
    let mut board = Motherboard::new("mobo-test 1", Clock::start().unwrap(), Console::plain(Box::new(diary.clone())));
    for (name, how, needs) in parts {
        let needs = needs.iter().copied().map(ComponentName::fixed);
        let spec = match name.strip_suffix('?') {
            Some(name) => ComponentSpec::optional(ComponentName::fixed(name), "1"),
            None => ComponentSpec::required(ComponentName::fixed(name), "1"),
        };
        board.plug(Part { spec: spec.needing(needs), how, diary: diary.clone() });
    }
    (board, diary)
}

/// Runs a board that is asked to stop, or gets `signals`, when it is ready.
async fn run(board: Motherboard, signals: usize) -> ExitReason {
    let (sender, receiver) = mpsc::channel(2);
    let mut handle = board.handle();
    let served = |state| matches!(state, BoardState::Ready | BoardState::Degraded);
    let (reason, ()) = tokio::join!(board.drive(receiver), async {
        if handle.until(served).await.is_some() {
            for _ in 0..signals {
                sender.send(()).await.unwrap();
            }
            if signals == 0 {
                handle.stop();
                handle.stop();
            }
        }
    });
    reason
}

#[tokio::test(start_paused = true)]
async fn the_whole_way_up_and_down() {
    let (mut board, diary) = board(&[("gate", "", &["store"]), ("store", "", &[])]);
    board.checked(Check::warn("clock", "is not set", "set it"));
    board.announce(|| vec!["http://127.0.0.1:8000".to_owned()]);
    let handle = board.handle();
    assert_eq!(handle.state(), BoardState::Booting);
    assert_eq!(run(board, 0).await, ExitReason::Stopped);
    assert_eq!(handle.state(), BoardState::Stopped);
    let want = "mobo-test 1
        [1/6] pre-boot
          ! board          clock          is not set
              → set it
        [2/6] kernel init
          ✓ board          components     2 in order of need
        [3/6] POST
        post store
          ✓ store          self           fine
        post gate
          ✓ gate           self           fine
        [4/6] component loading
        load store
          ✓ store          load           loaded
        load gate
          ✓ gate           load           loaded
        [5/6] service start
        start store
          ✓ store          start          running
        start gate
          ✓ gate           start          running
        [6/6] ready
          ready (0 µs)
            http://127.0.0.1:8000
        stopping
        stop gate
        task over
          ✓ gate           stop           stopped
        stop store
        task over
          ✓ store          stop           stopped
        stopped";
    let want: Vec<_> = want.lines().map(str::trim).collect();
    let lines = diary.lines();
    assert_eq!(lines.iter().map(|line| line.trim()).collect::<Vec<_>>(), want, "\n{}", lines.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn a_panic_or_a_hang_in_one_part_is_a_fault_of_that_part() {
    for (how, why) in [
        ("post panics", "part: self-test: panicked: in post"),
        ("load panics", "part: load: panicked: in load"),
        ("start fails", "part: start: broken"),
        ("post hangs", "part: self-test: no answer within 10 s"),
        ("load hangs", "part: load: no answer within 120 s"),
        ("start hangs", "part: start: no answer within 30 s"),
    ] {
        let (required, _) = board(&[("part", how, &[])]);
        assert_eq!(run(required, 0).await.to_string(), format!("boot refused: {why}"));

        let (optional, diary) = board(&[("part?", how, &[]), ("other", "", &[])]);
        let handle = optional.handle();
        assert_eq!(run(optional, 0).await, ExitReason::Stopped, "{how}");
        assert!(diary.lines().iter().any(|line| line.contains("degraded")), "{how}");
        assert_eq!(handle.report().components.first().unwrap().state.word(), "failed", "{how}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_stop_is_cut_at_its_deadline() {
    for (how, why) in [
        ("stop hangs", "part: stop: no answer within 10 s"),
        ("task leaks", "part: stop: no answer within 10 s"),
        ("stop fails", "part: stop: broken"),
        ("stop panics", "part: stop: panicked: in stop"),
    ] {
        let (board, diary) = board(&[("other", "", &[]), ("part", how, &[])]);
        assert_eq!(run(board, 1).await.to_string(), format!("stopped, but not cleanly: {why}"));
        assert!(diary.lines().contains(&"stop other".to_owned()), "{how}: the rest is stopped in order");
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_ends_at_once() {
    let (board, diary) = board(&[("part", "stop hangs", &[])]);
    let began = tokio::time::Instant::now();
    assert_eq!(run(board, 2).await, ExitReason::Forced);
    assert_eq!(began.elapsed().as_millis(), 0);
    assert_eq!(diary.lines().last().unwrap(), "ended at once by a second signal");
}

#[tokio::test]
async fn a_real_signal_stops_in_order() {
    let (board, diary) = board(&[("part", "", &[])]);
    let mut handle = board.handle();
    let (reason, ()) = tokio::join!(board.run(), async {
        handle.until(|state| state == BoardState::Ready).await.unwrap();
        let kill = std::process::Command::new("sh").args(["-c", "kill -TERM $0", &std::process::id().to_string()]).status();
        assert!(kill.unwrap().success());
    });
    assert_eq!(reason, ExitReason::Stopped);
    assert!(diary.lines().contains(&"stop part".to_owned()));
}
