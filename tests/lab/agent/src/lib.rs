//! What the lab and its agent share: the frames of their channel, and the weight of dom0. Host.
#![forbid(unsafe_code)]

pub mod frame;

/// The weight under credit2 of dom0, and of the store's domain, where the store is in one; the others have 256.
///
/// libxl waits until a backend's state *is* `InitWait`. With xenstored in dom0, no two domains agree on more before dom0 has run; with the
/// store elsewhere, on one CPU, they are past it before `xl` looks, unless dom0 goes first. Much more than that, and a guest waits so long
/// behind a busy dom0 that Linux takes a vif that was unplugged and plugged again for the old one.
pub const DOM0_WEIGHT: u32 = 1024;
