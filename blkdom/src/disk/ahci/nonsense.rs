//! A device that does anything at all.
