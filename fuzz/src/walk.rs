//! The walk itself, and the replay of what is kept.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::command::Command;
use crate::mutate::{Dice, mutate};
use crate::shelf;
use crate::targets::{Answer, Target};

/// Inputs that gave a new answer are kept up to this many; then each new one takes the place of an old one.
const POOL_MAX: usize = 4_096;
/// Answers that are remembered.
const ANSWERS_MAX: usize = 1 << 20;
/// An input that takes longer is a finding.
const HANG: Duration = Duration::from_secs(5);
/// How often the worker says that it lives.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// The file in which the input in hand survives the worker: length, then bytes.
pub(crate) const INPUT_IN_HAND: &str = "MOBO_FUZZ_INPUT";

/// Walks for the given time. False when the target crashed; the input is kept then.
pub(crate) fn work(command: &Command) -> bool {
    catch_words();
    match walk(command) {
        Ok(fine) => fine,
        Err(error) => {
            eprintln!("error: {error}");
            false
        }
    }
}

/// Gives the target everything that is kept. False when one crashes it.
pub(crate) fn replay(command: &Command) -> bool {
    catch_words();
    let inputs = match shelf::inputs(command.target) {
        Ok(inputs) => inputs,
        Err(error) => {
            eprintln!("error: the corpus of {} cannot be read: {error}", command.target.name);
            return false;
        }
    };
    let mut fine = true;
    for (name, input) in &inputs {
        if let Err(words) = attempt(command.target, input) {
            eprintln!("{name} crashes {}: {words}", command.target.name);
            fine = false;
        }
    }
    println!("{}: {} inputs replayed", command.target.name, inputs.len());
    fine
}

fn walk(command: &Command) -> io::Result<bool> {
    let target = command.target;
    let in_hand = std::env::var_os(INPUT_IN_HAND).map(|path| File::create(PathBuf::from(path))).transpose()?;
    let mut pool: Vec<Vec<u8>> = shelf::inputs(target)?.into_iter().map(|(_, input)| input).collect();
    pool.push(Vec::new());
    let mut answers = BTreeSet::new();
    let mut dice = Dice::new(command.seed);
    let (began, mut reported, mut tries, mut slowest) = (Instant::now(), Instant::now(), 0_u64, Duration::ZERO);
    while began.elapsed() < command.time && command.executions.is_none_or(|most| tries < most) {
        if reported.elapsed() > REPORT_EVERY {
            reported = Instant::now();
            report((tries, pool.len()), slowest)?;
        }
        let mut input = dice.pick(&pool).cloned().unwrap_or_default();
        let other = dice.pick(&pool).map_or(&[][..], Vec::as_slice);
        mutate(&mut input, other, &mut dice);
        if let Some(file) = &in_hand {
            let length = (input.len() as u64).to_le_bytes();
            file.write_all_at(&[&length, input.as_slice()].concat(), 0)?;
        }
        tries += 1;
        let before = Instant::now();
        let attempted = attempt(target, &input);
        slowest = slowest.max(before.elapsed());
        match attempted {
            Ok(_) if before.elapsed() > HANG => {
                let path = shelf::keep(target, command.crashers.as_deref(), &input)?;
                eprintln!("{} took {:?} for try {tries}\n  kept as {}", target.name, before.elapsed(), path.display());
                return Ok(false);
            }
            Ok(answer) if answers.len() < ANSWERS_MAX && answers.insert(answer) => {
                pool.push(input);
                if pool.len() > POOL_MAX {
                    pool.swap_remove(dice.below(POOL_MAX));
                }
            }
            Ok(_) => {}
            Err(words) => {
                let path = shelf::keep(target, command.crashers.as_deref(), &input)?;
                eprintln!("{} crashed at try {tries}: {words}\n  kept as {}", target.name, path.display());
                return Ok(false);
            }
        }
    }
    report((tries, pool.len()), slowest)?;
    Ok(true)
}

fn report((tries, pool): (u64, usize), slowest: Duration) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let (ms, kib) = (slowest.as_secs_f64() * 1e3, memory_kib_max());
    writeln!(out, "{tries} tries, {pool} inputs in the pool, the slowest took {ms:.1} ms, {kib} KiB of memory at most")?;
    out.flush()
}

/// What this process took at most; 0 where the system does not say.
fn memory_kib_max() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse().ok()).unwrap_or_default()
}

/// What the target answers, or the words of its panic.
fn attempt(target: &Target, input: &[u8]) -> Result<Answer, String> {
    panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input)))
        .map_err(|_| LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// Message and place of the last panic.
static LAST_WORDS: Mutex<String> = Mutex::new(String::new());

/// Keeps the words of a panic instead of printing them.
fn catch_words() {
    panic::set_hook(Box::new(|info| {
        *LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner) = info.to_string();
    }));
}
