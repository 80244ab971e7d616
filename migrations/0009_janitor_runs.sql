-- What jobs that run once a day did, for all nodes together.
CREATE TABLE janitor_runs (
    job         TEXT        NOT NULL,
    -- The moment at which the job was due. Whoever makes its row runs it.
    due_at      TIMESTAMPTZ NOT NULL,
    started_at  TIMESTAMPTZ NOT NULL,
    -- The last sign of life of the node that runs it: another goes on when there is none for long.
    heard_at    TIMESTAMPTZ NOT NULL,
    -- Users up to this one are done.
    after_user  UUID,
    -- How many of what were removed.
    removed     JSONB       NOT NULL,
    finished_at TIMESTAMPTZ,
    CONSTRAINT janitor_runs_pkey PRIMARY KEY (job, due_at)
);
