//! Whose hand an automerge operation is by: actors are derived from identities, so that nobody can write in another's name.

use automerge::ActorId;

use crate::ids::{FieldId, RecordKey};
use crate::stamp::Origin;

/// The automerge actor of an author, or of a genesis change.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Actor(pub [u8; 16]);

impl Actor {
    /// The actor of an author's log: `blake3("mobo actor 1" ‖ device ‖ incarnation)[..16]`.
    ///
    /// A clone or a restored image has another incarnation and so another actor: two changes never share actor and position.
    #[must_use]
    pub fn of(origin: Origin) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"mobo actor 1").update(origin.device.as_bytes()).update(&origin.incarnation.get().to_be_bytes());
        Self::first_bytes(&hasher)
    }

    /// The actor of the genesis of one field of one record: `blake3("mobo genesis 1" ‖ collection ‖ id ‖ 0x00 ‖ field)[..16]`.
    #[must_use]
    pub fn of_genesis(key: &RecordKey, field: FieldId) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"mobo genesis 1").update(&key.collection.get().to_be_bytes());
        // An id holds no control character, so the zero ends it.
        hasher.update(key.id.as_str().as_bytes()).update(&[0]).update(&field.get().to_be_bytes());
        Self::first_bytes(&hasher)
    }

    /// The actor that automerge names; `None` when it is not of 16 bytes.
    #[must_use]
    pub fn from_automerge(actor: &ActorId) -> Option<Self> {
        actor.to_bytes().try_into().ok().map(Self)
    }

    /// The actor as automerge takes it.
    #[must_use]
    pub fn to_automerge(self) -> ActorId {
        ActorId::from(self.0)
    }

    fn first_bytes(hasher: &blake3::Hasher) -> Self {
        let mut bytes = [0; 16];
        hasher.finalize_xof().fill(&mut bytes);
        Self(bytes)
    }
}

/// A change of a document, as automerge names it: its author's actor, and its place among that author's changes of this document, from 1.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ChangeId {
    /// Whose it is.
    pub actor: Actor,
    /// Its place among that author's.
    pub seq: u64,
}
