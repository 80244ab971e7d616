//! What one device has been sent, has acknowledged, and may be sent next.
//!
//! The offline queue of a device is the log behind its cursor, so this core keeps positions, never
//! events: nothing is buffered for a device beyond its window.

use super::event::WireEvent;

/// A piece of the log to be read for a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Events after this one.
    pub after: i64,
    /// At most so many.
    pub limit: u32,
}

/// Why an ack was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckError {
    /// The position is beyond the head that is known here.
    BeyondHead,
}

/// The delivery state of one attached device.
///
/// `acked ≤ sent`, and `sent - acked ≤ window` unless the client named a position itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    window: u32,
    acked: i64,
    sent: i64,
    /// A read of the log is under way: one at a time keeps the order.
    loading: bool,
    /// A resync was sent: nothing more is, until the client says where it is.
    quiet: bool,
}

impl Delivery {
    /// Events read from the log at once.
    const PAGE: u32 = 128;

    /// Starts behind `from`: everything up to it is applied.
    #[must_use]
    pub const fn new(from: i64, window: u32) -> Self {
        Self {
            window,
            acked: from,
            sent: from,
            loading: false,
            quiet: false,
        }
    }

    /// Starts with a resync: quiet until the client acks.
    #[must_use]
    pub const fn resyncing(acked: i64, window: u32) -> Self {
        Self {
            window,
            acked,
            sent: acked,
            loading: false,
            quiet: true,
        }
    }

    /// Everything up to here is applied.
    #[must_use]
    pub const fn acked(&self) -> i64 {
        self.acked
    }

    /// Everything up to here was sent.
    #[must_use]
    pub const fn sent(&self) -> i64 {
        self.sent
    }

    /// Whether a resync waits for the client's ack.
    #[must_use]
    pub const fn is_quiet(&self) -> bool {
        self.quiet
    }

    fn room(&self) -> u32 {
        let in_flight = u32::try_from(self.sent - self.acked).unwrap_or(u32::MAX);
        self.window.saturating_sub(in_flight)
    }

    /// The next piece of the log to read, if one is due. It must be answered by [`Self::loaded`] or
    /// [`Self::load_failed`] before there is another.
    pub fn next_load(&mut self, head: i64) -> Option<Load> {
        let room = self.room();
        if self.loading || self.quiet || room == 0 || self.sent >= head {
            return None;
        }
        self.loading = true;
        Some(Load {
            after: self.sent,
            limit: room.min(Self::PAGE),
        })
    }

    /// Takes events read after `after`; returns those to send. `None`: the log has a hole where the
    /// device needs it, so the device must resync.
    pub fn loaded<'e>(&mut self, after: i64, events: &'e [WireEvent]) -> Option<&'e [WireEvent]> {
        self.loading = false;
        // The client acked or resynced past the read meanwhile.
        if self.quiet || after > self.sent {
            return Some(&[]);
        }
        // A read is asked for only below the head: nothing there means that it is gone.
        if events.is_empty() && after == self.sent {
            return None;
        }
        let start = events.partition_point(|e| e.seq <= self.sent);
        self.send(&events[start..])
    }

    /// A read did not succeed; the next pump asks again.
    pub fn load_failed(&mut self) {
        self.loading = false;
    }

    /// Takes events that were just committed, if the device is exactly before them and has room;
    /// otherwise they come by a read. Returns those to send.
    pub fn committed<'e>(&mut self, events: &'e [WireEvent]) -> &'e [WireEvent] {
        let next = events.first().is_some_and(|e| e.seq == self.sent + 1);
        let fits = u32::try_from(events.len()).is_ok_and(|n| n <= self.room());
        if self.loading || self.quiet || !next || !fits {
            return &[];
        }
        self.send(events).unwrap_or(&[])
    }

    fn send<'e>(&mut self, events: &'e [WireEvent]) -> Option<&'e [WireEvent]> {
        for (expected, event) in (self.sent + 1..).zip(events) {
            if event.seq != expected {
                return None;
            }
        }
        if let Some(last) = events.last() {
            self.sent = last.seq;
        }
        Some(events)
    }

    /// The client applied everything up to `up_to`, from here or from elsewhere. Says whether the
    /// cursor moved.
    ///
    /// # Errors
    /// [`AckError::BeyondHead`]: `head` may be older than what the client saw; read it and try again.
    pub fn ack(&mut self, up_to: i64, head: i64) -> Result<bool, AckError> {
        // What was sent before a resync may have been of another life of the log.
        let end = if self.quiet {
            head
        } else {
            head.max(self.sent)
        };
        if up_to > end {
            return Err(AckError::BeyondHead);
        }
        if self.quiet {
            // The position that the client's reload names, which may be behind what was sent.
            self.quiet = false;
            self.sent = up_to;
            self.acked = up_to;
            // Even where the number is the same, it may be another life's.
            return Ok(true);
        }
        if up_to <= self.acked {
            return Ok(false);
        }
        self.acked = up_to;
        self.sent = self.sent.max(up_to);
        Ok(true)
    }

    /// Nothing more is sent until the client says where it is. A read that is under way still has to
    /// be answered before there is another: two could fill the window twice.
    pub fn resync(&mut self) {
        self.quiet = true;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(seqs: std::ops::RangeInclusive<i64>) -> Vec<WireEvent> {
        seqs.map(|seq| WireEvent {
            seq,
            text: "e".into(),
        })
        .collect()
    }

    #[test]
    fn the_window_stops_sending_and_acks_open_it() {
        let mut d = Delivery::new(0, 2);
        assert_eq!(d.next_load(5), Some(Load { after: 0, limit: 2 }));
        assert_eq!(d.next_load(5), None, "one read at a time");
        assert_eq!(d.loaded(0, &events(1..=2)).map(<[_]>::len), Some(2));
        assert_eq!(d.next_load(5), None);
        assert_eq!(d.ack(1, 5), Ok(true));
        assert_eq!(d.next_load(5), Some(Load { after: 2, limit: 1 }));
    }

    #[test]
    fn a_hole_is_never_sent_over() {
        let mut d = Delivery::new(0, 256);
        d.next_load(9);
        assert_eq!(d.loaded(0, &events(3..=4)), None);
        assert_eq!(d.committed(&events(2..=2)).len(), 0);
    }

    #[test]
    fn a_resync_is_quiet_until_the_ack_and_goes_on_from_it() {
        let mut d = Delivery::resyncing(9, 256);
        assert_eq!(d.next_load(9), None);
        assert_eq!(d.committed(&events(10..=10)).len(), 0);
        assert_eq!(d.ack(11, 10), Err(AckError::BeyondHead));
        assert_eq!(d.ack(8, 10), Ok(true));
        assert_eq!(
            d.next_load(10),
            Some(Load {
                after: 8,
                limit: 128
            })
        );
    }

    #[derive(Debug, Clone)]
    enum Step {
        Commit(u8),
        Pump,
        Answer(u8),
        Fail,
        Ack(u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1..4u8).prop_map(Step::Commit),
            Just(Step::Pump),
            (0..8u8).prop_map(Step::Answer),
            Just(Step::Fail),
            (0..64u16).prop_map(Step::Ack),
        ]
    }

    proptest! {
        /// Whatever happens in whatever order, the client sees each event once, in order, and never
        /// more than a window ahead of its ack.
        #[test]
        fn in_order_once_and_bounded(steps in prop::collection::vec(step(), 0..200)) {
            const WINDOW: u32 = 5;
            let mut d = Delivery::new(0, WINDOW);
            let (mut head, mut applied) = (0_i64, 0_i64);
            let mut reading = None;
            for step in steps {
                let sent: Vec<i64> = match step {
                    Step::Commit(n) => {
                        let new = events(head + 1..=head + i64::from(n));
                        head += i64::from(n);
                        d.committed(&new).iter().map(|e| e.seq).collect()
                    }
                    Step::Pump => {
                        if let Some(load) = d.next_load(head) {
                            prop_assert!(reading.is_none());
                            reading = Some(load);
                        }
                        vec![]
                    }
                    Step::Answer(n) => match reading.take() {
                        Some(load) => {
                            let n = i64::from(n).clamp(1, i64::from(load.limit)).min(head - load.after);
                            let page = events(load.after + 1..=load.after + n);
                            d.loaded(load.after, &page).unwrap().iter().map(|e| e.seq).collect()
                        }
                        None => vec![],
                    },
                    Step::Fail => {
                        if reading.take().is_some() {
                            d.load_failed();
                        }
                        vec![]
                    }
                    Step::Ack(back) => {
                        let up_to = (applied - i64::from(back)).max(0);
                        prop_assert!(d.ack(up_to, head).is_ok());
                        vec![]
                    }
                };
                for seq in sent {
                    prop_assert_eq!(seq, applied + 1);
                    applied = seq;
                }
                prop_assert!(d.sent() - d.acked() <= i64::from(WINDOW));
            }
        }
    }
}
