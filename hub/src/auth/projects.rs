//! Projects: keys, users, roles and audit logs of several, side by side. Collections are those of the project `default`, until a hub serves more
//! than one; what is of another project sees nothing of them.

use mobo_adapters::desk::{Cell, Statement};
use mobo_core::ids::ProjectId;
use mobo_runtime::entropy;

use super::book::Event;
use super::rows::{int, number, text, word};
use super::{Accounts, AuthError};

impl Accounts {
    /// Makes a project.
    ///
    /// # Errors
    ///
    /// [`AuthError::Bad`] for a name that is taken, or is none.
    pub async fn create_project(&self, name: &str, actor: &str) -> Result<ProjectId, AuthError> {
        const ADD: &str = "INSERT INTO mobo_project(id, name) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_');
        if name.is_empty() || name.len() > 63 || !plain {
            return Err(AuthError::Bad("a project's name has 1 to 63 small letters, digits, - and _".to_owned()));
        }
        let project = ProjectId::from_entropy(entropy::bytes()?);
        let add = Statement::must(ADD, [int(project), text(name)]);
        let taken = AuthError::Bad(format!("the project \"{name}\" is there already"));
        self.change(project, vec![add], Event::new("project.created", actor, name)).await.map_err(|missed| missed.or(taken))?;
        self.ensure_signing_key(project).await?;
        Ok(project)
    }

    /// The project of that name.
    ///
    /// # Errors
    ///
    /// [`AuthError::NoSuch`].
    pub async fn project(&self, name: &str) -> Result<ProjectId, AuthError> {
        let rows = self.read("SELECT id FROM mobo_project WHERE name = $1", [text(name)]).await?;
        let found = rows.first().and_then(|row| ProjectId::from_sql(number(row, 0)?));
        found.ok_or_else(|| AuthError::NoSuch { what: "project", name: name.to_owned() })
    }

    /// All projects, by name, each with how many keys and users it has.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn projects(&self) -> Result<Vec<(String, ProjectId, [i64; 2])>, AuthError> {
        const LOOK: &str = "SELECT name, id, (SELECT count(*) FROM mobo_api_key WHERE project = p.id AND revoked_us IS NULL), \
                            (SELECT count(*) FROM mobo_account WHERE project = p.id) FROM mobo_project AS p ORDER BY name";
        let rows = self.read(LOOK, []).await?;
        let read = |row: &Vec<Cell>| Some((word(row, 0)?, ProjectId::from_sql(number(row, 1)?)?, [number(row, 2)?, number(row, 3)?]));
        Ok(rows.iter().filter_map(read).collect())
    }

    /// Erases a project: its keys, users, sign-ins, roles, policies and signing keys. Its audit log stays, with a last line that says so.
    ///
    /// # Errors
    ///
    /// [`AuthError::Bad`] for the project whose records are served.
    pub async fn erase_project(&self, name: &str, actor: &str) -> Result<(), AuthError> {
        let project = self.project(name).await?;
        if project == self.served {
            return Err(AuthError::Bad(format!("the hub serves the records of the project \"{name}\": it cannot be erased while it does")));
        }
        let step = |sql| Statement::new(sql, [int(project)]);
        let statements = vec![
            step("DELETE FROM mobo_api_key WHERE project = $1"),
            step("DELETE FROM mobo_refresh WHERE project = $1"),
            step("DELETE FROM mobo_sign_in WHERE project = $1"),
            step("DELETE FROM mobo_setup WHERE project = $1"),
            step("DELETE FROM mobo_account WHERE project = $1"),
            step("DELETE FROM mobo_policy WHERE project = $1"),
            step("DELETE FROM mobo_role WHERE project = $1"),
            step("DELETE FROM mobo_issuer WHERE project = $1"),
            step("DELETE FROM mobo_signing_key WHERE project = $1"),
            Statement::must("DELETE FROM mobo_project WHERE id = $1", [int(project)]),
        ];
        let missing = AuthError::NoSuch { what: "project", name: name.to_owned() };
        self.change(project, statements, Event::new("project.erased", actor, name)).await.map_err(|missed| missed.or(missing))?;
        // Where somebody will look for it.
        self.record(self.served, Event::new("project.erased", actor, name)).await
    }
}
