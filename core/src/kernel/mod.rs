//! The motherboard kernel, sans-IO: which parts a node has, in what order they come up, what happens when one fails, and what the node
//! tells of itself.
//!
//! A node is a [`Board`]. It is given the [`ComponentSpec`]s of its parts, is fed [`Input`]s and asks for [`Effect`]s; `mobo-runtime`
//! carries them out. Boot is six [`Stage`]s: pre-boot and kernel init look at the ground and at the dependency order, POST asks every
//! part to test itself, loading opens what the parts own, start puts them to work, ready says so. Stopping is the way back.
//!
//! While it runs, the board asks every part how it is ([`Monitor`]), starts a part that failed again ([`Restarts`]), and does what
//! operators say ([`Command`]). What happens goes out as [`News`]; [`topics`] makes [`Event`]s of it for the bus, whose queues and memory
//! are here too ([`Waiting`], [`History`]).
//!
//! **Architecture invariants.** The board never waits: everything it asks of a part has a deadline, and a deadline that passes is a
//! failure with a name. A part is started after all that it needs and stopped before any of it. Once the board is ready, no failure of a
//! part ends it: only an operator does.

mod board;
mod bus;
mod cache;
mod component;
mod ground;
mod health;
mod order;
mod post;
mod restart;
mod shutdown;
pub mod topics;

pub use board::{
    Answer, Ask, Board, BoardState, Command, CommandId, Done, Effect, ExitReason, Failure, Input, News, Policy, Refusal, Stage, Turn,
};
pub use bus::{
    BadEvent, Datum, DropRule, Event, FieldKind, FieldSpec, Filter, History, Priority, Stamped, TopicSpec, Topics, TopicsError, Waiting,
};
pub use cache::{Cache, CacheCounts};
pub use component::{BadComponentName, ComponentName, ComponentReport, ComponentSpec, ComponentState};
pub use ground::{check_clock, check_mode, check_space};
pub use health::{Health, HealthChange, HealthPolicy, Monitor, Vital};
pub use order::{BootOrder, OrderError};
pub use post::{Check, Fault, Verdict};
pub use restart::{Next, RestartPolicy, Restarts, first_pause};
pub use shutdown::{Layer, SHUTDOWN};
