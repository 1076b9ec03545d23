//! A cache with a bound on its size, on the age of what it holds, and with an account of what it is good for.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Instant;

/// Values that are dear to find and may be a little old. The one that was put in first goes first when there is no room.
#[derive(Debug)]
pub struct Cache<K, V> {
    entries: BTreeMap<K, (Instant, u64, V)>,
    /// Keys by the order in which they were put in.
    order: BTreeMap<u64, K>,
    next: u64,
    len_max: usize,
    ttl: Duration,
    counts: CacheCounts,
}

/// What a cache was asked since it was made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CacheCounts {
    /// Found.
    pub hits: u64,
    /// Not found, or too old.
    pub misses: u64,
    /// Dropped for want of room.
    pub evicted: u64,
}

impl<K: Clone + Ord, V> Cache<K, V> {
    /// An empty cache for at most `len_max` values, each for at most `ttl`.
    #[must_use]
    pub const fn new(len_max: usize, ttl: Duration) -> Self {
        let counts = CacheCounts { hits: 0, misses: 0, evicted: 0 };
        Self { entries: BTreeMap::new(), order: BTreeMap::new(), next: 0, len_max, ttl, counts }
    }

    /// The value of a key, unless it is too old.
    pub fn get(&mut self, now: Instant, key: &K) -> Option<&V> {
        let old = self.entries.get(key).is_some_and(|(since, ..)| now.since(*since) >= self.ttl);
        if old {
            self.remove(key);
        }
        match self.entries.get(key) {
            Some((_, _, value)) => {
                self.counts.hits += 1;
                Some(value)
            }
            None => {
                self.counts.misses += 1;
                None
            }
        }
    }

    /// Puts a value in; its time begins now.
    pub fn put(&mut self, now: Instant, key: K, value: V) {
        if self.len_max == 0 {
            return;
        }
        self.remove(&key);
        while self.entries.len() >= self.len_max {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.entries.remove(&oldest);
            self.counts.evicted += 1;
        }
        self.next += 1;
        self.order.insert(self.next, key.clone());
        self.entries.insert(key, (now, self.next, value));
    }

    /// Forgets one.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let (_, number, value) = self.entries.remove(key)?;
        self.order.remove(&number);
        Some(value)
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
    }

    /// How many it holds, old ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What it was asked so far.
    #[must_use]
    pub const fn counts(&self) -> CacheCounts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::default().after(Duration::from_secs(seconds))
    }

    #[test]
    fn it_is_bounded_in_size_and_age_and_counts() {
        let mut cache = Cache::new(2, Duration::from_secs(5));
        cache.put(at(0), "a", 1);
        cache.put(at(1), "b", 2);
        assert_eq!((cache.get(at(4), &"a").copied(), cache.get(at(5), &"a").copied()), (Some(1), None));
        cache.put(at(5), "a", 3);
        cache.put(at(5), "c", 4);
        assert_eq!((cache.len(), cache.get(at(5), &"b").copied()), (2, None), "the oldest went");
        cache.put(at(5), "a", 5);
        assert_eq!(
            (cache.get(at(5), &"a").copied(), cache.get(at(5), &"c").copied()),
            (Some(5), Some(4)),
            "a new value of an old key costs nobody's place"
        );
        assert_eq!(cache.counts(), CacheCounts { hits: 3, misses: 2, evicted: 1 });
        assert_eq!((cache.remove(&"a"), cache.remove(&"a"), cache.len()), (Some(5), None, 1));
        cache.clear();
        assert!(cache.is_empty());
        let mut none = Cache::new(0, Duration::MAX);
        none.put(at(0), "a", 1);
        assert_eq!(none.get(at(0), &"a"), None);
    }

    #[test]
    fn a_thousand_keys_leave_no_trace() {
        let mut cache = Cache::new(10, Duration::from_secs(1));
        for n in 0..1_000_u64 {
            cache.put(at(n), n % 37, n);
            let _ = cache.get(at(n + 1), &(n % 37));
        }
        assert!(cache.len() <= 10 && cache.order.len() == cache.len());
    }
}
