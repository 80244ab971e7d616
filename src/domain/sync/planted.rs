//! Bugs that are planted on purpose, one at a time, so that the simulation shows that it would find
//! them.
//!
//! Only with the feature `planted-bugs`, which no release build has: without it this file is not
//! compiled, and `planted!` is `false`. A bug is planted for the thread that asks for it.

use std::cell::Cell;

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// An ack is taken although it names another life of the log.
    AckOfAnotherEpoch,
    /// What a hint says of the head decides over acks as if it had been read for them.
    HintTakenForARead,
    /// Whatever is at hand is sent, without regard to the window.
    WindowNotRespected,
    /// What was read before a resync is sent after it.
    ReadFromBeforeAResync,
    /// What an older connection of a device acknowledged is stored for the newer one.
    CursorOfAnOlderConnection,
    /// The log is trimmed although a device lacks what goes.
    TrimOfWhatIsLacked,
    /// Events that were just committed are sent although a resync is not acknowledged.
    EventsAfterAResync,
    /// The time that a client takes to load anew counts as time in which it owes an ack.
    ReloadCountsAsOwing,
    /// A connection goes on although its device has a newer one elsewhere.
    OlderConnectionStays,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::AckOfAnotherEpoch,
        Self::HintTakenForARead,
        Self::WindowNotRespected,
        Self::ReadFromBeforeAResync,
        Self::CursorOfAnOlderConnection,
        Self::TrimOfWhatIsLacked,
        Self::EventsAfterAResync,
        Self::ReloadCountsAsOwing,
        Self::OlderConnectionStays,
    ];
}

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Plants a bug for this thread, or takes it out again.
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether `bug` is planted.
pub(super) fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}
