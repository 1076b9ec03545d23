//! What the node logs, where and how.

mod rotate;

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, registry, reload};

use crate::config::{ByteSize, Config, Define, Kind, Setting, TomlForm};
use crate::output;
use rotate::RotatingFile;

/// What is logged.
pub static LOG_LEVEL: Setting<Levels> = Setting::new(
    "log.level",
    "warn",
    "0.1.0",
    "What is logged: error, warn, info, debug or trace; also per module, as in \"warn,mobo_edge=debug\".",
)
.hot();
/// How a log line looks.
pub static LOG_FORMAT: Setting<String> =
    Setting::new("log.format", "text", "0.1.0", "How a log line looks: text for people, json for collectors.").one_of(&["text", "json"]);
/// Where the log goes.
pub static LOG_FILE: Setting<Option<String>> =
    Setting::new("log.file", "", "0.1.0", "A file for the log, which is kept within the next two bounds. Empty: standard error.");
/// When the log file is put aside.
pub static LOG_FILE_BYTES: Setting<ByteSize> =
    Setting::new("log.file_bytes_max", "16MiB", "0.1.0", "Size at which the log file is put aside and a new one begun.")
        .within("64KiB", "4GiB");
/// How many log files there are.
pub static LOG_FILES: Setting<i64> =
    Setting::new("log.files_max", "5", "0.1.0", "Log files that are kept, the current one among them; the oldest is removed.")
        .within("1", "100");
/// The settings of this module, for the node's list.
pub static SETTINGS: &[&dyn Define] = &[&LOG_LEVEL, &LOG_FORMAT, &LOG_FILE, &LOG_FILE_BYTES, &LOG_FILES];

/// What is logged, per module: a value of `log.level`.
#[derive(Clone, Debug)]
pub struct Levels(Targets);

impl PartialEq for Levels {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl PartialOrd for Levels {
    fn partial_cmp(&self, _: &Self) -> Option<std::cmp::Ordering> {
        // No levels are more than others.
        None
    }
}

impl Kind for Levels {
    const EXPECTED: &'static str = "a log level: use error, warn, info, debug or trace, or \"warn,mobo_edge=debug\"";
    const FORM: TomlForm = TomlForm::Quoted;

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

/// The levels of this process, to be changed while it runs.
static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Starts logging for the whole process. Call it once, before anything that logs.
///
/// # Errors
///
/// [`TelemetryError`] when the log file cannot be opened, or logging was started before.
pub fn start(config: &Config) -> Result<(), TelemetryError> {
    let Some(path) = config.get(&LOG_FILE) else {
        let is_terminal = io::stderr().is_terminal() && !output::no_colour();
        return install(config, io::stderr, is_terminal);
    };
    let (bytes_max, files_max) = (config.get(&LOG_FILE_BYTES).0, config.get(&LOG_FILES));
    match RotatingFile::open(path.clone().into(), bytes_max, files_max) {
        Ok(file) => install(config, file, false),
        Err(error) => Err(TelemetryError::File { path, reason: error.to_string() }),
    }
}

/// Takes the level that the settings have now. Of no effect before logging was started.
pub fn adjust(config: &Config) {
    if let Some(filter) = FILTER.get() {
        let Levels(targets) = config.get(&LOG_LEVEL);
        // It fails only once logging is over, at the end of the process.
        let _ = filter.reload(targets);
    }
}

fn install<W>(config: &Config, writer: W, colour: bool) -> Result<(), TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let Levels(targets) = config.get(&LOG_LEVEL);
    let (filter, handle) = reload::Layer::new(targets);
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let started = if config.get(&LOG_FORMAT) == "json" {
        registry().with(filter).with(layer.json().flatten_event(true)).try_init()
    } else {
        registry().with(filter).with(layer.with_ansi(colour)).try_init()
    };
    started.map_err(|_| TelemetryError::Started)?;
    let _ = FILTER.set(handle);
    Ok(())
}

/// Why logging did not start.
#[derive(Clone, Eq, PartialEq, thiserror::Error)]
pub enum TelemetryError {
    /// The log file cannot be opened.
    #[error("log.file: {path} cannot be opened ({reason}): give this user the right to write there, or leave log.file empty")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
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

    fn config(flag: String) -> Config {
        Config::load(SETTINGS, &Sources { flags: vec![flag], ..Sources::default() }).unwrap()
    }

    #[test]
    fn levels_are_checked_with_the_other_settings() {
        assert!(SETTINGS.iter().all(|setting| setting.sound().is_none()));
        let bad = Sources { flags: vec!["log.level=lo=u=d".to_owned()], ..Sources::default() };
        let problems = Config::load(SETTINGS, &bad).unwrap_err().to_string();
        assert!(problems.contains("log.level: \"lo=u=d\" is not a log level: use error, warn"), "{problems}");
    }

    #[test]
    fn logging_starts_once_in_a_file_and_takes_another_level() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = config(format!("log.file={}", folder.path().display()));
        assert!(start(&nowhere).unwrap_err().to_string().contains("cannot be opened"));
        let path = folder.path().join("log");
        start(&config(format!("log.file={}", path.display()))).unwrap();
        tracing::info!("first");
        adjust(&config("log.level=info".to_owned()));
        tracing::info!("second");
        assert_eq!(start(&config("log.format=json".to_owned())), Err(TelemetryError::Started));
        let log = std::fs::read_to_string(path).unwrap();
        assert!(!log.contains("first") && log.contains("second"), "{log}");
    }
}
