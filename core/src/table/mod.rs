//! Tables: typed rows, merged per field by effective time, with counters that add (rules R9, R10).

pub mod again;
pub mod engine;
pub mod extra;
mod lives;
pub mod op;
pub mod own;
pub mod past;
pub mod row;
pub mod state;

pub use again::counts_under;
pub use engine::TableEngine;
pub use op::{Action, TableOp};
pub use state::{Cell, TableState, Tally, stands_for};
