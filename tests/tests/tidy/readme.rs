//! The README's code map and its "where is…?" table must tell the truth.

use crate::tree::{File, Tree};

const README: &str = "README.md";

/// Words in the headings of the two sections.
const SECTIONS: [&str; 2] = ["code map", "where is"];

/// Endings that make a word a path even without a slash.
const ENDINGS: [&str; 4] = [".md", ".rs", ".sql", ".toml"];

pub(crate) fn map(tree: &Tree) -> Vec<String> {
    let Some(readme) = tree.at(README) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    for wanted in SECTIONS {
        let lines = section(readme, wanted);
        if lines.is_empty() {
            findings.push(format!("{README}:1: no section called \"{wanted}\": a newcomer looks for it"));
        }
        for (number, line) in lines {
            let gone = line_paths(line).into_iter().filter(|path| !tree.holds(path));
            findings.extend(gone.map(|path| format!("{README}:{number}: {path} is not there: say where it is now")));
        }
    }
    findings
}

/// The lines below the heading that holds `wanted`, until a heading of the same or a higher level.
fn section<'a>(readme: &'a File, wanted: &str) -> Vec<(usize, &'a str)> {
    let level = |line: &str| line.len() - line.trim_start_matches('#').len();
    let mut lines = readme.lines().skip_while(|(_, line)| level(line) == 0 || !line.to_lowercase().contains(wanted));
    let Some((_, heading)) = lines.next() else {
        return Vec::new();
    };
    lines.take_while(|(_, line)| level(line) == 0 || level(line) > level(heading)).collect()
}

/// The words of a line that are paths from the repository's root.
fn line_paths(line: &str) -> Vec<&str> {
    let words = line.split(|c: char| c.is_whitespace() || "`()[]|,;\"'<>".contains(c));
    words.map(|word| word.trim_end_matches([':', '.', '/'])).filter(|word| is_path(word)).collect()
}

fn is_path(word: &str) -> bool {
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    let relative = !word.is_empty() && !word.starts_with('/') && !word.contains("//");
    let is_name = ENDINGS.iter().any(|ending| word.len() > ending.len() && word.ends_with(ending));
    // A folder of ours or a file; "table/document" and "application/json" are neither.
    let ours = ["benches/", "core/", "edge/", "fuzz/", "hub/", "protocol/", "tests/", ".ci/"];
    plain && relative && (is_name || ours.iter().any(|folder| word.starts_with(folder)))
}

#[test]
fn paths_that_are_gone_are_found() {
    let readme = "# mobo\nsee core/gone.rs\n## Code map\n```\ncore/src/      decides\ncore/old.rs    gone\n```\n### Deeper\n\
                  [spec](protocol/SPEC.md): table/document, GET /rest/v1/x, https://a.b/c.md\n## Where is it?\n\
                  | merge | `core/src/merge.rs`, `tests/run` |\n| it | `merge.rs` |\n";
    let files = [("README.md", readme), ("core/src/lib.rs", ""), ("core/src/merge.rs", ""), ("tests/run", "")];
    let want =
        ["README.md:6: core/old.rs is not there", "README.md:9: protocol/SPEC.md is not there", "README.md:12: merge.rs is not there"];
    crate::finds(map, &files, &want);
    crate::finds(map, &[("README.md", "## Code map\ncore\n")], &["README.md:1: no section called \"where is\""]);
    crate::finds(map, &[], &[]);
}
