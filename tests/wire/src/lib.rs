//! The far end of the lab's wire. Host.
