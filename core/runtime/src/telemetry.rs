//! What the node logs, on standard error, and how.

use std::fmt;
use std::io::{self, IsTerminal};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Config, Define, Setting};
use crate::output;

/// What is logged.
pub static LOG_LEVEL: Setting<String> = Setting::new(
    "log.level",
    "warn",
    "0.1.0",
    "What is logged: error, warn, info, debug or trace; also per module, as in \"warn,mobo_edge=debug\".",
);
/// How a log line looks.
pub static LOG_FORMAT: Setting<String> =
    Setting::new("log.format", "text", "0.1.0", "How a log line looks: text for people, json for collectors.").one_of(&["text", "json"]);
/// The settings of this module, for the node's list.
pub static SETTINGS: &[&dyn Define] = &[&LOG_LEVEL, &LOG_FORMAT];

/// Starts logging for the whole process. Call it once, before anything that logs.
///
/// # Errors
///
/// [`TelemetryError`] when the level is none, or logging was started before.
pub fn start(config: &Config) -> Result<(), TelemetryError> {
    let level = config.get(&LOG_LEVEL);
    let targets: Targets = level.parse().map_err(|_| TelemetryError::Level { level })?;
    let colour = io::stderr().is_terminal() && !output::no_colour();
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let started = if config.get(&LOG_FORMAT) == "json" {
        registry().with(targets).with(layer.json().flatten_event(true)).try_init()
    } else {
        registry().with(targets).with(layer.with_ansi(colour)).try_init()
    };
    started.map_err(|_| TelemetryError::Started)
}

/// Why logging did not start.
#[derive(Clone, Eq, PartialEq, thiserror::Error)]
pub enum TelemetryError {
    /// The setting `log.level` is none.
    #[error("log.level: {level:?} is no log level: use error, warn, info, debug or trace, or \"warn,mobo_edge=debug\"")]
    Level {
        /// What it said.
        level: String,
    },
    /// Something in this process logs already.
    #[error("logging was started twice: this is a mistake in the program, report it")]
    Started,
}

impl fmt::Debug for TelemetryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    #[test]
    fn levels_are_checked_and_logging_starts_once() {
        for (flags, want) in [("log.level=lo=u=d", "is no log level"), ("log.level=warn,quinn=error", ""), ("log.format=json", "twice")] {
            let sources = Sources { flags: vec![flags.to_owned()], ..Sources::default() };
            let config = Config::load(SETTINGS, &sources).unwrap();
            let error = start(&config).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(want) && error.is_empty() == want.is_empty(), "{flags}: {error}");
        }
    }
}
