//! Fresh stores with all their tables, made once: every world begins with the same ones.

use std::path::Path;
use std::sync::OnceLock;

use mobo_adapters::sqlite::SqliteHubStore;
use mobo_adapters::sqlite::edge::{EdgeStore, Sources};
use mobo_core::ids::Nonce;
use mobo_core::store::StoreError;
use mobo_runtime::machine::Machine;
use mobo_vfs::{Disk, Image};

use super::machine::SimMachine;
use crate::seed::Rng;

/// A device's files.
pub(super) fn edge() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| {
        made("edge.db", |path| {
            let machine = SimMachine::new(Default::default(), Rng::new(0), (false, 0));
            let sources = Sources { moment: std::sync::Arc::new(move || machine.moment()), nonce: std::sync::Arc::new(|| Nonce([0; 8])) };
            EdgeStore::open_inline(path, mobo_vfs::NAME, sources).map(drop)
        })
    })
}

/// A hub's files.
pub(super) fn hub() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| made("hub.db", |path| SqliteHubStore::open_inline(path, mobo_vfs::NAME).map(drop)))
}

fn made(name: &str, open: impl FnOnce(&Path) -> Result<(), StoreError>) -> Image {
    let disk = Disk::new();
    open(&disk.folder().join(name)).expect("nothing is wrong with this disk");
    disk.image()
}
