//! `errno.h`: Xen's own error numbers, positive; a hypercall returns them negated. Floor 0: no behaviour.

/// Operation not permitted (`XEN_EPERM`).
pub const EPERM: u16 = 1;
/// No such entry (`XEN_ENOENT`).
pub const ENOENT: u16 = 2;
/// No such domain (`XEN_ESRCH`).
pub const ESRCH: u16 = 3;
/// Input or output error (`XEN_EIO`).
pub const EIO: u16 = 5;
/// No such device or address (`XEN_ENXIO`).
pub const ENXIO: u16 = 6;
/// Too many arguments (`XEN_E2BIG`).
pub const E2BIG: u16 = 7;
/// Not executable (`XEN_ENOEXEC`).
pub const ENOEXEC: u16 = 8;
/// Bad handle (`XEN_EBADF`).
pub const EBADF: u16 = 9;
/// No child (`XEN_ECHILD`).
pub const ECHILD: u16 = 10;
/// Try again (`XEN_EAGAIN`).
pub const EAGAIN: u16 = 11;
/// Out of memory (`XEN_ENOMEM`).
pub const ENOMEM: u16 = 12;
/// Permission denied (`XEN_EACCES`).
pub const EACCES: u16 = 13;
/// Bad address (`XEN_EFAULT`).
pub const EFAULT: u16 = 14;
/// Busy (`XEN_EBUSY`).
pub const EBUSY: u16 = 16;
/// Exists (`XEN_EEXIST`).
pub const EEXIST: u16 = 17;
/// Across devices (`XEN_EXDEV`).
pub const EXDEV: u16 = 18;
/// No such device (`XEN_ENODEV`).
pub const ENODEV: u16 = 19;
/// Not a directory (`XEN_ENOTDIR`).
pub const ENOTDIR: u16 = 20;
/// A directory (`XEN_EISDIR`).
pub const EISDIR: u16 = 21;
/// Invalid argument (`XEN_EINVAL`).
pub const EINVAL: u16 = 22;
/// Table full (`XEN_ENFILE`).
pub const ENFILE: u16 = 23;
/// Too many open (`XEN_EMFILE`).
pub const EMFILE: u16 = 24;
/// No space left (`XEN_ENOSPC`).
pub const ENOSPC: u16 = 28;
/// Read-only (`XEN_EROFS`).
pub const EROFS: u16 = 30;
/// Too many links (`XEN_EMLINK`).
pub const EMLINK: u16 = 31;
/// Outside the domain (`XEN_EDOM`).
pub const EDOM: u16 = 33;
/// Out of range (`XEN_ERANGE`).
pub const ERANGE: u16 = 34;
/// Deadlock (`XEN_EDEADLK`).
pub const EDEADLK: u16 = 35;
/// Name too long (`XEN_ENAMETOOLONG`).
pub const ENAMETOOLONG: u16 = 36;
/// No lock (`XEN_ENOLCK`).
pub const ENOLCK: u16 = 37;
/// Not implemented (`XEN_ENOSYS`).
pub const ENOSYS: u16 = 38;
/// Not empty (`XEN_ENOTEMPTY`).
pub const ENOTEMPTY: u16 = 39;
/// No data (`XEN_ENODATA`).
pub const ENODATA: u16 = 61;
/// Time is past (`XEN_ETIME`).
pub const ETIME: u16 = 62;
/// Bad message (`XEN_EBADMSG`).
pub const EBADMSG: u16 = 74;
/// Overflow (`XEN_EOVERFLOW`).
pub const EOVERFLOW: u16 = 75;
/// Illegal sequence (`XEN_EILSEQ`).
pub const EILSEQ: u16 = 84;
/// Not a socket (`XEN_ENOTSOCK`).
pub const ENOTSOCK: u16 = 88;
/// Message too long (`XEN_EMSGSIZE`).
pub const EMSGSIZE: u16 = 90;
/// Not supported (`XEN_EOPNOTSUPP`).
pub const EOPNOTSUPP: u16 = 95;
/// Address in use (`XEN_EADDRINUSE`).
pub const EADDRINUSE: u16 = 98;
/// Address not available (`XEN_EADDRNOTAVAIL`).
pub const EADDRNOTAVAIL: u16 = 99;
/// No buffers (`XEN_ENOBUFS`).
pub const ENOBUFS: u16 = 105;
/// Connected already (`XEN_EISCONN`).
pub const EISCONN: u16 = 106;
/// Not connected (`XEN_ENOTCONN`).
pub const ENOTCONN: u16 = 107;
/// Timed out (`XEN_ETIMEDOUT`).
pub const ETIMEDOUT: u16 = 110;
/// Refused (`XEN_ECONNREFUSED`).
pub const ECONNREFUSED: u16 = 111;
