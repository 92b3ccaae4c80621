//! The tests that run directly under Xen, as data: for the image that holds them, and for the host that runs it.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod script;
pub mod tape;

/// How a test ends, as in Xen's XTF. The last line on the console is `Test result: ` and the outcome in capitals; none for a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What was tested works.
    Success,
    /// It cannot be tested here.
    Skip,
    /// The test itself is broken.
    Error,
    /// What was tested does not work.
    Failure,
    /// The domain crashed: there is no result line.
    Crash,
}

impl Outcome {
    /// Behind `Test result: `.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "SUCCESS",
            Self::Skip => "SKIP",
            Self::Error => "ERROR",
            Self::Failure => "FAILURE",
            Self::Crash => "CRASH",
        }
    }
}

/// One boot of the image `guest` as Xen's dom0: command line `test=NAME`, and `dom0_mem=MEMORY,max:MEMORY dom0_max_vcpus=VCPUS` for Xen.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// Behind `test=` on the command line.
    pub name: &'static str,
    /// Memory of the domain.
    pub memory: &'static str,
    /// Virtual CPUs of the domain: with two it has a watchdog.
    pub vcpus: u32,
    /// How it must end.
    pub expected: Outcome,
    /// What must be on the console, in this order.
    pub console: &'static [&'static str],
    /// Whether the image `successor` is the domain's module.
    pub successor: bool,
}

const fn passes(name: &'static str, memory: &'static str) -> Test {
    Test { name, memory, vcpus: 1, expected: Outcome::Success, console: &[], successor: false }
}

const fn crashes(name: &'static str, console: &'static [&'static str]) -> Test {
    Test { name, memory: "16M", vcpus: 1, expected: Outcome::Crash, console, successor: false }
}

const fn replaces(name: &'static str, console: &'static [&'static str]) -> Test {
    Test { console, successor: true, ..passes(name, "16M") }
}

const fn watched(test: Test) -> Test {
    Test { vcpus: 2, ..test }
}

/// All of them.
pub const TESTS: &[Test] = &[
    passes("protection", "16M"),
    passes("memory", "8M"),
    passes("memory", "64M"),
    passes("memory", "1G"),
    passes("heap", "16M"),
    passes("dma", "64M"),
    passes("time", "16M"),
    Test { console: &["no watchdog"], ..passes("executor", "16M") },
    passes("events", "16M"),
    passes("grants", "16M"),
    passes("console", "16M"),
    crashes("panic", &["panicked at", "as the test asks", "  at 0x", "Dom0 crashed"]),
    crashes("fault", &["fault: invalid opcode", " rip ", "  at 0x", "Dom0 crashed"]),
    crashes("out-of-memory", &["memory allocation of", "  at 0x", "Dom0 crashed"]),
    crashes("stack-overflow", &["Dom0 crashed"]),
    passes("restart", "16M"),
    passes("restart", "1G"),
    crashes(
        "restart-limit",
        &[
            "as the test asks",
            "  at 0x",
            "life 1 is there",
            "life 4 is there",
            "no restart: 4 restarts in a row",
            "as the test asks",
            "  at 0x",
            "Dom0 crashed",
        ],
    ),
    crashes(
        "restart-twice",
        &[
            "failed, and again while it ended",
            "as the test asks",
            "  at 0x",
            "while it ended",
            "  at 0x",
            "Dom0 crashed",
        ],
    ),
    replaces("replace", &["the successor is there after", "the test replaces the image"]),
    replaces("replace-gives-up", &["the successor is there after", "back after", "as the test asks"]),
    replaces("replace-fails", &["the successor is there after", "back after", "the successor fails as the test asks"]),
    watched(passes("hang", "16M")),
    watched(replaces("replace-hangs", &["the successor is there after", "back after", "watchdog: no turn"])),
    watched(crashes(
        "hang-after-failure",
        &[
            "failed, and again while it ended",
            "as the test asks",
            "  at 0x",
            "watchdog: no turn",
            " rip ",
            "  in 0x",
            "Dom0 crashed",
        ],
    )),
    // Xen holds back the second NMI, and ends the domain itself.
    watched(crashes("hang-after-hang", &["hangs", "atchdog timer", "shutdown: watchdog"])),
    crashes(
        "restart-refused",
        &["no restart: the image has no consistent state", "as the test asks", "  at 0x", "Dom0 crashed"],
    ),
];
