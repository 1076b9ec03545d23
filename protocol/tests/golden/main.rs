//! Golden vectors: bytes that no version may change, and what they mean.
//!
//! Each case builds a value in code, encodes it and compares with the file of its name under `vectors/`; decodes the file and compares with
//! the value. Keys and ids are in [`world`]. `vectors/README.md` says which rule each file guards.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: the panic is the report")]

mod bundles;
mod contract;
mod core_forms;
mod core_states;
mod frames_data;
mod frames_session;
mod hex_files;
mod later;
mod links;
mod rules;
mod vectors;
mod world;

use std::collections::BTreeSet;

use mobo_protocol::{DecodeError, Message, decode, encode, frame_bytes};

use hex_files::golden;
use vectors::Frame;

fn frames() -> Vec<Frame> {
    let mut frames = frames_session::cases();
    frames.extend(frames_data::cases());
    frames
}

/// R30: every message has its bytes.
#[test]
fn every_frame_is_as_it_was() {
    for Frame { name, about, message } in frames() {
        let want = golden("frames", name, about, &encode(&message));
        assert_eq!(frame_bytes(&want), Ok(Some(want.len())), "{name}");
        let decoded = decode(&want).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(decoded, message, "{name}");
        assert_eq!(encode(&decoded), want, "{name}: what was decoded encodes to the same bytes");
    }
}

#[test]
fn every_message_has_a_frame() {
    let kinds: BTreeSet<u8> = frames().iter().map(|frame| encode(&frame.message)[0]).collect();
    assert_eq!(kinds, (1..=21).chain(26..=31).chain([34]).collect(), "type numbers with a vector");
}

#[test]
fn every_core_form_is_as_it_was() {
    for form in core_forms::cases().into_iter().chain(core_states::cases()).chain(links::cases()).chain(bundles::cases()) {
        let want = golden("core", form.name, form.about, &form.bytes);
        (form.check)(&want);
    }
}

/// A frame of a later version is understood as far as this version goes (I20), or answered with a typed refusal.
#[test]
fn frames_of_later_versions_are_met_as_agreed() {
    for later in later::cases() {
        let want = golden("later", later.name, later.about, &later.bytes);
        assert_eq!(decode(&want), later.meaning, "{}", later.name);
    }
}

#[test]
fn every_vector_is_read() {
    let mut read: BTreeSet<String> = frames().iter().map(|frame| format!("frames/{}.hex", frame.name)).collect();
    read.extend(
        core_forms::cases()
            .into_iter()
            .chain(core_states::cases())
            .chain(links::cases())
            .chain(bundles::cases())
            .map(|form| format!("core/{}.hex", form.name)),
    );
    read.extend(later::cases().iter().map(|later| format!("later/{}.hex", later.name)));
    assert_eq!(read, hex_files::files(&["frames", "core", "later"]));
}

/// The decoder is total: every cut and every changed byte of a good frame gets an answer, and what is understood can be said again.
// faults: N-9, X-1
#[test]
fn damaged_frames_get_an_answer() {
    for Frame { name, message, .. } in frames() {
        let bytes = encode(&message);
        for cut in 0..bytes.len() {
            assert!(matches!(decode(&bytes[..cut]), Err(DecodeError::Malformed(_))), "{name} cut to {cut}");
            assert!(matches!(frame_bytes(&bytes[..cut]), Ok(None | Some(_))), "{name} cut to {cut}");
        }
        for index in 0..bytes.len() {
            for value in [0x00, 0x01, 0x18, 0x40, 0x80, 0x9f, 0xa0, 0xf6, 0xff, bytes[index] ^ 1, bytes[index].wrapping_add(1)] {
                let mut damaged = bytes.clone();
                damaged[index] = value;
                if let Some(meaning) = decode(&damaged).ok().filter(|meaning| !matches!(meaning, Message::Ignored { .. })) {
                    assert_eq!(decode(&encode(&meaning)), Ok(meaning), "{name} with {value:#x} at {index}");
                }
            }
        }
    }
}

#[test]
fn a_passed_over_frame_may_be_passed_on() {
    let ignored = Message::Ignored { kind: 99 };
    assert_eq!(decode(&encode(&ignored)), Ok(ignored));
}
