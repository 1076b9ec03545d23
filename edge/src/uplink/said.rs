//! What a device says of itself and of its log, on a link or in a bundle.

use mobo_adapters::sqlite::edge::Outgoing;
use mobo_core::ids::{Lane, LaneKey, Seq};
use mobo_core::limits;
use mobo_core::message::{Hello, Push, SignedHello};
use mobo_core::store::StoreError;
use mobo_core::trust::{LaneHead, Statement};
use mobo_protocol::{FEATURES, PROTO, hello_bytes};
use mobo_runtime::machine;

use super::Uplink;

fn not_joined() -> StoreError {
    StoreError::Refused("this device has not joined a hub yet: run `mobo-edge join TOKEN`".to_owned())
}

impl Uplink {
    /// A hello, bound to the way that it takes.
    ///
    /// # Errors
    ///
    /// The store's; [`StoreError::Refused`] before the device has joined.
    pub async fn hello(&self, binding: &[u8]) -> Result<SignedHello, StoreError> {
        let report = self.store.report().await?;
        let identity = report.node.identity.ok_or_else(not_joined)?;
        let hello = Hello {
            proto_min: PROTO,
            proto_max: PROTO,
            features: FEATURES,
            project: identity.project,
            device: identity.device,
            incarnation: report.node.incarnation.ok_or_else(not_joined)?,
            parent: report.node.parent,
            ordinal: report.node.ordinal,
            session: report.node.session,
            nonce: machine::random(self.machine.as_ref())?,
            lanes: report.lanes,
            buckets: report.buckets,
            checkpoint: report.checkpoint,
            told: report.told,
            schema_rev: report.node.schema_rev,
            now: self.machine.moment(),
            frame_bytes_max: u32::try_from(limits::FRAME_BODY_BYTES_MAX).unwrap_or(u32::MAX),
            certificate: (identity.certificate, identity.certificate_signature),
        };
        let bytes = hello_bytes(&hello);
        let signature = Statement::Hello { binding, hello: &bytes }.sign(&self.keys);
        Ok(SignedHello { hello, bytes, signature })
    }

    /// A push of these entries, with its head signed.
    ///
    /// # Errors
    ///
    /// As for [`hello`](Self::hello).
    pub async fn push(&self, lane: Lane, outgoing: Outgoing) -> Result<Push, StoreError> {
        let identity = self.store.node().await?.identity.ok_or_else(not_joined)?;
        let last = Seq::new(outgoing.first.get() + outgoing.entries.len() as u64 - 1).unwrap_or(outgoing.first);
        let key = LaneKey { device: identity.device, incarnation: outgoing.incarnation, lane };
        let head = LaneHead { project: identity.project, lane: key, last, chain: outgoing.head_chain };
        Ok(Push {
            lane,
            incarnation: outgoing.incarnation,
            first: outgoing.first,
            prev_chain: outgoing.prev_chain,
            head_chain: outgoing.head_chain,
            signature: Statement::Push(&head).sign(&self.keys),
            entries: outgoing.entries,
            on_behalf: None,
        })
    }
}
