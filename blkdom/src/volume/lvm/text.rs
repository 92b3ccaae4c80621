//! The text that LVM's metadata is: sections of `key = value`, values being numbers, strings, and lists of these. Pure. Floor 3.
//!
//! Nothing recurses; depth and number of what is read are bounded.

use alloc::vec::Vec;
use core::fmt;

/// Sections within sections, at most; volume groups have four.
const DEPTH: usize = 8;
/// Keys and values altogether, at most: some thousand logical volumes.
const NODES: usize = 1 << 15;

/// A number or a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar<'a> {
    Integer(i64),
    /// As it is written: escapes are still in it.
    Text(&'a str),
}

/// What a key stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node<'a> {
    Section(Section<'a>),
    Scalar(Scalar<'a>),
    List(Vec<Scalar<'a>>),
}

/// Keys and what they stand for, in the text's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Section<'a> {
    pub(super) entries: Vec<(&'a str, Node<'a>)>,
}

/// Where a text is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextError {
    /// Something else was expected at this byte.
    Unexpected(usize),
    /// Sections are nested too deeply at this byte.
    TooDeep(usize),
    /// There is too much of it.
    TooMuch,
    /// It ends too early.
    End,
}

impl fmt::Display for TextError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unexpected(at) => write!(formatter, "the metadata's text cannot be read at byte {at}"),
            Self::TooDeep(at) => write!(formatter, "the metadata's sections are nested too deeply at byte {at}"),
            Self::TooMuch => write!(
                formatter,
                "the metadata has more than {NODES} keys and values: some 1,500 logical volumes are the most that is read"
            ),
            Self::End => formatter.write_str("the metadata's text ends too early"),
        }
    }
}

impl core::error::Error for TextError {}

impl<'a> Section<'a> {
    pub(super) fn get(&self, key: &str) -> Option<&Node<'a>> {
        self.entries.iter().find(|(name, _)| *name == key).map(|(_, node)| node)
    }

    pub(super) fn section(&self, key: &str) -> Option<&Self> {
        match self.get(key)? {
            Node::Section(section) => Some(section),
            _ => None,
        }
    }

    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        match self.get(key)? {
            Node::Scalar(Scalar::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A number that is not negative.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        match self.get(key)? {
            Node::Scalar(Scalar::Integer(value)) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    pub(super) fn list(&self, key: &str) -> &[Scalar<'a>] {
        match self.get(key) {
            Some(Node::List(list)) => list,
            _ => &[],
        }
    }

    /// Whether a list has that string.
    pub(super) fn has(&self, key: &str, word: &str) -> bool {
        self.list(key).contains(&Scalar::Text(word))
    }

    pub(super) fn sections(&self) -> impl Iterator<Item = (&'a str, &Self)> {
        self.entries.iter().filter_map(|(name, node)| match node {
            Node::Section(section) => Some((*name, section)),
            _ => None,
        })
    }
}

/// What stands between blanks and comments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// A key or a number.
    Word(&'a str),
    Text(&'a str),
    /// One of `{}[]=,`.
    Mark(u8),
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed =
                rest.trim_start_matches(|character: char| character.is_ascii_whitespace() || character == '\0');
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with('#') {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    fn next(&mut self) -> Result<Option<Token<'a>>, TextError> {
        self.skip();
        let rest = self.rest();
        let Some(first) = rest.bytes().next() else {
            return Ok(None);
        };
        match first {
            b'{' | b'}' | b'[' | b']' | b'=' | b',' => {
                self.at += 1;
                Ok(Some(Token::Mark(first)))
            }
            b'"' => self.string().map(Some),
            _ => {
                let is_word = |character: char| character.is_ascii_alphanumeric() || "_.+-".contains(character);
                let length = rest.find(|character| !is_word(character)).unwrap_or(rest.len());
                let word = rest.get(..length).filter(|word| !word.is_empty()).ok_or(TextError::Unexpected(self.at))?;
                self.at += length;
                Ok(Some(Token::Word(word)))
            }
        }
    }

    /// A string, up to the next quote without a backslash before it.
    fn string(&mut self) -> Result<Token<'a>, TextError> {
        let body = self.rest().get(1..).ok_or(TextError::End)?;
        let mut escaped = false;
        for (place, byte) in body.bytes().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    self.at += place + 2;
                    return body.get(..place).map(Token::Text).ok_or(TextError::End);
                }
                _ => {}
            }
        }
        Err(TextError::End)
    }

    fn expect(&mut self) -> Result<Token<'a>, TextError> {
        self.next()?.ok_or(TextError::End)
    }
}

/// Reads a text.
pub(super) fn parse(text: &str) -> Result<Section<'_>, TextError> {
    let mut lexer = Lexer { text, at: 0 };
    let mut nodes = 0_usize;
    let mut current = Section::default();
    // The sections that `current` is in, each with the name that what follows goes by there.
    let mut outer: Vec<(Section<'_>, &str)> = Vec::new();
    while let Some(token) = lexer.next()? {
        nodes += 1;
        if nodes > NODES {
            return Err(TextError::TooMuch);
        }
        let key = match token {
            Token::Word(key) => key,
            Token::Mark(b'}') => {
                let (mut around, name) = outer.pop().ok_or(TextError::Unexpected(lexer.at))?;
                around.entries.push((name, Node::Section(current)));
                current = around;
                continue;
            }
            _ => return Err(TextError::Unexpected(lexer.at)),
        };
        match lexer.expect()? {
            Token::Mark(b'{') => {
                if outer.len() >= DEPTH {
                    return Err(TextError::TooDeep(lexer.at));
                }
                outer.push((core::mem::take(&mut current), key));
            }
            Token::Mark(b'=') => {
                let node = value(&mut lexer, &mut nodes)?;
                current.entries.push((key, node));
            }
            _ => return Err(TextError::Unexpected(lexer.at)),
        }
    }
    if outer.is_empty() { Ok(current) } else { Err(TextError::End) }
}

fn value<'a>(lexer: &mut Lexer<'a>, nodes: &mut usize) -> Result<Node<'a>, TextError> {
    let token = lexer.expect()?;
    if token != Token::Mark(b'[') {
        return scalar(token, lexer.at).map(Node::Scalar);
    }
    let mut list = Vec::new();
    loop {
        let token = lexer.expect()?;
        if token == Token::Mark(b']') {
            return Ok(Node::List(list));
        }
        *nodes += 1;
        if *nodes > NODES {
            return Err(TextError::TooMuch);
        }
        list.push(scalar(token, lexer.at)?);
        match lexer.expect()? {
            Token::Mark(b',') => {}
            Token::Mark(b']') => return Ok(Node::List(list)),
            _ => return Err(TextError::Unexpected(lexer.at)),
        }
    }
}

fn scalar(token: Token<'_>, at: usize) -> Result<Scalar<'_>, TextError> {
    match token {
        Token::Text(text) => Ok(Scalar::Text(text)),
        Token::Word(word) => word.parse().map(Scalar::Integer).map_err(|_| TextError::Unexpected(at)),
        Token::Mark(_) => Err(TextError::Unexpected(at)),
    }
}
