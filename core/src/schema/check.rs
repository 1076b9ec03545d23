//! What a collection must be before it is made: names, types, limits, rules.

use super::{Collection, FieldType, Kind};
use crate::limits;

/// Why a collection cannot be made as asked; each says what would do.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SchemaError {
    /// A name that cannot be a table or column.
    #[error("\"{name}\" cannot be a name: use 1 to {max} of a-z, 0-9 and _, starting with a letter, and not with mobo or sqlite_", max = limits::NAME_BYTES_MAX)]
    BadName {
        /// The name.
        name: String,
    },
    /// `id` is every record's key already; `at` and `device` are every sample's.
    #[error("field \"{name}\" is reserved: every record has it already")]
    Reserved {
        /// The name.
        name: String,
    },
    /// A name that a database has given to a column of its own in every table.
    #[error("field \"{name}\" cannot be a column: Postgres has one of that name in every table; name it otherwise, such as {name}_no")]
    SystemColumn {
        /// The name.
        name: String,
    },
    /// Declared twice.
    #[error("field \"{name}\" is declared twice")]
    DuplicateField {
        /// The name.
        name: String,
    },
    /// There is no field of that name, or it is retired.
    #[error("there is no field \"{name}\"{}", near.as_ref().map(|near| format!("; perhaps you meant \"{near}\"")).unwrap_or_default())]
    NoField {
        /// What was written.
        name: String,
        /// A field with a similar name.
        near: Option<String>,
    },
    /// A type that does not exist.
    #[error("\"{name}\" is not a type; the types are text, int, float, bool, timestamp, json, bytes, counter, and list in documents")]
    UnknownType {
        /// What was written.
        name: String,
    },
    /// A type that this kind does not have.
    #[error("a {kind} has no {field_type} fields; {instead}")]
    TypeNotInKind {
        /// The kind.
        kind: &'static str,
        /// The type.
        field_type: &'static str,
        /// What to use.
        instead: &'static str,
    },
    /// More than the limit.
    #[error("{what}: at most {max}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// A bucket template that names no field of the collection, or is not a template.
    #[error("bucket rule \"{rule}\" is not a template over this collection's text, int or bool fields, such as site:{{site}}")]
    BadRule {
        /// The rule.
        rule: String,
    },
}

/// Checks a collection before it is made: names, types, limits, rules.
///
/// # Errors
///
/// The first [`SchemaError`] found.
pub fn check_collection(collection: &Collection) -> Result<(), SchemaError> {
    check_name(&collection.name)?;
    if collection.fields.len() > limits::FIELDS_PER_COLLECTION_MAX {
        return Err(SchemaError::TooMany { what: "fields of a collection", max: limits::FIELDS_PER_COLLECTION_MAX });
    }
    for (index, field) in collection.fields.iter().enumerate() {
        check_name(&field.name)?;
        if matches!((collection.kind, field.name.as_str()), (_, "id") | (Kind::Stream, "at" | "device")) {
            return Err(SchemaError::Reserved { name: field.name.clone() });
        }
        if SYSTEM_COLUMNS.contains(&field.name.as_str()) {
            return Err(SchemaError::SystemColumn { name: field.name.clone() });
        }
        if collection.fields.iter().take(index).any(|other| other.name == field.name) {
            return Err(SchemaError::DuplicateField { name: field.name.clone() });
        }
        check_type(collection.kind, field.kind)?;
    }
    if collection.rules.len() > limits::BUCKET_RULES_MAX {
        return Err(SchemaError::TooMany { what: "bucket rules of a collection", max: limits::BUCKET_RULES_MAX });
    }
    collection.rules.iter().try_for_each(|rule| crate::buckets::check_template(rule, collection))
}

/// What Postgres has in every table, or had. On SQLite they would do, but a project moves from one store to the other.
const SYSTEM_COLUMNS: [&str; 7] = ["tableoid", "oid", "ctid", "xmin", "xmax", "cmin", "cmax"];

fn check_name(name: &str) -> Result<(), SchemaError> {
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    let starts = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if plain && starts && name.len() <= limits::NAME_BYTES_MAX && !name.starts_with("mobo") && !name.starts_with("sqlite_") {
        return Ok(());
    }
    Err(SchemaError::BadName { name: name.to_owned() })
}

fn check_type(kind: Kind, field: FieldType) -> Result<(), SchemaError> {
    let instead = match (kind, field) {
        (Kind::Table | Kind::Stream, FieldType::List) => "use json, or make a document",
        (Kind::Stream, FieldType::Counter) => "use int: each sample stands for itself",
        _ => return Ok(()),
    };
    Err(SchemaError::TypeNotInKind { kind: kind.name(), field_type: field.name(), instead })
}
