//! The limits of realtime: the log of changes, its subscribers, channels and presence.

use std::time::Duration;

use super::{EDGE_HTTP_CONNECTIONS_MAX, EDGE_HTTP_REQUESTS_MAX, HTTP_CONNECTIONS_MAX, HTTP_REQUESTS_MAX};

/// Changes that the log keeps; a subscriber that comes back from before them is told to read again.
pub const LIVE_ROWS_MAX: u64 = 50_000;
/// Bytes of rows in the log.
pub const LIVE_BYTES_MAX: u64 = 16 << 20;
/// After how many changes the log is cut to these bounds.
pub const LIVE_CUT_EVERY: u64 = 256;
/// Rows that one cut takes away at most.
pub const LIVE_CUT_ROWS_MAX: u64 = 1_024;
/// How long the changes of a collection are logged after somebody has last followed it.
pub const LIVE_FOLLOW: Duration = Duration::from_secs(24 * 3_600);
/// How often that is renewed while somebody follows it.
pub const LIVE_FOLLOW_RENEW: Duration = Duration::from_secs(600);
/// How long the log is read on after its last subscriber has left: it may come back.
pub const LIVE_LINGER: Duration = Duration::from_secs(30);
/// Rows of the log that are read at once.
pub const LIVE_PAGE_ROWS_MAX: u32 = 500;
/// Changes that a subscriber is given first: one that is cut off again and again costs no more than it takes. Each later page is twice as long.
pub const LIVE_FIRST_PAGE_ROWS_MAX: u32 = 32;
/// Bytes of rows that are read at once, but at least one row.
pub const LIVE_PAGE_BYTES_MAX: usize = 1 << 20;
/// Changes that a node keeps in memory for its subscribers; who is further behind is served from the store.
pub const LIVE_RING_MAX: usize = 4_096;
/// Bytes of them.
pub const LIVE_RING_BYTES_MAX: usize = 4 << 20;
/// How often the log is read while nothing says that it has grown: another hub may have written to it.
pub const LIVE_POLL: Duration = Duration::from_millis(500);
/// Pause after the log could not be read.
pub const LIVE_RETRY: Duration = Duration::from_secs(1);
/// Subscribers that read the store at the same time to catch up; the others wait.
pub const LIVE_CATCH_UP_MAX: usize = 2;
/// Changes that a subscriber may be behind; then it is told to read again, and cut.
pub const LIVE_BEHIND_MAX: u64 = 20_000;
/// Subscribers of a hub at the same time.
pub const LIVE_SUBSCRIBERS_MAX: usize = 1_000;
/// Subscribers of a device at the same time.
pub const EDGE_LIVE_SUBSCRIBERS_MAX: usize = 256;
// Whoever stays leaves connections to those who come and go: they would wait without a word.
const _: () = assert!(LIVE_SUBSCRIBERS_MAX + HTTP_REQUESTS_MAX <= HTTP_CONNECTIONS_MAX);
const _: () = assert!(EDGE_LIVE_SUBSCRIBERS_MAX + EDGE_HTTP_REQUESTS_MAX <= EDGE_HTTP_CONNECTIONS_MAX);
/// Of them, for one address.
pub const LIVE_SUBSCRIBERS_PER_ADDRESS_MAX: usize = 250;
/// How often the rights of a subscriber are asked again.
pub const LIVE_RIGHTS_EVERY: Duration = Duration::from_secs(2);
/// A comment goes out on an event stream after this silence.
pub const SSE_HEARTBEAT: Duration = Duration::from_secs(15);
/// How long an event stream's reader waits before it comes back.
pub const SSE_RETRY: Duration = Duration::from_secs(2);
/// Longest wait for a client of a WebSocket to take a frame.
pub const WS_WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// A WebSocket from which nothing was heard for so long is asked, and closed after as long again.
pub const WS_SILENCE: Duration = Duration::from_secs(60);
/// Largest message that a client of a WebSocket sends.
pub const WS_MESSAGE_BYTES_MAX: usize = 128 * 1024;
/// Messages of others that wait for one client; more, and it is cut.
pub const WS_QUEUE_MAX: usize = 1_024;
/// Channels of one connection.
pub const CHANNELS_PER_SOCKET_MAX: usize = 100;
/// Channels that are signed here for one connection of the Pusher protocol while it lives.
pub const CHANNELS_SIGNED_PER_SOCKET_MAX: usize = 1_000;
/// Channels that one connection joins in a second, whether they were joined before or not.
pub const JOINS_PER_SECOND_MAX: u32 = 100;
/// What one channel wants to be told of, at most.
pub const BINDINGS_PER_CHANNEL_MAX: usize = 32;
/// Collections that one connection looks at, each counted with everything that looks at it.
pub const VIEWS_PER_SOCKET_MAX: usize = 2_000;
/// Messages of one request to rooms.
pub const BROADCASTS_PER_REQUEST_MAX: usize = 100;
/// Messages that one user sends to rooms without being in them, in a window of requests.
pub const RATE_TALK: u32 = 600;
/// Channels of a node.
pub const CHANNELS_MAX: usize = 10_000;
/// Members of a presence channel.
pub const PRESENCE_MEMBERS_MAX: usize = 100;
/// Bytes of what a member says of itself.
pub const PRESENCE_BYTES_MAX: usize = 2 * 1024;
/// Letters of a channel's name.
pub const CHANNEL_NAME_MAX: usize = 164;
/// Letters of an event's name.
pub const EVENT_NAME_MAX: usize = 200;
/// Bytes of an event.
pub const EVENT_BYTES_MAX: usize = 100 * 1024;
/// Events of one batch.
pub const EVENT_BATCH_MAX: usize = 10;
/// Events of clients on one connection in a second.
pub const CLIENT_EVENTS_PER_SECOND_MAX: u32 = 50;
/// How long the turn of a hub that publishes lasts after it was last renewed: whoever has stopped without a word is waited for so long.
pub const PUBLISH_TURN: Duration = Duration::from_secs(30);
/// How often it is renewed, with the place: of what another hub has sent since then, it sends again when it goes on.
pub const PUBLISH_TURN_RENEW: Duration = Duration::from_secs(5);
/// How often the others look.
pub const PUBLISH_TURN_LOOK: Duration = Duration::from_secs(1);
/// Bytes of what one such event says: what Pusher itself takes. A larger row is named and not shown.
pub const PUBLISH_EVENT_BYTES_MAX: usize = 10 * 1024;
/// First pause after that server took nothing.
pub const PUBLISH_RETRY_MIN: Duration = Duration::from_millis(500);
/// Longest pause.
pub const PUBLISH_RETRY_MAX: Duration = Duration::from_secs(60);
/// How long that server may take to answer.
pub const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);
/// What is read of its answer.
pub const PUBLISH_ANSWER_BYTES_MAX: usize = 4 * 1024;
/// How far the clock of a server that publishes may be off.
pub const PUBLISH_CLOCK_SKEW: Duration = Duration::from_secs(600);
/// Bytes of events that a channel keeps for who comes back.
pub const CHANNEL_HISTORY_BYTES_MAX: usize = 64 * 1024;
/// How long it keeps them when nobody is in it any more.
pub const CHANNEL_LINGER: Duration = Duration::from_secs(120);
/// Events that a channel keeps for who comes back.
pub const CHANNEL_HISTORY_MAX: usize = 64;
/// Subscribers of a channel up to which each of them is told of each change of their number; beyond, now and then.
pub const SUBSCRIPTION_COUNT_EACH_MAX: usize = 100;
/// How often then.
pub const SUBSCRIPTION_COUNT_EVERY: Duration = Duration::from_secs(5);
/// Addresses that webhooks go to.
pub const WEBHOOK_URLS_MAX: usize = 8;
/// Events that wait for one of them; what comes after that is dropped, and counted.
pub const WEBHOOK_QUEUE_EVENTS_MAX: usize = 10_000;
/// Bytes of them.
pub const WEBHOOK_QUEUE_BYTES_MAX: usize = 4 << 20;
/// Events of one webhook.
pub const WEBHOOK_BATCH_MAX: usize = 100;
/// Bytes of one webhook, but at least one event.
pub const WEBHOOK_BODY_BYTES_MAX: usize = 256 * 1024;
/// How long the first event of a webhook waits for others to go with it.
pub const WEBHOOK_LINGER: Duration = Duration::from_millis(50);
/// How long a receiver may take to answer.
pub const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// First pause after a receiver took nothing.
pub const WEBHOOK_RETRY_MIN: Duration = Duration::from_millis(500);
/// Longest pause.
pub const WEBHOOK_RETRY_MAX: Duration = Duration::from_secs(30);
/// How old an event may be that is tried again, as at Pusher; then it is given up, and counted.
pub const WEBHOOK_PATIENCE: Duration = Duration::from_secs(300);
/// How long a node that stops gives its receivers for what waits.
pub const WEBHOOK_FAREWELL: Duration = Duration::from_secs(2);
/// How often events that are dropped are told in the log.
pub const WEBHOOK_TELL_EVERY: Duration = Duration::from_secs(10);
