//! The settings of the health checks.

use std::time::Duration;

use mobo_core::kernel::HealthPolicy;

use crate::config::{Config, Define, Setting};

/// How often each part is asked.
pub static INTERVAL: Setting<Duration> =
    Setting::new("health.interval", "10s", "0.1.0", "How often each component is asked how it is.").within("100ms", "1h");
/// How long it may take.
pub static TIMEOUT: Setting<Duration> =
    Setting::new("health.timeout", "5s", "0.1.0", "Longest wait for its answer; none by then counts as a failing one.")
        .within("50ms", "1h");
/// How often it may slip.
pub static RETRIES: Setting<i64> =
    Setting::new("health.retries", "1", "0.1.0", "How often a failing answer is asked for again before it counts.").within("0", "10");
/// When it has failed.
pub static FAILURES: Setting<i64> = Setting::new(
    "health.failures",
    "3",
    "0.1.0",
    "Failing answers in a row after which a component counts as failed; after one it is degraded, half-way it is critical.",
)
.within("1", "100");
/// When it is believed again.
pub static RECOVERIES: Setting<i64> =
    Setting::new("health.recoveries", "3", "0.1.0", "Good answers in a row after which a component counts as healthy again.")
        .within("1", "100");

/// All of them.
pub static SETTINGS: &[&dyn Define] = &[&INTERVAL, &TIMEOUT, &RETRIES, &FAILURES, &RECOVERIES];

/// What the settings say.
#[must_use]
pub fn policy(config: &Config) -> HealthPolicy {
    let number = |setting: &Setting<i64>| u32::try_from(config.get(setting)).unwrap_or(u32::MAX);
    HealthPolicy {
        interval: config.get(&INTERVAL),
        timeout: config.get(&TIMEOUT),
        retries: number(&RETRIES),
        failed_after: number(&FAILURES),
        recovered_after: number(&RECOVERIES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    #[test]
    fn the_defaults_are_those_of_the_kernel() {
        SETTINGS.iter().for_each(|setting| assert_eq!(setting.sound(), None));
        let config = Config::load(SETTINGS, &Sources::default()).unwrap();
        assert_eq!(policy(&config), HealthPolicy::default());
    }
}
