//! What a setting is.

use std::fmt;
use std::marker::PhantomData;

use super::kinds::{Kind, TomlForm};

/// The one definition of a setting: a `static`, named where it is used, listed once for each node.
pub struct Setting<T> {
    definition: Definition,
    kind: PhantomData<fn() -> T>,
}

/// What there is to know of a setting but its type.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// `section.name`, in lower case.
    pub key: &'static str,
    /// What it does, as a sentence or two.
    pub doc: &'static str,
    /// The value when no layer gives one, as text; empty for "none".
    pub default: &'static str,
    /// The version that brought it.
    pub since: &'static str,
    /// Smallest and largest value; absent when any will do.
    pub range: Option<(&'static str, &'static str)>,
    /// The only values; empty when others will do.
    pub choices: &'static [&'static str],
    /// Says what a part of the node will refuse of a value that its type takes, as [`Define::fault`] does; absent when nothing. It keeps no
    /// node from starting: an optional part is out then, and the rest runs.
    pub check: Option<fn(&str) -> Option<String>>,
    /// What of it may be shown.
    pub secrecy: Secrecy,
    /// When a change of it takes effect.
    pub heat: Heat,
}

impl Definition {
    /// What is wrong with a value, as a sentence that shows no secret.
    pub(super) fn complaint(&self, text: &str, fault: &str) -> String {
        let value = if self.secrecy == Secrecy::Open { format!("{text:?}") } else { "its value".to_owned() };
        format!("{}: {value} is {fault}", self.key)
    }
}

/// When a changed value takes effect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Heat {
    /// At the next boot: somebody holds what was made of it.
    Cold,
    /// At once: it is read wherever it is used.
    Hot,
}

/// What of a value may be shown, logged or given on a command line, which every user of a machine can read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Secrecy {
    /// All of it.
    Open,
    /// All but the password of a URL.
    Url,
    /// Nothing.
    Secret,
}

impl Secrecy {
    /// The value as it may be shown.
    #[must_use]
    pub fn masked(self, text: &str) -> String {
        match self {
            Self::Open => text.to_owned(),
            Self::Secret if text.is_empty() => String::new(),
            Self::Secret => "***".to_owned(),
            Self::Url => mask_parameters(&mask_userinfo(text)),
        }
    }
}

/// `scheme://user:password@host` without the password; the last `@` ends it, so that no unescaped character makes it leak.
fn mask_userinfo(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let Some(at) = rest.rfind('@') else { return text.to_owned() };
    let (secret, host) = rest.split_at(at);
    match secret.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:***{host}"),
        None if at < end => text.to_owned(),
        None => format!("{scheme}://***{host}"),
    }
}

/// `…password=secret…` without the secret, as in a URL's query and in a list of `key=value`.
fn mask_parameters(text: &str) -> String {
    let mut masked = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("password=") {
        let end = after.find(|c: char| c == '&' || c.is_whitespace()).unwrap_or(after.len());
        masked.push_str(before);
        masked.push_str("password=***");
        rest = after.get(end..).unwrap_or_default();
    }
    masked + rest
}

impl<T: Kind> Setting<T> {
    /// A setting that takes any value of its type.
    #[must_use]
    pub const fn new(key: &'static str, default: &'static str, since: &'static str, doc: &'static str) -> Self {
        let (range, choices, check, secrecy, heat) = (None, &[], None, Secrecy::Open, Heat::Cold);
        let definition = Definition { key, doc, default, since, range, choices, check, secrecy, heat };
        Self { definition, kind: PhantomData }
    }

    /// The same, from `min` to `max`, written as the value is.
    #[must_use]
    pub const fn within(mut self, min: &'static str, max: &'static str) -> Self {
        self.definition.range = Some((min, max));
        self
    }

    /// The same, one of these.
    #[must_use]
    pub const fn one_of(mut self, choices: &'static [&'static str]) -> Self {
        self.definition.choices = choices;
        self
    }

    /// The same, of which `config check` says what a part of the node will refuse.
    #[must_use]
    pub const fn checked(mut self, check: fn(&str) -> Option<String>) -> Self {
        self.definition.check = Some(check);
        self
    }

    /// The same, read anew wherever it is used: a running node takes a change.
    #[must_use]
    pub const fn hot(mut self) -> Self {
        self.definition.heat = Heat::Hot;
        self
    }

    /// The same, shown to nobody.
    #[must_use]
    pub const fn secret(mut self) -> Self {
        self.definition.secrecy = Secrecy::Secret;
        self
    }

    /// The same, a URL that may hold a password.
    #[must_use]
    pub const fn url(mut self) -> Self {
        self.definition.secrecy = Secrecy::Url;
        self
    }
}

impl<T> fmt::Debug for Setting<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.definition.fmt(f)
    }
}

/// A setting of any type, as lists hold it.
pub trait Define: fmt::Debug + Sync {
    /// What there is to know of it but its type.
    fn definition(&self) -> &Definition;

    /// What is wrong with a text as a value of it; `None` when nothing is. Begins after "… is".
    fn fault(&self, text: &str) -> Option<String>;

    /// How it is written in TOML.
    fn form(&self) -> TomlForm;

    /// What is wrong with the definition itself; `None` when nothing is. A node tests its list with it.
    fn sound(&self) -> Option<String>;
}

impl<T: Kind> Define for Setting<T> {
    fn definition(&self) -> &Definition {
        &self.definition
    }

    fn fault(&self, text: &str) -> Option<String> {
        let Definition { range, choices, .. } = self.definition;
        let Some(value) = T::parse(text) else { return Some(format!("not {}", T::EXPECTED)) };
        if !choices.is_empty() && !choices.contains(&text) {
            return Some(format!("none of {}", choices.join(", ")));
        }
        let (min, max) = range?;
        let outside = T::parse(min).is_some_and(|min| value < min) || T::parse(max).is_some_and(|max| value > max);
        (outside && !text.is_empty()).then(|| format!("not from {min} to {max}"))
    }

    fn form(&self) -> TomlForm {
        T::FORM
    }

    fn sound(&self) -> Option<String> {
        let Definition { key, default, range, doc, .. } = self.definition;
        let word = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !key.contains('.') || !key.split('.').all(word) || key.contains("__") {
            return Some(format!("{key}: a key is section.name in a-z 0-9 _"));
        }
        if doc.is_empty() {
            return Some(format!("{key}: it has no doc"));
        }
        let (min, max) = range.unwrap_or((default, default));
        let fault = [default, min, max].into_iter().find_map(|text| self.fault(text));
        fault.map(|fault| format!("{key}: its default or range is {fault}"))
    }
}
