use super::*;
use crate::schema::FieldType;

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

fn named(operand: &Operand) -> String {
    let arrow = if operand.text { "->>" } else { "->" };
    let path = (1..).zip(&operand.path).map(|(n, step)| format!("{}{step}", if n == operand.path.len() { arrow } else { "->" }));
    std::iter::once(operand.column.name.clone()).chain(path).collect()
}

fn filtered(filter: &Filter) -> String {
    let all = |parts: &[Filter]| parts.iter().map(filtered).collect::<Vec<_>>();
    match filter {
        Filter::And(parts) => all(parts).join(" & "),
        Filter::Or(parts) => format!("({})", all(parts).join(" | ")),
        Filter::Not(part) => match &**part {
            Filter::And(parts) => format!("not [{}]", all(parts).join(" & ")),
            part @ (Filter::Or(_) | Filter::Not(_) | Filter::Is(_)) => format!("not {}", filtered(part)),
        },
        Filter::Is(condition) => format!("{} {:?}", named(&condition.operand), condition.op),
    }
}

/// A query in a few words: `select | filters | order | limit offset fields`.
fn shown(query: &Query) -> String {
    let cast = |column: &SelectedColumn| column.cast.map_or(String::new(), |cast| format!("::{cast:?}"));
    let selected = |column: &SelectedColumn| format!("{}:{}{}", column.alias, named(&column.operand), cast(column));
    let select = query.select.as_ref().map_or("*".to_owned(), |select| select.iter().map(selected).collect::<Vec<_>>().join(","));
    let order =
        query.order.iter().map(|o| format!("{}{}{}", named(&o.operand), if o.descending { "-" } else { "+" }, u8::from(o.nulls_first)));
    let order = order.collect::<Vec<_>>().join(",");
    let rest = [query.limit.map(|n| format!("limit {n}")), query.offset.map(|n| format!("offset {n}"))];
    let fields = query.fields.as_ref().map(|fields| format!("fields {}", fields.join(",")));
    let rest: Vec<String> = rest.into_iter().chain([fields]).flatten().collect();
    let all = [select, filtered(&query.filter), order, rest.join(" ")];
    all.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" | ")
}

/// Without percent encoding, which is not done here; `+` stays what it is.
fn parse(raw: &str) -> Result<Query, QueryError> {
    let columns = columns();
    let mut parser = Parser::new("t", &columns);
    for part in raw.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        parser.parameter(name, value)?;
    }
    Ok(parser.finish())
}

#[track_caller]
fn check(raw: &str, want: &str) {
    assert_eq!(parse(raw).map(|query| shown(&query)), Ok(want.to_owned()), "{raw}");
}

#[track_caller]
fn refuse(raw: &str, reason: Reason, words: &str) {
    let error = parse(raw).expect_err(raw);
    assert!(error.reason == reason && format!("{error:?}").contains(words), "{raw}: {error:?}");
}

#[test]
fn what_is_read() {
    check("", "*");
    check("&&", "*");
    check("select=*", "id:id,title:title,n:n,x:x,done:done,due:due,meta:meta,raw:raw,hours:hours");
    check("select=n,name:title,\"id\"", "n:n,name:title,id:id");
    check("select=*,n&limit=5&offset=2", "id:id,title:title,n:n,x:x,done:done,due:due,meta:meta,raw:raw,hours:hours | limit 5 offset 2");
    check("order=n.desc,title,due.nullsfirst,x.desc.nullslast&order=id", "* | n-1,title+0,due+1,x-0,id+0");
    check("columns=\"n\",title&on_conflict=id", "* | fields n,title");
}

#[test]
fn filters_are_of_the_type_of_their_column() {
    check("title=eq.a", "* | title Eq(Text(\"a\"))");
    check("title=eq.", "* | title Eq(Text(\"\"))");
    check("title=eq.a,b)\"(", "* | title Eq(Text(\"a,b)\\\"(\"))");
    check("title=eq.eq.x", "* | title Eq(Text(\"eq.x\"))");
    check("id=eq.7", "* | id Eq(Text(\"7\"))");
    check("n=gt.-3&n=lte.9", "* | n Gt(Int(-3)) & n Lte(Int(9))");
    check("hours=gte.2", "* | hours Gte(Int(2))");
    check("x=lt.1e2", "* | x Lt(Float(100.0))");
    check("done=not.eq.TRUE", "* | not done Eq(Bool(true))");
    check("due=eq.1970-01-01T01:00:00+01:00", "* | due Eq(Timestamp(0))");
    check("meta=neq.{\"b\":1.0}", "* | meta Neq(Json(\"{\\\"b\\\":1}\"))");
    check("raw=eq.AAE=", "* | raw Eq(Bytes([0, 1]))");
    check("n=in.(1,2)", "* | n In([Int(1), Int(2)])");
    check("title=not.in.(a,\"b,c\",)", "* | not title In([Text(\"a\"), Text(\"b,c\"), Text(\"\")])");
    check("n=in.()", "* | n In([])");
    check("n=is.null", "* | n IsNull");
    check("n=is.NOT_NULL", "* | not n IsNull");
    check("n=not.is.null", "* | not n IsNull");
    check("n=not.is.not_null", "* | n IsNull");
}

#[test]
fn what_is_refused() {
    for (raw, reason, words) in [
        ("colour=eq.1", Reason::NoColumn, "column t.colour does not exist"),
        ("titel=eq.1", Reason::NoColumn, "Perhaps you meant 'title'"),
        ("select=titel", Reason::NoColumn, "Perhaps you meant 'title'"),
        ("order=titel", Reason::NoColumn, "Perhaps you meant 'title'"),
        ("select=", Reason::NoColumn, "column t. does not exist"),
        ("=eq.1", Reason::NoColumn, "column t. does not exist"),
        ("select=n,,title", Reason::NoColumn, "column t. does not exist"),
        ("n=1", Reason::Malformed, "n=eq.1"),
        ("n=eq", Reason::Malformed, "n=eq.eq"),
        ("n=eqq.1", Reason::Malformed, "Perhaps you meant 'eq'"),
        ("n=zzzzz.1", Reason::Malformed, "the operators are eq, neq"),
        ("n=EQ.1", Reason::Malformed, "not an operator"),
        ("n=not.not.eq.1", Reason::Malformed, "not an operator"),
        ("n=in.1,2", Reason::Malformed, "in.(a,b,c)"),
        ("title=in.(\"a)", Reason::Malformed, "not closed"),
        ("title=in.(\"a\"b)", Reason::Malformed, "ends at its quote"),
        ("n=is.zero", Reason::Malformed, "is.null"),
        ("limit=x", Reason::Malformed, "number of rows"),
        ("limit=", Reason::Malformed, "number of rows"),
        ("limit=99999999999999999999", Reason::Malformed, "number of rows"),
        ("limit=1&limit=2", Reason::Malformed, "given twice"),
        ("select=n&select=x", Reason::Malformed, "given twice"),
        ("order=n.up", Reason::Malformed, "`.asc` or `.desc`"),
        ("order=n.asc.desc", Reason::Malformed, "`.asc` or `.desc`"),
        ("order=n.nullsfirst.asc", Reason::Malformed, "`.asc` or `.desc`"),
        ("select=a:n,a:x", Reason::Malformed, "two columns the name"),
        ("select=mobo_key:n", Reason::Malformed, "an alias"),
        ("select=a:b:n", Reason::Malformed, "alias:name"),
        ("on_conflict=title", Reason::Malformed, "no unique constraint"),
        ("limit=-1", Reason::Range, "below 0"),
        ("offset=-1", Reason::Range, "below 0"),
        ("n=eq.1.5", Reason::BadValue, "an integer of 64 bits"),
        ("n=eq.9223372036854775808", Reason::BadValue, "an integer of 64 bits"),
        ("n=in.(1,x)", Reason::BadValue, "an integer of 64 bits"),
        ("x=eq.NaN", Reason::BadValue, "a finite number"),
        ("done=eq.1", Reason::BadValue, "true or false"),
        ("due=eq.2026-01-01T00:00:00 01:00", Reason::BadValue, "write %2B"),
        ("due=eq.yesterday", Reason::BadValue, "with its offset"),
        ("raw=eq.A", Reason::BadValue, "base64"),
        ("meta=eq.{", Reason::BadValue, "is not JSON"),
        ("title=eq.a\0", Reason::BadValue, "U+0000"),
        ("id=eq.\0", Reason::BadValue, "U+0000"),
        ("meta=gt.1", Reason::NoOperator, "equal or not"),
    ] {
        refuse(raw, reason, words);
    }
}

#[test]
fn trees_paths_casts_and_quantifiers() {
    check("or=(n.eq.1,title.eq.\"a,b\")", "* | (n Eq(Int(1)) | title Eq(Text(\"a,b\")))");
    check(
        "not.and=(n.eq.1,or(x.gt.2,done.is.true))&id=eq.a",
        "* | not [n Eq(Int(1)) & (x Gt(Float(2.0)) | done IsBool(true))] & id Eq(Text(\"a\"))",
    );
    check(
        "or=(n.in.(1,2),not.and(n.not.is.null,title.like.a*))",
        "* | (n In([Int(1), Int(2)]) | not [not n IsNull & title Like { pattern: \"a%\", insensitive: false }])",
    );
    check("meta->a->>\"b.c\"=ilike.X_", "* | meta->a->>b.c Like { pattern: \"X_\", insensitive: true }");
    check("meta->n=gt.5", "* | meta->n Gt(Json(\"5\"))");
    check("select=meta->a->0,who:meta->>name,n::text,k:n::int", "a:meta->a->0,who:meta->>name,n:n::Text,k:n::Int");
    check("order=meta->>a.desc", "* | meta->>a-1");
    check(
        "n=eq(any).{1,2}&title=like(all).{a*,\"*,b\"}",
        "* | (n Eq(Int(1)) | n Eq(Int(2))) & title Like { pattern: \"a%\", insensitive: false } & title Like { pattern: \"%,b\", insensitive: false }",
    );
    check("n=isdistinct.3&done=is.unknown", "* | n Distinct(Int(3)) & done IsNull");
    check(
        "meta=cs.{\"a\":1}&meta->t=ov.[1,\"x\"]",
        "* | meta Contains(Json(\"{\\\"a\\\":1}\")) & (meta->t Contains(Json(\"[1]\")) | meta->t Contains(Json(\"[\\\"x\\\"]\")))",
    );
    for (raw, reason, words) in [
        ("or=n.eq.1", Reason::Malformed, "or=(a.eq.1,b.gt.2)"),
        ("or=(n)", Reason::Malformed, "not a condition"),
        ("or=(n.eq.1", Reason::Malformed, "or=("),
        ("n=eq(some).{1}", Reason::Malformed, "eq(any) or eq(all)"),
        ("n=eq(any).1", Reason::Malformed, "{a,b}"),
        ("n=like.1", Reason::NoOperator, "like"),
        ("title=like.a\\", Reason::BadValue, "lone"),
        ("n=is.true", Reason::NoOperator, "boolean"),
        ("title->a=eq.1", Reason::NoOperator, "not JSON"),
        ("meta->>a->b=eq.1", Reason::Malformed, "last part"),
        ("meta->=eq.1", Reason::Malformed, "last part"),
        ("meta->a=gt.\"x\"", Reason::NoOperator, "->>"),
        ("order=meta", Reason::NoOperator, "meta->>key"),
        ("select=n::money", Reason::NotImplemented, "text, int"),
        ("select=count()", Reason::Aggregate, "aggregate"),
    ] {
        refuse(raw, reason, words);
    }
    refuse(&format!("or={}n.eq.1{}", "(and".repeat(16) + "(", ")".repeat(17)), Reason::Malformed, "at most 16 deep");
}

#[test]
fn filters_of_policies_take_names_from_who_asks() {
    let mut columns = columns();
    columns.push(Column { name: "tags".to_owned(), kind: ColumnType::Field(FieldType::List) });
    let filter = |text: &str| {
        let known = |name: &str| (name == "auth.uid").then(|| "7".to_owned());
        let mut parser = Parser::new("t", &columns).with_variables(&known);
        parser.filters(text).map(|()| filtered(&parser.finish().filter))
    };
    assert_eq!(filter("n=eq.auth.uid&title=eq.auth.uid").unwrap(), "n Eq(Int(7)) & title Eq(Text(\"7\"))");
    assert_eq!(
        filter("or=(title.in.(auth.uid,x),title.eq.auth.email)").unwrap(),
        "(title In([Text(\"7\"), Text(\"x\")]) | title Eq(Null))"
    );
    assert!(filter("limit=1").is_err());
    // Inside of lists, too; as text, and nothing where it is not known.
    assert_eq!(filter("tags=cs.{auth.uid,7,\"auth.uid\"}").unwrap(), r#"tags Contains(Json("[\"7\",7,\"auth.uid\"]"))"#);
    assert_eq!(filter("tags=cs.{a,auth.email}").unwrap(), "tags Eq(Null)");
    assert_eq!(filter("tags=ov.{auth.email}").unwrap(), "tags Eq(Null)");
    for bad in ["tags=cs.[\"auth.uid\"]", "meta=cs.{\"owner\":\"auth.uid\"}"] {
        assert!(filter(bad).unwrap_err().to_string().contains("auth.NAME is text"), "{bad}");
    }
}

/// Who calls says no pattern: letters that mean something in one stand for themselves, and no regular expression is read from anybody.
#[test]
fn what_is_known_of_a_caller_is_never_a_pattern() {
    let columns = columns();
    for (claim, op, want) in [
        ("%", "like", r#"title Like { pattern: "\\%", insensitive: false }"#),
        ("a_b*\\", "ilike", r#"title Like { pattern: "a\\_b*\\\\", insensitive: true }"#),
        ("", "like", r#"title Like { pattern: "", insensitive: false }"#),
        ("%", "like(any)", r#"title Like { pattern: "\\%", insensitive: false }"#),
    ] {
        let known = |_: &str| Some(claim.to_owned());
        let text = if op.ends_with(')') { format!("title={op}.{{auth.uid}}") } else { format!("title={op}.auth.uid") };
        let mut parser = Parser::new("t", &columns).with_variables(&known);
        parser.filters(&text).unwrap();
        assert_eq!(filtered(&parser.finish().filter).trim_matches(['(', ')']), want, "{claim} {op}");
    }
    for text in ["title=match.auth.uid", "title=not.imatch.auth.uid", "title=match(any).{auth.uid}", "or=(title.match.auth.email)"] {
        let known = |name: &str| (name == "auth.uid").then(|| ".*".to_owned());
        let mut parser = Parser::new("t", &columns).with_variables(&known);
        let error = parser.filters(text).unwrap_err();
        assert!(error.to_string().contains("is never what is known of the caller"), "{text}: {error}");
    }
}

#[test]
fn what_comes_later_is_named_and_never_passed_over() {
    for (raw, words) in [
        ("title=fts(german).x", "the operator fts(german) of title"),
        ("title=fts.a", "the operator fts of title"),
        ("n=sl.1", "the operator sl of n"),
        ("select=n,parts(id)", "related collections"),
        ("select=...parts(id)", "related collections"),
        ("parts.n=eq.1", "related collections"),
        ("parts.order=n", "related collections"),
        ("order=parts(n)", "related collections"),
    ] {
        refuse(raw, Reason::NotImplemented, words);
    }
}

#[test]
fn a_query_has_bounds() {
    check(&"n=eq.1&".repeat(64), &format!("* | {}", vec!["n Eq(Int(1))"; 64].join(" & ")));
    refuse(&"n=eq.1&".repeat(65), Reason::Malformed, "at most 64 filters");
    refuse(&format!("n=in.({}1)", "1,".repeat(1_000)), Reason::Malformed, "1000 values in all");
    let order = |terms: usize| (0..terms).map(|term| format!("meta->>k{term}")).collect::<Vec<_>>().join(",");
    assert_eq!(parse(&format!("order={}", order(16))).unwrap().order.len(), 16);
    assert_eq!(parse(&format!("order={}n", "n,".repeat(512))).unwrap().order.len(), 1, "who ties by a column ties by it again");
    refuse(&format!("order={}", order(17)), Reason::Malformed, "more than 16 columns");
    refuse(&format!("select={}n", "n,".repeat(512)), Reason::Malformed, "more than 512");
}
