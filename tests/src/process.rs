//! Real processes of the product: started, watched, killed.
//!
//! Nothing here sleeps: `ready` is read from the node's stderr as it is written, and an end is read from the process handle.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use serde_json::Value;

use crate::cli::Cli;
use crate::http::Client;

/// How long a node may take to become ready.
pub const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a node may take to drain and exit.
pub const EXIT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the last words of a process may take to arrive.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(10);
/// Lines of stderr that are kept; older ones are forgotten.
const LINES_MAX: usize = 20_000;

/// The path of the built binary called `name`.
///
/// # Panics
///
/// When it is not built.
#[must_use]
#[track_caller]
pub fn binary(name: &str) -> PathBuf {
    // A test runs from target/<profile>/deps, the binaries are in target/<profile>.
    let test = std::env::current_exe().expect("a process knows its own path");
    let mut folder = test.parent().expect("a file has a folder");
    if folder.ends_with("deps") {
        folder = folder.parent().expect("deps is in target/<profile>");
    }
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{name} is not built (no {}): run tests/run, or `cargo build --workspace --bins --tests` before this test",
        path.display()
    );
    path
}

/// Keeps the test's own `MOBO_…` variables away from a child, which reads its settings from such.
pub fn clean_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MOBO_") {
            command.env_remove(name);
        }
    }
}

/// How a node starts; kept by the [`Node`], so that it can start again.
#[derive(Clone, Debug)]
pub struct Launch {
    program: PathBuf,
    role: Vec<OsString>,
    folder: PathBuf,
    settings: Vec<(String, String)>,
    args: Vec<OsString>,
    env: Vec<(String, String)>,
}

impl Launch {
    /// `mobo-hub boot` on `folder`, with free ports.
    ///
    /// # Panics
    ///
    /// When the binary is not built.
    #[must_use]
    pub fn hub(folder: impl Into<PathBuf>) -> Self {
        let any = "127.0.0.1:0";
        Self::program(binary("mobo-hub"), folder).set("http.listen", any).set("quic.listen", any).set("mqtt.listen", any)
    }

    /// `mobo-edge boot` on `folder`, with a free port.
    ///
    /// # Panics
    ///
    /// When the binary is not built.
    #[must_use]
    pub fn edge(folder: impl Into<PathBuf>) -> Self {
        Self::program(binary("mobo-edge"), folder).set("http.listen", "127.0.0.1:0")
    }

    /// Any program that takes the verbs and flags of a node, with the data folder `folder`.
    #[must_use]
    pub fn program(program: impl Into<PathBuf>, folder: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), role: Vec::new(), folder: folder.into(), settings: Vec::new(), args: Vec::new(), env: Vec::new() }
    }

    /// Words before the verb: `mobo` takes its role there (`hub`, `edge`).
    #[must_use]
    pub fn role(mut self, word: &str) -> Self {
        self.role.push(word.into());
        self
    }

    /// Sets `key` for this node, with `--set` wherever it holds no password; a later value replaces an earlier one.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.retain(|(known, _)| known != key);
        self.settings.push((key.into(), value.into()));
        self
    }

    /// Adds an argument behind the others.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// A verb on the same data folder, with the same binary.
    #[must_use]
    pub fn cli(&self) -> Cli {
        Cli::program(&self.program).args(self.role.iter().cloned()).data_dir(&self.folder)
    }

    /// Starts the process and returns at once, ready or not.
    ///
    /// # Panics
    ///
    /// When the program does not start.
    #[must_use]
    #[track_caller]
    pub fn spawn(self) -> Node {
        let mut command = Command::new(&self.program);
        clean_environment(&mut command);
        command.args(&self.role).arg("boot").arg("--data-dir").arg(&self.folder);
        for (key, value) in &self.settings {
            // A password does not belong on a command line, and is refused there.
            if key == "store.url" || key.ends_with("secret") {
                command.env(format!("MOBO_{}", key.replace('.', "__").to_uppercase()), value);
            } else {
                command.arg("--set").arg(format!("{key}={value}"));
            }
        }
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{} does not start: {error}", self.program.display()));
        let stderr = Tail::follow(child.stderr.take().expect("stderr is piped"));
        Node { launch: self, handle: Handle::new(child), stderr }
    }

    /// Starts the process and waits until it is ready.
    ///
    /// # Panics
    ///
    /// When the program does not start, or is not ready within [`READY_TIMEOUT`]; with its stderr.
    #[must_use]
    #[track_caller]
    pub fn boot(self) -> Node {
        let node = self.spawn();
        node.wait_ready();
        node
    }
}

/// A running node. Dropping it kills it.
#[derive(Debug)]
pub struct Node {
    launch: Launch,
    handle: Handle,
    stderr: Tail,
}

impl Node {
    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.handle.child.id()
    }

    /// The data folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.launch.folder
    }

    /// A verb on this node.
    #[must_use]
    pub fn cli(&self) -> Cli {
        self.launch.cli()
    }

    /// What `status -o json` says. A degraded node (exit code 1) says it too.
    ///
    /// # Panics
    ///
    /// When the verb fails or prints no JSON.
    #[must_use]
    #[track_caller]
    pub fn status(&self) -> Value {
        let outcome = self.cli().args(["status", "-o", "json"]).run();
        assert!(matches!(outcome.code, Some(0 | 1)), "status failed: {outcome:?}\n{}", self.stderr());
        outcome.json()
    }

    /// The address under `key` of the status: `http`, `quic`, `mqtt`; with the real port.
    ///
    /// # Panics
    ///
    /// When the status has no such address.
    #[must_use]
    #[track_caller]
    pub fn address(&self, key: &str) -> String {
        let status = self.status();
        let address = status.get(key).and_then(Value::as_str);
        address.unwrap_or_else(|| panic!("the status has no address {key}: {status}")).to_owned()
    }

    /// A client of this node's HTTP API.
    ///
    /// # Panics
    ///
    /// When the status has no address of it.
    #[must_use]
    #[track_caller]
    pub fn http(&self) -> Client {
        Client::new(&self.address("http"))
    }

    /// Waits until the node serves this collection: a device knows it once its hub has told it.
    ///
    /// # Panics
    ///
    /// When [`CONVERGENCE_TIMEOUT`](crate::cluster::CONVERGENCE_TIMEOUT) passes first.
    #[track_caller]
    pub fn wait_collection(&self, name: &str) {
        let (mut http, path) = (self.http(), format!("/rest/v1/{name}?limit=0"));
        crate::wait::until(name, crate::cluster::CONVERGENCE_TIMEOUT, || {
            http.get(&path).is_ok_and(|answer| answer.status == 200).then_some(())
        });
    }

    /// Waits for the line that begins with the word `ready`.
    ///
    /// # Panics
    ///
    /// When the process ends first or [`READY_TIMEOUT`] passes; with its stderr.
    #[track_caller]
    pub fn wait_ready(&self) {
        let _ = self.wait_line(READY_TIMEOUT, |line| line.trim_start().starts_with("ready"));
    }

    /// Waits for a line of stderr, also one that was written before this call, and returns it.
    ///
    /// # Panics
    ///
    /// When the process ends first or `timeout` passes; with its stderr.
    #[track_caller]
    pub fn wait_line(&self, timeout: Duration, wanted: impl Fn(&str) -> bool) -> String {
        self.wait_line_after(0, timeout, wanted)
    }

    /// Waits for a line of stderr behind the first `mark` ones ([`lines_seen`](Self::lines_seen)), and returns it.
    ///
    /// # Panics
    ///
    /// When the process ends first or `timeout` passes; with its stderr.
    #[track_caller]
    pub fn wait_line_after(&self, mark: usize, timeout: Duration, wanted: impl Fn(&str) -> bool) -> String {
        match self.stderr.wait(mark, timeout, wanted) {
            Ok(line) => line,
            Err(why) => panic!("the line did not come: {why}. Its stderr:\n{}", self.stderr()),
        }
    }

    /// Lines of stderr so far: a mark for [`wait_line_after`](Self::wait_line_after).
    #[must_use]
    pub fn lines_seen(&self) -> usize {
        let lines = self.stderr.lines();
        lines.forgotten + lines.kept.len()
    }

    /// Everything on stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.lines().kept.iter().map(|line| format!("{line}\n")).collect()
    }

    /// Sends a signal: `Signal::TERM` to drain, `Signal::STOP` and `Signal::CONT` to freeze and thaw.
    pub fn signal(&self, signal: Signal) {
        self.handle.signal(signal);
    }

    /// Waits for the end of the process, and for its last words; `None` when `timeout` passes first.
    #[must_use]
    pub fn wait_exit(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let status = self.handle.wait_exit(timeout)?;
        // What it wrote may still be in the pipe, which a child of its may hold open for longer.
        let _ = self.stderr.wait(0, LAST_WORDS_TIMEOUT, |_| false);
        Some(status)
    }

    /// Asks the node to drain and waits for its end.
    ///
    /// # Panics
    ///
    /// When it does not end within [`EXIT_TIMEOUT`]; with its stderr.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let status = self.wait_exit(EXIT_TIMEOUT);
        status.unwrap_or_else(|| panic!("the node did not drain within {EXIT_TIMEOUT:?}:\n{}", self.stderr()))
    }

    /// Kills the process on the spot, as a power cut of this process alone, and returns how to start it again: on the
    /// same folder, with the same settings.
    pub fn kill9(mut self) -> Launch {
        self.handle.kill();
        self.launch.clone()
    }

    /// The same start, with the ports that are in use now: for a node that comes back to peers that know its address.
    ///
    /// # Panics
    ///
    /// When the node does not answer `status`.
    #[must_use]
    #[track_caller]
    pub fn launch_here(&self) -> Launch {
        let status = self.status();
        ["http", "quic", "mqtt"].iter().fold(self.launch.clone(), |launch, key| match status.get(key).and_then(Value::as_str) {
            Some(address) => launch.set(&format!("{key}.listen"), address),
            None => launch,
        })
    }
}

/// A child process that dies with this value.
#[derive(Debug)]
pub(crate) struct Handle {
    child: Child,
    /// Names this process alone, also after it is gone and its pid belongs to another.
    pidfd: OwnedFd,
}

impl Handle {
    pub(crate) fn new(child: Child) -> Self {
        let pid = rustix::process::Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
            .expect("Linux 5.3 or newer gives a handle of our own child");
        Self { child, pidfd }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // The only way to fail is that the process is gone, which is what most signals are for.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, signal);
    }

    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }

    pub(crate) fn wait_exit(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = left.try_into().expect("a deadline of this century");
            let mut poll = [rustix::event::PollFd::new(&self.pidfd, rustix::event::PollFlags::IN)];
            match rustix::event::poll(&mut poll, Some(&left)) {
                Ok(0) => return None,
                Ok(_) => return self.child.wait().ok(),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("polling a process handle failed: {error}"),
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The lines of a pipe, read as they come by a thread that ends with the pipe.
#[derive(Clone, Debug)]
struct Tail(Arc<(Mutex<Lines>, Condvar)>);

#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<String>,
    forgotten: usize,
    ended: bool,
}

impl Tail {
    fn follow(pipe: impl Read + Send + 'static) -> Self {
        let tail = Self(Arc::default());
        let writer = tail.clone();
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
                writer.change(|lines| {
                    if lines.kept.len() == LINES_MAX {
                        lines.kept.pop_front();
                        lines.forgotten += 1;
                    }
                    lines.kept.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
                });
                line.clear();
            }
            writer.change(|lines| lines.ended = true);
        });
        tail
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Lines)) {
        change(&mut self.lines());
        self.0.1.notify_all();
    }

    fn wait(&self, mark: usize, timeout: Duration, wanted: impl Fn(&str) -> bool) -> Result<String, String> {
        let deadline = Instant::now() + timeout;
        let mut next = mark;
        let mut lines = self.lines();
        loop {
            let skip = next.saturating_sub(lines.forgotten);
            if let Some(line) = lines.kept.iter().skip(skip).find(|line| wanted(line)) {
                return Ok(line.clone());
            }
            next = lines.forgotten + lines.kept.len();
            if lines.ended {
                return Err("the process ended".into());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("{} s passed", timeout.as_secs_f32()));
            }
            lines = self.0.1.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
