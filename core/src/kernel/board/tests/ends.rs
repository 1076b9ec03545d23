//! Hanging, stopping and dying.

use super::*;

#[test]
fn what_hangs_is_cut_at_its_deadline() {
    for (verb, seconds, want) in [
        ("post", 10, "fail store self-test: no answer within 10 s\nexit 1: boot refused: store: self-test: no answer within 10 s"),
        ("load", 120, "exit 1: boot refused: store: load: no answer within 120 s"),
        ("start", 30, "exit 1: boot refused: store: start: no answer within 30 s"),
    ] {
        let mut world = World::new("store", &format!("store.{verb}=hang"));
        world.boot();
        let asked = world.now;
        assert_eq!(world.board.poll_timeout(), Some(asked.after(Duration::from_secs(seconds))));
        world.feed(Input::Timeout);
        assert!(!world.log.iter().any(|line| line.starts_with("exit")), "{verb}: too early");
        world.event("timeout");
        assert!(world.log.iter().any(|line| line == "abort store"), "{verb}");
        assert!(world.log.join("\n").ends_with(want), "{verb}: {:?}", world.log);
        assert_eq!(world.board.poll_timeout(), None);
        assert_eq!(states(&world), "failed: store=failed");
    }
}

#[test]
fn a_part_that_does_not_stop_is_cut_and_named() {
    let mut world = World::new("store gate:store", "gate.stop=hang");
    world.boot();
    world.event("stop");
    world.log.clear();
    world.event("timeout");
    assert_eq!(
        world.log,
        [
            "fail gate stop: no answer within 10 s",
            "abort gate",
            "stop store",
            "exit 1: stopped, but not cleanly: gate: stop: no answer within 10 s"
        ]
    );
}

#[test]
fn the_whole_stop_has_a_deadline_too() {
    let parts = "a b c d e";
    let hang = parts.split(' ').map(|part| format!("{part}.stop=hang")).collect::<Vec<_>>().join(" ");
    let mut world = World::new(parts, &hang);
    world.boot();
    let asked = world.now;
    world.event("stop");
    while world.board.poll_timeout().is_some() {
        world.event("timeout");
    }
    assert_eq!(world.now.since(asked), crate::limits::SHUTDOWN_TIMEOUT);
    assert_eq!(world.log.iter().filter(|line| line.starts_with("abort")).count(), 5);
    assert!(world.log.last().unwrap().starts_with("exit 1: stopped, but not cleanly: e: "));
}

#[test]
fn a_second_signal_ends_at_once_but_a_second_request_does_not() {
    let stuck = "store.stop=hang";
    let mut world = check_stuck(stuck, &["stop", "stop", "signal"]);
    assert_eq!(states(&world), "stopping: store=stopping");
    world.event("signal");
    assert_eq!(world.log.last().unwrap(), "exit 1: ended at once by a second signal");
    assert_eq!(states(&world), "failed: store=stopping");
    world.late("store", Answer::Did(Ok(())));
    assert_eq!(world.log.last().unwrap(), "exit 1: ended at once by a second signal");
}

fn check_stuck(behaviour: &str, events: &[&str]) -> World {
    let mut world = World::new("store", behaviour);
    world.boot();
    events.iter().for_each(|event| world.event(event));
    world
}

#[test]
fn a_stop_during_the_boot_cuts_what_is_under_way() {
    check(
        "store gate:store link",
        "gate.load=hang",
        &["signal"],
        "[component loading]
         load store
         load gate
         stopping: stopped
         abort gate
         stop store
         exit 0: stopped",
    );
    check("store", "store.post=hang", &["stop"], "stopping: stopped\nabort store\nexit 0: stopped");
}

#[test]
fn a_part_that_dies_on_the_way_down_makes_the_stop_unclean() {
    let mut world = World::new("store gate:store", "gate.stop=hang");
    world.boot();
    world.event("stop");
    world.log.clear();
    world.event("exit store");
    world.late("gate", Answer::Did(Ok(())));
    assert_eq!(world.log, ["fail store task: boom", "abort store", "exit 1: stopped, but not cleanly: store: task: boom"]);
}

#[test]
fn answers_that_nobody_waits_for_change_nothing() {
    let mut world = World::new("store gate:store", "gate.start=hang");
    world.boot();
    let before = (states(&world), world.log.len(), world.board.poll_timeout());
    let gate = world.asked["gate"].0;
    for input in [
        Input::Boot { checks: Vec::new(), unclean: false },
        Input::Answer { turn: world.asked["store"].0, answer: Answer::Did(Ok(())) },
        Input::Answer { turn: Turn(99), answer: Answer::Did(Ok(())) },
        Input::Answer { turn: gate, answer: Answer::Checks(Vec::new()) },
        Input::Probed { turn: gate, vital: Vital::Failing("x".into()) },
        Input::Exited { component: name("ghost"), life: 1, reason: "boom".into() },
        Input::Exited { component: name("gate"), life: 0, reason: "boom".into() },
        Input::Timeout,
    ] {
        world.feed(input);
    }
    assert_eq!((states(&world), world.log.len(), world.board.poll_timeout()), before);
}

#[test]
fn a_part_that_cannot_finish_makes_the_stop_unclean() {
    let mut world = World::new("store gate:store", "store.stop=fail");
    world.boot();
    world.log.clear();
    world.event("stop");
    let want = [
        "stopping: stopped",
        "stop gate",
        "stop store",
        "fail store stop: broken",
        "abort store",
        "exit 1: stopped, but not cleanly: store: stop: broken",
    ];
    assert_eq!(world.log, want);
    assert_eq!(states(&world), "failed: store=failed gate=stopped");
}
