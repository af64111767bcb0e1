//! Damage: bytes flipped, set, cut, repeated, moved or torn off.

use std::ops::Range;

/// xorshift64*: the same numbers from the same seed everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self((seed ^ 0x9e37_79b9_7f4a_7c15).max(1))
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16;
        (number % limit.max(1) as u64) as usize
    }
}

/// Bytes that decide something in one format or another.
const TELLING: &[u8] = b"\0\x01\x02\x7f\x80\xff\"{}[],:-0189.RQbtuesq(h)/\n ";

/// The places of `length` bytes that are not in `spared`.
pub fn places(length: usize, spared: &[Range<usize>]) -> Vec<usize> {
    let is_spared = |at: &usize| spared.iter().any(|range| range.contains(at));
    (0..length).filter(|at| !is_spared(at)).collect()
}

/// `bytes` with one to four wounds at some of `places`.
pub fn damaged(bytes: &[u8], places: &[usize], random: &mut Random) -> Vec<u8> {
    let count = 1 + random.below(4) * random.below(2);
    let mut wounds: Vec<usize> = (0..count).map(|_| random.below(places.len())).collect();
    // From behind, so that no wound moves the place of the next.
    wounds.sort_unstable_by(|a, b| b.cmp(a));
    wounds.dedup();
    let mut damaged = bytes.to_vec();
    for first in wounds {
        let length = 1 << random.below(7);
        let together = places[first..].iter().zip(places[first]..).take(length);
        let length = together.take_while(|(place, at)| *place == at).count();
        wound(&mut damaged, places[first], length, random);
    }
    damaged
}

/// Damages at most `length` bytes from `at` on.
fn wound(bytes: &mut Vec<u8>, at: usize, length: usize, random: &mut Random) {
    if at + length > bytes.len() || length == 0 {
        return;
    }
    let part = bytes[at..at + length].to_vec();
    match random.below(24) {
        0..6 => bytes[at] ^= 1 << random.below(8),
        6..12 => bytes[at] = TELLING[random.below(TELLING.len())],
        12..14 => bytes[at] = random.below(256) as u8,
        14..17 => drop(bytes.splice(at..at + length, [])),
        17..20 => drop(bytes.splice(at..at, part)),
        20 => {
            let to = at + random.below(length);
            bytes.swap(at, to);
        }
        21 => bytes[at..at + length].fill(TELLING[random.below(TELLING.len())]),
        22 => {
            let from = at.saturating_sub(random.below(200));
            bytes.copy_within(from..from + length, at);
        }
        _ => {
            let keep = random.below(4) > 0;
            bytes.truncate(if keep { bytes.len() } else { at });
        }
    }
}
