-- Operations: long work that was accepted. An operation is pending, running under a lease, or done.
CREATE TABLE operations (
    -- Order of acceptance; the clock may jump, this does not.
    sequence    BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    owner       TEXT NOT NULL DEFAULT '',
    kind        TEXT NOT NULL,
    -- The resource that is worked on; only one operation at a time may.
    target      TEXT NOT NULL,
    -- Class of the work: 0 dialogue, 1 render, 2 evaluation, 3 training.
    priority    INTEGER NOT NULL,
    request     BYTEA NOT NULL,
    request_id  TEXT NOT NULL,
    metadata    BYTEA NOT NULL,
    state       TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'running', 'done')),
    cancelled   BOOLEAN NOT NULL DEFAULT FALSE,
    attempt     INTEGER NOT NULL DEFAULT 0,
    -- Interruptions in a row without progress.
    stalls      INTEGER NOT NULL DEFAULT 0,
    -- Counts the leases: whoever holds an older one has lost the operation.
    token       BIGINT NOT NULL DEFAULT 0,
    -- From when on anybody may take it: the end of a lease, or of the delay before it is begun again.
    -- By the clock of the database.
    free_at     TIMESTAMPTZ NOT NULL DEFAULT 'epoch',
    -- How far ahead free_at was when it was written. If it is further ahead now, the clock was set back.
    free_in     INTERVAL NOT NULL DEFAULT '0',
    created     DOUBLE PRECISION NOT NULL,
    started     DOUBLE PRECISION,
    ended       DOUBLE PRECISION,
    error       BYTEA,
    response    BYTEA
);

CREATE UNIQUE INDEX operations_request ON operations (owner, kind, request_id) WHERE request_id <> '';
CREATE UNIQUE INDEX operations_target ON operations (target) WHERE state <> 'done';
CREATE INDEX operations_waiting ON operations (priority, sequence) WHERE state <> 'done';
CREATE INDEX operations_of_target ON operations (target, sequence);
CREATE INDEX operations_ended ON operations (ended) WHERE state = 'done';

CREATE TABLE operation_log (
    line        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    operation   TEXT NOT NULL REFERENCES operations (id) ON DELETE CASCADE,
    time        DOUBLE PRECISION NOT NULL,
    text        TEXT NOT NULL
);

CREATE INDEX operation_log_lines ON operation_log (operation, line);
