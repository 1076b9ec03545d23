//! Style as a test: what a reviewer would otherwise have to look for.
//!
//! Each check is a function from the tree to findings, `file:line: what is wrong: what to do`; rules are tables at the top of
//! their file. Each check is also shown a tree that breaks it: a check that cannot fail is none.
//!
//! To change a rule, change its table in the same commit and say why.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

mod faults;
mod layering;
mod layout;
mod lockfile;
mod readme;
mod rust_text;
mod source;
mod tree;

use tree::Tree;

type Check = fn(&Tree) -> Vec<String>;

#[track_caller]
fn holds(check: Check) {
    let findings = check(&Tree::load());
    assert!(findings.is_empty(), "{} finding(s):\n{}\n", findings.len(), findings.join("\n"));
}

/// Shows `check` a tree of these files; `want` are the beginnings of its findings.
#[track_caller]
fn finds(check: Check, files: &[(&str, &str)], want: &[&str]) {
    let findings = check(&Tree::of(files));
    let fit = findings.len() == want.len() && findings.iter().zip(want).all(|(found, want)| found.starts_with(want));
    assert!(fit, "wanted findings that begin with {want:#?}\ngot {findings:#?}");
}

macro_rules! tidy {
    ($($name:ident: $check:path;)*) => {
        $(#[test]
        fn $name() {
            holds($check);
        })*
    };
}

tidy! {
    dependencies_point_inward: layering::dependencies;
    every_package_takes_the_workspace_lints: layering::lints;
    clippy_thresholds_are_the_same_everywhere: layering::clippy_files;
    files_are_short: source::file_lengths;
    functions_are_short: source::function_lengths;
    banned_words_are_absent: source::banned_words;
    names_say_something: source::names;
    protections_have_names_of_their_own: source::protections;
    the_top_level_is_fixed: layout::top_level;
    files_are_small_and_plainly_named: layout::files;
    no_path_or_host_of_a_machine: layout::machine_traces;
    the_readme_map_tells_the_truth: readme::map;
    tests_name_rows_of_the_fault_catalogue: faults::ids;
    the_lockfile_keeps_bans_floors_and_sources: lockfile::locked;
    automerge_is_pinned: lockfile::pins;
}

#[test]
fn banned_crates_are_not_built() {
    let findings = lockfile::built(&lockfile::crates_of_this_build());
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}
