//! `vectors/README.md` maps every rule that fixes the wire to the vectors that guard it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::hex_files::{files, folder};

/// The rules marked [W]: they fix the wire or the database.
const WIRE_RULES: [&str; 18] =
    ["R1", "R4", "R5", "R7", "R9", "R10", "R11", "R13", "R15", "R17", "R18", "R19", "R23", "R25", "R27", "R28", "R29", "R30"];

/// Rule → files, from the lines `| R1 | what | `folder/name.hex` … |`.
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(folder().join("README.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| R")).filter_map(|line| line.split_once(" |"));
    rows.map(|(number, rest)| (format!("R{number}"), rest.split('`').skip(1).step_by(2).map(str::to_owned).collect())).collect()
}

#[test]
fn every_wire_rule_has_vectors() {
    let table = table();
    let rules: BTreeSet<&str> = table.keys().map(String::as_str).collect();
    assert_eq!(rules, BTreeSet::from(WIRE_RULES));
    let there = files(&["frames", "core", "later", "automerge"]);
    for (rule, named) in &table {
        assert!(!named.is_empty(), "{rule} has no vector");
        assert_eq!(named.difference(&there).collect::<Vec<_>>(), Vec::<&String>::new(), "{rule} names files that are not there");
    }
    let named: BTreeSet<String> = table.into_values().flatten().collect();
    assert_eq!(there.difference(&named).collect::<Vec<_>>(), Vec::<&String>::new(), "vectors without a rule");
}
