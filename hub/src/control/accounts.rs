//! Accounts, as the control socket is asked for them. Whoever may open the socket is the operator.

use std::sync::Arc;
use std::time::Duration;

use mobo_core::ids::ProjectId;
use mobo_core::limits;
use mobo_core::schema::Collection;
use mobo_core::time::Eff;
use mobo_runtime::config::Kind as _;
use serde_json::{Map, Value, json};

use super::{Desk, no_collection, text, texts};
use crate::admin::{AdminError, NewKey, show_time};
use crate::auth::book::Event;
use crate::auth::roles::NewPolicy;
use crate::auth::users::{NewUser, UserChange};
use crate::auth::{Accounts, AuthError};
use crate::node::Job;

/// Who does what comes through the control socket.
const OPERATOR: &str = "operator";

impl From<AuthError> for AdminError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other refusal is a sentence for the operator")]
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Store(error) => Self::Store(error),
            AuthError::NoSuch { what, name } => Self::NoSuch { what, name, near: None },
            AuthError::NoUser => Self::NoSuch { what: "user", name: "of that address or id".to_owned(), near: None },
            other => Self::Usage(other.to_string()),
        }
    }
}

impl Desk {
    fn accounts(&self) -> Result<Arc<Accounts>, AdminError> {
        self.0.accounts().ok_or_else(|| AdminError::Usage("the store is not open yet: wait until `mobo-hub status` says ready".to_owned()))
    }

    async fn project(&self, args: &Value) -> Result<ProjectId, AdminError> {
        match text(args, "project").as_str() {
            "" => Ok(self.0.opened()?.project),
            name => Ok(self.accounts()?.project(name).await?),
        }
    }

    /// Writes down what an operator did elsewhere.
    pub(super) async fn written_down(&self, verb: &str, args: &Value, answer: &Value) -> Result<(), AdminError> {
        let event = match verb {
            "device invite" => "device.invited",
            "device revoke" => "device.revoked",
            "device grant" => "device.granted",
            "device ungrant" => "device.ungranted",
            "collection create" => "collection.created",
            "collection alter" => "collection.altered",
            "recover start" | "recover finish" => "recovery",
            _ => return Ok(()),
        };
        let subject = if verb == "device revoke" { text(answer, "revoked") } else { text(args, "name") };
        let project = self.0.opened()?.project;
        let detail = json!({ "buckets": texts(args, "buckets"), "claims": texts(args, "claims") });
        Ok(self.accounts()?.record(project, Event::new(event, OPERATOR, subject).with(detail)).await?)
    }

    /// Answers a verb about accounts; `None` for one about something else.
    pub(super) async fn about_accounts(&self, verb: &str, args: &Value) -> Option<Result<Value, AdminError>> {
        let (noun, _) = verb.split_once(' ')?;
        Some(match noun {
            "key" => self.keys(verb, args).await,
            "user" => self.users(verb, args).await,
            "role" => self.roles(verb, args).await,
            "policy" => self.policies(verb, args).await,
            "issuer" => self.issuers(verb, args).await,
            "project" => self.projects(verb, args).await,
            "audit" => self.audit(verb, args).await,
            _ => return None,
        })
    }

    async fn keys(&self, verb: &str, args: &Value) -> Result<Value, AdminError> {
        let (opened, project, name) = (self.0.opened()?, self.project(args).await?, text(args, "name"));
        match verb {
            "key create" => {
                let ttl = args.get("ttl_ms").and_then(Value::as_u64).map(Duration::from_millis);
                let new = NewKey { project, name, role: text(args, "role"), scopes: texts(args, "scopes"), ttl };
                let (key, row) = self.0.create_key(&new).await?;
                let event = Event::new("key.created", OPERATOR, &row.name)
                    .with(json!({ "role": row.role, "scopes": row.scopes, "prefix": row.prefix }));
                self.accounts()?.keys_changed(project, event).await?;
                Ok(json!({ "key": key, "name": row.name, "role": row.role, "prefix": row.prefix, "expires": row.expires.map(show_time) }))
            }
            "key list" => {
                let show = |key: &mobo_core::store::ApiKeyRow| {
                    json!({
                        "name": key.name, "role": key.role, "prefix": key.prefix, "scopes": key.scopes, "created": show_time(key.created),
                        "expires": key.expires.map(show_time), "revoked": key.revoked.map(show_time),
                    })
                };
                Ok(Value::Array(opened.store.keys(project).await?.iter().map(show).collect()))
            }
            "key revoke" => {
                if !opened.store.revoke_key(project, name.clone(), opened.time.now()).await? {
                    return Err(AdminError::NoSuch { what: "key", name, near: None });
                }
                self.0.verified().clear();
                self.accounts()?.keys_changed(project, Event::new("key.revoked", OPERATOR, &name)).await?;
                Ok(json!({ "revoked": name }))
            }
            _ => unknown(verb),
        }
    }

    async fn users(&self, verb: &str, args: &Value) -> Result<Value, AdminError> {
        let (accounts, project, user) = (self.accounts()?, self.project(args).await?, text(args, "user"));
        let link = async |user: &str| -> Result<Value, AdminError> {
            let (account, secret) = accounts.setup_secret(project, user, OPERATOR).await?;
            let link = crate::auth::setup_link(&self.0, project, &secret);
            Ok(json!({ "id": account.id, "email": account.email, "role": account.role.name(), "link": link }))
        };
        match verb {
            "user create" => {
                let new = NewUser { email: user, role: Some(text(args, "role")), ..NewUser::default() };
                let account = accounts.create_user(project, new, OPERATOR).await?;
                link(&account.id).await
            }
            "user link" => link(&user).await,
            "user list" => {
                let users = accounts.users(project, limits::USERS_PAGE_MAX, 0).await?;
                let show = |account: &crate::auth::users::Account| {
                    json!({
                        "email": account.email, "id": account.id, "role": account.role.name(), "created": show_time(account.created),
                        "signed_in": account.signed_in.map(show_time), "banned": account.banned.map(show_time),
                    })
                };
                Ok(Value::Array(users.iter().map(show).collect()))
            }
            "user show" => Ok(accounts.find_user(project, &user).await?.to_json()),
            "user alter" => {
                let id = accounts.find_user(project, &user).await?.id;
                let change = self.change(args)?;
                Ok(accounts.change_user(project, &id, change, (OPERATOR, None)).await?.to_json())
            }
            "user delete" => {
                let id = accounts.find_user(project, &user).await?.id;
                accounts.delete_user(project, &id, OPERATOR).await?;
                Ok(json!({ "deleted": id }))
            }
            _ => unknown(verb),
        }
    }

    fn change(&self, args: &Value) -> Result<UserChange, AdminError> {
        let member = |text: &String| {
            let (name, value) = text.split_once('=')?;
            Some((name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| Value::from(value))))
        };
        let app: Option<Map<String, Value>> = texts(args, "app").iter().map(member).collect();
        let app = app.ok_or_else(|| AdminError::Usage("--app takes NAME=JSON, such as site=\"plant-4\"".to_owned()))?;
        let now = self.0.opened()?.time.now();
        let banned = match args.get("ban").and_then(Value::as_str) {
            None => None,
            Some("0" | "none") => Some(None),
            Some(text) => {
                let time = Duration::parse(text).ok_or_else(|| AdminError::Usage(format!("--ban {text}: write a time such as 24h")))?;
                Some(Some(later(now, time)))
            }
        };
        let role = args.get("role").and_then(Value::as_str).map(str::to_owned);
        Ok(UserChange { role, app: (!app.is_empty()).then_some(app), banned, ..UserChange::default() })
    }

    async fn roles(&self, verb: &str, args: &Value) -> Result<Value, AdminError> {
        let (accounts, project, name) = (self.accounts()?, self.project(args).await?, text(args, "name"));
        Ok(match verb {
            "role create" => accounts.create_role(project, &name, OPERATOR).await.map(|()| json!({ "created": name }))?,
            "role delete" => accounts.remove_role(project, &name, OPERATOR).await.map(|()| json!({ "deleted": name }))?,
            "role list" => Value::Array(accounts.roles(project).await?.into_iter().map(|name| json!({ "name": name })).collect()),
            _ => return unknown(verb),
        })
    }

    fn named(&self, args: &Value) -> Result<Collection, AdminError> {
        let (schema, name) = (self.0.schema()?, text(args, "collection"));
        schema.by_name(&name).cloned().ok_or_else(|| no_collection(&schema, &name))
    }

    async fn policies(&self, verb: &str, args: &Value) -> Result<Value, AdminError> {
        let (accounts, project, role) = (self.accounts()?, self.project(args).await?, text(args, "role"));
        match verb {
            "policy set" => {
                let condition = args.get("where").and_then(Value::as_str).map(str::to_owned);
                let new = NewPolicy { role: role.clone(), actions: texts(args, "actions"), condition, fields: texts(args, "fields") };
                let collection = self.named(args)?;
                accounts.set_policy(project, &collection, &new, OPERATOR).await?;
                Ok(
                    json!({ "collection": collection.name, "role": role, "allow": new.actions, "where": new.condition, "fields": new.fields }),
                )
            }
            "policy delete" => {
                let collection = self.named(args)?;
                accounts.remove_policy(project, &collection, (&role, &texts(args, "actions")), OPERATOR).await?;
                Ok(json!({ "collection": collection.name, "role": role, "closed": true }))
            }
            "policy list" => {
                let schema = self.0.schema()?;
                let policies = accounts.policies();
                let show = |policy: &mobo_core::rights::Policy| {
                    let collection = schema.get(policy.collection)?;
                    let condition = policy.condition.as_ref().map(mobo_core::rights::Condition::text);
                    Some(json!({
                        "collection": collection.name, "role": policy.role.name(), "action": policy.action.name(), "where": condition,
                        "fields": policy.fields,
                    }))
                };
                Ok(Value::Array(policies.iter().filter_map(show).collect()))
            }
            _ => unknown(verb),
        }
    }

    async fn issuers(&self, verb: &str, args: &Value) -> Result<Value, AdminError> {
        let (accounts, project, issuer) = (self.accounts()?, self.project(args).await?, text(args, "issuer"));
        match verb {
            "issuer add" => {
                let (jwks, audience, role) = (text(args, "jwks"), text(args, "audience"), text(args, "role"));
                accounts.add_issuer(project, (&issuer, &jwks, &audience, &role), OPERATOR).await?;
                Ok(Value::Array(accounts.list_issuers()))
            }
            "issuer list" => Ok(Value::Array(accounts.list_issuers())),
            "issuer remove" => {
                accounts.remove_issuer(project, &issuer, OPERATOR).await?;
                Ok(json!({ "removed": issuer }))
            }
            "issuer rotate" => Ok(json!({ "keys": accounts.rotate(project, OPERATOR).await? })),
            _ => unknown(verb),
        }
    }

    async fn projects(&self, verb: &str, args: &Value) -> Result<Value, AdminError> {
        let (accounts, name) = (self.accounts()?, text(args, "name"));
        match verb {
            "project create" => Ok(json!({ "name": name, "id": accounts.create_project(&name, OPERATOR).await?.to_string() })),
            "project list" => {
                let served = self.0.opened()?.project;
                let show = |(name, id, [keys, users]): (String, ProjectId, [i64; 2])| json!({ "name": name, "id": id.to_string(), "keys": keys, "users": users, "served": id == served });
                Ok(Value::Array(accounts.projects().await?.into_iter().map(show).collect()))
            }
            "project erase" => {
                accounts.erase_project(&name, OPERATOR).await?;
                self.0.verified().clear();
                Ok(self.shredded(&name).await)
            }
            _ => unknown(verb),
        }
    }

    /// What an erased project has in backups becomes unreadable with its key, as far as this hub may remove anything there.
    async fn shredded(&self, name: &str) -> Value {
        let report = self.0.backups.report();
        if report.place.is_none() && report.problem.is_none() {
            return json!({ "erased": name, "backups": "none" });
        }
        let (backups, note) = match self.0.backups.ask(Job::Shred).await {
            Ok(_) => ("unreadable", None),
            Err(error) => {
                ("readable", Some(format!("{error}: the next `mobo-hub backup prune` with the right to remove makes them unreadable")))
            }
        };
        json!({ "erased": name, "backups": backups, "note": note })
    }

    async fn audit(&self, verb: &str, args: &Value) -> Result<Value, AdminError> {
        let (accounts, project) = (self.accounts()?, self.project(args).await?);
        match verb {
            "audit list" => {
                let after = args.get("after").and_then(Value::as_str).map_or(Some(0), |text| text.parse().ok());
                let after = after.ok_or_else(|| AdminError::Usage("--after takes the number of a line".to_owned()))?;
                let limit = args.get("limit").and_then(Value::as_u64).and_then(|limit| u32::try_from(limit).ok()).unwrap_or(u32::MAX);
                let limit = limit.clamp(1, limits::CONTROL_PAGE_ROWS_MAX);
                let lines = accounts.audit(project, after, limit).await?;
                let more = lines.len() == limit as usize;
                let next = lines.last().filter(|_| more).map(|line| line.n.to_string());
                let items: Vec<Value> = lines.iter().map(crate::auth::book::Line::to_json).collect();
                Ok(json!({ "items": items, "next": next }))
            }
            "audit verify" => {
                let verified = accounts.verify_audit(project).await?;
                let head: String = verified.head.iter().map(|byte| format!("{byte:02x}")).collect();
                Ok(json!({ "whole": verified.broken.is_none(), "lines": verified.lines, "head": head, "broken_at": verified.broken }))
            }
            _ => unknown(verb),
        }
    }
}

fn unknown(verb: &str) -> Result<Value, AdminError> {
    Err(AdminError::Usage(format!("the hub does not know the verb \"{verb}\"")))
}

fn later(now: Eff, time: Duration) -> Eff {
    now.plus(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}
