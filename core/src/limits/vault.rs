//! The limits of vaults, and of what is carried between a device and its hub.

use std::time::Duration;

/// Plain bytes under one seal in a bundle that somebody carries.
pub const BUNDLE_CHUNK_BYTES: usize = 64 * 1024;
/// Frames of one receipt: a device keeps no more entries than it has acks for, of so many each.
pub const RECEIPT_FRAMES_MAX: usize = 100_000;

// a vault that speaks S3
/// Objects that are larger go up in parts of so many bytes: the smallest that S3 takes.
pub const S3_PART_BYTES: usize = 5 * 1024 * 1024;
/// How long one request to a vault may take, answer included.
pub const VAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a request is made before the vault counts as away.
pub const VAULT_ATTEMPTS_MAX: u32 = 3;
/// The pause before a request is made again, doubled with each.
pub const VAULT_PAUSE: Duration = Duration::from_millis(200);
/// Longest answer that is not an object: a list, an error.
pub const S3_ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How far this machine's clock may be from the vault's before it goes by that one.
pub const VAULT_CLOCK_SLACK: Duration = Duration::from_secs(60);
