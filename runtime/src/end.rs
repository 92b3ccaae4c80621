//! The end of the domain, and what it says then. Floor 2.
//!
//! Unsafe because a hypercall ends it.

use crate::console;
use crate::environment::environment;
use crate::hypercall::{self, number};
use crate::local::Local;
use core::cell::Cell;
use core::fmt::{self, Write};
use xen_pv_sys::sched::SCHEDOP_SHUTDOWN;

/// Whether a report has begun.
static REPORTING: Local<Cell<bool>> = Local::new(Cell::new(false));

/// How the domain ends (`SHUTDOWN_*`, `sched.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Exit {
    /// Cleanly, for good.
    PowerOff = 0,
    /// Cleanly, to be started again.
    Reboot = 1,
    /// By a fault of ours: `on_crash` of the domain's config applies.
    Crash = 3,
}

/// Ends the domain at once (`SCHEDOP_shutdown`). What the console has not yet taken is pushed out first as far as possible.
pub fn exit(reason: Exit) -> ! {
    console::flush_for_exit();
    let mut argument = reason as u32;
    loop {
        // SAFETY: `struct sched_shutdown` is one u32; the domain does not run on.
        let _ = unsafe { hypercall::operation::<{ number::SCHED_OP }, u32>(SCHEDOP_SHUTDOWN, &mut argument) };
    }
}

/// How a dying domain writes: past the buffer, waiting for the daemon for a bounded time.
pub(crate) struct Emergency;

impl Emergency {
    /// Pushes out what is buffered first. A fault or panic inside a report ends the domain without another.
    pub(crate) fn enter() -> Self {
        if REPORTING.replace(true) {
            exit(Exit::Crash);
        }
        console::flush_for_exit();
        Self
    }
}

impl Write for Emergency {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive('\n') {
            match piece.strip_suffix('\n') {
                Some(line) if environment().console.is_some() => {
                    console::push(line.as_bytes());
                    console::push(b"\r\n");
                }
                _ => console::push(piece.as_bytes()),
            }
        }
        Ok(())
    }
}
