//! Files that somebody carries: from a USB stick that anybody may have written.

use mobo_core::ids::ProjectId;
use mobo_core::trust::KeyPair;
use mobo_protocol::bundle::{BundleError, Expected, Kind, Packer, Unpacker};

use super::{Answer, answer, outcome};

const PROJECT: ProjectId = ProjectId::new(7).unwrap();

fn keys(byte: u8) -> KeyPair {
    KeyPair::from_secret(&[byte; 32])
}

/// The bytes as a whole bundle; and as the frames in an honest one, which come out as they went in.
pub(super) fn bundle(bytes: &[u8]) -> Answer {
    let hub = keys(1);
    let read = |bundle: &[u8], step: usize| {
        let mut unpacker = Unpacker::new(Expected { kind: Kind::Entries, project: PROJECT, keys: &hub });
        let mut frames = Vec::new();
        for piece in bundle.chunks(step) {
            unpacker.feed(piece)?;
            while let Some(frame) = unpacker.frame()? {
                frames.push(frame);
            }
        }
        unpacker.end().map(|()| frames)
    };
    let as_it_is: Result<_, BundleError> = read(bytes, 64 * 1024);
    let in_bytes = read(bytes, 1 + bytes.len() / 16);
    assert_eq!(in_bytes.is_ok(), as_it_is.is_ok(), "it does not matter in which pieces a bundle is read");
    let packer = Packer::new(Kind::Entries, PROJECT, (&keys(2), &hub.public()), [3; 32]);
    let carried = packer.map(|mut packer| {
        packer.put(bytes);
        let sealed = packer.finish();
        let frames = read(&sealed, 64 * 1024);
        if let Ok(frames) = &frames {
            assert_eq!(frames.concat(), bytes, "what was sealed comes out");
        }
        frames
    });
    answer(&(outcome(&as_it_is), carried.map(|frames| outcome(&frames))))
}

/// A whole bundle, and one of another kind.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let seal = |kind| {
        let mut packer = Packer::new(kind, PROJECT, (&keys(2), &keys(1).public()), [3; 32])?;
        packer.put(&mobo_protocol::encode(&mobo_protocol::Message::Bye));
        Some(packer.finish())
    };
    [Kind::Entries, Kind::Receipt].into_iter().filter_map(seal).collect()
}
