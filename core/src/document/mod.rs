//! Documents: nested things that people edit together, one automerge document for each record.

pub mod op;

pub use op::DocumentOp;
