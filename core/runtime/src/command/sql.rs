//! A shell for SQL: one statement from the command line, or statements from standard input as they come.

use std::io::{BufRead, IsTerminal, Write, stderr, stdin};
use std::process::ExitCode;

use serde_json::{Map, Value};

use super::show;
use crate::output::{Failure, Format};

/// What a statement answered.
#[derive(Clone, Debug, PartialEq)]
pub enum SqlAnswer {
    /// Rows, each by column.
    Rows(Vec<Map<String, Value>>),
    /// So many rows were changed.
    Changed(u64),
}

/// Answers up to a statement that failed, and why it did.
pub type SqlAnswers = (Vec<SqlAnswer>, Option<String>);

/// Runs `statement`, or what is written into standard input: each time that a line ends with a semicolon, and at the end. A terminal is
/// asked on after an error; a script ends there.
///
/// # Errors
///
/// When a statement fails, or nothing can be printed.
pub fn sql(format: Format, statement: Option<&str>, mut run: impl FnMut(&str) -> SqlAnswers) -> Result<ExitCode, Failure> {
    if let Some(statement) = statement {
        return answer(format, run(statement));
    }
    let is_terminal = stdin().is_terminal();
    let (mut text, mut lines) = (String::new(), stdin().lock().lines());
    loop {
        if is_terminal {
            // Whoever cannot see it types all the same.
            let _ = write!(stderr(), "{}", if text.is_empty() { "sql> " } else { "...> " });
        }
        let line = lines.next().transpose().map_err(|error| Failure::failed(format!("standard input cannot be read: {error}"), ""))?;
        let is_end = line.is_none();
        text.push_str(&line.unwrap_or_default());
        text.push('\n');
        if is_end || text.trim_end().ends_with(';') {
            match answer(format, run(&std::mem::take(&mut text))) {
                Err(failure) if is_terminal => drop(writeln!(stderr(), "{failure}")),
                done => drop(done?),
            }
        }
        if is_end {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn answer(format: Format, (answers, error): SqlAnswers) -> Result<ExitCode, Failure> {
    for answer in answers {
        match answer {
            SqlAnswer::Rows(rows) => show(format, &Value::Array(rows.into_iter().map(Value::Object).collect()))?,
            SqlAnswer::Changed(0) => {}
            SqlAnswer::Changed(rows) => drop(writeln!(stderr(), "{rows} changed")),
        }
    }
    match error {
        Some(error) => Err(Failure::failed(error, "what came before it is done, unless it was in the same transaction")),
        None => Ok(ExitCode::SUCCESS),
    }
}
