//! The first instructions of the domain, its ELF notes, and the one place where the vCPU blocks. Floor 2.
//!
//! Unsafe because it is assembly: it sets up the stack that Rust needs, and takes the event upcall.

use crate::end::{self, Exit};
use crate::record::{self, Birth};
use crate::{clock, console, environment, events, executor, grants, memory, restart, trap, watchdog};
use core::arch::global_asm;
use xen_pv_sys::start_info::StartInfo;

// The notes tell the domain builder how to load the image (`elfnote.h`). PADDR_OFFSET = VIRT_BASE puts pseudo-physical frame 0 at
// VIRT_BASE. `xen-3.0` is the name of the ABI, not of a release.
global_asm!(
    r#"
    .macro note type, kind:req, value:vararg
        .balign 4
        .long 4, 2f - 1f, \type
        .asciz "Xen"
    1:  \kind \value
    2:  .balign 4
    .endm

    .section .note.Xen, "a", @note
    note 6,  .asciz, "oxidom"
    note 7,  .asciz, "1"
    note 5,  .asciz, "xen-3.0"
    note 8,  .asciz, "generic"
    note 9,  .asciz, "yes"
    note 10, .asciz, "!writable_page_tables|pae_pgdir_above_4gb"
    note 1,  .quad, oxidom_entry
    note 2,  .quad, oxidom_hypercall_page
    note 3,  .quad, image_start
    note 4,  .quad, image_start
    .purgem note

    # What another image must have in common with this one to take its place (restart/image.rs).
    .section .note.oxidom, "a", @note
    .balign 4
    .long 7, 24, 1
    .asciz "oxidom"
    .balign 4
    .quad {layout}, image_start, image_tail

    .section .text.oxidom_hypercall_page, "ax", @progbits
    .balign 4096
    .globl oxidom_hypercall_page
oxidom_hypercall_page:
    .skip 4096, 0xcc

    .section .text.oxidom_entry, "ax", @progbits
    .globl oxidom_entry
    # Xen enters with %rsi = start_info and %rsp = the end of a one-page boot stack, which is the last page in use. A restart enters with
    # nothing of use in the registers. Either way .data is as it was linked: it is copied aside for the next restart, and .bss is zeroed.
oxidom_entry:
    cld
    rdtsc
    shl $32, %rdx
    or  %rax, %rdx              # third argument: the time stamp of the first instruction
    mov %rsi, %r8
    mov $image_data_start, %esi
    mov $image_pristine, %edi
    mov $image_data_end, %ecx
    sub %esi, %ecx
    shr $3, %ecx
    rep movsq
    mov $image_bss_start, %edi
    mov $image_bss_end, %ecx
    sub %edi, %ecx
    shr $3, %ecx
    xor %eax, %eax
    rep stosq
    mov %r8, %rdi               # first: start_info
    mov %rsp, %rsi              # second: the boot stack
    mov $image_stack_top, %esp
    xor %ebp, %ebp              # ends the chain of frame pointers
    call oxidom_start
    ud2

    # Begins a new life: nothing of the old one is used any more, its stack included. It is entered by HYPERVISOR_iret, as Xen holds back
    # non-maskable interrupts from one that it delivered to the next iret. Interrupts (upcalls) stay masked.
    .globl oxidom_restart
oxidom_restart:
    cld
    mov $image_pristine, %esi
    mov $image_data_start, %edi
    mov $image_data_end, %ecx
    sub %edi, %ecx
    shr $3, %ecx
    rep movsq
    mov $image_stack_top, %esp
    push $0xe02b                # FLAT_KERNEL_SS
    push $image_stack_top
    push $2                     # rflags
    push $0xe030                # FLAT_KERNEL_CS with RPL 0, by which Xen knows the kernel
    push $oxidom_entry
    push $0                     # flags of the iret: nothing
    jmp oxidom_hypercall_page + 23 * 32

    # Blocks the vCPU until an event comes. Called with upcalls masked; returns with upcalls masked.
    # SCHEDOP_block opens the upcall mask. Xen then either returns from the hypercall, or pushes an upcall frame
    #
    #     ss, rsp, rflags, cs, rip, r11, rcx      <- %rsp in oxidom_upcall
    #
    # onto this stack and enters oxidom_upcall with the mask set. Nothing is live here, so the frame is dropped instead of
    # returned through: a plain iretq could not, as Xen stores %cs with RPL 0. An upcall between the hypercall's return and the
    # write to the mask takes the same way a second time, which is harmless.
    .section .text.oxidom_block, "ax", @progbits
    .globl oxidom_block
oxidom_block:
    push %rbp
    mov  %rsp, %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov  %rsp, oxidom_block_stack(%rip)
    mov  $1, %edi               # SCHEDOP_block
    xor  %esi, %esi
    call oxidom_hypercall_page + 29 * 32
0:  movb $1, image_shared_info + 1
    pop  %r15
    pop  %r14
    pop  %r13
    pop  %r12
    pop  %rbx
    pop  %rbp
    ret

    .globl oxidom_upcall
oxidom_upcall:
    cld
    mov  oxidom_block_stack(%rip), %rsp
    jmp  0b

    # Xen could not load a segment register of ours, which we never change.
    .globl oxidom_failsafe
oxidom_failsafe:
    ud2

    .section .bss.oxidom_block_stack, "aw", @nobits
    .balign 8
oxidom_block_stack:
    .skip 8

    # Named by `core` where it is built to unwind; never reached, as a panic ends the domain.
    .section .text.oxidom_unwind, "ax", @progbits
    .weak rust_eh_personality
    .weak _Unwind_Resume
rust_eh_personality:
_Unwind_Resume:
    ud2
    .text
"#,
    layout = const record::LAYOUT as u64,
    options(att_syntax)
);

unsafe extern "Rust" {
    /// What [`crate::entry!`] expands to.
    fn oxidom_image_main(environment: environment::Environment);
}

/// Rust's first function, of every life of the domain.
///
/// # Safety
/// Called by `oxidom_entry` only: with what Xen handed over, or in a restart with anything.
#[unsafe(no_mangle)]
unsafe extern "C" fn oxidom_start(start_info: *const StartInfo, boot_stack: usize, first_time_stamp: u64) -> ! {
    let Ok(birth) = restart::begin(Birth { start_info: start_info as usize, boot_stack, first_time_stamp }) else {
        // There is no memory to go on with, and no ring to say it on.
        console::write_to_xen(b"oxidom: the record of the last life is damaged\n");
        end::exit(Exit::Crash);
    };
    watchdog::resume();
    // SAFETY: Xen's start_info, by Xen's word or by the record of an earlier life, which is sealed: mapped, and never changed after boot.
    let start_info = unsafe { &*(birth.start_info as *const StartInfo) };
    // SAFETY: it stays so for good, as `boot` and `resume` leave its page out of the memory that they give out.
    unsafe { environment::set(start_info, record::record().words()) };
    trap::install();
    // SAFETY: once in a life, before any other memory is used, with what Xen handed over.
    unsafe { memory::initialize(start_info, birth.boot_stack, grants::granted()) };
    events::initialize(start_info.shared_info);
    clock::initialize(birth.first_time_stamp);
    // SAFETY: once in a life; nothing above makes a page.
    unsafe { grants::initialize() };
    restart::ready();
    console::initialize();
    executor::spawn(console::run());
    watchdog::start();
    // SAFETY: the signature is that of `entry!`'s function, the one of this name in the image.
    unsafe { oxidom_image_main(environment::environment()) };
    end::exit(Exit::PowerOff)
}
