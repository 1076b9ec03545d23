//! A shell on the hub's database.

use std::process::ExitCode;

use mobo_adapters::sqlite::shell::{SqlAnswer, SqlShell};
use mobo_runtime::command;
use mobo_runtime::output::Failure;

use super::Common;
use super::boot::load;
use crate::node;
use crate::postgres::PostgresShell;
use crate::settings::STORE_URL;

/// Runs statements; the hub need not run, and takes in what was written when it does.
pub(super) fn sql(common: &Common, statement: Option<&str>) -> Result<ExitCode, Failure> {
    let url = load(common)?.get(&STORE_URL);
    let failed = |error: mobo_core::store::StoreError| Failure::failed(error.to_string(), "check store.url and --data-dir");
    if &*url == "sqlite" {
        let shell = SqlShell::open(&common.data_dir.join(node::STORE_FILE)).map_err(failed)?;
        return command::sql(common.output, statement, |sql| {
            let (answers, error) = shell.run(sql);
            let answer = |answer| match answer {
                SqlAnswer::Rows(rows) => command::SqlAnswer::Rows(rows),
                SqlAnswer::Changed(rows) => command::SqlAnswer::Changed(rows),
            };
            (answers.into_iter().map(answer).collect(), error)
        });
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start: {error}"), "look at the limits of this user"))?;
    let mut shell = runtime.block_on(PostgresShell::open(&url)).map_err(failed)?;
    command::sql(common.output, statement, |sql| runtime.block_on(shell.run(sql)))
}
