//! Turns written values into typed ones, setting by setting.
//!
//! Each section asks for its keys by name. The reader remembers what was asked for, with the value
//! in force and its origin, so that whatever nobody asked for is an unknown key. A value that
//! cannot be taken is noted and its default used, so that one run finds all that is wrong.

use std::{
    fmt::Display,
    fs::File,
    io::Read as _,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::{
    error::{Origin, Problem, ProblemKind},
    secret::Secret,
    source::{Given, Layers, Value},
    wording::{described, found, one_of, quoted, shortened},
};

/// More than any key or URL; keeps a mistaken path to something huge from being read whole.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Whether a file may be there: its folder is. A path may look like a secret otherwise, and a secret with
/// a slash like a path.
fn is_place(path: &str) -> bool {
    let folder = Path::new(path).parent();
    folder.is_some_and(|it| it.file_name().is_some() && it.is_dir())
}

/// A setting as it is in force, fit to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// The setting, such as `sync.heartbeat_secs`.
    pub key: &'static str,
    /// Its value as TOML; `"***"` for a secret that is set.
    pub value: String,
    /// Who set it.
    pub origin: Origin,
}

/// Hands out typed values and keeps the account.
pub(super) struct Reader {
    layers: Layers,
    pub effective: Vec<Effective>,
    pub problems: Vec<Problem>,
}

type Refused = (ProblemKind, String);

impl Reader {
    pub(super) fn new(layers: Layers) -> Self {
        Self {
            layers,
            effective: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Who set `key`.
    pub(super) fn origin(&self, key: &str) -> Origin {
        self.layers
            .given
            .get(key)
            .map_or(Origin::Default, |given| given.origin.clone())
    }

    pub(super) fn refuse(
        &mut self,
        key: &str,
        kind: ProblemKind,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) {
        self.problems.push(Problem {
            key: key.to_owned(),
            origin: self.origin(key),
            kind,
            found: found.into(),
            expected: expected.into(),
        });
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        default: T,
        expected: impl Into<String>,
        parse: impl FnOnce(&Value) -> Result<T, Refused>,
        show: impl FnOnce(&T) -> String,
    ) -> T {
        let value = match self.layers.given.get(key).map(|given| parse(&given.value)) {
            None => default,
            Some(Ok(value)) => value,
            Some(Err((kind, found))) => {
                self.refuse(key, kind, found, expected);
                default
            }
        };
        self.effective.push(Effective {
            key,
            value: show(&value),
            origin: self.origin(key),
        });
        value
    }

    /// A whole number within `range`.
    pub(super) fn number<T>(
        &mut self,
        key: &'static str,
        default: T,
        range: &RangeInclusive<T>,
    ) -> T
    where
        T: Display + PartialOrd + TryFrom<i64> + FromStr,
    {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let parse = |value: &Value| {
            let number = match value {
                Value::Integer(n) => T::try_from(*n).ok(),
                Value::Env(text) if text.parse::<i128>().is_ok() => text.parse().ok(),
                _ => return Err((ProblemKind::WrongType, found(value))),
            };
            number
                .filter(|n| range.contains(n))
                .ok_or_else(|| (ProblemKind::BadValue, found(value)))
        };
        self.read(key, default, expected, parse, ToString::to_string)
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &'static str, default: bool) -> bool {
        let parse = |value: &Value| match value {
            Value::Boolean(b) => Ok(*b),
            Value::Env(text) => text
                .parse()
                .map_err(|_| (ProblemKind::WrongType, found(value))),
            _ => Err((ProblemKind::WrongType, found(value))),
        };
        self.read(key, default, "true or false", parse, ToString::to_string)
    }

    /// Text that `parse` takes.
    pub(super) fn text<T>(
        &mut self,
        key: &'static str,
        default: T,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
        show: impl FnOnce(&T) -> String,
    ) -> T {
        let parse = |value: &Value| {
            let text = text(value)?;
            parse(text).ok_or_else(|| (ProblemKind::BadValue, found(value)))
        };
        self.read(key, default, expected, parse, |v| quoted(&show(v)))
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy + PartialEq>(
        &mut self,
        key: &'static str,
        default: T,
        words: &[(&str, T)],
    ) -> T {
        let expected = one_of(words.iter().map(|(word, _)| quoted(word)));
        let parse = |text: &str| words.iter().find(|(w, _)| *w == text).map(|(_, v)| *v);
        let show = |value: &T| {
            let word = words.iter().find(|(_, v)| v == value);
            word.map_or_else(String::new, |(w, _)| (*w).to_owned())
        };
        self.text(key, default, &expected, parse, show)
    }

    /// A list of texts, each of which `parse` takes; between commas in the environment.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
        show: impl Fn(&T) -> String,
    ) -> Vec<T> {
        let parse = |value: &Value| {
            let items: Vec<&str> = match value {
                Value::Env(all) => all
                    .split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .collect(),
                Value::List(items) => items.iter().map(text).collect::<Result<_, _>>()?,
                _ => return Err((ProblemKind::WrongType, found(value))),
            };
            let bad = |item: &str| (ProblemKind::BadValue, quoted(&shortened(item)));
            let items = items.into_iter();
            items
                .map(|item| parse(item).ok_or_else(|| bad(item)))
                .collect()
        };
        self.read(key, Vec::new(), expected, parse, |items| {
            let items: Vec<String> = items.iter().map(|item| quoted(&show(item))).collect();
            format!("[{}]", items.join(", "))
        })
    }

    /// The path of a file; empty means that none is set. What is a secret itself, in the wrong
    /// place, is not shown.
    pub(super) fn path(
        &mut self,
        key: &'static str,
        expected: &str,
        is_secret: impl Fn(&str) -> bool,
    ) -> Option<PathBuf> {
        let parse = |value: &Value| {
            let path = text(value).map_err(|(kind, _)| (kind, described(value).to_owned()))?;
            if is_secret(path) && !is_place(path) || path.contains("://") {
                let found = "what looks like the secret itself (not shown)".to_owned();
                return Err((ProblemKind::BadValue, found));
            }
            Ok(Some(path.to_owned()).filter(|path| !path.is_empty()))
        };
        self.read(key, None, expected, parse, |path| {
            quoted(path.as_deref().unwrap_or_default())
        })
        .map(PathBuf::from)
    }

    /// A secret, from its own key or from the file that `file_key` names. `expected` says what
    /// `accept` takes.
    pub(super) fn secret(
        &mut self,
        key: &'static str,
        file_key: &'static str,
        expected: &str,
        accept: impl Fn(&str) -> bool + Copy,
    ) -> Option<Secret> {
        let parse = |value: &Value| {
            let text = text(value).map_err(|(kind, _)| (kind, described(value).to_owned()))?;
            if text.is_empty() {
                return Ok(None);
            }
            if accept(text) {
                return Ok(Some(Secret::new(text)));
            }
            let found = "something else (not shown: it is a secret)".to_owned();
            Err((ProblemKind::BadValue, found))
        };
        let set = self
            .layers
            .given
            .get(key)
            .is_some_and(|given| text(&given.value).is_ok_and(|text| !text.is_empty()));
        let direct = self.read(key, None, expected, parse, |secret| {
            quoted(secret.as_ref().map_or("", |_| "***"))
        });
        let a_file = "the path of a file that holds the secret";
        let Some(path) = self.path(file_key, a_file, accept) else {
            return direct;
        };
        if set {
            let found = format!("{key} set as well ({})", self.origin(key));
            self.refuse(
                file_key,
                ProblemKind::Conflict,
                found,
                "only one of the two",
            );
            return direct;
        }
        let name = path.display();
        match read_secret(&path) {
            Err(e) => {
                let found = format!("{name}, which cannot be read: {e}");
                let expected = "a readable file that holds the secret";
                self.refuse(file_key, ProblemKind::UnreadableFile, found, expected);
                None
            }
            Ok(secret) if accept(secret.expose()) => Some(secret),
            Ok(secret) if secret.expose().is_empty() => {
                let found = format!("{name}, which is empty");
                self.refuse(file_key, ProblemKind::BadValue, found, expected);
                None
            }
            Ok(_) => {
                let found = format!("something else in {name} (not shown: it is a secret)");
                self.refuse(file_key, ProblemKind::BadValue, found, expected);
                None
            }
        }
    }

    /// Notes every name that no section asked for. Call it when all have asked.
    pub(super) fn refuse_unknown(&mut self) {
        let sections = || {
            let mut sections: Vec<&str> = self.effective.iter().map(|e| section(e.key)).collect();
            sections.dedup();
            sections
        };
        let mut unknown = Vec::new();
        for (name, Given { value, origin }) in &self.layers.names {
            let is_section = sections().contains(&name.as_str());
            if self.effective.iter().any(|e| e.key == name) || is_section && *value == Value::Table
            {
                continue;
            }
            let keys: Vec<&str> = self
                .effective
                .iter()
                .filter_map(|e| e.key.strip_prefix(section(name))?.strip_prefix('.'))
                .collect();
            // The value is not shown: it may be a secret under a mistyped name.
            let (found, expected) = if is_section {
                let expected = format!("a section, [{name}], with {}", one_of(&keys));
                (described(value), expected)
            } else if keys.is_empty() {
                let expected = format!("a setting of one of the sections {}", one_of(sections()));
                ("an unknown setting", expected)
            } else {
                let expected = format!("one of {}", keys.join(", "));
                ("an unknown setting", expected)
            };
            let problem = Problem {
                key: name.clone(),
                origin: origin.clone(),
                kind: ProblemKind::UnknownKey,
                found: found.to_owned(),
                expected,
            };
            // An unknown section of the file is said once, at its head.
            let said = |p: &Problem| {
                p.key != *name
                    && p.key == section(name)
                    && matches!(
                        (&p.origin, origin),
                        (Origin::File { .. }, Origin::File { .. })
                    )
            };
            if !unknown.iter().any(said) {
                unknown.push(problem);
            }
        }
        self.problems.append(&mut unknown);
    }
}

fn section(key: &str) -> &str {
    key.split('.').next().unwrap_or_default()
}

fn text(value: &Value) -> Result<&str, Refused> {
    match value {
        Value::Text(text) | Value::Env(text) => Ok(text),
        _ => Err((ProblemKind::WrongType, found(value))),
    }
}

fn read_secret(path: &PathBuf) -> std::io::Result<Secret> {
    let mut text = String::new();
    File::open(path)?
        .take(MAX_SECRET_BYTES)
        .read_to_string(&mut text)?;
    Ok(Secret::new(text.trim()))
}
