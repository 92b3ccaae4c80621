//! Tests of volumes. Host.

mod arithmetic;
mod images;
mod names;
mod tables;
