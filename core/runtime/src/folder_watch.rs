//! Changes of files, told by the system.

use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
use tokio::io::unix::AsyncFd;

/// What changes in some folders. A folder that is not there is not watched.
#[derive(Debug)]
pub struct FolderWatch(AsyncFd<OwnedFd>);

impl FolderWatch {
    /// Begins to watch for files that come, go, or are closed after a change.
    ///
    /// # Errors
    ///
    /// What the system says: it has a limit on watches.
    pub fn start(folders: &[PathBuf]) -> io::Result<Self> {
        let what = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM | WatchFlags::DELETE | WatchFlags::CREATE;
        Self::of(folders, what)
    }

    /// Begins to watch for every write into a file, whoever keeps it open.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn writes(folder: &Path) -> io::Result<Self> {
        Self::of(&[folder.to_owned()], WatchFlags::MODIFY | WatchFlags::CREATE)
    }

    fn of(folders: &[PathBuf], what: WatchFlags) -> io::Result<Self> {
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        for folder in folders {
            match add_watch(&inotify, folder, what) {
                Ok(_) => {}
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        #[expect(deprecated, reason = "its successor asks for a promise about the descriptor that the type of ours makes by itself")]
        let inotify = AsyncFd::new(inotify)?;
        Ok(Self(inotify))
    }

    /// The names of the files that have changed; waits for at least one. Cut short, it loses nothing: what was not read is read next.
    pub async fn next(&mut self) -> Vec<PathBuf> {
        loop {
            let Ok(mut ready) = self.0.readable().await else { return std::future::pending().await };
            let names = names(self.0.get_ref());
            if names.is_empty() {
                ready.clear_ready();
            } else {
                return names;
            }
        }
    }
}

/// The name that stands for all files, where the system could not tell which ones have changed.
const OVERFLOW: &[u8] = b"overflow.toml";

/// What can be read now; none when there is nothing.
fn names(inotify: &OwnedFd) -> Vec<PathBuf> {
    let mut buffer = [const { MaybeUninit::uninit() }; 4096];
    let mut reader = Reader::new(inotify, &mut buffer);
    let mut names = Vec::new();
    while let Ok(event) = reader.next() {
        // Of a folder itself, or of an overflow, there is no name: whoever asks should look.
        let name = event.file_name().map_or(OVERFLOW, std::ffi::CStr::to_bytes);
        names.push(PathBuf::from(OsStr::from_bytes(name)));
    }
    names
}
