-- SPDX-License-Identifier: BSD-2-Clause
-- The name of a peer's configuration by as many looks as there are peers that begin alike, instead of at 10,000 candidates.

-- As before: the peer's name as it is, if it can be; else its beginning, with a number where that is taken. The caller holds the gateway's
-- row.
CREATE OR REPLACE FUNCTION gateway.free_config_name(owner_id uuid, gateway_id uuid, peer_id uuid, peer_name text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- Windows takes the part before the first dot for the device, whatever comes behind it.
    wanted CONSTANT text := CASE WHEN lower(split_part(peer_name, '.', 1)) ~ '^(con|prn|aux|nul|com[0-9]|lpt[0-9])$'
                                   OR lower(peer_name) IN ('lo', 'all', 'default')
                            THEN 'wg-' || peer_name ELSE peer_name END;
    candidate text := left(wanted, 15);
BEGIN
    FOR n IN 2..10001 LOOP
        IF NOT EXISTS (SELECT FROM gateway.peer p WHERE p.owner = owner_id AND p.gateway = gateway_id AND p.id <> peer_id
                         AND p.removed IS NULL AND lower(p.config_name) = lower(candidate)) THEN
            RETURN candidate;
        END IF;
        candidate := rtrim(left(wanted, 14 - length(n::text)), '.-_') || '-' || n;
    END LOOP;
    RETURN NULL;
END
$$;
