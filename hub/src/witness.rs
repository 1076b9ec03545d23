//! What a hub's folder remembers of its store (rule R17). A database that somebody has put back to an older state, a server that was replaced
//! by a standby without its last commits, a file that was copied over: none of them says so, and the first merge would give positions out again
//! that devices hold already. So the hub notes how far its store was, outside of it, looks at every boot and every few seconds whether it
//! still is, and begins a new timeline where it is not. What was committed after the last note, devices prove with what the hub has signed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mobo_core::ids::Timeline;
use mobo_core::limits;
use mobo_core::message::TimelineInfo;
use mobo_core::recover::knows;
use mobo_core::store::{HubStore, StoreError};
use mobo_runtime::data_dir::{read_text, replace_file};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::history::History;
use crate::node::Opened;

/// The file in the hub's folder.
pub const SEEN_FILE: &str = "store.seen";

/// How far a store was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Seen {
    timeline: Timeline,
    /// The reservation of the hub's time, which is only ever raised (rule R6).
    time_us: i64,
    /// Positions used in all buckets: they never get fewer (rule R28).
    positions: u64,
}

impl Seen {
    /// True if a store that was as far as this cannot be as it is `now`, with the history `info`, unless it was put back.
    #[must_use]
    pub fn is_ahead_of(&self, now: &Self, info: &TimelineInfo) -> bool {
        if self.timeline == now.timeline {
            return self.positions > now.positions || self.time_us > now.time_us;
        }
        // On a timeline that came later everything may be less. One that is not known any more was begun after the copy was made.
        !knows(info, self.timeline)
    }

    /// True if the store was further in what it holds: on another timeline, or with more positions.
    #[must_use]
    pub fn is_beyond(&self, other: &Self) -> bool {
        self.timeline != other.timeline || self.positions > other.positions
    }

    fn is_worth_noting(&self, noted: Option<&Self>) -> bool {
        let Some(noted) = noted else { return true };
        let aged = self.time_us.saturating_sub(noted.time_us) >= limits::WITNESS_TIME.as_micros().try_into().unwrap_or(i64::MAX);
        (noted.timeline, noted.positions) != (self.timeline, self.positions) || aged
    }
}

/// Looks how far a store is.
///
/// # Errors
///
/// The store's.
pub async fn look(store: &dyn HubStore, history: &History) -> Result<(Seen, TimelineInfo), StoreError> {
    let row = store.current().await?;
    let positions = store.positions(history.era().identity.project).await?;
    Ok((Seen { timeline: row.timeline.timeline, time_us: row.time.0, positions }, row.timeline))
}

/// Looks at the store, and begins a new timeline where it was put back since it was `seen`. Gives how far it is.
///
/// # Errors
///
/// The store's.
pub async fn settle(store: &dyn HubStore, history: &History, seen: Option<&Seen>) -> Result<Seen, StoreError> {
    let was = history.era().timeline.timeline;
    let (now, info) = look(store, history).await?;
    let lost = store.has_gone_back() || seen.is_some_and(|seen| seen.is_ahead_of(&now, &info));
    if !mobo_core::protect!("history.went-back", lost) {
        return Ok(now);
    }
    tracing::error!(
        target: "alarm",
        was = seen.map_or(0, |seen| seen.positions),
        is = now.positions,
        "the store holds less than this hub has seen in it: it was put back to an older state, or a standby without the last commits took its place"
    );
    let foreign = seen.map(|seen| seen.timeline).filter(|timeline| !knows(&info, *timeline));
    history.fork(was, foreign.into_iter().collect()).await?;
    Ok(look(store, history).await?.0)
}

/// What the folder remembers; `None` where it remembers nothing.
#[must_use]
pub fn read(file: &Path) -> Option<Seen> {
    let note: Value = serde_json::from_str(&read_text(file, limits::WITNESS_BYTES_MAX).ok()?).ok()?;
    let timeline = u128::from_str_radix(note.get("timeline")?.as_str()?, 16).ok()?;
    Some(Seen {
        timeline: Timeline(timeline.to_be_bytes()),
        time_us: note.get("time_us")?.as_i64()?,
        positions: note.get("positions")?.as_u64()?,
    })
}

/// Notes how far the store is. A disk that does not take it leaves the older note, which says less and nothing wrong.
pub fn keep(file: &Path, seen: &Seen) {
    let timeline = format!("{:032x}", u128::from_be_bytes(seen.timeline.0));
    let note = json!({ "timeline": timeline, "time_us": seen.time_us, "positions": seen.positions });
    if let Err(error) = replace_file(file, note.to_string().as_bytes()) {
        tracing::warn!(%error, file = %file.display(), "how far the store is could not be noted");
    }
}

/// Looks again and again, until the part stops.
pub(crate) async fn run(file: PathBuf, opened: Arc<Opened>, stopping: CancellationToken) {
    let mut noted = read(&file);
    let mut seen = noted;
    let mut every = tokio::time::interval(limits::HISTORY_LOOK);
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            _ = every.tick() => {}
        }
        match settle(opened.store.as_ref(), &opened.history, seen.as_ref()).await {
            Ok(now) => seen = Some(now),
            Err(error) => tracing::debug!(%error, "cannot look how far the store is"),
        }
        if let Some(now) = seen.filter(|now| now.is_worth_noting(noted.as_ref())) {
            keep(&file, &now);
            noted = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mobo_core::message::TimelineParent;

    #[test]
    fn r17_a_store_that_holds_less_than_was_seen_was_put_back() {
        let seen = Seen { timeline: Timeline([2; 16]), time_us: 500, positions: 10 };
        let info = |timeline: u8, parents: &[u8]| TimelineInfo {
            timeline: Timeline([timeline; 16]),
            parents: parents.iter().map(|of| TimelineParent { timeline: Timeline([*of; 16]), heads: vec![] }).collect(),
        };
        type Case<'a> = (u8, &'a [u8], i64, u64, bool);
        let cases: [Case<'_>; 7] = [
            (2, &[1], 500, 10, false),
            (2, &[1], 900, 12, false),
            (2, &[1], 900, 9, true),
            (2, &[1], 499, 10, true),
            (3, &[2, 1], 100, 3, false),
            (1, &[], 900, 12, true),
            (4, &[1], 900, 12, true),
        ];
        for (timeline, parents, time_us, positions, want) in cases {
            let now = Seen { timeline: Timeline([timeline; 16]), time_us, positions };
            assert_eq!(seen.is_ahead_of(&now, &info(timeline, parents)), want, "{now:?} {parents:?}");
        }
    }

    #[test]
    fn what_was_seen_is_there_after_a_restart_and_a_torn_note_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(SEEN_FILE);
        let seen = Seen { timeline: Timeline([7; 16]), time_us: -5, positions: u64::MAX };
        assert_eq!(read(&file), None);
        keep(&file, &seen);
        assert_eq!(read(&file), Some(seen));
        std::fs::write(&file, "{\"timeline\":\"07").unwrap();
        assert_eq!(read(&file), None);
    }
}
