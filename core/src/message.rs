//! What a device and a hub say to each other. `mobo-protocol` spells these types in bytes; `protocol/SPEC.md` is their contract.

mod code;
mod hello;
mod pull;
mod push;

pub use code::*;
pub use hello::*;
pub use pull::*;
pub use push::*;

use crate::ids::{BootId, BucketId, CollectionId, Position, PublicKey, RecordId, Signature};
use crate::time::{Eff, Mono};

/// One message of a session.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Device → hub: who I am and what I have.
    Hello(Box<SignedHello>),
    /// Hub → device: you are admitted.
    Welcome(Box<Welcome>),
    /// Hub → device: start a new incarnation; your log is not the one that I know.
    Refence(Refence),
    /// Device → hub: entries of one lane.
    Push(Push),
    /// Hub → device: entries up to here are committed.
    Ack(Ack),
    /// Hub → device: your push does not continue what I have.
    Nack(Nack),
    /// Hub → device: this entry was refused; its position is used all the same.
    Reject(Reject),
    /// Device → hub: send me these buckets from here.
    Pull(Pull),
    /// Hub → device: what changed in one bucket.
    Batch(Batch),
    /// Hub → device: at these positions you hold what I hold.
    Checkpoint(Checkpoint),
    /// Device → hub: I have stored up to here.
    CursorAck(Vec<(BucketId, Position)>),
    /// Hub → device: you may read this bucket.
    Grant(Grant),
    /// Hub → device: you may no longer read this bucket.
    Revoke(BucketId),
    /// Hub → device: your cursor is older than what I keep; pull from the start, then sweep.
    Resync {
        /// The bucket.
        bucket: BucketId,
        /// Positions below are forgotten.
        floor: Position,
    },
    /// Hub → device: a resync ended here; what it did not name is gone.
    Sweep {
        /// The bucket.
        bucket: BucketId,
        /// Where it ended.
        to: Position,
    },
    /// Device → hub: send me these records as they are now.
    Fetch {
        /// Answers carry it.
        pull: u64,
        /// Which.
        records: Vec<(CollectionId, RecordId)>,
    },
    /// Either way: fingerprints of part of a bucket, to find where two nodes differ.
    Audit(Audit),
    /// Device → hub, on a new timeline: what I hold of this bucket (rule R18).
    Offer(Offer),
    /// Hub → device: the offer is joined.
    OfferAck(OfferAck),
    /// Hub → device: the collections as they are now.
    Schema(SchemaUpdate),
    /// Hub → device: who may use your API, and what of it. It may be passed over.
    Access(AccessUpdate),
    /// Device → hub, on a new timeline: definitions that you may have lost (rule R18).
    SchemaOffer(SchemaUpdate),
    /// Device → hub: take me in.
    Enrol(Enrol),
    /// Hub → device: you are in.
    Enrolled(Enrolled),
    /// Either way: are you there?
    Ping(Ping),
    /// Either way: I am.
    Pong(Ping),
    /// Either way: what you sent cannot be done.
    Error(PeerError),
    /// Either way: I am leaving; not an error.
    Bye,
    /// A message of a later version that may be passed over.
    Ignored {
        /// Its type number.
        kind: u8,
    },
}

/// Who may use the API of the project, as the hub knows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AccessUpdate {
    /// The hub's time when it was said.
    pub hub_time: Eff,
    /// [`crate::rights::Access::to_text`].
    pub text: String,
}

/// A request to enrol.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Enrol {
    /// The invitation's secret, good for one use; or what hides it on this link.
    pub secret: Vec<u8>,
    /// True if it is hidden: [`crate::trust::mask_secret`].
    pub masked: bool,
    /// The key that the device made.
    pub key: PublicKey,
    /// A label that the device proposes; the invitation's wins.
    pub name: String,
    /// [`crate::trust::Statement::Enrol`]: proves that the sender holds the key.
    pub signature: Signature,
}

/// The answer to an enrolment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Enrolled {
    /// The certificate: canonical bytes.
    pub certificate: Vec<u8>,
    /// The hub's signature over them.
    pub signature: Signature,
}

/// A sign of life, with both clocks for those that have none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ping {
    /// The sender's boot; a pong repeats that of the ping.
    pub boot: BootId,
    /// The sender's `mono`; a pong repeats that of the ping.
    pub mono: Mono,
    /// The hub's time; 0 from a device.
    pub hub_time: Eff,
}

/// A refusal of a whole session or request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerError {
    /// For programs.
    pub code: Code,
    /// For people: what happened and what to do.
    pub detail: String,
    /// True: the session ends here.
    pub fatal: bool,
    /// Try again after this many milliseconds; 0 says nothing about it.
    pub retry_after_ms: u32,
}
