//! What one device has been sent, has acknowledged, and may be sent next.
//!
//! The offline queue of a device is the log behind its cursor, so this core keeps positions and
//! sizes, never events: nothing is buffered for a device beyond its window.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::event::WireEvent;

/// What may be in flight to a device: sent, and not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// At most so many events.
    pub events: u32,
    /// At most so many bytes of frames; one event may be larger, alone.
    pub bytes: u32,
}

/// A piece of the log to be read for a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Load {
    /// Events after this one.
    pub after: i64,
    /// At most so many.
    pub limit: u32,
    /// A read that was asked for before a resync brings nothing any more.
    pub generation: u32,
}

/// Why an ack was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckError {
    /// The position is beyond the head that is known here.
    BeyondHead,
}

/// The delivery state of one attached device.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Delivery {
    window: Window,
    acked: i64,
    /// Sizes of the events behind `acked` that were sent, oldest first.
    in_flight: VecDeque<u32>,
    /// Their sum.
    flight_bytes: u64,
    /// The size of the next event, where it was read and had no room; else 0.
    next_size: u32,
    /// A read of the log is under way: one at a time keeps the order.
    loading: bool,
    generation: u32,
    /// A resync was sent, that named this floor: nothing more is, until the client says where it is.
    quiet: Option<i64>,
    /// Since when the client owes an ack and gave none.
    owes_since: Option<Instant>,
}

impl Delivery {
    /// Events read from the log at once.
    const PAGE: u32 = 128;
    /// Sizes for which memory is kept while nothing is in flight.
    const KEPT: usize = 16;

    /// Starts behind `from`: everything up to it is applied.
    #[must_use]
    pub const fn new(from: i64, window: Window) -> Self {
        Self {
            window,
            acked: from,
            in_flight: VecDeque::new(),
            flight_bytes: 0,
            next_size: 0,
            loading: false,
            generation: 0,
            quiet: None,
            owes_since: None,
        }
    }

    /// Starts with a resync that names `floor`: quiet until the client acks.
    #[must_use]
    pub const fn resyncing(acked: i64, floor: i64, window: Window) -> Self {
        let mut it = Self::new(acked, window);
        it.quiet = Some(floor);
        it
    }

    /// Everything up to here is applied.
    #[must_use]
    pub const fn acked(&self) -> i64 {
        self.acked
    }

    /// Everything up to here was sent.
    #[must_use]
    pub fn sent(&self) -> i64 {
        // A window is a `u32` of events.
        self.acked + i64::try_from(self.in_flight.len()).unwrap_or(i64::MAX)
    }

    /// Bytes of frames that were sent and are not acknowledged.
    #[must_use]
    pub const fn flight_bytes(&self) -> u64 {
        self.flight_bytes
    }

    /// Whether a resync waits for the client's ack.
    #[must_use]
    pub const fn is_quiet(&self) -> bool {
        self.quiet.is_some()
    }

    /// Whether nothing more may be sent before the client acknowledges.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.room() == 0 || !self.fits(self.next_size)
    }

    /// Whether a piece of the log is being read for the device.
    #[must_use]
    pub const fn is_loading(&self) -> bool {
        self.loading
    }

    /// When the client will have owed an ack for `patience`; none while it owes none. A resync may
    /// take the client as long as its reload does.
    #[must_use]
    pub fn overdue_at(&self, patience: Duration) -> Option<Instant> {
        self.owes_since.map(|since| since + patience)
    }

    /// Since when the client owes an ack and gave none; none while it owes none.
    #[must_use]
    pub const fn owes_since(&self) -> Option<Instant> {
        self.owes_since
    }

    /// Time until `now` at the latest did not count for the client.
    pub fn excuse(&mut self, by: Duration, now: Instant) {
        if let Some(since) = &mut self.owes_since {
            *since = (*since + by).min(now);
        }
    }

    /// Whatever the client owed, it owes from `now` on.
    pub fn forgive(&mut self, now: Instant) {
        if let Some(since) = &mut self.owes_since {
            *since = now;
        }
    }

    fn room(&self) -> u32 {
        let in_flight = u32::try_from(self.in_flight.len()).unwrap_or(u32::MAX);
        self.window.events.saturating_sub(in_flight)
    }

    /// Whether reading is worth it: while half of the bytes are in flight, most of what is read
    /// could not be sent; and an event that had no room is not read again until it has.
    fn has_bytes(&self) -> bool {
        let half = self.flight_bytes * 2 <= u64::from(self.window.bytes);
        self.in_flight.is_empty() || (half && self.fits(self.next_size))
    }

    fn fits(&self, size: u32) -> bool {
        self.in_flight.is_empty()
            || planted!(WindowNotRespected)
            || self.room() > 0
                && self.flight_bytes + u64::from(size) <= u64::from(self.window.bytes)
    }

    /// The next piece of the log to read, if one is due. It must be answered by [`Self::loaded`] or
    /// [`Self::load_failed`] before there is another.
    pub fn next_load(&mut self, head: i64) -> Option<Load> {
        let (room, after) = (self.room(), self.sent());
        if self.loading || self.is_quiet() || room == 0 || !self.has_bytes() || after >= head {
            return None;
        }
        self.loading = true;
        Some(Load {
            after,
            limit: room.min(Self::PAGE),
            generation: self.generation,
        })
    }

    /// Takes what `load` read; returns the events to send. `None`: the log has a hole where the
    /// device needs it, so the device must resync.
    pub fn loaded<'e>(
        &mut self,
        now: Instant,
        load: Load,
        events: &'e [WireEvent],
    ) -> Option<&'e [WireEvent]> {
        self.loading = false;
        let sent = self.sent();
        // The client acked or resynced past the read meanwhile.
        let is_late = self.is_quiet() || load.generation != self.generation;
        if (is_late && !planted!(ReadFromBeforeAResync)) || load.after > sent {
            return Some(&[]);
        }
        // A read is asked for only below the head: nothing there means that it is gone.
        if events.is_empty() && load.after == sent {
            return None;
        }
        let start = events.partition_point(|e| e.seq <= sent);
        self.send(now, &events[start..])
    }

    /// A read did not succeed; the next pump asks again.
    pub fn load_failed(&mut self) {
        self.loading = false;
    }

    /// Takes events that were just committed, if the device is exactly before them; what it has no
    /// room for comes by a read. Returns those to send.
    pub fn committed<'e>(&mut self, now: Instant, events: &'e [WireEvent]) -> &'e [WireEvent] {
        let next = self.sent() + 1;
        let quiet = self.is_quiet() && !planted!(EventsAfterAResync);
        if self.loading || quiet || events.first().is_none_or(|e| e.seq != next) {
            return &[];
        }
        self.send(now, events).unwrap_or(&[])
    }

    /// Puts in flight what fits, in order. `None`: there is a hole.
    fn send<'e>(&mut self, now: Instant, events: &'e [WireEvent]) -> Option<&'e [WireEvent]> {
        let whole = (self.sent() + 1..).zip(events).all(|(seq, e)| e.seq == seq);
        if !whole {
            return None;
        }
        let mut taken = 0;
        self.next_size = 0;
        for event in events {
            let size = u32::try_from(event.text.len()).unwrap_or(u32::MAX);
            if !self.fits(size) {
                self.next_size = size;
                break;
            }
            self.in_flight.push_back(size);
            self.flight_bytes += u64::from(size);
            taken += 1;
        }
        if taken > 0 {
            self.owes_since.get_or_insert(now);
        }
        Some(&events[..taken])
    }

    /// The client applied everything up to `up_to`, from here or from elsewhere. Says whether the
    /// cursor moved.
    ///
    /// # Errors
    /// [`AckError::BeyondHead`]: `head` may be older than what the client saw; read it and try again.
    pub fn ack(&mut self, now: Instant, up_to: i64, head: i64) -> Result<bool, AckError> {
        // What was sent before a resync may have been of another life of the log.
        let end = if self.is_quiet() {
            head
        } else {
            head.max(self.sent())
        };
        if up_to > end {
            return Err(AckError::BeyondHead);
        }
        if let Some(floor) = self.quiet {
            // What lies below the floor was said before the resync came: no reload names it.
            if up_to < floor {
                return Ok(false);
            }
            // The position that the client's reload names, which may be behind what was sent. Even
            // where the number is the same, it may be another life's.
            self.quiet = None;
            self.acked = up_to;
            return Ok(true);
        }
        if up_to <= self.acked {
            return Ok(false);
        }
        let newly = usize::try_from(up_to - self.acked).unwrap_or(usize::MAX);
        for size in self.in_flight.drain(..newly.min(self.in_flight.len())) {
            self.flight_bytes -= u64::from(size);
        }
        self.acked = up_to;
        self.owes_since = (!self.in_flight.is_empty()).then_some(now);
        if self.in_flight.is_empty() && self.in_flight.capacity() > Self::KEPT {
            self.in_flight = VecDeque::new();
        }
        Ok(true)
    }

    /// Nothing more is sent until the client says where it is, at `floor` or above: what was in flight
    /// counts no more, and a read that is under way brings nothing. It still has to be answered before
    /// there is another: two could fill the window twice.
    pub fn resync(&mut self, floor: i64) {
        self.quiet = Some(floor);
        self.generation = self.generation.wrapping_add(1);
        self.in_flight = VecDeque::new();
        self.flight_bytes = 0;
        if !planted!(ReloadCountsAsOwing) {
            self.owes_since = None;
        }
    }
}

#[cfg(test)]
mod tests;
