//! Documents: nested things that people edit together, one automerge document for each record.
//!
//! Each field is one root key, named by its field id. Texts, lists and counters are containers that begin with a change that every node
//! can make by itself ([`genesis`]); all else is a register. No key is ever removed: a deletion is a register, too, at key `0`. What comes
//! from outside passes a guard before automerge sees it, and what automerge saved is loaded again before it is stored.

pub mod actor;
pub mod conflict;
mod content;
pub mod edit;
pub mod engine;
pub mod genesis;
mod guard;
pub mod hands;
mod history;
pub mod lay;
pub mod op;
mod open;
pub mod past;
mod state;

pub use actor::{Actor, ChangeId};
pub use engine::DocumentEngine;
pub use op::DocumentOp;
pub use state::Document;

#[cfg(test)]
mod tests;
