use std::collections::{BTreeSet, HashSet};

use super::*;
use crate::store::{Constraint as C, command::Command, error::Failed, on_tx};

on_both!(every_constraint);

/// A statement of no command.
struct Raw(String);

impl Command for Raw {
    const NAME: &'static str = "raw";
    type Out = ();

    async fn run(&self, tx: &mut Tx<'_>) -> Result<(), Failed> {
        let sql = AssertSqlSafe(self.0.clone());
        on_tx!(tx, conn => sqlx::raw_sql(sql).execute(conn).await?.rows_affected());
        Ok(())
    }
}

/// The statement to make a row of: `$id`s are ids, `$now` a time.
const CASES: &[(C, &str)] = &[
    (
        C::UserId,
        "INSERT INTO users VALUES ($a, '+2', 'USER', 1, $now, $now)",
    ),
    (
        C::UserPhone,
        "INSERT INTO users VALUES ($z, '+1', 'USER', 1, $now, $now)",
    ),
    (C::UserRole, "UPDATE users SET role = 'KING'"),
    (
        C::DeviceId,
        "INSERT INTO devices SELECT id, user_id, 'other', platform, name, fingerprint,
        ip_address, refresh_family, refresh_counter, refresh_token_hash, refresh_retry_key_hash,
        refreshed_at, session_version, acked_seq, last_active_at, created_at, attach_epoch,
        attached_node FROM devices",
    ),
    (
        C::DeviceOfUser,
        "INSERT INTO devices SELECT $z, user_id, device_id, platform, name,
        fingerprint, ip_address, refresh_family, refresh_counter, refresh_token_hash,
        refresh_retry_key_hash, refreshed_at, session_version, acked_seq, last_active_at,
        created_at, attach_epoch, attached_node FROM devices",
    ),
    (C::DevicePlatform, "UPDATE devices SET platform = 'fridge'"),
    (C::DeviceAckedSeq, "UPDATE devices SET acked_seq = -1"),
    (C::DeviceAttachEpoch, "UPDATE devices SET attach_epoch = -1"),
    (
        C::SmsCodePhone,
        "INSERT INTO sms_codes VALUES ('+1', 'h', 1, FALSE, $now, $now, $now, 1)",
    ),
    (C::SmsCodeTries, "UPDATE sms_codes SET tries_left = -1"),
    (
        C::TicketHash,
        "INSERT INTO sync_tickets SELECT * FROM sync_tickets",
    ),
    (
        C::RevocationSubject,
        "INSERT INTO revocations SELECT * FROM revocations",
    ),
    (
        C::KeyId,
        "INSERT INTO secret_keys SELECT * FROM secret_keys",
    ),
    (C::KeyPurpose, "UPDATE secret_keys SET purpose = 'doors'"),
    (C::LogUser, "INSERT INTO user_logs SELECT * FROM user_logs"),
    (C::LogOrder, "UPDATE user_logs SET floor_seq = head_seq + 1"),
    (
        C::EventSeq,
        "INSERT INTO sync_events SELECT user_id, seq, $z, event_type, data,
        origin_device_id, created_at FROM sync_events",
    ),
    (
        C::EventId,
        "INSERT INTO sync_events SELECT user_id, seq + 1, id, event_type, data,
        origin_device_id, created_at FROM sync_events",
    ),
    (C::EventSeqPositive, "UPDATE sync_events SET seq = 0"),
    (
        C::FavoriteId,
        "INSERT INTO favorites SELECT id, user_id, type, 'other', version, created_at,
        deleted_at FROM favorites",
    ),
    (
        C::FavoriteOfUser,
        "INSERT INTO favorites SELECT $z, user_id, type, target_id, version,
        created_at, deleted_at FROM favorites",
    ),
    (C::FavoriteType, "UPDATE favorites SET type = 'smell'"),
    (C::PlayId, "INSERT INTO plays SELECT * FROM plays"),
    (C::PlayDuration, "UPDATE plays SET duration = -1"),
    (
        C::HistoryUser,
        "INSERT INTO histories SELECT * FROM histories",
    ),
    (
        C::PlaylistId,
        "INSERT INTO playlists SELECT * FROM playlists",
    ),
    (C::PlaylistSongCount, "UPDATE playlists SET song_count = -1"),
    (
        C::PlaylistEntryId,
        "INSERT INTO playlist_entries SELECT * FROM playlist_entries",
    ),
    (C::PlayerUser, "INSERT INTO players SELECT * FROM players"),
    (
        C::IdempotencyKey,
        "INSERT INTO idempotency_keys SELECT * FROM idempotency_keys",
    ),
    (C::ApiKeyId, "INSERT INTO api_keys SELECT * FROM api_keys"),
    (C::ApiKeyQuota, "UPDATE api_keys SET events_per_hour = 0"),
    (
        C::ServiceQuota,
        "INSERT INTO service_quotas SELECT * FROM service_quotas",
    ),
    (
        C::ServiceQuotaEvents,
        "UPDATE service_quotas SET events = 0",
    ),
    (
        C::ServiceShare,
        "INSERT INTO service_shares SELECT * FROM service_shares",
    ),
    (
        C::ServiceShareEvents,
        "UPDATE service_shares SET events = 0",
    ),
    (
        C::BroadcastId,
        "INSERT INTO broadcasts SELECT * FROM broadcasts",
    ),
    (C::BroadcastState, "UPDATE broadcasts SET state = 'lost'"),
    (C::BroadcastCounts, "UPDATE broadcasts SET skipped = -1"),
    (
        C::JanitorRun,
        "INSERT INTO janitor_runs SELECT * FROM janitor_runs",
    ),
    (C::NodeId, "INSERT INTO nodes SELECT * FROM nodes"),
    (C::NodeBeats, "UPDATE nodes SET beats = 0"),
    (
        C::SchemaSupportId,
        "INSERT INTO schema_support VALUES (1, 1)",
    ),
    (
        C::SchemaSupportOneRow,
        "INSERT INTO schema_support VALUES (2, 1)",
    ),
    (C::ForeignKey, "UPDATE devices SET user_id = $z"),
    (C::ForeignKey, "UPDATE sync_tickets SET device = $z"),
    (C::ForeignKey, "INSERT INTO user_logs VALUES ($z, $z, 0, 0)"),
    (C::ForeignKey, "UPDATE sync_events SET user_id = $z"),
    (C::ForeignKey, "UPDATE favorites SET user_id = $z"),
    (C::ForeignKey, "UPDATE service_quotas SET user_id = $z"),
    (C::ForeignKey, "UPDATE service_quotas SET key_id = $z"),
    (C::ForeignKey, "UPDATE service_shares SET user_id = $z"),
    (C::ForeignKey, "UPDATE broadcasts SET key_id = $z"),
    (C::ForeignKey, "UPDATE plays SET user_id = $z"),
    (C::ForeignKey, "UPDATE players SET user_id = $z"),
    (C::ForeignKey, "UPDATE players SET active_device = $z"),
    (C::ForeignKey, "UPDATE histories SET user_id = $z"),
    (C::ForeignKey, "UPDATE playlists SET user_id = $z"),
    (
        C::ForeignKey,
        "UPDATE playlist_entries SET playlist_id = $z",
    ),
];

const ROWS: &str = "
    INSERT INTO users VALUES ($a, '+1', 'USER', 1, $now, $now);
    INSERT INTO user_logs VALUES ($a, $a, 1, 0);
    INSERT INTO devices VALUES ($a, $a, 'd', 'ios', 'n', '{}', NULL, $a, 0, NULL, NULL, $now, 1, 0,
        $now, $now, 0, NULL);
    INSERT INTO nodes VALUES ($a, 'n', $now, $now, 1, 0, 0, 0);
    INSERT INTO sms_codes VALUES ('+1', 'h', 1, FALSE, $now, $now, $now, 1);
    INSERT INTO sync_tickets VALUES ('h', $a, 1, 1, $now, $now);
    INSERT INTO revocations VALUES ($a, 1, $now, $now);
    INSERT INTO secret_keys VALUES ('k', 'root', 's', $now);
    INSERT INTO sync_events VALUES ($a, 1, $a, 'x', '{}', NULL, $now);
    INSERT INTO favorites VALUES ($a, $a, 'song', 's', 1, $now, NULL);
    INSERT INTO plays VALUES ($a, $a, 's', 'n', 'a', 1, $now, 1, NULL);
    INSERT INTO histories VALUES ($a, $now);
    INSERT INTO playlists VALUES ($a, $a, 'n', NULL, FALSE, 1, 1, $now, $now, NULL);
    INSERT INTO playlist_entries VALUES ($a, $a, 's', 1, $now);
    INSERT INTO players VALUES ($a, $a, 1, NULL, NULL);
    INSERT INTO idempotency_keys VALUES ($a, 'h', 'h', '{}', $now);
    INSERT INTO janitor_runs VALUES ('j', $now, $now, $now, NULL, '{}', NULL);
    INSERT INTO api_keys VALUES ($a, 'n', 'h', '[]', NULL, $now, NULL);
    INSERT INTO service_quotas VALUES ($a, $a, 1, 1);
    INSERT INTO service_shares VALUES ($a, 0, 1, 1);
    INSERT INTO broadcasts VALUES ($a, $a, 'x', '{}', '{}', 'waiting', $a, $a, 0, 0, 0, NULL, $now,
        $now, NULL, NULL);";

async fn every_constraint(bed: &Bed) {
    let (open, close) = match bed.store.engine() {
        Engine::Sqlite => ("X'", "'"),
        Engine::Postgres => ("'", "'::uuid"),
    };
    let id = |c: &str| format!("{open}{}{close}", c.repeat(32));
    let fill = |sql: &str| {
        sql.replace("$now", "'2026-11-20T10:00:00+00:00'")
            .replace("$a", &id("a"))
            .replace("$z", &id("b"))
    };
    let run = async |sql: &str| bed.store.write(bed.soon(), Raw(fill(sql))).await;
    run(ROWS).await.unwrap();
    for (constraint, sql) in CASES {
        assert_eq!(
            run(sql).await,
            Err(StoreError::Constraint(*constraint)),
            "{sql}"
        );
    }
    let provoked: HashSet<_> = CASES.iter().map(|case| case.0).collect();
    for (constraint, name) in C::names() {
        assert!(provoked.contains(&constraint), "{name} is not provoked");
    }
    if let Db::Postgres(pool) = &bed.store.inner.db {
        let stored: Vec<(String, bool)> = sqlx::query_as(
            "SELECT conname::text, contype = 'f' FROM pg_constraint c
             JOIN pg_class t ON t.oid = c.conrelid
             WHERE c.connamespace = 'public'::regnamespace AND t.relname <> '_sqlx_migrations'",
        )
        .fetch_all(pool)
        .await
        .unwrap();
        let foreign = stored.iter().filter(|row| row.1).count();
        let provoked = CASES.iter().filter(|case| case.0 == C::ForeignKey).count();
        assert_eq!(foreign, provoked, "a foreign key is not provoked");
        let stored: BTreeSet<_> = stored
            .iter()
            .filter(|row| !row.1)
            .map(|row| row.0.as_str())
            .collect();
        let table: BTreeSet<_> = C::names().map(|row| row.1).collect();
        assert_eq!(
            stored, table,
            "the table of constraints is not the schema's"
        );
    }
}
