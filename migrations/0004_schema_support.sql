-- One row: the newest migration that a binary must know to run on this schema. A migration that
-- older binaries cannot live with raises it.
CREATE TABLE schema_support (
    id              BIGINT NOT NULL,
    oldest_known    BIGINT NOT NULL,
    CONSTRAINT schema_support_pkey PRIMARY KEY (id),
    CONSTRAINT schema_support_one_row_check CHECK (id = 1)
);
INSERT INTO schema_support (id, oldest_known) VALUES (1, 4);
