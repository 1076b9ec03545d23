//! What this device cannot send, for somebody to carry to its hub; and what the hub has to say to it (SPEC.md, section 20).

use std::io;
use std::path::{Path, PathBuf};

use mobo_adapters::sqlite::edge::{Acknowledged, Pending};
use mobo_core::ids::{Lane, LaneKey, Seq};
use mobo_core::limits;
use mobo_core::message::{Ack, Message};
use mobo_core::store::StoreError;
use mobo_core::trust::{LaneHead, Statement};
use mobo_protocol::bundle::{BundleError, Expected, Kind, Packer, Unpacker};
use mobo_runtime::machine;
use mobo_runtime::new_file::NewFile;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::uplink::Uplink;

/// Why nothing was exported or imported.
#[derive(Debug, thiserror::Error)]
pub enum BundlesError {
    /// A file cannot be read or written.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not a receipt for this device, or not a whole one.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Its acks are of another history of the hub, or contradict this device's log.
    #[error(
        "this receipt does not fit what this device knows of its hub: the hub was restored, or this device begun anew, since; connect the two"
    )]
    Foreign,
    /// The store cannot.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes what the hub has not acknowledged into a new file; everything that is kept, if wanted. Writes none where there is nothing.
///
/// # Errors
///
/// [`BundlesError`]; there is no file then.
pub async fn export(uplink: &Uplink, path: &Path, all: bool) -> Result<Value, BundlesError> {
    let failed = |source| BundlesError::File { path: path.to_owned(), source };
    let node = uplink.store.node().await?;
    let not_joined = || StoreError::Refused("this device has not joined a hub yet: run `mobo-edge join TOKEN`".to_owned());
    let identity = node.identity.ok_or_else(not_joined)?;
    let secret = machine::random(uplink.machine.as_ref())?;
    let packer = Packer::new(Kind::Entries, identity.project, (&uplink.keys, &identity.hub_key), secret);
    let mut packer = packer.ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
    let hello = uplink.hello(&packer.binding()).await?;
    packer.put(&mobo_protocol::encode(&Message::Hello(Box::new(hello))));
    let mut file = NewFile::create(path).map_err(failed)?;
    let (mut lanes, mut total) = (Vec::new(), 0);
    for count in uplink.store.counts().await?.lanes {
        let (from, mut after) = if all { (None, None) } else { (count.hub, count.hub) };
        let mut entries = 0;
        loop {
            match uplink.store.pending(count.lane, after, limits::PUSH_ENTRIES_MAX, limits::BATCH_BYTES_MAX).await? {
                Pending::Nothing => break,
                // What comes before is not kept any more.
                Pending::Trimmed(kept) => after = Seq::new(kept.get() - 1),
                Pending::Entries(outgoing) => {
                    let read = outgoing.entries.len() as u64;
                    let last = Seq::new(outgoing.first.get() + read - 1);
                    let push = uplink.push(count.lane, outgoing).await?;
                    packer.put(&mobo_protocol::encode(&Message::Push(push)));
                    file.write(&packer.take()).map_err(failed)?;
                    (after, entries) = (last, entries + read);
                }
            }
        }
        if entries > 0 {
            lanes.push(json!({ "lane": count.lane.number(), "after": from.map_or(0, Seq::get), "entries": entries }));
        }
        total += entries;
    }
    if total == 0 {
        return Ok(json!({ "entries": 0, "lanes": [], "file": null, "bytes": 0 }));
    }
    file.write(&packer.finish()).map_err(failed)?;
    let bytes = file.keep().map_err(failed)?;
    Ok(json!({ "entries": total, "lanes": lanes, "file": path, "bytes": bytes }))
}

/// Takes in what the hub made of a bundle.
///
/// # Errors
///
/// [`BundlesError`]; what was taken in before stays, and all of it may come again.
pub async fn import(uplink: &Uplink, path: &Path) -> Result<Value, BundlesError> {
    let messages = read(uplink, path).await?;
    let node = uplink.store.node().await?;
    let (mut acked, mut refused) = (0_u64, 0_u64);
    for message in messages {
        if let Message::Reject(reject) = message {
            uplink.store.rejected(reject).await?;
            refused += 1;
        } else if let Message::Ack(ack) = message {
            let (Some(identity), Some(info)) = (&node.identity, &node.timeline) else { return Err(BundlesError::Foreign) };
            let lane = LaneKey { device: identity.device, incarnation: ack.incarnation, lane: ack.lane };
            let head = LaneHead { project: identity.project, lane, last: ack.acked, chain: ack.chain };
            if !Statement::Ack(&head, info.timeline).is_signed_by(&identity.hub_key, &ack.signature) {
                return Err(BundlesError::Foreign);
            }
            let before = hub_has(uplink, ack.lane).await?;
            take(uplink, ack).await?;
            acked += hub_has(uplink, lane.lane).await? - before;
        }
    }
    Ok(json!({ "acknowledged": acked, "refused": refused }))
}

async fn take(uplink: &Uplink, ack: Ack) -> Result<(), BundlesError> {
    match uplink.store.acked(ack, uplink.keep).await? {
        Acknowledged::Foreign => Err(BundlesError::Foreign),
        Acknowledged::Advanced | Acknowledged::Known => Ok(()),
    }
}

async fn hub_has(uplink: &Uplink, lane: Lane) -> Result<u64, StoreError> {
    let counts = uplink.store.counts().await?;
    Ok(counts.lanes.iter().find(|count| count.lane == lane).and_then(|count| count.hub).map_or(0, Seq::get))
}

/// The messages of a receipt: all of them, so that nothing of a damaged one is taken.
async fn read(uplink: &Uplink, path: &Path) -> Result<Vec<Message>, BundlesError> {
    let failed = |source| BundlesError::File { path: path.to_owned(), source };
    let identity = uplink.store.node().await?.identity.ok_or(BundlesError::Foreign)?;
    let mut unpacker = Unpacker::new(Expected { kind: Kind::Receipt, project: identity.project, keys: &uplink.keys });
    if !tokio::fs::metadata(path).await.map_err(failed)?.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file")));
    }
    let mut file = tokio::fs::File::open(path).await.map_err(failed)?;
    let (mut messages, mut piece) = (Vec::new(), vec![0; limits::BUNDLE_CHUNK_BYTES]);
    loop {
        let read = file.read(&mut piece).await.map_err(failed)?;
        if read == 0 {
            break;
        }
        unpacker.feed(piece.get(..read).unwrap_or_default())?;
        while let Some(frame) = unpacker.frame()? {
            messages.push(mobo_protocol::decode(&frame).map_err(|_| BundleError::Malformed)?);
            if messages.len() > limits::RECEIPT_FRAMES_MAX {
                return Err(BundleError::Malformed.into());
            }
        }
    }
    unpacker.end()?;
    if !unpacker.is_signed_by(&identity.hub_key) {
        return Err(BundleError::Damaged { at: 0 }.into());
    }
    Ok(messages)
}
