//! Why there is no restart. Pure. Floor 2.

/// Why there is no restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing was registered with `keep`, and no earlier life left a box.
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

impl core::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotKept => formatter.write_str("the image registered no state"),
            Self::TooMany(value) => write!(formatter, "{value} restarts in a row are the limit"),
            Self::BoxFull(value) => write!(formatter, "the state does not fit into {value} bytes"),
            Self::Inconsistent => formatter.write_str("the image has no consistent state"),
            Self::FailedAgain => formatter.write_str("the last life failed while it ended"),
            Self::NoOldImage => formatter.write_str("there is no old image"),
        }
    }
}

impl core::error::Error for Refusal {}
