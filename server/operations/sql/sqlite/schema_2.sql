-- Priorities, owners and logs; leases by a clock that does not jump.
CREATE TABLE operations_2 (
    -- Order of acceptance; the clock may jump, this does not.
    sequence    INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT NOT NULL UNIQUE,
    owner       TEXT NOT NULL DEFAULT '',
    kind        TEXT NOT NULL,
    -- The resource that is worked on; only one operation at a time may.
    target      TEXT NOT NULL,
    -- Class of the work: 0 dialogue, 1 render, 2 evaluation, 3 training.
    priority    INTEGER NOT NULL,
    request     BLOB NOT NULL,
    request_id  TEXT NOT NULL,
    metadata    BLOB NOT NULL,
    state       TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'running', 'done')),
    cancelled   INTEGER NOT NULL DEFAULT 0,
    attempt     INTEGER NOT NULL DEFAULT 0,
    -- Interruptions in a row without progress.
    stalls      INTEGER NOT NULL DEFAULT 0,
    -- Counts the leases: whoever holds an older one has lost the operation.
    token       INTEGER NOT NULL DEFAULT 0,
    -- From when on anybody may take it: the end of a lease, or of the delay before it is begun again.
    -- Seconds of the machine's clock since it was booted.
    free_at     REAL NOT NULL DEFAULT 0,
    -- How far ahead free_at was when it was written. If it is further ahead now, the machine was booted since.
    free_in     REAL NOT NULL DEFAULT 0,
    created     REAL NOT NULL,
    started     REAL,
    ended       REAL,
    error       BLOB,
    response    BLOB
) STRICT;

-- Leases of schema 1 are by the wall clock; their holders are servers that have ended.
INSERT INTO operations_2 (
    id, kind, target, priority, request, request_id, metadata, state, cancelled, attempt, token,
    created, started, ended, error, response
)
SELECT
    id, kind, target, 3, request, request_id, metadata, state, cancelled, attempt, token,
    created, started, ended, error, response
FROM operations ORDER BY created, id;

DROP TABLE operations;
ALTER TABLE operations_2 RENAME TO operations;

CREATE UNIQUE INDEX operations_request ON operations (owner, kind, request_id) WHERE request_id <> '';
CREATE UNIQUE INDEX operations_target ON operations (target) WHERE state <> 'done';
CREATE INDEX operations_waiting ON operations (priority, sequence) WHERE state <> 'done';
CREATE INDEX operations_of_target ON operations (target, sequence);
CREATE INDEX operations_ended ON operations (ended) WHERE state = 'done';

CREATE TABLE operation_log (
    line        INTEGER PRIMARY KEY AUTOINCREMENT,
    operation   TEXT NOT NULL REFERENCES operations (id) ON DELETE CASCADE,
    time        REAL NOT NULL,
    text        TEXT NOT NULL
) STRICT;

CREATE INDEX operation_log_lines ON operation_log (operation, line);

PRAGMA user_version = 2;
