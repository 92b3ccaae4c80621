//! A file of 32-bit registers: what each holds, without what reading or writing it does. Pure.

/// Where an access of `length` bytes begins, if registers are accessed so: 32 bits, or two registers at once as Linux writes the 82599's
/// FDIRHASH.
pub fn register_at(offset: u64, length: usize) -> Option<usize> {
    let aligned = matches!(length, 4 | 8) && offset.is_multiple_of(length as u64);
    usize::try_from(offset).ok().filter(|_| aligned)
}

/// Registers by their byte offset.
#[derive(Clone, Debug)]
pub struct Registers(Box<[u32]>);

impl Registers {
    /// All zero, `bytes` long.
    pub fn new(bytes: usize) -> Self {
        Self(vec![0; bytes / 4].into_boxed_slice())
    }

    /// What the register at `offset` holds; zero beyond the end.
    pub fn get(&self, offset: usize) -> u32 {
        self.0.get(offset / 4).copied().unwrap_or(0)
    }

    /// Sets the register at `offset`; ignored beyond the end.
    pub fn set(&mut self, offset: usize, value: u32) {
        if let Some(register) = self.0.get_mut(offset / 4) {
            *register = value;
        }
    }

    /// Whether one of `bits` is set.
    pub fn has(&self, offset: usize, bits: u32) -> bool {
        self.get(offset) & bits != 0
    }

    /// Sets `bits`.
    pub fn raise(&mut self, offset: usize, bits: u32) {
        self.set(offset, self.get(offset) | bits);
    }

    /// Clears `bits`.
    pub fn clear(&mut self, offset: usize, bits: u32) {
        self.set(offset, self.get(offset) & !bits);
    }

    /// Counts `more` in a counter of 32 bits that stays at its end.
    pub fn count(&mut self, offset: usize, more: u32) {
        self.set(offset, self.get(offset).saturating_add(more));
    }

    /// Counts `more` in a counter of 64 bits, its low half first.
    pub fn count_wide(&mut self, offset: usize, more: u64) {
        let value = self.wide(offset).wrapping_add(more);
        self.set(offset, value as u32);
        self.set(offset + 4, (value >> 32) as u32);
    }

    /// Two registers as one number, the low half first.
    pub fn wide(&self, offset: usize) -> u64 {
        u64::from(self.get(offset)) | u64::from(self.get(offset + 4)) << 32
    }

    /// All zero.
    pub fn clear_all(&mut self) {
        self.0.fill(0);
    }
}
