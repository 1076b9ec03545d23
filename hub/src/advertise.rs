//! Where a hub tells devices to look for it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mobo_core::limits;
use mobo_runtime::config::listed;

/// Where a hub listens, with real ports; `None` where it does not.
#[derive(Clone, Debug, Default)]
pub struct Listening {
    /// QUIC.
    pub quic: Option<SocketAddr>,
    /// The embedded broker's address, or the URL of another.
    pub mqtt: Option<String>,
    /// HTTP, and with it WebSocket.
    pub http: Option<SocketAddr>,
}

/// The addresses for a join token: what the operator `named`, and for each transport that he did not name, what the hub listens on, as far
/// as somebody who reaches the named host can reach it.
#[must_use]
pub fn addresses(named: &str, listening: &Listening, ws_path: &str) -> Vec<String> {
    let named: Vec<&str> = listed(named).collect();
    let names = |schemes: &[&str]| {
        let fits = |address: &&str| schemes.contains(&address.split_once("://").map_or("", |(scheme, _)| scheme));
        named.iter().copied().filter(fits).map(str::to_owned).collect::<Vec<_>>()
    };
    let quic: Vec<String> = names(&["", "quic"]).iter().map(|address| address.trim_start_matches("quic://").to_owned()).collect();
    let host = quic.first().and_then(|address| address.rsplit_once(':')).map(|(host, _)| host.to_owned());
    let reached = |address: SocketAddr| reached(address, host.as_deref());
    let or = |given: Vec<String>, derived: Option<String>| if given.is_empty() { derived.into_iter().collect() } else { given };
    let mqtt = listening.mqtt.as_ref().and_then(|shown| match shown.parse::<SocketAddr>() {
        Ok(address) => reached(address).map(|place| format!("mqtt://{place}")),
        Err(_) => Some(shown.clone()),
    });
    let ws = listening.http.and_then(reached).map(|place| format!("ws://{place}{ws_path}"));
    let all = [or(quic.clone(), listening.quic.and_then(reached)), or(names(&["mqtt"]), mqtt), or(names(&["ws", "wss"]), ws)];
    all.into_iter().flatten().take(limits::TOKEN_ADDRESSES_MAX).collect()
}

/// Where something that listens at `address` is found by those who find the hub at `host`.
fn reached(address: SocketAddr, host: Option<&str>) -> Option<String> {
    let is_loopback = |host: &str| host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match host {
        Some(host) if address.ip().is_unspecified() => Some(format!("{host}:{}", address.port())),
        Some(host) if address.ip().is_loopback() && !is_loopback(host) => None,
        None if address.ip().is_unspecified() => Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()).to_string()),
        Some(_) | None => Some(address.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_what_they_can_reach() {
        let at = |ip: &str| Listening {
            quic: Some(format!("{ip}:1").parse().unwrap()),
            mqtt: Some(format!("{ip}:2")),
            http: Some(format!("{ip}:3").parse().unwrap()),
        };
        let foreign = Listening { mqtt: Some("mqtt://broker:1883".into()), ..at("127.0.0.1") };
        for (named, listening, want) in [
            ("", at("127.0.0.1"), &["127.0.0.1:1", "mqtt://127.0.0.1:2", "ws://127.0.0.1:3/s"][..]),
            ("", at("0.0.0.0"), &["127.0.0.1:1", "mqtt://127.0.0.1:2", "ws://127.0.0.1:3/s"]),
            ("", foreign.clone(), &["127.0.0.1:1", "mqtt://broker:1883", "ws://127.0.0.1:3/s"]),
            ("hub.example:8443", at("0.0.0.0"), &["hub.example:8443", "mqtt://hub.example:2", "ws://hub.example:3/s"]),
            ("hub.example:8443", at("127.0.0.1"), &["hub.example:8443"]),
            ("hub.example:8443", foreign, &["hub.example:8443", "mqtt://broker:1883"]),
            ("127.0.0.1:9", at("127.0.0.1"), &["127.0.0.1:9", "mqtt://127.0.0.1:2", "ws://127.0.0.1:3/s"]),
            ("[::1]:9", at("0.0.0.0"), &["[::1]:9", "mqtt://[::1]:2", "ws://[::1]:3/s"]),
            (
                "quic://a:1, b:2, wss://hub.example/sync/v1",
                at("192.0.2.1"),
                &["a:1", "b:2", "mqtt://192.0.2.1:2", "wss://hub.example/sync/v1"],
            ),
            ("", Listening::default(), &[]),
        ] {
            assert_eq!(addresses(named, &listening, "/s"), want, "{named} {listening:?}");
        }
    }
}
