//! One boot of the lab with the images in dom0, a wire at each NIC, and Linux guests that have the traffic tool. Host.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Equipment, GUEST_MEMORY, Guest, GuestConfig, Lab, LabConfig, Nic, Row, StorePlace};

use crate::driver_domain::{DriverDomain, DriverDomainConfig};

/// What was built for the stage, as files of the host.
#[derive(Clone, Debug)]
pub struct Images {
    /// The image that `dist/` holds.
    pub netdom: PathBuf,
    /// Likewise.
    pub blkdom: PathBuf,
    /// Likewise: the xenstore's, for the rows that have it in a domain.
    pub stubdom: PathBuf,
    /// Dom0's tool; `None` where no case needs it.
    pub tool: Option<PathBuf>,
    /// The image of the store with the word `faults`, for the cases in which it fails on demand; `None` where there are none.
    pub faulty_store: Option<PathBuf>,
    /// netdom that fails on demand; the same.
    pub faulty_netdom: Option<PathBuf>,
    /// blkdom that fails on demand; `None` where no case is to run that needs it.
    pub faulty_blkdom: Option<PathBuf>,
    /// The hostile frontend; what needs it says so where it is missing.
    pub hostile: Option<PathBuf>,
    /// The image of the runtime's own tests, with debug information; the same.
    pub guest: Option<PathBuf>,
    /// The image whose xenstore ring dom0 plays; the same.
    pub puppet: Option<PathBuf>,
    /// The image that takes the place of that one in its tests; the same.
    pub successor: Option<PathBuf>,
}

/// The lab, booted, with a wire at the far end of each NIC: wire `n` is network `10.(9 + n).0.0/16`, its peer `10.(9 + n).0.1`.
pub struct Stage {
    /// Dom0, the machine, the wires.
    pub lab: Lab,
    /// What is in dom0.
    pub images: Images,
    /// What a guest's root needs at least, in MiB.
    least_memory: u32,
}

impl Stage {
    /// Boots the row with these NICs and the images in place.
    ///
    /// # Errors
    /// What of the lab did not come up, with the console's end.
    pub fn boot(row: Row, images: &Images, nics: Vec<Nic>) -> Result<Self> {
        Self::boot_with(row, images, nics, |_| ())
    }

    /// The same, with a machine that differs.
    ///
    /// # Errors
    /// As [`Stage::boot`].
    pub fn boot_with(row: Row, images: &Images, nics: Vec<Nic>, change: impl FnOnce(&mut LabConfig)) -> Result<Self> {
        let mut config = LabConfig::new(row);
        config.nics = nics;
        config.store = Some(images.stubdom.clone());
        config.put("usr/lib/oxidom/netdom", 0o755, &images.netdom)?;
        config.put("usr/lib/oxidom/blkdom", 0o755, &images.blkdom)?;
        if let Some(faulty) = &images.faulty_netdom {
            config.put("usr/lib/oxidom/netdom-faulty", 0o755, faulty)?;
        }
        if let Some(faulty) = &images.faulty_blkdom {
            config.put("usr/lib/oxidom/blkdom-faulty", 0o755, faulty)?;
        }
        if let Some(tool) = &images.tool {
            config.put("usr/sbin/oxidom", 0o755, tool)?;
        }
        if let Some(hostile) = &images.hostile {
            config.put("usr/lib/oxidom/hostile", 0o755, hostile)?;
        }
        if let Some(guest) = &images.guest {
            config.put("usr/lib/oxidom/guest", 0o755, guest)?;
        }
        if let Some(puppet) = &images.puppet {
            config.put("usr/lib/oxidom/puppet", 0o755, puppet)?;
        }
        change(&mut config);
        let least_memory = match config.equipment {
            Equipment::Network => GUEST_MEMORY,
            Equipment::Disks => 160,
        };
        Ok(Self { lab: Lab::boot(&config)?, images: images.clone(), least_memory })
    }

    /// The address of the peer on wire `index`.
    pub fn peer(&self, index: usize) -> String {
        self.lab.wire(index).map_or_else(|_| String::new(), |wire| wire.config().ipv4.to_string())
    }

    /// Hands NIC 0 to a netdom with this config and waits until it is ready.
    ///
    /// # Errors
    /// Its console's end where it does not come up.
    pub fn start(&self, config: DriverDomainConfig) -> Result<DriverDomain<'_>> {
        let nic = self.lab.make_assignable(0)?;
        let netdom = DriverDomain::create(&self.lab, &config.pci(&nic))?;
        // It would find the NIC later, too.
        let ready = netdom.node("data/ready")?;
        ensure!(!ready.contains("no NIC"), "netdom went on without its NIC: {ready}");
        Ok(netdom)
    }

    /// Creates a Linux guest with these vifs, all up, the addresses leased through them.
    ///
    /// # Errors
    /// The command that failed.
    pub fn client(&self, name: &str, vifs: &[String]) -> Result<Guest<'_>> {
        let mut config = GuestConfig::new(name);
        config.vifs = vifs.to_vec();
        self.client_of(&config)
    }

    /// The same, with a config that differs in more than that.
    ///
    /// # Errors
    /// As [`Stage::client`].
    pub fn client_of(&self, config: &GuestConfig) -> Result<Guest<'_>> {
        let config = GuestConfig { memory: config.memory.max(self.least_memory), ..config.clone() };
        let guest = self.lab.create(&config)?;
        for index in 0..config.vifs.len() {
            lease(&guest, &format!("eth{index}"))?;
        }
        Ok(guest)
    }
}

/// As the README says it.
pub const RAISE_QUOTAS: &str = "xenstore-control quota set nodes 8000 && xenstore-control quota set watches 300";

/// Debian's file with the lines that the README names, without those that are the defaults.
pub const OXENSTORED: &str = "pid-file = /var/run/xen/xenstored.pid\nquota-activate = true\nquota-maxentity = 8000\n\
    quota-maxwatch = 300\npersistent = false\nxenstored-kva = /proc/xen/xsd_kva\nxenstored-port = /proc/xen/xsd_port\n";

/// Raises the quotas of a store that lets that be done while it runs.
///
/// # Errors
/// What the store's tool said.
pub fn raise_quotas(lab: &Lab) -> Result<()> {
    match lab.row().store {
        StorePlace::Daemon => lab.must(RAISE_QUOTAS).map(drop),
        StorePlace::OcamlDaemon | StorePlace::Domain => Ok(()),
    }
}

/// A `vif` of netdom in `xl`'s words; the last byte of its address is `number`.
pub fn vif(backend: &str, number: u8) -> String {
    format!("backend={backend},mac=00:16:3e:00:00:{number:02x}")
}

/// Brings an interface up with a lease from the wire; gives the address.
///
/// # Errors
/// What the guest's DHCP client said.
pub fn lease(guest: &Guest<'_>, interface: &str) -> Result<String> {
    let script = format!(
        "ip link set {interface} up && udhcpc -i {interface} -n -q -t 20 -T 1 >/tmp/udhcpc.log 2>&1 || \
         {{ cat /tmp/udhcpc.log; exit 1; }}; ip -4 -o addr show dev {interface} | awk '{{print $4}}' | cut -d/ -f1"
    );
    let output = guest.run_for(&script, Duration::from_secs(60))?.success();
    let address = output.with_context(|| format!("{} got no lease on {interface}", guest.name()))?;
    Ok(address.trim().to_owned())
}
