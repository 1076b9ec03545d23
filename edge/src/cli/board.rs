//! The verbs about the board: components, health, events.

use std::process::ExitCode;

use clap::Subcommand;
use mobo_runtime::board_command::{self, component, events_tail, health_report, health_watch};
use mobo_runtime::output::Failure;
use serde_json::json;

use super::{Common, talk};

/// `component …`
#[derive(Debug, Subcommand)]
pub enum ComponentVerb {
    /// All parts: their states, their health, where they answer.
    List,
    /// Start a part; one that failed too often is trusted again.
    Start {
        /// Its name.
        name: String,
        /// Start what it needs as well.
        #[arg(long)]
        cascade: bool,
    },
    /// Stop a part until somebody starts it, or the node boots again.
    Stop {
        /// Its name.
        name: String,
        /// Stop what needs it as well.
        #[arg(long)]
        cascade: bool,
    },
    /// Stop a part and start it again.
    Restart {
        /// Its name.
        name: String,
        /// Restart what needs it as well.
        #[arg(long)]
        cascade: bool,
    },
    /// Replace what fills a part's socket, while everything goes on.
    Swap {
        /// Its name.
        name: String,
        /// What to fill it with: an address, or a URL.
        address: String,
    },
}

/// `health …`
#[derive(Debug, Subcommand)]
pub enum HealthVerb {
    /// Recompute every digest from its rows and every chain from its entries; exit 1 if anything does not fit.
    Check,
    /// How healthy each part is, as its last checks found; exit 1 unless all are well.
    Report,
    /// The same, and a line for each change.
    Watch,
}

/// `events …`
#[derive(Debug, Subcommand)]
pub enum EventsVerb {
    /// What happens, as it happens.
    Tail {
        /// Only this topic, such as component.state, or this family, such as component.*
        #[arg(long)]
        topic: Option<String>,
        /// Begin with the last N.
        #[arg(long, value_name = "N", default_value_t = 0)]
        replay: usize,
        /// End after those.
        #[arg(long)]
        no_follow: bool,
    },
    /// All topics, and what their events hold.
    Topics,
}

pub(super) fn components(common: &Common, verb: &ComponentVerb) -> Result<ExitCode, Failure> {
    let (folder, output) = (&common.data_dir, common.output);
    match verb {
        ComponentVerb::List => talk::plain(common, "component list", json!({})),
        ComponentVerb::Start { name, cascade } => component(folder, output, ("start", name, *cascade)),
        ComponentVerb::Stop { name, cascade } => component(folder, output, ("stop", name, *cascade)),
        ComponentVerb::Restart { name, cascade } => component(folder, output, ("restart", name, *cascade)),
        ComponentVerb::Swap { name, address } => board_command::swap(folder, output, name, address),
    }
}

pub(super) fn health(common: &Common, verb: &HealthVerb) -> Result<ExitCode, Failure> {
    match verb {
        HealthVerb::Check => talk::health(common),
        HealthVerb::Report => health_report(&common.data_dir, common.output),
        HealthVerb::Watch => health_watch(&common.data_dir, common.output),
    }
}

pub(super) fn events(common: &Common, verb: &EventsVerb) -> Result<ExitCode, Failure> {
    match verb {
        EventsVerb::Tail { topic, replay, no_follow } => {
            events_tail(&common.data_dir, common.output, (topic.as_deref(), *replay, !no_follow))
        }
        EventsVerb::Topics => talk::plain(common, "events topics", json!({})),
    }
}
