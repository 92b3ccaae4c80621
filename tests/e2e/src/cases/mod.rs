//! The cases of `cargo xtask test` on each row of the matrix. Host.
//!
//! A case gets a [`Scene`] that is as every other case finds it, and leaves it so; it returns a line of its measurements.
//! Times of the host are shown, never asserted: that is for the benchmarks.

mod bad_input;
mod between;
pub mod block;
mod bond;
mod control;
mod crowd;
mod dom0;
mod frontends;
mod hostile;
mod interrupts;
mod lifecycle;
mod lives;
mod many;
mod nic_faults;
mod nics;
mod policies;
mod queues;
mod router;
mod runtime;
mod saved;
mod seen;
mod spoof;
pub mod store;
mod storm;
mod traffic;
mod trunks;
mod tunnels;
mod update;
mod uplink;
mod vlans;
mod xdp;

pub use many::ManyVifs;
pub use storm::{HangStorm, Storm};

use std::time::Duration;

use anyhow::{Result, bail};
use devices::igb;
use devices::ixgbe::Kind;
use lab::{Guest, GuestConfig, Lab, Network as NetworkKind, Nic, NicModel, Release, Row, StorePlace};

use crate::driver_domain::{DriverDomain, DriverDomainConfig, Resources};
use crate::served;
use crate::stage::{Images, Stage, lease, vif};

/// The ground that cases share: a machine, and a scene on it.
pub trait Play: 'static {
    /// The name of the step that sets the scene.
    const UP: &'static str;
    /// Whether the domain that the cases share is made to fail by them.
    const FAILS: bool = false;
    /// The cases, in their order: the plain ones first, so that a broken data path is seen at once.
    const FAMILIES: &'static [Family<Self>];
    /// A machine, booted.
    type Stage;
    /// The domains on it.
    type Scene<'s>;

    /// Boots the machine.
    ///
    /// # Errors
    /// The part of the lab that did not come up.
    fn boot(row: Row, images: &Images) -> Result<Self::Stage>;

    /// Sets the scene.
    ///
    /// # Errors
    /// The domain that did not come up.
    fn set(stage: &Self::Stage) -> Result<Self::Scene<'_>>;

    /// The domain whose console mostly has the reason of a failure.
    fn witness<'a>(scene: &'a Self::Scene<'_>) -> (&'a Lab, &'a str);
}

/// One case.
pub struct Case<P: Play + ?Sized = Network> {
    /// Its claim, as a name.
    pub name: &'static str,
    /// Shows it; gives a line of measurements.
    pub run: for<'a, 's> fn(&'a P::Scene<'s>) -> Result<String>,
}

/// Cases of one kind.
pub struct Family<P: Play + ?Sized = Network> {
    /// Where they run.
    pub rows: Rows,
    /// In their order.
    pub cases: &'static [Case<P>],
}

/// On which rows cases run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// On each.
    All,
    /// Where the store is to answer as C xenstored does.
    StoreLikeC,
    /// Where the store is in a domain of its own.
    StoreInDomain,
    /// On each; when all of the matrix is asked for, only where dom0 serves the store: it is asked the same in all of them.
    StoreInDom0,
    /// On each; when all of the matrix is asked for, only on this one: they take minutes, and little in them depends on the release and the store.
    /// The rows run side by side, and are to take as long as one another.
    Once(Row),
}

/// Once, on Debian 12.
const ON_12: Rows = Rows::Once(Row::new(Release::Debian12, StorePlace::Daemon));
/// Once, on Debian 13.
const ON_13: Rows = Rows::Once(Row::new(Release::Debian13, StorePlace::Daemon));
/// Once, where the store is in a domain of its own.
const WITH_STUBDOM: Rows = Rows::Once(Row::new(Release::Debian13, StorePlace::Domain));

impl Rows {
    /// Whether this row is one of them; `whole` where all of the matrix is asked for.
    pub fn contain(self, row: Row, whole: bool) -> bool {
        match self {
            Self::All => true,
            Self::StoreLikeC => row.store != StorePlace::OcamlDaemon,
            Self::StoreInDomain => row.store == StorePlace::Domain,
            Self::StoreInDom0 => !whole || row.store != StorePlace::Domain,
            Self::Once(one) => !whole || row == one,
        }
    }
}

/// The cases of netdom.
pub struct Network;

impl Play for Network {
    const UP: &'static str = "netdom and two guests come up";
    const FAMILIES: &'static [Family] = ALL;
    type Stage = Stage;
    type Scene<'s> = Scene<'s>;

    fn boot(row: Row, images: &Images) -> Result<Stage> {
        Stage::boot(row, images, nics())
    }

    fn set(stage: &Stage) -> Result<Scene<'_>> {
        Scene::set(stage)
    }

    fn witness<'a>(scene: &'a Scene<'_>) -> (&'a Lab, &'a str) {
        (&scene.stage.lab, &scene.netdom.name)
    }
}

const ALL: &[Family] = &[
    Family { rows: Rows::All, cases: traffic::CASES },
    Family { rows: ON_13, cases: tunnels::CASES },
    Family { rows: ON_12, cases: vlans::CASES },
    Family { rows: ON_13, cases: trunks::CASES },
    Family { rows: ON_12, cases: spoof::CASES },
    Family { rows: ON_12, cases: bond::CASES },
    Family { rows: ON_13, cases: policies::CASES },
    Family { rows: ON_12, cases: router::CASES },
    Family { rows: ON_12, cases: uplink::CASES },
    Family { rows: Rows::StoreInDom0, cases: dom0::CASES },
    Family { rows: ON_12, cases: dom0::ONCE },
    Family { rows: Rows::StoreInDom0, cases: frontends::CASES },
    Family { rows: ON_13, cases: queues::CASES },
    Family { rows: ON_13, cases: xdp::CASES },
    Family { rows: Rows::StoreInDom0, cases: runtime::CASES },
    Family { rows: Rows::StoreInDom0, cases: control::CASES },
    Family { rows: ON_12, cases: seen::CASES },
    Family { rows: ON_12, cases: crowd::CASES },
    Family { rows: Rows::StoreInDom0, cases: interrupts::CASES },
    Family { rows: Rows::StoreInDom0, cases: nics::CASES },
    Family { rows: ON_13, cases: nics::ONCE },
    Family { rows: ON_12, cases: nic_faults::ONCE },
    Family { rows: WITH_STUBDOM, cases: lifecycle::CASES },
    Family { rows: Rows::StoreInDom0, cases: lives::CASES },
    Family { rows: ON_12, cases: lives::HANGS },
    Family { rows: ON_13, cases: between::CASES },
    Family { rows: ON_12, cases: saved::CASES },
    Family { rows: Rows::StoreInDom0, cases: update::CASES },
    Family { rows: Rows::StoreInDom0, cases: bad_input::CASES },
    Family { rows: Rows::StoreInDom0, cases: hostile::CASES },
    Family { rows: ON_13, cases: hostile::IGB_ONCE },
    Family { rows: ON_12, cases: hostile::IXGBE_ONCE },
];

/// A netdom with the NIC, and two Linux guests with a lease through it.
pub struct Scene<'s> {
    /// The machine.
    pub stage: &'s Stage,
    /// The driver domain.
    pub netdom: DriverDomain<'s>,
    /// A guest, its vif's address ending in 1.
    pub a: Guest<'s>,
    /// A guest, its vif's address ending in 2.
    pub b: Guest<'s>,
    /// The IPv4 address of `a`.
    pub a_address: String,
    /// The IPv4 address of `b`.
    pub b_address: String,
}

/// The NICs of a machine for the cases: one for netdom, one of another programming model that it must refuse, two for a second netdom, one of
/// each other kind that netdom drives, and two on one wire for a bond.
fn nics() -> Vec<Nic> {
    let of = |number, model| {
        let mut nic = Nic { model, ..Nic::wired(number) };
        if let NetworkKind::Wire(wire) = &mut nic.network
            && number > SPARE_NIC
            && number < BOND
        {
            wire.mtu = 9000;
        }
        nic
    };
    let emulated = ["e1000e", "e1000", "e1000e", "e1000e", "igb"].map(NicModel::Emulated);
    let served = [served::ixgbe(Kind::Sfp), served::ixgbe(Kind::X540), served::igb(igb::Kind::I350)];
    let alone = (0..).zip(emulated.into_iter().chain(served)).map(|(number, model)| of(number, model));
    let bonded = [BOND, BOND + 1].map(Nic::wired);
    let bonded = bonded.into_iter().enumerate().map(|(place, nic)| match place {
        0 => nic,
        _ => Nic { network: NetworkKind::Port(BOND.into()), ..nic },
    });
    alone.chain(bonded).collect()
}

/// The NIC for a second netdom; the one behind it is for a netdom with several.
const SPARE_NIC: u8 = 2;
/// The 82576.
const IGB: u8 = SPARE_NIC + 2;
/// The 82599.
const IXGBE: u8 = SPARE_NIC + 3;
/// The X540.
const X540: u8 = SPARE_NIC + 4;
/// The I350.
const I350: u8 = SPARE_NIC + 5;
/// The first of two on one wire.
const BOND: u8 = SPARE_NIC + 6;

impl<'s> Scene<'s> {
    /// Sets the scene on a booted stage.
    ///
    /// # Errors
    /// The domain that did not come up.
    pub fn set(stage: &'s Stage) -> Result<Self> {
        // Guests send with addresses of all kinds, hostile ones above all; `spoof` has a netdom that looks at them.
        let netdom = stage.start(DriverDomainConfig::netdom("netdom").extra("antispoof=off"))?;
        // Linux' frontend does not give back some 2 MiB with each vif that is taken from it: some tens of cycles want room.
        let a = GuestConfig { memory: 256, ..GuestConfig::new("a").vif(&vif("netdom", 1)) };
        let a = stage.client_of(&a)?;
        let b = stage.client("b", &[vif("netdom", 2)])?;
        let a_address = lease(&a, "eth0")?;
        let b_address = lease(&b, "eth0")?;
        Ok(Self { stage, netdom, a, b, a_address, b_address })
    }

    /// The peer on the wire.
    pub fn peer(&self) -> String {
        self.stage.peer(0)
    }

    /// Netdom's loans once earlier cases are over: it tells them once a second.
    ///
    /// # Errors
    /// Where it does not say so.
    pub fn at_rest(&self) -> Result<Resources> {
        at_rest(&self.stage.lab, &self.netdom)
    }

    /// Netdom's loans must be those of before.
    ///
    /// # Errors
    /// The loans that are not.
    pub fn given_back(&self, before: &Resources) -> Result<()> {
        given_back(&self.stage.lab, &self.netdom, before)
    }
}

fn at_rest(lab: &Lab, domain: &DriverDomain<'_>) -> Result<Resources> {
    lab.must("sleep 3")?;
    domain.resources()
}

fn given_back(lab: &Lab, domain: &DriverDomain<'_>, before: &Resources) -> Result<()> {
    let mut after = domain.resources()?;
    for _ in 0..20 {
        match differences(before, &after) {
            differences if differences.is_empty() => return Ok(()),
            _ => lab.must("sleep 1")?,
        };
        after = domain.resources()?;
    }
    bail!("not all came back: {}", differences(before, &after).join(", "))
}

/// Migrates a guest to the host that it is on, beside another command. Whether it did: Xen that was built without shadow paging (Debian's 4.20)
/// logs no dirty pages of a PV guest, and `xl migrate` leaves it where it is.
///
/// # Errors
/// Those of `xl migrate`, but for that one.
fn migrate(lab: &Lab, guest: &Guest<'_>, beside: &str) -> Result<bool> {
    const REFUSED: &str = "Failed to enable logdirty: 95,";
    let name = guest.name();
    let migrate = format!("xl migrate -s '' {name} 'xl migrate-receive'");
    let output = lab.run_for(&format!("({beside}) & {migrate}; status=$?; wait; exit $status"), MIGRATION)?;
    if output.status != 0 && output.stdout.contains(REFUSED) {
        return Ok(false);
    }
    output.success().map(|_| true)
}

/// How long that may take.
const MIGRATION: Duration = Duration::from_secs(180);

/// The domain that the cases share never failed: it would have gone on in another life, and no guest would have seen it.
///
/// # Errors
/// It failed.
pub fn lived_through((lab, domain): (&Lab, &str)) -> Result<()> {
    let console = lab.console(domain)?;
    match console.lines().find(|line| line.contains("after one that failed")) {
        Some(line) => bail!("{domain} failed: {line}"),
        None => Ok(()),
    }
}

/// The heap may grow by so much in a case: buffers that were never as full before.
const HEAP_GROWTH: u64 = 128 << 10;

/// Loans of now and not of before, beyond those that may differ.
fn differences(before: &Resources, after: &Resources) -> Vec<String> {
    let differs = |name: &str, old: u64, new: u64| match name {
        // The allocators keep their pages; those in use are in the heap's bytes.
        "free-pages" | "heap-pages" => false,
        "heap-bytes" => new > old + HEAP_GROWTH,
        // Packets and blocks of the neighbours are on their way at any time.
        "packet-pages-free" | "data-pages-free" => new + 64 < old,
        "store-requests" => new > old + 8,
        _ => new != old,
    };
    let pairs = before.0.iter().map(|(name, old)| (name, *old, after.0.get(name).copied().unwrap_or_default()));
    pairs
        .filter(|(name, old, new)| differs(name, *old, *new))
        .map(|(name, old, new)| format!("{name} {old}, now {new}"))
        .collect()
}
