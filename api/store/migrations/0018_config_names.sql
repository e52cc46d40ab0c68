-- SPDX-License-Identifier: BSD-2-Clause
-- P2: the name of a peer's configuration file, which is the tunnel's name on the device: at most 15 characters, unique in the
-- gateway whatever their case, and no name that Windows or Linux keeps for something else. It stays while the peer's name does.

ALTER TABLE gateway.peer ADD COLUMN config_name text;
CREATE UNIQUE INDEX peer_config_name ON gateway.peer (owner, gateway, lower(config_name)) WHERE removed IS NULL;

-- The peer's name as it is, if it can be; else its beginning, with a number where that is taken. The caller holds the gateway's row.
CREATE FUNCTION gateway.free_config_name(owner_id uuid, gateway_id uuid, peer_id uuid, peer_name text) RETURNS text
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

DO $$
DECLARE
    peer record;
BEGIN
    FOR peer IN SELECT * FROM gateway.peer WHERE removed IS NULL ORDER BY owner, gateway, created, id LOOP
        UPDATE gateway.peer p SET config_name = gateway.free_config_name(peer.owner, peer.gateway, peer.id, peer.name)
        WHERE p.owner = peer.owner AND p.gateway = peer.gateway AND p.id = peer.id;
    END LOOP;
END
$$;

REVOKE EXECUTE ON FUNCTION gateway.free_config_name FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'wiretoll_api') THEN
        GRANT EXECUTE ON FUNCTION gateway.free_config_name TO wiretoll_api;
    END IF;
END
$$;
