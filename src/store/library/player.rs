//! The player: which device is active, and what it said last.
//!
//! Which device is active changes with an event, in one transaction. What plays is stored beside the
//! log, when its session says so.

use std::time::Instant;

use chrono::{DateTime, Utc};
use sqlx::types::Json;

use crate::{
    domain::{
        identity::ClientDeviceId,
        ids::{DeviceId, UserId},
        library::{AHEAD, LibraryEvent, Player, Playing, Reported},
        sync::LogHead,
    },
    store::{
        Issued, Store, StoreError, Tx, Written,
        command::Command,
        error::Failed,
        on_pool, on_tx,
        sync::{HeadRow, OpenLog},
    },
};

/// Another device is to be active.
#[derive(Debug, Clone)]
pub struct ActivatePlayer {
    /// Who asks.
    pub issued: Issued,
    /// Which device; none: no device.
    pub device: Option<ClientDeviceId>,
    /// What plays, as the session heard last, if it heard of it after the store.
    pub latest: Option<Reported>,
}

/// What became of [`ActivatePlayer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlayerActivation {
    /// So it is, now or before.
    Active(Player),
    /// The user has no such device.
    NoDevice,
}

impl Store {
    /// Makes a device the one that plays. One that is active already stays so, without an event.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn player_activate(
        &self,
        deadline: Instant,
        command: ActivatePlayer,
    ) -> Result<Written<PlayerActivation>, StoreError> {
        self.write(deadline, command).await
    }

    /// Keeps what the active device said, unless another one became active after `version` or
    /// something newer is kept. What is kept is not newer if its time is far ahead of `now`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn player_report(
        &self,
        deadline: Instant,
        user: UserId,
        version: i64,
        state: Reported,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let report = Report {
            user,
            version,
            state,
            believed: now + AHEAD,
        };
        self.write(deadline, report).await
    }

    /// The player, and the log's ends at the same moment; `None` when there is no such user.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn player_fetch(
        &self,
        deadline: Instant,
        user: UserId,
    ) -> Result<Option<(LogHead, Player)>, StoreError> {
        #[derive(sqlx::FromRow)]
        struct Row {
            #[sqlx(flatten)]
            head: HeadRow,
            #[sqlx(flatten)]
            player: PlayerRow,
        }
        self.read("player_fetch", deadline, async move |db| {
            let row: Option<Row> = on_pool!(&db, pool => sqlx::query_as(
                "SELECT l.user_id, l.epoch, l.head_seq, l.floor_seq,
                     d.device_id AS active_device_id, p.version, p.playing, p.reported_at
                 FROM user_logs l
                 LEFT JOIN players p ON p.user_id = l.user_id
                 LEFT JOIN devices d ON d.id = p.active_device
                 WHERE l.user_id = $1")
                .bind(user).fetch_optional(pool).await?);
            Ok(row.map(|row| (row.head.head(), row.player.into_player())))
        })
        .await
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct PlayerRow {
    active_device_id: Option<ClientDeviceId>,
    version: Option<i64>,
    playing: Option<Json<Playing>>,
    reported_at: Option<DateTime<Utc>>,
}

impl PlayerRow {
    /// Where there is no row, nothing ever played.
    pub(super) fn into_player(self) -> Player {
        let state = self.playing.zip(self.reported_at);
        Player {
            active_device_id: self.active_device_id,
            version: self.version.unwrap_or(0),
            state: state.map(|(Json(playing), reported_at)| Reported {
                playing,
                reported_at,
            }),
        }
    }
}

/// The player of a user whose log is locked.
async fn player_row(tx: &mut Tx<'_>, user: UserId) -> Result<Player, Failed> {
    let row: Option<PlayerRow> = on_tx!(tx, conn => sqlx::query_as(
        "SELECT d.device_id AS active_device_id, p.version, p.playing, p.reported_at
         FROM players p LEFT JOIN devices d ON d.id = p.active_device WHERE p.user_id = $1")
        .bind(user).fetch_optional(conn).await?);
    Ok(row.map(PlayerRow::into_player).unwrap_or_default())
}

impl Command for ActivatePlayer {
    const NAME: &'static str = "player_activate";
    type Out = Written<PlayerActivation>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Self::Out, Failed> {
        let user = self.issued.user;
        let mut log = OpenLog::lock(tx, &self.issued).await?;
        let active: Option<DeviceId> = match &self.device {
            None => None,
            Some(name) => {
                let found: Option<DeviceId> = on_tx!(tx, conn => sqlx::query_scalar(
                    "SELECT id FROM devices WHERE user_id = $1 AND device_id = $2")
                    .bind(user).bind(name).fetch_optional(conn).await?);
                if found.is_none() {
                    return log.close(tx, PlayerActivation::NoDevice).await;
                }
                found
            }
        };
        let mut player = player_row(tx, user).await?;
        if player.active_device_id == self.device {
            return log.close(tx, PlayerActivation::Active(player)).await;
        }
        if let Some(latest) = &self.latest
            && latest.is_after(player.state.as_ref(), self.issued.now)
        {
            player.state = Some(latest.clone());
        }
        let event = player.activate(self.device.clone(), log.next_seq());
        log.append(&LibraryEvent::PlayerActivated(event))?;
        let state = player.state.as_ref();
        on_tx!(tx, conn => sqlx::query(
            "INSERT INTO players (user_id, active_device, version, playing, reported_at)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (user_id) DO UPDATE SET active_device = excluded.active_device,
                 version = excluded.version, playing = excluded.playing,
                 reported_at = excluded.reported_at")
            .bind(user).bind(active).bind(player.version)
            .bind(state.map(|it| Json(&it.playing))).bind(state.map(|it| it.reported_at))
            .execute(conn).await.map(|_| ())?);
        log.close(tx, PlayerActivation::Active(player)).await
    }

    fn committed(out: &mut Self::Out, at: Instant) {
        out.committed_at = Some(at);
    }
}

/// No device is active any more if it was `device`, which is about to be removed.
pub(in crate::store) async fn player_release(
    tx: &mut Tx<'_>,
    log: &mut OpenLog<'_>,
    user: UserId,
    device: DeviceId,
) -> Result<(), Failed> {
    let was_active = on_tx!(tx, conn => sqlx::query(
        "UPDATE players SET active_device = NULL, version = $3
         WHERE user_id = $1 AND active_device = $2")
        .bind(user).bind(device).bind(log.next_seq()).execute(conn).await?.rows_affected());
    if was_active > 0 {
        let mut player = player_row(tx, user).await?;
        let event = player.activate(None, log.next_seq());
        log.append(&LibraryEvent::PlayerActivated(event))?;
    }
    Ok(())
}

struct Report {
    user: UserId,
    version: i64,
    state: Reported,
    /// A time after this is that of a clock that was wrong.
    believed: DateTime<Utc>,
}

impl Command for Report {
    const NAME: &'static str = "player_report";
    type Out = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), Failed> {
        on_tx!(tx, conn => sqlx::query(
            "UPDATE players SET playing = $3, reported_at = $4
             WHERE user_id = $1 AND version = $2
                 AND (reported_at IS NULL OR reported_at < $4 OR reported_at > $5)")
            .bind(self.user).bind(self.version).bind(Json(&self.state.playing))
            .bind(self.state.reported_at).bind(self.believed).execute(conn).await.map(|_| ())?);
        Ok(())
    }
}
