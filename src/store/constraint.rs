//! The table of named constraints.
//!
//! Owns the mapping from what each engine says to one closed enum. SQLite names the columns of a
//! violated key, not the key; the tests provoke every row on both engines and compare the table
//! with `pg_constraint`, so that a new constraint cannot be forgotten.

use sqlx::error::DatabaseError;

/// How SQLite reports a violation.
#[derive(Debug, Clone, Copy)]
enum Report {
    /// `UNIQUE constraint failed: ` and these columns.
    Columns(&'static str),
    /// `CHECK constraint failed: ` and the constraint's name.
    Name,
}

macro_rules! constraints {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $report:expr;)+) => {
        /// A constraint of the schema.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Constraint {
            $($(#[$doc])* $variant,)+
            /// Some foreign key: SQLite does not say which.
            ForeignKey,
        }

        /// Every named constraint but the foreign keys.
        const TABLE: &[(Constraint, &str, Report)] = &[
            $((Constraint::$variant, $name, $report),)+
        ];
    };
}

constraints! {
    /// A user's id.
    UserId = "users_pkey", Report::Columns("users.id");
    /// One user a phone.
    UserPhone = "users_phone_key", Report::Columns("users.phone");
    /// Roles.
    UserRole = "users_role_check", Report::Name;
    /// A device's id.
    DeviceId = "devices_pkey", Report::Columns("devices.id");
    /// One row a device of a user.
    DeviceOfUser = "devices_user_id_device_id_key", Report::Columns("devices.user_id, devices.device_id");
    /// Platforms.
    DevicePlatform = "devices_platform_check", Report::Name;
    /// Cursors are not negative.
    DeviceAckedSeq = "devices_acked_seq_check", Report::Name;
    /// Attach epochs are not negative.
    DeviceAttachEpoch = "devices_attach_epoch_check", Report::Name;
    /// One code a phone.
    SmsCodePhone = "sms_codes_pkey", Report::Columns("sms_codes.phone");
    /// Tries are not negative.
    SmsCodeTries = "sms_codes_tries_left_check", Report::Name;
    /// A ticket's hash.
    TicketHash = "sync_tickets_pkey", Report::Columns("sync_tickets.ticket_hash");
    /// One revocation a subject.
    RevocationSubject = "revocations_pkey", Report::Columns("revocations.subject");
    /// A key's id.
    KeyId = "secret_keys_pkey", Report::Columns("secret_keys.kid");
    /// What keys are for.
    KeyPurpose = "secret_keys_purpose_check", Report::Name;
    /// One log a user.
    LogUser = "user_logs_pkey", Report::Columns("user_logs.user_id");
    /// A log's ends are in order.
    LogOrder = "user_logs_order_check", Report::Name;
    /// One event a place.
    EventSeq = "sync_events_pkey", Report::Columns("sync_events.user_id, sync_events.seq");
    /// An event's id.
    EventId = "sync_events_id_key", Report::Columns("sync_events.id");
    /// Places start at 1.
    EventSeqPositive = "sync_events_seq_check", Report::Name;
    /// A favorite's id.
    FavoriteId = "favorites_pkey", Report::Columns("favorites.id");
    /// One favorite a thing.
    FavoriteOfUser = "favorites_user_id_type_target_id_key",
        Report::Columns("favorites.user_id, favorites.type, favorites.target_id");
    /// Kinds of things.
    FavoriteType = "favorites_type_check", Report::Name;
    /// One play an id of its user.
    PlayId = "plays_pkey", Report::Columns("plays.user_id, plays.id");
    /// Durations are not negative.
    PlayDuration = "plays_duration_check", Report::Name;
    /// One clearing a user.
    HistoryUser = "histories_pkey", Report::Columns("histories.user_id");
    /// A playlist's id.
    PlaylistId = "playlists_pkey", Report::Columns("playlists.id");
    /// Counts are not negative.
    PlaylistSongCount = "playlists_song_count_check", Report::Name;
    /// An entry's id in its playlist.
    PlaylistEntryId = "playlist_entries_pkey",
        Report::Columns("playlist_entries.playlist_id, playlist_entries.id");
    /// One player a user.
    PlayerUser = "players_pkey", Report::Columns("players.user_id");
    /// One answer a key of its owner.
    IdempotencyKey = "idempotency_keys_pkey",
        Report::Columns("idempotency_keys.owner, idempotency_keys.key_hash");
    /// One run a moment of a job.
    JanitorRun = "janitor_runs_pkey",
        Report::Columns("janitor_runs.job, janitor_runs.due_at");
    /// A service's key.
    ApiKeyId = "api_keys_pkey", Report::Columns("api_keys.id");
    /// A quota is not nothing.
    ApiKeyQuota = "api_keys_events_per_hour_check", Report::Name;
    /// One count a user and key.
    ServiceQuota = "service_quotas_pkey",
        Report::Columns("service_quotas.user_id, service_quotas.key_id");
    /// A count counts something.
    ServiceQuotaEvents = "service_quotas_events_check", Report::Name;
    /// One count a piece of a log.
    ServiceShare = "service_shares_pkey",
        Report::Columns("service_shares.user_id, service_shares.piece");
    /// A count counts something.
    ServiceShareEvents = "service_shares_events_check", Report::Name;
    /// A broadcast's id.
    BroadcastId = "broadcasts_pkey", Report::Columns("broadcasts.id");
    /// States.
    BroadcastState = "broadcasts_state_check", Report::Name;
    /// Counts are not negative.
    BroadcastCounts = "broadcasts_counts_check", Report::Name;
    /// A node's id.
    NodeId = "nodes_pkey", Report::Columns("nodes.id");
    /// Beats are counted from 1.
    NodeBeats = "nodes_beats_check", Report::Name;
    /// The one row's id.
    SchemaSupportId = "schema_support_pkey", Report::Columns("schema_support.id");
    /// One row.
    SchemaSupportOneRow = "schema_support_one_row_check", Report::Name;
}

impl Constraint {
    /// Which constraint the database says was violated, if any.
    pub(super) fn of(e: &dyn DatabaseError) -> Option<Self> {
        if e.is_foreign_key_violation() {
            return Some(Self::ForeignKey);
        }
        match e.constraint() {
            Some(name) => Self::named(name),
            None => Self::reported(e.message()),
        }
    }

    /// By PostgreSQL's name.
    fn named(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// By SQLite's message.
    fn reported(message: &str) -> Option<Self> {
        if let Some(columns) = message.strip_prefix("UNIQUE constraint failed: ") {
            TABLE
                .iter()
                .find(|row| matches!(row.2, Report::Columns(c) if c == columns))
                .map(|row| row.0)
        } else {
            Self::named(message.strip_prefix("CHECK constraint failed: ")?)
        }
    }

    /// Every constraint's name in PostgreSQL but the foreign keys'.
    #[cfg(test)]
    pub(super) fn names() -> impl Iterator<Item = (Self, &'static str)> {
        TABLE.iter().map(|row| (row.0, row.1))
    }
}
