//! The handler that does the same SQL, and nothing else.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rusqlite::{Connection, params};
use serde_json::{Value, json};
use sqlx::postgres::{PgPool, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, Row as _};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use super::{CALLERS, RAW_FILE, RAW_SCHEMA, ROWS, row};
use crate::http::Client;
use crate::postgres::Database;

/// Rows in one INSERT while its table is filled.
const BATCH: usize = 10_000;

/// Where the handler has its rows.
#[derive(Debug)]
enum Raw {
    Sqlite { path: PathBuf, readers: Mutex<Vec<Connection>>, writer: Mutex<Connection> },
    Postgres(PgPool),
}

/// The handler in a process of its own: in that of its callers it would share their threads, and nobody else does.
#[derive(Debug)]
pub(super) struct Process {
    /// Of the handler.
    pub(super) client: Client,
    _child: Child,
}

impl Process {
    /// Fills its own rows, then serves them.
    pub(super) async fn start(database: Option<&Database>, home: &Path) -> anyhow::Result<Self> {
        let place = database.map_or_else(|| home.join(RAW_FILE).into_os_string(), |database| database.url.clone().into());
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["gate", "--serve-raw"]).arg(place);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0).kill_on_drop(true).spawn()?;
        let mut said = BufReader::new(child.stdout.take().context("standard output is not piped")?).lines();
        let address = said.next_line().await?.context("the handler ended before it served")?;
        Ok(Self { client: Client::new(&address, None), _child: child })
    }
}

/// The handler's own process: over a file or a database, until it is killed. It prints its address once it serves.
pub(crate) async fn serve(place: &str) -> anyhow::Result<()> {
    let raw = if place.contains("://") { Raw::postgres(place).await? } else { Raw::sqlite(place.into())? };
    raw.serve().await
}

impl Raw {
    /// Over rows of its own, the same as the hub's.
    fn sqlite(path: PathBuf) -> anyhow::Result<Self> {
        let mut writer = open(&path)?;
        writer.execute_batch("CREATE TABLE shelf(id TEXT PRIMARY KEY, title TEXT, site TEXT, rank INTEGER, open INTEGER) WITHOUT ROWID")?;
        let filling = writer.transaction()?;
        for n in 0..ROWS {
            insert_sqlite(&filling, &row(n))?;
        }
        filling.commit()?;
        Ok(Self::Sqlite { path, readers: Mutex::default(), writer: Mutex::new(writer) })
    }

    async fn postgres(url: &str) -> anyhow::Result<Self> {
        let pool = PgPoolOptions::new().max_connections(u32::try_from(CALLERS)?).connect(url).await?;
        let table = format!(
            "CREATE SCHEMA {RAW_SCHEMA}; CREATE TABLE {RAW_SCHEMA}.shelf(id text COLLATE \"C\" PRIMARY KEY, title text, site text, rank bigint, open boolean)"
        );
        sqlx::raw_sql(AssertSqlSafe(table)).execute(&pool).await?;
        let sql = format!(
            "INSERT INTO {RAW_SCHEMA}.shelf SELECT * FROM jsonb_to_recordset($1) AS row(id text, title text, site text, rank bigint, open boolean)"
        );
        for from in (0..ROWS).step_by(BATCH) {
            let rows: Value = (from..from + BATCH).map(row).collect();
            sqlx::query(AssertSqlSafe(sql.clone())).bind(rows).execute(&pool).await?;
        }
        Ok(Self::Postgres(pool))
    }

    async fn serve(self) -> anyhow::Result<()> {
        let raw = Arc::new(self);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            drop(stream.set_nodelay(true));
            let raw = Arc::clone(&raw);
            let service = service_fn(move |request| answer(Arc::clone(&raw), request));
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    }

    async fn done(self: Arc<Self>, method: Method, query: String, body: Bytes) -> anyhow::Result<(u16, Vec<u8>)> {
        if let Self::Postgres(pool) = &*self {
            return match method {
                Method::POST => insert_postgres(pool, &serde_json::from_slice(&body)?).await.map(|()| (201, Vec::new())),
                _ => Ok((200, serde_json::to_vec(&read_postgres(pool, &query).await?)?)),
            };
        }
        let blocking = tokio::task::spawn_blocking(move || {
            let Self::Sqlite { path, readers, writer } = &*self else { anyhow::bail!("another store") };
            if method == Method::POST {
                insert_sqlite(&writer.lock().unwrap_or_else(PoisonError::into_inner), &serde_json::from_slice(&body)?)?;
                return Ok((201, Vec::new()));
            }
            let kept = readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let reader = kept.map_or_else(|| open(path), Ok)?;
            let rows = read_sqlite(&reader, &query)?;
            readers.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
            Ok((200, serde_json::to_vec(&rows)?))
        });
        blocking.await?
    }
}

async fn answer(raw: Arc<Raw>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let (status, bytes) = raw.done(parts.method, query, body).await.unwrap_or_else(|error| (500, error.to_string().into_bytes()));
    let mut response = Response::new(Full::from(bytes));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    Ok(response)
}

/// What a word of the query names; empty where it is not there.
fn word<'q>(query: &'q str, name: &str) -> &'q str {
    query.split('&').find_map(|word| word.strip_prefix(name)).unwrap_or_default()
}

/// As durable as the hub's own store: every commit is on the disk.
fn open(path: &Path) -> anyhow::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")?;
    Ok(connection)
}

fn read_sqlite(reader: &Connection, query: &str) -> rusqlite::Result<Vec<Value>> {
    let shown = |row: &rusqlite::Row<'_>| {
        let (id, title, site) = (row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?);
        Ok(json!({ "id": id, "title": title, "site": site, "rank": row.get::<_, i64>(3)?, "open": row.get::<_, bool>(4)? }))
    };
    let (id, site) = (word(query, "id=eq."), word(query, "site=eq."));
    if id.is_empty() {
        const LIST: &str = "SELECT id, title, site, rank, open FROM shelf WHERE site = ? ORDER BY rank NULLS LAST, id LIMIT ?";
        return reader.prepare_cached(LIST)?.query_map(params![site, 50], shown)?.collect();
    }
    reader.prepare_cached("SELECT id, title, site, rank, open FROM shelf WHERE id = ?")?.query_map([id], shown)?.collect()
}

fn insert_sqlite(writer: &Connection, row: &Value) -> rusqlite::Result<()> {
    let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
    let (rank, open) = (row.get("rank").and_then(Value::as_i64), row.get("open").and_then(Value::as_bool));
    let mut insert = writer.prepare_cached("INSERT INTO shelf VALUES (?, ?, ?, ?, ?)")?;
    insert.execute(params![text("id"), text("title"), text("site"), rank, open])?;
    Ok(())
}

async fn read_postgres(pool: &PgPool, query: &str) -> anyhow::Result<Vec<Value>> {
    let shown = |row: PgRow| {
        let (id, title, site) = (row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?, row.try_get::<String, _>(2)?);
        Ok(json!({ "id": id, "title": title, "site": site, "rank": row.try_get::<i64, _>(3)?, "open": row.try_get::<bool, _>(4)? }))
    };
    let (id, site) = (word(query, "id=eq."), word(query, "site=eq."));
    let rows = if id.is_empty() {
        const LIST: &str = "SELECT id, title, site, rank, open FROM raw.shelf WHERE site = $1 ORDER BY rank, id LIMIT $2";
        sqlx::query(LIST).bind(site).bind(50_i64).fetch_all(pool).await?
    } else {
        sqlx::query("SELECT id, title, site, rank, open FROM raw.shelf WHERE id = $1").bind(id).fetch_all(pool).await?
    };
    rows.into_iter().map(shown).collect()
}

async fn insert_postgres(pool: &PgPool, row: &Value) -> anyhow::Result<()> {
    let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
    let (rank, open) = (row.get("rank").and_then(Value::as_i64), row.get("open").and_then(Value::as_bool));
    let insert = sqlx::query("INSERT INTO raw.shelf VALUES ($1, $2, $3, $4, $5)").bind(text("id")).bind(text("title"));
    insert.bind(text("site")).bind(rank).bind(open).execute(pool).await?;
    Ok(())
}
