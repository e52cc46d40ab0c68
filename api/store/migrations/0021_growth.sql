-- SPDX-License-Identifier: BSD-2-Clause
-- Bytes and packets reach no further than the link: since what was reported completely, behind which nothing is missing, and an hour for clocks
-- that differ. Late batches have the time that they are late. After a restore the journals fill in what came since the backup. Where this
-- database's own clock was ahead and has been set back, the time begins now.
CREATE OR REPLACE FUNCTION billing.weigh_growth() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    since timestamptz := (SELECT min(r.taken) FROM billing.restoration r WHERE r.restored > now() - interval '72 hours');
    claim record;
BEGIN
    FOR claim IN
        WITH grown AS (
            SELECT s.n, sum(greatest(s.up, s.down, s.up_packets, s.down_packets, s.undelivered, s.refused)) AS amount FROM sample_in s GROUP BY s.n
        ), claimed AS (
            SELECT w.n, w.owner, w.gateway, greatest(g.complete_through, least(r.covered_to, now())) AS complete, r.more, l.link_gbps, c.amount,
                   greatest(g.counted_until, least(coalesce(g.complete_through, g.created), since, now())) AS begins
            FROM report_work w JOIN report_in r ON r.n = w.n JOIN gateway.gateway g ON g.owner = w.owner AND g.id = w.gateway
            JOIN gateway.location l ON l.id = w.location
            LEFT JOIN grown x ON x.n = w.n
            -- What the parts before have grown by has been weighed with them.
            LEFT JOIN LATERAL (SELECT sum(p.up) + sum(p.down) AS weighed FROM billing.part_hour p WHERE w.has_parts AND NOT r.more
                               AND p.owner = w.owner AND p.gateway = w.gateway AND p.epoch = w.epoch) p ON w.has_parts
            CROSS JOIN LATERAL (SELECT greatest(x.amount, CASE WHEN NOT r.more THEN greatest(r.counted - w.held_counted,
                CASE WHEN w.grant_cycle IS NULL THEN 0 WHEN w.grant_cycle = w.held_cycle THEN r.cycle_counted - w.held_cycle_counted
                     ELSE r.cycle_counted END) - coalesce(p.weighed, 0) END) AS amount) c
            WHERE w.verdict IS NULL AND c.amount > 0
        )
        SELECT c.*, x.until, x.until > now() + interval '1 hour' AS beyond
        FROM claimed c CROSS JOIN LATERAL (
            SELECT c.begins + make_interval(secs => least(c.amount / (c.link_gbps * 125000000.0), 1000000000)::float8) AS until) x
        WHERE x.until > c.complete OR c.more OR since IS NOT NULL
    LOOP
        IF claim.beyond THEN
            PERFORM billing.doubt(claim.n, format('%s bytes since %s are more than a link of %s Gbit/s can carry', claim.amount,
                                                  billing.rfc3339(claim.begins), claim.link_gbps));
        ELSE
            UPDATE gateway.gateway SET counted_until = claim.until WHERE owner = claim.owner AND id = claim.gateway;
        END IF;
    END LOOP;
END
$$;
