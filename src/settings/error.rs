//! What can be wrong with the settings, said so that the reader knows where to mend it.

use std::{io, path::Path, path::PathBuf, sync::Arc};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of the settings file.
    File {
        /// The file.
        path: Arc<Path>,
        /// Counted from 1.
        line: usize,
    },
    /// An environment variable.
    Env(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// The kinds of things that can be wrong with one setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// No setting has this name.
    UnknownKey,
    /// Text where a number is needed, and the like.
    WrongType,
    /// The right type, but not a value that the setting can have.
    BadValue,
    /// Does not go together with another setting.
    Conflict,
    /// Must be set here and is not.
    Missing,
    /// The file that it names cannot be read.
    UnreadableFile,
}

/// What is wrong with one setting, before anybody asked who set it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The setting.
    pub key: &'static str,
    /// What kind of problem it is.
    pub kind: ProblemKind,
    /// What is there.
    pub found: String,
    /// What should be there.
    pub expected: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            key,
            found,
            expected,
            kind: _,
        } = self;
        write!(f, "{key}: found {found}, expected {expected}")
    }
}

/// One setting that cannot be taken, and why. Never holds the value of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The setting, such as `sync.heartbeat_secs`.
    pub key: String,
    /// Who set it.
    pub origin: Origin,
    /// What kind of problem it is.
    pub kind: ProblemKind,
    /// What is there.
    pub found: String,
    /// What should be there.
    pub expected: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            key,
            origin,
            found,
            expected,
            kind: _,
        } = self;
        write!(f, "{key}: found {found}, expected {expected}")?;
        match origin {
            Origin::Default => Ok(()),
            origin => write!(f, " ({origin})"),
        }
    }
}

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The settings file cannot be read.
    #[error("cannot read the settings file {}: {cause}", path.display())]
    UnreadableFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The settings file cannot be made.
    #[error("cannot make the settings file {}: {cause}", path.display())]
    UnwritableFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The settings file is not TOML.
    #[error("{}:{line}: not valid TOML: {detail}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser said; it quotes no values.
        detail: String,
    },
    /// Settings that cannot be taken: all of them, so that one run shows what there is to mend.
    #[error("{}", lines(.0))]
    Problems(Vec<Problem>),
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
