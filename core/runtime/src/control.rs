//! The control socket: how a command on this machine talks to the node that runs in a data folder.
//!
//! `DIR/control.sock` is a Unix socket that only the folder's owner can open: file permissions are the authority. Both sides write lines
//! of JSON. A request is `{"verb":"status","args":{…}}`; the answer is any number of `{"event":…}` lines and then one last line, which is
//! `{"ok":…}` or `{"error":{"code","message","hint","exit"}}`. A connection may ask again after that. A line has at most
//! [`CONTROL_LINE_BYTES_MAX`](mobo_core::limits::CONTROL_LINE_BYTES_MAX) bytes.

mod client;
mod server;
#[cfg(test)]
mod tests;
mod wire;

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::output::{Failure, exit};

pub use client::ControlClient;
pub use server::{ControlSocket, EventSink, Gone, Handler};

const SOCKET: &str = "control.sock";
/// What fits into a `sockaddr_un` with its final zero.
const ADDRESS_BYTES_MAX: usize = 107;

/// A refusal, as it travels: what a command prints and exits with.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct ControlError {
    /// A stable word for programs, as in `no_such_collection`.
    pub code: Cow<'static, str>,
    /// What happened, as a sentence.
    pub message: String,
    /// What to do next.
    pub hint: String,
    /// The exit code of the command: one of [`exit`].
    pub exit: u8,
}

impl ControlError {
    /// Something that could not be done.
    #[must_use]
    pub fn failed(code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: Cow::Borrowed(code), message: message.into(), hint: hint.into(), exit: exit::FAILED }
    }

    /// A verb or arguments that the node does not understand.
    #[must_use]
    pub fn usage(code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { exit: exit::USAGE, ..Self::failed(code, message, hint) }
    }

    /// Something that is not there.
    #[must_use]
    pub fn no_such(code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { exit: exit::NO_SUCH, ..Self::failed(code, message, hint) }
    }

    /// No node answers.
    #[must_use]
    pub fn not_running(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { exit: exit::NOT_RUNNING, ..Self::failed("not_running", message, hint) }
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        Self::new(error.exit, error.message, error.hint)
    }
}

/// A path to a file of a folder that is short enough for a socket's address, however long the folder's own path is.
struct Address {
    path: PathBuf,
    /// Keeps `/proc/self/fd/N` alive when that is the way.
    _folder: Option<File>,
}

impl Address {
    fn of(folder: &Path, name: &str) -> io::Result<Self> {
        let path = folder.join(name);
        if path.as_os_str().len() <= ADDRESS_BYTES_MAX {
            return Ok(Self { path, _folder: None });
        }
        let folder = File::open(folder)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()));
        Ok(Self { path, _folder: Some(folder) })
    }
}
