//! Looks at the ground that a node stands on, before there is a board: its folder, its keys, its clock, its disk.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use mobo_core::kernel::{Check, check_clock, check_mode, check_space};

use crate::clock::Clock;

/// The checks of a node whose data folder is `folder`, and whose secrets are in these files of it. Changes nothing.
#[must_use]
pub fn checks(folder: &Path, secrets: &[&str], clock: &Clock) -> Vec<Check> {
    let mut checks = vec![timed(|| mode("data folder", folder, false))];
    checks.extend(secrets.iter().map(|name| timed(|| mode(name, &folder.join(name), true))));
    checks.push(timed(|| space(folder)));
    checks.push(timed(|| {
        let moment = clock.moment();
        check_clock(moment.wall, moment.quality)
    }));
    checks
}

fn timed(look: impl FnOnce() -> Check) -> Check {
    let began = Instant::now();
    look().taking(began.elapsed())
}

fn mode(name: &str, path: &Path, secret: bool) -> Check {
    let shown = path.display().to_string();
    match std::fs::metadata(path) {
        Ok(found) => check_mode(name, &shown, found.mode(), (found.uid() == rustix::process::geteuid().as_raw(), secret)),
        Err(error) => unseen(name, &shown, &error),
    }
}

fn space(folder: &Path) -> Check {
    match rustix::fs::statvfs(folder) {
        Ok(found) => {
            let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
            check_space(bytes(found.f_bavail), bytes(found.f_blocks))
        }
        Err(error) => unseen("disk space", &folder.display().to_string(), &error.into()),
    }
}

fn unseen(name: &str, path: &str, error: &io::Error) -> Check {
    Check::fail(
        name,
        format!("{path} cannot be looked at: {error}"),
        "give its owner the right to, or choose another folder with --data-dir",
    )
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use mobo_core::kernel::Verdict;

    use super::*;

    /// Goal: each thing that is wrong with the ground is told by name, with what to do about it.
    // faults: C-2
    #[test]
    fn what_is_wrong_with_the_ground_is_told_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("hub.key");
        fs::write(&key, "secret").unwrap();
        let clock = Clock::start().unwrap();
        for (key_mode, folder_mode, failed, warned) in [
            (0o600, 0o700, &[][..], &[][..]),
            (0o640, 0o700, &["hub.key"], &[]),
            (0o600, 0o777, &["data folder"], &[]),
            (0o600, 0o755, &[], &["data folder"]),
        ] {
            fs::set_permissions(&key, Permissions::from_mode(key_mode)).unwrap();
            fs::set_permissions(folder.path(), Permissions::from_mode(folder_mode)).unwrap();
            let checks = checks(folder.path(), &["hub.key"], &clock);
            let named =
                |verdict| checks.iter().filter(|check| check.verdict == verdict).map(|check| check.name.as_str()).collect::<Vec<_>>();
            // The clock and the disk are this machine's own.
            let ours = |names: Vec<&str>| {
                names.into_iter().filter(|name| !["clock", "disk space"].contains(name)).map(str::to_owned).collect::<Vec<_>>()
            };
            assert_eq!(
                (ours(named(Verdict::Fail)), ours(named(Verdict::Warn))),
                (failed.iter().map(|name| (*name).to_owned()).collect(), warned.iter().map(|name| (*name).to_owned()).collect())
            );
            assert!(checks.iter().all(|check| (check.verdict == Verdict::Pass) != check.advice.is_some()), "{checks:?}");
            assert_eq!(checks.len(), 4);
        }
        let gone = checks(&folder.path().join("gone"), &[], &clock);
        assert!(gone[0].verdict == Verdict::Fail && gone[0].detail.contains("cannot be looked at"), "{gone:?}");
    }
}
