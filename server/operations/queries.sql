-- name: insert
INSERT INTO operations (id, kind, target, request, request_id, metadata, created)
VALUES (:id, :kind, :target, :request, :request_id, :metadata, :now)
RETURNING *;

-- name: by_id
SELECT * FROM operations WHERE id = :id;

-- name: by_request
SELECT * FROM operations WHERE kind = :kind AND request_id = :request_id;

-- name: list
SELECT * FROM operations ORDER BY id;

-- name: latest
SELECT * FROM operations WHERE target = :target ORDER BY created DESC, id DESC LIMIT 1;

-- name: claim
UPDATE operations
SET state = 'running', token = token + 1, attempt = attempt + 1, lease_until = :until, started = :now
WHERE id = (
    SELECT id FROM operations
    WHERE (state = 'pending' AND not_before <= :now) OR (state = 'running' AND lease_until < :now)
    ORDER BY created, id LIMIT 1
)
RETURNING *;

-- name: renew
UPDATE operations SET lease_until = :until, metadata = coalesce(:metadata, metadata)
WHERE id = :id AND token = :token AND state = 'running'
RETURNING cancelled;

-- name: release
UPDATE operations SET state = 'pending', lease_until = 0, not_before = :not_before
WHERE id = :id AND token = :token AND state = 'running'
RETURNING id;

-- name: finish
UPDATE operations
SET state = 'done', lease_until = 0, ended = :now, error = :error, response = :response, metadata = :metadata
WHERE id = :id AND token = :token AND state = 'running'
RETURNING id;

-- name: cancel_pending
UPDATE operations SET state = 'done', cancelled = 1, ended = :now, error = :error
WHERE id = :id AND state = 'pending'
RETURNING id;

-- name: cancel_running
UPDATE operations SET cancelled = 1 WHERE id = :id AND state = 'running' RETURNING id;

-- name: delete
DELETE FROM operations WHERE id = :id AND state = 'done' RETURNING id;
