-- SPDX-License-Identifier: BSD-2-Clause
-- What agents send and fetch: enrolment, desired state, usage. A report is one transaction and is applied once, however
-- often and in whatever order it comes. Locks: account, gateway, epoch, bucket, as in 0003.

CREATE FUNCTION billing.rfc3339(instant timestamptz) RETURNS text
LANGUAGE sql STABLE
RETURN to_char(instant AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');

-- ---- enrolment ----------------------------------------------------------------------------------------------------

-- Trades a one-time token for an agent's token (both by their hashes). Once traded, the same key may trade it again until
-- a report of its generation was taken: the answer may have been lost. {"status", "generation"}.
CREATE FUNCTION gateway.enroll(gateway_id uuid, claimed_attempt integer, enroll_hash bytea, agent_hash bytea, key bytea) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g gateway.gateway;
    t gateway.token;
BEGIN
    SELECT x.* INTO g FROM gateway.gateway x WHERE x.id = gateway_id FOR UPDATE;
    SELECT k.* INTO t FROM gateway.token k
    WHERE k.hash = enroll_hash AND k.kind = 'enroll' AND k.gateway = gateway_id AND k.expires > now();
    IF NOT FOUND THEN
        RETURN '{"status": 403}';
    END IF;
    IF g.attempt <> claimed_attempt OR t.attempt <> claimed_attempt THEN
        RETURN '{"status": 409}';
    END IF;
    IF t.used IS NOT NULL
       AND (g.public_key IS DISTINCT FROM key
            OR EXISTS (SELECT FROM billing.epoch e WHERE e.owner = g.owner AND e.gateway = g.id AND e.generation = g.generation)) THEN
        RETURN '{"status": 403}';
    END IF;
    UPDATE gateway.gateway SET generation = generation + 1, public_key = key WHERE owner = g.owner AND id = g.id;
    UPDATE gateway.token SET used = coalesce(used, now()) WHERE hash = enroll_hash;
    DELETE FROM gateway.token WHERE gateway = g.id AND kind = 'agent';
    INSERT INTO gateway.token (hash, kind, owner, gateway, attempt, generation, expires)
    VALUES (agent_hash, 'agent', g.owner, g.id, g.attempt, g.generation + 1, 'infinity');
    RETURN jsonb_build_object('status', 201, 'generation', g.generation + 1);
END
$$;

-- ---- desired state --------------------------------------------------------------------------------------------------

-- The ceiling is absolute, in counted bytes of the cycle in the gateway's newest epoch: what this epoch has counted is
-- part of `used`, so both move together and the ceiling stands still under traffic. No live epoch is known: no ceiling.
CREATE FUNCTION billing.grants(g gateway.gateway) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (
        WITH held AS (
            SELECT b.* FROM billing.bucket b WHERE b.owner = g.owner AND b.holder = g.id ORDER BY b.cycle DESC LIMIT 1
        ), newest AS (
            SELECT e.* FROM billing.epoch e WHERE e.owner = g.owner AND e.gateway = g.id ORDER BY e.created DESC LIMIT 1
        )
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'cycle', b.cycle, 'grant_seq', b.grant_seq, 'mask', r.accounting, 'epoch', e.id,
            'ceiling', CASE WHEN l.limited THEN
                least(greatest(b.allowance::numeric + b.extra - b.used + CASE WHEN e.cycle = b.cycle THEN e.cycle_counted ELSE 0 END, 0),
                      9223372036854775807)::bigint::text END)), '[]')
        FROM held b
        CROSS JOIN billing.rate_at(g.location, now()) r
        CROSS JOIN LATERAL (SELECT r.overage = 'revoke_access' AND b.allowance IS NOT NULL AS limited) l
        LEFT JOIN newest e ON e.sealed IS NULL AND e.quarantined IS NULL
        WHERE NOT l.limited OR e.id IS NOT NULL);
END
$$;

-- Told beforehand: the kernel takes it up at the turn, whether or not anybody can be asked then. As hold_bucket() will make
-- it: a fresh bucket's first grant, of the plan and the rates that will be in force. Whatever differs at the turn, a bucket
-- that a deleted gateway left for one, is a newer grant of that cycle.
CREATE FUNCTION billing.next_grant(g gateway.gateway) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (
        WITH turn AS (
            SELECT (date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC' AS at
        ), newest AS (
            SELECT e.* FROM billing.epoch e WHERE e.owner = g.owner AND e.gateway = g.id ORDER BY e.created DESC LIMIT 1
        )
        SELECT jsonb_build_object(
            'cycle', billing.cycle_id(t.at), 'grant_seq', 1, 'mask', r.accounting, 'epoch', e.id,
            'ceiling', CASE WHEN l.limited THEN least(p.included_gb * 1000000000, 9223372036854775807)::bigint::text END,
            'not_before', to_char(t.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
        FROM turn t
        JOIN gateway.plan p ON p.id = g.plan
        CROSS JOIN billing.rate_at(g.location, t.at) r
        CROSS JOIN LATERAL (SELECT r.overage = 'revoke_access' AND p.included_gb IS NOT NULL AS limited) l
        LEFT JOIN newest e ON e.sealed IS NULL AND e.quarantined IS NULL
        WHERE NOT l.limited OR e.id IS NOT NULL);
END
$$;

-- Preshared keys stay sealed here: each peer has "sealed", for the caller to open.
CREATE FUNCTION gateway.agent_peers(g gateway.gateway) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'id', p.id, 'public_key', encode(p.public_key, 'base64'), 'sealed', p.psk_sealed::text, 'endpoint', p.endpoint,
            'keepalive', p.keepalive, 'enabled', p.enabled,
            'allowed_ips', (SELECT coalesce(jsonb_agg(x.cidr::text ORDER BY x.cidr), '[]') FROM gateway.prefix x
                            WHERE x.owner = p.owner AND x.gateway = p.gateway AND x.peer = p.id AND x.freed IS NULL))
            ORDER BY p.created, p.id), '[]')
        FROM gateway.peer p WHERE p.owner = g.owner AND p.gateway = g.id AND p.removed IS NULL);
END
$$;

CREATE FUNCTION gateway.agent_state(owner_id uuid, gateway_id uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (
        WITH remote AS (
            SELECT coalesce(jsonb_agg(x.cidr::text ORDER BY x.cidr), '[]') AS cidrs FROM gateway.prefix x
            WHERE x.owner = owner_id AND x.gateway = gateway_id AND x.freed IS NULL AND NOT x.tunnel
        )
        SELECT jsonb_build_object('revision', g.revision, 'gateway', g.id) || CASE
            WHEN g.status = 'deleting' THEN '{"gone": true}'
            ELSE jsonb_build_object(
                'interface', jsonb_build_object(
                    'addresses', jsonb_build_array(set_masklen(g.tunnel_subnet::inet + 1, masklen(g.tunnel_subnet))::text,
                                                   set_masklen(g.tunnel_subnet6::inet + 1, masklen(g.tunnel_subnet6))::text),
                    'listen_port', g.listen_port, 'mtu', 1420),
                'firewall', jsonb_build_object(
                    'tunnel_subnets', jsonb_build_array(g.tunnel_subnet::text, g.tunnel_subnet6::text),
                    'vpc_subnets', (SELECT coalesce(jsonb_agg(s.cidr::text ORDER BY s.cidr), '[]') FROM gateway.subnet s
                                    WHERE s.owner = g.owner AND s.vpc = g.vpc AND NOT s.public),
                    'remote_subnets', remote.cidrs),
                'routes', remote.cidrs,
                'masquerade', g.masquerade,
                'peers', gateway.agent_peers(g),
                'refuse', array_remove(g.suspended_reasons, 'allowance'),
                'grants', billing.grants(g),
                'next_grant', billing.next_grant(g)) END
        FROM gateway.gateway g, remote WHERE g.owner = owner_id AND g.id = gateway_id);
END
$$;

-- ---- a report: what it adds -------------------------------------------------------------------------------------------

CREATE TYPE billing.usage_delta AS (
    n bigint, hour timestamptz, slot integer, incarnation bigint, peer uuid,
    up bigint, down bigint, up_packets bigint, down_packets bigint, undelivered bigint, refused bigint,
    d_up bigint, d_down bigint, d_up_packets bigint, d_down_packets bigint, d_undelivered bigint, d_refused bigint,
    same_peer boolean
);

-- The growth of each record's totals since the slot's record before it, in this batch or an earlier one. An hour outside
-- the gateway's life is put to its nearest end: a wrong clock moves no byte into a period that is not there.
CREATE FUNCTION billing.batch_deltas(owner_id uuid, epoch_id uuid, first_hour timestamptz, last_hour timestamptz, records jsonb)
RETURNS SETOF billing.usage_delta
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH r AS (
        SELECT x.n, least(greatest((x.v ->> 'hour')::timestamptz, first_hour), last_hour) AS hour,
               (x.v ->> 'slot')::integer AS slot, (x.v ->> 'incarnation')::bigint AS incarnation, (x.v ->> 'peer')::uuid AS peer,
               (x.v ->> 'upload_bytes')::bigint AS up, (x.v ->> 'download_bytes')::bigint AS down,
               (x.v ->> 'upload_packets')::bigint AS up_packets, (x.v ->> 'download_packets')::bigint AS down_packets,
               (x.v ->> 'undelivered_bytes')::bigint AS undelivered, (x.v ->> 'refused_bytes')::bigint AS refused
        FROM jsonb_array_elements(records) WITH ORDINALITY x (v, n)
    )
    SELECT r.*,
           r.up - coalesce(lag(r.up) OVER slots, c.up, 0), r.down - coalesce(lag(r.down) OVER slots, c.down, 0),
           r.up_packets - coalesce(lag(r.up_packets) OVER slots, c.up_packets, 0),
           r.down_packets - coalesce(lag(r.down_packets) OVER slots, c.down_packets, 0),
           r.undelivered - coalesce(lag(r.undelivered) OVER slots, c.undelivered, 0),
           r.refused - coalesce(lag(r.refused) OVER slots, c.refused, 0),
           r.peer IS NOT DISTINCT FROM coalesce(lag(r.peer) OVER slots, c.peer, r.peer)
    FROM r LEFT JOIN billing.counter c
        ON c.owner = owner_id AND c.epoch = epoch_id AND c.slot = r.slot AND c.incarnation = r.incarnation
    WINDOW slots AS (PARTITION BY r.slot, r.incarnation ORDER BY r.hour, r.n)
$$;

-- Nothing may ever have shrunk: not a slot, not the interface, not the grant.
CREATE FUNCTION billing.batch_regressed(e billing.epoch, batch billing.usage_delta[], body jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM unnest(batch) d
                   WHERE least(d.d_up, d.d_down, d.d_up_packets, d.d_down_packets, d.d_undelivered, d.d_refused) < 0 OR NOT d.same_peer)
        OR (body ->> 'counted')::bigint < e.counted
        OR coalesce((body #>> '{grant,cycle}')::integer < e.cycle, false)
        OR coalesce((body #>> '{grant,cycle}')::integer = e.cycle AND (body #>> '{grant,cycle_counted}')::bigint < e.cycle_counted, false)
$$;

CREATE FUNCTION billing.store_deltas(e billing.epoch, batch_seq bigint, batch billing.usage_delta[], grant_cycle integer) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO billing.usage_record (owner, hour, epoch, seq, slot, incarnation, gateway, peer, grant_cycle,
                                      d_up, d_down, d_up_packets, d_down_packets, d_undelivered, d_refused)
    SELECT e.owner, d.hour, e.id, batch_seq, d.slot, d.incarnation, e.gateway, d.peer, grant_cycle, sum(d.d_up), sum(d.d_down),
           sum(d.d_up_packets), sum(d.d_down_packets), sum(d.d_undelivered), sum(d.d_refused)
    FROM unnest(batch) d GROUP BY d.hour, d.slot, d.incarnation, d.peer;

    INSERT INTO billing.usage_hour AS h (owner, gateway, hour, peer, up, down, up_packets, down_packets, undelivered, refused)
    SELECT e.owner, e.gateway, d.hour, coalesce(d.peer, '00000000-0000-0000-0000-000000000000'), sum(d.d_up), sum(d.d_down),
           sum(d.d_up_packets), sum(d.d_down_packets), sum(d.d_undelivered), sum(d.d_refused)
    FROM unnest(batch) d GROUP BY d.hour, d.peer
    ON CONFLICT (owner, gateway, hour, peer) DO UPDATE
    SET up = h.up + excluded.up, down = h.down + excluded.down, up_packets = h.up_packets + excluded.up_packets,
        down_packets = h.down_packets + excluded.down_packets, undelivered = h.undelivered + excluded.undelivered,
        refused = h.refused + excluded.refused;

    INSERT INTO billing.counter (owner, epoch, slot, incarnation, peer, up, down, up_packets, down_packets, undelivered, refused)
    SELECT DISTINCT ON (d.slot, d.incarnation) e.owner, e.id, d.slot, d.incarnation, d.peer, d.up, d.down, d.up_packets, d.down_packets,
           d.undelivered, d.refused
    FROM unnest(batch) d ORDER BY d.slot, d.incarnation, d.hour DESC, d.n DESC
    ON CONFLICT (owner, epoch, slot, incarnation) DO UPDATE
    SET up = excluded.up, down = excluded.down, up_packets = excluded.up_packets, down_packets = excluded.down_packets,
        undelivered = excluded.undelivered, refused = excluded.refused;
END
$$;

-- ---- a report: what it costs --------------------------------------------------------------------------------------------

-- Adds bytes of an hour to the bucket of a cycle. What `charged` rises by is overage of that hour at its rate; under a
-- policy other than charge_overage it rises without a fee (B2).
CREATE FUNCTION billing.settle_part(e billing.epoch, batch_seq bigint, cycle_number integer, at_hour timestamptz,
                                    version gateway.rate_version, grown bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    held billing.bucket := billing.hold_bucket(e.owner, e.gateway, cycle_number);
    settled billing.bucket;
BEGIN
    UPDATE billing.bucket
    SET used = greatest(used + grown, 0), charged = greatest(charged, used + grown - (allowance::numeric + extra))
    WHERE owner = held.owner AND id = held.id RETURNING * INTO settled;
    IF settled.charged > held.charged AND version.overage = 'charge_overage' THEN
        INSERT INTO billing.overage_hour AS o (owner, gateway, hour, bucket, rate_version, bytes)
        VALUES (e.owner, e.gateway, at_hour, held.id, version.id, settled.charged - held.charged)
        ON CONFLICT (owner, gateway, hour, bucket) DO UPDATE SET bytes = o.bytes + excluded.bytes;
        PERFORM billing.act(held, e.gateway, 'charge', billing.rfc3339(at_hour), e.id, batch_seq,
                            jsonb_build_object('rate', version.bandwidth_rate::text));
    END IF;
END
$$;

-- What the kernel's own count grew by in each hour of the batch: divided by the records, in the directions of each hour.
-- The last hour takes what the reading of slots and interface at slightly different moments leaves over.
CREATE FUNCTION billing.hourly_growth(g gateway.gateway, batch billing.usage_delta[], growth bigint, default_hour timestamptz)
RETURNS TABLE (hour timestamptz, bytes bigint)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH net AS (
        SELECT d.hour, sum(CASE WHEN r.accounting <> 'downloads' THEN d.d_up ELSE 0 END
                           + CASE WHEN r.accounting <> 'uploads' THEN d.d_down - d.d_undelivered ELSE 0 END) AS bytes,
               sum(CASE WHEN r.accounting <> 'uploads' THEN d.d_undelivered ELSE 0 END) AS undelivered
        FROM unnest(batch) d CROSS JOIN billing.rate_at(g.location, d.hour) r
        WHERE d.slot > 0 GROUP BY d.hour
    ), total AS (
        SELECT growth - coalesce(sum(n.undelivered), 0) AS bytes FROM net n
    ), running AS (
        -- Up to and including each hour, never beyond the total.
        SELECT n.hour, CASE WHEN lead(n.hour) OVER hours IS NULL THEN t.bytes
                            ELSE least(sum(n.bytes) OVER hours, greatest(t.bytes, 0)) END AS upto
        FROM net n, total t WINDOW hours AS (ORDER BY n.hour)
        UNION ALL SELECT default_hour, t.bytes FROM total t WHERE NOT EXISTS (SELECT FROM net)
    )
    SELECT u.hour, (u.upto - coalesce(lag(u.upto) OVER (ORDER BY u.hour), 0))::bigint FROM running u ORDER BY u.hour
$$;

-- Settles a batch. A byte belongs to the cycle of the grant that admitted it; without a limit, to the cycle of its time.
CREATE FUNCTION billing.settle(g gateway.gateway, e billing.epoch, batch billing.usage_delta[], body jsonb, default_hour timestamptz)
RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    batch_seq bigint := (body ->> 'seq')::bigint;
    growth bigint := (body ->> 'counted')::bigint - e.counted;
    granted integer := (body #>> '{grant,cycle}')::integer;
    -- Counted under the grant of the cycle before, when this batch is the first under a newer one.
    earlier bigint := CASE WHEN granted > e.cycle THEN greatest(growth - (body #>> '{grant,cycle_counted}')::bigint, 0) ELSE 0 END;
    piece record;
    version gateway.rate_version;
    held billing.bucket;
    old_part bigint;
BEGIN
    FOR piece IN SELECT h.hour, h.bytes FROM billing.hourly_growth(g, batch, growth, default_hour) h WHERE h.bytes <> 0 ORDER BY h.hour
    LOOP
        version := billing.rate_at(g.location, piece.hour);
        held := billing.hold_bucket(g.owner, g.id, billing.ensure_cycle(piece.hour));
        IF version.overage <> 'revoke_access' OR held.allowance IS NULL OR granted IS NULL THEN
            PERFORM billing.settle_part(e, batch_seq, held.cycle, piece.hour, version, piece.bytes);
            CONTINUE;
        END IF;
        old_part := greatest(least(piece.bytes, earlier), 0);
        earlier := earlier - old_part;
        IF old_part > 0 THEN
            PERFORM billing.settle_part(e, batch_seq, e.cycle, piece.hour, version, old_part);
        END IF;
        IF piece.bytes <> old_part THEN
            PERFORM billing.settle_part(e, batch_seq, granted, piece.hour, version, piece.bytes - old_part);
        END IF;
    END LOOP;
END
$$;

-- ---- a report: what follows from it ---------------------------------------------------------------------------------------

-- Warnings, suspension and return (B5) of one bucket. Exhausted in the kernel, or used up: suspended, once for a grant.
-- A newer grant in force and not exhausted: back.
CREATE FUNCTION billing.judge(g gateway.gateway, held billing.bucket, e billing.epoch, batch_seq bigint, overage text, in_force jsonb)
RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ceiling numeric := held.allowance::numeric + held.extra;
    grant_number bigint := CASE WHEN (in_force ->> 'cycle')::integer = held.cycle THEN (in_force ->> 'grant_seq')::bigint END;
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

-- Adds what the agent saw of its own state, one interval after the other. What is known already stays; touching intervals of
-- one state become one. An interval that a clock stepping back has turned round is empty.
CREATE FUNCTION billing.merge_states(owner_id uuid, gateway_id uuid, states jsonb, within tstzrange) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    told record;
    piece tstzrange;
    joined tstzrange;
BEGIN
    FOR told IN
        SELECT s.state, tstzrange(s.begins, s.ends) * within AS span
        FROM (SELECT x.n, x.v ->> 'state' AS state, (x.v ->> 'from')::timestamptz AS begins, (x.v ->> 'to')::timestamptz AS ends
              FROM jsonb_array_elements(states) WITH ORDINALITY x (v, n)) s
        WHERE s.begins < s.ends ORDER BY s.n
    LOOP
        FOR piece IN
            SELECT unnest(tstzmultirange(told.span)
                          - coalesce((SELECT range_agg(i.span) FROM billing.active_interval i
                                      WHERE i.owner = owner_id AND i.gateway = gateway_id AND i.span && told.span), '{}'))
        LOOP
            WITH touching AS (
                DELETE FROM billing.active_interval i
                WHERE i.owner = owner_id AND i.gateway = gateway_id AND i.state = told.state AND i.span -|- piece
                RETURNING i.span
            )
            SELECT range_merge(range_agg(t.span)) INTO joined FROM (SELECT touching.span FROM touching UNION ALL SELECT piece) t;
            INSERT INTO billing.active_interval (owner, gateway, span, state) VALUES (owner_id, gateway_id, joined, told.state);
        END LOOP;
    END LOOP;
END
$$;

-- Whether the report is the first that shows this deployment active. Past its deadline it comes late, and is welcome.
CREATE FUNCTION billing.first_active(g gateway.gateway, body jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT body ->> 'active_since' IS NOT NULL AND (g.status IN ('deploying', 'error') OR (g.status = 'deleting' AND g.active_since IS NULL))
$$;

-- The gateway's row after a report: first activity, freshness, key, revision, and the intervals of its state.
CREATE FUNCTION billing.note_gateway(g gateway.gateway, body jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    since timestamptz := (body ->> 'active_since')::timestamptz;
    first boolean := billing.first_active(g, body);
    within tstzrange := tstzrange(g.created, now() + interval '5 seconds');
BEGIN
    UPDATE gateway.gateway
    SET status = CASE WHEN first AND status IN ('deploying', 'error') THEN 'active' ELSE status END,
        error = CASE WHEN first THEN NULL ELSE error END,
        active_since = CASE WHEN first THEN since ELSE active_since END,
        public_key = decode(body ->> 'public_key', 'base64'),
        applied_revision = least((body ->> 'applied_revision')::bigint, revision),
        complete_through = greatest(complete_through, least((body ->> 'covered_to')::timestamptz, now())),
        last_report = now()
    WHERE owner = g.owner AND id = g.id;
    IF first OR (g.active_since IS NOT NULL AND g.status IN ('active', 'deleting')) THEN
        PERFORM billing.merge_states(g.owner, g.id, body -> 'states', within);
    END IF;
    IF first THEN
        -- Active begins at this very instant, even when nothing has been covered behind it yet.
        PERFORM billing.merge_states(g.owner, g.id, jsonb_build_array(jsonb_build_object(
            'state', 'active', 'from', since, 'to', since + interval '1 microsecond')), within);
    END IF;
END
$$;

-- What the agent says of its peers, and of what it could not apply.
CREATE FUNCTION billing.note_peers(g gateway.gateway, body jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE gateway.peer p
    SET last_handshake = greatest(p.last_handshake, s.handshake), current_endpoint = coalesce(s.endpoint, p.current_endpoint)
    FROM jsonb_to_recordset(body -> 'status') s (peer uuid, handshake timestamptz, endpoint text)
    WHERE p.owner = g.owner AND p.gateway = g.id AND p.id = s.peer
      AND (greatest(p.last_handshake, s.handshake), coalesce(s.endpoint, p.current_endpoint))
          IS DISTINCT FROM (p.last_handshake, p.current_endpoint);
    IF (body ->> 'applied_revision')::bigint > g.applied_revision THEN
        INSERT INTO gateway.job_log (gateway, attempt, step, line)
        SELECT g.id, g.attempt, 'apply', format('cannot apply %s: %s', c.what, c.reason)
        FROM jsonb_to_recordset(body -> 'cannot_apply') c (what text, reason text);
    END IF;
END
$$;

-- ---- a report: the cursor ---------------------------------------------------------------------------------------------------

-- What the cursor says of a batch: NULL: take it; '': it was taken before; else the reason of the refusal.
CREATE FUNCTION billing.cursor_verdict(gateway_id uuid, e billing.epoch, body jsonb, batch_crc bigint) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        WHEN e.id IS NULL THEN CASE WHEN s.seq <> 1 THEN 'gap' END
        WHEN e.gateway <> gateway_id OR e.boot_id <> (body #>> '{epoch,boot_id}')::uuid THEN 'rolled_back'
        WHEN s.seq <= e.last_seq THEN
            CASE WHEN EXISTS (SELECT FROM billing.epoch_batch b
                              WHERE b.owner = e.owner AND b.epoch = e.id AND b.seq = s.seq AND b.crc = batch_crc)
                 THEN '' ELSE 'rolled_back' END
        WHEN e.quarantined IS NOT NULL THEN e.quarantined
        WHEN e.sealed IS NOT NULL THEN 'rolled_back'
        WHEN s.seq <> e.last_seq + 1 THEN 'gap'
    END
    FROM (SELECT (body ->> 'seq')::bigint AS seq) s
$$;

CREATE FUNCTION billing.report_conflict(e billing.epoch, why text) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('status', 409, 'body', jsonb_build_object(
        'held_seq', coalesce(e.last_seq, 0), 'reason', why,
        'held_crc', (SELECT b.crc FROM billing.epoch_batch b WHERE b.owner = e.owner AND b.epoch = e.id AND b.seq = e.last_seq)))
$$;

CREATE FUNCTION billing.report_taken(owner_id uuid, gateway_id uuid, held_seq bigint) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('status', 200, 'body', jsonb_build_object(
        'held_seq', held_seq, 'revision', g.revision,
        'watch_until', CASE WHEN g.watch_until > now() THEN billing.rfc3339(g.watch_until) END))
    FROM gateway.gateway g WHERE g.owner = owner_id AND g.id = gateway_id
$$;

-- The epoch's cursor moves: the only place that does. A new epoch makes ceilings possible, so its agent is told.
CREATE FUNCTION billing.move_cursor(e billing.epoch, body jsonb, batch_crc bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    taken bigint := (body ->> 'seq')::bigint;
BEGIN
    UPDATE billing.epoch
    SET last_seq = taken, generation = e.generation, counted = (body ->> 'counted')::bigint,
        cycle = coalesce((body #>> '{grant,cycle}')::integer, cycle),
        cycle_counted = coalesce((body #>> '{grant,cycle_counted}')::bigint, cycle_counted),
        covered_to = (body ->> 'covered_to')::timestamptz,
        sealed = CASE WHEN (body #>> '{epoch,final}')::boolean THEN now() END
    WHERE owner = e.owner AND id = e.id;
    INSERT INTO billing.epoch_batch (owner, epoch, seq, crc) VALUES (e.owner, e.id, taken, batch_crc);
    DELETE FROM billing.epoch_batch WHERE owner = e.owner AND epoch = e.id AND seq <= taken - 1000;
    IF taken = 1 THEN
        PERFORM billing.raise_revision(e.owner, e.gateway);
    END IF;
END
$$;

-- Takes a batch that the cursor admits.
CREATE FUNCTION billing.take_batch(g gateway.gateway, e billing.epoch, batch billing.usage_delta[], body jsonb, batch_crc bigint)
RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    batch_seq bigint := (body ->> 'seq')::bigint;
    this_hour timestamptz := date_trunc('hour', greatest(least((body ->> 'covered_to')::timestamptz, now()), g.created), 'UTC');
    version gateway.rate_version := billing.rate_at(g.location, this_hour);
    held billing.bucket;
BEGIN
    PERFORM billing.note_gateway(g, body);
    PERFORM billing.store_deltas(e, batch_seq, batch, (body #>> '{grant,cycle}')::integer);
    PERFORM billing.settle(g, e, batch, body, this_hour);
    PERFORM billing.move_cursor(e, body, batch_crc);
    FOR held IN SELECT b.* FROM billing.bucket b WHERE b.owner = g.owner AND b.holder = g.id
                  AND b.cycle >= least((body #>> '{grant,cycle}')::integer, e.cycle, billing.cycle_id(this_hour)) ORDER BY b.cycle
    LOOP
        PERFORM billing.judge(g, held, e, batch_seq, version.overage, body -> 'grant');
    END LOOP;
    -- Bytes given back raise the ceiling, which takes a newer grant.
    IF version.overage = 'revoke_access' AND version.accounting <> 'uploads'
       AND EXISTS (SELECT FROM unnest(batch) d WHERE d.slot > 0 AND d.d_undelivered > 0) THEN
        UPDATE billing.bucket SET grant_seq = grant_seq + 1
        WHERE owner = g.owner AND holder = g.id AND cycle = billing.cycle_id(now()) AND allowance IS NOT NULL;
        PERFORM billing.raise_revision(g.owner, g.id);
    END IF;
    PERFORM billing.note_peers(g, body);
    PERFORM billing.post_base(g.owner, g.id);
    PERFORM billing.post_bandwidth(g.owner, g.id);
END
$$;

-- B1: why the agent's clock cannot say when the gateway became active; NULL: it can.
CREATE FUNCTION billing.clock_refusal(g gateway.gateway, body jsonb) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('active_since is %s by a clock that says %s, here it is %s; accepted is a clock at most 5 s off, and no instant ahead of it',
                  body ->> 'active_since', body ->> 'now', billing.rfc3339(now()))
    WHERE billing.first_active(g, body)
      AND (abs(extract(epoch FROM (body ->> 'now')::timestamptz - now())) > 5
           OR (body ->> 'active_since')::timestamptz > (body ->> 'now')::timestamptz)
$$;

-- Applies a report whose types have been checked. {"status", "body"} as the agent is answered; 400 has "detail".
CREATE FUNCTION billing.apply_report(owner_id uuid, gateway_id uuid, token_attempt integer, token_generation bigint, batch_crc bigint,
                                     body jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g gateway.gateway;
    e billing.epoch;
    batch billing.usage_delta[];
    verdict text;
BEGIN
    PERFORM billing.hold_bucket(owner_id, gateway_id, billing.ensure_cycle(now()));
    SELECT x.* INTO g FROM gateway.gateway x WHERE x.owner = owner_id AND x.id = gateway_id FOR UPDATE;
    IF NOT FOUND OR g.status = 'deleted' OR g.attempt <> token_attempt THEN
        RETURN '{"status": 410}';
    END IF;
    SELECT x.* INTO e FROM billing.epoch x WHERE x.owner = owner_id AND x.id = (body #>> '{epoch,id}')::uuid FOR UPDATE;
    IF g.generation <> token_generation OR (body ->> 'generation')::bigint > token_generation THEN
        RETURN billing.report_conflict(e, 'fenced');
    END IF;
    verdict := billing.cursor_verdict(gateway_id, e, body, batch_crc);
    IF verdict = '' THEN
        RETURN billing.report_taken(owner_id, gateway_id, e.last_seq);
    END IF;
    IF verdict IS NULL AND billing.clock_refusal(g, body) IS NOT NULL THEN
        RETURN jsonb_build_object('status', 400, 'detail', billing.clock_refusal(g, body));
    END IF;
    IF verdict IS NULL AND e.id IS NULL THEN
        INSERT INTO billing.epoch (owner, gateway, id, boot_id, generation)
        VALUES (owner_id, gateway_id, (body #>> '{epoch,id}')::uuid, (body #>> '{epoch,boot_id}')::uuid, token_generation)
        RETURNING * INTO e;
    END IF;
    IF verdict IS NULL THEN
        -- A grant of a cycle that the gateway never held is none.
        IF NOT EXISTS (SELECT FROM billing.bucket b WHERE b.owner = owner_id AND b.holder = gateway_id
                         AND b.cycle = (body #>> '{grant,cycle}')::integer) THEN
            body := body || '{"grant": null}';
        END IF;
        SELECT array_agg(d) INTO batch
        FROM billing.batch_deltas(owner_id, e.id, date_trunc('hour', g.created, 'UTC'), date_trunc('hour', now(), 'UTC'),
                                  body -> 'records') d;
        verdict := CASE WHEN billing.batch_regressed(e, batch, body) THEN 'regressed' END;
    END IF;
    IF verdict IS NOT NULL THEN
        UPDATE billing.epoch SET quarantined = verdict
        WHERE owner = e.owner AND id = e.id AND gateway = gateway_id AND quarantined IS NULL AND verdict <> 'gap';
        RETURN billing.report_conflict(e, verdict);
    END IF;
    e.generation := token_generation;
    PERFORM billing.take_batch(g, e, batch, body, batch_crc);
    RETURN billing.report_taken(owner_id, gateway_id, (body ->> 'seq')::bigint);
END
$$;
