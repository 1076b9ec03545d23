//! How much a document is, measured before anything else looks at it: whoever checks it later goes into a fragment as often as it is named, and
//! a few fragments that name each other twice keep a node busy for hours.

use std::collections::BTreeMap;

use async_graphql::Request as Asked;
use async_graphql::parser::types::{ExecutableDocument, Selection, SelectionSet};
use mobo_core::limits;

use crate::problem::Problem;

/// Refuses a document that is too much; what cannot be read is somebody else's to refuse.
///
/// # Errors
///
/// 400 with what it has too much of.
pub(super) fn check(asked: &mut Asked) -> Result<(), Problem> {
    if nesting(&asked.query) > limits::GRAPHQL_NESTING_MAX {
        return Err(too_much(&format!("at most {} brackets within each other", limits::GRAPHQL_NESTING_MAX)));
    }
    let Ok(document) = asked.parsed_query() else { return Ok(()) };
    let variables: usize = document.operations.iter().map(|(_, operation)| operation.node.variable_definitions.len()).sum();
    if variables > limits::GRAPHQL_VARIABLES_MAX {
        return Err(too_much(&format!("at most {} variables", limits::GRAPHQL_VARIABLES_MAX)));
    }
    let mut measure = Measure { document, known: BTreeMap::new(), left: limits::GRAPHQL_SELECTIONS_MAX };
    for (_, operation) in document.operations.iter() {
        let count = measure.selections(&operation.node.selection_set.node, 0)?;
        measure.take(count)?;
    }
    // Those that no operation names are looked at, too.
    for name in document.fragments.keys() {
        let count = measure.fragment(name, 0)?;
        measure.take(count)?;
    }
    Ok(())
}

/// How deep brackets stand within each other, before anything follows them down. Those in texts count, which are not balanced: a text that is
/// full of them belongs into a variable.
fn nesting(query: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in query.bytes() {
        match byte {
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

fn too_much(bound: &str) -> Problem {
    Problem::parse(format!("a document has {bound}, fragments counted wherever they are named")).hint("send it in several operations")
}

struct Measure<'d> {
    document: &'d ExecutableDocument,
    /// Selections of a fragment; `None` while it is being counted.
    known: BTreeMap<&'d str, Option<usize>>,
    left: usize,
}

impl<'d> Measure<'d> {
    fn take(&mut self, count: usize) -> Result<(), Problem> {
        let left = self.left.checked_sub(count);
        self.left = left.ok_or_else(|| too_much(&format!("at most {} selections", limits::GRAPHQL_SELECTIONS_MAX)))?;
        Ok(())
    }

    fn fragment(&mut self, name: &'d str, depth: usize) -> Result<usize, Problem> {
        match self.known.get(name) {
            Some(Some(count)) => return Ok(*count),
            Some(None) => return Err(Problem::parse(format!("the fragment {name} leads back to itself"))),
            None => {}
        }
        let Some((name, fragment)) = self.document.fragments.get_key_value(name) else { return Ok(0) };
        self.known.insert(name.as_str(), None);
        let count = self.selections(&fragment.node.selection_set.node, depth)?;
        self.known.insert(name.as_str(), Some(count));
        Ok(count)
    }

    /// All that is within, as often as it is named; it stops where that is too much.
    fn selections(&mut self, set: &'d SelectionSet, depth: usize) -> Result<usize, Problem> {
        if depth > limits::GRAPHQL_RECURSION_MAX {
            return Err(too_much(&format!("at most {} levels", limits::GRAPHQL_RECURSION_MAX)));
        }
        let mut count = 0_usize;
        for selection in &set.items {
            let inner = match &selection.node {
                Selection::Field(field) => self.selections(&field.node.selection_set.node, depth + 1)?,
                Selection::InlineFragment(inline) => self.selections(&inline.node.selection_set.node, depth + 1)?,
                Selection::FragmentSpread(spread) => self.fragment(spread.node.fragment_name.node.as_str(), depth + 1)?,
            };
            count = count.saturating_add(inner).saturating_add(1);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, words: Option<&str>) {
        let found = super::check(&mut Asked::new(text));
        let told = found.as_ref().err().map(Problem::message);
        assert_eq!(told.is_some(), words.is_some(), "{text:.80}: {told:?}");
        assert!(told.unwrap_or_default().contains(words.unwrap_or_default()), "{text:.80}: {told:?}");
    }

    /// What broke: 30 fragments that each name the next one twice kept a thread busy for ever.
    #[test]
    fn fragments_count_wherever_they_are_named() {
        let doubled = |levels: usize| {
            let links: String = (0..levels).map(|n| format!("fragment F{n} on Query {{ ...F{} ...F{} }} ", n + 1, n + 1)).collect();
            format!("{{ ...F0 }} {links} fragment F{levels} on Query {{ apiVersion }}")
        };
        check(&doubled(5), None);
        check(&doubled(12), Some("selections"));
        check(&doubled(30), Some("selections"));
        check(&doubled(30).replacen("...F0", "apiVersion", 1), Some("selections"));
        check("{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }", Some("leads back to itself"));
        check("{ apiVersion } fragment A on Query { ...A ...A }", Some("leads back to itself"));
        let chain: String = (0..5_000).map(|n| format!("fragment F{n} on Query {{ ...F{} }} ", n + 1)).collect();
        check(&format!("{{ ...F0 }} {chain}"), Some("levels"));
        let fields: String = (0..3_000).map(|n| format!("a{n}: apiVersion ")).collect();
        check(&format!("{{ {fields} }}"), Some("selections"));
        let variables: String = (0..300).map(|n| format!("$v{n}: Int ")).collect();
        check(&format!("query ({variables}) {{ apiVersion }}"), Some("variables"));
        for deep in ["{a", "[", "a(b:{c:"] {
            check(&format!("{{ a(b: {} }}", deep.repeat(60_000)), Some("brackets"));
        }
        check("{", None);
        check("{ ...Nowhere }", None);
        check("query A { apiVersion } query B { ... on Query { apiVersion } }", None);
    }
}
