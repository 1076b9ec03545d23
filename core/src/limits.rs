//! Every limit of the product, in one place, with its unit and qualifier last.
//!
//! An operator reads the whole envelope here; a reviewer finds that everything from outside has a bound.

mod accounts;
mod backup;
mod board;
mod decisions;
mod http;
mod ingest;
mod live;
mod stores;
mod vault;

use std::time::Duration;

pub use accounts::*;
pub use backup::*;
pub use board::*;
pub use decisions::*;
pub use http::*;
pub use ingest::*;
pub use live::*;
pub use stores::*;
pub use vault::*;

// identity
/// Longest record id.
pub const RECORD_ID_BYTES_MAX: usize = 256;
/// Longest name of a collection, field, device or key.
pub const NAME_BYTES_MAX: usize = 63;
/// Longest text key of a bucket.
pub const BUCKET_KEY_BYTES_MAX: usize = 256;

// schema
/// Fields of one collection, retired ones included.
pub const FIELDS_PER_COLLECTION_MAX: usize = 256;
/// Collections of one project.
pub const COLLECTIONS_MAX: usize = 1_000;
/// Bucket rule templates of one collection.
pub const BUCKET_RULES_MAX: usize = 8;

// values
/// Longest text, JSON or bytes value of one field.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;
/// Deepest nesting of a JSON value and of a decoded CBOR item.
pub const NESTING_MAX: usize = 64;

// entries
/// Largest payload of one entry; a larger write is refused, and the sentence says to split it.
pub const ENTRY_PAYLOAD_BYTES_MAX: usize = 256 * 1024;
/// Largest sealed header.
pub const ENTRY_HEADER_BYTES_MAX: usize = 512;
/// Operations in one entry.
pub const ENTRY_OPS_MAX: usize = 5_000;
/// Samples in one stream entry.
pub const ENTRY_SAMPLES_MAX: usize = 10_000;
/// Samples times fields of one stream entry: a column of nulls takes a byte on the wire and a value for each sample in memory.
pub const ENTRY_CELLS_MAX: usize = 256 * 1024;

// rows
/// Largest merge state of one row, for the same reason as [`DOCUMENT_BYTES_MAX`].
pub const ROW_STATE_BYTES_MAX: usize = 512 * 1024;
/// Logs of one device whose increments one counter keeps apart. An entry that was authored again where the hub has lost the log around it has
/// one of its own, and each newcomer is compared with the others.
pub const TALLIES_PER_DEVICE_MAX: usize = 4_096;
/// From so many on, what a device authors again counts with the log that it is authored in, and not apart: rows must not grow with each.
pub const TALLIES_APART_MAX: usize = 1_024;
const _: () = assert!(TALLIES_APART_MAX < TALLIES_PER_DEVICE_MAX);
/// Lives of one log, as they are numbered, of which a counter keeps the tallies apart; those before are added up.
pub const LIVES_APART_MAX: u32 = 8;

// documents
/// How often a device writes one entry again that the hub refuses for what it lacks or has in its place; then somebody has to decide about it.
pub const REDOS_MAX: u64 = 16;
/// Largest automerge change that is looked at.
pub const CHANGE_BYTES_MAX: usize = 64 * 1024;
/// Operations in one automerge change: a text of [`VALUE_BYTES_MAX`] is one for each character.
pub const CHANGE_OPS_MAX: usize = 65_536;
/// Changes of one record in one entry.
pub const CHANGES_PER_OP_MAX: usize = 64;
/// Largest saved document: with a batch around it, it fits one frame.
pub const DOCUMENT_BYTES_MAX: usize = 512 * 1024;
/// Bytes that the columns of a document from outside may inflate to. Half a megabyte of honest ones seldom passes 4 MiB.
pub const DOCUMENT_INFLATED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Changes of one document: each costs every later load.
pub const DOCUMENT_CHANGES_MAX: usize = 20_000;
/// Operations of one document, deletions included: they take up to 0.2 s to load.
pub const DOCUMENT_OPS_MAX: u64 = 1 << 18;
/// Saved documents from this length on stay loaded while they are worked on: a second load would cost more than the memory.
pub const DOCUMENT_WARM_BYTES_MIN: usize = 2 * 1024;
/// Root keys of one document: each field, and the flag of deletion.
pub const DOCUMENT_KEYS_MAX: usize = FIELDS_PER_COLLECTION_MAX + 1;
/// Elements of one list of a document.
pub const LIST_LEN_MAX: usize = 10_000;
/// Largest amount that one operation adds to a counter of a document: no sum of a document's operations leaves 64 bits.
pub const COUNTER_STEP_MAX: u64 = 1 << 44;
/// Highest operation counter that a change may reach: far from `u32::MAX`, where automerge can no longer write.
pub const DOCUMENT_OP_COUNTER_MAX: u64 = 1 << 31;

// frames and sessions
/// Largest body of one frame.
pub const FRAME_BODY_BYTES_MAX: usize = 1 << 20;
/// Bytes of entries in one push, and of items in one batch.
pub const BATCH_BYTES_MAX: usize = 384 * 1024;
/// A push of telemetry takes at most what the link carries in a second, but may always have so many bytes.
pub const PUSH_BYTES_MIN: usize = 8 * 1024;
/// What a push of telemetry takes before the pace of the link is known.
pub const PUSH_BYTES_UNPACED: usize = 32 * 1024;
/// A push of state takes at most what the link carries in so many seconds: a link that comes and goes by the minute gets some of it through.
pub const PUSH_STATE_SECONDS: usize = 10;
/// What a push of state takes before the pace of the link is known.
pub const PUSH_STATE_BYTES_UNPACED: usize = 64 * 1024;
/// Entries in one push.
pub const PUSH_ENTRIES_MAX: usize = 2_000;
/// Items in one batch.
pub const BATCH_ITEMS_MAX: usize = 2_000;
/// Pushes of one lane that may wait for their ack.
pub const PUSHES_IN_FLIGHT_MAX: usize = 4;
/// Buckets that one device may hold.
pub const BUCKETS_PER_DEVICE_MAX: usize = 64;
/// Lanes of its own that a device is told of at a time: those of its youngest logs.
pub const OWN_MERGED_MAX: usize = BUCKETS_PER_DEVICE_MAX;
/// Claims of one device.
pub const CLAIMS_MAX: usize = 64;
/// Parents of a timeline that travel in a welcome; older ones are in the backup.
pub const TIMELINE_PARENTS_MAX: usize = 64;
/// A silent peer is pinged after this long.
pub const KEEPALIVE: Duration = Duration::from_secs(10);
/// A peer that stays silent this long is dead: 1.5 × [`KEEPALIVE`].
pub const PEER_DEAD_AFTER: Duration = Duration::from_secs(15);
/// Longest wait for the answer to a hello or an enrolment.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(15);
/// First pause before a reconnect.
pub const RECONNECT_MIN: Duration = Duration::from_millis(200);
/// Longest pause before a reconnect.
pub const RECONNECT_MAX: Duration = Duration::from_secs(15);
/// The same while the hub was there within [`RECONNECT_SOON`]: with it, what is healed is in sync again within 11 s.
pub const RECONNECT_SOON_MAX: Duration = Duration::from_secs(3);
/// How long a device counts on its hub to be back soon.
pub const RECONNECT_SOON: Duration = Duration::from_secs(600);
/// A session that has lived so long starts the pauses again from short ones; a shorter one may be the next of a row.
pub const RECONNECT_SETTLED: Duration = Duration::from_secs(5);
/// An attempt that has not brought a link for so long gets company by a fresh one, whose first packets are not paused yet.
pub const REDIAL_AFTER: Duration = Duration::from_secs(3);
/// Attempts at the same time.
pub const DIALS_MAX: usize = 5;
/// Hellos and enrolments that a hub decides about at the same time.
pub const ADMISSIONS_MAX: usize = 32;
/// The longest that one may wait for its turn; who would wait longer is told when to come back.
pub const ADMISSION_WAIT: Duration = Duration::from_secs(4);
/// Admissions in a second that a hub counts on before it has seen its own pace.
pub const ADMISSIONS_PER_S_MIN: u32 = 50;
/// The longest time over which those are spread who are told to come back.
pub const ADMISSION_SPREAD_MAX: Duration = Duration::from_secs(60);
/// How long a revoked device may keep its session.
pub const REVOCATION_MAX: Duration = Duration::from_secs(5);
/// Frames that wait on one channel of a link.
pub const OUTBOX_FRAMES_MAX: usize = 256;
/// Offers of definitions that may wait for their answer.
pub const SCHEMA_OFFERS_MAX: u32 = 4;
/// Sessions of one hub.
pub const SESSIONS_MAX: usize = 20_000;
/// Sessions that nobody was let in on yet: strangers hold no more memory than these take.
pub const SESSIONS_UNADMITTED_MAX: usize = 2_048;
/// Links of strangers that are being told so at the same time; more are dropped without a word.
pub const FAREWELLS_MAX: usize = 64;
/// Refused items of offers that are kept of one device, to be looked at.
pub const OFFERS_REFUSED_MAX: u32 = 1_000;

// links
/// Longest pause that a peer's `retry_after` may impose.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);
/// A name may have several addresses: the next one is tried as well when the last one has not answered for this long.
pub const DIAL_STAGGER: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried.
pub const DIAL_ADDRESSES_MAX: usize = 8;
/// Longest wait for a peer to take what was sent before a link closes.
pub const LINK_CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest reason of a close, sent or shown.
pub const CLOSE_REASON_BYTES_MAX: usize = 256;
/// Handshakes in work at the same time; more of them wait.
pub const HANDSHAKES_MAX: usize = 512;
/// Handshakes in work above which a newcomer must first prove its address.
pub const HANDSHAKES_UNPROVEN_MAX: usize = 128;
/// Newcomers that wait for their handshake; more are refused.
pub const INCOMING_MAX: usize = 1_024;
/// Bytes that one newcomer may send ahead of its handshake.
pub const INCOMING_BYTES_MAX: u64 = 16 * 1024;
/// Unidirectional streams that a peer may have open in one QUIC connection: one for each lane, and one to spare.
pub const QUIC_STREAMS_MAX: u32 = 5;
/// Bytes of one QUIC stream that may wait for their reader.
pub const QUIC_STREAM_WINDOW_BYTES: u32 = 512 * 1024;
/// Bytes of one QUIC connection that may wait for their reader.
pub const QUIC_RECEIVE_WINDOW_BYTES: u32 = 1 << 20;
/// Bytes of one QUIC connection that may wait for their ack.
pub const QUIC_SEND_WINDOW_BYTES: u64 = 1 << 20;

// sealed links: over an MQTT broker, and over WebSocket
/// Largest packet of a sealed link, unless the broker takes less.
pub const PACKET_BYTES_MAX: usize = 64 * 1024;
/// Smallest limit of a broker that a link can live with.
pub const PACKET_BYTES_MIN: usize = 1_024;
/// Bytes of one channel of a sealed link that may wait for their reader.
pub const LINK_WINDOW_BYTES: u32 = 512 * 1024;
/// Bytes of a window that are given back at once.
pub const LINK_CREDIT_BYTES: u32 = 64 * 1024;
/// Openings of sealed links that one hub has in work: later ones push out the oldest.
pub const LINKS_OPENING_MAX: usize = 1_024;
/// Links that wait to be taken.
pub const LINKS_WAITING_MAX: usize = 256;
/// Pushes of one lane that may wait for their ack over MQTT.
pub const MQTT_PUSHES_IN_FLIGHT_MAX: usize = 1;
/// Publishes that wait for the MQTT client.
pub const MQTT_QUEUE_MAX: usize = 8;
/// The MQTT client of either end asks its broker for a sign of life after this long; a broker that gives none for three times as long is
/// dead, and the client is built anew.
pub const MQTT_KEEPALIVE: Duration = Duration::from_secs(20);
/// First pause before a hub comes back to a broker.
pub const BROKER_RETRY_MIN: Duration = Duration::from_millis(100);
/// Longest such pause.
pub const BROKER_RETRY_MAX: Duration = Duration::from_secs(5);
/// Packets that the embedded broker holds for one of its clients; more are lost, and links with them.
pub const BROKER_QUEUE_MAX: usize = 4_096;
/// A transport that has not brought a link for this long gets company by the next one, so that a device is on its way within 5 s.
pub const FALLBACK_AFTER: Duration = Duration::from_secs(2);
/// How long a device stays with what worked, before it asks again whether a better transport works.
pub const TRANSPORT_RETRY: Duration = Duration::from_secs(600);

/// Refusals on record that are looked through for those that a device has not heard of.
pub const QUARANTINE_RESENT_MAX: u32 = 10_000;

// merge
/// Entries that one merge transaction takes.
pub const MERGE_ENTRIES_MAX: usize = 2_000;
/// What one merge transaction may cost, counted in operations on rows and in samples (1.2 µs each): a few 10 ms of work. A push that costs
/// more is merged in several.
pub const MERGE_COST_MAX: usize = 10_000;
/// What a change of a document costs in these: about 107 µs for a small one. A hundred of the largest, which load for 0.2 s, are still far
/// from [`POSTGRES_IDLE_TIMEOUT`].
pub const MERGE_DOCUMENT_COST: usize = 100;
/// Pushes that wait for the merge before the hub stops reading.
pub const MERGE_QUEUE_MAX: usize = 256;
/// Retries of a merge that met a serialisation failure or a deadlock.
pub const MERGE_RETRIES_MAX: u32 = 5;
/// How often a submission that is alone in its batch is tried before the store says that it is not available.
pub const MERGE_ATTEMPTS_ALONE_MAX: u32 = 3;
/// First pause before such a retry.
pub const MERGE_RETRY_MIN: Duration = Duration::from_millis(2);
/// Longest pause before such a retry.
pub const MERGE_RETRY_MAX: Duration = Duration::from_millis(200);
/// How long the hub remembers eids and provenance: the device lease (rule R15).
pub const LEASE: Duration = Duration::from_secs(180 * 86_400);

/// How far ahead a hub reserves its time in the store (rule R6).
pub const TIME_RESERVE: Duration = Duration::from_secs(10);
/// How often it does so.
pub const TIME_RESERVE_EVERY: Duration = Duration::from_secs(3);
/// How far above what it has on record a restored hub goes on: what the lost one may have been ahead of the wall clock, after a few restarts.
pub const TIME_LEAP: Duration = Duration::from_secs(60);
/// The lead over the wall clock that a hub gives back, at half speed. More is a wall clock that was set back.
pub const TIME_SLEW_MAX: Duration = Duration::from_secs(3_600);
/// Hints that a session may miss before it looks at everything.
pub const HINTS_MAX: usize = 256;
/// Records that one transaction places anew after a collection's rules were changed (rule R3).
pub const REBUCKET_RECORDS_MAX: usize = 500;
/// How often a hub looks whether another one has left such work unfinished, and the pause after a failure of it.
pub const REBUCKET_LOOK: Duration = Duration::from_secs(15);

// device storage
/// Entries kept past their ack for a hub that goes back in time (rule R21).
pub const OUTBOX_KEEP: Duration = Duration::from_secs(14 * 86_400);
/// Bytes of such entries.
pub const OUTBOX_KEEP_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of entries that are looked through for the writes of one row, each entry counted with the longest header.
pub const PAST_LOOKED_AT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Room that the device's database may take, unless its settings say otherwise.
pub const EDGE_STORE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// The part of it that samples may not take.
pub const EDGE_STORE_RESERVE_BYTES: u64 = 64 * 1024 * 1024;
/// Boots of a device that its hub knows the time of: those that began last.
pub const DEVICE_BOOTS_MAX: u32 = 64;
/// Logs of a device without an entry that its hub remembers: the newest.
pub const DEVICE_EMPTY_LOGS_MAX: u32 = 64;
/// Logs of a device, with entries or that others go on from: beyond them it can begin no other.
pub const DEVICE_LOGS_MAX: u32 = 4_096;
/// Logs that a log is known to go on from.
pub const LOG_LINE_MAX: usize = 256;
/// Entries that give way at once where there is no room for samples.
pub const RELIEF_ENTRIES_MAX: u32 = 1_000;
/// Bytes of a payload of samples that are read to find out whose they are.
pub const SEGMENT_HEAD_BYTES: u32 = 64;
/// Rows of samples that do.
pub const RELIEF_ROWS_MAX: u32 = 5_000;
/// How long a writer waits for a higher level than its node's own, unless it says otherwise.
pub const WAIT: Duration = Duration::from_secs(30);
/// The longest that it may say.
pub const WAIT_MAX: Duration = Duration::from_secs(300);
/// Writers of one device that wait so at the same time.
pub const WAITERS_MAX: usize = 64;
/// Pages that the device's writing connection keeps in memory, in KiB.
pub const EDGE_WRITER_CACHE_KIB: u32 = 2_048;
/// Pages that each of its reading connections keeps, in KiB.
pub const EDGE_READER_CACHE_KIB: u32 = 512;
/// Its reading connections.
pub const EDGE_READERS_MAX: usize = 3;
/// Committed changes that a watcher may fall behind by.
pub const EDGE_CHANGES_MAX: usize = 1_024;
/// Local writes that one transaction takes (group commit).
pub const COMMIT_GROUP_MAX: usize = 512;
/// Local writes that wait for the writer.
pub const COMMIT_QUEUE_MAX: usize = 1_024;

// enrolment
/// Longest join token.
pub const TOKEN_BYTES_MAX: usize = 4_096;
/// Addresses of a hub in a join token.
pub const TOKEN_ADDRESSES_MAX: usize = 8;
/// How long an invitation lives, unless the operator says otherwise.
pub const INVITE_TTL: Duration = Duration::from_secs(24 * 3_600);
/// Longest life of an invitation.
pub const INVITE_TTL_MAX: Duration = Duration::from_secs(366 * 86_400);

// control socket
/// Longest line of a request or an answer.
pub const CONTROL_LINE_BYTES_MAX: usize = 1 << 20;
/// Local commands that are connected at the same time.
pub const CONTROL_CONNECTIONS_MAX: usize = 32;
/// Events of one command that wait for its reader.
pub const CONTROL_EVENTS_MAX: usize = 64;
/// Longest wait for a command to take one line of its answer.
pub const CONTROL_WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Rows of one page of a list; a command asks for the next one until it has what it wants.
pub const CONTROL_PAGE_ROWS_MAX: u32 = 256;
/// Bytes of such rows, unless the first one alone has more: a page fits its line.
pub const CONTROL_PAGE_BYTES_MAX: usize = 128 * 1024;
/// Rows that a list prints for people, unless they say otherwise.
pub const LIST_ROWS: u32 = 1_000;
/// How long a command that is being answered may go on once the node stops.
pub const CONTROL_GRACE: Duration = Duration::from_secs(2);
/// Largest configuration or secret file.
pub const CONFIG_FILE_BYTES_MAX: u64 = 1 << 20;
/// How long files of settings must stay as they are before they are read again: editors write in several steps.
pub const CONFIG_SETTLE: Duration = Duration::from_millis(100);
/// Largest file of what a board remembers between boots.
pub const STATE_BYTES_MAX: u64 = 256 * 1024;
/// Letters of a reason that are remembered.
pub const STATE_REASON_CHARS_MAX: usize = 500;

// metrics
/// Series of one metric with labels; further label values are counted together, as `other`.
pub const METRIC_SERIES_MAX: usize = 1_000;
/// Scrapes at the same time; later ones wait.
pub const METRICS_CONNECTIONS_MAX: usize = 8;
/// Bytes of the head of a scrape.
pub const METRICS_HEAD_BYTES_MAX: u64 = 8 * 1024;
/// Longest time that one scrape takes, from its first byte to the last of the answer.
pub const METRICS_TIMEOUT: Duration = Duration::from_secs(10);
/// Numbers that the store must count are counted at most this often.
pub const METRICS_COUNT_EVERY: Duration = Duration::from_secs(10);
/// How long a collector may take to answer.
pub const OTLP_TIMEOUT: Duration = Duration::from_secs(5);
/// What is read of a collector's answer.
pub const OTLP_ANSWER_BYTES_MAX: usize = 4 * 1024;

// recovery
/// After so long without anything new, a hub notes anew how far its store's time is.
pub const WITNESS_TIME: Duration = Duration::from_secs(60);
/// Bytes of that note.
pub const WITNESS_BYTES_MAX: u64 = 4 * 1024;
/// Logs that a device may have left behind and pushes again in one session (rule R22).
pub const FORMER_LOGS_MAX: usize = 64;
/// How often a hub looks whether another hub of its store has started a new timeline, and whether its store was put back.
pub const HISTORY_LOOK: Duration = Duration::from_secs(5);
/// Logs of one device that may be found in two places within [`TWICE_WINDOW`]; with more, it is shut out.
pub const TWICE_MAX: u64 = 16;
/// Within this time.
pub const TWICE_WINDOW: Duration = Duration::from_secs(24 * 3_600);
/// How long a device that is shut out waits before it tries again.
pub const TWICE_PAUSE: Duration = Duration::from_secs(3_600);

// moving a store
/// Rows of one table that travel together.
pub const MOVE_ROWS_MAX: usize = 200;
/// Bytes of rows that travel together, but at least one row.
pub const MOVE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Pages of rows that wait for the target.
pub const MOVE_PAGES_MAX: usize = 2;

const _: () = assert!(BATCH_BYTES_MAX + ENTRY_PAYLOAD_BYTES_MAX < FRAME_BODY_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX + DOCUMENT_BYTES_MAX < FRAME_BODY_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX + ROW_STATE_BYTES_MAX < FRAME_BODY_BYTES_MAX);
// Nothing that a database's protocol counts in 32 bits ever comes near their end.
const _: () = assert!(FRAME_BODY_BYTES_MAX < 1 << 28 && HTTP_BODY_BYTES_MAX < 1 << 28 && MOVE_BYTES_MAX < 1 << 28);
const _: () = assert!(HTTP_DRAIN_TIMEOUT.as_millis() < STOP_TIMEOUT.as_millis());
const _: () = assert!(CONTROL_GRACE.as_millis() < STOP_TIMEOUT.as_millis());
const _: () = assert!(STOP_NOTICE.as_millis() < STOP_TIMEOUT.as_millis());
const _: () = assert!(STOP_TIMEOUT.as_millis() < SHUTDOWN_TIMEOUT.as_millis());
const _: () = assert!(PEER_DEAD_AFTER.as_millis() * 2 == KEEPALIVE.as_millis() * 3);
const _: () = assert!(COUNTER_STEP_MAX * DOCUMENT_OPS_MAX < i64::MAX as u64);
