-- How many of a log's events are from other services, by pieces of 128 places of the log: they must not
-- push a user's own events out. Written under the log's lock only, and deleted as the log is trimmed.
CREATE TABLE service_shares (
    user_id  UUID   NOT NULL,
    -- The places' number divided by 128.
    piece    BIGINT NOT NULL,
    events   BIGINT NOT NULL,
    -- The place of the last of them.
    last_seq BIGINT NOT NULL,
    CONSTRAINT service_shares_pkey PRIMARY KEY (user_id, piece),
    CONSTRAINT service_shares_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT service_shares_events_check CHECK (events > 0)
);

-- Counts of hours that are over are forgotten.
CREATE INDEX service_quotas_hour_idx ON service_quotas (hour);
