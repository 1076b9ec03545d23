//! A real Postgres: a fresh database for each test, and servers whose plug can be pulled.
//!
//! `tests/run` starts one server for the whole run and names it in `MOBO_TEST_POSTGRES`. A test that runs without it starts a
//! server for its own process. Either way a watchdog removes the server however the test ends.

use std::fs;
use std::io::Write;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Names the server that tests share: a URL that holds `{db}` where the database's name goes.
pub const VARIABLE: &str = "MOBO_TEST_POSTGRES";

/// Where Debian keeps the server's programs: one folder for each major version.
const DEBIAN_FOLDER: &str = "/usr/lib/postgresql";

/// Settings of a throw-away server. It may lose everything with the machine; [`Server::durable`] may not.
const FAST: &str = "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\nautovacuum = off\n";

/// A database that only this test knows. Dropping it removes it.
#[derive(Debug)]
pub struct Database {
    name: String,
    /// URL of the server, with `{db}`.
    server: String,
}

impl Database {
    /// A new, empty database on the shared server.
    ///
    /// # Panics
    ///
    /// When there is no server and none can be started; the message says what to do.
    #[must_use]
    #[track_caller]
    pub fn fresh() -> Self {
        static OWN: OnceLock<Server> = OnceLock::new();
        let url = std::env::var(VARIABLE).unwrap_or_else(|_| OWN.get_or_init(Server::start).url("{db}"));
        assert!(url.contains("{db}"), "{VARIABLE} is {url:?}: it must hold {{db}} where the database's name goes");
        Self::fresh_at(url)
    }

    /// A new, empty database on `server`.
    #[must_use]
    #[track_caller]
    pub fn fresh_on(server: &Server) -> Self {
        Self::fresh_at(server.url("{db}"))
    }

    /// The URL, for a store or for psql.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.replace("{db}", &self.name)
    }

    /// Runs SQL and returns the rows of its last statement; null and the empty text look alike.
    ///
    /// # Panics
    ///
    /// When Postgres refuses it.
    #[track_caller]
    pub fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        self.try_rows(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Runs SQL and returns the rows of its last statement, or what Postgres says against it.
    ///
    /// # Errors
    ///
    /// The words of Postgres.
    pub fn try_rows(&self, sql: &str) -> Result<Vec<Vec<String>>, String> {
        let text = psql(&self.url(), sql)?;
        let rows = text.trim_end_matches('\n').split_terminator(ROW);
        Ok(rows.map(|row| row.split(COLUMN).map(str::to_owned).collect()).collect())
    }

    /// Runs SQL and returns the one value that it gives.
    ///
    /// # Panics
    ///
    /// When Postgres refuses it, or it gives more or less than one row of one column.
    #[track_caller]
    pub fn value(&self, sql: &str) -> String {
        let rows = self.rows(sql);
        match rows.as_slice() {
            [row] if row.len() == 1 => row.concat(),
            _ => panic!("{sql}: wanted one value, got {rows:?}"),
        }
    }

    #[track_caller]
    fn fresh_at(server: String) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // The name of the test is in it, so that a look at the server tells what belongs to whom.
        let thread = std::thread::current();
        let test = thread.name().and_then(|path| path.rsplit("::").next()).unwrap_or_default();
        let test: String = test.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(30).collect();
        let test = test.to_ascii_lowercase();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("t_{}_{count}_{test}", std::process::id());
        let database = Self { name, server };
        if let Err(error) = database.on_server(&format!("create database {}", database.name)) {
            panic!("no database for this test: {error}\nThe server is {}. tests/run brings one.", database.server);
        }
        database
    }

    /// Runs SQL in the database that every server has.
    fn on_server(&self, sql: &str) -> Result<String, String> {
        psql(&self.server.replace("{db}", "postgres"), sql)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A server that is gone has taken the database with it.
        let _ = self.on_server(&format!("drop database if exists {} with (force)", self.name));
    }
}

/// A Postgres server of one's own, on a Unix socket in a temporary folder. Dropping it removes it.
#[derive(Debug)]
pub struct Server {
    programs: PathBuf,
    folder: PathBuf,
    watchdog: Child,
}

impl Server {
    /// A server that trades durability for speed.
    ///
    /// # Panics
    ///
    /// When Postgres is not installed or does not start; the message says what to do.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(FAST)
    }

    /// A server with Postgres' own durability: for tests that pull its plug, and for measuring.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    #[must_use]
    pub fn durable() -> Self {
        Self::start_with("")
    }

    /// The URL of `database`.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres:///{database}?host={}&user=mobo", self.folder.display())
    }

    /// Ends the server as a crash would, without a last checkpoint. Connections break.
    ///
    /// # Panics
    ///
    /// When it was not running.
    pub fn crash(&self) {
        self.pg_ctl(&["-m", "immediate", "stop"]);
    }

    /// Starts the server again, on the same folder and URL, and waits until it answers.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn start_again(&self) {
        let log = self.folder.join("log");
        self.pg_ctl(&["-l", &log.to_string_lossy(), "-t", "120", "start"]);
    }

    /// Ends the server in good order, and starts it as a standby of a primary that is not there: it reads, and takes no writes.
    ///
    /// # Panics
    ///
    /// When it does not start so.
    pub fn stand_by(&self) {
        self.pg_ctl(&["-m", "fast", "stop"]);
        fs::write(self.base().join("standby.signal"), "").expect("the folder takes a file");
        self.start_again();
    }

    /// Makes every process of the server stand still, as a machine does that swaps: connections stay open, and nothing answers.
    ///
    /// # Panics
    ///
    /// When it was not running.
    pub fn freeze(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// Lets a server go on that [`freeze`](Self::freeze) has stopped.
    ///
    /// # Panics
    ///
    /// When it was not running.
    pub fn thaw(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let file = fs::read_to_string(self.base().join("postmaster.pid")).expect("a running server has this file");
        let first: i32 = file.lines().next().and_then(|line| line.parse().ok()).expect("its first line is a pid");
        let parent = |pid: i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // Behind the name, which may hold anything: state, parent.
            stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<i32>().ok()
        };
        let all =
            fs::read_dir("/proc").expect("a system with processes").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let server = all.filter(|pid| *pid == first || parent(*pid) == Some(first));
        for pid in server.filter_map(rustix::process::Pid::from_raw) {
            // One that has ended meanwhile stands still, too.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    fn start_with(settings: &str) -> Self {
        let programs = programs()
            .unwrap_or_else(|| panic!("Postgres is not installed ({DEBIAN_FOLDER} has no server): run tests/run, which installs it"));
        let folder = tempfile::Builder::new().prefix("mobo-postgres.").tempdir_in("/tmp").expect("/tmp takes a folder").keep();
        if let Some((user, group)) = postgres_ids() {
            chown(&folder, Some(user), Some(group)).expect("root may give a folder away");
        }
        // The watchdog first: whatever breaks from here on, it cleans up.
        let watchdog = watchdog(&programs, &folder);
        let server = Self { programs, folder, watchdog };
        let base = server.base();
        let base = base.to_string_lossy();
        server.run("initdb", &["-U", "mobo", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "-D", &base]);
        let mut file = fs::OpenOptions::new().append(true).open(server.base().join("postgresql.conf")).expect("initdb wrote it");
        let socket = server.folder.display();
        let own = format!("listen_addresses = ''\nunix_socket_directories = '{socket}'\nport = 5432\nmax_connections = 200\njit = off\n");
        file.write_all(format!("{own}{settings}").as_bytes()).expect("the settings fit on the disk");
        server.start_again();
        server
    }

    fn base(&self) -> PathBuf {
        self.folder.join("base")
    }

    fn pg_ctl(&self, args: &[&str]) {
        let base = self.base();
        let base = base.to_string_lossy();
        self.run("pg_ctl", &[&["-D", &base, "-w", "-s"], args].concat());
    }

    /// Runs one of Postgres' programs, as the user `postgres` when we are root.
    fn run(&self, program: &str, args: &[&str]) {
        let mut command = as_postgres(&self.programs.join(program));
        // To a file and not to a pipe: the server itself inherits it and would hold a pipe open.
        let path = self.folder.join("output");
        let output = fs::File::create(&path).expect("the folder is ours");
        command.args(args).stdout(output.try_clone().expect("a file can be shared")).stderr(output);
        let status = command.status().unwrap_or_else(|error| panic!("{program} does not start: {error}"));
        assert!(
            status.success(),
            "{program} failed: {}\n{}",
            fs::read_to_string(&path).unwrap_or_default(),
            fs::read_to_string(self.folder.join("log")).unwrap_or_default()
        );
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The end of its input is the watchdog's sign.
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

/// What psql puts between columns and behind rows: characters that no value of ours holds.
const COLUMN: char = '\u{1f}';
const ROW: char = '\u{1e}';

fn psql(url: &str, sql: &str) -> Result<String, String> {
    let program = programs().map_or_else(|| "psql".into(), |folder| folder.join("psql"));
    let mut command = Command::new(&program);
    without_settings(&mut command);
    command.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-F", &COLUMN.to_string(), "-R", &ROW.to_string(), "-d", url, "-c", sql]);
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{} does not start: {error}", program.display()))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim_end().to_owned()),
    }
}

/// The folder of the newest server's programs; none when Postgres is not installed.
fn programs() -> Option<PathBuf> {
    let version = |folder: &Path| folder.file_name()?.to_str()?.parse::<u32>().ok();
    let folders = fs::read_dir(DEBIAN_FOLDER).ok()?.flatten().map(|entry| entry.path());
    let servers = folders.filter(|folder| folder.join("bin/initdb").is_file());
    servers.max_by_key(|folder| version(folder)).map(|folder| folder.join("bin"))
}

/// User and group of `postgres`, when we are root; none when we are not.
fn postgres_ids() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("every machine has its list of users");
    let line = users.lines().find_map(|line| line.strip_prefix("postgres:"));
    let line = line.expect("Postgres refuses to run as root: the machine needs a user `postgres`, which tests/run brings");
    let mut fields = line.split(':').skip(1).map(|field| field.parse().expect("ids are numbers"));
    fields.next().zip(fields.next())
}

fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new(program);
    without_settings(&mut command);
    if let Some((user, group)) = postgres_ids() {
        command.uid(user).gid(group);
    }
    command.current_dir("/").stdin(Stdio::null());
    command
}

/// A developer's own Postgres settings (`PGPORT`, `PGUSER`, …) must not lead a test to another server.
fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
}

/// A process that outlives us by a blink: when our end of its input closes, however we died, it stops the server and
/// removes the folder.
fn watchdog(programs: &Path, folder: &Path) -> Child {
    const SCRIPT: &str = r#"
        trap '' HUP INT TERM
        cat
        for _ in 1 2 3; do
            [ -f "$1/base/postmaster.pid" ] && "$0/pg_ctl" -D "$1/base" -m immediate -s stop
            rm -rf "$1" && break
            sleep 1
        done"#;
    let mut command = as_postgres(Path::new("/bin/sh"));
    command.arg("-c").arg(SCRIPT).arg(programs).arg(folder);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.spawn().expect("every machine has /bin/sh")
}
