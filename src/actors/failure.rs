//! Why an actor did not do what it was asked, beyond the rules of its domain.

use std::time::Duration;

use super::kernel::CallError;
use crate::{
    domain::{clock::EntropyError, error::ErrorCode, identity::TokenError},
    store::StoreError,
};

/// Why an actor did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Too much is in progress there.
    #[error("too much work is waiting")]
    Overloaded,
    /// The deadline passed.
    #[error("no answer in time")]
    Timeout,
    /// The actor failed while it held the request.
    #[error("the session restarted while it held the request")]
    Restarting,
    /// The actor failed too often.
    #[error("the session failed too often")]
    Quarantined {
        /// When it will be tried again.
        retry_after: Duration,
    },
    /// The store is away; nothing was changed.
    #[error("the store is unavailable; nothing was changed")]
    Unavailable,
    /// The store failed at the commit.
    #[error("the store failed at the commit; the change may have happened")]
    OutcomeUnknown,
    /// The caller's `Idempotency-Key` was used for something else; nothing was changed.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The user of the token is gone.
    #[error("there is no such user any more")]
    NoUser,
    /// A fault of ours; the text names no data.
    #[error("{0}")]
    Internal(&'static str),
}

impl Failure {
    /// The code that a client sees.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::Overloaded => ErrorCode::Overloaded,
            Self::Timeout => ErrorCode::Timeout,
            Self::Restarting => ErrorCode::SessionRestarting,
            Self::Quarantined { .. } => ErrorCode::SessionQuarantined,
            Self::Unavailable => ErrorCode::StoreUnavailable,
            Self::OutcomeUnknown => ErrorCode::OutcomeUnknown,
            Self::KeyReused => ErrorCode::IdempotencyKeyReused,
            Self::NoUser => ErrorCode::TokenRevoked,
            Self::Internal(_) => ErrorCode::Internal,
        }
    }
}

impl From<CallError> for Failure {
    fn from(e: CallError) -> Self {
        match e {
            CallError::Overloaded => Self::Overloaded,
            CallError::Timeout => Self::Timeout,
            CallError::Gone => Self::Restarting,
            CallError::Quarantined { retry_after } => Self::Quarantined { retry_after },
        }
    }
}

impl From<StoreError> for Failure {
    fn from(e: StoreError) -> Self {
        match e {
            StoreError::Unavailable => Self::Unavailable,
            StoreError::OutcomeUnknown => Self::OutcomeUnknown,
            StoreError::Deadline => Self::Timeout,
            StoreError::Constraint(_) => Self::Internal("a constraint of the store was broken"),
            StoreError::NoUser => Self::NoUser,
            StoreError::Corrupt(what) => Self::Internal(what),
            StoreError::Randomness => Self::Internal("no randomness"),
        }
    }
}

impl From<EntropyError> for Failure {
    fn from(_: EntropyError) -> Self {
        Self::Internal("no randomness")
    }
}

impl From<TokenError> for Failure {
    fn from(_: TokenError) -> Self {
        Self::Internal("a token could not be signed")
    }
}
