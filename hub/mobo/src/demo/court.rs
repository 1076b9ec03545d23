//! The demo's end of the judge: the pipe into which acknowledgements go, and the verdict that comes back.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::journal::Journal;
use super::judge::{Case, Verdict};
use super::wait::{Interrupt, Look, until};

/// How long the judge may take.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(120);

/// The judge's process. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Court {
    judge: Child,
    answer: Receiver<std::io::Result<String>>,
    journal: Arc<Journal<ChildStdin>>,
}

impl Court {
    /// Starts the judge, who keeps his list in `copy`, too.
    pub(super) fn open(copy: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe().context("this program does not know its own path")?);
        command.arg("demo-judge").arg(copy).stdin(Stdio::piped()).stdout(Stdio::piped());
        // As for the nodes: Ctrl-C is for the demo alone.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut judge = command.spawn().context("the judge does not start")?;
        let (pipe, out) = (judge.stdin.take().context("the judge has no input")?, judge.stdout.take().context("the judge has no output")?);
        let (sender, answer) = mpsc::sync_channel(1);
        std::thread::Builder::new().name("verdict".to_owned()).spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(out).read_line(&mut line).map(|_| line);
            // Nobody waits for it any more when the demo was interrupted.
            let _ = sender.send(read);
        })?;
        Ok(Self { judge, answer, journal: Arc::new(Journal::new(pipe)) })
    }

    /// Where acknowledgements go.
    pub(super) fn journal(&self) -> Arc<Journal<ChildStdin>> {
        Arc::clone(&self.journal)
    }

    /// Closes the list and asks for the verdict.
    pub(super) fn verdict(&mut self, case: &Case, interrupt: &Interrupt) -> anyhow::Result<Verdict> {
        self.journal.end(case).context("the judge has gone")?;
        let line = until("the judge", VERDICT_TIMEOUT, interrupt, || match self.answer.try_recv() {
            Ok(line) => Ok(Look::Found(line?)),
            Err(mpsc::TryRecvError::Empty) => Ok(Look::NotYet("it is still counting".to_owned())),
            Err(mpsc::TryRecvError::Disconnected) => bail!("the judge went without a word"),
        })?;
        let status = self.judge.wait()?;
        if !status.success() {
            bail!("the judge could not judge ({status}); its reason is above");
        }
        serde_json::from_str(&line).context("the judge's verdict cannot be read")
    }
}

impl Drop for Court {
    fn drop(&mut self) {
        let _ = self.judge.kill();
        let _ = self.judge.wait();
    }
}
