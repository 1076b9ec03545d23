//! Rate rules by label: what they count, whichever way it is asked, and what the answer says.

use mobo_core::rates::Rules;
use mobo_gate::{NodeKind, Role, Settings};
use serde_json::{Value as Json, json};

use crate::World;
use crate::memory::key;

fn world(node: NodeKind, rules: &str) -> World {
    World::with(node, Settings { rules: Rules::parse(rules).unwrap(), ..Settings::default() })
}

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn a_rule_is_named_where_it_holds_somebody_back() {
    let world = world(NodeKind::Hub, "work_orders:create=2/10s, /rest/v1/work_orders=100/1m");
    let service = key(Role::Service);
    let headers = [("apikey", service.text()), JSON];
    let post = || world.ask_from("192.0.2.1:9", "POST /rest/v1/work_orders", &headers, "{\"title\":\"a\"}");
    let first = post().await;
    assert_eq!(first.status, 201, "{}", first.text);
    let policies = "\"key\";q=1000000;w=60, \"work_orders:create\";q=2;w=10, \"/rest/v1/work_orders\";q=100;w=60";
    assert_eq!(first.header("ratelimit-policy"), policies);
    assert!(first.header("ratelimit").contains("\"work_orders:create\";r=1;t="), "{first:?}");
    assert_eq!([first.header("x-ratelimit-limit"), first.header("x-ratelimit-remaining")], ["2", "1"], "the one that ends first");
    assert_eq!(post().await.status, 201);
    let over = post().await;
    over.is_problem("too many", 429, "MB429", "http-problem-types#quota-exceeded");
    assert_eq!(over.json()["violated-policies"], json!(["work_orders:create"]));
    assert_eq!((&over.json()["limit"], &over.json()["window_s"]), (&json!(2), &json!(10)));
    assert!((1..=11).contains(&over.header("retry-after").parse::<u32>().unwrap()), "{over:?}");
    let read = world.ask_from("192.0.2.1:9", "GET /rest/v1/work_orders", &headers, "").await;
    assert_eq!((read.status, read.json().as_array().unwrap().len()), (200, 2), "reading goes on, and nothing more was written");
}

/// Goal: what runs on the device itself is not counted, whatever the rules are.
#[tokio::test]
async fn a_device_does_not_hold_itself_back() {
    let world = world(NodeKind::Edge, "/=1/24h");
    for _ in 0..3 {
        let here = world.ask("POST /rest/v1/work_orders", &[JSON, ("host", "localhost")], "{\"title\":\"b\"}").await;
        assert_eq!((here.status, here.header("ratelimit")), (201, ""), "{}", here.text);
    }
    assert_eq!(world.ask_from("192.0.2.1:9", "GET /livez", &[], "").await.status, 200);
    assert_eq!(world.ask_from("192.0.2.1:9", "GET /livez", &[], "").await.status, 429);
}

/// What broke nearly: a rule for making records that GraphQL goes around.
#[cfg(feature = "graphql")]
#[tokio::test]
async fn graphql_is_no_way_around_a_rule() {
    let world = world(NodeKind::Hub, "work_orders:create=1/1h, work_orders:read=3/1h");
    let service = key(Role::Service);
    let headers = [("apikey", service.text()), JSON];
    let ask = async |query: &str| -> Json {
        let body = json!({ "query": query }).to_string();
        let answer = world.ask_from("192.0.2.1:9", "POST /graphql/v1", &headers, body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    };
    let insert = "mutation { insertIntoWorkOrdersCollection(objects: [{title: \"a\"}]) { affectedCount } }";
    let first = ask(insert).await;
    assert_eq!(first["errors"], Json::Null, "{first}");
    let second = ask(insert).await;
    assert_eq!(second["errors"][0]["extensions"], json!({ "code": "MB429", "status": 429 }), "{second}");
    assert!(second["errors"][0]["message"].as_str().unwrap().contains("\"work_orders:create\" is 1 in 3600 s"), "{second}");
    // Each field counts, whatever it is called.
    let twice = "{ a: workOrdersCollection { edges { node { id } } } b: workOrdersCollection { edges { node { id } } } }";
    assert_eq!(ask(twice).await["errors"], Json::Null);
    assert_eq!(ask(twice).await["errors"][0]["extensions"]["code"], json!("MB429"));
    let rest = world.ask_from("192.0.2.1:9", "GET /rest/v1/work_orders", &headers, "").await;
    assert_eq!((rest.status, &rest.json()["violated-policies"]), (429, &json!(["work_orders:read"])), "the same window for both ways");
}
