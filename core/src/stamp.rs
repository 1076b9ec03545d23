//! Stamps: the total order in which registers win (rule R5).

use crate::cbor::{Malformed, Reader, Writer};
use crate::ids::{DeviceId, Incarnation, Ordinal, Seq};
use crate::time::Eff;

/// When and by whom an operation was made, as the hub decided it once.
///
/// The derived order is the rule: effective time, then device, incarnation ordinal, position, operation.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Stamp {
    /// Effective time of the operation.
    pub eff: Eff,
    /// Its author.
    pub device: crate::ids::DeviceId,
    /// The author's log, in the hub's numbering.
    pub ordinal: Ordinal,
    /// Its entry.
    pub seq: Seq,
    /// Its index in the entry, from 0.
    pub op: u32,
}

impl Stamp {
    /// Writes `[eff, device, ordinal, seq, op]`.
    pub fn encode(&self, writer: &mut Writer) {
        writer.array(5).i64(self.eff.0).bytes(self.device.as_bytes());
        writer.u64(u64::from(self.ordinal.0)).u64(self.seq.get()).u64(u64::from(self.op));
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    ///
    /// When it is something else.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        if reader.array()? != 5 {
            return Err(Malformed::what("stamp"));
        }
        Ok(Self {
            eff: Eff(reader.i64()?),
            device: DeviceId(reader.fixed()?),
            ordinal: Ordinal(reader.u32()?),
            seq: Seq::new(reader.u64()?).ok_or_else(|| Malformed::what("stamp seq"))?,
            op: reader.u32()?,
        })
    }
}

/// Whose increments a counter's tally holds (rule R10).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Origin {
    /// The author.
    pub device: DeviceId,
    /// Its log.
    pub incarnation: Incarnation,
}
