//! A driver with a device that answers nonsense. Host.
//!
//! Each input is one life of a driver. What the device does in it, and what must hold, is in [`devices::hostile`], whose properties
//! run the same lives.

use std::marker::PhantomData;

use crate::Target;
use devices::hostile::{Subject, run};

/// The lives of a driver.
pub struct Lives<S>(PhantomData<S>);

impl<S> Default for Lives<S> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<S: Subject> Target for Lives<S> {
    fn run(&mut self, input: &[u8], seen: &mut Vec<u64>) {
        run::<S>(input, seen);
    }
}
