//! A Postgres server of the bench's own, as durable as it comes: nothing of what makes it safe is turned off.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use anyhow::{Context as _, anyhow, bail};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tempfile::TempDir;

use crate::plan::Store;
use crate::report::say;

/// Where Debian keeps the server's programs: one folder for each major version.
const DEBIAN_FOLDER: &str = "/usr/lib/postgresql";
/// Our database.
const OWN_DATABASE: &str = "mobo_bench";

/// A database that is there for one run.
#[derive(Debug)]
pub(crate) struct Database {
    /// For the hub, and for [`Database::connect`].
    pub(crate) url: String,
    /// The process that all others of the server come from; absent where the server is not ours.
    pub(crate) pid: Option<u32>,
    /// What to remove afterwards on a server that is not ours: its URL, and the database.
    foreign: Option<(String, String)>,
    _server: Option<Server>,
}

impl Database {
    /// The one that a plan asks for; none where the hub's store is its own file.
    pub(crate) async fn of(store: &Store) -> anyhow::Result<Option<Self>> {
        Ok(match store {
            Store::Sqlite => None,
            Store::OwnPostgres => {
                say!("starting a Postgres with fsync and everything else that makes it durable");
                Some(Self::own().await?)
            }
            Store::Postgres(url) => Some(Self::on(url).await?),
        })
    }

    /// On a server that is started for it.
    async fn own() -> anyhow::Result<Self> {
        let server = Server::start()?;
        let url = |database: &str| format!("postgres:///{database}?host={}&user=mobo", server.folder.path().display());
        execute(&url("postgres"), &format!("CREATE DATABASE {OWN_DATABASE}")).await?;
        Ok(Self { url: url(OWN_DATABASE), pid: Some(server.pid()?), foreign: None, _server: Some(server) })
    }

    /// On a server that runs. The database is removed by [`Database::remove`].
    async fn on(url: &str) -> anyhow::Result<Self> {
        let name = format!("{OWN_DATABASE}_{}", std::process::id());
        execute(url, &format!("CREATE DATABASE {name}")).await?;
        let options = PgConnectOptions::from_str(url)?.database(&name);
        Ok(Self { url: options.to_url_lossy().to_string(), pid: None, foreign: Some((url.to_owned(), name)), _server: None })
    }

    /// A connection.
    pub(crate) async fn connect(&self) -> anyhow::Result<PgConnection> {
        connect(&self.url).await
    }

    /// Version, and what it promises of a commit.
    pub(crate) async fn words(&self) -> anyhow::Result<String> {
        let mut connection = self.connect().await?;
        let mut words = Vec::new();
        for setting in ["server_version", "fsync", "synchronous_commit", "full_page_writes"] {
            let row = sqlx::query("SELECT current_setting($1)").bind(setting).fetch_one(&mut connection).await?;
            words.push(format!("{setting} {}", row.try_get::<String, _>(0)?));
        }
        Ok(words.join(", "))
    }

    /// Leaves no trace on a server that is not ours.
    pub(crate) async fn remove(self) -> anyhow::Result<()> {
        match &self.foreign {
            Some((url, name)) => execute(url, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await,
            None => Ok(()),
        }
    }
}

async fn connect(url: &str) -> anyhow::Result<PgConnection> {
    let options = PgConnectOptions::from_str(url).context("this is no URL of a Postgres database")?.disable_statement_logging();
    PgConnection::connect_with(&options).await.context("Postgres cannot be reached: check the URL, and that the server runs")
}

async fn execute(url: &str, sql: &str) -> anyhow::Result<()> {
    let mut connection = connect(url).await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.with_context(|| sql.to_owned())?;
    connection.close().await?;
    Ok(())
}

/// A server on a Unix socket in a temporary folder. Dropping it stops it and removes the folder.
#[derive(Debug)]
struct Server {
    programs: PathBuf,
    folder: TempDir,
}

impl Server {
    fn start() -> anyhow::Result<Self> {
        let programs = programs().with_context(|| {
            format!(
                "Postgres is not installed ({DEBIAN_FOLDER} has no server): run `apt-get install postgresql`, or name a server by its URL"
            )
        })?;
        let folder = tempfile::Builder::new().prefix("mobo-bench-postgres.").tempdir()?;
        if let Some((user, group)) = postgres_ids()? {
            chown(folder.path(), Some(user), Some(group))?;
        }
        let server = Self { programs, folder };
        let base = server.base().display().to_string();
        server.run("initdb", &["-U", "mobo", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "-D", &base])?;
        let own = format!("listen_addresses = ''\nunix_socket_directories = '{}'\n", server.folder.path().display());
        let path = server.base().join("postgresql.conf");
        fs::write(&path, fs::read_to_string(&path)? + &own)?;
        let log = server.folder.path().join("log").display().to_string();
        server.run("pg_ctl", &["-D", &base, "-l", &log, "-w", "-s", "-t", "120", "start"])?;
        Ok(server)
    }

    fn base(&self) -> PathBuf {
        self.folder.path().join("base")
    }

    fn pid(&self) -> anyhow::Result<u32> {
        let text = fs::read_to_string(self.base().join("postmaster.pid"))?;
        text.lines().next().and_then(|line| line.trim().parse().ok()).ok_or_else(|| anyhow!("Postgres does not say its process: {text}"))
    }

    /// Runs one of Postgres' programs to its end, as the user `postgres` when we are root.
    fn run(&self, program: &str, args: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(self.programs.join(program));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name);
        }
        if let Some((user, group)) = postgres_ids()? {
            command.uid(user).gid(group);
        }
        // To a file and not to a pipe: the server itself inherits it and would hold a pipe open.
        let path = self.folder.path().join("output");
        let output = fs::File::create(&path)?;
        command.args(args).current_dir("/").stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        let status = command.status().with_context(|| format!("{program} does not start"))?;
        if !status.success() {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            bail!("{program} failed: {}\n{log}", fs::read_to_string(&path).unwrap_or_default());
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // What is left when this fails is a process without its folder, which ends by itself.
        let _ = self.run("pg_ctl", &["-D", &self.base().display().to_string(), "-m", "immediate", "-w", "-s", "stop"]);
    }
}

/// The folder of the newest server's programs; none when Postgres is not installed.
fn programs() -> Option<PathBuf> {
    let version = |folder: &Path| folder.file_name()?.to_str()?.parse::<u32>().ok();
    let folders = fs::read_dir(DEBIAN_FOLDER).ok()?.flatten().map(|entry| entry.path());
    folders.filter(|folder| folder.join("bin/initdb").is_file()).max_by_key(|folder| version(folder)).map(|folder| folder.join("bin"))
}

/// User and group of `postgres`, when we are root, whom Postgres refuses; none when we are not.
fn postgres_ids() -> anyhow::Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let line = users.lines().find_map(|line| line.strip_prefix("postgres:"));
    let line =
        line.context("Postgres refuses to run as root, and this machine has no user `postgres`: install Postgres from its packages")?;
    let mut numbers = line.split(':').skip(1).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(user)), Some(Ok(group))) => Ok(Some((user, group))),
        _ => bail!("/etc/passwd has no ids for the user `postgres`"),
    }
}
