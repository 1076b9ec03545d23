//! The limits of what devices are told of the decisions of merges.

use super::{DOCUMENT_BYTES_MAX, FRAME_BODY_BYTES_MAX, ROW_STATE_BYTES_MAX};

/// Open decisions of merges that one batch tells of; those that were decided first are left out.
pub const BATCH_DECISIONS_MAX: usize = 1_000;
/// Bytes of them.
pub const BATCH_DECISIONS_BYTES_MAX: usize = 128 * 1024;
/// Longest value of a decision that a device is told, as JSON.
pub const DECISION_VALUE_BYTES_MAX: usize = 1024;

// A batch of one record of any size still has room for what else a batch says.
const _: () = assert!(DOCUMENT_BYTES_MAX + BATCH_DECISIONS_BYTES_MAX < FRAME_BODY_BYTES_MAX / 4 * 3);
const _: () = assert!(ROW_STATE_BYTES_MAX + BATCH_DECISIONS_BYTES_MAX < FRAME_BODY_BYTES_MAX / 4 * 3);
