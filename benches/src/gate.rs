//! The records API beside a handler that does the same SQL and nothing else (hyper with rusqlite or sqlx, as durable), and beside PocketBase where
//! its program is named: the same rows, in one run, each in a process of its own.

mod pocketbase;
mod raw;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hyper::Method;
use rusqlite::Connection;
use serde_json::{Value, json};

pub(crate) use self::raw::serve as serve_raw;
use crate::http::Client;
use crate::node::Launch;
use crate::place::Binaries;
use crate::plan::Plan;
use crate::postgres::Database;
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
/// The database of the handler that is compared with, and its schema in the hub's database where that is Postgres.
const RAW_FILE: &str = "raw.db";
const RAW_SCHEMA: &str = "raw";

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

    /// The `n`th request of a caller: the same rows of everybody.
    fn request(self, words: Words, (caller, n): (usize, usize)) -> (Method, String, Option<String>) {
        let draw = (caller.wrapping_mul(7_919).wrapping_add(n)).wrapping_mul(2_654_435_761) >> 7;
        let (row, site) = (draw % ROWS, draw % SITES);
        let path = match (self, words) {
            (Self::Point, Words::Mobo) => format!("/rest/v1/shelf?id=eq.r{row}"),
            (Self::Point, Words::PocketBase) => format!("{}/r{row}", pocketbase::RECORDS),
            (Self::Scan | Self::List, Words::Mobo) => format!("/rest/v1/shelf?site=eq.s{site}&order=rank&limit=50"),
            (Self::Scan | Self::List, Words::PocketBase) => pocketbase::list(&format!("s{site}")),
            (Self::Insert, Words::Mobo) => "/rest/v1/shelf".to_owned(),
            (Self::Insert, Words::PocketBase) => pocketbase::RECORDS.to_owned(),
        };
        if self != Self::Insert {
            return (Method::GET, path, None);
        }
        let row = json!({ "id": format!("new-{caller}-{n}"), "title": "a new thing", "site": "s-new", "rank": n, "open": true });
        (Method::POST, path, Some(row.to_string()))
    }
}

/// How somebody is asked.
#[derive(Clone, Copy, Debug)]
enum Words {
    /// As the hub is, which the handler understands, too.
    Mobo,
    PocketBase,
}

/// Somebody who is asked.
#[derive(Debug)]
struct Contender {
    name: &'static str,
    words: Words,
    client: Client,
    figures: Figures,
}

impl Contender {
    fn new(name: &'static str, words: Words, client: Client) -> Self {
        Self { name, words, client, figures: Figures::default() }
    }
}

/// Requests of each kind at everybody, in turns.
pub(crate) async fn run(plan: &Plan, binaries: &Binaries, mut report: Report) -> anyhow::Result<Report> {
    let home = tempfile::Builder::new().prefix("mobo-bench.").tempdir()?;
    let launch = Launch::new("hub", &binaries.hub, home.path()).set("quic.listen", "127.0.0.1:0").set("mqtt.listen", "127.0.0.1:0");
    let mut launch = launch.set("http.rate_key", "100000000");
    let database = Database::of(&plan.store).await?;
    if let Some(database) = &database {
        launch = launch.set("store.url", &database.url);
        report.put("store", database.words().await?);
    }
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
    let raw = raw::Process::start(database.as_ref(), home.path()).await?;
    let pocketbase = match &plan.pocketbase {
        Some(program) => Some(pocketbase::Process::start(program, home.path()).await?),
        None => None,
    };
    let mut contenders = vec![Contender::new("gate", Words::Mobo, gate), Contender::new("raw", Words::Mobo, raw.client.clone())];
    if let Some(pocketbase) = &pocketbase {
        report.put("pocketbase", pocketbase.version.as_str());
        contenders.push(Contender::new("pocketbase", Words::PocketBase, pocketbase.client.clone()));
    }
    report.put("rows", ROWS);
    report.put("callers", CALLERS);
    let span = Duration::from_secs(plan.seconds) / TURNS;
    for asked in Asked::ALL {
        if asked == Asked::List {
            index(database.as_ref(), home.path()).await?;
        }
        say!("gate: {} for {} s at each", asked.name(), plan.seconds);
        for turn in 0..TURNS {
            for contender in &mut contenders {
                let figures = measure(contender, asked, (span, turn)).await?;
                contender.figures.add(figures);
            }
        }
        let mut own = None;
        for contender in &mut contenders {
            let (rate, p99) = std::mem::take(&mut contender.figures).shown();
            let of = |what: &str| format!("{}_{}_{what}", asked.name(), contender.name);
            match own {
                None => own = Some(rate),
                Some(own) => report.put(&of("ratio"), rounded(own / rate)),
            }
            report.put(&of("per_s"), rounded(rate));
            report.put(&of("p99_ms"), millis(p99));
        }
    }
    node.stop().await?;
    if let Some(database) = database {
        database.remove().await?;
    }
    Ok(report)
}

/// Somebody makes an index by SQL, everywhere.
async fn index(database: Option<&Database>, home: &Path) -> anyhow::Result<()> {
    let pocketbase = pocketbase::file(home);
    if pocketbase.exists() {
        Connection::open(&pocketbase)?.execute_batch("PRAGMA busy_timeout = 10000; CREATE INDEX shelf_site ON shelf(site, rank)")?;
    }
    let Some(database) = database else {
        for file in [home.join("hub").join(HUB_FILE), home.join(RAW_FILE)] {
            Connection::open(file)?.execute_batch("PRAGMA busy_timeout = 10000; CREATE INDEX shelf_site ON shelf(site, rank)")?;
        }
        return Ok(());
    };
    let mut connection = database.connect().await?;
    for schema in ["public", RAW_SCHEMA] {
        let sql = format!("CREATE INDEX ON {schema}.shelf(site, rank); ANALYZE {schema}.shelf");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await?;
    }
    Ok(())
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
async fn measure(contender: &Contender, asked: Asked, (span, turn): (Duration, u32)) -> anyhow::Result<(Vec<Duration>, Duration)> {
    let began = Instant::now();
    let caller = |number: usize| {
        let (client, words) = (contender.client.clone(), contender.words);
        async move {
            let mut took = Vec::new();
            while began.elapsed() < span {
                let (method, path, body) = asked.request(words, (number + CALLERS * usize::try_from(turn)?, took.len()));
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
