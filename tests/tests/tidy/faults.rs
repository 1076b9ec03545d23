//! Tests say which rows of the fault catalogue they cover: `faults: S-1, I-3` in a comment of its own.

use mobo_tests::faults::{catalogue, named_ids};

use crate::tree::Tree;

pub(crate) fn ids(tree: &Tree) -> Vec<String> {
    let rows = catalogue();
    let mut findings = Vec::new();
    for file in tree.rust() {
        for (number, line) in file.lines() {
            for id in named_ids(line).into_iter().filter(|id| !rows.iter().any(|row| row.id == *id)) {
                let path = &file.path;
                findings.push(format!("{path}:{number}: no fault is called `{id}`: the ids are in tests/src/faults/catalogue.txt"));
            }
        }
    }
    findings
}

#[test]
fn unknown_ids_are_found() {
    let text = "// faults: S-1, SR-30 X-18.\n//! faults: S-16\n    // faults: B-0, N-01\n/// faults: Z-1\nlet a = \"faults: Q-9\";\n// no faults: here\n";
    let want = [
        "tests/tests/a.rs:2: no fault is called `S-16`",
        "tests/tests/a.rs:3: no fault is called `B-0`",
        "tests/tests/a.rs:3: no fault is called `N-01`",
        "tests/tests/a.rs:4: no fault is called `Z-1`",
    ];
    crate::finds(ids, &[("tests/tests/a.rs", text)], &want);
}
