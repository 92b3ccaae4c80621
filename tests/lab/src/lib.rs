//! Real Xen, a real dom0 and emulated devices under QEMU, on a plain machine and without root. Host.
//!
//! [`Lab::boot`] gives a dom0 that runs commands, [`direct::run`] boots one image in dom0's place. The dom0 root is made of
//! Debian packages that are downloaded and unpacked, never installed.
#![forbid(unsafe_code)]

mod apt;
pub mod cache;
pub mod channel;
pub mod cpio;
pub mod direct;
pub mod dom0;
pub mod emulator;
pub mod host;
pub mod host_image;
mod kernel;
pub mod machine;
pub mod modules;
pub mod more;
pub mod packages;
pub mod qmp;
pub mod root;
pub mod scratch;
mod suite;

pub use dom0::{GUEST_MEMORY, Guest, GuestConfig, Lab, LabConfig, NATIVE_CLOCK, Output};
pub use host_image::{HostConfig, HostImage};
pub use lab_agent::DOM0_WEIGHT;
pub use machine::{
    Clock, ControllerKind, DeviceModel, DeviceServer, Disk, DiskController, DiskMedium, Misbehaviour, Network, Nic,
    NicModel, SfpModule,
};
pub use packages::{GuestKind, Release, Row, StorePlace, Tree};
pub use root::Equipment;
