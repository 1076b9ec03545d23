//! What an author may write: judged at the merge, on the buckets that a record is in before and after (replication.md D9).

use std::collections::{BTreeMap, BTreeSet};

use crate::buckets::can_name;
use crate::schema::Collection;
use crate::time::Eff;

/// What an author may write.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Rights {
    /// Everything: the hub itself.
    All,
    /// Records in these buckets.
    Buckets(Grants),
}

/// The buckets that a device may write in.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Grants {
    /// Now.
    pub live: BTreeSet<String>,
    /// Until then, in the hub's time: what was made later is refused, what was made before is taken though it comes late.
    pub ended: BTreeMap<String, Eff>,
    /// True until a device that comes back to a restored hub has offered all that it holds (rule R18): what makes a record may be in those
    /// offers, which follow what it pushes.
    pub owes_offers: bool,
}

impl Grants {
    fn allow(&self, bucket: &String, made: Eff) -> bool {
        self.live.contains(bucket) || self.ended.get(bucket).is_some_and(|ended| made <= *ended)
    }
}

impl<T> From<T> for Grants
where
    BTreeSet<String>: From<T>,
{
    fn from(live: T) -> Self {
        Self { live: live.into(), ..Self::default() }
    }
}

impl FromIterator<String> for Grants {
    fn from_iter<I: IntoIterator<Item = String>>(live: I) -> Self {
        live.into_iter().collect::<BTreeSet<_>>().into()
    }
}

/// The buckets of a record around one write.
#[derive(Clone, Copy, Debug)]
pub struct Change<'b> {
    /// Before it; `None` for a record that was never written.
    pub before: Option<&'b [String]>,
    /// After it.
    pub after: &'b [String],
}

impl Rights {
    /// Why a write that was made then may not be merged; `None` when it may.
    ///
    /// Its author needs the right to write in one of the buckets that the record is in, before as after, and in each that the record enters
    /// or leaves by it: whoever holds one bucket of a record can neither put it before others' eyes nor take it away from them.
    #[must_use]
    pub fn refuse(&self, change: Change<'_>, made: Eff) -> Option<String> {
        let Self::Buckets(grants) = self else { return None };
        let Change { before, after } = change;
        if let Some(before) = before
            && !before.iter().any(|bucket| grants.allow(bucket, made))
        {
            return Some(format!("this device may not write in {}", place(before)));
        }
        if !after.iter().any(|bucket| grants.allow(bucket, made)) {
            return Some(format!("the record would be in {}, where this device may not write", place(after)));
        }
        let before = before.unwrap_or_default();
        let crossed =
            |from: &[String], to: &[String]| to.iter().find(|bucket| !from.contains(bucket) && !grants.allow(bucket, made)).cloned();
        if let Some(entered) = crossed(before, after) {
            return Some(format!("the record would enter {entered}, where this device may not write"));
        }
        crossed(after, before).map(|left| format!("the record would leave {left}, where this device may not write"))
    }
}

impl Rights {
    /// The same, of a device that has not yet offered all that it holds ([`Grants::owes_offers`]).
    #[must_use]
    pub fn owing_offers(mut self) -> Self {
        if let Self::Buckets(grants) = &mut self {
            grants.owes_offers = true;
        }
        self
    }

    /// True if what makes the records that its holder writes into may be offered yet ([`Grants::owes_offers`]).
    #[must_use]
    pub fn owes_offers(&self) -> bool {
        matches!(self, Self::Buckets(grants) if grants.owes_offers)
    }

    /// True if its holder may write in some bucket that a record of this collection can be in.
    #[must_use]
    pub fn reach(&self, collection: &Collection) -> bool {
        match self {
            Self::All => true,
            Self::Buckets(grants) => grants.live.iter().any(|bucket| can_name(collection, bucket)),
        }
    }
}

fn place(buckets: &[String]) -> String {
    if buckets.is_empty() { "no bucket".to_owned() } else { buckets.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_judged_by_what_it_enters_and_leaves() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let grants = Grants { live: words("a b").into_iter().collect(), ended: [("old".to_owned(), Eff(100))].into(), ..Grants::default() };
        let rights = Rights::Buckets(grants);
        let new = None;
        let cases: [(Option<&str>, &str, i64, &str); 13] = [
            (new, "a", 0, ""),
            (new, "", 0, "would be in no bucket"),
            (new, "c", 0, "would be in c"),
            (new, "a c", 0, "would enter c"),
            (Some("a c"), "a c", 0, ""),
            (Some("a"), "b", 0, ""),
            (Some("a"), "c", 0, "would be in c"),
            (Some("a c"), "a", 0, "would leave c"),
            (Some("c"), "a", 0, "may not write in c"),
            (Some(""), "a", 0, "may not write in no bucket"),
            (Some("old"), "old", 100, ""),
            (Some("old"), "old", 101, "may not write in old"),
            (Some("a"), "a old", 101, "would enter old"),
        ];
        for (before, after, made, want) in cases {
            let (had, has) = (before.map(words), words(after));
            let why = rights.refuse(Change { before: had.as_deref(), after: &has }, Eff(made));
            match want {
                "" => assert_eq!(why, None, "{before:?} to {after} at {made}"),
                want => assert!(why.as_ref().is_some_and(|why| why.contains(want)), "{before:?} to {after} at {made}: {why:?}"),
            }
            assert_eq!(Rights::All.refuse(Change { before: had.as_deref(), after: &has }, Eff(made)), None);
        }
    }
}
