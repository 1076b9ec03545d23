//! The rows of a policy: the filter grammar of the API, in which `{auth.NAME}` stands for what is known of the caller.
//!
//! ```text
//! owner=eq.{auth.uid}&site=in.({auth.app.sites})&or=(draft.is.false,editor.eq.{auth.uid})
//! ```
//! The text is kept as it was written. For each caller the names are replaced by values, as [`parameters`](Condition::parameters) that the
//! gate's parser reads with the types of the columns. A value can never become grammar: at the top level it runs to the end of its parameter,
//! and within brackets it is quoted. A name that is not known of the caller makes the whole condition let no row through.

use std::fmt;

use serde_json::Value as Json;

use super::Principal;

/// Longest text of a condition, in bytes.
const TEXT_BYTES_MAX: usize = 2_048;
/// Operators whose operand is nothing but a value.
const PLAIN: [&str; 7] = ["eq", "neq", "gt", "gte", "lt", "lte", "in"];

/// A condition as it was written, checked for its form. What the columns are called and hold is known to whoever parses it.
#[derive(Clone, Eq, PartialEq)]
pub struct Condition {
    text: String,
    parameters: Vec<(String, Vec<Piece>)>,
}

/// A part of a parameter's value.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Piece {
    Text(String),
    /// `{auth.NAME}`; `nested` within brackets.
    Auth {
        name: String,
        nested: bool,
    },
}

/// A text that is no condition, with what would do.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct BadCondition(String);

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Condition({})", self.text)
    }
}

impl Condition {
    /// Reads `name=value` parameters with `&` between them, as they stand in a URL before percent-encoding.
    ///
    /// # Errors
    ///
    /// [`BadCondition`].
    pub fn parse(text: &str) -> Result<Self, BadCondition> {
        if text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
            return Err(BadCondition(format!("a condition has at most {TEXT_BYTES_MAX} bytes and no control characters")));
        }
        let mut parameters = Vec::new();
        for part in text.split('&') {
            let Some((name, value)) = part.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty()) else {
                return Err(BadCondition(format!("\"{part}\" is no filter: write column=operator.value, with & between several")));
            };
            if ["select", "order", "limit", "offset", "columns", "on_conflict", "after", "at"].contains(&name) || name.contains('{') {
                return Err(BadCondition(format!("\"{name}\" cannot stand in a condition: only filters can")));
            }
            parameters.push((name.to_owned(), pieces(value)?));
        }
        Ok(Self { text: text.to_owned(), parameters })
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The parameters for that caller, decoded; `None` when something is not known of the caller: then no row fulfils it.
    #[must_use]
    pub fn parameters(&self, who: &Principal) -> Option<Vec<(String, String)>> {
        let filled = |(name, pieces): &(String, Vec<Piece>)| Some((name.clone(), fill(pieces, &|name| who.value(name))?));
        self.parameters.iter().map(filled).collect()
    }

    /// The parameters with a stand-in for each name, to see what the columns make of them: `0` fits texts and numbers.
    #[must_use]
    pub fn sample(&self) -> Vec<(String, String)> {
        let zero = |_: &str| Some(Json::from("0"));
        self.parameters.iter().filter_map(|(name, pieces)| Some((name.clone(), fill(pieces, &zero)?))).collect()
    }
}

fn pieces(value: &str) -> Result<Vec<Piece>, BadCondition> {
    let (mut pieces, mut rest) = (Vec::new(), value);
    let mut depth = 0_usize;
    while let Some((before, behind)) = rest.split_once("{auth.") {
        depth = before.chars().fold(depth, |depth, letter| match letter {
            '(' | '{' => depth + 1,
            ')' | '}' => depth.saturating_sub(1),
            _ => depth,
        });
        let Some((name, after)) = behind.split_once('}') else {
            return Err(BadCondition("{auth. has no } behind it".to_owned()));
        };
        check_name(name)?;
        check_place(before, after, depth)?;
        pieces.push(Piece::Text(before.to_owned()));
        pieces.push(Piece::Auth { name: name.to_owned(), nested: depth > 0 });
        rest = after;
    }
    pieces.push(Piece::Text(rest.to_owned()));
    Ok(pieces)
}

fn check_name(name: &str) -> Result<(), BadCondition> {
    let word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match name.strip_prefix("app.") {
        Some(inner) if word(inner) => Ok(()),
        None if ["uid", "role", "key", "email"].contains(&name) => Ok(()),
        _ => Err(BadCondition(format!(
            "{{auth.{name}}} is not known: use auth.uid, auth.role, auth.key, auth.email, or auth.app.NAME for what an administrator says of \
             the user; what users say of themselves decides nothing"
        ))),
    }
}

/// A value stands alone behind a plain operator: as part of a pattern, a caller's name could be a pattern.
fn check_place(before: &str, after: &str, depth: usize) -> Result<(), BadCondition> {
    let alone = if depth == 0 { after.is_empty() } else { after.starts_with([',', ')']) };
    let head = before.rsplit([',', '(']).find(|part| !part.is_empty()).unwrap_or(before);
    let operator = match before.ends_with(['(', ',']) {
        // In a list: `in.(` is somewhere in front of it.
        true => before.rfind("in.(").filter(|at| before.get(*at..).is_some_and(|list| !list.contains(')'))).map(|_| "in"),
        false => head.strip_suffix('.').map(|head| head.rsplit('.').next().unwrap_or(head)),
    };
    if alone && operator.is_some_and(|operator| PLAIN.contains(&operator)) {
        return Ok(());
    }
    Err(BadCondition("{auth.…} stands alone behind eq, neq, gt, gte, lt or lte, or in the list of in".to_owned()))
}

fn fill(pieces: &[Piece], value: &dyn Fn(&str) -> Option<Json>) -> Option<String> {
    let mut text = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(part) => text.push_str(part),
            Piece::Auth { name, nested } => text.push_str(&spelled(&value(name)?, *nested)?),
        }
    }
    Some(text)
}

/// A value as the grammar has it; `None` for what has no place there.
fn spelled(value: &Json, nested: bool) -> Option<String> {
    let plain = |value: &Json| match value {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        Json::Bool(flag) => Some(flag.to_string()),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    };
    let quoted = |text: String| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    match value {
        Json::Array(values) if nested && !values.is_empty() => {
            let parts: Option<Vec<String>> = values.iter().map(|value| plain(value).map(quoted)).collect();
            Some(parts?.join(","))
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) | Json::Object(_) => {
            let text = plain(value)?;
            Some(if nested { quoted(text) } else { text })
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ids::ProjectId;
    use crate::rights::Role;

    fn caller() -> Principal {
        let claims = json!({ "email": "a@b.c", "app.sites": ["north", "so\"u,th)"], "app.level": 3, "app.none": null, "app.map": {} });
        let Json::Object(claims) = claims else { unreachable!() };
        Principal { user: Some("u1".to_owned()), claims, ..Principal::of_role(ProjectId::new(1).unwrap(), Role::Authenticated) }
    }

    #[track_caller]
    fn check(text: &str, want: Option<&[(&str, &str)]>) {
        let found = Condition::parse(text).unwrap().parameters(&caller());
        let found = found.as_ref().map(|found| found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Vec<_>>());
        assert_eq!(found.as_deref(), want, "{text}");
    }

    #[test]
    fn names_become_values_and_never_grammar() {
        check("a=is.true&b=eq.1", Some(&[("a", "is.true"), ("b", "eq.1")]));
        check("owner=eq.{auth.uid}", Some(&[("owner", "eq.u1")]));
        check("mail=not.eq.{auth.email}", Some(&[("mail", "not.eq.a@b.c")]));
        check("level=lte.{auth.app.level}", Some(&[("level", "lte.3")]));
        check("site=in.({auth.app.sites})", Some(&[("site", "in.(\"north\",\"so\\\"u,th)\")")]));
        check("site=in.(hq,{auth.uid})", Some(&[("site", "in.(hq,\"u1\")")]));
        check("or=(open.is.true,owner.eq.{auth.uid})", Some(&[("or", "(open.is.true,owner.eq.\"u1\")")]));
        check("or=(a.in.(x,{auth.uid}),b.eq.1)", Some(&[("or", "(a.in.(x,\"u1\"),b.eq.1)")]));
        for unknown in ["{auth.key}", "{auth.app.none}", "{auth.app.map}", "{auth.app.sites}", "{auth.app.nothing}"] {
            check(&format!("a=eq.1&owner=eq.{unknown}"), None);
        }
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        let long = format!("a=eq.{}", "x".repeat(TEXT_BYTES_MAX));
        for bad in [
            "",
            "a",
            "a=",
            "=eq.1",
            "a=eq.1&",
            "select=a",
            "order=a",
            "limit=1",
            "{auth.uid}=eq.1",
            "a=eq.{auth.uid",
            "a=eq.{auth.}",
            "a=eq.{auth.sub}",
            "a=eq.{auth.app.}",
            "a=eq.{auth.user.x}",
            "a=like.{auth.uid}",
            "a=like.{auth.uid}*",
            "a=eq.x{auth.uid}",
            "a=eq.{auth.uid}x",
            "a={auth.uid}",
            "a=is.{auth.uid}",
            "or=({auth.uid}.eq.1)",
            "or=(a.like.{auth.uid})",
            "a=match.{auth.uid}",
            "a=eq(any).{{auth.uid}}",
            "a=eq.\u{7}",
            &long,
        ] {
            assert!(Condition::parse(bad).is_err(), "{bad}");
        }
    }
}
