//! What the domain was started with: the facts of `start_info`. Floor 2.

use xen_pv_sys::{Mfn, Port};

/// What Xen and the toolstack told the domain at its start (`start_info`, `xen.h`).
#[derive(Clone, Copy, Debug)]
pub struct Environment {
    /// The kernel command line (`extra=` of the domain's config), cut at the first byte that is not ASCII.
    pub command_line: &'static str,
    /// `start_info.magic`, for example `xen-3.0-x86_64`.
    pub magic: &'static str,
    /// Pages the domain was given.
    pub pages: u64,
    /// `SIF_*` flags.
    pub flags: u32,
    /// The xenstore ring's frame and port; `None` where no store was set up (a test image run as dom0).
    pub store: Option<(Mfn, Port)>,
    /// The console ring's frame and port; `None` where the domain is dom0.
    pub console: Option<(Mfn, Port)>,
}

/// The environment, from anywhere.
pub fn environment() -> Environment {
    todo!()
}

/// The raw command line.
pub fn command_line() -> &'static str {
    environment().command_line
}
