//! What the rules are told and what they answer: the words between the pure half of `tail`
//! (`rules.rs`) and the half that talks to the world (`shell.rs`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    backoff::Wait,
    wire::{ClientFrame, Event, ServerFrame},
};

/// How far the log has been printed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// The life of the log that `last_seq` counts in; unknown before the first welcome.
    pub(super) epoch: Option<String>,
    pub(super) last_seq: u64,
}

/// What happened.
#[derive(Debug)]
pub(super) enum Input {
    /// The socket is open; the access token holds for `token_left` more.
    Opened {
        token_left: Duration,
    },
    Frame(ServerFrame),
    /// A frame that is not of the protocol.
    Unreadable,
    /// Something came that carries no message.
    Heard,
    /// Nothing more is waiting to be read.
    Quiet,
    /// The deadline is reached.
    Tick,
    /// A new access token is saved.
    Renewed {
        token_left: Duration,
    },
    /// The tokens could not be renewed now.
    NotRenewed {
        why: String,
        retry_after: Option<Duration>,
    },
    /// The server will not renew the tokens.
    SignedOut {
        why: String,
    },
    /// The server closed the socket.
    Closed {
        code: Option<u16>,
        reason: String,
    },
    /// The connection broke, or could not be made.
    Lost {
        why: String,
    },
    /// The server answered the upgrade with an error.
    Refused {
        status: u16,
        why: String,
        retry_after: Option<Duration>,
    },
    /// The user wants to stop.
    Interrupted,
}

/// What to do about it, in this order.
#[derive(Debug)]
pub(super) enum Action {
    Print(Event),
    Say(String),
    /// Write the position to disk.
    Save,
    Send(ClientFrame),
    /// Send the newest access token.
    SendToken,
    /// Ask for new tokens while the connection goes on.
    Renew,
    ForgetTokens,
    Close(u16),
    /// This connection is over; make another one.
    Again {
        wait: Wait,
        refresh: bool,
        why: String,
    },
    /// Everything is over.
    Stop(Stop),
}

/// Why everything is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stop {
    Interrupted,
    Replaced,
    Removed,
    LogInAgain(String),
}

/// What a close means, for people.
pub(super) fn explain(code: Option<u16>, reason: &str) -> String {
    let Some(code) = code else {
        return "the connection was closed".to_owned();
    };
    let meaning = match code {
        1000 => "closed",
        1001 => "the server is going away",
        1009 => "a frame was too big",
        1013 => "the session is restarting or quarantined",
        4002 => "the server heard no heartbeat",
        4004 => "the server got no acknowledgement",
        4006 => "the server could not read a frame",
        _ => "closed by the server",
    };
    if reason.is_empty() {
        format!("{meaning} ({code})")
    } else {
        format!("{meaning} ({code} {reason})")
    }
}
