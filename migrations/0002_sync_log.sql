CREATE TABLE user_logs (
    user_id   UUID   NOT NULL,
    -- The log's life: renewed when an older state comes back.
    epoch     UUID   NOT NULL,
    head_seq  BIGINT NOT NULL,
    -- Events up to this one may be gone.
    floor_seq BIGINT NOT NULL,
    CONSTRAINT user_logs_pkey PRIMARY KEY (user_id),
    CONSTRAINT user_logs_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT user_logs_order_check CHECK (floor_seq >= 0 AND head_seq >= floor_seq)
);

CREATE TABLE sync_events (
    user_id          UUID        NOT NULL,
    seq              BIGINT      NOT NULL,
    id               UUID        NOT NULL,
    event_type       TEXT        NOT NULL,
    data             JSONB       NOT NULL,
    origin_device_id TEXT,
    created_at       TIMESTAMPTZ NOT NULL,
    CONSTRAINT sync_events_pkey PRIMARY KEY (user_id, seq),
    CONSTRAINT sync_events_id_key UNIQUE (id),
    CONSTRAINT sync_events_user_id_fkey FOREIGN KEY (user_id) REFERENCES user_logs (user_id) ON DELETE CASCADE,
    CONSTRAINT sync_events_seq_check CHECK (seq > 0)
);
