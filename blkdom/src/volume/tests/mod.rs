//! Tests of volumes. Host.

mod arithmetic;
mod lvm;
mod names;
mod stale;
mod tables;
