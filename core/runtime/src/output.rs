//! What the commands print: data on standard output, sentences for people on standard error, one exit code.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::str::FromStr;

use serde_json::Value;

/// Exit codes of every command.
pub mod exit {
    /// All is well.
    pub const FINE: u8 = 0;
    /// It failed, or the node is degraded.
    pub const FAILED: u8 = 1;
    /// The command line, or a setting, is wrong.
    pub const USAGE: u8 = 2;
    /// The node is not running.
    pub const NOT_RUNNING: u8 = 3;
    /// There is no such thing.
    pub const NO_SUCH: u8 = 4;
}

/// How data is printed: `-o table|json`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Format {
    /// Aligned columns for people.
    #[default]
    Table,
    /// One JSON value for programs.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            other => Err(format!("{other:?} is no output format: use table or json")),
        }
    }
}

/// Rows under a header, each column as wide as its widest cell.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    #[must_use]
    pub fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(|title| title.to_uppercase()).collect()] }
    }

    /// Adds a row. What drives a terminal is printed as spaces.
    pub fn row<T: fmt::Display>(&mut self, cells: impl IntoIterator<Item = T>) {
        let plain = |cell: T| cell.to_string().replace(drives_a_terminal, " ");
        self.rows.push(cells.into_iter().map(plain).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cell = |row: &Vec<String>, column: usize| row.get(column).map_or(0, |cell| cell.chars().count());
        let widths: Vec<usize> = (0..columns).map(|column| self.rows.iter().map(|row| cell(row, column)).max().unwrap_or(0)).collect();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// True for what a terminal obeys and does not show: control characters, and what turns the order of others around, so that a text reads
/// otherwise than it is written (CVE-2021-42574).
fn drives_a_terminal(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text of several lines for a terminal: of what drives one, only line feeds are left. It may quote what somebody else has written.
pub(crate) fn tame(text: &str) -> String {
    text.replace(|character| character != '\n' && drives_a_terminal(character), " ")
}

/// Prints a text on standard output. A reader that has gone, as in `mobo list | head`, is not an error.
///
/// # Errors
///
/// When it cannot be written for any other reason.
pub fn print(text: &str) -> io::Result<()> {
    print_to(&mut io::stdout().lock(), text)
}

/// Prints one JSON value and a line feed on standard output.
///
/// # Errors
///
/// As for [`print()`].
pub fn print_json(value: &Value) -> io::Result<()> {
    print(&format!("{value}\n"))
}

fn print_to(out: &mut impl Write, text: &str) -> io::Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Why a command failed, for a person.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What happened, as a sentence.
    pub message: String,
    /// What to do next.
    pub hint: String,
    /// One of [`exit`].
    pub exit: u8,
}

impl Failure {
    /// A failure with its advice and its exit code.
    #[must_use]
    pub fn new(exit: u8, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), exit }
    }

    /// A wrong command line or setting.
    #[must_use]
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(exit::USAGE, message, hint)
    }

    /// Something that could not be done.
    #[must_use]
    pub fn failed(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(exit::FAILED, message, hint)
    }

    /// Something that is not there.
    #[must_use]
    pub fn no_such(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(exit::NO_SUCH, message, hint)
    }
}

/// Prints a failure on standard error and gives its exit code.
#[must_use]
pub fn fail(failure: &Failure) -> ExitCode {
    let hint = if failure.hint.is_empty() { String::new() } else { format!("\n  hint: {}", failure.hint) };
    // Nobody is left to tell when standard error is gone.
    let _ = io::stderr().write_all(tame(&format!("error: {}{hint}\n", failure.message)).as_bytes());
    ExitCode::from(failure.exit)
}

/// Whether the user wants no colour: `NO_COLOR` is set and not empty.
#[must_use]
pub fn no_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_tame() {
        let mut table = Table::new(&["name", "state"]);
        table.row(["store.sqlite", "running"]);
        table.row(["käse", "fail\x1b[2J"]);
        table.row(["a\u{202e}b", "c\u{2066}d"]);
        table.row(["alone"]);
        assert_eq!(table.to_string(), "NAME          STATE\nstore.sqlite  running\nkäse          fail [2J\na b           c d\nalone\n");
        assert_eq!(Table::default().to_string(), "");
    }

    #[test]
    fn what_a_message_quotes_does_not_drive_a_terminal() {
        assert_eq!(tame("one\n  two\x1b[2J\r\u{202e}three\u{2028}ü"), "one\n  two [2J  three ü");
    }

    #[test]
    fn a_reader_that_has_gone_is_fine_and_a_full_disk_is_not() {
        struct Broken(io::ErrorKind);
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert!(print_to(&mut Broken(io::ErrorKind::BrokenPipe), "x").is_ok());
        assert!(print_to(&mut Broken(io::ErrorKind::StorageFull), "x").is_err());
    }

    #[test]
    fn formats_have_names() {
        assert_eq!("json".parse(), Ok(Format::Json));
        assert!("yaml".parse::<Format>().unwrap_err().contains("use table or json"));
    }
}
