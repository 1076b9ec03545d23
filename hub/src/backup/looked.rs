//! When a repository was last found whole, as far as this data folder knows.

use std::path::Path;

use mobo_runtime::data_dir::{read_text, replace_file};
use serde_json::{Value, json};

/// The file in a data folder.
const FILE: &str = "backup.verified";
/// Longest such file.
const FILE_BYTES_MAX: u64 = 1_024;

/// A verification that found nothing wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Looked {
    /// The newest manifest then.
    pub number: u64,
    /// When it was, in µs since 1970 by this machine's clock.
    pub at_us: i64,
}

impl Looked {
    /// The last one; `None` where there was none.
    #[must_use]
    pub fn last(data_dir: &Path) -> Option<Self> {
        let kept: Value = serde_json::from_str(&read_text(&data_dir.join(FILE), FILE_BYTES_MAX).ok()?).ok()?;
        Some(Self { number: kept.get("number")?.as_u64()?, at_us: kept.get("at_us")?.as_i64()? })
    }

    /// Keeps it in place of the one before.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn keep(self, data_dir: &Path) -> std::io::Result<()> {
        replace_file(&data_dir.join(FILE), json!({ "number": self.number, "at_us": self.at_us }).to_string().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_look_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Looked::last(folder.path()), None);
        for number in [7, 9] {
            let looked = Looked { number, at_us: 5 };
            looked.keep(folder.path()).unwrap();
            assert_eq!(Looked::last(folder.path()), Some(looked));
        }
    }
}
