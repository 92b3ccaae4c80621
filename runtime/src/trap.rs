//! Exceptions: a report on the console, then the domain crashes. Floor 2.
//!
//! Unsafe because it is assembly, and because the report reads stack frames that may be damaged.

use crate::end::{self, Emergency, Exit};
use crate::events;
use crate::hypercall::{self, number};
use crate::layout;
use crate::restart::{self, Refusal};
use crate::watchdog;
use core::arch::global_asm;
use core::fmt::Write;
use xen_pv_sys::arch_x86::{FLAT_KERNEL_CS, TrapInfo};
use xen_pv_sys::callback::{
    CALLBACKOP_REGISTER, CALLBACKTYPE_EVENT, CALLBACKTYPE_FAILSAFE, CALLBACKTYPE_NMI, Register,
};

#[cfg(feature = "faults")]
pub mod probe;

// Xen pushes this, and enters the stub with %rsp at its lower end (an error code only where the exception has one):
//
//     ss, rsp, rflags, cs, rip, [error code], r11, rcx
//
// The stubs turn it into `Frame`. In images of tests any exception in a probe only ends the probe (trap/probe.rs): the frame is dropped, as in
// boot.rs.
global_asm!(
    r#"
    .macro trap vector, has_error
    oxidom_trap_\vector:
        pop  %rcx
        pop  %r11
        .if \has_error == 0
        push $0
        .endif
        push $\vector
        jmp  oxidom_trap
    .endm

    .section .text.oxidom_trap, "ax", @progbits
    trap 0, 0
    trap 1, 0
    trap 2, 0
    trap 3, 0
    trap 4, 0
    trap 5, 0
    trap 6, 0
    trap 7, 0
    trap 8, 1
    trap 10, 1
    trap 11, 1
    trap 12, 1
    trap 13, 1
    trap 14, 1
    trap 16, 0
    trap 17, 1
    trap 18, 0
    trap 19, 0
    .purgem trap

oxidom_trap:
    cld
    .if {probes}
    cmpq $0, oxidom_probe_stack(%rip)
    jne  oxidom_probe_failed
    .endif
    push %rax
    push %rcx
    push %rdx
    push %rbx
    push %rbp
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    mov  %rsp, %rdi
    and  $-16, %rsp
    call oxidom_fault
    ud2
    .text
"#,
    probes = const cfg!(feature = "faults") as u32,
    options(att_syntax)
);

/// What the stubs leave on the stack.
#[repr(C)]
struct Frame {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rdi: u64,
    rsi: u64,
    rbp: u64,
    rbx: u64,
    rdx: u64,
    rcx: u64,
    rax: u64,
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

macro_rules! traps {
    ($($vector:literal $stub:ident,)*) => {
        unsafe extern "C" { $(fn $stub();)* }
        /// The trap table, in the order of vectors, with the end mark that Xen asks for.
        fn table() -> [TrapInfo; [$($vector),*].len() + 1] {
            [$(entry($vector, $stub as *const () as u64),)* entry(0, 0)]
        }
    };
}

traps! {
    0 oxidom_trap_0, 1 oxidom_trap_1, 2 oxidom_trap_2, 3 oxidom_trap_3, 4 oxidom_trap_4, 5 oxidom_trap_5, 6 oxidom_trap_6, 7 oxidom_trap_7,
    8 oxidom_trap_8, 10 oxidom_trap_10, 11 oxidom_trap_11, 12 oxidom_trap_12, 13 oxidom_trap_13, 14 oxidom_trap_14,
    16 oxidom_trap_16, 17 oxidom_trap_17, 18 oxidom_trap_18, 19 oxidom_trap_19,
}

const fn entry(vector: u8, address: u64) -> TrapInfo {
    TrapInfo { vector, flags: 0, cs: if address == 0 { 0 } else { FLAT_KERNEL_CS }, padding: 0, address }
}

unsafe extern "C" {
    fn oxidom_upcall();
    fn oxidom_failsafe();
}

/// Registers the trap table and the upcall.
pub(crate) fn install() {
    let table = table();
    // SAFETY: a terminated array of trap_info, which Xen copies; the stubs are made for it.
    unsafe {
        hypercall::call2::<{ number::SET_TRAP_TABLE }>(table.as_ptr() as u64, 0);
    }
    let callbacks = [
        (CALLBACKTYPE_EVENT, oxidom_upcall as *const () as u64),
        (CALLBACKTYPE_FAILSAFE, oxidom_failsafe as *const () as u64),
        // An operator's, by `xl trigger DOMAIN nmi`, or the watchdog's: the one thing that interrupts code with upcalls masked.
        (CALLBACKTYPE_NMI, oxidom_trap_2 as *const () as u64),
    ];
    for (kind, address) in callbacks {
        let mut argument = Register { kind, flags: 0, padding: 0, address };
        // SAFETY: the operation's struct; the entry points are made for it.
        let result = unsafe { hypercall::operation::<{ number::CALLBACK_OP }, _>(CALLBACKOP_REGISTER, &mut argument) };
        if let Err(error) = result {
            panic!("cannot register callback {kind}: {error}");
        }
    }
}

/// Reports an exception and crashes the domain.
///
/// # Safety
/// Called by the stubs only.
#[unsafe(no_mangle)]
unsafe extern "C" fn oxidom_fault(frame: &Frame) -> ! {
    let hung = frame.vector == 2 && watchdog::has_warned();
    if frame.vector == 2 && !hung {
        restart::note_outside();
    }
    fail(&|mut out| {
        if hung {
            let seconds = watchdog::LIMIT.as_secs();
            let _ = writeln!(out, "watchdog: no turn of the executor within {seconds} s of CPU time");
        }
        let _ = writeln!(
            out,
            "fault: {} (vector {}, error {:#x}), address {:#018x}",
            name(frame.vector),
            frame.vector,
            frame.error,
            events::fault_address(),
        );
        registers(&mut out, frame);
        // Not `at`: that is where a call returns to, and the symbolizer looks before it.
        let _ = writeln!(out, "  in {:#018x}", frame.rip);
        backtrace(&mut out, frame.rbp);
    })
}

/// What a failure ends in: a new life where the image asked for that, else a report and the domain's crash.
fn fail(report: &dyn Fn(&mut dyn Write)) -> ! {
    let refusal = restart::after_failure(report);
    let mut console = Emergency::enter();
    match refusal {
        Refusal::NotKept => {}
        Refusal::FailedAgain => {
            let _ = writeln!(console, "failed, and again while it ended; first:");
            restart::show_earlier_report(&mut console);
            let _ = writeln!(console, "then:");
        }
        refusal => {
            let _ = writeln!(console, "no restart: {refusal}");
        }
    }
    report(&mut console);
    end::exit(Exit::Crash)
}

fn name(vector: u64) -> &'static str {
    match vector {
        0 => "divide error",
        1 => "debug",
        2 => "non-maskable interrupt",
        3 => "breakpoint",
        4 => "overflow",
        5 => "bound range",
        6 => "invalid opcode",
        7 => "device not available",
        8 => "double fault",
        10 => "invalid TSS",
        11 => "segment not present",
        12 => "stack segment",
        13 => "general protection",
        14 => "page fault",
        16 => "x87 floating point",
        17 => "alignment check",
        18 => "machine check",
        19 => "SIMD floating point",
        _ => "unknown exception",
    }
}

fn registers(out: &mut impl Write, frame: &Frame) {
    let lines = [
        [("rip", frame.rip), ("rsp", frame.rsp), ("flg", frame.rflags), ("cs ", frame.cs)],
        [("rax", frame.rax), ("rbx", frame.rbx), ("rcx", frame.rcx), ("rdx", frame.rdx)],
        [("rsi", frame.rsi), ("rdi", frame.rdi), ("rbp", frame.rbp), ("ss ", frame.ss)],
        [("r8 ", frame.r8), ("r9 ", frame.r9), ("r10", frame.r10), ("r11", frame.r11)],
        [("r12", frame.r12), ("r13", frame.r13), ("r14", frame.r14), ("r15", frame.r15)],
    ];
    for line in lines {
        for (name, value) in line {
            let _ = write!(out, " {name} {value:016x}");
        }
        let _ = writeln!(out);
    }
}

/// Prints `  at 0x...`, 16 hexadecimal digits, for each return address on the chain of frame pointers, innermost first, for
/// `cargo xtask symbolize`. It follows only what lies inside our stack and text, so a damaged chain ends the list, no more.
pub(crate) fn backtrace(out: &mut impl Write, first: u64) {
    const FRAMES_MAX: usize = 64;
    let stack = layout::stack();
    let mut pointer = first as usize;
    for _ in 0..FRAMES_MAX {
        if !pointer.is_multiple_of(8) || !stack.contains(&pointer) || pointer + 16 > stack.end {
            return;
        }
        // SAFETY: two words inside our stack, which is mapped.
        let (next, address) = unsafe {
            let words = pointer as *const usize;
            (words.read_volatile(), words.wrapping_add(1).read_volatile())
        };
        if !layout::text().contains(&address) {
            return;
        }
        let _ = writeln!(out, "  at {address:#018x}");
        if next <= pointer {
            return;
        }
        pointer = next;
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(information: &core::panic::PanicInfo<'_>) -> ! {
    let first: u64;
    // SAFETY: reads a register.
    unsafe {
        core::arch::asm!("mov {}, rbp", out(reg) first, options(nomem, nostack, preserves_flags));
    }
    fail(&|mut out| {
        let _ = writeln!(out, "{information}");
        backtrace(&mut out, first);
    })
}
