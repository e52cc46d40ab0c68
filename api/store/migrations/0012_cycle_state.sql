-- SPDX-License-Identifier: BSD-2-Clause
-- B9: the state of a cycle that has no row, as nothing was ever held in it: ended months are final, only the current one is open.
-- A row of a month that has just ended is closing, whether or not the clock has written so.
CREATE FUNCTION billing.cycle_state(cycle_number integer, instant timestamptz) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        WHEN c.state = 'open' AND c.ends <= instant THEN 'closing'
        WHEN c.id IS NOT NULL THEN c.state
        WHEN cycle_number < billing.cycle_id(instant) THEN 'final'
        ELSE 'open'
    END
    FROM (SELECT) one LEFT JOIN billing.cycle c ON c.id = cycle_number
$$;

-- B6: a pure sum of ledger lines, per gateway that has lines in the cycle or lived in it, and in total. Adjustments are of older hours.
CREATE OR REPLACE FUNCTION billing.report(owner_id uuid, cycle_number integer) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH month AS (
        SELECT m.starts, (m.starts AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC' AS ends,
               billing.cycle_state(cycle_number, now()) AS state
        FROM (SELECT make_timestamptz(cycle_number / 100, cycle_number % 100, 1, 0, 0, 0, 'UTC') AS starts) m
    ), lines AS (
        SELECT l.gateway, count(*) FILTER (WHERE l.kind = 'base') AS hours,
               coalesce(sum(l.amount) FILTER (WHERE l.kind = 'base'), 0) AS base,
               coalesce(sum(l.bytes) FILTER (WHERE l.kind = 'bandwidth'), 0) AS bytes,
               coalesce(sum(l.amount) FILTER (WHERE l.kind = 'bandwidth'), 0) AS bandwidth,
               coalesce(sum(l.amount) FILTER (WHERE l.kind = 'adjust'), 0) AS adjustment, sum(l.amount) AS total
        FROM billing.ledger l WHERE l.owner = owner_id AND l.cycle = cycle_number GROUP BY l.gateway
    ), listed AS (
        SELECT g.id, g.name, g.created, coalesce(l.hours, 0) AS hours, coalesce(l.base, 0) AS base, coalesce(l.bytes, 0) AS bytes,
               coalesce(l.bandwidth, 0) AS bandwidth, coalesce(l.adjustment, 0) AS adjustment, coalesce(l.total, 0) AS total,
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
            'adjustment_credits', trim_scale(g.adjustment)::text,
            'total_credits', trim_scale(g.total)::text) ORDER BY g.created, g.id) FILTER (WHERE g.id IS NOT NULL), '[]'),
        'totals', jsonb_build_object(
            'hours', coalesce(sum(g.hours), 0), 'base_credits', trim_scale(coalesce(sum(g.base), 0))::text,
            'bandwidth_bytes', coalesce(sum(g.bytes), 0)::text, 'bandwidth_credits', trim_scale(coalesce(sum(g.bandwidth), 0))::text,
            'adjustment_credits', trim_scale(coalesce(sum(g.adjustment), 0))::text,
            'total_credits', trim_scale(coalesce(sum(g.total), 0))::text))
    FROM month m LEFT JOIN listed g ON true GROUP BY m.starts, m.ends, m.state
$$;

REVOKE EXECUTE ON FUNCTION billing.cycle_state FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'wiretoll_api') THEN
        GRANT EXECUTE ON FUNCTION billing.cycle_state TO wiretoll_api;
    END IF;
END
$$;
