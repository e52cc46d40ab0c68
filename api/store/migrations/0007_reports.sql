-- SPDX-License-Identifier: BSD-2-Clause
-- Takes the batches of many gateways in one transaction, a statement for each kind of row. They lie in temporary tables (report_in,
-- sample_in, counter_in, state_in, seen_in) with the layouts of 0006. A batch that is refused changes nothing but its epoch's mark, and its
-- neighbours are taken. Locks: account, gateway (which is its cursors' lock) in order, bucket.

-- What the kernel gave back after it was charged: free when it is used again, else returned at the cycle's end.
ALTER TABLE billing.bucket ADD COLUMN refundable bigint NOT NULL DEFAULT 0 CHECK (refundable >= 0);

-- ---- what the cursors say -------------------------------------------------------------------------------------------

-- The gateways' rows, in one order for all transactions; whoever comes first at the turn of a cycle takes its gateway into it.
CREATE FUNCTION billing.lock_reports() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    entering integer := billing.ensure_cycle(now());
    r record;
BEGIN
    FOR r IN SELECT x.owner, x.gateway FROM report_in x
             WHERE NOT EXISTS (SELECT FROM billing.bucket b WHERE b.owner = x.owner AND b.holder = x.gateway AND b.cycle = entering)
             ORDER BY x.owner, x.gateway
    LOOP
        PERFORM billing.hold_bucket(r.owner, r.gateway, entering);
    END LOOP;
    FOR r IN SELECT x.owner, x.gateway FROM report_in x ORDER BY x.owner, x.gateway LOOP
        PERFORM FROM gateway.gateway g WHERE g.owner = r.owner AND g.id = r.gateway FOR NO KEY UPDATE;
    END LOOP;
END
$$;

-- A batch is taken when its sequence follows the epoch's last, or begins what the agent's journal still has. An older one is
-- known by its checksum; one older than the checksums kept changes nothing either.
CREATE FUNCTION billing.judge_reports() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO report_work
    SELECT r.n, r.owner, r.gateway, r.epoch, r.seq, CASE
               WHEN g.id IS NULL OR g.status = 'deleted' OR g.attempt <> r.attempt THEN 'gone'
               WHEN g.generation <> r.token_generation OR r.generation > r.token_generation THEN 'fenced'
               WHEN e.id IS NULL THEN CASE WHEN r.seq <> 1 AND r.seq IS DISTINCT FROM r.kept_from THEN 'gap' END
               WHEN e.boot_id <> r.boot_id OR b.crc <> r.crc THEN 'rolled_back'
               WHEN r.seq <= e.last_seq THEN 'held'
               WHEN e.quarantined IS NOT NULL THEN e.quarantined
               WHEN e.sealed IS NOT NULL THEN 'rolled_back'
               WHEN r.seq <> e.last_seq + 1 AND r.seq IS DISTINCT FROM r.kept_from THEN 'gap'
           END, NULL, g.location, g.created, g.status, g.active_since, g.attempt, g.applied_revision,
           r.active_since IS NOT NULL AND (g.status IN ('deploying', 'error') OR (g.status = 'deleting' AND g.active_since IS NULL))
               AND NOT (r.over AND r.active_since < a.enrolled),
           e.id IS NOT NULL, coalesce(e.last_seq, 0), coalesce(e.counted, 0), e.cycle, coalesce(e.cycle_counted, 0), coalesce(e.has_parts, false),
           (SELECT k.cycle FROM billing.bucket k WHERE k.owner = r.owner AND k.holder = r.gateway AND k.cycle = r.grant_cycle),
           h.hour, v.overage, v.accounting
    FROM report_in r
    LEFT JOIN gateway.gateway g ON g.owner = r.owner AND g.id = r.gateway
    LEFT JOIN billing.epoch e ON e.owner = r.owner AND e.gateway = r.gateway AND e.id = r.epoch
    LEFT JOIN billing.epoch_batch b ON b.owner = r.owner AND b.gateway = r.gateway AND b.epoch = r.epoch AND b.seq = r.seq
    -- What an attempt that failed had begun is not this one's activity.
    LEFT JOIN LATERAL (SELECT max(t.created) - interval '5 seconds' AS enrolled FROM gateway.token t
                       WHERE r.over AND t.gateway = r.gateway AND t.kind = 'agent') a ON true
    CROSS JOIN LATERAL (SELECT date_trunc('hour', greatest(least(r.covered_to, now()), g.created), 'UTC') AS hour) h
    LEFT JOIN LATERAL (SELECT x.overage, x.accounting FROM gateway.rate_version x
                       WHERE x.location = g.location AND x.from_hour <= h.hour ORDER BY x.from_hour DESC LIMIT 1) v ON true;

    -- B1: whose clock is wrong cannot say when the gateway became active.
    UPDATE report_work w SET verdict = 'clock', detail =
        format('active_since is %s by a clock that says %s, here it is %s; accepted is a clock at most 5 s off, and no instant ahead of it',
               billing.rfc3339(r.active_since), billing.rfc3339(r.sent), billing.rfc3339(now()))
    FROM report_in r
    WHERE r.n = w.n AND w.verdict IS NULL AND w.first AND (abs(extract(epoch FROM r.sent - now())) > 5 OR r.active_since > r.sent);
END
$$;

-- ---- what they add --------------------------------------------------------------------------------------------------

-- Nothing may ever have shrunk, neither a slot, nor the interface, nor the grant: one smaller total refuses the batch. What is left in
-- sample_in and counter_in afterwards is of batches that are taken.
CREATE FUNCTION billing.compare_totals() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- By the whole key, one counter at a time: joined otherwise, each would be looked for among all of its epoch.
    INSERT INTO counter_base
    SELECT k.n, k.slot, k.incarnation, c.peer, c.up, c.down, c.up_packets, c.down_packets, c.undelivered, c.refused
    FROM counter_in k JOIN report_work w ON w.n = k.n AND w.known AND w.verdict IS NULL
    CROSS JOIN LATERAL (SELECT x.* FROM billing.counter x
                        WHERE x.owner = w.owner AND x.gateway = w.gateway AND x.epoch = w.epoch AND x.slot = k.slot
                          AND x.incarnation = k.incarnation OFFSET 0) c;

    UPDATE report_work w SET verdict = 'regressed'
    FROM report_in r
    WHERE r.n = w.n AND w.verdict IS NULL AND (
        r.shrunk
        OR w.n IN (SELECT k.n FROM counter_in k JOIN counter_base b ON b.n = k.n AND b.slot = k.slot AND b.incarnation = k.incarnation
                   WHERE k.peer IS DISTINCT FROM b.peer
                      OR least(k.first_up - b.up, k.first_down - b.down, k.first_up_packets - b.up_packets,
                               k.first_down_packets - b.down_packets, k.first_undelivered - b.undelivered, k.first_refused - b.refused) < 0)
        OR (NOT r.more AND (r.counted < w.held_counted OR coalesce(w.grant_cycle < w.held_cycle, false)
                            OR coalesce(w.grant_cycle = w.held_cycle AND r.cycle_counted < w.held_cycle_counted, false))));
    IF EXISTS (SELECT FROM report_work w WHERE w.verdict IS NOT NULL) THEN
        DELETE FROM sample_in s USING report_work w WHERE w.n = s.n AND w.verdict IS NOT NULL;
        DELETE FROM counter_in k USING report_work w WHERE w.n = k.n AND w.verdict IS NOT NULL;
    END IF;

    UPDATE sample_in s
    SET up = s.up - b.up, down = s.down - b.down, up_packets = s.up_packets - b.up_packets, down_packets = s.down_packets - b.down_packets,
        undelivered = s.undelivered - b.undelivered, refused = s.refused - b.refused
    FROM counter_base b WHERE s.begins AND b.n = s.n AND b.slot = s.slot AND b.incarnation = s.incarnation;
END
$$;

-- An hour outside the gateway's life is put to its nearest end: a wrong clock moves no byte into a period that is not there.
-- Where that, or a clock set back, gives a slot two rows of an hour, they become one.
CREATE FUNCTION billing.place_hours() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM report_in r WHERE r.tangled)
       AND (SELECT min(s.hour) FROM sample_in s) >= (SELECT max(w.created) FROM report_work w WHERE w.verdict IS NULL)
       AND (SELECT max(s.hour) FROM sample_in s) <= now() THEN
        RETURN; -- most often, and found without a join
    END IF;
    IF NOT EXISTS (SELECT FROM sample_in s JOIN report_work w ON w.n = s.n JOIN report_in r ON r.n = s.n
                   WHERE r.tangled OR s.hour < date_trunc('hour', w.created, 'UTC') OR s.hour > now()) THEN
        RETURN;
    END IF;
    WITH placed AS (
        DELETE FROM sample_in s USING report_work w WHERE w.n = s.n
        RETURNING s.*, least(greatest(s.hour, date_trunc('hour', w.created, 'UTC')), date_trunc('hour', now(), 'UTC')) AS at
    )
    INSERT INTO sample_in
    SELECT p.n, p.slot, p.incarnation, p.peer, p.at, billing.total(p.up), billing.total(p.down), billing.total(p.up_packets),
           billing.total(p.down_packets), billing.total(p.undelivered), billing.total(p.refused), bool_or(p.begins), bool_or(p.split)
    FROM placed p GROUP BY p.n, p.slot, p.incarnation, p.peer, p.at;
END
$$;

-- What the records come to in each hour. A batch's hours are few, so each is looked for in what is held.
CREATE FUNCTION billing.sum_hours() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO hour_sum
    SELECT s.n, s.hour, s.peers, s.up, s.down, s.undelivered, NOT r.several AND NOT EXISTS (
               SELECT FROM billing.usage_hour h WHERE h.owner = r.owner AND h.gateway = r.gateway AND h.hour = s.hour)
    FROM (SELECT x.n, x.hour, bool_or(x.slot > 0) AS peers, billing.total(x.up) FILTER (WHERE x.slot > 0) AS up,
                 billing.total(x.down) FILTER (WHERE x.slot > 0) AS down, billing.total(x.undelivered) FILTER (WHERE x.slot > 0) AS undelivered
          FROM sample_in x GROUP BY x.n, x.hour) s
    JOIN report_in r ON r.n = s.n;
END
$$;

-- Adds to the hourly sums. Rows that are there are many times cheaper to change in one statement than to insert in vain, and where
-- nothing is held of an hour there are none. Nobody else makes them: the gateways are ours until the end of the transaction.
CREATE FUNCTION billing.roll_up() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO billing.usage_hour (owner, gateway, hour, peer, up, down, up_packets, down_packets, undelivered, refused, split)
    SELECT w.owner, w.gateway, s.hour, coalesce(s.peer, '00000000-0000-0000-0000-000000000000'), s.up, s.down, s.up_packets, s.down_packets,
           s.undelivered, s.refused, s.split
    FROM sample_in s JOIN report_work w ON w.n = s.n
    JOIN hour_sum h ON h.n = s.n AND h.hour = s.hour AND h.fresh;

    IF NOT EXISTS (SELECT FROM hour_sum h WHERE NOT h.fresh) THEN
        RETURN;
    END IF;
    WITH grown AS MATERIALIZED (
        SELECT w.owner, w.gateway, s.hour, s.peer, s.up, s.down, s.up_packets, s.down_packets, s.undelivered, s.refused, s.split
        FROM (SELECT x.n, x.hour, coalesce(x.peer, '00000000-0000-0000-0000-000000000000') AS peer, billing.total(x.up) AS up,
                     billing.total(x.down) AS down, billing.total(x.up_packets) AS up_packets, billing.total(x.down_packets) AS down_packets,
                     billing.total(x.undelivered) AS undelivered, billing.total(x.refused) AS refused, bool_or(x.split) AS split
              FROM sample_in x JOIN hour_sum h ON h.n = x.n AND h.hour = x.hour AND NOT h.fresh GROUP BY x.n, x.peer, x.hour) s JOIN report_work w ON w.n = s.n
    ), changed AS (
        UPDATE billing.usage_hour h
        SET up = h.up + g.up, down = h.down + g.down, up_packets = h.up_packets + g.up_packets, down_packets = h.down_packets + g.down_packets,
            undelivered = h.undelivered + g.undelivered, refused = h.refused + g.refused, split = h.split OR g.split
        FROM grown g WHERE h.owner = g.owner AND h.gateway = g.gateway AND h.hour = g.hour AND h.peer = g.peer
        RETURNING h.gateway, h.hour, h.peer
    )
    INSERT INTO billing.usage_hour (owner, gateway, hour, peer, up, down, up_packets, down_packets, undelivered, refused, split)
    SELECT g.* FROM grown g WHERE NOT EXISTS (SELECT FROM changed c WHERE c.gateway = g.gateway AND c.hour = g.hour AND c.peer = g.peer);
END
$$;

CREATE FUNCTION billing.store_usage() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO billing.usage_record (owner, hour, epoch, seq, slot, incarnation, gateway, peer, grant_cycle,
                                      d_up, d_down, d_up_packets, d_down_packets, d_undelivered, d_refused, split)
    SELECT w.owner, s.hour, w.epoch, w.seq, s.slot, s.incarnation, w.gateway, s.peer, w.grant_cycle,
           s.up, s.down, s.up_packets, s.down_packets, s.undelivered, s.refused, s.split
    FROM sample_in s JOIN report_work w ON w.n = s.n;
END
$$;

CREATE FUNCTION billing.move_counters() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- All of the key from one side, or the planner may look for a slot among all of its epoch.
    WITH moved AS MATERIALIZED (
        SELECT w.owner, w.gateway, w.epoch, k.* FROM counter_in k JOIN report_work w ON w.n = k.n AND w.known
    )
    UPDATE billing.counter c
    SET up = k.up, down = k.down, up_packets = k.up_packets, down_packets = k.down_packets, undelivered = k.undelivered, refused = k.refused
    FROM moved k
    WHERE c.owner = k.owner AND c.gateway = k.gateway AND c.epoch = k.epoch AND c.slot = k.slot AND c.incarnation = k.incarnation;

    INSERT INTO billing.counter (owner, gateway, epoch, slot, incarnation, peer, up, down, up_packets, down_packets, undelivered, refused)
    SELECT w.owner, w.gateway, w.epoch, k.slot, k.incarnation, k.peer, k.up, k.down, k.up_packets, k.down_packets, k.undelivered, k.refused
    FROM counter_in k JOIN report_work w ON w.n = k.n
    LEFT JOIN counter_base b ON b.n = k.n AND b.slot = k.slot AND b.incarnation = k.incarnation WHERE b.n IS NULL;
END
$$;

-- ---- what they cost -------------------------------------------------------------------------------------------------

-- Parts of a sample wait for its last one, which says what the interface has counted.
CREATE FUNCTION billing.keep_parts() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO billing.part_hour AS p (owner, gateway, epoch, hour, up, down, undelivered)
    SELECT r.owner, r.gateway, r.epoch, h.hour, h.up, h.down, h.undelivered
    FROM hour_sum h JOIN report_in r ON r.n = h.n AND r.more WHERE h.peers
    ON CONFLICT (owner, gateway, epoch, hour) DO UPDATE
    SET up = p.up + excluded.up, down = p.down + excluded.down, undelivered = p.undelivered + excluded.undelivered;
END
$$;

-- What the kernel's own count grew by in each hour of a sample: divided by the records, in the directions of each hour.
-- The last hour takes what the reading of slots and interface at slightly different moments leaves over.
CREATE FUNCTION billing.divide_growth() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO settle_piece
    WITH taken AS (
        SELECT w.n, w.owner, w.gateway, w.epoch, w.location, w.this_hour, w.has_parts, r.counted - w.held_counted AS growth
        FROM report_work w JOIN report_in r ON r.n = w.n WHERE w.verdict IS NULL AND NOT r.more
    ), grown AS (
        SELECT h.n, h.hour, h.up, h.down, h.undelivered FROM hour_sum h WHERE h.peers
        UNION ALL
        SELECT t.n, p.hour, p.up, p.down, p.undelivered
        FROM taken t JOIN billing.part_hour p ON p.owner = t.owner AND p.gateway = t.gateway AND p.epoch = t.epoch WHERE t.has_parts
    ), net AS (
        SELECT t.n, g.hour, sum(CASE WHEN v.accounting <> 'downloads' THEN g.up ELSE 0 END
                                + CASE WHEN v.accounting <> 'uploads' THEN g.down - g.undelivered ELSE 0 END) AS bytes,
               sum(CASE WHEN v.accounting <> 'uploads' THEN g.undelivered ELSE 0 END) AS undelivered
        FROM grown g JOIN taken t ON t.n = g.n
        CROSS JOIN LATERAL (SELECT x.accounting FROM gateway.rate_version x WHERE x.location = t.location AND x.from_hour <= g.hour
                            ORDER BY x.from_hour DESC LIMIT 1) v
        GROUP BY t.n, g.hour
    ), total AS (
        SELECT t.n, t.growth - coalesce(sum(n.undelivered), 0) AS bytes FROM taken t LEFT JOIN net n ON n.n = t.n GROUP BY t.n, t.growth
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
END
$$;

-- With a limit, a byte belongs to the cycle of the grant that admitted it; without one, to the cycle of its time. Under the first
-- report of a newer grant, what it has not counted itself belongs to the one before.
CREATE FUNCTION billing.put_to_grants() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM settle_piece p JOIN report_work w ON w.n = p.n
                   WHERE p.overage = 'revoke_access' AND (w.grant_cycle <> p.cycle OR w.grant_cycle > w.held_cycle)) THEN
        RETURN;
    END IF;
    WITH limited AS (
        DELETE FROM settle_piece p USING report_work w, report_in r, billing.bucket b
        WHERE w.n = p.n AND r.n = p.n AND w.grant_cycle IS NOT NULL AND p.overage = 'revoke_access'
          AND b.owner = p.owner AND b.holder = p.gateway AND b.cycle = p.cycle AND b.allowance IS NOT NULL
        RETURNING p.*, w.grant_cycle, w.held_cycle,
            CASE WHEN w.grant_cycle > w.held_cycle THEN greatest(r.counted - w.held_counted - r.cycle_counted, 0) ELSE 0 END AS earlier
    ), divided AS (
        SELECT l.*, greatest(least(l.bytes, l.earlier - coalesce(sum(greatest(l.bytes, 0)) OVER (
            PARTITION BY l.n ORDER BY l.hour ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0)), 0) AS old_part
        FROM limited l
    )
    INSERT INTO settle_piece
    SELECT d.n, d.owner, d.gateway, d.held_cycle, d.hour, false, d.old_part, d.rate_version, d.rate, d.overage FROM divided d WHERE d.old_part > 0
    UNION ALL
    SELECT d.n, d.owner, d.gateway, d.grant_cycle, d.hour, true, d.bytes - d.old_part, d.rate_version, d.rate, d.overage
    FROM divided d WHERE d.bytes <> d.old_part;
END
$$;

CREATE FUNCTION billing.hold_settled() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    missing record;
BEGIN
    FOR missing IN
        SELECT DISTINCT p.owner, p.gateway, p.cycle, p.hour FROM settle_piece p
        WHERE NOT EXISTS (SELECT FROM billing.bucket b WHERE b.owner = p.owner AND b.holder = p.gateway AND b.cycle = p.cycle)
        ORDER BY p.owner, p.gateway, p.cycle, p.hour
    LOOP
        PERFORM billing.ensure_cycle(missing.hour);
        PERFORM billing.hold_bucket(missing.owner, missing.gateway, missing.cycle);
    END LOOP;
END
$$;

-- Adds the pieces to their buckets, in the order of their hours. What `charged` rises by is overage of that hour at its rate; under
-- a policy other than charge_overage it rises without a fee (B2). Bytes given back lower `used` and never `charged`: as far as
-- that leaves less charged than was, they are refundable, until later bytes use them up. What was refunded is charged again when used again.
CREATE FUNCTION billing.settle_pieces() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    told bigint;
BEGIN
    WITH flow AS (
        SELECT p.*, b.id AS bucket, b.charged - b.refunded AS charged0, b.refunded, b.refundable AS refundable0, b.allowance::numeric + b.extra AS ceiling,
               greatest(b.used - (b.allowance::numeric + b.extra), 0) AS over0, b.used + sum(p.bytes) OVER pieces AS raw,
               row_number() OVER pieces AS k, count(*) OVER (PARTITION BY b.owner, b.id) AS last
        FROM settle_piece p JOIN billing.bucket b ON b.owner = p.owner AND b.holder = p.gateway AND b.cycle = p.cycle
        WINDOW pieces AS (PARTITION BY b.owner, b.id ORDER BY p.hour, p.later)
    ), spent AS (
        SELECT f.*, f.raw - least(min(f.raw) OVER pieces, 0) AS used FROM flow f WINDOW pieces AS (PARTITION BY f.owner, f.bucket ORDER BY f.k)
    ), charging AS (
        SELECT s.*, greatest(s.charged0, max(s.used - s.ceiling) OVER pieces) AS charged, greatest(s.used - s.ceiling, 0) AS over
        FROM spent s WINDOW pieces AS (PARTITION BY s.owner, s.bucket ORDER BY s.k)
    ), stepped AS (
        SELECT c.*, c.charged - coalesce(lag(c.charged) OVER pieces, c.charged0) AS rise,
               sum(CASE WHEN c.overage = 'charge_overage' THEN c.given ELSE 0 END) OVER pieces AS given_so_far
        FROM (SELECT g.*, greatest(coalesce(lag(g.over) OVER before, g.over0) - g.over, 0) AS given
              FROM charging g WINDOW before AS (PARTITION BY g.owner, g.bucket ORDER BY g.k)) c
        WINDOW pieces AS (PARTITION BY c.owner, c.bucket ORDER BY c.k)
    ), settled AS MATERIALIZED (
        -- refundable is min(before + given, charged − over) at each step.
        SELECT s.*, s.given_so_far + least(s.refundable0, min(s.charged - s.over - s.given_so_far) OVER (
                   PARTITION BY s.owner, s.bucket ORDER BY s.k)) AS refundable
        FROM stepped s
    ), moved AS (
        UPDATE billing.bucket b SET used = s.used, charged = s.charged + s.refunded, refundable = coalesce(s.refundable, b.refundable)
        FROM settled s WHERE b.owner = s.owner AND b.id = s.bucket AND s.k = s.last
    ), owed AS (
        INSERT INTO billing.overage_hour AS o (owner, gateway, hour, bucket, rate_version, bytes)
        SELECT s.owner, s.gateway, s.hour, s.bucket, min(s.rate_version), sum(s.rise)
        FROM settled s WHERE s.rise > 0 AND s.overage = 'charge_overage' GROUP BY s.owner, s.gateway, s.hour, s.bucket
        ON CONFLICT (owner, gateway, hour, bucket) DO UPDATE SET bytes = o.bytes + excluded.bytes
    )
    SELECT count(billing.act(b, s.gateway, 'charge', billing.rfc3339(s.hour), w.epoch, w.seq, jsonb_build_object('rate', s.rate::text)))
    INTO told
    FROM settled s JOIN report_work w ON w.n = s.n JOIN billing.bucket b ON b.owner = s.owner AND b.id = s.bucket
    WHERE s.rise > 0 AND s.overage = 'charge_overage'
      AND NOT EXISTS (SELECT FROM billing.action a WHERE a.owner = s.owner AND a.bucket = s.bucket AND a.kind = 'charge'
                        AND a.key = billing.rfc3339(s.hour));
END
$$;

-- ---- what else they tell ----------------------------------------------------------------------------------------------

-- Adds an interval of a state. What is known already stays; touching intervals of one state become one.
CREATE FUNCTION billing.merge_state(owner_id uuid, gateway_id uuid, told_state text, told tstzrange) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    piece tstzrange;
    joined tstzrange;
BEGIN
    FOR piece IN
        SELECT unnest(tstzmultirange(told)
                      - coalesce((SELECT range_agg(i.span) FROM billing.active_interval i
                                  WHERE i.owner = owner_id AND i.gateway = gateway_id AND i.span && told), '{}'))
    LOOP
        WITH touching AS (
            DELETE FROM billing.active_interval i
            WHERE i.owner = owner_id AND i.gateway = gateway_id AND i.state = told_state AND i.span -|- piece
            RETURNING i.span
        )
        SELECT range_merge(range_agg(t.span)) INTO joined FROM (SELECT touching.span FROM touching UNION ALL SELECT piece) t;
        INSERT INTO billing.active_interval (owner, gateway, span, state) VALUES (owner_id, gateway_id, joined, told_state);
    END LOOP;
END
$$;

-- The gateways' rows after their reports: first activity, freshness, key, revision, and the intervals of their states.
-- A part of a sample makes nothing complete, and an epoch that is over says nothing of what is in force. An interval that a clock stepping
-- back has turned round is empty.
CREATE FUNCTION billing.note_gateways() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    told record;
BEGIN
    UPDATE gateway.gateway g
    SET status = CASE WHEN w.first AND g.status IN ('deploying', 'error') THEN 'active' ELSE g.status END,
        error = CASE WHEN w.first THEN NULL ELSE g.error END,
        active_since = CASE WHEN w.first THEN r.active_since ELSE g.active_since END,
        public_key = CASE WHEN r.over THEN g.public_key ELSE r.public_key END,
        applied_revision = CASE WHEN r.over THEN g.applied_revision ELSE least(r.applied_revision, g.revision) END,
        complete_through = CASE WHEN r.more THEN g.complete_through ELSE greatest(g.complete_through, least(r.covered_to, now())) END,
        last_report = now()
    FROM report_work w JOIN report_in r ON r.n = w.n
    WHERE w.verdict IS NULL AND g.owner = w.owner AND g.id = w.gateway;

    FOR told IN
        SELECT w.owner, w.gateway, s.state, tstzrange(s.begins, s.ends) * tstzrange(w.created, now() + interval '5 seconds') AS span
        FROM state_in s JOIN report_work w ON w.n = s.n
        WHERE w.verdict IS NULL AND s.begins < s.ends AND (w.first OR (w.active_since IS NOT NULL AND w.status IN ('active', 'deleting')))
        ORDER BY s.n, s.i
    LOOP
        PERFORM billing.merge_state(told.owner, told.gateway, told.state, told.span);
    END LOOP;
    FOR told IN
        -- Active begins at this very instant, even when nothing has been covered behind it yet.
        SELECT w.owner, w.gateway, tstzrange(r.active_since, r.active_since + interval '1 microsecond') AS span
        FROM report_work w JOIN report_in r ON r.n = w.n WHERE w.verdict IS NULL AND w.first
    LOOP
        PERFORM billing.merge_state(told.owner, told.gateway, 'active', told.span);
    END LOOP;
END
$$;

-- What the agents say of their peers, and of what they could not apply.
CREATE FUNCTION billing.note_peers() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    WITH seen AS MATERIALIZED (
        SELECT w.owner, w.gateway, s.peer, s.handshake, s.endpoint FROM seen_in s JOIN report_work w ON w.n = s.n WHERE w.verdict IS NULL
    )
    UPDATE gateway.peer p
    SET last_handshake = greatest(p.last_handshake, s.handshake), current_endpoint = coalesce(s.endpoint, p.current_endpoint)
    FROM seen s
    WHERE p.owner = s.owner AND p.gateway = s.gateway AND p.id = s.peer
      AND (greatest(p.last_handshake, s.handshake), coalesce(s.endpoint, p.current_endpoint))
          IS DISTINCT FROM (p.last_handshake, p.current_endpoint);

    INSERT INTO gateway.job_log (gateway, attempt, step, line)
    SELECT w.gateway, w.attempt, 'apply', format('cannot apply %s: %s', c.what, c.reason)
    FROM report_work w JOIN report_in r ON r.n = w.n
    CROSS JOIN LATERAL jsonb_to_recordset(r.cannot_apply) c (what text, reason text)
    WHERE w.verdict IS NULL AND NOT r.over AND r.applied_revision > w.applied_revision;
END
$$;

-- ---- the cursors move -------------------------------------------------------------------------------------------------

-- An epoch that its agent says is over is never the newest one, however late it comes: grants are for the newest.
CREATE FUNCTION billing.open_epochs() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO billing.epoch (owner, gateway, id, boot_id, generation, created)
    SELECT r.owner, r.gateway, r.epoch, r.boot_id, r.token_generation, CASE WHEN NOT r.over THEN clock_timestamp() ELSE least(
               r.covered_from, clock_timestamp(),
               (SELECT min(e.created) - interval '1 microsecond' FROM billing.epoch e WHERE e.owner = r.owner AND e.gateway = r.gateway)) END
    FROM report_in r JOIN report_work w ON w.n = r.n WHERE w.verdict IS NULL AND NOT w.known;
END
$$;

-- The only place that moves a cursor.
CREATE FUNCTION billing.move_cursors() RETURNS void
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
    WHERE w.verdict IS NULL AND b.owner = w.owner AND b.gateway = w.gateway AND b.epoch = w.epoch AND b.seq = w.seq - 1000;

    UPDATE billing.epoch e SET quarantined = w.verdict FROM report_work w
    WHERE w.verdict IN ('rolled_back', 'regressed') AND e.owner = w.owner AND e.gateway = w.gateway AND e.id = w.epoch
      AND e.quarantined IS NULL;
END
$$;

-- ---- what follows from them ---------------------------------------------------------------------------------------------

-- Warnings, suspension and return, where a bucket is near its limit or was beyond it.
CREATE FUNCTION billing.judge_buckets() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    due record;
BEGIN
    FOR due IN
        SELECT g, b AS held, e, w.seq, w.overage,
               jsonb_build_object('cycle', w.grant_cycle, 'grant_seq', r.grant_seq, 'exhausted', r.exhausted) AS in_force
        FROM report_work w JOIN report_in r ON r.n = w.n
        JOIN gateway.gateway g ON g.owner = w.owner AND g.id = w.gateway
        JOIN billing.epoch e ON e.owner = w.owner AND e.gateway = w.gateway AND e.id = w.epoch
        JOIN billing.bucket b ON b.owner = w.owner AND b.holder = w.gateway
            AND b.cycle >= least(w.grant_cycle, w.held_cycle, billing.cycle_id(w.this_hour))
        WHERE w.verdict IS NULL
          AND (r.exhausted OR b.used * 5::numeric >= (b.allowance::numeric + b.extra) * 4 OR 'allowance' = ANY (g.suspended_reasons))
        ORDER BY w.owner, w.gateway, b.cycle
    LOOP
        PERFORM billing.judge(due.g, due.held, due.e, due.seq, due.overage, due.in_force);
    END LOOP;
END
$$;

-- Who is told of a newer grant: a new epoch has no ceiling before, and bytes given back raise it.
CREATE FUNCTION billing.tell_agents() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    told record;
BEGIN
    FOR told IN
        SELECT w.owner, w.gateway, w.known, w.overage = 'revoke_access' AND w.accounting <> 'uploads'
               AND w.n IN (SELECT h.n FROM hour_sum h WHERE h.undelivered > 0) AS gave_back
        FROM report_work w WHERE w.verdict IS NULL ORDER BY w.owner, w.gateway
    LOOP
        IF told.gave_back THEN
            UPDATE billing.bucket SET grant_seq = grant_seq + 1
            WHERE owner = told.owner AND holder = told.gateway AND cycle = billing.cycle_id(now()) AND allowance IS NOT NULL;
        END IF;
        IF told.gave_back OR NOT told.known THEN
            PERFORM billing.raise_revision(told.owner, told.gateway);
        END IF;
    END LOOP;
END
$$;

-- Posts what is due of the gateways that have reported: an hour that begins, overage of hours that are complete.
CREATE FUNCTION billing.post_due() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    due record;
BEGIN
    FOR due IN
        SELECT w.owner, w.gateway FROM report_work w
        WHERE w.verdict IS NULL AND EXISTS (
            SELECT FROM billing.active_interval i
            WHERE i.owner = w.owner AND i.gateway = w.gateway AND i.state = 'active' AND i.span && tstzrange(coalesce(
                (SELECT upper(l.span) FROM billing.ledger l WHERE l.owner = w.owner AND l.gateway = w.gateway AND (l.kind = 'base' OR l.adjusts = 'base')
                 ORDER BY l.utc_hour DESC LIMIT 1), '-infinity'), NULL))
        ORDER BY w.owner, w.gateway
    LOOP
        PERFORM billing.post_base(due.owner, due.gateway);
    END LOOP;
    FOR due IN
        SELECT w.owner, w.gateway FROM report_work w
        WHERE w.verdict IS NULL
          AND EXISTS (SELECT FROM billing.overage_hour o WHERE o.owner = w.owner AND o.gateway = w.gateway AND o.bytes > o.posted_bytes)
        ORDER BY w.owner, w.gateway
    LOOP
        PERFORM billing.post_bandwidth(due.owner, due.gateway);
    END LOOP;
END
$$;

-- Somebody has to look at an epoch that contradicts itself. A gap that the journal has no longer costs time resolution only, and is told too.
CREATE FUNCTION billing.alarm_reports() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    w record;
BEGIN
    FOR w IN SELECT x.* FROM report_work x
             WHERE x.verdict IN ('rolled_back', 'regressed') OR (x.verdict IS NULL AND x.seq <> x.held_seq + 1) ORDER BY x.owner, x.gateway
    LOOP
        PERFORM billing.raise_alarm(w.owner, w.gateway, CASE WHEN w.verdict IS NULL THEN 'gap' ELSE 'quarantine' END, w.epoch::text,
                                    jsonb_strip_nulls(jsonb_build_object('reason', w.verdict, 'seq', w.seq, 'held_seq', w.held_seq)));
    END LOOP;
END
$$;

-- ---- all of it -------------------------------------------------------------------------------------------------------------

-- Takes the batches that lie in the temporary tables. Each is answered: the HTTP status, its body or the detail of a problem,
-- and `keep`: the content contradicts what is held and has to be put aside.
CREATE FUNCTION billing.apply_reports() RETURNS TABLE (n bigint, status integer, body jsonb, detail text, keep boolean)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM billing.lock_reports();
    PERFORM billing.judge_reports();
    PERFORM billing.open_epochs();
    PERFORM billing.compare_totals();
    PERFORM billing.place_hours();
    PERFORM billing.sum_hours();
    PERFORM billing.note_gateways();
    PERFORM billing.store_usage();
    PERFORM billing.roll_up();
    PERFORM billing.move_counters();
    PERFORM billing.keep_parts();
    PERFORM billing.divide_growth();
    PERFORM billing.hold_settled();
    PERFORM billing.put_to_grants();
    PERFORM billing.hold_settled();
    PERFORM billing.settle_pieces();
    PERFORM billing.move_cursors();
    PERFORM billing.judge_buckets();
    PERFORM billing.tell_agents();
    PERFORM billing.note_peers();
    PERFORM billing.post_due();
    PERFORM billing.alarm_reports();
    PERFORM billing.reconcile_reports();
    RETURN QUERY
    SELECT w.n, CASE WHEN w.verdict IS NULL OR w.verdict = 'held' THEN 200 WHEN w.verdict = 'gone' THEN 410
                     WHEN w.verdict = 'clock' THEN 400 ELSE 409 END,
           CASE WHEN w.verdict IS NULL OR w.verdict = 'held' THEN jsonb_build_object(
                    'held_seq', CASE WHEN w.verdict IS NULL THEN w.seq ELSE w.held_seq END, 'restored', billing.restored(),
                    'revision', g.revision, 'watch_until', CASE WHEN g.watch_until > now() THEN billing.rfc3339(g.watch_until) END)
                ELSE jsonb_build_object('held_seq', w.held_seq, 'restored', billing.restored(), 'reason', w.verdict, 'held_crc', (
                    SELECT b.crc FROM billing.epoch_batch b
                    WHERE b.owner = w.owner AND b.gateway = w.gateway AND b.epoch = w.epoch AND b.seq = w.held_seq)) END,
           w.detail, coalesce(w.verdict IN ('rolled_back', 'regressed'), false)
               AND (SELECT count(*) FROM billing.quarantine q WHERE q.owner = w.owner AND q.gateway = w.gateway) < 100
    FROM report_work w LEFT JOIN gateway.gateway g ON g.owner = w.owner AND g.id = w.gateway;
END
$$;
