//! The side of the node: a component.

use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use mobo_core::kernel::{Check, ComponentName, ComponentSpec, Fault};
use mobo_core::limits;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::wire::{Answer, Request, read_line, write_line};
use super::{Address, ControlError, SOCKET};
use crate::component::{BoxFuture, Component};
use crate::tasks::{Tasks, caught};

/// Answers the commands of a node.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request; what it sends to `out` meanwhile reaches the command at once.
    ///
    /// The future is dropped when the command goes away: work that must not be left half done belongs on a task of its own. When the
    /// node stops, a request that has sent an event ends at once, any other within `CONTROL_GRACE`.
    fn call(&self, verb: String, args: Value, out: EventSink) -> BoxFuture<'_, Result<Value, ControlError>>;
}

/// The way to the command while its request is being answered.
#[derive(Clone, Debug)]
pub struct EventSink(mpsc::Sender<Value>);

impl EventSink {
    /// Sends one event, and waits while the command is slow to read.
    ///
    /// # Errors
    ///
    /// [`Gone`] when nobody listens any more: stop.
    pub async fn send(&self, event: Value) -> Result<(), Gone> {
        self.0.send(event).await.map_err(|_| Gone)
    }
}

/// The command that asked has gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the command that asked has gone")]
pub struct Gone;

/// The control socket of a data folder, as a component. It owns the folder's lock no more than any other part does: open the
/// [`DataDir`](crate::data_dir::DataDir) first.
pub struct ControlSocket {
    data_dir: PathBuf,
    handler: Arc<dyn Handler>,
    listener: Mutex<Option<UnixListener>>,
}

impl ControlSocket {
    /// Its name on the board.
    pub const NAME: ComponentName = ComponentName::fixed("control");

    /// A socket in this folder, answered by this handler.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>, handler: Arc<dyn Handler>) -> Self {
        Self { data_dir: data_dir.into(), handler, listener: Mutex::new(None) }
    }

    /// Binds beside the name and moves onto it: whoever opens the socket finds it already closed to others, and one that a dead process
    /// left is replaced.
    async fn bind(&self) -> io::Result<UnixListener> {
        let address = Address::of(&self.data_dir, SOCKET)?;
        if UnixStream::connect(&address.path).await.is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers on it"));
        }
        let new = Address::of(&self.data_dir, "control.new")?;
        match std::fs::remove_file(&new.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&new.path)?;
        std::fs::set_permissions(&new.path, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&new.path, &address.path)?;
        Ok(listener)
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<UnixListener>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for ControlSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlSocket").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

impl Component for ControlSocket {
    fn spec(&self) -> ComponentSpec {
        ComponentSpec::required(Self::NAME, env!("CARGO_PKG_VERSION"))
            .kept("commands such as this one come through it; `shutdown` stops it")
    }

    fn post(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async {
            let path = self.data_dir.join(SOCKET);
            match std::fs::symlink_metadata(&path) {
                Ok(found) if !std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) => {
                    let detail = format!("{} is in the way and is no socket", path.display());
                    vec![Check::fail("socket", detail, "move that file away")]
                }
                _ => vec![Check::pass("socket", path.display().to_string())],
            }
        })
    }

    fn load(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async {
            let bound = self.bind().await.map_err(|error| {
                let reason = format!("cannot listen on {}: {error}", self.data_dir.join(SOCKET).display());
                Fault::new(reason, "the data folder must be on a file system with sockets, and /proc must be there when its path is long")
            })?;
            *self.slot() = Some(bound);
            Ok(())
        })
    }

    fn start(&self, tasks: Tasks) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            if let Some(listener) = self.slot().take() {
                tasks.spawn("control.accept", accept(listener, self.handler.clone(), tasks.clone()));
            }
            Ok(())
        })
    }

    fn stop(&self, _deadline: tokio::time::Instant) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async {
            self.slot().take();
            // A socket that stays behind is replaced by the next boot.
            let _ = std::fs::remove_file(self.data_dir.join(SOCKET));
            Ok(())
        })
    }
}

async fn accept(listener: UnixListener, handler: Arc<dyn Handler>, tasks: Tasks) -> io::Result<()> {
    let stopping = tasks.stopping();
    let seats = Arc::new(Semaphore::new(limits::CONTROL_CONNECTIONS_MAX));
    loop {
        // The seat comes first: who finds none waits in the listener's own queue, which the system bounds.
        let seat = tokio::select! {
            seat = seats.clone().acquire_owned() => seat,
            () = stopping.cancelled() => return Ok(()),
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopping.cancelled() => return Ok(()),
        };
        let Ok((stream, _)) = accepted else {
            // No file is left to this process, most likely: whoever wants to know why, or to stop it, comes through here.
            tokio::time::sleep(limits::HTTP_ACCEPT_PAUSE).await;
            continue;
        };
        let (handler, stopping) = (handler.clone(), stopping.clone());
        tasks.spawn_job("control.connection", async move {
            let _seat = seat;
            converse(stream, handler.as_ref(), &stopping).await
        });
    }
}

/// Answers one request after the other until the command goes away or the node stops.
async fn converse(stream: UnixStream, handler: &dyn Handler, stopping: &CancellationToken) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let line = tokio::select! {
            line = read_line(&mut reader) => line,
            () = stopping.cancelled() => return Ok(()),
        };
        let line = match line {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                let message = format!("a request has at most {} bytes", limits::CONTROL_LINE_BYTES_MAX);
                return say(&mut writer, Err(ControlError::usage("too_long", message, "ask for less at a time"))).await;
            }
            Err(error) => return Err(error),
        };
        match serde_json::from_slice(&line) {
            Ok(request) => {
                let talk = Talk { reader: &mut reader, writer: &mut writer, stopping };
                if talk.answer(handler, request).await?.is_none() {
                    return Ok(());
                }
            }
            Err(error) => {
                let hint = "send one line of JSON, as in {\"verb\":\"status\",\"args\":{}}";
                say(&mut writer, Err(ControlError::usage("bad_request", format!("this is no request: {error}"), hint))).await?;
            }
        }
    }
}

struct Talk<'a> {
    reader: &'a mut BufReader<OwnedReadHalf>,
    writer: &'a mut OwnedWriteHalf,
    stopping: &'a CancellationToken,
}

impl Talk<'_> {
    /// Answers one request; `None` when the command went away meanwhile.
    async fn answer(self, handler: &dyn Handler, request: Request) -> io::Result<Option<()>> {
        let (sender, mut events) = mpsc::channel(limits::CONTROL_EVENTS_MAX);
        let mut call = pin!(caught(handler.call(request.verb, request.args, EventSink(sender))));
        let mut grace = pin!(async {
            self.stopping.cancelled().await;
            tokio::time::sleep(limits::CONTROL_GRACE).await;
        });
        let (mut streams, mut quiet) = (false, true);
        let result = loop {
            tokio::select! {
                biased;
                Some(event) = events.recv() => {
                    streams = true;
                    write_line(self.writer, &Answer::Event(event)).await?;
                }
                result = &mut call => break result.unwrap_or_else(|panic| Err(panicked(&panic))),
                read = self.reader.fill_buf(), if quiet => match read {
                    Ok([]) | Err(_) => return Ok(None),
                    // The next request is here already; it waits.
                    Ok(_) => quiet = false,
                },
                () = self.stopping.cancelled(), if streams => break Err(stopped()),
                () = &mut grace => break Err(stopped()),
            }
        };
        while let Ok(event) = events.try_recv() {
            write_line(self.writer, &Answer::Event(event)).await?;
        }
        say(self.writer, result).await.map(Some)
    }
}

/// Writes the last line of an answer; one that is too long becomes the error that says so.
fn say(writer: &mut OwnedWriteHalf, result: Result<Value, ControlError>) -> impl Future<Output = io::Result<()>> {
    let answer = result.map_or_else(Answer::Error, Answer::Ok);
    async move {
        match write_line(writer, &answer).await {
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                let message = format!("the answer is longer than {} bytes", limits::CONTROL_LINE_BYTES_MAX);
                let error = ControlError::failed("too_long", message, "ask for less at a time");
                write_line(writer, &Answer::Error(error)).await
            }
            written => written,
        }
    }
}

fn stopped() -> ControlError {
    ControlError::not_running("the node is stopping", "ask again when it runs")
}

fn panicked(panic: &str) -> ControlError {
    let message = format!("the node made a mistake while answering: {panic}");
    ControlError::failed("internal", message, "report it with the node's log")
}
