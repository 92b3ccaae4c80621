//! Tests of volumes. Host.

mod arithmetic;
mod lvm;
mod members;
mod names;
mod stale;
mod tables;
