//! Vaults: where backups lie. A folder, and anything that speaks S3.
//!
//! Both keep what `mobo_core::backup::vault` promises: an object is created whole under a free name, and never changed. The hub writes with
//! one credential and prunes with another; in a folder, which knows one user only, the difference is which type the caller holds.

mod folder;
#[cfg(feature = "s3")]
pub mod s3;

pub use folder::{FolderPruner, FolderVault};
