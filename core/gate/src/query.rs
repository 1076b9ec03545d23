//! The words after `?`, decoded; `mobo_core::query` knows what they mean.

use axum::http::StatusCode;
use mobo_core::query::{Column, Parser, Query, QueryError, Reason, Relations};
use mobo_core::schema::Collection;
use percent_encoding::percent_decode_str;

use crate::problem::Problem;

/// Reads a query over a collection that may be asked for together with those that it is related to.
///
/// # Errors
///
/// 400 or 416 with what is wrong and what would do; 300 where a name means several.
pub(crate) fn parse_related(raw: Option<&str>, near: &Collection, columns: &[Column], relations: &dyn Relations) -> Result<Query, Problem> {
    read(raw, Parser::new(&near.name, columns).with_relations(near, relations))
}

fn read(raw: Option<&str>, mut parser: Parser<'_>) -> Result<Query, Problem> {
    let mut parameters = Vec::new();
    for part in raw.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        parameters.push((decode(name)?, decode(value)?));
    }
    // The others may speak of what it embeds.
    parameters.sort_by_key(|(name, _)| name != "select");
    for (name, value) in parameters {
        parser.parameter(&name, &value).map_err(|error| Problem::from(error).parameter(&name))?;
    }
    Ok(parser.finish())
}

/// The moment that `at=` names, and the words without it.
///
/// # Errors
///
/// 400 for what is no text, and for two of them.
pub(crate) fn moment(raw: Option<&str>) -> Result<(Option<String>, Option<String>), Problem> {
    // No other word can be read as that one.
    if raw.is_none_or(|raw| !raw.contains("at=") && !raw.contains('%')) {
        return Ok((None, raw.map(str::to_owned)));
    }
    let mut at = None;
    let mut rest = Vec::new();
    for part in raw.unwrap_or_default().split('&') {
        match part.split_once('=') {
            Some((name, value)) if decode(name)? == "at" => {
                if at.replace(decode(value)?).is_some() {
                    return Err(Problem::parse("at is given twice"));
                }
            }
            _ => rest.push(part),
        }
    }
    Ok((at, raw.map(|_| rest.join("&"))))
}

/// A word of the address, decoded; `None` where it is not there.
///
/// # Errors
///
/// 400 for what is no text.
pub(crate) fn word(raw: Option<&str>, name: &str) -> Result<Option<String>, Problem> {
    let mut words = raw.unwrap_or_default().split('&').filter_map(|part| part.split_once('='));
    words.find(|(known, _)| *known == name).map(|(_, value)| decode(value)).transpose()
}

/// `+` is a space and `%XX` a byte, as in a form.
fn decode(text: &str) -> Result<String, Problem> {
    if !text.contains(['+', '%']) {
        return Ok(text.to_owned());
    }
    let spaced = text.replace('+', " ");
    match percent_decode_str(&spaced).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(Problem::parse("the query is not UTF-8 in percent encoding")),
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        let bad = StatusCode::BAD_REQUEST;
        let problem = match error.reason {
            Reason::Malformed => Self::parse(error.message),
            Reason::NoColumn => Self::new(bad, "42703", "No such column", error.message),
            Reason::BadValue => Self::bad_value(error.message),
            Reason::NoOperator => Self::new(bad, "42883", "No such operator", error.message),
            Reason::NotImplemented => Self::new(bad, "PGRST127", "Not implemented", error.message),
            Reason::Aggregate => Self::new(bad, "PGRST123", "No aggregates", error.message),
            Reason::Range => Self::range(error.message),
            Reason::NoRelation => Self::new(bad, "PGRST200", "No such relationship", error.message),
            Reason::Ambiguous => Self::new(StatusCode::MULTIPLE_CHOICES, "PGRST201", "Several relationships", error.message),
            Reason::NotEmbedded => Self::new(bad, "PGRST108", "Not embedded", error.message),
            Reason::RelatedOrder => Self::new(bad, "PGRST118", "No order by a list", error.message),
        };
        match error.hint {
            Some(hint) => problem.hint(hint),
            None => problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use mobo_core::query::{ColumnType, Filter, Op};
    use mobo_core::schema::FieldType;
    use mobo_core::value::Value;

    use super::*;

    #[test]
    fn parameters_are_decoded_once() {
        let columns = [Column { name: "title".to_owned(), kind: ColumnType::Field(FieldType::Text) }];
        for (raw, want) in [("title=eq.a+b%2Bc", "a b+c"), ("%74itle=eq.%252B&&", "%2B"), ("title=eq.a%26b%3Dc", "a&b=c")] {
            let want = Filter::is(columns[0].clone(), Op::Eq(Value::Text(want.to_owned())));
            assert_eq!(read(Some(raw), Parser::new("t", &columns)).unwrap().filter, Filter::And(vec![want]), "{raw}");
        }
        assert!(format!("{:?}", read(Some("title=eq.%FF"), Parser::new("t", &columns)).unwrap_err()).contains("UTF-8"));
    }
}
