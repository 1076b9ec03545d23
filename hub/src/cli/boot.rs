//! The commands that need no running hub.

use std::process::ExitCode;

use mobo_runtime::command;
use mobo_runtime::data_dir::DataDir;
use mobo_runtime::output::{Failure, print};
use mobo_runtime::telemetry;

use super::Common;
use crate::{identity, node, settings};

pub(super) fn open(common: &Common) -> Result<DataDir, Failure> {
    let hint = "use another --data-dir, or stop the hub that runs there with `mobo-hub shutdown`";
    DataDir::open(&common.data_dir).map_err(|error| Failure::failed(error.to_string(), hint))
}

pub(super) fn load(common: &Common) -> Result<mobo_runtime::config::Config, Failure> {
    command::load(settings::ALL, &common.set, common.config.as_deref(), &common.data_dir)
}

pub(super) fn init(common: &Common) -> Result<ExitCode, Failure> {
    let folder = open(common)?;
    let keys = identity::load_or_create(folder.path()).map_err(|error| Failure::failed(error.to_string(), "use another --data-dir"))?;
    let written = command::write_example(settings::ALL, folder.path())?;
    let dir = folder.path().display();
    let settings = if written { "written, every value at its default" } else { "was there, and stays" };
    let text = format!("hub key   {}\nsettings  {dir}/mobo.toml ({settings})\nnext      mobo-hub boot --data-dir {dir}\n", keys.public());
    print(&text).map_err(|error| Failure::failed(error.to_string(), ""))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn boot(common: &Common) -> Result<ExitCode, Failure> {
    let config = load(common)?;
    telemetry::start(&config).map_err(|error| Failure::failed(error.to_string(), "see log.level and log.format"))?;
    let folder = open(common)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start: {error}"), "look at the limits of this user"))?;
    let reason = runtime.block_on(node::run(config, folder));
    // A read that hangs in the database must not hold the exit.
    runtime.shutdown_background();
    match reason {
        Ok(reason) => Ok(ExitCode::from(reason.code())),
        Err(error) => Err(Failure::failed(error.to_string(), "look at the data folder")),
    }
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
