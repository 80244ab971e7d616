-- What a user played. The newest 500 in force are kept.
CREATE TABLE plays (
    user_id     UUID        NOT NULL,
    -- Made by the client, so that a repeat changes nothing.
    id          UUID        NOT NULL,
    song_id     TEXT        NOT NULL,
    -- Kept here, so that the history can be shown without the catalogue.
    song_name   TEXT        NOT NULL,
    artist_name TEXT        NOT NULL,
    -- Seconds that were played.
    duration    BIGINT      NOT NULL,
    played_at   TIMESTAMPTZ NOT NULL,
    -- The seq of the event that changed it last.
    version     BIGINT      NOT NULL,
    -- A play that was deleted stays for a while: a late repeat must not bring it back.
    deleted_at  TIMESTAMPTZ,
    CONSTRAINT plays_pkey PRIMARY KEY (user_id, id),
    CONSTRAINT plays_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT plays_duration_check CHECK (duration >= 0)
);
CREATE INDEX plays_newest_idx ON plays (user_id, played_at, id) WHERE deleted_at IS NULL;
CREATE INDEX plays_removed_idx ON plays (user_id, deleted_at, id) WHERE deleted_at IS NOT NULL;

-- One row for each user who ever cleared the history.
CREATE TABLE histories (
    user_id    UUID        NOT NULL,
    -- Plays that are not newer than this are ignored when they come late.
    cleared_at TIMESTAMPTZ NOT NULL,
    CONSTRAINT histories_pkey PRIMARY KEY (user_id),
    CONSTRAINT histories_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
);

CREATE TABLE playlists (
    id         UUID        NOT NULL,
    user_id    UUID        NOT NULL,
    name       TEXT        NOT NULL,
    cover_url  TEXT,
    is_public  BOOLEAN     NOT NULL,
    -- As many as it has rows in playlist_entries.
    song_count BIGINT      NOT NULL,
    -- The seq of the event that changed it last: what If-Match is compared with.
    version    BIGINT      NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    deleted_at TIMESTAMPTZ,
    CONSTRAINT playlists_pkey PRIMARY KEY (id),
    CONSTRAINT playlists_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT playlists_song_count_check CHECK (song_count >= 0)
);
CREATE INDEX playlists_newest_idx ON playlists (user_id, created_at, id);

-- A song may stand twice in a playlist, so each place has an id of its own.
CREATE TABLE playlist_entries (
    playlist_id UUID        NOT NULL,
    id          UUID        NOT NULL,
    song_id     TEXT        NOT NULL,
    -- The order, with gaps; nobody outside sees it. Not unique: a piece of a playlist is spread
    -- anew in one statement, in which ranks cross for a moment.
    rank        BIGINT      NOT NULL,
    added_at    TIMESTAMPTZ NOT NULL,
    CONSTRAINT playlist_entries_pkey PRIMARY KEY (playlist_id, id),
    CONSTRAINT playlist_entries_playlist_id_fkey FOREIGN KEY (playlist_id) REFERENCES playlists (id) ON DELETE CASCADE
);
CREATE INDEX playlist_entries_rank_idx ON playlist_entries (playlist_id, rank);

-- Answers to calls that may be repeated, for 24 hours.
CREATE TABLE idempotency_keys (
    -- The user or the service whose key it is. No foreign key: both kinds stand here.
    owner      UUID        NOT NULL,
    key_hash   TEXT        NOT NULL,
    -- SHA-256 of what was asked: the same key with something else is refused.
    asked_hash TEXT        NOT NULL,
    answer     JSONB       NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (owner, key_hash)
);
CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys (created_at);
