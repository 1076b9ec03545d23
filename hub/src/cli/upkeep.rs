//! The verbs that keep backups in order: prune, hold, release, drill.

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use mobo_core::backup::manifest::Manifest;
use mobo_core::ids::PublicKey;
use mobo_core::rfc3339;
use mobo_runtime::command::{self, ask};
use mobo_runtime::output::{Failure, Format};
use serde_json::{Value, json};

use super::Common;
use super::boot::load;
use crate::backup::{Drill, Drills, Looked};
use crate::settings::backup::{PRUNE_KEY_ID, PRUNE_SECRET};

/// `backup …`, the verbs that change what is kept.
#[derive(Debug, Subcommand)]
pub enum UpkeepVerb {
    /// Remove old snapshots by backup.retention, with the credential of backup.prune_key_id and backup.prune_secret.
    Prune {
        /// Only list what would stay, and why, and what would go.
        #[arg(long)]
        dry_run: bool,
    },
    /// Keep a snapshot whatever backup.retention says: a legal hold.
    Hold {
        /// The number of its manifest.
        number: u64,
    },
    /// End such a hold; the next `prune` decides.
    Release {
        /// The number of its manifest.
        number: u64,
    },
    /// Restore the newest backup into scratch space now, and print the report of it; exit 1 if that fails.
    Drill,
}

pub(super) fn run(common: &Common, verb: &UpkeepVerb) -> Result<ExitCode, Failure> {
    match verb {
        UpkeepVerb::Prune { dry_run } => prune(common, *dry_run),
        UpkeepVerb::Hold { number } => hold(common, *number, true),
        UpkeepVerb::Release { number } => hold(common, *number, false),
        UpkeepVerb::Drill => drill(common),
    }
}

/// The credential is this command's own, so that the hub need not have it.
fn prune(common: &Common, dry_run: bool) -> Result<ExitCode, Failure> {
    let config = load(common)?;
    let (key_id, secret) = (config.get(&PRUNE_KEY_ID), config.get(&PRUNE_SECRET));
    let answer = ask(&common.data_dir, "backup prune", json!({ "dry_run": dry_run, "key_id": key_id, "secret": secret }))?;
    match common.output {
        Format::Json => command::show(common.output, &answer)?,
        Format::Table => {
            command::show(common.output, answer.get("points").unwrap_or(&Value::Null))?;
            if let Some(swept) = answer.get("swept").filter(|swept| !swept.is_null()) {
                command::show(common.output, swept)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn hold(common: &Common, number: u64, hold: bool) -> Result<ExitCode, Failure> {
    command::show(common.output, &ask(&common.data_dir, "backup hold", json!({ "number": number, "hold": hold }))?)?;
    Ok(ExitCode::SUCCESS)
}

fn drill(common: &Common) -> Result<ExitCode, Failure> {
    let report = ask(&common.data_dir, "backup drill", json!({}))?;
    command::show(common.output, &report)?;
    Ok(if report.get("ok") == Some(&Value::Bool(true)) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What this data folder knows of verifications and drills, for lists.
pub(super) struct Seen {
    looked: Option<Looked>,
    drills: Vec<Drill>,
}

impl Seen {
    pub(super) fn of(data_dir: &Path, hub: &PublicKey) -> Self {
        let good = Drills::of(data_dir, *hub).all().into_iter().filter(|drill| drill.ok);
        Self { looked: Looked::last(data_dir), drills: good.collect() }
    }

    /// When a manifest was last found whole.
    pub(super) fn verified(&self, number: u64) -> Option<String> {
        self.looked.filter(|looked| looked.number >= number).map(|looked| rfc3339::format(looked.at_us))
    }

    /// When a manifest was last restored for trial: itself, or one that stands on it.
    pub(super) fn drilled(&self, manifest: &Manifest) -> Option<String> {
        let stood = |drill: &&Drill| drill.base == manifest.base && drill.anchor.is_some_and(|anchor| anchor.number >= manifest.number);
        self.drills.iter().rev().find(stood).map(|drill| rfc3339::format(drill.at_us))
    }
}
