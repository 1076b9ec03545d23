//! Schemas that were made. What a schema holds follows from the collections, the policies, and what the caller is held to: as long as these are
//! the same ones, nobody looks at the collections again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use async_graphql::dynamic::Schema;
use mobo_core::ids::ProjectId;
use mobo_core::limits;
use mobo_core::rights::{Policies, Role, Scope};
use mobo_core::schema::Schema as Collections;

use super::{Table, schema};
use crate::access::Guard;
use crate::backend::BackendError;
use crate::problem::Problem;

/// What a schema was made of.
#[derive(Clone, Debug)]
pub(super) struct By {
    collections: Arc<Collections>,
    policies: Arc<Policies>,
    project: ProjectId,
    role: Role,
    scopes: Vec<Scope>,
}

/// A schema, and the tables in it in words.
#[derive(Debug)]
struct Made {
    by: By,
    tables: String,
    schema: Schema,
}

/// Schemas that were made, the latest first.
#[derive(Debug, Default)]
pub(crate) struct Schemas(Mutex<VecDeque<Made>>);

impl By {
    pub(super) fn of(guard: &Guard) -> Self {
        let who = guard.principal();
        let (collections, policies) = (guard.schema(), Arc::clone(guard.policies()));
        Self { collections, policies, project: who.project, role: who.role.clone(), scopes: who.scopes.clone() }
    }
}

impl PartialEq for By {
    /// What was read anew and says the same is the same.
    fn eq(&self, other: &Self) -> bool {
        let who = |by: &Self| (by.project, by.role.clone());
        let same_policies = Arc::ptr_eq(&self.policies, &other.policies) || self.policies == other.policies;
        let same_collections = Arc::ptr_eq(&self.collections, &other.collections) || self.collections == other.collections;
        who(self) == who(other) && self.scopes == other.scopes && same_policies && same_collections
    }
}

impl Schemas {
    /// The schema that `by` leads to; `tables` are asked for where it is not there.
    pub(super) fn of(&self, by: By, tables: impl FnOnce() -> Vec<Arc<Table>>, introspection: bool) -> Result<Schema, Problem> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = known.iter().position(|made| made.by == by)
            && let Some(found) = known.remove(at)
        {
            let schema = found.schema.clone();
            // The next one is found by what is in force now, without a look inside.
            known.push_front(Made { by, ..found });
            return Ok(schema);
        }
        let tables = tables();
        let words = format!("{tables:?}");
        // Others may use the same.
        let schema = match known.iter().find(|made| made.tables == words) {
            Some(made) => made.schema.clone(),
            None => schema::make(&tables, introspection)
                .map_err(|error| BackendError::Refused(format!("these collections make no schema: {error}")))?,
        };
        known.truncate(limits::GRAPHQL_SCHEMAS_MAX - 1);
        known.push_front(Made { by, tables: words, schema: schema.clone() });
        Ok(schema)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use mobo_core::ids::CollectionId;
    use mobo_core::rights::{Action, Policy};

    use super::*;

    fn policies(roles: &[&str]) -> Arc<Policies> {
        let policy = |role: &&str| Policy {
            collection: CollectionId::new(7).unwrap(),
            role: Role::from_name(role).unwrap(),
            action: Action::Read,
            condition: None,
            fields: None,
        };
        Arc::new(Policies::new(roles.iter().map(policy)))
    }

    /// What broke: each request wrote down all collections to find its schema.
    #[test]
    fn collections_are_looked_at_once_for_all_who_may_use_the_same() {
        let (schemas, looks) = (Schemas::default(), Cell::new(0));
        let look = |by: &By| {
            let tables = || {
                looks.set(looks.get() + 1);
                Vec::new()
            };
            schemas.of(by.clone(), tables, true).unwrap();
            looks.get()
        };
        let (open, closed) = (policies(&["anon"]), policies(&[]));
        let collections = Arc::new(Collections::new(1, []));
        let project = ProjectId::new(1).unwrap();
        let anon = By { collections, policies: open, project, role: Role::Anon, scopes: Vec::new() };
        assert_eq!([look(&anon), look(&anon), look(&anon)], [1; 3]);
        let read_anew = By { policies: policies(&["anon"]), collections: Arc::new(Collections::new(1, [])), ..anon.clone() };
        assert_eq!([look(&read_anew), look(&read_anew)], [1; 2]);
        for (n, other) in (2..).zip([
            By { policies: closed, ..anon.clone() },
            By { collections: Arc::new(Collections::new(2, [])), ..anon.clone() },
            By { role: Role::Service, ..anon.clone() },
            By { scopes: Scope::parse("read:orders").unwrap(), ..anon.clone() },
            By { project: ProjectId::new(2).unwrap(), ..anon.clone() },
        ]) {
            assert_eq!([look(&other), look(&other)], [n; 2], "{other:?}");
        }
        assert_eq!(look(&anon), 6, "the first is still there");
        for rev in 3..40 {
            look(&By { collections: Arc::new(Collections::new(rev, [])), ..anon.clone() });
        }
        assert!(schemas.0.lock().unwrap().len() <= limits::GRAPHQL_SCHEMAS_MAX);
    }
}
