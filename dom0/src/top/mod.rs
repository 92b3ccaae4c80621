//! `oxidom top`: what happens now, by vif, disk and driver domain. Host.

mod rates;
mod screen;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::model::Snapshot;
use rates::{Rates, rates};
use screen::View;

/// How long a signal may wait until it is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// The signals that end it.
fn ends() -> Result<Arc<AtomicBool>> {
    let end = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&end)).context("signals cannot be followed")?;
    }
    Ok(end)
}

/// Snapshots, one after the other.
struct Course<F> {
    next: F,
    at: Instant,
    last: Snapshot,
}

impl<F: FnMut() -> Result<Snapshot>> Course<F> {
    fn new(mut next: F) -> Result<Self> {
        let last = next()?;
        Ok(Self { next, at: Instant::now(), last })
    }

    /// What there is, while nothing is known of what happens.
    fn beginning(&self) -> Rates {
        rates(&Snapshot::default(), &self.last, Duration::ZERO)
    }

    /// What happened since the last one.
    fn step(&mut self) -> Result<Rates> {
        let snapshot = (self.next)()?;
        let at = Instant::now();
        let found = rates(&self.last, &snapshot, at.duration_since(self.at));
        (self.at, self.last) = (at, snapshot);
        Ok(found)
    }
}

/// Prints a line of JSON each time, `count` of them, or for good.
///
/// # Errors
/// Of the store, or nobody reads what is printed any longer.
pub(crate) fn print(interval: Duration, count: Option<u64>, next: impl FnMut() -> Result<Snapshot>) -> Result<()> {
    let mut course = Course::new(next)?;
    let mut left = count;
    while left != Some(0) {
        std::thread::sleep(interval);
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&course.step()?)?)?;
        left = left.map(|left| left - 1);
    }
    Ok(())
}

/// Shows it on the terminal until `q`, or `count` times. The terminal is as it was before in the end, also after an error or a panic.
///
/// # Errors
/// Of the store at first, or of the terminal.
pub(crate) fn show(interval: Duration, count: Option<u64>, next: impl FnMut() -> Result<Snapshot>) -> Result<()> {
    let mut course = Course::new(next)?;
    let end = ends()?;
    let mut terminal = ratatui::try_init().context("this is no terminal; `oxidom --json top` prints lines")?;
    let result = run(&mut terminal, interval, count, &mut course, &end);
    ratatui::try_restore().context("the terminal was not restored: `reset` does it")?;
    result
}

fn run<F: FnMut() -> Result<Snapshot>>(
    terminal: &mut DefaultTerminal,
    interval: Duration,
    count: Option<u64>,
    course: &mut Course<F>,
    end: &AtomicBool,
) -> Result<()> {
    let (mut shown, mut view, mut note, mut left) = (course.beginning(), View::default(), None, count);
    let mut due = Instant::now() + interval;
    loop {
        terminal.draw(|frame| screen::draw(frame, &shown, view, note.as_deref()))?;
        while Instant::now() < due {
            if end.load(Ordering::Relaxed) {
                return Ok(());
            }
            let wait = due.saturating_duration_since(Instant::now()).min(LOOK);
            if !event::poll(wait)? {
                continue;
            }
            match act(&event::read()?, &mut view) {
                Act::End => return Ok(()),
                Act::Draw => {
                    terminal.draw(|frame| screen::draw(frame, &shown, view, note.as_deref()))?;
                }
                Act::Nothing => {}
            }
        }
        due = Instant::now() + interval;
        match course.step() {
            Ok(rates) => (shown, note) = (rates, None),
            // The store may be back the next time.
            Err(error) => note = Some(crate::model::clean(format!("{error:#}").as_bytes())),
        }
        match &mut left {
            Some(0 | 1) => return Ok(()),
            Some(left) => *left -= 1,
            None => {}
        }
    }
}

/// What a key asks for.
#[derive(Debug, PartialEq, Eq)]
enum Act {
    End,
    Draw,
    Nothing,
}

fn act(event: &Event, view: &mut View) -> Act {
    let key = match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => key,
        Event::Resize(..) => return Act::Draw,
        _ => return Act::Nothing,
    };
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Act::End,
        KeyCode::Char('q') | KeyCode::Esc => return Act::End,
        KeyCode::Char('s') => view.busiest = !view.busiest,
        KeyCode::Down => view.scrolled = view.scrolled.saturating_add(1),
        KeyCode::Up => view.scrolled = view.scrolled.saturating_sub(1),
        KeyCode::PageDown => view.scrolled = view.scrolled.saturating_add(10),
        KeyCode::PageUp => view.scrolled = view.scrolled.saturating_sub(10),
        KeyCode::Home => view.scrolled = 0,
        _ => return Act::Nothing,
    }
    Act::Draw
}
