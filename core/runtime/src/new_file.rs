//! Files for people to carry away: there whole, or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file that comes to be when it is kept. Until then it has another name beside its own, and is taken away when this is dropped.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    partial: PathBuf,
    file: File,
    bytes: u64,
}

impl NewFile {
    /// Starts it, readable for its owner only where the file system knows owners.
    ///
    /// # Errors
    ///
    /// When there is one of that name already ([`io::ErrorKind::AlreadyExists`]), or the folder cannot be written.
    pub fn create(path: &Path) -> io::Result<Self> {
        if path.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let partial = path.with_file_name(format!("{}.partial-{}", name.to_string_lossy(), std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
        Ok(Self { path: path.to_owned(), partial, file, bytes: 0 })
    }

    /// Writes more of it.
    ///
    /// # Errors
    ///
    /// As writing does.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Makes it durable, and gives it its name; says how long it is.
    ///
    /// # Errors
    ///
    /// As for writing; nothing of it is left then.
    pub fn keep(self) -> io::Result<u64> {
        self.file.sync_all()?;
        fs::rename(&self.partial, &self.path)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // A stick's file system may not know how to sync a folder; the file itself is durable.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
        Ok(self.bytes)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // Gone when it was kept.
        let _ = fs::remove_file(&self.partial);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_is_there_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bundle");
        let names = || fs::read_dir(folder.path()).unwrap().count();
        let mut dropped = NewFile::create(&path).unwrap();
        dropped.write(b"half").unwrap();
        assert!(!path.exists() && names() == 1);
        drop(dropped);
        assert_eq!(names(), 0);
        let mut kept = NewFile::create(&path).unwrap();
        kept.write(b"who").unwrap();
        kept.write(b"le").unwrap();
        assert_eq!(kept.keep().unwrap(), 5);
        assert_eq!((fs::read(&path).unwrap().as_slice(), names()), (b"whole".as_slice(), 1));
        assert_eq!(NewFile::create(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists, "what is there stays");
    }
}
