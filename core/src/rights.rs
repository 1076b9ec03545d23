//! What users and keys may (rule R2): roles, and the policies of collections. Every door of the API asks [`Policies::granted`], and nothing else
//! decides.
//!
//! A collection without a policy is closed to everybody but the roles `admin` and `service`. A policy opens one action on one collection to one
//! role; it may leave out rows ([`condition`]) and fields. What devices may is decided by buckets, elsewhere.

mod access;
pub mod condition;
mod granted;
mod role;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json};

pub use access::{Access, KnownKey};
pub use condition::{BadCondition, Condition};
pub use granted::{Bounds, Granted};
pub use role::{BadRole, Role};

use crate::ids::{CollectionId, ProjectId};
use crate::limits;
use crate::query::{Filter, columns};
use crate::schema::Collection;

/// What is done to records.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Action {
    /// Seeing them, by whatever way: a query, an event, a history.
    Read,
    /// Making them; appending samples.
    Create,
    /// Changing them.
    Update,
    /// Removing them.
    Delete,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Create, Self::Update, Self::Delete];

    /// The word in commands, in scopes and in the store.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }

    /// The action for a word.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }
}

/// A part of what a key's role may, to which the key is held.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Scope {
    /// What may be done.
    pub action: Action,
    /// The name of the only collection; `None` for all.
    pub collection: Option<String>,
}

impl Scope {
    /// Reads `read`, `create:work_orders` or `write` (create, update and delete).
    #[must_use]
    pub fn parse(text: &str) -> Option<Vec<Self>> {
        let (word, collection) = text.split_once(':').map_or((text, None), |(word, name)| (word, Some(name)));
        if collection.is_some_and(|name| name.is_empty() || name.len() > limits::NAME_BYTES_MAX || name.contains(char::is_control)) {
            return None;
        }
        let actions = match word {
            "write" => vec![Action::Create, Action::Update, Action::Delete],
            word => vec![Action::from_name(word)?],
        };
        Some(actions.into_iter().map(|action| Self { action, collection: collection.map(str::to_owned) }).collect())
    }

    /// As it is written.
    #[must_use]
    pub fn to_text(&self) -> String {
        let word = self.action.name();
        self.collection.as_ref().map_or_else(|| word.to_owned(), |name| format!("{word}:{name}"))
    }

    fn holds(&self, action: Action, collection: &str) -> bool {
        self.action == action && self.collection.as_ref().is_none_or(|name| name == collection)
    }
}

/// Who calls, once it is proven.
#[derive(Clone, Debug, PartialEq)]
pub struct Principal {
    /// The project, whose records are all that there is for this caller.
    pub project: ProjectId,
    /// The user's role, or the key's where there is no user.
    pub role: Role,
    /// The user's id; `None` for a key alone.
    pub user: Option<String>,
    /// The name of the key; `None` for a token alone and for a program on the device.
    pub key: Option<String>,
    /// The sign-in that the token came from; `None` for a key alone and for tokens of others.
    pub session: Option<String>,
    /// What conditions call `auth.*`, besides `uid`, `role` and `key`: `email`, and `app.NAME` of what an administrator says of the user.
    pub claims: Map<String, Json>,
    /// Parts of the role to which the caller is held; empty for all of it.
    pub scopes: Vec<Scope>,
}

impl Principal {
    /// A key, or a program on the device.
    #[must_use]
    pub fn of_role(project: ProjectId, role: Role) -> Self {
        Self { project, role, user: None, key: None, session: None, claims: Map::new(), scopes: Vec::new() }
    }

    /// What a condition calls `auth.NAME`; `None` when that is not known of this caller, or is no plain value.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<String> {
        match (name, self.claims.get(name)) {
            ("uid", _) => self.user.clone(),
            ("role", _) => Some(self.role.name().to_owned()),
            ("key", _) => self.key.clone(),
            (_, Some(Json::String(text))) => Some(text.clone()),
            (_, Some(Json::Number(number))) => Some(number.to_string()),
            (_, Some(Json::Bool(flag))) => Some(flag.to_string()),
            (_, None | Some(Json::Null | Json::Array(_) | Json::Object(_))) => None,
        }
    }

    /// Who a write says that it is from: the user, else the key.
    #[must_use]
    pub fn author(&self) -> Option<String> {
        self.user.as_ref().map(|user| format!("user:{user}")).or_else(|| self.key.as_ref().map(|key| format!("key:{key}")))
    }

    /// True for who administers accounts and sees everything: scopes narrow records, and whoever is held to some administers nothing.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.role == Role::Admin && self.scopes.is_empty()
    }

    /// True for a backend that is trusted with users: an administrator, or a service without scopes.
    #[must_use]
    pub fn may_administer_users(&self) -> bool {
        self.role.is_trusted() && self.scopes.is_empty()
    }
}

/// What one role may do to one collection with one action.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    /// The collection.
    pub collection: CollectionId,
    /// The role.
    pub role: Role,
    /// The action.
    pub action: Action,
    /// Rows that it is about; `None` for all.
    pub condition: Option<Condition>,
    /// Fields that may be seen or written; `None` for all. `id` is always among them.
    pub fields: Option<BTreeSet<String>>,
}

/// All policies of a project, and when they were changed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Policies {
    rules: BTreeMap<(CollectionId, Role, Action), Policy>,
}

/// What the policies say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict<'a> {
    /// No.
    Refused(Refusal),
    /// Yes, for these rows and fields.
    Granted {
        /// `None` for all rows.
        condition: Option<&'a Condition>,
        /// `None` for all fields; `id` is always among them.
        fields: Option<&'a BTreeSet<String>>,
    },
}

/// Why not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// No policy opens it to this role.
    NoPolicy,
    /// The key is held to scopes, and this is in none of them.
    OutOfScope,
    /// The caller is of another project, and nothing here is told to it.
    OtherProject,
}

impl Policies {
    /// These policies; of two for the same thing the later one counts.
    #[must_use]
    pub fn new(policies: impl IntoIterator<Item = Policy>) -> Self {
        Self { rules: policies.into_iter().map(|policy| ((policy.collection, policy.role.clone(), policy.action), policy)).collect() }
    }

    /// All of them, by collection, role and action.
    pub fn iter(&self) -> impl Iterator<Item = &Policy> {
        self.rules.values()
    }

    /// Whether a caller may do this to that collection of `project`, and to which rows and fields of it.
    #[must_use]
    pub fn verdict(&self, who: &Principal, project: ProjectId, (collection, name): (CollectionId, &str), action: Action) -> Verdict<'_> {
        if who.project != project {
            return Verdict::Refused(Refusal::OtherProject);
        }
        if !who.scopes.is_empty() && !who.scopes.iter().any(|scope| scope.holds(action, name)) {
            return Verdict::Refused(Refusal::OutOfScope);
        }
        if who.role.is_trusted() {
            return Verdict::Granted { condition: None, fields: None };
        }
        match self.rules.get(&(collection, who.role.clone(), action)) {
            Some(policy) => Verdict::Granted { condition: policy.condition.as_ref(), fields: policy.fields.as_ref() },
            None => Verdict::Refused(Refusal::NoPolicy),
        }
    }

    /// The verdict as it is applied: the condition read with what is known of this caller.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn granted(&self, who: &Principal, project: ProjectId, collection: &Collection, action: Action) -> Result<Granted, Refusal> {
        match self.verdict(who, project, (collection.id, &collection.name), action) {
            Verdict::Refused(refusal) => Err(refusal),
            Verdict::Granted { condition, fields } => {
                let read = |condition: &Condition| condition.filter(who, &collection.name, &columns(collection));
                Ok(Granted { rows: condition.map_or_else(Filter::all, read), fields: fields.cloned() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(n: u64) -> ProjectId {
        ProjectId::new(n).unwrap()
    }

    fn who(role: &str, scopes: &[&str]) -> Principal {
        let scopes = scopes.iter().flat_map(|scope| Scope::parse(scope).unwrap()).collect();
        Principal { scopes, ..Principal::of_role(project(1), Role::from_name(role).unwrap()) }
    }

    #[track_caller]
    fn check(policies: &Policies, who: &Principal, want: [&str; 4]) {
        let id = CollectionId::new(7).unwrap();
        for (action, want) in Action::ALL.into_iter().zip(want) {
            let found = match policies.verdict(who, project(1), (id, "orders"), action) {
                Verdict::Refused(Refusal::NoPolicy) => "closed".to_owned(),
                Verdict::Refused(Refusal::OutOfScope) => "scope".to_owned(),
                Verdict::Refused(Refusal::OtherProject) => "other".to_owned(),
                Verdict::Granted { condition, fields } => {
                    let fields = fields.map(|fields| fields.iter().cloned().collect::<Vec<_>>().join(","));
                    format!("{} {}", condition.map_or("all", Condition::text), fields.unwrap_or_else(|| "all".to_owned()))
                }
            };
            assert_eq!(found, want, "{who:?} {action:?}");
        }
    }

    #[test]
    fn a_collection_is_closed_until_a_policy_opens_it() {
        let closed = Policies::default();
        check(&closed, &who("admin", &[]), ["all all"; 4]);
        check(&closed, &who("service", &[]), ["all all"; 4]);
        for role in ["anon", "authenticated", "editor"] {
            check(&closed, &who(role, &[]), ["closed"; 4]);
        }
        let policy = |role: &str, action, condition: Option<&str>, fields: &[&str]| Policy {
            collection: CollectionId::new(7).unwrap(),
            role: Role::from_name(role).unwrap(),
            action,
            condition: condition.map(|text| Condition::parse(text).unwrap()),
            fields: (!fields.is_empty()).then(|| fields.iter().map(|field| (*field).to_owned()).collect()),
        };
        let open = Policies::new([
            policy("anon", Action::Read, Some("public=is.true"), &["title"]),
            policy("editor", Action::Update, Some("owner=eq.auth.uid"), &[]),
            policy("editor", Action::Read, None, &[]),
        ]);
        check(&open, &who("anon", &[]), ["public=is.true title", "closed", "closed", "closed"]);
        check(&open, &who("editor", &[]), ["all all", "closed", "owner=eq.auth.uid all", "closed"]);
        check(&open, &who("authenticated", &[]), ["closed"; 4]);
        check(&open, &Principal::of_role(project(2), Role::Admin), ["other"; 4]);
    }

    #[test]
    fn scopes_hold_a_key_to_a_part_of_its_role() {
        let none = Policies::default();
        check(&none, &who("service", &["read"]), ["all all", "scope", "scope", "scope"]);
        check(&none, &who("admin", &["write:orders"]), ["scope", "all all", "all all", "all all"]);
        check(&none, &who("service", &["read:others", "write:others"]), ["scope"; 4]);
        check(&none, &who("anon", &["read"]), ["closed", "scope", "scope", "scope"]);
        for bad in ["", "reads", "read:", ":x", "read:a\u{1}"] {
            assert_eq!(Scope::parse(bad), None, "{bad}");
        }
        assert_eq!(Scope::parse("write:a").unwrap().iter().map(Scope::to_text).collect::<Vec<_>>(), ["create:a", "update:a", "delete:a"]);
    }
}
