//! Why there is no restart. Pure. Floor 2.

/// Why there is no restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing was registered with [`keep`], and no earlier life left a box.
    NotKept,
    /// So many restarts in a row there were, which is the limit.
    TooMany(u32),
    /// The box has room for so many bytes, which is less than the state takes.
    BoxFull(usize),
    /// The image has no consistent state to write.
    Inconsistent,
    /// The last life failed while it ended.
    FailedAgain,
    /// There is no old image to come back.
    NoOldImage,
}
