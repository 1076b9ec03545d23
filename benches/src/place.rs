//! Where the binaries are that are measured.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// The binaries of one build.
#[derive(Clone, Debug)]
pub(crate) struct Binaries {
    /// Where they are.
    pub(crate) folder: PathBuf,
    /// The name of that folder: `debug`, `release`, `dist`.
    pub(crate) build: String,
    /// `mobo-hub`.
    pub(crate) hub: PathBuf,
    /// `mobo-edge`.
    pub(crate) edge: PathBuf,
}

impl Binaries {
    /// Those beside this program, or of another build of the same tree.
    pub(crate) fn find(profile: Option<&str>) -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("this program does not know its own path")?;
        let own = own.parent().context("this program is in no folder")?;
        let folder = match (profile, own.parent()) {
            (Some(profile), Some(target)) => target.join(if profile == "dev" { "debug" } else { profile }),
            _ => own.to_owned(),
        };
        Self::within(&folder)
    }

    fn within(folder: &Path) -> anyhow::Result<Self> {
        let build = folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let there = |name: &str| {
            let path = folder.join(name);
            if path.is_file() {
                return Ok(path);
            }
            let how = match build.as_str() {
                "debug" => String::new(),
                "release" => "--release ".to_owned(),
                other => format!("--profile {other} "),
            };
            let build = format!("cargo build {how}-p mobo-hub -p mobo-edge -p mobo-bench");
            bail!("{name} is not built (no {}): run `{build}` first", path.display())
        };
        Ok(Self { hub: there("mobo-hub")?, edge: there("mobo-edge")?, folder: folder.to_owned(), build })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_the_command_that_builds_it() {
        let here = tempfile::tempdir().unwrap();
        for (profile, want) in
            [("debug", "cargo build -p"), ("release", "cargo build --release -p"), ("dist", "cargo build --profile dist -p")]
        {
            let error = Binaries::within(&here.path().join(profile)).unwrap_err().to_string();
            assert!(error.starts_with("mobo-hub is not built") && error.contains(want), "{error}");
        }
        std::fs::write(here.path().join("mobo-hub"), "").unwrap();
        assert!(Binaries::within(here.path()).unwrap_err().to_string().starts_with("mobo-edge is not built"));
        std::fs::write(here.path().join("mobo-edge"), "").unwrap();
        assert!(Binaries::within(here.path()).is_ok());
    }
}
