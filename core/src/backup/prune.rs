//! What may be removed from a repository whose old manifests were retired: pure, so that every order of events can be tried.
//!
//! Only bases name parts of snapshots, and only the others name segments. So it is enough to know the bases that stay: everything else
//! below the floor may go, and parts of snapshots that no base that stays names. Keyrings never go; without them, nothing opens.
//!
//! Who removes must know that nobody writes meanwhile: a part that nobody names yet may be about to be named.

use std::collections::{BTreeMap, BTreeSet};

use super::manifest::{self, Manifest};
use super::vault::{MANIFESTS, ObjectName, SEGMENTS, SNAPSHOTS};

/// What stays.
#[derive(Clone, Debug, Default)]
pub struct Staying {
    floor: u64,
    newest: u64,
    kept: BTreeSet<u64>,
    parts: BTreeSet<ObjectName>,
}

impl Staying {
    /// Of the newest manifest, which says what is kept, and all bases that stay: those from the floor on, each with the base that the manifest
    /// before it builds on, and those that are kept below.
    ///
    /// `None` where one of them is missing: then nothing may be removed.
    #[must_use]
    pub fn new(newest: &Manifest, bases: &[(Manifest, u64)]) -> Option<Self> {
        let known: BTreeMap<u64, &(Manifest, u64)> = bases.iter().map(|base| (base.0.number, base)).collect();
        let (mut parts, mut number) = (BTreeSet::new(), newest.base);
        let mut stays = |number: &u64| {
            let (base, below) = known.get(number).filter(|(base, _)| base.is_base())?;
            parts.extend(base.members.iter().map(|member| member.name.clone()));
            Some(*below)
        };
        loop {
            let below = stays(&number)?;
            if number == newest.floor {
                break;
            }
            if below >= number || below < newest.floor {
                return None;
            }
            number = below;
        }
        let kept: BTreeSet<u64> = newest.retained.kept.iter().map(|(number, _)| *number).collect();
        kept.iter().try_for_each(|number| stays(number).map(|_| ()))?;
        Some(Self { floor: newest.floor, newest: newest.number, kept, parts })
    }

    /// True if nothing that stays needs this object.
    #[must_use]
    pub fn may_go(&self, name: &ObjectName) -> bool {
        let text = name.as_str();
        if text.starts_with(MANIFESTS) {
            manifest::number(name).is_some_and(|number| number < self.floor && !self.kept.contains(&number))
        } else if text.starts_with(SEGMENTS) {
            segment(name).is_some_and(|number| number < self.floor && number <= self.newest)
        } else {
            text.starts_with(SNAPSHOTS) && !self.parts.contains(name)
        }
    }

    /// True if no object behind this one in the list of its folder may go: what is newer stays.
    #[must_use]
    pub fn ends_with(&self, name: &ObjectName) -> bool {
        let number = manifest::number(name).or_else(|| segment(name));
        number.is_some_and(|number| number >= self.floor)
    }
}

/// The number of the manifest that a segment was written for.
fn segment(name: &ObjectName) -> Option<u64> {
    let digits = name.as_str().strip_prefix(SEGMENTS)?.split_once('-')?.0;
    u64::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 16)
}

#[cfg(test)]
mod tests {
    use super::super::RepositoryId;
    use super::super::manifest::{Member, Retained, Totals};
    use super::*;
    use crate::ids::{ProjectId, Timeline};

    fn name(text: &str) -> ObjectName {
        ObjectName::parse(text).unwrap()
    }

    fn base(number: u64, parts: &[&str]) -> Manifest {
        let member = |part: &&str| Member { name: name(&format!("snapshots/{part}")), bytes: 1, hash: [0; 32], rows: 1 };
        Manifest {
            project: ProjectId::new(1).unwrap(),
            repository: RepositoryId([1; 16]),
            number,
            previous: [0; 32],
            timeline: Timeline([1; 16]),
            taken_us: 0,
            keys: name("keys/1-x"),
            base: number,
            members: parts.iter().map(member).collect(),
            totals: Totals::default(),
            state: [0; 32],
            floor: 1,
            retained: Retained::default(),
        }
    }

    // faults: B-8
    #[test]
    fn nothing_that_is_needed_may_go_and_everything_else_may() {
        let newest = Manifest {
            base: 20,
            floor: 10,
            retained: Retained { kept: vec![(4, [0; 32])], held: Vec::new() },
            ..Manifest { number: 25, ..base(20, &[]) }
        };
        let bases = [(base(4, &["a", "b"]), 0), (base(10, &["b", "c"]), 4), (base(15, &["f"]), 10), (base(20, &["d"]), 15)];
        let staying = Staying::new(&newest, &bases).unwrap();
        for (object, goes) in [
            ("manifests/0000000000000001", true),
            ("manifests/0000000000000004", false),
            ("manifests/0000000000000009", true),
            ("manifests/000000000000000a", false),
            ("manifests/0000000000000019", false),
            ("manifests/other", false),
            ("segments/0000000000000009-ab", true),
            ("segments/000000000000000b-ab", false),
            ("segments/000000000000001a-ab", false),
            ("segments/strange", false),
            ("snapshots/a", false),
            ("snapshots/b", false),
            ("snapshots/c", false),
            ("snapshots/d", false),
            ("snapshots/f", false),
            ("snapshots/e", true),
            ("keys/1-x", false),
            ("keys/0-old", false),
            ("other/x", false),
        ] {
            assert_eq!(staying.may_go(&name(object)), goes, "{object}");
        }
        assert!(staying.ends_with(&name("segments/000000000000000a-x")) && !staying.ends_with(&name("manifests/0000000000000009")));
        // Where a base that stays cannot be read, nothing goes.
        for missing in 0..bases.len() {
            let known: Vec<_> = bases.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, base)| base.clone()).collect();
            assert!(Staying::new(&newest, &known).is_none(), "without {}", bases[missing].0.number);
        }
    }
}
