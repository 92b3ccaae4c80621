//! Memory that stands for a drive's medium, with a volatile cache before it. Pure.

use std::ops::Range;

use crate::bus::Transfer;

/// A piece of the driver's memory: address on the bus, bytes.
pub type Piece = (u64, usize);

/// Blocks of one size.
#[derive(Clone, Debug)]
pub struct Medium {
    shift: u8,
    /// What is read.
    data: Vec<u8>,
    /// What a loss of power leaves.
    durable: Vec<u8>,
}

impl Medium {
    /// `blocks` of `1 << shift` bytes, all zero.
    pub fn new(shift: u8, blocks: u64) -> Self {
        let bytes = usize::try_from(blocks << shift).unwrap_or(0);
        Self { shift, data: vec![0; bytes], durable: vec![0; bytes] }
    }

    /// A block is of `1 << shift` bytes.
    pub const fn shift(&self) -> u8 {
        self.shift
    }

    /// Blocks that there are.
    pub const fn blocks(&self) -> u64 {
        (self.data.len() >> self.shift) as u64
    }

    /// What reads give, and what a loss of power leaves.
    pub fn contents(&self) -> (Vec<u8>, Vec<u8>) {
        (self.data.clone(), self.durable.clone())
    }

    /// More blocks, which are zero, or fewer.
    pub fn resize(&mut self, blocks: u64) {
        let bytes = usize::try_from(blocks << self.shift).unwrap_or(0);
        for contents in [&mut self.data, &mut self.durable] {
            // Vec::resize takes its time where nothing is optimised.
            let mut resized = vec![0; bytes];
            let kept = contents.len().min(bytes);
            resized.get_mut(..kept).unwrap_or_default().copy_from_slice(contents.get(..kept).unwrap_or_default());
            *contents = resized;
        }
    }

    /// Writes what the cache holds.
    pub fn flush(&mut self) {
        self.durable.copy_from_slice(&self.data);
    }

    /// The bytes of `blocks` from `first` on; none where they are not all there.
    pub fn range(&self, first: u64, blocks: u64) -> Option<Range<usize>> {
        let end = first.checked_add(blocks)?;
        let to = usize::try_from(end.checked_mul(1 << self.shift)?).ok()?;
        (to <= self.data.len()).then(|| (first << self.shift) as usize..to)
    }

    /// Zeroes bytes.
    pub fn zero(&mut self, range: Range<usize>) {
        self.data.get_mut(range).unwrap_or_default().fill(0);
    }

    /// The transfers that put bytes from `start` on into memory.
    pub fn read(&self, start: usize, pieces: &[Piece]) -> Vec<Transfer> {
        scatter(self.data.get(start..).unwrap_or_default(), pieces)
    }

    /// Writes what transfers brought to the bytes from `start` on: past the cache, or into it.
    pub fn write(&mut self, start: usize, batch: &[Transfer], durable: bool) {
        let mut at = start;
        for Transfer { data, .. } in batch {
            for to in [Some(&mut self.data), durable.then_some(&mut self.durable)].into_iter().flatten() {
                if let Some(place) = to.get_mut(at..at + data.len()) {
                    place.copy_from_slice(data);
                }
            }
            at += data.len();
        }
    }
}

/// The transfers that put `bytes` into memory; what `bytes` lack is left alone.
pub fn scatter(bytes: &[u8], pieces: &[Piece]) -> Vec<Transfer> {
    let mut rest = bytes;
    let mut batch = Vec::new();
    for (address, length) in pieces {
        let (piece, later) = rest.split_at(*length.min(&rest.len()));
        if !piece.is_empty() {
            batch.push(Transfer::write(*address, piece.to_vec()));
        }
        rest = later;
    }
    batch
}

/// The transfers that fetch what `pieces` hold.
pub fn gather(pieces: &[Piece]) -> Vec<Transfer> {
    pieces.iter().map(|(address, length)| Transfer::read(*address, *length)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_of_power_leaves_what_was_flushed_or_written_through() {
        let mut medium = Medium::new(9, 4);
        let bytes = |value| [Transfer::write(0, vec![value; 100]), Transfer::write(0, vec![value; 412])];
        medium.write(0, &bytes(1), false);
        medium.write(512, &bytes(2), true);
        let (data, durable) = medium.contents();
        assert_eq!((data[0], data[511], data[512], durable[511], durable[512]), (1, 1, 2, 0, 2));
        medium.flush();
        assert_eq!(medium.contents().1[..512], [1; 512]);
        medium.zero(0..512);
        medium.resize(1);
        assert_eq!((medium.blocks(), medium.contents()), (1, (vec![0; 512], vec![1; 512])));
    }

    #[test]
    fn blocks_that_are_not_all_there_have_no_range() {
        let medium = Medium::new(12, 4);
        assert_eq!(medium.range(1, 3), Some(4096..16384));
        assert_eq!((medium.range(1, 4), medium.range(u64::MAX, 1), medium.range(1 << 60, 1)), (None, None, None));
    }

    #[test]
    fn bytes_go_to_pieces_and_come_from_them() {
        let batch = scatter(&[1, 2, 3], &[(10, 2), (20, 4), (30, 1)]);
        assert_eq!(batch, [Transfer::write(10, vec![1, 2]), Transfer::write(20, vec![3])]);
        assert_eq!(gather(&[(10, 2), (20, 4)]), [Transfer::read(10, 2), Transfer::read(20, 4)]);
    }
}
