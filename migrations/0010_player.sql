-- What a user listens to, and on which device. The log says who is active; what plays is only here.
CREATE TABLE players (
    user_id       UUID        NOT NULL,
    -- The one device that plays; none: no device does.
    active_device UUID,
    -- The seq of the event that chose it.
    version       BIGINT      NOT NULL,
    -- What it said last, and when that came; none before it said anything.
    playing       JSONB,
    reported_at   TIMESTAMPTZ,
    CONSTRAINT players_pkey PRIMARY KEY (user_id),
    CONSTRAINT players_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT players_active_device_fkey FOREIGN KEY (active_device) REFERENCES devices (id) ON DELETE SET NULL
);
-- For the foreign key: a device that goes must not make the database read every player.
CREATE INDEX players_active_device_idx ON players (active_device);
