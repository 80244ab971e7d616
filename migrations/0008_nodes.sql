-- The nodes that serve on this database. Each raises its beats once a second, and the others watch the
-- number move: no clock of one machine is ever compared with another's. seen_at is for people.
CREATE TABLE nodes (
    id         UUID        NOT NULL,
    name       TEXT        NOT NULL,
    started_at TIMESTAMPTZ NOT NULL,
    seen_at    TIMESTAMPTZ NOT NULL,
    beats      BIGINT      NOT NULL,
    -- Sockets, users with a device attached, and such devices, as of the last beat.
    sockets    BIGINT      NOT NULL,
    users      BIGINT      NOT NULL,
    devices    BIGINT      NOT NULL,
    CONSTRAINT nodes_pkey PRIMARY KEY (id),
    CONSTRAINT nodes_beats_check CHECK (beats > 0)
);

-- Where the device's newest connection is: set with the attach epoch that it has, and cleared when it
-- ends. No foreign key: a node that died has no row any more, and its devices are attached nowhere.
ALTER TABLE devices ADD COLUMN attached_node UUID;
CREATE INDEX devices_attached_node_idx ON devices (attached_node) WHERE attached_node IS NOT NULL;
