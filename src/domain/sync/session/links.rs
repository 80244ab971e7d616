//! What the core knows of each connection, for people who look.

use std::time::Instant;

use super::{Delivery, SessionCore};
use crate::domain::ids::{ConnId, DeviceId};

/// An attached device's connection.
#[derive(Debug, Clone, Copy)]
pub struct LinkState<'c> {
    /// The connection.
    pub conn: ConnId,
    /// The device.
    pub device: DeviceId,
    /// The connection's place among those of its device.
    pub attach_epoch: i64,
    /// What was sent and acknowledged.
    pub delivery: &'c Delivery,
    /// When the client was last heard.
    pub last_heard: Instant,
}

impl SessionCore {
    /// Every attached device's connection.
    pub fn links(&self) -> impl Iterator<Item = LinkState<'_>> {
        self.links.iter().map(|(conn, link)| LinkState {
            conn: *conn,
            device: link.device,
            attach_epoch: link.attach_epoch,
            delivery: &link.delivery,
            last_heard: link.last_heard,
        })
    }
}
