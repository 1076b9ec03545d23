//! The harness: what end-to-end tests stand on.
//!
//! Tests here use the shipped binaries as a person would: real processes, real sockets, real disks, a real Postgres.
//!
//! ```no_run
//! use mobo_tests::{process::Launch, seed::Seed};
//! use serde_json::json;
//!
//! let seed = Seed::from_env(); // printed when the test fails
//! let folder = tempfile::tempdir().unwrap();
//! let hub = Launch::hub(folder.path().join("hub")).boot();
//! hub.cli().args(["collection", "create", "work_orders", "title:text"]).run().expect_success();
//! let key = hub.cli().args(["key", "create", "--role", "service", "-o", "name"]).run().expect_success().text();
//! let mut api = hub.http().with_header("apikey", &key);
//! let answer = api.post("/rest/v1/work_orders", &json!({ "id": "w-1", "title": "oil the pump" })).unwrap();
//! assert_eq!(answer.status, 201, "{}", answer.text());
//! ```
//!
//! - [`process`] starts a binary, waits for its `ready`, reads its stderr, kills it in every way;
//! - [`cluster`] is a hub with devices that have joined it;
//! - [`mod@faults`] is the catalogue of faults, and which test covers which row;
//! - [`mod@field`] is a fleet behind wires of our own ([`proxy`]), to which everything happens;
//! - [`cli`] runs one verb and keeps what it printed and its exit code;
//! - [`http`] is a client that does exactly what it is told, on one connection;
//! - [`s3`] is an object store that speaks S3, and [`lying`] a way to it that does not tell the truth;
//! - [`mosquitto`] is an MQTT broker that can be killed;
//! - [`postgres`] hands out fresh databases, and servers whose plug can be pulled;
//! - [`mod@sim`] is a simulated world: a hub and devices with everything that the field does to them, from one seed;
//! - [`seed`] makes a random test repeatable;
//! - [`mod@store_conformance`] is what every hub store must do;
//! - [`mod@vault_conformance`] is what every vault must do;
//! - [`wait`] is the only place that polls;
//! - [`wire`] is a device in the test's own process, honest or not.
//!
//! A helper of the harness panics with a sentence when its surroundings are broken (a binary that is not built, a missing
//! Postgres): a test that cannot run has failed, it has not passed. `tests/run` brings all of it.
//!
//! A test that covers a row of the fault catalogue says so in a comment of its own, `// faults: S-1, I-3`; the tidy test knows the ids.

pub mod cli;
pub mod cluster;
pub mod faults;
pub mod field;
pub mod http;
pub mod lying;
pub mod mosquitto;
pub mod postgres;
mod postgres_place;
pub mod process;
pub mod proxy;
pub mod queries;
pub mod s3;
pub mod script;
pub mod seed;
pub mod sim;
pub mod store_conformance;
pub mod vault_conformance;
pub mod wait;
pub mod wire;
