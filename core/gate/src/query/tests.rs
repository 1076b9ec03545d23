use mobo_core::query::ColumnType;
use mobo_core::schema::FieldType;

use super::*;

fn columns() -> Vec<Column> {
    let field = |(name, kind): (&str, FieldType)| Column { name: name.to_owned(), kind: ColumnType::Field(kind) };
    let mut columns = vec![Column { name: "id".to_owned(), kind: ColumnType::Key }];
    columns.extend(
        [
            ("title", FieldType::Text),
            ("n", FieldType::Int),
            ("x", FieldType::Float),
            ("done", FieldType::Bool),
            ("due", FieldType::Timestamp),
            ("meta", FieldType::Json),
            ("raw", FieldType::Bytes),
            ("hours", FieldType::Counter),
        ]
        .map(field),
    );
    columns
}

/// A query in a few words: `select | filters | order | limit offset fields`.
fn shown(query: &Query) -> String {
    let select = query
        .select
        .as_ref()
        .map_or("*".to_owned(), |select| select.iter().map(|s| format!("{}:{}", s.alias, s.column.name)).collect::<Vec<_>>().join(","));
    let filters = query.filters.iter().map(|f| format!("{}{} {:?}", if f.negated { "not " } else { "" }, f.column.name, f.op));
    let order = query.order.iter().map(|o| format!("{}{}{}", o.column.name, if o.descending { "-" } else { "+" }, u8::from(o.nulls_first)));
    let (filters, order) = (filters.collect::<Vec<_>>().join(" & "), order.collect::<Vec<_>>().join(","));
    let rest = [query.limit.map(|n| format!("limit {n}")), query.offset.map(|n| format!("offset {n}"))];
    let fields = query.fields.as_ref().map(|fields| format!("fields {}", fields.join(",")));
    let rest: Vec<String> = rest.into_iter().chain([fields]).flatten().collect();
    [select, filters, order, rest.join(" ")].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" | ")
}

#[track_caller]
fn check(raw: &str, want: &str) {
    assert_eq!(Query::parse(Some(raw), "t", &columns()).map(|query| shown(&query)), Ok(want.to_owned()), "{raw}");
}

#[track_caller]
fn refuse(raw: &str, code: &str, words: &str) {
    let problem = format!("{:?}", Query::parse(Some(raw), "t", &columns()).expect_err(raw));
    assert!(problem.contains(&format!("code: \"{code}\"")) && problem.contains(words), "{raw}: {problem}");
}

#[test]
fn what_is_read() {
    check("", "*");
    check("&&", "*");
    check("select=*", "id:id,title:title,n:n,x:x,done:done,due:due,meta:meta,raw:raw,hours:hours");
    check("select=n,name:title,%22id%22", "n:n,name:title,id:id");
    check("select=*,n&limit=5&offset=2", "id:id,title:title,n:n,x:x,done:done,due:due,meta:meta,raw:raw,hours:hours | limit 5 offset 2");
    check("order=n.desc,title,due.nullsfirst,x.desc.nullslast&order=id", "* | n-1,title+0,due+1,x-0,id+0");
    check("columns=%22n%22,title&on_conflict=id", "* | fields n,title");
}

#[test]
fn filters_are_of_the_type_of_their_column() {
    check("title=eq.a", "* | title Eq(Text(\"a\"))");
    check("title=eq.", "* | title Eq(Text(\"\"))");
    check("title=eq.a,b)%22(", "* | title Eq(Text(\"a,b)\\\"(\"))");
    check("title=eq.a+b%2Bc", "* | title Eq(Text(\"a b+c\"))");
    check("title=eq.eq.x", "* | title Eq(Text(\"eq.x\"))");
    check("id=eq.7", "* | id Eq(Text(\"7\"))");
    check("n=gt.-3&n=lte.9", "* | n Gt(Int(-3)) & n Lte(Int(9))");
    check("hours=gte.2", "* | hours Gte(Int(2))");
    check("x=lt.1e2", "* | x Lt(Float(100.0))");
    check("done=not.eq.TRUE", "* | not done Eq(Bool(true))");
    check("due=eq.1970-01-01T01:00:00%2B01:00", "* | due Eq(Timestamp(0))");
    check("meta=neq.%7B%22b%22:1.0%7D", "* | meta Neq(Json(\"{\\\"b\\\":1}\"))");
    check("raw=eq.AAE%3D", "* | raw Eq(Bytes([0, 1]))");
    check("n=in.(1,2)", "* | n In([Int(1), Int(2)])");
    check("title=not.in.(a,%22b,c%22,)", "* | not title In([Text(\"a\"), Text(\"b,c\"), Text(\"\")])");
    check("n=in.()", "* | n In([])");
    check("n=is.null", "* | n IsNull");
    check("n=is.NOT_NULL", "* | not n IsNull");
    check("n=not.is.null", "* | not n IsNull");
    check("n=not.is.not_null", "* | n IsNull");
    check("%6E=eq.1", "* | n Eq(Int(1))");
}

#[test]
fn what_is_refused() {
    for (raw, code, words) in [
        ("colour=eq.1", "42703", "column t.colour does not exist"),
        ("titel=eq.1", "42703", "Perhaps you meant 'title'"),
        ("select=titel", "42703", "Perhaps you meant 'title'"),
        ("order=titel", "42703", "Perhaps you meant 'title'"),
        ("select=", "42703", "column t. does not exist"),
        ("=eq.1", "42703", "column t. does not exist"),
        ("select=n,,title", "42703", "column t. does not exist"),
        ("n=1", "PGRST100", "n=eq.1"),
        ("n=eq", "PGRST100", "n=eq.eq"),
        ("n=eqq.1", "PGRST100", "Perhaps you meant 'eq'"),
        ("n=zzzzz.1", "PGRST100", "the operators are eq, neq"),
        ("n=EQ.1", "PGRST100", "not an operator"),
        ("n=not.not.eq.1", "PGRST100", "not an operator"),
        ("n=in.1,2", "PGRST100", "in.(a,b,c)"),
        ("title=in.(%22a)", "PGRST100", "not closed"),
        ("title=in.(%22a%22b)", "PGRST100", "ends at its quote"),
        ("n=is.zero", "PGRST100", "is.null"),
        ("limit=x", "PGRST100", "number of rows"),
        ("limit=", "PGRST100", "number of rows"),
        ("limit=99999999999999999999", "PGRST100", "number of rows"),
        ("limit=1&limit=2", "PGRST100", "given twice"),
        ("select=n&select=x", "PGRST100", "given twice"),
        ("order=n.up", "PGRST100", "`.asc` or `.desc`"),
        ("order=n.asc.desc", "PGRST100", "`.asc` or `.desc`"),
        ("order=n.nullsfirst.asc", "PGRST100", "`.asc` or `.desc`"),
        ("select=a:n,a:x", "PGRST100", "two columns the name"),
        ("select=mobo_key:n", "PGRST100", "an alias"),
        ("select=a:b:n", "PGRST100", "alias:name"),
        ("on_conflict=title", "PGRST100", "no unique constraint"),
        ("title=eq.%FF", "PGRST100", "UTF-8"),
        ("limit=-1", "PGRST103", "below 0"),
        ("offset=-1", "PGRST103", "below 0"),
        ("n=eq.1.5", "22P02", "an integer of 64 bits"),
        ("n=eq.9223372036854775808", "22P02", "an integer of 64 bits"),
        ("n=in.(1,x)", "22P02", "an integer of 64 bits"),
        ("x=eq.NaN", "22P02", "a finite number"),
        ("done=eq.1", "22P02", "true or false"),
        ("due=eq.2026-01-01T00:00:00+01:00", "22P02", "write %2B"),
        ("due=eq.yesterday", "22P02", "with its offset"),
        ("raw=eq.A", "22P02", "base64"),
        ("meta=eq.%7B", "22P02", "is not JSON"),
        ("title=eq.a%00", "22P02", "U+0000"),
        ("id=eq.%00", "22P02", "U+0000"),
        ("meta=gt.1", "42883", "has no order"),
    ] {
        refuse(raw, code, words);
    }
}

#[test]
fn what_comes_later_is_named_and_never_passed_over() {
    for (raw, words) in [
        ("or=(n.eq.1,n.eq.2)", "and/or"),
        ("not.and=(n.eq.1)", "and/or"),
        ("title=like.a*", "the operator like of title"),
        ("title=fts(german).x", "the operator fts(german) of title"),
        ("n=eq(any).{1,2}", "the operator eq(any) of n"),
        ("done=is.true", "eq.true"),
        ("meta-%3E%3Ea=eq.1", "paths into JSON"),
        ("select=meta-%3Ea", "paths into JSON"),
        ("order=meta-%3Ea", "paths into JSON"),
        ("select=n::text", "casts"),
        ("select=n,parts(id)", "related collections"),
        ("select=...parts(id)", "related collections"),
        ("select=count()", "related collections and aggregates"),
        ("parts.n=eq.1", "related collections"),
        ("parts.order=n", "related collections"),
    ] {
        refuse(raw, "PGRST127", words);
    }
}

#[test]
fn a_query_has_bounds() {
    check(&"n=eq.1&".repeat(64), &format!("* | {}", vec!["n Eq(Int(1))"; 64].join(" & ")));
    refuse(&"n=eq.1&".repeat(65), "PGRST100", "at most 64 filters");
    refuse(&format!("n=in.({}1)", "1,".repeat(1_000)), "PGRST100", "1000 values in all");
    refuse(&format!("order={}n", "n,".repeat(512)), "PGRST100", "more than 512");
    refuse(&format!("select={}n", "n,".repeat(512)), "PGRST100", "more than 512");
}
