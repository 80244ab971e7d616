CREATE TABLE favorites (
    id         UUID        NOT NULL,
    user_id    UUID        NOT NULL,
    type       TEXT        NOT NULL,
    target_id  TEXT        NOT NULL,
    -- The seq of the event that changed it last.
    version    BIGINT      NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    deleted_at TIMESTAMPTZ,
    CONSTRAINT favorites_pkey PRIMARY KEY (id),
    CONSTRAINT favorites_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT favorites_user_id_type_target_id_key UNIQUE (user_id, type, target_id),
    CONSTRAINT favorites_type_check CHECK (type IN ('song', 'album', 'artist', 'mv'))
);
CREATE INDEX favorites_newest_idx ON favorites (user_id, created_at, id) WHERE deleted_at IS NULL;
