//! Tickets that open a socket once.

use std::time::Instant;

use chrono::{DateTime, Utc};

use crate::{
    domain::{
        identity::{Caller, ClientDeviceId},
        ids::{DeviceId, UserId},
    },
    store::{Constraint, Store, StoreError, Tx, command::Command, error::Failed, on_tx},
};

/// A ticket about to be handed out.
#[derive(Debug, Clone)]
pub struct NewTicket {
    /// SHA-256 of it, hexadecimal.
    pub ticket_hash: String,
    /// Whom it speaks for.
    pub caller: Caller,
    /// When it is over.
    pub expires_at: DateTime<Utc>,
}

impl Store {
    /// Keeps a ticket; `false` when its device is gone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ticket_put(
        &self,
        deadline: Instant,
        ticket: NewTicket,
    ) -> Result<bool, StoreError> {
        match self.write(deadline, ticket).await {
            // PostgreSQL: the device went between the look and the row.
            Err(StoreError::Constraint(Constraint::ForeignKey)) => Ok(false),
            result => result,
        }
    }

    /// Uses a ticket up; `None` when it was used, is over, or is another user's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ticket_redeem(
        &self,
        deadline: Instant,
        ticket_hash: &str,
        user: UserId,
        now: DateTime<Utc>,
    ) -> Result<Option<Caller>, StoreError> {
        let redeem = Redeem {
            ticket_hash: ticket_hash.to_owned(),
            user,
            now,
        };
        self.write(deadline, redeem).await
    }
}

impl Command for NewTicket {
    const NAME: &'static str = "ticket_put";
    type Out = bool;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<bool, Failed> {
        let caller = &self.caller;
        let rows = on_tx!(tx, conn => sqlx::query(
            "INSERT INTO sync_tickets
                 (ticket_hash, device, user_version, device_version, token_expires_at, expires_at)
             SELECT $1, d.id, $3, $4, $5, $6 FROM devices d WHERE d.id = $2 AND d.user_id = $7")
            .bind(&self.ticket_hash).bind(caller.device).bind(caller.user_version)
            .bind(caller.device_version).bind(caller.expires_at).bind(self.expires_at)
            .bind(caller.user).execute(conn).await?.rows_affected());
        Ok(rows == 1)
    }
}

struct Redeem {
    ticket_hash: String,
    user: UserId,
    now: DateTime<Utc>,
}

#[derive(sqlx::FromRow)]
struct TicketRow {
    device: DeviceId,
    user_version: i64,
    device_version: i64,
    token_expires_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
}

impl Command for Redeem {
    const NAME: &'static str = "ticket_redeem";
    type Out = Option<Caller>;

    async fn run(&self, tx: &mut Tx<'_>) -> Result<Option<Caller>, Failed> {
        let row: Option<TicketRow> = on_tx!(tx, conn => sqlx::query_as(
            "DELETE FROM sync_tickets WHERE ticket_hash = $1
             RETURNING device, user_version, device_version, token_expires_at, expires_at")
            .bind(&self.ticket_hash).fetch_optional(conn).await?);
        let Some(ticket) = row.filter(|t| t.expires_at > self.now) else {
            return Ok(None);
        };
        let device_id: Option<ClientDeviceId> = on_tx!(tx, conn => sqlx::query_scalar(
            "SELECT device_id FROM devices WHERE id = $1 AND user_id = $2")
            .bind(ticket.device).bind(self.user).fetch_optional(conn).await?);
        Ok(device_id.map(|device_id| Caller {
            user: self.user,
            device: ticket.device,
            device_id,
            user_version: ticket.user_version,
            device_version: ticket.device_version,
            expires_at: ticket.token_expires_at,
        }))
    }
}
