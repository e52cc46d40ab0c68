-- SPDX-License-Identifier: BSD-2-Clause
-- The next cycle's grant, told beforehand: the kernel takes it up at the turn, whether or not anybody can be asked then.

-- As hold_bucket() will make it: a fresh bucket's first grant, of the plan and the rates that will be in force. Whatever
-- differs at the turn, a bucket that a deleted gateway left for one, is a newer grant of that cycle.
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

CREATE OR REPLACE FUNCTION gateway.agent_state(owner_id uuid, gateway_id uuid) RETURNS jsonb
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

REVOKE EXECUTE ON FUNCTION billing.next_grant FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'wiretoll_api') THEN
        GRANT EXECUTE ON FUNCTION billing.next_grant TO wiretoll_api;
    END IF;
END
$$;
