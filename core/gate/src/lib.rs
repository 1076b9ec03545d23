//! The part of mobo that **speaks HTTP**: the same code on a device and on a hub, over whatever keeps the records.
//!
//! ```text
//! serve ─▶ around ─▶ router ─▶ rest ─▶ access ─▶ query, body ─▶ Backend
//! socket   ids,      paths     a       who may    the caller's    the node's
//!          CORS,               request            words as        store
//!          panics                                 types
//! ```
//! A node implements [`Backend`], makes a [`Gate`] of it, and serves it. Everything a caller sends is turned into types of `mobo-core`, or
//! refused with a [`Problem`] that says what would do, before the backend hears of it. What this version does not support is refused,
//! never passed over: the same request gives the same rows on both nodes, or an error.
//!
//! **Architecture invariants.** The gate keeps nothing between requests and knows no store. No request, however slow or large, holds more
//! than the limits of `mobo_core::limits` say. A caller who may not use a collection does not learn whether it exists.

mod access;
mod around;
pub mod auth;
pub mod backend;
mod body;
mod csv;
mod docs;
mod gate;
#[cfg(feature = "graphql")]
mod graphql;
mod health;
mod idempotent;
pub mod key;
mod openapi;
mod patient;
mod prefer;
mod problem;
mod query;
mod rates;
mod realtime;
mod rest;
pub mod serve;
mod timing;
pub mod upgrade;
pub mod watch;

pub use backend::{
    AckLevel, Backend, BackendError, Caller, Credential, NodeKind, Patience, Policies, Principal, Readiness, Role, WriteDone, WriteRequest,
};
pub use gate::{Gate, Openness, Peer, Settings, paths};
pub use problem::Problem;
pub use rates::Rates;
pub use realtime::pusher::{HookBatch, HookKind, HookQueue, Hooks, PusherApp};
