//! The limits of what plain sensors send.

use std::time::Duration;

/// Rules of one node.
pub const INGEST_RULES_MAX: usize = 256;
/// Largest payload of a message that a rule takes; a larger one is kept aside, cut to [`INGEST_KEPT_BYTES_MAX`].
pub const INGEST_PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// Largest message that is read at all: beyond it the connection to the broker ends, because MQTT 3.1.1 has no other word for it.
pub const INGEST_PACKET_BYTES_MAX: usize = 8 << 20;
/// Rows of one message.
pub const INGEST_ROWS_MAX: usize = 1_000;
/// Messages that share a transaction.
pub const INGEST_BATCH_MAX: usize = 256;
/// How long the first message of a batch waits for others: less than a sync of an SD card takes.
pub const INGEST_GATHER: Duration = Duration::from_millis(2);
/// Messages that are acknowledged and not yet known to be so at the broker; MQTT has no more packet ids.
pub const INGEST_IN_FLIGHT_MAX: usize = 65_535;
/// Messages that could not be taken and are kept for somebody to look at; the oldest go.
pub const INGEST_REFUSED_MAX: u64 = 1_000;
/// Rows written by SQL that could not be taken in and are on record; the oldest go.
pub const INTAKE_REFUSED_MAX: u64 = 1_000;
/// For how long a node whose programs had a row taken back says so in its health.
pub const INTAKE_REFUSED_WORN: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of such a message that are kept.
pub const INGEST_KEPT_BYTES_MAX: usize = 4 * 1024;
/// Topics of which a node remembers what they said last of records.
pub const INGEST_TOPICS_MAX: u64 = 10_000;
/// Shortest pause before the broker is tried again.
pub const INGEST_PAUSE_MIN: Duration = Duration::from_millis(500);
/// Longest.
pub const INGEST_PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long the turn of a hub that hears sensors lasts after it was last renewed: whoever has stopped without a word is waited for so long.
pub const INGEST_TURN: Duration = Duration::from_secs(15);
/// How often it is renewed while nothing comes.
pub const INGEST_TURN_RENEW: Duration = Duration::from_secs(5);
/// How often the other hubs look.
pub const INGEST_TURN_LOOK: Duration = Duration::from_secs(1);
/// Lines of standard input that share a write.
pub const APPEND_BATCH_MAX: usize = 500;
/// Bytes of them, as JSON, unless the last one is longer: half of what an entry takes.
pub const APPEND_BATCH_BYTES_MAX: usize = 128 * 1024;
