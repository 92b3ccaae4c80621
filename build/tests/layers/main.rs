//! Each crate lies in layers: what its files name by `crate::` and `super::`, held against the tables of layers. Host.
//!
//! A room is a module at the crate's root. A file may name its own room and rooms of lower layers. Within a room, and within each module of it,
//! no two modules beside each other may need each other, be it by what lies below them. In a strict crate no two files of a room may, where
//! a module counts as needing its children; and nothing but the root itself may name what is the root's.

mod names;
mod rules;
#[path = "../sources/mod.rs"]
mod sources;

use names::{Module, texts};
use rules::{House, violations};

/// `runtime`.
const RUNTIME: House = House {
    root: "runtime",
    layers: &[
        // Words.
        &["checksum", "intrinsics", "local", "select", "signal", "time_stamp"],
        // Counters, and hypercalls, each of which is counted.
        &["counts", "secret"],
        &["faults"],
        &["hypercall"],
        // Facts.
        &["domains", "environment", "layout"],
        // What a life leaves to the next.
        &["record"],
        &["memory"],
        // Xen's objects.
        &["dma", "events", "grants", "mmio"],
        &["clock", "hypervisor", "watchdog"],
        &["console", "executor"],
        &["end", "restart", "time"],
        &["shutdown", "trap"],
        &["boot", "pci", "store"],
        &["service"],
    ],
    // Its files need the module above them, which needs them.
    strict: Some("service"),
};

const SPLIT_DRIVER: House = House {
    root: "split-driver",
    layers: &[
        &["atomic", "store", "time"],
        &["control", "memory", "throttle", "turns", "xs_wire"],
        &["hypervisor", "kept", "registers", "ring", "xenstore_client"],
        &["byte_ring", "domains"],
        &["fakes", "xenbus"],
    ],
    strict: None,
};

const XENSTORE_LITE: House = House {
    root: "xenstore-lite",
    layers: &[
        &["charge", "connection_id", "error", "map", "path", "quota", "wire"],
        &["host", "path_map", "payload"],
        &["permissions"],
        &["domains", "watches"],
        &["node"],
        &["transaction"],
        &["access", "connection"],
        &["store"],
        &["fakes"],
        &["model"],
        &["differential"],
    ],
    strict: None,
};

const NETDOM: House = House {
    root: "netdom",
    layers: &[
        &["credit", "ethernet", "hash", "statistics"],
        &["packet"],
        &["offload", "switch"],
        &["bond", "policy", "router"],
        &["blame", "faults", "netback", "nic"],
        &["command_line", "datapath", "fakes"],
        &["backend"],
        &["kept"],
        // The image: a crate of its own that names the library as any other does.
        &["domain"],
        &["main"],
    ],
    strict: None,
};

const BLKDOM: House = House {
    root: "blkdom",
    layers: &[
        &["disk"],
        &["volume"],
        &["blkback"],
        &["datapath", "fakes"],
        &["kept"],
        &["backend"],
        &["domain"],
        &["main"],
    ],
    strict: None,
};

const STUBDOM: House = House {
    root: "stubdom",
    layers: &[&["command_line", "faults", "page", "saved"], &["update"], &["machine"], &["server"], &["main"]],
    strict: None,
};

const LAB: House = House {
    root: "tests/lab",
    layers: &[
        &["apt", "cache", "channel", "cpio", "modules", "qmp", "scratch"],
        &["host", "kernel", "suite"],
        &["emulator", "packages"],
        &["machine"],
        &["direct", "root"],
        &["more"],
        &["dom0"],
        &["host_image"],
    ],
    strict: None,
};

const END_TO_END: House = House {
    root: "tests/e2e",
    layers: &[
        &["asked", "differential", "driver_domain", "media", "rebuilt", "served", "symbolize", "traffic"],
        &["blocks", "host_image", "install", "offloads", "stage"],
        &["bench"],
        &["attack", "corpus", "torture"],
        &["cases"],
        &["demo"],
    ],
    strict: None,
};

const DOM0: House = House {
    root: "dom0",
    layers: &[
        &["connection", "domain", "model", "store_domain", "xl_config"],
        &["console", "counters", "driver_configs", "reattach", "replace", "xenstore"],
        &["cpu", "exporter", "guests", "keep", "pciback", "report", "show", "top", "units"],
        &["host", "look"],
        &["main"],
    ],
    strict: None,
};

const HOUSES: [House; 9] = [RUNTIME, SPLIT_DRIVER, XENSTORE_LITE, NETDOM, BLKDOM, STUBDOM, DOM0, LAB, END_TO_END];

#[test]
fn no_crate_reaches_up_or_runs_in_circles() {
    for house in &HOUSES {
        let texts = texts(house.root);
        for room in house.layers.iter().flat_map(|rooms| *rooms) {
            let known = texts.contains_key(&vec![(*room).to_owned()]);
            assert!(known, "{room} is in the table of layers and not in {}", house.root);
        }
        assert_eq!(violations(house, &texts), [""; 0], "{}", house.root);
    }
}

#[test]
fn a_file_that_reaches_up_is_found() {
    let check = |house: &House, module: &str, line: &str, expected: &str| {
        let mut texts = texts(house.root);
        let module: Module = module.split("::").map(str::to_owned).collect();
        texts.get_mut(&module).expect("a module of the crate").insert_str(0, line);
        let found = violations(house, &texts);
        assert!(found.iter().any(|found| found == expected), "{line:?}: {found:?}");
    };
    check(&RUNTIME, "memory::tables", "use crate::grants;\n", "memory::tables names crate::grants");
    check(
        &RUNTIME,
        "memory::tables",
        "use crate::{\n    layout::{self, text},\n    events,\n};\n",
        "memory::tables names crate::events",
    );
    check(&RUNTIME, "hypercall", "fn f() { crate::console::write(\"\") }\n", "hypercall names crate::console");
    check(&RUNTIME, "clock::scale", "use super::super::executor;\n", "clock::scale names crate::executor");
    check(&RUNTIME, "memory::tables", "use super::usage;\n", "memory and memory::tables need each other");
    check(&RUNTIME, "memory::runs", "use super::area::Area;\n", "memory::runs and memory::area need each other");
    // What the root exports is found where it is.
    check(&RUNTIME, "events", "use crate::Exit;\n", "events names crate::end");
    check(&XENSTORE_LITE, "map", "use crate::Store;\n", "map names crate::store");
    check(&NETDOM, "offload::headers", "use crate::nic::Link;\n", "offload::headers names crate::nic");
    check(&NETDOM, "netback::config", "use crate::datapath::VifId;\n", "netback::config names crate::datapath");
    check(&SPLIT_DRIVER, "xenbus::context", "use super::bus::Bus;\n", "xenbus: bus, context need each other");
    let deep = "use crate::xenbus::bus::Bus;\n";
    check(&SPLIT_DRIVER, "xenbus::device::writes", deep, "xenbus: bus, device need each other");
    check(&BLKDOM, "volume::lvm::text", "use super::metadata;\n", "volume::lvm: metadata, text need each other");
}
