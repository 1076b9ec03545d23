//! Tables: typed rows, merged per field by effective time, with counters that add (rules R9, R10).

pub mod op;
pub mod row;
pub mod state;

pub use op::{Action, TableOp};
pub use state::{Cell, TableState, Tally};
