-- SPDX-License-Identifier: BSD-2-Clause
-- M6: what a gateway says makes no more rows than it can have to say. Records, states, lines of a bill and notices are as many as its reports
-- have, so one bound holds for all of them: twice a second a row for each peer that it has had, and eight. A day of these is saved up, which is
-- some weeks of what an agent sends every ten seconds. Who sends more has to wait, and loses nothing.

-- By when the rows that were stored may have come.
ALTER TABLE gateway.gateway ADD COLUMN rows_until timestamptz;

-- By when they may have come with so many more. A database's clock that was ahead and has been set back delays nobody.
CREATE FUNCTION billing.rows_until(g gateway.gateway, more bigint) RETURNS timestamptz
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT greatest(CASE WHEN g.rows_until <= now() + interval '1 minute' THEN g.rows_until END, now() - interval '1 day')
           + make_interval(secs => more / (2.0 * (8 + count(*)))::float8)
    FROM gateway.peer p WHERE p.owner = g.owner AND p.gateway = g.id
$$;

-- As before, but for those that have more to say than they can.
CREATE OR REPLACE FUNCTION billing.open_epochs() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE report_work w SET verdict = 'often'
    WHERE w.verdict IS NULL AND NOT w.known AND billing.has_epochs_enough(w.owner, w.gateway);
    UPDATE report_work w SET verdict = 'often', detail =
        'the gateway reports more than it can have to say; accepted are two rows a second for each peer that it has had, and eight'
    FROM gateway.gateway g, (SELECT t.n, count(*) AS n_rows FROM (SELECT n FROM report_in UNION ALL SELECT n FROM sample_in
                                                                  UNION ALL SELECT n FROM state_in) t GROUP BY t.n) c
    WHERE w.verdict IS NULL AND c.n = w.n AND g.owner = w.owner AND g.id = w.gateway AND billing.rows_until(g, c.n_rows) > now();
    INSERT INTO billing.epoch (owner, gateway, id, boot_id, generation, created)
    SELECT r.owner, r.gateway, r.epoch, r.boot_id, r.token_generation, CASE WHEN NOT r.over THEN clock_timestamp() ELSE least(
               r.covered_from, clock_timestamp(),
               (SELECT min(e.created) - interval '1 microsecond' FROM billing.epoch e WHERE e.owner = r.owner AND e.gateway = r.gateway)) END
    FROM report_in r JOIN report_work w ON w.n = r.n WHERE w.verdict IS NULL AND NOT w.known;
END
$$;

-- The gateways' rows after their reports: first activity, freshness, key, revision, and the intervals of their states.
-- A part of a sample makes nothing complete, and an epoch that is over says nothing of what is in force. An interval that a clock stepping
-- back has turned round is empty. No gateway was active before it was made.
CREATE OR REPLACE FUNCTION billing.note_gateways() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    told record;
BEGIN
    UPDATE gateway.gateway g
    SET status = CASE WHEN w.first AND g.status IN ('deploying', 'error') THEN 'active' ELSE g.status END,
        error = CASE WHEN w.first THEN NULL ELSE g.error END,
        active_since = CASE WHEN w.first THEN greatest(r.active_since, w.created) ELSE g.active_since END,
        public_key = CASE WHEN r.over THEN g.public_key ELSE r.public_key END,
        applied_revision = CASE WHEN r.over THEN g.applied_revision ELSE least(r.applied_revision, g.revision) END,
        complete_through = CASE WHEN r.more THEN g.complete_through ELSE greatest(g.complete_through, least(r.covered_to, now())) END,
        last_report = now(), rows_until = billing.rows_until(g, c.n_rows)
    FROM report_work w JOIN report_in r ON r.n = w.n
    JOIN (SELECT t.n, count(*) AS n_rows FROM (SELECT n FROM report_in UNION ALL SELECT n FROM sample_in UNION ALL SELECT n FROM state_in) t
          GROUP BY t.n) c ON c.n = w.n
    WHERE w.verdict IS NULL AND g.owner = w.owner AND g.id = w.gateway;

    -- Active begins at its very instant, even when nothing has been covered behind it yet.
    FOR told IN
        SELECT x.owner, x.gateway, array_agg(x.state ORDER BY x.i) AS states, array_agg(x.span ORDER BY x.i) AS spans
        FROM (SELECT w.owner, w.gateway, s.i, s.state, tstzrange(s.begins, s.ends) * tstzrange(w.created, now() + interval '5 seconds') AS span
              FROM state_in s JOIN report_work w ON w.n = s.n
              WHERE w.verdict IS NULL AND s.begins < s.ends
                AND (w.first OR (w.active_since IS NOT NULL AND w.status IN ('active', 'deleting')))
              UNION ALL
              SELECT w.owner, w.gateway, NULL, 'active', tstzrange(x.at, x.at + interval '1 microsecond')
              FROM report_work w JOIN report_in r ON r.n = w.n CROSS JOIN LATERAL (SELECT greatest(r.active_since, w.created) AS at) x
              WHERE w.verdict IS NULL AND w.first) x
        WHERE NOT isempty(x.span) GROUP BY x.owner, x.gateway ORDER BY x.owner, x.gateway
    LOOP
        PERFORM billing.merge_states(told.owner, told.gateway, told.states, told.spans);
    END LOOP;
END
$$;

-- The only place that moves a cursor. Checksums are those of the last thousand sequences, also where some of these were left out.
CREATE OR REPLACE FUNCTION billing.move_cursors() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE billing.epoch e
    SET last_seq = r.seq, generation = r.token_generation, has_parts = r.more,
        counted = CASE WHEN r.more THEN e.counted ELSE r.counted END,
        cycle = CASE WHEN r.more THEN e.cycle ELSE coalesce(w.grant_cycle, e.cycle) END,
        cycle_counted = CASE WHEN r.more OR w.grant_cycle IS NULL THEN e.cycle_counted ELSE r.cycle_counted END,
        covered_to = CASE WHEN r.more THEN e.covered_to ELSE r.covered_to END,
        sealed = CASE WHEN r.final AND NOT r.more THEN now() END
    FROM report_in r JOIN report_work w ON w.n = r.n
    WHERE w.verdict IS NULL AND e.owner = r.owner AND e.gateway = r.gateway AND e.id = r.epoch;

    INSERT INTO billing.epoch_batch (owner, gateway, epoch, seq, crc)
    SELECT r.owner, r.gateway, r.epoch, r.seq, r.crc FROM report_in r JOIN report_work w ON w.n = r.n WHERE w.verdict IS NULL;
    DELETE FROM billing.epoch_batch b USING report_work w
    WHERE w.verdict IS NULL AND b.owner = w.owner AND b.gateway = w.gateway AND b.epoch = w.epoch
      AND b.seq BETWEEN w.held_seq - 999 AND w.seq - 1000;

    UPDATE billing.epoch e SET quarantined = w.verdict FROM report_work w
    WHERE w.verdict IN ('rolled_back', 'regressed', 'implausible') AND e.owner = w.owner AND e.gateway = w.gateway AND e.id = w.epoch
      AND e.quarantined IS NULL;
END
$$;

-- Bytes and packets, of all peers and both directions together, reach no further than the link: since what was reported completely, behind which nothing is missing, and an hour for clocks
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
            SELECT s.n, greatest(sum(s.up) + sum(s.down), sum(s.up_packets) + sum(s.down_packets), sum(s.undelivered), sum(s.refused)) AS amount
            FROM sample_in s GROUP BY s.n
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

REVOKE EXECUTE ON FUNCTION billing.rows_until FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'wiretoll_api') THEN
        GRANT EXECUTE ON FUNCTION billing.rows_until TO wiretoll_api;
    END IF;
END
$$;
