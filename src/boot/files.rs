//! Descriptors: how many the system lets this process have, and what they are for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::settings::{Database, Finding, ProblemKind, Settings};

/// What the process needs beside the connections that are counted: the database's lock, Redis, SMS,
/// epolls, listeners.
const OWN: usize = 256;
/// Connections of the admin listener, at most.
pub(super) const ADMIN: usize = 64;
/// Connections of the internal listener, at most.
pub(super) const INTERNAL: usize = 256;
/// Connections that speak HTTP, at least.
const REQUESTS: usize = 768;
/// Connections that speak HTTP, at most.
const MAX_REQUESTS: usize = 25_600;

/// How the descriptors are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Files {
    /// Connections that speak HTTP, those that are about to become sockets among them.
    pub requests: usize,
}

impl Files {
    /// Raises the limit of open files to what the system allows, and divides it: sockets first.
    ///
    /// # Errors
    /// When so many sockets do not fit.
    pub(super) fn plan(settings: &Settings) -> Result<Self, Finding> {
        Self::divide(
            settings.server.max_connections,
            own(settings),
            raise_limit(),
        )
    }

    /// Whether [`Files::plan`] would do, with nothing raised yet.
    ///
    /// # Errors
    /// When so many sockets do not fit.
    pub(super) fn check(settings: &Settings) -> Result<(), Finding> {
        let limit = number(getrlimit(Resource::Nofile).maximum);
        Self::divide(settings.server.max_connections, own(settings), limit).map(|_| ())
    }

    fn divide(sockets: usize, own: usize, limit: usize) -> Result<Self, Finding> {
        let reserve = own + REQUESTS;
        if limit.checked_sub(reserve).is_none_or(|room| sockets > room) {
            return Err(Finding {
                key: "server.max_connections",
                kind: ProblemKind::BadValue,
                found: format!(
                    "{sockets} sockets, which with a reserve of {reserve} need {} open files, where \
                     the system allows this process {limit}",
                    sockets.saturating_add(reserve),
                ),
                expected: format!(
                    "{} or less, or a higher limit (LimitNOFILE, ulimit -n)",
                    limit.saturating_sub(reserve),
                ),
            });
        }
        Ok(Self {
            requests: (limit - sockets - own).min(MAX_REQUESTS),
        })
    }
}

/// What is not there for connections of the public listener.
fn own(settings: &Settings) -> usize {
    let internal = settings.server.internal_listen.map_or(0, |_| INTERNAL);
    OWN + ADMIN + internal + of_database(&settings.database)
}

/// What the connections to the database need.
fn of_database(it: &Database) -> usize {
    let connections = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    if it.url.is_some() {
        connections(it.max_connections)
    } else {
        // Beside those that read one that writes; each has the database, its log and the log's index.
        3 * (connections(it.read_connections) + 1)
    }
}

/// One descriptor a connection: as many as the system lets this process have.
fn raise_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let soft = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files stays as it is");
            limit.current
        }
    };
    number(soft)
}

fn number(limit: Option<u64>) -> usize {
    // None: without a limit.
    limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_come_first_and_requests_get_the_rest() {
        let requests = |sockets, limit| Files::divide(sockets, 256, limit).map(|it| it.requests);
        assert_eq!(requests(10_000, 11_024), Ok(768));
        assert_eq!(requests(10_000, 20_000), Ok(9744));
        assert_eq!(requests(10_000, usize::MAX), Ok(25_600));
        let error = requests(10_000, 11_023).unwrap_err();
        assert_eq!(error.key, "server.max_connections");
        for number in ["10000", "11024", "11023", "9999"] {
            assert!(error.to_string().contains(number), "{error}");
        }
        // What the process itself needs more is not there for requests.
        let own = |own| Files::divide(10_000, own, 12_000).map(|it| it.requests);
        assert_eq!((own(256), own(1000)), (Ok(1744), Ok(1000)));
        assert!(own(1233).is_err());
        assert!(requests(1, 100).is_err());
        assert!(requests(usize::MAX, usize::MAX).is_err());
    }
}
