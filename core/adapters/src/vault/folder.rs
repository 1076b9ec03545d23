//! A vault in a folder: a disk, a USB stick, a network file system.
//!
//! An object is a file of its name. It is written under a hidden name beside it, made durable, and only then given its own name, which
//! must be free. No symbolic link below the folder is followed, neither for reading nor for writing.

mod list;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use mobo_core::backup::vault::{Listed, ObjectName, Pruner, Vault, VaultError, VaultFuture};
use mobo_core::limits;
use rustix::fd::OwnedFd;
use rustix::fs::{
    self, AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, fstat, fsync, linkat, mkdirat, openat, renameat, renameat_with,
    statat, unlinkat,
};
use rustix::io::Errno;
use tokio::sync::{AcquireError, Semaphore};

use list::Ahead;

use crate::meter::carried;

/// What a file is called until it is whole: a dot is no part of an object's name.
const PARTIAL: &str = ".partial-";
/// Bytes of an object that are compared at once.
const READ_BYTES: usize = 32 * 1024;

/// A folder as a vault. Clones share it.
#[derive(Clone, Debug)]
pub struct FolderVault {
    folder: Arc<Folder>,
    /// A disk that hangs keeps every thread that waits for it: there are no more of them than this.
    threads: Arc<Semaphore>,
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    root: OwnedFd,
    next: AtomicU64,
    /// What comes next in the list that was asked for last.
    ahead: Mutex<Option<Ahead>>,
}

type Try<T> = Result<T, VaultError>;

impl FolderVault {
    /// Opens the folder; makes it, for its owner only, where the folder that it is in is there. What a killed writer has left half-written
    /// goes.
    ///
    /// # Errors
    ///
    /// [`VaultError::Unavailable`] where it is not there, and the one that it would be in neither: perhaps a disk is not mounted.
    pub fn open(path: &Path) -> Result<Self, VaultError> {
        match fs::mkdir(path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(&format!("cannot make {}", path.display()), errno)),
        }
        let root = fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| failed(&format!("cannot open {}", path.display()), errno))?;
        let folder = Folder { path: path.to_owned(), root, next: AtomicU64::new(0), ahead: Mutex::new(None) };
        folder.sweep()?;
        Ok(Self { folder: Arc::new(folder), threads: Arc::new(Semaphore::new(limits::VAULT_THREADS_MAX)) })
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&Folder) -> Try<T> + Send + 'static) -> Try<T> {
        let closed = |error: AcquireError| VaultError::Unavailable(error.to_string());
        let thread = Arc::clone(&self.threads).acquire_owned().await.map_err(closed)?;
        let folder = Arc::clone(&self.folder);
        // Whoever waited may have gone: the thread is held until the work is done.
        let done = tokio::task::spawn_blocking(carried(move || {
            let _thread = thread;
            work(&folder)
        }));
        let done = done.await;
        done.unwrap_or_else(|error| Err(VaultError::Unavailable(format!("the work was cut short: {error}"))))
    }
}

impl Vault for FolderVault {
    fn place(&self) -> String {
        format!("folder://{}", self.folder.path.display())
    }

    fn put(&self, name: &ObjectName, bytes: Arc<Vec<u8>>) -> VaultFuture<'_, ()> {
        let name = name.clone();
        Box::pin(self.run(move |folder| folder.put(&name, &bytes)))
    }

    fn get(&self, name: &ObjectName, range: Option<Range<u64>>) -> VaultFuture<'_, Vec<u8>> {
        let name = name.clone();
        Box::pin(self.run(move |folder| folder.get(&name, range)))
    }

    fn holds(&self, name: &ObjectName, bytes: Arc<Vec<u8>>) -> VaultFuture<'_, bool> {
        let name = name.clone();
        Box::pin(self.run(move |folder| folder.holds(&name, &bytes)))
    }

    fn head(&self, name: &ObjectName) -> VaultFuture<'_, Option<u64>> {
        let name = name.clone();
        Box::pin(self.run(move |folder| match folder.open_object(&name) {
            Ok((_, bytes)) => Ok(Some(bytes)),
            Err(VaultError::Gone(_)) => Ok(None),
            Err(error) => Err(error),
        }))
    }

    fn list(&self, prefix: &str, after: Option<&ObjectName>) -> VaultFuture<'_, Vec<Listed>> {
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        Box::pin(self.run(move |folder| folder.list(&prefix, after.as_ref())))
    }
}

/// The same folder, for whoever may remove objects.
#[derive(Clone, Debug)]
pub struct FolderPruner(FolderVault);

impl FolderPruner {
    /// As [`FolderVault::open`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn open(path: &Path) -> Result<Self, VaultError> {
        FolderVault::open(path).map(Self)
    }
}

impl Pruner for FolderPruner {
    fn vault(&self) -> &dyn Vault {
        &self.0
    }

    fn delete(&self, name: &ObjectName) -> VaultFuture<'_, ()> {
        let name = name.clone();
        Box::pin(self.0.run(move |folder| folder.delete(&name)))
    }
}

impl Folder {
    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Try<()> {
        if bytes.len() > limits::OBJECT_BYTES_MAX {
            return Err(VaultError::Refused(format!("{name} is larger than {} bytes", limits::OBJECT_BYTES_MAX)));
        }
        let (parents, file) = parts(name);
        let place = self.folder(&parents, true, name)?;
        if statat(&place, file, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return Err(VaultError::Exists(name.clone()));
        }
        let partial = format!("{PARTIAL}{}-{}", std::process::id(), self.next.fetch_add(1, Ordering::Relaxed));
        let written = write(&place, &partial, bytes).and_then(|_open| settle(&place, &partial, file));
        if written.is_err() {
            let _ = unlinkat(&place, partial.as_str(), AtFlags::empty());
        }
        match written {
            Ok(()) => durable(&place).map_err(|errno| failed(&format!("cannot keep {name}"), errno)),
            Err(Errno::EXIST) => Err(VaultError::Exists(name.clone())),
            Err(errno) => Err(failed(&format!("cannot write {name}"), errno)),
        }
    }

    fn get(&self, name: &ObjectName, range: Option<Range<u64>>) -> Try<Vec<u8>> {
        let (file, size) = self.open_object(name)?;
        let range = range.unwrap_or(0..size);
        let (at, end) = (range.start.min(size), range.end.min(size));
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(at)).unwrap_or(0)];
        fill(&file, &mut bytes, (name, at))?;
        Ok(bytes)
    }

    /// Compares an object piece by piece: every one that was written is read so.
    fn holds(&self, name: &ObjectName, bytes: &[u8]) -> Try<bool> {
        let (file, size) = self.open_object(name)?;
        if size != bytes.len() as u64 {
            return Ok(false);
        }
        let mut read = [0; READ_BYTES];
        for (at, piece) in (0..).step_by(READ_BYTES).zip(bytes.chunks(READ_BYTES)) {
            let there = read.get_mut(..piece.len()).unwrap_or_default();
            fill(&file, there, (name, at))?;
            if there != piece {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn delete(&self, name: &ObjectName) -> Try<()> {
        let (parents, file) = parts(name);
        let place = match self.folder(&parents, false, name) {
            Err(VaultError::Gone(_)) => return Ok(()),
            other => other?,
        };
        match unlinkat(&place, file, AtFlags::empty()) {
            Ok(()) => durable(&place).map_err(|errno| failed(&format!("cannot remove {name} for good"), errno)),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed(&format!("cannot remove {name}"), errno)),
        }
    }

    /// The file of an object, and how large it is.
    fn open_object(&self, name: &ObjectName) -> Try<(OwnedFd, u64)> {
        let (parents, file) = parts(name);
        let place = self.folder(&parents, false, name)?;
        // A pipe of that name would wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = match openat(&place, file, flags, Mode::empty()) {
            Ok(open) => open,
            Err(Errno::NOENT) => return Err(VaultError::Gone(name.clone())),
            Err(Errno::LOOP) => return Err(VaultError::Damaged(format!("{name} is a symbolic link"))),
            Err(errno) => return Err(failed(&format!("cannot open {name}"), errno)),
        };
        let stat = fstat(&open).map_err(|errno| failed(&format!("cannot look at {name}"), errno))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(VaultError::Damaged(format!("{name} is not a file")));
        }
        let bytes = u64::try_from(stat.st_size).unwrap_or(0);
        if bytes > limits::OBJECT_BYTES_MAX as u64 {
            return Err(VaultError::Damaged(format!("{name} has {bytes} bytes, and nothing that large is ever written")));
        }
        Ok((open, bytes))
    }

    /// The folder that an object is in, made if wanted.
    fn folder(&self, parents: &[&str], make: bool, name: &ObjectName) -> Try<OwnedFd> {
        let mut at = self.root.try_clone().map_err(|error| VaultError::Unavailable(error.to_string()))?;
        for part in parents {
            let open = || openat(&at, *part, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
            let opened = match open() {
                Err(Errno::NOENT) if make => match mkdirat(&at, *part, Mode::RWXU) {
                    Ok(()) => durable(&at).and_then(|()| open()),
                    // Another writer was faster.
                    Err(Errno::EXIST) => open(),
                    Err(errno) => Err(errno),
                },
                other => other,
            };
            at = match opened {
                Ok(opened) => opened,
                Err(Errno::NOENT) => return Err(self.missing(name)),
                Err(Errno::LOOP | Errno::NOTDIR) => return Err(VaultError::Damaged(format!("{part} is not a folder"))),
                Err(errno) => return Err(failed(&format!("cannot open the folder of {name}"), errno)),
            };
        }
        Ok(at)
    }

    /// An object is gone; but in a folder that is itself gone, nobody knows.
    fn missing(&self, name: &ObjectName) -> VaultError {
        match fstat(&self.root) {
            Ok(stat) if stat.st_nlink > 0 => VaultError::Gone(name.clone()),
            Ok(_) => VaultError::Unavailable(format!("{} was removed", self.path.display())),
            Err(errno) => failed(&format!("cannot look at {}", self.path.display()), errno),
        }
    }
}

/// Fills a buffer with what is in a file from a place on.
fn fill(file: &OwnedFd, buffer: &mut [u8], (name, mut at): (&ObjectName, u64)) -> Try<()> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pread(file, rest, at) {
            Ok(0) => return Err(VaultError::Damaged(format!("{name} ends at byte {at}, and it had more"))),
            Ok(read) => (filled, at) = (filled + read, at + read as u64),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(&format!("cannot read {name}"), errno)),
        }
    }
    Ok(())
}

/// The folders of a name, and its last part.
fn parts(name: &ObjectName) -> (Vec<&str>, &str) {
    let mut parts: Vec<&str> = name.as_str().split('/').collect();
    let file = parts.pop().unwrap_or_default();
    (parts, file)
}

/// Writes a file and makes it durable; it is locked while the answer lives, so that nobody takes it for left behind.
fn write(place: &OwnedFd, partial: &str, bytes: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = openat(place, partial, flags, Mode::RUSR | Mode::WUSR)?;
    // Where locks are unknown, a sweep finds no lock either, and leaves the file.
    let _ = fs::flock(&open, FlockOperation::NonBlockingLockExclusive);
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::io::write(&open, rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    fsync(&open)?;
    Ok(open)
}

/// Gives a file its own name, if that is free.
fn settle(place: &OwnedFd, partial: &str, file: &str) -> Result<(), Errno> {
    match renameat_with(place, partial, place, file, RenameFlags::NOREPLACE) {
        // The file system does not know how: links do the same.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        other => return other,
    }
    match linkat(place, partial, place, file, AtFlags::empty()) {
        Ok(()) => unlinkat(place, partial, AtFlags::empty()),
        // Nor links: a stick. Two writers on one stick are not foreseen.
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => match statat(place, file, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => renameat(place, partial, place, file),
            Err(errno) => Err(errno),
        },
        Err(errno) => Err(errno),
    }
}

/// Makes the names in a folder durable.
fn durable(place: &OwnedFd) -> Result<(), Errno> {
    match fsync(place) {
        // Some file systems cannot sync a folder, and need not.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(()),
        other => other,
    }
}

fn failed(what: &str, errno: Errno) -> VaultError {
    let text = format!("{what}: {}", std::io::Error::from(errno));
    match errno {
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => VaultError::Full(text),
        Errno::ROFS | Errno::ACCESS | Errno::PERM => VaultError::Refused(text),
        Errno::NOTDIR | Errno::LOOP => VaultError::Damaged(text),
        _ => VaultError::Unavailable(text),
    }
}

#[cfg(test)]
mod tests;
