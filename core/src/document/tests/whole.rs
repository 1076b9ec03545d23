//! Whole documents that a device gives back: nothing of them is unpacked before it was looked at.
//!
//! faults: X-3

use super::guard::{body, leb, sealed};
use super::*;
use crate::ids::{BucketId, Position, ProjectId, StateHash, Timeline};
use crate::limits;
use crate::merge::{Context, Joining, Offered};
use crate::message::{Code, Item, ItemBody, Offer};
use crate::schema::Schema;
use crate::trust::OfferKey;

const KEY: OfferKey = OfferKey([9; 32]);
const TIMELINE: Timeline = Timeline([3; 16]);

/// A document chunk with honest heads and these columns of operations.
fn with_columns(heads: &[[u8; 32]], columns: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut body = vec![0, heads.len() as u8];
    heads.iter().for_each(|head| body.extend_from_slice(head));
    body.extend_from_slice(&[0, columns.len() as u8]);
    for (spec, bytes) in columns {
        leb(&mut body, u64::from(*spec));
        leb(&mut body, bytes.len() as u64);
    }
    columns.iter().for_each(|(_, bytes)| body.extend_from_slice(bytes));
    sealed(0, &body)
}

fn bomb() -> Vec<u8> {
    miniz_oxide::deflate::compress_to_vec(&vec![0; limits::DOCUMENT_INFLATED_BYTES_MAX + 1], 1)
}

fn edited() -> Document {
    let mut person = Person::new(1);
    person.edit(Intent::Put, json!({"body": "a text of some length, ".repeat(40), "count": 1, "tags": [1, 2, 3]}));
    for n in 0..40 {
        person.edit(Intent::Patch, json!({"count": n + 2, "hours": {"$inc": 1}, "body": {"$splice": [n, 1, "xy"]}}));
    }
    person.document
}

/// Why the hub does not join these bytes, offered under a MAC over that hash.
fn offered(saved: &[u8], hash: StateHash) -> Option<(Code, String)> {
    let collection = collection();
    let mac = KEY.row(ProjectId::new(1).unwrap(), &key(), (TIMELINE, Ver(4)), hash);
    let body = ItemBody::State { epoch: 0, bytes: saved.to_vec() };
    let item = Item { collection: collection.id, id: key().id, ver: Ver(4), body, mac };
    let offer = Offer { bucket: BucketId::new(1).unwrap(), timeline: TIMELINE, rows: vec![item], more: false };
    let schema = Schema::new(1, [collection]);
    let context = Context {
        project: ProjectId::new(1).unwrap(),
        schema: &schema,
        timeline: TIMELINE,
        now: Eff(1),
        entropy: [0; 32],
        recovering: true,
    };
    let heads = std::collections::BTreeMap::<BucketId, Position>::new();
    let joining = Joining::new(context, &Offered { offer: &offer, key: &KEY, timelines: &[], heads: &heads, bucket: None });
    let (_, joined) = joining.join(std::collections::BTreeMap::new());
    joined.refused.first().map(|refused| (refused.code, refused.detail.clone()))
}

#[test]
fn honest_documents_are_what_they_claim() {
    let empty = Document::empty(key());
    for document in [edited(), Person::new(2).edit(Intent::Put, json!({})).document.clone(), empty] {
        let hash = DocumentEngine.state_hash(&document);
        assert_eq!(Document::claimed_hash(0, &document.saved).unwrap(), hash);
        assert_eq!(Document::load_foreign(key(), 0, document.saved.clone()).unwrap().heads(), document.heads());
        assert_eq!(offered(&document.saved, hash), None);
    }
}

/// faults: X-3
#[test]
fn an_offer_without_the_hubs_mac_is_not_unpacked() {
    let document = edited();
    let bytes = with_columns(document.heads(), &[(0x5e, bomb())]);
    let (code, why) = offered(&bytes, StateHash([0; 32])).unwrap();
    assert_eq!(code, Code::BAD_SIGNATURE, "{why}");
}

/// Columns of a document by their numbers.
type Columns = Vec<(u8, Vec<u8>)>;

/// faults: X-3
#[test]
fn an_offer_that_lies_under_an_honest_mac_is_not_unpacked() {
    let document = edited();
    let hash = DocumentEngine.state_hash(&document);
    let forever = vec![0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 1];
    let cases: [(&str, Columns); 6] = [
        ("inflate", vec![(0x5e, bomb())]),
        ("claims more", vec![(0x42, forever.clone())]),
        ("claims more", vec![(0x4a, miniz_oxide::deflate::compress_to_vec(&forever, 1))]),
        ("claims more", vec![(0x80, vec![1, 0x81, 0x80, 0x80, 1])]),
        ("claims more", vec![(0x80, vec![1, 1]), (0x81, vec![2, 0])]),
        ("as long as they say", vec![(0x56, vec![1, 0x16]), (0x57, vec![1, 2])]),
    ];
    for (expected, columns) in cases {
        let bytes = with_columns(document.heads(), &columns);
        let (code, why) = offered(&bytes, hash).unwrap();
        assert_eq!(code, Code::BAD_PAYLOAD);
        assert!(why.contains(expected), "{why}");
    }
}

#[test]
fn a_whole_document_that_is_cut_or_changed_is_refused() {
    let document = edited();
    let hash = DocumentEngine.state_hash(&document);
    let body = body(&document.saved);
    // The last byte is the index of the head, which older documents lack.
    for len in 0..body.len() - 1 {
        assert!(offered(&sealed(0, &body[..len]), hash).is_some(), "cut at {len}");
    }
    let (code, _) = offered(&sealed(1, body), hash).unwrap();
    assert_eq!(code, Code::BAD_PAYLOAD);
}
