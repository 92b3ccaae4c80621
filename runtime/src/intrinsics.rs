//! `memcpy`, `memmove`, `memset`, `memcmp`, `bcmp`: what compiled Rust calls, and the gnu target leaves to libc. Floor 2.
//!
//! Unsafe because it is assembly. Assembly because a loop written in Rust may be compiled into a call of the very function it is
//! written in. The System V ABI: destination, source or byte, count in %rdi, %rsi, %rdx; result in %rax.

use core::arch::global_asm;

// memcpy is memmove: one compare tells whether the ends overlap the wrong way. Up to 32 bytes everything is loaded before anything is
// stored; beyond, 16-byte moves, with the last (or first) 16 bytes loaded before the loop and stored after it. No `rep movsb`: it is slow
// to start on hardware at the sizes of packets and headers, and emulators run it a byte at a time.
global_asm!(
    r#"
    .section .text.memmove, "ax", @progbits
    .globl memcpy
    .globl memmove
    .globl oxidom_copy_shared
    .balign 32
memcpy:
memmove:
oxidom_copy_shared:
    mov %rdi, %rax
    cmp $16, %rdx
    jb  2f
    cmp $32, %rdx
    ja  1f
    movdqu (%rsi), %xmm0
    movdqu -16(%rsi,%rdx), %xmm1
    movdqu %xmm0, (%rdi)
    movdqu %xmm1, -16(%rdi,%rdx)
    ret

1:  mov %rdi, %rcx              # forward, unless source < destination < source + count
    sub %rsi, %rcx
    cmp %rdx, %rcx
    jb  7f
    movdqu -16(%rsi,%rdx), %xmm4
    lea -16(%rdi,%rdx), %r8     # where the last 16 bytes go
    lea -64(%rdi,%rdx), %r9     # the last place where 64 bytes fit
    cmp %r9, %rdi
    jae 4f
3:  movdqu (%rsi), %xmm0
    movdqu 16(%rsi), %xmm1
    movdqu 32(%rsi), %xmm2
    movdqu 48(%rsi), %xmm3
    movdqu %xmm0, (%rdi)
    movdqu %xmm1, 16(%rdi)
    movdqu %xmm2, 32(%rdi)
    movdqu %xmm3, 48(%rdi)
    add $64, %rsi
    add $64, %rdi
    cmp %r9, %rdi
    jb  3b
4:  cmp %r8, %rdi
    jae 6f
5:  movdqu (%rsi), %xmm0
    movdqu %xmm0, (%rdi)
    add $16, %rsi
    add $16, %rdi
    cmp %r8, %rdi
    jb  5b
6:  movdqu %xmm4, (%r8)
    ret

7:  test %rcx, %rcx             # onto itself: nothing to do
    je  9f
    movdqu (%rsi), %xmm4        # backward
8:  movdqu -16(%rsi,%rdx), %xmm0
    movdqu %xmm0, -16(%rdi,%rdx)
    sub $16, %rdx
    cmp $16, %rdx
    ja  8b
    movdqu %xmm4, (%rdi)
9:  ret

2:  cmp $8, %edx
    jb  1f
    mov (%rsi), %rcx
    mov -8(%rsi,%rdx), %r8
    mov %rcx, (%rdi)
    mov %r8, -8(%rdi,%rdx)
    ret
1:  cmp $4, %edx
    jb  1f
    mov (%rsi), %ecx
    mov -4(%rsi,%rdx), %r8d
    mov %ecx, (%rdi)
    mov %r8d, -4(%rdi,%rdx)
    ret
1:  test %edx, %edx
    je  1f
    movzbl (%rsi), %ecx
    cmp $2, %edx
    jb  2f
    movzwl -2(%rsi,%rdx), %r8d
    mov %r8w, -2(%rdi,%rdx)
2:  mov %cl, (%rdi)
1:  ret

    .section .text.memset, "ax", @progbits
    .globl memset
    .balign 32
memset:
    mov %rdi, %rax
    movzbl %sil, %esi
    mov $0x0101010101010101, %rcx
    imul %rsi, %rcx
    cmp $16, %rdx
    jb  2f
    movq %rcx, %xmm0
    punpcklqdq %xmm0, %xmm0
    lea -16(%rdi,%rdx), %r8
    lea -64(%rdi,%rdx), %r9
    cmp $64, %rdx
    jbe 4f
3:  movdqu %xmm0, (%rdi)
    movdqu %xmm0, 16(%rdi)
    movdqu %xmm0, 32(%rdi)
    movdqu %xmm0, 48(%rdi)
    add $64, %rdi
    cmp %r9, %rdi
    jb  3b
4:  cmp %r8, %rdi
    jae 6f
5:  movdqu %xmm0, (%rdi)
    add $16, %rdi
    cmp %r8, %rdi
    jb  5b
6:  movdqu %xmm0, (%r8)
    ret
2:  cmp $8, %edx
    jb  1f
    mov %rcx, (%rdi)
    mov %rcx, -8(%rdi,%rdx)
    ret
1:  cmp $4, %edx
    jb  1f
    mov %ecx, (%rdi)
    mov %ecx, -4(%rdi,%rdx)
    ret
1:  test %edx, %edx
    je  1f
    mov %cl, (%rdi)
    mov %cl, -1(%rdi,%rdx)
    cmp $3, %edx
    jb  1f
    mov %cl, 1(%rdi)
1:  ret

    .section .text.memcmp, "ax", @progbits
    .globl memcmp
    .globl bcmp
    .balign 32
memcmp:
bcmp:
    xor %eax, %eax
    xor %r8d, %r8d
1:  lea 8(%r8), %r9
    cmp %rdx, %r9
    ja  2f
    mov (%rdi,%r8), %rcx
    mov (%rsi,%r8), %r10
    cmp %r10, %rcx
    jne 4f
    mov %r9, %r8
    jmp 1b
2:  cmp %rdx, %r8
    jae 3f
    movzbl (%rdi,%r8), %eax
    movzbl (%rsi,%r8), %ecx
    inc %r8
    sub %ecx, %eax
    je  2b
3:  ret
4:  bswap %rcx                  # the first byte that differs decides
    bswap %r10
    cmp %r10, %rcx
    sbb %eax, %eax
    or  $1, %eax
    ret
    .text
"#,
    options(att_syntax)
);

#[cfg(test)]
mod tests {
    extern crate std;
    use core::hint::black_box;
    use std::vec::Vec;

    unsafe extern "C" {
        fn oxidom_copy_shared(destination: *mut u8, source: *const u8, count: usize);
        fn memset(destination: *mut u8, byte: i32, count: usize) -> *mut u8;
        fn memcmp(one: *const u8, other: *const u8, count: usize) -> i32;
    }

    /// 400 bytes, each different from its neighbours.
    fn pattern() -> Vec<u8> {
        (0..400_u32).map(|index| (index * 7 % 251) as u8).collect()
    }

    #[test]
    fn a_move_is_right_for_every_length_and_overlap() {
        for count in 0..200 {
            for (from, to) in
                [(0, 200), (200, 0), (100, 100), (100, 101), (101, 100), (100, 115), (115, 100), (100, 133), (170, 100)]
            {
                let mut expected = pattern();
                let moved: Vec<u8> = expected.iter().skip(from).take(count).copied().collect();
                for (slot, byte) in expected.iter_mut().skip(to).zip(moved) {
                    *slot = byte;
                }
                let mut memory = pattern();
                let start = memory.as_mut_ptr();
                // SAFETY: 400 bytes; no place is beyond 200 + 199.
                unsafe { oxidom_copy_shared(start.add(to), start.add(from), count) };
                assert!(memory == expected, "{count} bytes from {from} to {to}");
            }
        }
    }

    #[test]
    fn a_fill_stays_within_its_bounds() {
        for count in 0..200 {
            let mut memory = pattern();
            let start = memory.as_mut_ptr();
            // SAFETY: within the 400 bytes.
            let result = unsafe { memset(start.add(50), black_box(0x1a5), black_box(count)) };
            assert_eq!(result.addr(), start.addr() + 50);
            for (index, (byte, before)) in memory.iter().zip(pattern()).enumerate() {
                let inside = (50..50 + count).contains(&index);
                assert_eq!(*byte, if inside { 0xa5 } else { before }, "{count} bytes, byte {index}");
            }
        }
    }

    #[test]
    fn the_first_difference_decides() {
        for count in 1..80 {
            for at in 0..count {
                let one = pattern();
                let mut other = pattern();
                other[at] = other[at].wrapping_add(100);
                other[count] ^= 1;
                let expected = one[at].cmp(&other[at]);
                // SAFETY: both have 400 bytes.
                let result = unsafe { memcmp(one.as_ptr(), other.as_ptr(), black_box(count)) };
                assert_eq!(result.cmp(&0), expected, "{count} bytes, byte {at}");
                // SAFETY: as above.
                assert_eq!(unsafe { memcmp(one.as_ptr(), other.as_ptr(), black_box(at)) }, 0);
            }
        }
    }
}
