//! How settings are shown, and the commented example of all of them.

use super::Origin;
use super::kinds::TomlForm;
use super::setting::{Define, Definition, Heat, Secrecy};

/// One line of `config show`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shown {
    /// The setting.
    pub key: &'static str,
    /// Its value as text, a secret as `***`.
    pub value: String,
    /// Where the value comes from.
    pub origin: Origin,
}

/// A TOML file of all settings with their docs, every value commented out at its default.
#[must_use]
pub fn example(settings: &[&'static dyn Define]) -> String {
    let mut text = String::from("# Every setting with its default. Take the # off a line to change it.\n");
    let mut sections: Vec<&str> = Vec::new();
    for setting in settings {
        let section = split(setting).0;
        if !sections.contains(&section) {
            sections.push(section);
        }
    }
    for section in sections {
        text.push_str(&format!("\n[{section}]\n"));
        for setting in settings.iter().filter(|setting| split(setting).0 == section) {
            text.push_str(&entry(*setting));
        }
    }
    text
}

/// The environment variable that names a file with the value of a secret.
pub(super) fn file_variable(key: &str) -> String {
    format!("MOBO_{}_FILE", key.to_ascii_uppercase().replace('.', "__"))
}

fn split(setting: &&'static dyn Define) -> (&'static str, &'static str) {
    let key = setting.definition().key;
    key.rsplit_once('.').unwrap_or(("", key))
}

fn entry(setting: &'static dyn Define) -> String {
    let Definition { doc, default, since, range, choices, secrecy, heat, key, .. } = setting.definition();
    let mut notes = Vec::new();
    if !choices.is_empty() {
        notes.push(format!("One of {}.", choices.join(", ")));
    }
    if let Some((min, max)) = range {
        notes.push(format!("From {min} to {max}."));
    }
    if *secrecy != Secrecy::Open {
        notes.push(format!("Keep its secret out of here: `config seal {key}`, or a file that {} names.", file_variable(key)));
    }
    if *heat == Heat::Hot {
        notes.push("A running node takes a change at once.".to_owned());
    }
    notes.push(format!("Since {since}."));
    let bare = matches!(setting.form(), TomlForm::Number | TomlForm::Boolean) && !default.is_empty();
    let value = if bare { (*default).to_owned() } else { toml::Value::String((*default).to_owned()).to_string() };
    format!("# {doc}\n# {}\n# {} = {value}\n", notes.join(" "), split(&setting).1)
}
