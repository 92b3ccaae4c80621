//! 250 vifs of one netdom in use: what a packet costs then, and what a user sees past the store's quota. On request, as it takes
//! minutes. Host.

use std::cell::{Cell, OnceCell};
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Guest, GuestConfig, Lab, Row, StorePlace};

use super::{Case, Family, Play, Rows};
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::stage::{Images, Stage, lease, raise_quotas, vif};
use crate::traffic::{self, Shell};

/// Vifs of dom0, and of each of two guests; two more guests have one each, by `xl`.
const OF_DOM0: u32 = 200;
const OF_A_GUEST: u32 = 24;
const ALL: u32 = OF_DOM0 + 2 * OF_A_GUEST + 2;
/// Those that [`attach`] makes.
const MADE: u32 = ALL - 2;
/// How long all may take to be attached.
const PATIENCE: Duration = Duration::from_secs(900);
/// Bytes of a datagram that makes a shortest frame, and seconds of a flood of them.
const PAYLOAD: u32 = 18;
const SECONDS: u32 = 8;

/// A netdom with 250 vifs.
pub struct ManyVifs;

/// The guests, and what a packet cost one vif alone.
pub struct ManyScene<'s> {
    stage: &'s Stage,
    netdom: DriverDomain<'s>,
    /// It sends, and is one whom the others ping.
    a: Guest<'s>,
    a_address: String,
    /// Microseconds of netdom for a packet, before the others came.
    alone: [f64; 2],
    /// Vifs that dom0 has already.
    of_dom0: Cell<u32>,
    /// The guests with many vifs, which the second case makes.
    crowd: OnceCell<Vec<Guest<'s>>>,
}

impl Play for ManyVifs {
    const UP: &'static str = "on request: dom0 with room for 250 vifs comes up";
    const FAMILIES: &'static [Family<Self>] = &[Family { rows: Rows::All, cases: CASES }];
    type Stage = Stage;
    type Scene<'s> = ManyScene<'s>;

    fn boot(row: Row, images: &Images) -> Result<Stage> {
        Stage::boot_with(row, images, vec![lab::Nic::wired(0)], |config| {
            // Linux' netfront keeps a MiB of buffers for a vif, and grants each of their pages.
            config.dom0_memory = 1280;
            config.memory = 3072;
            config.xen_arguments = "gnttab_max_frames=256".to_owned();
            // Of a store's domain, which 205 vifs filled when it had 8.
            config.store_memory = 32;
            if row.store == StorePlace::OcamlDaemon {
                config.put_text("etc/xen/oxenstored.conf", crate::stage::OXENSTORED);
            }
        })
    }

    fn set(stage: &Stage) -> Result<ManyScene<'_>> {
        stage.lab.must("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6 || true")?;
        let netdom = stage.start(DriverDomainConfig::netdom("netdom").memory(16))?;
        let a = stage.client("a", &[vif("netdom", 1)])?;
        let a_address = lease(&a, "eth0")?;
        let alone = costs(stage, &netdom, &a)?;
        Ok(ManyScene { stage, netdom, a, a_address, alone, of_dom0: Cell::new(0), crowd: OnceCell::new() })
    }

    fn witness<'a>(scene: &'a ManyScene<'_>) -> (&'a Lab, &'a str) {
        (&scene.stage.lab, &scene.netdom.name)
    }
}

const CASES: &[Case<ManyVifs>] = &[
    Case {
        name: "on request: 250 vifs: the first beyond the store's default quota waits until that is raised",
        run: beyond,
    },
    Case {
        name: "on request: 250 vifs of a netdom of 16 MiB are connected and pass traffic, all at once",
        run: in_use,
    },
    Case { name: "on request: 250 vifs: what a packet costs beside them, and alone", run: cost },
];

/// Microseconds of netdom's CPU for a packet to the wire, and from it.
fn costs(stage: &Stage, netdom: &DriverDomain<'_>, a: &Guest<'_>) -> Result<[f64; 2]> {
    let peer = stage.peer(0);
    let measure = |run: &dyn Fn() -> Result<traffic::Flow>| -> Result<f64> {
        let before = netdom.cpu_seconds()?;
        let flow = run()?;
        Ok((netdom.cpu_seconds()? - before) * 1e6 / flow.received as f64)
    };
    Ok([
        measure(&|| traffic::udp_flood(a, &peer, PAYLOAD, SECONDS))?,
        measure(&|| traffic::udp_receive(a, &peer, PAYLOAD, SECONDS))?,
    ])
}

/// Gives a domain these vifs: the nodes that libxl writes, one vif after another. `xl network-attach` takes two seconds for each in the
/// lab, and libxl gives up a guest's vifs that are not ready within ten.
fn attach(lab: &Lab, netdom: u32, domain: u32, devices: Range<u32>, mac: u32) -> Result<()> {
    let (first, end) = (devices.start, devices.end);
    let script = format!(
        "n={first}; while [ $n -lt {end} ]; do mac=$(printf 00:16:3e:00:{mac:02x}:%02x $n); \
         back=/local/domain/{netdom}/backend/vif/{domain}/$n; front=/local/domain/{domain}/device/vif/$n; \
         xenstore-write $back '' $back/frontend $front $back/frontend-id {domain} $back/online 1 $back/handle $n \
             $back/mac $mac $back/bridge xenbr0 $back/script /etc/xen/scripts/vif-bridge $back/type vif $back/hotplug-status '' \
             $front '' $front/backend $back $front/backend-id {netdom} $front/handle $n $front/mac $mac $front/mtu 1500 && \
         xenstore-chmod -r $back n{netdom} r{domain} && xenstore-chmod -r $front n{domain} r{netdom} && \
         xenstore-write $front/state 1 $back/state 1 || exit 1; n=$((n + 1)); done"
    );
    lab.run_for(&script, PATIENCE)?.success().map(drop)
}

fn in_use(scene: &ManyScene<'_>) -> Result<String> {
    let (lab, netdom) = (&scene.stage.lab, scene.netdom.id);
    raise_quotas(lab)?;
    scene.stage.client("b", &[vif("netdom", 2)])?;
    let crowd = ["c", "d"].map(|name| lab.create(&GuestConfig { memory: 192, ..GuestConfig::new(name) }));
    let [c, d] = crowd;
    let crowd = vec![c?, d?];
    let start = Instant::now();
    attach(lab, netdom, 0, scene.of_dom0.get()..OF_DOM0, 4)?;
    for (guest, mac) in crowd.iter().zip(5..) {
        attach(lab, netdom, guest.id(), 0..OF_A_GUEST, mac)?;
    }
    lab.wait_until(&connected(netdom, ALL), PATIENCE).context("not all are connected")?;
    let attached = start.elapsed();
    let shells = || {
        [(lab as &dyn Shell, 100)].into_iter().chain((101..).zip(&crowd).map(|(net, guest)| (guest as &dyn Shell, net)))
    };
    for (shell, net) in shells() {
        shell.sh(&addresses(net))?;
    }
    for host in [&scene.stage.peer(0), &scene.a_address] {
        let mut answered = 0;
        for (shell, _) in shells() {
            answered += pinged(shell, host)?;
        }
        ensure!(answered == MADE, "{answered} of {MADE} vifs reach {host}");
    }
    for (shell, _) in shells() {
        shell.start("pings", &format!("sh -c '{}'", all_at_once(&scene.a_address)))?;
    }
    let mut replies = Vec::new();
    for (shell, _) in shells() {
        let said = shell.finish("pings")?;
        for line in said.lines() {
            replies.push(line.trim().parse::<u32>().with_context(|| format!("{} says '{said}'", shell.label()))?);
        }
    }
    let (vifs, least) = (replies.len(), replies.iter().min().copied().unwrap_or_default());
    ensure!(vifs == MADE as usize && least > 0, "of {vifs} vifs that sent at once one had {least} replies");
    let counted = format!("xenstore-ls -f /local/domain/{netdom}/data/statistics/vif | grep -c packets");
    lab.wait_until(&format!("test $({counted}) -eq {ALL}"), PATIENCE).context("not all vifs have statistics")?;
    let memory = scene.netdom.resources()?;
    let figure = |name: &str| memory.0.get(name).copied().unwrap_or_default();
    drop(scene.crowd.set(crowd));
    Ok(format!(
        "attached in {:.0} s; all at once {} of {} pings were answered, at least {least} of a vif's {PINGS}; netdom's heap {} KiB, {} nodes of \
         {ALL} backends, {} by the store's count",
        attached.as_secs_f64(),
        replies.iter().sum::<u32>(),
        PINGS * MADE,
        figure("heap-bytes") / 1024,
        figure("backend-nodes"),
        owned(lab, netdom)?,
    ))
}

/// The interfaces of a Linux domain's vifs but for guest `a`'s.
const INTERFACES: &str = "grep -l -i ^00:16:3e:00:0[4-6] /sys/class/net/*/address | cut -d / -f 5";

/// Gives each interface an address of its own, for which it alone answers.
fn addresses(net: u32) -> String {
    format!(
        "echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore; n=0; for dev in $({INTERFACES}); do n=$((n + 1)); \
         ip link set $dev up && ip addr add 10.9.{net}.$n/16 dev $dev || exit 1; done"
    )
}

/// How many interfaces get an answer from `host`, one after another.
fn pinged(shell: &dyn Shell, host: &str) -> Result<u32> {
    let script =
        format!("for dev in $({INTERFACES}); do ping -c 1 -W 5 -I $dev {host} | grep 'bytes from'; done | grep -c .");
    let said = shell.sh(&script)?;
    said.trim().parse().with_context(|| format!("{} says '{said}'", shell.label()))
}

/// Pings of each vif; the replies to each are what it says.
const PINGS: u32 = 10;

fn all_at_once(host: &str) -> String {
    format!(
        "for dev in $({INTERFACES}); do ( ping -c {PINGS} -W 10 -I $dev {host} | grep -c \"bytes from\" ) & done; wait"
    )
}

fn cost(scene: &ManyScene<'_>) -> Result<String> {
    scene.crowd.get().context("the vifs are not there")?;
    let beside = costs(scene.stage, &scene.netdom, &scene.a)?;
    let [out, back] = scene.alone;
    Ok(format!(
        "to the wire {:.2} us, alone {out:.2} ({:.2} times); from it {:.2} us, alone {back:.2} ({:.2} times)",
        beside[0],
        beside[0] / out,
        beside[1],
        beside[1] / back,
    ))
}

/// How many nodes a domain has, by a store that says so.
fn owned(lab: &Lab, domain: u32) -> Result<String> {
    if lab.row().store != StorePlace::Daemon {
        return Ok("none".to_owned());
    }
    let said = lab.must(&format!("xenstore-control quota {domain} | awk '$1 == \"nodes\" {{print $NF}}'"))?;
    Ok(said.trim().trim_end_matches(')').to_owned())
}

/// Vifs that do not fit in 1,000 nodes.
const TOO_MANY: u32 = 60;

/// The toolstack's nodes count for netdom and are not refused; netdom's own are, the reason's among them.
fn beyond(scene: &ManyScene<'_>) -> Result<String> {
    let (lab, netdom) = (&scene.stage.lab, scene.netdom.id);
    if lab.row().store != StorePlace::Daemon {
        return Ok("not tried: this store has no such quota, or it was raised".to_owned());
    }
    let attach_one =
        |number: u32| lab.run(&format!("xl network-attach 0 backend=netdom mac=00:16:3e:00:04:{number:02x}"));
    let mut of_dom0 = 0;
    let said_by_xl = loop {
        ensure!(of_dom0 < TOO_MANY, "{of_dom0} vifs are connected by the default quota");
        let output = attach_one(of_dom0)?;
        // libxl takes a device away at once that is refused.
        let state = format!("/local/domain/{netdom}/backend/vif/0/{of_dom0}/state");
        let settled = format!("xenstore-read {state} | grep '[456]' || ! xenstore-exists {state}");
        let state = lab.wait_until(&settled, Duration::from_secs(60))?;
        if state.trim() != "4" {
            break output.stdout;
        }
        of_dom0 += 1;
    };
    let refused = format!("vif0.{of_dom0}: the store lets the driver domain have no more");
    lab.wait_for_console(&scene.netdom.name, &refused, PATIENCE)?;
    let complaint = scene.netdom.node("data/error")?;
    ensure!(complaint.contains("quota") && complaint.contains("Many devices"), "data/error is '{complaint}'");
    let pings = traffic::ping(&scene.a, &scene.stage.peer(0), 5, 200, 56)?;
    ensure!(pings.lost == 0, "a neighbour lost {} of 5 pings", pings.lost);
    raise_quotas(lab)?;
    // Dom0's netfront has given it up: it is to begin anew.
    lab.run(&format!("xl network-detach 0 {of_dom0}"))?;
    attach_one(of_dom0)?.success()?;
    scene.of_dom0.set(of_dom0 + 1);
    lab.wait_until(&connected(netdom, of_dom0 + 2), PATIENCE).context("it does not connect with the quota raised")?;
    lab.wait_until(&format!("! xenstore-read /local/domain/{netdom}/data/error"), PATIENCE)
        .context("the complaint stays")?;
    Ok(format!(
        "{} vifs fit; of the next xl said '{}', and data/error: {}",
        of_dom0 + 1,
        said_by_xl.trim(),
        complaint.trim()
    ))
}

/// A script that tells whether `count` backends are connected, by one process in place of one for each vif.
fn connected(netdom: u32, count: u32) -> String {
    let backends = format!("/local/domain/{netdom}/backend/vif");
    format!("test $(xenstore-ls -f {backends} | grep -c '/state = \"4\"') -eq {count} || {{ sleep 2; false; }}")
}
