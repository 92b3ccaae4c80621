//! Memory promised to connected devices, so that one too many is refused and none runs out in use. Pure. Floor 1.

use alloc::rc::Rc;
use core::cell::Cell;
use core::fmt;

/// What a domain has of memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Available {
    /// Not in use by anybody.
    pub free: usize,
    /// In use on the heap.
    pub heap: usize,
}

struct Shared {
    look: Option<alloc::boxed::Box<dyn Fn() -> Available>>,
    reserve: usize,
    promised: Cell<usize>,
    /// The heap in use when nothing was promised.
    base: Cell<usize>,
}

/// The memory of a domain's devices. Clones are the same one.
#[derive(Clone)]
pub struct DeviceMemory(Rc<Shared>);

impl fmt::Debug for DeviceMemory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DeviceMemory({} bytes promised)", self.0.promised.get())
    }
}

/// Memory that a device may take; `Drop` gives the promise back.
#[derive(Debug)]
pub struct Promise {
    memory: DeviceMemory,
    bytes: usize,
}

/// There is not enough memory for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLittleMemory {
    /// Bytes that the device may take.
    pub needed: usize,
    /// Bytes that are left beside what is promised to others.
    pub left: usize,
}

impl fmt::Display for TooLittleMemory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { needed, left } = self;
        write!(
            formatter,
            "the device may take {} KiB of memory and {} KiB are left",
            needed.div_ceil(1024),
            left / 1024
        )?;
        formatter.write_str(": give the driver domain more (memory=)")
    }
}

impl core::error::Error for TooLittleMemory {}

impl DeviceMemory {
    /// Memory that `look` tells of, of which `reserve` bytes are kept for all else.
    pub fn new(reserve: usize, look: impl Fn() -> Available + 'static) -> Self {
        Self::of(Some(alloc::boxed::Box::new(look)), reserve)
    }

    /// Memory without end: on a host.
    pub fn unbounded() -> Self {
        Self::of(None, 0)
    }

    fn of(look: Option<alloc::boxed::Box<dyn Fn() -> Available>>, reserve: usize) -> Self {
        Self(Rc::new(Shared { look, reserve, promised: Cell::new(0), base: Cell::new(0) }))
    }

    /// Promises `bytes` to a device that the last life served: what it takes is there, or will be when this life has taken over.
    pub fn promise_again(&self, bytes: usize) -> Promise {
        let shared = &*self.0;
        if let Some(look) = shared.look.as_ref().filter(|_| shared.promised.get() == 0) {
            shared.base.set(look().heap);
        }
        shared.promised.set(shared.promised.get().saturating_add(bytes));
        Promise { memory: self.clone(), bytes }
    }

    /// Promises `bytes` to a device.
    ///
    /// # Errors
    /// [`TooLittleMemory`], and nothing is promised.
    pub fn promise(&self, bytes: usize) -> Result<Promise, TooLittleMemory> {
        let shared = &*self.0;
        if let Some(look) = &shared.look {
            let Available { free, heap } = look();
            if shared.promised.get() == 0 {
                shared.base.set(heap);
            }
            // What devices took since is theirs by promise, and free was less by it.
            let all = free.saturating_add(heap.saturating_sub(shared.base.get()));
            let left = all.saturating_sub(shared.reserve).saturating_sub(shared.promised.get());
            if bytes > left {
                return Err(TooLittleMemory { needed: bytes, left });
            }
        }
        shared.promised.set(shared.promised.get().saturating_add(bytes));
        Ok(Promise { memory: self.clone(), bytes })
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        let promised = &self.memory.0.promised;
        promised.set(promised.get().saturating_sub(self.bytes));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec::Vec;

    #[test]
    fn what_is_promised_is_there_whenever_it_is_taken() {
        let state = Rc::new(Cell::new(Available { free: 1000, heap: 300 }));
        let shown = Rc::clone(&state);
        let memory = DeviceMemory::new(100, move || shown.get());
        let mut promises: Vec<_> = (0..3).map(|_| memory.promise(300).expect("room")).collect();
        assert_eq!(memory.promise(1).map(drop), Err(TooLittleMemory { needed: 1, left: 0 }));
        // Devices take what was promised to them: nothing is counted twice.
        state.set(Available { free: 200, heap: 1100 });
        promises.pop();
        promises.push(memory.promise(300).expect("room again"));
        assert!(memory.promise(1).is_err());
        // Somebody else takes memory.
        promises.clear();
        state.set(Available { free: 350, heap: 300 });
        let error = memory.promise(300).map(drop).expect_err("too little");
        assert!(error.to_string().contains("memory="), "{error}");
        assert!(memory.promise(250).is_ok());
    }
}
