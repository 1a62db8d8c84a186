-- Tokens: who may call, for which tenant, what and until when. The secret itself is nowhere.
CREATE TABLE tokens (
    id        TEXT PRIMARY KEY,
    name      TEXT NOT NULL UNIQUE,
    tenant    TEXT NOT NULL,
    -- Separated by commas.
    scopes    TEXT NOT NULL,
    digest    BLOB NOT NULL,
    created   REAL NOT NULL,
    expires   REAL,
    revoked   REAL,
    last_used REAL
) STRICT;

PRAGMA user_version = 1;
