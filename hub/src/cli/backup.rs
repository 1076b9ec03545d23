//! The commands about backups: those that ask the running hub, and those that read a vault themselves.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use mobo_core::backup::keys::BackupKey;
use mobo_core::backup::manifest::{Anchor, Manifest};
use mobo_core::backup::verify::Scope;
use mobo_core::backup::{hex, unhex};
use mobo_core::rfc3339;
use mobo_runtime::clock::Clock;
use mobo_runtime::command::{self, ask, block_on};
use mobo_runtime::config::Config;
use mobo_runtime::output::{Failure, Format};
use serde_json::{Value, json};

use super::Common;
use super::boot::load;
use super::restore::{self, RestoreArgs};
use super::scratch::Scratch;
use super::store::say;
use super::upkeep::{self, Seen, UpkeepVerb};
use crate::backup::{self, Access, BackupFailure, Looked, Repository};
use crate::node::BACKUP_KEY_FILE;
use crate::settings::BACKUP_URL;

/// `backup …`
#[derive(Debug, Subcommand)]
pub enum BackupVerb {
    /// Back up now, instead of within the second; prints the anchor, to be noted elsewhere.
    #[command(alias = "now")]
    Create {
        /// Everything, not only what is new.
        #[arg(long)]
        snapshot: bool,
        /// Go on although the repository is gone or has gone back: with a new one, or from what is there.
        #[arg(long)]
        anew: bool,
    },
    /// Backups in a vault, newest first.
    List {
        /// Which vault.
        #[command(flatten)]
        vault: VaultArgs,
        /// At most so many.
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// Find out whether a repository is whole, without restoring it.
    Verify {
        /// Which vault.
        #[command(flatten)]
        vault: VaultArgs,
        /// An anchor that an earlier backup printed; may be given several times.
        #[arg(long = "anchor", value_name = "ANCHOR")]
        anchors: Vec<String>,
        /// Read only objects above the manifest of this number; of the others, look whether they are there.
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        since: u64,
        /// Restore into a scratch folder as well, recompute every digest and chain, and compare.
        #[arg(long)]
        deep: bool,
    },
    /// The same as `restore`.
    Restore(RestoreArgs),
    /// The key that opens the backups.
    #[command(subcommand)]
    Key(BackupKeyVerb),
    /// Keeping them in order.
    #[command(flatten)]
    Upkeep(UpkeepVerb),
}

/// `backup key …`
#[derive(Debug, Subcommand)]
pub enum BackupKeyVerb {
    /// Print the backup key: keep it where neither the hub nor the vault is. Whoever has it and the vault has everything.
    Show,
    /// Go on under a new backup key and a new data key; nothing that is stored is written again.
    Rotate,
}

/// Which vault, and what opens it.
#[derive(Args, Clone, Debug)]
pub struct VaultArgs {
    /// A folder, as /mnt/backup or folder:///mnt/backup, or a bucket, as s3://backups/plant-4; by default backup.url.
    pub vault: Option<String>,
    /// The file with the backup key; by default backup.key in the data folder.
    #[arg(long, value_name = "FILE", env = "MOBO_BACKUP_KEY_FILE")]
    pub key_file: Option<PathBuf>,
}

pub(super) fn run(common: &Common, verb: BackupVerb) -> Result<ExitCode, Failure> {
    match verb {
        BackupVerb::Create { snapshot, anew } => {
            let made = ask(&common.data_dir, "backup create", json!({ "snapshot": snapshot, "anew": anew }))?;
            command::show(common.output, &made)?;
            Ok(ExitCode::SUCCESS)
        }
        BackupVerb::List { vault, limit } => list(common, &vault, limit),
        BackupVerb::Verify { vault, anchors, since, deep } => verify(common, &vault, (&anchors, since, deep)),
        BackupVerb::Restore(args) => restore::run(common, &args),
        BackupVerb::Upkeep(verb) => upkeep::run(common, &verb),
        BackupVerb::Key(BackupKeyVerb::Show) => {
            let key = read_key(&common.data_dir.join(BACKUP_KEY_FILE))?;
            command::show(common.output, &json!({ "key": hex(&key.0), "id": key.id() }))?;
            Ok(ExitCode::SUCCESS)
        }
        BackupVerb::Key(BackupKeyVerb::Rotate) => {
            command::show(common.output, &ask(&common.data_dir, "backup rotate", json!({}))?)?;
            say("note the new key elsewhere: `mobo-hub backup key show`; the old one still opens what was there before");
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn list(common: &Common, args: &VaultArgs, limit: usize) -> Result<ExitCode, Failure> {
    let (address, key) = place(common, args)?;
    let (hub, manifests) = block_on(async {
        let repository = repository(&address, &key).await?;
        let newest = backup::newest_number(repository.vault().as_ref(), 0).await;
        let mut number = newest.map_err(|error| failed(&error.into()))?;
        let mut found: Vec<(Anchor, Manifest)> = Vec::new();
        while number > 0 && found.len() < limit {
            match repository.manifest(number).await.map_err(|error| failed(&error))? {
                Some(manifest) => found.push(manifest),
                None => break,
            }
            number -= 1;
        }
        Ok((repository.keyring().hub.public(), found))
    })?;
    let seen = Seen::of(&common.data_dir, &hub);
    let taken = |number: u64| manifests.iter().find(|(anchor, _)| anchor.number == number).map(|(_, manifest)| manifest.taken_us);
    let show = |(anchor, manifest): &(Anchor, Manifest)| {
        let since = |number: u64| taken(number).map(|earlier| Duration::from_micros(manifest.taken_us.abs_diff(earlier)).as_secs_f64());
        json!({
            "number": anchor.number,
            "taken": rfc3339::format(manifest.taken_us),
            // What a hub that is lost just before it has lost, at most; and how much is replayed on top of its snapshot.
            "rpo_s": since(anchor.number - 1),
            "span_s": since(manifest.base),
            "kind": if manifest.is_base() { "snapshot" } else { "segment" },
            "bytes": manifest.members.iter().map(|member| member.bytes).sum::<u64>(),
            "rows": manifest.members.iter().map(|member| member.rows).sum::<u64>(),
            "entries": manifest.totals.entries,
            "timeline": manifest.timeline.to_string(),
            "verified": seen.verified(anchor.number),
            "drilled": seen.drilled(manifest),
            "anchor": anchor.to_string(),
        })
    };
    command::show(common.output, &Value::Array(manifests.iter().map(show).collect()))?;
    Ok(ExitCode::SUCCESS)
}

fn verify(common: &Common, args: &VaultArgs, (anchors, since, deep): (&[String], u64, bool)) -> Result<ExitCode, Failure> {
    let (address, key) = place(common, args)?;
    let mut known = read_anchors(anchors)?;
    // What the running hub remembers is proof as well, where it is this vault's.
    if args.vault.is_none()
        && let Ok(status) = ask(&common.data_dir, "status", json!({}))
    {
        known.extend(status.pointer("/backup/anchor").and_then(Value::as_str).and_then(Anchor::parse));
    }
    let bar = bar(common.output);
    let verified = block_on(async {
        let repository = repository(&address, &key).await?;
        let scope = Scope { read_above: since, known: known.clone() };
        let verdict = backup::verify(&repository, scope, |so_far| {
            bar.set_message(format!("{} manifests, {} objects, {} bytes", so_far.manifests, so_far.read + so_far.seen, so_far.bytes));
            bar.tick();
        });
        let verdict = verdict.await.map_err(|error| failed(&error))?;
        if deep && verdict.damages.is_empty() {
            replay(&repository, &known).await?;
        }
        Ok(verdict)
    });
    bar.finish_and_clear();
    let verdict = verified.inspect_err(|failure| told(common, "verify", (false, failure.message.as_str())))?;
    let damages: Vec<String> = verdict.damages.iter().map(ToString::to_string).collect();
    let whole = damages.is_empty();
    let newest = verdict.newest.map_or_else(|| "nothing".to_owned(), |anchor| anchor.to_string());
    told(common, "verify", (whole, damages.first().unwrap_or(&newest).as_str()));
    let shown = json!({
        "whole": whole, "newest": verdict.newest.map(|anchor| anchor.to_string()), "manifests": verdict.manifests, "read": verdict.read,
        "erased": verdict.erased,
        "seen": verdict.seen, "bytes": verdict.bytes, "replayed": deep && whole, "damages": damages,
    });
    command::show(common.output, &shown)?;
    if let Some(newest) = verdict.newest.filter(|_| whole) {
        // A folder that cannot be written forgets it, and nothing else.
        let _ = Looked { number: newest.number, at_us: machine()?.moment().wall.0 }.keep(&common.data_dir);
    }
    if whole { Ok(ExitCode::SUCCESS) } else { Ok(ExitCode::FAILURE) }
}

/// Tells the bus of the hub that runs in the data folder, if one does, what this command has come to.
pub(super) fn told(common: &Common, what: &str, (ok, detail): (bool, &str)) {
    let _ = ask(&common.data_dir, "backup told", json!({ "what": what, "ok": ok, "detail": detail }));
}

/// Restores into a folder that goes again: everything is recomputed and compared on the way. Nothing begins there, and no timeline does.
async fn replay(repository: &Repository, known: &[Anchor]) -> Result<(), Failure> {
    let scratch = Scratch::new("verify")?;
    let replayed = backup::drill(repository, known, scratch.path()).await;
    replayed.map(|_| ()).map_err(|error| failed(&error))
}

pub(super) fn machine() -> Result<Arc<Clock>, Failure> {
    let clock = Clock::start().map_err(|error| Failure::failed(error.to_string(), "wait until the machine has gathered randomness"))?;
    Ok(Arc::new(clock))
}

/// The vault's address and the backup key.
pub(super) fn place(common: &Common, args: &VaultArgs) -> Result<((String, Access), BackupKey), Failure> {
    let config = load(common)?;
    let address = args.vault.clone().or_else(|| usual_place(common, &config));
    let address = address.ok_or_else(|| Failure::usage("which vault?", "name a folder, or set backup.url"))?;
    let file = args.key_file.clone().unwrap_or_else(|| common.data_dir.join(BACKUP_KEY_FILE));
    Ok(((address, Access::writer(&config)), read_key(&file)?))
}

/// Where the running hub backs up to, which a swap may have changed; where it would, if it does not run.
fn usual_place(common: &Common, config: &Config) -> Option<String> {
    let status = ask(&common.data_dir, "status", json!({})).ok();
    let running = status.as_ref().and_then(|status| status.pointer("/backup/place")).and_then(Value::as_str);
    running.map(str::to_owned).or_else(|| Some(config.get(&BACKUP_URL)).filter(|url| !url.is_empty()))
}

fn read_key(file: &Path) -> Result<BackupKey, Failure> {
    let hint = "give --key-file FILE with the backup key: the 64 digits that `mobo-hub backup key show` printed";
    let text = std::fs::read_to_string(file).map_err(|error| Failure::failed(format!("{}: {error}", file.display()), hint))?;
    let key = unhex(text.trim()).ok_or_else(|| Failure::failed(format!("{} is no backup key", file.display()), hint))?;
    Ok(BackupKey(key))
}

pub(super) fn read_anchors(anchors: &[String]) -> Result<Vec<Anchor>, Failure> {
    let bad = |text: &String| Failure::usage(format!("{text} is no anchor"), "give it as a backup has printed it: number:hash");
    anchors.iter().map(|text| Anchor::parse(text).ok_or_else(|| bad(text))).collect()
}

pub(super) async fn repository((address, access): &(String, Access), key: &BackupKey) -> Result<Repository, Failure> {
    let vault = backup::open_vault(address, access).map_err(|error| failed(&error.into()))?;
    let opened = Repository::open(vault, key).await.map_err(|error| failed(&error))?;
    opened.ok_or_else(|| Failure::no_such(format!("there is no backup in {address}"), "name the vault that the hub backs up to"))
}

pub(super) fn bar(format: Format) -> ProgressBar {
    if format == Format::Json || !std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::new_spinner().with_style(style)
}

pub(super) fn failed(error: &BackupFailure) -> Failure {
    let hint = match error {
        BackupFailure::Vault(_) => "see that the vault can be reached, then run it again",
        BackupFailure::Format(_) => "run `mobo-hub backup verify`; `--at NUMBER` restores an older moment, which is a fork",
        BackupFailure::Store(_) => "see that there is room and that the target can be reached, then run it again",
        BackupFailure::Busy => "run it again in a moment",
        BackupFailure::WentBack(_) | BackupFailure::Taken(_) | BackupFailure::Refused(_) => "do what the sentence says",
    };
    Failure::failed(error.to_string(), hint)
}
