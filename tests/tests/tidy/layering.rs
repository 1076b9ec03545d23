//! Who may depend on whom, and the settings that every package repeats.

use toml::{Table, Value};

use crate::tree::{File, Tree, folder};

const EVERYTHING: &[&str] =
    &["mobo", "mobo-vfs", "mobo-adapters", "mobo-core", "mobo-edge", "mobo-gate", "mobo-hub", "mobo-protocol", "mobo-runtime"];

/// Each package's folder, and the packages of ours that it may use. The workbenches see everything; nothing sees them.
const MAY_USE: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("core/adapters", &["mobo-core", "mobo-protocol"]),
    ("core/gate", &["mobo-core"]),
    ("core/runtime", &["mobo-core"]),
    ("protocol", &["mobo-core"]),
    ("edge", &["mobo-adapters", "mobo-core", "mobo-gate", "mobo-protocol", "mobo-runtime"]),
    ("hub", &["mobo-adapters", "mobo-core", "mobo-gate", "mobo-protocol", "mobo-runtime"]),
    ("hub/mobo", &["mobo-edge", "mobo-hub", "mobo-runtime"]),
    ("benches", EVERYTHING),
    ("fuzz", EVERYTHING),
    ("tests", EVERYTHING),
    ("tests/vfs", &[]),
];

/// Packages whose lints are their own, because they may be unsafe in one file; all other words must be the workspace's.
const OWN_LINTS: &[&str] = &["tests/vfs"];

/// What waits, reads a clock, draws randomness or does IO: not for the packages that only decide and spell.
const DOERS: &[&str] = &[
    "axum",
    "chrono",
    "getrandom",
    "hyper",
    "libc",
    "quinn",
    "rand",
    "reqwest",
    "rumqttc",
    "rusqlite",
    "rustix",
    "socket2",
    "sqlx",
    "sysinfo",
    "tempfile",
    "time",
    "tokio",
    "tokio-util",
];

/// Foreign crates that a package must not use, with the reason.
const MUST_NOT_USE: &[(&str, &[&str], &str)] = &[
    ("core", DOERS, "core decides: time, randomness and IO are arguments"),
    ("protocol", DOERS, "protocol spells: bytes in, values out"),
    ("core/adapters", &["sqlx"], "only the hub links Postgres"),
    ("core/gate", &["rusqlite", "sqlx"], "the gate speaks HTTP; stores are behind a trait"),
    ("edge", &["sqlx"], "only the hub links Postgres"),
];

/// Adapters that are never linked into a device.
const NOT_ON_DEVICES: &[&str] = &["broker", "s3"];

pub(crate) fn dependencies(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for (file, manifest) in packages(tree) {
        let package = folder(&file.path);
        let Some((_, may_use)) = MAY_USE.iter().find(|(known, _)| *known == package) else {
            findings.push(format!("{}:1: a package that no rule knows: give it a line in MAY_USE", file.path));
            continue;
        };
        let adapters =
            manifest.get("dependencies").and_then(|table| table.get("mobo-adapters")).and_then(|adapters| adapters.get("features"));
        let features = adapters.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        for feature in features.filter(|feature| package == "edge" && NOT_ON_DEVICES.contains(feature)) {
            findings.push(format!("{}:1: a device must not link the adapter {feature}: see NOT_ON_DEVICES", file.path));
        }
        for name in dependency_names(&manifest) {
            let names_it = |line: &str| line.split([' ', '.', '=']).next() == Some(&name);
            let line = file.lines().find(|(_, line)| names_it(line)).map_or(1, |(number, _)| number);
            let is_ours = name == "mobo" || name.starts_with("mobo-");
            if is_ours && !may_use.contains(&name.as_str()) {
                findings.push(format!("{}:{line}: {package} must not depend on {name}: see MAY_USE", file.path));
            }
            for (_, crates, reason) in MUST_NOT_USE.iter().filter(|(known, ..)| *known == package) {
                if crates.contains(&name.as_str()) {
                    findings.push(format!("{}:{line}: {package} must not depend on {name}: {reason}", file.path));
                }
            }
        }
    }
    findings
}

pub(crate) fn lints(tree: &Tree) -> Vec<String> {
    let mut of_workspace = tree.at("Cargo.toml").map(parse).unwrap_or_default();
    let of_workspace = of_workspace.get_mut("workspace").and_then(|workspace| workspace.get_mut("lints"));
    if let Some(word) = of_workspace.as_deref().and_then(|lints| lints.get("rust")).and_then(|rust| rust.get("unsafe_code")) {
        assert_eq!(word.as_str(), Some("forbid"), "everywhere else");
    }
    let of_workspace = of_workspace.map(|lints| {
        let rust = lints.get_mut("rust").and_then(Value::as_table_mut);
        rust.map(|rust| rust.insert("unsafe_code".to_owned(), Value::String("deny".to_owned())));
        lints.clone()
    });
    let takes_them = |file: &File, manifest: &Table| match manifest.get("lints") {
        own if OWN_LINTS.contains(&folder(&file.path)) => own == of_workspace.as_ref(),
        lints => lints.and_then(|lints| lints.get("workspace")) == Some(&Value::Boolean(true)),
    };
    let without = packages(tree).filter(|(file, manifest)| !takes_them(file, manifest));
    without.map(|(file, _)| format!("{}:1: takes no lints: add `[lints]` with `workspace = true`", file.path)).collect()
}

/// Clippy reads the nearest file only and merges nothing, so each file repeats the limits. A package inside `core` would inherit
/// core's bans, so each has a file of its own.
pub(crate) fn clippy_files(tree: &Tree) -> Vec<String> {
    const NAME: &str = ".clippy.toml";
    let Some(root) = tree.at(NAME).map(parse) else {
        return vec![format!("{NAME}:1: not there: the limits of functions and arguments are in it")];
    };
    let mut findings = Vec::new();
    for file in tree.named(NAME).filter(|file| file.path != NAME) {
        let own = parse(file);
        for (key, limit) in root.iter().filter(|(key, _)| !key.starts_with("disallowed-")) {
            if own.get(key) != Some(limit) {
                findings.push(format!("{}:1: `{key}` is not {limit}: repeat the line of the root's {NAME}", file.path));
            }
        }
    }
    for (file, _) in packages(tree).filter(|(file, _)| file.path.starts_with("core/")) {
        let package = folder(&file.path);
        if !tree.holds(&format!("{package}/{NAME}")) {
            findings.push(format!("{package}/{NAME}:1: not there: without it core's bans would hold here"));
        }
    }
    findings
}

/// The manifests of packages; the root's is the workspace's.
fn packages(tree: &Tree) -> impl Iterator<Item = (&File, Table)> {
    let manifests = tree.named("Cargo.toml").filter(|file| !folder(&file.path).is_empty());
    manifests.map(|file| (file, parse(file)))
}

/// The names in all tables of dependencies: normal, of tests, of build scripts, and of one platform.
fn dependency_names(manifest: &Table) -> Vec<String> {
    let mut names = Vec::new();
    for (key, table) in manifest.iter().filter_map(|(key, value)| Some((key, value.as_table()?))) {
        if key.ends_with("dependencies") {
            names.extend(table.keys().cloned());
        } else if key == "target" {
            names.extend(table.values().filter_map(Value::as_table).flat_map(dependency_names));
        }
    }
    names
}

pub(crate) fn parse(file: &File) -> Table {
    let text = file.text.as_deref().unwrap_or_default();
    text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.path))
}

#[test]
fn wrong_directions_are_found() {
    let hub = "[package]\nname = \"mobo-hub\"\n[target.'cfg(unix)'.dependencies]\nmobo-edge.workspace = true\nmobo-core = \"1\"\n";
    let core = "[dev-dependencies]\nmobo-tests.workspace = true\ntokio = \"1\"\n[build-dependencies]\nmobo = \"1\"\n";
    crate::finds(
        dependencies,
        &[("hub/Cargo.toml", hub), ("core/Cargo.toml", core), ("tools/Cargo.toml", ""), ("Cargo.toml", "")],
        &[
            "hub/Cargo.toml:4: hub must not depend on mobo-edge",
            "core/Cargo.toml:5: core must not depend on mobo:",
            "core/Cargo.toml:2: core must not depend on mobo-tests",
            "core/Cargo.toml:3: core must not depend on tokio: core decides",
            "tools/Cargo.toml:1: a package that no rule knows",
        ],
    );
}

#[test]
fn missing_settings_are_found() {
    let good = ("edge/Cargo.toml", "[lints]\nworkspace = true\n");
    crate::finds(lints, &[good, ("hub/Cargo.toml", "[lints]\nworkspace = false\n")], &["hub/Cargo.toml:1: takes no lints"]);
    crate::finds(clippy_files, &[], &[".clippy.toml:1: not there"]);
    let files = [
        (".clippy.toml", "too-many-lines-threshold = 70\ndisallowed-types = [\"a\"]"),
        ("core/.clippy.toml", "too-many-lines-threshold = 71\ndisallowed-types = [\"b\"]"),
        ("core/gate/Cargo.toml", ""),
        ("edge/Cargo.toml", ""),
    ];
    let want = ["core/.clippy.toml:1: `too-many-lines-threshold` is not 70", "core/gate/.clippy.toml:1: not there"];
    crate::finds(clippy_files, &files, &want);
}
