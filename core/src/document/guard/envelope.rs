//! A change chunk read by our own hand, before automerge sees a byte of it.
//!
//! ```text
//! chunk = magic ‖ checksum:4 ‖ type:1 ‖ len ‖ body
//! body  = #deps ‖ dep:32 … ‖ actor ‖ seq ‖ start_op ‖ time ‖ message ‖ #actors ‖ actor … ‖ #columns ‖ (spec ‖ len) … ‖ data ‖ extra
//! ```
//! Numbers are LEB128; actors and the message carry their length.

use sha2::{Digest, Sha256};

use super::scan::Bytes;
use crate::document::actor::Actor;

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
/// An uncompressed change. Documents, compressed changes and bundles have other numbers, and none of them ever comes in an entry.
const CHANGE: u8 = 1;

/// What a change says about itself. Its operations are still packed.
#[derive(Debug)]
pub(super) struct Envelope<'a> {
    /// Its hash, which is its identity.
    pub(super) hash: [u8; 32],
    /// The changes that its author had seen last, strictly ascending.
    pub(super) deps: Vec<[u8; 32]>,
    /// Its author.
    pub(super) actor: Actor,
    /// Its position among its author's changes of this document.
    pub(super) seq: u64,
    /// The counter of its first operation.
    pub(super) start_op: u64,
    /// The columns of its operations: what is in each, and its bytes.
    pub(super) columns: Vec<(u64, &'a [u8])>,
}

/// Reads a chunk.
///
/// # Errors
///
/// What is wrong with it: anything but one uncompressed change by an actor of 16 bytes without time, message and extra bytes.
pub(super) fn read(chunk: &[u8]) -> Result<Envelope<'_>, &'static str> {
    let mut rest = Bytes(chunk);
    if rest.array()? != MAGIC {
        return Err("it is not an automerge chunk");
    }
    let checksum: [u8; 4] = rest.array()?;
    let hash: [u8; 32] = Sha256::digest(rest.0).into();
    if !hash.starts_with(&checksum) {
        return Err("its checksum is not that of its bytes");
    }
    if rest.array()? != [CHANGE] {
        return Err("it is not an uncompressed change");
    }
    if rest.length()? != rest.0.len() {
        return Err("its length is not what it says");
    }
    let mut deps = Vec::<[u8; 32]>::new();
    for _ in 0..rest.length()? {
        let dep = rest.array()?;
        if deps.last().is_some_and(|last| *last >= dep) {
            return Err("its dependencies are not in order");
        }
        deps.push(dep);
    }
    let actor = read_actor(&mut rest)?;
    let (seq, start_op) = (rest.unsigned()?, rest.unsigned()?);
    if rest.signed()? != 0 {
        return Err("it has a time: the entry around it has one");
    }
    if rest.length()? != 0 {
        return Err("it has a message");
    }
    for _ in 0..rest.length()? {
        read_actor(&mut rest)?;
    }
    let columns = read_columns(&mut rest)?;
    if !rest.0.is_empty() {
        return Err("it has extra bytes");
    }
    Ok(Envelope { hash, deps, actor, seq, start_op, columns })
}

fn read_actor(rest: &mut Bytes<'_>) -> Result<Actor, &'static str> {
    if rest.length()? != 16 {
        return Err("an actor is not of 16 bytes");
    }
    rest.array().map(Actor)
}

fn read_columns<'a>(rest: &mut Bytes<'a>) -> Result<Vec<(u64, &'a [u8])>, &'static str> {
    let mut lengths = Vec::new();
    for _ in 0..rest.length()? {
        lengths.push((rest.unsigned()?, rest.length()?));
    }
    lengths.into_iter().map(|(spec, len)| Ok((spec, rest.take(len)?))).collect()
}
