//! Tests of volumes. Host.

mod arithmetic;
mod images;
mod lvm;
mod lvm_builder;
mod names;
mod tables;
