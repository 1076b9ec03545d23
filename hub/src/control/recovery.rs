//! How recovery is going, and the operator's word about it (rules R17, R18, R22).

use mobo_core::store::{Recovery, Twice};
use serde_json::{Value, json};

use super::Desk;
use crate::admin::{AdminError, show_time};

/// What a restore brings back, and what it does not.
const PROMISE: &str = "exact: every entry that a device still keeps in its outbox; as it is now: every record and deletion that any device \
                       holds; not recovered: what was written through this hub only and delivered to no device, samples that were trimmed on \
                       their device, decisions of the conflict ledger, accounts";

impl Desk {
    /// For `status`: how the last recovery went or goes, and which devices have not given back what they hold.
    pub(super) async fn recovery_status(&self) -> (Value, u64) {
        let Ok(opened) = self.0.opened() else { return (Value::Null, 0) };
        match opened.store.recovery(opened.project).await {
            Ok(Some(recovery)) => (show(&recovery), recovery.unseen.len() as u64),
            Ok(None) => (Value::Null, 0),
            Err(error) => (json!({ "problem": error.to_string() }), 0),
        }
    }

    /// True while devices give back what this hub has lost.
    pub(super) fn recovering(&self) -> bool {
        self.0.opened().is_ok_and(|opened| opened.history.era().recovering)
    }

    /// Devices that appeared twice, newest first, by name.
    pub(super) async fn twice(&self) -> Value {
        let Ok(opened) = self.0.opened() else { return json!([]) };
        let (Ok(found), Ok(devices)) = (opened.store.twice(opened.project).await, opened.store.devices(opened.project).await) else {
            return json!([]);
        };
        let show = |twice: &Twice| {
            let name = devices.iter().find(|device| device.id == twice.device).map(|device| device.name.clone());
            json!({
                "device": twice.device.to_string(), "name": name, "incarnation": twice.incarnation.to_string(), "found": twice.reason,
                "at": show_time(twice.at),
            })
        };
        Value::Array(found.iter().map(show).collect())
    }

    /// `recover …`
    pub(super) async fn recover(&self, what: &str) -> Result<Value, AdminError> {
        let opened = self.0.opened()?;
        match what {
            "start" => {
                opened.history.fork(opened.history.era().timeline.timeline, Vec::new()).await?;
                Ok(self.recovery_status().await.0)
            }
            "finish" => {
                let Some(hints) = opened.history.finish().await? else {
                    return Err(AdminError::Usage("no recovery is going on".to_owned()));
                };
                if let Ok(merges) = self.0.merges() {
                    merges.tell(hints);
                }
                Ok(self.recovery_status().await.0)
            }
            _ => Ok(self.recovery_status().await.0),
        }
    }
}

fn show(recovery: &Recovery) -> Value {
    json!({
        "timeline": recovery.timeline.to_string(),
        "since": show_time(recovery.since),
        "ended": recovery.ended.map(show_time),
        "by_operator": recovery.by_operator,
        "given_back": recovery.joined,
        "refused": recovery.refused,
        "unseen": recovery.unseen.iter().map(|(id, name)| json!({ "id": id.to_string(), "name": name })).collect::<Vec<_>>(),
        "promise": PROMISE,
    })
}
