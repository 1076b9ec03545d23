//! What is not records: probes, the contract, CORS, ids of requests.

use std::collections::BTreeSet;

use mobo_gate::{BackendError, NodeKind, Role};
use serde_json::{Value as Json, json};

use crate::World;
use crate::memory::key;

#[tokio::test]
async fn probes_say_whether_to_restart_or_to_wait() {
    let world = World::new(NodeKind::Hub);
    let cases = [
        ("/livez", 200, "ok\n"),
        ("/readyz", 200, "ok\n"),
        ("/healthz", 200, "ok\n"),
        ("/readyz?verbose", 200, "[+]store ok\n[+]sync ok\nready\n"),
    ];
    for (path, status, text) in cases {
        let answer = world.ask_from("192.0.2.7:1", &format!("GET {path}"), &[], "").await;
        assert_eq!((answer.status, answer.text.as_str(), answer.header("cache-control")), (status, text, "no-store"), "{path}");
        assert_eq!(world.ask(&format!("HEAD {path}"), &[], "").await.status, status);
    }
    world.memory.fail(Some(BackendError::Unavailable("line\nbreak".to_owned())));
    let failed = "[-]store failed: the store is not available: line break\n";
    let cases = [
        ("/livez", 200, "ok\n".to_owned()),
        ("/readyz", 503, format!("{failed}not ready\n")),
        ("/readyz?verbose", 503, format!("{failed}[+]sync ok\nnot ready\n")),
        ("/readyz?exclude=store&verbose=1", 200, "[+]sync ok\nready\n".to_owned()),
    ];
    for (path, status, text) in cases {
        let answer = world.ask(&format!("GET {path}"), &[], "").await;
        assert_eq!((answer.status, answer.text), (status, text), "{path}");
    }
    assert_eq!(world.ask("GET /readyz", &[], "").await.header("retry-after"), "15");
    let about = world.ask("GET /", &[], "").await.json();
    assert_eq!((&about["node"], &about["name"]), (&json!("hub"), &json!("mobo")));
}

/// Every `$ref` in a document.
fn references(at: &Json, into: &mut BTreeSet<String>) {
    match at {
        Json::Object(members) => {
            into.extend(members.get("$ref").and_then(Json::as_str).map(str::to_owned));
            members.values().for_each(|member| references(member, into));
        }
        Json::Array(items) => items.iter().for_each(|item| references(item, into)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

#[tokio::test]
async fn the_contract_is_whole_and_is_of_what_the_caller_may_use() {
    let world = World::new(NodeKind::Hub);
    let service = key(Role::Service);
    let document = world.ask("GET /openapi.json", &[("apikey", service.text())], "").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 8, "{found:?}");
    for reference in &found {
        assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference} points nowhere");
    }
    let mut ids = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (verb, operation) in operations.as_object().unwrap() {
            let (place, id) = (format!("{verb} {path}"), operation["operationId"].as_str().unwrap());
            assert!(ids.insert(id.to_owned()), "{place}: {id} twice");
            for response in operation["responses"].as_object().unwrap().values() {
                assert!(response.get("description").is_some() || response.get("$ref").is_some(), "{place}: {response}");
            }
            let of = |parameter: &Json| {
                let reference = parameter["$ref"].as_str().map(|reference| document.pointer(&reference[1..]).unwrap());
                let parameter = reference.unwrap_or(parameter);
                assert!(parameter["schema"].is_object(), "{place}: {parameter}");
                (parameter["in"].to_string(), parameter["name"].to_string())
            };
            let parameters: Vec<_> = operation["parameters"].as_array().map_or_else(Vec::new, |all| all.iter().map(of).collect());
            assert_eq!(parameters.iter().collect::<BTreeSet<_>>().len(), parameters.len(), "{place}: a parameter twice");
        }
    }
    let verbs = |path: &str| document["paths"][path].as_object().unwrap().keys().map(String::as_str).collect::<BTreeSet<_>>();
    assert_eq!(verbs("/rest/v1/work_orders"), BTreeSet::from(["get", "post", "put", "patch", "delete"]));
    assert_eq!(verbs("/rest/v1/vitals"), BTreeSet::from(["get", "post"]));
    let order = &document["components"]["schemas"]["work_orders"]["properties"];
    assert_eq!(order["due"], json!({ "type": ["string", "null"], "format": "date-time" }));
    assert_eq!(order.get("old"), None, "a retired field");
    // The backend of these tests keeps no past.
    let answering = |path: &&String| !path.ends_with("/slow") && !path.ends_with("/broken") && !path.ends_with("/history");
    for path in document["paths"].as_object().unwrap().keys().filter(answering) {
        let words = if path == "/graphql/v1" { "query=%7BapiVersion%7D" } else { "limit=0" };
        let answer = world.ask(&format!("GET {path}?{words}"), &[("apikey", service.text())], "").await;
        assert_eq!(answer.status, 200, "{path} is in the contract: {}", answer.text);
    }

    for headers in [vec![], vec![("apikey", key(Role::Anon).text().to_owned())]] {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = world.ask("GET /openapi.json", &headers, "").await;
        assert_eq!(answer.status, 200);
        assert!(answer.json()["paths"]["/livez"].is_object() && !answer.text.contains("work_orders"));
    }
    world.ask("GET /openapi.json", &[("apikey", "x")], "").await.is_problem("a bad key", 401, "PGRST301", "not a mobo key");
}

#[tokio::test]
async fn pages_of_any_origin_may_ask_without_credentials() {
    let world = World::new(NodeKind::Hub);
    let origin = ("origin", "https://app.example");
    let asks = [origin, ("access-control-request-method", "PATCH"), ("access-control-request-headers", "apikey, x-client-info")];
    let preflight = world.ask("OPTIONS /rest/v1/work_orders", &asks, "").await;
    assert_eq!((preflight.status, preflight.text.as_str()), (204, ""));
    for (name, want) in [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "GET, POST, PATCH, PUT, DELETE, OPTIONS"),
        ("access-control-allow-headers", "apikey, x-client-info"),
        ("access-control-max-age", "86400"),
        ("access-control-allow-credentials", ""),
        ("access-control-allow-private-network", ""),
    ] {
        assert_eq!(preflight.header(name), want, "{name}");
    }
    for (line, status) in [("GET /livez", 200), ("GET /rest/v1/work_orders", 401), ("GET /nothing", 404), ("GET /rest/v1/broken", 401)] {
        let answer = world.ask(line, &[origin], "").await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (status, "*"), "{line}");
        let exposed = answer.header("access-control-expose-headers");
        assert!(["Content-Range", "Proxy-Status", "X-Request-Id"].iter().all(|name| exposed.contains(name)), "{exposed}");
    }
    assert_eq!(world.ask("GET /livez", &[], "").await.header("access-control-allow-origin"), "");
    for (line, allow) in [("OPTIONS /livez", "GET,HEAD"), ("PUT /livez", "GET,HEAD"), ("GET /pusher/auth", "POST")] {
        let answer = world.ask(line, &[], "").await;
        answer.is_problem(line, 405, "PGRST117", "the Allow header lists");
        assert_eq!(answer.header("allow"), allow, "{line}");
    }
}

#[tokio::test]
async fn a_request_is_known_by_its_callers_id() {
    let world = World::new(NodeKind::Edge);
    let given = "0190a7a0-0000-7000-8000-000000000001";
    let answer = world.ask("GET /nothing", &[("x-request-id", given)], "").await;
    assert_eq!((answer.header("x-request-id"), answer.json()["instance"].as_str()), (given, Some(&*format!("urn:uuid:{given}"))));
    let answer = world.ask("GET /nothing", &[("x-request-id", "job-7/retry-2")], "").await;
    assert_eq!(answer.header("x-request-id"), "job-7/retry-2");
    for bad in ["", "a b", &"x".repeat(129)] {
        let answer = world.ask("GET /nothing", &[("x-request-id", bad)], "").await;
        let made = answer.header("x-request-id");
        assert!(made.len() == 36 && answer.json()["instance"] == format!("urn:uuid:{made}"), "{bad:?}: {made}");
    }
    let head = world.ask("HEAD /rest/v1/nothing", &[], "").await;
    assert_eq!((head.status, head.text.as_str(), head.header("proxy-status")), (404, "", "mobo; error=PGRST205"));
}
