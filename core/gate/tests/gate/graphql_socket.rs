//! GraphQL over a WebSocket: what its protocol says, message by message.

use std::time::Instant;

use futures_util::{SinkExt as _, StreamExt as _};
use mobo_core::limits;
use mobo_gate::{NodeKind, Role};
use serde_json::{Value as Json, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::World;
use crate::memory::key;
use crate::rooms::{SOON, Served, Socket, served};

const HANDSHAKE: &str = "sec-websocket-protocol: other, graphql-transport-ws\r\n";

async fn open(served: &Served) -> Socket {
    served.socket_with("/graphql/v1", HANDSHAKE).await
}

/// One who has said who he is.
async fn known(served: &Served, role: Role) -> Socket {
    let mut socket = open(served).await;
    socket.tell(json!({ "type": "connection_init", "payload": { "apikey": key(role).text() } })).await;
    assert_eq!(socket.told().await, json!({ "type": "connection_ack" }));
    socket
}

fn subscribe(id: &str, query: &str) -> Json {
    json!({ "id": id, "type": "subscribe", "payload": { "query": query } })
}

impl Socket {
    async fn tell(&mut self, message: Json) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    async fn told(&mut self) -> Json {
        let message = timeout(SOON, self.0.next()).await.unwrap().unwrap().unwrap();
        let Message::Text(text) = message else { panic!("no text: {message:?}") };
        serde_json::from_str(&text).unwrap()
    }

    /// The code with which the other side closes, whatever it says before, and why.
    async fn closed(&mut self) -> (u16, String) {
        let closed = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Close(Some(why)))) => return (u16::from(why.code), why.reason.to_string()),
                    Some(Ok(_)) => {}
                    other => panic!("it ends without a word: {other:?}"),
                }
            }
        };
        timeout(SOON, closed).await.unwrap()
    }
}

#[tokio::test]
async fn operations_share_a_connection() {
    let served = served().await;
    let mut socket = known(&served, Role::Service).await;
    socket.tell(json!({ "type": "ping", "payload": { "n": 1 } })).await;
    assert_eq!(socket.told().await, json!({ "type": "pong", "payload": { "n": 1 } }));
    socket.tell(subscribe("a", "mutation { insertIntoWorkOrdersCollection(objects: [{ id: \"x\" }]) { affectedCount } }")).await;
    let made = json!({ "data": { "insertIntoWorkOrdersCollection": { "affectedCount": 1 } } });
    assert_eq!(socket.told().await, json!({ "id": "a", "type": "next", "payload": made }));
    assert_eq!(socket.told().await, json!({ "id": "a", "type": "complete" }));
    // The name is free again.
    socket.tell(subscribe("a", "{ workOrdersCollection { edges { node { id } } } }")).await;
    assert_eq!(socket.told().await["payload"]["data"]["workOrdersCollection"]["edges"][0]["node"]["id"], "x");
    assert_eq!(socket.told().await["type"], "complete");
    // What is wrong with an operation ends the operation.
    for (query, words) in [
        ("{ nothing }", "nothing"),
        ("{", "expected"),
        ("subscription { workOrdersChanges { type } }", "no log of changes"),
        ("subscription { ...All } fragment All on Subscription { workOrdersChanges { type } }", "at the root"),
    ] {
        socket.tell(subscribe("b", query)).await;
        let error = socket.told().await;
        assert_eq!((&error["id"], &error["type"]), (&json!("b"), &json!("error")), "{query}: {error}");
        assert!(error["payload"][0]["message"].as_str().unwrap().contains(words), "{query}: {error}");
    }
    // And so is what nothing came of, with the code that it has everywhere.
    socket.tell(subscribe("c", "mutation { insertIntoWorkOrdersCollection(objects: [{ id: \"x\" }]) { affectedCount } }")).await;
    let error = socket.told().await;
    assert_eq!((&error["type"], &error["payload"][0]["extensions"]["code"]), (&json!("error"), &json!("23505")), "{error}");
    // Nobody knows of an operation that is over, or never was.
    socket.tell(json!({ "id": "zz", "type": "complete" })).await;
    socket.tell(json!({ "type": "pong" })).await;
    socket.tell(json!({ "type": "ping" })).await;
    assert_eq!(socket.told().await, json!({ "type": "pong" }));
    // Whoever says goodbye is answered, and does not take the end for an accident.
    socket.0.close(None).await.unwrap();
    assert!(matches!(timeout(SOON, socket.0.next()).await.unwrap(), Some(Ok(Message::Close(_)))));
}

#[tokio::test]
async fn what_is_against_the_protocol_closes_the_connection() {
    let served = served().await;
    let ask = subscribe("a", "{ apiVersion }");
    let init = json!({ "type": "connection_init", "payload": { "Authorization": format!("Bearer {}", key(Role::Service).text()) } });
    let mine = |payload: Json| vec![json!({ "type": "connection_init", "payload": payload })];
    for (messages, code, words) in [
        (vec![ask.clone()], 4401, "connection_init first"),
        (vec![init.clone(), init.clone()], 4429, "Too many initialisation requests"),
        (vec![json!([])], 4400, "no type"),
        (vec![json!({ "type": 7 })], 4400, "no type"),
        (vec![json!({ "type": "start" })], 4400, "not known"),
        (vec![init.clone(), json!({ "type": "subscribe", "payload": { "query": "{ apiVersion }" } })], 4400, "no id"),
        (vec![init.clone(), subscribe(&"x".repeat(300), "{ apiVersion }")], 4400, "no id, or a long one"),
        (vec![init.clone(), json!({ "id": "a", "type": "subscribe" })], 4400, "payload is"),
        (vec![init.clone(), json!({ "id": "a", "type": "subscribe", "payload": { "query": 7 } })], 4400, "payload is"),
        (vec![init.clone(), json!({ "type": "complete" })], 4400, "no id"),
        (mine(json!({})), 4403, "needs a key"),
        (mine(Json::Null), 4403, "needs a key"),
        (mine(json!({ "apikey": "mobo_sec_nonsense" })), 4403, "not a mobo key"),
        (mine(json!({ "apikey": "a\nb" })), 4403, "not a mobo key"),
        (mine(json!({ "authorization": "Bearer eyJ.a.b" })), 4403, "Forbidden"),
    ] {
        let mut socket = open(&served).await;
        for message in &messages {
            socket.tell(message.clone()).await;
        }
        let (found, why) = socket.closed().await;
        assert!(found == code && why.contains(words), "{messages:?}: {found} {why}");
    }
    let mut socket = open(&served).await;
    socket.0.send(Message::text("{")).await.unwrap();
    assert_eq!(socket.closed().await.0, 4400);
    let mut socket = open(&served).await;
    socket.0.send(Message::binary(vec![1])).await.unwrap();
    assert_eq!(socket.closed().await.0, 4400);
    // Two of one name at a time: the first waits for its turn at the store.
    let mut socket = known(&served, Role::Service).await;
    socket.tell(subscribe("a", "{ slowCollection { totalCount } }")).await;
    socket.tell(subscribe("a", "{ slowCollection { totalCount } }")).await;
    assert_eq!(socket.closed().await, (4409, "Subscriber for a already exists".to_owned()));
}

/// Whoever opens a connection and says nothing is not kept.
#[tokio::test]
async fn who_does_not_say_who_he_is_has_so_long() {
    let served = served().await;
    let (mut socket, begun) = (open(&served).await, Instant::now());
    socket.tell(json!({ "type": "ping" })).await;
    assert_eq!(socket.told().await, json!({ "type": "pong" }));
    assert_eq!(socket.closed().await.0, 4408);
    assert!(begun.elapsed() >= limits::GRAPHQL_INIT_TIMEOUT / 2, "after {:?}", begun.elapsed());
}

/// Goal: a connection ends with the key that opened it, by the event that tells of it.
#[tokio::test]
async fn a_connection_ends_with_its_key() {
    let served = served().await;
    let (mut lost, mut kept) = (known(&served, Role::Service).await, known(&served, Role::Admin).await);
    served.world.memory.keys.lock().unwrap().remove(&key(Role::Service).hash());
    served.world.memory.rights.send_modify(|count| *count += 1);
    let (code, why) = lost.closed().await;
    assert!(code == 4403 && why.contains("revoked"), "{code} {why}");
    kept.tell(subscribe("a", "{ apiVersion }")).await;
    assert_eq!(kept.told().await["type"], "next");
}

/// A connection has bounds, and what goes over them is refused by itself.
#[tokio::test]
async fn a_connection_has_bounds() {
    let served = served().await;
    let mut socket = known(&served, Role::Service).await;
    let most = limits::GRAPHQL_OPERATIONS_MAX.max(limits::JOINS_PER_SECOND_MAX as usize);
    for n in 0..=most {
        socket.tell(subscribe(&n.to_string(), "{ slowCollection { totalCount } }")).await;
    }
    let error = socket.told().await;
    assert_eq!((&error["type"], &error["payload"][0]["extensions"]["code"]), (&json!("error"), &json!("MB429")), "{error}");
    let links: String = (0..30).map(|n| format!("fragment F{n} on Query {{ ...F{} ...F{} }} ", n + 1, n + 1)).collect();
    let mut doubled = known(&served, Role::Service).await;
    doubled.tell(subscribe("a", &format!("{{ ...F0 }} {links} fragment F30 on Query {{ apiVersion }}"))).await;
    assert_eq!(doubled.told().await["payload"][0]["extensions"]["code"], "PGRST100");
    let steps: String = (0..300).map(|n| format!("a{n}: workOrdersCollection {{ totalCount }} ")).collect();
    let mut other = known(&served, Role::Service).await;
    other.tell(subscribe("a", &format!("{{ {steps} }}"))).await;
    assert_eq!(other.told().await["type"], "error", "complexity");
}

#[tokio::test]
async fn other_protocols_and_devices_are_refused_by_name() {
    let upgrade = [
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let hub = World::new(NodeKind::Hub);
    hub.ask("GET /graphql/v1", &upgrade, "").await.is_problem(
        "no protocol",
        400,
        "PGRST127",
        "Sec-WebSocket-Protocol: graphql-transport-ws",
    );
    let older = [&upgrade[..], &[("sec-websocket-protocol", "graphql-ws")]].concat();
    hub.ask("GET /graphql/v1", &older, "").await.is_problem("the one before", 400, "PGRST127", "graphql-transport-ws");
    let edge = World::new(NodeKind::Edge);
    let asked = [&upgrade[..], &[("sec-websocket-protocol", "graphql-transport-ws")]].concat();
    edge.ask("GET /graphql/v1", &asked, "").await.is_problem("a device", 400, "PGRST127", "GraphQL on a device");
}
