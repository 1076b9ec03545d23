//! A log file that does not grow without end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

/// A file and its predecessors, `file.1` the youngest of them. Lines are never cut: a file may be longer than its limit by one line.
///
/// A line that the disk does not take goes to standard error.
#[derive(Clone, Debug)]
pub(super) struct RotatingFile(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    bytes_max: u64,
    files_max: i64,
    file: Option<File>,
    bytes: u64,
}

impl RotatingFile {
    /// Opens the file, or makes it, readable for its owner only. `files_max` counts the file itself.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub(super) fn open(path: PathBuf, bytes_max: u64, files_max: i64) -> io::Result<Self> {
        let (file, bytes) = append(&path)?;
        Ok(Self(Arc::new(Mutex::new(Inner { path, bytes_max, files_max, file: Some(file), bytes }))))
    }
}

impl Inner {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if self.bytes > 0 && self.bytes.saturating_add(length) > self.bytes_max {
            // Closed first: where the names cannot be changed, the same file is opened again and goes on.
            self.file = None;
            shift(&self.path, self.files_max)?;
        }
        if self.file.is_none() {
            let (file, bytes) = append(&self.path)?;
            (self.file, self.bytes) = (Some(file), bytes);
        }
        if let Some(file) = &mut self.file {
            file.write_all(line)?;
            self.bytes = self.bytes.saturating_add(length);
        }
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

/// Gives each file the name of the next older one; the oldest is written over.
fn shift(path: &Path, files_max: i64) -> io::Result<()> {
    if files_max <= 1 {
        return fs::remove_file(path);
    }
    for age in (1..files_max).rev() {
        let from = if age == 1 { path.to_owned() } else { aged(path, age - 1) };
        match fs::rename(from, aged(path, age)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn aged(path: &Path, age: i64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{age}"));
    PathBuf::from(name)
}

/// One line, gathered while it is formatted and written in one go.
#[derive(Debug)]
pub(super) struct Line {
    target: RotatingFile,
    bytes: Vec<u8>,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut inner = self.target.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.line(&self.bytes).is_err() {
            inner.file = None;
            // There is nowhere else to complain.
            let _ = io::stderr().write_all(&self.bytes);
        }
    }
}

impl<'w> MakeWriter<'w> for RotatingFile {
    type Writer = Line;

    fn make_writer(&'w self) -> Line {
        Line { target: self.clone(), bytes: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(log: &RotatingFile, line: &str) {
        let mut writer = log.make_writer();
        writer.write_all(line.as_bytes()).unwrap();
    }

    #[test]
    fn files_are_bounded_in_size_and_number_and_lose_only_the_oldest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "old\n").unwrap();
        let log = RotatingFile::open(path.clone(), 40, 3).unwrap();
        (0..20).for_each(|number| say(&log, &format!("line number {number:03}\n")));
        let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["log", "log.1", "log.2"]);
        let kept: String = [aged(&path, 2), aged(&path, 1), path].iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        let want: String = (14..20).map(|number| format!("line number {number:03}\n")).collect();
        assert_eq!(kept, want);
    }

    #[test]
    fn a_file_that_was_taken_away_is_made_anew_and_one_alone_begins_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = RotatingFile::open(path.clone(), 10, 1).unwrap();
        say(&log, "0123456789");
        say(&log, "next");
        assert_eq!(fs::read_to_string(&path).unwrap(), "next");
        assert!(!aged(&path, 1).exists());
        fs::remove_file(&path).unwrap();
        say(&log, "0123456789");
        say(&log, "lost with the file's name, and then");
        assert!(RotatingFile::open(folder.path().to_owned(), 1, 1).is_err());
    }
}
