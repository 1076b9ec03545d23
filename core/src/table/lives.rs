//! How many lives of a log a counter keeps apart (rule R10). What is over for long is added up in one tally of the log: a device that is started
//! a thousand times makes no row longer than one that is started eight times.

use super::state::{Counter, Tally, of_device};
use crate::life::LifeName;
use crate::limits;
use crate::stamp::Origin;

/// Up to which number the lives of the origin's log are over for long, as this counter knows them; 0 where none is.
fn horizon(tallies: &Counter, origin: &Origin, name: LifeName) -> u32 {
    let beside = of_device(tallies, origin.device).filter_map(|(other, _)| LifeName::read(other.incarnation));
    let last = beside.filter(|other| other.is_beside(name)).map(|other| other.number).max().unwrap_or_default();
    last.max(name.number).saturating_sub(limits::LIVES_APART_MAX)
}

/// The origin that an entry of this one counts for: what its life had added may be in the tally of those that are over.
pub(super) fn counts_for(tallies: &Counter, origin: Origin) -> Origin {
    match LifeName::read(origin.incarnation) {
        Some(name) if !tallies.contains_key(&origin) && (1..=horizon(tallies, &origin, name)).contains(&name.number) => {
            Origin { incarnation: name.folded(), ..origin }
        }
        _ => origin,
    }
}

/// Adds up what lives of this origin's log have added that are over for long.
pub(super) fn fold(tallies: &mut Counter, origin: Origin) {
    // A counter with so few tallies keeps them, whatever they are: most have one.
    let Some(name) = LifeName::read(origin.incarnation).filter(|_| tallies.len() > limits::LIVES_APART_MAX as usize) else { return };
    let over = 1..=horizon(tallies, &origin, name);
    let is_over = |other: LifeName| other.is_beside(name) && over.contains(&other.number);
    let found: Vec<(Origin, Tally)> = of_device(tallies, origin.device)
        .filter(|(other, _)| LifeName::read(other.incarnation).is_some_and(is_over))
        .map(|(other, tally)| (*other, *tally))
        .collect();
    let sum = Origin { incarnation: name.folded(), ..origin };
    for (other, tally) in found {
        tallies.remove(&other);
        let folded = tallies.entry(sum).or_insert(Tally { sum: 0, last: tally.last });
        *folded = Tally { sum: folded.sum.saturating_add(tally.sum), last: folded.last.max(tally.last) };
    }
}

/// Takes out of a join of two counters the lives that one of them has added up, and the other has not.
pub(super) fn drop_folded(joined: &mut Counter, one: &Counter, other: &Counter) {
    for (folded, apart) in [(one, other), (other, one)] {
        let sums = folded.iter().filter_map(|(origin, tally)| {
            let name = LifeName::read(origin.incarnation).filter(|name| name.number == 0)?;
            Some((origin, tally.last, name, horizon(folded, origin, name)))
        });
        for (origin, last, name, horizon) in sums {
            for (life, tally) in of_device(apart, origin.device).filter(|(life, _)| !folded.contains_key(life)) {
                let read = LifeName::read(life.incarnation).filter(|life| life.is_beside(name));
                if read.is_some_and(|life| (1..=horizon).contains(&life.number)) && tally.last <= last {
                    joined.remove(life);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
