//! A folder for what a command unpacks: of the command alone, and gone with it.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use mobo_core::backup::hex;
use mobo_runtime::machine;
use mobo_runtime::output::Failure;

use super::backup::machine as clock;

/// A new folder, for its owner only, under a name that nobody can guess: what is unpacked are all records of a hub, and its keys.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes one among the temporary files.
    pub(super) fn new(what: &str) -> Result<Self, Failure> {
        let random: [u8; 16] = machine::random(clock()?.as_ref())
            .map_err(|error| Failure::failed(error.to_string(), "wait until the machine has gathered randomness"))?;
        let path = std::env::temp_dir().join(format!("mobo-{what}-{}", hex(&random)));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| Failure::failed(format!("{}: {error}", path.display()), "set TMPDIR to a folder with room"))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_scratch_folder_is_its_owners_alone_and_goes() {
        let (one, other) = (Scratch::new("test").unwrap(), Scratch::new("test").unwrap());
        assert_ne!(one.path(), other.path());
        assert_eq!(std::fs::metadata(one.path()).unwrap().permissions().mode() & 0o777, 0o700);
        let path = one.path().to_owned();
        std::fs::write(path.join("file"), "x").unwrap();
        drop(one);
        assert!(!path.exists() && other.path().exists());
    }
}
