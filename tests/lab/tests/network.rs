//! What benchmarks compare with, on real Xen: a Linux guest that owns an e1000e, and a Linux driver domain. Host.
//!
//! Ignored by default: it boots a machine.

use lab::{GuestConfig, Lab, LabConfig, Nic, Row};

/// What an administrator's init does in a Linux driver domain.
const SETUP: &str = "modprobe e1000e && ip link add xenbr0 type bridge && ip link set eth0 master xenbr0 up && \
     ip link set xenbr0 up && xl devd";

#[test]
#[ignore = "boots Xen"]
fn linux_drives_the_nic_for_itself_and_for_others() {
    let mut config = LabConfig::new(Row::Debian12);
    config.nics.push(Nic::wired(1));
    config.driver_root = true;
    let lab = Lab::boot(&config).expect("dom0 boots");

    let own = GuestConfig { pci: vec![lab.make_assignable(0).expect("assignable")], ..GuestConfig::new("own") };
    let own = lab.create(&own).expect("the guest comes up");
    own.must("modprobe xen-pcifront && modprobe e1000e && sleep 1; ip link; udhcpc -i eth0 -n -q").expect("a lease");
    println!("{}", own.must("traffic ping 10.9.0.1 20 10").expect("pings"));
    println!("{}", own.must("traffic tcp-verify 10.9.0.1 4M").expect("TCP"));
    lab.must("xl destroy own").expect("gone");

    let driver = GuestConfig {
        pci: vec![lab.make_assignable(1).expect("assignable")],
        memory: 192,
        root: "/boot/driver.img".to_owned(),
        role: "driver".to_owned(),
        more: "driver_domain = 1".to_owned(),
        ..GuestConfig::new("driver")
    };
    let driver = lab.create(&driver).expect("the driver domain comes up");
    driver.must(SETUP).expect("its bridge and xl devd");
    let client = lab
        .create(&GuestConfig::new("client").vif("backend=driver,bridge=xenbr0,mac=00:16:3e:00:00:01"))
        .expect("a client");
    client.must("udhcpc -i eth0 -n -q").expect("a lease through the driver domain");
    println!("{}", client.must("traffic ping 10.10.0.1 20 10").expect("pings"));
    println!("{}", client.must("traffic tcp-verify 10.10.0.1 4M").expect("TCP"));
}
