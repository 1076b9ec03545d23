//! Roles and policies, as an administrator makes them.

use std::collections::BTreeSet;

use mobo_adapters::desk::{Cell, Statement};
use mobo_core::ids::{CollectionId, ProjectId};
use mobo_core::limits;
use mobo_core::rights::{Action, Condition, Policies, Policy, Role};
use mobo_core::schema::Collection;
use serde_json::json;

use super::book::Event;
use super::rows::{int, number, text, time, word};
use super::{Accounts, AuthError};

/// A policy to be made.
#[derive(Clone, Debug, Default)]
pub struct NewPolicy {
    /// The role.
    pub role: String,
    /// Words of actions; `write` is create, update and delete.
    pub actions: Vec<String>,
    /// The rows; `None` for all.
    pub condition: Option<String>,
    /// The fields; empty for all.
    pub fields: Vec<String>,
}

impl Accounts {
    /// Makes a role.
    ///
    /// # Errors
    ///
    /// [`AuthError::Bad`] for one that is there.
    pub async fn create_role(&self, project: ProjectId, name: &str, actor: &str) -> Result<(), AuthError> {
        const ADD: &str = "INSERT INTO mobo_role(project, name, created_us) SELECT $1, $2, $3 \
                           WHERE (SELECT count(*) FROM mobo_role WHERE project = $1) < $4 ON CONFLICT DO NOTHING";
        let role = Role::from_name(name).map_err(|bad| AuthError::Bad(bad.to_string()))?;
        if role.is_fixed() {
            return Err(AuthError::Bad(format!("the role \"{name}\" is always there")));
        }
        let add = Statement::must(ADD, [int(project), text(name), time(self.now()), Cell::Int(limits::ROLES_MAX)]);
        let there = AuthError::Bad(format!("the role \"{name}\" is there already, or the project has {} roles", limits::ROLES_MAX));
        self.change(project, vec![add], Event::new("role.created", actor, name)).await.map(drop).map_err(|missed| missed.or(there))
    }

    /// Removes a role with its policies. Users and keys that have it may do nothing any more.
    ///
    /// # Errors
    ///
    /// [`AuthError::NoSuch`].
    pub async fn remove_role(&self, project: ProjectId, name: &str, actor: &str) -> Result<(), AuthError> {
        let remove = Statement::must("DELETE FROM mobo_role WHERE project = $1 AND name = $2", [int(project), text(name)]);
        let policies = Statement::new("DELETE FROM mobo_policy WHERE project = $1 AND role = $2", [int(project), text(name)]);
        let missing = AuthError::NoSuch { what: "role", name: name.to_owned() };
        let event = Event::new("role.removed", actor, name);
        self.change(project, vec![remove, policies], event).await.map(drop).map_err(|missed| missed.or(missing))
    }

    /// The roles of a project: those that are always there, and its own.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn roles(&self, project: ProjectId) -> Result<Vec<String>, AuthError> {
        let rows = self.read("SELECT name FROM mobo_role WHERE project = $1 ORDER BY name", [int(project)]).await?;
        let own = rows.iter().filter_map(|row| word(row, 0));
        Ok(Role::FIXED.iter().map(|role| role.name().to_owned()).chain(own).collect())
    }

    /// Opens actions on a collection to a role; what the same role could do there with these actions before is replaced.
    ///
    /// # Errors
    ///
    /// [`AuthError::Bad`] for a condition that is none, an unknown field, an unknown action, or a role that no policy binds.
    pub async fn set_policy(&self, project: ProjectId, collection: &Collection, new: &NewPolicy, actor: &str) -> Result<(), AuthError> {
        const SET: &str = "INSERT INTO mobo_policy(project, collection, role, action, condition, fields) \
                           VALUES ($1, $2, $3, $4, CAST($5 AS text), CAST($6 AS text)) \
                           ON CONFLICT (project, collection, role, action) DO UPDATE SET condition = excluded.condition, fields = excluded.fields";
        let role = self.known_role(project, &new.role).await?;
        if role.is_trusted() {
            return Err(AuthError::Bad(format!("no policy binds the role \"{}\": it may do everything", new.role)));
        }
        let condition = new.condition.as_deref().map(|text| check_condition(collection, text)).transpose()?;
        let fields = check_fields(collection, &new.fields)?;
        let actions = actions(&new.actions)?;
        let optional = |value: Option<String>| value.map_or(Cell::Null, text);
        let fields_text = fields.as_ref().map(|fields| json!(fields).to_string());
        let set = |action: &Action| {
            let condition = condition.as_ref().map(|condition| condition.text().to_owned());
            let cells = [
                int(project),
                Cell::Int(collection.id.sql()),
                text(role.name()),
                text(action.name()),
                optional(condition),
                optional(fields_text.clone()),
            ];
            Statement::must(SET, cells)
        };
        let words: Vec<&str> = actions.iter().map(|action| action.name()).collect();
        let detail = json!({ "role": role.name(), "actions": words, "where": new.condition, "fields": fields });
        let event = Event::new("policy.set", actor, &collection.name).with(detail);
        self.change(project, actions.iter().map(set).collect(), event).await.map(drop).map_err(|missed| missed.or(AuthError::Busy))
    }

    /// Closes actions on a collection to a role again; without actions, all of them.
    ///
    /// # Errors
    ///
    /// [`AuthError::NoSuch`] when none was open.
    pub async fn remove_policy(
        &self,
        project: ProjectId,
        collection: &Collection,
        (role, words): (&str, &[String]),
        actor: &str,
    ) -> Result<(), AuthError> {
        const REMOVE: &str =
            "DELETE FROM mobo_policy WHERE project = $1 AND collection = $2 AND role = $3 AND action = $4 RETURNING action";
        let list = if words.is_empty() { Action::ALL.into_iter().collect() } else { actions(words)? };
        let known = self.policies();
        let there = |action: &&Action| {
            known.iter().any(|policy| policy.collection == collection.id && policy.role.name() == role && policy.action == **action)
        };
        if !list.iter().any(|action| there(&action)) {
            return Err(AuthError::NoSuch { what: "policy", name: format!("{} {role}", collection.name) });
        }
        let remove =
            |action: &Action| Statement::new(REMOVE, [int(project), Cell::Int(collection.id.sql()), text(role), text(action.name())]);
        let event = Event::new("policy.removed", actor, &collection.name).with(json!({ "role": role, "actions": words }));
        self.change(project, list.iter().map(remove).collect(), event).await.map(drop).map_err(|missed| missed.or(AuthError::Busy))
    }

    pub(super) async fn load_policies(&self, project: ProjectId) -> Result<Policies, AuthError> {
        const LOOK: &str = "SELECT collection, role, action, condition, fields FROM mobo_policy WHERE project = $1";
        let rows = self.read(LOOK, [int(project)]).await?;
        let read = |row: &Vec<Cell>| {
            Some(Policy {
                collection: CollectionId::from_sql(number(row, 0)?)?,
                role: Role::from_name(&word(row, 1)?).ok()?,
                action: Action::from_name(&word(row, 2)?)?,
                condition: match word(row, 3) {
                    Some(text) => Some(Condition::parse(&text).ok()?),
                    None => None,
                },
                fields: match word(row, 4) {
                    Some(text) => Some(serde_json::from_str::<Vec<String>>(&text).ok()?.into_iter().collect()),
                    None => None,
                },
            })
        };
        // A policy that cannot be read opens nothing.
        Ok(Policies::new(rows.iter().filter_map(read)))
    }
}

fn actions(words: &[String]) -> Result<BTreeSet<Action>, AuthError> {
    let mut actions = BTreeSet::new();
    for word in words {
        match (word.as_str(), Action::from_name(word)) {
            ("write", _) => actions.extend([Action::Create, Action::Update, Action::Delete]),
            (_, Some(action)) => {
                actions.insert(action);
            }
            (_, None) => {
                return Err(AuthError::Bad(format!(
                    "\"{word}\" is not an action: use read, create, update, delete, or write for the last three"
                )));
            }
        }
    }
    if actions.is_empty() { Err(AuthError::Bad("name at least one action: read, create, update, delete".to_owned())) } else { Ok(actions) }
}

fn check_condition(collection: &Collection, text: &str) -> Result<Condition, AuthError> {
    let condition = Condition::parse(text).map_err(|bad| AuthError::Bad(bad.to_string()))?;
    let columns = mobo_core::query::columns(collection);
    condition.check(&collection.name, &columns).map_err(|bad| AuthError::Bad(format!("--where {text}: {bad}")))?;
    Ok(condition)
}

fn check_fields(collection: &Collection, fields: &[String]) -> Result<Option<BTreeSet<String>>, AuthError> {
    let known = mobo_core::query::columns(collection);
    if let Some(unknown) = fields.iter().find(|field| !known.iter().any(|column| column.name == **field)) {
        return Err(AuthError::Bad(format!("{} has no field \"{unknown}\"", collection.name)));
    }
    Ok((!fields.is_empty()).then(|| fields.iter().cloned().collect()))
}
