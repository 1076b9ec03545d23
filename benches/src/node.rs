//! Real processes of the product: started, asked, stopped.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use mobo_runtime::control::ControlClient;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::watch;

use crate::http::Client;

/// How long a node may take to become ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a node may take to drain and exit.
const EXIT_TIMEOUT: Duration = Duration::from_secs(60);
/// Lines of a node's log that are shown when something is wrong with it.
const TAIL_LINES: usize = 20;

/// How a node starts.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    name: String,
    program: PathBuf,
    folder: PathBuf,
    settings: Vec<(String, String)>,
}

impl Launch {
    /// A node called `name` in reports of errors, on the data folder `home/name`, with a free port.
    pub(crate) fn new(name: &str, program: &Path, home: &Path) -> Self {
        let launch = Self { name: name.to_owned(), program: program.to_owned(), folder: home.join(name), settings: Vec::new() };
        launch.set("http.listen", "127.0.0.1:0")
    }

    /// Sets a setting. It goes through the environment: a database's password is nobody's business.
    pub(crate) fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push((format!("MOBO_{}", key.to_uppercase().replace('.', "__")), value.to_owned()));
        self
    }

    /// Starts the node and waits until it says that it is ready.
    pub(crate) async fn boot(&self) -> anyhow::Result<Node> {
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MOBO_")) {
            command.env_remove(name);
        }
        command.arg("boot").arg("--data-dir").arg(&self.folder);
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        // A process group of its own: Ctrl-C is for the bench, which then ends its nodes.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        let started = Instant::now();
        let mut child = command.spawn().with_context(|| format!("{} does not start", self.program.display()))?;
        let stderr = child.stderr.take().context("standard error is not piped")?;
        let log = Log::default();
        let (said, mut ready) = watch::channel(None);
        tokio::spawn(follow(stderr, log.clone(), said));
        let pid = child.id().context("a process without an id")?;
        let waited = tokio::time::timeout(READY_TIMEOUT, ready.wait_for(Option::is_some)).await;
        let ready_at = match waited {
            Ok(Ok(at)) => at.unwrap_or(started),
            Ok(Err(_)) => bail!("{} ended while it booted:\n{}", self.name, log.tail()),
            Err(_) => bail!("{} is not ready after {} s:\n{}", self.name, READY_TIMEOUT.as_secs(), log.tail()),
        };
        let booted_in = ready_at.saturating_duration_since(started);
        Ok(Node { name: self.name.clone(), folder: self.folder.clone(), pid, booted_in, child, log })
    }
}

/// A running node. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its name.
    pub(crate) name: String,
    /// Its data folder.
    pub(crate) folder: PathBuf,
    /// Its process.
    pub(crate) pid: u32,
    /// From the start of the process to its word that it is ready.
    pub(crate) booted_in: Duration,
    child: Child,
    log: Log,
}

impl Node {
    /// A conversation with it.
    pub(crate) async fn desk(&self) -> anyhow::Result<ControlClient> {
        ControlClient::connect(&self.folder).await.map_err(|error| self.trouble(&error))
    }

    /// Asks it for one thing.
    pub(crate) async fn ask(&self, verb: &str, args: Value) -> anyhow::Result<Value> {
        self.desk().await?.call(verb, args).await.map_err(|error| self.trouble(&error))
    }

    /// Its status.
    pub(crate) async fn status(&self) -> anyhow::Result<Value> {
        self.ask("status", json!({})).await
    }

    /// A client of its API; `key` where it wants one.
    pub(crate) async fn http(&self, key: Option<String>) -> anyhow::Result<Client> {
        let status = self.status().await?;
        let address = status.get("http").and_then(Value::as_str).with_context(|| format!("{} has no HTTP address", self.name))?;
        Ok(Client::new(address, key))
    }

    /// Stops it, and waits for its end.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.ask("shutdown", json!({})).await?;
        match tokio::time::timeout(EXIT_TIMEOUT, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => bail!("{} ended with {status}:\n{}", self.name, self.log.tail()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => bail!("{} did not stop within {} s:\n{}", self.name, EXIT_TIMEOUT.as_secs(), self.log.tail()),
        }
    }

    /// What it said last, for a message.
    pub(crate) fn tail(&self) -> String {
        self.log.tail()
    }

    fn trouble(&self, error: &mobo_runtime::control::ControlError) -> anyhow::Error {
        anyhow!("{}: {error}\nIts log:\n{}", self.name, self.log.tail())
    }
}

/// The last lines of a node's standard error.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<VecDeque<String>>>);

impl Log {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn tail(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(|line| format!("    {line}\n")).collect()
    }
}

/// Reads the log as it is written, and notes when the node says that it is ready.
async fn follow(stderr: ChildStderr, log: Log, said: watch::Sender<Option<Instant>>) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let now = Instant::now();
        if is_ready(&line) {
            said.send_if_modified(|at| {
                let first = at.is_none();
                at.get_or_insert(now);
                first
            });
        }
        log.push(line);
    }
}

fn is_ready(line: &str) -> bool {
    line.trim_start().starts_with("ready (")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_the_last_line_of_a_boot_and_no_other() {
        for (line, want) in [("  ready (48.8 ms)", true), ("ready (1.2 s)", true), ("[6/6] ready", false), ("already (1)", false)] {
            assert_eq!(is_ready(line), want, "{line}");
        }
    }
}
