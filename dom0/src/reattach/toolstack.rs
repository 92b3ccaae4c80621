//! `xl` as a program. Host.

use std::io::{Read, Seek};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::memfd::{MFdFlags, memfd_create};
use split_driver::time::Timer;

use super::Toolstack;

/// How long a command may take: libxl itself waits for ten seconds, some times in a row.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often its end is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// `xl` of this dom0.
pub(crate) struct Xl<T>(pub(crate) T);

/// A program that ends with who waits for it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended is ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl<T: Timer> Toolstack for Xl<T> {
    async fn xl(&self, arguments: &[&str]) -> Result<String> {
        let shown = format!("xl {}", arguments.join(" "));
        // Files, as a pipe that nobody reads would hold it up.
        let file = || Ok::<_, anyhow::Error>(std::fs::File::from(memfd_create("xl", MFdFlags::empty())?));
        let (mut out, mut errors) = (file()?, file()?);
        let child = Command::new("xl")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(errors.try_clone()?)
            .spawn()
            .context("xl does not run; is this dom0?")?;
        let mut child = Running(child);
        let deadline = self.0.now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.0.try_wait()? {
                break status;
            }
            if self.0.now() >= deadline {
                bail!("`{shown}` did not end within {PATIENCE:?}");
            }
            self.0.sleep(LOOK).await;
        };
        let text = |file: &mut std::fs::File| {
            let mut bytes = Vec::new();
            file.rewind()
                .and_then(|()| file.read_to_end(&mut bytes))
                .map(|_| String::from_utf8_lossy(&bytes).into_owned())
        };
        ensure!(status.success(), "`{shown}` says: {}", text(&mut errors)?.trim());
        Ok(text(&mut out)?)
    }
}
