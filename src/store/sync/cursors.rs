//! The devices' places in their users' logs, and which connection of a device may move them.
//!
//! `devices.attach_epoch` is raised by each connection that attaches, on any node. Cursors that come
//! from a connection name theirs, and move nothing when the device has attached anew since.

use std::{collections::HashMap, time::Instant};

use sqlx::AssertSqlSafe;

use super::{CHUNK, HeadRow, places, rows};
use crate::{
    domain::{
        ids::{DeviceId, Epoch, NodeId, UserId},
        sync::{Cursor, LogHead, Position},
    },
    store::{Store, StoreError, Tx, command::Command, error::Failed, on_pool, on_tx},
};

/// What a device that attaches starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachState {
    /// The device's durable cursor.
    pub acked_seq: i64,
    /// The device's newest connection: above the one that a caller holds, that one is superseded.
    pub attach_epoch: i64,
    /// The user's log.
    pub log: LogHead,
}

/// A device whose newest connection is not the one that was named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superseded {
    /// The device.
    pub device: DeviceId,
    /// Its newest connection.
    pub attach_epoch: i64,
}

/// How an ack ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CursorAck {
    /// The cursor in force.
    Acked(i64),
    /// The position is beyond this head; nothing changed.
    BeyondHead(i64),
    /// The position is of another life of the log than this one; nothing changed.
    EpochChanged(Epoch),
    /// The user has no such device.
    NoDevice,
}

impl Store {
    /// What a device that attaches starts from; `None` when the user has no such device.
    ///
    /// A new connection, on `node`, holds nothing, and becomes the device's newest. One that `held` an
    /// attach epoch before changes nothing, and sees by the answer whether it still is the newest.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn device_attach(
        &self,
        deadline: Instant,
        user: UserId,
        device: DeviceId,
        held: Option<i64>,
        node: NodeId,
    ) -> Result<Option<AttachState>, StoreError> {
        if held.is_none() {
            return self.write(deadline, Raise { user, device, node }).await;
        }
        self.read("device_attach", deadline, async move |db| {
            let row: Option<CursorRow> = on_pool!(&db, pool => sqlx::query_as(CURSOR)
                .bind(device).bind(user).fetch_optional(pool).await?);
            Ok(row.map(|row| row.state()))
        })
        .await
    }

    /// A device's durable cursor; `None` when the user has no such device.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn device_cursor(
        &self,
        deadline: Instant,
        user: UserId,
        device: DeviceId,
    ) -> Result<Option<i64>, StoreError> {
        self.read("device_cursor", deadline, async move |db| {
            Ok(on_pool!(&db, pool => sqlx::query_scalar(
                "SELECT acked_seq FROM devices WHERE id = $1 AND user_id = $2")
                .bind(device).bind(user).fetch_optional(pool).await?))
        })
        .await
    }

    /// The newest connections of many devices; devices that are gone are left out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn attach_epochs(
        &self,
        deadline: Instant,
        devices: &[DeviceId],
    ) -> Result<Vec<(DeviceId, i64)>, StoreError> {
        let devices = devices.to_vec();
        self.read("attach_epochs", deadline, async move |db| {
            let mut epochs = Vec::with_capacity(devices.len());
            for chunk in devices.chunks(CHUNK) {
                let sql = format!(
                    "SELECT id, attach_epoch FROM devices WHERE id IN ({})",
                    places(chunk.len(), 1)
                );
                let rows: Vec<(DeviceId, i64)> = on_pool!(&db, pool => {
                    let mut query = sqlx::query_as(AssertSqlSafe(sql)).persistent(false);
                    for device in chunk {
                        query = query.bind(*device);
                    }
                    query.fetch_all(pool).await?
                });
                epochs.extend(rows);
            }
            Ok(epochs)
        })
        .await
    }

    /// Moves many devices' cursors, forward only: of each device's newest connection, in the life
    /// that its user's log has, and not beyond the log's head. Others are passed over, and so are
    /// devices that are gone. Says which devices have a newer connection than the one named.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cursors_advance(
        &self,
        deadline: Instant,
        cursors: &[Cursor],
    ) -> Result<Vec<Superseded>, StoreError> {
        // A device named twice would have two rows to be updated from.
        let mut merged: HashMap<DeviceId, Cursor> = HashMap::with_capacity(cursors.len());
        for &cursor in cursors {
            let known = merged.entry(cursor.device).or_insert(cursor);
            *known = known.merged(cursor);
        }
        let mut cursors: Vec<_> = merged.into_values().collect();
        // Every node goes through devices in one order, against deadlocks.
        cursors.sort_unstable_by_key(|cursor| cursor.device);
        let mut superseded = Vec::new();
        for chunk in cursors.chunks(CHUNK) {
            superseded.extend(self.write(deadline, Advance(chunk.to_vec())).await?);
        }
        Ok(superseded)
    }

    /// Moves one device's cursor, forward only, whichever connection it has; durable when it
    /// answers.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cursor_ack(
        &self,
        deadline: Instant,
        user: UserId,
        device: DeviceId,
        position: Position,
    ) -> Result<CursorAck, StoreError> {
        let ack = Ack {
            user,
            device,
            position,
        };
        self.write(deadline, ack).await
    }
}

/// A device's cursor and its user's log.
const CURSOR: &str = "SELECT d.acked_seq, d.attach_epoch, l.user_id, l.epoch, l.head_seq, \
     l.floor_seq FROM devices d JOIN user_logs l ON l.user_id = d.user_id \
     WHERE d.id = $1 AND d.user_id = $2";

#[derive(sqlx::FromRow)]
struct CursorRow {
    acked_seq: i64,
    attach_epoch: i64,
    #[sqlx(flatten)]
    log: HeadRow,
}

impl CursorRow {
    fn state(&self) -> AttachState {
        AttachState {
            acked_seq: self.acked_seq,
            attach_epoch: self.attach_epoch,
            log: self.log.head(),
        }
    }
}

struct Raise {
    user: UserId,
    device: DeviceId,
    node: NodeId,
}

impl Command for Raise {
    const NAME: &'static str = "device_attach";
    type Out = Option<AttachState>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Option<AttachState>, Failed> {
        let raised = on_tx!(tx, conn => sqlx::query(
            "UPDATE devices SET attach_epoch = attach_epoch + 1, attached_node = $3
             WHERE id = $1 AND user_id = $2")
            .bind(self.device).bind(self.user).bind(self.node)
            .execute(conn).await?.rows_affected());
        if raised == 0 {
            return Ok(None);
        }
        // The device's row is held: its cursor cannot move on, so that the log read here reaches it.
        let row: Option<CursorRow> = on_tx!(tx, conn => sqlx::query_as(CURSOR)
            .bind(self.device).bind(self.user).fetch_optional(conn).await?);
        Ok(row.map(|row| row.state()))
    }
}

struct Advance(Vec<Cursor>);

impl Command for Advance {
    const NAME: &'static str = "cursors_advance";
    type Out = Vec<Superseded>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Vec<Superseded>, Failed> {
        let moves = format!(
            "UPDATE devices SET acked_seq = v.column4 FROM (VALUES {}) AS v, user_logs AS l
             WHERE devices.id = v.column1 AND devices.attach_epoch = v.column2
                 AND l.user_id = devices.user_id AND l.epoch = v.column3
                 AND devices.acked_seq < v.column4 AND v.column4 <= l.head_seq",
            rows(self.0.len(), 4)
        );
        on_tx!(tx, conn => {
            // The text varies with the number of rows: kept, it would push others out.
            let mut query = sqlx::query(AssertSqlSafe(moves)).persistent(false);
            for Cursor { device, attach_epoch, position } in &self.0 {
                query = query.bind(*device).bind(*attach_epoch).bind(position.epoch).bind(position.seq);
            }
            query.execute(conn).await?;
        });
        let newer = format!(
            "SELECT d.id, d.attach_epoch FROM (VALUES {}) AS v JOIN devices d ON d.id = v.column1
             WHERE d.attach_epoch > v.column2",
            rows(self.0.len(), 2)
        );
        let found: Vec<(DeviceId, i64)> = on_tx!(tx, conn => {
            let mut query = sqlx::query_as(AssertSqlSafe(newer)).persistent(false);
            for cursor in &self.0 {
                query = query.bind(cursor.device).bind(cursor.attach_epoch);
            }
            query.fetch_all(conn).await?
        });
        let superseded = found.into_iter().map(|(device, attach_epoch)| Superseded {
            device,
            attach_epoch,
        });
        Ok(superseded.collect())
    }
}

struct Ack {
    user: UserId,
    device: DeviceId,
    position: Position,
}

impl Command for Ack {
    const NAME: &'static str = "cursor_ack";
    type Out = CursorAck;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<CursorAck, Failed> {
        let row: Option<CursorRow> = on_tx!(tx, conn => sqlx::query_as(CURSOR)
            .bind(self.device).bind(self.user).fetch_optional(conn).await?);
        let Some(row) = row else {
            return Ok(CursorAck::NoDevice);
        };
        if row.log.epoch != self.position.epoch {
            return Ok(CursorAck::EpochChanged(row.log.epoch));
        }
        if self.position.seq > row.log.head_seq {
            return Ok(CursorAck::BeyondHead(row.log.head_seq));
        }
        if self.position.seq <= row.acked_seq {
            return Ok(CursorAck::Acked(row.acked_seq));
        }
        // Another node may have moved it since it was read.
        let acked: Option<i64> = on_tx!(tx, conn => sqlx::query_scalar(
            "UPDATE devices SET acked_seq = CASE WHEN acked_seq < $2 THEN $2 ELSE acked_seq END
             WHERE id = $1 RETURNING acked_seq")
            .bind(self.device).bind(self.position.seq).fetch_optional(conn).await?);
        Ok(acked.map_or(CursorAck::NoDevice, CursorAck::Acked))
    }
}
