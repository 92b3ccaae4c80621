//! Directories that go away: when dropped, and when the lab is interrupted. Host.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::thread;

use anyhow::{Context, Result};

/// A directory for sockets, logs and images, removed with all in it when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

static DIRECTORIES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

impl Scratch {
    /// Makes one below the system's directory for such: short, as sockets' paths must be.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        clean_up_on_signals();
        sweep();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("oxidom-lab-{}-{number}", std::process::id()));
        // One of the same name is of a process that was killed.
        fs::remove_dir_all(&path).ok();
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        directories().push(path.clone());
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.path).ok();
        directories().retain(|path| *path != self.path);
    }
}

/// Removes what processes have left that were killed before they could.
fn sweep() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix("oxidom-lab-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

fn directories() -> std::sync::MutexGuard<'static, Vec<PathBuf>> {
    DIRECTORIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// On Ctrl-C and the like: children die with us (they asked the kernel to), and the directories are removed here.
fn clean_up_on_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM]) else { return };
        thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                for path in directories().drain(..) {
                    fs::remove_dir_all(path).ok();
                }
                std::process::exit(128 + signal);
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_dead_left_is_swept() {
        // No process has a number this large: the kernel's limit is 2^22.
        let left = std::env::temp_dir().join("oxidom-lab-99999999-0");
        fs::create_dir_all(&left).expect("the system has a place for it");
        let _scratch = Scratch::new().expect("another");
        assert!(!left.exists());
    }

    #[test]
    fn it_is_there_and_then_it_is_not() {
        let scratch = Scratch::new().expect("the system has a place for it");
        let other = Scratch::new().expect("another");
        assert_ne!(scratch.path(), other.path());
        let path = scratch.path().to_owned();
        fs::write(path.join("file"), "x").expect("it can be written to");
        drop(scratch);
        assert!(!path.exists() && other.path().exists());
    }
}
