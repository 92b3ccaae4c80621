//! Commands typed on the console (`xl console`). Safe code only. Floor 2.

use super::{Service, resources};
use crate::{console, time};
use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;
use log::LevelFilter;

const HELP: &str = "stats        what each thing counted
memory       pages, heap, grants, ports, watches
log LEVEL    what is logged: off, error, warn, info, debug, trace
uptime       since the first instruction
help         this
";

/// Answers for good.
pub(super) async fn run<S: Service>(service: Rc<S>) {
    loop {
        let line = console::next_line().await;
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            [] => {}
            ["stats"] => statistics(&*service),
            ["memory"] => console::write(&format!("{}\n", resources(&*service))),
            ["uptime"] => console::write(&format!("{} ms\n", time::now().0 / 1_000_000)),
            ["log", level] => match level.parse::<LevelFilter>() {
                Ok(level) => log::set_max_level(level),
                Err(_) => console::write("off, error, warn, info, debug or trace\n"),
            },
            ["help"] => {
                console::write(HELP);
                console::write(S::HELP);
            }
            words => {
                if !service.command(words) {
                    console::write("unknown; try help\n");
                }
            }
        }
    }
}

fn statistics<S: Service>(service: &S) {
    for (name, text) in service.statistics() {
        console::write(&format!("{name}: {text}\n"));
    }
    console::write(&format!("log lines dropped: {}\n", console::dropped_lines()));
}
