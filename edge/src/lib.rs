//! The device: a board that keeps working when the cloud is away.
//!
//! Follow a local write through it: [`records`] takes it from HTTP, [`control`] from a command → `EdgeStore::write` of `mobo-adapters`
//! authors, seals and lays it over what the hub delivered, in one durable transaction (ack level *local*) → [`uplink`] pushes the entry when
//! there is a link, and keeps it until the hub has it (level *hub*) and longer.
//!
//! | what | where |
//! |---|---|
//! | which parts a device is made of | [`node`] |
//! | a device inside another program | [`embed`] |
//! | joining a hub | [`join`] |
//! | talking to the hub | [`uplink`] |
//! | plain sensors | [`ingest`] |
//! | the device's own API | [`records`] and `mobo-gate` |
//! | what a person at the device may ask | [`control`] |
//! | commands | [`cli`] |

pub mod bundles;
pub mod cli;
pub mod control;
pub mod embed;
pub mod ingest;
pub mod join;
pub mod metrics;
pub mod node;
pub mod patience;
pub mod records;
pub mod routes;
pub mod settings;
pub mod uplink;

pub use embed::{Changed, Node, NodeError, Watch};
