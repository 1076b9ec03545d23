//! PostgREST's grammar of queries, parsed once for every node: parameters, each a name and a value that are decoded already.

mod error;
mod operators;
mod related;
mod scan;
mod select;
mod value;

pub use error::{QueryError, Reason};
pub use value::read_value;

use scan::{cut, split, unquote};

use super::{Column, ColumnType, Embedded, Filter, Operand, Order, Relations, SelectedColumn};
use crate::limits;
use crate::names;
use crate::schema::{Collection, FieldType};

/// What a request asks of a collection.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// The columns to give; `None` for all.
    pub select: Option<Vec<SelectedColumn>>,
    /// Which rows.
    pub filter: Filter,
    /// In which order.
    pub order: Vec<Order>,
    /// How many rows at most.
    pub limit: Option<u64>,
    /// How many rows to pass over first.
    pub offset: Option<u64>,
    /// The place behind which rows are wanted, as a cursor says it.
    pub after: Option<String>,
    /// The fields of the body that count; `None` for all.
    pub fields: Option<Vec<String>>,
    /// Related collections that are asked for.
    pub embeds: Vec<Embedded>,
}

impl Default for Query {
    fn default() -> Self {
        let (filter, order, embeds) = (Filter::all(), Vec::new(), Vec::new());
        Self { select: None, filter, order, limit: None, offset: None, after: None, fields: None, embeds }
    }
}

/// Looks up what a name such as `auth.uid` stands for.
pub type Variables<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Reads the parameters of one query.
pub struct Parser<'a> {
    table: &'a str,
    columns: &'a [Column],
    variables: Option<&'a Variables<'a>>,
    relations: Option<(&'a Collection, &'a dyn Relations)>,
    query: Query,
    /// Comparisons so far.
    conditions: usize,
    /// Values of them.
    values: usize,
    /// How deep in `and` and `or` it is.
    depth: usize,
    /// Related collections so far, on all levels.
    embeds: usize,
    /// How deep in related collections it is.
    level: usize,
}

impl std::fmt::Debug for Parser<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parser").field("table", &self.table).field("query", &self.query).finish_non_exhaustive()
    }
}

impl<'a> Parser<'a> {
    /// A parser of queries over a table with these columns; `table` is its name, for messages.
    #[must_use]
    pub fn new(table: &'a str, columns: &'a [Column]) -> Self {
        let query = Query::default();
        Self { table, columns, variables: None, relations: None, query, conditions: 0, values: 0, depth: 0, embeds: 0, level: 0 }
    }

    /// Lets values be names that begin with `auth.`: one that `variables` does not know is NULL, of which no comparison holds.
    #[must_use]
    pub fn with_variables(mut self, variables: &'a Variables<'a>) -> Self {
        self.variables = Some(variables);
        self
    }

    /// Lets the query ask for collections that are related to the table's. Parameters named `select` go first: the others may name what they
    /// embed.
    #[must_use]
    pub fn with_relations(mut self, near: &'a Collection, relations: &'a dyn Relations) -> Self {
        self.relations = Some((near, relations));
        self
    }

    /// Takes one parameter.
    ///
    /// # Errors
    ///
    /// What is wrong, and what would do.
    pub fn parameter(&mut self, name: &str, value: &str) -> Result<(), QueryError> {
        match name {
            "select" => {
                let select = self.select(value)?;
                once(&mut self.query.select, select, name)
            }
            "order" => self.order(value),
            "limit" => once(&mut self.query.limit, count(name, value)?, name),
            "offset" => once(&mut self.query.offset, count(name, value)?, name),
            "after" if self.columns.iter().all(|column| column.name != "after") => once(&mut self.query.after, value.to_owned(), name),
            "columns" => {
                let fields = split(value, ',')?.into_iter().map(unquote).collect::<Result<_, _>>()?;
                once(&mut self.query.fields, fields, name)
            }
            "on_conflict" if unquote(value)? == "id" => Ok(()),
            "on_conflict" => {
                Err(QueryError::malformed(format!("on_conflict={value}: \"{}\" has no unique constraint but that of its id", self.table)))
            }
            "and" | "or" | "not.and" | "not.or" => {
                let filter = self.tree(name, value)?;
                self.require(filter);
                Ok(())
            }
            _ => self.filter(name, value),
        }
    }

    /// Takes filters that stand side by side, as in `status=eq.open&owner=eq.auth.uid`; nothing in them is percent-encoded.
    ///
    /// # Errors
    ///
    /// As [`parameter`](Self::parameter), and for whatever is not a filter.
    pub fn filters(&mut self, text: &str) -> Result<(), QueryError> {
        for part in split(text, '&')?.into_iter().filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match name {
                "select" | "order" | "limit" | "offset" | "after" | "columns" | "on_conflict" => {
                    return Err(QueryError::malformed(format!("{name} is not a filter")));
                }
                _ => self.parameter(name, value)?,
            }
        }
        Ok(())
    }

    /// What was read.
    #[must_use]
    pub fn finish(self) -> Query {
        self.query
    }

    fn require(&mut self, filter: Filter) {
        let all = std::mem::replace(&mut self.query.filter, Filter::all());
        self.query.filter = all.and(Filter::And(vec![filter]));
    }

    fn filter(&mut self, name: &str, text: &str) -> Result<(), QueryError> {
        if let [first, _, ..] = split(name, '.')?.as_slice() {
            let rest = name.get(first.len() + 1..).unwrap_or_default();
            return self.within((name, first), rest, text);
        }
        // A reference and what it leads to may have one name: then it is there when the record is.
        let asks_presence = ["is.null", "not.is.null", "is.not_null", "not.is.not_null"].contains(&text);
        if (asks_presence || self.columns.iter().all(|column| column.name != name)) && self.require_related(name, text)? {
            return Ok(());
        }
        let operand = self.operand(name)?;
        let filter = self.comparison(name, &operand, text)?;
        self.require(filter);
        Ok(())
    }

    /// `(node,node)` after `and`, `or`, `not.and` or `not.or`.
    fn tree(&mut self, word: &str, text: &str) -> Result<Filter, QueryError> {
        if self.depth == limits::QUERY_DEPTH_MAX {
            return Err(QueryError::malformed(format!("and, or and not nest at most {} deep", limits::QUERY_DEPTH_MAX)));
        }
        let inner = text.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
        let inner = inner.ok_or_else(|| QueryError::malformed(format!("{word}={text}: write {word}=(a.eq.1,b.gt.2)")))?;
        self.depth += 1;
        let nodes = split(inner, ',')?.into_iter().map(|node| self.node(node)).collect::<Result<Vec<_>, _>>()?;
        self.depth -= 1;
        let (negated, word) = word.strip_prefix("not.").map_or((false, word), |word| (true, word));
        let filter = if word == "or" { Filter::Or(nodes) } else { Filter::And(nodes) };
        Ok(if negated { filter.negated() } else { filter })
    }

    fn node(&mut self, text: &str) -> Result<Filter, QueryError> {
        for word in ["and", "or", "not.and", "not.or"] {
            if let Some(rest) = text.strip_prefix(word).filter(|rest| rest.starts_with('(')) {
                return self.tree(word, rest);
            }
        }
        let (name, rest) = cut(text, ".").ok_or_else(|| {
            QueryError::malformed(format!("\"{text}\" is not a condition")).hint("inside of and(…) and or(…), write column.operator.value")
        })?;
        let operand = self.operand(name)?;
        self.comparison(name, &operand, rest)
    }

    fn order(&mut self, text: &str) -> Result<(), QueryError> {
        for term in split(text, ',')? {
            let mut words = split(term, '.')?.into_iter();
            let name = words.next().unwrap_or_default();
            let (through, operand) = self.ordered_by(name)?;
            let (mut descending, mut nulls_first) = (None, None);
            for word in words {
                let taken = match word {
                    "asc" | "desc" if nulls_first.is_none() => descending.replace(word == "desc").is_some(),
                    "nullsfirst" | "nullslast" => nulls_first.replace(word == "nullsfirst").is_some(),
                    _ => true,
                };
                if taken {
                    return Err(QueryError::malformed(format!(
                        "order={term}: a term is `column`, `.asc` or `.desc`, `.nullsfirst` or `.nullslast`"
                    )));
                }
            }
            operators::sortable(name, &operand)?;
            let descending = descending.unwrap_or(false);
            // Rows that tie by a column tie by it again.
            if self.query.order.iter().all(|order| (&order.operand, order.through) != (&operand, through)) {
                self.query.order.push(Order { operand, through, descending, nulls_first: nulls_first.unwrap_or(descending) });
            }
        }
        if self.query.order.len() > limits::QUERY_ORDER_MAX {
            return Err(QueryError::malformed(format!("order names more than {} columns", limits::QUERY_ORDER_MAX)));
        }
        Ok(())
    }

    /// `name`, `name->key` or `name->>key`.
    fn operand(&self, text: &str) -> Result<Operand, QueryError> {
        let Some((name, mut rest)) = cut(text, "->") else { return Ok(self.column(&unquote(text)?)?.into()) };
        let mut operand = Operand::from(self.column(&unquote(name)?)?);
        if !matches!(operand.column.kind, ColumnType::Field(FieldType::Json | FieldType::List)) {
            let message = format!("operator does not exist: -> on the column \"{}\", which is not JSON", operand.column.name);
            return Err(QueryError::new(Reason::NoOperator, message));
        }
        loop {
            operand.text = rest.starts_with('>');
            let step = rest.strip_prefix('>').unwrap_or(rest);
            let (key, more) = cut(step, "->").map_or((step, None), |(key, more)| (key, Some(more)));
            let key = unquote(key)?;
            if key.is_empty() || key.contains('\0') || operand.text && more.is_some() {
                return Err(QueryError::malformed(format!("{text}: a path is column->key->0, and ->> only in front of its last part")));
            }
            operand.path.push(key);
            match more {
                Some(more) => rest = more,
                None => break,
            }
        }
        if operand.path.len() > limits::QUERY_PATH_MAX {
            return Err(QueryError::malformed(format!("a path has at most {} parts", limits::QUERY_PATH_MAX)));
        }
        Ok(operand)
    }

    fn column(&self, name: &str) -> Result<Column, QueryError> {
        if let Some(column) = self.columns.iter().find(|column| column.name == name) {
            return Ok(column.clone());
        }
        let error = QueryError::new(Reason::NoColumn, format!("column {}.{name} does not exist", self.table));
        let known = || self.columns.iter().map(|column| column.name.as_str());
        Err(match names::nearest(name, known()) {
            Some(near) => error.hint(format!("Perhaps you meant '{near}'")),
            None => error.hint(format!("the columns are {}", known().take(16).collect::<Vec<_>>().join(", "))),
        })
    }
}

fn once<T>(place: &mut Option<T>, value: T, name: &str) -> Result<(), QueryError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(QueryError::malformed(format!("{name} is given twice"))),
    }
}

fn count(name: &str, text: &str) -> Result<u64, QueryError> {
    match text.parse::<i64>() {
        Ok(number) => u64::try_from(number).map_err(|_| QueryError::new(Reason::Range, format!("{name}={text}: it cannot be below 0"))),
        Err(_) => Err(QueryError::malformed(format!("{name}={text}: it is a number of rows"))),
    }
}

#[cfg(test)]
mod tests;
