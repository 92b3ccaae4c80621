//! A Linux guest that runs XDP programs on its vif, as netfront does since Linux 5.9: it asks for headroom while it is connected. Host.

use anyhow::{Context, Result, ensure};
use lab::Guest;
use object::write::{Object, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};

use super::{Case, Scene};
use crate::traffic::{self, Shell};

pub(super) const CASES: &[Case] = &[Case {
    name: "a guest turns XDP on and off: a program that uses the headroom passes TCP both ways, one that drops drops",
    run: programs,
}];

const MEBIBYTES: u32 = 8;
/// iproute2's; busybox's, which comes first in `PATH`, knows no XDP.
const IP: &str = "/usr/bin/ip";

/// `XDP_PASS` of `linux/bpf.h`.
const XDP_PASS: i32 = 2;
/// `XDP_DROP` of `linux/bpf.h`.
const XDP_DROP: i32 = 1;
/// The helper `bpf_xdp_adjust_head` of `linux/bpf.h`.
const BPF_XDP_ADJUST_HEAD: i32 = 44;
/// Bytes that a program may have of netfront's `XDP_PACKET_HEADROOM` of 256: the kernel keeps some for its `struct xdp_frame`.
const HEADROOM: i32 = 192;

/// Instructions of `Documentation/bpf/standardization/instruction-set.rst`: opcode, destination and source, offset, immediate.
const fn instruction(opcode: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> [u8; 8] {
    let (offset, immediate) = (offset.to_le_bytes(), immediate.to_le_bytes());
    [opcode, source << 4 | destination, offset[0], offset[1], immediate[0], immediate[1], immediate[2], immediate[3]]
}

const fn set(register: u8, immediate: i32) -> [u8; 8] {
    instruction(0xb7, register, 0, 0, immediate)
}

const fn copy(to: u8, from: u8) -> [u8; 8] {
    instruction(0xbf, to, from, 0, 0)
}

const fn call(helper: i32) -> [u8; 8] {
    instruction(0x85, 0, 0, 0, helper)
}

const fn skip_unless_zero(register: u8, instructions: i16) -> [u8; 8] {
    instruction(0x55, register, 0, instructions, 0)
}

const EXIT: [u8; 8] = instruction(0x95, 0, 0, 0, 0);

/// Takes the headroom, gives it back, and passes the packet; drops it where there is less.
const PASS: [[u8; 8]; 12] = [
    copy(6, 1),
    set(2, -HEADROOM),
    call(BPF_XDP_ADJUST_HEAD),
    skip_unless_zero(0, 6),
    copy(1, 6),
    set(2, HEADROOM),
    call(BPF_XDP_ADJUST_HEAD),
    skip_unless_zero(0, 2),
    set(0, XDP_PASS),
    EXIT,
    set(0, XDP_DROP),
    EXIT,
];

const DROP: [[u8; 8]; 2] = [set(0, XDP_DROP), EXIT];

/// A program as the object file that `ip link set dev ... xdp object` loads.
fn object_file(instructions: &[[u8; 8]]) -> Result<Vec<u8>> {
    let mut file = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let section = file.add_section(Vec::new(), b"xdp".to_vec(), SectionKind::Text);
    let code = instructions.concat();
    let size = code.len() as u64;
    file.append_section_data(section, &code, 8);
    let license = file.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    file.append_section_data(license, b"GPL\0", 1);
    file.add_symbol(Symbol {
        name: b"program".to_vec(),
        value: 0,
        size,
        kind: SymbolKind::Text,
        scope: SymbolScope::Linkage,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    });
    file.write().context("writing a BPF object")
}

/// Puts a program into the guest and gives it to the interface; netfront has the backend leave headroom.
fn load(guest: &Guest<'_>, name: &str, instructions: &[[u8; 8]]) -> Result<()> {
    let bytes: String = object_file(instructions)?.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    guest.sh(&format!("printf '{bytes}' > /tmp/{name}.o"))?;
    guest.sh(&format!("{IP} link set dev eth0 xdp object /tmp/{name}.o section xdp"))?;
    Ok(())
}

fn programs(scene: &Scene<'_>) -> Result<String> {
    let result = with_programs(scene);
    let cleaned = scene.b.sh(&format!("{IP} link set dev eth0 xdp off; rm -f /tmp/pass.o /tmp/drop.o"));
    let line = result?;
    cleaned?;
    let ping = traffic::ping(&scene.a, &scene.b_address, 20, 0, 56)?;
    ensure!(ping.lost == 0, "without a program again: {ping:?}");
    Ok(line)
}

fn with_programs(scene: &Scene<'_>) -> Result<String> {
    let (a, b) = (&scene.a, &scene.b);
    // Several times, as netfront says that it reconfigures before it says how.
    for _ in 0..4 {
        b.sh(&format!("{IP} link set dev eth0 xdp off"))?;
        load(b, "pass", &PASS)?;
        traffic::tcp(b, "receive", &scene.peer(), MEBIBYTES).context("receive by the wire")?;
    }
    let mut rates = Vec::new();
    for direction in ["send", "receive"] {
        rates.push(
            traffic::tcp(b, direction, &scene.peer(), MEBIBYTES).with_context(|| format!("{direction} by the wire"))?,
        );
    }
    traffic::serve(b)?;
    for direction in ["send", "receive"] {
        rates.push(
            traffic::tcp(a, direction, &scene.b_address, MEBIBYTES)
                .with_context(|| format!("{direction} by a guest"))?,
        );
    }
    b.stop("serve")?;
    let ping = traffic::ping(a, &scene.b_address, 100, 0, 1400)?;
    ensure!(ping.lost == 0 && ping.duplicates == 0, "through a program that passes: {ping:?}");
    b.sh(&format!("{IP} link set dev eth0 xdp off"))?;
    load(b, "drop", &DROP)?;
    a.sh(&format!("! ping -c 3 -W 2 {}", scene.b_address)).context("through a program that drops")?;
    let rates: Vec<String> = rates.iter().map(|transfer| format!("{:.0}", transfer.mbit_per_second)).collect();
    Ok(format!("{} Mbit/s to and from the wire, from and to a guest", rates.join(", ")))
}
