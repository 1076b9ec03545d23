//! The commands about the store itself.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mobo_core::store::StoreError;
use mobo_core::store::transfer::TableName;
use mobo_runtime::command::{self, block_on};
use mobo_runtime::config::{Kind, Secrecy};
use mobo_runtime::output::{Failure, Format};
use serde_json::json;

use super::Common;
use super::boot::{load, open};
use crate::migrate::{Moved, Place, Progress};
use crate::settings::{STORE_URL, StoreUrl};
use crate::{migrate, node};

/// How often a table that takes long is heard of.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Moves everything to another store.
pub(super) fn migrate(common: &Common, to: &str) -> Result<ExitCode, Failure> {
    let config = load(common)?;
    // The lock of the folder is the proof that the hub is stopped, and that it does not boot meanwhile.
    let folder = open(common)?;
    let file = folder.join(node::STORE_FILE);
    let unknown = || Failure::usage("this is no store", format!("give --to {}, or @FILE that holds it", StoreUrl::EXPECTED));
    let to = read_target(to)?;
    let target = Place::parse(&to, &file).ok_or_else(unknown)?;
    let source = Place::parse(&config.get(&STORE_URL), &file).ok_or_else(unknown)?;
    let mut said = Instant::now();
    let moved = block_on(async {
        let moved = migrate::migrate(&source, &target, |progress| tell(&progress, &mut said)).await;
        moved.map_err(|error| Failure::failed(error.to_string(), advice(&error)))
    })?;
    let shown = Secrecy::Url.masked(&to);
    report(common.output, &moved, &shown)?;
    let dir = folder.path().display();
    say(&format!(
        "next: set store.url to {shown} in {dir}/mobo.toml, or seal it, and boot; the old store was only read: do not boot it again"
    ));
    Ok(ExitCode::SUCCESS)
}

/// What `--to` says, or the file that it names. A password does not belong on a command line.
pub(super) fn read_target(to: &str) -> Result<String, Failure> {
    if let Some(path) = to.strip_prefix('@') {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| Failure::usage(format!("{path} cannot be read: {error}"), "give --to @FILE that holds the URL"))?;
        return Ok(text.trim().to_owned());
    }
    if Secrecy::Url.masked(to) != to {
        let hint = "put the URL into a file and give --to @FILE";
        return Err(Failure::usage("there is a password in --to, and every user of this machine can read a command line", hint));
    }
    Ok(to.to_owned())
}

fn tell(progress: &Progress, said: &mut Instant) {
    match progress {
        Progress::Moving(table, rows) if said.elapsed() >= TELL_EVERY => {
            *said = Instant::now();
            say(&format!("moving   {table}: {rows} rows"));
        }
        Progress::Moving(..) => {}
        Progress::Arrived(table, rows) => say(&format!("arrived  {table}: {rows} rows")),
        Progress::Auditing => say("checking digests and chains"),
    }
}

pub(super) fn say(line: &str) {
    // Whoever does not listen misses nothing but the way.
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn report(format: Format, moved: &Moved, to: &str) -> Result<(), Failure> {
    let rows: u64 = moved.tables.iter().map(|(_, rows)| rows).sum();
    let row = |(name, rows): &(TableName, u64)| json!({ "table": name.to_string(), "rows": rows });
    let tables: Vec<_> = moved.tables.iter().map(row).collect();
    match format {
        Format::Json => {
            let (buckets, lanes) = (moved.buckets, moved.lanes);
            command::show(format, &json!({ "to": to, "rows": rows, "buckets": buckets, "lanes": lanes, "tables": tables }))
        }
        Format::Table => command::show(format, &json!(tables)),
    }
}

fn advice(error: &StoreError) -> &'static str {
    match error {
        StoreError::Unavailable(_) | StoreError::Contended(_) => {
            "see that both stores can be reached, then run it again: the target is as it was"
        }
        StoreError::Full(_) => "free some space where the target is, then run it again: the target is as it was",
        StoreError::Damaged(_) => "the target is as it was",
        StoreError::Poisoned(_) | StoreError::BadValue(_) | StoreError::Refused(_) => {
            "do what the sentence says, then run it again: the target is as it was"
        }
    }
}
