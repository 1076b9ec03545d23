//! The order in which parts come up: every part after all that it needs, ties as they were registered.

use std::fmt;

use super::component::{ComponentName, ComponentSpec};
use crate::limits;

/// The parts of a board in the order in which they load and start; they stop in the reverse.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BootOrder(Vec<ComponentSpec>);

impl BootOrder {
    /// Orders parts.
    ///
    /// # Errors
    ///
    /// [`OrderError`] names the parts that make it impossible.
    pub fn of(specs: Vec<ComponentSpec>) -> Result<Self, OrderError> {
        if specs.len() > limits::COMPONENTS_MAX {
            return Err(OrderError::TooMany { count: specs.len() });
        }
        for (index, spec) in specs.iter().enumerate() {
            if specs.iter().take(index).any(|earlier| earlier.name == spec.name) {
                return Err(OrderError::Duplicate { name: spec.name.clone() });
            }
            if let Some(need) = spec.needs.iter().find(|need| !specs.iter().any(|other| other.name == **need)) {
                return Err(OrderError::Missing { component: spec.name.clone(), need: need.clone() });
            }
        }
        let mut waiting = specs;
        let mut placed: Vec<ComponentSpec> = Vec::with_capacity(waiting.len());
        while !waiting.is_empty() {
            let free = |spec: &ComponentSpec| spec.needs.iter().all(|need| placed.iter().any(|other| other.name == *need));
            match waiting.iter().position(free) {
                Some(next) => placed.push(waiting.remove(next)),
                None => return Err(OrderError::Cycle { path: cycle(&waiting) }),
            }
        }
        Ok(Self(placed))
    }

    /// The parts, first to start first.
    #[must_use]
    pub fn into_specs(self) -> Vec<ComponentSpec> {
        self.0
    }
}

/// Follows needs among parts of which each waits for another one, until a name comes again.
fn cycle(waiting: &[ComponentSpec]) -> Vec<ComponentName> {
    let mut path: Vec<ComponentName> = Vec::new();
    let mut next = waiting.first();
    while let Some(spec) = next {
        if let Some(start) = path.iter().position(|name| *name == spec.name) {
            path.drain(..start);
            path.push(spec.name.clone());
            break;
        }
        path.push(spec.name.clone());
        next = waiting.iter().find(|other| spec.needs.contains(&other.name));
    }
    path
}

/// Why parts cannot be put in order. Each is a mistake in how the board was put together.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OrderError {
    /// Two parts have one name.
    #[error("two components are called {name}: give one of them another name")]
    Duplicate {
        /// The name.
        name: ComponentName,
    },
    /// A part needs one that is not on the board.
    #[error("{component} needs {need}, which is not on this board: plug it in, or drop the need")]
    Missing {
        /// The part.
        component: ComponentName,
        /// What it needs.
        need: ComponentName,
    },
    /// Parts need each other.
    #[error("components need each other: {}; drop one of these needs", Path(path))]
    Cycle {
        /// From a part through its need back to itself: the first name is also the last.
        path: Vec<ComponentName>,
    },
    /// More parts than [`limits::COMPONENTS_MAX`].
    #[error("{count} components are more than the {max} that a board takes", max = limits::COMPONENTS_MAX)]
    TooMany {
        /// How many there were.
        count: usize,
    },
}

struct Path<'a>(&'a [ComponentName]);

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().enumerate() {
            let arrow = if index == 0 { "" } else { " -> " };
            write!(f, "{arrow}{name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `"gate:store,keys store"` registers gate, which needs two parts, and then store.
    fn order(board: &str) -> Result<String, String> {
        let name = |text: &str| ComponentName::new(text).unwrap();
        let specs = board.split_whitespace().map(|part| {
            let (own, needs) = part.split_once(':').unwrap_or((part, ""));
            let needs = needs.split(',').filter(|need| !need.is_empty()).map(name);
            ComponentSpec::required(name(own), "1").needing(needs)
        });
        let order = BootOrder::of(specs.collect()).map_err(|error| error.to_string())?;
        let names: Vec<_> = order.into_specs().iter().map(|spec| spec.name.to_string()).collect();
        Ok(names.join(" "))
    }

    #[test]
    fn needs_come_first_and_ties_keep_their_place() {
        for (board, want) in [
            ("", ""),
            ("a b c", "a b c"),
            ("gate:store store", "store gate"),
            ("d:b,c b:a c:a a", "a b c d"),
            ("z:m y m", "y m z"),
            ("twice:a,a a", "a twice"),
        ] {
            assert_eq!(order(board).as_deref(), Ok(want), "{board}");
        }
    }

    #[test]
    fn what_cannot_be_ordered_is_refused_by_name() {
        for (board, want) in [
            ("a b a", "two components are called a: give one of them another name"),
            ("a:ghost", "a needs ghost, which is not on this board: plug it in, or drop the need"),
            ("a:a", "components need each other: a -> a; drop one of these needs"),
            ("a:b b:a", "components need each other: a -> b -> a; drop one of these needs"),
            ("free out:b b:c c:d d:b", "components need each other: b -> c -> d -> b; drop one of these needs"),
        ] {
            assert_eq!(order(board), Err(want.to_owned()), "{board}");
        }
        let many = (0..=limits::COMPONENTS_MAX).map(|n| format!("c{n}")).collect::<Vec<_>>().join(" ");
        assert_eq!(order(&many), Err("65 components are more than the 64 that a board takes".to_owned()));
    }
}
