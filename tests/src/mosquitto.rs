//! A Mosquitto of a test's own: on a port of its own, gone with the test.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::cluster::quiet_address;
use crate::process::{Handle, Signal};
use crate::wait;

/// Where the distribution puts it, which is not on everybody's path.
const PLACES: [&str; 3] = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/usr/bin/mosquitto"];

/// A running broker. Dropping it kills it.
#[derive(Debug)]
pub struct Mosquitto {
    address: String,
    folder: TempDir,
    /// None after a kill.
    running: Option<Handle>,
}

impl Mosquitto {
    /// Starts a broker that takes anybody and has its factory settings otherwise; it keeps nothing on disk.
    ///
    /// # Panics
    ///
    /// When Mosquitto is not installed, or does not start.
    #[must_use]
    #[track_caller]
    pub fn start() -> Self {
        Self::with("")
    }

    /// The same, with more lines of its settings file.
    ///
    /// # Panics
    ///
    /// As [`Self::start`].
    #[must_use]
    #[track_caller]
    pub fn with(lines: &str) -> Self {
        Self::of("persistence false", lines)
    }

    /// The same, keeping on disk what it has whenever it is told to [`save`](Self::save).
    ///
    /// # Panics
    ///
    /// As [`Self::start`].
    #[must_use]
    #[track_caller]
    pub fn saving(lines: &str) -> Self {
        Self::of("persistence true\nautosave_interval 0", lines)
    }

    #[track_caller]
    fn of(persistence: &str, lines: &str) -> Self {
        let (address, folder) = (quiet_address(), tempfile::tempdir().expect("a temporary folder"));
        let place = folder.path().display();
        let port = address.rsplit_once(':').map_or("", |(_, port)| port);
        // It leaves root's rights for those of a user who cannot read a test's folder, unless it is told to stay.
        let settings =
            format!("listener {port} 127.0.0.1\nallow_anonymous true\n{persistence}\npersistence_location {place}/\nuser root\n{lines}");
        std::fs::write(folder.path().join("mosquitto.conf"), settings).expect("the settings are written");
        let mut broker = Self { address, folder, running: None };
        broker.start_again();
        broker
    }

    /// Where it listens, for `mqtt.url`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("mqtt://{}", self.address)
    }

    /// Has it write to disk all that it has, and waits for that.
    ///
    /// # Panics
    ///
    /// When it does not.
    #[track_caller]
    pub fn save(&self) {
        let saved = || std::fs::metadata(self.folder.path().join("mosquitto.db")).and_then(|file| file.modified()).ok();
        let before = saved();
        self.running.iter().for_each(|running| running.signal(Signal::USR1));
        wait::until("Mosquitto to save", Duration::from_secs(30), || saved().filter(|now| Some(*now) != before));
    }

    /// Kills it with SIGKILL: everything that it has not saved is lost.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill();
        }
    }

    /// Freezes it, so that its port answers and nothing comes of it.
    pub fn freeze(&self) {
        self.running.iter().for_each(|running| running.signal(Signal::STOP));
    }

    /// Starts it again at the same address, after a kill.
    ///
    /// # Panics
    ///
    /// When it does not start.
    #[track_caller]
    pub fn start_again(&mut self) {
        let program = PLACES.map(PathBuf::from).into_iter().find(|place| place.is_file());
        let program = program.expect("Mosquitto is not installed: run tests/run, or install the package `mosquitto`");
        // It must not outlive a test that is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program).arg("-c").arg(self.folder.path().join("mosquitto.conf"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("setpriv starts");
        self.running = Some(Handle::new(child));
        wait::until("Mosquitto to answer", Duration::from_secs(30), || TcpStream::connect(&self.address).ok());
    }
}
