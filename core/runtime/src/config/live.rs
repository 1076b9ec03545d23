//! Settings of a running node: what changed in the layers since they were read, and what of it takes effect.

use std::fmt;
use std::sync::PoisonError;

use super::layers::{self, Values};
use super::setting::{Define, Heat};
use super::{Config, Problems};

/// One setting whose value in the layers is not the one in force.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// The setting.
    pub key: &'static str,
    /// The value in force until now, as it may be shown.
    pub from: String,
    /// The value in the layers, as it may be shown.
    pub to: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {:?} to {:?}", self.key, self.from, self.to)
    }
}

/// What a reload did, or would do.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reloaded {
    /// Hot settings that have their new value.
    pub taken: Vec<Change>,
    /// Cold settings that keep the value of the boot until the next one.
    pub refused: Vec<Change>,
}

impl Config {
    /// Reads all layers again. Hot settings change for everybody who holds this; cold ones stay and are named.
    ///
    /// # Errors
    ///
    /// [`Problems`] when anything is wrong in any layer; nothing has changed then.
    pub fn reload(&self) -> Result<Reloaded, Problems> {
        let fresh = self.fresh()?;
        let mut values = self.0.values.write().unwrap_or_else(PoisonError::into_inner);
        let reloaded = compare(&self.0.settings, &values, &fresh);
        for setting in &self.0.settings {
            let key = setting.definition().key;
            let is_refused = reloaded.refused.iter().any(|change| change.key == key);
            match fresh.get(key) {
                _ if is_refused => {}
                Some(value) => {
                    values.insert(key, value.clone());
                }
                None => {
                    values.remove(key);
                }
            }
        }
        Ok(reloaded)
    }

    /// What [`reload`](Self::reload) would do now.
    ///
    /// # Errors
    ///
    /// As for it.
    pub fn pending(&self) -> Result<Reloaded, Problems> {
        let fresh = self.fresh()?;
        Ok(compare(&self.0.settings, &self.values(), &fresh))
    }

    fn fresh(&self) -> Result<Values, Problems> {
        let (values, problems) = layers::merge(&self.0.settings, &self.0.sources);
        if problems.is_empty() { Ok(values) } else { Err(Problems(problems)) }
    }
}

fn compare(settings: &[&'static dyn Define], before: &Values, after: &Values) -> Reloaded {
    let mut reloaded = Reloaded::default();
    for setting in settings {
        let definition = setting.definition();
        let text = |values: &Values| values.get(definition.key).map_or(definition.default, |value| value.text.as_str()).to_owned();
        let (old, new) = (text(before), text(after));
        if old == new {
            continue;
        }
        let (from, to) = (definition.secrecy.masked(&old), definition.secrecy.masked(&new));
        let change = Change { key: definition.key, from, to };
        match definition.heat {
            Heat::Hot => reloaded.taken.push(change),
            Heat::Cold => reloaded.refused.push(change),
        }
    }
    reloaded
}
