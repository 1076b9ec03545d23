//! Reads the layers, weakest first, so that a later one wins.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mobo_core::limits;
use toml::Value;

use super::kinds::TomlForm;
use super::setting::{Define, Secrecy};
use super::show::file_variable;
use super::{Origin, Problem, Sourced, Sources};
use crate::data_dir::read_text;
use crate::secrets;

const ENV_PREFIX: &str = "MOBO_";
const ENV_NEST: &str = "__";
const FILE_SUFFIX: &str = "_file";

pub(super) type Values = BTreeMap<&'static str, Sourced>;

/// The winning texts, and everything that is wrong in any layer.
pub(super) fn merge(settings: &[&'static dyn Define], sources: &Sources) -> (Values, Vec<Problem>) {
    let mut merge = Merge { settings, values: Values::new(), problems: Vec::new() };
    merge.etc(sources.etc_dir.as_deref());
    match (&sources.file, &sources.data_dir) {
        (Some(file), _) => merge.file(file, Presence::Required),
        (None, Some(folder)) => merge.file(&folder.join("mobo.toml"), Presence::Optional),
        (None, None) => {}
    }
    merge.sealed(sources.sealed.as_ref());
    merge.credentials(sources.credentials.as_deref());
    let mut env = sources.env.clone();
    env.sort();
    env.iter().for_each(|(name, value)| merge.env(name, value));
    sources.flags.iter().for_each(|flag| merge.flag(flag));
    (merge.values, merge.problems)
}

struct Merge<'a> {
    settings: &'a [&'static dyn Define],
    values: Values,
    problems: Vec<Problem>,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Presence {
    Required,
    Optional,
}

impl Merge<'_> {
    fn etc(&mut self, folder: Option<&Path>) {
        let Some(folder) = folder else { return };
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.problem(&Origin::File(folder.to_owned()), format!("cannot be read ({error})")),
        };
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        files.sort();
        files.iter().for_each(|file| self.file(file, Presence::Optional));
    }

    fn file(&mut self, path: &Path, presence: Presence) {
        let origin = Origin::File(path.to_owned());
        let text = match read_text(path, limits::CONFIG_FILE_BYTES_MAX) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && presence == Presence::Optional => return,
            Err(error) => return self.problem(&origin, format!("cannot be read ({error})")),
        };
        match text.parse::<toml::Table>() {
            Ok(table) => self.table("", table, &origin),
            Err(error) => {
                let line = error.span().and_then(|span| text.get(..span.start)).map_or(0, |before| before.matches('\n').count()) + 1;
                self.problem(&origin, format!("line {line} is not TOML: {}", error.message()));
            }
        }
    }

    fn sealed(&mut self, place: Option<&secrets::Place>) {
        let Some(place) = place else { return };
        let origin = Origin::Sealed(place.file.clone());
        match secrets::read(place) {
            Ok(secrets) => self.table("", secrets, &origin),
            Err(error) => self.problem(&origin, error.to_string()),
        }
    }

    /// Files that a service manager keeps for this unit, each named after its setting.
    fn credentials(&mut self, folder: Option<&Path>) {
        let Some(folder) = folder else { return };
        for setting in self.settings.iter().filter(|setting| setting.definition().secrecy != Secrecy::Open) {
            let path = folder.join(setting.definition().key);
            match read_secret(&path) {
                Ok(text) => self.set(*setting, text, &Origin::Credential(path)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.problem(&Origin::Credential(path), format!("cannot be read ({error})")),
            }
        }
    }

    fn table(&mut self, prefix: &str, table: toml::Table, origin: &Origin) {
        for (name, value) in table {
            let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            match (self.find(&key), value) {
                (None, Value::Table(inner)) => self.table(&key, inner, origin),
                (None, _) => self.unknown(&key, origin),
                (Some(setting), value) => match text_of(setting.form(), value) {
                    Ok(text) => self.set(setting, text, origin),
                    Err(fault) => self.problem(origin, format!("{key} {fault}")),
                },
            }
        }
    }

    fn env(&mut self, name: &str, value: &str) {
        let Some(rest) = name.strip_prefix(ENV_PREFIX).filter(|rest| rest.contains(ENV_NEST)) else { return };
        let key = rest.to_ascii_lowercase().replace(ENV_NEST, ".");
        let origin = Origin::Env(name.to_owned());
        if let Some(setting) = self.find(&key) {
            return self.set(setting, value.to_owned(), &origin);
        }
        let secret = |setting: &&'static dyn Define| setting.definition().secrecy != Secrecy::Open;
        match key.strip_suffix(FILE_SUFFIX).and_then(|key| self.find(key)).filter(secret) {
            Some(setting) => match read_secret(Path::new(value)) {
                Ok(text) => self.set(setting, text, &origin),
                Err(error) => self.problem(&origin, format!("the file {value} cannot be read ({error})")),
            },
            None => self.unknown(&key, &origin),
        }
    }

    fn flag(&mut self, flag: &str) {
        let Some((key, value)) = flag.split_once('=') else {
            return self.problem(&Origin::Flag, format!("{flag:?} is not key=value"));
        };
        let key = key.trim();
        match self.find(key) {
            Some(setting) if setting.definition().secrecy.masked(value) != value => {
                let what = if setting.definition().secrecy == Secrecy::Url { "has a password in it" } else { "is a secret" };
                let advice = format!("put it into a file and name that in {}", file_variable(key));
                self.problem(&Origin::Flag, format!("{key} {what}, and every user of this machine can read a command line: {advice}"));
            }
            Some(setting) => self.set(setting, value.to_owned(), &Origin::Flag),
            None => self.unknown(key, &Origin::Flag),
        }
    }

    fn find(&self, key: &str) -> Option<&'static dyn Define> {
        self.settings.iter().find(|setting| setting.definition().key == key).copied()
    }

    fn set(&mut self, setting: &'static dyn Define, text: String, origin: &Origin) {
        let definition = setting.definition();
        if let Some(fault) = setting.fault(&text) {
            return self.problem(origin, definition.complaint(&text, &fault));
        }
        self.values.insert(definition.key, Sourced { text, origin: origin.clone() });
    }

    fn unknown(&mut self, key: &str, origin: &Origin) {
        let distance = |setting: &&'static dyn Define| distance(key, setting.definition().key);
        let near = self.settings.iter().min_by_key(|setting| distance(setting));
        let near = near.filter(|setting| distance(setting) <= 2 + key.len() / 6);
        let advice = match near {
            Some(setting) => format!("did you mean {}?", setting.definition().key),
            None => "`config example` lists all there are".to_owned(),
        };
        self.problem(origin, format!("there is no setting {key}: {advice}"));
    }

    fn problem(&mut self, origin: &Origin, sentence: String) {
        self.problems.push(Problem { origin: origin.clone(), sentence });
    }
}

/// A secret in a file of its own; the line feed that editors put at its end is not part of it.
fn read_secret(path: &Path) -> io::Result<String> {
    let text = read_text(path, limits::CONFIG_FILE_BYTES_MAX)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// A TOML value as the text that every other layer would give.
fn text_of(form: TomlForm, value: Value) -> Result<String, String> {
    let want = match (form, value) {
        (TomlForm::Quoted | TomlForm::QuotedOrNumber, Value::String(text)) => return Ok(text),
        (TomlForm::Number | TomlForm::QuotedOrNumber, Value::Integer(number)) => return Ok(number.to_string()),
        (TomlForm::Boolean, Value::Boolean(flag)) => return Ok(flag.to_string()),
        (TomlForm::Quoted, _) => "a text: write it in quotes",
        (TomlForm::QuotedOrNumber, _) => "a size: write it in quotes with its unit, or as a number of bytes",
        (TomlForm::Number, _) => "a whole number: write it without quotes",
        (TomlForm::Boolean, _) => "true or false: write it without quotes",
    };
    Err(format!("takes {want}"))
}

/// How many letters must be put in, taken out or changed to make one text of the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, letter) in one.chars().enumerate() {
        let mut next = vec![line + 1];
        let mut left = line + 1;
        for ((above, diagonal), target) in row.iter().skip(1).zip(&row).zip(&other) {
            left = (diagonal + usize::from(letter != *target)).min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}
