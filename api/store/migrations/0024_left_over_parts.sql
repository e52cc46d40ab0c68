-- SPDX-License-Identifier: BSD-2-Clause
-- M2: parts of a sample wait for their last one to be billed. Where the epoch was quarantined before that came, what they had brought stood in
-- the usage, and in no bill: the gateway's next report settles it.

-- What of these bytes is counted in the directions of that hour.
CREATE FUNCTION billing.counted_of(place uuid, hour timestamptz, up bigint, down bigint) RETURNS numeric
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN v.accounting <> 'downloads' THEN up ELSE 0 END::numeric + CASE WHEN v.accounting <> 'uploads' THEN down ELSE 0 END
    FROM billing.rate_at(place, hour) v
$$;

-- What the kernel's own count grew by in each hour of a sample: divided by the records, in the directions of each hour.
-- The last hour takes what the reading of slots and interface at slightly different moments leaves over. With it goes what parts of a
-- quarantined epoch have brought, whose last one never comes.
CREATE OR REPLACE FUNCTION billing.divide_growth() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO settle_piece
    WITH taken AS (
        SELECT w.n, w.owner, w.gateway, w.epoch, w.location, w.this_hour, w.has_parts, r.counted - w.held_counted AS growth
        FROM report_work w JOIN report_in r ON r.n = w.n WHERE w.verdict IS NULL AND NOT r.more
    ), left_over AS (
        SELECT t.n, p.hour, p.up, p.down, p.undelivered, billing.counted_of(t.location, p.hour, p.up, p.down) AS counted
        FROM taken t JOIN billing.part_hour p ON p.owner = t.owner AND p.gateway = t.gateway AND p.epoch <> t.epoch
        JOIN billing.epoch e ON e.owner = p.owner AND e.gateway = p.gateway AND e.id = p.epoch AND e.quarantined IS NOT NULL
    ), grown AS (
        SELECT h.n, h.hour, h.up, h.down, h.undelivered FROM hour_sum h WHERE h.peers
        UNION ALL
        SELECT t.n, p.hour, p.up, p.down, p.undelivered
        FROM taken t JOIN billing.part_hour p ON p.owner = t.owner AND p.gateway = t.gateway AND p.epoch = t.epoch WHERE t.has_parts
        UNION ALL
        SELECT l.n, l.hour, l.up, l.down, l.undelivered FROM left_over l
    ), net AS (
        SELECT t.n, g.hour, sum(CASE WHEN v.accounting <> 'downloads' THEN g.up ELSE 0 END
                                + CASE WHEN v.accounting <> 'uploads' THEN g.down - g.undelivered ELSE 0 END) AS bytes,
               sum(CASE WHEN v.accounting <> 'uploads' THEN g.undelivered ELSE 0 END) AS undelivered
        FROM grown g JOIN taken t ON t.n = g.n
        CROSS JOIN LATERAL (SELECT x.accounting FROM gateway.rate_version x WHERE x.location = t.location AND x.from_hour <= g.hour
                            ORDER BY x.from_hour DESC LIMIT 1) v
        GROUP BY t.n, g.hour
    ), total AS (
        SELECT t.n, t.growth + coalesce((SELECT sum(l.counted) FROM left_over l WHERE l.n = t.n), 0) - coalesce(sum(n.undelivered), 0) AS bytes
        FROM taken t LEFT JOIN net n ON n.n = t.n GROUP BY t.n, t.growth
    ), running AS (
        -- Up to and including each hour, never beyond the total.
        SELECT n.n, n.hour, CASE WHEN lead(n.hour) OVER hours IS NULL THEN t.bytes
                                 ELSE least(sum(n.bytes) OVER hours, greatest(t.bytes, 0)) END AS upto
        FROM net n JOIN total t ON t.n = n.n WINDOW hours AS (PARTITION BY n.n ORDER BY n.hour)
        UNION ALL
        SELECT t.n, t.this_hour, o.bytes FROM taken t JOIN total o ON o.n = t.n WHERE t.n NOT IN (SELECT n.n FROM net n)
    ), piece AS (
        SELECT u.n, u.hour, u.upto - coalesce(lag(u.upto) OVER (PARTITION BY u.n ORDER BY u.hour), 0) AS bytes FROM running u
    )
    SELECT p.n, t.owner, t.gateway, billing.cycle_id(p.hour), p.hour, true, p.bytes, v.id, v.bandwidth_rate, v.overage
    FROM piece p JOIN taken t ON t.n = p.n
    CROSS JOIN LATERAL (SELECT x.id, x.bandwidth_rate, x.overage FROM gateway.rate_version x
                        WHERE x.location = t.location AND x.from_hour <= p.hour ORDER BY x.from_hour DESC LIMIT 1) v
    WHERE p.bytes <> 0;

    DELETE FROM billing.part_hour p USING report_work w, report_in r
    WHERE w.has_parts AND w.verdict IS NULL AND r.n = w.n AND NOT r.more
      AND p.owner = w.owner AND p.gateway = w.gateway AND p.epoch = w.epoch;

    -- An epoch that an operator lets go on begins behind them.
    WITH settled AS (
        DELETE FROM billing.part_hour p USING report_work w, report_in r, billing.epoch e
        WHERE w.verdict IS NULL AND r.n = w.n AND NOT r.more AND p.owner = w.owner AND p.gateway = w.gateway AND p.epoch <> w.epoch
          AND e.owner = p.owner AND e.gateway = p.gateway AND e.id = p.epoch AND e.quarantined IS NOT NULL
        RETURNING p.owner, p.gateway, p.epoch, billing.counted_of(w.location, p.hour, p.up, p.down) AS counted
    )
    UPDATE billing.epoch e SET has_parts = false, counted = least(e.counted + s.counted, 9223372036854775807)
    FROM (SELECT x.owner, x.gateway, x.epoch, sum(x.counted) AS counted FROM settled x GROUP BY x.owner, x.gateway, x.epoch) s
    WHERE e.owner = s.owner AND e.gateway = s.gateway AND e.id = s.epoch;
END
$$;

REVOKE EXECUTE ON FUNCTION billing.counted_of FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'wiretoll_api') THEN
        GRANT EXECUTE ON FUNCTION billing.counted_of TO wiretoll_api;
    END IF;
END
$$;
