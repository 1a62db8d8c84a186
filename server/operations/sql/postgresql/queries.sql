-- Times are those of the database: the clocks of the servers need not agree.

-- name: insert
INSERT INTO operations (id, owner, kind, target, priority, request, request_id, metadata, created)
VALUES (
    %(id)s, %(owner)s, %(kind)s, %(target)s, %(priority)s, %(request)s, %(request_id)s, %(metadata)s,
    extract(epoch FROM clock_timestamp())
)
ON CONFLICT DO NOTHING
RETURNING *;

-- name: by_id
SELECT * FROM operations WHERE id = %(id)s;

-- name: by_request
SELECT * FROM operations
WHERE owner = %(owner)s AND kind = %(kind)s AND request_id = %(request_id)s AND request_id <> '';

-- name: page
SELECT * FROM operations
WHERE sequence > %(after)s
    AND (%(owner)s::text IS NULL OR owner = %(owner)s)
    AND (%(done)s::boolean IS NULL OR (state = 'done') = %(done)s)
ORDER BY sequence LIMIT %(size)s;

-- name: latest
SELECT * FROM operations WHERE target = %(target)s ORDER BY sequence DESC LIMIT 1;

-- name: claim
WITH next AS MATERIALIZED (
    SELECT sequence FROM operations
    WHERE state <> 'done'
        AND (
            free_at <= clock_timestamp()
            -- Clocks are also set by a little now and then.
            OR free_at > clock_timestamp() + free_in + interval '5 seconds'
        )
    ORDER BY priority, sequence LIMIT 1
    FOR UPDATE SKIP LOCKED
)
UPDATE operations
SET state = 'running', token = token + 1, attempt = attempt + 1,
    started = extract(epoch FROM clock_timestamp()),
    free_at = clock_timestamp() + make_interval(secs => %(lease)s), free_in = make_interval(secs => %(lease)s)
FROM next WHERE operations.sequence = next.sequence
RETURNING operations.*;

-- name: renew
UPDATE operations
SET free_at = clock_timestamp() + make_interval(secs => %(lease)s), free_in = make_interval(secs => %(lease)s),
    metadata = coalesce(%(metadata)s, metadata)
WHERE id = %(id)s AND token = %(token)s AND state = 'running'
RETURNING cancelled;

-- name: release
UPDATE operations
SET state = 'pending', stalls = %(stalls)s,
    free_at = clock_timestamp() + make_interval(secs => %(delay)s), free_in = make_interval(secs => %(delay)s)
WHERE id = %(id)s AND token = %(token)s AND state = 'running'
RETURNING id;

-- name: finish
UPDATE operations
SET state = 'done', ended = extract(epoch FROM clock_timestamp()),
    error = %(error)s, response = %(response)s, metadata = %(metadata)s
WHERE id = %(id)s AND token = %(token)s AND state = 'running'
RETURNING id;

-- name: cancel
UPDATE operations
SET cancelled = TRUE,
    state = CASE state WHEN 'pending' THEN 'done' ELSE state END,
    ended = CASE state WHEN 'pending' THEN extract(epoch FROM clock_timestamp()) END,
    error = CASE state WHEN 'pending' THEN %(error)s::bytea END
WHERE id = %(id)s AND state <> 'done'
RETURNING id;

-- name: delete
DELETE FROM operations WHERE id = %(id)s AND state = 'done' RETURNING id;

-- name: forget
DELETE FROM operations
WHERE state = 'done'
    AND (
        ended < extract(epoch FROM clock_timestamp()) - %(older_than)s
        OR sequence NOT IN (
            SELECT sequence FROM operations WHERE state = 'done'
            ORDER BY ended DESC, sequence DESC LIMIT %(beyond)s
        )
    )
    AND sequence <> (SELECT max(latest.sequence) FROM operations AS latest WHERE latest.target = operations.target)
RETURNING id;

-- name: add_line
INSERT INTO operation_log (operation, time, text)
SELECT id, %(time)s, %(text)s FROM operations WHERE id = %(id)s
RETURNING line;

-- name: drop_lines
DELETE FROM operation_log
WHERE operation = %(id)s AND line <= (
    SELECT line FROM operation_log WHERE operation = %(id)s ORDER BY line DESC LIMIT 1 OFFSET %(most)s
)
RETURNING line;

-- name: lines
SELECT time, text FROM (
    SELECT line, time, text FROM operation_log WHERE operation = %(id)s ORDER BY line DESC LIMIT %(count)s
) AS last ORDER BY line;
