//! What a device could not send, and somebody carried here (SPEC.md, section 20).
//!
//! A bundle is read twice: once to the end, so that nothing of a damaged one is taken, and then push by push into the merge, like those of a
//! session. Positions in lanes make it happen once, however often it is imported, and whatever the device sends by itself meanwhile.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mobo_core::ids::LaneKey;
use mobo_core::limits;
use mobo_core::merge::Outcome;
use mobo_core::merge::prepare::prepare_push;
use mobo_core::message::{Ack, Code, LaneStatus, Message, Push, SignedHello};
use mobo_core::session::hub::{HubIdentity, Refusal};
use mobo_core::store::StoreError;
use mobo_protocol::bundle::{BundleError, Expected, Kind, Packer, Unpacker};
use mobo_runtime::entropy;
use mobo_runtime::new_file::NewFile;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::admission::{Carried, Turned};
use crate::node::Hub;
use crate::sessions::Sessions;

/// Why a bundle was not imported. What was merged before stays; it may be imported again.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file cannot be read or written.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not a bundle for this hub, or not a whole one.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The device is not let in.
    #[error("{0}")]
    Turned(String),
    /// There are entries before it that this hub does not have.
    #[error(
        "this hub has lane {lane} of the device up to entry {have} only, and the bundle begins at {first}: import the older bundle first, or \
             write one with everything that the device keeps (`mobo-edge backup export --all FILE`)"
    )]
    Gap {
        /// The lane.
        lane: u8,
        /// What the hub has; 0 for nothing.
        have: u64,
        /// What the bundle begins with.
        first: u64,
    },
    /// The entries are other ones than those that the hub has at the same place.
    #[error(
        "these entries contradict what this hub has of the same device: its folder was copied, or put back to an older state; connect the \
             device, which then goes on under a new log, and nothing is lost"
    )]
    Forked,
    /// A push in it is not what its device would send.
    #[error("the entries of lane {lane} are not taken ({}): export them again, with a newer version where there is one", code.name())]
    Push {
        /// The lane.
        lane: u8,
        /// Why.
        code: Code,
    },
    /// The store cannot.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system has no randomness.
    #[error(transparent)]
    NoEntropy(#[from] entropy::NoEntropy),
}

impl From<Turned> for ImportError {
    fn from(turned: Turned) -> Self {
        match turned {
            Turned::Away(Refusal::Error(error)) => Self::Turned(error.detail),
            Turned::Away(Refusal::Refence(_)) => Self::Forked,
            Turned::Store(error) => Self::Store(error),
        }
    }
}

/// Imports a bundle, and writes a receipt where one is wanted; says what became of it.
///
/// # Errors
///
/// [`ImportError`].
pub async fn import(hub: &Hub, file: &Path, receipt: Option<&Path>) -> Result<Value, ImportError> {
    let sessions = hub.sessions().ok_or_else(|| StoreError::Unavailable("the hub does not take devices yet".to_owned()))?;
    let identity = Arc::clone(&sessions.door.history.era().identity);
    check(&identity, file).await?;
    // The first look may find out that this hub was restored: the second one is of its new timeline.
    match merge(&sessions, file, receipt).await {
        Err(ImportError::Turned(_)) if sessions.door.history.era().identity.timeline != identity.timeline => {
            merge(&sessions, file, receipt).await
        }
        other => other,
    }
}

/// Reads a bundle to its end; nothing is taken of one that does not open.
async fn check(identity: &HubIdentity, file: &Path) -> Result<(), ImportError> {
    let mut bundle = Bundle::open(identity, file).await?;
    let Some(Message::Hello(_)) = bundle.next().await? else { return Err(BundleError::Malformed.into()) };
    while let Some(message) = bundle.next().await? {
        if !matches!(message, Message::Push(_) | Message::Ignored { .. }) {
            return Err(BundleError::Malformed.into());
        }
    }
    Ok(())
}

async fn merge(sessions: &Sessions, file: &Path, receipt: Option<&Path>) -> Result<Value, ImportError> {
    let identity = Arc::clone(&sessions.door.history.era().identity);
    let mut bundle = Bundle::open(&identity, file).await?;
    let Some(Message::Hello(hello)) = bundle.next().await? else { return Err(BundleError::Malformed.into()) };
    let device = sessions.door.carried(&hello, &bundle.unpacker.binding().unwrap_or_default()).await?;
    if !bundle.unpacker.is_signed_by(&device.key) {
        return Err(BundleError::Damaged { at: 0 }.into());
    }
    let mut import =
        Import { sessions, identity: &identity, hello: &hello, lanes: device.lanes.clone(), device, entries: 0, merged: 0, refused: 0 };
    let mut acks = Vec::new();
    while let Some(message) = bundle.next().await? {
        let Message::Push(push) = message else { continue };
        acks.extend(import.push(push).await?);
    }
    let written = match receipt {
        Some(path) => Some(import.receipt(path, acks).await?),
        None => None,
    };
    Ok(json!({
        "device": hello.hello.device.to_string(), "name": import.device.name, "entries": import.entries, "merged": import.merged,
        "known": import.entries - import.merged, "refused": import.refused, "receipt": written,
    }))
}

/// One bundle on its way into the store.
struct Import<'a> {
    sessions: &'a Sessions,
    identity: &'a HubIdentity,
    hello: &'a SignedHello,
    device: Carried,
    /// How far the hub is by now.
    lanes: Vec<LaneStatus>,
    entries: u64,
    merged: u64,
    refused: u64,
}

impl Import<'_> {
    /// Merges a push, and gives its ack.
    async fn push(&mut self, push: Push) -> Result<Option<Ack>, ImportError> {
        let (lane, first, count) = (push.lane, push.first.get(), push.entries.len() as u64);
        let number = lane.number();
        let hello = &self.hello.hello;
        if push.incarnation != hello.incarnation {
            return Err(ImportError::Push { lane: number, code: Code::UNSUPPORTED });
        }
        let key = LaneKey { device: hello.device, incarnation: hello.incarnation, lane };
        let prepared = prepare_push(self.identity.project, key, &self.device.key, push, self.device.rights.clone())
            .map_err(|code| ImportError::Push { lane: number, code })?;
        let have = self.lanes.iter().find(|status| status.lane == lane).and_then(|status| status.last).map_or(0, |last| last.get());
        match self.sessions.merges.merge(prepared).await? {
            Outcome::Merged(merged) => {
                self.entries += count;
                self.merged += (first + count - 1).saturating_sub(have.max(first - 1));
                self.refused += merged.rejects.len() as u64;
                if let Some(status) = self.lanes.iter_mut().find(|status| status.lane == lane) {
                    status.last = status.last.max(Some(merged.acked));
                }
                Ok(Some(self.identity.ack(&key, merged)))
            }
            Outcome::Nack { .. } => Err(ImportError::Gap { lane: number, have, first }),
            Outcome::Refence { .. } => Err(ImportError::Forked),
            Outcome::Refused(error) => Err(ImportError::Turned(error.to_string())),
        }
    }

    /// Writes what the device is to be told; refusals before the acks that cover them.
    async fn receipt(&self, path: &Path, acks: Vec<Ack>) -> Result<PathBuf, ImportError> {
        let failed = |source| ImportError::File { path: path.to_owned(), source };
        let project = self.identity.project;
        let packer = Packer::new(Kind::Receipt, project, (&self.identity.keys, &self.device.key), entropy::bytes()?);
        let mut packer = packer.ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
        let rejects = self.sessions.door.refusals(&self.hello.hello, &self.lanes).await?;
        for message in rejects.into_iter().map(Message::Reject).chain(acks.into_iter().map(Message::Ack)) {
            packer.put(&mobo_protocol::encode(&message));
        }
        let mut file = NewFile::create(path).map_err(failed)?;
        file.write(&packer.finish()).and_then(|()| file.keep()).map_err(failed)?;
        Ok(path.to_owned())
    }
}

/// A bundle in a file, message by message.
struct Bundle<'a> {
    path: PathBuf,
    file: tokio::fs::File,
    unpacker: Unpacker<'a>,
    piece: Vec<u8>,
}

impl<'a> Bundle<'a> {
    async fn open(identity: &'a HubIdentity, path: &Path) -> Result<Self, ImportError> {
        let failed = |source| ImportError::File { path: path.to_owned(), source };
        // Neither a pipe nor a device: those may never end.
        if !tokio::fs::metadata(path).await.map_err(failed)?.is_file() {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file")));
        }
        let file = tokio::fs::File::open(path).await.map_err(failed)?;
        let expected = Expected { kind: Kind::Entries, project: identity.project, keys: &identity.keys };
        Ok(Self { path: path.to_owned(), file, unpacker: Unpacker::new(expected), piece: vec![0; limits::BUNDLE_CHUNK_BYTES] })
    }

    /// The next message; `None` behind the last.
    async fn next(&mut self) -> Result<Option<Message>, ImportError> {
        loop {
            if let Some(frame) = self.unpacker.frame()? {
                return Ok(Some(mobo_protocol::decode(&frame).map_err(|_| BundleError::Malformed)?));
            }
            let failed = |source| ImportError::File { path: self.path.clone(), source };
            let read = self.file.read(&mut self.piece).await.map_err(failed)?;
            if read == 0 {
                self.unpacker.end()?;
                return Ok(None);
            }
            self.unpacker.feed(self.piece.get(..read).unwrap_or_default())?;
        }
    }
}
