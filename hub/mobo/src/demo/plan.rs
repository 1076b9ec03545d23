//! What is written: made from a seed, with words that a person can read and values that the judge can tell apart.

use std::collections::BTreeSet;

use serde_json::json;

use super::collections::{NOTES, WORK_ORDERS};
use super::journal::Change;

/// Work orders that all three edit.
pub(super) const ORDERS: usize = 200;
/// Notes that all three edit.
pub(super) const NOTE_COUNT: usize = 20;
/// How often each node edits its third of the records while all is well.
const PASSES_TOGETHER: usize = 3;
/// How many sentences each node adds to each note while it is cut off.
const SENTENCES_APART: usize = 5;

/// The hub's third of the records.
pub(super) const HUB_THIRD: usize = 2;

const PEOPLE: [&str; 8] = ["Ada", "Grace", "Linus", "Edsger", "Barbara", "Ken", "Margaret", "Dennis"];
const STATES: [&str; 4] = ["open", "in progress", "waiting for parts", "done"];
const SITES: [&str; 4] = ["plant 1", "plant 4", "depot", "harbour"];
const TITLES: [&str; 5] = ["Check pump", "Replace seal of valve", "Grease bearing of fan", "Calibrate scale", "Inspect tank"];
const SENTENCES: [&str; 5] = ["Öl nachgefüllt ✓", "checked the seal", "heard a noise at full load", "ordered a spare", "temperature 71 °C"];

/// One request to come.
#[derive(Clone, Debug)]
pub(super) struct Task {
    /// True: make the record; false: change it.
    pub(super) creates: bool,
    /// Its collection.
    pub(super) collection: &'static str,
    /// Its id.
    pub(super) id: String,
    /// What is done to which fields.
    pub(super) fields: Vec<(String, Change)>,
}

/// A source of choices: the same seed, the same choices.
#[derive(Clone, Debug)]
pub(super) struct Choices(u64);

impl Choices {
    /// From a seed.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number below `below`; 0 when that is 0.
    pub(super) fn below(&mut self, below: usize) -> usize {
        // SplitMix64: a counter, well stirred.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % (below.max(1) as u64)).unwrap_or(0)
    }

    fn one_of<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        items.get(self.below(items.len())).copied()
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// What one node writes. Every value it makes names it and a number, so that no two are equal.
#[derive(Debug)]
pub(super) struct Author {
    name: &'static str,
    /// Which third of the records is its own, while all is well.
    third: usize,
    choices: Choices,
    number: u64,
}

impl Author {
    /// The author at a node; `third` is 0, 1 or 2.
    pub(super) fn new(name: &'static str, third: usize, seed: u64) -> Self {
        Self { name, third, choices: Choices::new(seed.wrapping_mul(3).wrapping_add(third as u64)), number: 0 }
    }

    /// Makes its third of all records.
    pub(super) fn creation(&mut self) -> Vec<Task> {
        let mut tasks = Vec::new();
        for n in self.own(ORDERS, 0) {
            let fields = vec![
                ("title".to_owned(), self.set(&TITLES)),
                ("status".to_owned(), self.set(&STATES)),
                ("assignee".to_owned(), self.set(&PEOPLE)),
                ("site".to_owned(), self.set(&SITES)),
                self.hours(),
            ];
            tasks.push(Task { creates: true, collection: WORK_ORDERS.name, id: order(n), fields });
        }
        for n in self.own(NOTE_COUNT, 0) {
            let fields = vec![self.sentence(), self.tag(), self.meta()];
            tasks.push(Task { creates: true, collection: NOTES.name, id: note(n), fields });
        }
        self.choices.shuffle(&mut tasks);
        tasks
    }

    /// Changes another third of the records, several times each.
    pub(super) fn together(&mut self) -> Vec<Task> {
        let mut tasks = Vec::new();
        for _ in 0..PASSES_TOGETHER {
            let mut pass = Vec::new();
            for n in self.own(ORDERS, 1) {
                let fields = vec![("status".to_owned(), self.set(&STATES)), self.hours()];
                pass.push(Task { creates: false, collection: WORK_ORDERS.name, id: order(n), fields });
            }
            for n in self.own(NOTE_COUNT, 1) {
                let fields = vec![self.sentence(), self.tag()];
                pass.push(Task { creates: false, collection: NOTES.name, id: note(n), fields });
            }
            self.choices.shuffle(&mut pass);
            tasks.extend(pass);
        }
        tasks
    }

    /// Changes all of them, while others do the same and nobody knows of it.
    pub(super) fn apart(&mut self) -> Vec<Task> {
        let mut tasks = Vec::new();
        for n in 0..ORDERS {
            let mut fields = vec![("assignee".to_owned(), self.set(&PEOPLE)), self.hours()];
            // One field that only this node touches: it must stay, whoever wins the others.
            match self.third {
                HUB_THIRD => {}
                1 => fields.push(("title".to_owned(), self.set(&TITLES))),
                _ => fields.push(("site".to_owned(), self.set(&SITES))),
            }
            tasks.push(Task { creates: false, collection: WORK_ORDERS.name, id: order(n), fields });
        }
        for n in 0..NOTE_COUNT {
            for sentence in 0..SENTENCES_APART {
                let mut fields = vec![self.sentence(), self.tag()];
                if sentence == 0 {
                    fields.push(self.meta());
                }
                tasks.push(Task { creates: false, collection: NOTES.name, id: note(n), fields });
            }
        }
        self.choices.shuffle(&mut tasks);
        tasks
    }

    /// Reports progress on all work orders, still cut off. The hub has nothing to report.
    pub(super) fn report(&mut self) -> Vec<Task> {
        let orders = if self.third == HUB_THIRD { 0 } else { ORDERS };
        let report = |n| {
            let fields = vec![("status".to_owned(), self.set(&STATES)), self.hours()];
            Task { creates: false, collection: WORK_ORDERS.name, id: order(n), fields }
        };
        let mut tasks: Vec<Task> = (0..orders).map(report).collect();
        self.choices.shuffle(&mut tasks);
        tasks
    }

    /// Its third of `count` things, `turn` thirds on.
    fn own(&self, count: usize, turn: usize) -> impl Iterator<Item = usize> + use<> {
        let third = (self.third + turn) % 3;
        (0..count).filter(move |n| n % 3 == third)
    }

    fn mark(&mut self) -> String {
        self.number += 1;
        format!("{} #{}", self.name, self.number)
    }

    fn set(&mut self, words: &[&str]) -> Change {
        let word = self.choices.one_of(words).unwrap_or_default();
        Change::Set(json!(format!("{word} ({})", self.mark())))
    }

    fn hours(&mut self) -> (String, Change) {
        ("hours".to_owned(), Change::Add(1 + i64::try_from(self.choices.below(8)).unwrap_or(0)))
    }

    fn sentence(&mut self) -> (String, Change) {
        let words = self.choices.one_of(&SENTENCES).unwrap_or_default();
        ("body".to_owned(), Change::Insert(format!("{words} [{}]", self.mark())))
    }

    fn tag(&mut self) -> (String, Change) {
        ("tags".to_owned(), Change::Push(self.mark()))
    }

    fn meta(&mut self) -> (String, Change) {
        let (by, number) = (self.mark(), self.choices.below(100));
        ("meta".to_owned(), Change::Set(json!({ "by": by, "reading": { "bar": number, "ok": number < 90, "history": [number, 3.5] } })))
    }
}

/// Places between the sentences of a text, as counts of characters: none lies inside a sentence.
pub(super) fn gaps(text: &str) -> Vec<usize> {
    let ends = text.match_indices("] ").filter_map(|(at, end)| text.get(..at + end.len()));
    BTreeSet::from_iter(ends.map(|before| before.chars().count()).chain([0])).into_iter().collect()
}

fn order(n: usize) -> String {
    format!("wo-{n:03}")
}

fn note(n: usize) -> String {
    format!("note-{n:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_write_enough_and_never_the_same_value() {
        let (mut written, mut apart, mut values) = (0, 0, BTreeSet::new());
        let mut made = BTreeSet::new();
        for (third, name) in ["device-1", "device-2", "hub"].into_iter().enumerate() {
            let mut author = Author::new(name, third, 7);
            let rounds = [author.creation(), author.together(), author.apart(), author.report()];
            made.extend(rounds[0].iter().map(|task| task.id.clone()));
            written += rounds.iter().map(Vec::len).sum::<usize>();
            apart += rounds[2].len() + rounds[3].len();
            for (_, change) in rounds.iter().flatten().flat_map(|task| &task.fields) {
                match change {
                    Change::Add(number) => assert!(*number > 0),
                    Change::Set(_) | Change::Insert(_) | Change::Push(_) => {
                        assert!(values.insert(format!("{change:?}")), "{change:?} twice")
                    }
                }
            }
        }
        assert_eq!(made.len(), ORDERS + NOTE_COUNT);
        // One in two hundred may stay without an answer when a device is killed.
        assert!(written >= 2_010 && apart >= 510, "{written}, {apart}");
    }

    #[test]
    fn the_same_seed_makes_the_same_choices() {
        let tasks = |seed| format!("{:?}", Author::new("hub", HUB_THIRD, seed).apart());
        assert_eq!(tasks(1), tasks(1));
        assert_ne!(tasks(1), tasks(2));
    }

    #[test]
    fn gaps_lie_between_sentences() {
        assert_eq!(gaps(""), [0]);
        assert_eq!(gaps("Öl ✓ [hub #1] a [x #2] "), [0, 14, 23]);
    }
}
