//! The limits of what a batch tells besides states: rows by name, and decisions of merges.

use super::{BATCH_BYTES_MAX, DOCUMENT_BYTES_MAX, FRAME_BODY_BYTES_MAX, ROW_STATE_BYTES_MAX};

/// Bytes of the states that one batch names, at most: as many as it could have spelled.
pub const BATCH_NAMED_BYTES_MAX: usize = BATCH_BYTES_MAX + ROW_STATE_BYTES_MAX;
/// Open decisions of merges that one batch tells of; those that were decided first are left out.
pub const BATCH_DECISIONS_MAX: usize = 1_000;
/// Bytes of them.
pub const BATCH_DECISIONS_BYTES_MAX: usize = 128 * 1024;
/// Longest value of a decision that a device is told, as JSON.
pub const DECISION_VALUE_BYTES_MAX: usize = 1024;

// A batch of one record of any size still has room for what else a batch says.
const _: () = assert!(DOCUMENT_BYTES_MAX + BATCH_DECISIONS_BYTES_MAX < FRAME_BODY_BYTES_MAX / 4 * 3);
const _: () = assert!(ROW_STATE_BYTES_MAX + BATCH_DECISIONS_BYTES_MAX < FRAME_BODY_BYTES_MAX / 4 * 3);
