//! The words after `?`, up to the SQL of both databases, and SQLite's answer to its own.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use mobo_adapters::sql::{self, Dialect, Statement};
use mobo_adapters::sqlite::functions;
use mobo_core::ids::{CollectionId, FieldId, Lane, ProjectId};
use mobo_core::query::{Column, Parser, Related, Relations, Select, columns, related};
use mobo_core::schema::{Collection, Field, FieldType, Kind, Schema};

use rusqlite::Connection;

use super::{Answer, answer, shape};

static COLLECTION: LazyLock<Arc<Collection>> = LazyLock::new(|| {
    let field = |(n, kind): (u64, FieldType)| Field {
        id: FieldId::new(n).expect("not 0"),
        name: format!("f{}", kind.name()),
        kind,
        retired: false,
        // Of the things themselves: there and back.
        references: (kind == FieldType::Text).then(|| CollectionId::new(1).expect("not 0")),
    };
    Arc::new(Collection {
        id: CollectionId::new(1).expect("not 0"),
        name: "things".to_owned(),
        kind: Kind::Document,
        rev: 1,
        fields: (1..).zip(FieldType::ALL).map(field).collect(),
        rules: Vec::new(),
        lane: Lane::State,
        store: "default".to_owned(),
    })
});
static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::new(1, [Collection::clone(&COLLECTION)]));

struct All;

impl Relations for All {
    fn from(&self, near: &Collection, name: &str) -> Vec<Related> {
        related(&SCHEMA, near, name)
    }
}

static COLUMNS: LazyLock<Vec<Column>> = LazyLock::new(|| columns(&COLLECTION));

/// Every word that may be in the text of a statement. Whatever else is there was written by the caller.
static WORDS: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let words = "SELECT FROM WHERE ORDER BY LIMIT OFFSET AND OR NOT IS NULL TRUE FALSE true false DISTINCT IN LIKE ILIKE ASC DESC NULLS FIRST \
                 LAST COLLATE C text jsonb count public things mobo_json mobo_text mobo_order mobo_like mobo_contains 0 1 \
                 AS EXISTS COALESCE VARIADIC ARRAY json json_build_array json_agg to_json extract epoch 1000000 bigint encode hex null group_concat \
                 mobo_cells mobo_row mobo_rows";
    words.split_whitespace().map(str::to_owned).chain(COLUMNS.iter().map(|column| column.name.clone())).collect()
});

/// A few rows of [`COLLECTION`], so that what is asked of values is asked.
static DATABASE: LazyLock<Mutex<Connection>> = LazyLock::new(|| {
    let connection = Connection::open_in_memory().expect("memory");
    functions::add(&connection).expect("memory for functions");
    let (mut fields, mut rows) = (String::from("\"id\" TEXT PRIMARY KEY"), [const { String::new() }; 3]);
    for kind in FieldType::ALL {
        let (sql_type, values) = match kind {
            FieldType::Text => ("TEXT", ["'a%b'", "''", "NULL"]),
            FieldType::Int | FieldType::Counter => ("INTEGER", ["1", "-9223372036854775808", "NULL"]),
            FieldType::Float => ("REAL", ["1.5", "-1e300", "NULL"]),
            FieldType::Bool => ("INTEGER", ["1", "0", "NULL"]),
            FieldType::Timestamp => ("TEXT", ["'2026-02-03T04:05:06.789000Z'", "'1969-12-31T23:59:59.500000Z'", "NULL"]),
            FieldType::Json => ("TEXT", ["'{\"a\":[1,{\"b\":null}],\"n\":7}'", "'1'", "NULL"]),
            FieldType::List => ("TEXT", ["'[1,\"a\",{}]'", "'[]'", "NULL"]),
            FieldType::Bytes => ("BLOB", ["x'0001'", "x''", "NULL"]),
        };
        fields += &format!(", \"f{}\" {sql_type}", kind.name());
        rows.iter_mut().zip(values).for_each(|(row, value)| *row += &format!(", {value}"));
    }
    let rows: String = rows.iter().enumerate().map(|(n, row)| format!("INSERT INTO things VALUES ('r{n}'{row});")).collect();
    connection.execute_batch(&format!("CREATE TABLE things({fields}) STRICT, WITHOUT ROWID; {rows}")).expect("a table");
    Mutex::new(connection)
});

/// Parses, translates, looks whether anything of the input is in the text, and has SQLite run it: whatever was parsed must be SQL.
pub(super) fn query(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes);
    let mut parser = Parser::new("things", &COLUMNS).with_relations(&COLLECTION, &All);
    let mut parameters: Vec<(&str, &str)> = text.split('&').map(|part| part.split_once('=').unwrap_or((part, ""))).collect();
    parameters.sort_by_key(|(name, _)| *name != "select");
    for (name, value) in parameters {
        if let Err(error) = parser.parameter(name, value) {
            return answer(&(format!("{:?}", error.reason), shape(&error.message)));
        }
    }
    let query = parser.finish();
    let all = Select::all(ProjectId::new(1).expect("not 0"), Arc::clone(&COLLECTION));
    let columns = query.select.clone().unwrap_or_else(|| all.columns.clone());
    let (order, embeds) = (query.order.clone(), query.related(all.project));
    let select = Select { columns, filter: query.filter.clone(), order, limit: query.limit.unwrap_or(9), embeds, ..all };
    for dialect in [Dialect::Sqlite, Dialect::Postgres] {
        for statement in [sql::rows(dialect, &select), sql::total(dialect, &select)] {
            let statement = statement.expect("what was parsed can be translated");
            check(&statement.text, statement.arguments.len());
            // Rows that show others are read on both stores, by a test of generated queries.
            if dialect == Dialect::Sqlite && select.embeds.is_empty() {
                run(&statement);
            }
        }
    }
    answer(&shape(&format!("{query:?}")))
}

fn run(statement: &Statement<'_>) {
    let database = DATABASE.lock().unwrap_or_else(PoisonError::into_inner);
    let ran = || -> rusqlite::Result<()> {
        let mut prepared = database.prepare(&statement.text)?;
        for (index, argument) in (1..).zip(&statement.arguments) {
            prepared.raw_bind_parameter(index, argument)?;
        }
        assert_eq!(prepared.parameter_count(), statement.arguments.len(), "{}", statement.text);
        let mut rows = prepared.raw_query();
        while rows.next()?.is_some() {}
        Ok(())
    };
    if let Err(error) = ran() {
        panic!("{error}: {}", statement.text);
    }
}

fn check(text: &str, arguments: usize) {
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let marked = letter == '?' || letter == '$';
        let end = rest.char_indices().skip(1).find(|(_, next)| !is_word(*next)).map_or(rest.len(), |(at, _)| at);
        let word = if is_word(letter) || marked { &rest[..end] } else { &rest[..letter.len_utf8()] };
        let is_ours = match word.strip_prefix(['?', '$']) {
            Some(number) => number.parse::<usize>().is_ok_and(|number| (1..=arguments).contains(&number)),
            None if is_word(letter) => {
                // The tables and cells of related collections are numbered.
                let numbered = word.strip_prefix("mobo_cell_").or_else(|| word.strip_prefix("mobo_"));
                WORDS.contains(word) || numbered.is_some_and(|number| number.parse::<usize>().is_ok())
            }
            None => " ()\",.*=<>:@#[]|'".contains(letter),
        };
        assert!(is_ours, "\"{word}\" is in the statement: {text}");
        rest = &rest[word.len()..];
    }
}

/// Queries of every kind, to start from.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = [
        "select=id,a:ftext,fint::text,fjson->a->>0&order=fint.desc.nullslast,fjson->>a&limit=5&offset=2",
        "ftext=eq.a&fint=not.in.(1,2)&fbool=is.true&ffloat=gt.1.5&ftimestamp=lt.2026-01-01T00:00:00Z",
        "or=(ftext.like.*a*,and(fint.gte.1,not.or(ftext.ilike.\"b,c\",id.neq.x)))&not.and=(fint.eq.1)",
        "fjson=cs.{\"a\":1}&flist=ov.{a,1}&flist=cd.[1]&fjson->a=isdistinct.1&fjson->n=gt.5&fbytes=eq.AAE=",
        "select=id,ftext(id,fint),things!ftext!inner(id,...ftext(a:fbool))&ftext.fint=gt.1&things.order=fint.desc&things.limit=2&order=ftext(fint)",
        "select=x:things!ftext(fjson->a,ftext(*))&x=not.is.null&x.or=(fint.eq.1,fbool.is.true)&x.ftext.fbytes=eq.AAE=",
        "flist=ov.[1,2,3,4,5,6,7,8,9]&fjson=ov.{a,b,c,d,e,f,g,h}&or=(flist.ov.{a,b},fjson.cs.[1])&fint=in.(1,2,3,4,5,6,7,8)",
        "and=(fint.gte.1,fint.lt.9,or(ftext.eq.\"a\",ftext.not.like.*b*,not.and(fbool.is.false,fbytes.is.null)))&offset=1",
        "select=id,a:fjson->a->1->>b,b:flist->>0,fcounter::text,ffloat::int,ftimestamp&order=fjson->>n.desc.nullsfirst,flist->>0,id",
        "fint=eq(any).{1,2}&ftext=like(all).{a*,\"*b\"}&fcounter=lte.7&columns=ftext&on_conflict=id&after=x",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    // More values than one chain of conditions holds, under other filters.
    seeds.push(format!("flist=ov.{{{}}}&or=(fint.gt.1,not.and(fbool.is.true,id.eq.r1))", ["a"; 130].join(",")).into_bytes());
    seeds
}
