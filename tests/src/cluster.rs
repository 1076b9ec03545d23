//! A hub and devices that have joined it: what most end-to-end tests begin with.

#![allow(clippy::indexing_slicing, reason = "a harness of tests: the panic is the report")]

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::cli::Cli;
use crate::http::Client;
use crate::postgres::Database;
use crate::process::{Launch, Node};
use crate::wait;

/// How long nodes that can reach each other may take to agree.
pub const CONVERGENCE_TIMEOUT: Duration = Duration::from_secs(90);

/// Where a hub keeps its rows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// In its data folder.
    Sqlite,
    /// In a fresh database of the shared server.
    Postgres,
}

/// A hub that comes back where it was: on the same folder, the same database, the same ports.
#[derive(Debug)]
pub struct Cluster {
    /// None while it is down.
    hub: Option<Node>,
    launch: Launch,
    /// The hub's database; none for SQLite, and for a server that the test brought itself.
    pub database: Option<Database>,
    folder: TempDir,
}

impl Cluster {
    /// Boots a hub.
    #[must_use]
    #[track_caller]
    pub fn boot(place: Place) -> Self {
        match place {
            Place::Sqlite => Self::boot_on("sqlite", None),
            Place::Postgres => {
                let database = Database::fresh();
                Self::boot_on(&database.url(), Some(database))
            }
        }
    }

    /// Boots a hub with this `store.url`.
    #[must_use]
    #[track_caller]
    pub fn boot_on(store_url: &str, database: Option<Database>) -> Self {
        Self::boot_with(store_url, database, &[])
    }

    /// The same, with these settings as well.
    #[must_use]
    #[track_caller]
    pub fn boot_with(store_url: &str, database: Option<Database>, settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let launch = Launch::hub(folder.path().join("hub"))
            .set("store.url", store_url)
            .set("http.listen", &quiet_address())
            .set("quic.listen", &quiet_address())
            .set("mqtt.listen", &quiet_address());
        let launch = settings.iter().fold(launch, |launch, (key, value)| launch.set(key, value));
        let hub = Some(launch.clone().boot());
        Self { hub, launch, database, folder }
    }

    /// The hub.
    ///
    /// # Panics
    ///
    /// While it is down.
    #[must_use]
    #[track_caller]
    pub fn hub(&self) -> &Node {
        self.hub.as_ref().expect("the hub is up")
    }

    /// Lets the hub, which is down, boot on another store from now on.
    pub fn move_store(&mut self, url: &str, database: Option<Database>) {
        assert!(self.hub.is_none(), "the hub is up");
        self.launch = self.launch.clone().set("store.url", url);
        self.database = database.or_else(|| self.database.take());
    }

    /// A verb on the hub's folder, whether it is up or down.
    #[must_use]
    pub fn cli(&self) -> Cli {
        self.launch.cli()
    }

    /// A folder, or a file, beside the hub's.
    #[must_use]
    pub fn folder(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes collections: the arguments of `collection create`, each.
    #[track_caller]
    pub fn create(&self, collections: &[&[&str]]) {
        for arguments in collections {
            self.cli().args(["collection", "create"]).args(*arguments).run().expect_success();
        }
    }

    /// A join token.
    #[must_use]
    #[track_caller]
    pub fn invite(&self, name: &str) -> String {
        self.cli().args(["device", "invite", "--name", name]).run().expect_success().text()
    }

    /// How to boot a device that has joined, on a port of its own.
    #[must_use]
    #[track_caller]
    pub fn joined(&self, name: &str) -> Launch {
        let folder = self.folder(name);
        Cli::edge(&folder).args(["join", &self.invite(name)]).run().expect_success();
        Launch::edge(folder).set("http.listen", &quiet_address())
    }

    /// A device that has joined and runs.
    #[must_use]
    #[track_caller]
    pub fn device(&self, name: &str) -> Node {
        self.joined(name).boot()
    }

    /// A client of the hub's API with a key of role `service`.
    #[must_use]
    #[track_caller]
    pub fn api(&self) -> Client {
        let key = self.cli().args(["key", "create", "--role", "service", "--name", "test"]).run().expect_success().text();
        self.hub().http().with_header("apikey", &key)
    }

    /// Stops the hub as an operator does.
    #[track_caller]
    pub fn stop_hub(&mut self) {
        let mut hub = self.hub.take().expect("the hub is up");
        assert_eq!(hub.terminate().code(), Some(0), "{}", hub.stderr());
    }

    /// Kills the hub with SIGKILL.
    #[track_caller]
    pub fn kill_hub(&mut self) {
        self.hub.take().expect("the hub is up").kill9();
    }

    /// Boots the hub again.
    #[track_caller]
    pub fn start_hub(&mut self) {
        assert!(self.hub.is_none(), "the hub is up");
        self.hub = Some(self.launch.clone().boot());
    }

    /// Syncs the devices and waits until all of them and the hub hold the same; gives the digest.
    ///
    /// # Panics
    ///
    /// When they do not within [`CONVERGENCE_TIMEOUT`].
    #[track_caller]
    pub fn converge(&self, devices: &[&Node]) -> String {
        for device in devices {
            device.cli().args(["sync", "--timeout", "60"]).run().expect_success();
        }
        wait::until("the same digest everywhere and nothing pending", CONVERGENCE_TIMEOUT, || {
            // The hub last: what a device has pushed by then is in what the hub holds.
            let statuses: Vec<Value> = devices.iter().map(|device| device.status()).collect();
            let want = digest(&self.hub().status());
            let agrees = |status: &Value| digest(status) == want && status["pending"] == 0;
            statuses.iter().all(agrees).then_some(want)
        })
    }

    /// What `health check -o json` says, after its exit code was found to be 0.
    #[track_caller]
    pub fn healthy(&self) -> Value {
        self.cli().args(["health", "check", "-o", "json"]).run().expect_success().json()
    }
}

/// The digest of bucket `all` in a status.
///
/// # Panics
///
/// When the status has no such bucket.
#[must_use]
#[track_caller]
pub fn digest(status: &Value) -> String {
    let buckets = status["buckets"].as_array().expect("a list of buckets");
    let all = buckets.iter().find(|bucket| bucket["key"] == "all").unwrap_or_else(|| panic!("no bucket `all`: {status}"));
    all["digest"].as_str().expect("a digest").to_owned()
}

/// A loopback address that is free now, and that neither the system nor another test gives to anybody until this process ends: a node can
/// leave it and come back.
#[must_use]
pub fn quiet_address() -> String {
    /// What says to other processes that a port is taken, while nobody listens there.
    static TAKEN: Mutex<Vec<UnixDatagram>> = Mutex::new(Vec::new());
    loop {
        let port = 10_000 + RandomState::new().build_hasher().finish() % 20_000;
        let Ok(mark) = mark(port) else { continue };
        let address = format!("127.0.0.1:{port}");
        if TcpListener::bind(&address).is_ok() && UdpSocket::bind(&address).is_ok() {
            TAKEN.lock().unwrap_or_else(PoisonError::into_inner).push(mark);
            return address;
        }
    }
}

/// A name that one process at a time can have, and that goes with it.
fn mark(port: u64) -> std::io::Result<UnixDatagram> {
    UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(format!("mobo tests: port {port}"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What broke: a hub that was down for a moment came back to an address that another test had been given meanwhile.
    #[test]
    fn a_quiet_address_is_nobody_elses_also_while_nobody_listens_there() {
        let address = quiet_address();
        assert!(TcpListener::bind(&address).is_ok(), "it is free");
        let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
        assert!(mark(port).is_err(), "and given to nobody else");
    }
}
