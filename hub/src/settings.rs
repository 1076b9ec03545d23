//! Every setting of a hub: one definition each, from which checking, `config show` and `config example` are made.

pub mod backup;

use std::net::SocketAddr;
use std::ops::Deref;

use mobo_runtime::config::{ByteSize, Define, Kind, Setting, TomlForm};
pub use mobo_runtime::ingest::MQTT_INGEST;
pub use mobo_runtime::serving::{RATE_RULES, SERVER_TIMING, SUBSCRIPTION_COUNT, WEBHOOK_URLS};

use crate::{otlp, publish, webhooks};

/// Where the API listens.
pub static HTTP_LISTEN: Setting<SocketAddr> =
    Setting::new("http.listen", "127.0.0.1:8000", "0.1.0", "Address of the HTTP API. Port 0 takes a free one; `status` tells which.");
/// What callers of the API are shown.
pub static TLS_CERT: Setting<String> = Setting::new(
    "http.tls_cert",
    "",
    "0.1.0",
    "A PEM file with the certificate of the API and those that sign it. With http.tls_key the API speaks TLS, and HTTP/2; both files are read again when they change. Empty: it is plain.",
);
/// What goes with it.
pub static TLS_KEY: Setting<String> = Setting::new("http.tls_key", "", "0.1.0", "A PEM file with the private key of http.tls_cert.");
/// The highest quota: as good as none. None is 0, which would keep out everybody who could change it.
const RATE_MAX: &str = "1000000000";
/// How often somebody without a key may ask.
pub static RATE_GUEST: Setting<i64> =
    Setting::new("http.rate_guest", "1200", "0.1.0", "Requests that one address may make in a minute without a key.").within("1", RATE_MAX);
/// How often somebody with a key may ask.
pub static RATE_KEY: Setting<i64> =
    Setting::new("http.rate_key", "1000000", "0.1.0", "Requests that one key, or one user's token, may make in a minute.")
        .within("1", RATE_MAX);
/// How often secrets may be tried.
pub static RATE_AUTH: Setting<i64> = Setting::new(
    "http.rate_auth",
    "120",
    "0.1.0",
    "Requests that one address may make to /auth/v1, or with keys and tokens that are not good, in a minute.",
)
.within("1", RATE_MAX);
/// Whether GraphQL tells its schema.
pub static GRAPHQL_INTROSPECTION: Setting<bool> = Setting::new(
    "graphql.introspection",
    "true",
    "0.1.0",
    "False: /graphql/v1 answers queries and does not tell what there is. Whoever asks is told only of what he may use, either way.",
);
/// Which app of the Pusher protocol servers publish for.
pub static PUSHER_ID: Setting<String> =
    Setting::new("pusher.id", "", "0.1.0", "The id of an app of the Pusher protocol, as its servers give it. Empty: there is none.");
/// What its clients connect with.
pub static PUSHER_KEY: Setting<String> = Setting::new("pusher.key", "", "0.1.0", "The key of that app, which its clients connect with.");
/// What its servers sign with.
pub static PUSHER_SECRET: Setting<Option<String>> =
    Setting::new("pusher.secret", "", "0.1.0", "The secret of that app, which its servers sign with.").secret();
/// Where devices connect.
pub static QUIC_LISTEN: Setting<SocketAddr> = Setting::new(
    "quic.listen",
    "127.0.0.1:8443",
    "0.1.0",
    "UDP address on which devices connect. Use 0.0.0.0:8443 to take devices from other machines.",
);
/// What join tokens say.
pub static QUIC_ADVERTISE: Setting<String> = Setting::new(
    "quic.advertise",
    "",
    "0.1.0",
    "host:port that devices reach this hub at, for join tokens; commas between several, also mqtt://host:port and ws://host/sync/v1. Empty: the addresses it listens on.",
)
.hot();
/// What one device may write.
pub static DEVICE_WRITES: Setting<i64> = Setting::new(
    "device.writes_per_hour",
    "1000000",
    "0.1.0",
    "Operations on records that one device may push in an hour. One that has more goes on at that pace, and an alarm says so. 0: no bound.",
);
/// Where the embedded broker listens.
pub static MQTT_LISTEN: Setting<SocketAddr> = Setting::new(
    "mqtt.listen",
    "127.0.0.1:1883",
    "0.1.0",
    "TCP address of the hub's own MQTT broker, for devices whose UDP is blocked. Use 0.0.0.0:1883 to take devices from other machines.",
);
/// Another broker in its place.
pub static MQTT_URL: Setting<String> = Setting::new(
    "mqtt.url",
    "",
    "0.1.0",
    "mqtt://user:password@host:port of a broker that carries the devices' frames in place of the hub's own, such as Mosquitto.",
)
.url();
/// Where plain sensors publish; what they send is in [`MQTT_INGEST`].
pub static MQTT_INGEST_URL: Setting<String> = Setting::new(
    "mqtt.ingest_url",
    "",
    "0.1.0",
    "mqtt://user:password@host:port of the broker that sensors publish to, for mqtt.ingest. Empty: that of mqtt.url. Of the hubs of a store \
     one hears it at a time.",
)
.url();
/// Which database.
pub static STORE_URL: Setting<StoreUrl> = Setting::new(
    "store.url",
    "sqlite",
    "0.1.0",
    "`sqlite` keeps everything in the data folder; postgres://user:password@host/database uses Postgres 15 or newer.",
)
.url();
/// Where backups go.
pub static BACKUP_URL: Setting<String> = Setting::new(
    "backup.url",
    "",
    "0.1.0",
    "Where backups go: a folder, as /mnt/backup or folder:///mnt/backup, or a bucket, as s3://backups/plant-4. Empty: nothing is backed up, and nothing becomes safe.",
)
.url();
/// How fast.
pub static BACKUP_RATE: Setting<ByteSize> =
    Setting::new("backup.rate", "0B", "0.1.0", "At most so many bytes go to the vault in a second, as in 2MiB. 0B: as many as go.");

/// Whether anybody may make an account.
pub static AUTH_SIGNUP: Setting<bool> = Setting::new(
    "auth.signup",
    "false",
    "0.1.0",
    "True: whoever has a key of role anon may make an account for himself. False: an administrator makes accounts.",
)
.hot();
/// What tokens say of who issued them.
pub static AUTH_URL: Setting<String> = Setting::new(
    "auth.url",
    "",
    "0.1.0",
    "Where others reach /auth/v1, such as https://api.example.com/auth/v1: the issuer in users' tokens, and what one-time links begin with. Empty: a name made of the hub's key.",
);

/// All of them.
pub static ALL: &[&dyn Define] = &[
    &HTTP_LISTEN,
    &TLS_CERT,
    &TLS_KEY,
    &RATE_GUEST,
    &RATE_KEY,
    &RATE_AUTH,
    &RATE_RULES,
    &SERVER_TIMING,
    &GRAPHQL_INTROSPECTION,
    &PUSHER_ID,
    &PUSHER_KEY,
    &PUSHER_SECRET,
    &SUBSCRIPTION_COUNT,
    &WEBHOOK_URLS,
    &webhooks::WEBHOOK_EVENTS,
    &QUIC_LISTEN,
    &QUIC_ADVERTISE,
    &DEVICE_WRITES,
    &MQTT_LISTEN,
    &MQTT_URL,
    &MQTT_INGEST,
    &MQTT_INGEST_URL,
    &STORE_URL,
    &AUTH_SIGNUP,
    &AUTH_URL,
    &otlp::ENDPOINT,
    &otlp::EVERY,
    &publish::URL,
    &publish::APP,
    &publish::KEY,
    &publish::SECRET,
    &publish::COLLECTIONS,
    &BACKUP_URL,
    &BACKUP_RATE,
    &backup::ENDPOINT,
    &backup::REGION,
    &backup::KEY_ID,
    &backup::SECRET,
    &backup::PRUNE_KEY_ID,
    &backup::PRUNE_SECRET,
    &backup::LOCK,
    &backup::SCHEDULE,
    &backup::JITTER,
    &backup::RETENTION,
    &backup::DRILL,
    &backup::DRILL_AGE,
];

/// Where a hub keeps everything: a value of `store.url`.
#[derive(Clone, Eq, PartialEq, PartialOrd)]
pub struct StoreUrl(String);

impl std::fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // There may be a password in it.
        f.write_str("StoreUrl")
    }
}

impl Deref for StoreUrl {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Kind for StoreUrl {
    const EXPECTED: &'static str = "`sqlite`, or postgres://user:password@host:5432/database";
    const FORM: TomlForm = TomlForm::Quoted;

    fn parse(text: &str) -> Option<Self> {
        let is_known = text == "sqlite" || text.starts_with("postgres://") || text.starts_with("postgresql://");
        is_known.then(|| Self(text.to_owned()))
    }
}

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
