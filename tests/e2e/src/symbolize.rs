//! Addresses of a console's log, turned into functions and lines: what `cargo xtask symbolize` prints, and a case reads. Host.

use std::path::Path;

use addr2line::Loader;
use anyhow::{Context, Result, anyhow};

/// An image's debug information.
pub struct Symbols(Loader);

impl Symbols {
    /// Those of an image: in the file beside it that ends in `.debug`, or its own.
    ///
    /// # Errors
    /// Where there are none.
    pub fn load(image: &Path) -> Result<Self> {
        let debug = image.with_extension("debug");
        let file = if debug.exists() { &debug } else { image };
        Loader::new(file)
            .map(Self)
            .map_err(|error| anyhow!("{error}"))
            .with_context(|| format!("reading {}; `cargo xtask images` makes it", file.display()))
    }

    /// What the addresses in a line stand for, inlined functions first.
    ///
    /// # Errors
    /// Where the debug information is damaged.
    pub fn places(&self, line: &str) -> Result<Vec<String>> {
        let mut places = Vec::new();
        for address in addresses(line) {
            // What was pushed is where a call returns to: the call is before.
            for probe in [address, address.saturating_sub(1)].into_iter().skip(usize::from(is_return(line))) {
                let mut frames = self.0.find_frames(probe).map_err(|error| anyhow!("{error}"))?;
                while let Some(frame) = frames.next().map_err(|error| anyhow!("{error}"))? {
                    let function = match &frame.function {
                        Some(function) => function.demangle().map_err(|error| anyhow!("{error}"))?.into_owned(),
                        None => self.0.find_symbol(probe).unwrap_or("?").to_owned(),
                    };
                    let place = frame
                        .location
                        .and_then(|location| Some((location.file?.to_owned(), location.line.unwrap_or(0))));
                    if let Some((file, line)) = place {
                        places.push(format!("{address:#x} {function} at {file}:{line}"));
                    }
                }
                if !places.is_empty() || is_return(line) {
                    break;
                }
            }
        }
        Ok(places)
    }
}

/// The text with each line's places below it.
///
/// # Errors
/// As of [`Symbols::load`] and [`Symbols::places`].
pub fn symbolize(image: &Path, text: &str) -> Result<String> {
    let symbols = Symbols::load(image)?;
    let mut output = String::new();
    for line in text.lines() {
        output += line;
        output.push('\n');
        for place in symbols.places(line)? {
            output += &format!("      {place}\n");
        }
    }
    Ok(output)
}

/// Lines of a backtrace say `at ADDRESS`; other addresses are taken as they are.
fn is_return(line: &str) -> bool {
    line.trim_start().starts_with("at 0x")
}

/// The hexadecimal numbers of a line.
fn addresses(line: &str) -> impl Iterator<Item = u64> + '_ {
    line.match_indices("0x").filter_map(|(start, _)| {
        let digits = line.get(start + 2..)?;
        let end = digits.find(|character: char| !character.is_ascii_hexdigit()).unwrap_or(digits.len());
        u64::from_str_radix(digits.get(..end)?, 16).ok().filter(|address| *address >= 0x1000)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_wherever_they_stand() {
        let found: Vec<_> = addresses("rip=0x0000000000401234, x 0xzz 0x10 (0x402000)").collect();
        assert_eq!(found, [0x401234, 0x402000]);
    }

    #[test]
    fn an_address_of_this_program_finds_its_line() {
        let image = std::env::current_exe().expect("a test has a file");
        let symbols = Symbols::load(&image).expect("and debug information");
        let address = object_address(&image, "an_address_of_this_program_finds_its_line");
        let places = symbols.places(&format!("  rip {address:#x}")).expect("it reads");
        assert!(places.iter().any(|place| place.contains("symbolize.rs")), "{places:?}");
    }

    fn object_address(image: &Path, name: &str) -> u64 {
        use object::{Object, ObjectSymbol};
        let content = std::fs::read(image).expect("readable");
        let file = object::File::parse(&*content).expect("ELF");
        let symbol = file.symbols().find(|symbol| symbol.name().is_ok_and(|found| found.contains(name)));
        symbol.expect("the function is there").address()
    }
}
