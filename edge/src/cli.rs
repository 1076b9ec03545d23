//! The device's commands. `mobo-edge VERB` and `mobo edge VERB` are the same.

mod append;
mod board;
mod boot;
mod conflict;
mod talk;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use mobo_core::level::AckLevel;
use mobo_core::limits;
use mobo_runtime::command::RefusedName;
use mobo_runtime::output::{Failure, Format, fail};
use serde_json::json;

pub use append::LineFormat;
pub use board::{ComponentVerb, EventsVerb, HealthVerb};
pub use conflict::ConflictVerb;

/// mobo-edge: keeps working when the cloud is away.
#[derive(Debug, Parser)]
#[command(name = "mobo-edge", version, about, max_term_width = 120)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What every command takes.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// The device's data folder.
    #[arg(long, global = true, env = "MOBO_EDGE_DIR", default_value = "./mobo-edge", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// A settings file; by default DIR/mobo.toml.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One setting, as KEY=VALUE; may be given several times.
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// How to print: table or json.
    #[arg(short = 'o', long = "output", global = true, default_value = "table", value_name = "FORMAT")]
    pub output: Format,
}

/// What a write waits for.
#[derive(Args, Clone, Copy, Debug)]
pub struct Waiting {
    /// Wait until the write is so safe: local (on this device), hub (committed there) or safe (in a verified backup).
    #[arg(long, default_value = "local", value_name = "LEVEL")]
    pub wait: AckLevel,
    /// Wait at most so many seconds; exit 1 if it is not that safe then. The write itself is done.
    #[arg(long, default_value_t = limits::WAIT.as_secs(), value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=limits::WAIT_MAX.as_secs()))]
    pub timeout: u64,
}

/// What a device can be told.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make the data folder, the device's key and a settings file.
    Init,
    /// Join a hub with a token that `mobo-hub device invite` printed.
    Join {
        /// The token, one line.
        token: String,
    },
    /// Run the device in the foreground.
    Boot,
    /// How the device is.
    Status,
    /// Stop the device; what is begun is finished.
    Shutdown,
    /// The parts of the running device.
    #[command(subcommand)]
    Component(ComponentVerb),
    /// How healthy everything stored is.
    #[command(subcommand)]
    Health(HealthVerb),
    /// What happens in the node.
    #[command(subcommand)]
    Events(EventsVerb),
    /// Settings.
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Make a record, or replace it.
    Put {
        /// The collection.
        collection: String,
        /// The record's id.
        id: String,
        /// Its fields, as JSON; counters take {"$inc": n}.
        json: String,
        /// What to wait for.
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Change some fields of a record.
    Patch {
        /// The collection.
        collection: String,
        /// The record's id.
        id: String,
        /// The fields, as JSON; counters take {"$inc": n}.
        json: String,
        /// What to wait for.
        #[command(flatten)]
        waiting: Waiting,
    },
    /// One record.
    Get {
        /// The collection.
        collection: String,
        /// The record's id.
        id: String,
    },
    /// The records of a collection, or the samples of a stream.
    List {
        /// The collection.
        collection: String,
        /// At most so many.
        #[arg(long, default_value_t = 1000)]
        limit: u64,
    },
    /// Remove a record.
    Delete {
        /// The collection.
        collection: String,
        /// The record's id.
        id: String,
        /// What to wait for.
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Append samples to a stream: one, an array of them, or all that standard input holds.
    Append {
        /// The stream.
        collection: String,
        /// The fields, as JSON; `at` says when, and is now by default. Without it, each line of standard input is a sample.
        json: Option<String>,
        /// How a line of standard input is read: ndjson or csv.
        #[arg(long, default_value = "ndjson", value_name = "FORMAT")]
        format: LineFormat,
        /// What to wait for.
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Connect, exchange everything both ways, and say when that is done.
    Sync {
        /// Give up after so many seconds.
        #[arg(long, default_value_t = 60)]
        timeout: u64,
    },
    /// Entries that the hub refused, and messages of sensors that no rule could take.
    #[command(subcommand)]
    Quarantine(QuarantineVerb),
    /// What merges decided about the records of this device, as its hub says.
    #[command(subcommand)]
    Conflict(ConflictVerb),
    /// SQL on the device's database. What is written into its tables is synced.
    Sql {
        /// Statements; by default they are read from standard input.
        statement: Option<String>,
    },
    /// What this device has and its hub has not, in a file that somebody carries.
    #[command(subcommand)]
    Backup(BackupVerb),
}

/// `backup …`
#[derive(Debug, Subcommand)]
pub enum BackupVerb {
    /// Write what the hub has not acknowledged into a new file, which only this device's hub can read: `mobo-hub device import FILE` takes it.
    Export {
        /// The file; on a USB stick, for instance.
        file: PathBuf,
        /// Everything that this device keeps, also what the hub once had: for a hub that was restored.
        #[arg(long)]
        all: bool,
    },
    /// Take in the receipt that `mobo-hub device import --receipt FILE` has written.
    Import {
        /// The file.
        file: PathBuf,
    },
}

/// `config …`
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Check the settings without starting anything.
    Check,
    /// The settings in force; secrets are not shown.
    Show {
        /// Say where each value comes from.
        #[arg(long)]
        origin: bool,
    },
    /// A settings file with every setting, its meaning and its default.
    Example,
    /// Keep a secret setting in the encrypted file of the data folder; its value is read from standard input, none takes it out.
    Seal {
        /// The setting, such as store.url.
        key: String,
    },
}

/// `quarantine …`
#[derive(Debug, Subcommand)]
pub enum QuarantineVerb {
    /// Those that nobody has decided about, newest first.
    List {
        /// At most so many.
        #[arg(long, default_value_t = limits::LIST_ROWS, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// Those behind this number in the list.
        #[arg(long, value_name = "N")]
        after: Option<u64>,
    },
    /// One of them: what it did, why it was refused, and what became of it.
    Show {
        /// Its number in the list.
        n: RefusedName,
    },
    /// Write it again, against what is here now; corrected, where fields are given.
    Retry {
        /// Its number in the list.
        n: RefusedName,
        /// Fields to take in place of those refused, as JSON.
        json: Option<String>,
    },
    /// Let it go; it stays on record.
    Drop {
        /// Its number in the list.
        n: RefusedName,
    },
}

/// Runs a command to its exit code.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    match dispatch(cli) {
        Ok(code) => code,
        Err(failure) => fail(&failure),
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode, Failure> {
    let common = &cli.common;
    match cli.verb {
        Verb::Init => boot::init(common),
        Verb::Join { token } => boot::join(common, &token),
        Verb::Boot => boot::boot(common),
        Verb::Config(ConfigVerb::Check) => boot::config_check(common),
        Verb::Config(ConfigVerb::Show { origin }) => boot::config_show(common, origin),
        Verb::Config(ConfigVerb::Example) => boot::config_example(),
        Verb::Config(ConfigVerb::Seal { key }) => boot::config_seal(common, &key),
        Verb::Sync { timeout } => boot::sync(common, timeout),
        Verb::Backup(verb) => boot::bundle(common, verb),
        Verb::Sql { statement } => boot::sql(common, statement.as_deref()),
        Verb::Status => talk::status(common),
        Verb::Shutdown => talk::shutdown(common),
        Verb::Component(verb) => board::components(common, &verb),
        Verb::Health(verb) => board::health(common, &verb),
        Verb::Events(verb) => board::events(common, &verb),
        Verb::Quarantine(QuarantineVerb::List { limit, after }) => {
            talk::plain(common, "quarantine list", json!({ "limit": limit, "after": after }))
        }
        Verb::Quarantine(QuarantineVerb::Show { n }) => talk::plain(common, "quarantine show", json!({ "n": n.0 })),
        Verb::Quarantine(QuarantineVerb::Drop { n }) => talk::plain(common, "quarantine drop", json!({ "n": n.0 })),
        Verb::Quarantine(QuarantineVerb::Retry { n, json }) => talk::retry(common, &n.0, json.as_deref()),
        Verb::Conflict(verb) => conflict::run(common, verb),
        Verb::Put { collection, id, json, waiting } => talk::write(common, "put", (&collection, Some(&id), waiting), &json),
        Verb::Patch { collection, id, json, waiting } => talk::write(common, "patch", (&collection, Some(&id), waiting), &json),
        Verb::Append { collection, json: Some(json), waiting, .. } => talk::write(common, "append", (&collection, None, waiting), &json),
        Verb::Append { collection, json: None, format, waiting } => append::from_input(common, &collection, format, waiting),
        Verb::Get { collection, id } => talk::plain(common, "get", json!({ "collection": collection, "id": id })),
        Verb::Delete { collection, id, waiting } => talk::written(common, "delete", json!({ "collection": collection, "id": id }), waiting),
        Verb::List { collection, limit } => talk::plain(common, "list", json!({ "collection": collection, "limit": limit })),
    }
}
