//! Drills: a backup that nobody has restored is a hope. The newest state is restored into scratch space, its digests and chains are recomputed,
//! and a signed report of it is kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mobo_core::backup::manifest::Anchor;
use mobo_core::backup::{hex, unhex};
use mobo_core::ids::{PublicKey, Signature};
use mobo_core::limits;
use mobo_core::rfc3339;
use mobo_core::store::StoreError;
use mobo_core::trust::{KeyPair, Statement};
use mobo_runtime::data_dir::{read_text, replace_file};
use mobo_runtime::vitals;
use serde_json::{Value, json};

use super::restore::{Restored, clear, replay};
use super::{BackupFailure, Repository};

/// The folder of the reports, in a data folder.
pub const DRILLS: &str = "drills";
/// Where a drill restores to, in a data folder.
const SCRATCH: &str = "drill";

/// What a drill has shown.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Drill {
    /// When it ended, by the hub's time.
    pub at_us: i64,
    /// The manifest that was restored; `None` where it did not come that far.
    pub anchor: Option<Anchor>,
    /// The snapshot that it builds on; 0 likewise.
    pub base: u64,
    /// True if everything was there and equal.
    pub ok: bool,
}

/// Restores the newest state into scratch space, and removes it again.
///
/// # Errors
///
/// [`BackupFailure`]: whatever a restore would have failed with.
pub async fn drill(repository: &Repository, known: &[Anchor], folder: &Path) -> Result<Restored, BackupFailure> {
    replay(repository, known, &folder.join(SCRATCH)).await
}

/// Removes what a drill has left that was cut short with its hub.
///
/// # Errors
///
/// When the disk does not let it go.
pub fn clear_drill(folder: &Path) -> Result<(), BackupFailure> {
    clear(&folder.join(SCRATCH))
}

/// Refuses where a database made of so many bytes of objects might leave the disk without room for what is written meanwhile.
pub(super) fn has_room(folder: &Path, bytes: u64) -> Result<(), BackupFailure> {
    let there = vitals::free_bytes(folder);
    let needed = bytes.saturating_mul(limits::DRILL_BYTES_FACTOR).saturating_add(limits::DISK_FREE_BYTES_LOW);
    match there {
        Some(there) if there < needed => {
            let (there, needed) = (there >> 20, needed >> 20);
            let why = format!(
                "there are {there} MiB free in {}, and the backup may need {needed}: make room, or try it on another \
                               machine with `mobo-hub backup verify --deep`",
                folder.display()
            );
            Err(BackupFailure::Refused(why))
        }
        Some(_) | None => Ok(()),
    }
}

fn disk(path: &Path, error: &io::Error) -> BackupFailure {
    BackupFailure::Store(StoreError::Unavailable(format!("{}: {error}", path.display())))
}

/// The reports of a hub's drills.
#[derive(Clone, Debug)]
pub struct Drills {
    folder: PathBuf,
    hub: PublicKey,
}

impl Drills {
    /// Those in a data folder that the holder of `hub` has signed.
    #[must_use]
    pub fn of(data_dir: &Path, hub: PublicKey) -> Self {
        Self { folder: data_dir.join(DRILLS), hub }
    }

    /// Signs a report and keeps it; the oldest ones go. Gives it as it is kept.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] when it cannot be written.
    pub fn keep(
        &self,
        keys: &KeyPair,
        (started_us, ended_us): (i64, i64),
        place: &str,
        done: &Result<Restored, BackupFailure>,
    ) -> Result<Value, BackupFailure> {
        let mut report = json!({
            "what": "mobo drill 1", "hub": keys.public().to_string(), "vault": place,
            "started": rfc3339::format(started_us), "ended": rfc3339::format(ended_us), "ended_us": ended_us, "ok": done.is_ok(),
        });
        let more = match done {
            Ok(restored) => {
                let (manifest, totals) = (&restored.manifest, restored.manifest.totals);
                json!({
                    "anchor": restored.anchor.to_string(), "base": manifest.base, "taken": rfc3339::format(manifest.taken_us),
                    "state": hex(&manifest.state), "entries": totals.entries, "lanes": totals.lanes, "positions": totals.positions,
                    "bytes": restored.bytes, "rows": restored.rows,
                })
            }
            Err(error) => json!({ "error": error.to_string() }),
        };
        if let (Some(report), Value::Object(more)) = (report.as_object_mut(), more) {
            report.extend(more);
        }
        let text = report.to_string();
        let signature = Statement::Drill(text.as_bytes()).sign(keys);
        let kept = json!({ "report": text, "signature": hex(signature.as_bytes()) }).to_string();
        let path = self.folder.join(format!("{ended_us:016x}.json"));
        let written = fs::create_dir_all(&self.folder).and_then(|()| replace_file(&path, kept.as_bytes()));
        written.map_err(|error| disk(&path, &error))?;
        for old in self.files().into_iter().rev().skip(limits::DRILL_REPORTS_MAX) {
            let _ = fs::remove_file(old);
        }
        Ok(report)
    }

    /// What the kept reports say, oldest first. One that the hub has not signed so is passed over.
    #[must_use]
    pub fn all(&self) -> Vec<Drill> {
        self.files().iter().filter_map(|path| self.read(path)).collect()
    }

    /// The last good one.
    #[must_use]
    pub fn last_good(&self) -> Option<Drill> {
        self.all().into_iter().rev().find(|drill| drill.ok)
    }

    fn read(&self, path: &Path) -> Option<Drill> {
        let kept: Value = serde_json::from_str(&read_text(path, limits::DRILL_REPORT_BYTES_MAX).ok()?).ok()?;
        let text = kept.get("report")?.as_str()?;
        let signature = Signature(unhex(kept.get("signature")?.as_str()?)?);
        if !Statement::Drill(text.as_bytes()).is_signed_by(&self.hub, &signature) {
            return None;
        }
        let report: Value = serde_json::from_str(text).ok()?;
        Some(Drill {
            at_us: report.get("ended_us")?.as_i64()?,
            anchor: report.get("anchor").and_then(Value::as_str).and_then(Anchor::parse),
            base: report.get("base").and_then(Value::as_u64).unwrap_or(0),
            ok: report.get("ok")?.as_bool()?,
        })
    }

    fn files(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let mut files: Vec<PathBuf> =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
        files.sort();
        files
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A backup that does not fit is not tried, so that there is room for what is written meanwhile.
    #[test]
    fn a_drill_needs_room() {
        let folder = tempfile::tempdir().unwrap();
        let free = vitals::free_bytes(folder.path()).unwrap();
        assert!(matches!(has_room(folder.path(), free), Err(BackupFailure::Refused(_))));
        assert!(matches!(has_room(folder.path(), u64::MAX), Err(BackupFailure::Refused(_))));
        if free > 2 * limits::DISK_FREE_BYTES_LOW {
            assert_eq!(has_room(folder.path(), 1_000), Ok(()));
        }
    }

    /// A report that somebody wrote or changed by hand proves nothing.
    #[test]
    fn only_what_the_hub_has_signed_counts() {
        let folder = tempfile::tempdir().unwrap();
        let keys = KeyPair::from_secret(&[7; 32]);
        let drills = Drills::of(folder.path(), keys.public());
        assert_eq!(drills.last_good(), None);
        let failed = Err(BackupFailure::Refused("there is no backup in this vault".to_owned()));
        for at_us in 1..=3 {
            drills.keep(&keys, (0, at_us), "folder:///x", &failed).unwrap();
        }
        assert_eq!(drills.all().iter().map(|drill| (drill.at_us, drill.ok)).collect::<Vec<_>>(), [(1, false), (2, false), (3, false)]);
        assert_eq!(drills.last_good(), None);
        let path = folder.path().join(DRILLS).join(format!("{:016x}.json", 3));
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("\\\"ok\\\":false", "\\\"ok\\\":true")).unwrap();
        assert_eq!(drills.all().len(), 2);
        assert!(Drills::of(folder.path(), KeyPair::from_secret(&[8; 32]).public()).all().is_empty());
    }
}
