//! Sending codes to phones.
//!
//! Owns the way to each SMS provider. The login desk calls it. A code is never logged.

use std::{io, path::PathBuf, sync::Arc};

use chrono::{DateTime, Utc};
use tokio::io::AsyncWriteExt;

use crate::domain::{
    identity::{Phone, SmsCode},
    time::rfc3339,
};

/// The message could not be sent.
#[derive(Debug, thiserror::Error)]
#[error("the SMS provider `{provider}` did not take the message")]
pub struct SmsError {
    provider: &'static str,
    source: io::Error,
}

/// A way to send codes. Cheap to clone.
#[derive(Debug, Clone)]
pub enum SmsProvider {
    /// For development: appends `<RFC 3339 time> <phone> <code>` to a file that only its owner reads.
    Console(Arc<PathBuf>),
}

impl SmsProvider {
    /// The development provider, writing to `path`.
    #[must_use]
    pub fn console(path: PathBuf) -> Self {
        Self::Console(Arc::new(path))
    }

    /// Sends `code` to `phone`.
    ///
    /// # Errors
    /// [`SmsError`] when it was not taken.
    pub async fn send(
        &self,
        phone: &Phone,
        code: &SmsCode,
        now: DateTime<Utc>,
    ) -> Result<(), SmsError> {
        match self {
            Self::Console(path) => {
                let time = rfc3339(now);
                let line = format!("{time} {} {}\n", phone.as_str(), code.as_str());
                append(path, &line).await.map_err(|source| SmsError {
                    provider: "console",
                    source,
                })
            }
        }
    }
}

/// Appends a line in one write, so that lines of concurrent calls do not mix.
async fn append(path: &std::path::Path, line: &str) -> io::Result<()> {
    let mut options = tokio::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    options.mode(0o600);
    let mut file = options.open(path).await?;
    file.write_all(line.as_bytes()).await?;
    file.flush().await
}
