//! The hub's commands. `mobo-hub VERB`, `mobo hub VERB` and `mobo VERB` are the same.

mod accounts;
mod backup;
mod board;
mod boot;
mod device;
mod list;
mod part;
mod restore;
mod scratch;
mod sql;
mod store;
mod talk;
mod upkeep;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use mobo_runtime::command::RefusedName;
use mobo_runtime::output::{Failure, Format, fail};
use serde_json::json;

pub use accounts::AccountsVerb;
pub use backup::BackupVerb;
pub use board::{ComponentVerb, EventsVerb, HealthVerb};
pub use device::DeviceVerb;
pub use restore::RestoreArgs;
pub use upkeep::UpkeepVerb;

/// mobo-hub: merges what devices write, and serves it.
#[derive(Debug, Parser)]
#[command(name = "mobo-hub", version, about, max_term_width = 120)]
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
    /// The hub's data folder.
    #[arg(long, global = true, env = "MOBO_HUB_DIR", default_value = "./mobo-hub", value_name = "DIR")]
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

/// What a hub can be told.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make the data folder, the hub's key and a settings file.
    Init,
    /// Run the hub in the foreground.
    Boot,
    /// How the hub is.
    Status,
    /// Stop the hub; what is begun is finished.
    Shutdown,
    /// The parts of the running hub.
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
    /// Where the hub keeps everything.
    #[command(subcommand)]
    Store(StoreVerb),
    /// Collections.
    #[command(subcommand)]
    Collection(CollectionVerb),
    /// Devices.
    #[command(subcommand)]
    Device(DeviceVerb),
    /// Who may use the API.
    #[command(flatten)]
    Accounts(AccountsVerb),
    /// Decisions that merges took.
    #[command(subcommand)]
    Conflict(ConflictVerb),
    /// Entries that were refused.
    #[command(subcommand)]
    Quarantine(QuarantineVerb),
    /// A hub that was restored from an older copy.
    #[command(subcommand)]
    Recover(RecoverVerb),
    /// Records.
    #[command(subcommand)]
    Record(RecordVerb),
    /// Backups.
    #[command(subcommand)]
    Backup(BackupVerb),
    /// Bring a hub back from its backups, on a machine that needs nothing but the backup key; or records of it into a hub that runs.
    Restore(RestoreArgs),
    /// SQL on the hub's database. What is written into its tables in Postgres is synced.
    Sql {
        /// Statements; by default they are read from standard input.
        statement: Option<String>,
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

/// `store …`
#[derive(Debug, Subcommand)]
pub enum StoreVerb {
    /// Move everything to another store, with the hub stopped; the other one must be empty.
    Migrate {
        /// postgres://…, `sqlite` for the data folder, sqlite://PATH; or @FILE that holds it, for one with a password.
        #[arg(long, value_name = "URL")]
        to: String,
    },
}

/// `collection …`
#[derive(Debug, Subcommand)]
pub enum CollectionVerb {
    /// Make a collection, here and on every device that may see it.
    Create {
        /// Its name, which its SQL table gets, too.
        name: String,
        /// NAME:TYPE of each field; types: text int float bool timestamp json bytes counter, and list in documents. NAME:ref:COLLECTION, or
        /// 'NAME:ref(COLLECTION)', is a text that names a record of a collection: queries can ask for it, too.
        #[arg(value_name = "FIELD:TYPE")]
        fields: Vec<String>,
        /// table, document or stream; by default a table when fields are given.
        #[arg(long)]
        kind: Option<String>,
        /// Which buckets a record is in, such as site:{site}; by default `all`.
        #[arg(long = "bucket", value_name = "TEMPLATE")]
        buckets: Vec<String>,
        /// For streams: telemetry (default) or events.
        #[arg(long)]
        lane: Option<String>,
    },
    /// All collections.
    List,
    /// One collection.
    Show {
        /// Its name.
        name: String,
    },
    /// Change a collection's fields, while devices with older versions of it go on writing, or which buckets its records are in: these are
    /// placed anew in the background, as `status` tells.
    Alter {
        /// Its name.
        name: String,
        /// Which buckets a record is in, such as site:{site}, in place of those before.
        #[arg(long = "bucket", value_name = "TEMPLATE")]
        buckets: Vec<String>,
        /// Another field. A type changes by a new field: rename and retire the old one in the same command.
        #[arg(long, value_name = "FIELD:TYPE")]
        add: Vec<String>,
        /// Another label for a field.
        #[arg(long, value_name = "OLD=NEW")]
        rename: Vec<String>,
        /// A field that is not shown or written any more; its values stay.
        #[arg(long, value_name = "FIELD")]
        retire: Vec<String>,
    },
}

/// `conflict …`
#[derive(Debug, Subcommand)]
pub enum ConflictVerb {
    /// Open ones, newest first.
    List(Part),
    /// The open ones of one record.
    Show {
        /// The collection.
        collection: String,
        /// The record's id.
        id: String,
    },
    /// Settle them: what won stays, unless something else is said. An ordinary write of the field, by somebody who has seen the row, settles
    /// them as well.
    Resolve {
        /// The collection.
        collection: String,
        /// The record's id.
        id: String,
        /// Only of this field.
        field: Option<String>,
        /// Write the value that lost, the latest of them where there are several.
        #[arg(long, conflicts_with = "value")]
        loser: bool,
        /// Write this value, as JSON; a field must be named.
        #[arg(long, requires = "field", value_name = "JSON")]
        value: Option<String>,
    },
    /// Say what becomes of conflicts of a field from now on.
    Policy {
        /// The collection.
        collection: String,
        /// The field.
        field: String,
        /// silent: not put on record; log: on record, and nobody is asked; review: listed until settled, as by default.
        policy: String,
    },
}

/// Which part of a list.
#[derive(Args, Clone, Debug)]
pub struct Part {
    /// At most so many; by default 1000 in a table, and all as JSON.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    /// What comes behind this place: the one that the table before named, or `cursor` of a row as JSON.
    #[arg(long, value_name = "CURSOR")]
    pub after: Option<String>,
}

/// `quarantine …`
#[derive(Debug, Subcommand)]
pub enum QuarantineVerb {
    /// Open ones, newest first.
    List(Part),
    /// One of them, and what it would do.
    Show {
        /// Its number in the list.
        n: RefusedName,
    },
    /// Merge it after all, once the schema or its device's rights have changed; exit 1 if it is refused again.
    Retry {
        /// Its number in the list.
        n: RefusedName,
    },
    /// Let it go; it stays on record.
    Drop {
        /// Its number in the list.
        n: RefusedName,
    },
}

/// `recover …`
#[derive(Debug, Subcommand)]
pub enum RecoverVerb {
    /// Start a new timeline: this hub's store was replaced by an older copy. A hub finds that out by itself at the first word of a device
    /// that was further; after a restore, say it before any device comes.
    Start,
    /// How it is going, and which devices have not given back what they hold.
    Status,
    /// End recovery although devices are missing. What only they hold is joined all the same when they come; but from now on old history may
    /// be squashed, deletions forgotten and collections made, and what they then bring late may be refused.
    Finish,
}

/// `record …`
#[derive(Debug, Subcommand)]
pub enum RecordVerb {
    /// One record, and who wrote each of its fields.
    Show {
        /// The collection.
        collection: String,
        /// The record's id.
        id: String,
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
        Verb::Boot => boot::boot(common),
        Verb::Config(ConfigVerb::Check) => boot::config_check(common),
        Verb::Config(ConfigVerb::Show { origin }) => boot::config_show(common, origin),
        Verb::Config(ConfigVerb::Example) => boot::config_example(),
        Verb::Config(ConfigVerb::Seal { key }) => boot::config_seal(common, &key),
        Verb::Store(StoreVerb::Migrate { to }) => store::migrate(common, &to),
        Verb::Backup(verb) => backup::run(common, verb),
        Verb::Restore(args) => restore::run(common, &args),
        Verb::Status => talk::status(common),
        Verb::Sql { statement } => sql::sql(common, statement.as_deref()),
        Verb::Shutdown => talk::shutdown(common),
        Verb::Component(verb) => board::components(common, &verb),
        Verb::Health(verb) => board::health(common, &verb),
        Verb::Events(verb) => board::events(common, &verb),
        Verb::Device(verb) => device::run(common, verb),
        Verb::Accounts(verb) => accounts::run(common, verb),
        Verb::Conflict(ConflictVerb::List(part)) => list::print_part(common, "conflict list", &part),
        Verb::Quarantine(QuarantineVerb::List(part)) => list::print_part(common, "quarantine list", &part),
        Verb::Quarantine(QuarantineVerb::Retry { n }) => talk::retry(common, &n.0),
        other @ (Verb::Collection(_) | Verb::Conflict(_) | Verb::Quarantine(_) | Verb::Recover(_) | Verb::Record(_)) => {
            let (verb, args) = words(other);
            talk::plain(common, verb, args)
        }
    }
}

/// Verb and arguments for the control socket, of the commands that need nothing else.
fn words(verb: Verb) -> (&'static str, serde_json::Value) {
    match verb {
        Verb::Collection(CollectionVerb::Create { name, fields, kind, buckets, lane }) => {
            ("collection create", json!({ "name": name, "fields": fields, "kind": kind, "buckets": buckets, "lane": lane }))
        }
        Verb::Collection(CollectionVerb::List) => ("collection list", json!({})),
        Verb::Collection(CollectionVerb::Show { name }) => ("collection show", json!({ "name": name })),
        Verb::Collection(CollectionVerb::Alter { name, buckets, add, rename, retire }) => {
            ("collection alter", json!({ "name": name, "buckets": buckets, "add": add, "rename": rename, "retire": retire }))
        }
        Verb::Conflict(ConflictVerb::Show { collection, id }) => ("conflict show", json!({ "collection": collection, "id": id })),
        Verb::Conflict(ConflictVerb::Resolve { collection, id, field, loser, value }) => {
            ("conflict resolve", json!({ "collection": collection, "id": id, "field": field, "loser": loser, "value": value }))
        }
        Verb::Conflict(ConflictVerb::Policy { collection, field, policy }) => {
            ("conflict policy", json!({ "collection": collection, "field": field, "policy": policy }))
        }
        Verb::Quarantine(QuarantineVerb::Show { n }) => ("quarantine show", json!({ "n": n.0 })),
        Verb::Quarantine(QuarantineVerb::Drop { n }) => ("quarantine drop", json!({ "n": n.0 })),
        Verb::Recover(RecoverVerb::Start) => ("recover start", json!({})),
        Verb::Recover(RecoverVerb::Status) => ("recover status", json!({})),
        Verb::Recover(RecoverVerb::Finish) => ("recover finish", json!({})),
        Verb::Record(RecordVerb::Show { collection, id }) => ("record show", json!({ "collection": collection, "id": id })),
        Verb::Device(_)
        | Verb::Accounts(_)
        | Verb::Init
        | Verb::Boot
        | Verb::Status
        | Verb::Sql { .. }
        | Verb::Shutdown
        | Verb::Component(_)
        | Verb::Health(_)
        | Verb::Events(_)
        | Verb::Conflict(ConflictVerb::List(_))
        | Verb::Quarantine(QuarantineVerb::List(_) | QuarantineVerb::Retry { .. })
        | Verb::Store(_)
        | Verb::Backup(_)
        | Verb::Restore(_)
        | Verb::Config(_) => ("status", json!({})),
    }
}
