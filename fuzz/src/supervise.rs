//! Runs the walk in a process of its own: what cannot be caught (a stack overflow, an allocation that fails, a loop without end) is
//! seen from outside, and the input in hand survives.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use crate::command::Command;
use crate::shelf;
use crate::targets::TARGETS;
use crate::walk::INPUT_IN_HAND;

/// Address space of the worker. A decoder that believes a length of 4 GiB ends here.
const WORKER_KIB_MAX: u32 = 1024 * 1024;
/// Longest silence of a worker that lives: it reports every second, so one input took the rest.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// The worker's exit code when it has caught, kept and explained a crash itself.
const EXPLAINED: i32 = 1;

/// Walks through all targets, and shares the tries among them. False when one crashed.
pub(crate) fn walk_all(command: &Command) -> bool {
    let share = |tries: u64| tries.div_ceil(TARGETS.len() as u64);
    let walks = TARGETS.iter().map(|target| {
        let (crashers, executions) = (command.crashers.clone(), command.executions.map(share));
        walk(&Command { target, crashers, executions, ..*command })
    });
    let crashed = walks.filter(|fine| !fine).count();
    println!("{} targets, {crashed} crashed", TARGETS.len());
    crashed == 0
}

/// Walks in a worker. False when the target crashed.
pub(crate) fn walk(command: &Command) -> bool {
    let end = command.executions.map_or_else(|| format!("{} s", command.time.as_secs()), |tries| format!("{tries} tries"));
    println!("{}: {end} from seed {}", command.target.name, command.seed);
    let in_hand = std::env::temp_dir().join(format!("mobo-fuzz-{}", std::process::id()));
    let fine = supervise(command, &in_hand).unwrap_or_else(|error| {
        eprintln!("error: the walk cannot run: {error}");
        false
    });
    // Not there when the worker never began.
    let _ = fs::remove_file(&in_hand);
    if !fine {
        let (name, seconds) = (command.target.name, command.time.as_secs());
        eprintln!("  the same walk again: mobo-fuzz --target {name} --seconds {seconds} --seed {}", command.seed);
    }
    fine
}

fn supervise(command: &Command, in_hand: &Path) -> io::Result<bool> {
    let mut worker = start(command, in_hand)?;
    let (sender, reports) = sync_channel(1);
    let stdout = worker.stdout.take();
    let reader = std::thread::spawn(move || {
        for line in stdout.into_iter().flat_map(|pipe| BufReader::new(pipe).lines()).map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let mut last = String::from("no report");
    let hangs = loop {
        match reports.recv_timeout(SILENCE_MAX) {
            Ok(report) => last = report,
            Err(RecvTimeoutError::Disconnected) => break false,
            Err(RecvTimeoutError::Timeout) => break true,
        }
    };
    if hangs {
        worker.kill()?;
    }
    let status = worker.wait()?;
    drop(reports);
    let _ = reader.join();
    println!("{}: {last}", command.target.name);
    if status.success() || status.code() == Some(EXPLAINED) {
        return Ok(status.success());
    }
    let input = read_in_hand(in_hand)?;
    let path = shelf::keep(command.target, command.crashers.as_deref(), &input)?;
    let how = if hangs { format!("it was silent for {} s", SILENCE_MAX.as_secs()) } else { format!("{status}") };
    eprintln!("{} ended its process: {how}\n  kept as {}", command.target.name, path.display());
    Ok(false)
}

fn start(command: &Command, in_hand: &Path) -> io::Result<Child> {
    let mut worker = Process::new("/bin/sh");
    worker.arg("-c").arg(format!("ulimit -v {WORKER_KIB_MAX}; ulimit -c 0; exec \"$0\" \"$@\"")).arg(std::env::current_exe()?);
    worker.args(["--worker", "--target", command.target.name, "--seed", &command.seed.to_string()]);
    worker.args(["--seconds", &command.time.as_secs().to_string()]);
    if let Some(executions) = command.executions {
        worker.args(["--executions", &executions.to_string()]);
    }
    if let Some(crashers) = &command.crashers {
        worker.arg("--crashers").arg(crashers);
    }
    worker.env(INPUT_IN_HAND, in_hand).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()
}

fn read_in_hand(path: &Path) -> io::Result<Vec<u8>> {
    let bytes = fs::read(path)?;
    let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, "the worker left no input behind");
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(cut)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(io::Error::other)?;
    rest.get(..length).map(<[u8]>::to_vec).ok_or_else(cut)
}
