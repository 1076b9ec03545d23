//! The backup key of a running hub, and another one in its place.

use mobo_core::backup::keys::BackupKey;
use mobo_core::store::StoreError;
use mobo_runtime::{key_file, machine};

use super::{BACKUP_KEY_FILE, NEXT_KEY_FILE, Running, off};
use crate::backup::{Asked, BackupFailure};

impl Running {
    pub(super) fn key(&self, file: &str) -> Result<BackupKey, BackupFailure> {
        let keys = key_file::load_or_create(&self.hub.folder.join(file)).map_err(|error| StoreError::Refused(error.to_string()))?;
        Ok(BackupKey(keys.secret()))
    }

    /// Goes on under another backup key. It is on the disk before the vault has its keyring, and takes the old one's place after that: killed
    /// in between, the old one still opens everything, and the next rotation uses the new one.
    pub(super) async fn rotate(&mut self) -> Result<String, BackupFailure> {
        self.shipment(Asked::default()).await?;
        let key = self.key(NEXT_KEY_FILE)?;
        let Some((_, shipper)) = &mut self.open else {
            return Err(off());
        };
        shipper.rotate(key.clone(), machine::random(&self.hub.clock)?).await?;
        let (from, to) = (self.hub.folder.join(NEXT_KEY_FILE), self.hub.folder.join(BACKUP_KEY_FILE));
        let failed = |error: std::io::Error| {
            BackupFailure::Refused(format!("the new key stays in {}: {error}; move it to {}", from.display(), to.display()))
        };
        std::fs::rename(&from, &to).and_then(|()| std::fs::File::open(&self.hub.folder)?.sync_all()).map_err(failed)?;
        self.shipment(Asked { snapshot: true, ..Asked::default() }).await?;
        Ok(key.id())
    }
}
