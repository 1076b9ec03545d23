//! Scripts of `tests/js`: unmodified clients from the npm registry, run by node against a node of ours.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::cli::Cli;

/// How long a script may take; the box may be loaded.
const TIMEOUT: Duration = Duration::from_secs(240);

/// A script that is about to run.
#[derive(Debug)]
pub struct Script(Cli);

impl Script {
    /// The script `tests/js/{name}`. Its packages are installed as the lockfile names them, unless they are there.
    ///
    /// # Panics
    ///
    /// When node or npm is missing, or the packages cannot be installed; the message says what to do.
    #[must_use]
    #[track_caller]
    pub fn new(name: &str) -> Self {
        let folder = installed();
        let script = folder.join(name);
        assert!(script.is_file(), "{} is not there", script.display());
        Self(Cli::program("node").args([script]).timeout(TIMEOUT))
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(self, name: &str, value: &str) -> Self {
        Self(self.0.env(name, value))
    }

    /// Runs it; gives what it printed.
    ///
    /// # Panics
    ///
    /// When it fails, with what it printed.
    #[track_caller]
    pub fn run(self) -> String {
        let outcome = self.0.run();
        assert_eq!(outcome.code, Some(0), "{}\n{}\n{}", outcome.line, outcome.stdout, outcome.stderr);
        outcome.stdout
    }
}

/// The folder of the scripts, with its packages.
#[track_caller]
fn installed() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("js");
    // One at a time, also among the processes of one run.
    let lock = File::open(folder.join("package.json")).expect("tests/js/package.json");
    lock.lock().expect("a lock on tests/js");
    let wanted = fs::read(folder.join("package-lock.json")).expect("tests/js/package-lock.json");
    let stamp = folder.join("node_modules").join(".mobo-installed");
    if fs::read(&stamp).ok().as_ref() != Some(&wanted) {
        let output = Command::new("npm").args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(&folder).output();
        let output = output.expect("npm is not installed: `tests/run` installs it, or `apt-get install npm`");
        assert!(output.status.success(), "npm ci failed in {}: {}", folder.display(), String::from_utf8_lossy(&output.stderr));
        fs::write(stamp, wanted).expect("a note that the packages are there");
    }
    folder
}
