//! The last thing that happens to a line of the log: phones, addresses and tokens are masked.
//!
//! It works on finished lines, whoever wrote them, and therefore has to know how a line was
//! written: in JSON a backslash starts an escape, in text it may be anything. Must leave UUIDs,
//! times and counters alone, and JSON valid.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use regex::Regex;
use tracing_subscriber::fmt::MakeWriter;

use crate::domain::mask;

/// The first alternative that fits wins. Whatever holds digits that are no phone, and whatever is
/// not text (colours, escapes), is matched in order to be stepped over.
const PATTERN: &str = concat!(
    r"\x1b\[(?:[0-9]{1,3};?){0,6}m",
    r"|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}",
    r"|eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*",
    r"|ls[krt]_[A-Za-z0-9_-]+",
    r"|(?i:bearer)\s+[A-Za-z0-9._~+/=:@%-]+",
    r"|[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}",
    r"|(?:\+|%2[Bb])?[0-9]{8,}",
);

/// An escape of JSON: `\u0031` is no digit, and the `n` of `\n` is no letter before a phone.
const JSON_ESCAPE: &str = r"\\(?:u[0-9A-Fa-f]{4}|.)|";

/// How the lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lines {
    /// Anything.
    Text,
    /// One JSON object each.
    Json,
}

/// Masks lines.
#[derive(Debug)]
pub struct Masker {
    pattern: Regex,
    lines: Lines,
}

impl Masker {
    /// A masker for lines written like `lines`.
    ///
    /// # Errors
    /// When the pattern does not compile, which a test rules out.
    pub fn new(lines: Lines) -> Result<Self, regex::Error> {
        let escape = match lines {
            Lines::Text => "",
            Lines::Json => JSON_ESCAPE,
        };
        let pattern = Regex::new(&format!("{escape}{PATTERN}"))?;
        Ok(Self { pattern, lines })
    }

    /// `line` with everything masked that identifies a person or opens a door; borrowed when there
    /// is nothing of that kind, as in most lines.
    #[must_use]
    pub fn mask<'a>(&self, line: &'a str) -> Cow<'a, str> {
        let mut out = String::new();
        let mut copied = 0;
        let mut stepped_to = 0;
        let mut from = 0;
        while let Some(found) = self.pattern.find_at(line, from) {
            let (start, text) = (found.start(), found.as_str());
            from = found.end();
            let masked = match Kind::of(text) {
                Kind::Skip => {
                    stepped_to = from;
                    continue;
                }
                Kind::Token => mask::token(text),
                Kind::Bearer => bearer(text),
                Kind::Email => {
                    // The host stays readable, and is looked at in its turn.
                    let name = text.split_inclusive('@').next().unwrap_or(text);
                    from = start + name.len();
                    mask::email(name)
                }
                Kind::Digits => {
                    let starts_word = start == stepped_to || is_word_start(&line[..start]);
                    let ends_word = !line[from..].starts_with(is_letter_or_digit);
                    match phone(text, starts_word && ends_word) {
                        None => continue,
                        Some(masked) if self.is_bare(line, start) => {
                            if !is_whole_value(line, start, from) {
                                continue;
                            }
                            format!("\"{masked}\"")
                        }
                        Some(masked) => masked,
                    }
                }
            };
            out.push_str(&line[copied..start]);
            out.push_str(&masked);
            copied = from;
        }
        if copied == 0 {
            return Cow::Borrowed(line);
        }
        out.push_str(&line[copied..]);
        Cow::Owned(out)
    }

    /// Whether `at` lies outside a JSON string, where a mask would not be a value.
    fn is_bare(&self, line: &str, at: usize) -> bool {
        if self.lines == Lines::Text {
            return false;
        }
        let mut in_string = false;
        let mut escaped = false;
        for byte in line[..at].bytes() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_string => escaped = true,
                b'"' => in_string = !in_string,
                _ => {}
            }
        }
        !in_string
    }
}

/// What a match is, told by what only that kind can look like.
enum Kind {
    Skip,
    Token,
    Bearer,
    Email,
    Digits,
}

impl Kind {
    fn of(text: &str) -> Self {
        let starts = |prefixes: &[&str]| prefixes.iter().any(|p| text.starts_with(p));
        if starts(&["\x1b", "\\"]) {
            Self::Skip
        } else if text.contains(char::is_whitespace) {
            Self::Bearer
        } else if text.contains('@') {
            Self::Email
        } else if starts(&["eyJ", "lsk_", "lsr_", "lst_"]) {
            Self::Token
        } else if text.bytes().all(|b| b.is_ascii_digit()) || starts(&["+", "%"]) {
            Self::Digits
        } else {
            Self::Skip
        }
    }
}

fn bearer(text: &str) -> String {
    let value = text
        .trim_start_matches(|c: char| !c.is_whitespace())
        .trim_start();
    let head = &text[..text.len() - value.len()];
    // The ends of a token say nothing; those of an address would.
    let masked = if value.contains('@') {
        "****".to_owned()
    } else {
        mask::token(value)
    };
    format!("{head}{masked}")
}

fn is_letter_or_digit(c: char) -> bool {
    c.is_ascii_alphanumeric()
}

/// Whether a word starts after `before`. Other scripts put no space before a number, and printed
/// text may end in an escape whose letter belongs to no word.
fn is_word_start(before: &str) -> bool {
    let mut back = before.chars().rev();
    match back.next() {
        Some(c) if is_letter_or_digit(c) => {
            matches!(c, 'n' | 'r' | 't' | 'b' | 'f') && back.next() == Some('\\')
        }
        _ => true,
    }
}

/// The mask of `digits` if they are a phone: any number after `+`, or one of mainland China with
/// or without what is dialled before it. Other numbers are counters and times.
fn phone(digits: &str, is_word: bool) -> Option<String> {
    if let Some(rest) = digits.strip_prefix(['+', '%']) {
        // `%2B` is `+` in a URL.
        let number = rest.strip_prefix("2B").or(rest.strip_prefix("2b"));
        return Some(mask::phone(&format!("+{}", number.unwrap_or(rest))));
    }
    let at = digits.len().checked_sub(11)?;
    let (dialled, number) = digits.split_at(at);
    let is_mobile = number.starts_with('1') && !number[1..].starts_with(['0', '1', '2']);
    (is_word && is_mobile && matches!(dialled, "" | "0" | "86" | "0086"))
        .then(|| format!("{dialled}{}", mask::phone(number)))
}

/// Whether a bare JSON number starts and ends here, and not within a fraction.
fn is_whole_value(line: &str, start: usize, end: usize) -> bool {
    let bytes = line.as_bytes();
    let before = start.checked_sub(1).and_then(|at| bytes.get(at));
    let after = bytes.get(end);
    before.is_none_or(|b| b":,[ ".contains(b)) && after.is_none_or(|b| b",]} \n".contains(b))
}

/// Makes a masking writer around each that `inner` makes.
#[derive(Debug)]
pub struct Masked<M> {
    masker: Masker,
    inner: M,
}

impl<M> Masked<M> {
    /// Masks what goes to `inner`.
    pub const fn new(masker: Masker, inner: M) -> Self {
        Self { masker, inner }
    }
}

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Masked<M> {
    type Writer = MaskingWriter<'a, M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        MaskingWriter {
            masker: &self.masker,
            inner: self.inner.make_writer(),
        }
    }
}

/// Masks each write, which must be of whole lines: the subscriber writes an event at once.
#[derive(Debug)]
pub struct MaskingWriter<'a, W> {
    masker: &'a Masker,
    inner: W,
}

impl<W: Write> Write for MaskingWriter<'_, W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(buf);
        self.inner.write_all(self.masker.mask(&line).as_bytes())?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests;
