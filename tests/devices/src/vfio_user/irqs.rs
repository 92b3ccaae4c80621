//! Interrupts to QEMU: eventfds that VFIO_USER_DEVICE_SET_IRQS brings, written to where the device interrupts. Host.

use std::os::fd::OwnedFd;

use super::protocol::{SetIrqs, errno, irq};
use crate::bus::Interrupt;

/// Eventfds by kind, and interrupts that wait for theirs.
#[derive(Debug)]
pub(super) struct Irqs {
    line: Option<OwnedFd>,
    message: Option<OwnedFd>,
    vectors: Vec<Option<OwnedFd>>,
    asserted: bool,
    /// The line interrupted and was not unmasked since.
    masked: bool,
    /// Vectors that interrupted while they had no eventfd: the pending bit array.
    pending: Vec<bool>,
}

fn write(descriptor: &OwnedFd) {
    if let Err(error) = nix::unistd::write(descriptor, &1u64.to_ne_bytes())
        && error != nix::errno::Errno::EAGAIN
    {
        log::warn!("an eventfd cannot be written: {error}");
    }
}

impl Irqs {
    pub(super) fn new(vectors: u16) -> Self {
        let vectors = usize::from(vectors);
        Self {
            line: None,
            message: None,
            vectors: (0..vectors).map(|_| None).collect(),
            asserted: false,
            masked: false,
            pending: vec![false; vectors],
        }
    }

    /// How many interrupts of a kind there are, and their flags. `None` where there is no such kind.
    pub(super) fn info(&self, index: u32) -> Option<(u32, u32)> {
        match index {
            irq::LINE => Some((irq::INFO_EVENTFD | irq::INFO_MASKED, 1)),
            irq::MSI => Some((irq::INFO_EVENTFD | irq::INFO_NO_RESIZE, 1)),
            irq::MSI_X => Some((irq::INFO_EVENTFD | irq::INFO_NO_RESIZE, self.vectors.len() as u32)),
            _ => (index < irq::COUNT).then_some((0, 0)),
        }
    }

    /// The pending bit array from byte `offset` on.
    pub(super) fn read_pending(&self, offset: usize, data: &mut [u8]) {
        for (place, byte) in data.iter_mut().enumerate() {
            let first = (offset + place).saturating_mul(8);
            *byte = (0..8).fold(0, |byte, bit| byte | u8::from(self.pending.get(first + bit) == Some(&true)) << bit);
        }
    }

    /// The device interrupts.
    pub(super) fn trigger(&mut self, interrupt: Interrupt) {
        match interrupt {
            Interrupt::Line(asserted) => {
                self.asserted = asserted;
                self.fire_line();
            }
            Interrupt::Msi => {
                self.message.iter().for_each(write);
            }
            Interrupt::MsiX(vector) => match self.vectors.get(usize::from(vector)) {
                Some(Some(descriptor)) => write(descriptor),
                Some(None) => {
                    if let Some(pending) = self.pending.get_mut(usize::from(vector)) {
                        *pending = true;
                    }
                }
                None => {}
            },
        }
    }

    fn fire_line(&mut self) {
        if self.asserted
            && !self.masked
            && let Some(descriptor) = &self.line
        {
            self.masked = true;
            write(descriptor);
        }
    }

    /// VFIO_USER_DEVICE_SET_IRQS, `data` behind its fields.
    ///
    /// # Errors
    /// The error number for the reply.
    pub(super) fn set(&mut self, set: SetIrqs, data: &[u8], descriptors: Vec<OwnedFd>) -> Result<(), u32> {
        let SetIrqs { flags, index, start, count } = set;
        let (_, most) = self.info(index).ok_or(errno::INVALID)?;
        let end = start.checked_add(count).filter(|end| *end <= most).ok_or(errno::INVALID)?;
        let action = flags & (irq::SET_MASK | irq::SET_UNMASK | irq::SET_TRIGGER);
        match (flags & (irq::SET_NONE | irq::SET_BOOL | irq::SET_EVENTFD), action) {
            (irq::SET_EVENTFD, irq::SET_TRIGGER) => {
                if !descriptors.is_empty() && descriptors.len() != count as usize {
                    return Err(errno::INVALID);
                }
                let mut descriptors = descriptors.into_iter();
                for number in start..end {
                    self.assign(index, number as usize, descriptors.next());
                }
                Ok(())
            }
            // What it would be told is nothing that the device does.
            (irq::SET_EVENTFD, irq::SET_MASK | irq::SET_UNMASK) => Ok(()),
            (irq::SET_NONE, irq::SET_TRIGGER) if count == 0 => {
                for number in 0..most as usize {
                    self.assign(index, number, None);
                }
                Ok(())
            }
            (kind @ (irq::SET_NONE | irq::SET_BOOL), action) if action.is_power_of_two() => {
                for number in start..end {
                    let told =
                        kind == irq::SET_NONE || data.get((number - start) as usize).is_some_and(|byte| *byte != 0);
                    if told {
                        self.act(index, number, action);
                    }
                }
                Ok(())
            }
            _ => Err(errno::INVALID),
        }
    }

    fn assign(&mut self, index: u32, number: usize, descriptor: Option<OwnedFd>) {
        match index {
            irq::LINE => {
                (self.line, self.masked) = (descriptor, false);
                self.fire_line();
            }
            irq::MSI => self.message = descriptor,
            irq::MSI_X => {
                if let (Some(place), Some(pending)) = (self.vectors.get_mut(number), self.pending.get_mut(number)) {
                    *place = descriptor;
                    if let Some(descriptor) = place
                        && std::mem::take(pending)
                    {
                        write(descriptor);
                    }
                }
            }
            _ => {}
        }
    }

    fn act(&mut self, index: u32, number: u32, action: u32) {
        match (index, action) {
            (irq::LINE, irq::SET_MASK) => self.masked = true,
            (irq::LINE, irq::SET_UNMASK) => {
                self.masked = false;
                self.fire_line();
            }
            (irq::LINE, irq::SET_TRIGGER) => self.line.iter().for_each(write),
            (irq::MSI, irq::SET_TRIGGER) => self.trigger(Interrupt::Msi),
            (irq::MSI_X, irq::SET_TRIGGER) => self.trigger(Interrupt::MsiX(number as u16)),
            _ => {}
        }
    }
}
