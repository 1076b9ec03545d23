//! The hub's identity: one secret key, from which everything else that must stay secret is derived.
//!
//! It lives in `DIR/hub.key`, readable by its owner only, and nowhere else. Hubs that share one Postgres share this file.

use std::path::Path;

use mobo_core::trust::{KeyPair, OfferKey};
use mobo_runtime::key_file::{self, KeyFileError};

/// The name of the key file in the data folder.
pub const KEY_FILE: &str = "hub.key";

/// The key pair in `dir`, made on the first call.
///
/// # Errors
///
/// [`KeyFileError`]. A damaged file is never replaced.
pub fn load_or_create(dir: &Path) -> Result<KeyPair, KeyFileError> {
    key_file::load_or_create(&dir.join(KEY_FILE))
}

/// The key for MACs over what the hub delivers (rule R19): derived, so that whoever restores the hub's key has it, too.
#[must_use]
pub fn offer_key(keys: &KeyPair) -> OfferKey {
    OfferKey(mobo_core::trust::derive("mobo 1 offer key", &keys.secret()))
}
