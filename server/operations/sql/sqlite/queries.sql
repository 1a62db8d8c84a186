-- :clock is the clock that leases are measured by, :now the wall clock; every query may use both.

-- name: insert
INSERT INTO operations (id, owner, kind, target, priority, request, request_id, metadata, created)
VALUES (:id, :owner, :kind, :target, :priority, :request, :request_id, :metadata, :now)
ON CONFLICT DO NOTHING
RETURNING *;

-- name: by_id
SELECT * FROM operations WHERE id = :id;

-- name: by_request
SELECT * FROM operations WHERE owner = :owner AND kind = :kind AND request_id = :request_id AND request_id <> '';

-- name: page
SELECT * FROM operations
WHERE sequence > :after
    AND (:owner IS NULL OR owner = :owner)
    AND (:done IS NULL OR (state = 'done') = :done)
ORDER BY sequence LIMIT :size;

-- name: latest
SELECT * FROM operations WHERE target = :target ORDER BY sequence DESC LIMIT 1;

-- name: claim
UPDATE operations
SET state = 'running', token = token + 1, attempt = attempt + 1, started = :now,
    free_at = :clock + :lease, free_in = :lease
WHERE sequence = (
    SELECT sequence FROM operations
    WHERE state <> 'done' AND (free_at <= :clock OR free_at > :clock + free_in)
    ORDER BY priority, sequence LIMIT 1
)
RETURNING *;

-- name: renew
UPDATE operations
SET free_at = :clock + :lease, free_in = :lease, metadata = coalesce(:metadata, metadata)
WHERE id = :id AND token = :token AND state = 'running'
RETURNING cancelled;

-- name: release
UPDATE operations SET state = 'pending', free_at = :clock + :delay, free_in = :delay, stalls = :stalls
WHERE id = :id AND token = :token AND state = 'running'
RETURNING id;

-- name: finish
UPDATE operations
SET state = 'done', ended = :now, error = :error, response = :response, metadata = :metadata
WHERE id = :id AND token = :token AND state = 'running'
RETURNING id;

-- name: cancel
UPDATE operations
SET cancelled = 1,
    state = CASE state WHEN 'pending' THEN 'done' ELSE state END,
    ended = CASE state WHEN 'pending' THEN :now END,
    error = CASE state WHEN 'pending' THEN :error END
WHERE id = :id AND state <> 'done'
RETURNING id;

-- name: delete
DELETE FROM operations WHERE id = :id AND state = 'done' RETURNING id;

-- name: forget
DELETE FROM operations
WHERE state = 'done'
    AND (
        ended < :now - :older_than
        OR sequence NOT IN (
            SELECT sequence FROM operations WHERE state = 'done' ORDER BY ended DESC, sequence DESC LIMIT :beyond
        )
    )
    AND sequence <> (SELECT max(latest.sequence) FROM operations AS latest WHERE latest.target = operations.target)
RETURNING id;

-- name: add_line
INSERT INTO operation_log (operation, time, text)
SELECT id, :time, :text FROM operations WHERE id = :id
RETURNING line;

-- name: drop_lines
DELETE FROM operation_log
WHERE operation = :id AND line <= (
    SELECT line FROM operation_log WHERE operation = :id ORDER BY line DESC LIMIT 1 OFFSET :most
)
RETURNING line;

-- name: lines
SELECT time, text FROM (
    SELECT line, time, text FROM operation_log WHERE operation = :id ORDER BY line DESC LIMIT :count
) AS last ORDER BY line;
