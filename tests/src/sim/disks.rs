//! Disks that cannot be read in one place, or not be written at all, and what a write costs them: a device that has lived a while wakes up on one.

use std::sync::Arc;

use mobo_adapters::sqlite::edge::WriteError;
use mobo_core::author::{Edit, Intent};
use mobo_core::ids::{RecordId, RecordKey};
use mobo_core::store::StoreError;
use mobo_vfs::{Disk, Image, Tally};
use serde_json::{Map, json};

use super::device::Device;
use super::model::What;
use super::plan::Plan;
use super::world::World;

const PAGE_BYTES: usize = 4_096;
const DATABASE: &str = "edge.db";

/// A device after a calm life, and what it had said to be kept.
#[derive(Debug)]
pub struct Patient {
    device: Device,
    image: Image,
    kept: Vec<RecordKey>,
    /// So many of them are on the image.
    imaged: usize,
    next: u64,
    /// What its disk has done in that life.
    pub tally: Tally,
    /// Writes that it took in that life.
    pub writes: u64,
}

/// What a device on a bad disk could do.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Done {
    /// It has opened its store.
    pub booted: bool,
    /// Kept records that it has shown, and those that it could not read.
    pub shown: u64,
    /// Errors of reads.
    pub unread: u64,
    /// It has taken a write.
    pub wrote: bool,
}

/// A device that has lived through a run without faults.
///
/// # Panics
///
/// When the run itself breaks something.
#[must_use]
pub fn patient(seed: u64) -> Patient {
    let mut world = World::recorded(seed, Plan::calm());
    world.run().unwrap_or_else(|violation| panic!("without any fault: {violation:?}"));
    let kept: Vec<RecordKey> =
        world.model.writes.iter().filter(|write| write.what != What::Samples).filter_map(|write| write.key()).collect();
    let writes = world.model.writes.len() as u64;
    let mut device = world.devices.remove(0);
    device.life = None;
    let (image, tally) = (device.disk.image(), device.disk.tally());
    Patient { device, image, imaged: kept.len(), kept, next: 0, tally, writes }
}

impl Patient {
    /// Pages of its database.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.image.size(DATABASE).unwrap_or_default() / PAGE_BYTES
    }

    /// Wakes up where a page cannot be read, and again when it can: whatever it does, it says so, and all is there in the end.
    ///
    /// # Panics
    ///
    /// When something is gone or other than it was.
    pub fn without_page(&mut self, page: usize) -> Done {
        self.begin();
        self.device.disk.hide(DATABASE, page * PAGE_BYTES..(page + 1) * PAGE_BYTES);
        let done = self.live();
        self.device.life = None;
        self.device.disk.heal();
        let after = self.live();
        assert_eq!((after.booted, after.unread, after.wrote), (true, 0, true), "page {page}: {done:?}, then {after:?}");
        done
    }

    /// Lives on a disk that takes no writes any more, then on one that does: what it could do, and the writes that the disk has refused.
    ///
    /// # Panics
    ///
    /// When something is gone or other than it was.
    pub fn read_only(&mut self) -> (Done, u64) {
        self.begin();
        assert!(self.live().booted, "the disk is fine yet");
        self.device.disk.freeze();
        let done = self.go_on();
        let refused = self.device.disk.tally().errors;
        self.device.life = None;
        self.device.disk.heal();
        let after = self.live();
        assert_eq!((after.booted, after.unread, after.wrote), (true, 0, true), "{done:?}, then {after:?}");
        (done, refused)
    }

    fn begin(&mut self) {
        self.device.life = None;
        self.device.disk = Disk::from_image(&self.image);
        self.kept.truncate(self.imaged);
    }

    fn live(&mut self) -> Done {
        if self.device.boot().is_err() { Done::default() } else { self.go_on() }
    }

    fn go_on(&mut self) -> Done {
        let mut done = Done { booted: true, ..Done::default() };
        let Some(life) = self.device.life.as_mut() else { return Done::default() };
        let store = Arc::clone(&life.store);
        for key in &self.kept {
            match life.wait(store.record(key.clone())) {
                Ok(Some(_)) => done.shown += 1,
                Ok(None) => panic!("{key:?} was kept, and is gone without a word"),
                Err(_) => done.unread += 1,
            }
        }
        self.next += 1;
        let id = RecordId::new(format!("on-a-bad-disk-{}", self.next)).expect("a record id");
        let mut fields = Map::new();
        fields.insert("a".to_owned(), json!("w"));
        let edits = vec![Edit { id: id.clone(), intent: Intent::Put, fields }];
        let collection = What::Things.collection().id;
        match life.wait(store.write(collection, edits, None)) {
            Ok(_) => {
                done.wrote = true;
                self.kept.push(RecordKey { collection, id });
            }
            Err(WriteError::Store(StoreError::Refused(why))) => panic!("what the disk does is no fault of the writer: {why}"),
            Err(_) => {}
        }
        done
    }
}
