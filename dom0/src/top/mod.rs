//! `oxidom top`: what happens now, by vif, disk and driver domain. Host.

mod rates;
mod screen;

use std::fs::File;
use std::io::{Stdout, Write, stdin, stdout};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{SetArg, tcgetattr, tcsetattr};
use ratatui::Terminal;
use ratatui_termion::TermionBackend;
use ratatui_termion::termion::cursor::Show;
use ratatui_termion::termion::event::{Event, Key};
use ratatui_termion::termion::input::TermRead;
use ratatui_termion::termion::raw::{IntoRawMode, RawTerminal};
use ratatui_termion::termion::screen::{AlternateScreen, IntoAlternateScreen, ToMainScreen};
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
        writeln!(stdout(), "{}", serde_json::to_string(&course.step()?)?)?;
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
    let mut terminal = open().context("this is no terminal; `oxidom --json top` prints lines")?;
    let result = run(&mut terminal, interval, count, &mut course, &end);
    terminal.show_cursor().context("the terminal was not restored: `reset` does it")?;
    result
}

/// The terminal's second screen, without echo, until it is dropped, or a panic.
type Screen = Terminal<TermionBackend<AlternateScreen<RawTerminal<Stdout>>>>;

fn open() -> Result<Screen> {
    let before = Mutex::new(tcgetattr(stdin())?);
    let told = std::panic::take_hook();
    // Nothing is dropped by a panic that aborts.
    std::panic::set_hook(Box::new(move |information| {
        if let Ok(before) = before.try_lock() {
            tcsetattr(stdin(), SetArg::TCSANOW, &before).ok();
        }
        write!(stdout(), "{ToMainScreen}{Show}").ok();
        told(information);
    }));
    Ok(Terminal::new(TermionBackend::new(stdout().into_raw_mode()?.into_alternate_screen()?))?)
}

/// Waits for a key; whether there is one.
fn wait(keys: &File, longest: Duration) -> Result<bool> {
    let timeout = PollTimeout::try_from(longest).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(keys.as_fd(), PollFlags::POLLIN)], timeout) {
        Ok(ready) => Ok(ready > 0),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn run<F: FnMut() -> Result<Snapshot>>(
    terminal: &mut Screen,
    interval: Duration,
    count: Option<u64>,
    course: &mut Course<F>,
    end: &AtomicBool,
) -> Result<()> {
    let (mut shown, mut view, mut note, mut left) = (course.beginning(), View::default(), None, count);
    // Without a buffer, so that there is none to look into before it is waited for.
    let keys = File::from(stdin().as_fd().try_clone_to_owned()?);
    let mut events = keys.try_clone()?.events();
    let mut due = Instant::now() + interval;
    loop {
        terminal.draw(|frame| screen::draw(frame, &shown, view, note.as_deref()))?;
        while Instant::now() < due {
            if end.load(Ordering::Relaxed) {
                return Ok(());
            }
            if !wait(&keys, due.saturating_duration_since(Instant::now()).min(LOOK))? {
                continue;
            }
            let Some(event) = events.next() else {
                return Ok(());
            };
            match act(&event?, &mut view) {
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
    match event {
        Event::Key(Key::Ctrl('c') | Key::Char('q') | Key::Esc) => return Act::End,
        Event::Key(Key::Char('s')) => view.busiest = !view.busiest,
        Event::Key(Key::Down) => view.scrolled = view.scrolled.saturating_add(1),
        Event::Key(Key::Up) => view.scrolled = view.scrolled.saturating_sub(1),
        Event::Key(Key::PageDown) => view.scrolled = view.scrolled.saturating_add(10),
        Event::Key(Key::PageUp) => view.scrolled = view.scrolled.saturating_sub(10),
        Event::Key(Key::Home) => view.scrolled = 0,
        _ => return Act::Nothing,
    }
    Act::Draw
}
