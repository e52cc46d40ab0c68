-- SPDX-License-Identifier: BSD-2-Clause
-- What is read of usage and money, each answer written as JSON here, so that no digit passes through another number type.

-- Pages of usage, planned for the very question: which of the conditions are there, and that hours are wanted in the key's order,
-- is known then, so a page reads its own hours by key and stops, however much history there is.
CREATE FUNCTION billing.usage_page(owner_id uuid, gateway_id uuid, step text, begins timestamptz, ends timestamptz,
                                   by_peer boolean, after text, page_size integer) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    answer jsonb;
BEGIN
    -- A period begins with the first of its hours or before, so the cursor's period bounds the hours, too.
    EXECUTE $query$
    WITH hours AS (
        SELECT h.gateway, h.hour, h.up, h.down,
               CASE WHEN $6 THEN h.peer ELSE '00000000-0000-0000-0000-000000000000' END AS peer,
               CASE $3 WHEN 'hour' THEN h.hour WHEN 'day' THEN date_trunc('day', h.hour, 'UTC')
                       WHEN 'cycle' THEN date_trunc('month', h.hour, 'UTC') ELSE '-infinity' END AS period
        FROM billing.usage_hour h
        WHERE h.owner = $1 AND ($2 IS NULL OR h.gateway = $2)
          AND ($4 IS NULL OR h.hour > $4 - interval '1 hour') AND ($5 IS NULL OR h.hour < $5)
          AND ($7 IS NULL OR h.hour >= split_part($7, ',', 1)::timestamptz)
          AND ($6 OR h.peer <> '00000000-0000-0000-0000-000000000000')
    ), page AS (
        SELECT s.period, s.gateway, s.peer, min(s.hour) AS first, max(s.hour) AS last, sum(s.up) AS up, sum(s.down) AS down
        FROM hours s
        WHERE $7 IS NULL OR (s.period, s.gateway, s.peer)
              > (split_part($7, ',', 1)::timestamptz, split_part($7, ',', 2)::uuid, split_part($7, ',', 3)::uuid)
        GROUP BY s.period, s.gateway, s.peer ORDER BY s.period, s.gateway, s.peer LIMIT $8 + 1
    ), numbered AS (
        SELECT p.*, row_number() OVER (ORDER BY p.period, p.gateway, p.peer) AS n FROM page p
    )
    SELECT jsonb_build_object(
        'items', coalesce(jsonb_agg(jsonb_build_object(
            'from', billing.rfc3339(CASE WHEN $3 = 'total' THEN coalesce($4, n.first) ELSE n.period END),
            'to', billing.rfc3339(CASE $3 WHEN 'total' THEN coalesce($5, n.last + interval '1 hour')
                                          WHEN 'hour' THEN n.period + interval '1 hour'
                                          WHEN 'day' THEN n.period + interval '24 hours'
                                          ELSE (n.period AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC' END),
            'gateway', n.gateway, 'gateway_name', g.name, 'peer', nullif(n.peer, '00000000-0000-0000-0000-000000000000'),
            'peer_name', p.name, 'upload_bytes', n.up::text, 'download_bytes', n.down::text) ORDER BY n.n)
            FILTER (WHERE n.n <= $8), '[]'),
        'next', CASE WHEN count(*) > $8 THEN max(concat_ws(',', CASE WHEN $3 = 'total' THEN '-infinity' ELSE billing.rfc3339(n.period) END,
                                                           n.gateway, n.peer)) FILTER (WHERE n.n = $8) END)
    FROM numbered n
    JOIN gateway.gateway g ON g.owner = $1 AND g.id = n.gateway
    LEFT JOIN gateway.peer p ON p.owner = $1 AND p.gateway = n.gateway AND p.id = n.peer
    $query$ INTO answer USING owner_id, gateway_id, step, begins, ends, by_peer, after, page_size;
    RETURN answer;
END
$$;

-- ---- rights -------------------------------------------------------------------------------------------------------------------

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA gateway, billing FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'wiretoll_api') THEN
        GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA billing TO wiretoll_api;
        GRANT EXECUTE ON FUNCTION gateway.enroll, gateway.agent_peers, gateway.agent_state TO wiretoll_api;
    END IF;
END
$$;
