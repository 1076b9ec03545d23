//! The verbs about settings.

use std::io::{self, IsTerminal, Read};
use std::path::Path;

use mobo_core::{limits, names};
use serde_json::{Map, Value, json};

use super::{ask, show};
use crate::config::{self, Config, Define, Problems, Secrecy, Sources};
use crate::output::{Failure, Format, exit, print};
use crate::{health, metrics, secrets, telemetry};

/// A node's own settings, and those that this crate brings.
fn all(own: &'static [&'static dyn Define]) -> impl Iterator<Item = &'static &'static dyn Define> {
    own.iter().chain(metrics::SETTINGS).chain(telemetry::SETTINGS).chain(health::SETTINGS)
}

/// Loads the settings of this process: the node's own, and those of metrics and logging.
///
/// # Errors
///
/// All problems in one, exit code 2; nothing was started.
pub fn load(settings: &'static [&'static dyn Define], flags: &[String], file: Option<&Path>, data_dir: &Path) -> Result<Config, Failure> {
    let sources = Sources::of_process(flags.to_vec(), file.map(Path::to_owned), data_dir);
    Config::load(all(settings), &sources).map_err(|problems| misconfigured(&problems))
}

fn misconfigured(problems: &Problems) -> Failure {
    let hint = "`config example` prints every setting with its meaning";
    Failure::usage(problems.to_string(), hint)
}

/// Prints the settings in force; secrets are not shown.
///
/// # Errors
///
/// When standard output cannot be written to.
pub fn show_config(config: &Config, format: Format, origin: bool) -> Result<(), Failure> {
    let row = |shown: &config::Shown| {
        let mut row = Map::new();
        row.insert("key".to_owned(), json!(shown.key));
        row.insert("value".to_owned(), json!(shown.value));
        if origin {
            row.insert("origin".to_owned(), json!(shown.origin.to_string()));
        }
        Value::Object(row)
    };
    show(format, &Value::Array(config.show().iter().map(row).collect()))
}

/// The settings file that `init` writes, unless there is one.
///
/// # Errors
///
/// When the folder cannot be written to.
pub fn write_example(settings: &'static [&'static dyn Define], data_dir: &Path) -> Result<bool, Failure> {
    let path = data_dir.join("mobo.toml");
    let all: Vec<&'static dyn Define> = all(settings).copied().collect();
    match std::fs::OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(mut file) => std::io::Write::write_all(&mut file, config::example(&all).as_bytes())
            .map(|()| true)
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display()), "free some space")),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Failure::failed(format!("cannot write {}: {error}", path.display()), "use a folder that this user may write to")),
    }
}

/// Prints every setting with its meaning and default.
///
/// # Errors
///
/// When standard output cannot be written to.
pub fn print_example(settings: &'static [&'static dyn Define]) -> Result<(), Failure> {
    let all: Vec<&'static dyn Define> = all(settings).copied().collect();
    print(&config::example(&all)).map_err(|error| Failure::failed(format!("cannot print: {error}"), ""))
}

/// Says that the settings are fine, also for the parts that make something of them, and what of them a node that runs in this folder has not taken yet.
///
/// # Errors
///
/// What a part of the node will refuse, with exit code 2; when standard output cannot be written to.
pub fn check_config(config: &Config, format: Format, data_dir: &Path) -> Result<(), Failure> {
    config.check().map_err(|problems| misconfigured(&problems))?;
    // A node that does not run, or is of another version, has nothing to say to this.
    let pending = ask(data_dir, "config pending", json!({})).unwrap_or_default();
    if format == Format::Json {
        return show(format, &json!({ "ok": true, "pending": pending }));
    }
    let mut text = "the settings are fine\n".to_owned();
    for change in pending.as_array().into_iter().flatten() {
        let part = |name: &str| change.get(name).and_then(Value::as_str).unwrap_or_default();
        let (key, running, wanted) = (part("key"), part("running"), part("wanted"));
        text.push_str(&format!("{key}: the running node has {running:?} and takes {wanted:?} at its next boot\n"));
    }
    print(&text).map_err(|error| Failure::failed(format!("cannot print: {error}"), ""))
}

/// What a running node answers to `config pending`: the settings whose values wait for its next boot.
#[must_use]
pub fn pending(config: &Config) -> Value {
    let refused = config.pending().map(|reloaded| reloaded.refused).unwrap_or_default();
    refused.into_iter().map(|change| json!({ "key": change.key, "running": change.from, "wanted": change.to })).collect()
}

/// Puts the value of a secret setting, read from standard input, into the encrypted file of a data folder; an empty one takes it out.
///
/// # Errors
///
/// A setting that does not exist or is no secret, a value that it cannot have, or a file that cannot be used.
pub fn seal(settings: &'static [&'static dyn Define], key: &str, data_dir: &Path) -> Result<(), Failure> {
    let keys = || all(settings).map(|setting| setting.definition().key);
    let Some(setting) = all(settings).find(|setting| setting.definition().key == key) else {
        let near = names::nearest(key, keys())
            .map_or_else(|| "`config example` lists all there are".to_owned(), |near| format!("did you mean {near}?"));
        return Err(Failure::new(exit::NO_SUCH, format!("there is no setting {key}"), near));
    };
    if setting.definition().secrecy == Secrecy::Open {
        return Err(Failure::usage(format!("{key} is no secret"), "write it into mobo.toml, where it can be read"));
    }
    if io::stdin().is_terminal() {
        return Err(Failure::usage(
            "the value is read from standard input, where nobody sees it",
            format!("try `… config seal {key} < FILE`"),
        ));
    }
    let mut value = String::new();
    let read = io::stdin().take(limits::CONFIG_FILE_BYTES_MAX).read_to_string(&mut value);
    read.map_err(|error| Failure::failed(format!("standard input cannot be read: {error}"), "give it one line of text"))?;
    let value = value.trim_end_matches(['\r', '\n']);
    if let Some(fault) = setting.fault(value).filter(|_| !value.is_empty()) {
        return Err(Failure::usage(format!("the value is {fault}"), format!("`config example` says what {key} takes")));
    }
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
    let place = secrets::Place::of_process(data_dir, credentials.as_deref().map(Path::new));
    let kept = secrets::keep(&place, key, Some(value).filter(|value| !value.is_empty()));
    kept.map_err(|error| Failure::failed(error.to_string(), "make the data folder with `init` first"))?;
    let (file, key_file) = (place.file.display(), place.key.display());
    let text = if value.is_empty() { format!("{key} is out of {file}\n") } else { format!("{key} is in {file}, sealed with {key_file}\n") };
    print(&text).map_err(|error| Failure::failed(format!("cannot print: {error}"), ""))
}
