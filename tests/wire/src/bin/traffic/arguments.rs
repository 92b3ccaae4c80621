//! The command line. Pure.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::{Failure, USAGE};

/// A command, its operands and the options.
pub(crate) struct Arguments {
    pub(crate) command: String,
    operands: Vec<String>,
    pub(crate) port: Option<u16>,
    pub(crate) plain: bool,
    pub(crate) sctp: bool,
    pub(crate) seconds: Option<Duration>,
    pub(crate) until: Option<PathBuf>,
    pub(crate) size: Option<u16>,
    pub(crate) pace: Option<u32>,
    pub(crate) window: u32,
    pub(crate) seed: u64,
    pub(crate) timeout: Duration,
    /// Places of a frame that are other ones in each: where they begin, and how many bytes they have.
    pub(crate) vary: Vec<(usize, usize)>,
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
            until: None,
            size: None,
            pace: None,
            window: 1024,
            seed: 1,
            timeout: Duration::from_secs(90),
            vary: Vec::new(),
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
            match word.as_str() {
                "--plain" => arguments.plain = true,
                "--sctp" => arguments.sctp = true,
                "--port" => arguments.port = Some(value()?.parse()?),
                "--seconds" => arguments.seconds = Some(seconds(&value()?)?),
                "--until" => arguments.until = Some(value()?.into()),
                "--size" => arguments.size = Some(value()?.parse()?),
                "--pace" => arguments.pace = Some(value()?.parse()?),
                "--window" => arguments.window = value()?.parse()?,
                "--seed" => arguments.seed = value()?.parse()?,
                "--timeout" => arguments.timeout = seconds(&value()?)?,
                "--vary" => arguments.vary = places(&value()?)?,
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

    /// The operands behind the first.
    pub(crate) fn others(&self) -> &[String] {
        self.operands.get(1..).unwrap_or_default()
    }

    pub(crate) fn required(&self, index: usize) -> Result<&str, Failure> {
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

    /// When a load ends that has begun now and is to take so long, or, where that is not given, has no end in time.
    pub(crate) fn end(&self, length: Option<Duration>) -> End {
        End { deadline: length.map(|length| Instant::now() + length), until: self.until.clone() }
    }

    /// Operand `index` as seconds, fractions allowed.
    pub(crate) fn duration(&self, index: usize) -> Result<Duration, Failure> {
        seconds(self.required(index)?)
    }
}

/// When a load ends: at a time, or as soon as a file is there.
#[derive(Clone)]
pub(crate) struct End {
    deadline: Option<Instant>,
    until: Option<PathBuf>,
}

impl End {
    /// That of a load that ends by itself.
    pub(crate) const NEVER: Self = Self { deadline: None, until: None };

    /// Whether it will be there once.
    pub(crate) const fn is_to_come(&self) -> bool {
        self.deadline.is_some() || self.until.is_some()
    }

    pub(crate) fn is_here(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
            || self.until.as_ref().is_some_and(|file| file.exists())
    }
}

/// `AT:BYTES`, and more behind commas.
fn places(text: &str) -> Result<Vec<(usize, usize)>, Failure> {
    let place = |part: &str| {
        let (at, bytes) = part.split_once(':').ok_or("--vary wants AT:BYTES, and more of them behind commas")?;
        Ok((at.parse()?, bytes.parse()?))
    };
    text.split(',').map(place).collect()
}

fn seconds(text: &str) -> Result<Duration, Failure> {
    Ok(Duration::try_from_secs_f64(text.parse()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_ends_at_its_time_or_with_a_file() {
        let file = std::env::temp_dir().join(format!("oxidom-enough-{}", std::process::id()));
        let words = ["tcp-send", "10.9.0.1", "0", "--until", &file.to_string_lossy()].map(str::to_owned);
        let arguments = Arguments::parse(words.into_iter()).expect("words");
        let (endless, short) = (arguments.end(None), arguments.end(Some(Duration::ZERO)));
        assert!(!endless.is_here() && short.is_here() && !End::NEVER.is_here());
        std::fs::write(&file, "").expect("a file");
        let ended = endless.is_here();
        let _ = std::fs::remove_file(&file);
        assert!(ended && !endless.is_here());
    }
}
