//! What a user's devices have not acknowledged.

use std::time::Instant;

use chrono::{DateTime, Utc};

use crate::{
    domain::{
        identity::{ClientDeviceId, DeviceName},
        ids::{DeviceId, Epoch, UserId},
        services::{OfflineDevice, OfflineState},
        sync::LogHead,
    },
    store::{Store, StoreError, on_pool},
};

impl Store {
    /// What a user's devices have not acknowledged; `None` when there is no such user.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn offline_state(
        &self,
        deadline: Instant,
        user: UserId,
    ) -> Result<Option<OfflineState>, StoreError> {
        self.read("offline_state", deadline, async move |db| {
            let rows: Vec<Row> = on_pool!(&db, pool => sqlx::query_as(
                "SELECT l.epoch, l.head_seq, l.floor_seq, d.id, d.device_id, d.platform, d.name,
                     d.acked_seq, d.last_active_at,
                     (SELECT e.created_at FROM sync_events e WHERE e.user_id = l.user_id AND e.seq >
                          CASE WHEN d.acked_seq > l.floor_seq THEN d.acked_seq ELSE l.floor_seq END
                      ORDER BY e.seq LIMIT 1) AS oldest_at
                 FROM user_logs l LEFT JOIN devices d ON d.user_id = l.user_id
                 WHERE l.user_id = $1 ORDER BY d.created_at, d.id")
                .bind(user).fetch_all(pool).await?);
            let Some(first) = rows.first() else {
                return Ok(None);
            };
            let log = LogHead {
                epoch: first.epoch,
                head_seq: first.head_seq,
                floor_seq: first.floor_seq,
            };
            let devices = rows.into_iter().filter_map(Row::into_device).collect();
            Ok(Some(OfflineState { log, devices }))
        })
        .await
    }
}

/// The log's ends, beside a device if there is one.
#[derive(sqlx::FromRow)]
struct Row {
    epoch: Epoch,
    head_seq: i64,
    floor_seq: i64,
    id: Option<DeviceId>,
    device_id: Option<ClientDeviceId>,
    platform: Option<String>,
    name: Option<DeviceName>,
    acked_seq: Option<i64>,
    last_active_at: Option<DateTime<Utc>>,
    oldest_at: Option<DateTime<Utc>>,
}

impl Row {
    fn into_device(self) -> Option<OfflineDevice> {
        Some(OfflineDevice {
            id: self.id?,
            device_id: self.device_id?,
            platform: self.platform?,
            name: self.name?,
            acked_seq: self.acked_seq?,
            last_active_at: self.last_active_at?,
            oldest_at: self.oldest_at,
        })
    }
}
