//! Settings: one definition each, five layers, every problem reported at once.
//!
//! A node passes the list of its [`Setting`]s and the [`Sources`] of this process to [`Config::load`]. From strongest to weakest:
//!
//! 1. `--set key=value`; never a secret, because every user of a machine can read a command line;
//! 2. the environment: `MOBO_SECTION__KEY`, and for what is secret `MOBO_SECTION__KEY_FILE`, which names a file with the value;
//! 3. credentials of the service manager, `$CREDENTIALS_DIRECTORY/section.key`, for what is secret;
//! 4. `DIR/secrets.sealed`, an encrypted file ([`crate::secrets`]);
//! 5. `--config FILE`, or else `DIR/mobo.toml`;
//! 6. `/etc/mobo/*.toml` (later names win);
//! 7. defaults.
//!
//! Parsing has two stages: layers give texts, settings give types. A value that a stronger layer covers is checked all the same, so
//! that a mistake does not wait for the day the cover goes. Environment names without `__` are not settings and are left alone.
//!
//! A running node reads its layers again ([`Config::reload`]): settings that are hot change for all who hold the [`Config`], cold ones
//! stay as they were at boot and are named.

mod kinds;
mod layers;
mod live;
mod setting;
mod show;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use layers::Values;

use crate::secrets;

pub use kinds::{ByteSize, Kind, TomlForm, listed};
pub use live::{Change, Reloaded};
pub use setting::{Define, Definition, Heat, Secrecy, Setting};
pub use show::{Shown, example};

/// Where settings come from.
#[derive(Clone, Default)]
pub struct Sources {
    /// What `--set` said: `key=value`, in the order given; the last one wins.
    pub flags: Vec<String>,
    /// The environment.
    pub env: Vec<(String, String)>,
    /// What `--config` said. It must exist.
    pub file: Option<PathBuf>,
    /// The data folder; its `mobo.toml` counts when `file` is absent, and need not exist.
    pub data_dir: Option<PathBuf>,
    /// The machine's folder of `*.toml`; need not exist.
    pub etc_dir: Option<PathBuf>,
    /// The folder of a service manager's credentials.
    pub credentials: Option<PathBuf>,
    /// The encrypted file; need not exist.
    pub sealed: Option<secrets::Place>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Flags and the environment may hold secrets.
        f.debug_struct("Sources").field("file", &self.file).field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

impl Sources {
    /// The sources of this process: its environment, `/etc/mobo`, and what the command line said.
    #[must_use]
    pub fn of_process(flags: Vec<String>, file: Option<PathBuf>, data_dir: &Path) -> Self {
        // A name or value that is not text cannot be a setting of ours.
        let texts = |(name, value): (std::ffi::OsString, std::ffi::OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        Self {
            flags,
            env: std::env::vars_os().filter_map(texts).collect(),
            file,
            data_dir: Some(data_dir.to_owned()),
            etc_dir: Some(PathBuf::from("/etc/mobo")),
            sealed: Some(secrets::Place::of_process(data_dir, credentials.as_deref())),
            credentials,
        }
    }

    /// The folders in which files of these sources are, or may come to be.
    #[must_use]
    pub fn folders(&self) -> Vec<PathBuf> {
        let parent = |path: &Path| path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
        let mut folders: Vec<PathBuf> = self.etc_dir.iter().chain(&self.data_dir).chain(&self.credentials).cloned().collect();
        folders.extend(self.file.as_deref().map(parent));
        folders.extend(self.sealed.iter().map(|place| parent(&place.file)));
        folders.sort();
        folders.dedup();
        folders
    }
}

/// The settings of a process. Every value in it was checked. Clones are the same settings, also after a reload.
#[derive(Clone, Debug)]
pub struct Config(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: Vec<&'static dyn Define>,
    sources: Sources,
    values: RwLock<Values>,
}

/// A text and the layer that it came from.
#[derive(Clone)]
struct Sourced {
    text: String,
    origin: Origin,
}

impl fmt::Debug for Sourced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The text may be a secret.
        write!(f, "from {}", self.origin)
    }
}

impl Config {
    /// Reads all layers.
    ///
    /// # Errors
    ///
    /// [`Problems`] holds everything that is wrong in any layer; a process that gets it exits with code 2 and has started nothing.
    pub fn load(settings: impl IntoIterator<Item = &'static &'static dyn Define>, sources: &Sources) -> Result<Self, Problems> {
        let settings: Vec<&'static dyn Define> = settings.into_iter().copied().collect();
        let (values, problems) = layers::merge(&settings, sources);
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        Ok(Self(Arc::new(Shared { settings, sources: sources.clone(), values: RwLock::new(values) })))
    }

    /// The value of a setting now; its default when no layer gives one, or when it is not in the list that was loaded.
    ///
    /// # Panics
    ///
    /// When the definition's own default is not of its kind, which [`Define::sound`] shows in a test.
    #[must_use]
    pub fn get<T: Kind>(&self, setting: &Setting<T>) -> T {
        let definition = setting.definition();
        let values = self.values();
        let text = values.get(definition.key).map_or(definition.default, |value| value.text.as_str());
        T::parse(text).expect("BUG: a loaded value was checked, and a default is sound")
    }

    /// What parts of a node will refuse of these settings, though each is of its kind.
    ///
    /// # Errors
    ///
    /// [`Problems`] with all of it.
    pub fn check(&self) -> Result<(), Problems> {
        let values = self.values();
        let problem = |setting: &&'static dyn Define| {
            let definition = setting.definition();
            let Sourced { text, origin } = values.get(definition.key)?;
            let fault = definition.check?(text)?;
            Some(Problem { origin: origin.clone(), sentence: definition.complaint(text, &fault) })
        };
        let problems: Vec<Problem> = self.0.settings.iter().filter_map(problem).collect();
        if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
    }

    /// Where the value of a setting comes from.
    #[must_use]
    pub fn origin(&self, key: &str) -> Origin {
        self.values().get(key).map_or(Origin::Default, |value| value.origin.clone())
    }

    /// Where these settings come from.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        &self.0.sources
    }

    /// Every setting as `config show` prints it, in the order of the list, secrets hidden.
    #[must_use]
    pub fn show(&self) -> Vec<Shown> {
        let values = self.values();
        let shown = |setting: &&'static dyn Define| {
            let definition = setting.definition();
            let value = values.get(definition.key);
            let text = value.map_or(definition.default, |value| &value.text);
            let origin = value.map_or(Origin::Default, |value| value.origin.clone());
            Shown { key: definition.key, value: definition.secrecy.masked(text), origin }
        };
        self.0.settings.iter().map(shown).collect()
    }

    fn values(&self) -> std::sync::RwLockReadGuard<'_, Values> {
        self.0.values.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The layer that a value came from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    /// The definition.
    Default,
    /// A file.
    File(PathBuf),
    /// The encrypted file.
    Sealed(PathBuf),
    /// A service manager's credential.
    Credential(PathBuf),
    /// An environment variable, by name.
    Env(String),
    /// `--set`.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) | Self::Sealed(path) => write!(f, "{}", path.display()),
            Self::Credential(path) => write!(f, "credential {}", path.display()),
            Self::Env(name) => write!(f, "env {name}"),
            Self::Flag => f.write_str("--set"),
        }
    }
}

/// One thing that is wrong with the settings.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// What, and what to do about it.
    pub sentence: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.sentence)
    }
}

/// Everything that is wrong with the settings, weakest layer first.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "{count} problem{} in the settings", if count == 1 { "" } else { "s" })?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

#[cfg(test)]
mod tests;
