//! What a board says of itself, its parts and its bus.

use super::{Exposition, Kind};
use crate::bus::BusReport;
use crate::motherboard::{BoardHandle, BoardReport};

/// Adds how the board and its parts are, and what its bus did; `version` is that of the program.
pub fn expose(out: &mut Exposition, board: &BoardHandle, version: &str) {
    parts(out, &board.report(), version);
    bus(out, &board.bus().report());
}

fn parts(out: &mut Exposition, report: &BoardReport, version: &str) {
    let revision = option_env!("MOBO_REVISION").unwrap_or("unknown");
    out.family("mobo_build_info", Kind::Gauge, "This program.")
        .sample(&[("version", version), ("revision", revision), ("rustc", env!("CARGO_PKG_RUST_VERSION"))], 1.0);
    let is_up = report.state.word() == "ready";
    out.gauge("mobo_up", "Whether every part of the board works.", f64::from(u8::from(is_up)));
    let mut family = out.family("mobo_component_state", Kind::Gauge, "The state that each part is in.");
    for part in &report.components {
        family.sample(&[("component", part.name.as_str()), ("state", part.state.word())], 1.0);
    }
}

fn bus(out: &mut Exposition, report: &BusReport) {
    let counted = [
        ("mobo_bus_events_total", "Events that were published on the bus of the node.", report.published),
        ("mobo_bus_refused_total", "Events of topics that nobody registered: a mistake in the program.", report.refused),
        ("mobo_bus_dropped_total", "Events that the queues of slow subscribers dropped.", report.trouble.dropped),
        ("mobo_bus_timed_out_total", "Events on which a handler did not end in time.", report.trouble.timed_out),
        ("mobo_bus_panicked_total", "Events on which a handler panicked.", report.trouble.panicked),
    ];
    for (name, help, count) in counted {
        out.family(name, Kind::Counter, help).sample(&[], count as f64);
    }
    out.gauge("mobo_bus_subscribers", "Who listens to the bus of the node.", report.subscribers.len() as f64);
}
