//! The words after `?`: PostgREST's grammar, as much of it as this version has, parsed once into the query types of `mobo-core`.

mod scan;
mod value;

use mobo_core::limits;
use mobo_core::names;
use mobo_core::query::{Column, Filter, FilterOp, Order, SelectedColumn};
use percent_encoding::percent_decode_str;

use crate::problem::Problem;
use scan::{split, unquote};

/// Operators of PostgREST that are not here yet.
const LATER: [&str; 17] =
    ["like", "ilike", "match", "imatch", "isdistinct", "fts", "plfts", "phfts", "wfts", "cs", "cd", "ov", "sl", "sr", "nxr", "nxl", "adj"];
const OPERATORS: [&str; 9] = ["eq", "neq", "gt", "gte", "lt", "lte", "in", "is", "not"];

/// What a request asks of a collection.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Query {
    /// The columns to give; `None` for all.
    pub(crate) select: Option<Vec<SelectedColumn>>,
    pub(crate) filters: Vec<Filter>,
    pub(crate) order: Vec<Order>,
    pub(crate) limit: Option<u64>,
    pub(crate) offset: Option<u64>,
    /// The fields of the body that count; `None` for all.
    pub(crate) fields: Option<Vec<String>>,
}

impl Query {
    /// Reads a query over a table with these columns; `table` is its name, for messages.
    ///
    /// # Errors
    ///
    /// 400 or 416 with what is wrong and what would do.
    pub(crate) fn parse(raw: Option<&str>, table: &str, columns: &[Column]) -> Result<Self, Problem> {
        let mut parser = Parser { table, columns, query: Self::default(), values: 0 };
        for part in raw.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            parser.parameter(&decode(name)?, &decode(value)?)?;
        }
        Ok(parser.query)
    }
}

/// `+` is a space and `%XX` a byte, as in a form.
fn decode(text: &str) -> Result<String, Problem> {
    let spaced = text.replace('+', " ");
    match percent_decode_str(&spaced).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(Problem::parse("the query is not UTF-8 in percent encoding")),
    }
}

struct Parser<'a> {
    table: &'a str,
    columns: &'a [Column],
    query: Query,
    /// Values of filters so far.
    values: usize,
}

impl Parser<'_> {
    fn parameter(&mut self, name: &str, value: &str) -> Result<(), Problem> {
        match name {
            "select" => {
                let select = self.select(value)?;
                once(&mut self.query.select, select, name)
            }
            "order" => self.order(value),
            "limit" => {
                let limit = count(name, value)?;
                once(&mut self.query.limit, limit, name)
            }
            "offset" => {
                let offset = count(name, value)?;
                once(&mut self.query.offset, offset, name)
            }
            "columns" => {
                let fields = split(value, ',')?.into_iter().map(unquote).collect::<Result<_, _>>()?;
                once(&mut self.query.fields, fields, name)
            }
            "on_conflict" if unquote(value)? == "id" => Ok(()),
            "on_conflict" => {
                Err(Problem::parse(format!("on_conflict={value}: \"{}\" has no unique constraint but that of its id", self.table)))
            }
            "and" | "or" | "not.and" | "not.or" => {
                Err(Problem::unsupported("trees of filters with and/or").hint("filters side by side must all hold"))
            }
            _ => self.filter(name, value),
        }
    }

    fn select(&self, text: &str) -> Result<Vec<SelectedColumn>, Problem> {
        let mut selected: Vec<SelectedColumn> = Vec::new();
        for item in split(text, ',')? {
            if item == "*" {
                selected.extend(all(self.columns));
            } else {
                selected.push(self.selected(item)?);
            }
        }
        if selected.len() > limits::QUERY_COLUMNS_MAX {
            return Err(Problem::parse(format!("select names more than {} columns", limits::QUERY_COLUMNS_MAX)));
        }
        for (n, column) in selected.iter().enumerate() {
            if selected.iter().take(n).any(|other| other.alias == column.alias && other.column != column.column) {
                return Err(Problem::parse(format!("select gives two columns the name \"{}\"", column.alias)));
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        selected.retain(|column| seen.insert(column.alias.clone()));
        Ok(selected)
    }

    fn selected(&self, item: &str) -> Result<SelectedColumn, Problem> {
        refuse_later(item, "select")?;
        let parts = split(item, ':')?;
        let (alias, name) = match parts.as_slice() {
            [name] => (None, unquote(name)?),
            [alias, name] => (Some(unquote(alias)?), unquote(name)?),
            _ => return Err(Problem::parse(format!("select={item}: a column is `name` or `alias:name`"))),
        };
        let column = self.column(&name)?;
        let alias = alias.unwrap_or(name);
        let plain = !alias.is_empty() && alias.len() <= limits::NAME_BYTES_MAX && !alias.chars().any(char::is_control);
        if !plain || alias.starts_with("mobo") {
            let max = limits::NAME_BYTES_MAX;
            return Err(Problem::parse(format!("select={item}: an alias is 1 to {max} bytes of text, and does not start with mobo")));
        }
        Ok(SelectedColumn { column, alias })
    }

    fn order(&mut self, text: &str) -> Result<(), Problem> {
        for term in split(text, ',')? {
            refuse_later(term, "order")?;
            let mut words = split(term, '.')?.into_iter();
            let column = self.column(&unquote(words.next().unwrap_or_default())?)?;
            let (mut descending, mut nulls_first) = (None, None);
            for word in words {
                let taken = match word {
                    "asc" | "desc" if nulls_first.is_none() => descending.replace(word == "desc").is_some(),
                    "nullsfirst" | "nullslast" => nulls_first.replace(word == "nullsfirst").is_some(),
                    _ => true,
                };
                if taken {
                    return Err(Problem::parse(format!(
                        "order={term}: a term is `column`, `.asc` or `.desc`, `.nullsfirst` or `.nullslast`"
                    )));
                }
            }
            let descending = descending.unwrap_or(false);
            self.query.order.push(Order { column, descending, nulls_first: nulls_first.unwrap_or(descending) });
        }
        if self.query.order.len() > limits::QUERY_COLUMNS_MAX {
            return Err(Problem::parse(format!("order names more than {} columns", limits::QUERY_COLUMNS_MAX)));
        }
        Ok(())
    }

    fn filter(&mut self, name: &str, text: &str) -> Result<(), Problem> {
        if name.contains('.') {
            return Err(Problem::unsupported(&format!("related collections, which \"{name}\" speaks of")));
        }
        refuse_later(name, "a filter")?;
        let column = self.column(&unquote(name)?)?;
        let (negated, rest) = match text.strip_prefix("not.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let Some((operator, operand)) = rest.split_once('.') else {
            return Err(unknown_operator(name, rest).hint(format!("a filter is {name}=operator.value, such as {name}=eq.{rest}")));
        };
        let op = self.operation(&column, operator, operand)?;
        let (op, negated) = match op {
            Operation::Is(op) => (op, negated),
            Operation::IsNot(op) => (op, !negated),
        };
        if self.query.filters.len() == limits::QUERY_FILTERS_MAX || self.values > limits::QUERY_VALUES_MAX {
            let (filters, values) = (limits::QUERY_FILTERS_MAX, limits::QUERY_VALUES_MAX);
            return Err(Problem::parse(format!("a query has at most {filters} filters with {values} values in all")));
        }
        self.query.filters.push(Filter { column, op, negated });
        Ok(())
    }

    fn operation(&mut self, column: &Column, operator: &str, text: &str) -> Result<Operation, Problem> {
        let compare = |make: fn(_) -> FilterOp| {
            value::comparable(column, operator)?;
            Ok(Operation::Is(make(value::parse(column, text)?)))
        };
        self.values += 1;
        match operator {
            "eq" => compare(FilterOp::Eq),
            "neq" => compare(FilterOp::Neq),
            "gt" => compare(FilterOp::Gt),
            "gte" => compare(FilterOp::Gte),
            "lt" => compare(FilterOp::Lt),
            "lte" => compare(FilterOp::Lte),
            "in" => {
                let inner = text.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
                let inner = inner.ok_or_else(|| Problem::parse(format!("{}=in.{text}: write in.(a,b,c)", column.name)))?;
                let items = if inner.is_empty() { Vec::new() } else { split(inner, ',')? };
                self.values += items.len();
                let values = items.into_iter().map(|item| value::parse(column, &unquote(item)?));
                Ok(Operation::Is(FilterOp::In(values.collect::<Result<_, _>>()?)))
            }
            "is" => match text.to_ascii_lowercase().as_str() {
                "null" => Ok(Operation::Is(FilterOp::IsNull)),
                "not_null" => Ok(Operation::IsNot(FilterOp::IsNull)),
                "true" | "false" | "unknown" => {
                    Err(Problem::unsupported("is.true, is.false and is.unknown").hint("use eq.true or is.null"))
                }
                _ => Err(Problem::parse(format!("{}=is.{text}: write is.null or is.not_null", column.name))),
            },
            _ => Err(unknown_operator(&column.name, operator)),
        }
    }

    fn column(&self, name: &str) -> Result<Column, Problem> {
        if let Some(column) = self.columns.iter().find(|column| column.name == name) {
            return Ok(column.clone());
        }
        let message = format!("column {}.{name} does not exist", self.table);
        let problem = Problem::new(axum::http::StatusCode::BAD_REQUEST, "42703", "No such column", message);
        let known = || self.columns.iter().map(|column| column.name.as_str());
        Err(match names::nearest(name, known()) {
            Some(near) => problem.hint(format!("Perhaps you meant '{near}'")),
            None => problem.hint(format!("the columns are {}", known().take(16).collect::<Vec<_>>().join(", "))),
        })
    }
}

/// A filter, or its opposite.
enum Operation {
    Is(FilterOp),
    IsNot(FilterOp),
}

/// All columns under their own names.
pub(crate) fn all(columns: &[Column]) -> impl Iterator<Item = SelectedColumn> {
    columns.iter().map(|column| SelectedColumn { alias: column.name.clone(), column: column.clone() })
}

fn once<T>(place: &mut Option<T>, value: T, name: &str) -> Result<(), Problem> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Problem::parse(format!("{name} is given twice"))),
    }
}

fn count(name: &str, text: &str) -> Result<u64, Problem> {
    match text.parse::<i64>() {
        Ok(number) => u64::try_from(number).map_err(|_| Problem::range(format!("{name}={text}: it cannot be below 0"))),
        Err(_) => Err(Problem::parse(format!("{name}={text}: it is a number of rows"))),
    }
}

/// What the full grammar has and this version does not is named, not taken for something else.
fn refuse_later(item: &str, place: &str) -> Result<(), Problem> {
    let bare = scan::without_quoted(item);
    let feature = if bare.contains("->") {
        "paths into JSON (-> and ->>)"
    } else if bare.contains("::") {
        "casts (::)"
    } else if bare.contains('(') || bare.starts_with("...") {
        "related collections and aggregates"
    } else {
        return Ok(());
    };
    Err(Problem::unsupported(&format!("{feature} in {place}")))
}

fn unknown_operator(column: &str, operator: &str) -> Problem {
    let name = operator.split('(').next().unwrap_or_default();
    if LATER.contains(&name) || OPERATORS.contains(&name) && name != operator {
        return Problem::unsupported(&format!("the operator {operator} of {column}"));
    }
    let problem = Problem::parse(format!("{column}: \"{operator}\" is not an operator"));
    match names::nearest(name, OPERATORS) {
        Some(near) => problem.hint(format!("Perhaps you meant '{near}'")),
        None => problem.hint(format!("the operators are {}", OPERATORS.join(", "))),
    }
}

#[cfg(test)]
mod tests;
