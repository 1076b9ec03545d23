//! Every setting of a device: one definition each, from which checking, `config show` and `config example` are made.

use std::net::SocketAddr;
use std::time::Duration;

use mobo_runtime::config::{ByteSize, Define, Setting};
pub use mobo_runtime::ingest::MQTT_INGEST;
pub use mobo_runtime::serving::{RATE_RULES, SERVER_TIMING, SUBSCRIPTION_COUNT, WEBHOOK_URLS};

/// Where the device's own API listens.
pub static HTTP_LISTEN: Setting<SocketAddr> = Setting::new(
    "http.listen",
    "127.0.0.1:8001",
    "0.1.0",
    "Address of the device's own HTTP API. On loopback programs of this machine need no key; any other address needs one.",
);
/// Where the hub is.
pub static HUB_URL: Setting<String> = Setting::new(
    "hub.url",
    "",
    "0.1.0",
    "Addresses of the hub, before those that the join token named; commas between several: host:port (QUIC), mqtt://user:password@broker:1883, ws://host:port/sync/v1. Empty: only those.",
)
.url();
/// Which transport.
pub static TRANSPORT: Setting<String> = Setting::new(
    "link.transport",
    "auto",
    "0.1.0",
    "How to reach the hub. auto prefers QUIC, and takes MQTT or WebSocket where QUIC does not get through.",
)
.one_of(&["auto", "quic", "mqtt", "ws"]);
/// How long entries stay.
pub static OUTBOX_KEEP: Setting<Duration> = Setting::new(
    "outbox.keep",
    "14d",
    "0.1.0",
    "How long entries are kept past their acknowledgement, for a hub that is restored from an older backup.",
);
/// How much room they take.
pub static OUTBOX_BYTES: Setting<ByteSize> =
    Setting::new("outbox.bytes_max", "64MiB", "0.1.0", "Room for such entries; over it, acknowledged telemetry goes first.");
/// How much room the database may take.
pub static STORE_BYTES: Setting<ByteSize> = Setting::new(
    "store.bytes_max",
    "1GiB",
    "0.1.0",
    "Room for the device's database. Beyond it, writes are refused until entries have gone to the hub; reading and syncing go on.",
);
/// The part that samples may not take.
pub static STORE_RESERVE: Setting<ByteSize> = Setting::new(
    "store.reserve",
    "64MiB",
    "0.1.0",
    "The part of store.bytes_max that samples may not take, so that changes of records find room.",
);
/// What gives way.
pub static STORE_FULL: Setting<String> = Setting::new(
    "store.full",
    "drop_oldest",
    "0.1.0",
    "What happens to samples that the hub does not have, once their room is used up: drop_oldest, thin (minimum, mean and maximum of each \
     minute stay) or stop (new samples are refused). One word for all streams, or stream=word with commas between: vibration=thin,alarms=stop.",
);

/// Where plain sensors publish; what they send is in [`MQTT_INGEST`].
pub static MQTT_INGEST_URL: Setting<String> = Setting::new(
    "mqtt.ingest_url",
    "mqtt://127.0.0.1:1883",
    "0.1.0",
    "mqtt://user:password@host:port of the broker that sensors publish to, for mqtt.ingest.",
)
.url();

/// How often the machine's figures are taken.
pub static VITALS_EVERY: Setting<Duration> = Setting::new(
    "vitals.every",
    "0s",
    "0.1.0",
    "How often this device reports how its machine is (cpu, load, memory, swap, temperature, disk, disk_free, uptime, rss), as in 60s. 0s: never.",
);
/// Where they go.
pub static VITALS_STREAM: Setting<String> =
    Setting::new("vitals.stream", "vitals", "0.1.0", "The stream for these figures; those that it has a field for are reported.");

/// Which app of the Pusher protocol servers publish for.
pub static PUSHER_ID: Setting<String> =
    Setting::new("pusher.id", "", "0.1.0", "The id of an app of the Pusher protocol, as its servers give it. Empty: there is none.");
/// What its clients connect with.
pub static PUSHER_KEY: Setting<String> = Setting::new("pusher.key", "", "0.1.0", "The key of that app, which its clients connect with.");
/// What its servers sign with.
pub static PUSHER_SECRET: Setting<Option<String>> =
    Setting::new("pusher.secret", "", "0.1.0", "The secret of that app, which its servers sign with.").secret();

/// All of them.
pub static ALL: &[&dyn Define] = &[
    &HTTP_LISTEN,
    &RATE_RULES,
    &SERVER_TIMING,
    &HUB_URL,
    &TRANSPORT,
    &OUTBOX_KEEP,
    &OUTBOX_BYTES,
    &STORE_BYTES,
    &STORE_RESERVE,
    &STORE_FULL,
    &MQTT_INGEST,
    &MQTT_INGEST_URL,
    &VITALS_EVERY,
    &VITALS_STREAM,
    &PUSHER_ID,
    &PUSHER_KEY,
    &PUSHER_SECRET,
    &SUBSCRIPTION_COUNT,
    &WEBHOOK_URLS,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_of_its_setting() {
        for setting in ALL {
            assert_eq!(setting.sound(), None);
        }
    }
}
