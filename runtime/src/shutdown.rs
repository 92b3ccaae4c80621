//! Ending the domain. Floor 2.
