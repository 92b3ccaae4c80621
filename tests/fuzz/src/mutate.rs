//! Random numbers from a seed, and inputs made from other inputs. Pure. Host.

use crate::INPUT_BYTES;

/// xorshift64*: fast, repeatable, and good enough for this.
pub struct Random(u64);

impl Random {
    /// From any seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`; 0 where that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next_u64()) * end as u128) >> 64) as usize
    }
}

/// Values that bugs like.
const EDGES: [u16; 16] = [0, 1, 2, 13, 14, 17, 18, 127, 128, 255, 256, 4095, 4096, 0x7fff, 0x8000, 0xffff];

/// Makes an input from those of `corpus`, or anew.
pub fn mutate(random: &mut Random, corpus: &[Vec<u8>], input: &mut Vec<u8>) {
    input.clear();
    match corpus.get(random.below(corpus.len())) {
        Some(parent) if random.below(16) > 0 => input.extend_from_slice(parent),
        _ => {
            let length = 8 + random.below(INPUT_BYTES / 2);
            input.extend((0..length).map(|_| random.next_u64() as u8));
        }
    }
    for _ in 0..=random.below(6) {
        change(random, corpus, input);
    }
    input.truncate(INPUT_BYTES);
}

fn change(random: &mut Random, corpus: &[Vec<u8>], input: &mut Vec<u8>) {
    let at = random.below(input.len());
    match random.below(8) {
        0 => flip(random, input, at),
        1 => put(input, at, &[random.next_u64() as u8]),
        2 => put(input, at, &EDGES[random.below(EDGES.len())].to_le_bytes()),
        3 => input.insert(at, random.next_u64() as u8),
        4 => {
            let end = (at + 1 + random.below(16)).min(input.len());
            input.drain(at..end);
        }
        5 => {
            let end = (at + 1 + random.below(32)).min(input.len());
            let piece = input[at..end].to_vec();
            let to = random.below(input.len() + 1);
            input.splice(to..to, piece);
        }
        6 => {
            // The head of this one, the tail of another.
            if let Some(other) = corpus.get(random.below(corpus.len())) {
                input.truncate(at);
                input.extend_from_slice(&other[random.below(other.len())..]);
            }
        }
        _ => {
            let byte = random.below(9) as i8 - 4;
            if let Some(place) = input.get_mut(at) {
                *place = place.wrapping_add_signed(byte);
            }
        }
    }
}

fn flip(random: &mut Random, input: &mut [u8], at: usize) {
    if let Some(byte) = input.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
}

fn put(input: &mut [u8], at: usize, bytes: &[u8]) {
    for (place, byte) in input.iter_mut().skip(at).zip(bytes) {
        *place = *byte;
    }
}
