//! The catalogue of faults, and which test covers which row of it.
//!
//! A test names its rows in a comment of its own in front of it, `// faults: S-1, I-3`; a comment of a module (`//!`) speaks for the whole
//! file. `cargo run -p mobo-tests --bin faults` lists what is open.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const CATALOGUE: &str = include_str!("faults/catalogue.txt");

/// One row of the catalogue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Row {
    /// `S-1`.
    pub id: &'static str,
    /// What happens.
    pub fault: &'static str,
}

/// Every row, in the order of the catalogue.
#[must_use]
pub fn catalogue() -> Vec<Row> {
    let rows = CATALOGUE.lines().filter(|line| !line.starts_with('#'));
    rows.filter_map(|line| line.split_once(' ').map(|(id, fault)| Row { id, fault: fault.trim() })).collect()
}

/// The ids that a line of source names; nothing for a line that is no such comment.
#[must_use]
pub fn named_ids(line: &str) -> Vec<&str> {
    let line = line.trim_start();
    let comment = line.trim_start_matches('/').trim_start_matches('!').trim_start();
    let list = if line.starts_with("//") { comment.strip_prefix("faults:") } else { None };
    let words = list.unwrap_or_default().split([',', ' ']);
    words.map(|word| word.trim_end_matches('.')).filter(|word| !word.is_empty()).collect()
}

/// The tests of one source file, by the row that they cover: `path::name`, or the path alone where the file as a whole does.
#[must_use]
pub fn tests_of(path: &str, text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut waiting: Vec<String> = Vec::new();
    for line in text.lines() {
        let ids = named_ids(line).into_iter().map(str::to_owned);
        if line.trim_start().starts_with("//!") {
            found.extend(ids.map(|id| (id, path.to_owned())));
            continue;
        }
        waiting.extend(ids);
        if let Some(name) = function(line) {
            found.extend(waiting.drain(..).map(|id| (id, format!("{path}::{name}"))));
        }
    }
    found.extend(waiting.into_iter().map(|id| (id, path.to_owned())));
    found
}

/// The name of the function that begins on this line.
fn function(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("pub ").unwrap_or(line);
    let line = line.strip_prefix("async ").unwrap_or(line);
    line.strip_prefix("fn ")?.split(['(', '<']).next()
}

/// Which tests of the repository at `root` cover each row.
///
/// # Errors
///
/// When the sources cannot be read.
pub fn covered(root: &Path) -> std::io::Result<BTreeMap<String, Vec<String>>> {
    let mut tests: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in sources(root)? {
        let text = std::fs::read_to_string(&path)?;
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        for (id, test) in tests_of(&name, &text) {
            let known = tests.entry(id).or_default();
            if !known.contains(&test) {
                known.push(test);
            }
        }
    }
    Ok(tests)
}

/// The Rust sources below `root`, without builds and dotfiles, in order.
fn sources(root: &Path) -> std::io::Result<Vec<PathBuf>> {
    let (mut folders, mut files) = (vec![root.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            let passed_over = name == "target" || name.to_string_lossy().starts_with('.');
            match entry.file_type()?.is_dir() {
                true if passed_over => {}
                true => folders.push(path),
                false if path.extension().is_some_and(|ending| ending == "rs") => files.push(path),
                false => {}
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_has_its_families_without_holes() {
        let families = [("S", 15), ("K", 5), ("I", 7), ("N", 17), ("H", 18), ("C", 6), ("B", 14), ("X", 18), ("SR", 30)];
        let want: Vec<String> = families.iter().flat_map(|(family, rows)| (1..=*rows).map(move |row| format!("{family}-{row}"))).collect();
        let rows = catalogue();
        assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), want);
        assert!(rows.iter().all(|row| !row.fault.is_empty()));
    }

    #[test]
    fn a_comment_speaks_for_what_follows_it() {
        let text = "//! faults: K-1\n// faults: S-1, S-2\n#[test]\nfn a_test() {}\nfn other() {}\n    // faults: N-1.\n    #[tokio::test]\n    \
                    async fn b() {}\n// faults: H-1\ncase!(c);\n";
        let want = [("K-1", "x.rs"), ("S-1", "x.rs::a_test"), ("S-2", "x.rs::a_test"), ("N-1", "x.rs::b"), ("H-1", "x.rs")];
        let want: Vec<(String, String)> = want.iter().map(|(id, test)| ((*id).to_owned(), (*test).to_owned())).collect();
        assert_eq!(tests_of("x.rs", text), want);
    }
}
