use super::super::restart::Dice;
use super::*;
use crate::limits;

/// Plays rounds: `.` fine, `w` worn, `x` failing, `-` no answer. Gives each change as `at_s state`.
fn play(policy: HealthPolicy, rounds: &str) -> (Monitor, Vec<String>) {
    let mut monitor = Monitor::new(policy);
    let mut now = Instant::default();
    let mut said = Vec::new();
    monitor.watch(now, policy.interval);
    for round in rounds.chars() {
        loop {
            now = monitor.poll_timeout().unwrap();
            assert!(monitor.is_due(now) && !monitor.is_late(now));
            let deadline = monitor.asked(now);
            let vital = match round {
                '.' => Vital::Fine,
                'w' => Vital::Worn("worn".to_owned()),
                'x' => Vital::Failing("broken".to_owned()),
                _ => {
                    now = deadline;
                    assert!(monitor.is_late(now));
                    monitor.silence()
                }
            };
            let change = monitor.answered(now, vital);
            said.extend(change.map(|change| format!("{} {}", now.since(Instant::default()).as_secs(), change.to)));
            if !monitor.is_due(now) {
                break;
            }
        }
    }
    (monitor, said)
}

fn policy(retries: u32) -> HealthPolicy {
    HealthPolicy { retries, ..HealthPolicy::default() }
}

#[track_caller]
fn check(rounds: &str, want: &[&str]) {
    let (_, said) = play(policy(0), rounds);
    let states: Vec<&str> = said.iter().filter_map(|line| line.split(' ').next_back()).collect();
    assert_eq!(states, want, "{rounds}");
}

#[test]
fn the_way_down_and_up() {
    check("...", &[]);
    check("xxx...", &["degraded", "critical", "failed", "recovering", "healthy"]);
    check("xxxxxxxx...", &["degraded", "critical", "failed", "recovering", "healthy"]);
    check("x...", &["degraded", "healthy"]);
    check("xx...", &["degraded", "critical", "healthy"]);
    check("xxx.xx.xx.xx", &["degraded", "critical", "failed", "recovering"]);
    check("xxx.xxx", &["degraded", "critical", "failed", "recovering", "failed"]);
    check("w.w.www...", &["degraded", "healthy"]);
    check("xxxwww...", &["degraded", "critical", "failed", "recovering", "degraded", "healthy"]);
    check("xxwww...", &["degraded", "critical", "degraded", "healthy"]);
}

#[test]
fn a_hang_is_noticed_in_time_and_a_retry_forgives_a_slip() {
    let (monitor, said) = play(policy(1), "---");
    assert_eq!(said, ["20 degraded", "40 critical", "60 failed"]);
    assert_eq!(policy(1).notices_within(), Duration::from_secs(60));
    assert_eq!(monitor.detail(), Some("no answer to a health check within 5 s"));
    let mut monitor = Monitor::new(policy(1));
    monitor.watch(Instant(0), Duration::ZERO);
    for vital in [Vital::Failing("slip".to_owned()), Vital::Fine] {
        monitor.asked(Instant(0));
        assert_eq!(monitor.answered(Instant(0), vital), None);
    }
    assert_eq!((monitor.health(), monitor.changes()), (Health::Healthy, 0));
}

#[test]
fn a_part_that_failed_is_asked_to_mend_itself_now_and_then() {
    let wants: String = (1..=9).map(|rounds| if play(policy(0), &"x".repeat(rounds)).0.wants_recovery() { 'r' } else { '.' }).collect();
    assert_eq!(wants, "..r..r..r");
    assert!(!play(policy(0), "xxx.").0.wants_recovery());
}

#[test]
fn a_restart_is_a_recovery_and_a_stop_is_nothing() {
    let mut monitor = Monitor::new(policy(0));
    let change = monitor.lost("panicked".to_owned()).unwrap();
    assert_eq!((change.from, change.to, change.detail.as_deref()), (Health::Healthy, Health::Failed, Some("panicked")));
    assert_eq!(monitor.poll_timeout(), None);
    assert_eq!(monitor.watch(Instant(0), Duration::ZERO).unwrap().to, Health::Recovering);
    let mut calm = Monitor::new(policy(0));
    calm.watch(Instant(0), Duration::ZERO);
    calm.pause();
    assert_eq!((calm.answered(Instant(0), Vital::Failing(String::new())), calm.health()), (None, Health::Healthy));
}

/// Goal: whatever a part answers, its health does not flap.
/// Method: a thousand random rows of answers, and rows that stay near a threshold; in no minute are there more changes than the limit.
// faults: C-3
#[test]
fn no_answers_make_it_flap() {
    let mut rows: Vec<String> = ["x.", "xx.", "xxx.", "x..", "x...", "w.", "w...", "xxx.xx", "xxx...", "xxxwww", "xxw.."]
        .iter()
        .map(|row| row.repeat(60))
        .collect();
    let mut dice = Dice::new(7);
    rows.extend((0..1_000).map(|_| (0..120).map(|_| ['.', 'x', 'w', '-'][usize::try_from(dice.roll() % 4).unwrap()]).collect()));
    for row in rows {
        let (_, said) = play(policy(0), &row);
        let at: Vec<u64> = said.iter().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
        let most = at.iter().map(|first| at.iter().filter(|other| (*first..*first + 60).contains(other)).count()).max();
        assert!(most.unwrap_or(0) <= limits::HEALTH_CHANGES_PER_MINUTE_MAX, "{most:?} in {row}: {said:?}");
    }
}
