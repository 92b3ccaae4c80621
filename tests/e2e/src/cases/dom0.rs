//! Dom0 itself as a client of the driver domain. Host.

use std::time::Duration;

use anyhow::Result;

use super::{Case, Scene};
use crate::traffic::{self, Shell};

pub(super) const CASES: &[Case] = &[Case { name: "dom0 itself as a client", run: dom0_as_a_client }];

fn dom0_as_a_client(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    lab.must("xl network-attach 0 backend=netdom mac=00:16:3e:00:00:d0")?;
    let result = (|| {
        lab.wait_until("grep -l 00:16:3e:00:00:d0 /sys/class/net/*/address", Duration::from_secs(30))?;
        lab.sh("dev=$(basename $(dirname $(grep -l 00:16:3e:00:00:d0 /sys/class/net/*/address))); \
                ip link set $dev up && ip addr add 10.9.77.1/16 dev $dev")?;
        let ping = traffic::ping(lab, &scene.peer(), 100, 0, 56)?;
        let transfer = traffic::tcp(lab, "send", &scene.peer(), 16)?;
        Ok(format!("ping median {:.0} us, TCP {:.0} Mbit/s", ping.median_us, transfer.mbit_per_second))
    })();
    let device = lab.must("xl network-list 0 | awk '/00:16:3e:00:00:d0/ {print $1}'")?;
    lab.must(&format!("xl network-detach 0 {}", device.trim()))?;
    result
}
