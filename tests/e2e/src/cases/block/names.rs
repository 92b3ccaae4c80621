//! What a `target=` names, and to whom it is given: partitions, logical volumes, refusals, disks that are only read. Host.

use anyhow::{Context, Result, bail, ensure};
use lab::{DiskController, GuestKind};
use serde_json::Value;

use super::{Block, BlockScene, CONTROLLERS, PATIENCE, SATA, disk, handle};
use crate::blocks;
use crate::cases::Case;
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::traffic::Shell;

pub(super) const CASES: &[Case<Block>] = &[
    Case { name: "what dom0 wrote to partitions and logical volumes is read from them", run: taken_over },
    Case { name: "partitions and logical volumes of one drive are written side by side", run: side_by_side },
    Case { name: "a name that is unknown, and a volume that another has, are refused with the reason", run: refused },
    Case { name: "a disk image, which QEMU would have to serve, is refused with the remedy", run: image },
    Case { name: "a disk for reading is not written, a CD-ROM is one", run: for_reading },
    Case { name: "a partition that a guest moved by writing the disk is served from where it is now", run: moved },
    Case { name: "a logical volume that lvm2 moved through a vbd is served from where it is now", run: remapped },
    Case { name: "a volume that grows is a disk that grows", run: grows },
    Case { name: "controllers keep their names in any order of passing, taking and giving them", run: order },
];

fn taken_over(scene: &BlockScene<'_>) -> Result<String> {
    for (target, digest) in &scene.block.filled {
        let read = scene.with_disk("xvdb", target, || {
            listed(scene, target)?;
            scene.a.sh("sha256sum /dev/xvdb")
        })?;
        ensure!(read.starts_with(digest.as_str()), "{target} holds {digest}, and {read} was read");
    }
    let names: Vec<&str> = scene.block.filled.iter().map(|(target, _)| *target).collect();
    Ok(names.join(", "))
}

/// `oxidom` shows a volume with the guest that has it, and the guest's disk.
fn listed(scene: &BlockScene<'_>, target: &str) -> Result<()> {
    let json = |arguments: &str| -> Result<Value> {
        let said = scene.lab.must(&format!("oxidom --json {arguments}"))?;
        serde_json::from_str(said.trim()).with_context(|| format!("oxidom --json {arguments} said '{said}'"))
    };
    let found = json("volumes blkdom")?;
    let has_name =
        |volume: &&Value| volume["names"].as_array().is_some_and(|names| names.iter().any(|name| name == target));
    let volume = found["volumes"].as_array().and_then(|volumes| volumes.iter().find(has_name));
    let users = volume.map(|volume| &volume["users"]);
    ensure!(users.is_some_and(|users| users[0]["name"] == "a" && users[0]["device"] == "xvdb"), "{target}: {found}");
    let status = json("status a")?;
    let vbds =
        status["domains"].as_array().into_iter().flatten().filter_map(|domain| domain["vbds"].as_array()).flatten();
    let vbd = vbds.into_iter().find(|vbd| vbd["target"] == target);
    ensure!(vbd.is_some_and(|vbd| vbd["state"] == "connected" && vbd["name"] == "xvdb"), "{target}: {status}");
    Ok(())
}

/// pciback numbers devices in the order in which they are passed; blkdom's names follow the host's addresses.
fn order(scene: &BlockScene<'_>) -> Result<String> {
    let lab = scene.lab;
    let others = lab.controllers().iter().skip(CONTROLLERS).take(2).map(DiskController::bdf).collect::<Vec<_>>();
    let [low, high] = others.as_slice() else { bail!("the machine has other controllers: {others:?}") };
    let blkdom = DriverDomain::create(lab, &DriverDomainConfig::blkdom("order").pci(high).pci(low))?;
    let named = |when: &str| -> Result<()> {
        // The last that its console says of each.
        let tell = format!("echo volumes > $(xenstore-read /local/domain/{}/console/tty); sleep 1", blkdom.id);
        let last = |name: &str| format!("grep '^{name}: ' /var/log/xen/console/guest-order.log | tail -n 1");
        let right = |name: &str, serial: &str| format!("{} | grep -q '_{serial}_1'", last(name));
        let both = format!("{tell}; {} && {}", right("nvme0n1", "lab2"), right("nvme1n1", "lab3"));
        lab.wait_until(&both, PATIENCE).map(drop).with_context(|| {
            let said = ["nvme0n1", "nvme1n1"].map(|name| lab.must(&last(name)).unwrap_or_default());
            format!("{when}, they are called so: {said:?}")
        })
    };
    let result = named("passed in the other order").and_then(|()| {
        for controller in [low, high] {
            lab.must(&format!("xl pci-detach order {controller}"))?;
        }
        for controller in [high, low] {
            lab.must(&format!("xl pci-attach order {controller}"))?;
        }
        named("given back in the other order")
    });
    lab.destroy_after("order", result)?;
    Ok(format!("nvme0 is at {low}, nvme1 at {high}"))
}

fn side_by_side(scene: &BlockScene<'_>) -> Result<String> {
    let disks = [
        ("xvdb", "vm1-root", "PARTLABEL=vm1-root"),
        ("xvdc", "striped", "vg0/striped"),
        ("xvdd", "growing", "vg0/growing"),
    ];
    let mut attached = Vec::new();
    let result = (|| {
        for (device, _, target) in disks {
            scene.attach(&scene.a, device, target)?;
            attached.push(device);
        }
        for (device, name, _) in disks {
            scene.a.start(name, &format!("blocks verify /dev/{device} --seconds 5 --discard"))?;
        }
        let mut operations = blocks::verify(&scene.b, "/dev/xvda", "--seconds 5 --discard")?;
        for (_, name, target) in disks {
            let said = scene.a.finish(name)?;
            let value: serde_json::Value = serde_json::from_str(said.lines().last().unwrap_or_default())
                .with_context(|| format!("of {target} it says '{said}'"))?;
            operations += value["operations"].as_u64().with_context(|| format!("of {target} it says '{said}'"))?;
        }
        Ok(format!("{operations} operations on {} volumes", disks.len() + 1))
    })();
    for device in attached {
        scene.detach(&scene.a, device)?;
    }
    result
}

/// Attaches what must be refused; gives the reason.
fn refusal(scene: &BlockScene<'_>, target: &str, access: &str) -> Result<String> {
    let backend = scene.blkdom.backend(scene.a.id(), handle("xvde"));
    refusal_at(scene, &backend, &disk("xvde", target, access))
}

/// The same for any disk, by the directory that libxl makes of it.
fn refusal_at(scene: &BlockScene<'_>, backend: &str, disk: &str) -> Result<String> {
    // xl waits for the backend until it gives up, and takes its nodes away then.
    scene.lab.start("attach", &format!("xl block-attach a '{disk}'"))?;
    let reason = scene.lab.wait_until(&format!("xenstore-read {backend}/error"), PATIENCE);
    scene.lab.finish("attach")?;
    scene.lab.run("xl block-detach a xvde")?;
    let gone = scene.lab.wait_until(&format!("! xenstore-exists {backend}"), PATIENCE);
    let reason = reason.with_context(|| format!("{disk} was not refused"))?;
    gone?;
    Ok(reason.trim().to_owned())
}

fn image(scene: &BlockScene<'_>) -> Result<String> {
    let backend = scene.blkdom.backend(scene.a.id(), handle("xvde")).replace("/vbd/", "/qdisk/");
    let disk = "format=qcow2,vdev=xvde,access=rw,backend=blkdom,target=vg0/striped";
    let reason = refusal_at(scene, &backend, disk)?;
    ensure!(reason.contains("format=raw"), "'{reason}' names no remedy");
    let errors = format!("/local/domain/{}/data/errors/qdisk", scene.blkdom.id);
    let kept = scene.lab.must(&format!("for n in $(xenstore-list {errors}); do xenstore-read {errors}/$n; done"))?;
    ensure!(kept.contains("format=raw"), "the reason went with the device: {kept}");
    Ok(reason)
}

fn refused(scene: &BlockScene<'_>) -> Result<String> {
    let unknown = refusal(scene, "vg0/nothing", "rw")?;
    for name in ["vg0/nothing", "vg0/neighbour", "vg0/striped", "nvme0n1p1", "nvme0n2", "sdb"] {
        ensure!(unknown.contains(name), "'{unknown}' says nothing of {name}");
    }
    // By its own name, by that of the disk that it is part of, and even for reading.
    for (target, access) in [("vg0/neighbour", "rw"), ("nvme0n1", "rw"), ("vg0/neighbour", "ro")] {
        let taken = refusal(scene, target, access)?;
        ensure!(
            taken.contains(&format!("{}", scene.b.id())) || taken.contains("\"b\""),
            "'{taken}' does not say who has it"
        );
    }
    blocks::verify(&scene.b, "/dev/xvda", "--seconds 1")?;
    Ok(unknown)
}

fn for_reading(scene: &BlockScene<'_>) -> Result<String> {
    let (target, digest) = scene.block.filled.first().context("no volume is filled")?;
    let kinds = [("xvdb", ""), ("xvdc", "devtype=cdrom,")];
    // Linux' blkfront takes no CD-ROM in a guest with hardware support: QEMU emulates one elsewhere (`blkfront_probe`).
    let kinds = if scene.lab.row().guests == GuestKind::Pv { &kinds[..] } else { &kinds[..1] };
    for (device, more) in kinds {
        let disk = disk(device, target, "ro").replace("access", &format!("{more}access"));
        scene.attach_as(&scene.a, &disk, device)?;
        let result = (|| -> Result<()> {
            ensure!(scene.a.sh(&format!("cat /sys/block/{device}/ro"))?.trim() == "1", "it can be written");
            let written =
                scene.a.run(&format!("dd if=/dev/zero of=/dev/{device} bs=4096 count=1 conv=notrunc,fsync"))?;
            ensure!(written.status != 0, "it was written");
            let after = scene.a.sh(&format!("echo 3 >/proc/sys/vm/drop_caches; sha256sum /dev/{device}"))?;
            ensure!(after.starts_with(digest.as_str()), "it changed");
            if !more.is_empty() {
                let kind = scene.frontend_node(&scene.a, device, "device-type")?;
                ensure!(kind == "cdrom", "it is a {kind}");
            }
            Ok(())
        })();
        scene.detach(&scene.a, device)?;
        result.with_context(|| disk)?;
    }
    Ok(if kinds.len() == 2 { "a disk and a CD-ROM" } else { "a disk" }.to_owned())
}

/// Writes a partition table with one partition through a vbd of the whole drive, and takes the drive away again.
fn partition(scene: &BlockScene<'_>, start: u32, sectors: u32) -> Result<()> {
    let entry: String = [[0, 0, 0, 0, 0x83, 0, 0, 0].as_slice(), &start.to_le_bytes(), &sectors.to_le_bytes()]
        .concat()
        .iter()
        .map(|byte| format!("\\{byte:03o}"))
        .collect();
    scene.with_disk("xvdb", SATA.target, || {
        scene.a.sh(&format!(
            "set -e; put() {{ dd of=/dev/xvdb bs=1 seek=$1 conv=notrunc,fsync 2>/dev/null; }}\n\
             dd if=/dev/zero of=/dev/xvdb bs=512 count=1 conv=notrunc,fsync 2>/dev/null\n\
             printf '{entry}' | put 446; printf '\\125\\252' | put 510\n\
             printf 'at %9d' {start} | put {}",
            u64::from(start) * 512
        ))
    })?;
    Ok(())
}

fn moved(scene: &BlockScene<'_>) -> Result<String> {
    let name = format!("{}1", SATA.target);
    let result = [2048, 8192].map(|start| {
        partition(scene, start, 2048)?;
        let read = scene.with_disk("xvdb", &name, || scene.a.sh("head -c 12 /dev/xvdb"))?;
        ensure!(read.trim() == format!("at {start:9}"), "{name} begins with '{read}', and should at {start}");
        Ok(start.to_string())
    });
    scene.with_disk("xvdb", SATA.target, || {
        scene.a.sh("dd if=/dev/zero of=/dev/xvdb bs=512 count=1 conv=notrunc,fsync")
    })?;
    let starts = result.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(format!("at sectors {}", starts.join(", then ")))
}

/// Has lvm2 in dom0 work on the whole SATA drive through a vbd: no other way to the drive is left.
fn with_lvm(scene: &BlockScene<'_>, commands: &str) -> Result<()> {
    let lab = scene.lab;
    lab.must(&format!("modprobe xen-blkfront; xl block-attach 0 '{}'", disk("xvdp", SATA.target, "rw")))?;
    let backend = scene.blkdom.backend(0, handle("xvdp"));
    let result = lab
        .wait_until("test -b /dev/xvdp && test $(cat /sys/block/xvdp/size) -gt 0", PATIENCE)
        .and_then(|_| lab.must(&format!("set -e\n{commands}\nvgchange -q -q -an vg1 >/dev/null; sync")));
    lab.must("xl block-detach 0 xvdp")?;
    lab.wait_until(&format!("! xenstore-exists {backend}"), PATIENCE)?;
    result.map(drop)
}

fn remapped(scene: &BlockScene<'_>) -> Result<String> {
    // Written as 512 bytes, since nothing less is.
    let put = |volume: &str| format!("printf '%-512s' {volume} | dd of=/dev/vg1/{volume} conv=fsync 2>/dev/null");
    let read = || scene.with_disk("xvdb", "vg1/a", || scene.a.sh("head -c 8 /dev/xvdb"));
    let make = |volume: &str| format!("lvcreate -q -q -y -Wn -n {volume} -L 4M vg1 >/dev/null\n{}\n", put(volume));
    let result = (|| {
        with_lvm(scene, &format!("pvcreate -q -q -y /dev/xvdp; vgcreate -q -q vg1 /dev/xvdp\n{}", make("a")))?;
        let first = read()?;
        ensure!(first.trim() == "a", "it begins with '{first}'");
        // Another volume gets the extents of the old one.
        let moved = format!("lvremove -q -q -y vg1/a\n{}{}", make("other"), make("a"));
        with_lvm(scene, &moved)?;
        let second = read()?;
        ensure!(second.trim() == "a", "it begins with '{second}' since another volume has its old extents");
        Ok("an extent of 4 MiB farther".to_owned())
    })();
    scene.with_disk("xvdb", SATA.target, || {
        scene.a.sh("dd if=/dev/zero of=/dev/xvdb bs=1M count=2 conv=notrunc,fsync")
    })?;
    result
}

fn grows(scene: &BlockScene<'_>) -> Result<String> {
    const SMALL: u64 = 8 << 11;
    scene.with_disk("xvdb", "vg0/growing", || {
        let size = || -> Result<u64> { Ok(scene.a.sh("cat /sys/block/xvdb/size")?.trim().parse()?) };
        let sectors = size()?;
        ensure!(sectors == SMALL, "{sectors} sectors before");
        scene.a.sh("mkfs.ext4 -q /dev/xvdb && mount -t ext4 /dev/xvdb /mnt")?;
        let result = (|| {
            let mut before = Vec::new();
            for (start, metadata) in &scene.block.grown {
                before.push((*start, scene.block.media.read(0, *start, metadata.len())?));
                scene.block.media.write(0, *start, metadata)?;
            }
            // As an administrator who has told another host's LVM to extend it.
            let id = scene.blkdom.id;
            scene.lab.must(&format!("echo rescan > $(xenstore-read /local/domain/{id}/console/tty)"))?;
            let grown = scene.a.sh(&format!(
                "for i in $(seq 3000); do test $(cat /sys/block/xvdb/size) = {} && exit; usleep 20000; done; exit 1",
                2 * SMALL
            ));
            let filled = grown.and_then(|_| {
                scene.a.sh("set -e; resize2fs /dev/xvdb; dd if=/dev/urandom of=/mnt/rest bs=1M count=12; sync")
            });
            // The one before: other cases, and this one on the next day, find it as it was.
            for (start, metadata) in &before {
                scene.block.media.write(0, *start, metadata)?;
            }
            filled
        })();
        let unmounted = scene.a.sh("umount /mnt && fsck.ext4 -fn /dev/xvdb");
        result.context("it does not grow")?;
        unmounted.map(|_| format!("from {SMALL} to {} sectors, with a mounted file system on it", 2 * SMALL))
    })
}
