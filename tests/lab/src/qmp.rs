//! QEMU's machine protocol (QMP, "QEMU Machine Protocol Specification"): what is done to the machine while it runs. Host.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// A connection to QEMU. QEMU has one at a time.
pub struct Monitor<S> {
    input: BufReader<S>,
    output: S,
}

/// What QEMU can be asked for.
#[derive(Serialize)]
#[serde(tag = "execute", content = "arguments", rename_all = "snake_case")]
enum Command<'a> {
    /// Ends the negotiation; the first command of each connection.
    QmpCapabilities {},
    /// Pulls a NIC's cable out, or puts it in.
    SetLink {
        /// The netdev's `id`.
        name: &'a str,
        up: bool,
    },
}

/// A line of QEMU's. What is neither an answer nor an error is the greeting or an event.
#[derive(Deserialize)]
struct Message {
    #[serde(rename = "return")]
    answer: Option<IgnoredAny>,
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Failure {
    class: String,
    desc: String,
}

impl Monitor<UnixStream> {
    /// Connects to QEMU's socket; QEMU may take so long for each answer.
    ///
    /// # Errors
    /// Where QEMU does not answer there.
    pub fn connect(path: &Path, patience: Duration) -> Result<Self> {
        let output = UnixStream::connect(path).context("QEMU's monitor")?;
        output.set_read_timeout(Some(patience))?;
        Self::new(output.try_clone()?, output)
    }
}

impl<S: Read + Write> Monitor<S> {
    fn new(input: S, output: S) -> Result<Self> {
        let mut monitor = Self { input: BufReader::new(input), output };
        monitor.call(&Command::QmpCapabilities {})?;
        Ok(monitor)
    }

    /// Gives the NIC on the netdev `name` a link, or takes it.
    ///
    /// # Errors
    /// What QEMU says.
    pub fn set_link(&mut self, name: &str, up: bool) -> Result<()> {
        self.call(&Command::SetLink { name, up })
    }

    /// Gives a command and waits for its answer.
    fn call(&mut self, command: &Command<'_>) -> Result<()> {
        let mut text = serde_json::to_string(command)?;
        text.push('\n');
        self.output.write_all(text.as_bytes()).context("QEMU's monitor")?;
        loop {
            let mut line = String::new();
            let length = self.input.read_line(&mut line).context("QEMU's monitor")?;
            ensure!(length > 0, "QEMU's monitor ended before it answered {}", text.trim_end());
            let message: Message = serde_json::from_str(&line).with_context(|| format!("QEMU said {line}"))?;
            if let Some(Failure { class, desc }) = message.error {
                bail!("QEMU refused {}: {class}: {desc}", text.trim_end());
            }
            if message.answer.is_some() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// A QEMU that says `lines`, each when it was asked once more; gives what it was asked.
    fn qemu(lines: &'static [&'static str]) -> (Result<Monitor<UnixStream>>, thread::JoinHandle<Vec<String>>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let asked = thread::spawn(move || {
            let mut output = theirs.try_clone().unwrap();
            let mut input = BufReader::new(theirs).lines();
            output.write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n").unwrap();
            let answers = lines.iter().map_while(|answer| {
                let asked = input.next()?.ok()?;
                output.write_all(answer.as_bytes()).ok()?;
                Some(asked)
            });
            answers.collect()
        });
        (Monitor::new(ours.try_clone().unwrap(), ours), asked)
    }

    #[test]
    fn a_link_is_set_whatever_events_come_between() {
        let (monitor, asked) = qemu(&[
            "{\"return\": {}}\r\n",
            "{\"timestamp\": {}, \"event\": \"RESET\", \"data\": {}}\r\n{\"return\": {}}\r\n",
        ]);
        monitor.unwrap().set_link("n0", false).unwrap();
        let asked = asked.join().unwrap();
        assert_eq!(asked[0], r#"{"execute":"qmp_capabilities","arguments":{}}"#);
        assert_eq!(asked[1], r#"{"execute":"set_link","arguments":{"name":"n0","up":false}}"#);
    }

    #[test]
    fn a_refusal_is_told_and_an_end_too() {
        let (monitor, asked) = qemu(&[
            "{\"return\": {}}\r\n",
            "{\"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"Device 'n9' not found\"}}\r\n",
        ]);
        let error = monitor.unwrap().set_link("n9", true).unwrap_err().to_string();
        assert!(error.contains("DeviceNotFound: Device 'n9' not found"), "{error}");
        asked.join().unwrap();
        assert!(qemu(&[]).0.is_err());
    }
}
