//! Limits of backups.

/// Longest name of an object in a vault.
pub const OBJECT_NAME_BYTES_MAX: usize = 128;
/// Largest object in a vault.
pub const OBJECT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Objects in one page of a vault's list.
pub const VAULT_LIST_MAX: usize = 1_000;
