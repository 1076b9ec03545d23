//! Parts that fail, are restarted, are stopped by operators, and are ill, while the board serves.

use super::*;
use crate::limits;

/// Boots the parts, forgets the boot, plays the events; the log must be `want`, line by line, and so the answers to commands.
#[track_caller]
fn serve(parts: &str, behaviour: &str, events: &[&str], want: &[&str]) -> World {
    let mut world = World::new(parts, "");
    world.boot();
    world.log.clear();
    world.behave_as(behaviour);
    events.iter().for_each(|event| world.event(event));
    assert_eq!(world.log, want, "\n{}", world.log.join("\n"));
    world
}

#[test]
fn a_part_that_dies_is_started_again_and_so_is_what_needs_it() {
    let world = serve(
        "store gate:store link",
        "",
        &["exit store", "wait 2"],
        &[
            "fail store task: boom",
            "abort store",
            "store healthy -> failed",
            "warn gate need: needs store, which failed",
            "store restarts later",
            "stop gate",
            "load store",
            "start store",
            "store failed -> recovering",
            "load gate",
            "start gate",
        ],
    );
    assert_eq!(states(&world), "ready: store=running gate=running link=running");
    assert_eq!((world.board.health(), world.lives["store"], world.lives["link"]), (Health::Recovering, 2, 1));
    assert!(world.board.report().iter().all(|part| part.failures == u64::from(part.name.as_str() == "store")));
}

#[test]
fn without_a_required_part_the_board_is_critical_and_goes_on() {
    let world = serve(
        "store gate:store mqtt?",
        "mqtt.load=fail store.start=hang",
        &["exit mqtt"],
        &["fail mqtt task: boom", "abort mqtt", "mqtt healthy -> failed", "mqtt restarts later"],
    );
    assert_eq!((states(&world).as_str(), world.board.health()), ("degraded: store=running gate=running mqtt=failed", Health::Degraded));
    let mut world = world;
    world.event("exit store");
    assert!(states(&world).starts_with("critical: store=failed gate=failed"), "{}", states(&world));
    assert_eq!(world.board.health(), Health::Failed);
    world.wait(Duration::from_secs(3));
    assert!(states(&world).starts_with("critical: store=starting gate=failed mqtt="), "{}", states(&world));
}

#[test]
fn a_task_of_an_earlier_life_changes_nothing() {
    let mut world = serve("gate", "", &["do restart gate"], &["stop gate", "load gate", "start gate"]);
    world.feed(Input::Exited { component: name("gate"), life: 1, reason: "late".into() });
    assert_eq!(states(&world), "ready: gate=running");
    assert_eq!(world.answers, ["1: ok gate"]);
}

/// Goal: a part that panics every 3 s is restarted with growing pauses, is left alone when it has done so too often, disturbs nobody, and
/// works again when an operator says so.
// faults: C-1
#[test]
fn a_part_that_panics_every_three_seconds_opens_its_circuit_and_harms_nobody() {
    let mut world = World::new("store bad? gate:store", "");
    world.boot();
    world.log.clear();
    let (mut panics, began) = (0_usize, world.now);
    while world.now.since(began) < Duration::from_secs(600) {
        world.wait(Duration::from_secs(3));
        if states(&world).contains("bad=running") && world.now.since(began) < Duration::from_secs(500) {
            world.event("exit bad");
            panics += 1;
        }
    }
    assert_eq!(panics, limits::RESTART_FAILURES_MAX);
    let opened = format!("bad circuit open=true after {panics}");
    assert_eq!(world.log.iter().filter(|line| line.contains("circuit")).collect::<Vec<_>>(), [&opened]);
    assert_eq!(world.log.iter().filter(|line| *line == "start bad").count(), panics - 1);
    assert_eq!(states(&world), "degraded: store=running bad=failed gate=running");
    assert!(!world.log.iter().any(|line| line.contains("store") || line.contains("gate")), "{:?}", world.log);
    let bad = world.board.report().remove(1);
    assert_eq!((bad.circuit_open, bad.detail.as_deref()), (true, Some("task: boom")));

    world.log.clear();
    world.event("do start bad");
    assert_eq!(world.log, ["bad circuit open=false after 8", "load bad", "start bad", "bad failed -> recovering"]);
    assert_eq!(world.answers, ["1: ok bad"]);
    assert_eq!(states(&world), "ready: store=running bad=running gate=running");
}

#[test]
fn an_open_circuit_is_tried_now_and_then_when_nobody_is_there() {
    let mut world = World::new("bad?", "");
    world.boot();
    world.behave_as("bad.start=fail");
    world.event("exit bad");
    world.wait(Duration::from_secs(600));
    let tries = |world: &World| world.log.iter().filter(|line| *line == "start bad").count();
    assert_eq!((tries(&world), world.board.report()[0].circuit_open), (limits::RESTART_FAILURES_MAX, true));
    world.wait(limits::CIRCUIT_RETRY);
    assert_eq!(tries(&world), limits::RESTART_FAILURES_MAX + 1);
    world.behave_as("");
    world.wait(limits::CIRCUIT_RETRY + limits::RESTART_STEADY * 2);
    assert_eq!(states(&world), "ready: bad=running");
    assert!(!world.board.report()[0].circuit_open && world.log.contains(&"bad circuit open=false after 9".to_owned()), "{:?}", world.log);
}

/// Goal: a part that hangs in its health check is noticed, asked to mend itself, and restarted, in bounded time; others go on.
// faults: C-5
#[test]
fn a_part_that_hangs_is_found_out_and_restarted_in_time() {
    let mut world = World::new("store gate:store", "");
    world.boot();
    world.log.clear();
    world.behave_as("gate.health=hang gate.recover=hang gate.stop=hang");
    let bound = HealthPolicy::default().notices_within() + limits::RECOVER_TIMEOUT + limits::RESTART_PAUSE_MIN;
    world.wait(bound);
    let want = [
        "gate healthy -> degraded",
        "gate degraded -> critical",
        "gate critical -> failed",
        "recover gate",
        "fail gate recover: no answer within 10 s",
        "abort gate",
        "gate restarts later",
        "load gate",
        "start gate",
        "gate failed -> recovering",
    ];
    assert_eq!(world.log, want, "within {bound:?}");
    world.behave_as("");
    world.wait(Duration::from_secs(60));
    assert_eq!((world.log.last().unwrap().as_str(), world.board.health()), ("gate recovering -> healthy", Health::Healthy));
}

#[test]
fn a_part_that_mends_itself_is_not_restarted() {
    let mut world = World::new("store", "");
    world.boot();
    world.log.clear();
    world.behave_as("store.health=fail");
    world.wait(Duration::from_secs(65));
    world.behave_as("");
    world.wait(Duration::from_secs(60));
    let want = [
        "store healthy -> degraded",
        "store degraded -> critical",
        "store critical -> failed",
        "recover store",
        "recover store",
        "store failed -> recovering",
        "store recovering -> healthy",
    ];
    assert_eq!((world.log.as_slice(), world.lives["store"]), (want.map(str::to_owned).as_slice(), 1));
}

#[test]
fn a_part_that_leaks_its_stop_deadline_is_cut_and_started_again() {
    let world = serve(
        "store gate:store",
        "gate.stop=hang",
        &["do restart gate", "wait 9", "wait 2"],
        &[
            "stop gate",
            "fail gate stop: no answer within 10 s",
            "abort gate",
            "gate healthy -> failed",
            "load gate",
            "start gate",
            "gate failed -> recovering",
        ],
    );
    assert_eq!((states(&world).as_str(), world.answers.join(" ")), ("ready: store=running gate=running", "1: ok gate".to_owned()));
    let world = serve(
        "store gate:store",
        "gate.stop=hang",
        &["do stop gate", "wait 11"],
        &["stop gate", "fail gate stop: no answer within 10 s", "abort gate", "gate healthy -> failed"],
    );
    assert_eq!((states(&world).as_str(), world.answers.join(" ")), ("degraded: store=running gate=failed", "1: ok gate".to_owned()));
}

/// What is commanded, what the board does, what it answers, and how it ends.
type Case = (&'static [&'static str], &'static [&'static str], &'static [&'static str], &'static str);

#[test]
fn commands_keep_to_the_order_of_need() {
    let parts = "control! store gate:store mqtt?";
    let cases: &[Case] = &[
        (&["do stop gate"], &["stop gate"], &["ok gate"], "degraded: control=running store=running gate=stopped mqtt=running"),
        (
            &["do stop gate", "do start gate"],
            &["stop gate", "load gate", "start gate"],
            &["ok gate", "ok gate"],
            "ready: control=running store=running gate=running mqtt=running",
        ),
        (
            &["do stop store"],
            &[],
            &["store is needed by gate: stop them first, or say --cascade"],
            "ready: control=running store=running gate=running mqtt=running",
        ),
        (
            &["do stop store --cascade"],
            &["stop gate", "stop store"],
            &["ok store,gate"],
            "degraded: control=running store=stopped gate=stopped mqtt=running",
        ),
        (
            &["do stop store --cascade", "do start gate", "do start gate --cascade"],
            &["stop gate", "stop store", "load store", "start store", "load gate", "start gate"],
            &["ok store,gate", "gate needs store: start them first, or say --cascade", "ok store,gate"],
            "ready: control=running store=running gate=running mqtt=running",
        ),
        (
            &["do restart store --cascade"],
            &["stop gate", "stop store", "load store", "start store", "load gate", "start gate"],
            &["ok store,gate"],
            "ready: control=running store=running gate=running mqtt=running",
        ),
        (&["do start gate"], &[], &["ok "], "ready: control=running store=running gate=running mqtt=running"),
        (
            &["do stop gaet"],
            &[],
            &["there is no component \"gaet\"; perhaps you meant \"gate\""],
            "ready: control=running store=running gate=running mqtt=running",
        ),
        (
            &["do stop control"],
            &[],
            &["control cannot be stopped by itself: it carries this command"],
            "ready: control=running store=running gate=running mqtt=running",
        ),
        (
            &["stop", "do stop gate"],
            &["stopping: stopped", "stop mqtt", "stop gate", "stop store", "stop control", "exit 0: stopped"],
            &[],
            "stopped: control=stopped store=stopped gate=stopped mqtt=stopped",
        ),
    ];
    for (events, log, answers, end) in cases {
        let world = serve(parts, "", events, log);
        let answers: Vec<_> = answers.iter().zip(1..).map(|(answer, n)| format!("{n}: {answer}")).collect();
        assert_eq!((&world.answers, states(&world).as_str()), (&answers, *end), "{events:?}");
    }
}

#[test]
fn what_an_operator_stopped_stays_stopped() {
    let world = serve(
        "store gate:store",
        "",
        &["exit gate", "do stop gate", "wait 100"],
        &["fail gate task: boom", "abort gate", "gate healthy -> failed", "gate restarts later"],
    );
    assert_eq!((states(&world).as_str(), world.answers.join(" ")), ("degraded: store=running gate=failed", "1: ok gate".to_owned()));
    let report = world.board.report().remove(1);
    assert_eq!((report.enabled, report.health), (false, None));
}

#[test]
fn commands_hear_how_they_end() {
    let failing = |event: &'static str, behaviour: &str| {
        let mut world = World::new("store vault?:store", "");
        world.boot();
        world.behave_as(behaviour);
        world.event(event);
        world
    };
    for (event, behaviour, want) in [
        ("do restart vault", "vault.load=fail", "1: vault failed: load: broken"),
        ("do restart vault", "vault.start=fail", "1: vault failed: start: broken"),
        ("do swap vault folder:///x", "", "1: ok vault (now folder:///x)"),
        ("do swap vault folder:///x", "vault.swap=fail", "1: vault was not swapped: broken: mend it"),
    ] {
        assert_eq!(failing(event, behaviour).answers, [want], "{event} {behaviour}");
    }
    let mut world = failing("do swap vault folder:///x", "vault.swap=hang");
    world.event("do stop vault");
    world.event("do swap ghost x");
    world.event("exit vault");
    assert_eq!(
        world.answers,
        ["1: there is no component \"ghost\"", "1: vault is failed: start it first", "1: ok vault"].map(str::to_owned),
        "a part that dies takes its swap along, and is stopped as wished"
    );
    let mut world = failing("do swap vault folder:///x", "vault.swap=hang");
    world.wait(limits::SWAP_TIMEOUT);
    assert_eq!(world.answers, ["1: vault was not swapped: no answer within 30 s"]);
    assert_eq!(states(&world), "ready: store=running vault=running");
    let mut world = failing("do swap vault folder:///x", "vault.swap=hang");
    world.event("stop");
    assert_eq!(world.answers, ["1: the board is stopping"]);
    assert_eq!(states(&world), "stopped: store=stopped vault=stopped");
}

#[test]
fn commands_wait_in_a_bounded_line() {
    let mut world = World::new("a b", "");
    world.boot();
    world.behave_as("a.stop=hang");
    for _ in 0..=limits::COMMANDS_MAX {
        world.event("do restart a");
    }
    assert_eq!(world.answers, ["1: 16 commands are under way already: wait for one of them"]);
    world.event("do restart b");
    world.wait(limits::STOP_TIMEOUT);
    assert_eq!(world.answers.len(), limits::COMMANDS_MAX + 2, "{:?}", world.answers);
}

#[test]
fn after_a_crash_parts_verify_what_they_own() {
    let crashed = |behaviour: &str| {
        let mut world = World::new("store cache?", behaviour);
        world.unclean = true;
        world.boot();
        world
    };
    let world = crashed("");
    assert_eq!(world.log[1], "warn board last stop: this node was not shut down cleanly");
    let asked: Vec<_> = world.log.iter().filter(|line| line.contains("store")).collect();
    assert_eq!(asked, ["load store", "verify store", "start store"]);
    let world = crashed("store.verify=fail");
    assert_eq!(world.log.last().unwrap(), "exit 1: boot refused: store: self: broken");
    let world = crashed("cache.verify=fail");
    assert_eq!(states(&world), "degraded: store=running cache=failed");
    let mut world = crashed("store.verify=hang");
    world.wait(limits::VERIFY_TIMEOUT);
    assert_eq!(states(&world), "ready: store=running cache=running", "what takes too long is no refusal");
}

#[test]
fn an_optional_part_that_failed_its_self_test_is_tried_again() {
    let mut world = World::new("store mqtt?", "mqtt.post=fail");
    world.boot();
    assert_eq!(states(&world), "degraded: store=running mqtt=failed");
    world.wait(Duration::from_secs(1));
    assert_eq!(states(&world), "ready: store=running mqtt=running");
}

/// Goal: whatever happens in whatever order, the board does not turn in circles, never asks two things at once, and stops in time.
#[test]
fn random_lives_end_well() {
    let verbs = ["start", "stop", "restart", "swap"];
    let hows = ["ok", "fail", "hang", "warn"];
    let parts = ["a", "b", "c", "d"];
    for seed in 0..300 {
        let mut dice = Dice::new(seed);
        let mut pick = |many: usize| usize::try_from(dice.roll()).unwrap() % many;
        let mut world = World::new("a b:a c?:b d?", "");
        world.boot();
        for _ in 0..60 {
            match pick(4) {
                0 => world.event(&format!("exit {}", parts[pick(4)])),
                1 => {
                    let cascade = ["x", "--cascade"][pick(2)];
                    world.order(&format!("{} {} {cascade}", verbs[pick(4)], parts[pick(4)]));
                }
                2 => {
                    let asks = ["load", "start", "stop", "health", "recover", "swap"];
                    let behaviour: Vec<_> = (0..4).map(|_| format!("{}.{}={}", parts[pick(4)], asks[pick(6)], hows[pick(4)])).collect();
                    world.behave_as(&behaviour.join(" "));
                }
                _ => world.wait(Duration::from_millis(u64::try_from(pick(30_000)).unwrap())),
            }
        }
        world.behave_as("");
        world.event("stop");
        world.wait(limits::SHUTDOWN_TIMEOUT);
        assert!(world.log.last().unwrap().starts_with("exit "), "seed {seed}: {:?}", world.log.last());
        assert_eq!(world.board.poll_timeout(), None);
    }
}
