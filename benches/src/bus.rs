//! The board's own speed: from publishing an event to its handler, and from a part that is plugged in to one that works.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mobo_core::kernel::{
    BoardState, Check, ComponentName, ComponentSpec, Event, ExitReason, Fault, FieldSpec, Filter, Priority, Stamped, TopicSpec,
};
use mobo_core::limits;
use mobo_runtime::bus::{Bus, Wants};
use mobo_runtime::clock::Clock;
use mobo_runtime::component::{BoxFuture, Component};
use mobo_runtime::console::Console;
use mobo_runtime::motherboard::Motherboard;
use mobo_runtime::tasks::Tasks;
use tokio::time::Instant;

use crate::report::{Report, millis, percentile, say};

/// What the founding targets ask for.
const EVENTS_PER_SECOND: u32 = 10_000;
/// Events that are published in one go, as a busy node does.
const BURST: u32 = 10;
/// Handlers that hear every event, as long as they are quick.
const HANDLERS: usize = 4;

static TICK: TopicSpec =
    TopicSpec { name: "bench.tick", doc: "A tick.", priority: Priority::Normal, fields: &[FieldSpec::number("sent_ns")] };

pub(crate) async fn run(seconds: u64, mut report: Report) -> anyhow::Result<Report> {
    events(seconds, &mut report).await?;
    registration(&mut report).await?;
    Ok(report)
}

/// A rate that is held against the clock: what was late is caught up with, and counts as late.
async fn events(seconds: u64, report: &mut Report) -> anyhow::Result<()> {
    let clock = Clock::start()?;
    let (bus, tasks) = (Bus::new(clock), Tasks::detached(ComponentName::fixed("bench")));
    bus.register(&TICK)?;
    let total = u64::from(EVENTS_PER_SECOND) * seconds;
    let took = Arc::new(Mutex::new(Vec::<Duration>::with_capacity(usize::try_from(total)? * HANDLERS)));
    let mut handles = Vec::new();
    for number in 0..HANDLERS {
        let took = Arc::clone(&took);
        let handler = move |stamped: Arc<Stamped>| {
            let sent = stamped
                .event
                .fields()
                .find_map(|(_, datum)| if let mobo_core::kernel::Datum::Number(ns) = datum { Some(*ns) } else { None });
            let ago = clock.now().since(mobo_core::time::Instant(sent.unwrap_or_default().unsigned_abs()));
            took.lock().unwrap_or_else(PoisonError::into_inner).push(ago);
            async {}
        };
        handles.push(bus.subscribe(&tasks, Wants::all(format!("handler {number}")).of(Filter::parse("bench.*")), handler)?);
    }
    // One that never ends in time, which must cost the others nothing.
    handles.push(bus.subscribe(&tasks, Wants::all("stuck"), |_| std::future::pending::<()>())?);
    // What the machine itself takes from one task to another, under the same load at the same moments.
    let (channel, mut ticks) = tokio::sync::mpsc::channel(usize::try_from(total)?);
    let bare = tokio::spawn(async move {
        let mut took = Vec::new();
        while let Some(sent) = ticks.recv().await {
            took.push(clock.now().since(sent));
        }
        took
    });
    say!("bus: {EVENTS_PER_SECOND} events/s for {seconds} s, {HANDLERS} handlers, and one that is stuck");
    let began = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_secs(1) * BURST / EVENTS_PER_SECOND);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    for _ in 0..total / u64::from(BURST) {
        pace.tick().await;
        for _ in 0..BURST {
            let now = clock.now();
            // There is room for all of them.
            let _ = channel.try_send(now);
            bus.publish(Event::new(&TICK, [now.0.into()])?);
        }
    }
    drop(channel);
    let published = began.elapsed();
    let want = usize::try_from(total)? * HANDLERS;
    let heard = || took.lock().unwrap_or_else(PoisonError::into_inner).len();
    let dropped = || bus.report().subscribers.iter().filter(|one| one.name != "stuck").map(|one| one.dropped).sum::<u64>();
    let patience = Instant::now() + Duration::from_secs(10);
    while heard() + usize::try_from(dropped())? < want && Instant::now() < patience {
        tokio::task::yield_now().await;
    }
    let mut values = std::mem::take(&mut *took.lock().unwrap_or_else(PoisonError::into_inner));
    report.put("events", total);
    report.put("events_per_second", crate::report::rounded(total as f64 / published.as_secs_f64()));
    report.put("handlers", HANDLERS);
    report.put("handled", values.len());
    report.put("dropped", dropped());
    let mut bare = bare.await?;
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
        report.put(&format!("publish_to_handler_{name}_ms"), millis(percentile(&mut values, share)));
        report.put(&format!("bare_channel_{name}_ms"), millis(percentile(&mut bare, share)));
    }
    Ok(())
}

/// A part that has nothing to do but to be there.
struct Idle(ComponentName, Arc<Mutex<Vec<(ComponentName, Instant)>>>);

impl Component for Idle {
    fn spec(&self) -> ComponentSpec {
        ComponentSpec::required(self.0.clone(), "1")
    }

    fn post(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async { Vec::new() })
    }

    fn start(&self, tasks: Tasks) -> BoxFuture<'_, Result<(), Fault>> {
        let stopping = tasks.stopping();
        tasks.spawn("idle", async move { stopping.cancelled().await });
        self.1.lock().unwrap_or_else(PoisonError::into_inner).push((self.0.clone(), Instant::now()));
        Box::pin(async { Ok(()) })
    }

    fn stop(&self, _: Instant) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
}

/// A board full of parts, from the first plug to ready and down again; and one part, restarted on the running board.
async fn registration(report: &mut Report) -> anyhow::Result<()> {
    let started = Arc::new(Mutex::new(Vec::new()));
    let mut board = Motherboard::new("bench", Clock::start()?, Console::plain(Box::new(std::io::sink())));
    let began = Instant::now();
    for number in 0..limits::COMPONENTS_MAX {
        board.plug(Idle(ComponentName::new(format!("part{number}"))?, Arc::clone(&started)));
    }
    let mut handle = board.handle();
    let (reason, figures) = tokio::join!(board.run(), async {
        handle.until(|state| state == BoardState::Ready).await;
        let ready = began.elapsed();
        let mut restarts = Vec::new();
        for _ in 0..100 {
            let (began, component) = (Instant::now(), ComponentName::fixed("part0"));
            let done = handle.command(mobo_core::kernel::Command::Restart { component, cascade: false }).await;
            restarts.push(began.elapsed());
            if done.is_err() {
                break;
            }
        }
        handle.stop();
        (ready, restarts)
    });
    anyhow::ensure!(reason == ExitReason::Stopped, "the board ended: {reason}");
    let (ready, mut restarts) = figures;
    report.put("components", limits::COMPONENTS_MAX);
    report.put("boot_ms", millis(ready));
    report.put("registration_ms", millis(ready / u32::try_from(limits::COMPONENTS_MAX)?));
    report.put("restart_p50_ms", millis(percentile(&mut restarts, 0.5)));
    report.put("restart_p99_ms", millis(percentile(&mut restarts, 0.99)));
    Ok(())
}
