//! Names as people write them: near misses ("perhaps you meant …"), and what is named twice.

use std::collections::BTreeSet;

/// The candidate closest to `name`, if it is close enough to be a slip: at most a third of its letters wrong.
pub fn nearest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let limit = name.chars().count().div_ceil(3);
    candidates.into_iter().map(|candidate| (distance(name, candidate), candidate)).filter(|(d, _)| *d <= limit).min().map(|(_, c)| c)
}

/// The number of letters to insert, remove, replace or swap with the next.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().take(64).collect(), right.chars().take(64).collect());
    let mut rows = vec![(0..=right.len()).collect::<Vec<usize>>()];
    for (i, a) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let at = |r: usize, c: usize| rows.get(r).and_then(|row| row.get(c)).copied().unwrap_or(usize::MAX - 1);
            let before = row.last().copied().unwrap_or(usize::MAX - 1);
            let mut best = (at(i, j) + usize::from(a != b)).min(at(i, j + 1) + 1).min(before + 1);
            let swapped = i > 0 && j > 0 && left.get(i - 1) == Some(b) && right.get(j - 1) == Some(a);
            if swapped {
                best = best.min(at(i - 1, j - 1) + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows.last().and_then(|row| row.last()).copied().unwrap_or(usize::MAX)
}

/// The first name that is in a list for the second time. The list is somebody else's, and as long as it likes.
#[must_use]
pub fn twice(names: &[String]) -> Option<&str> {
    let mut seen = BTreeSet::new();
    names.iter().map(String::as_str).find(|name| !seen.insert(*name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let known = ["title", "status", "assignee", "hours"];
        for (name, want) in [("titel", Some("title")), ("stauts", Some("status")), ("hour", Some("hours")), ("colour", None), ("", None)] {
            assert_eq!(nearest(name, known), want, "{name}");
        }
    }

    #[test]
    fn what_is_named_twice_is_found_in_the_widest_list() {
        let mut names: Vec<String> = (0..300_000).map(|n| n.to_string()).collect();
        assert_eq!(twice(&names), None);
        names.extend(["7".to_owned(), "3".to_owned()]);
        assert_eq!(twice(&names), Some("7"));
    }
}
