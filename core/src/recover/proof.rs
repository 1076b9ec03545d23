//! What a hello proves about the hub itself (rule R17).

use std::collections::BTreeMap;

use super::knows;
use crate::ids::{BucketId, LaneKey, Position, ProjectId, PublicKey, Timeline};
use crate::message::{Hello, LaneReport, LaneStatus, TimelineInfo};
use crate::trust::{LaneHead, Statement, decode_checkpoint};

/// What a hub knows when a device says hello, each read after the hello came.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The project.
    pub project: ProjectId,
    /// The hub's public key: what its word is recognised by.
    pub key: &'a PublicKey,
    /// Its history.
    pub timeline: &'a TimelineInfo,
    /// The lanes of the device's log.
    pub lanes: &'a [LaneStatus],
    /// The head of every bucket.
    pub heads: &'a BTreeMap<BucketId, Position>,
}

/// What a hello says about the hub.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Nothing against it.
    Sound,
    /// The hub has forgotten what it said: it was restored from an older copy. With the timelines that it does not know any more.
    Restored(Vec<Timeline>),
}

/// Holds what a device shows against what the hub knows. Only the hub's own signature proves anything.
///
/// What was said on a parent of the current timeline is known to be lost, and proves nothing new.
#[must_use]
pub fn judge(hello: &Hello, known: &Known<'_>) -> Verdict {
    let (mut restored, mut foreign) = (false, Vec::new());
    let mut shown = |timeline: Timeline, above: bool, is_signed: &dyn Fn() -> bool| {
        let is_foreign = !knows(known.timeline, timeline);
        // Signatures are dear: they are looked at only where they decide.
        if (is_foreign || above && timeline == known.timeline.timeline) && is_signed() {
            restored = true;
            if is_foreign && !foreign.contains(&timeline) {
                foreign.push(timeline);
            }
        }
    };
    for report in &hello.lanes {
        if let Some(proof) = report.proof {
            let last = known.lanes.iter().find(|status| status.lane == report.lane).and_then(|status| status.last);
            shown(proof.timeline, Some(proof.acked) > last, &|| ack_is_signed(hello, report, known));
        }
    }
    if let Some((bytes, signature)) = &hello.checkpoint
        && let Ok((timeline, heads)) = decode_checkpoint(bytes)
    {
        let above = heads.iter().any(|(bucket, position, _)| known.heads.get(bucket).copied().unwrap_or_default() < *position);
        shown(timeline, above, &|| Statement::Checkpoint(bytes).is_signed_by(known.key, signature));
    }
    if restored { Verdict::Restored(foreign) } else { Verdict::Sound }
}

fn ack_is_signed(hello: &Hello, report: &LaneReport, known: &Known<'_>) -> bool {
    let Some(proof) = report.proof else { return false };
    let lane = LaneKey { device: hello.device, incarnation: hello.incarnation, lane: report.lane };
    let head = LaneHead { project: known.project, lane, last: proof.acked, chain: proof.chain };
    Statement::Ack(&head, proof.timeline).is_signed_by(known.key, &proof.signature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::ids::{Chain, DeviceId, Incarnation, Lane, Seq, Signature};
    use crate::message::{AckProof, TimelineParent};
    use crate::time::{Moment, Mono, Wall, WallQuality};
    use crate::trust::{KeyPair, checkpoint_bytes};

    const NOW: Timeline = Timeline([7; 16]);
    const PARENT: Timeline = Timeline([6; 16]);
    const LOST: Timeline = Timeline([9; 16]);

    fn hello(keys: &KeyPair, acked: (Timeline, u64), checkpoint: (Timeline, u64)) -> Hello {
        let (project, device) = (ProjectId::new(1).unwrap(), DeviceId([1; 16]));
        let (incarnation, lane) = (Incarnation::new(3).unwrap(), Lane::State);
        let (last, chain) = (Seq::new(acked.1).unwrap(), Chain([4; 32]));
        let head = LaneHead { project, lane: LaneKey { device, incarnation, lane }, last, chain };
        let signature = Statement::Ack(&head, acked.0).sign(keys);
        let bytes = checkpoint_bytes(checkpoint.0, &[(BucketId::new(5).unwrap(), Position(checkpoint.1), Digest::default())]);
        let signed = Statement::Checkpoint(&bytes).sign(keys);
        Hello {
            proto_min: 1,
            proto_max: 1,
            features: 0,
            project,
            device,
            incarnation,
            parent: None,
            ordinal: None,
            session: None,
            nonce: [0; 16],
            lanes: vec![LaneReport { lane, last, chain, proof: Some(AckProof { timeline: acked.0, acked: last, chain, signature }) }],
            buckets: vec![],
            schema_rev: 0,
            now: Moment { boot: crate::ids::BootId([0; 8]), mono: Mono(0), wall: Wall(0), quality: WallQuality::None },
            frame_bytes_max: 0,
            certificate: (vec![], Signature([0; 64])),
            checkpoint: Some((bytes, signed)),
            told: None,
        }
    }

    #[test]
    fn r17_only_the_hubs_own_word_above_its_own_state_proves_a_restore() {
        let (hub, other) = (KeyPair::from_secret(&[1; 32]), KeyPair::from_secret(&[2; 32]));
        let timeline = TimelineInfo { timeline: NOW, parents: vec![TimelineParent { timeline: PARENT, heads: vec![] }] };
        let heads = BTreeMap::from([(BucketId::new(5).unwrap(), Position(10))]);
        let status = |lane| LaneStatus { lane, last: Seq::new(10), chain: Chain([4; 32]), safe: None, credit_bytes: 0, eff: None };
        let lanes = Lane::ALL.map(status);
        let restored = |foreign: &[Timeline]| Verdict::Restored(foreign.to_vec());
        let cases = [
            (&hub, (NOW, 10), (NOW, 10), Verdict::Sound),
            (&hub, (NOW, 11), (NOW, 10), restored(&[])),
            (&hub, (NOW, 10), (NOW, 11), restored(&[])),
            (&other, (NOW, 11), (NOW, 11), Verdict::Sound),
            // Known to be lost.
            (&hub, (PARENT, 99), (PARENT, 99), Verdict::Sound),
            // From a life that this copy knows nothing of, however far.
            (&hub, (LOST, 1), (PARENT, 1), restored(&[LOST])),
            (&hub, (LOST, 99), (LOST, 99), restored(&[LOST])),
            (&other, (LOST, 1), (LOST, 1), Verdict::Sound),
        ];
        for (keys, acked, checkpoint, want) in cases {
            let known =
                Known { project: ProjectId::new(1).unwrap(), key: &hub.public(), timeline: &timeline, lanes: &lanes, heads: &heads };
            assert_eq!(judge(&hello(keys, acked, checkpoint), &known), want, "{acked:?} {checkpoint:?}");
        }
    }
}
