//! `SPEC.md` says numbers that the code says, too: they must be the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mobo_core::limits;
use mobo_core::message::Code;
use mobo_protocol::encode;

use crate::frames;

fn contract() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("SPEC.md")).unwrap()
}

/// `**Name** 7` anywhere in the page.
#[test]
fn types_have_the_numbers_of_the_contract() {
    let text = contract();
    let parts: Vec<&str> = text.split("**").collect();
    let number = |after: &str| after.split_whitespace().next()?.parse::<u8>().ok();
    let said: BTreeMap<String, u8> =
        parts.windows(2).skip(1).step_by(2).filter_map(|pair| Some((pair[0].to_owned(), number(pair[1])?))).collect();
    let coded: BTreeMap<String, u8> = frames()
        .iter()
        .map(|frame| {
            let name = format!("{:?}", frame.message);
            let end = name.find(|c: char| !c.is_alphanumeric()).unwrap_or(name.len());
            (name[..end].to_owned(), encode(&frame.message)[0])
        })
        .collect();
    assert_eq!(said, coded);
}

#[test]
fn codes_are_those_of_the_contract() {
    let text = contract();
    let list = text.split("Codes, never reused").nth(1).unwrap().split_once('\n').unwrap().1.split("\n\n").next().unwrap();
    let said: BTreeMap<u16, &str> = list
        .trim_end_matches(['.', '\n'])
        .split([',', ';'])
        .map(|code| code.trim().split_once(' ').unwrap())
        .map(|(number, word)| (number.parse().unwrap(), word))
        .collect();
    let coded = (0..=u16::MAX).map(|number| (number, Code(number).name())).filter(|(_, word)| *word != "unknown").collect();
    assert_eq!(said, coded);
}

/// Name and value of each constant of [`limits`] that the contract has.
macro_rules! values {
    ($($name:ident)*) => { [$((stringify!($name), limits::$name as u64)),*] };
}

#[test]
fn limits_are_those_of_the_contract() {
    let text = contract();
    let row = |line: &str| {
        let (name, value) = line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | ")?;
        name.ends_with("_MAX").then(|| (name.to_owned(), value.parse::<u64>().unwrap()))
    };
    let said: BTreeMap<String, u64> = text.lines().filter_map(row).collect();
    let coded = values![
        RECORD_ID_BYTES_MAX NAME_BYTES_MAX BUCKET_KEY_BYTES_MAX FIELDS_PER_COLLECTION_MAX COLLECTIONS_MAX BUCKET_RULES_MAX VALUE_BYTES_MAX
        NESTING_MAX ENTRY_HEADER_BYTES_MAX ENTRY_PAYLOAD_BYTES_MAX ENTRY_OPS_MAX ENTRY_SAMPLES_MAX ENTRY_CELLS_MAX ROW_STATE_BYTES_MAX
        CHANGE_BYTES_MAX CHANGES_PER_OP_MAX DOCUMENT_BYTES_MAX FRAME_BODY_BYTES_MAX BATCH_BYTES_MAX PUSH_ENTRIES_MAX BATCH_ITEMS_MAX
        PUSHES_IN_FLIGHT_MAX BUCKETS_PER_DEVICE_MAX CLAIMS_MAX TIMELINE_PARENTS_MAX TOKEN_BYTES_MAX TOKEN_ADDRESSES_MAX
    ];
    assert_eq!(said, coded.map(|(name, value)| (name.to_owned(), value)).into());
}
