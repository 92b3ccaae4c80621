//! The forms of the corpus, as commands for dom0's shell. `$d0` and `$d1` are disks with blocks of 512 bytes, `$d2` has blocks of
//! 4,096; each has 24 MiB. `$d3` and `$d4` have blocks of 512 bytes and 80 MiB. All hold zeroes. Host.

/// Finds the disks, which Linux numbers in the order that it finds them in.
pub(super) const PREPARATION: &str = r#"set -e
modprobe nvme; modprobe dm-mod
for m in $(cat /etc/lab/modules.more); do insmod $m 2>/tmp/insmod || grep -q exists /tmp/insmod || { echo $m; cat /tmp/insmod; exit 1; } >&2; done
for name in pvchange pvmove pvremove pvresize vgcfgbackup vgcfgrestore vgexport vgimport vgimportclone vgmerge vgreduce vgremove \
    vgrename vgsplit lvchange lvconvert lvreduce lvrename; do ln -sf lvm /usr/sbin/$name; done
echo 'global { thin_check_executable="" cache_check_executable="" } activation { monitoring=0 }' >>/etc/lvm/lvmlocal.conf
for n in 1 2 3 4 5; do for i in $(seq 1000); do test -b /dev/nvme0n$n && break; usleep 10000; done; done
for n in 1 2 3 4 5; do echo "d$(($(cat /sys/block/nvme0n$n/nsid) - 1))=nvme0n$n"; done >/tmp/disks"#;

/// What each form begins with. No udev: mdadm makes its device nodes itself.
pub(super) const BEGINNING: &str =
    ". /tmp/disks; set -e; exec >/dev/null; export MDADM_NO_UDEV=1 MDADM_NO_SYSTEMCTL=1 IMSM_NO_PLATFORM=1";

/// Takes away what the form before has left.
pub(super) const CLEAN: &str = r#"set -e; . /tmp/disks
vgchange -q -q -an >/dev/null 2>&1 || true; dmsetup remove_all; mdadm --stop --scan >/dev/null 2>&1 || true
for d in $d0 $d1 $d2 $d3 $d4; do /usr/sbin/blkdiscard -z /dev/$d; blockdev --rereadpt /dev/$d; done"#;

/// Prints what Linux, the tools and lvm2 say, with the arrays stopped: of legs, as a domain without md sees them.
pub(super) const ANSWERS: &str = r#"set -e; . /tmp/disks
vgchange -q -q -an >/dev/null 2>&1 || true; dmsetup remove_all; mdadm --stop --scan >/dev/null 2>&1 || true
unit=0
for d in $d0 $d1 $d2 $d3 $d4; do
    blockdev --rereadpt /dev/$d
    block=$(($(blockdev --getss /dev/$d) / 512))
    parted -s -m /dev/$d unit s print >/tmp/parted 2>/dev/null || true
    kind=$(sed -n 2p /tmp/parted | cut -d: -f6)
    echo "disk $unit $(cat /sys/block/$d/dev)"
    case $kind in ''|unknown|loop) ;; *) echo "table $unit $kind";; esac
    member() {
        IMSM_NO_PLATFORM=1 mdadm --examine --export $1 >/tmp/examined 2>/dev/null || true
        format=$(sed -n 's/^MD_METADATA=//p' /tmp/examined)
        test -n "$format" || format=$(mdadm --examine $1 2>/dev/null | sed -n 's/^ *Version : \([0-9.]*\).*/\1/p')
        test -z "$format" || echo "member $unit $2 $format"
    }
    member /dev/$d 0
    for p in /sys/block/$d/${d}p*; do
        test -d $p || continue
        n=$(cat $p/partition)
        uuid=$(sfdisk --part-uuid /dev/$d $n 2>/dev/null || true)
        label=$(sfdisk --part-label /dev/$d $n 2>/dev/null || true)
        member /dev/$(basename $p) $n
        echo "partition $unit $(cat $p/dev) $n $(cat $p/start) $(cat $p/size) ${uuid:--} $label"
        test "$kind" = gpt && sgdisk -i $n /dev/$d >/tmp/said 2>/dev/null || continue
        first=$(sed -n 's/^First sector: \([0-9]*\).*/\1/p' /tmp/said); last=$(sed -n 's/^Last sector: \([0-9]*\).*/\1/p' /tmp/said)
        test -z "$first" || echo "said sgdisk $unit $n $((first * block)) $(((last - first + 1) * block)) $(sed -n "s/^Partition name: '\(.*\)'/\1/p" /tmp/said)"
    done
    case $kind in gpt|msdos) sed 1,2d /tmp/parted;; esac | while IFS=: read n first last size fs name flags; do
        test -z "$n" || echo "said parted $unit $n $((${first%s} * block)) $((${size%s} * block)) $name"
    done
    unit=$((unit + 1))
done
vgchange -q -q -ay --poll n >/dev/null 2>&1 || true
lvs --noheadings --separator ' ' -o lv_dm_path,vg_name,lv_name,lv_attr 2>/dev/null | while read path group name attributes; do
    echo "volume ${path#/dev/mapper/} $group/$name $attributes"
done
dmsetup table | grep -v 'No devices' | sed 's/^/mapped /'
vgchange -q -q -an >/dev/null 2>&1 || true
sync"#;

/// All forms: name and commands.
pub(super) const ALL: &[(&str, &str)] = &[
    ("gpt-names", "sfdisk -q /dev/$d0 <<END\nlabel: gpt\nsize=1MiB, name=one\nsize=2MiB, name=\"two words\"\nEND"),
    (
        "gpt-holes",
        "sfdisk -q /dev/$d0 <<END\nlabel: gpt\n5: start=4MiB, size=1MiB\n2: start=10MiB, size=1MiB\n9: start=2MiB, size=1MiB\nEND",
    ),
    ("gpt-4096", "sfdisk -q /dev/$d2 <<END\nlabel: gpt\nsize=4MiB, name=large\nsize=4MiB\nEND"),
    (
        "gpt-small-table",
        "sfdisk -q /dev/$d0 <<END\nlabel: gpt\ntable-length: 16\nfirst-lba: 64\nstart=64, size=100\nsize=2MiB\nEND",
    ),
    (
        "gpt-large-table",
        "sfdisk -q /dev/$d0 <<END\nlabel: gpt\ntable-length: 256\n200: start=2MiB, size=1MiB\nsize=1MiB\nEND",
    ),
    (
        "gpt-deleted",
        "sfdisk -q /dev/$d0 <<END\nlabel: gpt\nsize=1MiB\nsize=1MiB\nsize=1MiB\nEND\nsfdisk -q --delete /dev/$d0 2",
    ),
    (
        "dos-primary",
        "sfdisk -q /dev/$d0 <<END\nlabel: dos\nsize=1MiB, type=83\nsize=1MiB, type=7, bootable\nsize=1MiB, type=82\nsize=1MiB\nEND",
    ),
    ("dos-holes", "sfdisk -q /dev/$d0 <<END\nlabel: dos\n4: start=2MiB, size=1MiB\n2: start=8MiB, size=1MiB\nEND"),
    (
        "dos-logical",
        "sfdisk -q /dev/$d0 <<END\nlabel: dos\n1: size=1MiB\n2: type=5\n5: size=1MiB\n6: size=2MiB\n7: size=1MiB\nEND",
    ),
    (
        "dos-logical-lba",
        "sfdisk -q /dev/$d0 <<END\nlabel: dos\n1: size=1MiB\n4: start=4MiB, type=f\n5: size=1MiB\n6: size=2MiB, type=8e\nEND",
    ),
    (
        "dos-logical-linux",
        "sfdisk -q /dev/$d0 <<END\nlabel: dos\n1: start=1MiB, type=85\n5: size=1MiB\n6: size=2MiB\nEND",
    ),
    (
        "dos-logical-deleted",
        "sfdisk -q /dev/$d0 <<END\nlabel: dos\n1: type=5\n5: size=1MiB\n6: size=1MiB\n7: size=1MiB\n8: size=1MiB\nEND\n\
        sfdisk -q --delete /dev/$d0 6",
    ),
    (
        "dos-logical-first-deleted",
        "sfdisk -q /dev/$d0 <<END\nlabel: dos\n1: type=5\n5: size=1MiB\n6: size=1MiB\nEND\nsfdisk -q --delete /dev/$d0 5",
    ),
    (
        "dos-logical-added",
        "sfdisk -q /dev/$d0 <<END\nlabel: dos\n1: type=5\n5: start=12MiB, size=1MiB\nEND\n\
        echo 'start=4MiB, size=1MiB' | sfdisk -q --append /dev/$d0",
    ),
    ("dos-4096", "sfdisk -q /dev/$d2 <<END\nlabel: dos\n1: size=4MiB\n2: type=5\n5: size=4MiB\n6: size=4MiB\nEND"),
    ("sun", "sfdisk -q /dev/$d0 <<END\nlabel: sun\nEND"),
    (
        "lvm-disk",
        "pvcreate -q -q /dev/$d0; vgcreate -q -q vg0 /dev/$d0; lvcreate -q -q -y -Wn -n a -L 8M vg0; lvcreate -q -q -y -Wn -n b -L 4M vg0",
    ),
    ("lvm-disk-4096", "pvcreate -q -q /dev/$d2; vgcreate -q -q vg0 /dev/$d2; lvcreate -q -q -y -Wn -n a -L 8M vg0"),
    (
        "lvm-partitions",
        "for d in $d0 $d1; do sfdisk -q /dev/$d <<END\nlabel: gpt\nsize=12MiB, type=E6D6D379-F507-44C2-A23C-238F2A3DF928\nEND\ndone\n\
        vgcreate -q -q vg0 /dev/${d0}p1 /dev/${d1}p1; lvcreate -q -q -y -Wn -n both -L 16M vg0",
    ),
    (
        "lvm-logical-partition",
        "sfdisk -q /dev/$d0 <<END\nlabel: dos\n1: size=1MiB\n2: type=5\n5: size=12MiB, type=8e\nEND\n\
        vgcreate -q -q vg0 /dev/${d0}p5; lvcreate -q -q -y -Wn -n a -L 4M vg0",
    ),
    (
        "lvm-striped",
        "vgcreate -q -q -s 1M vg0 /dev/$d0 /dev/$d1; lvcreate -q -q -y -Wn -n s64 -i 2 -I 64k -L 8M vg0; \
        lvcreate -q -q -y -Wn -n s4 -i 2 -I 4k -L 4M vg0",
    ),
    (
        "lvm-striped-extended",
        "vgcreate -q -q -s 1M vg0 /dev/$d0 /dev/$d1; lvcreate -q -q -y -Wn -n a -i 2 -I 16k -L 4M vg0; \
        lvcreate -q -q -y -Wn -n b -L 2M vg0 /dev/$d0; lvextend -q -q -i 1 -L +3M vg0/a",
    ),
    (
        "lvm-pieces",
        "vgcreate -q -q -s 1M vg0 /dev/$d0; for n in a b c; do lvcreate -q -q -y -Wn -n $n -L 2M vg0; done; \
        lvremove -q -q -y vg0/b; lvextend -q -q -L 8M vg0/a; lvextend -q -q -L 3M vg0/c",
    ),
    (
        "lvm-small-extents",
        "vgcreate -q -q -s 64k vg0 /dev/$d0; lvcreate -q -q -y -Wn -n a -L 448k vg0; lvcreate -q -q -y -Wn -n b -l 3 vg0",
    ),
    (
        "lvm-aligned",
        "pvcreate -q -q --dataalignment 3M /dev/$d0; vgcreate -q -q vg0 /dev/$d0; lvcreate -q -q -y -Wn -n a -L 4M vg0",
    ),
    (
        "lvm-alignment-offset",
        "pvcreate -q -q --dataalignment 1M --dataalignmentoffset 7s /dev/$d0; vgcreate -q -q vg0 /dev/$d0; \
        lvcreate -q -q -y -Wn -n a -L 4M vg0",
    ),
    (
        "lvm-metadata-size",
        "pvcreate -q -q --metadatasize 4M /dev/$d0; vgcreate -q -q vg0 /dev/$d0; lvcreate -q -q -y -Wn -n a -L 4M vg0",
    ),
    (
        "lvm-metadata-twice",
        "pvcreate -q -q --pvmetadatacopies 2 /dev/$d0; vgcreate -q -q vg0 /dev/$d0; lvcreate -q -q -y -Wn -n a -L 4M vg0",
    ),
    (
        "lvm-metadata-elsewhere",
        "pvcreate -q -q --pvmetadatacopies 0 /dev/$d0; vgcreate -q -q vg0 /dev/$d0 /dev/$d1; \
        lvcreate -q -q -y -Wn -n a -L 8M vg0 /dev/$d0",
    ),
    (
        "lvm-bootloader-area",
        "pvcreate -q -q --bootloaderareasize 2M /dev/$d0; vgcreate -q -q vg0 /dev/$d0; lvcreate -q -q -y -Wn -n a -L 4M vg0",
    ),
    (
        "lvm-label-sector",
        "pvcreate -q -q --labelsector 3 /dev/$d0; vgcreate -q -q vg0 /dev/$d0; lvcreate -q -q -y -Wn -n a -L 4M vg0",
    ),
    (
        "lvm-smaller-pv",
        "pvcreate -q -q -y --setphysicalvolumesize 16M /dev/$d0; vgcreate -q -q vg0 /dev/$d0; lvcreate -q -q -y -Wn -n a -L 4M vg0",
    ),
    (
        "lvm-names",
        "vgcreate -q -q vg-with.dots_and+plus /dev/$d0; lvcreate -q -q -y -Wn -n a--b-c -L 4M vg-with.dots_and+plus",
    ),
    (
        "lvm-tags",
        "vgcreate -q -q --addtag host=a vg0 /dev/$d0; lvcreate -q -q -y -Wn --addtag 'x&y' -n a -L 4M vg0; \
        pvchange -q -q --addtag ssd /dev/$d0",
    ),
    (
        "lvm-renamed",
        "vgcreate -q -q old /dev/$d0; lvcreate -q -q -y -Wn -n a -L 4M old; vgrename -q -q old new; lvrename -q -q new a b",
    ),
    (
        "lvm-wrapped",
        "pvcreate -q -q --metadatasize 64k /dev/$d0; vgcreate -q -q -s 1M vg0 /dev/$d0; i=0; while test $i -lt 60; \
        do echo \"lvchange --addtag t$i vg0/a\"; \
        echo \"lvchange --deltag t$i vg0/a\"; i=$((i + 1)); done >/tmp/many; lvcreate -q -q -y -Wn -n a -L 4M vg0; \
        lvm </tmp/many >/dev/null 2>&1; lvcreate -q -q -y -Wn -n b -L 2M vg0",
    ),
    (
        "lvm-reduced",
        "vgcreate -q -q vg0 /dev/$d0 /dev/$d1; lvcreate -q -q -y -Wn -n a -L 4M vg0 /dev/$d1; vgreduce -q -q vg0 /dev/$d0",
    ),
    (
        "lvm-split",
        "vgcreate -q -q vg0 /dev/$d0 /dev/$d1; lvcreate -q -q -y -Wn -n a -L 4M vg0 /dev/$d0; \
        lvcreate -q -q -y -Wn -n b -L 4M vg0 /dev/$d1; \
        vgchange -q -q -an vg0; vgsplit -q -q vg0 vg1 /dev/$d1",
    ),
    (
        "lvm-read-only",
        "vgcreate -q -q vg0 /dev/$d0; lvcreate -q -q -y -Wn -Zn -n a -L 4M -pr vg0; lvcreate -q -q -y -Wn -n b -L 4M vg0",
    ),
    (
        "lvm-exported",
        "vgcreate -q -q vg0 /dev/$d0; lvcreate -q -q -y -Wn -n a -L 4M vg0; vgchange -q -q -an vg0; vgexport -q -q vg0",
    ),
    (
        "lvm-foreign",
        "vgcreate -q -q vg0 /dev/$d0; lvcreate -q -q -y -Wn -n a -L 4M vg0; vgchange -q -q -an vg0; \
        vgchange -q -q -y --systemid another vg0",
    ),
    (
        "lvm-lacks-a-volume",
        "vgcreate -q -q vg0 /dev/$d0 /dev/$d1; lvcreate -q -q -y -Wn -n a -L 4M vg0 /dev/$d0; \
        lvcreate -q -q -y -Wn -n b -L 4M vg0 /dev/$d1; \
        vgchange -q -q -an vg0; dd if=/dev/zero of=/dev/$d1 bs=1M count=24 conv=fsync 2>/dev/null",
    ),
    (
        "lvm1-leftover",
        "vgcreate -q -q vg0 /dev/$d0; lvcreate -q -q -y -Wn -n a -L 4M vg0; vgchange -q -q -an vg0; vgremove -q -q -f vg0; \
        pvremove -q -q /dev/$d0; \
        vgcreate -q -q vg1 /dev/$d0; lvcreate -q -q -y -Wn -n c -L 8M vg1",
    ),
    (
        "sgdisk-names",
        "sgdisk -n 1:0:+1M -c 1:'one two' -n 2:0:+2M -c 2:'\u{fc}ber/\"x\"' -n 3:0:0 -c 3:$(printf %036d 7) /dev/$d0",
    ),
    (
        "sgdisk-attributes",
        "sgdisk -n 1:0:+1M -A 1:set:0 -A 1:set:2 -A 1:set:60 -A 1:set:63 -n 2:0:+1M -A 2:set:1 -A 2:set:62 /dev/$d0",
    ),
    (
        "sgdisk-types",
        "sgdisk -n 1:0:+1M -t 1:ef00 -n 2:0:+1M -t 2:ef02 -n 3:0:+1M -t 3:8200 -n 4:0:+1M -t 4:fd00 -n 5:0:+1M -t 5:0c01 -n 6:0:+4M -t 6:8e00 \
        /dev/$d0; vgcreate -q -q -s 1M vg0 /dev/${d0}p6; lvcreate -q -q -y -Wn -n a -L 1M vg0",
    ),
    ("sgdisk-hybrid", "sgdisk -n 1:0:+1M -n 2:0:+1M -n 3:0:+1M /dev/$d0; sgdisk -h 1:2 /dev/$d0"),
    ("sgdisk-hybrid-last", "sgdisk -n 1:0:+1M -n 2:0:+1M -n 3:0:+1M /dev/$d0; sgdisk -h 1:2:EE /dev/$d0"),
    ("sgdisk-unaligned", "sgdisk -a 1 -n 1:34:133 -n 2:0:+7 -n 3:200:200 -n 4:0:0 /dev/$d0"),
    ("sgdisk-far-number", "sgdisk -n 128:0:+1M -n 7:0:+1M /dev/$d0"),
    ("sgdisk-table-sizes", "sgdisk -S 256 -n 200:0:+1M /dev/$d0; sgdisk -S 16 -n 16:0:+1M /dev/$d1"),
    ("sgdisk-table-elsewhere", "sgdisk -j 100 -n 1:0:+1M /dev/$d0"),
    ("sgdisk-sorted", "sgdisk -n 1:8M:+1M -n 2:4M:+1M -n 3:1M:+1M /dev/$d0; sgdisk -s /dev/$d0"),
    (
        "sgdisk-swapped",
        "sgdisk -n 1:0:+1M -c 1:one -n 2:0:+1M -c 2:two /dev/$d0; sgdisk -r 1:2 -d 2 -n 5:0:+1M /dev/$d0",
    ),
    (
        "sgdisk-guids",
        "sgdisk -n 1:0:+1M -n 2:0:+1M -G /dev/$d0; sgdisk -u 1:01234567-89ab-cdef-0123-456789abcdef /dev/$d0",
    ),
    (
        "sgdisk-from-mbr",
        "sfdisk -q /dev/$d0 <<END\nlabel: dos\n1: size=1MiB\n2: type=5\n5: size=1MiB\n6: size=2MiB\nEND\nsgdisk -g /dev/$d0",
    ),
    ("sgdisk-to-mbr", "sgdisk -n 1:0:+1M -n 2:0:+2M -n 3:0:+1M /dev/$d0; sgdisk -m 1:3 /dev/$d0"),
    ("sgdisk-zapped", "sgdisk -n 1:0:+1M /dev/$d0; sgdisk -z /dev/$d0; sgdisk -n 1:0:+1M /dev/$d1; sgdisk -Z /dev/$d1"),
    ("sgdisk-4096", "sgdisk -n 1:0:+1M -c 1:large -n 2:0:+2M -n 3:0:0 /dev/$d2"),
    (
        "parted-gpt",
        "parted -s /dev/$d0 mklabel gpt mkpart \"'a b'\" ext4 1MiB 2MiB mkpart swap linux-swap 2MiB 4MiB mkpart c 5MiB 9MiB \
        set 1 legacy_boot on set 2 swap on set 3 lvm on name 2 two",
    ),
    (
        "parted-gpt-resized",
        "parted -s /dev/$d0 mklabel gpt mkpart a 1MiB 2MiB mkpart b 8MiB 9MiB resizepart 1 4MiB rm 2 mkpart c 6MiB 7MiB",
    ),
    (
        "parted-logical",
        "parted -s /dev/$d0 mklabel msdos mkpart primary 1MiB 2MiB mkpart extended 2MiB 20MiB mkpart logical 3MiB 4MiB \
        mkpart logical 5MiB 7MiB mkpart logical 8MiB 9MiB",
    ),
    (
        "parted-logical-removed",
        "parted -s /dev/$d0 mklabel msdos mkpart primary 1MiB 2MiB mkpart extended 2MiB 20MiB mkpart logical 3MiB 4MiB \
        mkpart logical 5MiB 7MiB mkpart logical 8MiB 9MiB rm 5 rm 5 mkpart logical 12MiB 13MiB mkpart logical 3MiB 4MiB",
    ),
    (
        "parted-unaligned",
        "parted -s -a none /dev/$d0 mklabel msdos mkpart primary 63s 1000s mkpart extended 1001s 40000s mkpart logical 1002s 1002s \
        mkpart logical 1010s 3000s",
    ),
    ("parted-empty-extended", "parted -s /dev/$d0 mklabel msdos mkpart extended 1MiB 20MiB"),
    (
        "parted-4096",
        "parted -s /dev/$d2 mklabel msdos mkpart primary 1MiB 4MiB mkpart extended 4MiB 20MiB mkpart logical 5MiB 8MiB mkpart logical 9MiB 12MiB",
    ),
    ("parted-gpt-4096", "parted -s /dev/$d2 mklabel gpt mkpart a 1MiB 4MiB mkpart b 4MiB 8MiB"),
    ("other-bsd", "parted -s /dev/$d0 mklabel bsd mkpart ext2 1MiB 4MiB"),
    ("other-dvh", "parted -s /dev/$d0 mklabel dvh mkpart primary ext2 4MiB 8MiB"),
    ("other-loop", "parted -s /dev/$d0 mklabel loop"),
    ("other-amiga", "parted -s /dev/$d0 mklabel amiga mkpart a 4080s 8159s mkpart b 16320s 24479s"),
    ("other-atari", "parted -s /dev/$d0 mklabel atari mkpart primary 2MiB 4MiB mkpart primary 8MiB 12MiB"),
    ("other-mac", "parted -s /dev/$d0 mklabel mac mkpart a 2MiB 4MiB mkpart b 8MiB 12MiB"),
    ("other-pc98", "parted -s /dev/$d0 mklabel pc98 mkpart primary 4080s 8159s"),
    ("other-sun", "parted -s /dev/$d0 mklabel sun mkpart 16320s 32639s"),
    (
        "other-sun-sfdisk",
        "sfdisk -q /dev/$d0 <<END\nlabel: sun\n1: start=0, size=16065\n2: start=16065, size=16065\nEND",
    ),
    ("other-sgi-sfdisk", "sfdisk -q /dev/$d0 <<END\nlabel: sgi\n1: start=16065, size=16065\nEND"),
    ("other-sgi-fdisk", "printf 'G\\nw\\n' | fdisk /dev/$d0"),
    ("other-sun-fdisk", "printf 's\\nw\\n' | fdisk /dev/$d0"),
    (
        "dos-reordered",
        "sfdisk -q /dev/$d0 <<END\nlabel: dos\n1: start=8MiB, size=1MiB\n2: start=2MiB, size=1MiB\nEND\nsfdisk -q -r /dev/$d0",
    ),
    (
        "dos-moved",
        "sfdisk -q /dev/$d0 <<END\nlabel: dos\n1: start=2MiB, size=1MiB\n2: start=8MiB, type=5\n5: size=1MiB\nEND\n\
        echo '4MiB,' | sfdisk -q --move-data=/tmp/moved /dev/$d0 -N 1",
    ),
    (
        "dos-fdisk",
        "printf 'o\\nn\\np\\n1\\n\\n+2M\\nn\\ne\\n2\\n\\n\\nn\\n\\n+1M\\nn\\n\\n+2M\\nw\\n' | fdisk /dev/$d0",
    ),
    ("gpt-fdisk", "printf 'g\\nn\\n3\\n\\n+2M\\nn\\n1\\n\\n+1M\\nw\\n' | fdisk /dev/$d0"),
    (
        "gpt-one-table",
        "sfdisk -q /dev/$d0 <<END\nlabel: gpt\nsize=1MiB\nsize=2MiB\nEND\ndd if=/dev/zero of=/dev/$d0 bs=512 seek=1 count=1 conv=notrunc,fsync 2>/dev/null",
    ),
    (
        "gpt-grown",
        "sfdisk -q /dev/$d0 <<END\nlabel: gpt\nlast-lba: 20000\nsize=1MiB\nsize=2MiB\nEND\nsgdisk -e /dev/$d0",
    ),
    (
        "lvm-mirror",
        "vgcreate -q -q -s 1M vg0 /dev/$d0 /dev/$d1 /dev/$d3; \
        lvcreate -q -q -y -Wn --nosync --type mirror --mirrorlog core -m 1 -n a -L 4M vg0; lvcreate -q -q -y -Wn -n b -L 2M vg0",
    ),
    (
        "lvm-raid0",
        "vgcreate -q -q -s 1M vg0 /dev/$d0 /dev/$d1; lvcreate -q -q -y -Wn --type raid0 -i 2 -n a -L 4M vg0; \
        lvcreate -q -q -y -Wn -n b -L 2M vg0",
    ),
    (
        "lvm-raid1",
        "vgcreate -q -q -s 1M vg0 /dev/$d0 /dev/$d1; lvcreate -q -q -y -Wn --nosync --type raid1 -m 1 -n a -L 4M vg0; \
        lvcreate -q -q -y -Wn -n b -L 2M vg0",
    ),
    (
        "lvm-raid4",
        "vgcreate -q -q -s 1M vg0 /dev/$d0 /dev/$d1 /dev/$d3; lvcreate -q -q -y -Wn --type raid4 -i 2 -n a -L 4M vg0; \
        lvcreate -q -q -y -Wn -n b -L 2M vg0",
    ),
    (
        "lvm-raid5",
        "vgcreate -q -q -s 1M vg0 /dev/$d0 /dev/$d1 /dev/$d3; lvcreate -q -q -y -Wn --type raid5 -i 2 -n a -L 4M vg0; \
        lvcreate -q -q -y -Wn -n b -L 2M vg0",
    ),
    (
        "lvm-raid6",
        "sgdisk -n 1:0:+30M -n 2:0:+30M /dev/$d3; vgcreate -q -q -s 1M vg0 /dev/$d0 /dev/$d1 /dev/${d3}p1 /dev/${d3}p2 /dev/$d4; \
        lvcreate -q -q -y -Wn --type raid6 -i 3 -n a -L 3M vg0; lvcreate -q -q -y -Wn -n b -L 2M vg0",
    ),
    (
        "lvm-raid10",
        "vgcreate -q -q -s 1M vg0 /dev/$d0 /dev/$d1 /dev/$d3 /dev/$d4; \
        lvcreate -q -q -y -Wn --nosync --type raid10 -i 2 -m 1 -n a -L 4M vg0; lvcreate -q -q -y -Wn -n b -L 2M vg0",
    ),
    // The copy is done at once, and never concluded: the tool that looks for its end every minute is killed.
    (
        "lvm-pvmove-interrupted",
        "vgcreate -q -q -s 1M vg0 /dev/$d0 /dev/$d1; lvcreate -q -q -y -Wn -n a -L 4M vg0 /dev/$d0; \
        lvcreate -q -q -y -Wn -n b -L 2M vg0 /dev/$d1; \
        timeout -s KILL 5 pvmove -q -q -i +60 /dev/$d0 /dev/$d1 || true; lvs -a vg0 | grep -q pvmove0",
    ),
    (
        "lvm-raid1-from-linear",
        "vgcreate -q -q -s 1M vg0 /dev/$d0 /dev/$d1; lvcreate -q -q -y -Wn -n a -L 4M vg0; lvconvert -q -q -y --type raid1 -m 1 vg0/a; \
        lvcreate -q -q -y -Wn -n b -L 2M vg0",
    ),
    (
        "lvm-raid1-to-linear",
        "vgcreate -q -q -s 1M vg0 /dev/$d0 /dev/$d1; lvcreate -q -q -y -Wn --nosync --type raid1 -m 1 -n a -L 4M vg0; \
        lvconvert -q -q -y -m 0 vg0/a",
    ),
    (
        "lvm-thin",
        "vgcreate -q -q -s 1M vg0 /dev/$d0; lvcreate -q -q -y -Zn --type thin-pool -n pool -L 8M vg0; \
        lvcreate -q -q -y -V 16M -T vg0/pool -n t; \
        lvcreate -q -q -y -Wn -n b -L 2M vg0; lvcreate -q -q -y -s -n u vg0/t",
    ),
    (
        "lvm-snapshot",
        "vgcreate -q -q -s 1M vg0 /dev/$d0; lvcreate -q -q -y -Wn -n a -L 4M vg0; lvcreate -q -q -y -s -n s -L 2M vg0/a; \
        lvcreate -q -q -y -Wn -n b -L 2M vg0",
    ),
    (
        "lvm-snapshot-merged",
        "vgcreate -q -q -s 1M vg0 /dev/$d0; lvcreate -q -q -y -Wn -n a -L 4M vg0; lvcreate -q -q -y -s -n s -L 2M vg0/a; \
        lvconvert -q -q -y --merge vg0/s; sleep 2; lvs >/dev/null 2>&1; vgchange -q -q -an vg0; vgchange -q -q -ay vg0; sleep 2; \
        lvs >/dev/null 2>&1; true",
    ),
    (
        "lvm-cache",
        "vgcreate -q -q -s 1M vg0 /dev/$d0 /dev/$d3; lvcreate -q -q -y -Wn -n a -L 8M vg0 /dev/$d0; \
        lvcreate -q -q -y -Wn -n fast -L 12M vg0 /dev/$d3; lvconvert -q -q -y --type cache --cachevol fast vg0/a; \
        lvcreate -q -q -y -Wn -n b -L 2M vg0 /dev/$d0",
    ),
    (
        "lvm-writecache",
        "vgcreate -q -q -s 1M vg0 /dev/$d0 /dev/$d3; lvcreate -q -q -y -Wn -n a -L 8M vg0 /dev/$d0; \
        lvcreate -q -q -y -Wn -n fast -L 8M vg0 /dev/$d3; lvchange -q -q -an vg0/fast; \
        lvconvert -q -q -y --type writecache --cachevol fast vg0/a; \
        lvcreate -q -q -y -Wn -n b -L 2M vg0 /dev/$d0",
    ),
    (
        "lvm-zero-and-error",
        "vgcreate -q -q -s 1M vg0 /dev/$d0; lvcreate -q -q -y -Wn -Zn --type zero -n z -L 4M vg0; \
        lvcreate -q -q -y -Wn -Zn --type error -n e -L 4M vg0; \
        lvcreate -q -q -y -Wn -n b -L 2M vg0",
    ),
    (
        "lvm-striped-4",
        "vgcreate -q -q -s 1M vg0 /dev/$d0 /dev/$d1 /dev/$d3 /dev/$d4; lvcreate -q -q -y -Wn -n a -i 4 -I 8k -L 8M vg0",
    ),
    (
        "lvm-pv-grown",
        "sgdisk -n 1:0:+8M -t 1:8e00 /dev/$d0; vgcreate -q -q -s 1M vg0 /dev/${d0}p1; lvcreate -q -q -y -Wn -n a -L 4M vg0; \
        vgchange -q -q -an vg0; \
        sgdisk -d 1 -n 1:0:+16M -t 1:8e00 /dev/$d0; blockdev --rereadpt /dev/$d0; pvresize -q -q /dev/${d0}p1; \
        lvcreate -q -q -y -Wn -n b -L 8M vg0",
    ),
    (
        "lvm-pv-shrunk",
        "sgdisk -n 1:0:+16M -t 1:8e00 /dev/$d0; vgcreate -q -q -s 1M vg0 /dev/${d0}p1; lvcreate -q -q -y -Wn -n a -L 4M vg0; \
        vgchange -q -q -an vg0; \
        pvresize -q -q -y --setphysicalvolumesize 8M /dev/${d0}p1; sgdisk -d 1 -n 1:0:+8M -t 1:8e00 /dev/$d0; blockdev --rereadpt /dev/$d0",
    ),
    (
        "lvm-reduced-volume",
        "vgcreate -q -q -s 1M vg0 /dev/$d0; lvcreate -q -q -y -Wn -n a -L 8M vg0; lvreduce -q -q -f -y --fs ignore -L 3M vg0/a; \
        lvcreate -q -q -y -Wn -n b -L 4M vg0",
    ),
    (
        "lvm-merged",
        "vgcreate -q -q vg0 /dev/$d0; vgcreate -q -q vg1 /dev/$d1; lvcreate -q -q -y -Wn -n a -L 4M vg0; \
        lvcreate -q -q -y -Wn -n b -L 4M vg1; \
        vgchange -q -q -an vg0 vg1; vgmerge -q -q vg0 vg1",
    ),
    (
        "lvm-moved",
        "vgcreate -q -q -s 1M vg0 /dev/$d0 /dev/$d1; lvcreate -q -q -y -Wn -n a -L 4M vg0 /dev/$d0; pvmove -q -q -i 1 /dev/$d0",
    ),
    (
        "lvm-clone",
        "vgcreate -q -q vg0 /dev/$d0; lvcreate -q -q -y -Wn -n a -L 4M vg0; vgchange -q -q -an vg0; \
        dd if=/dev/$d0 of=/dev/$d1 bs=1M conv=fsync 2>/dev/null; \
        vgimportclone -q -q -n vg1 /dev/$d1",
    ),
    (
        "lvm-restored",
        "vgcreate -q -q -s 1M vg0 /dev/$d0; lvcreate -q -q -y -Wn -n a -L 4M vg0; vgcfgbackup -q -q -f /tmp/vg0 vg0; \
        lvcreate -q -q -y -Wn -n b -L 4M vg0; \
        vgchange -q -q -an vg0; vgcfgrestore -q -q -f /tmp/vg0 vg0",
    ),
    (
        "lvm-imported",
        "vgcreate -q -q vg0 /dev/$d0; lvcreate -q -q -y -Wn -n a -L 4M vg0; vgchange -q -q -an vg0; vgexport -q -q vg0; vgimport -q -q vg0",
    ),
    ("md-0.90", "mdadm -q -C /dev/md0 -R -e 0.90 -l 1 -n 2 --assume-clean /dev/$d0 /dev/$d1"),
    ("md-1.0", "mdadm -q -C /dev/md0 -R -e 1.0 -l 1 -n 2 --assume-clean /dev/$d0 /dev/$d1"),
    ("md-1.1", "mdadm -q -C /dev/md0 -R -e 1.1 -l 1 -n 2 --assume-clean /dev/$d0 /dev/$d1"),
    ("md-1.2", "mdadm -q -C /dev/md0 -R -e 1.2 -l 1 -n 2 --assume-clean /dev/$d0 /dev/$d1"),
    (
        "md-0.90-partitioned",
        "mdadm -q -C /dev/md0 -R -e 0.90 -l 1 -n 2 --assume-clean /dev/$d0 /dev/$d1; sfdisk -q /dev/md0 <<END\nlabel: dos\n1: size=1MiB\n\
        2: type=5\n5: size=1MiB\n6: size=1MiB\nEND",
    ),
    (
        "md-1.0-partitioned",
        "mdadm -q -C /dev/md0 -R -e 1.0 -l 1 -n 2 --assume-clean /dev/$d0 /dev/$d1; sgdisk -n 1:0:+1M -n 2:0:0 /dev/md0",
    ),
    (
        "md-1.0-bitmap",
        "mdadm -q -C /dev/md0 -R -e 1.0 -b internal -l 1 -n 2 --assume-clean /dev/$d0 /dev/$d1; sgdisk -n 1:0:+1M /dev/md0",
    ),
    (
        "md-1.2-partitioned",
        "mdadm -q -C /dev/md0 -R -e 1.2 -l 1 -n 2 --assume-clean /dev/$d0 /dev/$d1; sgdisk -n 1:0:+1M -n 2:0:0 /dev/md0",
    ),
    (
        "md-0.90-lvm",
        "mdadm -q -C /dev/md0 -R -e 0.90 -l 1 -n 2 --assume-clean /dev/$d0 /dev/$d1; vgcreate -q -q vg0 /dev/md0; \
        lvcreate -q -q -y -Wn -n a -L 4M vg0",
    ),
    (
        "md-1.0-lvm",
        "mdadm -q -C /dev/md0 -R -e 1.0 -l 1 -n 2 --assume-clean /dev/$d0 /dev/$d1; vgcreate -q -q vg0 /dev/md0; \
        lvcreate -q -q -y -Wn -n a -L 4M vg0",
    ),
    (
        "md-1.2-lvm",
        "mdadm -q -C /dev/md0 -R -e 1.2 -l 1 -n 2 --assume-clean /dev/$d0 /dev/$d1; vgcreate -q -q vg0 /dev/md0; \
        lvcreate -q -q -y -Wn -n a -L 4M vg0",
    ),
    (
        "md-1.0-in-partitions-lvm",
        "for d in $d0 $d1; do sgdisk -n 1:0:+12M -t 1:8e00 /dev/$d; done; \
        mdadm -q -C /dev/md0 -R -e 1.0 -l 1 -n 2 --assume-clean /dev/${d0}p1 /dev/${d1}p1; \
        vgcreate -q -q vg0 /dev/md0; lvcreate -q -q -y -Wn -n a -L 4M vg0",
    ),
    ("md-raid0", "mdadm -q -C /dev/md0 -R -e 1.0 -l 0 -n 2 /dev/$d0 /dev/$d1; sgdisk -n 1:0:+1M /dev/md0"),
    (
        "md-raid10",
        "mdadm -q -C /dev/md0 -R -e 1.0 -l 10 -n 2 --assume-clean /dev/$d0 /dev/$d1; sgdisk -n 1:0:+1M /dev/md0",
    ),
    ("md-missing", "mdadm -q -C /dev/md0 -R -e 1.0 -l 1 -n 2 /dev/$d0 missing; sgdisk -n 1:0:+1M /dev/md0"),
    ("md-4096", "mdadm -q -C /dev/md0 -R -e 1.0 -l 1 -n 2 /dev/$d2 missing; sgdisk -n 1:0:+1M /dev/md0"),
    (
        "md-raid4",
        "mdadm -q -C /dev/md0 -R -e 1.0 -l 4 -n 3 --assume-clean /dev/$d0 /dev/$d1 missing; sgdisk -n 1:0:+1M /dev/md0",
    ),
    (
        "md-raid5",
        "mdadm -q -C /dev/md0 -R -e 1.0 -l 5 -n 3 --assume-clean /dev/$d0 /dev/$d1 missing; sgdisk -n 1:0:+1M /dev/md0",
    ),
    (
        "md-raid6",
        "mdadm -q -C /dev/md0 -R -e 1.2 -l 6 -n 4 --assume-clean /dev/$d0 /dev/$d1 missing missing; sgdisk -n 1:0:+1M /dev/md0",
    ),
    (
        "md-0.90-in-partitions",
        "for d in $d0 $d1; do sfdisk -q /dev/$d <<END\nlabel: dos\n1: size=8MiB, type=fd\n2: size=4MiB, type=83\nEND\ndone\n\
        mdadm -q -C /dev/md0 -R -e 0.90 -l 1 -n 2 --assume-clean /dev/${d0}p1 /dev/${d1}p1; \
        vgcreate -q -q vg0 /dev/md0; lvcreate -q -q -y -Wn -n a -L 4M vg0",
    ),
    (
        "md-0.90-in-last-partitions",
        "for d in $d0 $d1; do sfdisk -q /dev/$d <<END\nlabel: dos\n1: size=4MiB, type=83\n2: type=fd\nEND\ndone\n\
        mdadm -q -C /dev/md0 -R -e 0.90 -l 1 -n 2 --assume-clean /dev/${d0}p2 /dev/${d1}p2",
    ),
    (
        "md-spare",
        "mdadm -q -C /dev/md0 -R -e 1.0 -l 1 -n 2 -x 1 --assume-clean /dev/$d0 missing /dev/$d1; sgdisk -n 1:0:+1M /dev/md0",
    ),
    (
        "md-imsm",
        "mdadm -q -C /dev/md/imsm -R -e imsm -n 2 /dev/$d3 /dev/$d4; mdadm -q -C /dev/md/v -R -l 1 -n 2 --assume-clean /dev/md/imsm; \
        sgdisk -n 1:0:+1M /dev/md/v",
    ),
    (
        "md-ddf",
        "mdadm -q -C /dev/md/ddf -R -e ddf -n 2 /dev/$d3 /dev/$d4; mdadm -q -C /dev/md/v -R -l 1 -n 2 --assume-clean /dev/md/ddf; \
        sgdisk -n 1:0:+1M /dev/md/v",
    ),
    (
        "md-zeroed",
        "mdadm -q -C /dev/md0 -R -e 1.0 -l 1 -n 2 --assume-clean /dev/$d0 /dev/$d1; sgdisk -n 1:0:+1M /dev/md0; mdadm -q --stop /dev/md0; \
        mdadm --zero-superblock /dev/$d0 /dev/$d1",
    ),
];
