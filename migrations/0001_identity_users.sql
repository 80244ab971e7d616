-- Both engines run these files: only types, defaults and clauses that both take.
-- Constraints are named; src/store/constraint.rs maps each to a domain error.

CREATE TABLE users (
    id            UUID        NOT NULL,
    phone         TEXT        NOT NULL,
    role          TEXT        NOT NULL,
    token_version BIGINT      NOT NULL,
    created_at    TIMESTAMPTZ NOT NULL,
    updated_at    TIMESTAMPTZ NOT NULL,
    CONSTRAINT users_pkey PRIMARY KEY (id),
    CONSTRAINT users_phone_key UNIQUE (phone),
    CONSTRAINT users_role_check CHECK (role IN ('USER', 'ADMIN', 'SUPER_ADMIN'))
);

CREATE TABLE devices (
    id                     UUID        NOT NULL,
    user_id                UUID        NOT NULL,
    -- Made by the client; unique within its user.
    device_id              TEXT        NOT NULL,
    platform               TEXT        NOT NULL,
    name                   TEXT        NOT NULL,
    fingerprint            JSONB       NOT NULL,
    ip_address             TEXT,
    -- The newest refresh token's place, and SHA-256 of it; no hash: signed out.
    refresh_family         UUID        NOT NULL,
    refresh_counter        BIGINT      NOT NULL,
    refresh_token_hash     TEXT,
    refresh_retry_key_hash TEXT,
    -- When the newest pair was made: with it the pair can be made again.
    refreshed_at           TIMESTAMPTZ NOT NULL,
    session_version        BIGINT      NOT NULL,
    -- The durable cursor: everything up to it is acknowledged.
    acked_seq              BIGINT      NOT NULL,
    last_active_at         TIMESTAMPTZ NOT NULL,
    created_at             TIMESTAMPTZ NOT NULL,
    CONSTRAINT devices_pkey PRIMARY KEY (id),
    CONSTRAINT devices_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT devices_user_id_device_id_key UNIQUE (user_id, device_id),
    CONSTRAINT devices_platform_check CHECK (platform IN ('ios', 'android', 'web', 'desktop', 'tv')),
    CONSTRAINT devices_acked_seq_check CHECK (acked_seq >= 0)
);

CREATE TABLE sms_codes (
    phone      TEXT        NOT NULL,
    code_hash  TEXT        NOT NULL,
    tries_left BIGINT      NOT NULL,
    used       BOOLEAN     NOT NULL,
    sent_at    TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    -- How many codes were sent since when: every code has new tries, so their number is limited.
    counted_since TIMESTAMPTZ NOT NULL,
    sent_count    BIGINT      NOT NULL,
    CONSTRAINT sms_codes_pkey PRIMARY KEY (phone),
    CONSTRAINT sms_codes_tries_left_check CHECK (tries_left >= 0)
);

CREATE TABLE sync_tickets (
    ticket_hash      TEXT        NOT NULL,
    device           UUID        NOT NULL,
    user_version     BIGINT      NOT NULL,
    device_version   BIGINT      NOT NULL,
    token_expires_at TIMESTAMPTZ NOT NULL,
    expires_at       TIMESTAMPTZ NOT NULL,
    CONSTRAINT sync_tickets_pkey PRIMARY KEY (ticket_hash),
    CONSTRAINT sync_tickets_device_fkey FOREIGN KEY (device) REFERENCES devices (id) ON DELETE CASCADE
);
CREATE INDEX sync_tickets_expires_at_idx ON sync_tickets (expires_at);
-- For the cascade: a device that goes must not make the database read every ticket.
CREATE INDEX sync_tickets_device_idx ON sync_tickets (device);

-- Tokens of a user or a device below min_version are refused. No foreign key: it outlives its device.
CREATE TABLE revocations (
    subject     UUID        NOT NULL,
    min_version BIGINT      NOT NULL,
    revoked_at  TIMESTAMPTZ NOT NULL,
    expires_at  TIMESTAMPTZ NOT NULL,
    CONSTRAINT revocations_pkey PRIMARY KEY (subject)
);
CREATE INDEX revocations_revoked_at_idx ON revocations (revoked_at);

-- Keys, sealed under the master key, which never enters the database.
CREATE TABLE secret_keys (
    kid        TEXT        NOT NULL,
    purpose    TEXT        NOT NULL,
    sealed     TEXT        NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    CONSTRAINT secret_keys_pkey PRIMARY KEY (kid),
    CONSTRAINT secret_keys_purpose_check CHECK (purpose IN ('access_token', 'root'))
);
