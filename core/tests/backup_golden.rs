//! The golden repository: bytes that version 1 wrote, which every later version must read.
//!
//! `golden/backup_v1.txt` holds its objects, a name and hexadecimal digits on each line; `golden/backup_v1_zstd.txt` the same since they are
//! packed with zstd. They are never written again; `MOBO_BLESS=1` makes the file of a new way. What reads them is the same code as everywhere;
//! what packs may change, so bytes that are written now are not compared.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

use std::collections::BTreeMap;

use mobo_core::backup::change::{Body, Change, Deed};
use mobo_core::backup::keys::{BackupKey, DataKey, Keyring, Others};
use mobo_core::backup::manifest::{self, Anchor, Manifest, Member, Totals};
use mobo_core::backup::seal::{self, Kind};
use mobo_core::backup::vault::{KEYS, ObjectName};
use mobo_core::backup::verify::{Scope, Verify, Want, check, open_manifest};
use mobo_core::backup::{RepositoryId, hex};
use mobo_core::ids::{ProjectId, Timeline};
use mobo_core::store::transfer::{Cell, Row, TableName};
use mobo_core::trust::KeyPair;

/// The files, and the newest manifest of each: the hashes of its objects are in it.
const FILES: [(&str, &str); 2] = [
    ("backup_v1.txt", "3:1c91f8a021f96d9bd01372f961f56d14ddcba94b70665fe59ddef1697463ae2d"),
    ("backup_v1_zstd.txt", "3:e05109b0d70a546427aa4ab0ca5f4c33385d2e3f6815fcc0f4ace7dd680e745a"),
];
const NEWEST: u64 = 3;

type Objects = BTreeMap<ObjectName, Vec<u8>>;

fn key() -> BackupKey {
    BackupKey([1; 32])
}

fn rows(number: u64) -> Vec<(Deed, TableName, Vec<&'static str>, Row)> {
    let (own, orders) = (TableName::Own("lane".into()), TableName::Collection("orders".into()));
    vec![
        (Deed::Drop, orders.clone(), vec!["id"], vec![Cell::Text("gone".into())]),
        (Deed::Put, orders, vec!["hours", "id", "ratio"], vec![Cell::Int(-7), Cell::Text("ä".into()), Cell::Real(1.0)]),
        (Deed::Put, own, vec!["chain", "last", "signature"], vec![Cell::Bytes(vec![9; 64]), Cell::Int(number.cast_signed()), Cell::Null]),
    ]
}

fn body(number: u64) -> Body {
    let mut body = Body::default();
    body.clear(&TableName::Own("grant".into()));
    for (deed, table, columns, row) in rows(number) {
        let columns: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
        body.add(deed, (&table, &columns), row);
    }
    body
}

/// A base and two segments; the last is sealed with the second data key.
fn written() -> Objects {
    let hub = KeyPair::from_secret(&[4; 32]);
    let first = Keyring {
        generation: 1,
        project: ProjectId::new(5).unwrap(),
        repository: RepositoryId([3; 16]),
        hub,
        keys: vec![DataKey([6; 32])],
        others: Others::default(),
    };
    let second = first.with(DataKey([7; 32]));
    let mut objects: Objects = [&first, &second].iter().map(|ring| ring.wrap(&key()).unwrap()).collect();
    let mut previous = [0; 32];
    for number in 1..=NEWEST {
        let ring = if number == NEWEST { &second } else { &first };
        let (kind, of) = if number == 1 { (Kind::Snapshot, 0) } else { (Kind::Segment, number) };
        let mut bytes = Vec::new();
        let count = body(number).encode(&mut bytes);
        let sealed = seal::seal(ring, kind, of, &bytes).unwrap();
        let member = Member { name: sealed.name.clone(), bytes: sealed.bytes.len() as u64, hash: sealed.hash, rows: count };
        objects.insert(sealed.name, sealed.bytes.to_vec());
        let manifest = Manifest {
            project: ring.project,
            repository: ring.repository,
            number,
            previous,
            timeline: Timeline([8; 16]),
            taken_us: 1_770_000_000_000_000 + number.cast_signed(),
            keys: ring.name(&key()).unwrap(),
            base: 1,
            members: vec![member],
            totals: Totals { lanes: 1, entries: number, buckets: 2, positions: 3 },
            state: [5; 32],
            floor: 1,
            retained: manifest::Retained::default(),
        };
        let bytes = manifest.sign(&ring.hub);
        previous = manifest::hash(&bytes);
        objects.insert(manifest::name(number).unwrap(), bytes);
    }
    objects
}

fn path(file: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

fn golden(file: &str) -> Objects {
    let text = std::fs::read_to_string(path(file)).unwrap();
    let object = |line: &str| {
        let (name, digits) = line.split_once(' ').unwrap();
        let bytes = digits.as_bytes().chunks_exact(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
        (ObjectName::parse(name).unwrap(), bytes.collect())
    };
    text.lines().map(object).collect()
}

fn reads(objects: &Objects) {
    let name = objects.keys().rfind(|name| name.as_str().starts_with(KEYS)).unwrap();
    let ring = Keyring::unwrap(&key(), name, &objects[name]).unwrap();
    let mut verify = Verify::new(&ring, NEWEST, Scope::default());
    while let Some(want) = verify.want() {
        match want {
            Want::Bytes(name) => verify.bytes(objects.get(&name).map(Vec::as_slice)),
            Want::Size(name) => verify.size(objects.get(&name).map(|bytes| bytes.len() as u64)),
        }
    }
    assert_eq!((verify.verdict().damages.clone(), verify.verdict().read), (vec![], NEWEST));
    for number in 1..=NEWEST {
        let name = manifest::name(number).unwrap();
        let manifest = open_manifest(&ring, &name, &objects[&name]).unwrap();
        let member = &manifest.members[0];
        let changes = check(&ring, (number, member), objects.get(&member.name).map(Vec::as_slice)).unwrap();
        let found: Vec<_> =
            changes.iter().map(|Change { deed, table, columns, rows }| (*deed, table.clone(), columns.len(), rows.clone())).collect();
        let mut want = vec![(Deed::Clear, TableName::Own("grant".into()), 0, vec![])];
        want.extend(rows(number).into_iter().map(|(deed, table, columns, row)| (deed, table, columns.len(), vec![row])));
        assert_eq!(found, want, "{number}");
        assert_eq!((manifest.taken_us, manifest.totals.entries), (1_770_000_000_000_000 + number.cast_signed(), number));
    }
}

// faults: B-13
#[test]
fn what_any_version_wrote_is_read_for_ever() {
    let newest = path(FILES[FILES.len() - 1].0);
    if std::env::var_os("MOBO_BLESS").is_some() && !newest.exists() {
        let line = |(name, bytes): (&ObjectName, &Vec<u8>)| format!("{name} {}\n", hex(bytes));
        std::fs::write(newest, written().iter().map(line).collect::<String>()).unwrap();
    }
    for (file, anchor) in FILES {
        let objects = golden(file);
        reads(&objects);
        let newest = manifest::name(NEWEST).unwrap();
        assert_eq!(Anchor { number: NEWEST, hash: manifest::hash(&objects[&newest]) }.to_string(), anchor, "{file}");
    }
}

#[test]
fn what_is_written_now_reads_alike() {
    reads(&written());
}
