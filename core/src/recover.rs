//! A hub that has gone back in time, and how its fleet gives back what it lost (rules R16 to R23).
//!
//! A restore makes a new **timeline**: the copy's history goes on under another name, so that no position, version or session of the lost
//! part can be taken for one of the new part. `proof` finds out from a hello that the hub was restored; [`fork`] writes the history of
//! the new timeline; [`Flow`] is what a device then does, in this order:
//!
//! | stage \ event | admitted on a new timeline | `Schema`, last | acks up to where its lanes were | offer read | `OfferAck` | `Error` unsupported |
//! |---|---|---|---|---|---|---|
//! | – | → Naming: offer nothing under each timeline that the hub does not know, one at a time; where there is none, → Schema | take it in | | | | |
//! | Naming | | take it in | | | the last one's: → Schema: offer definitions | end the session |
//! | Schema | | → Pushing: push each lane from hub.last + 1 | | | | end the session |
//! | Pushing | | take it in | → Former: push what the hub lacks of the logs that it left behind, one lane after the other | | | end the session |
//! | Former | | take it in | the last lane's: → Offering: read the first bucket's page | | | end the session |
//! | Offering | | take it in | | send it, one at a time | more: read the next page; else the bucket is done: the next one; none left → Done | end the session |
//! | Done | | take it in | | | | pull every bucket from its fork head |
//!
//! Until Done no pull is sent, so no batch, sweep or purge touches a bucket that was not offered; what a device may not read any more goes
//! when it was offered. A session may end at any point: the store knows which buckets are still to be offered ([`fork_head`] says from
//! where), and the next session starts the table over. Local writes go on all the while, and are pushed as ever.
//!
//! The hub joins what is offered ([`crate::merge::Joining`]): for it there is no order between devices, and the same offer twice is the
//! same as once (rule R11).

mod flow;
mod proof;
mod schema;

pub use flow::{Flow, Former, Moved, Step, Tail};
pub use proof::{Known, Verdict, judge};
pub use schema::{Adoption, adopt};

use crate::ids::{BucketId, Position, Timeline};
use crate::limits;
use crate::message::{TimelineInfo, TimelineParent};

/// The history of a timeline that forks off here: `heads` are where every bucket stands.
///
/// `foreign` are timelines that devices have shown and this hub does not know: it lived on them after the copy was made that it was restored
/// from. Nothing is known of their heads, so whoever comes from there offers all that it has.
#[must_use]
pub fn fork(from: &TimelineInfo, fresh: Timeline, heads: Vec<(BucketId, Position)>, foreign: &[Timeline]) -> TimelineInfo {
    let mut parents = vec![TimelineParent { timeline: from.timeline, heads }];
    parents.extend(foreign.iter().map(|timeline| TimelineParent { timeline: *timeline, heads: Vec::new() }));
    parents.extend(from.parents.iter().cloned());
    parents.truncate(limits::TIMELINE_PARENTS_MAX);
    TimelineInfo { timeline: fresh, parents }
}

/// Up to where a bucket's positions on the timeline `of` are also those of `info`; 0 where nothing is known of them.
#[must_use]
pub fn fork_head(info: &TimelineInfo, of: Timeline, bucket: BucketId) -> Position {
    let parent = info.parents.iter().find(|parent| parent.timeline == of);
    let head = parent.and_then(|parent| parent.heads.iter().find(|head| head.0 == bucket));
    head.map_or(Position(0), |head| head.1)
}

/// True if `timeline` is this history, or one that it comes from.
#[must_use]
pub fn knows(info: &TimelineInfo, timeline: Timeline) -> bool {
    info.timeline == timeline || info.parents.iter().any(|parent| parent.timeline == timeline)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r17_a_fork_knows_its_parents_and_where_it_left_them() {
        let (a, b, c, lost) = (Timeline([1; 16]), Timeline([2; 16]), Timeline([3; 16]), Timeline([9; 16]));
        let bucket = BucketId::new(7).unwrap();
        let first = TimelineInfo { timeline: a, parents: vec![] };
        let second = fork(&first, b, vec![(bucket, Position(5))], &[]);
        let third = fork(&second, c, vec![(bucket, Position(8))], &[lost]);
        assert_eq!(third.parents.iter().map(|parent| parent.timeline).collect::<Vec<_>>(), [b, lost, a]);
        let heads = [(b, 8), (a, 5), (lost, 0), (Timeline([4; 16]), 0)];
        for (timeline, head) in heads {
            assert_eq!(fork_head(&third, timeline, bucket), Position(head));
        }
        assert!(knows(&third, lost) && knows(&third, c) && !knows(&second, c));
        assert_eq!(fork_head(&third, b, BucketId::new(8).unwrap()), Position(0));
    }

    #[test]
    fn a_history_has_an_end() {
        let mut info = TimelineInfo { timeline: Timeline([0; 16]), parents: vec![] };
        for n in 1..=u8::try_from(limits::TIMELINE_PARENTS_MAX + 5).unwrap() {
            info = fork(&info, Timeline([n; 16]), vec![], &[]);
        }
        assert_eq!(info.parents.len(), limits::TIMELINE_PARENTS_MAX);
        assert!(!knows(&info, Timeline([0; 16])));
    }
}
