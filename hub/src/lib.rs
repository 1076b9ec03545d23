//! The hub: a board that merges what devices write, and serves it.
//!
//! Follow a device's write through it: [`sessions`] takes the frame and checks signature and chain → [`merger`] gathers a batch → the store
//! (SQLite from `mobo-adapters`, or [`postgres`]) locks, calls `mobo_core::merge`, writes and commits → the session acknowledges, and the
//! sessions of other devices pull what changed. A write through the API ([`node`], part `gate`) joins the same batch.
//!
//! | what | where |
//! |---|---|
//! | which parts a hub is made of | [`node`] |
//! | who may come in | [`admission`] |
//! | who may use the API | [`auth`] |
//! | the hub's secret | [`identity`] |
//! | the hub's time | [`hub_time`] |
//! | what an operator may ask | [`admin`], [`control`] |
//! | commands | [`cli`] |

pub mod admin;
pub mod admission;
pub mod advertise;
pub mod auth;
pub mod backup;
pub mod bundles;
pub mod cli;
pub mod control;
mod elsewhere;
pub mod history;
pub mod hub_time;
pub mod identity;
pub mod ingest;
mod intake;
pub mod merger;
pub mod metrics;
pub mod migrate;
pub mod node;
pub mod otlp;
mod outgoing;
pub mod postgres;
pub mod publish;
mod rebucket;
pub mod records;
pub mod sessions;
pub mod settings;
pub mod webhooks;
pub mod witness;
