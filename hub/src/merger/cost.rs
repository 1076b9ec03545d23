//! What a submission costs to merge, as far as it can be told before anything is read: in operations on rows.

use mobo_core::entry::{Entry, Payload};
use mobo_core::limits;
use mobo_core::merge::prepare::{Content, PreparedEntry, PreparedPush};
use mobo_core::merge::{LocalBody, Prepared};
use mobo_core::stream::peek_samples;

/// What an edit through the hub itself takes in its log, roughly.
const LOCAL_BYTES: u64 = 64;

/// How many entries it has, and what they cost.
pub(super) fn of(submission: &Prepared) -> (usize, usize) {
    match submission {
        Prepared::Local(write) => match &write.body {
            LocalBody::Edits(edits) => (1, edits.len()),
            LocalBody::Seen(edits) => (1, edits.len()),
            LocalBody::Append(segment) => (1, segment.before_us.len()),
        },
        Prepared::Push(push) => (push.entries.len(), push.entries.iter().map(|entry| of_entry(entry)).sum()),
        Prepared::Retry(_) => (1, 1),
    }
}

/// What it leaves behind for good, in operations on records and changes of documents. Samples go when their time is over, so their entries
/// count as one each.
pub(crate) fn kept(submission: &Prepared) -> u64 {
    let Prepared::Push(push) = submission else { return of(submission).1 as u64 };
    let of_entry = |entry: &PreparedEntry| match &entry.content {
        Content::Table(ops) => ops.len(),
        Content::Document(ops) => ops.iter().map(|op| op.changes.len()).sum(),
        Content::Stream | Content::Lost | Content::Poison(_) => 1,
    };
    push.entries.iter().map(|entry| of_entry(entry) as u64).sum()
}

/// About how many bytes it brings: those of its payloads, and for a write of the hub's own what its log will take of it.
pub(super) fn bytes(submission: &Prepared) -> u64 {
    match submission {
        Prepared::Push(push) => push.entries.iter().map(|entry| payload_bytes(&entry.entry)).sum(),
        Prepared::Local(_) | Prepared::Retry(_) => of(submission).1 as u64 * LOCAL_BYTES,
    }
}

fn payload_bytes(entry: &Entry) -> u64 {
    match &entry.payload {
        Payload::Present(payload) => payload.len() as u64,
        Payload::Lost(_) => 0,
    }
}

fn of_entry(entry: &PreparedEntry) -> usize {
    match &entry.content {
        Content::Table(ops) => ops.len(),
        Content::Document(ops) => ops.iter().map(|op| op.changes.len() * limits::MERGE_DOCUMENT_COST).sum(),
        Content::Stream => samples(&entry.entry),
        Content::Lost | Content::Poison(_) => 1,
    }
}

fn samples(entry: &Entry) -> usize {
    let Payload::Present(payload) = &entry.payload else { return 1 };
    // What cannot be read is refused before it costs anything.
    peek_samples(payload).map_or(1, |samples| usize::try_from(samples).unwrap_or(usize::MAX).min(limits::ENTRY_SAMPLES_MAX))
}

/// A push in the pieces that one transaction each may take; `None` when it fits one. Only the last one ends where the author has signed.
pub(super) fn pieces(submission: &Prepared) -> Option<Vec<Prepared>> {
    let Prepared::Push(push) = submission else { return None };
    if of(submission).1 <= limits::MERGE_COST_MAX || push.entries.len() < 2 {
        return None;
    }
    let mut cost = 0_usize;
    Some(cut(push, |_, entry| {
        cost = cost.saturating_add(of_entry(entry));
        let ends = cost > limits::MERGE_COST_MAX;
        if ends {
            cost = of_entry(entry);
        }
        ends
    }))
}

/// A push of several entries as two of half as many.
pub(super) fn halves(submission: &Prepared) -> Option<Vec<Prepared>> {
    let Prepared::Push(push) = submission else { return None };
    let half = push.entries.len() / 2;
    (half > 0).then(|| cut(push, |nth, _| nth == half))
}

/// Cuts a push before each entry of which that is said.
fn cut(push: &PreparedPush, mut before: impl FnMut(usize, &PreparedEntry) -> bool) -> Vec<Prepared> {
    let mut pieces: Vec<PreparedPush> = Vec::new();
    let mut chain = push.prev_chain;
    for (nth, entry) in push.entries.iter().enumerate() {
        let cuts = before(nth, entry);
        match pieces.last_mut().filter(|_| !cuts) {
            Some(piece) => piece.entries.push(entry.clone()),
            None => {
                let (lane, rights, gives_back) = (push.lane, push.rights.clone(), push.gives_back);
                let entries = vec![entry.clone()];
                pieces.push(PreparedPush { lane, prev_chain: chain, first: entry.seq, entries, signature: None, rights, gives_back });
            }
        }
        chain = entry.chain;
    }
    if let Some(last) = pieces.last_mut() {
        last.signature = push.signature;
    }
    pieces.into_iter().map(|piece| Prepared::Push(Box::new(piece))).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use mobo_core::document::DocumentOp;
    use mobo_core::entry::chain_next;
    use mobo_core::ids::{Chain, CollectionId, Incarnation, Lane, LaneKey, RecordId, RecordKey, Seq, Signature, Ver};
    use mobo_core::merge::Rights;
    use mobo_core::merge::prepare::prepare_entry;
    use mobo_core::table::Action;
    use mobo_core::trust::KeyPair;

    use super::*;

    fn entry(seq: u64, chain: Chain, content: Content) -> PreparedEntry {
        let entry = Entry { header: vec![1], payload: Payload::Present(seq.to_be_bytes().to_vec()) };
        let chain = chain_next(chain, &entry);
        PreparedEntry { content, ..prepare_entry(Seq::new(seq).unwrap(), entry, chain) }
    }

    pub(in crate::merger) fn document(changes: usize) -> Content {
        let key = RecordKey { collection: CollectionId::new(1).unwrap(), id: RecordId::new("r").unwrap() };
        Content::Document(vec![DocumentOp {
            key,
            action: Action::Patch,
            before_us: 0,
            base_ver: Ver(0),
            changes: vec![vec![0]; changes],
            epoch: 0,
        }])
    }

    pub(in crate::merger) fn push(contents: Vec<Content>) -> Prepared {
        let lane =
            LaneKey { device: KeyPair::from_secret(&[3; 32]).device(), incarnation: Incarnation::new(5).unwrap(), lane: Lane::State };
        let (mut entries, mut chain) = (Vec::new(), Chain([0; 32]));
        for (seq, content) in (1..).zip(contents) {
            let entry = entry(seq, chain, content);
            chain = entry.chain;
            entries.push(Arc::new(entry));
        }
        let signature = Some(Signature([7; 64]));
        let (prev_chain, first) = (Chain([0; 32]), Seq::FIRST);
        Prepared::Push(Box::new(PreparedPush { lane, prev_chain, first, entries, signature, rights: Rights::All, gives_back: false }))
    }

    /// The numbers of entries of the pieces, and each continues the one before.
    #[track_caller]
    fn check(changes: &[usize], want: &[usize]) {
        let whole = push(changes.iter().map(|changes| document(*changes)).collect());
        let Some(pieces) = pieces(&whole) else {
            assert_eq!(want, [changes.len()], "{changes:?}");
            return;
        };
        let pieces: Vec<PreparedPush> = pieces
            .into_iter()
            .map(|piece| {
                let Prepared::Push(push) = piece else { panic!("a piece of a push is a push") };
                *push
            })
            .collect();
        assert_eq!(pieces.iter().map(|piece| piece.entries.len()).collect::<Vec<_>>(), want, "{changes:?}");
        for (nth, piece) in pieces.iter().enumerate() {
            assert_eq!(piece.first, piece.entries[0].seq);
            assert_eq!(piece.signature.is_some(), nth + 1 == pieces.len(), "the author signed the head alone");
            let before = nth.checked_sub(1).map_or(Chain([0; 32]), |nth| pieces[nth].entries.last().unwrap().chain);
            assert_eq!(piece.prev_chain, before);
        }
    }

    #[test]
    fn a_long_push_is_cut_where_a_transaction_would_take_too_long() {
        const MOST: usize = limits::MERGE_COST_MAX / limits::MERGE_DOCUMENT_COST;
        check(&[1, 1, 1], &[3]);
        check(&[MOST], &[1]);
        check(&[MOST + 1], &[1]);
        check(&[MOST, 1], &[1, 1]);
        check(&[1; 2 * MOST + 1], &[MOST, MOST, 1]);
        check(&[MOST + 1, 1, MOST - 1, 1, 2], &[1, 2, 2]);
    }

    #[test]
    fn samples_count_one_by_one() {
        // { 0: collection, 1: encoding, 2: samples, … }
        let payload = |samples: &[u8]| [&[0xa3, 0, 7, 1, 1, 2], samples].concat();
        let cost = |payload: Vec<u8>| samples(&Entry { header: vec![], payload: Payload::Present(payload) });
        assert_eq!(cost(payload(&[0x19, 0x03, 0xe8])), 1_000);
        assert_eq!(cost(payload(&[0x1a, 0xff, 0xff, 0xff, 0xff])), limits::ENTRY_SAMPLES_MAX, "a lie is bounded");
        assert_eq!(cost(vec![0xff]), 1);
    }
}
