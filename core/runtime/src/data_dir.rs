//! The folder that a node owns: private to its user, and locked against a second process.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const LOCK: &str = "mobo.lock";

/// A data folder that this process holds the lock of, until the value is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the folder when it is missing, readable for its owner only, and locks it.
    ///
    /// # Errors
    ///
    /// [`DataDirError`]; its sentence says what to do.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, DataDirError> {
        let path = path.into();
        let unusable = |source| DataDirError::Unusable { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(unusable)?;
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut lock = options.open(path.join(LOCK)).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataDirError::InUse { by: owner(&mut lock), path }),
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        sign(&mut lock).map_err(unusable)?;
        Ok(Self { path, _lock: lock })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file or folder in it.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

/// Waits until no process holds the lock of a folder: the node that had it is gone. Blocks its thread; at once when there is no lock.
///
/// # Errors
///
/// When the lock cannot be looked at.
pub fn wait_until_free(path: &Path) -> io::Result<()> {
    match File::open(path.join(LOCK)) {
        Ok(lock) => lock.lock_shared(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes who holds the lock into it, for the next one who asks.
fn sign(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

/// Who holds the lock; unknown when it is just being signed.
fn owner(lock: &mut File) -> Owner {
    let mut text = String::new();
    let read = lock.take(16).read_to_string(&mut text);
    Owner(read.ok().and_then(|_| text.trim().parse().ok()))
}

/// The process that holds a data folder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Owner(pub Option<u32>);

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("another process"),
        }
    }
}

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// A node runs in it.
    #[error("the data folder {} is in use by {by}: stop that one first, or choose another folder with --data-dir", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Who has it.
        by: Owner,
    },
    /// It cannot be made or written.
    #[error("the data folder {} cannot be written ({source}): give its owner the right to, or choose another folder with --data-dir", path.display())]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Reads a text file of at most `bytes_max`.
pub fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    let read = fs::File::open(path)?.take(bytes_max + 1).read_to_string(&mut text)?;
    if u64::try_from(read).is_ok_and(|read| read > bytes_max) {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {bytes_max} bytes")));
    }
    Ok(text)
}

/// Puts `bytes` in the place of a file, readable for its owner only: the old content or the new one is there after a power cut, never
/// a mixture, and nothing is lost once this has returned.
///
/// # Errors
///
/// What the disk says; the old content is there then.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    // The name must survive a power cut as well as the bytes.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_is_made_private_and_has_one_owner() {
        let here = tempfile::tempdir().unwrap();
        let path = here.path().join("a/b");
        let first = DataDir::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(first.join("x"), path.join("x"));

        let refused = DataDir::open(&path).unwrap_err().to_string();
        let pid = std::process::id();
        assert!(refused.contains(&format!("in use by process {pid}: stop that one first")), "{refused}");

        drop(first);
        wait_until_free(&path).unwrap();
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn a_lock_left_by_a_dead_process_is_taken_over() {
        let here = tempfile::tempdir().unwrap();
        fs::write(here.path().join(LOCK), "4294967295 and more\n").unwrap();
        let held = DataDir::open(here.path()).unwrap();
        let text = fs::read_to_string(here.path().join(LOCK)).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
        drop(held);
        wait_until_free(&here.path().join("nowhere")).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_refused_with_a_sentence() {
        let here = tempfile::tempdir().unwrap();
        fs::write(here.path().join("file"), "").unwrap();
        for path in [here.path().join("file"), here.path().join("file/below"), PathBuf::from("/proc/mobo")] {
            let refused = DataDir::open(&path).unwrap_err().to_string();
            assert!(refused.contains("cannot be written") && refused.contains("--data-dir"), "{refused}");
        }
    }

    #[test]
    fn files_are_read_up_to_a_limit() {
        let here = tempfile::tempdir().unwrap();
        let path = here.path().join("file");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read_text(&path, 5).unwrap(), "12345");
        assert_eq!(read_text(&path, 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
