//! Orders to start a new log, and what they say of the one that is closed (replication.md D2, rule R15).

use mobo_core::ids::{LaneKey, Seq};
use mobo_core::message::{Closed, Hello, LaneStatus, Refence, RefenceReason};
use mobo_core::store::StoreError;

use super::instances::word;
use super::{Door, Turned};

/// Chains that an order to refence carries, newest ones: what is older is found by its provenance.
const REFENCE_CHAINS_MAX: u64 = 1_000;

impl Door {
    /// The order to start a new incarnation because of what a hello shows of a lane; `lanes` is what the hub has of the log.
    pub(super) async fn order(
        &self,
        hello: &Hello,
        lanes: &[LaneStatus],
        (status, reason): (&LaneStatus, RefenceReason),
    ) -> Result<Refence, StoreError> {
        let timeline = self.history.era().identity.timeline;
        let report = hello.lanes.iter().find(|report| report.lane == status.lane);
        // Of what was acknowledged on another timeline, this hub may have lost some, and have something else in its place.
        let proof = report.and_then(|report| report.proof).filter(|proof| proof.timeline == timeline);
        let lane = LaneKey { device: hello.device, incarnation: hello.incarnation, lane: status.lane };
        let ends = (proof.map(|proof| proof.acked), report.map(|report| report.last));
        let refence = self.write_order(lane, ends, status.last, reason).await?;
        let mut shared = Vec::new();
        for status in lanes {
            let report = hello.lanes.iter().find(|report| report.lane == status.lane);
            let (Some(hub_last), Some(report)) = (status.last, report) else { continue };
            let (at, lane) = (hub_last.min(report.last), LaneKey { lane: status.lane, ..lane });
            let chain = if at == hub_last { Some(status.chain) } else { self.store.chain_at(self.project(), lane, at).await? };
            shared.extend(chain.map(|chain| (status.lane, at, chain)));
        }
        Ok(Refence { closed: Some(Closed { timeline, shared }), ..refence })
    }

    /// The order to start a new incarnation after a push that the lane's chain contradicts; the old log is closed.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn forked(&self, lane: LaneKey, hub_last: Option<Seq>, reason: RefenceReason) -> Result<Refence, StoreError> {
        if let Err(Turned::Store(error)) = self.twice((lane.device, lane.incarnation), word(reason)).await {
            return Err(error);
        }
        let refence = self.write_order(lane, (None, hub_last), hub_last, reason).await?;
        self.store.fence(self.project(), lane.device, lane.incarnation).await?;
        Ok(refence)
    }

    /// The hub's chains between what the device knows to be acknowledged and what both may have: the longest common prefix counts.
    async fn write_order(
        &self,
        lane: LaneKey,
        (acked, device_last): (Option<Seq>, Option<Seq>),
        hub_last: Option<Seq>,
        reason: RefenceReason,
    ) -> Result<Refence, StoreError> {
        let last = device_last.min(hub_last).map_or(0, Seq::get);
        let first = (acked.map_or(0, Seq::get) + 1).max(last.saturating_sub(REFENCE_CHAINS_MAX));
        let mut chains = Vec::new();
        for seq in (first..=last).filter_map(Seq::new) {
            if let Some(chain) = self.store.chain_at(self.project(), lane, seq).await? {
                chains.push((seq, chain));
            }
        }
        tracing::warn!(device = %lane.device, ?reason, "a device's log does not continue what the hub has: it starts a new incarnation");
        Ok(Refence { lane: lane.lane, hub_last, chains, reason, closed: None })
    }
}
