//! What waits for a subscriber, and what the bus remembers.

use std::collections::VecDeque;

use super::{Priority, Stamped};

/// What a full queue drops. Never an event that is more urgent than one that stays.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DropRule {
    /// The oldest: for who wants to know how things are.
    Oldest,
    /// The one that comes: for who wants to know how things came to be.
    Newest,
}

/// Events that wait for one subscriber: the most urgent first, within that the oldest. Never more than its limit.
#[derive(Debug)]
pub struct Waiting<T> {
    /// By priority, least urgent first.
    lines: [VecDeque<T>; 3],
    len_max: usize,
    rule: DropRule,
    dropped: u64,
}

impl<T> Waiting<T> {
    /// An empty queue for at most `len_max` events, and at least one.
    #[must_use]
    pub fn new(len_max: usize, rule: DropRule) -> Self {
        Self { lines: Default::default(), len_max: len_max.max(1), rule, dropped: 0 }
    }

    /// Queues an event; when there is no room, one is dropped, and counted.
    pub fn push(&mut self, priority: Priority, event: T) {
        if self.len() >= self.len_max {
            self.dropped = self.dropped.saturating_add(1);
            let least = self.lines.iter().position(|line| !line.is_empty()).unwrap_or_default();
            let comes = priority as usize;
            if least > comes || (least == comes && self.rule == DropRule::Newest) {
                return;
            }
            if let Some(line) = self.lines.get_mut(least) {
                match self.rule {
                    DropRule::Oldest => line.pop_front(),
                    DropRule::Newest => line.pop_back(),
                };
            }
        }
        if let Some(line) = self.lines.get_mut(priority as usize) {
            line.push_back(event);
        }
    }

    /// The next one.
    pub fn pop(&mut self) -> Option<T> {
        self.lines.iter_mut().rev().find_map(VecDeque::pop_front)
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.iter().map(VecDeque::len).sum()
    }

    /// True when none does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many were dropped.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// The last events of a bus.
#[derive(Debug)]
pub struct History<T = Stamped> {
    events: VecDeque<T>,
    len_max: usize,
}

impl<T> History<T> {
    /// A memory of at most `len_max` events.
    #[must_use]
    pub const fn new(len_max: usize) -> Self {
        Self { events: VecDeque::new(), len_max }
    }

    /// Remembers an event; the oldest is forgotten when there is no room.
    pub fn push(&mut self, event: T) {
        self.events.push_back(event);
        if self.events.len() > self.len_max {
            self.events.pop_front();
        }
    }

    /// The last `count` that `wanted` takes, oldest first.
    pub fn last(&self, count: usize, wanted: impl Fn(&T) -> bool) -> Vec<&T> {
        let mut last: Vec<&T> = self.events.iter().rev().filter(|event| wanted(event)).take(count).collect();
        last.reverse();
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes `h1 n2 l3 …`, pops all, gives what came out and what was dropped.
    #[track_caller]
    fn check(len_max: usize, rule: DropRule, pushed: &str, want: &str, dropped: u64) {
        let mut waiting = Waiting::new(len_max, rule);
        for event in pushed.split(' ') {
            let priority = match event.chars().next() {
                Some('h') => Priority::High,
                Some('n') => Priority::Normal,
                _ => Priority::Low,
            };
            waiting.push(priority, event);
            assert!(waiting.len() <= len_max);
        }
        let popped: Vec<&str> = std::iter::from_fn(|| waiting.pop()).collect();
        assert_eq!((popped.join(" ").as_str(), waiting.dropped()), (want, dropped), "{pushed}");
        assert!(waiting.is_empty());
    }

    // faults: C-4
    #[test]
    fn the_urgent_overtakes_and_is_dropped_last() {
        check(4, DropRule::Oldest, "n1 l2 h3 n4", "h3 n1 n4 l2", 0);
        check(3, DropRule::Oldest, "n1 n2 n3 n4", "n2 n3 n4", 1);
        check(3, DropRule::Newest, "n1 n2 n3 n4", "n1 n2 n3", 1);
        check(3, DropRule::Newest, "l1 l2 l3 h4 h5", "h4 h5 l1", 2);
        check(3, DropRule::Oldest, "l1 l2 l3 h4 h5", "h4 h5 l3", 2);
        check(2, DropRule::Oldest, "h1 h2 l3 n4", "h1 h2", 2);
        check(2, DropRule::Newest, "h1 h2 h3 l4", "h1 h2", 2);
        check(2, DropRule::Oldest, "h1 h2 h3", "h2 h3", 1);
    }

    #[test]
    fn the_bus_remembers_the_last_ones() {
        let mut history = History::new(3);
        (1..=5).for_each(|n| history.push(n));
        assert_eq!(history.last(9, |_| true), [&3, &4, &5]);
        assert_eq!(history.last(1, |n| n % 2 == 1), [&5]);
        assert_eq!(history.last(0, |_| true), [] as [&i32; 0]);
    }
}
