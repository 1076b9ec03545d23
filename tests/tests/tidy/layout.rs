//! What stands where, and what must not stand anywhere.

use crate::tree::{File, Tree};

/// The top level, fixed; dotfiles and licence texts stand beside it.
const TOP_LEVEL: [&str; 11] =
    ["CHANGELOG.md", "Cargo.lock", "Cargo.toml", "README.md", "benches", "core", "edge", "fuzz", "hub", "protocol", "tests"];

const FILE_BYTES_MAX: u64 = 1 << 20;

/// Folders of one machine that must not be in a file. They count where a path begins.
const MACHINE_FOLDERS: [&str; 4] = [concat!("/wo", "rk"), concat!("/ro", "ot"), concat!("/ho", "me"), concat!("/Us", "ers")];

/// Traces of where a machine takes its crates from.
const REGISTRY_TRACES: [&str; 4] =
    [concat!("spar", "se+http"), concat!("replace-", "with"), concat!("CARGO_", "REGISTRIES_"), concat!("arti", "factory")];

pub(crate) fn top_level(tree: &Tree) -> Vec<String> {
    let fixed = |name: &str| name.starts_with('.') || name.starts_with("LICENSE-") || TOP_LEVEL.contains(&name) || name == "target";
    let others = tree.top.iter().filter(|name| !fixed(name));
    others.map(|name| format!("{name}:1: the top level is fixed: move it into the package that it belongs to")).collect()
}

pub(crate) fn files(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for File { path, bytes, .. } in &tree.files {
        if *bytes > FILE_BYTES_MAX {
            findings.push(format!("{path}:1: {bytes} bytes, at most {FILE_BYTES_MAX}: make it from a seed when it is needed"));
        }
        if !path.chars().all(|c| c.is_ascii_graphic()) {
            findings.push(format!("{path}:1: the name has a blank or a letter outside ASCII: rename it"));
        }
    }
    findings
}

pub(crate) fn machine_traces(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in &tree.files {
        for (number, line) in file.lines() {
            let place = format!("{}:{number}", file.path);
            for folder in MACHINE_FOLDERS.iter().filter(|folder| names_folder(line, folder)) {
                findings.push(format!("{place}: {folder} is a folder of one machine: write a path from the repository's root"));
            }
            for trace in REGISTRY_TRACES.iter().filter(|trace| line.contains(*trace)) {
                findings.push(format!("{place}: `{trace}`: where a machine takes its crates from is its own business"));
            }
        }
    }
    findings
}

/// Whether a path in `line` begins with `folder`: `/rest/v1/work_orders` does not begin with the folder `work`.
fn names_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let inside = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '}' | '*' | '/');
        let goes_on = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        !line[..at].ends_with(inside) && !line[at + folder.len()..].starts_with(goes_on)
    })
}

#[test]
fn what_does_not_belong_is_found() {
    let files_of_root = [("core/src/lib.rs", ""), (".ci/run", ""), ("LICENSE-MIT", ""), ("docs/a.md", ""), ("notes.txt", "")];
    crate::finds(top_level, &files_of_root, &["docs:1: the top level", "notes.txt:1: the top level"]);
    let big = "x".repeat(1 << 21);
    let want = ["fuzz/big:1: 2097152 bytes", "core/m\u{fc}ll.rs:1: the name", "core/a b.rs:1: the name"];
    crate::finds(files, &[("fuzz/big", &big), ("core/m\u{fc}ll.rs", ""), ("core/a b.rs", ""), ("core/a-b_c.rs", "")], &want);
}

#[test]
fn traces_of_a_machine_are_found() {
    let [work, root, home, _] = MACHINE_FOLDERS;
    let text = format!("cd {work}/main\nGET /rest/v1{work}_orders {work}shop a{work}/b x.{root}/y\nsee `{root}`\n\"{home}/pi\"\n");
    crate::finds(machine_traces, &[("a.md", &text)], &["a.md:1: ", "a.md:3: ", "a.md:4: "]);
    let text = format!("[source]\n{} = \"mirror\"\n", REGISTRY_TRACES[1]);
    crate::finds(machine_traces, &[("a.toml", &text)], &["a.toml:2: "]);
}
