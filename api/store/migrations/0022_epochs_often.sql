-- SPDX-License-Identifier: BSD-2-Clause
-- M6: an epoch that begins too soon is none. It was noted before it was refused, and so was a known one when its report came again.

-- Whether an agent has begun as many epochs as it may: a thousand, and a hundred for each day of the gateway's life.
CREATE FUNCTION billing.has_epochs_enough(owner_id uuid, gateway_id uuid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT (SELECT count(*) FROM billing.epoch e WHERE e.owner = owner_id AND e.gateway = gateway_id)
           >= 1000 + 100 * extract(epoch FROM now() - g.created) / 86400
    FROM gateway.gateway g WHERE g.owner = owner_id AND g.id = gateway_id
$$;

-- As before, but for those that have to wait.
CREATE OR REPLACE FUNCTION billing.open_epochs() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE report_work w SET verdict = 'often'
    WHERE w.verdict IS NULL AND NOT w.known AND billing.has_epochs_enough(w.owner, w.gateway);
    INSERT INTO billing.epoch (owner, gateway, id, boot_id, generation, created)
    SELECT r.owner, r.gateway, r.epoch, r.boot_id, r.token_generation, CASE WHEN NOT r.over THEN clock_timestamp() ELSE least(
               r.covered_from, clock_timestamp(),
               (SELECT min(e.created) - interval '1 microsecond' FROM billing.epoch e WHERE e.owner = r.owner AND e.gateway = r.gateway)) END
    FROM report_in r JOIN report_work w ON w.n = r.n WHERE w.verdict IS NULL AND NOT w.known;
END
$$;

-- What cannot be: the batch is refused and its epoch quarantined, before anything of it is added to anything.
CREATE OR REPLACE FUNCTION billing.weigh_reports() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM billing.weigh_growth();
    PERFORM billing.weigh_counters();
    IF EXISTS (SELECT FROM report_work w WHERE w.verdict = 'implausible') THEN
        DELETE FROM sample_in s USING report_work w WHERE w.n = s.n AND w.verdict IS NOT NULL;
        DELETE FROM counter_in k USING report_work w WHERE w.n = k.n AND w.verdict IS NOT NULL;
    END IF;
END
$$;

-- A batch that the database refused, alone in its transaction, is one that cannot be: the answer is a conflict as any other, and what the
-- database said is in the alarm. An epoch too many is not noted: refused each time, it needs no row. NULL: it is no batch of a gateway's current
-- agent, and would not have come so far.
CREATE OR REPLACE FUNCTION billing.refuse_report(owner_id uuid, gateway_id uuid, claimed_attempt integer, token_generation bigint, epoch_id uuid,
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
    SELECT owner_id, gateway_id, epoch_id, boot, token_generation, 'implausible'
    WHERE EXISTS (SELECT FROM billing.epoch x WHERE x.owner = owner_id AND x.gateway = gateway_id AND x.id = epoch_id)
       OR NOT billing.has_epochs_enough(owner_id, gateway_id)
    ON CONFLICT (owner, gateway, id) DO UPDATE SET quarantined = coalesce(e.quarantined, 'implausible') RETURNING last_seq INTO held;
    held := coalesce(held, 0);
    INSERT INTO billing.quarantine (owner, gateway, epoch, seq, crc, reason, held_seq, body)
    SELECT owner_id, gateway_id, epoch_id, batch_seq, batch_crc, 'implausible', held, content
    WHERE (SELECT count(*) FROM billing.quarantine q WHERE q.owner = owner_id AND q.gateway = gateway_id) < 100 ON CONFLICT DO NOTHING;
    PERFORM billing.raise_alarm(owner_id, gateway_id, 'quarantine', epoch_id::text,
                                jsonb_build_object('reason', 'implausible', 'seq', batch_seq, 'held_seq', held, 'detail', why));
    RETURN jsonb_build_object('held_seq', held, 'restored', billing.restored(), 'reason', 'implausible', 'held_crc', (
        SELECT b.crc FROM billing.epoch_batch b WHERE b.owner = owner_id AND b.gateway = gateway_id AND b.epoch = epoch_id AND b.seq = held));
END
$$;

REVOKE EXECUTE ON FUNCTION billing.has_epochs_enough FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'wiretoll_api') THEN
        GRANT EXECUTE ON FUNCTION billing.has_epochs_enough TO wiretoll_api;
    END IF;
END
$$;
