//! Faults that tests plant from outside: a wall clock that is set while the server runs.
//!
//! Owns nothing that a release has: the whole file is behind the feature `faults`. A file in the data
//! folder says by how many seconds the wall clock is wrong; the monotonic clock never is.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::clock::{Clock, System, World};

/// Seconds that are added to the wall clock; not there, or no number: none.
const CLOCK_FILE: &str = "fault-clock";

/// The machine, with a wall clock that can be set.
pub(super) fn world(data_dir: &Path) -> World {
    let clock = SetClock(data_dir.join(CLOCK_FILE));
    World::new(Arc::new(clock), Arc::new(System))
}

struct SetClock(PathBuf);

impl Clock for SetClock {
    fn now(&self) -> DateTime<Utc> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        let offset = text.trim().parse().ok().and_then(TimeDelta::try_seconds);
        System.now() + offset.unwrap_or_default()
    }

    fn instant(&self) -> Instant {
        System.instant()
    }
}
