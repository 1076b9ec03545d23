//! `mobo demo`: what the product promises, shown on real processes, real sockets and real disks, and counted by a judge.
//!
//! [`story`] is what happens; [`cluster`] has the nodes, [`proxy`] the wires that are cut, [`plan`] what is written and [`writers`] and
//! [`vitals`] write it; [`journal`] carries what was acknowledged to [`judge`](mod@judge), a process of its own, of which [`court`] is this end.

mod clone;
mod cluster;
mod collections;
mod court;
mod http;
mod journal;
mod judge;
mod narrator;
mod plan;
mod proxy;
mod restore;
mod story;
mod summary;
mod vitals;
mod wait;
mod writers;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use mobo_runtime::output::{exit, print, print_json};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use judge::Verdict;
use narrator::Narrator;
use proxy::Wire;
use story::{Setting, Story};
use wait::{Interrupt, Interrupted};

/// The exit code of a program that Ctrl-C has ended.
const INTERRUPTED: u8 = 130;

/// `mobo demo …`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print the summary as one line of JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Where the hub keeps its rows: `sqlite`, or postgres://user:password@host/database with an empty database.
    #[arg(long, default_value = "sqlite", value_name = "STORE", value_parser = store)]
    store: Store,
    /// Leave the folder and the nodes running, and print how to reach and how to stop them.
    #[arg(long)]
    keep: bool,
    /// Make the same choices as another run; which seed it had is in its first line.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Another scene than the whole story.
    #[command(subcommand)]
    scene: Option<Scene>,
}

#[derive(Clone, Copy, Debug, clap::Subcommand)]
enum Scene {
    /// A device's folder is copied, and both run: both people's writes are kept, and the operator hears of it.
    Clone,
    /// The hub is lost with everything that it had, and comes back from its backups and its device.
    Restore,
}

/// `mobo demo-judge …`
#[derive(Debug, clap::Args)]
pub(crate) struct JudgeArgs {
    /// Where the list of what was acknowledged is kept.
    copy: PathBuf,
}

#[derive(Clone, Debug)]
enum Store {
    Sqlite,
    Postgres(String),
}

fn store(text: &str) -> Result<Store, String> {
    match text {
        "sqlite" => Ok(Store::Sqlite),
        url if url.starts_with("postgres://") || url.starts_with("postgresql://") => Ok(Store::Postgres(url.to_owned())),
        _ => Err("use `sqlite`, or postgres://user:password@host/database".to_owned()),
    }
}

/// Runs the demo to its exit code.
pub(crate) fn run(args: &Args) -> ExitCode {
    if let Some(scene) = args.scene {
        return ended(play(scene, args), args);
    }
    match demo(args) {
        Ok(verdict) if verdict.lost + verdict.duplicated == 0 && verdict.converged() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(exit::FAILED),
        Err(error) => ended(Err(error), args),
    }
}

fn ended(told: anyhow::Result<()>, args: &Args) -> ExitCode {
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.root_cause().is::<Interrupted>() => {
            eprintln!("interrupted: the nodes are stopped");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            let hint = match args.store {
                Store::Sqlite => "run it again with --keep to look at what it leaves; if it stays, please report it with this text",
                Store::Postgres(_) => "the database must be there, and empty; if it is, please report this with the text above",
            };
            eprintln!("error: {error:#}\n  hint: {hint}");
            ExitCode::from(exit::FAILED)
        }
    }
}

fn play(scene: Scene, args: &Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let interrupt = Interrupt::default();
    listen(&runtime, &interrupt)?;
    let folder = tempfile::Builder::new().prefix("mobo-demo-").tempdir().context("no temporary folder can be made")?;
    match scene {
        Scene::Clone => clone::play(folder.path(), &interrupt, args.json),
        Scene::Restore => restore::play(folder.path(), &interrupt, args.json),
    }
}

/// Runs the judge to his exit code.
pub(crate) fn judge(args: &JudgeArgs) -> ExitCode {
    match judge::sit(&args.copy) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the judge: {error:#}");
            ExitCode::from(exit::FAILED)
        }
    }
}

fn demo(args: &Args) -> anyhow::Result<Verdict> {
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let interrupt = Interrupt::default();
    listen(&runtime, &interrupt)?;
    let folder = tempfile::Builder::new().prefix("mobo-demo-").tempdir().context("no temporary folder can be made")?;
    let narrator = Narrator::new(story::steps());
    let seed = args.seed.unwrap_or_else(seed_of_the_moment);
    narrator.say(&format!("in {}, with seed {seed}", folder.path().display()));
    let wires = runtime.block_on(async { anyhow::Ok([Wire::open().await?, Wire::open().await?]) })?;
    let store = match &args.store {
        Store::Sqlite => None,
        Store::Postgres(url) => Some(url.as_str()),
    };
    let setting = Setting { home: folder.path().to_owned(), store, seed, narrator: &narrator, interrupt: &interrupt };
    let mut story = Story::new(&setting, wires)?;
    let told = story.play().and_then(|verdict| finish(args, (&mut story, &narrator), &verdict, began.elapsed()).map(|()| verdict));
    narrator.end();
    if let (true, Err(_)) = (args.json, &told) {
        print_json(&summary::unfinished(story.acknowledged(), began.elapsed()))?;
    }
    if args.keep {
        let home = folder.keep();
        if told.is_ok() {
            story.leave()?;
            eprintln!("\n{}", summary::how_to_play(&story, &home)?);
        } else {
            eprintln!("the nodes are stopped; what they left is in {}", home.display());
        }
    }
    told
}

fn finish(args: &Args, (story, narrator): (&mut Story<'_>, &Narrator), verdict: &Verdict, took: Duration) -> anyhow::Result<()> {
    narrator.show(&format!("\n{}", summary::merged_record(&story.hub)?));
    narrator.end();
    if args.json {
        for problem in verdict.findings.iter().chain(&verdict.unhealthy) {
            narrator.say(problem);
        }
        print_json(&summary::for_programs(verdict, took))?;
    } else {
        print(&format!("\n{}", summary::for_people(verdict, took)))?;
    }
    Ok(())
}

/// Ends every wait when somebody wants the demo to end. What was set up is then taken down on the usual way.
fn listen(runtime: &Runtime, interrupt: &Interrupt) -> anyhow::Result<()> {
    let _inside = runtime.enter();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let (mut signals, interrupt) = (signal(kind)?, interrupt.clone());
        runtime.spawn(async move {
            while signals.recv().await.is_some() {
                interrupt.set();
            }
        });
    }
    Ok(())
}

fn seed_of_the_moment() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::from(since.subsec_micros()) + since.as_secs() % 1_000 * 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_checked_before_anything_starts() {
        assert!(matches!(store("sqlite"), Ok(Store::Sqlite)));
        assert!(matches!(store("postgres://u:p@h/d"), Ok(Store::Postgres(_))));
        assert!(store("mysql://x").is_err() && store("").is_err());
    }
}
