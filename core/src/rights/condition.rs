//! The rows of a policy: the filter grammar of the API, in which `auth.NAME` stands for what is known of the caller.
//!
//! ```text
//! owner=eq.auth.uid&or=(draft.is.false,editor.eq.auth.email)
//! ```
//! The text is kept as it was written, and read anew for each caller by the parser of queries: a value is a value there, whatever it holds. What
//! is not known of a caller is NULL, of which no comparison holds.

use std::cell::RefCell;
use std::fmt;

use super::Principal;
use crate::query::{Column, Filter, Op, Parser, QueryError};
use crate::value::Value;

/// Longest text of a condition, in bytes.
const TEXT_BYTES_MAX: usize = 2_048;

/// A condition as it was written. What the columns are called and hold is known to whoever reads it.
#[derive(Clone, Eq, PartialEq)]
pub struct Condition(String);

/// A text that is no condition of that collection, with what would do.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadCondition {
    /// It is too long, or holds control characters.
    #[error("a condition has 1 to {TEXT_BYTES_MAX} bytes and no control characters")]
    Form,
    /// A name that nothing stands behind.
    #[error(
        "{0} is not known: there are auth.uid, auth.role, auth.key, auth.email, and auth.app.NAME for what administrators say of a user; what \
         users say of themselves decides nothing"
    )]
    Name(String),
    /// The grammar of queries has it otherwise.
    #[error(transparent)]
    Query(#[from] QueryError),
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Condition({})", self.0)
    }
}

impl Condition {
    /// Takes a text.
    ///
    /// # Errors
    ///
    /// [`BadCondition::Form`].
    pub fn parse(text: &str) -> Result<Self, BadCondition> {
        if text.is_empty() || text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
            return Err(BadCondition::Form);
        }
        Ok(Self(text.to_owned()))
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether it can be read over a table with these columns.
    ///
    /// # Errors
    ///
    /// What is wrong, and what would do.
    pub fn check(&self, table: &str, columns: &[Column]) -> Result<(), BadCondition> {
        let unknown = RefCell::new(None);
        let look = |name: &str| {
            if !is_known(name) {
                unknown.borrow_mut().get_or_insert_with(|| name.to_owned());
            }
            None
        };
        let mut parser = Parser::new(table, columns).with_variables(&look);
        parser.filters(&self.0)?;
        drop(parser);
        unknown.into_inner().map_or(Ok(()), |name| Err(BadCondition::Name(name)))
    }

    /// The rows for that caller. A condition that cannot be read, such as after a field was retired, lets no row through.
    #[must_use]
    pub fn filter(&self, who: &Principal, table: &str, columns: &[Column]) -> Filter {
        let value = |name: &str| who.value(name.strip_prefix("auth.")?);
        let mut parser = Parser::new(table, columns).with_variables(&value);
        if parser.filters(&self.0).is_err() {
            return Filter::none();
        }
        let filter = parser.finish().filter;
        // `isdistinct` compares with NULL as well: whoever is not known would be distinct from everybody.
        let mut open = false;
        filter.each(&mut |condition| open |= condition.op == Op::Distinct(Value::Null));
        if open { Filter::none() } else { filter }
    }
}

fn is_known(name: &str) -> bool {
    let word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match name.strip_prefix("auth.app.") {
        Some(inner) => word(inner),
        None => ["auth.uid", "auth.role", "auth.key", "auth.email"].contains(&name),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value as Json, json};

    use super::*;
    use crate::ids::ProjectId;
    use crate::query::ColumnType;
    use crate::rights::Role;
    use crate::schema::FieldType;

    fn columns() -> Vec<Column> {
        let column = |name: &str, kind| Column { name: name.to_owned(), kind: ColumnType::Field(kind) };
        vec![column("owner", FieldType::Text), column("level", FieldType::Int), column("open", FieldType::Bool)]
    }

    fn caller(user: Option<&str>) -> Principal {
        let Json::Object(claims) = json!({ "email": "a@b.c", "app.level": 3, "app.map": {}, "app.or": "x),owner.eq.u2,(y" }) else {
            unreachable!()
        };
        Principal { user: user.map(str::to_owned), claims, ..Principal::of_role(ProjectId::new(1).unwrap(), Role::Authenticated) }
    }

    /// Which of the rows u1/3/true, u2/1/true and NULL/NULL/false are let through.
    #[track_caller]
    fn check(text: &str, user: Option<&str>, want: [bool; 3]) {
        let row = |owner: Value, level: Value, open: bool| {
            BTreeMap::from([("owner".to_owned(), owner), ("level".to_owned(), level), ("open".to_owned(), Value::Bool(open))])
        };
        let name = |text: &str| Value::Text(text.to_owned());
        let rows = [row(name("u1"), Value::Int(3), true), row(name("u2"), Value::Int(1), true), row(Value::Null, Value::Null, false)];
        let filter = Condition::parse(text).unwrap().filter(&caller(user), "orders", &columns());
        assert_eq!(rows.map(|row| filter.lets_through(&row)), want, "{text} {user:?}");
    }

    #[test]
    fn names_are_the_callers_values_and_never_grammar() {
        check("owner=eq.auth.uid", Some("u1"), [true, false, false]);
        check("owner=eq.auth.uid", None, [false; 3]);
        check("owner=not.eq.auth.uid", None, [false; 3]);
        check("owner=neq.auth.uid", None, [false; 3]);
        check("owner=isdistinct.auth.uid", None, [false; 3]);
        check("owner=isdistinct.auth.uid", Some("u1"), [false, true, true]);
        check("owner=in.(u2,auth.uid)", Some("u1"), [true, true, false]);
        check("or=(open.is.false,owner.eq.auth.uid)", Some("u1"), [true, false, true]);
        check("or=(open.is.false,owner.eq.auth.uid)", None, [false, false, true]);
        check("level=lte.auth.app.level&open=is.true", None, [true, true, false]);
        for not_a_value in ["auth.app.map", "auth.app.nothing", "auth.key", "auth.app.or"] {
            check(&format!("owner=eq.{not_a_value}"), Some("u1"), [false; 3]);
            check(&format!("or=(owner.eq.{not_a_value})"), Some("u1"), [false; 3]);
        }
        check("level=eq.auth.uid", Some("u1"), [false; 3]);
        check("gone=eq.1", Some("u1"), [false; 3]);
        // A claim such as `%` is a text like others, and no regular expression at all.
        check("owner=like.auth.uid", Some("u1"), [true, false, false]);
        check("owner=ilike.auth.uid", Some("U1"), [true, false, false]);
        for pattern in ["%", "u_", "*", ".*", ""] {
            for op in ["like", "ilike", "match", "imatch", "like(any)", "not.match"] {
                let value = if op.ends_with(')') { "{auth.uid}" } else { "auth.uid" };
                check(&format!("owner={op}.{value}"), Some(pattern), [false; 3]);
            }
        }
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        let check = |text: &str| Condition::parse(text).and_then(|condition| condition.check("orders", &columns()));
        for good in
            ["owner=eq.auth.uid", "open=is.true&level=gt.3", "or=(owner.eq.auth.email,level.eq.auth.app.level)", "open=eq.auth.app.open"]
        {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let long = format!("owner=eq.{}", "x".repeat(TEXT_BYTES_MAX));
        for bad in [
            "",
            "owner",
            "other=eq.1",
            "level=eq.x",
            "owner=like",
            "select=owner",
            "order=owner",
            "limit=1",
            "owner=eq.\u{7}",
            &long,
            "owner=eq.auth.sub",
            "owner=eq.auth.user.x",
            "owner=eq.auth.app.",
            "owner=in.(a,auth.)",
            "owner=match.auth.uid",
            "owner=not.imatch(all).{a,auth.uid}",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
