//! Files of hex: lines that start with `#` explain, the rest is the bytes.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

/// `vectors/`, from whichever package the test is in.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../protocol/vectors"))
}

/// The bytes in the file of that name, which must be `bytes`. With `MOBO_WRITE_VECTORS=1` in the environment a missing file is written.
#[track_caller]
pub(crate) fn golden(kind: &str, name: &str, about: &str, bytes: &[u8]) -> Vec<u8> {
    let path = folder().join(kind).join(format!("{name}.hex"));
    if !path.exists() && std::env::var_os("MOBO_WRITE_VECTORS").is_some_and(|set| set == "1") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, to_hex(about, bytes)).unwrap();
    }
    let text = fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; a new form gets its file from a run with MOBO_WRITE_VECTORS=1", path.display());
    });
    let want = from_hex(&text).unwrap_or_else(|| panic!("{} is not hex", path.display()));
    assert!(
        want == bytes,
        "{kind}/{name}: wire v1 is frozen: add a new form, never change this one\n golden {}\n   code {}",
        hex(&want),
        hex(bytes)
    );
    want
}

/// The vectors in these folders, as `folder/name.hex`.
pub(crate) fn files(kinds: &[&str]) -> BTreeSet<String> {
    let in_folder = |kind: &&str| {
        let kind = (*kind).to_owned();
        let files = fs::read_dir(folder().join(&kind)).unwrap();
        files.map(move |file| format!("{kind}/{}", file.unwrap().file_name().into_string().unwrap()))
    };
    kinds.iter().flat_map(in_folder).collect()
}

fn to_hex(about: &str, bytes: &[u8]) -> String {
    let mut text: String = about.lines().map(|line| format!("# {line}\n")).collect();
    for line in bytes.chunks(32) {
        writeln!(text, "{}", hex(line)).unwrap();
    }
    text
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| line.chars().filter(|c| !c.is_whitespace()))
        .map(|c| c.to_digit(16))
        .collect::<Option<_>>()?;
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| u8::try_from(high * 16 + low).ok()).collect()
}
