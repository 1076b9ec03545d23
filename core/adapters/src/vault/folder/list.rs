//! What is in a folder: the objects of a repository, and what killed writers have left.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{MutexGuard, PoisonError};

use mobo_core::backup::vault::{KEYS, Listed, MANIFESTS, ObjectName, SEGMENTS, SNAPSHOTS, VaultError};
use mobo_core::limits;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, fstat, openat, statat, unlinkat};
use rustix::io::Errno;

use super::{Folder, PARTIAL, Try, failed, parts};

/// What a repository is made of.
const FOLDERS: [&str; 4] = [KEYS, MANIFESTS, SEGMENTS, SNAPSHOTS];
/// Folders in folders; names are not that long.
const DEPTH_MAX: usize = limits::OBJECT_NAME_BYTES_MAX / 2;

/// Names of objects that are behind those of a page.
#[derive(Debug)]
pub(super) struct Ahead {
    prefix: String,
    after: ObjectName,
    names: VecDeque<ObjectName>,
    /// There are none behind these.
    is_all: bool,
}

impl Folder {
    /// A page of a list. Whoever reads on gets the names as they were when the folder was looked through: in a large one, that is not done
    /// again for each page.
    pub(super) fn list(&self, prefix: &str, after: Option<&ObjectName>) -> Try<Vec<Listed>> {
        let known = self.ahead().take().filter(|ahead| ahead.prefix == prefix && after == Some(&ahead.after));
        let known = known.filter(|ahead| ahead.is_all || ahead.names.len() >= limits::VAULT_LIST_MAX);
        let (mut names, is_all) = match known {
            Some(ahead) => (ahead.names, ahead.is_all),
            None => self.look(prefix, after).map_err(|errno| failed(&format!("cannot list {}", self.path.display()), errno))?,
        };
        let mut page = Vec::new();
        while page.len() < limits::VAULT_LIST_MAX
            && let Some(name) = names.pop_front()
        {
            match self.size(&name) {
                Ok(bytes) => page.push(Listed { name, bytes }),
                // Removed since.
                Err(VaultError::Gone(_)) => {}
                Err(error) => return Err(error),
            }
        }
        if page.is_empty() && !is_all {
            // All that was known is gone.
            return self.list(prefix, after);
        }
        if let Some(last) = page.last().filter(|_| !names.is_empty()) {
            *self.ahead() = Some(Ahead { prefix: prefix.to_owned(), after: last.name.clone(), names, is_all });
        }
        Ok(page)
    }

    fn ahead(&self) -> MutexGuard<'_, Option<Ahead>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next names, as many as are kept; and whether these are all.
    fn look(&self, prefix: &str, after: Option<&ObjectName>) -> Result<(VecDeque<ObjectName>, bool), Errno> {
        let (mut names, mut is_all) = (BTreeSet::new(), true);
        for folder in FOLDERS.iter().filter(|folder| folder.starts_with(prefix) || prefix.starts_with(**folder)) {
            self.visit(folder, &mut |_, _, _, path| {
                let wanted = path.starts_with(prefix) && after.is_none_or(|after| path > after.as_str());
                if !wanted || names.len() >= limits::VAULT_NAMES_MAX && names.last().is_some_and(|last: &ObjectName| path > last.as_str()) {
                    is_all &= !wanted;
                    return Ok(());
                }
                names.extend(ObjectName::parse(path));
                if names.len() > limits::VAULT_NAMES_MAX {
                    names.pop_last();
                    is_all = false;
                }
                Ok(())
            })?;
        }
        Ok((names.into_iter().collect(), is_all))
    }

    fn size(&self, name: &ObjectName) -> Try<u64> {
        let (parents, file) = parts(name);
        let place = self.folder(&parents, false, name)?;
        match statat(&place, file, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(u64::try_from(stat.st_size).unwrap_or(0)),
            Err(Errno::NOENT) => Err(self.missing(name)),
            Err(errno) => Err(failed(&format!("cannot look at {name}"), errno)),
        }
    }

    /// Removes the files of writers that are gone: those have no lock on them.
    pub(super) fn sweep(&self) -> Try<()> {
        for folder in FOLDERS {
            let swept = self.visit(folder, &mut |is_partial, place, file, _| {
                if is_partial
                    && let Ok(open) = openat(place, file, OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
                    && fs::flock(&open, FlockOperation::NonBlockingLockExclusive).is_ok()
                {
                    let _ = unlinkat(place, file, AtFlags::empty());
                }
                Ok(())
            });
            swept.map_err(|errno| failed(&format!("cannot look through {}", self.path.display()), errno))?;
        }
        Ok(())
    }

    /// Visits the files of one of the folders of a repository, if it is there. What else is in the vault's folder is somebody else's: on the
    /// root of a disk, there is one that nobody may look into.
    fn visit(&self, folder: &str, visit: &mut Visit<'_>) -> Result<(), Errno> {
        match openat(&self.root, folder.trim_end_matches('/'), OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Ok(open) => self.walk(&open, folder, visit),
            // In a folder that is itself gone, nobody knows.
            Err(Errno::NOENT) if fstat(&self.root)?.st_nlink == 0 => Err(Errno::NOENT),
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Visits the files below a folder: whether one is a partial one, the folder that it is in, its name there, and its whole name.
    fn walk(&self, place: &OwnedFd, path: &str, visit: &mut Visit<'_>) -> Result<(), Errno> {
        if path.matches('/').count() > DEPTH_MAX {
            return Ok(());
        }
        for entry in Dir::read_from(place)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            let mut kind = entry.file_type();
            if kind == FileType::Unknown {
                kind = match statat(place, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                    Err(Errno::NOENT) => continue,
                    Err(errno) => return Err(errno),
                };
            }
            let is_partial = name.starts_with(PARTIAL);
            if kind == FileType::RegularFile && (is_partial || !name.starts_with('.')) {
                visit(is_partial, place.as_fd(), name, &format!("{path}{name}"))?;
            } else if kind == FileType::Directory && !name.starts_with('.') {
                let open = openat(place, name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
                self.walk(&open, &format!("{path}{name}/"), visit)?;
            }
        }
        Ok(())
    }
}

type Visit<'a> = dyn FnMut(bool, BorrowedFd<'_>, &str, &str) -> Result<(), Errno> + 'a;
