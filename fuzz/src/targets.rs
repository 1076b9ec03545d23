//! What is attacked. A target takes any bytes and must neither panic nor hang nor take much memory.

mod bundle;
mod change;
mod ingest;
mod query;
mod sealed;
mod session;
mod state;
mod wire;

use std::hash::{DefaultHasher, Hash, Hasher};

/// What a target made of an input, hashed: an answer that was not seen before is worth a look around.
pub(crate) type Answer = u64;

#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Decodes, and checks what must hold for whatever was decoded.
    pub(crate) run: fn(&[u8]) -> Answer,
    /// Folders of `protocol/vectors` whose golden bytes are inputs to start from.
    pub(crate) vectors: &'static [&'static str],
    /// More of them.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
}

pub(crate) const TARGETS: &[Target] = &[
    Target { name: "frame", run: wire::frame, vectors: &["frames", "later"], seeds: wire::frame_seeds },
    Target { name: "token", run: wire::token, vectors: &["core"], seeds: wire::token_seeds },
    Target { name: "bundle", run: bundle::bundle, vectors: &["core"], seeds: bundle::seeds },
    Target { name: "entry", run: sealed::entry, vectors: &["core"], seeds: Vec::new },
    Target { name: "state", run: state::state, vectors: &["core"], seeds: Vec::new },
    Target { name: "change", run: change::change, vectors: &[], seeds: change::seeds },
    Target { name: "stream", run: state::stream, vectors: &["core"], seeds: state::stream_seeds },
    Target { name: "packet", run: sealed::packet, vectors: &["core"], seeds: Vec::new },
    Target { name: "session-device", run: session::device, vectors: &["frames"], seeds: session::device_seeds },
    Target { name: "session-hub", run: session::hub, vectors: &["frames"], seeds: session::hub_seeds },
    Target { name: "ingest", run: ingest::ingest, vectors: &[], seeds: ingest::seeds },
    Target { name: "query", run: query::query, vectors: &[], seeds: query::seeds },
];

/// Targets with a known fault, to show that a crash is caught whatever its kind.
const DRILLS: &[Target] = &[
    Target { name: "drill-panic", run: drill_panic, vectors: &[], seeds: Vec::new },
    Target { name: "drill-stack", run: drill_stack, vectors: &[], seeds: Vec::new },
    Target { name: "drill-memory", run: drill_memory, vectors: &[], seeds: Vec::new },
];

pub(crate) fn all() -> impl Iterator<Item = &'static Target> {
    TARGETS.iter().chain(DRILLS)
}

fn drill_panic(bytes: &[u8]) -> Answer {
    assert!(!bytes.windows(2).any(|pair| pair == [0xff, 0x00]), "the drill's own fault");
    answer(&bytes.len())
}

fn drill_stack(bytes: &[u8]) -> Answer {
    fn descend(bytes: &[u8], depth: u64) -> u64 {
        let room = std::hint::black_box([depth; 512]);
        if bytes.first() == Some(&0xff) { descend(bytes, depth + 1) + room.len() as u64 } else { depth }
    }
    descend(bytes, 0)
}

fn drill_memory(bytes: &[u8]) -> Answer {
    let wanted = if bytes.first() == Some(&0xff) { 1 << 40 } else { 1 };
    std::hint::black_box(Vec::<u8>::with_capacity(wanted)).len() as u64
}

fn outcome<T: std::fmt::Debug, E: std::fmt::Display>(result: &Result<T, E>) -> String {
    match result {
        Ok(value) => shape(&format!("{value:?}")),
        Err(error) => shape(&error.to_string()),
    }
}

/// What kind of thing a text shows: its words, without numbers, literals, and repetitions.
fn shape(text: &str) -> String {
    let outside = text.split('"').step_by(2).flat_map(|part| part.split(|c: char| !c.is_ascii_alphabetic() && !"{}[]".contains(c)));
    let mut words: Vec<&str> = outside.filter(|word| !word.is_empty()).collect();
    words.dedup();
    words.join(" ")
}

fn answer(parts: &impl Hash) -> Answer {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}
