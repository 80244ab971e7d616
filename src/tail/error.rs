//! Why `tail` ended, in words for the person at the terminal. Never holds a token.

use std::{io, path::PathBuf};

use crate::domain::clock::EntropyError;

/// Why `tail` ended.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// `--server` is not an address that can be used.
    #[error("--server {0}")]
    Server(&'static str),
    /// `--phone` is not a phone number.
    #[error("--phone takes an international number: + and 8 to 15 digits, such as +8613800138000")]
    Phone,
    /// Nothing says who is to log in.
    #[error("not logged in yet: say who you are with --phone")]
    PhoneNeeded,
    /// There is no home to keep the state in.
    #[error("neither XDG_STATE_HOME nor HOME is set: say where to keep the state with --state")]
    NoStateFolder,
    /// The state file cannot be read or written.
    #[error("the state file {path}: {source}")]
    State {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The state file holds something else.
    #[error("the state file {path} is not one of tail's; move it away or choose another --state")]
    StateForm {
        /// The file.
        path: PathBuf,
    },
    /// Another `tail` runs on the state file: the two would sign each other out.
    #[error("another tail uses {path}; for a second device choose another --state")]
    StateInUse {
        /// The file.
        path: PathBuf,
    },
    /// The state file belongs to another server, which alone may see its tokens.
    #[error("{path} belongs to {server}; choose another --state for this server")]
    OtherServer {
        /// The file.
        path: PathBuf,
        /// The server that it was made with.
        server: String,
    },
    /// `--device-id` is not the one that is logged in.
    #[error("the state belongs to the device {0}; choose another --state for another device")]
    OtherDevice(String),
    /// The system has no randomness.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// The HTTP client cannot be made.
    #[error("cannot prepare secure connections: {0}")]
    Tls(String),
    /// The server could not be asked.
    #[error("cannot reach {server}: {why}")]
    Unreachable {
        /// The server.
        server: String,
        /// What went wrong on the way.
        why: String,
    },
    /// The server said no.
    #[error("the server refused ({status} {code}): {detail}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The stable code.
        code: String,
        /// Its words.
        detail: String,
    },
    /// No code was typed.
    #[error("no code was given")]
    NoCode,
    /// The user has as many devices as allowed.
    #[error("there is no room for another device; run again with --replace DEVICE_ID")]
    DeviceLimit,
    /// The login is no longer good.
    #[error("log in again ({0}): run the same command once more and it asks for a new code")]
    LogInAgain(String),
    /// Another connection of this device took over.
    #[error("stopped: this device connected from somewhere else")]
    Replaced,
    /// The device was removed from the user's list.
    #[error("stopped: this device was removed; run the same command once more to log in again")]
    Removed,
    /// The events cannot be written.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    /// The terminal cannot be read, or signals not be heard.
    #[error("the terminal: {0}")]
    Terminal(io::Error),
}

/// An error with everything that led to it, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
