//! Real Xen under QEMU. Host.
