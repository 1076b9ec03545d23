//! The socket for a backup's target. It holds an address, and what was opened there; another one takes its place while the hub runs.

use std::sync::{Arc, Mutex, PoisonError};

use mobo_core::backup::vault::{Vault, VaultError};
use mobo_core::kernel::{Check, ComponentSpec, Fault};
use mobo_runtime::component::{BoxFuture, Component};
use mobo_runtime::config::{Config, Define};
use mobo_runtime::tasks::Tasks;

use super::{Hub, VAULT, VERSION};
use crate::backup::{Access, open_vault};
use crate::settings;

/// A vault, opened when it is first needed, and again until that succeeds: a disk may be mounted later.
pub(crate) struct Target {
    /// Where it is.
    pub(crate) address: String,
    access: Access,
    open: Mutex<Option<Arc<dyn Vault>>>,
}

impl Target {
    fn new(address: String, config: &Config) -> Arc<Self> {
        Arc::new(Self { address, access: Access::writer(config), open: Mutex::new(None) })
    }

    /// The vault.
    ///
    /// # Errors
    ///
    /// The vault's, while it is not there.
    pub(crate) async fn vault(self: &Arc<Self>) -> Result<Arc<dyn Vault>, VaultError> {
        let target = Arc::clone(self);
        let opening = tokio::task::spawn_blocking(move || {
            let mut open = target.open.lock().unwrap_or_else(PoisonError::into_inner);
            match &*open {
                Some(vault) => Ok(Arc::clone(vault)),
                None => {
                    let vault = open_vault(&target.address, &target.access)?;
                    *open = Some(Arc::clone(&vault));
                    Ok(vault)
                }
            }
        });
        opening.await.unwrap_or_else(|error| Err(VaultError::Unavailable(error.to_string())))
    }
}

pub(super) struct VaultPart(pub(super) Arc<Hub>);

impl VaultPart {
    fn configured(&self) -> String {
        self.0.config.get(&settings::BACKUP_URL)
    }
}

impl Component for VaultPart {
    fn spec(&self) -> ComponentSpec {
        ComponentSpec::optional(VAULT, VERSION)
    }

    fn configure(&self, _: &Config) -> Result<(), Fault> {
        Ok(())
    }

    fn post(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async {
            let address = self.configured();
            if address.is_empty() {
                return vec![Check::pass("vault", "none: nothing is backed up, and nothing becomes safe")];
            }
            let advice = "hub data goes on without it, and what is new is kept until it is there; look at the disk or the network";
            vec![match Target::new(address.clone(), &self.0.config).vault().await {
                Ok(vault) => Check::pass("vault", vault.place()),
                Err(error @ VaultError::Refused(_)) => {
                    Check::fail("vault", error.to_string(), format!("set {}", settings::BACKUP_URL.definition().key))
                }
                Err(error) => Check::warn("vault", error.to_string(), advice),
            }]
        })
    }

    fn load(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async {
            let address = self.configured();
            if !address.is_empty() {
                self.0.vault.fill(Target::new(address, &self.0.config));
            }
            Ok(())
        })
    }

    fn start(&self, _: Tasks) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }

    fn swap(&self, address: String) -> BoxFuture<'_, Result<String, Fault>> {
        Box::pin(async move {
            let target = Target::new(address, &self.0.config);
            let key = settings::BACKUP_URL.definition().key;
            let advice = format!("give another folder or bucket; {key} stays as it is");
            let vault = target.vault().await.map_err(|error| Fault::new(error.to_string(), advice))?;
            let said = format!("backups go to {} until the node stops; set {key} to keep it", vault.place());
            self.0.vault.fill(target);
            Ok(said)
        })
    }

    fn stop(&self, _: tokio::time::Instant) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async {
            self.0.vault.take();
            Ok(())
        })
    }
}
