//! The motherboard kernel, sans-IO: which parts a node has, in what order they come up, and what happens when one fails.
//!
//! A node is a [`Board`]. It is given the [`ComponentSpec`]s of its parts, is fed [`Input`]s and asks for [`Effect`]s; `mobo-runtime`
//! carries them out. Boot is six [`Stage`]s: pre-boot and kernel init look at the ground and at the dependency order, POST asks every
//! part to test itself, loading opens what the parts own, start puts them to work, ready says so. Stopping is the way back.
//!
//! **Architecture invariants.** The board never waits: everything it asks of a part has a deadline, and a deadline that passes is a
//! failure with a name. A part is started after all that it needs and stopped before any of it. A part that was refused, or lost, is
//! never asked anything again. There is no restart, health monitor or bus here yet; they are further inputs to the same machine.

mod board;
mod component;
mod order;
mod post;

pub use board::{Board, BoardState, Effect, ExitReason, Failure, Input, Stage};
pub use component::{BadComponentName, ComponentName, ComponentReport, ComponentSpec, ComponentState};
pub use order::{BootOrder, OrderError};
pub use post::{Check, Fault, Verdict};
