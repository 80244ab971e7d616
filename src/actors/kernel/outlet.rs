//! Pushes to actors outside the kernel, such as a device's connection, which owns a bare socket.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use actix::{Message, Recipient};

/// Something pushed to an actor outside the kernel, such as a connection.
#[derive(Debug)]
pub struct Push<T> {
    /// What.
    pub what: T,
    /// The number of the outlet that it came by: see [`Outlet::new`].
    pub by: u32,
}

impl<T: Send + 'static> Message for Push<T> {
    type Result = ();
}

/// What can be pushed: says how many frames for its receiver's peer are in it.
pub trait Frames: Send + 'static {
    /// Frames that count as unread until the peer's system has them.
    fn frames(&self) -> usize;
}

/// A way to push to an actor outside the kernel. Bounded by what its user allows itself to send.
#[derive(Clone)]
pub struct Outlet<T: Frames> {
    to: Recipient<Push<T>>,
    unread: Arc<AtomicUsize>,
    number: u32,
}

impl<T: Frames> Outlet<T> {
    /// To an actor that takes from `unread` the frames that it has handed on. By `number` it tells
    /// what comes from this outlet from what still comes by one that it gave away before.
    #[must_use]
    pub fn new(to: Recipient<Push<T>>, unread: Arc<AtomicUsize>, number: u32) -> Self {
        Self { to, unread, number }
    }

    /// Pushes `value`; lost when the actor is gone, which it tells by itself.
    pub fn push(&self, what: T) {
        self.unread.fetch_add(what.frames(), Relaxed);
        let by = self.number;
        self.to.do_send(Push { what, by });
    }

    /// Frames that were pushed and are not yet in the system's buffer for the peer.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.unread.load(Relaxed)
    }
}

impl<T: Frames> std::fmt::Debug for Outlet<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outlet")
    }
}
