//! What the machine looks like that a log was started on: a log that wakes up on another one, or in another file, is a copy (D2, rule R17).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Where Linux tells a board's serial number.
const BOARDS: [&str; 2] = ["/sys/firmware/devicetree/base/serial-number", "/sys/class/dmi/id/board_serial"];
const MACHINE_ID: &str = "/etc/machine-id";

/// Board, machine and file, as far as the system tells them. A file that is copied is another file, even under the same name; one that is
/// moved within its file system is the same.
#[must_use]
pub fn of(database: &Path) -> Vec<u8> {
    let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim_matches(['\0', '\n', ' ']).to_owned());
    let board = BOARDS.iter().find_map(|path| read(path)).unwrap_or_default();
    let machine = read(MACHINE_ID).unwrap_or_default();
    format!("board {board}\nmachine {machine}\nfile {}", file(database).unwrap_or_default()).into_bytes()
}

/// Where a file system does not keep the time of birth, numbers of files may be given anew at each mount: then nothing is said.
fn file(database: &Path) -> Option<String> {
    let metadata = fs::metadata(database).ok()?;
    let born = metadata.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("{} born {}", metadata.ino(), born.as_nanos()))
}
