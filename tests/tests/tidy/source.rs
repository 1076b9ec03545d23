//! Rules of Rust source: lengths, banned words, names.

use crate::rust_text::{contains_word, functions, lines};
use crate::tree::{File, Tree};

/// Lines of a product file; tests are tables and may be longer.
const FILE_LINES_MAX: usize = 400;
const TEST_FILE_LINES_MAX: usize = 600;
/// Lines from `fn` to the closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// Packages that are not shipped.
const WORKBENCHES: [&str; 3] = ["benches", "fuzz", "tests"];

#[derive(PartialEq)]
enum Scope {
    Everywhere,
    Product,
    Tests,
}

/// What must not stand in code, where, and what to do about it.
const BANNED_CODE: &[(&str, Scope, &str)] = &[
    (".unwrap()", Scope::Product, "return an error, or say `expect(\"BUG: …\")` when it cannot happen"),
    ("todo!", Scope::Everywhere, "build it or leave it out"),
    ("unimplemented!", Scope::Everywhere, "build it or answer with a typed `unsupported`"),
    ("dbg!", Scope::Everywhere, "remove it"),
    ("#[ignore", Scope::Everywhere, "make the test pass or remove it"),
    ("unsafe", Scope::Everywhere, "find a safe crate that does it"),
    ("sleep(", Scope::Tests, "wait for the event (mobo_tests::process, wait), or name the file in MAY_SLEEP with a reason"),
];

/// What must not stand anywhere in a Rust file, comments included.
const BANNED_TEXT: &[(&str, &str)] = &[
    (concat!("TO", "DO"), "do it, or open an issue and say nothing here"),
    (concat!("FIX", "ME"), "fix it, or open an issue and say nothing here"),
];

/// Test files that may sleep, with the reason.
const MAY_SLEEP: &[(&str, &str)] = &[];

/// Files that may be unsafe, with the reason.
const MAY_BE_UNSAFE: &[(&str, &str)] = &[("tests/vfs/src/callbacks.rs", "SQLite's callbacks are C")];

/// Names of files and folders that say nothing about what is inside.
const EMPTY_NAMES: [&str; 9] = ["common", "data", "helper", "helpers", "manager", "managers", "misc", "util", "utils"];

pub(crate) fn file_lengths(tree: &Tree) -> Vec<String> {
    let too_long = |file: &File| {
        let max = if is_workbench(&file.path) || is_test_file(&file.path) { TEST_FILE_LINES_MAX } else { FILE_LINES_MAX };
        let count = file.lines().count();
        let advice = "split it where two subjects meet";
        (count > max).then(|| format!("{}:{}: {count} lines, at most {max}: {advice}", file.path, max + 1))
    };
    tree.rust().filter_map(too_long).collect()
}

pub(crate) fn function_lengths(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        for function in functions(file.text.as_deref().unwrap_or_default()) {
            if function.lines > FUNCTION_LINES_MAX {
                findings.push(format!(
                    "{}:{}: `{}` has {} lines, at most {FUNCTION_LINES_MAX}: give a part of it a name",
                    file.path, function.line, function.name, function.lines
                ));
            }
        }
    }
    findings
}

pub(crate) fn banned_words(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let path = &file.path;
        for (number, line) in file.lines() {
            for (text, advice) in BANNED_TEXT.iter().filter(|(text, _)| contains_word(line, text)) {
                findings.push(format!("{path}:{number}: `{text}`: {advice}"));
            }
        }
        let may_sleep = MAY_SLEEP.iter().any(|(known, _)| known == path);
        for (line, number) in lines(file.text.as_deref().unwrap_or_default()).iter().zip(1..) {
            let is_test = line.is_test || is_test_file(path);
            for (code, scope, advice) in BANNED_CODE {
                let applies = match scope {
                    Scope::Everywhere => true,
                    Scope::Product => !is_test && !is_workbench(path),
                    Scope::Tests => is_test && !may_sleep,
                };
                let excused = *code == "unsafe" && MAY_BE_UNSAFE.iter().any(|(known, _)| known == path);
                if applies && !excused && contains_word(&line.code, code) {
                    findings.push(format!("{path}:{number}: `{code}`: {advice}"));
                }
            }
        }
    }
    let gone = MAY_SLEEP.iter().chain(MAY_BE_UNSAFE).filter(|(path, _)| tree.at("Cargo.lock").is_some() && tree.at(path).is_none());
    findings.extend(gone.map(|(path, _)| format!("{path}:1: not there, but excused by name: remove it there")));
    findings
}

pub(crate) fn names(tree: &Tree) -> Vec<String> {
    let empty = |file: &File| {
        let mut words = file.path.trim_end_matches(".rs").split('/');
        let word = words.find(|word| EMPTY_NAMES.contains(word))?;
        Some(format!("{}:1: `{word}` says nothing: name it after what it does", file.path))
    };
    tree.rust().filter_map(empty).collect()
}

/// `sim --mutants` takes protections away by name: each has one of its own.
pub(crate) fn protections(tree: &Tree) -> Vec<String> {
    let mut known = std::collections::BTreeMap::new();
    let mut findings = Vec::new();
    for file in tree.rust().filter(|file| !is_workbench(&file.path) && file.path != "core/src/protect.rs") {
        for (name, line) in mobo_tests::sim::mutants::names_in(file.text.as_deref().unwrap_or_default()) {
            let place = format!("{}:{line}", file.path);
            if let Some(first) = known.insert(name.clone(), place.clone()) {
                findings.push(format!("{place}: the protection \"{name}\" is at {first}, too: give it a name of its own"));
            }
        }
    }
    findings
}

fn is_workbench(path: &str) -> bool {
    WORKBENCHES.contains(&path.split('/').next().unwrap_or_default())
}

fn is_test_file(path: &str) -> bool {
    path.split('/').any(|word| word == "tests" || word == "tests.rs")
}

#[test]
fn lengths_are_counted() {
    let long = "// x\n".repeat(FILE_LINES_MAX + 1);
    let files = [("core/src/long.rs", long.as_str()), ("core/src/long/tests.rs", &long), ("core/notes.md", &long)];
    crate::finds(file_lengths, &files, &["core/src/long.rs:401: 401 lines"]);
    let body = "    x();\n".repeat(FUNCTION_LINES_MAX - 2);
    let fits = format!("fn fits() {{\n{body}}}\n");
    let long = format!("// fn\n\nfn long() {{\n{body}\n}}\n");
    let files = [("core/src/a.rs", fits.as_str()), ("tests/src/b.rs", &long)];
    crate::finds(function_lengths, &files, &["tests/src/b.rs:3: `long` has 71 lines"]);
}

#[test]
fn banned_words_are_found_where_they_count() {
    let code = "fn f() {\n    x.unwrap(); // says .unwrap()\n    unsafe { y() };\n    sleep(\"sleep(\");\n}\n\
                #[cfg(test)]\nmod tests {\n    fn g() { x.unwrap(); tokio::time::sleep(z); asleep(); }\n}\n";
    crate::finds(
        banned_words,
        &[("core/src/a.rs", code)],
        &["core/src/a.rs:2: `.unwrap()`", "core/src/a.rs:3: `unsafe`", "core/src/a.rs:8: `sleep(`"],
    );
    crate::finds(banned_words, &[("tests/src/a.rs", "#![forbid(unsafe_code)]\nx.unwrap();\n")], &[]);
    let text = concat!("// TO", "DO: later\n#[ignore = \"slow\"]\nfn mastodon() { let s = \"dbg!\"; dbg!(s); }\n");
    let want = ["hub/src/a.rs:1: `TO", "hub/src/a.rs:2: `#[ignore`", "hub/src/a.rs:3: `dbg!`"];
    crate::finds(banned_words, &[("hub/src/a.rs", text)], &want);
}

#[test]
fn a_name_that_two_protections_have_is_found() {
    let code = "fn f() { if protect!(\"a.b\", x) {} }\nlet y = protect!(\n    \"c\",\n    z\n);\n";
    let files = [("core/src/a.rs", code), ("edge/src/b.rs", "protect!(\"c\", q)"), ("tests/src/c.rs", "protect!(\"c\", q)")];
    crate::finds(protections, &files, &["edge/src/b.rs:1: the protection \"c\" is at core/src/a.rs:2, too"]);
}

#[test]
fn empty_names_are_found() {
    let files = [("core/src/utils.rs", ""), ("hub/src/misc/a.rs", ""), ("hub/src/database.rs", ""), ("a/data/b.sql", "")];
    crate::finds(names, &files, &["core/src/utils.rs:1: `utils`", "hub/src/misc/a.rs:1: `misc`"]);
}
