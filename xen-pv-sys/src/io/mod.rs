//! The headers below `io/`: what frontends and backends write to each other. Floor 0: no behaviour.

pub mod blkif;
pub mod console;
pub mod netif;
pub mod pciif;
pub mod ring;
pub mod xenbus;
pub mod xs_wire;
