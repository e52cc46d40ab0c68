-- SPDX-License-Identifier: BSD-2-Clause
-- The next free tunnel address by a few looks at an index, however large the subnet and however many addresses were in use.

-- The hosts of the tunnel subnets from which the search for one that was never used begins: all below have been.
ALTER TABLE gateway.gateway ADD COLUMN next_host integer NOT NULL DEFAULT 2, ADD COLUMN next_host6 integer NOT NULL DEFAULT 2;

-- One row for each tunnel address that was ever used: whoever gets it takes over its row.
DELETE FROM gateway.prefix x USING gateway.prefix y
WHERE x.tunnel AND y.tunnel AND x.owner = y.owner AND x.gateway = y.gateway AND x.cidr = y.cidr AND x.freed IS NOT NULL
  AND (y.freed IS NULL OR y.freed > x.freed OR (y.freed = x.freed AND y.ctid > x.ctid));
CREATE UNIQUE INDEX prefix_tunnel ON gateway.prefix (owner, gateway, cidr) WHERE tunnel;
CREATE INDEX prefix_resting ON gateway.prefix (owner, gateway, family(cidr), freed, cidr) WHERE tunnel AND freed IS NOT NULL;

-- An address of the tunnel subnet, of hosts 2 to last_host: the lowest that was never used, else the one that has been free longest,
-- and none within ten minutes of its release: others may still send to it. NULL: none. The caller holds the gateway's row.
CREATE FUNCTION gateway.next_tunnel_address(owner_id uuid, gateway_id uuid, subnet cidr, last_host integer) RETURNS inet
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    base CONSTANT inet := host(subnet)::inet;
    four CONSTANT boolean := family(subnet) = 4;
    begin_host integer;
    next integer;
BEGIN
    SELECT CASE WHEN four THEN g.next_host ELSE g.next_host6 END INTO STRICT begin_host
    FROM gateway.gateway g WHERE g.owner = owner_id AND g.id = gateway_id;
    next := begin_host;
    WHILE next <= last_host AND EXISTS (SELECT FROM gateway.prefix x WHERE x.owner = owner_id AND x.gateway = gateway_id AND x.tunnel
                                          AND x.cidr = host(base + next)::cidr) LOOP
        next := next + 1;
    END LOOP;
    IF next > begin_host THEN
        UPDATE gateway.gateway g SET next_host = CASE WHEN four THEN next ELSE g.next_host END,
                                     next_host6 = CASE WHEN four THEN g.next_host6 ELSE next END
        WHERE g.owner = owner_id AND g.id = gateway_id;
    END IF;
    IF next <= last_host THEN
        RETURN base + next;
    END IF;
    RETURN (SELECT host(x.cidr)::inet FROM gateway.prefix x
            WHERE x.owner = owner_id AND x.gateway = gateway_id AND x.tunnel AND family(x.cidr) = family(subnet)
              AND x.freed <= now() - interval '10 minutes'
              AND x.cidr BETWEEN host(base + 2)::cidr AND host(base + last_host)::cidr
            ORDER BY x.freed, x.cidr LIMIT 1);
END
$$;

REVOKE EXECUTE ON FUNCTION gateway.next_tunnel_address FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'wiretoll_api') THEN
        GRANT EXECUTE ON FUNCTION gateway.next_tunnel_address TO wiretoll_api;
    END IF;
END
$$;
