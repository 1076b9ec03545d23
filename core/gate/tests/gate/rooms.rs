//! Rooms and bindings over real WebSockets, as Phoenix spells them.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use mobo_core::limits;
use mobo_gate::key::ApiKey;
use mobo_gate::{NodeKind, PusherApp, Role, Settings};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role as Side;

use crate::World;
use crate::memory::key;

/// Longest wait for what must happen.
pub(crate) const SOON: Duration = Duration::from_secs(60);

pub(crate) struct Served {
    pub(crate) world: World,
    address: SocketAddr,
}

pub(crate) async fn served() -> Served {
    let settings = Settings { pusher: vec![PusherApp::new("1", "app-key", "app-secret")], ..Settings::default() };
    let world = World::with(NodeKind::Hub, settings);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gate = world.gate.clone();
    tokio::spawn(async move { gate.serve(listener, std::future::pending()).await });
    Served { world, address }
}

pub(crate) struct Socket(pub(crate) WebSocketStream<TcpStream>);

impl Served {
    async fn socket(&self, path: &str) -> Socket {
        self.socket_with(path, "").await
    }

    /// With more lines in the head of the request.
    pub(crate) async fn socket_with(&self, path: &str, more: &str) -> Socket {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n{more}\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(timeout(SOON, stream.read_u8()).await.unwrap().unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
        Socket(WebSocketStream::from_raw_socket(stream, Side::Client, None).await)
    }

    async fn phoenix(&self, key: &ApiKey) -> Socket {
        self.socket(&format!("/realtime/v1/websocket?vsn=2.0.0&apikey={}", key.text())).await
    }
}

impl Socket {
    async fn say(&mut self, topic: &str, event: &str, payload: Json) {
        self.0.send(Message::text(json!(["1", "1", topic, event, payload]).to_string())).await.unwrap();
    }

    /// The next message of that event.
    async fn hear(&mut self, event: &str) -> Json {
        let heard = async {
            loop {
                let Message::Text(text) = self.0.next().await.unwrap().unwrap() else { continue };
                let message: Json = serde_json::from_str(&text).unwrap();
                if message[3] == event {
                    break message[4].clone();
                }
            }
        };
        timeout(SOON, heard).await.unwrap_or_else(|_| panic!("{event} has not come"))
    }

    /// Joins, and gives the answer.
    async fn join(&mut self, topic: &str, config: Json) -> Json {
        self.say(topic, "phx_join", json!({ "config": config })).await;
        self.hear("phx_reply").await
    }
}

fn broadcast(text: &str) -> Json {
    json!({ "type": "broadcast", "event": "shout", "payload": { "text": text } })
}

#[tokio::test]
async fn who_says_private_is_in_a_room_of_its_own() {
    let served = served().await;
    let (mut server, mut other) = (served.phoenix(&key(Role::Service)).await, served.phoenix(&key(Role::Admin)).await);
    let mut stranger = served.phoenix(&key(Role::Anon)).await;
    let (public, private) = (json!({}), json!({ "private": true }));
    assert_eq!(stranger.join("realtime:a", public).await["status"], "ok");
    let refused = stranger.join("realtime:b", private.clone()).await;
    assert!(refused["response"]["reason"].as_str().unwrap().contains("Unauthorized"), "{refused}");
    for socket in [&mut server, &mut other] {
        assert_eq!(socket.join("realtime:a", private.clone()).await["status"], "ok");
    }
    server.say("realtime:a", "broadcast", broadcast("secret")).await;
    assert_eq!(other.hear("broadcast").await["payload"]["text"], "secret");
    let post = async |private: bool, text: &str| {
        let body = json!({ "messages": [{ "topic": "a", "event": "shout", "payload": { "text": text }, "private": private }] }).to_string();
        let key = key(Role::Service);
        let answer = served.world.ask("POST /realtime/v1/api/broadcast", &[("apikey", key.text())], body).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
    };
    post(true, "secret, too").await;
    assert_eq!(other.hear("broadcast").await["payload"]["text"], "secret, too");
    post(false, "open").await;
    assert_eq!(stranger.hear("broadcast").await["payload"]["text"], "open", "and nothing before it");
    stranger.say("realtime:a", "broadcast", broadcast("noise")).await;
    server.say("realtime:a", "broadcast", broadcast("last")).await;
    assert_eq!(other.hear("broadcast").await["payload"]["text"], "last", "nothing of strangers, and nothing of the open room");
}

#[tokio::test]
async fn bindings_have_bounds() {
    let served = served().await;
    let mut socket = served.phoenix(&key(Role::Service)).await;
    let many = |count: usize, table: &str| json!({ "postgres_changes": vec![json!({ "event": "*", "table": table }); count] });
    let reason = |answer: Json| answer["response"]["reason"].as_str().unwrap().to_owned();
    let over = reason(socket.join("realtime:a", many(limits::BINDINGS_PER_CHANNEL_MAX + 1, "work_orders")).await);
    assert!(over.contains("at most 32 postgres_changes"), "{over}");
    assert_eq!(served.world.memory.asked.load(Ordering::Relaxed), 2, "when it came, and when it joined");
    // The memory keeps no log: what may be joined is refused for that.
    let whole = reason(socket.join("realtime:a", many(limits::BINDINGS_PER_CHANNEL_MAX, "*")).await);
    assert!(whole.contains("no log of changes"), "{whole}");
    assert_eq!(served.world.memory.asked.load(Ordering::Relaxed), 4, "once for the channel, and once for all its bindings");
}

#[tokio::test]
async fn nobody_says_more_in_a_second_than_others_can_hear() {
    let served = served().await;
    let (mut listener, mut shouter) = (served.phoenix(&key(Role::Anon)).await, served.phoenix(&key(Role::Anon)).await);
    assert_eq!(listener.join("realtime:a", json!({})).await["status"], "ok");
    assert_eq!(shouter.join("realtime:a", json!({})).await["status"], "ok");
    // As fast as they come, there are more than a few seconds let through.
    for n in 0..20 * limits::CLIENT_EVENTS_PER_SECOND_MAX {
        shouter.say("realtime:a", "broadcast", broadcast(&n.to_string())).await;
    }
    let refused = shouter.hear("phx_reply").await;
    assert!(refused["response"]["reason"].as_str().unwrap().starts_with("MessagePerSecondRateLimitReached"), "{refused}");
    assert_eq!(listener.hear("broadcast").await["payload"]["text"], "0", "who listens stays");
    let key = key(Role::Service);
    let messages = vec![json!({ "topic": "a", "event": "e" }); limits::BROADCASTS_PER_REQUEST_MAX + 1];
    let body = json!({ "messages": messages }).to_string();
    let answer = served.world.ask("POST /realtime/v1/api/broadcast", &[("apikey", key.text())], body).await;
    answer.is_problem("too many messages", 413, "54000", "at most 100 messages");
}

#[tokio::test]
async fn who_has_no_app_is_told_so_and_takes_no_place() {
    let served = served().await;
    for _ in 0..3 {
        let mut nobody = served.socket("/app/another?protocol=7").await;
        let Some(Ok(Message::Text(text))) = timeout(SOON, nobody.0.next()).await.unwrap() else { panic!("nothing came") };
        assert!(text.contains("4001"), "{text}");
        let Some(Ok(Message::Close(Some(frame)))) = timeout(SOON, nobody.0.next()).await.unwrap() else { panic!("it stays open") };
        assert_eq!(u16::from(frame.code), 4001);
    }
}

impl Socket {
    /// The next event of that name in Pusher's protocol, with its data.
    async fn event(&mut self, name: &str) -> Json {
        let heard = async {
            loop {
                let Message::Text(text) = self.0.next().await.unwrap().unwrap() else { continue };
                let event: Json = serde_json::from_str(&text).unwrap();
                if event["event"] == name {
                    break event;
                }
            }
        };
        timeout(SOON, heard).await.unwrap_or_else(|_| panic!("{name} has not come"))
    }

    /// Opens a private channel with what `/pusher/auth` signs for that key. Gives the words that opened it.
    async fn open(&mut self, served: &Served, socket_id: &str, (channel, key): (&str, &ApiKey)) -> String {
        let form = format!("socket_id={socket_id}&channel_name={channel}");
        let headers = [("apikey", key.text()), ("content-type", "application/x-www-form-urlencoded")];
        let signed = served.world.ask("POST /pusher/auth", &headers, form).await;
        assert_eq!(signed.status, 200, "{}", signed.text);
        let data = json!({ "channel": channel, "auth": signed.json()["auth"] });
        let words = json!({ "event": "pusher:subscribe", "data": data }).to_string();
        self.0.send(Message::text(words.clone())).await.unwrap();
        self.event("pusher_internal:subscription_succeeded").await;
        words
    }
}

/// Goal: a user signs in on a connection with what the node signs for him, and the connection ends with what he showed.
#[tokio::test]
async fn a_connection_of_a_user_ends_with_his_rights() {
    let served = served().await;
    let mut socket = served.socket("/app/app-key?protocol=7").await;
    let data = socket.event("pusher:connection_established").await["data"].as_str().unwrap().to_owned();
    let id = serde_json::from_str::<Json>(&data).unwrap()["socket_id"].as_str().unwrap().to_owned();
    let service = key(Role::Service);
    let form = ("content-type", "application/x-www-form-urlencoded");
    let ask = |headers: &'static [(&str, &str)], body: String| served.world.ask("POST /pusher/user-auth", headers, body);
    ask(&[], format!("socket_id={id}")).await.is_problem("a stranger", 401, "PGRST301", "key");
    let headers = [("apikey", service.text()), form];
    let nobody = served.world.ask("POST /pusher/user-auth", &headers, "socket_id=x").await;
    nobody.is_problem("no connection", 400, "PGRST102", "socket_id");
    let signed = served.world.ask("POST /pusher/user-auth", &headers, format!("socket_id={id}")).await;
    assert_eq!(signed.status, 200, "{}", signed.text);
    socket.0.send(Message::text(json!({ "event": "pusher:signin", "data": signed.json() }).to_string())).await.unwrap();
    socket.event("pusher:signin_success").await;
    // No word of the client's takes that back.
    let user: Json = serde_json::from_str(signed.json()["user_data"].as_str().unwrap()).unwrap();
    let leave = json!({ "event": "pusher:unsubscribe", "data": { "channel": format!("#user:{}", user["id"].as_str().unwrap()) } });
    socket.0.send(Message::text(leave.to_string())).await.unwrap();
    served.world.memory.keys.lock().unwrap().remove(&service.hash());
    served.world.memory.rights.send_modify(|count| *count += 1);
    let closed = async {
        loop {
            match socket.0.next().await {
                Some(Ok(Message::Close(why))) => return why.map(|why| u16::from(why.code)),
                Some(Ok(_)) => {}
                _ => return None,
            }
        }
    };
    assert_eq!(timeout(SOON, closed).await.unwrap(), Some(4009));
}

/// Goal: what a key has opened ends with the key, by the event that tells of it, and what others have opened stays.
#[tokio::test]
async fn a_channel_ends_with_the_key_that_opened_it() {
    let served = served().await;
    let mut socket = served.socket("/app/app-key?protocol=7").await;
    let data = socket.event("pusher:connection_established").await["data"].as_str().unwrap().to_owned();
    let id = serde_json::from_str::<Json>(&data).unwrap()["socket_id"].as_str().unwrap().to_owned();
    let (service, admin) = (key(Role::Service), key(Role::Admin));
    let words = socket.open(&served, &id, ("private-lost", &service)).await;
    socket.open(&served, &id, ("private-kept", &admin)).await;
    let lost = std::time::Instant::now();
    served.world.memory.keys.lock().unwrap().remove(&service.hash());
    served.world.memory.rights.send_modify(|count| *count += 1);
    let error = socket.event("pusher:subscription_error").await;
    assert_eq!((&error["channel"], &error["data"]["status"]), (&json!("private-lost"), &json!(401)), "{error}");
    assert!(lost.elapsed() < SOON, "after {:?}", lost.elapsed());
    // It is out of that channel, and in the other one still.
    for channel in ["private-lost", "private-kept"] {
        let event = json!({ "event": "client-hello", "channel": channel, "data": {} });
        socket.0.send(Message::text(event.to_string())).await.unwrap();
    }
    assert_eq!(socket.event("pusher:error").await["data"]["code"], 4301, "nobody speaks where he is not");
    socket.open(&served, &id, ("private-kept", &admin)).await;
    // What was signed once opens it for a moment only.
    socket.0.send(Message::text(words)).await.unwrap();
    socket.event("pusher_internal:subscription_succeeded").await;
    served.world.memory.rights.send_modify(|count| *count += 1);
    let error = socket.event("pusher:subscription_error").await;
    assert_eq!((&error["channel"], &error["data"]["status"]), (&json!("private-lost"), &json!(401)), "{error}");
}
