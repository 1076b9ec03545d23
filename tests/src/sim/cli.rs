//! The command: fresh seeds on all cores, a line of progress, and a table of what was injected.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::{Faults, Outcome, Plan, run, run_plan};

/// Failures that are told whole; of more, the seeds are enough.
const TOLD_MAX: usize = 3;

struct Options {
    seeds: u64,
    first: Option<u64>,
    json: bool,
    trace: bool,
    mutants: bool,
    power_cuts: bool,
    only: String,
    stride: u64,
    plan: Option<Plan>,
    jobs: usize,
    faults: Faults,
}

/// Runs `sim`.
#[must_use]
pub fn main() -> ExitCode {
    match options(std::env::args().skip(1)) {
        Ok(options) if options.mutants => super::mutants::main(options.seeds, &options.only),
        Ok(options) if options.power_cuts => super::power::main(options.first.unwrap_or(1), options.stride),
        Ok(Options { plan: Some(plan), first, .. }) => planned(first.unwrap_or(1), plan),
        Ok(options) if options.trace && !options.only.is_empty() => super::mutants::trace(options.first.unwrap_or(1), &options.only),
        Ok(options) if options.trace => one(options.first.unwrap_or(1), options.faults),
        Ok(options) => many(&options),
        Err(why) => {
            eprintln!(
                "{why}\nsim [--seeds N] [--seed FIRST] [--jobs N] [--hub-stays] [--json] [--trace [--only NAME]] [--mutants [--only NAME]] [--power-cuts [--stride N]] \
                 [--offline WRITES] [--herd DEVICES]"
            );
            ExitCode::from(2)
        }
    }
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut options = Options {
        seeds: 100,
        first: None,
        json: false,
        trace: false,
        mutants: false,
        power_cuts: false,
        only: String::new(),
        stride: 1,
        plan: None,
        jobs,
        faults: Faults::All,
    };
    while let Some(word) = words.next() {
        if word == "--only" {
            options.only = words.next().unwrap_or_default();
            continue;
        }
        let mut number = || {
            let text = words.next().ok_or_else(|| format!("{word} needs a number"))?;
            text.parse::<u64>().map_err(|_| format!("{text} is not a number"))
        };
        match word.as_str() {
            "--seeds" => options.seeds = number()?,
            "--seed" => options.first = Some(number()?),
            "--jobs" => options.jobs = usize::try_from(number()?).map_err(|error| error.to_string())?,
            "--stride" => options.stride = number()?.max(1),
            "--offline" => options.plan = Some(Plan::offline(number()?.max(1))),
            "--herd" => options.plan = Some(Plan::herd(usize::try_from(number()?).map_err(|error| error.to_string())?.max(1))),
            "--power-cuts" => options.power_cuts = true,
            "--hub-stays" => options.faults = Faults::HubStays,
            "--json" => options.json = true,
            "--trace" => options.trace = true,
            "--mutants" => options.mutants = true,
            _ => return Err(format!("{word} is not an option")),
        }
    }
    Ok(options)
}

/// Runs one world of a plan, and says what came of it.
fn planned(seed: u64, plan: Plan) -> ExitCode {
    let started = Instant::now();
    let outcome = run_plan(seed, plan);
    let mut sum = Sum::default();
    add(&mut sum, outcome, started);
    tell(&sum, (seed, started.elapsed().as_secs_f64()), false);
    if sum.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(seed: u64, faults: Faults) -> ExitCode {
    let outcome = run(seed, faults, true);
    match outcome.failure {
        None => ExitCode::SUCCESS,
        Some(failure) => {
            println!("{}: {}", failure.violation.invariant, failure.violation.what);
            ExitCode::FAILURE
        }
    }
}

#[derive(Default)]
struct Sum {
    runs: u64,
    simulated_us: u64,
    counts: BTreeMap<&'static str, u64>,
    failures: Vec<Outcome>,
}

fn many(options: &Options) -> ExitCode {
    let first = options.first.unwrap_or_else(|| crate::seed::Seed::from_env().number() >> 16);
    let (next, sum, started) = (AtomicU64::new(0), Mutex::new(Sum::default()), Instant::now());
    let hook = std::panic::take_hook();
    // A panic is a finding and is told with the run that it ended.
    std::panic::set_hook(Box::new(|_| {}));
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    if nth >= options.seeds {
                        return;
                    }
                    let outcome = run(first.wrapping_add(nth), options.faults, false);
                    let mut sum = sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    add(&mut sum, outcome, started);
                }
            });
        }
    });
    std::panic::set_hook(hook);
    let sum = sum.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    tell(&sum, (first, started.elapsed().as_secs_f64()), options.json);
    if sum.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn add(sum: &mut Sum, outcome: Outcome, started: Instant) {
    sum.runs += 1;
    sum.simulated_us += outcome.simulated_us;
    for (what, count) in &outcome.counts {
        *sum.counts.entry(what).or_default() += count;
    }
    if let Some(failure) = &outcome.failure {
        if sum.failures.len() < TOLD_MAX {
            eprintln!("\nseed {}\n{failure}\n", outcome.seed);
        } else {
            eprintln!("\nseed {}: {}: {}", outcome.seed, failure.violation.invariant, failure.violation.what);
        }
        sum.failures.push(outcome);
    }
    if sum.runs.is_multiple_of(20) {
        let rate = sum.runs as f64 / started.elapsed().as_secs_f64();
        eprint!("\r{} runs, {rate:.1}/s, {:.1} simulated hours, {} failed ", sum.runs, hours(sum), sum.failures.len());
    }
}

fn hours(sum: &Sum) -> f64 {
    sum.simulated_us as f64 / 3.6e9
}

fn tell(sum: &Sum, (first, seconds): (u64, f64), json: bool) {
    let rate = sum.runs as f64 / seconds;
    if json {
        let failures: Vec<_> = sum
            .failures
            .iter()
            .filter_map(|outcome| Some((outcome.seed, outcome.failure.as_ref()?)))
            .map(|(seed, failure)| serde_json::json!({ "seed": seed, "invariant": failure.violation.invariant, "what": failure.violation.what }))
            .collect();
        let report = serde_json::json!({
            "first_seed": first, "runs": sum.runs, "seconds": seconds, "runs_per_second": rate,
            "simulated_hours": hours(sum), "counts": sum.counts, "failures": failures,
        });
        println!("{report}");
        return;
    }
    println!("\n{} runs from seed {first} in {seconds:.1} s ({rate:.1}/s), {:.1} simulated hours", sum.runs, hours(sum));
    for (what, count) in &sum.counts {
        println!("{count:>12}  {what}");
    }
    println!("{:>12}  runs failed", sum.failures.len());
}
