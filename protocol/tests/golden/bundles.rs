//! Bundles: what a device and its hub say to each other in files that somebody carries.

use mobo_core::message::SignedHello;
use mobo_core::trust::{KeyPair, Statement};
use mobo_protocol::bundle::{BundleError, Expected, Kind, Packer, Unpacker};
use mobo_protocol::{Message, encode};

use crate::core_forms::form;
use crate::frames;
use crate::vectors::Form;
use crate::world::{PROJECT, device, hub};

const SECRET: [u8; 32] = [0x88; 32];

fn message(name: &str) -> Message {
    frames().into_iter().find(|frame| frame.name == name).unwrap().message
}

fn entries() -> Vec<u8> {
    let mut packer = Packer::new(Kind::Entries, PROJECT, (&device(), &hub().public()), SECRET).unwrap();
    let Message::Hello(hello) = message("hello-first") else { panic!("a hello") };
    let signature = Statement::Hello { binding: &packer.binding(), hello: &hello.bytes }.sign(&device());
    packer.put(&encode(&Message::Hello(Box::new(SignedHello { signature, ..*hello }))));
    packer.put(&encode(&message("push-table")));
    packer.finish()
}

fn receipt() -> Vec<u8> {
    let mut packer = Packer::new(Kind::Receipt, PROJECT, (&hub(), &device().public()), SECRET).unwrap();
    packer.put(&encode(&message("reject")));
    packer.put(&encode(&message("ack")));
    packer.finish()
}

/// The frames in a bundle, fed in pieces of so many bytes, if it is of `sender`.
fn open(bundle: &[u8], kind: Kind, (sender, recipient): (&KeyPair, &KeyPair), step: usize) -> Result<Vec<Vec<u8>>, BundleError> {
    let mut unpacker = Unpacker::new(Expected { kind, project: PROJECT, keys: recipient });
    let mut frames = Vec::new();
    for piece in bundle.chunks(step) {
        unpacker.feed(piece)?;
        while let Some(frame) = unpacker.frame()? {
            frames.push(frame);
        }
    }
    unpacker.end()?;
    assert!(unpacker.is_signed_by(&sender.public()) && !unpacker.is_signed_by(&recipient.public()));
    Ok(frames)
}

fn in_one(bundle: &[u8]) -> Result<Vec<Vec<u8>>, BundleError> {
    open(bundle, Kind::Entries, (&device(), &hub()), bundle.len().max(1))
}

pub(crate) fn cases() -> Vec<Form> {
    vec![
        form(
            "bundle-entries",
            "A bundle of the device for its hub: frames/hello-first, signed over the binding of the bundle, and frames/push-table.\n\
             The ephemeral secret is 32 x 88.",
            entries(),
            |golden| {
                let frames = in_one(golden).unwrap();
                assert_eq!(frames[1], encode(&message("push-table")));
                let hub = hub();
                let mut unpacker = Unpacker::new(Expected { kind: Kind::Entries, project: PROJECT, keys: &hub });
                unpacker.feed(golden).unwrap();
                let Ok(Message::Hello(hello)) = mobo_protocol::decode(&frames[0]) else { panic!("a hello") };
                let statement = Statement::Hello { binding: &unpacker.binding().unwrap(), hello: &hello.bytes };
                assert!(statement.is_signed_by(&device().public(), &hello.signature));
            },
        ),
        form(
            "bundle-receipt",
            "The hub's receipt for the device: frames/reject and frames/ack. The ephemeral secret is 32 x 88.",
            receipt(),
            |golden| {
                let frames = open(golden, Kind::Receipt, (&hub(), &device()), 7).unwrap();
                assert_eq!(frames, [encode(&message("reject")), encode(&message("ack"))]);
            },
        ),
    ]
}

#[test]
fn every_flipped_byte_and_every_cut_of_a_bundle_is_refused() {
    let whole = entries();
    assert_eq!(in_one(&whole).unwrap().len(), 2);
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        assert!(in_one(&flipped).is_err(), "byte {at}");
        let cut = in_one(&whole[..at]).unwrap_err();
        assert!(matches!(cut, BundleError::Truncated { bytes } if bytes == at as u64), "cut at {at}: {cut}");
    }
    assert_eq!(in_one(&[whole.as_slice(), b"x"].concat()), Err(BundleError::Trailing));
    assert_eq!(in_one(b"not a bundle"), Err(BundleError::NotABundle));
}

/// Chunks are sealed in their order, and the last one as the last.
#[test]
fn a_bundle_of_many_chunks_cannot_be_cut_short_or_shuffled() {
    let chunk = mobo_core::limits::BUNDLE_CHUNK_BYTES;
    let mut packer = Packer::new(Kind::Entries, PROJECT, (&device(), &hub().public()), SECRET).unwrap();
    let frame = encode(&message("push-table"));
    let count = 3 * chunk / frame.len();
    (0..count).for_each(|_| packer.put(&frame));
    let whole = packer.finish();
    for step in [1_000, chunk, whole.len()] {
        assert_eq!(open(&whole, Kind::Entries, (&device(), &hub()), step).unwrap(), vec![frame.clone(); count]);
    }
    let first = whole.windows(4).position(|bytes| bytes == u32::try_from(chunk + 16).unwrap().to_be_bytes()).unwrap();
    let ends = [first, first + chunk + 20, first + 2 * (chunk + 20)];
    assert!(matches!(in_one(&whole[..ends[2]]), Err(BundleError::Truncated { .. })), "cut between chunks");
    let swapped = [&whole[..ends[0]], &whole[ends[1]..ends[2]], &whole[ends[0]..ends[1]], &whole[ends[2]..]].concat();
    assert_eq!(in_one(&swapped), Err(BundleError::Damaged { at: ends[0] as u64 }));
}

#[test]
fn a_bundle_of_somebody_else_is_refused_by_name() {
    let stranger = KeyPair::from_secret(&[0x33; 32]);
    let other = PROJECT.get() ^ 1;
    let project = mobo_core::ids::ProjectId::new(other).unwrap();
    let seal = |kind, project, recipient: &KeyPair| {
        let mut packer = Packer::new(kind, project, (&device(), &recipient.public()), SECRET).unwrap();
        packer.put(&encode(&Message::Bye));
        packer.finish()
    };
    assert_eq!(in_one(&seal(Kind::Entries, project, &hub())), Err(BundleError::WrongProject(project)));
    assert_eq!(in_one(&seal(Kind::Entries, PROJECT, &stranger)), Err(BundleError::WrongRecipient(stranger.public())));
    assert_eq!(in_one(&seal(Kind::Receipt, PROJECT, &hub())), Err(BundleError::WrongKind(Kind::Receipt)));
    assert!(Packer::new(Kind::Entries, PROJECT, (&device(), &mobo_core::ids::PublicKey([0; 32])), SECRET).is_none());
}
