-- Other services: who they are, how much each may put into a user's log, and what they tell many users.

CREATE TABLE api_keys (
    id              UUID        NOT NULL,
    name            TEXT        NOT NULL,
    -- SHA-256 of the whole key, which is long and random.
    hash            TEXT        NOT NULL,
    -- An array of names.
    scopes          JSONB       NOT NULL,
    -- Events of a user and hour; none: what the settings say.
    events_per_hour BIGINT,
    created_at      TIMESTAMPTZ NOT NULL,
    revoked_at      TIMESTAMPTZ,
    CONSTRAINT api_keys_pkey PRIMARY KEY (id),
    CONSTRAINT api_keys_events_per_hour_check CHECK (events_per_hour > 0)
);

-- What a service appended to a user's log in its last hour. Written under the log's lock only.
CREATE TABLE service_quotas (
    user_id UUID   NOT NULL,
    key_id  UUID   NOT NULL,
    -- Hours since 1970.
    hour    BIGINT NOT NULL,
    events  BIGINT NOT NULL,
    CONSTRAINT service_quotas_pkey PRIMARY KEY (user_id, key_id),
    CONSTRAINT service_quotas_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT service_quotas_key_id_fkey FOREIGN KEY (key_id) REFERENCES api_keys (id) ON DELETE CASCADE,
    CONSTRAINT service_quotas_events_check CHECK (events > 0)
);

CREATE TABLE broadcasts (
    id          UUID        NOT NULL,
    key_id      UUID        NOT NULL,
    event_type  TEXT        NOT NULL,
    data        JSONB       NOT NULL,
    segment     JSONB       NOT NULL,
    state       TEXT        NOT NULL,
    -- The greatest id of a user when it was asked for: who came later is not meant.
    last_user   UUID        NOT NULL,
    -- Everybody up to this id was dealt with. Moved in the transaction that appends the events.
    position    UUID        NOT NULL,
    reached     BIGINT      NOT NULL,
    skipped     BIGINT      NOT NULL,
    missing     BIGINT      NOT NULL,
    -- The node that works at it, until when. It only keeps others from doing the same for nothing.
    lease_owner TEXT,
    lease_until TIMESTAMPTZ NOT NULL,
    created_at  TIMESTAMPTZ NOT NULL,
    started_at  TIMESTAMPTZ,
    finished_at TIMESTAMPTZ,
    CONSTRAINT broadcasts_pkey PRIMARY KEY (id),
    CONSTRAINT broadcasts_key_id_fkey FOREIGN KEY (key_id) REFERENCES api_keys (id) ON DELETE CASCADE,
    CONSTRAINT broadcasts_state_check CHECK (state IN ('waiting', 'running', 'finished', 'cancelled')),
    CONSTRAINT broadcasts_counts_check CHECK (reached >= 0 AND skipped >= 0 AND missing >= 0)
);
CREATE INDEX broadcasts_unfinished_idx ON broadcasts (lease_until) WHERE finished_at IS NULL;
CREATE INDEX broadcasts_newest_idx ON broadcasts (key_id, created_at, id);
CREATE INDEX broadcasts_finished_at_idx ON broadcasts (finished_at);
