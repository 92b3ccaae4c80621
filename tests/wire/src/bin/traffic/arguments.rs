//! The command line. Pure.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use crate::{Failure, USAGE};

/// A command, its operands and the options.
pub(crate) struct Arguments {
    pub(crate) command: String,
    operands: Vec<String>,
    pub(crate) port: Option<u16>,
    pub(crate) plain: bool,
    pub(crate) sctp: bool,
    pub(crate) seconds: Option<Duration>,
    pub(crate) size: Option<u16>,
    pub(crate) pace: Option<u32>,
    pub(crate) window: u32,
    pub(crate) seed: u64,
    pub(crate) timeout: Duration,
}

impl Arguments {
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut words = words;
        let mut arguments = Self {
            command: words.next().ok_or(USAGE)?,
            operands: Vec::new(),
            port: None,
            plain: false,
            sctp: false,
            seconds: None,
            size: None,
            pace: None,
            window: 1024,
            seed: 1,
            timeout: Duration::from_secs(30),
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
            match word.as_str() {
                "--plain" => arguments.plain = true,
                "--sctp" => arguments.sctp = true,
                "--port" => arguments.port = Some(value()?.parse()?),
                "--seconds" => arguments.seconds = Some(seconds(&value()?)?),
                "--size" => arguments.size = Some(value()?.parse()?),
                "--pace" => arguments.pace = Some(value()?.parse()?),
                "--window" => arguments.window = value()?.parse()?,
                "--seed" => arguments.seed = value()?.parse()?,
                "--timeout" => arguments.timeout = seconds(&value()?)?,
                option if option.starts_with('-') => return Err(USAGE.into()),
                _ => arguments.operands.push(word),
            }
        }
        Ok(arguments)
    }

    /// Operand `index`, if it was given.
    pub(crate) fn operand(&self, index: usize) -> Option<&str> {
        self.operands.get(index).map(String::as_str)
    }

    fn required(&self, index: usize) -> Result<&str, Failure> {
        self.operand(index).ok_or_else(|| USAGE.into())
    }

    /// The first operand as a host, with the port from the options or `default`.
    pub(crate) fn host(&self, default: u16) -> Result<SocketAddr, Failure> {
        let port = self.port.unwrap_or(default);
        let text = self.required(0)?;
        match text.split_once('%') {
            // A link-local address and the number of the interface.
            Some((address, scope)) => Ok(SocketAddrV6::new(address.parse()?, port, 0, scope.parse()?).into()),
            None => Ok(SocketAddr::new(text.parse::<IpAddr>()?, port)),
        }
    }

    /// Operand `index` as a number, with K, M or G for powers of 1024.
    pub(crate) fn number(&self, index: usize) -> Result<u64, Failure> {
        let text = self.required(index)?;
        let (digits, shift) = match text.as_bytes().last() {
            Some(b'K') => (text.trim_end_matches('K'), 10),
            Some(b'M') => (text.trim_end_matches('M'), 20),
            Some(b'G') => (text.trim_end_matches('G'), 30),
            _ => (text, 0),
        };
        let number = digits.parse::<u64>()?;
        number.checked_mul(1 << shift).ok_or_else(|| "too large".into())
    }

    /// Operand `index` as seconds, fractions allowed.
    pub(crate) fn duration(&self, index: usize) -> Result<Duration, Failure> {
        seconds(self.required(index)?)
    }
}

fn seconds(text: &str) -> Result<Duration, Failure> {
    Ok(Duration::try_from_secs_f64(text.parse()?)?)
}
