//! The commands that do not need a running device.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use mobo_adapters::sqlite::shell::{SqlAnswer, SqlShell};
use mobo_protocol::JoinToken;
use mobo_runtime::command::{self, block_on};
use mobo_runtime::config::Config;
use mobo_runtime::control::ControlClient;
use mobo_runtime::data_dir::DataDir;
use mobo_runtime::output::{Failure, exit, print};
use mobo_runtime::telemetry;
use serde_json::{Value, json};

use super::{BackupVerb, Common};
use crate::control::{self, explain_join, sync_drained};
use crate::node::{self, Edge};
use crate::settings;

fn open(common: &Common) -> Result<DataDir, Failure> {
    let hint = "use another --data-dir, or stop the device that runs there with `mobo-edge shutdown`";
    DataDir::open(&common.data_dir).map_err(|error| Failure::failed(error.to_string(), hint))
}

fn load(common: &Common) -> Result<Config, Failure> {
    command::load(settings::ALL, &common.set, common.config.as_deref(), &common.data_dir)
}

fn failed(error: impl ToString) -> Failure {
    Failure::failed(error.to_string(), "look at the data folder and the disk")
}

fn say(text: &str) -> Result<(), Failure> {
    print(text).map_err(|error| Failure::failed(format!("cannot print: {error}"), ""))
}

pub(super) fn init(common: &Common) -> Result<ExitCode, Failure> {
    let folder = open(common)?;
    let edge = Edge::new(load(common)?, &folder).map_err(failed)?;
    let written = command::write_example(settings::ALL, folder.path())?;
    let dir = folder.path().display();
    let settings = if written { "written, every value at its default" } else { "was there, and stays" };
    say(&format!(
        "device    {}\nsettings  {dir}/mobo.toml ({settings})\nnext      mobo-edge join TOKEN --data-dir {dir}\n",
        edge.keys.device()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Joins through the running device, or by itself when none runs.
pub(super) fn join(common: &Common, token: &str) -> Result<ExitCode, Failure> {
    let parsed = JoinToken::parse(token).map_err(|error| Failure::usage(error.to_string(), "quote the token, it is one word"))?;
    let answer = block_on(async {
        if let Ok(mut running) = ControlClient::connect(&common.data_dir).await {
            return Ok(running.call("join", json!({ "token": token })).await?);
        }
        let folder = open(common)?;
        let edge = Edge::new(load(common)?, &folder).map_err(failed)?;
        edge.open().await.map_err(failed)?;
        let joined = edge.join(&parsed).await.map_err(|error| explain_join(&error))?;
        if let Ok(store) = edge.store() {
            store.close().await;
        }
        Ok(json!({ "device": joined.device.to_string(), "hub": joined.hub_addresses }))
    })?;
    command::show(common.output, &answer)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn boot(common: &Common) -> Result<ExitCode, Failure> {
    let config = load(common)?;
    telemetry::start(&config).map_err(|error| Failure::failed(error.to_string(), "see log.level and log.format"))?;
    let folder = open(common)?;
    // One thread for everything but the store: a device is small.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start: {error}"), "look at the limits of this user"))?;
    let reason = runtime.block_on(node::run(config, folder));
    runtime.shutdown_background();
    reason.map(|reason| ExitCode::from(reason.code())).map_err(failed)
}

/// Asks the running device to sync now; or, when none runs, opens its folder, syncs and goes.
pub(super) fn sync(common: &Common, timeout_s: u64) -> Result<ExitCode, Failure> {
    let timeout = Duration::from_secs(timeout_s);
    let report = block_on(async {
        if let Ok(mut running) = ControlClient::connect(&common.data_dir).await {
            return Ok(running.call("sync", json!({ "timeout_ms": timeout.as_millis() as u64 })).await?);
        }
        once(common, timeout).await
    })?;
    command::show(common.output, &report)?;
    let drained = report.get("drained").and_then(Value::as_bool) == Some(true);
    Ok(ExitCode::from(if drained { exit::FINE } else { exit::FAILED }))
}

async fn once(common: &Common, timeout: Duration) -> Result<Value, Failure> {
    let folder = open(common)?;
    let edge = Arc::new(Edge::new(load(common)?, &folder).map_err(failed)?);
    edge.open().await.map_err(failed)?;
    let stopping = tokio_util::sync::CancellationToken::new();
    let uplink = tokio::spawn(edge.uplink().map_err(failed)?.run(stopping.clone(), edge.clock));
    let report = sync_drained(&edge, timeout).await.map_err(failed)?;
    stopping.cancel();
    let _ = uplink.await;
    if let Ok(store) = edge.store() {
        store.close().await;
    }
    Ok(report)
}

/// Writes a bundle or takes in a receipt, through the running device or by itself.
pub(super) fn bundle(common: &Common, verb: BackupVerb) -> Result<ExitCode, Failure> {
    let (verb, file, all) = match verb {
        BackupVerb::Export { file, all } => ("backup export", file, all),
        BackupVerb::Import { file } => ("backup import", file, false),
    };
    let file = std::path::absolute(&file).map_err(|error| Failure::usage(format!("{}: {error}", file.display()), "name a file"))?;
    let args = json!({ "file": file, "all": all });
    let report = block_on(async {
        if let Ok(mut running) = ControlClient::connect(&common.data_dir).await {
            return Ok(running.call(verb, args).await?);
        }
        let folder = open(common)?;
        let edge = Edge::new(load(common)?, &folder).map_err(failed)?;
        edge.open().await.map_err(failed)?;
        let done = control::bundle(&edge, verb, &args).await;
        if let Ok(store) = edge.store() {
            store.close().await;
        }
        Ok(done?)
    })?;
    command::show(common.output, &report)?;
    Ok(ExitCode::SUCCESS)
}

/// An ordinary connection: the device need not run, and takes in what was written when it does.
pub(super) fn sql(common: &Common, statement: Option<&str>) -> Result<ExitCode, Failure> {
    let path = common.data_dir.join(node::STORE_FILE);
    let hint = "give --data-dir, and `mobo-edge join` first";
    let shell = SqlShell::open(&path).map_err(|error| Failure::failed(format!("{}: {error}", path.display()), hint))?;
    command::sql(common.output, statement, |sql| {
        let (answers, error) = shell.run(sql);
        let answer = |answer| match answer {
            SqlAnswer::Rows(rows) => command::SqlAnswer::Rows(rows),
            SqlAnswer::Changed(rows) => command::SqlAnswer::Changed(rows),
        };
        (answers.into_iter().map(answer).collect(), error)
    })
}

pub(super) fn config_check(common: &Common) -> Result<ExitCode, Failure> {
    command::check_config(&load(common)?, common.output, &common.data_dir)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn config_seal(common: &Common, key: &str) -> Result<ExitCode, Failure> {
    command::seal(settings::ALL, key, &common.data_dir)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn config_show(common: &Common, origin: bool) -> Result<ExitCode, Failure> {
    command::show_config(&load(common)?, common.output, origin)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn config_example() -> Result<ExitCode, Failure> {
    command::print_example(settings::ALL)?;
    Ok(ExitCode::SUCCESS)
}
