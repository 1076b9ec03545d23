//! What a hello shows besides who it is from: that the hub has gone back in time, or that a device appears twice (D2, rules R17, R23).

use std::collections::{BTreeMap, BTreeSet};

use mobo_core::ids::{BucketId, DeviceId, Incarnation, ProjectId};
use mobo_core::limits;
use mobo_core::message::{Code, Hello, PeerError, RefenceReason, TimelineInfo, TimelineParent};
use mobo_core::recover::{self, Known, Verdict};
use mobo_core::session::hub::Refusal;
use mobo_core::store::{Admission, DeviceRow, Twice};
use mobo_core::time::Eff;
use mobo_core::trust::{Certificate, Statement};

use super::{Door, Turned, away, error};

/// How it was found that a device appears twice.
pub(super) const fn word(reason: RefenceReason) -> &'static str {
    match reason {
        RefenceReason::Behind => "behind",
        RefenceReason::Forked => "forked",
        RefenceReason::StaleSession => "stale_session",
    }
}

/// The history as a device is told it: with the heads of its own buckets only.
pub(super) fn told(info: &TimelineInfo, held: &BTreeSet<BucketId>, hello: &Hello) -> TimelineInfo {
    let is_its = |bucket: &BucketId| held.contains(bucket) || hello.buckets.iter().any(|report| report.bucket == *bucket);
    let parent = |parent: &TimelineParent| TimelineParent {
        timeline: parent.timeline,
        heads: parent.heads.iter().filter(|head| is_its(&head.0)).copied().collect(),
    };
    TimelineInfo { timeline: info.timeline, parents: info.parents.iter().map(parent).collect() }
}

impl Door {
    /// The project that is served.
    #[must_use]
    pub fn project(&self) -> ProjectId {
        self.history.era().identity.project
    }

    /// Takes a device back that a restored hub does not know, on the certificate that it gave it (rule R23).
    pub(super) async fn readmit(&self, hello: &Hello) -> Result<DeviceRow, Turned> {
        let unknown = || away(Code::UNKNOWN_DEVICE, "the hub does not know this device: join it again with a new token");
        let (bytes, signature) = &hello.certificate;
        let era = self.history.era();
        if !Statement::Certificate(bytes).is_signed_by(&era.identity.keys.public(), signature) {
            return Err(unknown());
        }
        let certificate = Certificate::decode(bytes).map_err(|_| unknown())?;
        if certificate.project != self.project() || DeviceId::of(&certificate.key) != hello.device {
            return Err(unknown());
        }
        let device = DeviceRow {
            id: hello.device,
            key: certificate.key,
            name: certificate.name,
            certificate: bytes.clone(),
            enrolled: Eff(certificate.issued_us),
            revoked: None,
            seen: None,
            grants: certificate.buckets.into_iter().map(|bucket| (bucket, true)).collect(),
            claims: certificate.claims,
            ended: Vec::new(),
        };
        tracing::warn!(device = %device.id, name = device.name, "a device that this hub does not know has its certificate: it is taken back");
        self.store.readmit(self.project(), device.clone()).await?;
        Ok(self.store.device(self.project(), device.id).await?.unwrap_or(device))
    }

    /// Starts a new timeline where the hello proves that this hub was restored; the device comes back into it.
    pub(super) async fn look_back(&self, hello: &Hello, admission: &Admission) -> Result<(), Turned> {
        let era = self.history.era();
        let heads: BTreeMap<_, _> = match &hello.checkpoint {
            Some(_) => self.store.heads(self.project()).await?.into_iter().collect(),
            None => BTreeMap::new(),
        };
        let key = era.identity.keys.public();
        let known = Known { project: self.project(), key: &key, timeline: &era.timeline, lanes: &admission.lanes, heads: &heads };
        let Verdict::Restored(foreign) = recover::judge(hello, &known) else { return Ok(()) };
        self.history.fork(era.timeline.timeline, foreign).await?;
        let detail = "the hub has gone back in time and has just found it out: connect again, and give back what it lost".to_owned();
        Err(Turned::Away(Refusal::Error(PeerError { code: Code::BUSY, detail, fatal: true, retry_after_ms: 100 })))
    }

    /// Notes that a log was found in two places, and tells the operator, once. A device whose logs do that again and again is shut out for a
    /// while: something copies its folder, and each copy would begin another log.
    pub(crate) async fn twice(&self, (device, incarnation): (DeviceId, Incarnation), reason: &str) -> Result<(), Turned> {
        let now = self.time.now();
        let since = now.before(u64::try_from(limits::TWICE_WINDOW.as_micros()).unwrap_or(u64::MAX));
        let twice = Twice { device, incarnation, reason: reason.to_owned(), at: now };
        let (is_new, count) = self.store.note_twice(self.project(), twice, since).await?;
        if is_new {
            tracing::error!(
                target: "alarm",
                %device,
                %incarnation,
                reason,
                "a device appears twice: its folder was copied, or an older copy of it was brought back. Nothing is lost, and each goes on \
                 under a log of its own. Find out where the other one runs: if both are meant to stay, give the copy a new data folder and \
                 `mobo-edge join` it as a device of its own; if one was stolen, `mobo-hub device revoke` it"
            );
        }
        if count > limits::TWICE_MAX {
            let detail = "this device has begun one new log after the other: something copies its folder, or brings old copies of it back, again \
                          and again. It is shut out for a while, and works on by itself; ask the operator of the hub";
            tracing::error!(target: "alarm", %device, count, "a device is shut out for a while: it begins one new log after the other");
            let retry_after_ms = u32::try_from(limits::TWICE_PAUSE.as_millis()).unwrap_or(u32::MAX);
            return Err(Turned::Away(Refusal::Error(PeerError { retry_after_ms, ..error(Code::SUSPENDED, detail) })));
        }
        Ok(())
    }
}
