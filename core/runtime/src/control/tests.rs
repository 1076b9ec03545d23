//! Commands and a node over a real socket in a temporary folder.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

use super::*;
use crate::component::{BoxFuture, Component};
use crate::tasks::Tasks;

/// Gets a permit whenever a call begins to wait, and whenever such a call is dropped.
#[derive(Clone)]
struct Node {
    waiting: Arc<Semaphore>,
    dropped: Arc<Semaphore>,
}

impl Node {
    fn new() -> Self {
        Self { waiting: Arc::new(Semaphore::new(0)), dropped: Arc::new(Semaphore::new(0)) }
    }
}

struct Dropped(Arc<Semaphore>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

impl Handler for Node {
    fn call(&self, verb: String, args: Value, out: EventSink) -> BoxFuture<'_, Result<Value, ControlError>> {
        Box::pin(async move {
            match verb.as_str() {
                "echo" => Ok(args),
                "count" => {
                    for number in 0..args.as_u64().unwrap_or(0) {
                        out.send(json!(number)).await.map_err(|gone| ControlError::failed("gone", gone.to_string(), ""))?;
                    }
                    Ok(json!("done"))
                }
                "long" => Ok(json!("x".repeat(2 << 20))),
                "panic" => panic!("on purpose"),
                "wait" => {
                    let _dropped = Dropped(self.dropped.clone());
                    if args == json!("stream") {
                        out.send(json!("waiting")).await.unwrap();
                    }
                    self.waiting.add_permits(1);
                    std::future::pending().await
                }
                other => Err(ControlError::no_such("no_such_verb", format!("there is no {other}"), "try echo")),
            }
        })
    }
}

struct World {
    folder: PathBuf,
    _temporary: tempfile::TempDir,
    socket: ControlSocket,
    tasks: Tasks,
    node: Node,
}

impl World {
    async fn boot(below: &str) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join(below);
        fs::create_dir_all(&folder).unwrap();
        Self::boot_in(folder, temporary).await
    }

    async fn boot_in(folder: PathBuf, temporary: tempfile::TempDir) -> Self {
        let node = Node::new();
        let socket = ControlSocket::new(&folder, Arc::new(node.clone()));
        let tasks = Tasks::detached(ControlSocket::NAME);
        socket.load().await.unwrap();
        socket.start(tasks.clone()).await.unwrap();
        Self { folder, _temporary: temporary, socket, tasks, node }
    }

    async fn client(&self) -> ControlClient {
        ControlClient::connect(&self.folder).await.unwrap()
    }

    async fn stop(&self) {
        self.tasks.stopping().cancel();
        self.socket.stop(tokio::time::Instant::now()).await.unwrap();
        self.tasks.finished().await;
    }
}

#[tokio::test]
async fn requests_are_answered_one_after_the_other() {
    let world = World::boot("").await;
    let mut client = world.client().await;
    assert_eq!(client.call("echo", json!({"a": [1, "ä\n"]})).await.unwrap(), json!({"a": [1, "ä\n"]}));
    let mut events = Vec::new();
    assert_eq!(client.stream("count", json!(200), |event| events.push(event)).await.unwrap(), json!("done"));
    assert_eq!(events, (0..200).map(|number| json!(number)).collect::<Vec<_>>());

    let error = client.call("fly", Value::Null).await.unwrap_err();
    assert_eq!((error.code.as_ref(), error.exit), ("no_such_verb", 4));
    assert_eq!(Failure::from(error), Failure::no_such("there is no fly", "try echo"));
    let error = client.call("panic", Value::Null).await.unwrap_err();
    assert!(error.message.ends_with("on purpose") && error.exit == 1, "{error:?}");
    let error = client.call("long", Value::Null).await.unwrap_err();
    assert_eq!(error.code, "too_long");
    assert_eq!(client.call("echo", json!(7)).await.unwrap(), json!(7));
    world.stop().await;
}

#[tokio::test]
async fn the_socket_is_private_and_goes_with_the_node() {
    let world = World::boot("").await;
    let path = world.folder.join(SOCKET);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let second = ControlSocket::new(&world.folder, Arc::new(Node::new()));
    let refused = second.load().await.unwrap_err();
    assert!(refused.reason.contains("another process answers on it"), "{refused}");

    let idle = world.client().await;
    world.stop().await;
    idle.closed().await;
    assert!(!path.exists());
    let error = ControlClient::connect(&world.folder).await.unwrap_err();
    assert_eq!((error.code.as_ref(), error.exit), ("not_running", 3));
}

#[tokio::test]
async fn a_socket_that_a_dead_process_left_is_replaced() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().to_owned();
    drop(std::os::unix::net::UnixListener::bind(folder.join(SOCKET)).unwrap());
    assert_eq!(ControlClient::connect(&folder).await.unwrap_err().exit, 3);
    let world = World::boot_in(folder, temporary).await;
    assert_eq!(world.client().await.call("echo", json!(1)).await.unwrap(), json!(1));
}

#[tokio::test]
async fn a_folder_with_a_long_path_works() {
    let world = World::boot(&["long".repeat(20), "longer".repeat(20)].join("/")).await;
    assert!(world.folder.join(SOCKET).as_os_str().len() > 2 * ADDRESS_BYTES_MAX - 20);
    assert_eq!(world.client().await.call("echo", json!(1)).await.unwrap(), json!(1));
    world.stop().await;
    assert_eq!(ControlClient::connect(&world.folder).await.unwrap_err().exit, 3);
}

#[tokio::test]
async fn a_file_in_the_way_is_found_by_the_self_test() {
    let temporary = tempfile::tempdir().unwrap();
    fs::write(temporary.path().join(SOCKET), "precious").unwrap();
    let socket = ControlSocket::new(temporary.path(), Arc::new(Node::new()));
    let checks = socket.post().await;
    assert_eq!(checks.first().unwrap().verdict, mobo_core::kernel::Verdict::Fail);
}

#[tokio::test]
async fn noise_is_refused_and_the_next_connection_is_served() {
    let world = World::boot("").await;
    for (noise, want) in [("no json\n", "bad_request"), ("{\"args\":1}\n", "bad_request"), (&"x".repeat((1 << 20) + 2), "too_long")] {
        let mut stream = UnixStream::connect(world.folder.join(SOCKET)).await.unwrap();
        stream.write_all(noise.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4_096];
        let length = stream.read(&mut answer).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer[..length]).unwrap();
        assert_eq!(answer["error"]["code"], want);
        assert_eq!(answer["error"]["exit"], 2);
    }
    assert_eq!(world.client().await.call("echo", json!(1)).await.unwrap(), json!(1));
}

#[tokio::test]
async fn a_command_that_goes_away_ends_its_call() {
    let world = World::boot("").await;
    let mut client = world.client().await;
    let call = tokio::spawn(async move { client.call("wait", Value::Null).await });
    let _waiting = world.node.waiting.acquire().await.unwrap();
    call.abort();
    let _dropped = world.node.dropped.acquire().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_ends_streams_at_once_and_the_rest_after_a_grace() {
    for (args, grace) in [(json!("stream"), Duration::ZERO), (Value::Null, mobo_core::limits::CONTROL_GRACE)] {
        let world = World::boot("").await;
        let mut client = world.client().await;
        let call = tokio::spawn(async move { client.call("wait", args).await });
        let _waiting = world.node.waiting.acquire().await.unwrap();
        let began = tokio::time::Instant::now();
        world.stop().await;
        assert_eq!(call.await.unwrap().unwrap_err().message, "the node is stopping");
        assert_eq!(began.elapsed().as_secs(), grace.as_secs());
    }
}
