//! Parts that fail, are ill, are commanded and swapped while the board serves; nothing here waits for real.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mobo_core::kernel::{ComponentState, Datum, Filter, Health, Stamped, Vital};

use super::*;
use crate::bus::Wants;
use crate::config::Sources;

/// A part that is as its switches say, and counts what is done to it.
#[derive(Default)]
struct Lamp {
    name: &'static str,
    needs: Vec<ComponentName>,
    panics: AtomicBool,
    hangs: AtomicBool,
    starts: AtomicU64,
    configured: AtomicU64,
    refuses: AtomicBool,
    verified: AtomicU64,
    beats: AtomicU64,
    place: Mutex<String>,
}

impl Lamp {
    fn new(name: &'static str, needs: &[&'static str]) -> Arc<Self> {
        let needs = needs.iter().copied().map(ComponentName::fixed).collect();
        Arc::new(Self { name, needs, ..Self::default() })
    }

    fn starts(&self) -> u64 {
        self.starts.load(Ordering::Relaxed)
    }
}

/// The same part for the board and for the test.
struct Shared(Arc<Lamp>);

impl Component for Shared {
    fn spec(&self) -> ComponentSpec {
        ComponentSpec::required(ComponentName::fixed(self.0.name), "1").needing(self.0.needs.clone())
    }

    fn configure(&self, _: &Config) -> Result<(), Fault> {
        self.0.configured.fetch_add(1, Ordering::Relaxed);
        if self.0.refuses.load(Ordering::Relaxed) {
            return Err(Fault::new("too bright", "choose less than 100"));
        }
        Ok(())
    }

    fn post(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async { Vec::new() })
    }

    fn verify(&self) -> BoxFuture<'_, Vec<Check>> {
        self.0.verified.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Vec::new() })
    }

    fn start(&self, tasks: Tasks) -> BoxFuture<'_, Result<(), Fault>> {
        self.0.starts.fetch_add(1, Ordering::Relaxed);
        let (lamp, stopping) = (Arc::clone(&self.0), tasks.stopping());
        tasks.spawn("light", async move {
            let mut second = tokio::time::interval(Duration::from_secs(1));
            for beat in 0_u64.. {
                tokio::select! {
                    _ = second.tick() => lamp.beats.fetch_add(1, Ordering::Relaxed),
                    () = stopping.cancelled() => return,
                };
                assert!(beat < 3 || !lamp.panics.load(Ordering::Relaxed), "after three seconds");
            }
        });
        Box::pin(async { Ok(()) })
    }

    fn health(&self) -> BoxFuture<'_, Vital> {
        Box::pin(async {
            if self.0.hangs.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            Vital::Fine
        })
    }

    fn swap(&self, address: String) -> BoxFuture<'_, Result<String, Fault>> {
        Box::pin(async move {
            if !address.starts_with("folder:") {
                return Err(Fault::new(format!("{address} is no folder"), "write folder:///path"));
            }
            *self.0.place.lock().unwrap() = address;
            Ok("in use until the next boot".to_owned())
        })
    }

    fn listens(&self) -> Vec<String> {
        Some(self.0.place.lock().unwrap().clone()).filter(|place| !place.is_empty()).into_iter().collect()
    }

    fn stop(&self, _: tokio::time::Instant) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
}

fn dark() -> Motherboard {
    Motherboard::new("mobo-test 1", Clock::start().unwrap(), Console::plain(Box::new(io::sink())))
}

/// Boots lamps, lets `play` do as it likes once they serve, stops the board.
async fn with<F: Future<Output = ()>>(lamps: &[&Arc<Lamp>], play: impl FnOnce(BoardHandle) -> F) -> ExitReason {
    let mut board = dark();
    lamps.iter().for_each(|lamp| board.plug(Shared(Arc::clone(lamp))));
    let (_signal, signals) = mpsc::channel(1);
    let mut handle = board.handle();
    let (reason, ()) = tokio::join!(board.drive(signals), async {
        handle.until(|state| state == BoardState::Ready).await.unwrap();
        play(handle.clone()).await;
        handle.stop();
    });
    reason
}

fn state(handle: &BoardHandle, name: &str) -> ComponentState {
    handle.report().components.iter().find(|part| part.name.as_str() == name).unwrap().state
}

fn start(name: &'static str, cascade: bool) -> Command {
    Command::Start { component: ComponentName::fixed(name), cascade }
}

fn field(stamped: &Stamped, name: &str) -> Option<String> {
    let (_, datum) = stamped.event.fields().find(|(field, _)| *field == name)?;
    if let Datum::Text(text) = datum { Some(text.clone()) } else { None }
}

/// Goal: a part that panics every 3 s never takes the board down, is left alone after so many times, and comes back on command; its
/// neighbour does not miss a beat.
// faults: C-1
#[tokio::test(start_paused = true)]
async fn a_part_that_panics_every_three_seconds_disturbs_nobody() {
    let (bad, good) = (Lamp::new("bad", &[]), Lamp::new("good", &[]));
    bad.panics.store(true, Ordering::Relaxed);
    let tries = u64::try_from(limits::RESTART_FAILURES_MAX).unwrap();
    let reason = with(&[&bad, &good], async |handle: BoardHandle| {
        let mut circuit = handle.bus().listen(Wants::all("test").of(Filter::parse("component.circuit"))).unwrap();
        circuit.recv().await.unwrap();
        assert_eq!(bad.starts(), tries);
        let beats = good.beats.load(Ordering::Relaxed);
        tokio::time::advance(Duration::from_secs(60)).await;
        tokio::time::timeout(Duration::from_millis(500), std::future::pending::<()>()).await.unwrap_err();
        assert_eq!(bad.starts(), tries, "it is left alone");
        assert!(good.beats.load(Ordering::Relaxed) >= beats + 60);
        assert_eq!((handle.state(), state(&handle, "good"), good.starts()), (BoardState::Critical, ComponentState::Running, 1));
        let report = handle.report().components.remove(0);
        assert!(report.circuit_open && report.detail.unwrap().contains("panicked: after three seconds"));
        bad.panics.store(false, Ordering::Relaxed);
        let done = handle.command(start("bad", false)).await.unwrap();
        assert_eq!(done.moved, [ComponentName::fixed("bad")]);
        assert_eq!(handle.state(), BoardState::Ready);
    })
    .await;
    assert_eq!(reason, ExitReason::Stopped);
}

/// Goal: a part that hangs in `health` is found out and restarted, and nothing else is touched.
// faults: C-5
#[tokio::test(start_paused = true)]
async fn a_part_that_hangs_in_health_is_restarted() {
    let (bad, good) = (Lamp::new("bad", &[]), Lamp::new("good", &[]));
    let reason = with(&[&bad, &good], async |handle: BoardHandle| {
        let mut health = handle.bus().listen(Wants::all("test").of(Filter::parse("health.*"))).unwrap();
        bad.hangs.store(true, Ordering::Relaxed);
        let mut seen = Vec::new();
        while seen.last().map(String::as_str) != Some("healthy") {
            seen.extend(field(&health.recv().await.unwrap(), "to"));
            bad.hangs.store(seen.len() < 3, Ordering::Relaxed);
        }
        assert_eq!(seen, ["degraded", "critical", "failed", "recovering", "healthy"]);
        assert_eq!((bad.starts(), good.starts(), handle.report().health), (2, 1, Health::Healthy));
    })
    .await;
    assert_eq!(reason, ExitReason::Stopped);
}

#[tokio::test(start_paused = true)]
async fn operators_stop_start_restart_and_swap_parts() {
    let (store, gate) = (Lamp::new("store", &[]), Lamp::new("gate", &["store"]));
    let reason = with(&[&store, &gate], async |handle: BoardHandle| {
        let component = || ComponentName::fixed("store");
        let refused = handle.command(Command::Stop { component: component(), cascade: false }).await.unwrap_err();
        assert_eq!(refused.to_string(), "store is needed by gate: stop them first, or say --cascade");
        handle.command(Command::Stop { component: component(), cascade: true }).await.unwrap();
        assert_eq!((state(&handle, "store"), state(&handle, "gate")), (ComponentState::Stopped, ComponentState::Stopped));
        assert_eq!((handle.state(), handle.report().health_word()), (BoardState::Degraded, "degraded"));
        let refused = handle.command(start("gate", false)).await.unwrap_err();
        assert_eq!(refused.to_string(), "gate needs store: start them first, or say --cascade");
        handle.command(start("gate", true)).await.unwrap();
        handle.command(Command::Restart { component: component(), cascade: true }).await.unwrap();
        assert_eq!((store.starts(), gate.starts(), handle.state()), (3, 3, BoardState::Ready));
        let swap = |address: &str| Command::Swap { component: component(), address: address.to_owned() };
        let refused = handle.command(swap("s3://x")).await.unwrap_err();
        assert_eq!(refused.to_string(), "store was not swapped: s3://x is no folder: write folder:///path");
        let done = handle.command(swap("folder:///x")).await.unwrap();
        assert_eq!(done.said.as_deref(), Some("in use until the next boot"));
        assert_eq!((store.starts(), handle.report().listens[&component()].as_slice()), (3, ["folder:///x".to_owned()].as_slice()));
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        handle.bus().history(&Filter::All, 1_000).iter().for_each(|stamped| *seen.entry(stamped.event.topic().name).or_default() += 1);
        assert_eq!((seen["system.boot"], seen["system.ready"], seen["component.swap"]), (1, 1, 1), "{seen:?}");
    })
    .await;
    assert_eq!(reason, ExitReason::Stopped);
}

/// Goal: what the board remembers of a run that ended badly makes the next one look closer, and a torn memory stops no boot.
// faults: S-14
#[tokio::test(start_paused = true)]
async fn a_boot_after_a_crash_verifies_and_a_torn_memory_stops_no_boot() {
    let folder = tempfile::tempdir().unwrap();
    let boot = async |signals_sent: usize| {
        let (state, was_clean) = State::open(folder.path());
        let lamp = Lamp::new("store", &[]);
        let mut board = dark();
        board.plug(Shared(Arc::clone(&lamp)));
        board.remembers(state, was_clean);
        let handle = board.handle();
        run(board, signals_sent).await;
        (lamp.verified.load(Ordering::Relaxed) > 0, handle.report().unclean)
    };
    assert_eq!(boot(2).await, (false, false), "a new folder was never run");
    assert_eq!(boot(1).await, (true, true), "after a second signal");
    assert_eq!(boot(0).await, (false, false), "after a clean stop");
    for slot in ["state.0", "state.1"] {
        std::fs::write(folder.path().join(slot), "torn").unwrap();
    }
    assert_eq!(boot(0).await, (true, true), "with a memory that nobody can read");
    assert_eq!(boot(0).await, (false, false));
}

#[tokio::test(start_paused = true)]
async fn parts_take_their_settings_before_they_test_themselves() {
    let lamp = Lamp::new("lamp", &[]);
    let mut board = dark();
    board.plug(Shared(Arc::clone(&lamp)));
    board.configured(Config::load(health::SETTINGS, &Sources::default()).unwrap());
    assert_eq!(run(board, 0).await, ExitReason::Stopped);
    assert_eq!(lamp.configured.load(Ordering::Relaxed), 1);
}

/// Goal: new values of hot settings reach every part; one that cannot take them is named, and goes on.
#[tokio::test(start_paused = true)]
async fn parts_take_new_settings_while_they_run() {
    let (bright, dim) = (Lamp::new("bright", &[]), Lamp::new("dim", &[]));
    let mut board = dark();
    [&bright, &dim].iter().for_each(|lamp| board.plug(Shared(Arc::clone(lamp))));
    board.configured(Config::load(health::SETTINGS, &Sources::default()).unwrap());
    let (_signal, signals) = mpsc::channel(1);
    let mut handle = board.handle();
    let (reason, ()) = tokio::join!(board.drive(signals), async {
        handle.until(|state| state == BoardState::Ready).await.unwrap();
        bright.refuses.store(true, Ordering::Relaxed);
        let mut refused = handle.bus().listen(Wants::all("test").of(Filter::parse("component.settings"))).unwrap();
        handle.settings_changed();
        let event = refused.recv().await.unwrap();
        let told = ["component", "reason", "advice"].map(|name| field(&event, name).unwrap());
        assert_eq!(told, ["bright", "too bright", "choose less than 100"]);
        assert_eq!([&bright, &dim].map(|lamp| lamp.configured.load(Ordering::Relaxed)), [2, 2]);
        assert_eq!([&bright, &dim].map(|lamp| lamp.starts()), [1, 1], "nobody was restarted");
        handle.stop();
    });
    assert_eq!(reason, ExitReason::Stopped);
}
