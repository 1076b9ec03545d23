//! Commands about who may use the API: keys, users, roles, policies, issuers, projects, the audit log.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use mobo_runtime::command::ask;
use mobo_runtime::output::{Failure, print};
use serde_json::{Value, json};

use super::device::lifetime;
use super::{Common, list, talk};

/// What an operator does about accounts.
#[derive(Debug, Subcommand)]
pub enum AccountsVerb {
    /// API keys.
    #[command(subcommand)]
    Key(KeyVerb),
    /// Users.
    #[command(subcommand)]
    User(UserVerb),
    /// Roles.
    #[command(subcommand)]
    Role(RoleVerb),
    /// What roles may do to collections.
    #[command(subcommand)]
    Policy(PolicyVerb),
    /// Others whose tokens are taken, and our own signing keys.
    #[command(subcommand)]
    Issuer(IssuerVerb),
    /// Projects: each has keys, users and roles of its own.
    #[command(subcommand)]
    Project(ProjectVerb),
    /// What was done about security.
    #[command(subcommand)]
    Audit(AuditVerb),
}

/// Which project.
#[derive(Args, Clone, Debug)]
pub struct Of {
    /// The project.
    #[arg(long, value_name = "NAME", default_value = "default")]
    project: String,
}

/// `key …`
#[derive(Debug, Subcommand)]
pub enum KeyVerb {
    /// Make an API key and print it; it is not shown again.
    Create {
        /// What it may do: admin, service, anon, or a role of the project.
        #[arg(long, default_value = "service")]
        role: String,
        /// A label.
        #[arg(long, default_value = "")]
        name: String,
        /// A part of what the role may, to which the key is held: read, create, update, delete or write, for one collection as in read:orders.
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// How long it works, as in 24h or 90d; by default until it is revoked.
        #[arg(long, value_name = "DURATION", value_parser = lifetime)]
        ttl: Option<Duration>,
        /// The project.
        #[command(flatten)]
        of: Of,
    },
    /// All keys, without their secrets.
    List(Of),
    /// Make a key useless, also on connections that are open.
    Revoke {
        /// Its name.
        name: String,
        /// The project.
        #[command(flatten)]
        of: Of,
    },
}

/// `user …`
#[derive(Debug, Subcommand)]
pub enum UserVerb {
    /// Make an account and print a link that opens it once, to set its password.
    Create {
        /// What it signs in with.
        email: String,
        /// Its role.
        #[arg(long, default_value = "authenticated")]
        role: String,
        /// The project.
        #[command(flatten)]
        of: Of,
    },
    /// All accounts.
    List(Of),
    /// One account.
    Show {
        /// Its address or id.
        user: String,
        /// The project.
        #[command(flatten)]
        of: Of,
    },
    /// Print another link that opens an account once; those before it are over.
    Link {
        /// Its address or id.
        user: String,
        /// The project.
        #[command(flatten)]
        of: Of,
    },
    /// Change an account.
    Alter {
        /// Its address or id.
        user: String,
        /// Another role.
        #[arg(long)]
        role: Option<String>,
        /// What conditions call auth.app.NAME, as NAME=JSON; null takes it out.
        #[arg(long = "app", value_name = "NAME=JSON")]
        app: Vec<String>,
        /// Shut it out for so long, as in 24h; 0 lets it in again.
        #[arg(long, value_name = "DURATION")]
        ban: Option<String>,
        /// The project.
        #[command(flatten)]
        of: Of,
    },
    /// Remove an account with its sign-ins.
    Delete {
        /// Its address or id.
        user: String,
        /// The project.
        #[command(flatten)]
        of: Of,
    },
}

/// `role …`
#[derive(Debug, Subcommand)]
pub enum RoleVerb {
    /// Make a role.
    Create {
        /// Its name.
        name: String,
        /// The project.
        #[command(flatten)]
        of: Of,
    },
    /// All roles.
    List(Of),
    /// Remove a role with its policies; who has it may do nothing any more.
    Delete {
        /// Its name.
        name: String,
        /// The project.
        #[command(flatten)]
        of: Of,
    },
}

/// `policy …`
#[derive(Debug, Subcommand)]
pub enum PolicyVerb {
    /// Open a collection to a role, in place of what it could do there before with these actions.
    Set {
        /// The collection.
        collection: String,
        /// The role.
        #[arg(long)]
        role: String,
        /// read, create, update, delete; write for the last three.
        #[arg(long = "allow", value_name = "ACTION", value_delimiter = ',', required = true)]
        actions: Vec<String>,
        /// The rows, as a query's filter in which auth.uid, auth.role, auth.email and auth.app.NAME are the caller's: owner=eq.auth.uid
        #[arg(long = "where", value_name = "FILTER")]
        condition: Option<String>,
        /// The fields; by default all.
        #[arg(long = "field", value_name = "NAME", value_delimiter = ',')]
        fields: Vec<String>,
    },
    /// All policies.
    List,
    /// Close a collection to a role again.
    Delete {
        /// The collection.
        collection: String,
        /// The role.
        #[arg(long)]
        role: String,
        /// The actions; by default all.
        #[arg(long = "deny", value_name = "ACTION", value_delimiter = ',')]
        actions: Vec<String>,
    },
}

/// `issuer …`
#[derive(Debug, Subcommand)]
pub enum IssuerVerb {
    /// Take the tokens of an OpenID provider.
    Add {
        /// What its tokens say in `iss`.
        issuer: String,
        /// Where its keys are: https://…
        #[arg(long, value_name = "URL")]
        jwks: String,
        /// Whom its tokens must be for.
        #[arg(long)]
        audience: String,
        /// What its users are here.
        #[arg(long, default_value = "authenticated")]
        role: String,
    },
    /// All of them.
    List,
    /// Take its tokens no more.
    Remove {
        /// What its tokens say in `iss`.
        issuer: String,
    },
    /// Sign tokens with the next key from now on; those that are out stay good.
    Rotate(Of),
}

/// `project …`
#[derive(Debug, Subcommand)]
pub enum ProjectVerb {
    /// Make a project.
    Create {
        /// Its name.
        name: String,
    },
    /// All projects.
    List,
    /// Erase a project with its keys and users.
    Erase {
        /// Its name.
        name: String,
        /// Do it: nothing brings it back.
        #[arg(long)]
        yes: bool,
    },
}

/// `audit …`
#[derive(Debug, Subcommand)]
pub enum AuditVerb {
    /// Lines, the oldest first.
    List {
        /// The part.
        #[command(flatten)]
        part: super::Part,
        /// The project.
        #[command(flatten)]
        of: Of,
    },
    /// Compute the chain of hashes again; exit 1 where a line is not what it was. The last hash, kept elsewhere, proves that nothing is missing.
    Verify(Of),
    /// All lines as NDJSON.
    Export(Of),
}

/// Runs a command.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other verb is words for the hub")]
pub(super) fn run(common: &Common, verb: AccountsVerb) -> Result<ExitCode, Failure> {
    match verb {
        AccountsVerb::Key(KeyVerb::Create { role, name, scopes, ttl, of }) => {
            let ttl_ms = ttl.and_then(|ttl| u64::try_from(ttl.as_millis()).ok());
            talk::line(
                common,
                "key create",
                &json!({ "role": role, "name": name, "scopes": scopes, "ttl_ms": ttl_ms, "project": of.project }),
                "key",
            )
        }
        AccountsVerb::User(UserVerb::Create { email, role, of }) => {
            talk::line(common, "user create", &json!({ "user": email, "role": role, "project": of.project }), "link")
        }
        AccountsVerb::User(UserVerb::Link { user, of }) => {
            talk::line(common, "user link", &json!({ "user": user, "project": of.project }), "link")
        }
        AccountsVerb::Project(ProjectVerb::Erase { yes: false, name }) => Err(Failure::usage(
            format!("the project \"{name}\" was not erased"),
            "add --yes: its keys and users are gone then, and nothing brings them back",
        )),
        AccountsVerb::Audit(AuditVerb::List { part, of }) => {
            list::print_part_with(common, "audit list", &part, &json!({ "project": of.project }))
        }
        AccountsVerb::Audit(AuditVerb::Export(of)) => export(common, &of),
        AccountsVerb::Audit(AuditVerb::Verify(of)) => {
            let answer = ask(&common.data_dir, "audit verify", json!({ "project": of.project }))?;
            mobo_runtime::command::show(common.output, &answer)?;
            Ok(if answer.get("whole") == Some(&Value::Bool(true)) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        other => {
            let (verb, args) = words(other);
            talk::plain(common, verb, args)
        }
    }
}

fn export(common: &Common, of: &Of) -> Result<ExitCode, Failure> {
    let mut after = "0".to_owned();
    loop {
        let page = ask(
            &common.data_dir,
            "audit list",
            json!({ "after": after, "limit": mobo_core::limits::CONTROL_PAGE_ROWS_MAX, "project": of.project }),
        )?;
        let items = page.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        for item in &items {
            print(&format!("{item}\n")).map_err(|error| Failure::failed(error.to_string(), ""))?;
        }
        match page.get("next").and_then(Value::as_str) {
            Some(next) if !items.is_empty() => after = next.to_owned(),
            _ => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// Verb and arguments for the control socket.
fn words(verb: AccountsVerb) -> (&'static str, Value) {
    match verb {
        AccountsVerb::Key(KeyVerb::List(of)) => ("key list", json!({ "project": of.project })),
        AccountsVerb::Key(KeyVerb::Revoke { name, of }) => ("key revoke", json!({ "name": name, "project": of.project })),
        AccountsVerb::User(UserVerb::List(of)) => ("user list", json!({ "project": of.project })),
        AccountsVerb::User(UserVerb::Show { user, of }) => ("user show", json!({ "user": user, "project": of.project })),
        AccountsVerb::User(UserVerb::Alter { user, role, app, ban, of }) => {
            ("user alter", json!({ "user": user, "role": role, "app": app, "ban": ban, "project": of.project }))
        }
        AccountsVerb::User(UserVerb::Delete { user, of }) => ("user delete", json!({ "user": user, "project": of.project })),
        AccountsVerb::Role(RoleVerb::Create { name, of }) => ("role create", json!({ "name": name, "project": of.project })),
        AccountsVerb::Role(RoleVerb::List(of)) => ("role list", json!({ "project": of.project })),
        AccountsVerb::Role(RoleVerb::Delete { name, of }) => ("role delete", json!({ "name": name, "project": of.project })),
        AccountsVerb::Policy(PolicyVerb::Set { collection, role, actions, condition, fields }) => {
            ("policy set", json!({ "collection": collection, "role": role, "actions": actions, "where": condition, "fields": fields }))
        }
        AccountsVerb::Policy(PolicyVerb::List) => ("policy list", json!({})),
        AccountsVerb::Policy(PolicyVerb::Delete { collection, role, actions }) => {
            ("policy delete", json!({ "collection": collection, "role": role, "actions": actions }))
        }
        AccountsVerb::Issuer(IssuerVerb::Add { issuer, jwks, audience, role }) => {
            ("issuer add", json!({ "issuer": issuer, "jwks": jwks, "audience": audience, "role": role }))
        }
        AccountsVerb::Issuer(IssuerVerb::List) => ("issuer list", json!({})),
        AccountsVerb::Issuer(IssuerVerb::Remove { issuer }) => ("issuer remove", json!({ "issuer": issuer })),
        AccountsVerb::Issuer(IssuerVerb::Rotate(of)) => ("issuer rotate", json!({ "project": of.project })),
        AccountsVerb::Project(ProjectVerb::Create { name }) => ("project create", json!({ "name": name })),
        AccountsVerb::Project(ProjectVerb::Erase { name, .. }) => ("project erase", json!({ "name": name })),
        AccountsVerb::Project(ProjectVerb::List)
        | AccountsVerb::Key(KeyVerb::Create { .. })
        | AccountsVerb::User(UserVerb::Create { .. } | UserVerb::Link { .. })
        | AccountsVerb::Audit(_) => ("project list", json!({})),
    }
}
