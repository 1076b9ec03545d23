//! `pusher_internal:subscription_count`: how many are in a channel, told to everybody in it. In a channel of very many this is told now and then
//! only: each change is otherwise a message for each of them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use mobo_core::limits;
use tokio::time::Instant;

/// Rooms of so many that they are told now and then, by their names.
#[derive(Debug, Default)]
pub(crate) struct Counting(Mutex<BTreeMap<String, Told>>);

#[derive(Debug)]
struct Told {
    at: Instant,
    /// It has changed since.
    is_stale: bool,
}

impl Counting {
    /// So many are in a room now: true if that is told at once.
    pub(super) fn changed(&self, room: &str, count: usize, now: Instant) -> bool {
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if count <= limits::SUBSCRIPTION_COUNT_EACH_MAX {
            rooms.remove(room);
            return true;
        }
        match rooms.get_mut(room) {
            Some(told) if now.saturating_duration_since(told.at) < limits::SUBSCRIPTION_COUNT_EVERY => {
                told.is_stale = true;
                false
            }
            Some(_) | None => {
                rooms.insert(room.to_owned(), Told { at: now, is_stale: false });
                true
            }
        }
    }

    /// The rooms whose names begin so, and that are to be told now.
    pub(super) fn due(&self, base: &str, now: Instant) -> Vec<String> {
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = rooms.iter_mut().filter(|(room, told)| {
            room.starts_with(base) && told.is_stale && now.saturating_duration_since(told.at) >= limits::SUBSCRIPTION_COUNT_EVERY
        });
        due.map(|(room, told)| {
            *told = Told { at: now, is_stale: false };
            room.clone()
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_told_now_and_then_and_of_the_last_change_in_any_case() {
        let (counting, now) = (Counting::default(), Instant::now());
        let (few, many) = (limits::SUBSCRIPTION_COUNT_EACH_MAX, limits::SUBSCRIPTION_COUNT_EACH_MAX + 1);
        let later = now + limits::SUBSCRIPTION_COUNT_EVERY;
        assert_eq!([counting.changed("a", few, now), counting.changed("a", few, now)], [true, true]);
        assert_eq!([counting.changed("a", many, now), counting.changed("b", many, now)], [true, true]);
        assert_eq!([counting.changed("a", many, now), counting.changed("a", many + 1, now)], [false, false]);
        assert_eq!(counting.due("", now), [""; 0]);
        assert_eq!((counting.due("a", later), counting.due("", later)), (vec!["a".to_owned()], Vec::new()), "nothing changed in b");
        assert!(!counting.changed("a", many, later));
        assert!(counting.changed("a", few, later), "few again");
        assert!(counting.0.lock().unwrap().keys().eq(["b"]));
    }
}
