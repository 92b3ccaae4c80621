//! A domain's config file, as `xl create` takes it: names, texts, numbers and lists. Pure. Host.
//!
//! Source: `xl.cfg(5)`, and libxlu's scanner and parser (`libxlu_cfg_l.l`, `libxlu_cfg_y.y`).

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};

/// Lists within lists.
const DEPTH: usize = 8;

/// What a name is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// In quotes.
    Text(String),
    /// Without quotes, as it is written: `8`, `0x10`, `-1`.
    Number(String),
    /// In brackets.
    List(Vec<Value>),
}

/// A file's settings; of a name that is set twice, the last one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct XlConfig(BTreeMap<String, Value>);

impl XlConfig {
    /// Reads a file's text.
    ///
    /// # Errors
    /// The line that is none of a config, and why.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut reader = Reader { rest: text, line: 1 };
        let mut values = BTreeMap::new();
        loop {
            reader.skip(true);
            while reader.take(';') {
                reader.skip(true);
            }
            if reader.rest.is_empty() {
                return Ok(Self(values));
            }
            let name = reader.name()?;
            reader.skip(false);
            let is_addition = reader.rest.starts_with("+=") && reader.take('+');
            ensure!(reader.take('='), "line {}: there is no `=` behind {name}", reader.line);
            reader.skip(false);
            let value = reader.value(0)?;
            reader.skip(false);
            let is_end = reader.rest.is_empty() || reader.rest.starts_with(['\n', ';']);
            ensure!(is_end, "line {}: there is something behind the value of {name}", reader.line);
            let value = match (values.remove(&name), value) {
                (Some(before), value) if is_addition => added(before, value),
                (_, value) => value,
            };
            values.insert(name, value);
        }
    }

    /// The text that a name is set to.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The texts of a list; a text alone is a list of one, as for `xl`.
    pub(crate) fn texts(&self, name: &str) -> Vec<&str> {
        let values = match self.0.get(name) {
            Some(Value::List(values)) => values.as_slice(),
            Some(value) => std::slice::from_ref(value),
            None => &[],
        };
        let mut texts = Vec::new();
        for value in values {
            if let Value::Text(text) = value {
                texts.push(text.as_str());
            }
        }
        texts
    }
}

/// `+=`: lists are joined, and texts too.
fn added(before: Value, value: Value) -> Value {
    match (before, value) {
        (Value::List(mut before), Value::List(values)) => {
            before.extend(values);
            Value::List(before)
        }
        (Value::Text(before), Value::Text(text)) => Value::Text(before + &text),
        (_, value) => value,
    }
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl Reader<'_> {
    fn take(&mut self, sign: char) -> bool {
        match self.rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest;
                self.line += usize::from(sign == '\n');
                true
            }
            None => false,
        }
    }

    /// Skips blanks and comments, and line ends where `over_lines`.
    fn skip(&mut self, over_lines: bool) {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t', '\r']);
            if self.rest.starts_with('#') {
                self.rest = self.rest.find('\n').and_then(|end| self.rest.get(end..)).unwrap_or_default();
            }
            if !(over_lines && self.take('\n')) {
                return;
            }
        }
    }

    fn word(&mut self, belongs: fn(char) -> bool) -> String {
        let end = self.rest.find(|sign| !belongs(sign)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn name(&mut self) -> Result<String> {
        let name = self.word(|sign| sign.is_ascii_alphanumeric() || sign == '_');
        let begins = name.starts_with(|sign: char| sign.is_ascii_alphabetic() || sign == '_');
        ensure!(begins, "line {}: a name is wanted here, as in `memory = 8`", self.line);
        Ok(name)
    }

    fn value(&mut self, depth: usize) -> Result<Value> {
        if let Some(quote) = self.rest.chars().next().filter(|sign| ['"', '\''].contains(sign)) {
            return self.text(quote).map(Value::Text);
        }
        if self.take('[') {
            ensure!(depth < DEPTH, "line {}: lists in lists, {DEPTH} deep", self.line);
            return self.list(depth);
        }
        let number = self.word(|sign| sign.is_ascii_alphanumeric() || sign == '-');
        ensure!(
            number.starts_with(|sign: char| sign.is_ascii_digit() || sign == '-'),
            "line {}: a value is a number, a text in quotes or a list in brackets",
            self.line
        );
        Ok(Value::Number(number))
    }

    fn text(&mut self, quote: char) -> Result<String> {
        let line = self.line;
        let (mut text, mut signs) = (String::new(), self.rest.char_indices().skip(1));
        while let Some((at, sign)) = signs.next() {
            match sign {
                '\\' => match signs.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, other)) => text.push(other),
                    None => break,
                },
                '\n' => break,
                sign if sign == quote => {
                    self.rest = self.rest.get(at + 1..).unwrap_or_default();
                    return Ok(text);
                }
                sign => text.push(sign),
            }
        }
        bail!("line {line}: a text has no closing {quote}")
    }

    fn list(&mut self, depth: usize) -> Result<Value> {
        let line = self.line;
        let mut values = Vec::new();
        loop {
            self.skip(true);
            if self.take(']') {
                return Ok(Value::List(values));
            }
            ensure!(!self.rest.is_empty(), "line {line}: a list has no closing `]`");
            values.push(self.value(depth + 1)?);
            self.skip(true);
            ensure!(
                self.take(',') || self.rest.is_empty() || self.rest.starts_with(']'),
                "line {}: the values of a list have commas between them",
                self.line
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_configs_are_read() {
        for (text, name) in
            [(include_str!("../../build/netdom.cfg"), "netdom"), (include_str!("../../build/blkdom.cfg"), "blkdom")]
        {
            let config = XlConfig::parse(text).unwrap();
            assert_eq!(config.text("name"), Some(name));
            assert_eq!(config.0.get("memory"), Some(&Value::Number("8".into())));
        }
    }

    #[test]
    fn lists_span_lines_and_have_comments_and_a_comma_at_their_end() {
        let text = "a=1;b = 'x # y'\n# pci = [ '1' ]\npci = [ # two\n  '00:19.0', \"01:00.0,permissive=1\",\n]\nc = [['d', 2], []]";
        let config = XlConfig::parse(text).unwrap();
        assert_eq!(config.texts("pci"), ["00:19.0", "01:00.0,permissive=1"]);
        assert_eq!((config.text("b"), config.texts("b")), (Some("x # y"), vec!["x # y"]));
        assert_eq!(config.texts("none"), Vec::<&str>::new());
        assert_eq!(config.0.len(), 4);
        let added = XlConfig::parse("pci=['a']\npci+=['b']\nextra='x'\nextra+=' y'").unwrap();
        assert_eq!((added.texts("pci"), added.text("extra")), (vec!["a", "b"], Some("x y")));
        assert_eq!(XlConfig::parse("a=1\na=2\n").unwrap().0.get("a"), Some(&Value::Number("2".into())));
    }

    #[test]
    fn a_slip_is_told_by_its_line() {
        for (text, said) in [
            ("memory = 8\npci = [ '00:19.0' ", "line 2: a list has no closing `]`"),
            ("pci = [ '00:19.0 ]", "line 1: a text has no closing '"),
            ("\n\nmemory 8", "line 3: there is no `=` behind memory"),
            ("name = netdom", "line 1: a value is a number, a text in quotes or a list in brackets"),
            ("pci = [ 'a' 'b' ]", "line 1: the values of a list have commas between them"),
            ("memory = 8 9", "line 1: there is something behind the value of memory"),
            ("= 8", "line 1: a name is wanted here, as in `memory = 8`"),
            ("a = \"x\\", "line 1: a text has no closing \""),
            ("a = [[[[[[[[[[[", "line 1: lists in lists, 8 deep"),
        ] {
            assert_eq!(XlConfig::parse(text).unwrap_err().to_string(), said, "{text:?}");
        }
    }
}
