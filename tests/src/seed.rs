//! Randomness that can be played again.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// The environment variable that fixes the seed of every random test.
pub const VARIABLE: &str = "MOBO_SEED";

/// The seed of one test. Prints itself when the test fails, so keep it in a variable until the end of the test.
#[derive(Debug)]
pub struct Seed(u64);

impl Seed {
    /// The seed in `MOBO_SEED`, else a fresh one.
    ///
    /// # Panics
    ///
    /// When the variable holds something other than a decimal number.
    #[must_use]
    pub fn from_env() -> Self {
        match std::env::var(VARIABLE) {
            Ok(text) => Self(text.parse().unwrap_or_else(|_| panic!("{VARIABLE} is {text:?}: give it a decimal number"))),
            Err(_) => Self(RandomState::new().build_hasher().finish()),
        }
    }

    /// A seed that is the same in every run.
    #[must_use]
    pub const fn fixed(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.0
    }

    /// A generator that starts from this seed: the same one at each call.
    #[must_use]
    pub const fn rng(&self) -> Rng {
        Rng(self.0)
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed of this run: {VARIABLE}={}", self.0);
        }
    }
}

/// A small generator (splitmix64): good enough to shuffle a schedule, never for secrets.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator that starts from a number.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator of its own, for somebody who draws whenever they like.
    #[must_use]
    pub const fn fork(&mut self) -> Self {
        Self(self.next_u64())
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number in `0..bound`; 0 when `bound` is 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        ((self.next_u64() as u128 * bound as u128) >> 64) as u64
    }

    /// True in `percent` of 100 cases.
    pub const fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `items`.
    ///
    /// # Panics
    ///
    /// When there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let index = self.below(items.len() as u64) as usize;
        items.get(index).expect("there is something to pick from")
    }

    /// Puts `items` in a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let bits = self.next_u64().to_le_bytes();
            for (byte, random) in chunk.iter_mut().zip(bits) {
                *byte = random;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_schedule() {
        let draw = |seed: &Seed| {
            let mut rng = seed.rng();
            let mut order: Vec<u32> = (0..20).collect();
            rng.shuffle(&mut order);
            let mut bytes = [0; 13];
            rng.fill(&mut bytes);
            (order, bytes, rng.below(1_000), rng.chance(50), *rng.pick(&[1, 2, 3]))
        };
        let seed = Seed::from_env();
        assert_eq!(draw(&seed), draw(&Seed::fixed(seed.number())));
        assert_ne!(draw(&Seed::fixed(1)), draw(&Seed::fixed(2)));
        assert_eq!(Seed::fixed(7).rng().below(0), 0);
    }
}
