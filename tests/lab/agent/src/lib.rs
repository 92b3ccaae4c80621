//! What the lab and its agent share: the frames of their channel. Host.
#![forbid(unsafe_code)]

pub mod frame;
