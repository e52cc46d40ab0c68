-- SPDX-License-Identifier: BSD-2-Clause
-- What an agent says is held against what can be (docs/operate/reports.md): a gateway that lies, or counts wrong, changes nothing but rows of
-- its own, and those by no more than its link can have carried.

-- ---- how much can have been carried ---------------------------------------------------------------------------------

-- The fastest that a gateway there can be, in 10^9 bits a second.
ALTER TABLE gateway.location ADD COLUMN link_gbps integer NOT NULL DEFAULT 400;
ALTER TABLE gateway.location ADD CONSTRAINT location_link_gbps CHECK (link_gbps BETWEEN 1 AND 10000);

-- Of what has been reported: the instant by which a link of that speed can have carried it. Written only while it is ahead of
-- complete_through, which is seldom.
ALTER TABLE gateway.gateway ADD COLUMN counted_until timestamptz;

-- What lies were stored already.
UPDATE billing.bucket SET exhausted_seq = grant_seq WHERE exhausted_seq > grant_seq;
UPDATE gateway.peer SET last_handshake = NULL WHERE last_handshake > now() + interval '5 seconds';
UPDATE gateway.peer SET current_endpoint = NULL WHERE length(current_endpoint) > 64;
UPDATE gateway.gateway SET active_since = created WHERE active_since < created;

CREATE FUNCTION billing.doubt(batch bigint, why text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE report_work SET verdict = 'implausible', detail = why WHERE n = batch AND verdict IS NULL;
END
$$;

-- Bytes and packets reach no further than the link: since what was reported completely, behind which nothing is missing, and an hour for clocks
-- that differ. Late batches have the time that they are late. After a restore the journals fill in what came since the backup.
CREATE FUNCTION billing.weigh_growth() RETURNS void
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
                   greatest(g.counted_until, least(coalesce(g.complete_through, g.created), since)) AS begins
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

-- A peer is made here before its agent hears of it, so one that is not known does not exist; but for those that came between a backup and its
-- restore. WireGuard drops no more than it was given.
CREATE FUNCTION billing.weigh_counters() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM billing.doubt(k.n, format('slot %s has %s undelivered bytes of %s downloaded', k.slot, k.undelivered, k.down))
    FROM counter_in k WHERE k.undelivered > k.down;

    IF billing.restored() > 0 OR (SELECT count(*) FROM counter_in) = (SELECT count(*) FROM counter_base) THEN
        RETURN; -- most often: no slot is new
    END IF;
    PERFORM billing.doubt(k.n, format('slot %s belongs to the peer %s, which this gateway does not have', k.slot, k.peer))
    FROM counter_in k JOIN report_work w ON w.n = k.n AND w.verdict IS NULL
    LEFT JOIN counter_base b ON b.n = k.n AND b.slot = k.slot AND b.incarnation = k.incarnation
    WHERE b.n IS NULL AND k.slot > 0
      AND NOT EXISTS (SELECT FROM gateway.peer p WHERE p.owner = w.owner AND p.gateway = w.gateway AND p.id = k.peer);
END
$$;

-- What cannot be: the batch is refused and its epoch quarantined, before anything of it is added to anything. Epochs are as many as starts of an
-- agent; one that begins more has to wait.
CREATE FUNCTION billing.weigh_reports() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE report_work w SET verdict = 'often'
    WHERE w.verdict IS NULL AND NOT w.known
      AND (SELECT count(*) FROM billing.epoch e WHERE e.owner = w.owner AND e.gateway = w.gateway)
          >= 1000 + 100 * extract(epoch FROM now() - w.created) / 86400;
    PERFORM billing.weigh_growth();
    PERFORM billing.weigh_counters();
    IF EXISTS (SELECT FROM report_work w WHERE w.verdict IN ('often', 'implausible')) THEN
        DELETE FROM sample_in s USING report_work w WHERE w.n = s.n AND w.verdict IS NOT NULL;
        DELETE FROM counter_in k USING report_work w WHERE w.n = k.n AND w.verdict IS NOT NULL;
    END IF;
END
$$;

-- ---- sums that stay within 64 bits ------------------------------------------------------------------------------------

-- What is held may be from before there was a bound: it stays at its end, and nothing that comes is refused for it.
CREATE FUNCTION billing.saturated(a bigint, b bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE
RETURN least(a, 9223372036854775807 - b) + b;

CREATE OR REPLACE FUNCTION billing.roll_up() RETURNS void
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
        SET up = billing.saturated(h.up, g.up), down = billing.saturated(h.down, g.down),
            up_packets = billing.saturated(h.up_packets, g.up_packets), down_packets = billing.saturated(h.down_packets, g.down_packets),
            undelivered = billing.saturated(h.undelivered, g.undelivered), refused = billing.saturated(h.refused, g.refused),
            split = h.split OR g.split
        FROM grown g WHERE h.owner = g.owner AND h.gateway = g.gateway AND h.hour = g.hour AND h.peer = g.peer
        RETURNING h.gateway, h.hour, h.peer
    )
    INSERT INTO billing.usage_hour (owner, gateway, hour, peer, up, down, up_packets, down_packets, undelivered, refused, split)
    SELECT g.* FROM grown g WHERE NOT EXISTS (SELECT FROM changed c WHERE c.gateway = g.gateway AND c.hour = g.hour AND c.peer = g.peer);
END
$$;

CREATE OR REPLACE FUNCTION billing.keep_parts() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO billing.part_hour AS p (owner, gateway, epoch, hour, up, down, undelivered)
    SELECT r.owner, r.gateway, r.epoch, h.hour, h.up, h.down, h.undelivered
    FROM hour_sum h JOIN report_in r ON r.n = h.n AND r.more WHERE h.peers
    ON CONFLICT (owner, gateway, epoch, hour) DO UPDATE
    SET up = billing.saturated(p.up, excluded.up), down = billing.saturated(p.down, excluded.down),
        undelivered = billing.saturated(p.undelivered, excluded.undelivered);
END
$$;

-- Adds the pieces to their buckets, in the order of their hours. What `charged` rises by is overage of that hour at its rate; under
-- a policy other than charge_overage it rises without a fee (B2). Bytes given back lower `used` and never `charged`: as far as
-- that leaves less charged than was, they are refundable, until later bytes use them up. What was refunded is charged again when used again.
CREATE OR REPLACE FUNCTION billing.settle_pieces() RETURNS void
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
        UPDATE billing.bucket b
        SET used = least(s.used, 9223372036854775807), charged = least(s.charged + s.refunded, 9223372036854775807),
            refundable = least(coalesce(s.refundable, b.refundable), 9223372036854775807)
        FROM settled s WHERE b.owner = s.owner AND b.id = s.bucket AND s.k = s.last
    ), owed AS (
        INSERT INTO billing.overage_hour AS o (owner, gateway, hour, bucket, rate_version, bytes)
        SELECT s.owner, s.gateway, s.hour, s.bucket, min(s.rate_version), least(sum(s.rise), 9223372036854775807)
        FROM settled s WHERE s.rise > 0 AND s.overage = 'charge_overage' GROUP BY s.owner, s.gateway, s.hour, s.bucket
        ON CONFLICT (owner, gateway, hour, bucket) DO UPDATE SET bytes = billing.saturated(o.bytes, excluded.bytes)
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

DROP FUNCTION billing.merge_state;

-- Adds intervals of states, in their order. What is known already stays; touching intervals of one state become one.
CREATE FUNCTION billing.merge_states(owner_id uuid, gateway_id uuid, told_states text[], told tstzrange[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known tstzmultirange;
    piece tstzmultirange;
    active tstzmultirange := '{}';
    suspended tstzmultirange := '{}';
    joined tstzmultirange;
    told_state text;
BEGIN
    SELECT coalesce(range_agg(i.span), '{}') INTO known FROM billing.active_interval i
    WHERE i.owner = owner_id AND i.gateway = gateway_id
      AND i.span && (SELECT range_merge(range_agg(t.span)) FROM unnest(told) t (span));
    FOR k IN 1..cardinality(told) LOOP
        piece := tstzmultirange(told[k]) - known;
        known := known + piece;
        IF told_states[k] = 'active' THEN
            active := active + piece;
        ELSE
            suspended := suspended + piece;
        END IF;
    END LOOP;
    FOR told_state, piece IN SELECT * FROM (VALUES ('active', active), ('suspended', suspended)) v WHERE NOT isempty(v.column2) LOOP
        WITH touching AS (
            DELETE FROM billing.active_interval i USING unnest(piece) p (span)
            WHERE i.owner = owner_id AND i.gateway = gateway_id AND i.state = told_state AND i.span -|- p.span
            RETURNING i.span
        )
        SELECT piece + coalesce(range_agg(t.span), '{}') INTO joined FROM touching t;
        INSERT INTO billing.active_interval (owner, gateway, span, state) SELECT owner_id, gateway_id, j.span, told_state FROM unnest(joined) j (span);
    END LOOP;
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
        last_report = now()
    FROM report_work w JOIN report_in r ON r.n = w.n
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

-- What the agents say of their peers, within the gateway's life; and of what they could not apply, each revision once. Of these lines the newest
-- 200 of a gateway stay.
CREATE OR REPLACE FUNCTION billing.note_peers() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    WITH seen AS MATERIALIZED (
        SELECT w.owner, w.gateway, s.peer, CASE WHEN s.handshake >= w.created THEN least(s.handshake, now()) END AS handshake, s.endpoint
        FROM seen_in s JOIN report_work w ON w.n = s.n WHERE w.verdict IS NULL
    )
    UPDATE gateway.peer p
    SET last_handshake = greatest(p.last_handshake, s.handshake), current_endpoint = coalesce(s.endpoint, p.current_endpoint)
    FROM seen s
    WHERE p.owner = s.owner AND p.gateway = s.gateway AND p.id = s.peer
      AND (greatest(p.last_handshake, s.handshake), coalesce(s.endpoint, p.current_endpoint))
          IS DISTINCT FROM (p.last_handshake, p.current_endpoint);

    IF NOT EXISTS (SELECT FROM report_in r WHERE r.cannot_apply IS NOT NULL) THEN
        RETURN;
    END IF;
    WITH told AS (
        INSERT INTO gateway.job_log (gateway, attempt, step, line)
        SELECT w.gateway, w.attempt, 'apply', regexp_replace(format('cannot apply %s: %s', left(c.what, 200), left(c.reason, 500)), '[[:cntrl:]]', ' ', 'g')
        FROM report_work w JOIN report_in r ON r.n = w.n JOIN gateway.gateway g ON g.owner = w.owner AND g.id = w.gateway
        CROSS JOIN LATERAL jsonb_to_recordset(r.cannot_apply) c (what text, reason text)
        WHERE w.verdict IS NULL AND NOT r.over AND g.applied_revision > w.applied_revision
        RETURNING gateway
    )
    DELETE FROM gateway.job_log l USING (SELECT DISTINCT t.gateway FROM told t) t
    WHERE l.gateway = t.gateway AND l.step = 'apply'
      AND l.id <= (SELECT o.id FROM gateway.job_log o WHERE o.gateway = t.gateway AND o.step = 'apply' ORDER BY o.id DESC OFFSET 100 LIMIT 1);
END
$$;

-- Warnings, suspension and return (B5) of one bucket. Exhausted in the kernel, or used up: suspended, once for a grant.
-- A newer grant in force and not exhausted: back. A grant that was never given is none.
CREATE OR REPLACE FUNCTION billing.judge(g gateway.gateway, held billing.bucket, e billing.epoch, batch_seq bigint, overage text, in_force jsonb)
RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ceiling numeric := held.allowance::numeric + held.extra;
    grant_number bigint := CASE WHEN (in_force ->> 'cycle')::integer = held.cycle AND (in_force ->> 'grant_seq')::bigint <= held.grant_seq
                                THEN (in_force ->> 'grant_seq')::bigint END;
    refused boolean := grant_number IS NOT NULL AND (in_force ->> 'exhausted')::boolean;
    used_up boolean := coalesce(held.used > 0 AND held.used >= ceiling, false);
    -- The kernel's word counts for the newest limit only; used_up is ours.
    full_now boolean := used_up OR (refused AND grant_number = held.grant_seq);
    hit bigint := CASE WHEN refused THEN grant_number WHEN used_up AND overage = 'revoke_access' THEN held.grant_seq END;
    amount jsonb := jsonb_build_object('used', held.used::text, 'limit', ceiling::text);
BEGIN
    IF overage <> 'none' AND (full_now OR (held.used > 0 AND held.used * 5::numeric >= ceiling * 4)) THEN
        PERFORM billing.act(held, g.id, 'warning_80', ceiling::text, e.id, batch_seq, amount);
    END IF;
    IF overage <> 'none' AND full_now THEN
        PERFORM billing.act(held, g.id, 'warning_100', ceiling::text, e.id, batch_seq, amount);
    END IF;
    IF hit > held.exhausted_seq THEN
        UPDATE billing.bucket SET exhausted_seq = hit WHERE owner = held.owner AND id = held.id;
        PERFORM billing.act(held, g.id, 'suspend', hit::text, e.id, batch_seq, amount);
        UPDATE gateway.gateway SET suspended_reasons = array_append(array_remove(suspended_reasons, 'allowance'), 'allowance')
        WHERE owner = g.owner AND id = g.id;
    ELSIF hit IS NULL AND grant_number > held.exhausted_seq AND 'allowance' = ANY (g.suspended_reasons) THEN
        PERFORM billing.act(held, g.id, 'restore', grant_number::text, e.id, batch_seq, amount);
        UPDATE gateway.gateway SET suspended_reasons = array_remove(suspended_reasons, 'allowance') WHERE owner = g.owner AND id = g.id;
    END IF;
END
$$;

-- Raises an alarm unless it is open; every replica hears of it and says so in its log. Of one gateway, a hundred are open at most.
CREATE OR REPLACE FUNCTION billing.raise_alarm(owner_id uuid, gateway_id uuid, alarm_kind text, alarm_subject text, alarm_detail jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO billing.alarm (owner, gateway, kind, subject, detail)
    SELECT owner_id, gateway_id, alarm_kind, alarm_subject, alarm_detail
    WHERE (SELECT count(*) FROM billing.alarm a WHERE a.owner = owner_id AND a.gateway = gateway_id AND a.cleared IS NULL) < 100
    ON CONFLICT (owner, gateway, kind, subject) WHERE cleared IS NULL DO NOTHING;
    IF FOUND THEN
        PERFORM pg_notify('wiretoll_alarm', json_build_object('gateway', gateway_id, 'kind', alarm_kind, 'subject', alarm_subject,
                                                              'detail', alarm_detail)::text);
    END IF;
END
$$;

-- The only place that moves a cursor.
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
    WHERE w.verdict IS NULL AND b.owner = w.owner AND b.gateway = w.gateway AND b.epoch = w.epoch AND b.seq = w.seq - 1000;

    UPDATE billing.epoch e SET quarantined = w.verdict FROM report_work w
    WHERE w.verdict IN ('rolled_back', 'regressed', 'implausible') AND e.owner = w.owner AND e.gateway = w.gateway AND e.id = w.epoch
      AND e.quarantined IS NULL;
END
$$;

-- Somebody has to look at an epoch that contradicts itself or what can be. A gap that the journal has no longer costs time resolution only, and
-- is told too.
CREATE OR REPLACE FUNCTION billing.alarm_reports() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    w record;
BEGIN
    FOR w IN SELECT x.* FROM report_work x
             WHERE x.verdict IN ('rolled_back', 'regressed', 'implausible') OR (x.verdict IS NULL AND x.seq <> x.held_seq + 1) ORDER BY x.owner, x.gateway
    LOOP
        PERFORM billing.raise_alarm(w.owner, w.gateway, CASE WHEN w.verdict IS NULL THEN 'gap' ELSE 'quarantine' END, w.epoch::text,
                                    jsonb_strip_nulls(jsonb_build_object('reason', w.verdict, 'seq', w.seq, 'held_seq', w.held_seq, 'detail', w.detail)));
    END LOOP;
END
$$;

DROP FUNCTION billing.agent_drift;

-- What an agent says of its epoch against what is held of it. The meter and the journal have to agree to the byte. WireGuard receives at least
-- 32 bytes more than the meter for each packet, and of what it sends it can only drop. The interface counts what the meter
-- counts, or padded to 16; or messages, which are as long as WireGuard's.
CREATE FUNCTION billing.agent_drift(said jsonb, held_seq bigint, up numeric, down numeric, up_packets numeric, down_packets numeric, grown numeric)
RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object(
        'meter_records', ((said #>> '{meter,upload_bytes}')::numeric + (said #>> '{meter,download_bytes}')::numeric - up - down)::text,
        'journal_records', CASE WHEN (said #>> '{journal,seq}')::bigint = held_seq THEN (
            (said #>> '{journal,upload_bytes}')::numeric + (said #>> '{journal,download_bytes}')::numeric - (up + down - grown))::text END,
        'wireguard_meter', billing.beyond((said #>> '{wireguard,rx_bytes}')::numeric - up - 32::numeric * up_packets, 'Infinity')::text,
        'interface_meter', CASE WHEN (said #>> '{interface,encrypted}')::boolean
            THEN billing.beyond((said #>> '{interface,rx_bytes}')::numeric - up - 32::numeric * up_packets, 'Infinity')
            ELSE billing.beyond((said #>> '{interface,rx_bytes}')::numeric - up, 15::numeric * up_packets) END::text))
$$;

-- The first report of an hour, and the first with counts of the agent's own, is compared. A drift is an alarm until it is gone.
CREATE OR REPLACE FUNCTION billing.reconcile_reports() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    due record;
    held record;
    found_drift jsonb;
    pair record;
BEGIN
    FOR due IN
        SELECT w.n, w.owner, w.gateway, w.epoch, w.seq, w.held_seq, r.reconcile
        FROM report_work w JOIN report_in r ON r.n = w.n
        LEFT JOIN billing.reconciliation k ON k.owner = w.owner AND k.gateway = w.gateway
        WHERE w.verdict IS NULL AND NOT r.more AND NOT r.over
          AND least(k.at, CASE WHEN r.reconcile IS NOT NULL THEN coalesce(k.claimed, '-infinity') END) < date_trunc('hour', now(), 'UTC')
              IS NOT FALSE
        ORDER BY w.owner, w.gateway
    LOOP
        SELECT coalesce(sum(c.up), 0) AS up, coalesce(sum(c.down), 0) AS down,
               coalesce(sum(c.up_packets), 0) AS up_packets, coalesce(sum(c.down_packets), 0) AS down_packets
        INTO held FROM billing.counter c WHERE c.owner = due.owner AND c.gateway = due.gateway AND c.epoch = due.epoch;
        found_drift := billing.ledger_drift(due.owner, due.gateway) || billing.agent_drift(due.reconcile, due.held_seq, held.up, held.down,
            held.up_packets, held.down_packets, (SELECT sum(s.up + s.down) FROM sample_in s WHERE s.n = due.n));
        INSERT INTO billing.reconciliation AS k (owner, gateway, epoch, seq, claimed, counts, drift)
        VALUES (due.owner, due.gateway, due.epoch, due.seq, CASE WHEN due.reconcile IS NOT NULL THEN now() END,
                coalesce(due.reconcile, '{}') || jsonb_build_object('records', jsonb_build_object(
                    'upload_bytes', held.up::text, 'download_bytes', held.down::text,
                    'upload_packets', held.up_packets::text, 'download_packets', held.down_packets::text)), found_drift)
        ON CONFLICT (owner, gateway) DO UPDATE
        SET epoch = excluded.epoch, seq = excluded.seq, at = now(), claimed = coalesce(excluded.claimed, k.claimed), counts = excluded.counts,
            drift = excluded.drift;
        FOR pair IN SELECT d.key AS between, d.value AS bytes FROM jsonb_each_text(found_drift) d LOOP
            IF pair.bytes::numeric <> 0 THEN
                PERFORM billing.raise_alarm(due.owner, due.gateway, 'drift', pair.between, jsonb_build_object('bytes', pair.bytes, 'seq', due.seq));
            ELSE
                UPDATE billing.alarm SET cleared = now()
                WHERE owner = due.owner AND gateway = due.gateway AND kind = 'drift' AND subject = pair.between AND cleared IS NULL;
            END IF;
        END LOOP;
    END LOOP;
END
$$;

-- ---- all of it -------------------------------------------------------------------------------------------------------------

-- Takes the batches that lie in the temporary tables. Each is answered: the HTTP status, its body or the detail of a problem,
-- and `keep`: the content contradicts what is held, or what can be, and has to be put aside.
CREATE OR REPLACE FUNCTION billing.apply_reports() RETURNS TABLE (n bigint, status integer, body jsonb, detail text, keep boolean)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM billing.lock_reports();
    PERFORM billing.judge_reports();
    PERFORM billing.open_epochs();
    PERFORM billing.compare_totals();
    PERFORM billing.weigh_reports();
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
                     WHEN w.verdict = 'clock' THEN 400 WHEN w.verdict = 'often' THEN 503 ELSE 409 END,
           CASE WHEN w.verdict IS NULL OR w.verdict = 'held' THEN jsonb_build_object(
                    'held_seq', CASE WHEN w.verdict IS NULL THEN w.seq ELSE w.held_seq END, 'restored', billing.restored(),
                    'revision', g.revision, 'watch_until', CASE WHEN g.watch_until > now() THEN billing.rfc3339(g.watch_until) END)
                ELSE jsonb_build_object('held_seq', w.held_seq, 'restored', billing.restored(), 'reason', w.verdict, 'held_crc', (
                    SELECT b.crc FROM billing.epoch_batch b
                    WHERE b.owner = w.owner AND b.gateway = w.gateway AND b.epoch = w.epoch AND b.seq = w.held_seq)) END,
           w.detail, coalesce(w.verdict IN ('rolled_back', 'regressed', 'implausible'), false)
               AND (SELECT count(*) FROM billing.quarantine q WHERE q.owner = w.owner AND q.gateway = w.gateway) < 100
    FROM report_work w LEFT JOIN gateway.gateway g ON g.owner = w.owner AND g.id = w.gateway;
END
$$;

-- A batch that the database refused, alone in its transaction, is one that cannot be: the answer is a conflict as any other, and what the
-- database said is in the alarm. NULL: it is no batch of a gateway's current agent, and would not have come so far.
CREATE FUNCTION billing.refuse_report(owner_id uuid, gateway_id uuid, claimed_attempt integer, token_generation bigint, epoch_id uuid,
                                      boot uuid, batch_seq bigint, batch_crc bigint, why text, content text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    held bigint;
BEGIN
    PERFORM FROM gateway.gateway g
    WHERE g.owner = owner_id AND g.id = gateway_id AND g.attempt = claimed_attempt AND g.generation = token_generation AND g.status <> 'deleted'
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    INSERT INTO billing.epoch AS e (owner, gateway, id, boot_id, generation, quarantined)
    VALUES (owner_id, gateway_id, epoch_id, boot, token_generation, 'implausible')
    ON CONFLICT (owner, gateway, id) DO UPDATE SET quarantined = coalesce(e.quarantined, 'implausible') RETURNING last_seq INTO held;
    INSERT INTO billing.quarantine (owner, gateway, epoch, seq, crc, reason, held_seq, body)
    SELECT owner_id, gateway_id, epoch_id, batch_seq, batch_crc, 'implausible', held, content
    WHERE (SELECT count(*) FROM billing.quarantine q WHERE q.owner = owner_id AND q.gateway = gateway_id) < 100 ON CONFLICT DO NOTHING;
    PERFORM billing.raise_alarm(owner_id, gateway_id, 'quarantine', epoch_id::text,
                                jsonb_build_object('reason', 'implausible', 'seq', batch_seq, 'held_seq', held, 'detail', why));
    RETURN jsonb_build_object('held_seq', held, 'restored', billing.restored(), 'reason', 'implausible', 'held_crc', (
        SELECT b.crc FROM billing.epoch_batch b WHERE b.owner = owner_id AND b.gateway = gateway_id AND b.epoch = epoch_id AND b.seq = held));
END
$$;

-- What an operator has looked at: the alarms are cleared, and epochs that were only beyond what can be may go on, to be judged anew. (What
-- contradicts itself stays refused.) Their number.
CREATE FUNCTION billing.clear_alarms(owner_id uuid, gateway_id uuid) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    released bigint;
BEGIN
    PERFORM FROM gateway.gateway g WHERE g.owner = owner_id AND g.id = gateway_id FOR NO KEY UPDATE;
    UPDATE billing.alarm SET cleared = now() WHERE owner = owner_id AND gateway = gateway_id AND cleared IS NULL;
    WITH freed AS (
        UPDATE billing.epoch SET quarantined = NULL WHERE owner = owner_id AND gateway = gateway_id AND quarantined = 'implausible' RETURNING id
    )
    SELECT count(*) INTO released FROM freed;
    RETURN released;
END
$$;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA gateway, billing FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'wiretoll_api') THEN
        GRANT EXECUTE ON FUNCTION billing.doubt, billing.weigh_growth, billing.weigh_counters, billing.weigh_reports, billing.saturated,
            billing.merge_states, billing.agent_drift, billing.refuse_report, billing.clear_alarms TO wiretoll_api;
    END IF;
END
$$;
