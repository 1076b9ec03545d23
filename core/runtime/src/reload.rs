//! The part that reads the settings again: on SIGHUP, and when a file of theirs changes.
//!
//! Settings that are hot take their new values at once, for everybody who holds the [`Config`]; cold ones keep the values of the boot, and
//! the log names them. A mistake in any layer changes nothing at all: the node goes on with what it has.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mobo_core::kernel::{Check, ComponentName, ComponentSpec, Fault, topics};
use mobo_core::limits;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::component::{BoxFuture, Component};
use crate::config::{Config, Problems, Reloaded};
use crate::folder_watch::FolderWatch;
use crate::motherboard::BoardHandle;
use crate::notify::Notifier;
use crate::secrets;
use crate::tasks::Tasks;
use crate::telemetry;

/// The part. It is optional: without it a change of the settings waits for the next boot.
pub struct Reloader {
    config: Config,
    notifier: Arc<Notifier>,
    heard: Arc<dyn Fn(&Outcome) + Send + Sync>,
}

/// What a reload came to.
pub type Outcome = Result<Reloaded, Problems>;

impl Reloader {
    /// Its name on the board.
    pub const NAME: ComponentName = ComponentName::fixed("config");

    /// A part that reloads these settings.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self { config: config.clone(), notifier: Arc::new(Notifier::from_env()), heard: Arc::new(|_| {}) }
    }

    /// The same; `heard` is told what each reload came to, after it has taken effect. It must not block.
    #[must_use]
    pub fn telling(mut self, heard: impl Fn(&Outcome) + Send + Sync + 'static) -> Self {
        self.heard = Arc::new(heard);
        self
    }
}

/// Tells a board what reloads come to: its bus, and its parts when settings of theirs have new values.
pub fn reload_teller(board: BoardHandle) -> impl Fn(&Outcome) + Send + Sync + 'static {
    move |outcome| match outcome {
        Ok(reloaded) => {
            let waiting: Vec<&str> = reloaded.refused.iter().map(|change| change.key).collect();
            board.tell(topics::reloaded(reloaded.taken.len() as u64, &waiting.join(", "), None));
            if !reloaded.taken.is_empty() {
                board.settings_changed();
            }
        }
        Err(problems) => board.tell(topics::reloaded(0, "", Some(problems.to_string()))),
    }
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader").finish_non_exhaustive()
    }
}

impl Component for Reloader {
    fn spec(&self) -> ComponentSpec {
        ComponentSpec::optional(Self::NAME, env!("CARGO_PKG_VERSION"))
    }

    fn post(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async {
            let given = self.config.show().iter().filter(|shown| shown.origin != crate::config::Origin::Default).count();
            vec![Check::pass("settings", format!("all are well, {given} of them not at their defaults"))]
        })
    }

    fn start(&self, tasks: Tasks) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let hangups = signal(SignalKind::hangup());
            let hangups =
                hangups.map_err(|error| Fault::new(format!("SIGHUP cannot be watched: {error}"), "raise the limit on open files"))?;
            let watch = match FolderWatch::start(&self.config.sources().folders()) {
                Ok(watch) => Some(watch),
                Err(error) => {
                    tracing::warn!(%error, "the files of the settings are not watched: send SIGHUP after a change");
                    None
                }
            };
            let (config, notifier, heard, stopping) = (self.config.clone(), self.notifier.clone(), self.heard.clone(), tasks.stopping());
            let named = config.sources().file.clone();
            let service = Service { config, notifier, heard, named };
            tasks.spawn("config.reload", service.run(hangups, watch, stopping));
            Ok(())
        })
    }

    fn stop(&self, _: tokio::time::Instant) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
}

struct Service {
    config: Config,
    notifier: Arc<Notifier>,
    heard: Arc<dyn Fn(&Outcome) + Send + Sync>,
    /// What `--config` named.
    named: Option<PathBuf>,
}

impl Service {
    async fn run(self, mut hangups: tokio::signal::unix::Signal, mut watch: Option<FolderWatch>, stopping: CancellationToken) {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                Some(()) = hangups.recv() => self.reload("SIGHUP").await,
                () = self.changed(watch.as_mut()) => {
                    self.settle(watch.as_mut()).await;
                    self.reload("a file changed").await;
                }
            }
        }
    }

    /// Waits for a change of a file that may hold settings; for ever when nothing is watched.
    async fn changed(&self, watch: Option<&mut FolderWatch>) {
        let Some(watch) = watch else { return std::future::pending().await };
        loop {
            if watch.next().await.iter().any(|name| self.concerns(name)) {
                return;
            }
        }
    }

    /// Waits until the files stay as they are for a while.
    async fn settle(&self, mut watch: Option<&mut FolderWatch>) {
        while tokio::time::timeout(limits::CONFIG_SETTLE, self.changed(watch.as_deref_mut())).await.is_ok() {}
    }

    /// Whether a file of this name may hold settings. `..data` is the link by which Kubernetes exchanges a whole folder.
    fn concerns(&self, name: &Path) -> bool {
        let is_named = self.named.as_deref().and_then(Path::file_name).is_some_and(|named| name.as_os_str() == named);
        is_named
            || name.extension().is_some_and(|extension| extension == "toml")
            || [secrets::FILE, secrets::KEY, "..data"].iter().any(|known| name == Path::new(known))
            || self.config.sources().credentials.is_some() && self.config.show().iter().any(|shown| name == Path::new(shown.key))
    }

    async fn reload(&self, why: &str) {
        self.notifier.reloading();
        let config = self.config.clone();
        let outcome = match tokio::task::spawn_blocking(move || config.reload()).await {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::error!(%error, "the settings could not be read again");
                return self.notifier.ready();
            }
        };
        match &outcome {
            Ok(reloaded) => {
                telemetry::adjust(&self.config);
                let taken: Vec<String> = reloaded.taken.iter().map(ToString::to_string).collect();
                tracing::info!(why, ?taken, "the settings were read again");
                for change in &reloaded.refused {
                    tracing::warn!(
                        setting = change.key,
                        running = change.from,
                        wanted = change.to,
                        "this setting takes effect at the next boot only"
                    );
                }
            }
            Err(problems) => tracing::error!(why, %problems, "the settings were read again and are not right: nothing was changed"),
        }
        (self.heard)(&outcome);
        self.notifier.ready();
    }
}

#[cfg(test)]
mod tests;
