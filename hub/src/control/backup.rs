//! Verbs about backups, and how they are going.

use mobo_core::backup::vault::VaultError;
use mobo_core::kernel::topics;
use mobo_core::rfc3339;
use mobo_runtime::control::ControlError;
use serde_json::{Value, json};

use super::Desk;
use crate::backup::{Asked, BackupFailure, Shipped};
use crate::node::{Job, Prune, Pruned};

impl Desk {
    /// For `status`.
    pub(super) fn backup_status(&self) -> Value {
        let report = self.0.backups.report();
        json!({
            "place": report.place,
            "last": report.last.map(|last| rfc3339::format(last.taken_us)),
            "safe": report.last.map(|last| last.totals.entries),
            "anchor": report.last.map(|last| last.anchor.to_string()),
            "problem": report.problem.map(|(why, _)| why),
            "cpu_s": self.0.backups.shipping.spent().as_secs_f64(),
            "drilled": self.0.backups.proven().good_us.map(rfc3339::format),
        })
    }

    /// `backup …`; `None` for another verb.
    pub(super) async fn backup(&self, verb: &str, args: &Value) -> Option<Result<Value, ControlError>> {
        let flag = |name: &str| args.get(name).and_then(Value::as_bool).unwrap_or(false);
        match verb {
            "backup create" => {
                let asked = Asked { snapshot: flag("snapshot") || flag("anew"), anew: flag("anew"), ..Asked::default() };
                let shipped = self.0.backups.ask(|reply| Job::Create(asked, reply)).await;
                Some(shipped.map(|shipped| self.show_shipped(shipped.as_ref())).map_err(|error| explain(&error)))
            }
            "backup rotate" => {
                let rotated = self.0.backups.ask(Job::Rotate).await;
                Some(rotated.map(|key| json!({ "key": key })).map_err(|error| explain(&error)))
            }
            "backup prune" => {
                let word = |name: &str| args.get(name).and_then(Value::as_str).filter(|word| !word.is_empty()).map(str::to_owned);
                let ask = Prune { dry_run: flag("dry_run"), credential: word("key_id").zip(word("secret")) };
                let pruned = self.0.backups.ask(|reply| Job::Prune(ask, reply)).await;
                Some(pruned.map(|pruned| show_pruned(&pruned)).map_err(|error| explain(&error)))
            }
            "backup hold" => {
                let number = args.get("number").and_then(Value::as_u64).unwrap_or(0);
                let held = self.0.backups.ask(|reply| Job::Hold((number, flag("hold")), reply)).await;
                Some(held.map(|held| json!({ "held": held })).map_err(|error| explain(&error)))
            }
            "backup told" => Some(self.backup_told(args)),
            "backup drill" => Some(self.0.backups.drill().await.map_err(|error| explain(&error))),
            _ => None,
        }
    }

    /// What a command has done by itself, and the bus is to hear of.
    fn backup_told(&self, args: &Value) -> Result<Value, ControlError> {
        let word = |name: &str| args.get(name).and_then(Value::as_str);
        let what = word("what").filter(|what| ["verify", "restore"].contains(what));
        let Some((what, ok)) = what.zip(args.get("ok").and_then(Value::as_bool)) else {
            return Err(ControlError::usage("usage", "nothing is said of a backup".to_owned(), "give `what`, verify or restore, and `ok`"));
        };
        self.0.board.tell(topics::backup(what, ok, word("detail").map(str::to_owned)));
        Ok(json!({}))
    }

    fn show_shipped(&self, shipped: Option<&Shipped>) -> Value {
        let Some(shipped) = shipped else {
            let status = self.backup_status();
            return json!({ "new": false, "anchor": status.get("anchor"), "taken": status.get("last"), "place": status.get("place") });
        };
        let Shipped { manifest, anchor, .. } = shipped;
        json!({
            "new": true,
            "anchor": anchor.to_string(),
            "taken": rfc3339::format(manifest.taken_us),
            "place": self.0.backups.report().place,
            "snapshot": manifest.is_base(),
            "objects": manifest.members.len(),
            "rows": manifest.members.iter().map(|member| member.rows).sum::<u64>(),
            "bytes": shipped.bytes(),
            "entries": manifest.totals.entries,
        })
    }
}

fn show_pruned(pruned: &Pruned) -> Value {
    let points: Vec<Value> = pruned
        .plan
        .points
        .iter()
        .map(|(point, reasons)| {
            let base = pruned.bases.iter().find(|base| base.anchor.number == point.number);
            let bytes = base.map_or(0, |base| base.manifest.members.iter().map(|member| member.bytes).sum::<u64>());
            let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
            json!({
                "number": point.number, "taken": rfc3339::format(point.taken_us), "bytes": bytes, "drilled": point.verified,
                "stays": !reasons.is_empty(), "because": reasons.join(" "),
            })
        })
        .collect();
    let swept = pruned.swept.map(|swept| json!({ "removed": swept.removed, "bytes": swept.bytes, "locked": swept.locked }));
    json!({ "floor": pruned.plan.floor, "points": points, "swept": swept })
}

fn explain(error: &BackupFailure) -> ControlError {
    let text = error.to_string();
    match error {
        BackupFailure::Vault(VaultError::Full(_)) => ControlError::failed("full", text, "make room in the vault; nothing is dropped"),
        BackupFailure::Vault(_) => ControlError::failed("vault", text, "see that the vault can be reached; nothing is dropped"),
        BackupFailure::Format(_) => ControlError::failed("damaged", text, "run `mobo-hub backup verify`"),
        BackupFailure::Store(_) => ControlError::failed("store", text, "run `mobo-hub health check`"),
        BackupFailure::WentBack(_) => ControlError::failed("went_back", text, "run it again: the hub goes on under a new timeline"),
        BackupFailure::Busy => ControlError::failed("busy", text, "run it again in a moment"),
        BackupFailure::Taken(_) | BackupFailure::Refused(_) => ControlError::usage("refused", text, "do what the sentence says"),
    }
}
