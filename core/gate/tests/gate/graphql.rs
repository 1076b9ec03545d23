//! GraphQL: the same rows, the same rights, the same limits as everywhere else.

use std::sync::Arc;

use mobo_core::rights::{Action, Condition, Policies, Policy};
use mobo_gate::{Backend as _, NodeKind, Role};
use serde_json::{Value as Json, json};

use crate::World;
use crate::memory::key;

async fn ask(world: &World, role: Role, query: &str) -> Json {
    let key = key(role);
    let body = json!({ "query": query }).to_string();
    let answer = world.ask("POST /graphql/v1", &[("apikey", key.text()), ("content-type", "application/json")], body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    serde_json::from_str(&answer.text).unwrap()
}

/// What an operation gives; it must succeed.
async fn good(world: &World, query: &str) -> Json {
    let answer = ask(world, Role::Service, query).await;
    assert_eq!(answer.get("errors"), None, "{query}: {answer}");
    answer["data"].clone()
}

/// The code and the words of the first error.
async fn refused(world: &World, role: Role, query: &str) -> (String, String) {
    let answer = ask(world, role, query).await;
    let error = &answer["errors"][0];
    let text = |json: &Json| json.as_str().unwrap_or_default().to_owned();
    (text(&error["extensions"]["code"]), text(&error["message"]))
}

const INSERT: &str = r#"mutation { insertIntoWorkOrdersCollection(objects: [
    { id: "a", title: "Pump", rank: "3", hours: 4, open: true, meta: "{\"site\": \"north\"}" },
    { id: "b", title: "Valve", rank: 1, hours: "1" },
    { id: "c", title: "Gate", rank: "2", due: "2026-03-01T08:00:00Z" },
]) { affectedCount records { id nodeId rank hours meta open due } } }"#;

#[tokio::test]
async fn rows_are_written_and_read_as_in_pg_graphql() {
    let world = World::new(NodeKind::Hub);
    let made = good(&world, INSERT).await;
    let made = &made["insertIntoWorkOrdersCollection"];
    assert_eq!(made["affectedCount"], 3);
    let (first, third) = (&made["records"][0], &made["records"][2]);
    assert_eq!(
        (&first["rank"], &first["hours"], &first["meta"], &first["open"]),
        (&json!("3"), &json!("4"), &json!(r#"{"site":"north"}"#), &json!(true))
    );
    assert_eq!((&third["due"], &third["hours"]), (&json!("2026-03-01T08:00:00.000000Z"), &json!("0")));
    assert_ne!(first["nodeId"], third["nodeId"]);
    for (filter, want) in [
        (r#"{ rank: { gt: "1" } }"#, json!(["c", "a"])),
        (r#"{ or: [{ title: { startsWith: "P" } }, { rank: { eq: 1 } }] }"#, json!(["b", "a"])),
        (r#"{ not: { open: { is: NULL } } }"#, json!(["a"])),
        (r#"{ due: { is: NOT_NULL } }"#, json!(["c"])),
        (r#"{ meta: { contains: "{\"site\": \"north\"}" } }"#, json!(["a"])),
        (r#"{ id: { in: ["a", "b"] }, hours: { lt: 2 } }"#, json!(["b"])),
        ("{}", json!(["b", "c", "a"])),
    ] {
        let query =
            format!("{{ workOrdersCollection(filter: {filter}, orderBy: [{{ rank: AscNullsLast }}]) {{ edges {{ node {{ id }} }} }} }}");
        let found = good(&world, &query).await;
        let edges = found["workOrdersCollection"]["edges"].as_array().unwrap();
        let ids: Json = edges.iter().map(|edge| edge["node"]["id"].clone()).collect();
        assert_eq!(ids, want, "{filter}");
    }
    let changed = "mutation { updateWorkOrdersCollection(set: { hours: { inc: 2 }, title: \"Pump 7\" }, filter: { id: { eq: \"a\" } }) \
                   { affectedCount records { title hours } } }";
    let changed = good(&world, changed).await;
    let changed = &changed["updateWorkOrdersCollection"];
    assert_eq!(
        (&changed["affectedCount"], &changed["records"][0]["title"], &changed["records"][0]["hours"]),
        (&json!(1), &json!("Pump 7"), &json!("6"))
    );
}

#[tokio::test]
async fn pages_lead_both_ways() {
    let world = World::new(NodeKind::Hub);
    good(&world, INSERT).await;
    let page = async |arguments: &str| -> (String, Json) {
        let query = format!(
            "{{ workOrdersCollection(orderBy: [{{ rank: DescNullsLast }}], {arguments}) {{ totalCount pageInfo {{ hasNextPage \
             hasPreviousPage startCursor endCursor }} edges {{ cursor node {{ id }} }} }} }}"
        );
        let found = good(&world, &query).await["workOrdersCollection"].clone();
        let ids: Vec<&str> = found["edges"].as_array().unwrap().iter().map(|edge| edge["node"]["id"].as_str().unwrap()).collect();
        let info = &found["pageInfo"];
        (
            format!("{} of {} next {} previous {}", ids.join(""), found["totalCount"], info["hasNextPage"], info["hasPreviousPage"]),
            found.clone(),
        )
    };
    let (said, first) = page("first: 2").await;
    assert_eq!(said, "ac of 3 next true previous false");
    let end = first["pageInfo"]["endCursor"].as_str().unwrap().to_owned();
    let (said, second) = page(&format!("first: 2, after: \"{end}\"")).await;
    assert_eq!(said, "b of 3 next false previous true");
    let start = second["pageInfo"]["startCursor"].as_str().unwrap();
    let (said, _) = page(&format!("last: 1, before: \"{start}\"")).await;
    assert_eq!(said, "c of 3 next true previous true");
    assert_eq!(page("last: 2").await.0, "cb of 3 next false previous true");
    assert_eq!(page("first: 1, offset: 1").await.0, "c of 3 next true previous true");
    for (arguments, words) in [("first: 1, last: 1", "not both"), ("first: -1", "number"), ("after: \"x\"", "cursor")] {
        let query = format!("{{ workOrdersCollection({arguments}) {{ edges {{ cursor }} }} }}");
        let (code, message) = refused(&world, Role::Service, &query).await;
        assert!(code == "PGRST100" && message.contains(words), "{arguments}: {code} {message}");
    }
}

#[tokio::test]
async fn samples_come_in_the_order_of_their_times() {
    let world = World::new(NodeKind::Hub);
    let service = key(Role::Service);
    let samples = json!([{ "cpu": 2, "at": "2026-02-03T04:05:06Z" }, { "cpu": 1, "at": "2026-02-03T04:05:05Z" }]);
    let answer = world.ask("POST /rest/v1/vitals", &[("apikey", service.text())], samples.to_string()).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let node = |cpu: f64| json!({ "node": { "cpu": cpu } });
    for (arguments, want) in [
        ("first: 9", json!([node(1.0), node(2.0)])),
        ("orderBy: [{ cpu: DescNullsLast }]", json!([node(2.0), node(1.0)])),
        ("filter: { at: { gt: \"2026-02-03T04:05:05Z\" } }", json!([node(2.0)])),
    ] {
        let found = good(&world, &format!("{{ vitalsCollection({arguments}) {{ edges {{ node {{ cpu }} }} }} }}")).await;
        assert_eq!(found["vitalsCollection"]["edges"], want, "{arguments}");
    }
    let (code, message) = refused(&world, Role::Service, "{ vitalsCollection(last: 1) { totalCount } }").await;
    assert!(code == "PGRST127" && message.contains("samples"), "{code} {message}");
    let (_, message) = refused(&world, Role::Service, "{ vitalsCollection { edges { node { nodeId } } } }").await;
    assert!(message.contains("nodeId"), "a sample has no id: {message}");
}

#[tokio::test]
async fn no_more_rows_change_than_at_most() {
    let world = World::new(NodeKind::Hub);
    good(&world, INSERT).await;
    for mutation in [
        "mutation { updateWorkOrdersCollection(set: { open: false }) { affectedCount } }",
        "mutation { deleteFromWorkOrdersCollection(atMost: 2) { affectedCount } }",
        "mutation { deleteFromWorkOrdersCollection(filter: { rank: { gte: 2 } }) { affectedCount } }",
    ] {
        let (code, message) = refused(&world, Role::Service, mutation).await;
        assert!(code == "PGRST124" && message.contains("impacts too many records"), "{mutation}: {code} {message}");
    }
    let gone = "mutation { deleteFromWorkOrdersCollection(filter: { rank: { gte: 2 } }, atMost: 2) { affectedCount records { id } } }";
    assert_eq!(good(&world, gone).await["deleteFromWorkOrdersCollection"]["affectedCount"], 2);
    let left = good(&world, "{ workOrdersCollection { edges { node { id } } } }").await;
    assert_eq!(left["workOrdersCollection"]["edges"], json!([{ "node": { "id": "b" } }]));
}

#[tokio::test]
async fn a_schema_holds_what_its_caller_may_use() {
    let world = World::new(NodeKind::Hub);
    good(&world, INSERT).await;
    let everything = "{ __schema { types { name } mutationType { fields { name } } } }";
    assert!(!ask(&world, Role::Anon, everything).await.to_string().contains("WorkOrders"), "what is closed is not told");
    let policy = |action, condition: &str, fields: &[&str]| Policy {
        collection: world.memory.schema().by_name("work_orders").unwrap().id,
        role: Role::Anon,
        action,
        condition: Some(Condition::parse(condition).unwrap()),
        fields: Some(fields.iter().map(|field| (*field).to_owned()).collect()),
    };
    let open = Policies::new([policy(Action::Read, "rank=gte.2", &["title", "rank"]), policy(Action::Update, "rank=gte.3", &["title"])]);
    *world.memory.policies.lock().unwrap() = Arc::new(open);
    let told = ask(&world, Role::Anon, everything).await;
    let fields = told["data"]["__schema"]["mutationType"]["fields"].to_string();
    assert!(fields.contains("updateWorkOrdersCollection") && !fields.contains("insertInto") && !fields.contains("deleteFrom"), "{fields}");
    let seen = ask(&world, Role::Anon, "{ workOrdersCollection { totalCount edges { node { id title } } } }").await;
    assert_eq!(seen["data"]["workOrdersCollection"]["totalCount"], 2, "{seen}");
    for hidden in
        ["{ workOrdersCollection { edges { node { hours } } } }", "{ workOrdersCollection(filter: { hours: { eq: 4 } }) { totalCount } }"]
    {
        let (_, message) = refused(&world, Role::Anon, hidden).await;
        assert!(message.contains("hours"), "{hidden}: {message}");
    }
    let update = |id: &str, set: &str| {
        format!("mutation {{ updateWorkOrdersCollection(set: {{ {set} }}, filter: {{ id: {{ eq: \"{id}\" }} }}) {{ affectedCount }} }}")
    };
    let done = ask(&world, Role::Anon, &update("a", "title: \"Mine\"")).await;
    assert_eq!(done["data"]["updateWorkOrdersCollection"]["affectedCount"], 1, "{done}");
    // A row that may be seen and not changed is not found by who changes; one that may not be seen neither.
    for other in ["c", "b"] {
        let done = ask(&world, Role::Anon, &update(other, "title: \"Mine\"")).await;
        assert_eq!(done["data"]["updateWorkOrdersCollection"]["affectedCount"], 0, "{done}");
    }
    let (_, message) = refused(&world, Role::Anon, &update("a", "rank: 9")).await;
    assert!(message.contains("rank"), "{message}");
}

#[tokio::test]
async fn operations_are_bounded() {
    let world = World::new(NodeKind::Hub);
    let steps: String = (0..33).map(|n| format!("a{n}: workOrdersCollection {{ totalCount }} ")).collect();
    let (_, message) = refused(&world, Role::Service, &format!("{{ {steps} }}")).await;
    assert!(message.contains("at most 32 times"), "{message}");
    let many: String = (0..300).map(|n| format!("a{n}: workOrdersCollection {{ totalCount }} ")).collect();
    let deep = (0..12).fold("{ id: { eq: \"a\" } }".to_owned(), |inner, _| format!("{{ not: {inner} }}"));
    let deeper = (0..40).fold("{ id: { eq: \"a\" } }".to_owned(), |inner, _| format!("{{ not: {inner} }}"));
    let types = (0..20).fold("name".to_owned(), |inner, _| format!("ofType {{ {inner} }}"));
    let filtered = |filter: &str| format!("{{ workOrdersCollection(filter: {filter}) {{ totalCount }} }}");
    good(&world, &filtered(&deep)).await;
    for bad in [
        format!("{{ {many} }}"),
        filtered(&deeper),
        "{ workOrdersCollection(orderBy: [{ meta: AscNullsLast }]) { totalCount } }".into(),
        "mutation { insertIntoWorkOrdersCollection(objects: [{ meta: \"{\" }]) { affectedCount } }".into(),
        format!("{{ __type(name: \"Query\") {{ {types} }} }}"),
        "{ nothing }".into(),
        "{".into(),
    ] {
        let (_, message) = refused(&world, Role::Service, &bad).await;
        assert_ne!(message, "", "{}", &bad[..bad.len().min(80)]);
    }
    let service = key(Role::Service);
    let keyed = [("apikey", service.text())];
    let wrong = world.ask("POST /graphql/v1", &keyed, "no JSON").await;
    wrong.is_problem("no JSON", 400, "PGRST102", "JSON");
    let read = world.ask("GET /graphql/v1?query=%7B%20apiVersion%20%7D", &keyed, "").await;
    assert_eq!(read.status, 200, "{}", read.text);
    let write = world.ask("GET /graphql/v1?query=mutation%20%7B%20x%20%7D", &keyed, "").await;
    write.is_problem("a mutation in an address", 400, "PGRST100", "POST");
    world.ask("POST /graphql/v1", &[], "{}").await.is_problem("nobody", 401, "PGRST301", "key");
    let edge = World::new(NodeKind::Edge);
    edge.ask("POST /graphql/v1", &[], "{}").await.is_problem("a device", 400, "PGRST127", "GraphQL on a device");
}
