//! A network driver domain. Floor 3.
#![no_std]
#![forbid(unsafe_code)]
