//! Guests that test the runtime under Xen.
