//! Lines of JSON with a limit.

use std::io;

use mobo_core::limits;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::ControlError;

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Request {
    pub(super) verb: String,
    #[serde(default)]
    pub(super) args: Value,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Answer {
    Event(Value),
    Ok(Value),
    Error(ControlError),
}

/// The next line without its end; `None` at the end of the stream.
///
/// # Errors
///
/// `FileTooLarge` when the line is longer than the limit; the stream is of no use then.
pub(super) async fn read_line(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let bytes_max = u64::try_from(limits::CONTROL_LINE_BYTES_MAX).unwrap_or(u64::MAX);
    let read = reader.take(bytes_max.saturating_add(1)).read_until(b'\n', &mut line).await?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    if line.len() > limits::CONTROL_LINE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(Some(line))
}

/// Writes a value as one line. A line over the limit is not written, and is `FileTooLarge`.
pub(super) async fn write_line(writer: &mut (impl AsyncWrite + Unpin), value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    if line.len() > limits::CONTROL_LINE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    line.push(b'\n');
    let write = async {
        writer.write_all(&line).await?;
        writer.flush().await
    };
    tokio::time::timeout(limits::CONTROL_WRITE_TIMEOUT, write).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
