//! Worlds that lean towards what a protection is needed for. A world of the seed is bent, and stays one: everything that holds in other
//! worlds holds in it, and is checked.

use super::plan::{Fault, Pipe, Plan, rare};

use Fault::{
    CloneDevice, CutLink, EioDevice, EioHub, FullDevice, FullHub, HubClock, KillDevice, KillHub, LieDevice, Partition, PowerDevice,
    PowerHub, RestoreDevice, RestoreHub,
};

const SECOND_US: u64 = 1_000_000;
/// The latency of a link that is slow.
const FAR_US: (u64, u64) = (20_000, 400_000);

/// Kinds of writes: tables, documents, streams, tables in buckets of their own.
const MIXED: [u64; 4] = [6, 2, 2, 3];

/// A plan, bent towards what a protection of this name is needed for.
pub(super) fn leaning(plan: Plan, name: &str) -> Plan {
    let part = name.split('.').next().unwrap_or_default();
    if part == "pace" {
        return Plan::flood();
    }
    let mut plan = general(plan, (part, name));
    of_the_hub(&mut plan, name);
    of_devices(&mut plan, name);
    if plan.faults.iter().any(|(fault, _)| *fault == RestoreHub) {
        // A hub that was put back gives rights again that it had taken away.
        plan.yards_every_us = None;
    }
    plan
}

/// What protections of one part have in common.
fn general(mut plan: Plan, (part, name): (&str, &str)) -> Plan {
    let faults: &[Fault] = match part {
        "sqlite" | "group" | "writer" => &[PowerDevice, PowerHub, EioDevice, EioHub, FullDevice, FullHub],
        "time" | "eff" => &[KillHub, PowerHub, HubClock, RestoreHub, CutLink],
        // What comes back to a restored hub twice must count once: nothing else may make that vague.
        "counter" => &[RestoreHub, KillDevice, CutLink, Partition],
        "provenance" if name == "provenance.sole" => &[RestoreHub, KillDevice, CutLink, Partition],
        "life" | "change" | "recovery" | "history" => &[RestoreHub, CloneDevice, CutLink, KillDevice],
        "trim" => &[RestoreHub, KillDevice, CutLink],
        "ingest" => &[KillDevice, CutLink],
        "push" | "pull" | "batch" | "page" | "reject" | "checkpoint" => &[CutLink, Partition, KillHub],
        _ => &[CloneDevice, RestoreDevice, CutLink, Partition, KillHub],
    };
    let is_exact = part == "counter" || name == "provenance.sole";
    plan.faults.retain(|(fault, _)| !(faults.contains(fault) || is_exact && matches!(fault, CloneDevice | RestoreDevice | LieDevice)));
    plan.faults.extend(faults.iter().map(|fault| (*fault, if rare(*fault) { 14 * SECOND_US } else { 6 * SECOND_US })));
    plan.devices = plan.devices.max(2);
    plan.hub_write_every_us.get_or_insert(3 * SECOND_US);
    plan.mix = match part {
        "document" | "change" | "redo" => [2, 8, 0, 0],
        "reject" => [2, 0, 0, 8],
        "ingest" => [2, 0, 8, 0],
        "register" | "delete" | "row" | "counter" => [8, 0, 0, 0],
        _ => MIXED,
    };
    if matches!(part, "rights" | "leave") {
        plan.faults.retain(|(fault, _)| *fault != RestoreHub);
        plan.yards_every_us = Some(400_000);
    }
    plan.keep_bytes = match name {
        _ if part == "trim" => 0,
        "counter.doubled" | "provenance.sole" => 2_000,
        _ if matches!(part, "counter" | "recovery") => 64 << 20,
        _ => plan.keep_bytes,
    };
    plan.write_every_us = plan.write_every_us.min(1_500_000);
    if ["lane.gap", "push.rewind", "batch.continues"].contains(&name) {
        plan.pipe = Pipe::Datagrams { lost: 15, doubled: 20 };
    }
    plan
}

/// What a protection of the hub needs, and no other of its part.
fn of_the_hub(plan: &mut Plan, name: &str) {
    match name {
        // Somebody uses positions again before a device has come to tell, and no device has an ack to show.
        "history.went-back" | "history.copied" => {
            only(plan, &[(RestoreHub, 4), (Partition, 2), (CutLink, 6)]);
            (plan.hub_write_every_us, plan.write_every_us) = (Some(150_000), 20 * SECOND_US);
        }
        // A hub that was started again and again is ahead of its wall clock, and so must be the one that is put in its place.
        "time.leaps" => {
            only(plan, &[(KillHub, 3), (RestoreHub, 6), (CutLink, 6)]);
            plan.keep_bytes = 64 << 20;
        }
        // A hub was years ahead when devices began to count their time, and is put back to when it was not.
        "time.reaches" | "eff.not-in-future" | "ack.heard-again" => {
            only(plan, &[(HubClock, 3), (RestoreHub, 5), (CutLink, 2), (PowerDevice, 2)]);
            (plan.keep_bytes, plan.mix, plan.safety_us) = (64 << 20, [6, 0, 3, 3], 60 * SECOND_US);
            plan.latency_us = if name == "ack.heard-again" { FAR_US } else { plan.latency_us };
        }
        // The clock is set back while the hub lives on.
        "time.elapses" | "time.shared" => {
            only(plan, &[(HubClock, 4), (CutLink, 6)]);
            plan.safety_us = 40 * SECOND_US;
        }
        // What is made in one order, and merged in another.
        "register.later-wins" | "delete.later-wins" => {
            only(plan, &[(Partition, 3), (CutLink, 4)]);
            (plan.devices, plan.hot_records, plan.drift_ppm) = (plan.devices.max(3), 2, 0);
            plan.pipe = Pipe::Stream;
        }
        // What comes back in a row and from its author is told apart by how far the log was: no write of the hub may make that vague.
        "counter.doubled" | "provenance.sole" => {
            only(plan, &[(RestoreHub, 5), (KillDevice, 8), (CutLink, 4), (Partition, 5)]);
            (plan.hub_write_every_us, plan.mix, plan.safety_us) = (None, [8, 0, 0, 2], 40 * SECOND_US);
        }
        // The same while the hub waits for the others: what has just been deleted is offered a moment later.
        "recovery.comes-first" => {
            only(plan, &[(RestoreHub, 4), (Partition, 3), (CutLink, 4)]);
            (plan.mix, plan.devices, plan.hot_records, plan.write_every_us) = ([1, 0, 0, 8], 4, 8, 200_000);
            (plan.latency_us, plan.safety_us) = (FAR_US, 40 * SECOND_US);
        }
        "writer.poison" => only(plan, &[(EioDevice, 2), (EioHub, 3), (CutLink, 6)]),
        _ => {}
    }
}

/// What a protection of devices, or of both ends, needs, and no other of its part.
fn of_devices(plan: &mut Plan, name: &str) {
    match name {
        // A log is closed while its other copy has something on its way.
        "lane.fenced" => {
            only(plan, &[(CloneDevice, 3), (KillDevice, 4), (CutLink, 5)]);
            (plan.write_every_us, plan.latency_us) = (150_000, (1_000, 30_000));
        }
        // What a lost hub had acknowledged is made again under another log, and is in the rows that others offer.
        "refence.sole" => {
            only(plan, &[(RestoreHub, 5), (CloneDevice, 4), (CutLink, 5), (Partition, 6)]);
            (plan.hub_write_every_us, plan.keep_bytes, plan.mix) = (None, 64 << 20, [8, 0, 0, 2]);
        }
        // What was written again in a log has not been pushed when that ends, too.
        "refence.first-origin" => {
            only(plan, &[(RestoreHub, 6), (CloneDevice, 3), (Partition, 3), (CutLink, 2)]);
            (plan.mix, plan.hot_records, plan.keep_bytes) = ([2, 8, 0, 0], 2, 64 << 20);
            (plan.write_every_us, plan.safety_us) = (300_000, 40 * SECOND_US);
        }
        // What waits to be pushed again must not be dropped meanwhile.
        "recovery.pushed-again" => {
            only(plan, &[(RestoreHub, 5), (CutLink, 2), (KillDevice, 5)]);
            (plan.keep_bytes, plan.hub_write_every_us, plan.mix) = (2_000, None, [6, 0, 3, 3]);
        }
        "redo.waits" | "redo.here-already" | "redo.came-back" | "redo.heard" | "redo.waited" => {
            only(plan, &[(RestoreHub, 8), (CloneDevice, 5), (CutLink, 4), (KillDevice, 8), (Partition, 6)]);
            (plan.hot_records, plan.keep_bytes, plan.safety_us) = (2, 64 << 20, plan.safety_us.max(40 * SECOND_US));
        }
        // Two copies of a log go on with one document, on both sides of a restore.
        "redo.collides" => {
            only(plan, &[(RestoreHub, 5), (CloneDevice, 3), (CutLink, 3), (KillDevice, 5), (Partition, 3)]);
            (plan.hot_records, plan.keep_bytes, plan.safety_us, plan.mix) = (1, 64 << 20, 30 * SECOND_US, [0, 1, 0, 0]);
            plan.devices = 3;
        }
        // A refusal is on its way when the log ends.
        "reject.of-parent" => {
            only(plan, &[(CloneDevice, 3), (CutLink, 2), (KillDevice, 6)]);
            (plan.forbidden, plan.write_every_us, plan.latency_us) = (50, 300_000, FAR_US);
            plan.pipe = Pipe::Stream;
        }
        // Acknowledged, and not delivered yet, when the hub is lost.
        "trim.shown" => {
            only(plan, &[(RestoreHub, 4), (CutLink, 2)]);
            (plan.latency_us, plan.mix, plan.hub_write_every_us) = (FAR_US, [8, 0, 0, 3], None);
        }
        // Links last, and lose what they carry.
        "push.rewind" => {
            only(plan, &[(CutLink, 40)]);
            (plan.safety_us, plan.write_every_us) = (60 * SECOND_US, 400_000);
        }
        "rights.stop-reading" => {
            only(plan, &[(CutLink, 12), (Partition, 4)]);
            (plan.latency_us, plan.yards_every_us) = (FAR_US, Some(150_000));
        }
        _ => {}
    }
}

/// Nothing else goes wrong, and these once in so many seconds.
fn only(plan: &mut Plan, faults: &[(Fault, u64)]) {
    plan.faults = faults.iter().map(|(fault, seconds)| (*fault, seconds * SECOND_US)).collect();
}
