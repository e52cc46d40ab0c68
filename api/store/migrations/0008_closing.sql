-- SPDX-License-Identifier: BSD-2-Clause
-- The end of things: a deleted gateway's agent is told so, months get their partitions ahead, a cycle that closes gives back what was
-- charged and not delivered, and what comes later is an adjustment.

-- Bills what is left and frees everything, in one transaction and once. What was billed and counted stays.
CREATE FUNCTION gateway.complete_delete(gateway_id uuid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g gateway.gateway;
BEGIN
    SELECT x.* INTO g FROM gateway.gateway x WHERE x.id = gateway_id;
    PERFORM FROM gateway.account a WHERE a.owner = g.owner FOR UPDATE;
    SELECT x.* INTO g FROM gateway.gateway x WHERE x.owner = g.owner AND x.id = gateway_id FOR UPDATE;
    IF NOT FOUND OR g.status = 'deleted' THEN
        RETURN;
    END IF;
    PERFORM billing.post_base(g.owner, g.id);
    PERFORM billing.post_bandwidth(g.owner, g.id, true);
    UPDATE billing.epoch SET sealed = now() WHERE owner = g.owner AND gateway = g.id AND sealed IS NULL;
    UPDATE billing.bucket SET holder = NULL WHERE owner = g.owner AND holder = g.id;
    UPDATE gateway.account SET gateways = gateways - 1 WHERE owner = g.owner;
    UPDATE gateway.prefix SET freed = now() WHERE owner = g.owner AND gateway = g.id AND freed IS NULL;
    UPDATE gateway.peer SET removed = now(), enabled = false, psk_sealed = NULL
    WHERE owner = g.owner AND gateway = g.id AND removed IS NULL;
    UPDATE gateway.address SET owner = NULL, gateway = NULL, attempt = NULL, freed = now() WHERE gateway = g.id;
    -- A late report is answered with "gone" and the sequence held, not with "who are you".
    DELETE FROM gateway.token WHERE gateway = g.id AND kind <> 'agent';
    UPDATE gateway.token SET expires = now() + interval '30 days' WHERE gateway = g.id;
    UPDATE gateway.job SET finished = true, uid_number = NULL, worker = NULL, lease_until = NULL WHERE gateway = g.id;
    UPDATE gateway.gateway
    SET status = 'deleted', deleted = now(), revision = revision + 1, suspended_reasons = '{}', error = NULL
    WHERE owner = g.owner AND id = g.id;
    PERFORM pg_notify('wiretoll_revision', g.id::text);
END
$$;

-- What is due now, by one replica at a time; false when another one is at it.
CREATE FUNCTION billing.tick() RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('wiretoll billing clock')) THEN
        RETURN false;
    END IF;
    IF to_regclass('billing.usage_record_' || billing.cycle_id(now() + interval '1 month')) IS NULL THEN
        BEGIN
            PERFORM billing.ensure_partitions(now());
        EXCEPTION WHEN lock_not_available THEN
            NULL; -- the next round does it
        END;
    END IF;
    PERFORM gateway.fail_overdue();
    PERFORM billing.roll_cycle(now());
    PERFORM billing.finish_cycles(now());
    IF EXISTS (SELECT FROM gateway.rate_version v WHERE NOT v.announced AND v.from_hour <= now()) THEN
        PERFORM billing.announce_rates(now());
    END IF;
    PERFORM billing.seal_feed();
    DELETE FROM gateway.token WHERE expires < now();
    RETURN true;
END
$$;

-- What the database holds of a gateway's epochs.
CREATE FUNCTION billing.held_epochs(owner_id uuid, gateway_id uuid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('restored', billing.restored(), 'epochs', coalesce(jsonb_agg(jsonb_build_object(
        'id', e.id, 'held_seq', e.last_seq, 'held_crc', b.crc) ORDER BY e.created), '[]'))
    FROM billing.epoch e
    LEFT JOIN billing.epoch_batch b ON b.owner = e.owner AND b.gateway = e.gateway AND b.epoch = e.id AND b.seq = e.last_seq
    WHERE e.owner = owner_id AND e.gateway = gateway_id
$$;

-- ---- rights -------------------------------------------------------------------------------------------------------------------

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA gateway, billing FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'wiretoll_api') THEN
        GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA billing TO wiretoll_api;
        REVOKE EXECUTE ON FUNCTION billing.detach_usage, billing.grant_temporary FROM wiretoll_api;
    END IF;
END
$$;
