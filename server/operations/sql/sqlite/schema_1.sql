-- Operations: long work that was accepted. An operation is pending, running under a lease, or done.
CREATE TABLE operations (
    id          TEXT PRIMARY KEY,
    kind        TEXT NOT NULL,
    -- The resource that is worked on; only one operation at a time may.
    target      TEXT NOT NULL,
    request     BLOB NOT NULL,
    request_id  TEXT NOT NULL,
    metadata    BLOB NOT NULL,
    state       TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'running', 'done')),
    cancelled   INTEGER NOT NULL DEFAULT 0,
    attempt     INTEGER NOT NULL DEFAULT 0,
    -- Counts the leases: whoever holds an older one has lost the operation.
    token       INTEGER NOT NULL DEFAULT 0,
    lease_until REAL NOT NULL DEFAULT 0,
    not_before  REAL NOT NULL DEFAULT 0,
    created     REAL NOT NULL,
    started     REAL,
    ended       REAL,
    error       BLOB,
    response    BLOB
) STRICT;

CREATE UNIQUE INDEX operations_request ON operations (kind, request_id) WHERE request_id <> '';
CREATE UNIQUE INDEX operations_target ON operations (target) WHERE state <> 'done';
CREATE INDEX operations_waiting ON operations (created) WHERE state <> 'done';

PRAGMA user_version = 1;
