//! A batch that the store does not take as a whole: in which parts it is merged, and who is answered what.
//!
//! The store commits a part or nothing of it, so each submission is answered by the part that it was in, and a part that may have been
//! committed is never merged again: a local write would be authored twice.

use std::sync::Arc;

use mobo_core::engine::Refusal;
use mobo_core::merge::prepare::{Content, PreparedEntry, PreparedPush};
use mobo_core::merge::{Merged, Outcome, Prepared};
use mobo_core::message::Code;
use mobo_core::store::{MergeReport, StoreError};
use tokio::sync::broadcast;

use super::{Job, News, cost};

/// How often one push alone may fail before its entries go to quarantine.
const ATTEMPTS_MAX: u32 = 3;

/// Merges submissions, all of them or none.
pub(super) trait Merges: Sync {
    /// As [`mobo_core::store::HubStore::merge`] does.
    fn merge(&self, submissions: Vec<Prepared>) -> impl Future<Output = Result<MergeReport, StoreError>> + Send;
}

/// Merges a batch, in halves where others are in the way of the whole; answers everybody in it, and tells what changed after each commit.
pub(super) async fn run(store: &impl Merges, batch: Vec<Job>, news: &broadcast::Sender<News>) {
    let mut parts = Vec::new();
    for job in batch.into_iter().rev() {
        // A push that is too long for one transaction stands alone.
        let long = cost::pieces(&job.submission).is_some();
        match parts.last_mut().filter(|_| !long) {
            Some((false, part)) => Vec::insert(part, 0, job),
            Some((true, _)) | None => parts.push((long, vec![job])),
        }
    }
    while let Some((long, mut part)) = parts.pop() {
        if long {
            piece_by_piece(store, part, news).await;
            continue;
        }
        match merge(store, part.iter().map(|job| job.submission.clone()).collect(), news).await {
            Ok(outcomes) => {
                for (outcome, job) in outcomes.into_iter().zip(part) {
                    let _ = job.reply.send(Ok(outcome));
                }
            }
            Err(StoreError::Contended(why)) if part.len() > 1 => {
                tracing::warn!(why, submissions = part.len(), "others hold the same records: merging the batch in two halves");
                // The first half goes first: submissions of one lane stay in order.
                let second = part.split_off(part.len() / 2);
                parts.extend([(false, second), (false, part)]);
            }
            Err(StoreError::Damaged(why) | StoreError::BadValue(why) | StoreError::Refused(why)) => {
                one_by_one(store, part, &why, news).await
            }
            // Everybody tries again later; whether a local write was done is for its caller to look up.
            Err(error @ (StoreError::Unavailable(_) | StoreError::Contended(_) | StoreError::Full(_) | StoreError::Poisoned(_))) => {
                tracing::warn!(%error, submissions = part.len(), "a batch was not merged");
                for job in part {
                    let _ = job.reply.send(Err(error.clone()));
                }
            }
        }
    }
}

/// Pushes in pieces of a transaction each, answered as a whole.
async fn piece_by_piece(store: &impl Merges, part: Vec<Job>, news: &broadcast::Sender<News>) {
    for Job { submission, reply } in part {
        let _ = reply.send(in_pieces(store, cost::pieces(&submission).unwrap_or_default(), news).await);
    }
}

/// One push in pieces. Where one is not merged, the device comes again, and what was is known.
async fn in_pieces(store: &impl Merges, pieces: Vec<Prepared>, news: &broadcast::Sender<News>) -> Result<Outcome, StoreError> {
    let mut whole: Option<Merged> = None;
    for piece in pieces {
        match alone(store, piece, news).await? {
            Outcome::Merged(more) => whole = Some(whole.take().map_or_else(|| more.clone(), |whole| joined(whole, &more))),
            other @ (Outcome::Nack { .. } | Outcome::Refence { .. } | Outcome::Refused(_)) => return Ok(other),
        }
    }
    whole.map(Outcome::Merged).ok_or_else(|| StoreError::Damaged("a push has no pieces".to_owned()))
}

fn joined(mut whole: Merged, more: &Merged) -> Merged {
    (whole.acked, whole.chain) = (more.acked, more.chain);
    whole.effs.extend_from_slice(&more.effs);
    whole.rejects.extend_from_slice(&more.rejects);
    whole.changed.extend_from_slice(&more.changed);
    whole
}

/// A batch that cannot be merged as a whole: the one to blame must not take its neighbours with it.
async fn one_by_one(store: &impl Merges, part: Vec<Job>, why: &str, news: &broadcast::Sender<News>) {
    tracing::error!(why, submissions = part.len(), "a batch could not be merged; merging one by one");
    for Job { submission, reply } in part {
        let _ = reply.send(alone(store, submission, news).await);
    }
}

/// A push that cannot be merged is cut in halves, until the entry to blame is alone: only that one goes to quarantine.
async fn alone(store: &impl Merges, submission: Prepared, news: &broadcast::Sender<News>) -> Result<Outcome, StoreError> {
    let mut attempt = 1;
    let outcomes = loop {
        match merge(store, vec![submission.clone()], news).await {
            Err(StoreError::Damaged(why) | StoreError::BadValue(why) | StoreError::Refused(why)) if attempt == ATTEMPTS_MAX => {
                if let Some(halves) = cost::halves(&submission) {
                    return Box::pin(in_pieces(store, halves, news)).await;
                }
                match poisoned(&submission, &why) {
                    Some(quarantined) => break merge(store, vec![quarantined], news).await?,
                    None => return Err(StoreError::Refused(why)),
                }
            }
            Err(StoreError::Damaged(_) | StoreError::BadValue(_) | StoreError::Refused(_)) => attempt += 1,
            other => break other?,
        }
    };
    outcomes.into_iter().next().ok_or_else(|| StoreError::Damaged("the store gave no outcome".to_owned()))
}

/// One transaction, and the news of it. Nobody listens to these while no device is connected.
async fn merge(store: &impl Merges, submissions: Vec<Prepared>, news: &broadcast::Sender<News>) -> Result<Vec<Outcome>, StoreError> {
    match store.merge(submissions).await {
        Ok(MergeReport { outcomes, hints, .. }) => {
            if !hints.is_empty() {
                let _ = news.send(News::Buckets(Arc::new(hints)));
            }
            Ok(outcomes)
        }
        // It may have been committed all the same.
        Err(error @ (StoreError::Unavailable(_) | StoreError::Poisoned(_))) => {
            let _ = news.send(News::Unknown);
            Err(error)
        }
        Err(error) => Err(error),
    }
}

/// The push with every entry marked as what it is: something that this hub cannot merge. Its positions are used, its bytes are kept.
fn poisoned(submission: &Prepared, why: &str) -> Option<Prepared> {
    let Prepared::Push(push) = submission else { return None };
    let refusal = Refusal::new(Code::UNMERGEABLE, format!("merging it failed {ATTEMPTS_MAX} times: {why}"));
    let entry = |entry: &Arc<PreparedEntry>| {
        Arc::new(PreparedEntry {
            seq: entry.seq,
            entry: entry.entry.clone(),
            eid: entry.eid,
            chain: entry.chain,
            header: entry.header.clone(),
            content: Content::Poison(refusal.clone()),
            eff: entry.eff,
        })
    };
    let entries = push.entries.iter().map(entry).collect();
    Some(Prepared::Push(Box::new(PreparedPush { entries, rights: push.rights.clone(), ..PreparedPush::clone(push) })))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use mobo_core::digest::Digest;
    use mobo_core::ids::{BootId, BucketId, CollectionId, Incarnation, Lane, LaneKey, Nonce, Position, Seq};
    use mobo_core::merge::{Hint, LocalBody, LocalWrite};
    use mobo_core::time::{Eff, Moment, Mono, Wall, WallQuality};
    use mobo_core::trust::KeyPair;
    use tokio::sync::oneshot;

    use super::*;

    /// What happens to a transaction.
    #[derive(Clone, Copy)]
    enum Fate {
        Committed,
        Contended,
        /// The answer to COMMIT is lost.
        Lost,
        Refused,
    }

    /// Keeps numbers, as [`mobo_core::store::HubStore::merge`] promises to: all of a batch or none.
    struct Numbers {
        fate: fn(&[u8]) -> Fate,
        committed: Mutex<Vec<u8>>,
    }

    impl Merges for Numbers {
        async fn merge(&self, submissions: Vec<Prepared>) -> Result<MergeReport, StoreError> {
            let numbers: Vec<u8> = submissions.iter().map(number).collect();
            let mut committed = self.committed.lock().unwrap();
            match (self.fate)(&numbers) {
                Fate::Contended => return Err(StoreError::Contended("made to".to_owned())),
                Fate::Refused => return Err(StoreError::Refused("made to".to_owned())),
                Fate::Lost => {
                    committed.extend(numbers);
                    return Err(StoreError::Unavailable("made to".to_owned()));
                }
                Fate::Committed => committed.extend(&numbers),
            }
            let outcome = |number: &u8| Outcome::Nack { expect: Seq::new(u64::from(*number)).unwrap(), code: Code::GAP };
            let head = Position(u64::from(numbers[0]));
            let hint = Hint { bucket: BucketId::new(1).unwrap(), head, digest: Digest([0; 32]) };
            Ok(MergeReport { outcomes: numbers.iter().map(outcome).collect(), hints: vec![hint], ..MergeReport::default() })
        }
    }

    fn number(submission: &Prepared) -> u8 {
        match submission {
            Prepared::Local(write) => write.nonce.0[0],
            Prepared::Push(_) | Prepared::Retry(_) => panic!("no push was made"),
        }
    }

    fn write(number: u8) -> Prepared {
        let lane =
            LaneKey { device: KeyPair::from_secret(&[3; 32]).device(), incarnation: Incarnation::new(5).unwrap(), lane: Lane::State };
        let moment = Moment { boot: BootId([2; 8]), mono: Mono(0), wall: Wall(0), quality: WallQuality::Set };
        let (collection, body) = (CollectionId::new(7).unwrap(), LocalBody::Edits(Vec::new()));
        Prepared::Local(Box::new(LocalWrite { lane, collection, body, moment, nonce: Nonce([number; 8]), author: None, bounds: None }))
    }

    /// Runs the writes 1 to 8; gives what was committed, what each was answered (its number, or why not), and the news.
    async fn run_eight(fate: fn(&[u8]) -> Fate) -> (Vec<u8>, String, String) {
        let store = Numbers { fate, committed: Mutex::default() };
        let (news, mut heard) = broadcast::channel(64);
        let (batch, verdicts): (Vec<Job>, Vec<_>) = (1..=8)
            .map(|number| {
                let (reply, verdict) = oneshot::channel();
                (Job { submission: write(number), reply }, verdict)
            })
            .unzip();
        run(&store, batch, &news).await;
        let mut answers = Vec::new();
        for verdict in verdicts {
            answers.push(match verdict.await.expect("everybody is answered") {
                Ok(Outcome::Nack { expect, .. }) => expect.get().to_string(),
                Ok(other) => panic!("not made here: {other:?}"),
                Err(StoreError::Unavailable(_)) => "away".to_owned(),
                Err(StoreError::Contended(_)) => "contended".to_owned(),
                Err(other) => other.to_string(),
            });
        }
        let mut told = Vec::new();
        while let Ok(news) = heard.try_recv() {
            told.push(match news {
                News::Buckets(hints) => hints[0].head.0.to_string(),
                News::Unknown => "unknown".to_owned(),
            });
        }
        (store.committed.into_inner().unwrap(), answers.join(" "), told.join(" "))
    }

    #[tokio::test]
    async fn each_write_is_authored_once_and_answered_by_its_own_part() {
        // The fate of a transaction by the numbers in it; then answers and news, where a commit is named by its first number.
        type Case = (&'static str, fn(&[u8]) -> Fate, &'static str, &'static str);
        let cases: [Case; 6] = [
            ("all is well", |_| Fate::Committed, "1 2 3 4 5 6 7 8", "1"),
            ("halves go", |part| if part.len() > 4 { Fate::Contended } else { Fate::Committed }, "1 2 3 4 5 6 7 8", "1 5"),
            (
                "the second half is lost",
                |part| match part {
                    [_, _, _, _, _, ..] => Fate::Contended,
                    [1, ..] => Fate::Committed,
                    _ => Fate::Lost,
                },
                "1 2 3 4 away away away away",
                "1 unknown",
            ),
            (
                "one in the second half is refused",
                |part| match part {
                    [_, _, _, _, _, ..] => Fate::Contended,
                    part if part.contains(&7) => Fate::Refused,
                    _ => Fate::Committed,
                },
                "1 2 3 4 5 6 made to 8",
                "1 5 6 8",
            ),
            ("the whole is lost", |_| Fate::Lost, "away away away away away away away away", "unknown"),
            (
                "one is in the way for good",
                |part| if part.contains(&2) { Fate::Contended } else { Fate::Committed },
                "1 contended 3 4 5 6 7 8",
                "1 3 5",
            ),
        ];
        for (name, fate, answers, told) in cases {
            let (mut committed, answered, heard) = run_eight(fate).await;
            assert_eq!((answered.as_str(), heard.as_str()), (answers, told), "{name}");
            let merges = committed.len();
            committed.dedup();
            assert_eq!(committed.len(), merges, "{name}: nothing is merged twice: {committed:?}");
            assert!(committed.is_sorted(), "{name}: in the order of submission: {committed:?}");
        }
    }

    /// Merges pushes, but nothing behind a position.
    struct Steady {
        until: u64,
        merged: Mutex<Vec<(u64, u64)>>,
    }

    impl Merges for Steady {
        async fn merge(&self, submissions: Vec<Prepared>) -> Result<MergeReport, StoreError> {
            let [Prepared::Push(push)] = submissions.as_slice() else { panic!("one push at a time") };
            let (first, last) = (push.first, push.entries.last().unwrap());
            if last.seq.get() > self.until {
                return Err(StoreError::Unavailable("made to".to_owned()));
            }
            self.merged.lock().unwrap().push((first.get(), last.seq.get()));
            let effs = push.entries.iter().map(|entry| Eff(i64::try_from(entry.seq.get()).unwrap())).collect();
            let merged = Merged { acked: last.seq, chain: last.chain, eff_first: first, effs, rejects: vec![], changed: vec![] };
            Ok(MergeReport { outcomes: vec![Outcome::Merged(merged)], ..MergeReport::default() })
        }
    }

    #[tokio::test]
    async fn a_push_that_is_too_long_for_one_transaction_is_answered_as_a_whole() {
        const MOST: u64 = (mobo_core::limits::MERGE_COST_MAX / mobo_core::limits::MERGE_DOCUMENT_COST) as u64;
        let entries = 2 * MOST + 5;
        for (until, want) in [(entries, Some(entries)), (MOST, None)] {
            let store = Steady { until, merged: Mutex::default() };
            let (reply, verdict) = oneshot::channel();
            let submission = cost::tests::push((0..entries).map(|_| cost::tests::document(1)).collect());
            run(&store, vec![Job { submission, reply }], &broadcast::channel(8).0).await;
            let answer = verdict.await.unwrap();
            let pieces = store.merged.into_inner().unwrap();
            match want {
                Some(last) => {
                    let Ok(Outcome::Merged(merged)) = answer else { panic!("{answer:?}") };
                    assert_eq!((merged.acked.get(), merged.eff_first, merged.effs.len() as u64), (last, Seq::FIRST, entries));
                    assert_eq!(pieces, [(1, MOST), (MOST + 1, 2 * MOST), (2 * MOST + 1, entries)]);
                }
                None => {
                    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "the device comes again: {answer:?}");
                    assert_eq!(pieces, [(1, MOST)], "and goes on behind what was merged");
                }
            }
        }
    }

    /// Cannot merge one entry, and keeps the positions of those that it has merged and of those that it was told to quarantine.
    struct Choking {
        on: u64,
        merged: Mutex<(Vec<u64>, Vec<u64>)>,
    }

    impl Merges for Choking {
        async fn merge(&self, submissions: Vec<Prepared>) -> Result<MergeReport, StoreError> {
            let [Prepared::Push(push)] = submissions.as_slice() else { panic!("one push at a time") };
            let is_poison = |entry: &PreparedEntry| matches!(entry.content, Content::Poison(_));
            if push.entries.iter().any(|entry| entry.seq.get() == self.on && !is_poison(entry)) {
                return Err(StoreError::Damaged("made to".to_owned()));
            }
            let mut merged = self.merged.lock().unwrap();
            for entry in &push.entries {
                let place = if is_poison(entry) { &mut merged.1 } else { &mut merged.0 };
                place.push(entry.seq.get());
            }
            let last = push.entries.last().unwrap();
            let effs = push.entries.iter().map(|entry| Eff(i64::try_from(entry.seq.get()).unwrap())).collect();
            let merged = Merged { acked: last.seq, chain: last.chain, eff_first: push.first, effs, rejects: vec![], changed: vec![] };
            Ok(MergeReport { outcomes: vec![Outcome::Merged(merged)], ..MergeReport::default() })
        }
    }

    /// faults: H-15
    #[tokio::test]
    async fn an_entry_that_cannot_be_merged_takes_no_neighbour_along() {
        for (count, on) in [(1, 1), (2, 2), (7, 3), (50, 50), (50, 1), (50, 31)] {
            let store = Choking { on, merged: Mutex::default() };
            let (reply, verdict) = oneshot::channel();
            let submission = cost::tests::push((0..count).map(|_| cost::tests::document(1)).collect());
            run(&store, vec![Job { submission, reply }], &broadcast::channel(64).0).await;
            let Ok(Ok(Outcome::Merged(merged))) = verdict.await else { panic!("{count} {on}: it is answered as a whole") };
            assert_eq!((merged.acked.get(), merged.effs.len() as u64), (count, count));
            let (fine, quarantined) = store.merged.into_inner().unwrap();
            assert_eq!((fine, quarantined), ((1..=count).filter(|seq| *seq != on).collect(), vec![on]), "{count} {on}");
        }
    }
}
