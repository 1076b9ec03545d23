//! SQLite: the store of every device, and the default store of a hub.
//!
//! One file, one writer (`writer`: a thread that commits what waits in one go), and a few readers on snapshots (`readers`). Rows are
//! plain typed tables that any SQL tool reads (`table`); what the merge needs besides is in the `mobo_…` tables of `schema/`.

pub(crate) mod apart;
pub(crate) mod columns;
pub mod edge;
pub(crate) mod error;
pub mod functions;
pub mod hub;
pub(crate) mod intake;
pub(crate) mod live;
pub(crate) mod meta;
pub(crate) mod open;
pub(crate) mod readers;
pub(crate) mod records;
pub(crate) mod samples;
pub(crate) mod select;
pub mod shell;
pub(crate) mod table;
pub(crate) mod writer;

pub use hub::SqliteHubStore;
pub use open::{SqliteVersion, VERSION_MIN, version};
pub use writer::InlineWriter;
