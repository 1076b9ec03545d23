//! The limits of vaults, and of what is carried between a device and its hub.

/// Plain bytes under one seal in a bundle that somebody carries.
pub const BUNDLE_CHUNK_BYTES: usize = 64 * 1024;
/// Frames of one receipt: a device keeps no more entries than it has acks for, of so many each.
pub const RECEIPT_FRAMES_MAX: usize = 100_000;
