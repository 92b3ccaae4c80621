//! A Linux guest with several queues, and another number of them at run time. Host.

use anyhow::{Result, bail, ensure};
use lab::{Guest, GuestConfig};

use super::{Case, Scene};
use crate::stage::{lease, vif};
use crate::traffic::{self, Shell};

pub(super) const CASES: &[Case] =
    &[Case { name: "a Linux guest with a queue a vCPU, then with one, then with four", run: queues }];

const MEBIBYTES: u32 = 32;

fn queues(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let before = scene.at_rest()?;
    let config = GuestConfig { vcpus: 2, ..GuestConfig::new("queues").vif(&vif("netdom", 0x52)) };
    let guest = scene.stage.client_of(&config)?;
    let result = serve(scene, &guest);
    lab.destroy_after("queues", result).and_then(|line| scene.given_back(&before).map(|()| line))
}

fn serve(scene: &Scene<'_>, guest: &Guest<'_>) -> Result<String> {
    let mut figures = Vec::new();
    for count in [2, 1, 4] {
        if count != 2 {
            reconnect(guest, count)?;
        }
        let there = guest.sh("ls -d /sys/class/net/eth0/queues/rx-* | wc -l")?;
        ensure!(there.trim() == count.to_string(), "{} queues, of {count}", there.trim());
        let address = lease(guest, "eth0")?;
        let quiet = interrupts(guest)?;
        let out = traffic::tcp(guest, "send", &scene.peer(), MEBIBYTES)?;
        let back = traffic::tcp(guest, "receive", &scene.peer(), MEBIBYTES)?;
        traffic::serve(&scene.b)?;
        let across = traffic::tcp(guest, "send", &scene.b_address, MEBIBYTES);
        scene.b.stop("serve")?;
        traffic::serve(guest)?;
        let towards = traffic::tcp(&scene.a, "send", &address, MEBIBYTES);
        guest.stop("serve")?;
        let ping = traffic::ping(guest, &scene.peer(), 200, 0, 56)?;
        ensure!(ping.lost == 0 && ping.duplicates == 0, "{ping:?}");
        // More flows than queues, so that each has one; they are answered by resets.
        scene.a.sh(&format!(
            "for port in $(seq 2000 2063); do nc -w 1 {address} $port </dev/null 2>/dev/null; done; true"
        ))?;
        let busy = interrupts(guest)?;
        ensure!(busy.len() == count && quiet.len() == count, "interrupts of {} queues", busy.len());
        let idle = quiet.iter().zip(&busy).filter(|(quiet, busy)| quiet == busy).count();
        ensure!(idle == 0, "{idle} of {count} queues had no packet: {quiet:?}, {busy:?}");
        let rates = [out, back, across?, towards?].map(|transfer| format!("{:.0}", transfer.mbit_per_second));
        figures.push(format!("{count}: {} Mbit/s", rates.join(", ")));
    }
    Ok(figures.join("; "))
}

/// Has the frontend close and come again with so many queues, as a module does that is loaded with another `max_queues`.
fn reconnect(guest: &Guest<'_>, queues: usize) -> Result<()> {
    guest.sh(&format!("echo {queues} > /sys/module/xen_netfront/parameters/max_queues"))?;
    guest.sh("cd /sys/bus/xen/drivers/vif && echo vif-0 > unbind && echo vif-0 > bind")?;
    for _ in 0..50 {
        if guest.sh("test -e /sys/class/net/eth0 && echo there || sleep 0.2")?.contains("there") {
            return Ok(());
        }
    }
    bail!("no interface after it was bound again")
}

/// The interrupts of each queue's receive ring, on all CPUs.
fn interrupts(guest: &Guest<'_>) -> Result<Vec<u64>> {
    let script = "awk '/eth0-q[0-9]+-rx|vif0-q[0-9]+-rx/ { sum = 0; for (i = 2; i <= NF && $i ~ /^[0-9]+$/; i++) sum += $i; \
                  print sum }' /proc/interrupts";
    Ok(guest.sh(script)?.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
}
