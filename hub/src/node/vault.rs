//! The socket for a backup's target. It holds an address, and what was opened there; another one takes its place while the hub runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mobo_core::backup::vault::{Vault, VaultError};
use mobo_core::kernel::{Check, ComponentSpec, Fault};
use mobo_runtime::component::{BoxFuture, Component};
use mobo_runtime::config::{Config, Define};
use mobo_runtime::tasks::Tasks;
use tokio::sync::Semaphore;

use super::{Hub, VAULT, VERSION};
use crate::backup::{Access, answer, open_vault};
use crate::settings;

/// A vault, opened when it is first needed, and again until that succeeds: a disk may be mounted later.
pub(crate) struct Target {
    /// Where it is.
    pub(crate) address: String,
    access: Access,
    open: Mutex<Option<Arc<dyn Vault>>>,
    /// One at a time opens it: where that hangs, one thread does.
    opening: Arc<Semaphore>,
}

impl Target {
    fn new(address: String, config: &Config) -> Arc<Self> {
        Arc::new(Self { address, access: Access::writer(config), open: Mutex::new(None), opening: Arc::new(Semaphore::new(1)) })
    }

    /// The vault.
    ///
    /// # Errors
    ///
    /// The vault's, while it is not there, or does not answer.
    pub(crate) async fn vault(self: &Arc<Self>) -> Result<Arc<dyn Vault>, VaultError> {
        answer(self.opened(open_vault)).await
    }

    async fn opened<F>(self: &Arc<Self>, open: F) -> Result<Arc<dyn Vault>, VaultError>
    where
        F: FnOnce(&str, &Access) -> Result<Arc<dyn Vault>, VaultError> + Send + 'static,
    {
        let broken = |why: String| VaultError::Unavailable(why);
        let turn = Arc::clone(&self.opening).acquire_owned().await.map_err(|error| broken(error.to_string()))?;
        if let Some(vault) = &*self.slot() {
            return Ok(Arc::clone(vault));
        }
        let target = Arc::clone(self);
        let opening = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let vault = open(&target.address, &target.access)?;
            *target.slot() = Some(Arc::clone(&vault));
            Ok(vault)
        });
        opening.await.unwrap_or_else(|error| Err(broken(error.to_string())))
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<dyn Vault>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use mobo_adapters::vault::FolderVault;

    use super::*;

    async fn late<T>(asked: impl Future<Output = Result<T, VaultError>>) -> Result<T, VaultError> {
        let late = |_| VaultError::Unavailable("late".to_owned());
        tokio::time::timeout(Duration::from_millis(10), asked).await.map_err(late)?
    }

    /// A disk that hangs while it is opened holds one thread, however often somebody asks; and when it answers, it is opened.
    // faults: B-11
    #[tokio::test]
    async fn a_vault_that_hangs_is_late_and_holds_one_thread() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::load(settings::ALL, &mobo_runtime::config::Sources::default()).unwrap();
        let target = Target::new(folder.path().display().to_string(), &config);
        let (hang, hangs) = mpsc::sync_channel::<()>(1);
        let began = Arc::new(AtomicU32::new(0));
        let path = folder.path().to_owned();
        let begun = Arc::clone(&began);
        let first = target.opened(move |_, _| {
            begun.fetch_add(1, Ordering::SeqCst);
            let _ = hangs.recv();
            Ok(Arc::new(FolderVault::open(&path)?) as Arc<dyn Vault>)
        });
        assert!(matches!(late(first).await, Err(VaultError::Unavailable(_))));
        for _ in 0..20 {
            let begun = Arc::clone(&began);
            let next = target.opened(move |_, _| {
                begun.fetch_add(1, Ordering::SeqCst);
                Err(VaultError::Unavailable("nobody asked".to_owned()))
            });
            assert!(matches!(late(next).await, Err(VaultError::Unavailable(_))));
        }
        drop(hang);
        while target.slot().is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(began.load(Ordering::SeqCst), 1);
        assert!(target.vault().await.is_ok());
    }
}
