//! Settings about backups, beside the vault's address and its rate.

use std::ops::Deref;
use std::time::Duration;

use mobo_core::backup::retention::Policy;
use mobo_core::backup::schedule::Schedule;
use mobo_runtime::config::{Kind, Setting, TomlForm};

/// Which store.
pub static ENDPOINT: Setting<String> = Setting::new(
    "backup.endpoint",
    "",
    "0.1.0",
    "https://host or http://host:port of the store behind an s3:// address. Empty: AWS, in backup.region. SSL_CERT_FILE names certificates of your own.",
);
/// Which region.
pub static REGION: Setting<String> =
    Setting::new("backup.region", "us-east-1", "0.1.0", "Region of the bucket; stores of your own mostly take any.");
/// Who writes.
pub static KEY_ID: Setting<String> = Setting::new(
    "backup.key_id",
    "",
    "0.1.0",
    "Access key id of the writer: it may list, read and create objects, and should not be able to delete any.",
);
/// The writer's secret.
pub static SECRET: Setting<String> = Setting::new(
    "backup.secret",
    "",
    "0.1.0",
    "Secret access key of the writer. Better kept with `config seal backup.secret`, or in a file that MOBO_BACKUP__SECRET_FILE names.",
)
.secret();
/// Who removes.
pub static PRUNE_KEY_ID: Setting<String> = Setting::new(
    "backup.prune_key_id",
    "",
    "0.1.0",
    "Access key id of the pruner, which may delete: for `backup prune`, best given to that command alone.",
);
/// The pruner's secret.
pub static PRUNE_SECRET: Setting<String> =
    Setting::new("backup.prune_secret", "", "0.1.0", "Secret access key of the pruner, given in the same ways as backup.secret.").secret();
/// How long nobody can remove what is written.
pub static LOCK: Setting<Option<Duration>> = Setting::new(
    "backup.lock",
    "",
    "0.1.0",
    "Locks each object in a bucket with object lock for that long, as in 30d, so that nobody can remove it (mode COMPLIANCE). Empty: no lock.",
);
/// When a snapshot is taken.
pub static SCHEDULE: Setting<When> = Setting::new(
    "backup.schedule",
    "30 3 * * *",
    "0.1.0",
    "When a whole snapshot is taken: minute hour day month weekday (UTC), @hourly, @daily, @weekly, or never. What is new is shipped all the time.",
)
.hot();
/// How far the runs of many hubs are spread.
pub static JITTER: Setting<Duration> = Setting::new(
    "backup.jitter",
    "20m",
    "0.1.0",
    "Each scheduled run is later by a share of this, the same for one hub at every boot, so that many hubs do not begin at once.",
)
.hot();
/// What stays.
pub static RETENTION: Setting<Keep> = Setting::new(
    "backup.retention",
    "log=3 min=5 hourly=24 daily=7 weekly=5 monthly=12 yearly=3",
    "0.1.0",
    "Which snapshots `backup prune` keeps: the newest `log` with every moment since, the newest `min`, and one of each of the last hours, days, weeks, months, years that have one.",
)
.hot();
/// When a restore is tried.
pub static DRILL: Setting<When> = Setting::new(
    "backup.drill",
    "0 5 * * 0",
    "0.1.0",
    "When a backup is restored into scratch space, to prove that it can be: a schedule as in backup.schedule.",
)
.hot();
/// How old the last good trial may be.
pub static DRILL_AGE: Setting<Duration> = Setting::new(
    "backup.drill_age",
    "15d",
    "0.1.0",
    "How old the last good drill may be before health says `degraded`. A hub that was never drilled counts from its oldest snapshot.",
)
.hot();

/// A schedule as a value.
#[derive(Clone, Debug, Eq, PartialEq, PartialOrd)]
pub struct When(pub Schedule);

impl Deref for When {
    type Target = Schedule;

    fn deref(&self) -> &Schedule {
        &self.0
    }
}

impl Kind for When {
    const EXPECTED: &'static str =
        "a schedule: five fields such as `30 3 * * 1-5` (minute hour day month weekday, UTC), @hourly, @daily, @weekly or never";
    const FORM: TomlForm = TomlForm::Quoted;

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

/// A policy as a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq, PartialOrd)]
pub struct Keep(pub Policy);

impl Kind for Keep {
    const EXPECTED: &'static str =
        "a list such as `log=3 min=5 hourly=24 daily=7 weekly=5 monthly=12 yearly=3`, where log and min are at least 1";
    const FORM: TomlForm = TomlForm::Quoted;

    fn parse(text: &str) -> Option<Self> {
        let mut policy = Policy { log: 1, min: 1, hourly: 0, daily: 0, weekly: 0, monthly: 0, yearly: 0 };
        for part in text.split([' ', ',']).filter(|part| !part.is_empty()) {
            let (name, count) = part.split_once('=')?;
            let place = match name {
                "log" => &mut policy.log,
                "min" => &mut policy.min,
                "hourly" => &mut policy.hourly,
                "daily" => &mut policy.daily,
                "weekly" => &mut policy.weekly,
                "monthly" => &mut policy.monthly,
                "yearly" => &mut policy.yearly,
                _ => return None,
            };
            *place = count.parse().ok()?;
        }
        (policy.log > 0 && policy.min > 0).then_some(Self(policy))
    }
}

#[cfg(test)]
mod tests {
    use mobo_runtime::config::Define;

    use super::*;

    #[test]
    fn every_default_is_what_core_has() {
        assert_eq!(Keep::parse(RETENTION.definition().default), Some(Keep(Policy::default())));
        for setting in [&SCHEDULE, &DRILL] {
            assert!(When::parse(setting.definition().default).is_some_and(|when| !when.is_never()));
        }
        for (text, ok) in
            [("min=2", true), ("log=1,min=1", true), ("", true), ("min=0", false), ("log=0", false), ("often=1", false), ("min=x", false)]
        {
            assert_eq!(Keep::parse(text).is_some(), ok, "{text}");
        }
    }
}
