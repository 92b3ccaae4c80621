//! The traffic tool, as cases and benchmarks call it inside dom0 or a guest; its answers as numbers. Host.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Guest, Lab, Output};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// How long traffic of any kind may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(600);

/// A Linux domain that takes commands: dom0 or a guest.
pub trait Shell {
    /// Its name, for messages.
    fn label(&self) -> &str;
    /// Runs a shell command, whatever its status.
    ///
    /// # Errors
    /// Where the domain does not answer within the time.
    fn shell(&self, command: &str, timeout: Duration) -> Result<Output>;

    /// Runs a shell command that must succeed; gives its output.
    ///
    /// # Errors
    /// What it printed.
    fn sh(&self, command: &str) -> Result<String> {
        let output = self.shell(command, PATIENCE)?.success();
        output.with_context(|| format!("in {}: {command}", self.label()))
    }

    /// Starts a command that goes on in the background; ended by [`Shell::stop`] or the domain's end.
    ///
    /// # Errors
    /// Where it cannot be started.
    fn start(&self, name: &str, command: &str) -> Result<()> {
        self.sh(&format!("{command} >/tmp/{name}.out 2>&1 </dev/null & echo $! >/tmp/{name}.pid")).map(drop)
    }

    /// Waits for the end of what [`Shell::start`] started; gives what it printed.
    ///
    /// # Errors
    /// Where it does not end.
    fn finish(&self, name: &str) -> Result<String> {
        let wait =
            format!("while kill -0 $(cat /tmp/{name}.pid) 2>/dev/null; do usleep 50000; done; cat /tmp/{name}.out");
        self.sh(&wait)
    }

    /// Ends what [`Shell::start`] started.
    ///
    /// # Errors
    /// Where the domain does not answer.
    fn stop(&self, name: &str) -> Result<()> {
        self.sh(&format!("kill $(cat /tmp/{name}.pid) 2>/dev/null || true")).map(drop)
    }
}

impl Shell for Lab {
    fn label(&self) -> &str {
        "dom0"
    }
    fn shell(&self, command: &str, timeout: Duration) -> Result<Output> {
        self.run_for(command, timeout)
    }
}

impl Shell for Guest<'_> {
    fn label(&self) -> &str {
        self.name()
    }
    fn shell(&self, command: &str, timeout: Duration) -> Result<Output> {
        self.run_for(command, timeout)
    }
}

/// A TCP transfer as its client saw it; both ends' digests were the same where `checked`.
#[derive(Clone, Debug, Deserialize)]
pub struct Transfer {
    /// Bytes sent.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
    /// The digest of what was sent.
    pub sent_digest: String,
    /// The digest of what was received.
    pub received_digest: String,
    /// Whether digests were compared.
    pub checked: bool,
    /// Megabits a second.
    pub mbit_per_second: f64,
    /// From the first byte to the last.
    pub seconds: f64,
}

/// Round trips.
#[derive(Clone, Debug, Deserialize)]
pub struct Ping {
    /// Requests.
    pub sent: u64,
    /// Requests without a reply.
    pub lost: u64,
    /// The longest time in which each request was lost, milliseconds.
    pub longest_loss_ms: f64,
    /// Replies that came twice.
    pub duplicates: u64,
    /// Microseconds.
    pub median_us: f64,
    /// Microseconds.
    pub p99_us: f64,
    /// Microseconds.
    pub max_us: f64,
}

/// A UDP flow as its sink saw it.
#[derive(Clone, Debug, Deserialize)]
pub struct Flow {
    /// Datagrams sent.
    #[serde(default)]
    pub sent: Option<u64>,
    /// Datagrams that came.
    pub received: u64,
    /// Datagrams that did not come.
    pub lost: u64,
    /// A second, at the sink.
    pub received_per_second: f64,
    /// The longest time without a datagram, milliseconds.
    pub longest_gap_ms: f64,
}

/// Runs a tool of ours, which answers with a line of JSON; its answer must be good.
pub(crate) fn call<T: DeserializeOwned>(shell: &dyn Shell, tool: &str, arguments: &str) -> Result<T> {
    let output = shell.shell(&format!("{tool} {arguments}"), PATIENCE)?;
    let said = output.stdout.trim_end();
    ensure!(output.status == 0, "in {}: {tool} {arguments}: {said}", shell.label());
    let line = said.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("in {}: {tool} {arguments} said '{said}'", shell.label()))
}

/// One TCP transfer: `direction` is `send`, `receive` or `both`; data are pseudo-random, digests compared.
///
/// # Errors
/// Where a digest differs or the connection breaks.
pub fn tcp(from: &dyn Shell, direction: &str, host: &str, mebibytes: u32) -> Result<Transfer> {
    let transfer: Transfer = call(from, "traffic", &format!("tcp-{direction} {host} {mebibytes}M"))?;
    ensure!(transfer.checked, "{}: the digests were not compared", from.label());
    Ok(transfer)
}

/// TCP without digests for some seconds: for rates.
///
/// # Errors
/// Where the connection breaks.
pub fn tcp_rate(from: &dyn Shell, direction: &str, host: &str, seconds: u32) -> Result<Transfer> {
    call(from, "traffic", &format!("tcp-{direction} {host} 0 --plain --seconds {seconds}"))
}

/// Pings; `interval_ms` 0 sends each upon the last one's reply.
///
/// # Errors
/// Where one is lost.
pub fn ping(from: &dyn Shell, host: &str, count: u32, interval_ms: u32, size: u32) -> Result<Ping> {
    call(from, "traffic", &format!("ping {host} {count} {interval_ms} --size {size}"))
}

/// A flood of datagrams to a sink.
///
/// # Errors
/// Where the sink does not answer.
pub fn udp_flood(from: &dyn Shell, host: &str, size: u32, seconds: u32) -> Result<Flow> {
    call(from, "traffic", &format!("udp-flood {host} {size} {seconds}"))
}

/// A flood of datagrams from the wire's generator.
///
/// # Errors
/// Where nothing comes.
pub fn udp_receive(to: &dyn Shell, host: &str, size: u32, seconds: u32) -> Result<Flow> {
    call(to, "traffic", &format!("udp-receive {host} {size} {seconds}"))
}

/// A paced flow from the wire's generator in the background, whose datagrams [`received`] counts at its end.
///
/// # Errors
/// Where it cannot be started.
pub fn start_receive(to: &dyn Shell, host: &str, size: u32, per_second: u32, seconds: u32) -> Result<()> {
    to.start("flow", &format!("traffic udp-receive {host} {size} {seconds} --pace {per_second}"))
}

/// Waits for the end of that flow.
///
/// # Errors
/// Where nothing came.
pub fn received(to: &dyn Shell) -> Result<Flow> {
    told(to, "flow")
}

/// Serves TCP transfers in the background.
///
/// # Errors
/// Where it cannot be started.
pub fn serve(on: &dyn Shell) -> Result<()> {
    on.start("serve", "traffic tcp-serve")?;
    on.sh("for i in $(seq 3000); do grep -q ready /tmp/serve.out && exit 0; usleep 20000; done; cat /tmp/serve.out; exit 1")
        .map(drop)
}

/// A paced flow in the background, whose longest gap [`gap`] gives at its end.
///
/// # Errors
/// Where it cannot be started.
pub fn start_pace(from: &dyn Shell, host: &str, per_second: u32, seconds: u32) -> Result<()> {
    from.start("pace", &format!("traffic udp-pace {host} {per_second} {seconds}"))
}

/// Waits for the end of the paced flow.
///
/// # Errors
/// Where the sink saw nothing.
pub fn gap(from: &dyn Shell) -> Result<Flow> {
    told(from, "pace")
}

/// Waits for the end of a tool in the background, and gives its answer.
///
/// # Errors
/// It said something else.
pub(crate) fn told<T: DeserializeOwned>(shell: &dyn Shell, job: &str) -> Result<T> {
    let said = shell.finish(job)?;
    let line = said.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("{}: {job} said '{said}'", shell.label()))
}
