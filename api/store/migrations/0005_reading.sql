-- SPDX-License-Identifier: BSD-2-Clause
-- What is read of usage and money, each answer written as JSON here, so that no digit passes through another number type.

-- Usage of an owner's gateways (one, or all for NULL) per hour, day, cycle or in total, as {"items", "next"}. What belongs to no
-- peer is an item of its own by peer, and in no gateway's sum: it is never billed. `after` is the "next" of the page before.
CREATE FUNCTION billing.usage_page(owner_id uuid, gateway_id uuid, step text, begins timestamptz, ends timestamptz, by_peer boolean,
                                   after text, page_size integer) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH hours AS (
        SELECT h.gateway, h.hour, h.up, h.down,
               CASE WHEN by_peer THEN h.peer ELSE '00000000-0000-0000-0000-000000000000' END AS peer,
               CASE step WHEN 'hour' THEN h.hour WHEN 'day' THEN date_trunc('day', h.hour, 'UTC')
                         WHEN 'cycle' THEN date_trunc('month', h.hour, 'UTC') ELSE '-infinity' END AS period
        FROM billing.usage_hour h
        WHERE h.owner = owner_id AND (gateway_id IS NULL OR h.gateway = gateway_id)
          AND (begins IS NULL OR h.hour + interval '1 hour' > begins) AND (ends IS NULL OR h.hour < ends)
          AND (by_peer OR h.peer <> '00000000-0000-0000-0000-000000000000')
    ), page AS (
        SELECT s.period, s.gateway, s.peer, min(s.hour) AS first, max(s.hour) AS last, sum(s.up) AS up, sum(s.down) AS down,
               concat_ws(',', CASE WHEN step = 'total' THEN '-infinity' ELSE billing.rfc3339(s.period) END, s.gateway, s.peer) AS cursor
        FROM hours s
        WHERE after IS NULL OR (s.period, s.gateway, s.peer)
              > (split_part(after, ',', 1)::timestamptz, split_part(after, ',', 2)::uuid, split_part(after, ',', 3)::uuid)
        GROUP BY s.period, s.gateway, s.peer ORDER BY s.period, s.gateway, s.peer LIMIT page_size + 1
    ), numbered AS (
        SELECT p.*, row_number() OVER (ORDER BY p.period, p.gateway, p.peer) AS n FROM page p
    )
    SELECT jsonb_build_object(
        'items', coalesce(jsonb_agg(jsonb_build_object(
            'from', billing.rfc3339(CASE WHEN step = 'total' THEN coalesce(begins, n.first) ELSE n.period END),
            'to', billing.rfc3339(CASE step WHEN 'total' THEN coalesce(ends, n.last + interval '1 hour')
                                            WHEN 'hour' THEN n.period + interval '1 hour'
                                            WHEN 'day' THEN n.period + interval '24 hours'
                                            ELSE (n.period AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC' END),
            'gateway', n.gateway, 'gateway_name', g.name, 'peer', nullif(n.peer, '00000000-0000-0000-0000-000000000000'),
            'peer_name', p.name, 'upload_bytes', n.up::text, 'download_bytes', n.down::text) ORDER BY n.n)
            FILTER (WHERE n.n <= page_size), '[]'),
        'next', CASE WHEN count(*) > page_size THEN max(n.cursor) FILTER (WHERE n.n = page_size) END)
    FROM numbered n
    JOIN gateway.gateway g ON g.owner = owner_id AND g.id = n.gateway
    LEFT JOIN gateway.peer p ON p.owner = owner_id AND p.gateway = n.gateway AND p.id = n.peer
$$;

-- B7: the feed behind an id, as {"items", "next"}.
CREATE FUNCTION billing.feed_page(after bigint, page_size integer) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH page AS (
        SELECT f.* FROM billing.feed f WHERE f.id > after ORDER BY f.id LIMIT page_size
    )
    SELECT jsonb_build_object(
        'next', CASE WHEN EXISTS (SELECT FROM billing.feed f WHERE f.id > max(p.id)) THEN max(p.id)::text END,
        'items', coalesce(jsonb_agg(jsonb_build_object('id', p.id::text, 'type', p.type, 'owner', p.owner) || CASE p.type
            WHEN 'ledger' THEN jsonb_build_object(
                'line', l.id, 'gateway', l.gateway, 'kind', l.kind, 'hour', billing.rfc3339(l.utc_hour), 'part', l.part,
                'from', billing.rfc3339(lower(l.span)), 'to', billing.rfc3339(upper(l.span)), 'cycle', l.cycle, 'bucket', l.bucket,
                'bytes', l.bytes::text, 'rate', trim_scale(l.rate)::text, 'rate_version', l.rate_version, 'hour_index', l.hour_index,
                'month_hours', l.month_hours, 'amount', trim_scale(l.amount)::text, 'created', billing.rfc3339(l.created))
            ELSE jsonb_build_object(
                'action', a.id, 'gateway', a.gateway, 'bucket', a.bucket, 'kind', a.kind, 'key', a.key, 'detail', a.detail,
                'created', billing.rfc3339(a.created)) END ORDER BY p.id), '[]'))
    FROM page p
    LEFT JOIN billing.ledger l ON p.type = 'ledger' AND l.owner = p.owner AND l.id = p.line
    LEFT JOIN billing.action a ON p.type = 'action' AND a.owner = p.owner AND a.id = p.line
$$;

-- B6: a pure sum of ledger lines, per gateway that has lines in the cycle or lived in it, and in total.
CREATE FUNCTION billing.report(owner_id uuid, cycle_number integer) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH month AS (
        SELECT m.starts, (m.starts AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC' AS ends,
               coalesce((SELECT c.state FROM billing.cycle c WHERE c.id = cycle_number), 'open') AS state
        FROM (SELECT make_timestamptz(cycle_number / 100, cycle_number % 100, 1, 0, 0, 0, 'UTC') AS starts) m
    ), lines AS (
        SELECT l.gateway, count(*) FILTER (WHERE l.kind = 'base') AS hours,
               coalesce(sum(l.amount) FILTER (WHERE l.kind = 'base'), 0) AS base,
               coalesce(sum(l.bytes) FILTER (WHERE l.kind = 'bandwidth'), 0) AS bytes,
               coalesce(sum(l.amount) FILTER (WHERE l.kind = 'bandwidth'), 0) AS bandwidth, sum(l.amount) AS total
        FROM billing.ledger l WHERE l.owner = owner_id AND l.cycle = cycle_number GROUP BY l.gateway
    ), listed AS (
        SELECT g.id, g.name, g.created, coalesce(l.hours, 0) AS hours, coalesce(l.base, 0) AS base, coalesce(l.bytes, 0) AS bytes,
               coalesce(l.bandwidth, 0) AS bandwidth, coalesce(l.total, 0) AS total,
               CASE WHEN g.status <> 'deleted' AND g.active_since IS NOT NULL THEN g.complete_through END AS complete
        FROM month m CROSS JOIN gateway.gateway g LEFT JOIN lines l ON l.gateway = g.id
        WHERE g.owner = owner_id AND (l.gateway IS NOT NULL OR (g.created < m.ends AND (g.deleted IS NULL OR g.deleted >= m.starts)))
    )
    SELECT jsonb_build_object(
        'user', owner_id, 'cycle', to_char(m.starts AT TIME ZONE 'UTC', 'YYYY-MM'), 'state', m.state,
        'complete_through', billing.rfc3339(least(min(g.complete), m.ends)),
        'gateways', coalesce(jsonb_agg(jsonb_build_object(
            'gateway', g.id, 'name', g.name, 'hours', g.hours, 'base_credits', trim_scale(g.base)::text,
            'bandwidth_bytes', g.bytes::text, 'bandwidth_credits', trim_scale(g.bandwidth)::text,
            'total_credits', trim_scale(g.total)::text) ORDER BY g.created, g.id) FILTER (WHERE g.id IS NOT NULL), '[]'),
        'totals', jsonb_build_object(
            'hours', coalesce(sum(g.hours), 0), 'base_credits', trim_scale(coalesce(sum(g.base), 0))::text,
            'bandwidth_bytes', coalesce(sum(g.bytes), 0)::text, 'bandwidth_credits', trim_scale(coalesce(sum(g.bandwidth), 0))::text,
            'total_credits', trim_scale(coalesce(sum(g.total), 0))::text))
    FROM month m LEFT JOIN listed g ON true GROUP BY m.starts, m.ends, m.state
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
