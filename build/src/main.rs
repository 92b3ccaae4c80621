//! `cargo xtask`. Host.

fn main() {}
