//! An expression as states, of which many are held at once.

use std::sync::Arc;

use super::RegexError;
use super::read::{Node, Set};
use crate::limits;

/// What runs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Program(Vec<State>);

#[derive(Clone, Debug, Eq, PartialEq)]
enum State {
    /// A letter of that set leads to the next one.
    Letter(Arc<Set>),
    /// The next one, at the start of the text.
    Start,
    /// The next one, at its end.
    End,
    /// The next one, or that one.
    Fork(usize),
    /// That one.
    Jump(usize),
    /// It fits.
    Fits,
}

impl Program {
    pub(super) fn of(node: &Node) -> Result<Self, RegexError> {
        let mut program = Self(Vec::new());
        program.add(node)?;
        program.push(State::Fits)?;
        Ok(program)
    }

    fn push(&mut self, state: State) -> Result<usize, RegexError> {
        if self.0.len() == limits::REGEX_STATES_MAX {
            return Err(RegexError::TooLarge);
        }
        self.0.push(state);
        Ok(self.0.len() - 1)
    }

    /// Lets the fork or jump at `at` lead to what is added next.
    fn lead(&mut self, at: usize) {
        let to = self.0.len();
        if let Some(State::Fork(place) | State::Jump(place)) = self.0.get_mut(at) {
            *place = to;
        }
    }

    fn add(&mut self, node: &Node) -> Result<(), RegexError> {
        match node {
            Node::Set(set) => self.push(State::Letter(Arc::clone(set))).map(drop),
            Node::Start => self.push(State::Start).map(drop),
            Node::End => self.push(State::End).map(drop),
            Node::All(parts) => parts.iter().try_for_each(|part| self.add(part)),
            Node::One(parts) => {
                let mut ends = Vec::new();
                for (n, part) in parts.iter().enumerate() {
                    if n + 1 == parts.len() {
                        self.add(part)?;
                        break;
                    }
                    let fork = self.push(State::Fork(0))?;
                    self.add(part)?;
                    ends.push(self.push(State::Jump(0))?);
                    self.lead(fork);
                }
                ends.into_iter().for_each(|end| self.lead(end));
                Ok(())
            }
            Node::Repeat(part, least, most) => self.repeat(part, *least, *most),
        }
    }

    fn repeat(&mut self, part: &Node, least: u16, most: Option<u16>) -> Result<(), RegexError> {
        for _ in 0..least {
            self.add(part)?;
            // Nothing, many times, is a state each time all the same: no pattern is long work.
            self.push(State::Jump(0)).map(|jump| self.lead(jump))?;
        }
        let Some(most) = most else {
            let fork = self.push(State::Fork(0))?;
            self.add(part)?;
            self.push(State::Jump(fork))?;
            self.lead(fork);
            return Ok(());
        };
        let mut forks = Vec::new();
        for _ in least..most {
            forks.push(self.push(State::Fork(0))?);
            self.add(part)?;
        }
        forks.into_iter().for_each(|fork| self.lead(fork));
        Ok(())
    }

    pub(super) fn fits(&self, text: &str) -> bool {
        let mut held = Held { at: Vec::new(), seen: vec![0; self.0.len()], round: 0 };
        let (mut letters, mut at_start) = (text.chars(), true);
        loop {
            let letter = letters.next();
            // It may begin anywhere.
            if held.reach(&self.0, 0, (at_start, letter.is_none())) {
                return true;
            }
            let Some(letter) = letter else { return false };
            at_start = false;
            let at_end = letters.as_str().is_empty();
            if held.step(&self.0, letter, at_end) {
                return true;
            }
        }
    }
}

/// The states that are held.
struct Held {
    at: Vec<usize>,
    /// The round in which a state was reached last.
    seen: Vec<u32>,
    round: u32,
}

impl Held {
    /// Holds a state and what it leads to without a letter; true when it fits.
    fn reach(&mut self, states: &[State], state: usize, (at_start, at_end): (bool, bool)) -> bool {
        if self.round == 0 {
            self.round = 1;
        }
        let mut open = vec![state];
        while let Some(at) = open.pop() {
            match self.seen.get_mut(at) {
                Some(round) if *round != self.round => *round = self.round,
                _ => continue,
            }
            match states.get(at) {
                Some(State::Letter(_)) => self.at.push(at),
                Some(State::Start) if at_start => open.push(at + 1),
                Some(State::End) if at_end => open.push(at + 1),
                Some(State::Fork(other)) => open.extend([*other, at + 1]),
                Some(State::Jump(other)) => open.push(*other),
                Some(State::Fits) => return true,
                Some(State::Start | State::End) | None => {}
            }
        }
        false
    }

    fn step(&mut self, states: &[State], letter: char, at_end: bool) -> bool {
        let before = std::mem::take(&mut self.at);
        self.round += 1;
        for at in before {
            if let Some(State::Letter(set)) = states.get(at)
                && set.has(letter)
                && self.reach(states, at + 1, (false, at_end))
            {
                return true;
            }
        }
        false
    }
}
