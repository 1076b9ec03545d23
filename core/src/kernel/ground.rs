//! The ground that a node stands on: what is found there is passed in, and judged here.

use super::post::Check;
use crate::limits;
use crate::time::{Wall, WallQuality};

/// 2026-01-01T00:00:00Z: this program is younger.
const WALL_MIN_US: i64 = 1_767_225_600_000_000;
/// 2100-01-01T00:00:00Z: nobody runs this program then.
const WALL_MAX_US: i64 = 4_102_444_800_000_000;

/// Whether the wall clock can be right. A node works with a wrong one, and its writes are ordered by what the hub makes of it.
#[must_use]
pub fn check_clock(wall: Wall, quality: WallQuality) -> Check {
    let shown = crate::rfc3339::format(wall.0);
    let advice = "set it, or let a time service do so: until then the hub decides when things were written here";
    match quality {
        _ if wall.0 < WALL_MIN_US => Check::warn("clock", format!("{shown} is before this program was written"), advice),
        _ if wall.0 > WALL_MAX_US => Check::warn("clock", format!("{shown} is too far ahead to be true"), advice),
        WallQuality::None => Check::warn("clock", format!("{shown}, which nothing has set"), advice),
        WallQuality::Set => Check::pass("clock", format!("{shown}, set")),
        WallQuality::Synchronised => Check::pass("clock", format!("{shown}, synchronised")),
    }
}

/// Whether there is room to write. `free` is what this user may still use, `total` the size of the file system.
#[must_use]
pub fn check_space(free_bytes: u64, total_bytes: u64) -> Check {
    let mib = |bytes: u64| bytes / (1024 * 1024);
    let shown = format!("{} MiB free of {} MiB", mib(free_bytes), mib(total_bytes));
    let advice = "free some space, or move the data folder to a larger disk";
    if free_bytes < limits::DISK_FREE_BYTES_MIN {
        Check::fail("disk space", format!("{shown}, less than {} MiB", mib(limits::DISK_FREE_BYTES_MIN)), advice)
    } else if free_bytes < limits::DISK_FREE_BYTES_LOW {
        Check::warn("disk space", shown, advice)
    } else {
        Check::pass("disk space", shown)
    }
}

/// Whether a file or folder is its owner's alone. `mode` is its permission bits; `(own, secret)` say whether it belongs to this user, and
/// whether it is a secret, which nobody else may read.
#[must_use]
pub fn check_mode(name: &str, path: &str, mode: u32, (own, secret): (bool, bool)) -> Check {
    let (mode, advice) = (mode & 0o777, format!("run `chmod go= {path}` as its owner, and find out who could read it"));
    if mode & 0o022 != 0 {
        Check::fail(name, format!("{path} can be written by others ({mode:03o})"), advice)
    } else if mode & 0o077 != 0 && secret {
        Check::fail(name, format!("{path} can be read by others ({mode:03o})"), advice)
    } else if mode & 0o077 != 0 {
        Check::warn(name, format!("{path} can be looked into by others ({mode:03o})"), advice)
    } else if own {
        Check::pass(name, format!("{path} is private"))
    } else {
        Check::warn(name, format!("{path} belongs to another user"), "run the node as the user that owns its data folder")
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn the_clock_is_believed_within_a_lifetime() {
        for (wall, quality, want) in [
            (0, WallQuality::Synchronised, Verdict::Warn),
            (WALL_MIN_US - 1, WallQuality::Set, Verdict::Warn),
            (WALL_MIN_US, WallQuality::Set, Verdict::Pass),
            (WALL_MIN_US, WallQuality::None, Verdict::Warn),
            (WALL_MAX_US + 1, WallQuality::Synchronised, Verdict::Warn),
            (i64::MIN, WallQuality::None, Verdict::Warn),
        ] {
            assert_eq!(check_clock(Wall(wall), quality).verdict, want, "{wall}");
        }
    }

    #[test]
    fn little_room_warns_and_none_refuses() {
        let mib = 1024 * 1024;
        for (free, want) in [(0, Verdict::Fail), (15 * mib, Verdict::Fail), (16 * mib, Verdict::Warn), (256 * mib, Verdict::Pass)] {
            let check = check_space(free, 1024 * mib);
            assert_eq!(check.verdict, want, "{free}");
            assert_eq!(check.advice.is_some(), want != Verdict::Pass);
        }
    }

    #[test]
    fn secrets_are_their_owners_alone() {
        for (mode, facts, want) in [
            (0o100_600, (true, true), "pass k is private"),
            (0o040_700, (true, false), "pass k is private"),
            (0o644, (true, true), "fail k can be read by others (644)"),
            (0o755, (true, false), "warn k can be looked into by others (755)"),
            (0o602, (true, true), "fail k can be written by others (602)"),
            (0o770, (true, false), "fail k can be written by others (770)"),
            (0o600, (false, true), "warn k belongs to another user"),
        ] {
            let check = check_mode("key", "k", mode, facts);
            assert_eq!(format!("{} {}", check.verdict.word(), check.detail), want);
        }
    }
}
