//! A saved document read by our own hand: what it claims to hold, before automerge unpacks it.
//!
//! ```text
//! chunk = magic ‖ checksum:4 ‖ 0 ‖ len ‖ body
//! body  = #actors ‖ actor … ‖ #heads ‖ head:32 … ‖ #columns ‖ (spec ‖ len) … ‖ #columns ‖ (spec ‖ len) … ‖ data ‖ data ‖ index of head …
//! ```
//! The first columns are those of the changes, the second those of the operations. A column may be deflated, and half a megabyte of that can
//! be half a gigabyte: they are inflated here up to a limit, and their run lengths added up, so that automerge never sees one that lies.

use super::scan::{Bytes, Packing, Unfit, scan};
use crate::limits;

const HEAD: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const DOCUMENT: u8 = 0;
/// The bit of a column's number that says that it is deflated.
const DEFLATED: u64 = 0x08;

/// Beside the changes of people there is one genesis for each field.
const CHANGES_MAX: u64 = (limits::DOCUMENT_CHANGES_MAX + limits::FIELDS_PER_COLLECTION_MAX) as u64;
/// What changes build on, and what operations overwrite: more than one for each where people wrote at the same time.
const GROUPED_MAX: u64 = 4 * limits::DOCUMENT_OPS_MAX;
const TOO_MUCH: &str = "it claims more than a document may hold";

/// The columns of a chunk: what is in each, and its bytes.
type Columns<'a> = Vec<(u64, &'a [u8])>;

/// The heads that a saved document says it has, in the order in which they stand there; nothing is unpacked.
///
/// # Errors
///
/// What is wrong with it, if it is not one document chunk.
pub(in crate::document) fn heads(saved: &[u8]) -> Result<Vec<[u8; 32]>, &'static str> {
    beginning(&mut body(saved)?)
}

/// Checks what the columns of a saved document claim.
///
/// # Errors
///
/// What is wrong with it: it is not one document chunk, it claims more than a document may hold, or it inflates to more than
/// [`limits::DOCUMENT_INFLATED_BYTES_MAX`].
pub(in crate::document) fn check(saved: &[u8]) -> Result<(), &'static str> {
    let mut rest = body(saved)?;
    beginning(&mut rest)?;
    let (changes, ops) = (specs(&mut rest)?, specs(&mut rest)?);
    let (changes, ops) = (columns(&mut rest, changes)?, columns(&mut rest, ops)?);
    let mut room = limits::DOCUMENT_INFLATED_BYTES_MAX;
    check_columns(&changes, CHANGES_MAX, &mut room)?;
    check_columns(&ops, limits::DOCUMENT_OPS_MAX, &mut room)
}

/// True for one saved document and nothing else: no changes, no bundle, nothing behind it.
pub(in crate::document) fn is_document(saved: &[u8]) -> bool {
    body(saved).is_ok()
}

fn body(saved: &[u8]) -> Result<Bytes<'_>, &'static str> {
    let mut rest = Bytes(saved);
    let magic: [u8; 4] = rest.array()?;
    let _checksum: [u8; 4] = rest.array()?;
    let kind: [u8; 1] = rest.array()?;
    if magic == HEAD && kind == [DOCUMENT] && rest.length()? == rest.0.len() { Ok(rest) } else { Err("it is not one automerge document") }
}

/// Passes over the actors, and gives the heads.
fn beginning(rest: &mut Bytes<'_>) -> Result<Vec<[u8; 32]>, &'static str> {
    for _ in 0..rest.length()? {
        let length = rest.length()?;
        rest.take(length)?;
    }
    (0..rest.length()?).map(|_| rest.array()).collect()
}

fn specs(rest: &mut Bytes<'_>) -> Result<Vec<(u64, usize)>, &'static str> {
    (0..rest.length()?).map(|_| Ok((rest.unsigned()?, rest.length()?))).collect()
}

fn columns<'a>(rest: &mut Bytes<'a>, specs: Vec<(u64, usize)>) -> Result<Columns<'a>, &'static str> {
    specs.into_iter().map(|(spec, len)| Ok((spec, rest.take(len)?))).collect()
}

/// Adds up what each column claims: at most so many rows, and what a group counts for the columns that belong to it.
fn check_columns(columns: &Columns<'_>, rows_max: u64, room: &mut usize) -> Result<(), &'static str> {
    let mut value_bytes = 0;
    let mut group = (None, 0);
    for (spec, bytes) in columns {
        let unpacked;
        let bytes = if spec & DEFLATED == 0 {
            *bytes
        } else {
            unpacked = miniz_oxide::inflate::decompress_to_vec_with_limit(bytes, *room)
                .map_err(|_| "a column of it does not inflate to what a document may hold")?;
            *room -= unpacked.len().min(*room);
            unpacked.as_slice()
        };
        let packing = packing(spec & 7);
        let rows_max = if group.0 == Some(spec >> 4) { group.1 } else { rows_max };
        let totals = scan(Bytes(bytes), packing, rows_max).map_err(|unfit| match unfit {
            Unfit::Malformed(what) => what,
            Unfit::TooMany => TOO_MUCH,
        })?;
        match packing {
            Packing::Raw if value_bytes != bytes.len() as u64 => return Err("its values are not as long as they say"),
            Packing::Group if totals.sum > GROUPED_MAX => return Err(TOO_MUCH),
            Packing::Group => group = (Some(spec >> 4), totals.sum),
            Packing::Meta => value_bytes = totals.sum,
            Packing::Unsigned | Packing::Delta | Packing::Text | Packing::Flags | Packing::Raw => {}
        }
    }
    Ok(())
}

/// How a column of a type is packed: the lowest three bits of its number.
const fn packing(kind: u64) -> Packing {
    match kind {
        0 => Packing::Group,
        3 => Packing::Delta,
        4 => Packing::Flags,
        5 => Packing::Text,
        6 => Packing::Meta,
        7 => Packing::Raw,
        _ => Packing::Unsigned,
    }
}
