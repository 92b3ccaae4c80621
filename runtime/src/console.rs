//! The console: a log that never blocks, and lines typed. Floor 2.
//!
//! Unsafe because the ring is memory shared with the console daemon, found by its address in `start_info`. A test image that runs as
//! dom0 has no ring: it writes to Xen's own console, by `console_io`.

use crate::clock;
use crate::environment::environment;
use crate::events::{self, Channel};
use crate::hypercall::{self, number};
use crate::layout;
use crate::local::Local;
use crate::memory;
use crate::record::record;
use alloc::string::String;
use core::cell::{OnceCell, RefCell};
use core::fmt;
use core::sync::atomic::AtomicU32;
use split_driver::byte_ring::{ByteConsumer, ByteLayout, ByteProducer};
use xen_pv_sys::PAGE_SIZE;
use xen_pv_sys::xen::{CONSOLEIO_READ, CONSOLEIO_WRITE, VIRQ_CONSOLE};

mod buffer;
mod line;

use buffer::Buffer;
use line::Lines;

static BUFFER: Local<RefCell<Buffer>> = Local::new(RefCell::new(Buffer::new()));
static CHANNEL: Local<OnceCell<Channel>> = Local::new(OnceCell::new());
static LINES: Local<RefCell<Lines>> = Local::new(RefCell::new(Lines::new()));

/// The page with both rings (`struct xencons_interface`, `io/console.h`), in a domain that has one.
fn page() -> Option<&'static [AtomicU32]> {
    let (frame, _) = environment().console?;
    let page = layout::machine_to_physical_checked(frame)?;
    // SAFETY: the builder put the rings into a page of ours, below the first free one, where it stays; each word is an atomic.
    (memory::physical_to_machine(page) == frame).then(|| unsafe {
        core::slice::from_raw_parts(layout::address_of(page) as *const AtomicU32, PAGE_SIZE / size_of::<AtomicU32>())
    })
}

/// Puts as many bytes as fit into the ring; how many. None where the daemon's index makes no sense.
fn send(page: &[AtomicU32], bytes: &[u8]) -> usize {
    let position = &record().console_written;
    let mut producer = ByteProducer::resume(ByteLayout::CONSOLE_OUT, page, position.get());
    let count = producer.write(page, bytes).unwrap_or(0);
    position.set(producer.position());
    count
}

/// Writes to Xen's console; all of it is taken.
pub(crate) fn write_to_xen(bytes: &[u8]) -> usize {
    // SAFETY: Xen reads `count` bytes.
    unsafe {
        hypercall::call4::<{ number::CONSOLE_IO }>(CONSOLEIO_WRITE, bytes.len() as u64, bytes.as_ptr() as u64, 0);
    }
    bytes.len()
}

/// Moves what the buffer holds to whoever shows it, as far as it is taken now.
fn flush() {
    let page = page();
    let initial = environment().is_initial_domain();
    let mut moved = 0;
    let mut buffer = BUFFER.borrow_mut();
    loop {
        let bytes = buffer.front();
        let count = match page {
            Some(page) => send(page, bytes),
            None if initial => write_to_xen(bytes),
            None => bytes.len(),
        };
        if count == 0 {
            break;
        }
        buffer.consume(count);
        moved += count;
    }
    if moved > 0
        && let Some((_, port)) = environment().console
    {
        events::notify(port);
    }
}

/// Sets up `log`, and the task that moves what did not fit and takes what is typed. The command line's `log=` gives the level.
pub(crate) fn initialize() {
    if !record().is_again()
        && let Some(page) = page()
    {
        record().console_written.set(ByteProducer::attach(ByteLayout::CONSOLE_OUT, page).position());
        record().console_read.set(ByteConsumer::attach(ByteLayout::CONSOLE_IN, page).position());
    }
    if let Some((_, port)) = environment().console {
        let _ = CHANNEL.set(events::adopt(port));
    } else if environment().is_initial_domain()
        && let Ok(channel) = events::bind_virq(VIRQ_CONSOLE)
    {
        let _ = CHANNEL.set(channel);
    }
    let level = environment()
        .command_line
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix("log="))
        .and_then(|level| level.parse().ok())
        .unwrap_or(log::LevelFilter::Info);
    if log::set_logger(&Log).is_ok() {
        log::set_max_level(level);
    }
    if record().is_again() {
        restore();
    }
}

/// What [`save_rest`] kept is buffered again.
pub(crate) fn restore_rest() {
    if let Ok(mut buffer) = BUFFER.try_borrow_mut() {
        buffer.add_raw(record().log_rest());
    }
}

/// In a new life: what the last one's log had not passed on, then how it ended.
fn restore() {
    let record = record();
    restore_rest();
    let Ok(mut buffer) = BUFFER.try_borrow_mut() else {
        return;
    };
    let terminal = environment().console.is_some();
    for byte in record.report() {
        if terminal && byte == b'\n' {
            buffer.add_raw([b'\r'].into_iter());
        }
        buffer.add_raw([byte].into_iter());
    }
}

/// At the end of a life that another one follows: passes on what is taken at once, and keeps the rest for the next.
pub(crate) fn save_rest() {
    let Ok(mut buffer) = BUFFER.try_borrow_mut() else {
        return;
    };
    if let Some(page) = page() {
        let count = send(page, buffer.front());
        buffer.consume(count);
    }
    while !buffer.front().is_empty() {
        record().add_text(buffer.front());
        let count = buffer.front().len();
        buffer.consume(count);
    }
}

/// The console's task.
pub(crate) async fn run() {
    let Some(channel) = CHANNEL.get() else {
        return;
    };
    loop {
        flush();
        receive();
        channel.wait().await;
    }
}

/// Takes what was typed.
fn receive() {
    let mut lines = LINES.borrow_mut();
    if let Some(page) = page() {
        let position = &record().console_read;
        let mut consumer = ByteConsumer::resume(ByteLayout::CONSOLE_IN, page, position.get());
        let mut bytes = [0; ByteLayout::CONSOLE_IN.capacity()];
        // A daemon whose index makes no sense types nothing.
        let count = consumer.read(page, &mut bytes).unwrap_or(0);
        position.set(consumer.position());
        bytes.iter().take(count).for_each(|byte| lines.push(*byte));
        if count > 0
            && let Some((_, port)) = environment().console
        {
            events::notify(port);
        }
    } else if environment().is_initial_domain() {
        let mut bytes = [0u8; 64];
        // SAFETY: Xen writes at most as many bytes as it is told.
        let count = unsafe {
            hypercall::call4::<{ number::CONSOLE_IO }>(CONSOLEIO_READ, bytes.len() as u64, bytes.as_mut_ptr() as u64, 0)
        };
        for byte in bytes.iter().take(usize::try_from(count).unwrap_or(0)) {
            lines.push(*byte);
        }
    }
}

/// Writes text and a line's end. What does not fit into the buffer is dropped and counted.
pub fn write(text: &str) {
    write_line(format_args!("{text}"));
}

/// Writes formatted text and a line's end. What does not fit into the buffer is dropped and counted.
pub fn write_line(text: fmt::Arguments<'_>) {
    // A `Display` that logs while it is being logged is dropped, not a panic.
    if let Ok(mut buffer) = BUFFER.try_borrow_mut() {
        buffer.write_line(text, environment().console.is_some());
    } else {
        return;
    }
    flush();
}

/// Lines dropped so far.
pub fn dropped_lines() -> u64 {
    BUFFER.borrow().dropped_lines()
}

/// The next line that was typed, without its end. One task at a time.
pub async fn next_line() -> String {
    core::future::poll_fn(|context| LINES.borrow_mut().poll(context)).await
}

/// `log` on the console.
struct Log;

impl log::Log for Log {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }
    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let now = clock::now().0 / 1000;
            write_line(format_args!(
                "[{:5}.{:06}] {:5} {}: {}",
                now / 1_000_000,
                now % 1_000_000,
                record.level(),
                record.target(),
                record.args()
            ));
        }
    }
    fn flush(&self) {}
}

/// Writes past the buffer, waiting for the daemon for a bounded time.
pub(crate) fn push(mut bytes: &[u8]) {
    const TRIES: u32 = 20_000;
    let Some(page) = page() else {
        if environment().is_initial_domain() {
            write_to_xen(bytes);
        }
        return;
    };
    for _ in 0..TRIES {
        let count = send(page, bytes);
        bytes = bytes.get(count..).unwrap_or(&[]);
        if let Some((_, port)) = environment().console {
            events::notify(port);
        }
        if bytes.is_empty() {
            return;
        }
        hypercall::yield_cpu();
    }
}

/// Pushes out what is buffered, as far as the daemon takes it in a bounded time.
pub(crate) fn flush_for_exit() {
    if let Ok(mut buffer) = BUFFER.try_borrow_mut() {
        loop {
            let bytes = buffer.front();
            let count = bytes.len();
            if count == 0 {
                return;
            }
            push(bytes);
            buffer.consume(count);
        }
    }
}
