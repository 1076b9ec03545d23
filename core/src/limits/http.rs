//! The limits of HTTP: requests, queries, callers.

use std::time::Duration;

use super::FIELDS_PER_COLLECTION_MAX;

/// How deep a GraphQL operation nests.
pub const GRAPHQL_DEPTH_MAX: usize = 16;
/// Fields of a GraphQL operation, all of them counted.
pub const GRAPHQL_COMPLEXITY_MAX: usize = 500;
/// Fields and fragments of a document of GraphQL, each counted wherever it is named.
pub const GRAPHQL_SELECTIONS_MAX: usize = 2_000;
/// Variables of one.
pub const GRAPHQL_VARIABLES_MAX: usize = 256;
/// How deep the text of one nests, before anything of it is understood.
pub const GRAPHQL_RECURSION_MAX: usize = 32;
/// Brackets within each other in the text of one, whatever they mean: who reads it goes down as deep.
pub const GRAPHQL_NESTING_MAX: usize = 200;
/// Directives on one field.
pub const GRAPHQL_DIRECTIVES_MAX: usize = 4;
/// How often one goes to the store.
pub const GRAPHQL_STEPS_MAX: usize = 32;
/// How long a WebSocket of GraphQL may be open before it says who it is.
pub const GRAPHQL_INIT_TIMEOUT: Duration = Duration::from_secs(10);
/// Operations of one such connection at the same time.
pub const GRAPHQL_OPERATIONS_MAX: usize = 100;
/// Bytes of the name that a client gives to one of them.
pub const GRAPHQL_OPERATION_ID_BYTES_MAX: usize = 256;
/// Schemas that are kept: one for all callers who may use the same.
pub const GRAPHQL_SCHEMAS_MAX: usize = 16;
/// Changes of one record on one page of its history.
pub const HISTORY_CHANGES_MAX: usize = 50;
/// Entries of one row that are read to tell what it was; of a longer history, the last ones.
pub const HISTORY_ENTRIES_MAX: usize = 5_000;
/// Bytes of what they wrote to it.
pub const HISTORY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long whoever compares the version of a record waits until what SQL has just written to it is taken in.
pub const TAG_WAIT: Duration = Duration::from_secs(1);
/// Bytes of the entries that are read for that: whatever else they wrote, they are read as a whole.
pub const HISTORY_READ_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of them that a database is asked for at once, but at least one entry.
pub const HISTORY_PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long somebody who asks what a row was waits until the index of the log is there.
pub const HISTORY_WAIT: Duration = Duration::from_secs(5);
/// Entries that one transaction takes into the index.
pub const TRACE_ENTRIES_MAX: usize = 500;
/// Bytes of their payloads, but at least one entry.
pub const TRACE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest request body.
pub const HTTP_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest body of a form, and of whoever is nobody yet: as many as there are requests at the same time fit beside each other.
pub const HTTP_SMALL_BODY_BYTES_MAX: usize = 48 * 1024;
/// Rows that one answer holds.
pub const ROWS_MAX: u64 = 1_000;
/// Rows that one POST of an array may hold.
pub const ROWS_PER_WRITE_MAX: usize = 5_000;
/// Longest wait for a whole request head or body.
pub const HTTP_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests in work at the same time.
pub const HTTP_REQUESTS_MAX: usize = 1_024;
/// Bytes of a request head (the address and all headers) after which it is refused; what was read along with them is looked at.
pub const HTTP_HEAD_BYTES_MAX: usize = 64 * 1024;
/// Bytes of all request bodies that are held at the same time.
pub const HTTP_BODIES_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of a refused body that are read and dropped, so that its sender comes to read the answer.
pub const HTTP_DISCARD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Connections at the same time; later ones wait.
pub const HTTP_CONNECTIONS_MAX: usize = 4_096;
/// Requests in work at the same time on one connection of HTTP/2.
pub const HTTP_STREAMS_MAX: u32 = 128;
/// How often the files of a certificate are looked at, at most.
pub const TLS_LOOK: Duration = Duration::from_secs(2);
/// Pause after a connection could not be accepted: the process has no file descriptor left, most likely.
pub const HTTP_ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long requests in work may go on once the node stops.
pub const HTTP_DRAIN_TIMEOUT: Duration = Duration::from_secs(8);
/// Filters of one query.
pub const QUERY_FILTERS_MAX: usize = 64;
/// Bytes of a regular expression.
pub const REGEX_BYTES_MAX: usize = 1_024;
/// The same, spelled as Postgres and the stores get it.
pub const REGEX_SPELLED_BYTES_MAX: usize = 8 * REGEX_BYTES_MAX;
/// States of one, which each letter of a text is held against.
pub const REGEX_STATES_MAX: usize = 500;
/// Values of all filters of one query.
pub const QUERY_VALUES_MAX: usize = 1_000;
/// How deep `and`, `or` and `not` of one query nest.
pub const QUERY_DEPTH_MAX: usize = 16;
/// Steps of one path into JSON.
pub const QUERY_PATH_MAX: usize = 16;
/// Columns that one query orders by: what is behind a row is a condition for each, with all before it.
pub const QUERY_ORDER_MAX: usize = 16;
/// Columns that one query selects.
pub const QUERY_COLUMNS_MAX: usize = 2 * FIELDS_PER_COLLECTION_MAX;
/// Related collections that one query embeds.
pub const EMBEDS_MAX: usize = 16;
/// How deep they are embedded in each other.
pub const EMBED_DEPTH_MAX: usize = 4;
/// Bytes of all related rows of one answer, as the database gives them.
pub const EMBEDDED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The window in which requests of one caller are counted.
pub const RATE_WINDOW: Duration = Duration::from_secs(60);
/// Requests of one address that shows nothing, in a window.
pub const RATE_GUEST: u32 = 1_200;
/// Requests with one key or token, in a window: far more than a node answers, so that a key that runs wild is seen and a program is not held.
pub const RATE_KEY: u32 = 1_000_000;
/// Requests of one address that try a password, a link or a refresh token, in a window; and as many again with credentials that are not good.
pub const RATE_AUTH: u32 = 120;
/// Callers that are counted at the same time, each once for every rule that counts him.
pub const RATE_CALLERS_MAX: usize = 10_000;
/// The rules by label of a node that is told none: see [`crate::rates`]. What a stranger makes and what he asks of GraphQL costs more than what he
/// reads.
pub const RATE_RULES: &str = "*:create@guest=600/1m, /graphql/v1@guest=600/1m";
/// Rules by label.
pub const RATE_RULES_MAX: usize = 64;
/// Bytes of one label.
pub const RATE_LABEL_BYTES_MAX: usize = 128;
/// The highest quota: as good as none.
pub const RATE_REQUESTS_MAX: u32 = 1_000_000_000;
/// The longest window of a rule by label.
pub const RATE_RULE_WINDOW_MAX: Duration = Duration::from_secs(24 * 3_600);
/// How long the answer to a write with an `Idempotency-Key` is kept.
pub const IDEMPOTENCY_TTL: Duration = Duration::from_secs(24 * 3_600);
/// Longest such key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Such keys that are kept.
pub const IDEMPOTENCY_KEYS_MAX: usize = 4_096;
/// Largest answer that is kept; a larger one is not given again.
pub const IDEMPOTENCY_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Bytes of all answers that are kept.
pub const IDEMPOTENCY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The same on a device, which is small: requests in work.
pub const EDGE_HTTP_REQUESTS_MAX: usize = 64;
/// Connections to a device at the same time; later ones wait.
pub const EDGE_HTTP_CONNECTIONS_MAX: usize = 320;
/// Bytes of all bodies that a device holds at the same time.
pub const EDGE_HTTP_BODIES_BYTES_MAX: usize = 8 * 1024 * 1024;
