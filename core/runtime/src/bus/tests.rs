use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mobo_core::kernel::{ComponentName, FieldSpec, Priority};
use tokio::sync::mpsc;

use super::*;
use crate::tasks::Tasks;

static TICK: TopicSpec = TopicSpec { name: "test.tick", doc: "A tick.", priority: Priority::Low, fields: &[FieldSpec::number("n")] };
static ALARM: TopicSpec = TopicSpec { name: "test.alarm", doc: "An alarm.", priority: Priority::High, fields: &[FieldSpec::number("n")] };

fn bus() -> Bus {
    let bus = Bus::new(Clock::start().unwrap());
    bus.register(&TICK).unwrap();
    bus.register(&ALARM).unwrap();
    bus
}

fn event(topic: &'static TopicSpec, n: u64) -> Event {
    Event::new(topic, [n.into()]).unwrap()
}

fn tasks() -> Tasks {
    Tasks::detached(ComponentName::fixed("test"))
}

/// What waits for a listener, as `topic n`.
async fn heard(listener: &mut Listener, count: usize) -> Vec<String> {
    let mut heard = Vec::new();
    for _ in 0..count {
        let stamped = listener.recv().await.unwrap();
        heard.push(format!("{} {}", stamped.event.topic().name, stamped.n));
    }
    heard
}

#[tokio::test(start_paused = true)]
async fn events_reach_those_who_want_them_in_order_of_urgency() {
    let bus = bus();
    let (mut all, mut alarms) =
        (bus.listen(Wants::all("all")).unwrap(), bus.listen(Wants::all("alarms").of(Filter::parse("test.alarm"))).unwrap());
    for n in 1..=3 {
        assert_eq!(bus.publish(event(&TICK, n)), Some(n));
    }
    bus.publish(event(&ALARM, 9));
    assert_eq!(heard(&mut all, 4).await, ["test.alarm 4", "test.tick 1", "test.tick 2", "test.tick 3"]);
    assert_eq!(heard(&mut alarms, 1).await, ["test.alarm 4"]);
    bus.publish(topics::boot("hub", false));
    assert_eq!(heard(&mut all, 1).await, ["system.boot 5"]);
    drop(alarms);
    assert_eq!(bus.report().subscribers.len(), 1, "who is gone is unsubscribed");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_registered_is_not_published() {
    static GHOST: TopicSpec = TopicSpec { name: "test.ghost", doc: "", priority: Priority::Low, fields: &[] };
    let bus = bus();
    assert_eq!(bus.publish(Event::new(&GHOST, []).unwrap()), None);
    assert_eq!((bus.report().published, bus.report().refused), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn who_comes_late_hears_the_last_ones_and_then_what_follows() {
    let bus = bus();
    for n in 1..=5 {
        bus.publish(event(&TICK, n));
    }
    bus.publish(event(&ALARM, 6));
    let mut late = bus.listen(Wants { replay: 2, ..Wants::all("late").of(Filter::parse("test.tick")) }).unwrap();
    bus.publish(event(&TICK, 7));
    assert_eq!(heard(&mut late, 3).await, ["test.tick 4", "test.tick 5", "test.tick 7"]);
    let last: Vec<u64> = bus.history(&Filter::All, 2).iter().map(|stamped| stamped.n).collect();
    assert_eq!(last, [6, 7]);
    let mut one = bus.listen(Wants::all("one").once()).unwrap();
    bus.publish(event(&TICK, 8));
    assert_eq!(heard(&mut one, 1).await, ["test.tick 8"]);
    assert_eq!(one.recv().await, None);
}

/// Goal: a slow subscriber and one that panics harm neither the publisher nor others; what they miss is counted, and the urgent gets through.
/// Method: 10,000 events past a handler that never ends in time, one that panics, one that never reads, and one that works.
// faults: C-4
#[tokio::test(start_paused = true)]
async fn the_slow_and_the_panicking_harm_nobody() {
    let (bus, tasks) = (bus(), tasks());
    let stuck = |_| async { std::future::pending::<()>().await };
    let _stuck = bus.subscribe(&tasks, Wants { queue_max: 8, ..Wants::all("stuck") }, stuck).unwrap();
    // Without the panic hook, which would write ten thousand backtraces.
    let panics = |stamped: Arc<Stamped>| async move { std::panic::resume_unwind(Box::new(format!("on {}", stamped.n))) };
    let _panics = bus.subscribe(&tasks, Wants::all("panics"), panics).unwrap();
    let lazy = bus.listen(Wants { queue_max: 4, ..Wants::all("lazy") }).unwrap();
    let (sender, mut works) = mpsc::channel(10_001);
    let _works = bus
        .subscribe(&tasks, Wants::all("works"), move |stamped: Arc<Stamped>| {
            let sender = sender.clone();
            async move { sender.send(stamped.n).await.unwrap() }
        })
        .unwrap();
    for n in 1..=10_000 {
        bus.publish(event(&TICK, n));
        // The others get their turn, and so does time.
        if n % 100 == 0 {
            tokio::time::advance(Duration::from_millis(100)).await;
        }
    }
    bus.publish(event(&ALARM, 0));
    let mut got = 0;
    while works.recv().await.unwrap() != 10_001 {
        got += 1;
    }
    assert_eq!(got, 10_000, "who works hears all");
    assert_eq!(lazy.dropped(), 9_997);
    tokio::time::advance(limits::EVENT_HANDLER_TIMEOUT * 20).await;
    let report = bus.report();
    let of = |name: &str| report.subscribers.iter().find(|one| one.name == name).unwrap().clone();
    assert!(of("stuck").timed_out > 0 && of("stuck").dropped > 9_000 && of("stuck").waiting <= 8, "{:?}", of("stuck"));
    assert_eq!((of("panics").panicked, of("panics").dropped), (10_001, 0));
}

/// Goal: an alarm overtakes a full queue of lesser events.
// faults: C-4
#[tokio::test(start_paused = true)]
async fn an_alarm_waits_for_one_handler_at_most() {
    let (bus, tasks) = (bus(), tasks());
    let (sender, mut order) = mpsc::channel(300);
    let slow = move |stamped: Arc<Stamped>| {
        let sender = sender.clone();
        async move {
            tokio::time::advance(Duration::from_millis(10)).await;
            sender.send((stamped.event.topic().name, tokio::time::Instant::now())).await.unwrap();
        }
    };
    let _slow = bus.subscribe(&tasks, Wants::all("slow"), slow).unwrap();
    (0..200).for_each(|n| assert!(bus.publish(event(&TICK, n)).is_some()));
    assert_eq!(order.recv().await.unwrap().0, "test.tick");
    let began = tokio::time::Instant::now();
    bus.publish(event(&ALARM, 0));
    let (mut waited, mut ticks) = (Duration::ZERO, 0);
    while let Some((topic, at)) = order.recv().await {
        if topic == "test.alarm" {
            waited = at - began;
            break;
        }
        ticks += 1;
    }
    assert!(ticks <= 1 && waited <= Duration::from_millis(21), "{ticks} {waited:?}");
}

#[tokio::test(start_paused = true)]
async fn dropping_the_handle_cuts_the_handler_and_a_close_drains() {
    let (bus, tasks) = (bus(), tasks());
    let count = Arc::new(AtomicU64::new(0));
    let counted = |count: &Arc<AtomicU64>| {
        let count = Arc::clone(count);
        move |_: Arc<Stamped>| {
            let count = Arc::clone(&count);
            async move {
                let _ = count.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let handle = bus.subscribe(&tasks, Wants::all("a"), counted(&count)).unwrap();
    drop(handle);
    while !bus.report().subscribers.is_empty() {
        tokio::task::yield_now().await;
    }
    bus.publish(event(&TICK, 1));
    let handle = bus.subscribe(&tasks, Wants::all("b"), counted(&count)).unwrap();
    (0..5).for_each(|n| assert!(bus.publish(event(&TICK, n)).is_some()));
    bus.close().await;
    tasks.finished().await;
    assert_eq!(count.load(Ordering::Relaxed), 5);
    drop(handle);
    assert!((0..=limits::SUBSCRIBERS_MAX).map(|n| bus.listen(Wants::all(n.to_string()))).collect::<Vec<_>>().last().unwrap().is_err());
}
