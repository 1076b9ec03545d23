//! Tests say which rows of the fault catalogue they cover: `faults: S-1, I-3` in a comment of its own.

use crate::tree::Tree;

/// The catalogue: each family of faults, its subject, and how many rows it has.
const CATALOGUE: [(&str, &str, u32); 9] = [
    ("S", "storage of the device", 15),
    ("K", "clocks", 5),
    ("I", "identity and history", 7),
    ("N", "network, MQTT, QUIC", 17),
    ("H", "hub and Postgres", 18),
    ("C", "kernel", 6),
    ("B", "backup and restore", 14),
    ("X", "hostile input and access", 18),
    ("SR", "security requirements", 30),
];

pub(crate) fn ids(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        for (number, line) in file.lines() {
            for id in named_ids(line).into_iter().filter(|id| !is_in_catalogue(id)) {
                let (path, families) = (&file.path, CATALOGUE.map(|(family, ..)| family).join(", "));
                findings.push(format!("{path}:{number}: no fault is called `{id}`: ids are like S-1, of {families}"));
            }
        }
    }
    findings
}

/// The ids that a comment line names; nothing for any other line.
fn named_ids(line: &str) -> Vec<&str> {
    let comment = line.trim_start().trim_start_matches('/').trim_start_matches('!').trim_start();
    let list = if line.trim_start().starts_with("//") { comment.strip_prefix("faults:") } else { None };
    let words = list.unwrap_or_default().split([',', ' ']);
    words.map(|word| word.trim_end_matches('.')).filter(|word| !word.is_empty()).collect()
}

fn is_in_catalogue(id: &str) -> bool {
    let Some((family, row)) = id.split_once('-') else {
        return false;
    };
    let rows = CATALOGUE.iter().find(|(known, ..)| *known == family).map_or(0, |(.., rows)| *rows);
    row.parse::<u32>().is_ok_and(|number| (1..=rows).contains(&number) && row == number.to_string())
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
