//! What may be linked. `.deny.toml` says the same for cargo-deny; this runs everywhere.

use std::path::Path;
use std::process::Command;

use toml::Value;

use crate::layering::parse;
use crate::tree::{Tree, root};

/// Crates that must not be in the lockfile, with the reason.
const BANNED: &[(&str, &str)] = &[
    ("age", "some 60 crates for what ring already brings"),
    ("aws-lc-rs", "one crypto provider: ring"),
    ("aws-lc-sys", "one crypto provider: ring; it needs cmake"),
    ("cmake", "the build needs a C compiler and nothing else"),
    ("native-tls", "rustls everywhere"),
    ("openssl-sys", "rustls everywhere"),
    ("rsa", "RUSTSEC-2023-0071, no fix"),
    ("rumqttd", "loses acknowledged QoS 1 messages and has no topic ACL"),
];

/// Crates that must not be built. sqlx names its macros as an optional dependency, so they stand in every lockfile.
const BANNED_IN_BUILDS: &[(&str, &str)] = &[("sqlx-macros", "builds sqlx and its TLS a second time, for the host")];

/// Lowest versions, where a crate is used at all (faults: SR-30).
const FLOORS: &[(&str, [u64; 3])] = &[
    ("h2", [0, 4, 16]),
    ("libsqlite3-sys", [0, 37, 0]), // SQLite 3.51.3
    ("lz4_flex", [0, 11, 6]),
    ("postgres-protocol", [0, 6, 12]),
    ("quinn", [0, 11, 12]),
    ("quinn-proto", [0, 11, 15]),
    ("rustls-webpki", [0, 103, 13]),
    ("sqlx", [0, 8, 1]),
    ("sqlx-core", [0, 8, 1]),
    ("tar", [0, 4, 45]),
    ("tokio-postgres", [0, 7, 18]),
];

/// Single versions above a floor that are out all the same.
const HOLES: &[(&str, [u64; 3])] = &[("lz4_flex", [0, 12, 0])];

/// The only place that crates come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Crates whose bytes outlive us, pinned to the digit in the workspace's manifest.
const PINS: &[(&str, &str)] = &[("automerge", "0.12.0")];

const LOCKFILE: &str = "Cargo.lock";
const MANIFEST: &str = "Cargo.toml";

pub(crate) fn locked(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for Package { name, version, source } in &packages(tree) {
        let line = line_of(tree, LOCKFILE, &format!("name = \"{name}\""));
        if let Some((_, reason)) = BANNED.iter().find(|(banned, _)| banned == name) {
            findings.push(format!("{LOCKFILE}:{line}: {name} is banned: {reason}: `cargo tree -i {name}` names who brings it"));
        }
        let floor = FLOORS.iter().find(|(known, floor)| known == name && numbers(version) < *floor);
        if floor.is_some() || HOLES.iter().any(|(known, hole)| known == name && numbers(version) == *hole) {
            findings.push(format!("{LOCKFILE}:{line}: {name} {version} has a known fault: `cargo update -p {name}`"));
        }
        // Packages of the workspace have no source.
        if source.as_deref().is_some_and(|source| source != REGISTRY) {
            let source = source.as_deref().unwrap_or_default();
            findings.push(format!("{LOCKFILE}:{line}: {name} comes from {source}: take it from crates.io"));
        }
    }
    findings
}

pub(crate) fn pins(tree: &Tree) -> Vec<String> {
    let manifest = tree.at(MANIFEST).map(parse).unwrap_or_default();
    let dependencies = manifest.get("workspace").and_then(|workspace| workspace.get("dependencies"));
    let locked = packages(tree);
    let mut findings = Vec::new();
    for (name, pin) in PINS {
        let wanted = dependencies.and_then(|table| table.get(name));
        let wanted = wanted.and_then(|value| value.get("version").unwrap_or(value).as_str()).unwrap_or_default();
        if wanted != format!("={pin}") {
            let line = line_of(tree, MANIFEST, name);
            findings.push(format!("{MANIFEST}:{line}: {name} is not pinned: write version = \"={pin}\""));
        }
        for package in locked.iter().filter(|package| package.name == *name && package.version != *pin) {
            let line = line_of(tree, LOCKFILE, &format!("name = \"{name}\""));
            findings.push(format!("{LOCKFILE}:{line}: {name} is {}, not {pin}", package.version));
        }
    }
    findings
}

/// Findings in the names of crates that a build compiles.
pub(crate) fn built(crates: &[String]) -> Vec<String> {
    let all = BANNED.iter().chain(BANNED_IN_BUILDS);
    let banned = all.filter(|(name, _)| crates.iter().any(|built| built == name));
    banned.map(|(name, reason)| format!("{name} is built: {reason}: `cargo tree -i {name}` names who brings it")).collect()
}

/// The names of all crates that the workspace is built from on this machine.
pub(crate) fn crates_of_this_build() -> Vec<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(Path::new(&cargo));
    command.current_dir(root()).args(["tree", "--workspace", "--locked", "--offline", "--prefix", "none", "--format", "{p}"]);
    let output = command.args(["--edges", "normal,build,dev"]).output().unwrap();
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let mut names: Vec<String> = text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    assert!(names.iter().any(|name| name == "mobo-core"), "cargo tree names no crate of ours: {names:?}");
    names
}

struct Package {
    name: String,
    version: String,
    source: Option<String>,
}

fn packages(tree: &Tree) -> Vec<Package> {
    let lockfile = tree.at(LOCKFILE).map(parse).unwrap_or_default();
    let packages = lockfile.get("package").and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |package: &Value, key: &str| package.get(key).and_then(Value::as_str).map(str::to_owned);
    let package = |package: &Value| Package {
        name: text(package, "name").unwrap(),
        version: text(package, "version").unwrap(),
        source: text(package, "source"),
    };
    packages.iter().map(package).collect()
}

/// The numbers of a version; a pre-release counts as its release.
fn numbers(version: &str) -> [u64; 3] {
    let mut parts = version.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

fn line_of(tree: &Tree, path: &str, text: &str) -> usize {
    let line = tree.at(path).and_then(|file| file.lines().find(|(_, line)| line.starts_with(text)).map(|(number, _)| number));
    line.unwrap_or(1)
}

#[test]
fn bad_locks_are_found() {
    let package = |name: &str, version: &str, source: &str| {
        format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nsource = \"{source}\"\n")
    };
    let lock = [
        package("rsa", "0.9.10", REGISTRY),
        package("quinn-proto", "0.11.9", REGISTRY),
        package("quinn-proto", "0.11.15", REGISTRY),
        package("lz4_flex", "0.12.0", REGISTRY),
        package("fork", "1.0.0", "git+https://example.org/fork"),
        "[[package]]\nname = \"mobo-core\"\nversion = \"0.1.0\"\n".into(),
    ];
    let want = [
        "Cargo.lock:2: rsa is banned",
        "Cargo.lock:6: quinn-proto 0.11.9 has a known fault",
        "Cargo.lock:14: lz4_flex 0.12.0 has a known fault",
        "Cargo.lock:18: fork comes from git+",
    ];
    crate::finds(locked, &[("Cargo.lock", &lock.concat())], &want);
    let lock = package("automerge", "0.12.1", REGISTRY);
    let manifest = "[workspace.dependencies]\nautomerge = { version = \"0.12.0\" }\n";
    let want = ["Cargo.toml:2: automerge is not pinned", "Cargo.lock:2: automerge is 0.12.1"];
    crate::finds(pins, &[("Cargo.lock", &lock), ("Cargo.toml", manifest)], &want);
    let crates = ["mobo-core", "sqlx-macros", "sqlx", "cmake"].map(str::to_owned);
    assert_eq!(built(&crates).len(), 2);
}
