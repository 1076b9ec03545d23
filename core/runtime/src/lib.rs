//! The part of mobo that **does**: it carries out what `mobo-core` decides, on tokio and a Unix system.
//!
//! A node is put together in this order, and each step needs the ones before it:
//!
//! ```no_run
//! use std::sync::Arc;
//! use mobo_core::kernel::Check;
//! use mobo_runtime::{clock::Clock, config::{Config, Sources}, console::Console, data_dir::DataDir};
//! use mobo_runtime::{control::{ControlSocket, Handler}, motherboard::{BoardHandle, Motherboard}, telemetry};
//!
//! # fn node(board: BoardHandle) -> Arc<dyn Handler> { unimplemented!() }
//! # async fn boot() -> Result<u8, Box<dyn std::error::Error>> {
//! let folder = std::path::Path::new("./mobo-edge");
//! let config = Config::load(telemetry::SETTINGS, &Sources::of_process(vec![], None, folder))?; // problems: exit 2, nothing started
//! telemetry::start(&config)?;
//! let folder = DataDir::open(folder)?;                                                         // held until the end
//! let mut board = Motherboard::new("mobo-edge 0.1.0", Clock::start()?, Console::stderr());
//! board.checked(Check::pass("data folder", folder.path().display().to_string()));
//! board.plug(ControlSocket::new(folder.path(), node(board.handle())));                         // first in, last out
//! // … the store, the links, the gate
//! board.announce(|| vec!["http://127.0.0.1:8001".to_owned()]);
//! Ok(board.run().await.code())
//! # }
//! ```
//!
//! Everything that a node is made of is a [`component::Component`]: the board loads and starts it after what it needs, stops it before,
//! and gives it [`tasks::Tasks`] to spawn what must go on. Nothing else in a node spawns, and nothing else decides when to stop:
//! the list of a shutdown is on [`motherboard::Motherboard`].
//!
//! Commands are other processes. They find the node through the socket in its data folder ([`control`]), print data on standard output
//! and sentences on standard error, and exit with one of five codes ([`output`]).
//!
//! **Architecture invariants.** This crate knows nothing of entries, stores or sessions. It is the only one of core, protocol and runtime
//! that reads a clock ([`clock`]), randomness ([`entropy`]), files or the environment. Nothing here waits without a deadline or an owner,
//! and no queue is without a bound.

pub mod board_command;
pub mod board_desk;
pub mod bus;
pub mod clock;
pub mod command;
pub mod component;
pub mod config;
pub mod console;
pub mod control;
pub mod data_dir;
pub mod entropy;
pub mod fingerprint;
pub mod folder_watch;
pub mod ground;
pub mod health;
pub mod ingest;
pub mod key_file;
pub mod machine;
pub mod metrics;
pub mod motherboard;
pub mod new_file;
pub mod notify;
pub mod outbox;
pub mod output;
pub mod reload;
pub mod secrets;
pub mod serving;
pub mod slot;
pub mod state;
pub mod tasks;
pub mod telemetry;
pub mod vitals;
