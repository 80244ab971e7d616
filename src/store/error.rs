//! What can go wrong in the store, without a trace of the database driver.
//!
//! Owns the translation of driver errors, which are logged here once, without bound values, and
//! never leave the store. Refusals are not errors: they are values of the commands' outcomes.

use super::constraint::Constraint;
use crate::domain::clock::EntropyError;

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database did not serve; nothing was written.
    #[error("the store is not available")]
    Unavailable,
    /// The connection was lost during the commit: what was asked may be done or not.
    #[error("the store does not know whether the write was done")]
    OutcomeUnknown,
    /// The deadline passed before the work began, or a read took too long; nothing was written.
    #[error("the deadline passed")]
    Deadline,
    /// A constraint refused a row that the rules had let through.
    #[error("a constraint refused the write: {0:?}")]
    Constraint(Constraint),
    /// The user of a token is gone, as after a restore: nothing was written.
    #[error("there is no such user")]
    NoUser,
    /// What is stored contradicts itself.
    #[error("the stored data is corrupt: {0}")]
    Corrupt(&'static str),
    /// The system's random source failed.
    #[error("the system's random source failed")]
    Randomness,
}

impl StoreError {
    /// The name in metrics.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Deadline => "deadline",
            Self::Constraint(_) => "constraint",
            Self::NoUser => "no_user",
            Self::Corrupt(_) => "corrupt",
            Self::Randomness => "randomness",
        }
    }
}

/// The user of one of the commands that share a transaction is gone: it wrote nothing, and the
/// others go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoUser;

impl From<NoUser> for StoreError {
    fn from(_: NoUser) -> Self {
        Self::NoUser
    }
}

impl From<EntropyError> for StoreError {
    fn from(_: EntropyError) -> Self {
        Self::Randomness
    }
}

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The configured address is not one. The address is not shown: it holds a password.
    #[error("database.url is not a PostgreSQL address such as postgres://user@host/database")]
    BadUrl,
    /// There is no way to the database.
    #[error("cannot open the database {place}: {reason}")]
    Connect {
        /// Where it was looked for, without user and password.
        place: String,
        /// What the driver said.
        reason: String,
    },
    /// The schema was made for newer binaries.
    #[error(
        "the database needs a newer listen-stream: its schema asks for migration {needs}, this \
         binary knows up to {knows}"
    )]
    SchemaTooNew {
        /// The oldest migration that a binary must know to run here.
        needs: i64,
        /// The newest migration that this binary knows.
        knows: i64,
    },
    /// A migration did not run.
    #[error("cannot bring the database's schema up to date: {0}")]
    Migrate(String),
    /// The schema is there but cannot be read.
    #[error("cannot read the database's schema: {0}")]
    Schema(String),
}

/// Why a transaction's function did not succeed: its transaction is rolled back.
#[derive(Debug)]
pub(super) enum Failed {
    /// The driver failed.
    Sql(sqlx::Error),
    /// Another transaction changed what the function went by: it is to run again.
    Overtaken,
    /// The function found that it cannot go on.
    Store(StoreError),
    /// The function panicked.
    Panicked,
}

impl From<sqlx::Error> for Failed {
    fn from(e: sqlx::Error) -> Self {
        Self::Sql(e)
    }
}

impl From<StoreError> for Failed {
    fn from(e: StoreError) -> Self {
        Self::Store(e)
    }
}

impl Failed {
    /// Whether the same transaction may succeed when it runs again (PostgreSQL; on SQLite there is one
    /// writer).
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Sql(e) => is_transient(e),
            Self::Overtaken => true,
            Self::Store(_) | Self::Panicked => false,
        }
    }

    /// As the store's callers see it; logged, because the cause goes no further.
    pub(super) fn into_error(self, name: &'static str) -> StoreError {
        match self {
            Self::Sql(e) => sql_error(name, &e),
            Self::Store(e) => {
                if let StoreError::Corrupt(what) = e {
                    tracing::error!(name, what, "stored data is corrupt");
                }
                e
            }
            Self::Overtaken => {
                tracing::warn!(name, "other transactions were always faster");
                StoreError::Unavailable
            }
            Self::Panicked => {
                tracing::error!(name, "a store function panicked");
                StoreError::Unavailable
            }
        }
    }
}

/// Serialisation failure or deadlock: PostgreSQL asks for the transaction to be repeated.
pub(super) fn is_transient(e: &sqlx::Error) -> bool {
    e.as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| code == "40001" || code == "40P01")
}

/// Translates and logs an error of a statement.
pub(super) fn sql_error(name: &'static str, e: &sqlx::Error) -> StoreError {
    let error = match e {
        sqlx::Error::Database(d) => {
            Constraint::of(d.as_ref()).map_or(StoreError::Unavailable, StoreError::Constraint)
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
            StoreError::Corrupt("a row that cannot be read")
        }
        _ => StoreError::Unavailable,
    };
    tracing::warn!(name, cause = %e, result = error.as_str(), "a statement failed");
    error
}

/// Translates and logs an error of a commit.
pub(super) fn commit_error(name: &'static str, e: &sqlx::Error) -> StoreError {
    let lost = match e {
        sqlx::Error::Database(d) => d.code().is_some_and(|code| commit_code_is_unclear(&code)),
        // Whatever is not an answer of the database leaves open whether it heard the question.
        _ => true,
    };
    let error = if lost {
        StoreError::OutcomeUnknown
    } else {
        // Whose fault it was cannot be told: a commit is of all members of a group.
        StoreError::Unavailable
    };
    tracing::warn!(name, cause = %e, result = error.as_str(), "a commit failed");
    error
}

/// PostgreSQL: the server or the connection went away. SQLite (numbers): the disk failed, and the
/// pages may have reached it or not.
fn commit_code_is_unclear(code: &str) -> bool {
    match code.parse::<u32>() {
        Ok(n) if code.len() < 5 => n & 0xff == 10,
        _ => code.starts_with("57P") || code.starts_with("08"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unclear_commits_are_told_from_refused_ones() {
        for unclear in ["10", "1034", "57P01", "08006"] {
            assert!(commit_code_is_unclear(unclear), "{unclear}");
        }
        for refused in ["5", "13", "2067", "40001", "57014", "23505"] {
            assert!(!commit_code_is_unclear(refused), "{refused}");
        }
    }
}
