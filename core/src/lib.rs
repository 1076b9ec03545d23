//! The part of mobo that **decides**.
//!
//! No async runtime, socket, SQL, clock, thread, environment or randomness lives here: time, entropy and IO are arguments.
//! Everything an outsider sends has been turned into types by `mobo-protocol` before it arrives, and every limit is named in [`limits`].
//!
//! Reading order for a newcomer: [`ids`] → [`entry`] (what a write is) → [`table`], [`document`] (what it says) → [`message`] (what
//! nodes tell each other) → [`kernel`] (what runs it all).
//!
//! **Architecture invariants.** Nothing in `core` can wait. An edge never needs the hub to accept a write. The hub applies an entry at
//! most once. Bytes that are hashed or signed are stored and forwarded verbatim, never re-encoded.

pub mod author;
pub mod backoff;
pub mod backup;
pub mod buckets;
pub mod cbor;
pub mod digest;
pub mod document;
pub mod engine;
pub mod entry;
pub mod future;
pub mod ids;
pub mod ingest;
pub mod json;
pub mod kernel;
pub mod level;
pub mod life;
pub mod limits;
pub mod link;
pub mod live;
pub mod merge;
pub mod message;
pub mod names;
pub mod overlay;
pub mod protect;
pub mod query;
pub mod rates;
pub mod record;
pub mod recover;
pub mod rfc3339;
pub mod rights;
pub mod schema;
pub mod session;
pub mod stamp;
pub mod store;
pub mod stream;
pub mod table;
pub mod time;
pub mod trust;
pub mod value;
