//! Fakes of the traits for tests, fuzzers and benchmarks on a host: they check what Xen checks, and note what a driver forgot. Floor 1.
//!
//! [`FakeXen`] is the hypervisor with its domains ([`FakeDomain`]), local packet pages ([`FakePages`]) and DMA memory
//! ([`FakeDmaMemory`]). [`FakeStore`] is the xenstore, with a [`FakeConnection`] a domain. [`FakeClock`] is moved by hand, [`Tasks`] step
//! when told. In [`peer`], a peer acts between two steps of ours; in [`device`], a
//! device does. Build one per test; for a fuzzer, build it once and reuse pages.
//!
//! Fakes are test code: they panic where the test itself is wrong, never on what the code under test does.

pub mod device;
mod domain;
mod hypervisor;
mod memory;
pub mod peer;
mod region;
mod store;
mod tasks;

pub use domain::FakeDomain;
pub use hypervisor::{FakeChannel, FakeKeptPage, FakeRing, FakeXen, Live, Violation};
pub use memory::{FakeClosedDevice, FakeDma, FakeDmaMemory, FakePages, closed};
pub use region::GuestMemory;
pub use store::{FakeConnection, FakeStore, FakeWatch, StoreQuotas};
pub use tasks::{FakeClock, Tasks, block_on};

#[cfg(test)]
mod tests;
