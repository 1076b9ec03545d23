//! Changes to an input: blind ones, and ones that know where CBOR and LEB128 keep their lengths.

/// Longest input; a frame's limit is far above what a decoder needs to be wrong.
const INPUT_BYTES_MAX: usize = 64 * 1024;

/// Bytes at which decoders decide: ends of ranges, CBOR heads with a length or a number behind them, breaks, tags, floats.
const TELLING_BYTES: [u8; 36] = [
    0x00, 0x01, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1f, 0x20, 0x38, 0x3b, 0x40, 0x58, 0x5b, 0x5f, 0x60, 0x78, 0x7f, 0x80, 0x81, 0x98, 0x9b,
    0x9f, 0xa0, 0xa1, 0xb8, 0xbb, 0xbf, 0xc2, 0xc3, 0xf6, 0xf7, 0xf9, 0xfb, 0xfe, 0xff,
];

/// Numbers at which arithmetic goes wrong.
const TELLING_NUMBERS: [u64; 16] = [
    0,
    1,
    0x17,
    0x18,
    0x7f,
    0x80,
    0xff,
    0x100,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    i64::MAX as u64,
    i64::MAX as u64 + 1,
    u64::MAX,
];

/// A small generator (splitmix64). The same seed gives the same walk.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let bits = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`; 0 when `bound` is 0.
    pub(crate) const fn below(&mut self, bound: usize) -> usize {
        ((self.roll() as u128 * bound as u128) >> 64) as usize
    }

    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }

    fn byte(&mut self) -> u8 {
        match self.below(2) {
            0 => self.pick(&TELLING_BYTES).copied().unwrap_or_default(),
            _ => self.roll() as u8,
        }
    }

    /// A range of at most 32 bytes that lies inside `len`.
    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.below(len + 1);
        let most = self.below(33);
        start..start + self.below(len - start + 1).min(most)
    }
}

/// One to eight changes to `input`; `other` is a second input, to splice with.
pub(crate) fn mutate(input: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    for _ in 0..=dice.below(8).min(dice.below(8)) {
        match dice.below(9) {
            0 => flip_bit(input, dice),
            1 => set_byte(input, dice),
            2 => insert(input, dice),
            3 => remove(input, dice),
            4 => input.truncate(dice.below(input.len() + 1)),
            5 => repeat(input, dice),
            6 => splice(input, other, dice),
            7 => set_number(input, dice),
            _ => set_cbor_length(input, dice),
        }
    }
    input.truncate(INPUT_BYTES_MAX);
}

fn flip_bit(input: &mut [u8], dice: &mut Dice) {
    let at = dice.below(input.len());
    if let Some(byte) = input.get_mut(at) {
        *byte ^= 1 << dice.below(8);
    }
}

fn set_byte(input: &mut [u8], dice: &mut Dice) {
    let at = dice.below(input.len());
    if let Some(byte) = input.get_mut(at) {
        *byte = dice.byte();
    }
}

fn insert(input: &mut Vec<u8>, dice: &mut Dice) {
    let at = dice.below(input.len() + 1);
    let bytes: Vec<u8> = (0..=dice.below(8)).map(|_| dice.byte()).collect();
    input.splice(at..at, bytes);
}

fn remove(input: &mut Vec<u8>, dice: &mut Dice) {
    let range = dice.range(input.len());
    input.drain(range);
}

/// Writes a piece of the input again: the same key twice, a list that grows, nesting that deepens.
fn repeat(input: &mut Vec<u8>, dice: &mut Dice) {
    let range = dice.range(input.len());
    let at = range.end;
    let times = 1 + dice.below(4) * dice.below(64);
    if let Some(piece) = input.get(range).map(|piece| piece.repeat(times)) {
        input.splice(at..at, piece);
    }
}

/// Takes the beginning of the input and the end of another.
fn splice(input: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    input.truncate(dice.below(input.len() + 1));
    input.extend(other.iter().skip(dice.below(other.len() + 1)));
}

/// Writes a number over the input: big-endian as CBOR has it, or LEB128 as a frame's length is.
fn set_number(input: &mut Vec<u8>, dice: &mut Dice) {
    let number = dice.pick(&TELLING_NUMBERS).copied().unwrap_or_default();
    let number = if dice.below(3) == 0 { number.wrapping_sub(dice.below(4) as u64) } else { number };
    let bytes = number.to_be_bytes();
    let bytes = match dice.below(5) {
        0 => leb128(number),
        1 => bytes.iter().skip(7).copied().collect(),
        2 => bytes.iter().skip(6).copied().collect(),
        3 => bytes.iter().skip(4).copied().collect(),
        _ => bytes.to_vec(),
    };
    let at = dice.below(input.len() + 1);
    let end = input.len().min(at + bytes.len());
    input.splice(at..end, bytes);
}

/// Makes a CBOR head of the byte at some place: the same major type, with another length behind it.
fn set_cbor_length(input: &mut Vec<u8>, dice: &mut Dice) {
    let at = dice.below(input.len());
    let number = dice.pick(&TELLING_NUMBERS).copied().unwrap_or_default();
    let (info, skipped) = match dice.below(5) {
        0 => (number as u8 % 24, 8),
        1 => (24, 7),
        2 => (25, 6),
        3 => (26, 4),
        _ => (27, 0),
    };
    let Some(head) = input.get(at).map(|byte| byte & 0b1110_0000 | info) else {
        return;
    };
    let length = number.to_be_bytes().into_iter().skip(skipped);
    input.splice(at..=at, std::iter::once(head).chain(length));
}

/// The shortest unsigned LEB128 of `number`.
pub(crate) fn leb128(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_inputs_and_every_change_stays_in_bounds() {
        let walk = |seed| {
            let mut dice = Dice::new(seed);
            let mut inputs = vec![Vec::new(), vec![0xa1, 0x00, 0x42, 0x01, 0x02]];
            for round in 0..2_000 {
                let mut input = inputs[round % inputs.len()].clone();
                mutate(&mut input, &[1, 2, 3], &mut dice);
                assert!(input.len() <= INPUT_BYTES_MAX);
                inputs.push(input);
            }
            inputs
        };
        let inputs = walk(7);
        assert_eq!(inputs, walk(7));
        assert_ne!(inputs, walk(8));
        let mut different = inputs.clone();
        different.sort();
        different.dedup();
        assert!(different.len() > 1_500, "only {} different inputs", different.len());
    }

    #[test]
    fn numbers_are_spelled_shortest() {
        for (number, bytes) in [(0, vec![0]), (0x7f, vec![0x7f]), (0x80, vec![0x80, 1]), (300, vec![0xac, 2])] {
            assert_eq!(leb128(number), bytes);
        }
    }
}
