//! One verb of a binary: what it printed, and the code it left with.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::process::{Handle, binary, clean_environment};

/// How long a verb may take unless [`Cli::timeout`] says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(120);

/// A verb that is about to run.
#[derive(Debug)]
pub struct Cli {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(String, String)>,
    input: Vec<u8>,
    timeout: Duration,
}

impl Cli {
    /// A verb of the binary called `name`: `mobo-hub`, `mobo-edge` or `mobo`.
    ///
    /// # Panics
    ///
    /// When the binary is not built.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self::program(binary(name))
    }

    /// A verb of any program.
    #[must_use]
    pub fn program(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), args: Vec::new(), env: Vec::new(), input: Vec::new(), timeout: TIMEOUT }
    }

    /// A verb of `mobo-hub` on the data folder `folder`.
    #[must_use]
    pub fn hub(folder: impl AsRef<Path>) -> Self {
        Self::new("mobo-hub").data_dir(folder)
    }

    /// A verb of `mobo-edge` on the data folder `folder`.
    #[must_use]
    pub fn edge(folder: impl AsRef<Path>) -> Self {
        Self::new("mobo-edge").data_dir(folder)
    }

    /// Adds `--data-dir`.
    #[must_use]
    pub fn data_dir(self, folder: impl AsRef<Path>) -> Self {
        self.args([OsString::from("--data-dir"), folder.as_ref().into()])
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable. No `MOBO_…` variable of the test itself reaches the verb.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// What the verb reads from its standard input; nothing by default. Less than a pipe holds (64 KiB).
    #[must_use]
    pub fn input(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.input = text.into();
        self
    }

    /// How long the verb may take; [`TIMEOUT`] by default.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs the verb to its end.
    ///
    /// # Panics
    ///
    /// When it does not start, or takes longer than its timeout (it is killed then).
    #[track_caller]
    pub fn run(self) -> Outcome {
        let line = format!("{} {}", self.program.display(), self.args.join(OsStr::new(" ")).display());
        let mut command = Command::new(&self.program);
        clean_environment(&mut command);
        command.args(&self.args).envs(self.env);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{line} does not start: {error}"));
        if let Some(mut pipe) = child.stdin.take() {
            // A verb that reads nothing may be gone already.
            let _ = pipe.write_all(&self.input);
        }
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        let mut handle = Handle::new(child);
        let status = handle.wait_exit(self.timeout);
        handle.kill();
        let text = |reader: Option<std::thread::JoinHandle<Vec<u8>>>| {
            let bytes = reader.map(|reader| reader.join().expect("the reader does not panic")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (stdout, stderr) = (text(stdout), text(stderr));
        let Some(status) = status else {
            panic!("{line} was still running after {} s\nstdout: {stdout}\nstderr: {stderr}", self.timeout.as_secs())
        };
        Outcome { line, code: status.code(), stdout, stderr }
    }
}

/// What a verb left behind.
#[derive(Debug)]
pub struct Outcome {
    /// The command line, for messages.
    pub line: String,
    /// The exit code; absent when a signal ended it.
    pub code: Option<i32>,
    /// Everything on stdout: what scripts read.
    pub stdout: String,
    /// Everything on stderr: what people read.
    pub stderr: String,
}

impl Outcome {
    /// Goes on when the exit code is 0.
    ///
    /// # Panics
    ///
    /// When it is not, with what the verb printed.
    #[track_caller]
    pub fn expect_success(self) -> Self {
        self.expect_code(0)
    }

    /// Goes on when the exit code is `code`.
    ///
    /// # Panics
    ///
    /// When it is not, with what the verb printed.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{} left with another code\nstdout: {}\nstderr: {}", self.line, self.stdout, self.stderr);
        self
    }

    /// Stdout without its last line break.
    #[must_use]
    pub fn text(&self) -> String {
        self.stdout.trim_end().to_owned()
    }

    /// Stdout as one JSON value.
    ///
    /// # Panics
    ///
    /// When it is not.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{} printed no JSON ({error}): {}\n{}", self.line, self.stdout, self.stderr))
    }
}

/// Reads a pipe to its end on a thread of its own, so that neither pipe fills up while we wait.
fn collect(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A pipe that breaks keeps what came before.
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}
