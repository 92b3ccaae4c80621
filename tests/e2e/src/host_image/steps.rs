//! The steps that a host goes through. Host.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::guests::{DRIVERS, NAMES, PEER, configs};
use super::package::{FIRST, NAME, SECOND};
use super::{Host, SLOTS, below};
use crate::traffic::Shell;

/// How often the host is booted again.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Clean reboots.
    pub reboots: u32,
    /// Power cuts.
    pub power_cuts: u32,
}

type Run = Box<dyn Fn(&mut Host) -> Result<String>>;

/// A step: its name, and what it does; the text says how it went.
pub struct Step {
    /// Its name.
    pub name: String,
    run: Run,
}

impl Step {
    fn new(name: impl Into<String>, run: impl Fn(&mut Host) -> Result<String> + 'static) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }

    /// Does it.
    ///
    /// # Errors
    /// What was not as it must be. The host is then of no more use.
    pub fn run(&self, host: &mut Host) -> Result<String> {
        (self.run)(host)
    }
}

/// All steps, in their order.
pub fn steps(plan: Plan) -> Vec<Step> {
    let mut steps = vec![
        Step::new("a whole Debian boots Xen by its boot loader", first_boot),
        Step::new("it shuts down with two guests, without the package", end_without),
        Step::new("apt installs the package; one line is edited in each config", install),
        Step::new("a reboot brings the driver domains and then the guests", |host| reboot(host, false)),
    ];
    let Plan { reboots, power_cuts } = plan;
    steps.extend((1..=reboots).map(|n| Step::new(format!("clean reboot {n} of {reboots}"), |host| reboot(host, true))));
    steps.extend((1..=power_cuts).map(|n| Step::new(format!("power cut {n} of {power_cuts}"), cut_power)));
    steps.push(Step::new("apt installs another build under load, and no guest connects anew", update));
    steps.push(Step::new("a reboot after that brings all again", |host| reboot(host, true)));
    steps.push(Step::new("purge leaves nothing", purge));
    steps.push(Step::new("a reboot after that gives dom0 its devices again", without_again));
    steps
}

fn first_boot(host: &mut Host) -> Result<String> {
    let seconds = host.boot()?;
    host.is_well()?;
    let lab = host.lab()?;
    let xen = lab.must("xl info xen_version; uname -r; cat /etc/debian_version")?;
    // Making an initramfs of all modules takes the emulated machine minutes. One of what it has will do, with the drivers in it that want the
    // devices of the driver domains.
    lab.put("/etc/initramfs-tools/conf.d/lab", 0o644, b"MODULES=dep\nCOMPRESSLEVEL=1\n")?;
    lab.must("printf 'e1000e\\nnvme\\n' >>/etc/initramfs-tools/modules")?;
    lab.run_for("update-initramfs -u", super::APT)?.success()?;
    // What a boot leaves behind is to be there before the files are noted.
    let noted = host.note_files()?;
    Ok(format!("{} ({seconds:.0} s; {noted} of files)", xen.split_whitespace().collect::<Vec<_>>().join(", ")))
}

fn put_guests(host: &Host, with_devices: bool) -> Result<()> {
    for config in configs(with_devices) {
        host.lab()?.put(&format!("/etc/xen/auto/{}.cfg", config.name), 0o644, config.to_string().as_bytes())?;
    }
    Ok(())
}

fn remove_guests(host: &Host) -> Result<()> {
    for name in NAMES {
        let lab = host.lab()?;
        lab.run(&format!("xl destroy {name} 2>/dev/null; rm -f /etc/xen/auto/{name}.cfg /var/lib/xen/save/{name}"))?;
    }
    Ok(())
}

fn end_without(host: &mut Host) -> Result<String> {
    put_guests(host, false)?;
    for name in NAMES {
        host.lab()?.must(&format!("xl create -q /etc/xen/auto/{name}.cfg"))?;
        host.lab()?.guest(name)?.must("true")?;
    }
    let took = host.end("poweroff", false)?;
    host.boot()?;
    host.is_well()?;
    remove_guests(host)?;
    Ok(format!("{:.0} s", took.as_secs_f64()))
}

fn install(host: &mut Host) -> Result<String> {
    let start = Instant::now();
    host.apt(format!("install {}", below(FIRST).display()))?;
    let took = start.elapsed();
    let [_, nic, controller] = SLOTS;
    for (name, slot) in DRIVERS.into_iter().zip([nic, controller]) {
        let config = format!("/etc/xen/oxidom/{name}.cfg");
        let edit = format!(
            "sed -i 's/^pci *=.*/pci = [ \"00:{slot:02x}.0\" ]/' {config} && grep -q '^pci = .*00:{slot:02x}' {config}"
        );
        host.lab()?.must(&edit).with_context(|| format!("{config} has no line for the device"))?;
    }
    put_guests(host, true)?;
    host.is_well()?;
    let version = host.lab()?.must(&format!("dpkg-query -W {NAME}"))?;
    Ok(format!("{} ({:.0} s)", version.trim().replace('\t', " "), took.as_secs_f64()))
}

/// Shuts down, boots, and looks at everything. `with_guests`: all of it ran before.
fn reboot(host: &mut Host, with_guests: bool) -> Result<String> {
    let ended = if with_guests {
        format!("down in {:.0} s, ", host.end("reboot", true)?.as_secs_f64())
    } else {
        host.end("reboot", true)?;
        host.ends.pop();
        String::new()
    };
    Ok(format!("{ended}{}", come_up(host)?))
}

fn cut_power(host: &mut Host) -> Result<String> {
    host.cut_power()?;
    come_up(host)
}

fn come_up(host: &mut Host) -> Result<String> {
    let seconds = host.boot()?;
    host.is_well()?;
    let came_up = host.is_served()?;
    Ok(format!("up in {seconds:.0} s, {} of {} guests went on", came_up.went_on, NAMES.len()))
}

fn update(host: &mut Host) -> Result<String> {
    let lab = host.lab()?;
    let ids: Vec<u32> = DRIVERS.iter().map(|name| lab.domain_id(name)).collect::<Result<_>>()?;
    let mut devices = String::new();
    for name in NAMES {
        devices += &format!("xenstore-ls -f /local/domain/{}/device; ", lab.domain_id(name)?);
    }
    let before = lab.must(&devices)?;
    let images = "sha256sum /usr/lib/oxidom/netdom /usr/lib/oxidom/blkdom";
    let images_before = lab.must(images)?;
    let [web, data] = [lab.guest(NAMES[0])?, lab.guest(NAMES[1])?];
    web.start("load", &format!("traffic tcp-both {PEER} 64G --until /tmp/enough"))?;
    data.start("load", "while ! test -e /tmp/enough; do dd if=/dev/xvda of=/dev/null bs=64k skip=1 iflag=direct || exit 1; done; echo read well")?;
    let start = Instant::now();
    host.apt(format!("install {}", below(SECOND).display()))?;
    let took = start.elapsed();
    for guest in [&web, &data] {
        guest.sh("touch /tmp/enough")?;
    }
    let (sent, read) = (web.finish("load")?, data.finish("load")?);
    ensure!(sent.contains("\"ok\":true"), "the stream under way broke: {sent}");
    ensure!(read.contains("read well"), "reading broke: {read}");
    let after = lab.must(&devices)?;
    ensure!(before == after, "the guests' devices were\n{before}and are\n{after}");
    ensure!(images_before != lab.must(images)?, "the images in /usr/lib/oxidom are the same as before");
    for (name, id) in DRIVERS.iter().zip(ids) {
        ensure!(lab.domain_id(name)? == id, "{name} was built anew");
        lab.must(&format!("grep -q 'has taken over' /var/log/xen/console/guest-{name}.log"))
            .with_context(|| format!("{name} runs the image that it had"))?;
    }
    host.is_well()?;
    let said: serde_json::Value = serde_json::from_str(sent.lines().last().unwrap_or_default())?;
    let mebibytes = |field: &str| said.get(field).and_then(serde_json::Value::as_u64).unwrap_or_default() >> 20;
    Ok(format!(
        "{:.0} s, in which one TCP connection sent {} MiB and received {} MiB",
        took.as_secs_f64(),
        mebibytes("sent"),
        mebibytes("received")
    ))
}

fn purge(host: &mut Host) -> Result<String> {
    remove_guests(host)?;
    let start = Instant::now();
    host.apt(format!("purge {NAME}"))?;
    let took = start.elapsed();
    let left = host.lab()?.must("xl list")?;
    ensure!(!DRIVERS.iter().any(|name| left.contains(name)), "driver domains are still there:\n{left}");
    host.nothing_is_left()?;
    Ok(format!("{:.0} s", took.as_secs_f64()))
}

fn without_again(host: &mut Host) -> Result<String> {
    host.end("reboot", true)?;
    host.ends.pop();
    host.boot()?;
    host.is_well()?;
    let [own, nic, controller] = SLOTS;
    for (slot, driver) in [(own, "e1000e"), (nic, "e1000e"), (controller, "nvme")] {
        let bound = host.lab()?.must(&format!("readlink -f /sys/bus/pci/devices/0000:00:{slot:02x}.0/driver"))?;
        ensure!(bound.trim().ends_with(driver), "00:{slot:02x}.0 is {}'s", bound.trim());
    }
    let ends = host.ends();
    host.end("poweroff", false)?;
    host.ends.pop();
    Ok(ends)
}
