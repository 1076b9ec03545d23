//! `operator.value`: a comparison, by the type of what is compared.

use super::scan::{split, unquote};
use super::value::VARIABLE;
use super::{Parser, QueryError, Reason, value};
use crate::limits;
use crate::names;
use crate::query::{Condition, Filter, Op, Operand, Regex, RegexError};
use crate::schema::FieldType;
use crate::value::Value;

/// Operators of PostgREST that are not on any node: they need what SQLite does not have.
const LATER: [&str; 8] = ["fts", "plfts", "phfts", "wfts", "sl", "sr", "nxr", "nxl"];
const OPERATORS: [&str; 17] =
    ["eq", "neq", "gt", "gte", "lt", "lte", "like", "ilike", "in", "is", "isdistinct", "match", "imatch", "cs", "cd", "ov", "not"];

impl Parser<'_> {
    /// `operator.value`, with `not.` in front or not; `name` is the operand's text, for messages.
    pub(super) fn comparison(&mut self, name: &str, operand: &Operand, text: &str) -> Result<Filter, QueryError> {
        let (negated, rest) = text.strip_prefix("not.").map_or((false, text), |rest| (true, rest));
        let Some((word, given)) = rest.split_once('.') else {
            return Err(unknown(name, rest).hint(format!("a filter is {name}=operator.value, such as {name}=eq.{rest}")));
        };
        // Inside of and(…) and or(…) a value may be in quotes; elsewhere they are of the value.
        let plain = if self.depth > 0 && given.starts_with('"') { unquote(given)? } else { given.to_owned() };
        let given = plain.as_str();
        let filter = match word.split_once('(') {
            Some((word, quantifier)) => self.quantified((name, word, quantifier), operand, given)?,
            None => self.operation((name, word), operand, given)?,
        };
        if self.conditions > limits::QUERY_FILTERS_MAX || self.values > limits::QUERY_VALUES_MAX {
            let (filters, values) = (limits::QUERY_FILTERS_MAX, limits::QUERY_VALUES_MAX);
            return Err(QueryError::malformed(format!("a query has at most {filters} filters with {values} values in all")));
        }
        Ok(if negated { filter.negated() } else { filter })
    }

    /// `eq(any).{a,b}` and `gt(all).{1,2}`.
    fn quantified(&mut self, (name, word, rest): (&str, &str, &str), operand: &Operand, text: &str) -> Result<Filter, QueryError> {
        let has_quantifier = ["eq", "gt", "gte", "lt", "lte", "like", "ilike", "match", "imatch"].contains(&word);
        if !has_quantifier || !["any)", "all)"].contains(&rest) {
            let error = unknown(name, &format!("{word}({rest}"));
            return Err(if has_quantifier { error.hint(format!("write {word}(any) or {word}(all)")) } else { error });
        }
        let items = value::items(name, text)?;
        let each = items.into_iter().map(|(item, _)| self.operation((name, word), operand, &item));
        let each = each.collect::<Result<Vec<_>, _>>()?;
        Ok(if rest == "any)" { Filter::Or(each) } else { Filter::And(each) })
    }

    fn operation(&mut self, (name, word): (&str, &str), operand: &Operand, text: &str) -> Result<Filter, QueryError> {
        self.conditions += 1;
        self.values += 1;
        let is = |op| Ok(Filter::Is(Condition { operand: operand.clone(), op }));
        match word {
            "eq" => is(Op::Eq(self.value(name, operand, text)?)),
            "neq" => is(Op::Neq(self.value(name, operand, text)?)),
            "gt" => is(Op::Gt(self.ordered(name, word, operand, text)?)),
            "gte" => is(Op::Gte(self.ordered(name, word, operand, text)?)),
            "lt" => is(Op::Lt(self.ordered(name, word, operand, text)?)),
            "lte" => is(Op::Lte(self.ordered(name, word, operand, text)?)),
            "isdistinct" => is(Op::Distinct(self.value(name, operand, text)?)),
            "in" => {
                let inner = text.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
                let inner = inner.ok_or_else(|| QueryError::malformed(format!("{name}=in.{text}: write in.(a,b,c)")))?;
                let items = if inner.is_empty() { Vec::new() } else { split(inner, ',')? };
                self.values += items.len();
                let values = items.into_iter().map(|item| self.value(name, operand, &unquote(item)?));
                is(Op::In(values.collect::<Result<_, _>>()?))
            }
            "is" => is_word(name, operand, text),
            "like" | "ilike" => {
                if operand.kind() != FieldType::Text {
                    return Err(no_operator(word, name, operand));
                }
                let is_literal = self.is_variable(text);
                let Value::Text(text) = self.value(name, operand, text)? else {
                    return is(Op::Eq(Value::Null));
                };
                // Who calls says no pattern: what is known of him stands for itself.
                let pattern = if is_literal { like_literal(&text) } else { pattern(name, &text)? };
                is(Op::Like { pattern, insensitive: word == "ilike" })
            }
            "match" | "imatch" => {
                if operand.kind() != FieldType::Text {
                    return Err(no_operator(word, name, operand));
                }
                if self.is_variable(text) {
                    let message = format!("{name}={word}.{text}: a pattern is written out, and is never what is known of the caller");
                    return Err(QueryError::new(Reason::BadValue, message).hint("eq and ilike compare with auth.NAME as it is"));
                }
                let Value::Text(text) = self.value(name, operand, text)? else {
                    return is(Op::Eq(Value::Null));
                };
                is(Op::Match(regex(name, &text, word == "imatch")?))
            }
            "cs" | "cd" | "ov" => {
                if !matches!(operand.kind(), FieldType::Json | FieldType::List) {
                    return Err(no_operator(word, name, operand));
                }
                let Some(list) = value::list((name, operand.kind()), text, self.variables)? else {
                    return is(Op::Eq(Value::Null));
                };
                match word {
                    "cs" => is(Op::Contains(list)),
                    "cd" => is(Op::Contained(list)),
                    _ => self.overlaps(name, operand, &list),
                }
            }
            _ => Err(unknown(name, word)),
        }
    }

    /// One of the items is in it.
    fn overlaps(&mut self, name: &str, operand: &Operand, list: &Value) -> Result<Filter, QueryError> {
        let Value::Json(text) = list else { return Err(no_operator("ov", name, operand)) };
        let Ok(items) = serde_json::from_str::<Vec<serde_json::Value>>(text) else {
            return Err(QueryError::malformed(format!("{name}=ov: write ov.{{a,b}}, or an array of JSON")));
        };
        self.values += items.len();
        let holds = |item: serde_json::Value| {
            let op = Op::Contains(Value::json(&serde_json::Value::Array(vec![item]).to_string())?);
            Some(Filter::Is(Condition { operand: operand.clone(), op }))
        };
        Ok(Filter::Or(items.into_iter().filter_map(holds).collect()))
    }

    /// True for what stands for something that is known of the caller.
    fn is_variable(&self, text: &str) -> bool {
        self.variables.is_some() && text.starts_with(VARIABLE)
    }

    fn value(&self, name: &str, operand: &Operand, text: &str) -> Result<Value, QueryError> {
        match self.variables.filter(|_| text.starts_with(VARIABLE)) {
            None => value::read_value(name, operand.kind(), text),
            Some(variables) => match variables(text) {
                Some(text) => value::read_value(name, operand.kind(), &text),
                None => Ok(Value::Null),
            },
        }
    }

    /// A value that others of its type are above or below.
    fn ordered(&self, name: &str, word: &str, operand: &Operand, text: &str) -> Result<Value, QueryError> {
        let value = self.value(name, operand, text)?;
        let Value::Json(json) = &value else { return Ok(value) };
        if operand.path.is_empty() || json.starts_with(['"', '[', '{']) {
            return Err(no_operator(word, name, operand)
                .hint("JSON is equal or not; at the end of a path (->) it has an order against a number, and as text (->>) against text"));
        }
        Ok(value)
    }
}

/// Refuses what rows cannot be sorted by.
///
/// # Errors
///
/// For JSON, unless it is given as text.
pub(super) fn sortable(name: &str, operand: &Operand) -> Result<(), QueryError> {
    if matches!(operand.kind(), FieldType::Json | FieldType::List) {
        return Err(no_operator("order", name, operand).hint("sort by text inside of it, as in order=meta->>key"));
    }
    Ok(())
}

/// The pattern that only this text fits.
fn like_literal(text: &str) -> String {
    let escaped = |letter: char| ['%', '_', '\\'].contains(&letter).then_some('\\').into_iter().chain([letter]);
    text.chars().flat_map(escaped).collect()
}

/// `*` is `%` in a pattern.
fn pattern(name: &str, text: &str) -> Result<String, QueryError> {
    let pattern = text.replace('*', "%");
    let ends_escaped = pattern.chars().rev().take_while(|letter| *letter == '\\').count() % 2 == 1;
    if ends_escaped {
        return Err(QueryError::new(Reason::BadValue, format!("{name}: a pattern cannot end with a lone \\")));
    }
    Ok(pattern)
}

fn regex(name: &str, text: &str, insensitive: bool) -> Result<Regex, QueryError> {
    Regex::read(text, insensitive).map_err(|error| match error {
        RegexError::Unsupported(_) => QueryError::not_implemented(&format!("this pattern of {name}: {error}")),
        RegexError::Malformed(_) | RegexError::TooLarge => QueryError::new(Reason::BadValue, format!("{name}: {error}")),
    })
}

fn is_word(name: &str, operand: &Operand, text: &str) -> Result<Filter, QueryError> {
    let of_bool = |op: Op| match operand.kind() == FieldType::Bool {
        true => Ok(op),
        false => Err(QueryError::new(Reason::NoOperator, format!("argument of IS must be type boolean, and \"{name}\" is not"))),
    };
    let is = |op| Filter::Is(Condition { operand: operand.clone(), op });
    match text.to_ascii_lowercase().as_str() {
        "null" => Ok(is(Op::IsNull)),
        "not_null" => Ok(is(Op::IsNull).negated()),
        "true" => Ok(is(of_bool(Op::IsBool(true))?)),
        "false" => Ok(is(of_bool(Op::IsBool(false))?)),
        "unknown" => Ok(is(of_bool(Op::IsNull)?)),
        _ => Err(QueryError::malformed(format!("{name}=is.{text}: write is.null, is.not_null, is.true, is.false or is.unknown"))),
    }
}

fn no_operator(word: &str, name: &str, operand: &Operand) -> QueryError {
    let message = format!("operator does not exist: {word} on \"{name}\", which is {}", operand.kind().name());
    QueryError::new(Reason::NoOperator, message)
}

fn unknown(column: &str, operator: &str) -> QueryError {
    let word = operator.split('(').next().unwrap_or_default();
    if LATER.contains(&word) || word == "adj" {
        return QueryError::not_implemented(&format!("the operator {operator} of {column}"))
            .hint("like, ilike, match and imatch look for text, cs, cd and ov into JSON and lists");
    }
    let error = QueryError::malformed(format!("{column}: \"{operator}\" is not an operator"));
    match names::nearest(word, OPERATORS) {
        Some(near) if near != operator => error.hint(format!("Perhaps you meant '{near}'")),
        _ => error.hint(format!("the operators are {}", OPERATORS.join(", "))),
    }
}
