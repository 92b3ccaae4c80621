//! A watchdog on the second vCPU: a loop that takes no turn of the executor ends the life, as a failure does. Floor 2.
//!
//! Upcalls are masked while Rust runs, so only a non-maskable interrupt ends an endless loop. vCPU 1 sends it. It runs no Rust, but a loop of
//! assembly in a page of its own, beside a page of its data. Both outlive lives and exchanges of the image, as the loop itself does: Xen
//! starts a vCPU once in a domain's life.
//!
//! ```text
//! vCPU 0: each turn of the executor, each task's step, each stretch of a busy wait: beats
//! vCPU 1: four times a second: has vCPU 0 beaten? -- no, and it has *run* for LIMIT since: NMI, and Xen's watchdog is set
//!                                                  -- yes: Xen's watchdog is stopped
//! ```
//!
//! The time is vCPU 0's own (`RUNSTATE_running`): a domain that waits, that is paused, or that gets no CPU on a busy host does not hang. Xen's
//! watchdog (`SCHEDOP_watchdog`) is the last resort, for a life that hangs where Xen holds NMIs back, as at the end of one that an NMI ended:
//! then Xen shuts the domain down (`on_watchdog`).
//!
//! Unsafe because it is assembly, and because pages are given to another vCPU.

use crate::events;
use crate::hypercall::{self, number};
use crate::layout;
use crate::local::Local;
use crate::memory::tables::{self, Entry};
use crate::memory::{self, frames};
use crate::record::record;
use alloc::boxed::Box;
use core::arch::global_asm;
use core::cell::Cell;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};
use split_driver::hypervisor::XenError;
use split_driver::time::Duration;
use xen_pv_sys::arch_x86::{self, FLAT_KERNEL_CS, FLAT_KERNEL_SS, VcpuContextFlags, VcpuGuestContext};
use xen_pv_sys::event_channel::{AllocUnbound, EVTCHNOP_ALLOC_UNBOUND};
use xen_pv_sys::sched::{Poll, SCHEDOP_POLL, SCHEDOP_WATCHDOG, Watchdog};
use xen_pv_sys::vcpu::{
    RunstateInfo, VCPUOP_GET_RUNSTATE_INFO, VCPUOP_INITIALISE, VCPUOP_IS_UP, VCPUOP_SEND_NMI, VCPUOP_UP,
};
use xen_pv_sys::{DomainId, PAGE_SIZE, Pfn, Port, errno};
use zerocopy::FromZeros;

/// How long the vCPU may run without a beat.
pub const LIMIT: Duration = Duration::from_secs(1);
/// How often the other one looks.
const PERIOD: Duration = Duration::from_millis(250);
/// Seconds after a warning, without a beat, to the domain's end.
const LAST_RESORT: u32 = 10;

global_asm!(
    r#"
    # What vCPU 1 runs: %rbx is the `Watch`. It runs as a copy in a page of its own, whatever image is mapped meanwhile, but for the hypercall
    # page. A call that fails where none can is a fault that nobody handles: Xen crashes the domain, and shows the registers.
    .section .text.oxidom_watch, "ax", @progbits
    .globl oxidom_watch
    .globl oxidom_watch_end
oxidom_watch:
    # Waits. It was woken just now, so `state_entry_time` is the time; where it was not, the last time is what goes on.
    mov $1, %esi                # vCPU 1
    lea {own}(%rbx), %rdx
    call 7f
    mov {own} + {entered}(%rbx), %rax
    cmp {timeout}(%rbx), %rax
    cmovb {timeout}(%rbx), %rax
    add ${period}, %rax
    mov %rax, {timeout}(%rbx)
    mov ${poll_operation}, %edi
    lea {poll}(%rbx), %rsi
    call 8f
    # Looks.
    xor %esi, %esi              # vCPU 0
    lea {watched}(%rbx), %rdx
    call 7f
    mov {beat}(%rbx), %rax
    mov {watched} + {running}(%rbx), %rcx
    cmp {seen}(%rbx), %rax
    jne 3f
    sub {since}(%rbx), %rcx
    cmp ${limit}, %rcx
    jb  oxidom_watch
    # One warning for a beat: a second one would wait for the `iret` that the new life begins with.
    cmp {warned_at}(%rbx), %rax
    je  oxidom_watch
    mov %rax, {warned_at}(%rbx)
    lock incq {warnings}(%rbx)
    cmpl $0, {last_resort}(%rbx)
    jne 2f
    mov ${seconds}, %ecx
    call 6f
    mov %eax, {last_resort}(%rbx)
2:  mov ${nmi_operation}, %edi
    xor %esi, %esi              # vCPU 0
    xor %edx, %edx
    mov $oxidom_hypercall_page + {vcpu_op} * 32, %eax
    call 9f
    jmp oxidom_watch
3:  # Sound.
    mov %rax, {seen}(%rbx)
    mov %rcx, {since}(%rbx)
    cmpl $0, {last_resort}(%rbx)
    je  oxidom_watch
    xor %ecx, %ecx
    call 6f
    movl $0, {last_resort}(%rbx)
    jmp oxidom_watch
6:  # Sets Xen's watchdog to %ecx seconds.
    mov %ecx, {last_resort} + 4(%rbx)
    lea {last_resort}(%rbx), %rsi
    mov ${watchdog_operation}, %edi
    jmp 8f
7:  # How long vCPU %esi has run, to %rdx.
    mov ${runstate_operation}, %edi
    mov $oxidom_hypercall_page + {vcpu_op} * 32, %eax
    jmp 9f
8:  mov $oxidom_hypercall_page + {sched_op} * 32, %eax
9:  call *%rax
    test %rax, %rax
    js  1f
    ret
1:  ud2
oxidom_watch_end:
    .text
"#,
    own = const offset_of!(Watch, own),
    watched = const offset_of!(Watch, watched),
    entered = const offset_of!(RunstateInfo, state_entry_time),
    running = const offset_of!(RunstateInfo, time),
    poll = const offset_of!(Watch, poll),
    timeout = const offset_of!(Watch, poll) + offset_of!(Poll, timeout),
    beat = const offset_of!(Watch, counters) + offset_of!(Counters, beat),
    warnings = const offset_of!(Watch, counters) + offset_of!(Counters, warnings),
    seen = const offset_of!(Watch, seen),
    since = const offset_of!(Watch, since),
    warned_at = const offset_of!(Watch, warned_at),
    last_resort = const offset_of!(Watch, last_resort),
    period = const PERIOD.as_nanos(),
    limit = const LIMIT.as_nanos(),
    seconds = const LAST_RESORT,
    poll_operation = const SCHEDOP_POLL,
    watchdog_operation = const SCHEDOP_WATCHDOG,
    runstate_operation = const VCPUOP_GET_RUNSTATE_INFO,
    nmi_operation = const VCPUOP_SEND_NMI,
    vcpu_op = const number::VCPU_OP,
    sched_op = const number::SCHED_OP,
    options(att_syntax)
);

unsafe extern "C" {
    fn oxidom_watch();
    static oxidom_watch_end: u8;
}

/// What both vCPUs use.
#[repr(C)]
struct Counters {
    /// Changes as long as vCPU 0 is sound.
    beat: AtomicU64,
    /// NMIs that vCPU 1 has sent.
    warnings: AtomicU64,
    /// Those that a report has named.
    reported: AtomicU64,
}

/// The beginning of the data page; the stack is at its end. All but the counters is vCPU 1's alone.
#[repr(C)]
struct Watch {
    counters: Counters,
    /// The last beat, and how long vCPU 0 had run when it was seen.
    seen: u64,
    /// See `seen`.
    since: u64,
    /// The beat that a warning was for.
    warned_at: u64,
    poll: Poll,
    /// What is polled: a port without a sender. A wait for none would end with each event of the domain.
    port: Port,
    padding: u32,
    /// Xen's watchdog; `id` is 0 where it is not set.
    last_resort: Watchdog,
    own: RunstateInfo,
    watched: RunstateInfo,
}

const _: () = assert!(offset_of!(Watchdog, id) == 0 && offset_of!(Watchdog, timeout) == 4);

/// Those of this domain's watchdog, where it has one.
static COUNTERS: Local<Cell<Option<&'static Counters>>> = Local::new(Cell::new(None));

/// Says that the domain is sound: by each turn of the executor, and by what takes long on purpose without one.
pub fn beat() {
    if let Some(counters) = COUNTERS.get() {
        // vCPU 1 only reads it.
        counters.beat.store(counters.beat.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}

/// Whether there is a watchdog.
pub fn is_there() -> bool {
    COUNTERS.get().is_some()
}

/// Whether the watchdog has sent an NMI that no report has named yet.
pub(crate) fn has_warned() -> bool {
    COUNTERS.get().is_some_and(|counters| {
        let warnings = counters.warnings.load(Ordering::Relaxed);
        counters.reported.swap(warnings, Ordering::Relaxed) != warnings
    })
}

/// Finds the watchdog of an earlier life.
pub(crate) fn resume() {
    if let Some(code) = record().watchdog.get().checked_sub(1) {
        set_counters(Pfn(code + 1));
        beat();
    }
}

fn set_counters(data: Pfn) {
    // SAFETY: the watchdog's page: mapped, and no one else's, for as long as the domain lives. Every field is an atomic.
    COUNTERS.set(Some(unsafe { &*(layout::address_of(data) as *const Counters) }));
}

/// Starts it, in the first life of a domain that has a second vCPU.
pub(crate) fn start() {
    if record().is_again() {
        return;
    }
    // SAFETY: takes no argument.
    let up = unsafe { hypercall::call4::<{ number::VCPU_OP }>(VCPUOP_IS_UP, 1, 0, 0) };
    match hypercall::check(up).and_then(|_| make()) {
        Ok(()) => log::debug!("watchdog: {LIMIT:?} of CPU time without a turn end a life"),
        Err(XenError::Errno(errno::ENOENT)) => {
            log::info!("no watchdog: it takes a second vCPU (vcpus=2 of the config)");
        }
        Err(error) => log::warn!("no watchdog: {error}"),
    }
}

/// Brings vCPU 1 up.
fn make() -> Result<(), XenError> {
    let mut quiet = AllocUnbound { dom: DomainId::SELF, remote_dom: DomainId::SELF, port: Port(0) };
    // SAFETY: the operation's struct. The port is bound to nothing and stays masked; it is not among those that a new life takes over.
    unsafe { hypercall::operation::<{ number::EVENT_CHANNEL_OP }, _>(EVTCHNOP_ALLOC_UNBOUND, &mut quiet)? };
    let code = frames::allocate(2).map_err(|_| XenError::Exhausted)?;
    let data = Pfn(code.0 + 1);
    let (code_address, data_address) = (layout::address_of(code), layout::address_of(data));
    let watch = Watch {
        counters: Counters { beat: AtomicU64::new(1), warnings: AtomicU64::new(0), reported: AtomicU64::new(0) },
        seen: 0,
        since: 0,
        warned_at: 0,
        poll: Poll { ports: (data_address + offset_of!(Watch, port)) as u64, nr_ports: 1, padding: 0, timeout: 0 },
        port: quiet.port,
        padding: 0,
        last_resort: Watchdog::default(),
        own: RunstateInfo::default(),
        watched: RunstateInfo::default(),
    };
    let start = oxidom_watch as *const u8;
    let length = (&raw const oxidom_watch_end) as usize - start as usize;
    // SAFETY: the code's bytes, which are less than a page, and the data, into pages just allocated. vCPU 1 is not up.
    unsafe {
        core::ptr::copy_nonoverlapping(start, code_address as *mut u8, length);
        core::ptr::write_bytes(data_address as *mut u8, 0, PAGE_SIZE);
        (data_address as *mut Watch).write(watch);
    }
    // SAFETY: a page of our own, which nobody writes any more.
    unsafe { tables::set_mapping(code_address, Entry::text(memory::physical_to_machine(code)))? };
    events::mask_upcalls_of_vcpu_1();
    let mut context = Box::new(VcpuGuestContext::new_zeroed());
    context.flags = VcpuContextFlags::IN_KERNEL.bits();
    context.user_regs.rip = code_address as u64;
    context.user_regs.rsp = (data_address + PAGE_SIZE) as u64;
    context.user_regs.rbx = data_address as u64;
    context.user_regs.cs = FLAT_KERNEL_CS;
    context.user_regs.ss = FLAT_KERNEL_SS;
    context.kernel_ss = FLAT_KERNEL_SS.into();
    context.kernel_sp = context.user_regs.rsp;
    let [_, _, _, root, ..] = &mut context.ctrlreg;
    *root = arch_x86::pfn_to_cr3(tables::current().root().0);
    let context: *const VcpuGuestContext = &raw const *context;
    // SAFETY: the operation's struct, which Xen copies. The vCPU runs the code of the page above by this domain's page tables. It writes nothing
    // but its data page, whose counters are atomics and the rest of which nobody else uses, and calls Xen for nothing that changes memory of ours.
    unsafe {
        hypercall::check(hypercall::call4::<{ number::VCPU_OP }>(VCPUOP_INITIALISE, 1, context as u64, 0))?;
        record().watchdog.set(code.0 + 1);
        set_counters(data);
        hypercall::check(hypercall::call4::<{ number::VCPU_OP }>(VCPUOP_UP, 1, 0, 0))?;
    }
    Ok(())
}
