//! The nodes that serve on this database, and which devices are attached to which of them.
//!
//! `nodes` has a row for each process, which it raises the beats of; what the numbers mean is for
//! `domain/nodes.rs` to judge. `devices.attached_node` is set with the attach epoch
//! (`sync/cursors.rs`) and cleared here, by the connection that set it only.

use std::{collections::HashMap, time::Instant};

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;

use super::{
    Store, StoreError, Tx,
    command::Command,
    error::Failed,
    on_pool, on_tx,
    sync::{CHUNK, rows},
};
use crate::domain::{
    identity::ClientDeviceId,
    ids::{DeviceId, NodeId, UserId},
    nodes::Node,
};

impl Store {
    /// Raises a node's beats, and notes what else it tells of itself; its row is made when it is not
    /// there. Answers all nodes' rows.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn node_beat(&self, deadline: Instant, node: Node) -> Result<Vec<Node>, StoreError> {
        self.write(deadline, Beat(node)).await
    }

    /// Removes the row of a node that stops.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn node_remove(&self, deadline: Instant, node: NodeId) -> Result<(), StoreError> {
        self.write(deadline, Remove(node)).await
    }

    /// Removes the rows of nodes that have not beaten since each had so many beats.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn nodes_forget(
        &self,
        deadline: Instant,
        nodes: HashMap<NodeId, i64>,
    ) -> Result<(), StoreError> {
        self.write(deadline, Forget(nodes)).await
    }

    /// A user's devices that are attached to a node that has a row, each with the node.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn devices_attached(
        &self,
        deadline: Instant,
        user: UserId,
    ) -> Result<Vec<(ClientDeviceId, NodeId)>, StoreError> {
        self.read("devices_attached", deadline, async move |db| {
            Ok(on_pool!(&db, pool => sqlx::query_as(
                "SELECT d.device_id, n.id FROM devices d JOIN nodes n ON n.id = d.attached_node
                 WHERE d.user_id = $1")
                .bind(user).fetch_all(pool).await?))
        })
        .await
    }

    /// The devices that are noted as attached to a node, each with its newest connection.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn devices_of_node(
        &self,
        deadline: Instant,
        node: NodeId,
    ) -> Result<Vec<(DeviceId, i64)>, StoreError> {
        self.read("devices_of_node", deadline, async move |db| {
            Ok(on_pool!(&db, pool => sqlx::query_as(
                "SELECT id, attach_epoch FROM devices WHERE attached_node = $1")
                .bind(node).fetch_all(pool).await?))
        })
        .await
    }

    /// Notes that devices are attached nowhere, as far as the connection that each names is its newest.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn devices_left(
        &self,
        deadline: Instant,
        devices: &[(DeviceId, i64)],
    ) -> Result<(), StoreError> {
        let mut devices = devices.to_vec();
        // Every node goes through devices in one order, against deadlocks.
        devices.sort_unstable();
        for chunk in devices.chunks(CHUNK) {
            self.write(deadline, Left(chunk.to_vec())).await?;
        }
        Ok(())
    }
}

#[derive(sqlx::FromRow)]
struct NodeRow {
    id: NodeId,
    name: String,
    started_at: DateTime<Utc>,
    seen_at: DateTime<Utc>,
    beats: i64,
    sockets: i64,
    users: i64,
    devices: i64,
}

impl From<NodeRow> for Node {
    fn from(row: NodeRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            started_at: row.started_at,
            seen_at: row.seen_at,
            beats: row.beats,
            sockets: row.sockets,
            users: row.users,
            devices: row.devices,
        }
    }
}

struct Beat(Node);

impl Command for Beat {
    const NAME: &'static str = "node_beat";
    type Out = Vec<Node>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Vec<Node>, Failed> {
        let it = &self.0;
        on_tx!(tx, conn => sqlx::query(
            "INSERT INTO nodes (id, name, started_at, seen_at, beats, sockets, users, devices)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, beats = nodes.beats + 1,
                 sockets = excluded.sockets, users = excluded.users, devices = excluded.devices")
            .bind(it.id).bind(&it.name).bind(it.started_at).bind(it.seen_at).bind(it.beats)
            .bind(it.sockets).bind(it.users).bind(it.devices).execute(conn).await?.rows_affected());
        let rows: Vec<NodeRow> = on_tx!(tx, conn => sqlx::query_as(
            "SELECT id, name, started_at, seen_at, beats, sockets, users, devices FROM nodes")
            .fetch_all(conn).await?);
        Ok(rows.into_iter().map(Node::from).collect())
    }
}

struct Remove(NodeId);

impl Command for Remove {
    const NAME: &'static str = "node_remove";
    type Out = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), Failed> {
        on_tx!(tx, conn => sqlx::query("DELETE FROM nodes WHERE id = $1")
            .bind(self.0).execute(conn).await?.rows_affected());
        Ok(())
    }
}

struct Forget(HashMap<NodeId, i64>);

impl Command for Forget {
    const NAME: &'static str = "nodes_forget";
    type Out = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), Failed> {
        for (node, beats) in &self.0 {
            on_tx!(tx, conn => sqlx::query("DELETE FROM nodes WHERE id = $1 AND beats = $2")
                .bind(*node).bind(*beats).execute(conn).await?.rows_affected());
        }
        Ok(())
    }
}

struct Left(Vec<(DeviceId, i64)>);

impl Command for Left {
    const NAME: &'static str = "devices_left";
    type Out = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), Failed> {
        let sql = format!(
            "UPDATE devices SET attached_node = NULL FROM (VALUES {}) AS v
             WHERE devices.id = v.column1 AND devices.attach_epoch = v.column2",
            rows(self.0.len(), 2)
        );
        on_tx!(tx, conn => {
            let mut query = sqlx::query(AssertSqlSafe(sql)).persistent(false);
            for (device, attach_epoch) in &self.0 {
                query = query.bind(*device).bind(*attach_epoch);
            }
            query.execute(conn).await?;
        });
        Ok(())
    }
}
