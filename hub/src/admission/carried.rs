//! Devices that say hello in a bundle (SPEC.md, section 20).

use mobo_core::ids::PublicKey;
use mobo_core::merge::Rights;
use mobo_core::message::{Code, Hello, LaneStatus, Reject, SignedHello};
use mobo_core::store::StoreError;

use super::{Door, Turned, away};

/// A device whose bundle is taken.
#[derive(Debug)]
pub struct Carried {
    /// Its label.
    pub name: String,
    /// Its key: what its pushes are signed with.
    pub key: PublicKey,
    /// What it may write.
    pub rights: Rights,
    /// What the hub has of its log, before anything of the bundle.
    pub lanes: Vec<LaneStatus>,
}

impl Door {
    /// Checks the hello of a bundle. That it is behind proves nothing: there may be newer bundles, or the device has synced since.
    ///
    /// # Errors
    ///
    /// [`Turned`].
    pub async fn carried(&self, signed: &SignedHello, binding: &[u8]) -> Result<Carried, Turned> {
        let device = self.recognise(signed, binding).await?;
        // How long it was carried nobody knows, so its clock says nothing of this hub's time.
        let admission = self.arrive(&signed.hello, None).await?;
        self.look_back(&signed.hello, &admission).await?;
        if admission.fenced {
            let detail = "this log of the device was closed, because the device goes on under another one: export from the device again";
            return Err(away(Code::UNSUPPORTED, detail));
        }
        let (rights, _) = self.rights(&device).await?;
        Ok(Carried { name: device.name, key: device.key, rights, lanes: admission.lanes })
    }

    /// The refusals on record that the device of this hello has not heard of, where the hub has its lanes up to here.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn refusals(&self, hello: &Hello, lanes: &[LaneStatus]) -> Result<Vec<Reject>, StoreError> {
        self.unheard(hello, lanes).await
    }
}
