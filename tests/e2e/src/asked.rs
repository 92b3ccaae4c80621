//! What an image asks of Xen: by its text, and by the table of docs/HYPERCALLS.md. Host.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use object::elf::PF_X;
use object::{File, Object, ObjectSegment, SegmentFlags};
use xen_pv_sys::xen::hypercall as number;

/// The table's text.
const DOCUMENT: &str = include_str!("../../../docs/HYPERCALLS.md");
/// The images, in the order of the table's columns.
pub const IMAGES: [&str; 3] = ["netdom", "blkdom", "xenstore-stubdom"];

/// The hypercalls of the table.
const NUMBERS: [(&str, u64); 14] = [
    ("callback_op", number::CALLBACK_OP),
    ("console_io", number::CONSOLE_IO),
    ("domctl", number::DOMCTL),
    ("event_channel_op", number::EVENT_CHANNEL_OP),
    ("grant_table_op", number::GRANT_TABLE_OP),
    ("iret", number::IRET),
    ("memory_op", number::MEMORY_OP),
    ("mmu_update", number::MMU_UPDATE),
    ("mmuext_op", number::MMUEXT_OP),
    ("physdev_op", number::PHYSDEV_OP),
    ("sched_op", number::SCHED_OP),
    ("set_trap_table", number::SET_TRAP_TABLE),
    ("update_va_mapping", number::UPDATE_VA_MAPPING),
    ("vcpu_op", number::VCPU_OP),
];

/// Bytes of an entry of the hypercall page, with which an image's text begins.
const ENTRY: u64 = 32;
const PAGE: u64 = 4096;
/// `call rel32`, `jmp rel32`, and `mov $imm32, %eax` of a call that goes there by the register (Intel SDM, volume 2).
const CALL: u8 = 0xe8;
const JUMP: u8 = 0xe9;
const TAKE: u8 = 0xb8;

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// As in `xen.h`, without `__HYPERVISOR_`.
    pub hypercall: String,
    /// `None` where the hypercall has but one meaning, or this one has no name.
    pub operation: Option<String>,
    /// Whether it is in the text of each of [`IMAGES`].
    pub has: [bool; 3],
}

/// The rows of the table.
///
/// # Errors
/// The row that is none.
pub fn documented() -> Result<Vec<Row>> {
    rows(DOCUMENT)
}

fn rows(document: &str) -> Result<Vec<Row>> {
    let lines = document.lines().filter(|line| line.starts_with("| `"));
    lines.map(|line| row(line).with_context(|| format!("no row of a hypercall: {line}"))).collect()
}

fn row(line: &str) -> Option<Row> {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [hypercall, operation, netdom, blkdom, store, _] = cells.as_slice() else {
        return None;
    };
    let name = |cell: &str| Some(cell.strip_prefix('`')?.strip_suffix('`')?.to_owned());
    let is_there = |cell: &str| match cell {
        "yes" | "never" => Some(true),
        "-" => Some(false),
        _ => None,
    };
    Some(Row {
        hypercall: name(hypercall)?,
        operation: if operation.is_empty() { None } else { Some(name(operation)?) },
        has: [is_there(netdom)?, is_there(blkdom)?, is_there(store)?],
    })
}

/// Holds an image against its column of the table.
///
/// # Errors
/// The hypercalls that are in its text and not in the table, and the other way round.
pub fn check(name: &str, image: &[u8]) -> Result<()> {
    let column = IMAGES.iter().position(|known| *known == name).with_context(|| format!("{name} has no column"))?;
    let mut documented = BTreeSet::new();
    for row in self::documented()?.iter().filter(|row| row.has.get(column) == Some(&true)) {
        let number = NUMBERS.iter().find(|(known, _)| *known == row.hypercall);
        documented.insert(number.with_context(|| format!("{} has no number in asked.rs", row.hypercall))?.1);
    }
    let found = of_image(image)?;
    let named = |numbers: &BTreeSet<u64>, others: &BTreeSet<u64>| {
        let name_of = |number| NUMBERS.iter().find(|(_, known)| known == number).map_or("unknown", |(name, _)| name);
        numbers
            .difference(others)
            .map(|number| format!("{} ({number})", name_of(number)))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let (more, less) = (named(&found, &documented), named(&documented, &found));
    ensure!(
        more.is_empty() && less.is_empty(),
        "{name} and docs/HYPERCALLS.md differ: only in the image [{more}], only in the table [{less}]"
    );
    Ok(())
}

/// The numbers of the hypercalls in an image's text.
fn of_image(image: &[u8]) -> Result<BTreeSet<u64>> {
    let file = File::parse(image)?;
    let is_text = |flags: SegmentFlags| matches!(flags, SegmentFlags::Elf { p_flags } if p_flags & PF_X != 0);
    let text = file.segments().find(|segment| is_text(segment.flags())).context("no text")?;
    Ok(of_text(text.data()?, text.address()))
}

/// The same, of text at an address below 4 GiB.
fn of_text(text: &[u8], base: u64) -> BTreeSet<u64> {
    let behind_page = text.iter().enumerate().skip(PAGE as usize);
    let targets = behind_page.filter_map(|(at, opcode)| {
        let operand = text.get(at + 1..at + 5)?.try_into().ok()?;
        match *opcode {
            CALL | JUMP => (base + at as u64 + 5).checked_add_signed(i32::from_le_bytes(operand).into()),
            TAKE => Some(u32::from_le_bytes(operand).into()),
            _ => None,
        }
    });
    let offsets = targets.filter_map(|target| target.checked_sub(base));
    offsets.filter(|offset| *offset < PAGE && offset % ENTRY == 0).map(|offset| offset / ENTRY).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_into_the_page_is_found() {
        let mut text = vec![0xcc; 2 * PAGE as usize];
        let mut put = |at: usize, bytes: &[u8]| text[at..at + bytes.len()].copy_from_slice(bytes);
        let to = |from: i32, entry: i32| (entry * 32 - (from + 5)).to_le_bytes();
        put(5000, &[&[CALL], to(5000, 29).as_slice()].concat());
        put(6000, &[&[JUMP], to(6000, 23).as_slice()].concat());
        put(7000, &[&[TAKE], (0x40_0000 + 24 * 32_u32).to_le_bytes().as_slice()].concat());
        // Into an entry's middle, and behind the page.
        put(7100, &[&[CALL], (29 * 32 + 1 - 7105_i32).to_le_bytes().as_slice()].concat());
        put(7200, &[&[CALL], to(7200, 128).as_slice()].concat());
        assert_eq!(of_text(&text, 0x40_0000), BTreeSet::from([23, 24, 29]));
    }

    #[test]
    fn an_image_that_asks_for_something_else_is_refused() {
        assert!(check("netdom", b"no image").is_err() && check("guest", b"").is_err());
        for (name, text) in [("netdom", 36), ("xenstore-stubdom", 13)] {
            let image = image(&[0, 1, 12, 14, 18, 20, 23, 24, 26, 29, 30, 32, 33, text]);
            let error = check(name, &image).expect_err("it differs").to_string();
            assert!(error.contains(&format!("({text})")), "{error}");
        }
        check("netdom", &image(&[0, 1, 12, 14, 18, 20, 23, 24, 26, 29, 30, 32, 33])).expect("as in the table");
        let less = check("netdom", &image(&[0])).expect_err("it differs").to_string();
        assert!(less.contains("sched_op (29)"), "{less}");
    }

    /// An ELF file with one segment, of text that makes these hypercalls (ELF-64, figures 2 and 6).
    fn image(calls: &[u32]) -> Vec<u8> {
        let mut text = vec![0; PAGE as usize];
        for call in calls {
            text.extend([&[TAKE][..], &(0x40_0000 + call * 32).to_le_bytes()].concat());
        }
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        // An executable for x86-64; no sections, one program header behind this.
        [2_u16, 62].iter().for_each(|half| file.extend(half.to_le_bytes()));
        file.extend(1_u32.to_le_bytes());
        [0x40_1000_u64, 64, 0].iter().for_each(|long| file.extend(long.to_le_bytes()));
        file.extend(0_u32.to_le_bytes());
        [64_u16, 56, 1, 64, 0, 0].iter().for_each(|half| file.extend(half.to_le_bytes()));
        [1_u32, 5].iter().for_each(|word| file.extend(word.to_le_bytes()));
        let length = text.len() as u64;
        [PAGE, 0x40_0000, 0x40_0000, length, length, PAGE].iter().for_each(|long| file.extend(long.to_le_bytes()));
        file.resize(PAGE as usize, 0);
        file.extend(text);
        file
    }

    #[test]
    fn rows_are_read() {
        let text = "| a | b |\n|---|---|\n| `iret` | | yes | - | never | x |\n";
        let iret = Row { hypercall: "iret".to_owned(), operation: None, has: [true, false, true] };
        assert_eq!(rows(text).expect("rows"), [iret]);
        assert!(rows("| `iret` | | yes | - | perhaps | x |\n").is_err());
        assert!(rows("| `iret` | SCHEDOP_BLOCK | yes | - | - | x |\n").is_err());
        assert!(documented().expect("the table").len() > 30);
    }
}
