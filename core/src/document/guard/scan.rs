//! How much a change claims to hold: the run lengths of its columns, added up before anything is unpacked.
//!
//! A run is a count and one value, so 300 bytes can claim 2^40 operations. automerge would believe them.

use crate::limits;

/// Bytes that are read from the front. Every read fails where the bytes end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

const SHORT: &str = "it ends too early";

impl<'a> Bytes<'a> {
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], &'static str> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(SHORT)?;
        self.0 = tail;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        self.take(N)?.try_into().map_err(|_| SHORT)
    }

    /// An unsigned LEB128 number.
    pub(super) fn unsigned(&mut self) -> Result<u64, &'static str> {
        u64::try_from(self.groups()?.0).map_err(|_| "a number is too long")
    }

    /// A signed LEB128 number.
    pub(super) fn signed(&mut self) -> Result<i64, &'static str> {
        let (groups, bits) = self.groups()?;
        let shift = 128 - bits;
        i64::try_from((groups << shift).cast_signed() >> shift).map_err(|_| "a number is too long")
    }

    /// An unsigned number that counts bytes or items: more than there are bytes left is always a lie.
    pub(super) fn length(&mut self) -> Result<usize, &'static str> {
        let length = usize::try_from(self.unsigned()?).map_err(|_| SHORT)?;
        if length > self.0.len() { Err(SHORT) } else { Ok(length) }
    }

    /// The groups of seven bits of a LEB128 number, and how many bits that makes: at most ten groups.
    fn groups(&mut self) -> Result<(u128, u32), &'static str> {
        let (mut groups, mut bits) = (0, 0);
        while bits < 70 {
            let [byte] = self.array()?;
            groups |= u128::from(byte & 0x7f) << bits;
            bits += 7;
            if byte & 0x80 == 0 {
                return Ok((groups, bits));
            }
        }
        Err("a number is too long")
    }
}

/// Why the columns are not unpacked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unfit {
    /// They are not what an author writes.
    Malformed(&'static str),
    /// They claim more of something than the limits allow.
    TooMany,
}

impl From<&'static str> for Unfit {
    fn from(what: &'static str) -> Self {
        Self::Malformed(what)
    }
}

/// How the values of a column are packed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Packing {
    /// Runs of unsigned numbers.
    Unsigned,
    /// Runs of differences.
    Delta,
    /// Runs of short texts.
    Text,
    /// Alternating counts of false and true.
    Flags,
    /// Runs of numbers that count what the columns after it hold.
    Group,
    /// Runs of numbers whose upper bits count the bytes of the column after it.
    Meta,
    /// The bytes of the values.
    Raw,
}

/// The number that says "what is done", of which every operation has one.
const ACTION: u64 = 0x42;

/// The columns of an honest change, by number, in their order: object, key, insert, action, value, predecessors. There are others (marks,
/// and everything compressed), which nobody here writes.
const COLUMNS: [(u64, Packing); 12] = [
    (0x01, Packing::Unsigned),
    (0x02, Packing::Unsigned),
    (0x11, Packing::Unsigned),
    (0x13, Packing::Delta),
    (0x15, Packing::Text),
    (0x34, Packing::Flags),
    (ACTION, Packing::Unsigned),
    (0x56, Packing::Meta),
    (0x57, Packing::Raw),
    (0x70, Packing::Group),
    (0x71, Packing::Unsigned),
    (0x73, Packing::Delta),
];

/// Longest text of a key column: the decimal number of a field.
const KEY_BYTES_MAX: usize = 20;

/// How many operations the columns hold.
///
/// # Errors
///
/// [`Unfit`], before anything is unpacked: a column that is not an author's, or more rows, predecessors or bytes than the limits and the
/// change's own bytes allow.
pub(super) fn count_ops(columns: &[(u64, &[u8])]) -> Result<u64, Unfit> {
    let mut last = None;
    let (mut ops, mut value_bytes) = (0, 0);
    for (spec, bytes) in columns {
        if last.is_some_and(|last| last >= *spec) {
            return Err(Unfit::Malformed("its columns are not in order"));
        }
        last = Some(*spec);
        let (_, packing) = COLUMNS.iter().find(|(known, _)| known == spec).ok_or("it has a column that nobody here writes")?;
        let totals = scan(Bytes(bytes), *packing, limits::CHANGE_OPS_MAX as u64)?;
        match packing {
            Packing::Raw if value_bytes != bytes.len() as u64 => return Err(Unfit::Malformed("its values are not as long as they say")),
            Packing::Group if totals.sum > limits::CHANGE_OPS_MAX as u64 => return Err(Unfit::TooMany),
            Packing::Meta => value_bytes = totals.sum,
            Packing::Unsigned if *spec == ACTION => ops = totals.rows,
            Packing::Unsigned | Packing::Delta | Packing::Text | Packing::Flags | Packing::Group | Packing::Raw => {}
        }
    }
    Ok(ops)
}

/// What a column adds up to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) rows: u64,
    /// Of what its values count.
    pub(super) sum: u64,
}

/// Adds up one column, which has at most `rows_max` rows.
pub(super) fn scan(mut rest: Bytes<'_>, packing: Packing, rows_max: u64) -> Result<Totals, Unfit> {
    let mut totals = Totals::default();
    if matches!(packing, Packing::Raw) {
        return Ok(totals);
    }
    while !rest.0.is_empty() {
        let (rows, values) = if matches!(packing, Packing::Flags) { (rest.unsigned()?, 0) } else { run(&mut rest)? };
        totals.rows = totals.rows.saturating_add(rows);
        if totals.rows > rows_max {
            return Err(Unfit::TooMany);
        }
        for _ in 0..values {
            let counted = value(&mut rest, packing)?;
            let times = if values == 1 { rows } else { 1 };
            totals.sum = totals.sum.saturating_add(counted.saturating_mul(times));
        }
    }
    Ok(totals)
}

/// The head of a run: how many rows it stands for, and how many values follow.
fn run(rest: &mut Bytes<'_>) -> Result<(u64, u64), &'static str> {
    match rest.signed()? {
        0 => Ok((rest.unsigned()?, 0)),
        same @ 1.. => Ok((same.unsigned_abs(), 1)),
        literal => Ok((literal.unsigned_abs(), literal.unsigned_abs())),
    }
}

/// Passes over one value and says what it counts.
fn value(rest: &mut Bytes<'_>, packing: Packing) -> Result<u64, &'static str> {
    match packing {
        Packing::Unsigned => rest.unsigned().map(|_| 0),
        Packing::Delta => rest.signed().map(|_| 0),
        Packing::Group => rest.unsigned(),
        Packing::Meta => rest.unsigned().map(|meta| meta >> 4),
        Packing::Text => {
            let length = rest.length()?;
            if length > KEY_BYTES_MAX { Err("a key is too long") } else { rest.take(length).map(|_| 0) }
        }
        Packing::Flags | Packing::Raw => Ok(0),
    }
}
