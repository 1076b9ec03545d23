//! What people are told of merges: decisions, and who wrote what.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::cbor::{Malformed, Reader, Writer};
use crate::document::ChangeId;
use crate::ids::{CollectionId, Ver};
use crate::record::RecordState;
use crate::stamp::Stamp;
use crate::time::Eff;

/// A decision of a merge, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct ConflictRow {
    /// The collection.
    pub collection: CollectionId,
    /// The record.
    pub id: String,
    /// The field's id; 0 for the record as a whole.
    pub field: u64,
    /// [`crate::engine::ConflictKind::code`].
    pub kind: u8,
    /// The value that lost, as JSON.
    pub loser: serde_json::Value,
    /// When and by whom it was written; the ledger's key with record and field. [`crate::document::conflict::rival`] tells of one that is
    /// known by its change only.
    pub loser_stamp: Stamp,
    /// The value that won, as JSON.
    pub winner: serde_json::Value,
    /// When and by whom that was written.
    pub winner_stamp: Stamp,
    /// When it was decided.
    pub at: Eff,
}

/// What becomes of conflicts of a field.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ConflictPolicy {
    /// Nothing is put on record.
    Silent,
    /// They are on record, and nobody is asked.
    Log,
    /// They are listed until somebody settles them.
    #[default]
    Review,
}

impl ConflictPolicy {
    /// The number in SQL.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Silent => 0,
            Self::Log => 1,
            Self::Review => 2,
        }
    }

    /// The policy for a word.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "silent" => Some(Self::Silent),
            "log" => Some(Self::Log),
            "review" => Some(Self::Review),
            _ => None,
        }
    }
}

impl ConflictRow {
    /// Its place in the list.
    #[must_use]
    pub fn place(&self) -> ConflictPlace {
        ConflictPlace { at: self.at, collection: self.collection, id: self.id.clone(), field: self.field, loser: self.loser_stamp }
    }
}

/// A place in the list of conflicts: newest first, then by record, field and the bytes of the loser's stamp.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConflictPlace {
    /// When it was decided.
    pub at: Eff,
    /// The collection.
    pub collection: CollectionId,
    /// The record.
    pub id: String,
    /// The field's id; 0 for the record as a whole.
    pub field: u64,
    /// The loser.
    pub loser: Stamp,
}

/// As a cursor that goes out to people and comes back.
impl fmt::Display for ConflictPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut writer = Writer::new();
        writer.array(5).i64(self.at.0).u64(self.collection.get()).text(&self.id).u64(self.field);
        self.loser.encode(&mut writer);
        f.write_str(&URL_SAFE_NO_PAD.encode(writer.into_bytes()))
    }
}

impl FromStr for ConflictPlace {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed::what("place in the list of conflicts");
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed())?;
        let mut reader = Reader::new(&bytes);
        if reader.array()? != 5 {
            return Err(malformed());
        }
        let place = Self {
            at: Eff(reader.i64()?),
            collection: CollectionId::new(reader.u64()?).ok_or_else(malformed)?,
            id: reader.text()?.to_owned(),
            field: reader.u63()?,
            loser: Stamp::decode(&mut reader)?,
        };
        reader.end()?;
        Ok(place)
    }
}

/// Who wrote each field of a record last.
#[derive(Clone, Debug)]
pub struct RecordRow {
    /// Its version.
    pub ver: Ver,
    /// Its state.
    pub state: RecordState,
    /// The stamps of a document's changes; none for a row, which holds its own. One that is not here was merged before stamps were kept, or
    /// joined from an offer.
    pub changes: BTreeMap<ChangeId, Stamp>,
}
