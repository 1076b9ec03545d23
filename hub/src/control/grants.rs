//! Rules of collections and rights of devices, as the control socket is asked for them.

use mobo_core::buckets::rights_of;
use mobo_core::limits;
use mobo_core::schema::Schema;
use mobo_core::store::{DeviceRow, Rebucketing};
use mobo_core::time::Eff;
use serde_json::{Value, json};

use super::{Desk, show_collection, text, texts};
use crate::admin::{AdminError, Late, show_time};
use crate::backup::Asked;
use crate::node::Job;

impl Desk {
    /// `collection alter`, `device grant` and `device ungrant`.
    pub(super) async fn change_rights(&self, verb: &str, args: &Value) -> Result<Value, AdminError> {
        let name = text(args, "name");
        match verb {
            "collection alter" => {
                let (add, rename, retire) = (texts(args, "add"), texts(args, "rename"), texts(args, "retire"));
                let fields = [&add, &rename, &retire].iter().any(|words| !words.is_empty());
                let altered = if fields { Some(self.0.alter_fields(&name, &add, &rename, &retire).await?) } else { None };
                match (altered, texts(args, "buckets")) {
                    (Some(altered), buckets) if buckets.is_empty() => Ok(show_collection(&altered, &*self.0.schema()?)),
                    (_, buckets) => Ok(show_collection(&self.0.alter_rules(&name, buckets).await?, &*self.0.schema()?)),
                }
            }
            "device grant" => {
                let write = args.get("read_only").and_then(Value::as_bool) != Some(true);
                for bucket in texts(args, "buckets") {
                    self.0.grant(&name, &bucket, write).await?;
                }
                self.show_device(&name).await
            }
            _ => {
                let word = text(args, "late");
                let late = if word.is_empty() { Some(Late::AcceptIfMadeBefore) } else { Late::from_name(&word) };
                let known = || AdminError::Usage(format!("--late {word}: use accept_if_made_before_revoke or reject"));
                let late = late.ok_or_else(known)?;
                for bucket in texts(args, "buckets") {
                    self.0.ungrant(&name, &bucket, late).await?;
                }
                self.show_device(&name).await
            }
        }
    }

    /// Shuts a device out at once. It is final when a backup has it: a hub that is restored from an older one lets the device in again
    /// (rule R23).
    pub(super) async fn revoke(&self, name: &str) -> Result<Value, AdminError> {
        let device = self.0.revoke(name).await?;
        let shipping = self.0.backups.ask(|reply| Job::Create(Asked::default(), reply));
        let note = match tokio::time::timeout(limits::REVOCATION_SAFE, shipping).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("the vault is slow".to_owned()),
        };
        let note = note.map(|why| {
            format!("the device is shut out, and a hub that is restored from an older backup lets it in again: {why}; `device show` says when it is final")
        });
        Ok(json!({ "revoked": device.to_string(), "final": note.is_none(), "note": note }))
    }

    pub(super) async fn show_device(&self, name: &str) -> Result<Value, AdminError> {
        let device = self.0.device(name).await?;
        Ok(self.show_devices(vec![device]).await?.into_iter().next().unwrap_or_default())
    }

    pub(super) async fn show_devices(&self, devices: Vec<DeviceRow>) -> Result<Vec<Value>, AdminError> {
        let opened = self.0.opened()?;
        let (schema, moving) = (self.0.schema()?, opened.store.rebucketing(opened.project).await?);
        let live = |device: &DeviceRow| self.0.sessions().is_some_and(|sessions| sessions.is_live(device.id));
        let safe = self.0.backups.report().last.map(|last| Eff(last.taken_us));
        Ok(devices.iter().map(|device| describe((&schema, &moving), device, (live(device), safe))).collect())
    }

    /// Collections whose records are being placed by new rules.
    pub(super) async fn rebucketing(&self) -> Vec<Value> {
        let (Ok(opened), Ok(schema)) = (self.0.opened(), self.0.schema()) else { return Vec::new() };
        let moving = opened.store.rebucketing(opened.project).await.unwrap_or_default();
        let name =
            |moving: &Rebucketing| schema.get(moving.collection).map_or_else(|| moving.collection.to_string(), |found| found.name.clone());
        moving
            .iter()
            .map(|moving| json!({ "collection": name(moving), "done": moving.done, "moved": moving.moved, "total": moving.total }))
            .collect()
    }
}

fn describe((schema, moving): (&Schema, &[Rebucketing]), device: &DeviceRow, (live, safe): (bool, Option<Eff>)) -> Value {
    let rights = rights_of(schema, moving, device);
    let read_only: Vec<&String> = rights.buckets.iter().filter(|(_, write)| !**write).map(|(key, _)| key).collect();
    let ended = |(key, until): &(String, Eff)| {
        let accepted = (until.0 != i64::MIN).then(|| show_time(*until));
        json!({ "bucket": key, "accepted_until": accepted })
    };
    json!({
        "name": device.name, "id": device.id.to_string(), "live": live, "enrolled": show_time(device.enrolled),
        "seen": device.seen.map(show_time), "revoked": device.revoked.map(show_time),
        "final": device.revoked.map(|revoked| safe.is_some_and(|safe| revoked <= safe)),
        "buckets": rights.buckets.keys().collect::<Vec<_>>(), "read_only": read_only,
        "claims": device.claims.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
        "ended": device.ended.iter().map(ended).collect::<Vec<_>>(),
    })
}
