//! Where settings come from: the file and the environment, read into plain values with origins.
//!
//! Knows nothing of which settings exist; `reader.rs` asks for them by name.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use toml::de::{DeTable, DeValue};

use super::error::{Origin, SettingsError};

/// What every variable of ours starts with.
pub(super) const ENV_PREFIX: &str = "LISTEN_STREAM__";

/// A value as it was written, before anybody knows what it should be.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Quoted text in the file.
    Text(String),
    /// A whole number in the file, if it fits.
    Integer(i64),
    /// `true` or `false` in the file.
    Boolean(bool),
    /// A list in the file.
    List(Vec<Value>),
    /// A table in the file.
    Table,
    /// What no setting takes: a time, a fraction, a number beyond 64 bits.
    Other(String),
    /// An environment variable: text that may stand for anything.
    Env(String),
    /// An environment variable that is not UTF-8.
    NotUnicode,
}

/// A value and who gave it.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub value: Value,
    pub origin: Origin,
}

/// Everything that file, environment and command line say. Later layers win.
#[derive(Debug, Default)]
pub(super) struct Layers {
    /// The value in force by key, `section.key`.
    pub given: BTreeMap<String, Given>,
    /// Every name that was used, also where a later layer won, to find those that name nothing.
    pub names: Vec<(String, Given)>,
}

impl Layers {
    pub(super) fn put(&mut self, key: String, value: Value, origin: Origin) {
        let given = Given { value, origin };
        self.names.push((key.clone(), given.clone()));
        self.given.insert(key, given);
    }

    /// Adds the settings file at `path`.
    pub(super) fn add_file(&mut self, path: &Path, text: &str) -> Result<(), SettingsError> {
        let line_of = |at: usize| {
            let before = text.as_bytes().get(..at).unwrap_or_default();
            before.split(|&b| b == b'\n').count()
        };
        let table = DeTable::parse(text).map_err(|e| SettingsError::Syntax {
            path: path.to_owned(),
            line: line_of(e.span().map_or(0, |span| span.start)),
            detail: e.message().replace('\n', "; "),
        })?;
        let path: Arc<Path> = path.into();
        let origin = |at: usize| Origin::File {
            path: path.clone(),
            line: line_of(at),
        };
        for (section, value) in table.get_ref() {
            let name = section.get_ref();
            let Some(keys) = value.get_ref().as_table() else {
                let value = plain(value.get_ref());
                self.put(name.to_string(), value, origin(section.span().start));
                continue;
            };
            // A section without keys still must be one that exists.
            self.names.push((
                name.to_string(),
                Given {
                    value: Value::Table,
                    origin: origin(section.span().start),
                },
            ));
            for (key, value) in keys {
                self.put(
                    format!("{name}.{}", key.get_ref()),
                    plain(value.get_ref()),
                    origin(key.span().start),
                );
            }
        }
        Ok(())
    }

    /// Adds every `LISTEN_STREAM__SECTION__KEY` of `env`.
    pub(super) fn add_env(&mut self, env: &[(OsString, OsString)]) {
        for (name, value) in env {
            let name = name.to_string_lossy();
            let Some(rest) = name.strip_prefix(ENV_PREFIX) else {
                continue;
            };
            // Names are upper case only, so that one setting has one variable.
            let key = if rest.chars().any(char::is_lowercase) {
                rest.to_owned()
            } else {
                rest.to_lowercase().replacen("__", ".", 1)
            };
            let value = value
                .to_str()
                .map_or(Value::NotUnicode, |v| Value::Env(v.to_owned()));
            self.put(key, value, Origin::Env(name.into_owned()));
        }
    }
}

fn plain(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(s) => Value::Text(s.to_string()),
        DeValue::Integer(n) => {
            i64::from_str_radix(n.as_str(), n.radix()).map_or_else(|_| other(value), Value::Integer)
        }
        DeValue::Boolean(b) => Value::Boolean(*b),
        DeValue::Array(items) => Value::List(items.iter().map(|v| plain(v.get_ref())).collect()),
        DeValue::Table(_) => Value::Table,
        DeValue::Float(_) | DeValue::Datetime(_) => other(value),
    }
}

fn other(value: &DeValue<'_>) -> Value {
    Value::Other(match value {
        DeValue::Integer(n) => n.to_string(),
        DeValue::Float(n) => n.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        _ => value.type_str().to_owned(),
    })
}

/// Reads the settings file; `None` when it may be missing and is.
pub(super) fn read_file(path: &Path, may_miss: bool) -> Result<Option<String>, SettingsError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if may_miss && e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(SettingsError::UnreadableFile {
            path: path.to_owned(),
            cause,
        }),
    }
}

/// The settings file of a data folder.
#[must_use]
pub fn default_file(data_dir: &Path) -> PathBuf {
    data_dir.join("listen-stream.toml")
}
