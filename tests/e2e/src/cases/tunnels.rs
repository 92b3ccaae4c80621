//! Frames that netdom's data path does not look into, or must not look into wrongly: tunnels, IPsec, SCTP, extension headers, fragments,
//! and a guest that bridges. Linux is at both ends: guest and guest, or guest and a NIC of dom0 on the same wire. Host.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::Lab;
use wire::{Direction, Wire};

use super::{Case, Scene};
use crate::stage::vif;
use crate::traffic::{self, Flow, Shell};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "VXLAN, GRE, ESP, SCTP, a routing header and fragments between guests, both ways",
        run: between_guests,
    },
    Case { name: "VXLAN, GRE, ESP, SCTP, a routing header and fragments over the wire, both ways", run: over_the_wire },
    Case { name: "a guest that bridges two vifs with STP makes no loop", run: bridging_guest },
];

const PATIENCE: Duration = Duration::from_secs(120);
const KIBIBYTES: u32 = 1024;
/// Of the 750 segments of a transfer, so many may be sent once more: the host is slow at times, and a timer of TCP ends.
const AGAIN: u32 = 40;

/// A Linux domain as one end.
struct End<'a> {
    shell: &'a dyn Shell,
    interface: String,
    /// The last byte of each of its addresses.
    number: u8,
}

/// What one end sets up, as `NAME=VALUE` words before it: `d` the interface, `m` and `o` the numbers of this end and of the other.
///
/// - 10.210.0.x, fd21::x: the addresses below all others
/// - `vx`: VXLAN (RFC 7348), 10.211.0.x; `gre`: GRE (RFC 2784), 10.212.0.x
/// - 10.213.0.x: ESP in transport mode (RFC 4303) with the ciphers that do nothing: what they would do is no affair of netdom's
/// - fd22::x: by way of fd23::x, with a segment routing header (RFC 8754)
const SET_UP: &str = r"
ip=/usr/bin/ip
# In Debian 12's kernel it is built in.
modprobe crypto_null 2>/dev/null
for module in vxlan ip_gre esp4 xfrm_user authenc crc32c_generic sctp; do modprobe $module || exit 1; done
echo none > /proc/sys/net/sctp/cookie_hmac_alg
for f in all $d; do echo 1 > /proc/sys/net/ipv6/conf/$f/seg6_enabled; done
echo 0 > /proc/sys/net/ipv6/conf/$d/accept_dad
set -e
$ip addr add 10.210.0.$m/24 dev $d
$ip addr add 10.213.0.$m/24 dev $d
for n in fd21 fd22 fd23; do $ip -6 addr add $n::$m/64 dev $d nodad; done
$ip link add vx type vxlan id 7 local 10.210.0.$m remote 10.210.0.$o dstport 4789 dev $d
$ip addr add 10.211.0.$m/24 dev vx
$ip link set vx up
$ip link add tunnel type gre local 10.210.0.$m remote 10.210.0.$o ttl 64
$ip addr add 10.212.0.$m/24 dev tunnel
$ip link set tunnel up
for way in out:$m:$o in:$o:$m; do
    IFS=: read dir s t <<EOF
$way
EOF
    $ip xfrm state add src 10.213.0.$s dst 10.213.0.$t proto esp spi 0x10$s reqid 1 mode transport auth digest_null '' enc 'ecb(cipher_null)' ''
    $ip xfrm policy add src 10.213.0.$s dst 10.213.0.$t dir $dir tmpl proto esp reqid 1 mode transport
done
$ip -6 route add fd22::$o/128 encap seg6 mode inline segs fd23::$o dev $d
";

/// Undoes [`SET_UP`], as far as it came.
const TAKE_DOWN: &str = "
ip=/usr/bin/ip
$ip xfrm state flush; $ip xfrm policy flush; $ip link del vx; $ip link del tunnel
$ip -6 route del fd22::$o/128
for n in fd21 fd22 fd23; do $ip -6 addr del $n::$m/64 dev $d; done
$ip addr del 10.213.0.$m/24 dev $d; $ip addr del 10.210.0.$m/24 dev $d
for f in all $d; do echo 0 > /proc/sys/net/ipv6/conf/$f/seg6_enabled; done
true
";

impl End<'_> {
    fn run(&self, script: &str, other: &End<'_>) -> Result<String> {
        self.shell.sh(&format!("d={} m={} o={}\n{script}", self.interface, self.number, other.number))
    }
}

/// The two with all of it between them; taken down again.
fn exchange(one: &End<'_>, other: &End<'_>) -> Result<String> {
    let result = one
        .run(SET_UP, other)
        .and_then(|_| other.run(SET_UP, one))
        .and_then(|_| traffic::serve(other.shell))
        .and_then(|()| other.shell.start("serve-sctp", "traffic tcp-serve --sctp"))
        .and_then(|()| transfers(one, other))
        .and_then(|rates| routed(one, other).and_then(|()| routed(other, one)).map(|()| rates));
    let left = [
        other.shell.stop("serve"),
        other.shell.stop("serve-sctp"),
        one.run(TAKE_DOWN, other).map(drop),
        other.run(TAKE_DOWN, one).map(drop),
    ];
    let rates = result?;
    left.into_iter().collect::<Result<()>>()?;
    Ok(rates)
}

/// Segments that TCP sent once more.
fn retransmitted(shells: [&dyn Shell; 2]) -> Result<u32> {
    let mut sum = 0;
    for shell in shells {
        sum += shell.sh("grep ^Tcp: /proc/net/snmp | tail -n 1 | cut -d' ' -f13")?.trim().parse::<u32>()?;
    }
    Ok(sum)
}

fn transfers(one: &End<'_>, other: &End<'_>) -> Result<String> {
    let (ends, other) = ([one.shell, other.shell], other.number);
    let mut rates = Vec::new();
    for (kind, host) in [
        ("VXLAN", format!("10.211.0.{other}")),
        ("GRE", format!("10.212.0.{other}")),
        ("ESP", format!("10.213.0.{other}")),
        ("SCTP", format!("10.210.0.{other} --sctp")),
    ] {
        for direction in ["send", "receive"] {
            let (host, option) = host.split_once(' ').unwrap_or((&host, ""));
            let before = retransmitted(ends)?;
            let transfer: traffic::Transfer =
                traffic::call(one.shell, "traffic", &format!("tcp-{direction} {host} {KIBIBYTES}K {option}"))
                    .with_context(|| format!("{kind}, {direction}"))?;
            ensure!(transfer.checked, "{kind}, {direction}: the digests were not compared");
            // Data arrive all the same where super-frames are lost: TCP sends them again, cut.
            let again = retransmitted(ends)? - before;
            ensure!(again <= AGAIN, "{kind}, {direction}: {again} segments were sent again");
            rates.push(format!("{:.0}", transfer.mbit_per_second));
        }
    }
    for host in [format!("10.210.0.{other}"), format!("fd21::{other}")] {
        // Six fragments each way.
        let ping = traffic::ping(one.shell, &host, 50, 0, 8000).with_context(|| format!("fragments, {host}"))?;
        ensure!(ping.lost == 0, "fragments, {host}: {ping:?}");
    }
    Ok(format!("{} Mbit/s", rates.join(", ")))
}

/// Datagrams with a routing header. By TCP there are none to speak of: Linux' netfront drops super-frames that have one (`tx_dropped`).
fn routed(from: &End<'_>, to: &End<'_>) -> Result<()> {
    to.shell.start("sink", "traffic udp-sink")?;
    let flow: Result<Flow> = to
        .shell
        .sh("for i in $(seq 3000); do grep -q ready /tmp/sink.out && exit 0; usleep 20000; done; cat /tmp/sink.out; exit 1")
        .and_then(|_| traffic::call(from.shell, "traffic", &format!("udp-pace fd22::{} 100 1 --size 1000", to.number)));
    to.shell.stop("sink")?;
    let flow = flow.context("a routing header")?;
    ensure!(flow.sent == Some(flow.received) && flow.received > 0, "a routing header: {flow:?}");
    Ok(())
}

fn between_guests(scene: &Scene<'_>) -> Result<String> {
    let end = |shell, number| End { shell, interface: "eth0".to_owned(), number };
    exchange(&end(&scene.a, 1), &end(&scene.b, 2))
}

/// The NIC of the machine that netdom cannot drive, and dom0 can.
const DOM0_NIC: usize = 1;

fn over_the_wire(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let _joined = Joined::new(lab.wire(0)?, lab.wire(DOM0_NIC)?);
    let result = dom0_interface(lab).and_then(|interface| {
        let far = End { shell: lab, interface, number: 3 };
        exchange(&End { shell: &scene.a, interface: "eth0".to_owned(), number: 1 }, &far)
    });
    let unloaded = lab.must("rmmod e1000");
    let rates = result?;
    unloaded?;
    Ok(rates)
}

/// Has dom0 drive the NIC, and gives the interface's name.
fn dom0_interface(lab: &Lab) -> Result<String> {
    let bdf = lab.nics().get(DOM0_NIC).context("the machine has no second NIC")?.bdf();
    let script = format!(
        "modprobe e1000 && d=$(ls /sys/bus/pci/devices/0000:{bdf}/net) && ip link set $d up && \
         for i in $(seq 3000); do grep -q 1 /sys/class/net/$d/carrier && echo $d && exit 0; usleep 20000; done; exit 1"
    );
    Ok(lab.must(&script).context("dom0 does not bring its NIC up")?.trim().to_owned())
}

/// Two wires as one, until it is dropped.
struct Joined<'a>([&'a Wire; 2]);

impl<'a> Joined<'a> {
    fn new(one: &'a Wire, other: &'a Wire) -> Self {
        for (from, to) in [(one, other), (other, one)] {
            let inject = to.injector();
            from.observe(Some(Box::new(move |direction, frame| {
                if matches!(direction, Direction::In(_)) {
                    inject(frame);
                }
            })));
        }
        Self([one, other])
    }
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        for wire in self.0 {
            wire.observe(None);
        }
    }
}

/// With STP the two ports of the guest's bridge hear each other through netdom, and one of them blocks. The shortest delays that 802.1D allows.
fn bridging_guest(scene: &Scene<'_>) -> Result<String> {
    let (lab, b) = (&scene.stage.lab, &scene.b);
    let address = "00:16:3e:00:00:63";
    lab.must(&format!("xl network-attach b {}", vif("netdom", 0x63).replace(',', " ")))?;
    let result = (|| {
        let second = b.sh(&format!(
            "for i in $(seq 3000); do d=$(grep -l {address} /sys/class/net/*/address | cut -d/ -f5) && test -n \"$d\" && \
             echo $d && exit 0; usleep 20000; done; exit 1"
        ))?;
        let second = second.trim();
        b.sh(&format!(
            "modprobe bridge && /usr/bin/ip link add br0 type bridge stp_state 1 forward_delay 200 hello_time 100 && \
             for d in eth0 {second}; do ip link set $d up && ip link set $d master br0 || exit 1; done; ip link set br0 up"
        ))?;
        // 4 is BR_STATE_BLOCKING, 3 BR_STATE_FORWARDING (linux/if_bridge.h).
        let states = b.sh(&format!(
            "for i in $(seq 3000); do s=$(cat /sys/class/net/eth0/brport/state /sys/class/net/{second}/brport/state | sort | tr '\\n' ' '); \
             test \"$s\" = '3 4 ' && exit 0; usleep 20000; done; echo the states are $s; exit 1"
        ));
        states.context("none of the two ports blocks, or none forwards")?;
        let ping = traffic::ping(&scene.a, &scene.peer(), 50, 0, 56)?;
        ensure!(ping.lost == 0 && ping.duplicates == 0, "{ping:?}");
        Ok("one port forwards, the other blocks".to_owned())
    })();
    b.sh("ip link del br0 2>/dev/null; true")?;
    lab.must(&format!(
        "d=$(xl network-list b | awk '/{address}/ {{print $1}}'); test -z \"$d\" || xl network-detach b $d"
    ))?;
    // Its route and neighbours went with the bridge.
    b.sh(&format!("ip link set eth0 up; traffic ping {} 1 0", scene.peer()))?;
    lab.wait_until(&format!("! xl network-list b | grep -q {address}"), PATIENCE)?;
    result
}
