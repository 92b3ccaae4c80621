//! A controller that an earlier life used forgets what it was told: by a reset, before it reaches memory again. Pure. Floor 3.
//!
//! It may have commands from then, and its queues lie in memory that is others' by now. Once its reset is seen to be over, none of
//! them is carried out any more: what is written next is not written over by what was asked for before.

use super::ahci::registers::{self as ahci, Ghc};
use super::nvme::registers::{self as nvme, Cc, Csts, capabilities};
use core::time::Duration;
use split_driver::memory::Mmio;

/// How long an AHCI adapter's reset may take (AHCI 1.3.1: 10.4.3 has a second).
const AHCI_PATIENCE: Duration = Duration::from_millis(1500);
/// The unit of CAP.TO (NVM Express Base 2.0: 3.1.3.1).
const NVME_UNIT: Duration = Duration::from_millis(500);

/// How a kind of controller is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// By CC.EN (NVM Express Base 2.0: 3.7.2): over when CSTS.RDY is 0.
    Nvme,
    /// By GHC.HR (AHCI 1.3.1: 10.4.3): over when it is 0 again. The links are reset when the ports start.
    Ahci,
}

impl Halt {
    /// Begins. Gives how long it may take.
    pub fn begin(self, registers: &impl Mmio) -> Duration {
        match self {
            Self::Nvme => {
                let configuration: Cc = nvme::CC.read(registers, 0);
                nvme::CC.write(registers, 0, configuration.with_enable(false).with_shutdown(0));
                NVME_UNIT * (u32::from(capabilities(registers).timeout()) + 2)
            }
            Self::Ahci => {
                let control = Ghc::new().with_ahci(true);
                ahci::GHC.write(registers, 0, control);
                ahci::GHC.write(registers, 0, control.with_reset(true));
                AHCI_PATIENCE
            }
        }
    }

    /// Whether it is over. Never where there is no device behind the registers.
    pub fn is_over(self, registers: &impl Mmio) -> bool {
        match self {
            Self::Nvme => {
                let status: Csts = nvme::CSTS.read(registers, 0);
                !status.absent() && !status.ready()
            }
            Self::Ahci => {
                let control: Ghc = ahci::GHC.read(registers, 0);
                !control.absent() && !control.reset()
            }
        }
    }
}
