//! Tells the service manager how the node is, in systemd's protocol: one datagram to the socket that it named.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// A service manager, or nobody.
#[derive(Debug)]
pub struct Notifier(Option<OsString>);

impl Notifier {
    /// The one in `NOTIFY_SOCKET`; nobody when it is not set.
    #[must_use]
    pub fn from_env() -> Self {
        Self::to(std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()))
    }

    /// The one at this socket: a path, or `@name` in the abstract namespace.
    #[must_use]
    pub const fn to(socket: Option<OsString>) -> Self {
        Self(socket)
    }

    /// The node serves.
    pub fn ready(&self) {
        self.say("READY=1");
    }

    /// The node reads its settings again; [`ready`](Self::ready) ends it.
    pub fn reloading(&self) {
        let mono = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let us = i128::from(mono.tv_sec) * 1_000_000 + i128::from(mono.tv_nsec) / 1_000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={us}"));
    }

    /// The node is alive.
    pub fn alive(&self) {
        self.say("WATCHDOG=1");
    }

    /// How often to say [`alive`](Self::alive): half of what the manager asks this process for; `None` when it does not.
    #[must_use]
    pub fn watchdog() -> Option<Duration> {
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        watchdog_of(number("WATCHDOG_USEC"), number("WATCHDOG_PID"))
    }

    /// The node stops.
    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// A node works as well without its manager's ear, so that trouble is only logged.
    fn say(&self, words: &str) {
        if let Err(error) = self.send(words) {
            tracing::warn!(%error, words, "could not notify the service manager");
        }
    }

    fn send(&self, words: &str) -> io::Result<()> {
        let Some(socket) = &self.0 else { return Ok(()) };
        let address = match socket.as_bytes().split_first() {
            Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(socket)?,
        };
        let datagram = UnixDatagram::unbound()?;
        datagram.set_nonblocking(true)?;
        datagram.send_to_addr(words.as_bytes(), &address).map(drop)
    }
}

fn watchdog_of(every_us: Option<u64>, pid: Option<u64>) -> Option<Duration> {
    let is_ours = pid.is_none_or(|pid| pid == u64::from(std::process::id()));
    every_us.filter(|us| *us > 0 && is_ours).map(|us| Duration::from_micros(us / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_fed_twice_as_often_as_asked_and_only_by_the_one_who_was_asked() {
        let own = Some(u64::from(std::process::id()));
        let half = Some(Duration::from_secs(15));
        for (us, pid, want) in [(Some(30_000_000), None, half), (Some(30_000_000), own, half), (Some(9), Some(0), None), (None, own, None)]
        {
            assert_eq!(watchdog_of(us, pid), want);
        }
    }

    fn heard(manager: &UnixDatagram, socket: impl Into<OsString>) -> String {
        Notifier::to(Some(socket.into())).ready();
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn both_kinds_of_socket_hear_it() {
        let here = tempfile::tempdir().unwrap();
        let path = here.path().join("notify");
        assert_eq!(heard(&UnixDatagram::bind(&path).unwrap(), &path), "READY=1");

        let name = format!("mobo-notify-{}", crate::entropy::id().unwrap());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        assert_eq!(heard(&manager, format!("@{name}")), "READY=1");
    }

    #[test]
    fn nobody_and_a_deaf_manager_harm_nothing() {
        assert!(Notifier::to(None).send("READY=1").is_ok());
        let gone = Notifier::to(Some("/nowhere/notify".into()));
        assert!(gone.send("READY=1").is_err());
        gone.stopping();
    }
}
