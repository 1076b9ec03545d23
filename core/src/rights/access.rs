//! What a device must know to judge callers of its own API as the hub does, also while it hears nothing of the hub: the keys by their hashes,
//! the keys that users' tokens are checked with, and the policies. It holds no secret.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::{Action, Condition, Policies, Policy, Principal, Role, Scope};
use crate::ids::{CollectionId, ProjectId};
use crate::time::Eff;

/// Who may use the API of a project, and what of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    /// What users' tokens say of who issued them.
    pub issuer: String,
    /// The keys that tokens are checked with, each as a JWK.
    pub jwks: Vec<Json>,
    /// API keys.
    pub keys: Vec<KnownKey>,
    /// What is open to whom.
    pub policies: Arc<Policies>,
}

/// An API key as a device knows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KnownKey {
    /// SHA-256 of the whole key.
    pub hash: [u8; 32],
    /// Its label.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Parts of the role to which it is held; empty for all of it.
    pub scopes: Vec<Scope>,
    /// When it ends, by the hub's time; `None` for one that does not.
    pub expires: Option<Eff>,
}

impl Access {
    /// The text that travels.
    #[must_use]
    pub fn to_text(&self) -> String {
        let key = |key: &KnownKey| {
            let scopes: Vec<String> = key.scopes.iter().map(Scope::to_text).collect();
            json!({ "hash": hex(&key.hash), "name": key.name, "role": key.role.name(), "scopes": scopes, "expires": key.expires.map(|end| end.0) })
        };
        let policy = |policy: &Policy| {
            json!({
                "collection": policy.collection.get().to_string(), "role": policy.role.name(), "action": policy.action.name(),
                "where": policy.condition.as_ref().map(Condition::text), "fields": policy.fields,
            })
        };
        let keys: Vec<Json> = self.keys.iter().map(key).collect();
        let policies: Vec<Json> = self.policies.iter().map(policy).collect();
        json!({ "issuer": self.issuer, "jwks": self.jwks, "keys": keys, "policies": policies }).to_string()
    }

    /// Reads what [`to_text`](Self::to_text) wrote; `None` for what is no such text. What a later version has added, and a key or a policy
    /// that this one cannot read, opens nothing.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let Json::Object(members) = serde_json::from_str(text).ok()? else { return None };
        let list = |name: &str| members.get(name).and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
        Some(Self {
            issuer: members.get("issuer")?.as_str()?.to_owned(),
            jwks: list("jwks").to_vec(),
            keys: list("keys").iter().filter_map(key).collect(),
            policies: Arc::new(Policies::new(list("policies").iter().filter_map(policy))),
        })
    }

    /// Whose key that is, at that time.
    #[must_use]
    pub fn by_key(&self, project: ProjectId, hash: &[u8; 32], now: Eff) -> Option<Principal> {
        let key = self.keys.iter().find(|key| key.hash == *hash && key.expires.is_none_or(|end| end > now))?;
        Some(Principal { key: Some(key.name.clone()), scopes: key.scopes.clone(), ..Principal::of_role(project, key.role.clone()) })
    }

    /// Who a token is of, whose signature and times were found good; `None` where it does not say so, and for one of another project.
    #[must_use]
    pub fn by_claims(project: ProjectId, claims: &Map<String, Json>) -> Option<Principal> {
        let word = |name: &str| claims.get(name).and_then(Json::as_str).filter(|word| !word.is_empty());
        if ProjectId::new(u64::from_str_radix(word("project")?, 16).ok()?) != Some(project) {
            return None;
        }
        let app = claims.get("app_metadata").and_then(Json::as_object);
        let mut known = Map::new();
        // An address that its user has typed himself proves nothing.
        if app.and_then(|app| app.get("email_verified")) != Some(&Json::Bool(false)) {
            known.extend(claims.get("email").map(|email| ("email".to_owned(), email.clone())));
        }
        known.extend(app.into_iter().flatten().map(|(name, value)| (format!("app.{name}"), value.clone())));
        let role = Role::from_name(word("role")?).ok()?;
        let (user, session) = (word("sub")?.to_owned(), word("session_id")?.to_owned());
        Some(Principal { user: Some(user), session: Some(session), claims: known, ..Principal::of_role(project, role) })
    }
}

fn key(json: &Json) -> Option<KnownKey> {
    let word = |name: &str| json.get(name).and_then(Json::as_str);
    let scopes = json.get("scopes")?.as_array()?.iter().map(|scope| Scope::parse(scope.as_str()?)).collect::<Option<Vec<_>>>()?;
    let expires = match json.get("expires") {
        None | Some(Json::Null) => None,
        Some(end) => Some(Eff(end.as_i64()?)),
    };
    let role = Role::from_name(word("role")?).ok()?;
    Some(KnownKey { hash: unhex(word("hash")?)?, name: word("name")?.to_owned(), role, scopes: scopes.concat(), expires })
}

fn policy(json: &Json) -> Option<Policy> {
    let word = |name: &str| json.get(name).and_then(Json::as_str);
    let fields = match json.get("fields") {
        None | Some(Json::Null) => None,
        Some(fields) => Some(fields.as_array()?.iter().map(|field| field.as_str().map(str::to_owned)).collect::<Option<_>>()?),
    };
    let condition = match json.get("where") {
        None | Some(Json::Null) => None,
        Some(text) => Some(Condition::parse(text.as_str()?).ok()?),
    };
    Some(Policy {
        collection: CollectionId::new(word("collection")?.parse().ok()?)?,
        role: Role::from_name(word("role")?).ok()?,
        action: Action::from_name(word("action")?)?,
        condition,
        fields,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * n..2 * n + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> ProjectId {
        ProjectId::new(0xab).unwrap()
    }

    fn access() -> Access {
        let policy = Policy {
            collection: CollectionId::new(7).unwrap(),
            role: Role::Anon,
            action: Action::Read,
            condition: Some(Condition::parse("owner=eq.auth.uid").unwrap()),
            fields: Some(["title".to_owned()].into()),
        };
        let scopes = Scope::parse("write:orders").unwrap();
        let key =
            |fill, expires| KnownKey { hash: [fill; 32], name: "app".to_owned(), role: Role::Service, scopes: scopes.clone(), expires };
        Access {
            issuer: "mobo:x".to_owned(),
            jwks: vec![json!({ "kid": "k" })],
            keys: vec![key(1, None), key(2, Some(Eff(100)))],
            policies: Arc::new(Policies::new([policy])),
        }
    }

    #[test]
    fn what_travels_is_what_was_known() {
        assert_eq!(Access::from_text(&access().to_text()), Some(access()));
        for bad in ["", "[]", "{}", "{\"issuer\":1}"] {
            assert_eq!(Access::from_text(bad), None, "{bad}");
        }
        let odd = access().to_text().replace("\"service\"", "\"NOBODY\"").replace("\"read\"", "\"devour\"");
        let read = Access::from_text(&odd).unwrap();
        assert!(read.keys.is_empty() && read.policies.iter().next().is_none(), "what cannot be read opens nothing: {read:?}");
    }

    #[test]
    fn keys_end_and_others_are_not_known() {
        let known = |fill, now| access().by_key(project(), &[fill; 32], Eff(now)).map(|principal| principal.scopes.len());
        assert_eq!((known(1, 1_000), known(2, 99), known(2, 100), known(3, 0)), (Some(3), Some(3), None, None));
    }

    #[test]
    fn claims_say_who_it_is_and_no_more() {
        let who = |claims: Json| Access::by_claims(project(), claims.as_object().unwrap());
        let good =
            json!({ "project": "ab", "sub": "u1", "session_id": "s", "role": "editor", "email": "a@b.c", "app_metadata": { "team": "x" } });
        let found = who(good.clone()).unwrap();
        assert_eq!(
            (found.value("uid"), found.value("email"), found.value("app.team")),
            (Some("u1".into()), Some("a@b.c".into()), Some("x".into()))
        );
        for (name, value) in [("project", json!("ac")), ("sub", json!("")), ("role", json!("NOBODY")), ("session_id", json!(7))] {
            let mut other = good.clone();
            other[name] = value;
            assert_eq!(who(other), None, "{name}");
        }
        let mut typed = good;
        typed["app_metadata"] = json!({ "email_verified": false });
        assert_eq!(who(typed).unwrap().value("email"), None);
    }
}
