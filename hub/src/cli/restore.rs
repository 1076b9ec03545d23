//! `restore`: a hub comes back on a bare machine.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use indicatif::ProgressBar;
use mobo_core::backup::hex;
use mobo_core::backup::keys::BackupKey;
use mobo_core::rfc3339;
use mobo_core::trust::KeyPair;
use mobo_runtime::command::{self, block_on};
use mobo_runtime::config::Kind;
use mobo_runtime::data_dir::replace_file;
use mobo_runtime::key_file;
use mobo_runtime::output::Failure;
use serde_json::{Value, json};

use super::backup::{VaultArgs, bar, failed, machine, place, read_anchors, repository};
use super::boot::{load, open};
use super::store::{read_target, say};
use super::{Common, part};
use crate::backup::{self, Point, Repository, Restored, Step, Target};
use crate::identity::KEY_FILE;
use crate::migrate::Place;
use crate::node::{BACKUP_KEY_FILE, STORE_FILE};
use crate::settings::{STORE_URL, StoreUrl};

/// `restore …`
#[derive(Args, Clone, Debug)]
pub struct RestoreArgs {
    /// Which vault.
    #[command(flatten)]
    pub vault: VaultArgs,
    /// The store: `sqlite` for the data folder, postgres://…; or @FILE that holds it, for one with a password. By default store.url.
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// An older moment: the number of a manifest, or a time as 2026-02-03T04:05:06Z. What came later is left out.
    #[arg(long, value_name = "NUMBER|TIME")]
    pub at: Option<String>,
    /// An anchor that an earlier backup printed; the repository must have it.
    #[arg(long = "anchor", value_name = "ANCHOR")]
    pub anchors: Vec<String>,
    /// Move a SQLite store that is in the data folder aside, once what takes its place is ready.
    #[arg(long)]
    pub force: bool,
    /// Only the records of this project, into the hub that runs: each becomes what it was.
    #[arg(long, value_name = "NAME")]
    pub project: Option<String>,
    /// Only those of this collection, likewise; may be given several times.
    #[arg(long = "collection", value_name = "NAME")]
    pub collections: Vec<String>,
    /// Only those that this device has written to, likewise.
    #[arg(long, value_name = "NAME|ID")]
    pub device: Option<String>,
    /// Say how many records would be written, and write none.
    #[arg(long)]
    pub dry_run: bool,
}

impl RestoreArgs {
    /// True where only some records are wanted.
    fn is_part(&self) -> bool {
        self.project.is_some() || !self.collections.is_empty() || self.device.is_some()
    }
}

pub(super) fn run(common: &Common, args: &RestoreArgs) -> Result<ExitCode, Failure> {
    let known = read_anchors(&args.anchors)?;
    let point = match args.at.as_deref() {
        None => Point::Newest,
        Some(text) => match (text.parse(), rfc3339::parse(text)) {
            (Ok(number), _) => Point::Number(number),
            (_, Some(time)) => Point::At(time),
            _ => return Err(Failure::usage(format!("--at {text} is neither a number nor a time"), "see `mobo-hub backup list`")),
        },
    };
    if args.is_part() {
        return part::restore(common, args, (point, &known));
    }
    if args.dry_run {
        return Err(Failure::usage(
            "--dry-run is for a part of a backup",
            "name a --collection, a --device or a --project; or see `backup verify`",
        ));
    }
    let folder = open(common)?;
    let (address, key) = place(common, &args.vault)?;
    let file = folder.join(STORE_FILE);
    let store = match &args.store {
        Some(store) => read_target(store)?,
        None => load(common)?.get(&STORE_URL).to_string(),
    };
    let unknown = || Failure::usage("this is no store", format!("give --store {}, or @FILE that holds it", StoreUrl::EXPECTED));
    let place = Place::parse(&store, &file).ok_or_else(unknown)?;
    let target = Target { folder: folder.path().to_owned(), place, replaces: args.force };
    let bar = bar(common.output);
    let restored = block_on(async {
        let repository = repository(&address, &key).await?;
        keep_keys(folder.path(), &repository, &key)?;
        let restored = backup::restore(&repository, (point, &known), &target, machine()?, |step| tell(&step, &bar));
        restored.await.map_err(|error| failed(&error))
    })?;
    bar.finish_and_clear();
    if let Err(error) = backup::note_restored(folder.path(), &restored) {
        say(&format!("the next boot will not tell its bus of this: {error}"));
    }
    command::show(common.output, &report(&restored, folder.path()))?;
    say(&format!("next: mobo-hub boot --data-dir {}; its devices give back what it lacks, as `status` shows", folder.path().display()));
    Ok(ExitCode::SUCCESS)
}

/// Says before anything is done what the point holds, and what a restore promises (rule R22).
fn tell(step: &Step, bar: &ProgressBar) {
    match step {
        Step::Begins(both) => {
            let (point, newest) = both.as_ref();
            let totals = point.totals;
            say(&format!(
                "restoring the backup {} of {}: {} entries of {} logs, {} buckets",
                point.number,
                rfc3339::format(point.taken_us),
                totals.entries,
                totals.lanes,
                totals.buckets
            ));
            if newest.number > point.number {
                let later = newest.totals.entries.saturating_sub(totals.entries);
                say(&format!(
                    "it is a deliberate fork: left out are {} later backups, up to {}, with {later} entries",
                    newest.number - point.number,
                    rfc3339::format(newest.taken_us)
                ));
            }
            say(
                "then the devices give back: exactly, every entry that they still keep; as it is now, every record and deletion that any of \
                 them holds. Not recovered: what was written through this hub only after the backup and delivered to no device, samples \
                 that were trimmed on their device, decisions of the conflict ledger, accounts",
            );
        }
        Step::Applied(done, total) => {
            bar.set_message(format!("{done} of {total} objects"));
            bar.tick();
        }
        Step::Auditing => bar.set_message("recomputing digests and chains"),
        Step::Placing => bar.set_message("taking its place"),
    }
}

fn report(restored: &Restored, folder: &Path) -> Value {
    let Restored { manifest, anchor, newest, timeline, bytes, rows } = restored;
    json!({
        "folder": folder.display().to_string(),
        "number": manifest.number,
        "taken": rfc3339::format(manifest.taken_us),
        "anchor": anchor.to_string(),
        "newest": newest.number,
        "entries": manifest.totals.entries,
        "left_out": newest.totals.entries.saturating_sub(manifest.totals.entries),
        "timeline": timeline.to_string(),
        "bytes": bytes,
        "rows": rows,
    })
}

/// The hub's own key and the backup key: the restored hub is the same one, and goes on with its backups.
fn keep_keys(folder: &Path, repository: &Repository, key: &BackupKey) -> Result<(), Failure> {
    let hub = &repository.keyring().hub;
    let mine = key_file::load(&folder.join(KEY_FILE)).map_err(|error| Failure::failed(error.to_string(), "use another --data-dir"))?;
    if mine.as_ref().is_some_and(|mine: &KeyPair| mine.public() != hub.public()) {
        return Err(Failure::failed("there is the key of another hub in this folder", "use another --data-dir"));
    }
    for (name, secret) in [(KEY_FILE, hub.secret()), (BACKUP_KEY_FILE, key.0)] {
        let path = folder.join(name);
        if !path.exists() {
            let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", path.display()), "look at the data folder");
            replace_file(&path, hex(&secret).as_bytes()).map_err(failed)?;
        }
    }
    Ok(())
}
