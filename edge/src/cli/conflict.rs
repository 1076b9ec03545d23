//! The verbs about decisions of merges.

use std::process::ExitCode;

use clap::Subcommand;
use mobo_core::{json, limits};
use mobo_runtime::output::Failure;
use serde_json::json;

use super::{Common, talk};

/// `conflict …`
#[derive(Debug, Subcommand)]
pub enum ConflictVerb {
    /// Open ones, newest first.
    List {
        /// At most so many.
        #[arg(long, default_value_t = limits::LIST_ROWS, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// The open ones of one record.
    Show {
        /// The collection.
        collection: String,
        /// The record's id.
        id: String,
    },
    /// Settle those of a field by writing it: as it is here, unless something else is said. An ordinary write of the field does the same.
    Resolve {
        /// The collection.
        collection: String,
        /// The record's id.
        id: String,
        /// The field.
        field: String,
        /// Write the value that lost, the latest of them where there are several.
        #[arg(long, conflicts_with = "value")]
        loser: bool,
        /// Write this value, as JSON.
        #[arg(long, value_name = "JSON")]
        value: Option<String>,
    },
}

/// Asks the running device.
pub(super) fn run(common: &Common, verb: ConflictVerb) -> Result<ExitCode, Failure> {
    match verb {
        ConflictVerb::List { limit } => talk::plain(common, "conflict list", json!({ "limit": limit })),
        ConflictVerb::Show { collection, id } => talk::plain(common, "conflict show", json!({ "collection": collection, "id": id })),
        ConflictVerb::Resolve { collection, id, field, loser, value } => {
            let value = value.map(|given| json::read(given.as_bytes())).transpose().map_err(|error| {
                Failure::usage(format!("--value is no JSON: {error}"), "quote a text twice, as in --value '\"plant-4\"'")
            })?;
            let args = json!({ "collection": collection, "id": id, "field": field, "loser": loser, "value": value });
            talk::plain(common, "conflict resolve", args)
        }
    }
}
