//! What a session shows of itself: above all why it is slow, if it is.
//!
//! Owns the list of the last slow commands. A command waits for its turn, which others have, or for
//! the store; a device lacks events because its client does not read, or does not acknowledge.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};

use super::{
    UserSession,
    fifo::{Fifo, Held, Wanted},
};
use crate::{
    actors::{
        Failure,
        kernel::{Cx, Public, millis_since, short_name, view},
    },
    domain::{
        ids::{ConnId, DeviceId, Epoch, UserId},
        sync::LinkState,
    },
};

/// A command that took longer is noted.
const SLOW: Duration = Duration::from_millis(100);
/// Slow commands that are kept.
const KEPT: usize = 16;

/// A command that was slow.
#[derive(Debug)]
struct Slow {
    what: &'static str,
    at: DateTime<Utc>,
    turn_ms: u32,
    store_ms: u32,
    /// The code of what was answered, if it failed.
    failed: Option<&'static str>,
}

/// The last slow commands of a session; nothing is allocated before there is one.
#[derive(Debug, Default)]
pub(super) struct SlowCommands(Option<Box<Kept>>);

/// The newest first.
#[derive(Debug, Default)]
struct Kept(VecDeque<Slow>);

view! {
    /// What a session shows of itself.
    pub struct SessionView {
        user: Public<UserId>,
        /// The log as last seen; none before the first device attached.
        epoch: Option<Public<Epoch>>,
        head_seq: Option<Public<i64>>,
        /// The command that has the turn.
        command: Option<CommandView>,
        /// Commands that wait for theirs, and the one that has waited longest.
        commands_waiting: Public<usize>,
        first_waiting: Option<CommandView>,
        /// Connections whose attachment is under way, and the one that has the turn of these.
        attaching: Public<usize>,
        attachment: Option<CommandView>,
        /// Commands and attachments that took longer than 100 ms, the newest first.
        slow_commands: Vec<SlowView>,
        devices: Vec<DeviceView>,
        /// Time since it was last used: without a device it rests when that is long enough.
        last_used_ms: Option<Public<u64>>,
    }

    /// A command in hand.
    struct CommandView {
        name: Public<&'static str>,
        /// Since it came.
        for_ms: Public<u64>,
        /// `turn`: for the commands before it; `store`: for the database.
        waits_for: Public<&'static str>,
        /// How long that has been so.
        waits_ms: Public<u64>,
    }

    /// A command that was slow.
    struct SlowView {
        name: Public<&'static str>,
        at: Public<DateTime<Utc>>,
        total_ms: Public<u32>,
        turn_ms: Public<u32>,
        store_ms: Public<u32>,
        /// The code of what was answered, if it failed.
        failed: Option<Public<&'static str>>,
    }

    /// What a session shows of an attached device.
    struct DeviceView {
        conn: Public<ConnId>,
        device: Public<DeviceId>,
        attach_epoch: Public<i64>,
        acked_seq: Public<i64>,
        sent_seq: Public<i64>,
        /// Frames beside the log that the connection has not handed to the system: the client does not
        /// read.
        unread_frames: Public<usize>,
        in_flight_bytes: Public<u64>,
        /// Nothing more is sent before the client acknowledges.
        window_full: Public<bool>,
        /// For how long the client has owed an acknowledgement and given none.
        owes_ack_ms: Option<Public<u64>>,
        /// A piece of the log is being read for it.
        reading_log: Public<bool>,
        resyncing: Public<bool>,
        last_heard_ms: Public<u64>,
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

fn at_store(held: Held, now: Instant) -> CommandView {
    CommandView {
        name: Public(short_name(held.wanted.what)),
        for_ms: millis_since(held.wanted.asked, now),
        waits_for: Public("store"),
        waits_ms: millis_since(held.granted, now),
    }
}

fn for_turn(wanted: Wanted, now: Instant) -> CommandView {
    CommandView {
        name: Public(short_name(wanted.what)),
        for_ms: millis_since(wanted.asked, now),
        waits_for: Public("turn"),
        waits_ms: millis_since(wanted.asked, now),
    }
}

impl SlowCommands {
    /// Notes a command whose turn is over, if it was slow.
    pub(super) fn note(
        &mut self,
        had: Option<Held>,
        failure: Option<Failure>,
        now: Instant,
        cx: &Cx<'_, UserSession>,
    ) {
        let Some(had) = had else { return };
        if now.saturating_duration_since(had.wanted.asked) < SLOW {
            return;
        }
        let Kept(kept) = &mut **self.0.get_or_insert_default();
        kept.truncate(KEPT - 1);
        // Where all users come at once, each has one that was slow, and room for it alone.
        kept.reserve_exact(1);
        kept.push_front(Slow {
            what: had.wanted.what,
            at: cx.world.now(),
            turn_ms: millis(had.waited()),
            store_ms: millis(now.saturating_duration_since(had.granted)),
            failed: failure.map(|failure| failure.code().code()),
        });
    }

    fn view(&self) -> Vec<SlowView> {
        let kept = self.0.iter().flat_map(|kept| kept.0.iter());
        kept.map(|it| SlowView {
            name: Public(short_name(it.what)),
            at: Public(it.at),
            total_ms: Public(it.turn_ms.saturating_add(it.store_ms)),
            turn_ms: Public(it.turn_ms),
            store_ms: Public(it.store_ms),
            failed: it.failed.map(Public),
        })
        .collect()
    }
}

impl UserSession {
    pub(super) fn show(&self, now: Instant) -> SessionView {
        let log = self.core.log();
        let held = |turns: &Fifo| turns.held().map(|held| at_store(held, now));
        SessionView {
            user: Public(self.user),
            epoch: log.map(|l| Public(l.epoch)),
            head_seq: log.map(|l| Public(l.head_seq)),
            command: held(&self.turns),
            commands_waiting: Public(self.turns.waiting()),
            first_waiting: self.turns.first_waiting().map(|it| for_turn(it, now)),
            attaching: Public(self.attaching.len()),
            attachment: held(&self.attach_turns),
            slow_commands: self.slow.view(),
            devices: self
                .core
                .links()
                .map(|link| self.show_link(&link, now))
                .collect(),
            last_used_ms: self.last_used.map(|at| millis_since(at, now)),
        }
    }

    fn show_link(&self, it: &LinkState<'_>, now: Instant) -> DeviceView {
        let link = self.links.get(&it.conn);
        DeviceView {
            conn: Public(it.conn),
            device: Public(it.device),
            attach_epoch: Public(it.attach_epoch),
            acked_seq: Public(it.delivery.acked()),
            sent_seq: Public(it.delivery.sent()),
            unread_frames: Public(link.map_or(0, |link| link.outlet.unread())),
            in_flight_bytes: Public(it.delivery.flight_bytes()),
            window_full: Public(it.delivery.is_full()),
            owes_ack_ms: it
                .delivery
                .owes_since()
                .map(|since| millis_since(since, now)),
            reading_log: Public(it.delivery.is_loading()),
            resyncing: Public(it.delivery.is_quiet()),
            last_heard_ms: millis_since(it.last_heard, now),
        }
    }
}
