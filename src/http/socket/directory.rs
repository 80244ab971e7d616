//! Where the connections of this node are found: by their ids, with the users whose they are.
//!
//! A few words a connection: what else an operator wants to know is asked of the connection, or read
//! from its id, which has the time in it.

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::WeakAddr;
use chrono::{DateTime, Utc};
use dashmap::DashMap;
use futures_util::future::LocalBoxFuture;

use super::{
    DeviceConnection,
    mailbox::{Look, Release},
};
use crate::{
    actors::{
        kernel::{
            Class, Failure, Halt, Halted, Kind, Life, Observed, Powers, Reading, Seen, Totals, Unit,
        },
        session::UserSession,
    },
    domain::{
        clock::World,
        ids::{ConnId, UserId},
    },
};

/// Between two looks whether a connection has ended.
const LOOK: Duration = Duration::from_millis(10);

/// The open connections. Cheap to clone: all clones are one.
#[derive(Clone)]
pub struct Connections {
    open: Arc<DashMap<ConnId, Entry>>,
    world: World,
}

#[derive(Clone)]
struct Entry {
    user: UserId,
    // A strong one would cost three allocations.
    to: WeakAddr<DeviceConnection>,
}

/// An open connection, as it is found.
struct Found {
    conn: ConnId,
    entry: Entry,
    all: Connections,
}

impl Connections {
    /// None is open.
    #[must_use]
    pub fn new(world: World) -> Self {
        Self {
            open: Arc::default(),
            world,
        }
    }

    pub(super) fn add(&self, conn: ConnId, user: UserId, to: WeakAddr<DeviceConnection>) {
        self.open.insert(conn, Entry { user, to });
    }

    pub(super) fn remove(&self, conn: ConnId) {
        self.open.remove(&conn);
    }
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connections({})", self.open.len())
    }
}

impl Kind for Connections {
    fn name(&self) -> &'static str {
        "device_connection"
    }

    fn live(&self) -> usize {
        self.open.len()
    }

    fn totals(&self) -> Option<Totals> {
        None
    }

    fn visit(&self, each: &mut dyn FnMut(&str, &dyn Observed)) {
        let mut key = String::new();
        for it in self.open.iter() {
            key.clear();
            // Writing to a String cannot fail.
            let _ = write!(key, "{}", it.key());
            let found = Found {
                conn: *it.key(),
                entry: it.value().clone(),
                all: self.clone(),
            };
            each(&key, &found);
        }
    }

    fn find(&self, key: &str) -> Option<Box<dyn Observed>> {
        let conn = key.parse().ok()?;
        let entry = self.open.get(&conn)?.value().clone();
        let all = self.clone();
        Some(Box::new(Found { conn, entry, all }))
    }

    fn powers(&self) -> Powers {
        // Only its client can make one anew.
        Powers {
            stop: true,
            restart: false,
        }
    }

    fn parent(&self, key: &str) -> Option<(&'static str, String)> {
        let user = self.open.get(&key.parse().ok()?)?.user;
        Some((UserSession::KIND, user.to_string()))
    }

    fn children_of(&self, kind: &str, key: &str, limit: usize) -> (Vec<String>, usize) {
        let user = key.parse::<UserId>().ok();
        let Some(user) = user.filter(|_| kind == UserSession::KIND) else {
            return (Vec::new(), 0);
        };
        let (mut keys, mut count) = (Vec::new(), 0);
        for it in self.open.iter().filter(|it| it.user == user) {
            count += 1;
            if keys.len() < limit {
                keys.push(it.key().to_string());
            }
        }
        (keys, count)
    }
}

impl Observed for Found {
    fn life(&self) -> Life {
        if self.entry.to.upgrade().is_some_and(|to| to.connected()) {
            Life::Up(0)
        } else {
            Life::Stopped
        }
    }

    fn age(&self, _now: Instant) -> Option<Duration> {
        let (secs, nanos) = self.conn.0.get_timestamp()?.to_unix();
        let opened = DateTime::<Utc>::from_timestamp(i64::try_from(secs).ok()?, nanos)?;
        (self.all.world.now() - opened).to_std().ok()
    }

    fn read(&self, _now: Instant) -> Option<Reading> {
        None
    }

    fn in_progress(&self, _class: Class) -> u64 {
        0
    }

    fn failures(&self) -> Vec<Failure> {
        Vec::new()
    }

    fn view(&self, deadline: Instant) -> LocalBoxFuture<'static, Seen> {
        let to = self.entry.to.upgrade();
        Box::pin(async move {
            let Some(to) = to else { return Seen::NotUp };
            match tokio::time::timeout_at(deadline.into(), to.send(Look)).await {
                Ok(Ok(Some(view))) => Seen::Live(view),
                Ok(Err(_)) => Seen::NotUp,
                Ok(Ok(None)) | Err(_) => Seen::Timeout,
            }
        })
    }

    fn halt(&self, _how: Halt, deadline: Instant) -> LocalBoxFuture<'static, Halted> {
        let (was, conn) = (self.life(), self.conn);
        if let Some(to) = self.entry.to.upgrade() {
            to.do_send(Release);
        }
        let all = self.all.clone();
        Box::pin(async move {
            // The client has its part in the closing handshake.
            while all.open.contains_key(&conn) && all.world.instant() < deadline {
                tokio::time::sleep(LOOK).await;
            }
            let done = !all.open.contains_key(&conn);
            let is = if done { Life::Stopped } else { was };
            Halted { was, is, done }
        })
    }
}
