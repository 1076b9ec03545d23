//! The side of the command.

use std::io;
use std::path::Path;

use mobo_core::limits;
use serde_json::Value;
use tokio::io::BufReader;
use tokio::net::UnixStream;

use super::wire::{Answer, Request, read_line, write_line};
use super::{Address, ControlError, SOCKET};

/// A conversation with the node that runs in a data folder.
#[derive(Debug)]
pub struct ControlClient {
    stream: BufReader<UnixStream>,
}

impl ControlClient {
    /// Connects.
    ///
    /// # Errors
    ///
    /// With exit code 3 when no node runs there, with 1 when it cannot be reached for another reason.
    pub async fn connect(data_dir: &Path) -> Result<Self, ControlError> {
        let connected = async {
            let address = Address::of(data_dir, SOCKET)?;
            UnixStream::connect(&address.path).await
        };
        let folder = data_dir.display();
        match connected.await {
            Ok(stream) => Ok(Self { stream: BufReader::new(stream) }),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                let hint = "start one there with `boot`, or say which folder with --data-dir";
                Err(ControlError::not_running(format!("no node is running in {folder}"), hint))
            }
            Err(error) => {
                let message = format!("the node in {folder} cannot be reached: {error}");
                Err(ControlError::failed("unreachable", message, "run the command as the user that the node runs as"))
            }
        }
    }

    /// Asks for one thing and gives the answer; events on the way are dropped.
    ///
    /// # Errors
    ///
    /// What the node refused with, or that it went away.
    pub async fn call(&mut self, verb: &str, args: Value) -> Result<Value, ControlError> {
        self.stream(verb, args, |_| ()).await
    }

    /// Asks for one thing and shows every event on the way to the answer.
    ///
    /// # Errors
    ///
    /// As for [`call`](Self::call).
    pub async fn stream(&mut self, verb: &str, args: Value, mut event: impl FnMut(Value)) -> Result<Value, ControlError> {
        let request = Request { verb: verb.to_owned(), args };
        write_line(self.stream.get_mut(), &request).await.map_err(|error| lost(&error))?;
        loop {
            let line = read_line(&mut self.stream).await.map_err(|error| lost(&error))?;
            let Some(line) = line else { return Err(lost(&io::ErrorKind::UnexpectedEof.into())) };
            match serde_json::from_slice(&line).map_err(|error| lost(&error.into()))? {
                Answer::Event(value) => event(value),
                Answer::Ok(value) => return Ok(value),
                Answer::Error(error) => return Err(error),
            }
        }
    }

    /// Waits until the node closes the conversation, which it does when it stops.
    pub async fn closed(mut self) {
        while matches!(read_line(&mut self.stream).await, Ok(Some(_))) {}
    }
}

fn lost(error: &io::Error) -> ControlError {
    if error.kind() == io::ErrorKind::FileTooLarge {
        let message = format!("a request or an answer was longer than {} bytes", limits::CONTROL_LINE_BYTES_MAX);
        return ControlError::failed("too_long", message, "ask for less at a time");
    }
    let hint = "see its log; `status` says whether it runs";
    ControlError::failed("connection_lost", format!("the node went away before it answered ({error})"), hint)
}
