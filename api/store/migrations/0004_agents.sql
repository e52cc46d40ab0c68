-- SPDX-License-Identifier: BSD-2-Clause
-- What agents fetch: enrolment and desired state; and what follows for a bucket from what they report.

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

-- The epoch that grants are for: the gateway's newest, while it lives. NULL: none.
CREATE FUNCTION billing.granted_epoch(g gateway.gateway) RETURNS billing.epoch
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    newest billing.epoch;
BEGIN
    SELECT e.* INTO newest FROM billing.epoch e WHERE e.owner = g.owner AND e.gateway = g.id ORDER BY e.created DESC LIMIT 1;
    RETURN CASE WHEN newest.sealed IS NULL AND newest.quarantined IS NULL THEN newest END;
END
$$;

-- A grant under the rates of an instant; without a limit it has no ceiling. With one, NULL when no epoch is known that it would count in.
CREATE FUNCTION billing.grant_told(g gateway.gateway, epoch_id uuid, cycle integer, grant_seq bigint, limit_bytes numeric, instant timestamptz)
RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    rates gateway.rate_version := billing.rate_at(g.location, instant);
    limited boolean := rates.overage = 'revoke_access' AND limit_bytes IS NOT NULL;
BEGIN
    IF limited AND epoch_id IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN jsonb_build_object('cycle', cycle, 'grant_seq', grant_seq, 'mask', rates.accounting, 'epoch', epoch_id,
        'ceiling', CASE WHEN limited THEN least(greatest(limit_bytes, 0), 9223372036854775807)::bigint::text END);
END
$$;

-- The ceiling is absolute, in counted bytes of the cycle in the gateway's newest epoch: what this epoch has counted is
-- part of `used`, so both move together and the ceiling stands still under traffic. No live epoch is known: no ceiling.
CREATE FUNCTION billing.grants(g gateway.gateway) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    held billing.bucket;
    e billing.epoch := billing.granted_epoch(g);
    told jsonb;
BEGIN
    SELECT b.* INTO held FROM billing.bucket b WHERE b.owner = g.owner AND b.holder = g.id ORDER BY b.cycle DESC LIMIT 1;
    IF FOUND THEN
        told := billing.grant_told(g, e.id, held.cycle, held.grant_seq,
            held.allowance::numeric + held.extra - held.used + CASE WHEN e.cycle = held.cycle THEN e.cycle_counted ELSE 0 END, now());
    END IF;
    RETURN CASE WHEN told IS NULL THEN '[]' ELSE jsonb_build_array(told) END;
END
$$;

-- Told beforehand: the kernel takes it up at the turn, whether or not anybody can be asked then. As hold_bucket() will make
-- it: a fresh bucket's first grant, of the plan and the rates that will be in force. Whatever differs at the turn, a bucket
-- that a deleted gateway left for one, is a newer grant of that cycle.
CREATE FUNCTION billing.next_grant(g gateway.gateway) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    turn timestamptz := (date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC';
    e billing.epoch := billing.granted_epoch(g);
BEGIN
    RETURN billing.grant_told(g, e.id, billing.cycle_id(turn), greatest(1, billing.restored()),
                              (SELECT p.included_gb * 1000000000 FROM gateway.plan p WHERE p.id = g.plan), turn)
           || jsonb_build_object('not_before', billing.rfc3339(turn));
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
