//! Related collections in a statement: sub-selects that look from each row of one table to those of another.
//!
//! Each table gets a name, `mobo_1` and so on, by which the one inside names that around it. All other columns are named without their table:
//! in SQL the innermost one that has such a column is meant, and every column of a level is one of that level's table.

use mobo_core::query::{Column, Embed, Operand, Presence, Select};
use mobo_core::schema::FieldType;

use super::{Argument, Dialect, Writer, quoted};

/// Arguments of one function: SQLite allows no more than a hundred or so.
const CELLS_MAX: usize = 64;

impl<'q> Writer<'q> {
    /// The next table.
    pub(super) fn level(&mut self) -> usize {
        self.levels += 1;
        self.levels
    }

    /// `FROM` and `WHERE` of a table; `join` leads to it from the table that it is related to.
    pub(super) fn source(&mut self, select: &'q Select, level: usize, join: Option<String>) -> String {
        let schema = match self.dialect {
            Dialect::Sqlite => "",
            Dialect::Postgres => "public.",
        };
        let is_named = join.is_some() || !select.embeds.is_empty();
        let mut conditions = Vec::from_iter(join);
        if !select.filter.is_all() {
            conditions.push(self.filter(&select.filter));
        }
        for embed in &select.embeds {
            let word = match embed.presence {
                Presence::Any => continue,
                Presence::Some => "EXISTS",
                Presence::None => "NOT EXISTS",
            };
            let (far, join) = self.join(embed, level);
            conditions.push(format!("{word} (SELECT 1{})", self.source(&embed.select, far, Some(join))));
        }
        let name = if is_named { format!(" AS {}", named(level)) } else { String::new() };
        let condition = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        format!(" FROM {schema}{}{name}{condition}", quoted(&select.collection.name))
    }

    /// What a related collection gives for a row, as text; NULL where there is no such record.
    pub(super) fn cell(&mut self, embed: &'q Embed, near: usize) -> String {
        let cell = self.json(embed, near);
        match self.dialect {
            Dialect::Sqlite => format!("COALESCE({cell}, 'null')"),
            Dialect::Postgres => format!("COALESCE({cell}, 'null'::json)::text"),
        }
    }

    fn json(&mut self, embed: &'q Embed, near: usize) -> String {
        let (far, join) = self.join(embed, near);
        let select = &embed.select;
        let row = self.row(select, far);
        let source = self.source(select, far, Some(join));
        if embed.to_one {
            return format!("(SELECT {row}{source} LIMIT 1)");
        }
        let order = self.order_by(select, far);
        let rows = |number: u64| Argument::Rows(i64::try_from(number).unwrap_or(i64::MAX));
        let (limit, offset) = (self.argument(rows(select.limit)), self.argument(rows(select.offset)));
        let rows = format!("(SELECT {row} AS \"mobo_row\"{source}{order} LIMIT {limit} OFFSET {offset})");
        match self.dialect {
            Dialect::Sqlite => format!("(SELECT '[' || COALESCE(group_concat(\"mobo_row\", ','), '') || ']' FROM {rows})"),
            Dialect::Postgres => format!("(SELECT COALESCE(json_agg(\"mobo_row\"), '[]'::json) FROM {rows} AS \"mobo_rows\")"),
        }
    }

    /// A row as an array of its cells.
    fn row(&mut self, select: &'q Select, level: usize) -> String {
        let columns = select.needed();
        let embeds: Vec<String> = select.shown_embeds().map(|embed| self.json(embed, level)).collect();
        match self.dialect {
            Dialect::Sqlite => {
                let names: Vec<String> = columns.iter().map(|column| quoted(&column.name)).collect();
                let plain = names.chunks(CELLS_MAX).map(|names| format!("mobo_cells({})", names.join(", ")));
                let related = embeds.into_iter().map(|embed| format!("COALESCE({embed}, 'null')"));
                let cells: Vec<String> = plain.chain(related).collect();
                if cells.is_empty() { "'[]'".to_owned() } else { format!("'[' || {} || ']'", cells.join(" || ',' || ")) }
            }
            Dialect::Postgres => {
                let cells: Vec<String> = columns.into_iter().map(postgres_cell).chain(embeds).collect();
                // A function takes a hundred arguments, and an array any number.
                format!("json_build_array(VARIADIC ARRAY[{}]::json[])", cells.join(", "))
            }
        }
    }

    /// A value of the one record that a row names, to sort by.
    pub(super) fn related_operand(&mut self, embed: &'q Embed, near: usize, operand: &'q Operand) -> String {
        let (far, join) = self.join(embed, near);
        let operand = self.operand(operand);
        let source = self.source(&embed.select, far, Some(join));
        format!("(SELECT {operand}{source} LIMIT 1)")
    }

    fn join(&mut self, embed: &Embed, near: usize) -> (usize, String) {
        let far = self.level();
        let (near, name, field) = (named(near), named(far), quoted(&embed.field.name));
        let join = if embed.to_one { format!("{name}.\"id\" = {near}.{field}") } else { format!("{name}.{field} = {near}.\"id\"") };
        (far, join)
    }
}

/// The name of a table in the statement; no collection's begins so.
fn named(level: usize) -> String {
    format!("\"mobo_{level}\"")
}

fn postgres_cell(column: &Column) -> String {
    let name = quoted(&column.name);
    match column.kind.field() {
        FieldType::Timestamp => format!("to_json((extract(epoch FROM {name}) * 1000000)::bigint)"),
        FieldType::Json | FieldType::List => format!("to_json({name}::text)"),
        FieldType::Bytes => format!("to_json(encode({name}, 'hex'))"),
        FieldType::Text | FieldType::Int | FieldType::Float | FieldType::Bool | FieldType::Counter => format!("to_json({name})"),
    }
}
