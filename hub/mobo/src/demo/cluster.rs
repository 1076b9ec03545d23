//! The demo's nodes: real child processes of this very executable, each on a data folder of its own, with free ports.

use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use mobo_runtime::command::block_on;
use mobo_runtime::control::ControlClient;
use mobo_runtime::output::Failure;
use serde_json::{Value, json};

use super::wait::{Interrupt, Look, until};

/// The hub's name.
pub(super) const HUB: &str = "hub";
/// The devices' names.
pub(super) const DEVICES: [&str; 2] = ["device-1", "device-2"];

/// How long a node may take to become ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a node may take to drain and exit.
const EXIT_TIMEOUT: Duration = Duration::from_secs(40);
/// How long a node may take to answer its control socket. A health check recomputes everything.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Lines of a node's log that are shown when something is wrong with it.
const TAIL_LINES: usize = 15;

/// Asks the node that runs in a folder.
pub(super) fn ask(folder: &Path, verb: &str) -> anyhow::Result<Value> {
    ask_for(folder, verb, json!({}))
}

/// Asks it, with arguments.
pub(super) fn ask_for(folder: &Path, verb: &str, args: Value) -> anyhow::Result<Value> {
    let answer = block_on(async {
        let asking = async { ControlClient::connect(folder).await?.call(verb, args).await };
        match tokio::time::timeout(ANSWER_TIMEOUT, asking).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Failure::failed(format!("no answer to `{verb}` within {} s", ANSWER_TIMEOUT.as_secs()), "")),
        }
    });
    answer.map_err(|failure| anyhow!("{failure}"))
}

/// One node. It is killed when this is dropped, unless it was left running.
#[derive(Debug)]
pub(super) struct Node {
    /// Its name in the story.
    pub(super) name: &'static str,
    /// Its data folder.
    pub(super) folder: PathBuf,
    role: &'static str,
    log: PathBuf,
    settings: Vec<(String, String)>,
    child: Option<Child>,
}

impl Node {
    /// A node in `home/name`; `role` is the word in front of its verbs. It does not run yet.
    pub(super) fn new(name: &'static str, role: &'static str, home: &Path) -> Self {
        let (folder, log) = (home.join(name), home.join(format!("{name}.log")));
        Self { name, folder, role, log, settings: Vec::new(), child: None }.set("http.listen", "127.0.0.1:0")
    }

    /// Sets a setting for its next boot. It goes through the environment: a database's password is nobody's business.
    pub(super) fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push((format!("MOBO_{}", key.to_uppercase().replace('.', "__")), value.to_owned()));
        self
    }

    /// Starts it and waits until it is ready.
    pub(super) fn boot(&mut self, interrupt: &Interrupt) -> anyhow::Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = self.command("boot")?;
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // A process group of its own: Ctrl-C is for the demo, which then ends its nodes in order.
        command.process_group(0);
        self.child = Some(command.spawn().with_context(|| format!("{} does not start", self.name))?);
        until(&format!("{} to be ready", self.name), READY_TIMEOUT, interrupt, || {
            if let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                bail!("{} ended while it booted ({status})", self.name);
            }
            Ok(match self.status() {
                Ok(status) if status.get("state").and_then(Value::as_str) == Some("ready") => Look::Found(()),
                Ok(status) => Look::NotYet(format!("it says {}", status.get("state").unwrap_or(&Value::Null))),
                Err(error) => Look::NotYet(error.to_string()),
            })
        })
    }

    /// A verb of this node, as a person would type it.
    fn command(&self, verb: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(std::env::current_exe().context("this program does not know its own path")?);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MOBO_")) {
            command.env_remove(name);
        }
        command.arg(self.role).arg(verb).arg("--data-dir").arg(&self.folder);
        Ok(command)
    }

    /// Joins a hub: a process of its own, which ends.
    pub(super) fn join(&self, token: &str) -> anyhow::Result<()> {
        let output = self.command("join")?.arg(token).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            bail!("{} cannot join: {}", self.name, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// Brings it back from its backups: a process of its own, which ends. Gives what it says.
    pub(super) fn restore(&self, vault: &Path, key: &Path) -> anyhow::Result<Value> {
        let mut command = self.command("restore")?;
        command.arg(vault).arg("--key-file").arg(key).args(["--store", "sqlite", "--output", "json"]);
        let output = command.stdin(Stdio::null()).output()?;
        if !output.status.success() {
            bail!("{} cannot be restored: {}", self.name, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Its status.
    pub(super) fn status(&self) -> anyhow::Result<Value> {
        ask(&self.folder, "status")
    }

    /// An address of its status: `http` or `quic`.
    pub(super) fn address(&self, key: &str) -> anyhow::Result<SocketAddr> {
        let status = self.status()?;
        let text = status.get(key).and_then(Value::as_str).with_context(|| format!("{} has no address {key}", self.name))?;
        Ok(text.parse()?)
    }

    /// Kills it, as a power cut of this process alone.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Tells it to stop, and waits until it has.
    pub(super) fn stop(&mut self, interrupt: &Interrupt) -> anyhow::Result<()> {
        ask(&self.folder, "shutdown")?;
        let Some(child) = &mut self.child else { return Ok(()) };
        let ended = until(&format!("{} to stop", self.name), EXIT_TIMEOUT, interrupt, || {
            Ok(child.try_wait()?.map_or_else(|| Look::NotYet("it drains".to_owned()), Look::Found))
        })?;
        self.child = None;
        if ended.success() { Ok(()) } else { Err(anyhow!("{} stopped with {ended}", self.name)) }
    }

    /// Writes settings into the folder, so that a person can boot it again without any.
    pub(super) fn settle(&mut self, settings: &[(&str, &str)]) -> anyhow::Result<()> {
        let lines = settings.iter().map(|(key, value)| format!("{key} = {}\n", Value::from(*value)));
        fs::write(self.folder.join("mobo.toml"), lines.collect::<String>())?;
        self.settings.clear();
        Ok(())
    }

    /// Lets it run on after the demo.
    pub(super) fn leave(&mut self) {
        self.child = None;
    }

    /// The end of what it logged; `None` when it has not said anything.
    pub(super) fn tail(&self) -> Option<String> {
        let text = File::open(&self.log).and_then(std::io::read_to_string).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let shown = lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default();
        (!shown.is_empty()).then(|| format!("{} said last:\n    {}", self.name, shown.join("\n    ")))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Nobody is left to tell if it cannot be killed.
        let _ = self.kill();
    }
}

/// Whether these statuses, the hub's first, say that all nodes hold the same and nothing waits; if not, what is missing. The hub's must be read
/// last.
pub(super) fn same_everywhere(statuses: &[Value], all_lanes: bool) -> Result<(), String> {
    let Some((hub, devices)) = statuses.split_first() else { return Err("no node".to_owned()) };
    let list = |status: &Value, key: &str| status.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let number = |value: &Value, key: &str| value.get(key).and_then(Value::as_u64);
    for (device, name) in devices.iter().zip(DEVICES) {
        // Telemetry flows all the time; the state lane is what others see.
        let waits = |lane: &Value| (all_lanes || number(lane, "lane") == Some(0)) && number(lane, "last") != number(lane, "hub");
        if let Some(lane) = list(device, "lanes").iter().find(|lane| waits(lane)) {
            return Err(format!("{name} has not pushed all: {lane}"));
        }
        if all_lanes && number(device, "pending") != Some(0) {
            return Err(format!("{name} has {} entries pending", number(device, "pending").unwrap_or_default()));
        }
        for bucket in list(hub, "buckets") {
            let held = list(device, "buckets").into_iter().find(|held| held.get("key") == bucket.get("key"));
            let same = held
                .as_ref()
                .is_some_and(|held| held.get("digest") == bucket.get("digest") && number(held, "cursor") == number(&bucket, "head"));
            if !same {
                return Err(format!("the hub holds {bucket}, {name} {}", held.unwrap_or_default()));
            }
        }
    }
    if list(hub, "buckets").is_empty() { Err("the hub has no bucket".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_the_same_only_when_all_is_pushed_and_equal() {
        let hub = |digest: &str, head: u64| json!({ "buckets": [{ "key": "all", "digest": digest, "head": head }] });
        let device = |digest: &str, cursor: u64, pushed: u64| {
            json!({
                "pending": 9 - pushed, "buckets": [{ "key": "all", "digest": digest, "cursor": cursor }],
                "lanes": [{ "lane": 0, "last": 5, "hub": 5.min(pushed) }, { "lane": 2, "last": 9, "hub": pushed }],
            })
        };
        let cases = [
            (hub("aa", 7), [device("aa", 7, 9), device("aa", 7, 9)], true, ""),
            (hub("aa", 7), [device("aa", 7, 8), device("aa", 7, 9)], false, ""),
            (hub("aa", 7), [device("aa", 7, 8), device("aa", 7, 9)], true, "device-1 has not pushed all"),
            (hub("aa", 7), [device("aa", 7, 9), device("aa", 7, 4)], false, "device-2 has not pushed all"),
            (hub("aa", 7), [device("aa", 7, 9), device("bb", 7, 9)], true, "the hub holds"),
            (hub("aa", 7), [device("aa", 6, 9), device("aa", 7, 9)], true, "the hub holds"),
            (json!({ "buckets": [] }), [device("aa", 6, 9), device("aa", 7, 9)], true, "the hub has no bucket"),
        ];
        for (hub, [one, two], all_lanes, want) in cases {
            let found = same_everywhere(&[hub, one, two], all_lanes).err().unwrap_or_default();
            assert!(found.starts_with(want) && found.is_empty() == want.is_empty(), "{found}");
        }
        assert!(same_everywhere(&[hub("aa", 7), json!({})], true).is_err());
    }
}
