//! blkback: the backend half of `io/blkif.h`. Pure but for the traits of `split_driver`. Floor 3.
//!
//! [`request`] reads what a guest sends; the requests' way to the disks and back is the data path's.

pub mod request;
