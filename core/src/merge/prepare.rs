//! Before the transaction: what can be checked of a push without reading anything.

use std::sync::Arc;

use super::{LocalWrite, Retry, Rights};
use crate::document::{self, DocumentOp};
use crate::engine::Refusal;
use crate::entry::{Entry, Header, Payload, chain_next};
use crate::ids::{Chain, Eid, LaneKey, ProjectId, PublicKey, Seq, Signature};
use crate::message::{Code, Push};
use crate::schema::Kind;
use crate::table::{self, TableOp};
use crate::time::Eff;
use crate::trust::{LaneHead, Statement};

/// A submission, ready for the transaction. Cloning one is cheap, so that a transaction can be tried again.
#[derive(Clone, Debug)]
pub enum Prepared {
    /// A device's push.
    Push(Box<PreparedPush>),
    /// A write through the hub's API.
    Local(Box<LocalWrite>),
    /// A refused entry, to be merged after all.
    Retry(Box<Retry>),
}

impl Prepared {
    /// The same, of a log that its device has left behind ([`PreparedPush::gives_back`]).
    #[must_use]
    pub fn giving_back(mut self) -> Self {
        if let Self::Push(push) = &mut self {
            push.gives_back = true;
        }
        self
    }
}

/// A push whose signature and chain hold in themselves.
#[derive(Clone, Debug)]
pub struct PreparedPush {
    /// The lane.
    pub lane: LaneKey,
    /// The chain before the first entry.
    pub prev_chain: Chain,
    /// The position of the first entry.
    pub first: Seq,
    /// Its entries, decoded, with the chain after each.
    pub entries: Vec<Arc<PreparedEntry>>,
    /// The author's word for the head; `None` for a piece of a push that ends before it.
    pub signature: Option<Signature>,
    /// What the author may write.
    pub rights: Rights,
    /// True where the device speaks for another log by now, and gives back what it keeps of this one: a closed log takes that, if it continues
    /// it, and nothing else (rule R22).
    pub gives_back: bool,
}

/// An entry, decoded.
#[derive(Debug)]
pub struct PreparedEntry {
    /// Its position.
    pub seq: Seq,
    /// The sealed bytes.
    pub entry: Entry,
    /// Its identity; `None` when lost.
    pub eid: Option<Eid>,
    /// The chain after it.
    pub chain: Chain,
    /// The header; `None` when it cannot be read (the content then says why).
    pub header: Option<Header>,
    /// What it does.
    pub content: Content,
    /// The effective time that a hub decided earlier.
    pub eff: Option<Eff>,
}

/// What an entry does.
#[derive(Debug)]
pub enum Content {
    /// Operations on rows.
    Table(Vec<TableOp>),
    /// Operations on documents.
    Document(Vec<DocumentOp>),
    /// Samples: decoded later, with the schema.
    Stream,
    /// Its payload is lost.
    Lost,
    /// It cannot be read.
    Poison(Refusal),
}

/// Checks and decodes a push by the holder of `key`. The entries that cannot be read are poison each for itself; the push goes on.
///
/// # Errors
///
/// The code to refuse the whole push with: its chain or its signature does not hold, or it is somebody else's.
pub fn prepare_push(project: ProjectId, lane: LaneKey, key: &PublicKey, push: Push, rights: Rights) -> Result<Prepared, Code> {
    if push.on_behalf.is_some_and(|device| device != lane.device) {
        return Err(Code::UNSUPPORTED);
    }
    let mut entries = Vec::with_capacity(push.entries.len());
    let (mut seq, mut chain) = (push.first, push.prev_chain);
    for pushed in push.entries {
        chain = chain_next(chain, &pushed.entry);
        let prepared = prepare_entry(seq, pushed.entry, chain);
        entries.push(Arc::new(PreparedEntry { eff: pushed.eff, ..prepared }));
        seq = seq.next();
    }
    if chain != push.head_chain {
        return Err(Code::BROKEN_CHAIN);
    }
    let last = entries.last().map_or(push.first, |entry| entry.seq);
    let head = LaneHead { project, lane, last, chain };
    if !Statement::Push(&head).is_signed_by(key, &push.signature) {
        return Err(Code::BAD_SIGNATURE);
    }
    Ok(Prepared::Push(Box::new(PreparedPush {
        lane,
        prev_chain: push.prev_chain,
        first: push.first,
        entries,
        signature: Some(push.signature),
        rights,
        gives_back: false,
    })))
}

/// Decodes one entry.
#[must_use]
pub fn prepare_entry(seq: Seq, entry: Entry, chain: Chain) -> PreparedEntry {
    let header = Header::decode(&entry.header);
    let content = match (&header, &entry.payload) {
        (Err(error), _) => Content::Poison(Refusal::new(Code::BAD_PAYLOAD, format!("header: {error}"))),
        (Ok(_), Payload::Lost(_)) => Content::Lost,
        (Ok(header), Payload::Present(payload)) => decode(header, payload),
    };
    PreparedEntry { seq, eid: entry.eid(), entry, chain, header: header.ok(), content, eff: None }
}

fn decode(header: &Header, payload: &[u8]) -> Content {
    let poison = |error| Content::Poison(Refusal::new(Code::BAD_PAYLOAD, format!("payload: {error}")));
    match header.kind() {
        Some(Kind::Table) => table::op::decode_payload(payload).map_or_else(poison, Content::Table),
        Some(Kind::Document) => document::op::decode_payload(payload).map_or_else(poison, Content::Document),
        Some(Kind::Stream) => Content::Stream,
        None => Content::Poison(Refusal::new(
            Code::UNKNOWN_ENGINE,
            format!("the entry is of engine {}, which this version does not have; upgrade the hub and retry it", header.engine),
        )),
    }
}
