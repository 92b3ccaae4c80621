//! blkback: the backend half of `io/blkif.h`. Pure but for the traits of `split_driver`. Floor 3.
