//! Who may come in: enrolments and hellos, decided against the store.

mod carried;
mod herd;
mod instances;
mod orders;
mod pace;

use std::collections::BTreeSet;
use std::sync::Arc;

use mobo_core::buckets::rights_of;
use mobo_core::ids::{BootId, BucketId, DeviceId, Incarnation, Lane, LaneKey, ProjectId, RecordId, Ver};
use mobo_core::limits;
use mobo_core::merge::Rights;
use mobo_core::message::{
    Code, Enrol, Enrolled, Grant, Hello, LaneReport, LaneStatus, PeerError, Refence, RefenceReason, Reject, SignedHello, Welcome,
};
use mobo_core::session::hub::Refusal;
use mobo_core::store::{Admission, Arrival, DeviceRow, HubStore, InviteState, QuarantineRow, StoreError};
use mobo_core::trust::{Certificate, Statement, mask_secret, secret_hash};
use mobo_protocol::{FEATURES, PROTO};
use mobo_runtime::machine;

pub use carried::Carried;
pub use herd::Herd;
use instances::{told, word};
pub use pace::Paces;

use crate::auth::Accounts;
use crate::auth::book::Event;
use crate::history::History;
use crate::hub_time::HubTime;

/// Lets devices in.
#[derive(Debug)]
pub struct Door {
    /// The store.
    pub store: Arc<dyn HubStore>,
    /// The hub's history.
    pub history: Arc<History>,
    /// The hub's time.
    pub time: Arc<HubTime>,
    /// Where enrolments are written down; `None` where nobody reads it.
    pub accounts: Option<Arc<Accounts>>,
    /// After how long a silent peer is pinged.
    pub keepalive: std::time::Duration,
    /// How many are let in at once.
    pub herd: Herd,
    /// How much each of them writes.
    pub paces: Paces,
}

/// A device that was let in.
#[derive(Debug)]
pub struct Guest {
    /// Its key: what its pushes are signed with.
    pub key: mobo_core::ids::PublicKey,
    /// What it may write.
    pub rights: Rights,
    /// The hub's answer.
    pub welcome: Box<Welcome>,
    /// The log that its log continues: whoever is still at that one is another instance of the device.
    pub continues: Option<Incarnation>,
    /// Refusals that the device may not have heard of: their acks were lost, or this is its first word since.
    pub rejects: Vec<Reject>,
}

/// Why somebody stays outside.
#[derive(Debug)]
pub enum Turned {
    /// The protocol has an answer for it.
    Away(Refusal),
    /// The store could not say.
    Store(StoreError),
}

impl From<StoreError> for Turned {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn error(code: Code, detail: &str) -> PeerError {
    PeerError { code, detail: detail.to_owned(), fatal: true, retry_after_ms: 0 }
}

fn away(code: Code, detail: &str) -> Turned {
    Turned::Away(Refusal::Error(error(code, detail)))
}

impl Door {
    /// Checks a hello on a link with this channel binding.
    ///
    /// # Errors
    ///
    /// [`Turned`].
    pub async fn hello(&self, signed: &SignedHello, binding: &[u8]) -> Result<Guest, Turned> {
        let _place = self.herd.enter().await.map_err(|busy| Turned::Away(Refusal::Error(busy)))?;
        let (hello, project) = (&signed.hello, self.project());
        let device = self.recognise(signed, binding).await?;
        let pace = self.paces.look(device.id, self.time.machine().now());
        pace.map_err(|wait| Turned::Away(Refusal::Error(wait)))?;
        let era = self.history.era();
        if mobo_core::protect!("time.recalls:hello", era.recovering) {
            self.time.recall(era.found_out, hello.told).await?;
        }
        let offset = self.time.now().0.saturating_sub(i64::try_from(hello.now.mono.0).unwrap_or(i64::MAX));
        let admission = self.arrive(hello, Some((hello.now.boot, offset))).await?;
        self.look_back(hello, &admission).await?;
        if let Some(refence) = self.refence(hello, &admission).await? {
            self.twice((hello.device, hello.incarnation), word(refence.reason)).await?;
            self.store.fence(project, hello.device, hello.incarnation).await?;
            return Err(Turned::Away(Refusal::Refence(refence)));
        }
        if self.store.is_continued(project, hello.device, hello.incarnation).await? {
            // Another instance found by itself that it is a copy, and has gone on under a log of its own.
            self.twice((hello.device, hello.incarnation), "continued").await?;
        }
        self.admit(hello, device, admission).await
    }

    /// The device of a hello, if it is one of this hub's and has signed it.
    async fn recognise(&self, signed: &SignedHello, binding: &[u8]) -> Result<DeviceRow, Turned> {
        let hello = &signed.hello;
        if hello.proto_min > PROTO || hello.proto_max < PROTO {
            return Err(away(Code::VERSION, "no common protocol version: upgrade the older of the two"));
        }
        let project = self.project();
        if hello.project != project {
            return Err(away(Code::WRONG_PROJECT, "this hub does not serve the device's project"));
        }
        let device = match self.store.device(project, hello.device).await? {
            Some(device) => device,
            None => self.readmit(hello).await?,
        };
        let statement = Statement::Hello { binding, hello: &signed.bytes };
        if !statement.is_signed_by(&device.key, &signed.signature) {
            return Err(away(Code::BAD_SIGNATURE, "the hello is not signed by the device's key"));
        }
        if device.revoked.is_some() {
            return Err(away(Code::REVOKED, "this device was revoked: ask the operator of the hub, and join again"));
        }
        Ok(device)
    }

    async fn arrive(&self, hello: &Hello, boot: Option<(BootId, i64)>) -> Result<Admission, StoreError> {
        let now = self.time.now();
        // A generation counts only on the timeline that gave it (R17).
        let session =
            hello.session.filter(|(timeline, _)| *timeline == self.history.era().identity.timeline).map_or(0, |(_, session)| session);
        let arrival = Arrival {
            device: hello.device,
            incarnation: hello.incarnation,
            parent: hello.parent,
            ordinal: hello.ordinal,
            boot,
            now,
            session,
        };
        self.store.arrive(self.project(), arrival).await
    }

    /// What makes a log unfit to go on (replication.md D2): it is shorter than the hub's, differs from it, or belongs to an older session.
    async fn refence(&self, hello: &Hello, admission: &Admission) -> Result<Option<Refence>, StoreError> {
        let shown =
            hello.session.filter(|(timeline, _)| *timeline == self.history.era().identity.timeline).map_or(0, |(_, session)| session);
        for status in &admission.lanes {
            let report = hello.lanes.iter().find(|report| report.lane == status.lane);
            if let Some(reason) = self.unfit(hello, status, report).await? {
                return Ok(Some(self.order(hello, &admission.lanes, (status, reason)).await?));
            }
        }
        // A log without entries is one that a refence has just started: it cannot be behind, whatever session its device remembers.
        let is_fresh = admission.lanes.iter().all(|status| status.last.is_none());
        let stale = shown < admission.confirmed && !is_fresh;
        let stale = mobo_core::protect!("hello.stale-session", stale);
        let Some(status) = admission.lanes.first().filter(|_| stale || admission.fenced) else { return Ok(None) };
        Ok(Some(self.order(hello, &admission.lanes, (status, RefenceReason::StaleSession)).await?))
    }

    async fn unfit(&self, hello: &Hello, status: &LaneStatus, report: Option<&LaneReport>) -> Result<Option<RefenceReason>, StoreError> {
        let (Some(hub_last), report) = (status.last, report) else { return Ok(None) };
        let is_whole = |report: &&LaneReport| !mobo_core::protect!("log.forked:behind", report.last < hub_last);
        let Some(report) = report.filter(is_whole) else { return Ok(Some(RefenceReason::Behind)) };
        if mobo_core::protect!("log.forked:hello", report.last == hub_last && report.chain != status.chain) {
            return Ok(Some(RefenceReason::Forked));
        }
        // The device's own proof must lie on the hub's chain.
        let Some(proof) = report.proof.filter(|proof| proof.acked <= hub_last) else { return Ok(None) };
        let lane = LaneKey { device: hello.device, incarnation: hello.incarnation, lane: status.lane };
        let chain = self.store.chain_at(self.project(), lane, proof.acked).await?;
        Ok(chain.filter(|chain| *chain != proof.chain).map(|_| RefenceReason::Forked))
    }

    async fn admit(&self, hello: &Hello, device: DeviceRow, admission: Admission) -> Result<Guest, Turned> {
        let (rights, grants) = self.rights(&device).await?;
        let held: BTreeSet<BucketId> = grants.iter().map(|grant| grant.bucket).collect();
        let revokes = hello.buckets.iter().map(|report| report.bucket).filter(|bucket| !held.contains(bucket)).collect();
        let schema_rev = self.store.schema(self.project()).await?.rev;
        let era = self.history.era();
        let welcome = Welcome {
            proto: PROTO,
            features: hello.features & FEATURES,
            timeline: told(&era.timeline, &held, hello),
            session: admission.session,
            ordinal: admission.ordinal,
            hub_time: self.time.now(),
            lanes: admission.lanes,
            grants,
            revokes,
            schema_rev,
            frame_bytes_max: u32::try_from(limits::FRAME_BODY_BYTES_MAX).unwrap_or(u32::MAX),
            keepalive_ms: u32::try_from(self.keepalive.as_millis()).unwrap_or(u32::MAX),
            recovering: era.recovering,
        };
        let rejects = self.unheard(hello, &welcome.lanes).await?;
        let continues = hello.parent.map(|parent| parent.incarnation);
        Ok(Guest { key: device.key, rights, welcome: Box::new(welcome), continues, rejects })
    }

    /// The refusals on record behind what the device has heard, where the hub is further than that.
    async fn unheard(&self, hello: &Hello, lanes: &[LaneStatus]) -> Result<Vec<Reject>, StoreError> {
        let heard = |lane| hello.lanes.iter().find(|report| report.lane == lane).and_then(|report| report.proof).map(|proof| proof.acked);
        let mut unheard = Vec::new();
        if lanes.iter().any(|status| status.last > heard(status.lane)) {
            let rows = self.store.refusals(self.project(), hello.device, hello.incarnation).await?;
            unheard.extend(rows.into_iter().filter(|row| Some(row.seq) > heard(row.lane.lane)));
        }
        // A log that has just begun: an order to refence says how far the hub has the one before it, and not what it refused of that. Until
        // the device holds an ack of the new one, which follows those refusals, it may have missed them: the hub may be further by then.
        let has_heard = hello.lanes.iter().any(|report| report.proof.is_some());
        if let Some(parent) = hello.parent.filter(|_| mobo_core::protect!("reject.of-parent", !has_heard)) {
            let rows = self.store.refusals(self.project(), hello.device, parent.incarnation).await?;
            unheard.extend(rows.into_iter().filter(|row| row.lane.lane == Lane::State && Some(row.seq) <= parent.seq));
        }
        Ok(unheard.into_iter().map(reject_of).collect())
    }

    /// What a device may write, and the buckets that it may read: by name, and by its claims under the rules that are in force.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn rights(&self, device: &DeviceRow) -> Result<(Rights, Vec<Grant>), StoreError> {
        let project = self.project();
        let (schema, moving) = (self.store.schema(project).await?, self.store.rebucketing(project).await?);
        let rights = rights_of(&schema, &moving, device);
        if rights.truncated {
            let (device, max) = (&device.name, limits::BUCKETS_PER_DEVICE_MAX);
            tracing::warn!(device, max, "the claims of a device give it more buckets than a device can hold: it gets the first of them");
        }
        let fresh = || machine::random(self.time.machine()).map(BucketId::from_entropy);
        let keys = rights.buckets.keys().map(|key| Ok((key.clone(), fresh()?)));
        let keys = keys.collect::<Result<_, StoreError>>()?;
        let buckets = self.store.ensure_buckets(project, keys).await?;
        let write = |key: &str| rights.buckets.get(key).copied().unwrap_or_default();
        let grants = buckets.into_iter().map(|(key, bucket)| Grant { bucket, write: write(&key), key }).collect();
        Ok((Rights::Buckets(rights.grants), grants))
    }

    /// Enrols the holder of an invitation's secret: certifies its key, and grants it the invitation's buckets.
    ///
    /// # Errors
    ///
    /// The answer to give.
    pub async fn enrol(&self, enrol: &Enrol, binding: &[u8]) -> Result<Enrolled, PeerError> {
        let _place = self.herd.enter().await?;
        let secret = if enrol.masked { mask_secret(binding, &enrol.secret).unwrap_or_default() } else { enrol.secret.clone() };
        if !(Statement::Enrol { binding, secret: &secret }).is_signed_by(&enrol.key, &enrol.signature) {
            return Err(error(Code::BAD_SIGNATURE, "the request is not signed by the key that it enrols"));
        }
        let busy = |store: StoreError| PeerError { retry_after_ms: 2_000, ..error(Code::BUSY, &store.to_string()) };
        let (project, now, hash) = (self.project(), self.time.now(), secret_hash(&secret));
        let state = self.store.invite_state(project, hash, now).await.map_err(busy)?;
        let id = DeviceId::of(&enrol.key);
        let invite = match &state {
            InviteState::Open(invite) => invite,
            InviteState::Used(user) if *user == id => return self.enrolled_before(project, id).await,
            InviteState::Used(_) | InviteState::Expired | InviteState::Unknown => return Err(refused(&state)),
        };
        let name = [invite.name.as_str(), enrol.name.as_str()].into_iter().find(|name| !name.is_empty()).unwrap_or_default();
        let name = if name.is_empty() { id.to_string().chars().take(8).collect() } else { name.to_owned() };
        let certificate = Certificate {
            project,
            key: enrol.key,
            name: name.clone(),
            buckets: invite.buckets.clone(),
            issued_us: now.0,
            claims: invite.claims.clone(),
        }
        .encode();
        let grants = invite.buckets.iter().map(|bucket| (bucket.clone(), true)).collect();
        let row = DeviceRow {
            id,
            key: enrol.key,
            name,
            certificate: certificate.clone(),
            enrolled: now,
            revoked: None,
            seen: None,
            grants,
            claims: invite.claims.clone(),
            ended: Vec::new(),
        };
        match self.store.enrol(project, hash, row).await.map_err(busy)? {
            InviteState::Open(_) => {
                self.write_down(project, Event::new("device.enrolled", format!("device:{id}"), id.to_string())).await;
                Ok(self.sign(certificate))
            }
            InviteState::Used(user) if user == id => self.enrolled_before(project, id).await,
            other @ (InviteState::Used(_) | InviteState::Expired | InviteState::Unknown) => {
                self.write_down(project, Event::new("device.refused", format!("device:{id}"), id.to_string())).await;
                Err(refused(&other))
            }
        }
    }

    /// A device that is in stays in, although the log could not be written.
    async fn write_down(&self, project: ProjectId, event: Event) {
        let Some(accounts) = &self.accounts else { return };
        if let Err(error) = accounts.note(project, event).await {
            tracing::warn!(%error, "an enrolment is not in the audit log");
        }
    }

    /// The device asks again because the answer was lost: it gets the same one.
    async fn enrolled_before(&self, project: ProjectId, id: DeviceId) -> Result<Enrolled, PeerError> {
        match self.store.device(project, id).await {
            Ok(Some(device)) if device.revoked.is_none() => Ok(self.sign(device.certificate)),
            Ok(_) => Err(error(Code::REVOKED, "this device was revoked; ask for a new token and a new key")),
            Err(store) => Err(error(Code::BUSY, &store.to_string())),
        }
    }

    fn sign(&self, certificate: Vec<u8>) -> Enrolled {
        let signature = Statement::Certificate(&certificate).sign(&self.history.era().identity.keys);
        Enrolled { certificate, signature }
    }
}

fn reject_of(row: QuarantineRow) -> Reject {
    let record = row.record.and_then(|(collection, id)| Some((collection, RecordId::new(id).ok()?)));
    let (lane, incarnation) = (row.lane.lane, row.lane.incarnation);
    Reject { lane, incarnation, seq: row.seq, code: Code(row.code), detail: row.detail, record, hub_ver: Ver(0) }
}

fn refused(state: &InviteState) -> PeerError {
    match state {
        InviteState::Used(_) => error(Code::TOKEN_USED, "this join token has been used; make another with `mobo-hub device invite`"),
        InviteState::Expired => error(Code::TOKEN_EXPIRED, "this join token has expired; make another with `mobo-hub device invite`"),
        InviteState::Open(_) | InviteState::Unknown => {
            error(Code::TOKEN_INVALID, "this hub has given no such join token; make one with `mobo-hub device invite`")
        }
    }
}
