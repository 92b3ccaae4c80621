//! The runtime of a Xen PV domain. Floor 2.
#![no_std]
