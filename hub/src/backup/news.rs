//! What a command has done to a data folder while no hub ran there: the next one that boots tells it.

use std::io;
use std::path::Path;

use mobo_core::rfc3339;
use mobo_runtime::data_dir::{read_text, replace_file};

use super::Restored;

/// The file in a data folder.
const FILE: &str = "restored";
/// Longest such file.
const FILE_BYTES_MAX: u64 = 1_024;

/// Keeps for the next boot that this was restored.
///
/// # Errors
///
/// When the file cannot be written.
pub fn note_restored(folder: &Path, Restored { manifest, anchor, newest, timeline, .. }: &Restored) -> io::Result<()> {
    let taken = rfc3339::format(manifest.taken_us);
    let text = format!("the backup {anchor} of {taken}, of {} in the vault; it goes on under the timeline {timeline}", newest.number);
    replace_file(&folder.join(FILE), text.as_bytes())
}

/// What was restored since a hub last asked; it is told once.
#[must_use]
pub fn take_restored(folder: &Path) -> Option<String> {
    let file = folder.join(FILE);
    let told = read_text(&file, FILE_BYTES_MAX).ok();
    if let Err(error) = std::fs::remove_file(&file)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, file = %file.display(), "what was restored is told again at the next boot");
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_restored_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(take_restored(folder.path()), None);
        std::fs::write(folder.path().join(FILE), "the backup 7").unwrap();
        assert_eq!(take_restored(folder.path()).as_deref(), Some("the backup 7"));
        assert_eq!(take_restored(folder.path()), None);
    }
}
