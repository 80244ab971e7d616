//! What must hold, as predicates over plain values. The simulation asks them at every step.
//!
//! Each answers with what is wrong, in words.

use listen_stream::domain::{
    ids::Epoch,
    sync::{Ages, CloseCode, LogHead, Position, ResyncReason, Retention, Window},
};

use crate::queue::Ms;

pub type Verdict = Result<(), String>;

fn must(holds: bool, wrong: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(wrong()) }
}

/// A client is sent the event after the last that it applied, or one that it has.
pub fn in_order(applied: i64, seq: i64) -> Verdict {
    must(seq <= applied + 1, || {
        format!("event {seq} came after {applied}: a hole")
    })
}

/// What a client has is what the log had at the same place.
pub fn same_state(client: u64, log: Option<u64>, at: Position) -> Verdict {
    must(log == Some(client), || {
        format!("the client differs from the log at {at:?}")
    })
}

/// Nothing at or below what is durably acknowledged is sent, nor anything twice on a connection.
pub fn not_again(above: i64, seq: i64) -> Verdict {
    must(seq > above, || {
        format!("event {seq} is sent, and {above} was acknowledged or sent")
    })
}

/// What is in flight is within the window; one event always is.
pub fn within_window(events: usize, bytes: u64, window: Window) -> Verdict {
    let fits =
        events <= window.events as usize && (events <= 1 || bytes <= u64::from(window.bytes));
    must(fits, || {
        format!("{events} events and {bytes} bytes in flight, window {window:?}")
    })
}

/// What waits unread for a connection is bounded, however little is taken of it.
pub fn bounded(unread: usize, window: Window, side_frames: usize) -> Verdict {
    // A welcome, two resyncs, pings until the heartbeat ends it, answers of one step, a farewell.
    const REST: usize = 16;
    let bound = window.events as usize + side_frames + REST;
    must(unread <= bound, || format!("{unread} frames wait unread"))
}

/// After a resync nothing of the log is sent until it is acknowledged.
pub fn is_quiet(resync_is_open: bool, seq: i64) -> Verdict {
    must(!resync_is_open, || {
        format!("event {seq} is sent before the resync is acknowledged")
    })
}

/// What a connection was told when it gets a resync.
#[derive(Debug)]
pub struct Told {
    /// The resync that it has not acknowledged.
    pub open: Option<Epoch>,
    /// Where it is, as far as the session may know.
    pub at: Option<Position>,
    /// What comes after that is gone.
    pub gone: bool,
    /// What the session knew of it was read before the log's life changed.
    pub stale: bool,
}

/// A resync has a cause, and no second one comes for the same cause before the first is acknowledged.
pub fn resync_is_due(told: &Told, log: &LogHead, reason: ResyncReason) -> Verdict {
    if told.open == Some(log.epoch) {
        return Err("a second resync before the first was acknowledged".into());
    }
    let due = match reason {
        ResyncReason::Compacted => told.gone,
        ResyncReason::EpochChanged => {
            told.stale
                || told
                    .at
                    .is_some_and(|at| at.epoch != log.epoch || at.seq > log.head_seq)
        }
    };
    must(due, || {
        format!("a resync {reason:?} to {log:?} without a cause: {told:?}")
    })
}

/// A durable cursor is not beyond what its client ever applied in that life of the log.
pub fn cursor_is_true(device: usize, cursor: Position, applied: i64) -> Verdict {
    must(cursor.seq <= applied, || {
        format!("the cursor of {device} is {cursor:?}, and its client applied {applied}")
    })
}

/// One that names an older connection of a device moves nothing.
pub fn cursor_is_current(attach_epoch: i64, newest: i64) -> Verdict {
    must(attach_epoch == newest, || {
        format!("a cursor moved for attachment {attach_epoch}, and the newest is {newest}")
    })
}

/// A session that heard of a device's newer connection has no older one.
pub fn older_is_gone(left: Option<i64>, newest: i64) -> Verdict {
    must(left.is_none_or(|mine| mine >= newest), || {
        format!("attachment {left:?} is still there, and there is {newest}")
    })
}

/// Frames are dropped only of a client that said too much a moment ago.
pub fn is_flood(flooded_at: Option<Ms>, now: Ms) -> Verdict {
    const A_MOMENT: Ms = 20_000;
    must(
        flooded_at.is_some_and(|at| now.saturating_sub(at) <= A_MOMENT),
        || format!("frames are dropped, and the client last flooded at {flooded_at:?}"),
    )
}

/// One read of the log at a time for a connection.
pub fn one_read(under_way: usize) -> Verdict {
    must(under_way <= 1, || format!("{under_way} reads at once"))
}

/// What is known of a connection that is about to be closed, or is still open.
#[derive(Debug)]
pub struct Judged {
    /// Nothing was heard for so long.
    pub silent: Ms,
    /// Events were in flight without progress for so long.
    pub owing: Option<Ms>,
    /// An ack of it waits to be judged.
    pub parked: bool,
    /// Its token has been over for so long.
    pub token_over: Option<Ms>,
    /// There is a newer connection of the device.
    pub newer: bool,
    /// For so long its client has answered, acked, renewed, and its network was well.
    pub behaves: Ms,
}

/// By which times a connection is judged.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub silence: Ms,
    pub progress: Ms,
}

/// Whether a connection may be closed for what the server says.
pub fn close_is_due(code: CloseCode, it: &Judged, limits: Limits) -> Verdict {
    let patience = limits.silence.max(limits.progress);
    let (due, device) = match code {
        CloseCode::Replaced => (it.newer, false),
        CloseCode::NoHeartbeat => (it.silent >= limits.silence, true),
        CloseCode::NotAcking => {
            let owing = it.owing.is_some_and(|ms| ms >= limits.progress);
            (owing && !it.parked, true)
        }
        CloseCode::TokenOver => (it.token_over.is_some(), false),
        CloseCode::TryAgainLater | CloseCode::GoingAway => (true, false),
        _ => (false, false),
    };
    must(due, || format!("closed {code:?} without a cause: {it:?}"))?;
    must(!device || it.behaves <= patience, || {
        format!("closed {code:?}, and its client behaved: {it:?}")
    })
}

/// For how long a session could not run since a connection was heard, and since it attached.
#[derive(Debug, Clone, Copy)]
pub struct Slack {
    pub heard: Ms,
    pub attached: Ms,
}

/// Whether a connection should have been closed by now.
pub fn stays_rightly(it: &Judged, limits: Limits, slack: Slack) -> Verdict {
    must(it.silent <= limits.silence + slack.heard, || {
        format!("silent, and still there: {it:?}")
    })?;
    let owing = it.owing.unwrap_or(0);
    must(
        it.parked || owing <= limits.progress + slack.attached,
        || format!("does not ack, and is still there: {it:?}"),
    )?;
    must(it.token_over.unwrap_or(0) <= slack.attached, || {
        format!("its token is over, and it is still there: {it:?}")
    })
}

/// A trim keeps what the rule's words keep.
pub fn trim(
    log: &LogHead,
    floor: i64,
    lowest: Option<i64>,
    ages: Ages,
    rule: &Retention,
) -> Verdict {
    must((log.floor_seq..=log.head_seq).contains(&floor), || {
        format!("the floor of {log:?} became {floor}")
    })?;
    if floor == log.floor_seq {
        return Ok(());
    }
    // The highest event that goes decides for all below it.
    let lacked = lowest.is_some_and(|cursor| floor > cursor) && floor >= ages.held_from;
    let young = floor >= ages.recent_from;
    let newest = floor > log.head_seq - rule.min_events;
    let too_many = floor <= log.head_seq - rule.max_events;
    must(too_many || !(lacked || young || newest), || {
        format!("{log:?} is trimmed to {floor}, the lowest cursor is {lowest:?}, {ages:?}")
    })
}
