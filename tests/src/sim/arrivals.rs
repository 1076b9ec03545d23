//! Where devices come from: their machines, and how they join.

use std::sync::Arc;

use mobo_adapters::sqlite::edge::Identity;
use mobo_core::backoff::Backoff;
use mobo_core::ids::Incarnation;
use mobo_core::message::Enrol;
use mobo_core::store::{HubStore, Invite, StoreError};
use mobo_core::time::Eff;
use mobo_core::trust::{KeyPair, Statement, secret_hash};
use mobo_runtime::machine::{Machine, random};
use mobo_vfs::Disk;

use super::device::Device;
use super::machine::SimMachine;
use super::world::World;

impl World {
    pub(super) fn machine(&mut self, nth: usize) -> Arc<SimMachine> {
        let drift = self.rng.below(2 * self.plan.drift_ppm + 1).cast_signed() - self.plan.drift_ppm.cast_signed();
        let no_clock = self.plan.clockless && nth.is_multiple_of(2);
        let machine = SimMachine::new(Arc::clone(&self.time), self.rng.fork(), (no_clock, drift));
        machine.reboot();
        Arc::new(machine)
    }

    pub(super) fn device(&mut self, (name, site): (String, &'static str), keys: KeyPair, disk: Disk, machine: Arc<SimMachine>) -> Device {
        Device {
            name,
            keys,
            site,
            disk,
            machine,
            images: Vec::new(),
            backoff: Backoff::default(),
            broker: super::sensors::Broker::default(),
            life: None,
            lineage: Vec::new(),
            keep_bytes: self.plan.keep_bytes,
            history: self.model.history(),
            rolled_back: false,
            destroyed: false,
            sick: false,
            lies: None,
            partition: None,
            dialing: true,
            restarting: false,
        }
    }

    /// The device joins: the hub's own enrolment, without a link.
    pub(super) fn join(&mut self, device: &mut Device) -> Result<(), StoreError> {
        let secret: [u8; 32] = self.hub.machine.random()?;
        let hub_key = self.hub.keys.public();
        let life = self.hub.life.as_mut().expect("it has booted");
        let (store, door, project) = (Arc::clone(&life.store), Arc::clone(&life.door), life.opened.project);
        let mut buckets = vec!["all".to_owned(), format!("site:{}", device.site)];
        if self.plan.crews {
            buckets.push(format!("crew:{}", device.site));
        }
        if self.plan.yards_every_us.is_some() {
            buckets.push(format!("yard:{}", device.site));
        }
        let invite =
            Invite { secret_hash: secret_hash(&secret), name: device.name.clone(), buckets, claims: Vec::new(), expires: Eff(i64::MAX) };
        life.wait(store.invite(project, invite))?;
        let signature = Statement::Enrol { binding: b"", secret: &secret }.sign(&device.keys);
        let enrol = Enrol { secret: secret.to_vec(), masked: false, key: device.keys.public(), name: device.name.clone(), signature };
        let enrolled = life.wait(async { door.enrol(&enrol, b"").await });
        let enrolled = enrolled.map_err(|error| StoreError::Refused(error.detail))?;
        let identity = Identity {
            project,
            device: device.keys.device(),
            hub_key,
            hub_addresses: Vec::new(),
            certificate: enrolled.certificate,
            certificate_signature: enrolled.signature,
        };
        let fresh = Incarnation::from_entropy(random(device.machine.as_ref())?);
        let life = device.life.as_mut().expect("it has booted");
        let store = Arc::clone(&life.store);
        life.wait(store.join(identity, fresh))
    }
}
