//! A query as SQL, for both databases.
//!
//! Values, and the names that lead into JSON, are always parameters. The text holds nothing but names of the collection's own columns, in
//! quotes, and words of SQL: nothing that a caller wrote ever gets into it. Both databases give the same rows: text compares by its bytes,
//! and what they would see differently is decided by functions of `mobo_core::query` that SQLite is given.

mod related;

use std::fmt::Write as _;

use mobo_core::query::{Condition, Filter, Op, Operand, Select};
use mobo_core::schema::{FieldType, Kind};
use mobo_core::value::Value;

/// Whose SQL it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dialect {
    /// SQLite, with the functions `mobo_json`, `mobo_text`, `mobo_order`, `mobo_like`, `mobo_match`, `mobo_contains` and `mobo_cells`.
    Sqlite,
    /// Postgres.
    Postgres,
}

/// A parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument<'q> {
    /// A value of a column of that type.
    Value(&'q Value, FieldType),
    /// A pattern.
    Text(&'q str),
    /// A path into JSON.
    Path(&'q [String]),
    /// A number of rows.
    Rows(i64),
}

/// What is said of an answer that would hold more related rows than one may.
pub const TOO_MUCH_RELATED: &str =
    "the related rows of this answer are too large together: ask for fewer rows (limit), or fewer of each (NAME.limit)";

/// A statement with its parameters, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement<'q> {
    /// The text.
    pub text: String,
    /// The parameters.
    pub arguments: Vec<Argument<'q>>,
}

/// The statement that gives the rows of a query: the columns that it [needs](Select::needed), in that order, and behind them a text for each
/// of the [collections that it shows](Select::shown_embeds).
///
/// # Errors
///
/// A sentence, when the query uses a column that the collection does not have.
pub fn rows(dialect: Dialect, select: &Select) -> Result<Statement<'_>, String> {
    rows_and(dialect, select, "")
}

/// The same, with columns of the store's own behind them: SQL without parameters that begins with a comma and names columns of the collection's
/// table, by the table's name where a query around it needs that. Such a query embeds nothing.
///
/// # Errors
///
/// As [`rows`].
pub fn rows_and<'s>(dialect: Dialect, select: &'s Select, more: &str) -> Result<Statement<'s>, String> {
    let mut writer = Writer::of(dialect, select)?;
    let near = writer.level();
    writer.text.reserve(TEXT_BYTES);
    writer.text.push_str("SELECT ");
    let mut is_first = true;
    for column in select.needed() {
        writer.text.push_str(if is_first { "" } else { ", " });
        quote(&mut writer.text, &column.name);
        is_first = false;
    }
    for (n, embed) in select.shown_embeds().enumerate() {
        // With a name that no order can mean.
        let cell = writer.cell(embed, near);
        let _ = write!(writer.text, "{}{cell} AS \"mobo_cell_{n}\"", if is_first { "" } else { ", " });
        is_first = false;
    }
    // A row without columns is a row all the same.
    writer.text.push_str(if is_first { "NULL" } else { "" });
    writer.text.push_str(more);
    writer.from(select, near, None);
    writer.order(select, near);
    let rows = |number: u64| Argument::Rows(i64::try_from(number).unwrap_or(i64::MAX));
    let (limit, offset) = (writer.argument(rows(select.limit)), writer.argument(rows(select.offset)));
    let _ = write!(writer.text, " LIMIT {limit} OFFSET {offset}");
    Ok(writer.finish())
}

/// The statement that counts all rows that the filter of a query lets through.
///
/// # Errors
///
/// As [`rows`].
pub fn total(dialect: Dialect, select: &Select) -> Result<Statement<'_>, String> {
    let mut writer = Writer::of(dialect, select)?;
    let near = writer.level();
    writer.text.push_str("SELECT count(*)");
    writer.from(select, near, None);
    Ok(writer.finish())
}

/// Room that most statements need.
const TEXT_BYTES: usize = 256;
/// Conditions in one chain.
const GROUP: usize = 64;

struct Writer<'q> {
    dialect: Dialect,
    text: String,
    arguments: Vec<Argument<'q>>,
    /// Tables that have a name of their own in the statement.
    levels: usize,
}

impl<'q> Writer<'q> {
    fn of(dialect: Dialect, select: &Select) -> Result<Self, String> {
        match select.foreign_column() {
            Some(name) => Err(format!("\"{}\" has no column \"{name}\"", select.collection.name)),
            None => Ok(Self { dialect, text: String::new(), arguments: Vec::new(), levels: 0 }),
        }
    }

    fn finish(self) -> Statement<'q> {
        Statement { text: self.text, arguments: self.arguments }
    }

    /// A table and its condition; `join` leads to it from the table that it is related to.
    fn from(&mut self, select: &'q Select, near: usize, join: Option<String>) {
        let source = self.source(select, near, join);
        self.text.push_str(&source);
    }

    fn order(&mut self, select: &'q Select, near: usize) {
        let order = self.order_by(select, near);
        self.text.push_str(&order);
    }

    fn order_by(&mut self, select: &'q Select, near: usize) -> String {
        let mut keys = Vec::new();
        for order in &select.order {
            let (direction, nulls) = (if order.descending { "DESC" } else { "ASC" }, if order.nulls_first { "FIRST" } else { "LAST" });
            let key = match order.through.and_then(|at| select.embeds.get(at)) {
                Some(embed) => self.related_operand(embed, near, &order.operand),
                None => self.operand(&order.operand),
            };
            keys.push(format!("{key} {direction} NULLS {nulls}"));
        }
        match select.collection.kind {
            Kind::Table | Kind::Document => keys.push("\"id\"".to_owned()),
            Kind::Stream => {
                if keys.is_empty() {
                    keys.push("\"at\"".to_owned());
                }
                keys.push("\"device\", \"_incarnation\", \"_lane\", \"_seq\", \"_index\"".to_owned());
            }
        }
        format!(" ORDER BY {}", keys.join(", "))
    }

    fn filter(&mut self, filter: &'q Filter) -> String {
        match filter {
            Filter::And(parts) if parts.is_empty() => "true".to_owned(),
            Filter::Or(parts) if parts.is_empty() => "false".to_owned(),
            Filter::And(parts) => self.parts(parts, " AND "),
            Filter::Or(parts) => self.parts(parts, " OR "),
            Filter::Not(part) => format!("NOT ({})", self.filter(part)),
            Filter::Is(condition) => self.condition(condition),
        }
    }

    /// Many of them are put into groups: for SQLite a chain is as deep as it is long, and it bounds the depth.
    fn parts(&mut self, parts: &'q [Filter], word: &str) -> String {
        let mut parts: Vec<String> = parts.iter().map(|part| self.filter(part)).collect();
        while parts.len() > GROUP {
            parts = parts.chunks(GROUP).map(|group| format!("({})", group.join(word))).collect();
        }
        format!("({})", parts.join(word))
    }

    fn condition(&mut self, Condition { operand, op }: &'q Condition) -> String {
        if matches!(op, Op::In(values) if values.is_empty()) {
            // Before the operand: a path would leave a parameter that nothing in the text asks for.
            return "false".to_owned();
        }
        let left = self.operand(operand);
        let kind = operand.kind();
        let is_sqlite = self.dialect == Dialect::Sqlite;
        match op {
            Op::Eq(value) => format!("{left} = {}", self.value(value, kind)),
            Op::Neq(value) => format!("{left} <> {}", self.value(value, kind)),
            Op::Gt(value) => self.ordered(&left, ">", (value, kind)),
            Op::Gte(value) => self.ordered(&left, ">=", (value, kind)),
            Op::Lt(value) => self.ordered(&left, "<", (value, kind)),
            Op::Lte(value) => self.ordered(&left, "<=", (value, kind)),
            Op::Distinct(value) => format!("{left} {} {}", if is_sqlite { "IS NOT" } else { "IS DISTINCT FROM" }, self.value(value, kind)),
            Op::In(values) => {
                let values: Vec<String> = values.iter().map(|value| self.value(value, kind)).collect();
                format!("{left} IN ({})", values.join(", "))
            }
            Op::Like { pattern, insensitive } => {
                let pattern = self.argument(Argument::Text(pattern));
                match (self.dialect, insensitive) {
                    (Dialect::Sqlite, _) => format!("mobo_like({pattern}, {left}, {})", u8::from(*insensitive)),
                    (Dialect::Postgres, false) => format!("{left} LIKE {pattern}"),
                    (Dialect::Postgres, true) => format!("{left} ILIKE {pattern}"),
                }
            }
            Op::Match(regex) => {
                let pattern = self.argument(Argument::Text(regex.spelled()));
                if is_sqlite { format!("mobo_match({pattern}, {left})") } else { format!("{left} ~ {pattern}") }
            }
            Op::Contains(value) if is_sqlite => format!("mobo_contains({left}, {})", self.value(value, kind)),
            Op::Contained(value) if is_sqlite => format!("mobo_contains({}, {left})", self.value(value, kind)),
            Op::Contains(value) => format!("{left} @> {}", self.value(value, kind)),
            Op::Contained(value) => format!("{left} <@ {}", self.value(value, kind)),
            Op::IsNull => format!("{left} IS NULL"),
            Op::IsBool(value) if is_sqlite => format!("{left} IS {}", u8::from(*value)),
            Op::IsBool(value) => format!("{left} IS {}", if *value { "TRUE" } else { "FALSE" }),
        }
    }

    fn ordered(&mut self, left: &str, operator: &str, (value, kind): (&'q Value, FieldType)) -> String {
        let right = self.value(value, kind);
        match (self.dialect, kind) {
            (Dialect::Sqlite, FieldType::Json | FieldType::List) => format!("mobo_order({left}, {right}) {operator} 0"),
            _ => format!("{left} {operator} {right}"),
        }
    }

    /// A column, or what a path finds in it.
    fn operand(&mut self, operand: &'q Operand) -> String {
        let column = quoted(&operand.column.name);
        if operand.path.is_empty() {
            return column;
        }
        let path = self.argument(Argument::Path(&operand.path));
        match (self.dialect, operand.text) {
            (Dialect::Sqlite, false) => format!("mobo_json({column}, {path})"),
            (Dialect::Sqlite, true) => format!("mobo_text({column}, {path})"),
            (Dialect::Postgres, false) => format!("({column} #> {path})"),
            (Dialect::Postgres, true) => format!("(({column} #>> {path}) COLLATE \"C\")"),
        }
    }

    fn value(&mut self, value: &'q Value, kind: FieldType) -> String {
        if *value == Value::Null {
            return "NULL".to_owned();
        }
        let place = self.argument(Argument::Value(value, kind));
        match (self.dialect, kind) {
            (Dialect::Postgres, FieldType::Json | FieldType::List) => format!("{place}::text::jsonb"),
            _ => place,
        }
    }

    fn argument(&mut self, argument: Argument<'q>) -> String {
        self.arguments.push(argument);
        let mark = match self.dialect {
            Dialect::Sqlite => '?',
            Dialect::Postgres => '$',
        };
        format!("{mark}{}", self.arguments.len())
    }
}

/// A name in SQL.
fn quoted(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 2);
    quote(&mut text, name);
    text
}

/// Adds a name in SQL.
fn quote(text: &mut String, name: &str) {
    text.push('"');
    for (n, part) in name.split('"').enumerate() {
        text.push_str(if n == 0 { "" } else { "\"\"" });
        text.push_str(part);
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mobo_core::ids::{CollectionId, FieldId, Lane, ProjectId};
    use mobo_core::query::{Parser, columns};
    use mobo_core::schema::{Collection, Field};

    use super::*;

    #[track_caller]
    fn check(query: &str, want: &str) {
        let field =
            Field { id: FieldId::new(1).unwrap(), name: "meta".to_owned(), kind: FieldType::Json, retired: false, references: None };
        let (id, name, store) = (CollectionId::new(1).unwrap(), "things".to_owned(), "default".to_owned());
        let collection = Collection { id, name, kind: Kind::Table, rev: 1, fields: vec![field], rules: vec![], lane: Lane::State, store };
        let columns = columns(&collection);
        let mut parser = Parser::new("things", &columns);
        parser.filters(query).unwrap();
        let all = Select::all(ProjectId::new(1).unwrap(), Arc::new(collection));
        let select = Select { filter: parser.finish().filter, ..all };
        for dialect in [Dialect::Sqlite, Dialect::Postgres] {
            let statement = total(dialect, &select).unwrap();
            let mark = if dialect == Dialect::Sqlite { '?' } else { '$' };
            for n in 1..=statement.arguments.len() {
                assert!(statement.text.contains(&format!("{mark}{n}")), "{query}: nothing asks for parameter {n}: {}", statement.text);
            }
            if dialect == Dialect::Sqlite {
                assert_eq!(statement.text, format!("SELECT count(*) FROM \"things\" WHERE {want}"), "{query}");
            }
        }
    }

    /// What broke: none of nothing, at the end of a path, left the path as a parameter without a place. 5,000 generated queries found it.
    #[test]
    fn every_parameter_has_its_place() {
        check("id=eq.a", "(\"id\" = ?1)");
        check("meta->a=in.()", "(false)");
        check("meta->>a=in.(x,y)", "(mobo_text(\"meta\", ?1) IN (?2, ?3))");
        check("meta->a=gt.1&id=like.x*", "(mobo_order(mobo_json(\"meta\", ?1), ?2) > 0 AND mobo_like(?3, \"id\", 0))");
        check("or=(meta.cs.1,not.and(meta.is.null))", "((mobo_contains(\"meta\", ?1) OR NOT ((\"meta\" IS NULL))))");
    }
}
