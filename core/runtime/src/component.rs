//! The contract between a part and the board that it is plugged into.
//!
//! A whole part, to copy: it counts in a file, looks after that file with a task of its own, says how it is, and can be given another file
//! while it runs.
//!
//! ```
//! use std::path::PathBuf;
//! use std::sync::{Arc, Mutex, PoisonError};
//! use std::time::Duration;
//!
//! use mobo_core::kernel::{Check, ComponentName, ComponentSpec, Fault, Vital};
//! use mobo_runtime::component::{BoxFuture, Component};
//! use mobo_runtime::config::{Config, Define, Setting, Sources};
//! use mobo_runtime::tasks::Tasks;
//!
//! /// One definition for each setting: it makes `config show`, `config example` and every check.
//! static EVERY: Setting<Duration> = Setting::new("counter.every", "1s", "0.1.0", "How often it counts.");
//!
//! /// What the part owns. The board calls it from several tasks, one call at a time, beside its own task.
//! struct Counter {
//!     file: Arc<Mutex<PathBuf>>,
//!     every: Mutex<Duration>,
//!     tasks: Mutex<Option<Tasks>>,
//! }
//!
//! fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
//!     mutex.lock().unwrap_or_else(PoisonError::into_inner)
//! }
//!
//! fn fault(error: std::io::Error) -> Fault {
//!     Fault::new(format!("the file cannot be written: {error}"), "look at the disk")
//! }
//!
//! impl Component for Counter {
//!     // 1. Who it is, and what must run before it.
//!     fn spec(&self) -> ComponentSpec {
//!         ComponentSpec::optional(ComponentName::fixed("counter"), "0.1.0")
//!     }
//!
//!     // 2. Its settings, before anything else and after each reload. Every value was checked by its definition.
//!     fn configure(&self, config: &Config) -> Result<(), Fault> {
//!         *locked(&self.every) = config.get(&EVERY);
//!         Ok(())
//!     }
//!
//!     // 3. The power-on self-test: it looks, and changes nothing.
//!     fn post(&self) -> BoxFuture<'_, Vec<Check>> {
//!         Box::pin(async {
//!             let file = locked(&self.file).clone();
//!             vec![match file.parent().is_some_and(|folder| folder.is_dir()) {
//!                 true => Check::pass("folder", file.display().to_string()),
//!                 false => Check::fail("folder", format!("{} has no folder", file.display()), "make it"),
//!             }]
//!         })
//!     }
//!
//!     // 4. It opens what it owns, and answers nobody yet. After a stop it is called again.
//!     fn load(&self) -> BoxFuture<'_, Result<(), Fault>> {
//!         Box::pin(async { std::fs::write(&*locked(&self.file), "0").map_err(fault) })
//!     }
//!
//!     // 5. It goes to work and returns; what goes on is a task with a name. A task that ends, or panics, is a failure of this part alone.
//!     fn start(&self, tasks: Tasks) -> BoxFuture<'_, Result<(), Fault>> {
//!         Box::pin(async move {
//!             let (file, every, stopping) = (Arc::clone(&self.file), *locked(&self.every), tasks.stopping());
//!             *locked(&self.tasks) = Some(tasks.clone());
//!             tasks.spawn("counting", async move {
//!                 let mut count = 0_u64;
//!                 loop {
//!                     tokio::select! {
//!                         () = tokio::time::sleep(every) => count += 1,
//!                         () = stopping.cancelled() => return std::io::Result::Ok(()),
//!                     }
//!                     std::fs::write(&*locked(&file), count.to_string())?;
//!                 }
//!             });
//!             Ok(())
//!         })
//!     }
//!
//!     // 6. How it is, asked every few seconds while it runs.
//!     fn health(&self) -> BoxFuture<'_, Vital> {
//!         Box::pin(async {
//!             match std::fs::metadata(&*locked(&self.file)) {
//!                 Ok(_) => Vital::Fine,
//!                 Err(error) => Vital::Failing(format!("the file is gone: {error}")),
//!             }
//!         })
//!     }
//!
//!     // 7. What it can do about it itself. A fault asks the board for a restart, which is what the default does.
//!     fn recover(&self) -> BoxFuture<'_, Result<(), Fault>> {
//!         Box::pin(async { std::fs::write(&*locked(&self.file), "0").map_err(fault) })
//!     }
//!
//!     // 8. Another file, without stopping: `component swap counter /tmp/other`.
//!     fn swap(&self, address: String) -> BoxFuture<'_, Result<String, Fault>> {
//!         Box::pin(async move {
//!             std::fs::write(&address, "0").map_err(fault)?;
//!             *locked(&self.file) = PathBuf::from(&address);
//!             Ok(format!("counting in {address} until the next boot"))
//!         })
//!     }
//!
//!     // 9. It finishes. Its tasks were told to wind down before this, and are awaited, and at the deadline cut, after it.
//!     fn stop(&self, _deadline: tokio::time::Instant) -> BoxFuture<'_, Result<(), Fault>> {
//!         Box::pin(async { Ok(()) })
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
//! use mobo_runtime::{clock::Clock, console::Console, motherboard::Motherboard};
//!
//! let folder = tempfile::tempdir().unwrap();
//! let file = folder.path().join("count");
//! let counter = Counter { file: Arc::new(Mutex::new(file.clone())), every: Mutex::default(), tasks: Mutex::default() };
//! let mut board = Motherboard::new("example 0.1.0", Clock::start().unwrap(), Console::plain(Box::new(std::io::sink())));
//! static ALL: &[&dyn Define] = &[&EVERY];
//! board.configured(Config::load(ALL, &Sources::default()).unwrap());
//! board.plug(counter);
//! let mut handle = board.handle();
//! let (reason, ()) = tokio::join!(board.run(), async {
//!     handle.until(|state| state == mobo_core::kernel::BoardState::Ready).await.unwrap();
//!     tokio::time::sleep(Duration::from_millis(3_500)).await;
//!     handle.stop();
//! });
//! assert_eq!((reason.code(), std::fs::read_to_string(file).unwrap().as_str()), (0, "3"));
//! # });
//! ```

use std::future::Future;
use std::pin::Pin;

use mobo_core::kernel::{Check, ComponentSpec, Fault, Vital};
use tokio::time::Instant;

use crate::config::Config;
use crate::tasks::Tasks;

/// A boxed future, so that [`Component`] can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A part of a node. The [module](self) has a whole one to copy.
///
/// The board calls [`configure`](Self::configure) and [`post`](Self::post) once, and then [`load`](Self::load), [`start`](Self::start)
/// and [`stop`](Self::stop) in this order, again and again as it restarts the part. It waits for one part at a time, beside the health
/// checks. Each call has a deadline (`mobo_core::kernel::Ask::timeout`); past it the future is dropped. A panic in a call is a fault of
/// this part alone.
pub trait Component: Send + Sync + 'static {
    /// Who this is and what it needs. Read once, before anything else.
    fn spec(&self) -> ComponentSpec;

    /// Takes its settings: before [`post`](Self::post), and again whenever some have changed while it runs. Quick; by default it has none.
    ///
    /// # Errors
    ///
    /// A [`Fault`] fails the self-test; later it is told, and the part goes on with what it had.
    fn configure(&self, config: &Config) -> Result<(), Fault> {
        let _ = config;
        Ok(())
    }

    /// Tests itself without changing anything: files, versions, ports, space. No check is a pass; use [`timed`] for a check that waits.
    fn post(&self) -> BoxFuture<'_, Vec<Check>>;

    /// Opens what the part owns: files, databases, sockets. It must not answer anybody yet. By default there is nothing to open.
    ///
    /// # Errors
    ///
    /// A [`Fault`] takes this part, and all that need it, off the board until it is tried again.
    fn load(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }

    /// Looks at what it has opened, when the node was not shut down cleanly: after the first [`load`](Self::load) and before
    /// [`start`](Self::start). A failed check takes the part off the board. By default there is nothing to look at.
    fn verify(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async { Vec::new() })
    }

    /// Goes to work and returns. What must go on is spawned on `tasks`.
    ///
    /// # Errors
    ///
    /// A [`Fault`] takes this part, and all that need it, off the board until it is tried again; tasks that were spawned are cut.
    fn start(&self, tasks: Tasks) -> BoxFuture<'_, Result<(), Fault>>;

    /// How the part is, asked in every interval while it works. It must be cheap, and must not hang: no answer in time counts as failing.
    /// By default a part is well as long as its tasks live.
    fn health(&self) -> BoxFuture<'_, Vital> {
        Box::pin(async { Vital::Fine })
    }

    /// Mends itself after it has counted as failed: what it does must end soon, and what it cannot do is waited for by saying `Ok`.
    ///
    /// # Errors
    ///
    /// A [`Fault`] asks for a restart, which is the default.
    fn recover(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Err(Fault::new("its health checks fail", "it is started again by itself; the log has more")) })
    }

    /// Replaces what fills its socket by what is at `address`, while it works: opens the new one first, and leaves the old one in place
    /// when that fails. Gives a sentence for the operator: what is so now, and for how long. By default a part says that it cannot.
    ///
    /// # Errors
    ///
    /// A [`Fault`] says why not, and what to do instead.
    fn swap(&self, address: String) -> BoxFuture<'_, Result<String, Fault>> {
        let _ = address;
        Box::pin(async { Err(Fault::new("it has no socket that can be swapped while it runs", "change its setting and restart the node")) })
    }

    /// Where it answers, for `component list`; read after each start and swap. Nowhere by default.
    fn listens(&self) -> Vec<String> {
        Vec::new()
    }

    /// Finishes and closes. Called for every part that was loaded, also when it never started, after its tasks were told to wind down
    /// ([`Tasks::stopping`]); the board then waits for them until `deadline`.
    ///
    /// # Errors
    ///
    /// A [`Fault`] makes the stop unclean, which the exit code shows.
    fn stop(&self, deadline: Instant) -> BoxFuture<'_, Result<(), Fault>>;
}

/// The check that `look` gives, with the time that it took.
pub async fn timed(look: impl Future<Output = Check>) -> Check {
    let began = Instant::now();
    look.await.taking(began.elapsed())
}
