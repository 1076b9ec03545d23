//! What an operator changes while devices are in the field: rules, rights, and the fate of refused entries.

use mobo_core::buckets::is_bucket_key;
use mobo_core::ids::DeviceId;
use mobo_core::limits;
use mobo_core::merge::{Outcome, Prepared, Retry, Rights};
use mobo_core::message::Reject;
use mobo_core::schema::{Collection, FieldChanges, Kind};
use mobo_core::store::{QuarantineStatus, QuarantinedEntry, StoreError};
use mobo_core::time::Eff;

use super::AdminError;
use crate::node::Hub;

/// What becomes of edits that a device has made in a bucket before it was taken away, and that have not come yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Late {
    /// They are merged when they come. The hub tells when they were made by the device's clocks, as it does for every entry: a device that
    /// lies about them can pass a later edit off as an earlier one.
    AcceptIfMadeBefore,
    /// They are refused.
    Reject,
}

impl Late {
    /// The policy for a word; `None` for another word.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "accept_if_made_before_revoke" => Some(Self::AcceptIfMadeBefore),
            "reject" => Some(Self::Reject),
            _ => None,
        }
    }
}

/// How often a change of fields waits for SQL that others go on writing.
const ALTER_LOOKS_MAX: u32 = 20;

impl Hub {
    /// Changes which buckets the records of a collection are in. They are placed anew in the background.
    ///
    /// # Errors
    ///
    /// [`AdminError`].
    pub async fn alter_rules(&self, name: &str, rules: Vec<String>) -> Result<Collection, AdminError> {
        let opened = self.opened()?;
        let _one_at_a_time = opened.schema_lock.lock().await;
        let known = opened.store.schema(opened.project).await?;
        let collection = known.by_name(name).ok_or_else(|| self.no_collection(&known, name))?;
        if collection.kind == Kind::Stream {
            return Err(AdminError::Usage(format!("\"{name}\" is a stream: samples are in no bucket, so it has no rules")));
        }
        let rules = if rules.is_empty() {
            return Err(AdminError::Usage("give at least one --bucket, such as --bucket site:{site}, or --bucket all".to_owned()));
        } else if rules == [mobo_core::buckets::ALL] {
            Vec::new()
        } else {
            rules
        };
        mobo_core::schema::check_collection(&Collection { rules: rules.clone(), ..collection.clone() })?;
        let id = collection.id;
        let schema = opened.store.alter_rules(opened.project, id, rules).await?;
        let altered = schema.get(id).cloned().ok_or_else(|| self.no_collection(&known, name))?;
        opened.changed(schema);
        Ok(altered)
    }

    /// Changes the fields of a collection (`NAME:TYPE` is added, `OLD=NEW` renamed): devices of older versions of it go on writing.
    ///
    /// # Errors
    ///
    /// [`AdminError`].
    pub async fn alter_fields(&self, name: &str, add: &[String], rename: &[String], retire: &[String]) -> Result<Collection, AdminError> {
        let opened = self.opened()?;
        let pair = |text: &String| {
            let pair = text.split_once('=').map(|(before, after)| (before.to_owned(), after.to_owned()));
            pair.ok_or_else(|| AdminError::Usage(format!("--rename {text}: write OLD=NEW, such as --rename site=place")))
        };
        let _one_at_a_time = opened.schema_lock.lock().await;
        let known = opened.store.schema(opened.project).await?;
        let collection = known.by_name(name).ok_or_else(|| self.no_collection(&known, name))?;
        let home = super::Home { id: collection.id, name, kind: collection.kind, known: &known };
        let changes = FieldChanges {
            rename: rename.iter().map(pair).collect::<Result<_, _>>()?,
            retire: retire.to_vec(),
            add: add.iter().map(|text| super::field(text, &home)).collect::<Result<_, _>>()?,
        };
        let altered = mobo_core::schema::altered(collection, &changes)?;
        let mut looks = 0;
        let schema = loop {
            // What was written by SQL is named by the labels before.
            while crate::intake::step(self, &opened).await? {}
            match opened.store.alter_fields(opened.project, altered.clone()).await {
                Err(StoreError::Contended(_)) if looks < ALTER_LOOKS_MAX => looks += 1,
                altered => break altered?,
            }
        };
        opened.changed(schema);
        Ok(altered)
    }

    fn no_collection(&self, schema: &mobo_core::schema::Schema, name: &str) -> AdminError {
        let near = mobo_core::names::nearest(name, schema.iter().map(|collection| collection.name.as_str())).map(str::to_owned);
        AdminError::NoSuch { what: "collection", name: name.to_owned(), near }
    }

    /// Gives a device a bucket, or another right on it; a device that is connected hears of it at once.
    ///
    /// # Errors
    ///
    /// [`AdminError`].
    pub async fn grant(&self, name: &str, bucket: &str, write: bool) -> Result<DeviceId, AdminError> {
        let opened = self.opened()?;
        let device = self.device(name).await?;
        check_bucket(bucket)?;
        let held = device.grants.iter().filter(|(held, _)| held != bucket).count();
        if held >= limits::BUCKETS_PER_DEVICE_MAX {
            return Err(AdminError::Usage(format!("a device holds at most {} buckets", limits::BUCKETS_PER_DEVICE_MAX)));
        }
        opened.store.grant(opened.project, device.id, bucket.to_owned(), write).await?;
        self.rights_changed(device.id);
        Ok(device.id)
    }

    /// Takes a bucket away from a device, whether it was granted or follows from its claims.
    ///
    /// # Errors
    ///
    /// [`AdminError`].
    pub async fn ungrant(&self, name: &str, bucket: &str, late: Late) -> Result<DeviceId, AdminError> {
        let opened = self.opened()?;
        let device = self.device(name).await?;
        check_bucket(bucket)?;
        let (_, grants) = self.door_rights(&device).await?;
        if grants.iter().all(|held| held != bucket) {
            let near = mobo_core::names::nearest(bucket, grants.iter().map(String::as_str)).map(str::to_owned);
            return Err(AdminError::NoSuch { what: "device", name: format!("{name} with bucket {bucket}"), near });
        }
        let until = match late {
            Late::AcceptIfMadeBefore => opened.time.now(),
            Late::Reject => Eff(i64::MIN),
        };
        opened.store.ungrant(opened.project, device.id, bucket.to_owned(), until).await?;
        self.rights_changed(device.id);
        Ok(device.id)
    }

    fn rights_changed(&self, device: DeviceId) {
        if let Some(sessions) = self.sessions() {
            sessions.rights_changed(Some(device));
        }
    }

    /// What a device may write, and the keys of the buckets that it has.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn door_rights(&self, device: &mobo_core::store::DeviceRow) -> Result<(Rights, Vec<String>), AdminError> {
        let opened = self.opened()?;
        let (schema, moving) = (opened.store.schema(opened.project).await?, opened.store.rebucketing(opened.project).await?);
        let rights = mobo_core::buckets::rights_of(&schema, &moving, device);
        Ok((Rights::Buckets(rights.grants), rights.buckets.into_keys().collect()))
    }

    /// One refused entry.
    ///
    /// # Errors
    ///
    /// [`AdminError`].
    pub async fn quarantined(&self, n: u64) -> Result<QuarantinedEntry, AdminError> {
        let opened = self.opened()?;
        let missing = || AdminError::NoSuch { what: "quarantine", name: n.to_string(), near: None };
        opened.store.quarantined(opened.project, n).await?.ok_or_else(missing)
    }

    /// Merges a refused entry after all, under what its device may write now; gives the refusal where it is refused again.
    ///
    /// # Errors
    ///
    /// [`AdminError`].
    pub async fn retry_quarantined(&self, n: u64) -> Result<Option<Reject>, AdminError> {
        let opened = self.opened()?;
        let entry = self.quarantined(n).await?;
        self.must_be_open(&entry)?;
        let device = opened.store.device(opened.project, entry.row.lane.device).await?;
        let rights = match device {
            Some(device) => self.door_rights(&device).await?.0,
            // Of the hub's own log.
            None => Rights::All,
        };
        let retry = Retry { lane: entry.row.lane, seq: entry.row.seq, rights };
        match self.merges()?.merge(Prepared::Retry(Box::new(retry))).await? {
            Outcome::Merged(merged) => Ok(merged.rejects.into_iter().next()),
            Outcome::Refused(error) => Err(AdminError::Usage(error.to_string())),
            Outcome::Nack { .. } | Outcome::Refence { .. } => {
                Err(AdminError::Usage("the log of this entry is not known any more".to_owned()))
            }
        }
    }

    /// Lets a refused entry go. It stays on record.
    ///
    /// # Errors
    ///
    /// [`AdminError`].
    pub async fn drop_quarantined(&self, n: u64) -> Result<(), AdminError> {
        let opened = self.opened()?;
        let entry = self.quarantined(n).await?;
        self.must_be_open(&entry)?;
        if opened.store.drop_quarantined(opened.project, n, opened.time.now()).await? {
            return Ok(());
        }
        Err(AdminError::Usage(format!("refused entry {n} was retried or dropped meanwhile")))
    }

    fn must_be_open(&self, entry: &QuarantinedEntry) -> Result<(), AdminError> {
        if entry.status == QuarantineStatus::Open {
            return Ok(());
        }
        Err(AdminError::Usage(format!("refused entry {} is not open any more: it was {}", entry.row.n, entry.status.word())))
    }
}

fn check_bucket(key: &str) -> Result<(), AdminError> {
    if is_bucket_key(key) {
        return Ok(());
    }
    Err(AdminError::Usage(format!("\"{key}\" cannot be a bucket's key: it holds no spaces or braces")))
}
