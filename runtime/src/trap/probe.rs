//! What tests ask of the address space: whether memory can be read, written or executed. In images that are built with `faults` only. Floor 2.
//!
//! Unsafe because it touches memory that may not be there.

use crate::environment::environment;
use crate::layout;
use crate::memory::{self, Page};
use core::arch::global_asm;

global_asm!(
    r#"
    # bool oxidom_probe(address: %rdi, kind: %esi): 0 reads a byte, 1 writes back what it read, 2 calls.
    .section .text.oxidom_probe, "ax", @progbits
    .globl oxidom_probe
    .globl oxidom_probe_failed
    .globl oxidom_probe_stack
oxidom_probe:
    push %rbp
    mov  %rsp, %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov  %rsp, oxidom_probe_stack(%rip)
    cmp  $1, %esi
    ja   2f
    movb (%rdi), %al
    jb   3f
    movb %al, (%rdi)
    jmp  3f
2:  call *%rdi
3:  mov  $1, %eax
4:  movq $0, oxidom_probe_stack(%rip)
    pop  %r15
    pop  %r14
    pop  %r13
    pop  %r12
    pop  %rbx
    pop  %rbp
    ret
oxidom_probe_failed:
    mov  oxidom_probe_stack(%rip), %rsp
    xor  %eax, %eax
    jmp  4b

    .section .bss.oxidom_probe_stack, "aw", @nobits
    .balign 8
oxidom_probe_stack:
    .skip 8
    .text
"#,
    options(att_syntax)
);

unsafe extern "C" {
    fn oxidom_probe(address: usize, kind: u32) -> bool;
}

/// What a probe does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads a byte.
    Read,
    /// Writes back the byte that it read.
    Write,
}

/// Whether memory can be accessed so.
///
/// # Panics
/// Where a device, Xen or another domain may have memory at the address.
pub fn probe(address: usize, access: Access) -> bool {
    assert!(is_private(address), "{address:#x} may not be probed");
    // SAFETY:
    // 1. Nobody but this thread writes there, so the byte that is written back is the one that is there.
    // 2. There are no registers of a device, which a read might change.
    // 3. It is one access in assembly, which the compiler takes for one that may read and write all memory.
    // 4. A fault is caught by the stubs, and ends the probe.
    unsafe { oxidom_probe(address, access as u32) }
}

/// Whether nobody but this domain's own code reaches memory at the address: below the mapping area, where registers and pages of other
/// domains are; not the page that Xen writes; not a page that peers or devices may write.
fn is_private(address: usize) -> bool {
    let page = layout::frame_at(layout::MEMORY_BASE.max(address));
    let environment = environment();
    let rings = [environment.store, environment.console].map(|ring| ring.map(|(frame, _)| frame));
    address < layout::AREA_BASE
        && page != layout::frame_at(layout::shared_info())
        && !memory::is_shared(memory::physical_to_machine(page))
        && !rings.contains(&Some(memory::physical_to_machine(page)))
}

/// Whether the first byte of a page can be executed. No grant of it exists, as one would hold the page, too.
pub fn probe_execution(page: &mut Page) -> bool {
    const RETURN: u8 = 0xc3;
    const CALL: u32 = 2;
    page.write(0, &[RETURN]);
    let address = layout::address_of(page.pfn());
    // SAFETY: what is executed, if it can be, is the return that was just written: nobody else has the page while it is borrowed as unique.
    // Else the fault is caught, and ends the probe.
    unsafe { oxidom_probe(address, CALL) }
}

/// Raises an exception, for a test of its report.
pub fn raise() -> ! {
    // SAFETY: an undefined instruction; the report does not return.
    unsafe { core::arch::asm!("ud2", options(noreturn, nomem)) }
}
