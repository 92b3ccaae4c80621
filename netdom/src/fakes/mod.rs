//! A frontend and a NIC for tests, fuzzers and benchmarks on a host, on the fakes of `split_driver`. Floor 3.

mod frontend;
mod nic;

pub use frontend::{Arrived, Frontend, Outgoing};
pub use nic::{FakeNic, SentFrame, Wire};
