//! Commands typed on the console (`xl console`). Floor 3.

use super::{Domain, report};
use alloc::format;
use alloc::rc::Rc;
use log::LevelFilter;
use runtime::{console, time};

const HELP: &str = "stats        what each port counted
memory       pages, heap, grants, ports, watches
log LEVEL    what is logged: off, error, warn, info, debug, trace
uptime       since the first instruction
help         this
";

/// Answers for good.
pub(super) async fn run(domain: Rc<Domain>) {
    loop {
        let line = console::next_line().await;
        let mut words = line.split_ascii_whitespace();
        match (words.next(), words.next()) {
            (None, _) => {}
            (Some("stats"), None) => statistics(&domain),
            (Some("memory"), None) => console::write(&format!("{}\n", report::resources(&domain))),
            (Some("uptime"), None) => {
                console::write(&format!("{} ms\n", time::now().0 / 1_000_000));
            }
            (Some("log"), Some(level)) => match level.parse::<LevelFilter>() {
                Ok(level) => log::set_max_level(level),
                Err(_) => console::write("off, error, warn, info, debug or trace\n"),
            },
            (Some("help"), None) => console::write(HELP),
            _ => console::write("unknown; try help\n"),
        }
    }
}

fn statistics(domain: &Domain) {
    for (name, text) in report::ports(domain) {
        console::write(&format!("{name}: {text}\n"));
    }
    let pool = domain.path.borrow().pool().clone();
    console::write(&format!(
        "packet pages: {} of {} free; log lines dropped: {}\n",
        pool.available(),
        pool.capacity(),
        console::dropped_lines()
    ));
}
