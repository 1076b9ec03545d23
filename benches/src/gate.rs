//! The records API beside a handler that does the same SQL and nothing else: hyper, rusqlite, the same pragmas, the same rows, in one run.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rusqlite::{Connection, params};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::http::Client;
use crate::node::Launch;
use crate::place::Binaries;
use crate::plan::Plan;
use crate::report::{Report, millis, percentile, rounded, say};

/// Rows that are there.
const ROWS: usize = 100_000;
/// Of which a list of 50 is one fiftieth.
const SITES: usize = 2_000;
/// Callers at the same time, each on a connection of its own.
const CALLERS: usize = 8;
/// Rows in one POST while the table is filled.
const BATCH: usize = 1_000;
/// How often the two take turns at each kind of request.
const TURNS: u32 = 2;

/// The hub's database, in its folder.
const HUB_FILE: &str = "hub.db";
/// The database of the handler that is compared with.
const RAW_FILE: &str = "raw.db";

/// A kind of request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Asked {
    /// One row by its key.
    Point,
    /// 50 rows of a site, in the order of their rank, without an index: all rows are looked at.
    Scan,
    /// The same with an index, which somebody made by SQL.
    List,
    /// One row.
    Insert,
}

impl Asked {
    const ALL: [Self; 4] = [Self::Point, Self::Scan, Self::List, Self::Insert];

    const fn name(self) -> &'static str {
        match self {
            Self::Point => "point",
            Self::Scan => "scan",
            Self::List => "list",
            Self::Insert => "insert",
        }
    }

    /// The `n`th request of a caller: the same for both.
    fn request(self, (caller, n): (usize, usize)) -> (Method, String, Option<String>) {
        let draw = (caller.wrapping_mul(7_919).wrapping_add(n)).wrapping_mul(2_654_435_761) >> 7;
        match self {
            Self::Point => (Method::GET, format!("/rest/v1/shelf?id=eq.r{}", draw % ROWS), None),
            Self::Scan | Self::List => (Method::GET, format!("/rest/v1/shelf?site=eq.s{}&order=rank&limit=50", draw % SITES), None),
            Self::Insert => {
                let row = json!({ "id": format!("new-{caller}-{n}"), "title": "a new thing", "site": "s-new", "rank": n, "open": true });
                (Method::POST, "/rest/v1/shelf".to_owned(), Some(row.to_string()))
            }
        }
    }
}

/// Requests of each kind at both, in turns.
pub(crate) async fn run(plan: &Plan, binaries: &Binaries, mut report: Report) -> anyhow::Result<Report> {
    let home = tempfile::Builder::new().prefix("mobo-bench.").tempdir()?;
    let launch = Launch::new("hub", &binaries.hub, home.path()).set("quic.listen", "127.0.0.1:0").set("mqtt.listen", "127.0.0.1:0");
    let launch = launch.set("http.rate_key", "100000000");
    let node = launch.boot().await?;
    let fields = ["title:text", "site:text", "rank:int", "open:bool"];
    node.ask("collection create", json!({ "name": "shelf", "kind": "table", "fields": fields })).await?;
    let key = node.ask("key create", json!({ "role": "service", "name": "bench" })).await?;
    let key = key.get("key").and_then(Value::as_str).context("a key has no text")?.to_owned();
    let gate = node.http(Some(key)).await?;
    say!("gate: {ROWS} rows into both");
    for from in (0..ROWS).step_by(BATCH) {
        gate.write(Method::POST, "/rest/v1/shelf", &(from..from + BATCH).map(row).collect::<Value>()).await?;
    }
    let raw = Raw::serve(home.path()).await?;
    report.put("rows", ROWS);
    report.put("callers", CALLERS);
    let span = Duration::from_secs(plan.seconds) / TURNS;
    for asked in Asked::ALL {
        if asked == Asked::List {
            for file in [home.path().join("hub").join(HUB_FILE), home.path().join(RAW_FILE)] {
                Connection::open(file)?.execute_batch("PRAGMA busy_timeout = 10000; CREATE INDEX shelf_site ON shelf(site, rank)")?;
            }
        }
        say!("gate: {} for {} s at each", asked.name(), plan.seconds);
        let mut figures = [Figures::default(), Figures::default()];
        for turn in 0..TURNS {
            for (client, figures) in [&gate, &raw].into_iter().zip(&mut figures) {
                figures.add(measure(client, asked, (span, turn)).await?);
            }
        }
        let [gate, raw] = figures.map(Figures::shown);
        report.put(&format!("{}_ratio", asked.name()), rounded(gate.0 / raw.0));
        for (name, (rate, p99)) in [("gate", gate), ("raw", raw)] {
            report.put(&format!("{}_{name}_per_s", asked.name()), rounded(rate));
            report.put(&format!("{}_{name}_p99_ms", asked.name()), millis(p99));
        }
    }
    node.stop().await?;
    Ok(report)
}

fn row(n: usize) -> Value {
    json!({ "id": format!("r{n}"), "title": format!("thing {n}"), "site": format!("s{}", n % SITES), "rank": n % 997, "open": n.is_multiple_of(3) })
}

#[derive(Debug, Default)]
struct Figures {
    took: Vec<Duration>,
    span: Duration,
}

impl Figures {
    fn add(&mut self, (took, span): (Vec<Duration>, Duration)) {
        self.took.extend(took);
        self.span += span;
    }

    /// Requests in a second, and the time that 99 of 100 took at most.
    fn shown(mut self) -> (f64, Duration) {
        (self.took.len() as f64 / self.span.as_secs_f64(), percentile(&mut self.took, 0.99))
    }
}

/// All callers ask, one request after the other, for so long.
async fn measure(client: &Client, asked: Asked, (span, turn): (Duration, u32)) -> anyhow::Result<(Vec<Duration>, Duration)> {
    let began = Instant::now();
    let caller = |number: usize| {
        let client = client.clone();
        async move {
            let mut took = Vec::new();
            while began.elapsed() < span {
                let (method, path, body) = asked.request((number + CALLERS * usize::try_from(turn)?, took.len()));
                let asked_at = Instant::now();
                let (status, answer) = client.send(method, &path, body).await?;
                anyhow::ensure!(status.is_success(), "{path}: {status}: {}", String::from_utf8_lossy(&answer));
                took.push(asked_at.elapsed());
            }
            Ok::<_, anyhow::Error>(took)
        }
    };
    let tasks: Vec<_> = (0..CALLERS).map(|number| tokio::spawn(caller(number))).collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await??);
    }
    Ok((took, began.elapsed()))
}

/// The handler that does the same SQL.
#[derive(Debug)]
struct Raw {
    path: PathBuf,
    readers: Mutex<Vec<Connection>>,
    writer: Mutex<Connection>,
}

impl Raw {
    /// Serves a database of its own with the same rows; gives a client of it.
    async fn serve(home: &Path) -> anyhow::Result<Client> {
        let path = home.join(RAW_FILE);
        let mut writer = open(&path)?;
        writer.execute_batch("CREATE TABLE shelf(id TEXT PRIMARY KEY, title TEXT, site TEXT, rank INTEGER, open INTEGER) WITHOUT ROWID")?;
        let filling = writer.transaction()?;
        for n in 0..ROWS {
            let row = (format!("r{n}"), format!("thing {n}"), format!("s{}", n % SITES), i64::try_from(n % 997)?, n.is_multiple_of(3));
            filling.execute("INSERT INTO shelf VALUES (?, ?, ?, ?, ?)", row)?;
        }
        filling.commit()?;
        let raw = Arc::new(Self { path, readers: Mutex::default(), writer: Mutex::new(writer) });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address: SocketAddr = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(stream.set_nodelay(true));
                let raw = Arc::clone(&raw);
                let service = service_fn(move |request| answer(Arc::clone(&raw), request));
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Client::new(&address.to_string(), None))
    }

    fn read(&self, query: &str) -> anyhow::Result<Vec<Value>> {
        let kept = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let reader = match kept {
            Some(reader) => reader,
            None => open(&self.path)?,
        };
        let word = |name: &str| query.split('&').find_map(|word| word.strip_prefix(name)).unwrap_or_default();
        let (id, site) = (word("id=eq."), word("site=eq."));
        let shown = |row: &rusqlite::Row<'_>| {
            let (id, title, site) = (row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?);
            Ok(json!({ "id": id, "title": title, "site": site, "rank": row.get::<_, i64>(3)?, "open": row.get::<_, bool>(4)? }))
        };
        let rows = if id.is_empty() {
            let mut list = reader
                .prepare_cached("SELECT id, title, site, rank, open FROM shelf WHERE site = ? ORDER BY rank NULLS LAST, id LIMIT ?")?;
            list.query_map(params![site, 50], shown)?.collect::<Result<Vec<_>, _>>()
        } else {
            let mut point = reader.prepare_cached("SELECT id, title, site, rank, open FROM shelf WHERE id = ?")?;
            point.query_map([id], shown)?.collect::<Result<Vec<_>, _>>()
        };
        let rows = rows?;
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        Ok(rows)
    }

    fn insert(&self, body: &[u8]) -> anyhow::Result<()> {
        let row: Value = serde_json::from_slice(body)?;
        let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
        let (rank, open) = (row.get("rank").and_then(Value::as_i64), row.get("open").and_then(Value::as_bool));
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut insert = writer.prepare_cached("INSERT INTO shelf VALUES (?, ?, ?, ?, ?)")?;
        insert.execute(params![text("id"), text("title"), text("site"), rank, open])?;
        Ok(())
    }
}

/// As durable as the hub's own store: every commit is on the disk.
fn open(path: &Path) -> anyhow::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")?;
    Ok(connection)
}

async fn answer(raw: Arc<Raw>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let done = tokio::task::spawn_blocking(move || match parts.method {
        Method::POST => raw.insert(&body).map(|()| (201, Vec::new())),
        _ => raw.read(&query).and_then(|rows| Ok((200, serde_json::to_vec(&rows)?))),
    });
    let (status, bytes) = match done.await {
        Ok(Ok(done)) => done,
        Ok(Err(error)) => (500, error.to_string().into_bytes()),
        Err(error) => (500, error.to_string().into_bytes()),
    };
    let mut response = Response::new(Full::from(bytes));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    Ok(response)
}
