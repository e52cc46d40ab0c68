-- SPDX-License-Identifier: BSD-2-Clause
-- Money: cycles, buckets, base hours, bandwidth lines, the feed, the clock. Locks are taken in one order everywhere:
-- job, account, gateway, epoch, bucket.

CREATE INDEX token_expires ON gateway.token (expires);
CREATE INDEX rate_version_unannounced ON gateway.rate_version (from_hour) WHERE NOT announced;

-- ---- time -------------------------------------------------------------------------------------------------------

-- Called for many rows of a statement, so a plain expression: what it names is resolved here, and it becomes part of the statement.
CREATE FUNCTION billing.cycle_id(instant timestamptz) RETURNS integer
LANGUAGE sql IMMUTABLE
RETURN (extract(year FROM instant AT TIME ZONE 'UTC') * 100 + extract(month FROM instant AT TIME ZONE 'UTC'))::integer;

-- The cycle that holds the instant, made when it is not there yet: the calendar month in UTC.
CREATE FUNCTION billing.ensure_cycle(instant timestamptz) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted integer := billing.cycle_id(instant);
    begins timestamp := date_trunc('month', instant AT TIME ZONE 'UTC');
BEGIN
    IF NOT EXISTS (SELECT FROM billing.cycle c WHERE c.id = wanted) THEN
        INSERT INTO billing.cycle (id, starts, ends)
        VALUES (wanted, begins AT TIME ZONE 'UTC', (begins + interval '1 month') AT TIME ZONE 'UTC')
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN wanted;
END
$$;

-- B3: what is in force at an instant.
CREATE FUNCTION billing.rate_at(place uuid, instant timestamptz) RETURNS gateway.rate_version
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT v FROM gateway.rate_version v WHERE v.location = place AND v.from_hour <= instant ORDER BY v.from_hour DESC LIMIT 1);
END
$$;

-- ---- telling ---------------------------------------------------------------------------------------------------------

-- Tells the gateway's agent, wherever its long poll is held, that there is something new.
CREATE FUNCTION billing.raise_revision(owner_id uuid, gateway_id uuid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE gateway.gateway SET revision = revision + 1 WHERE owner = owner_id AND id = gateway_id;
    PERFORM pg_notify('wiretoll_revision', gateway_id::text);
END
$$;

-- An overage action, once for its key (B5).
CREATE FUNCTION billing.act(held billing.bucket, gateway_id uuid, act_kind text, act_key text, epoch_id uuid, batch_seq bigint,
                            act_detail jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO billing.action (owner, bucket, gateway, kind, key, epoch, seq, detail)
    VALUES (held.owner, held.id, gateway_id, act_kind, act_key, epoch_id, batch_seq, act_detail)
    ON CONFLICT (owner, bucket, kind, key) DO NOTHING;
    IF FOUND THEN
        PERFORM pg_notify('wiretoll_action', json_build_object('gateway', gateway_id, 'kind', act_kind, 'key', act_key)::text);
    END IF;
END
$$;

-- ---- buckets (B8) -------------------------------------------------------------------------------------------------

-- What a new cycle means to a gateway that lived in the one before: the allowance's suspension is over (B4), and its agent is
-- told of the new grant.
CREATE FUNCTION billing.enter_cycle(held billing.bucket) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    reasons text[];
BEGIN
    SELECT g.suspended_reasons INTO reasons FROM gateway.gateway g WHERE g.owner = held.owner AND g.id = held.holder FOR UPDATE;
    IF 'allowance' = ANY (reasons) THEN
        UPDATE gateway.gateway SET suspended_reasons = array_remove(suspended_reasons, 'allowance')
        WHERE owner = held.owner AND id = held.holder;
        PERFORM billing.act(held, held.holder, 'restore', held.grant_seq::text, NULL, NULL, '{"reason": "cycle"}');
    END IF;
    PERFORM billing.raise_revision(held.owner, held.holder);
END
$$;

-- The bucket of a cycle that the gateway holds; when it holds none, the most used free one of its owner and location,
-- else a new one. The account row keeps two gateways from taking the same.
-- Whoever comes first at the turn of a cycle, the clock or a report, takes the gateway into it. NULL for a deleted gateway.
CREATE FUNCTION billing.hold_bucket(owner_id uuid, gateway_id uuid, cycle_number integer) RETURNS billing.bucket
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    held billing.bucket;
    place uuid;
    included bigint;
    price numeric(20, 9);
BEGIN
    SELECT b.* INTO held FROM billing.bucket b WHERE b.owner = owner_id AND b.holder = gateway_id AND b.cycle = cycle_number;
    IF FOUND THEN
        RETURN held;
    END IF;
    PERFORM FROM gateway.account a WHERE a.owner = owner_id FOR UPDATE;
    SELECT b.* INTO held FROM billing.bucket b WHERE b.owner = owner_id AND b.holder = gateway_id AND b.cycle = cycle_number;
    IF FOUND THEN
        RETURN held;
    END IF;
    SELECT g.location, p.included_gb * 1000000000, p.credit_value INTO place, included, price
    FROM gateway.gateway g JOIN gateway.plan p ON p.id = g.plan
    WHERE g.owner = owner_id AND g.id = gateway_id AND g.status <> 'deleted';
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE billing.bucket
    SET holder = gateway_id, allowance = included, credit_value = price, grant_seq = grant_seq + 1
    WHERE owner = owner_id AND id = (
        SELECT b.id FROM billing.bucket b
        WHERE b.owner = owner_id AND b.location = place AND b.cycle = cycle_number AND b.holder IS NULL
        ORDER BY b.used DESC, b.number LIMIT 1)
    RETURNING * INTO held;
    IF NOT FOUND THEN
        INSERT INTO billing.bucket (owner, location, cycle, number, holder, allowance, credit_value)
        SELECT owner_id, place, cycle_number, coalesce(max(b.number), 0) + 1, gateway_id, included, price
        FROM billing.bucket b WHERE b.owner = owner_id AND b.location = place AND b.cycle = cycle_number
        RETURNING * INTO held;
    END IF;
    IF EXISTS (SELECT FROM billing.bucket b WHERE b.owner = owner_id AND b.holder = gateway_id AND b.cycle < cycle_number)
       AND NOT EXISTS (SELECT FROM billing.bucket b WHERE b.owner = owner_id AND b.holder = gateway_id AND b.cycle > cycle_number) THEN
        PERFORM billing.enter_cycle(held);
    END IF;
    RETURN held;
END
$$;

-- For a new gateway, in the transaction that inserts it: its bucket of the current cycle.
CREATE FUNCTION billing.take_bucket(owner_id uuid, gateway_id uuid) RETURNS uuid
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT (billing.hold_bucket(owner_id, gateway_id, billing.ensure_cycle(now()))).id
$$;

-- ---- base hours (B1) ----------------------------------------------------------------------------------------------

-- The price of hour k of a month of H hours: floor18(V·k/H) − floor18(V·(k−1)/H). div() is exact, and a whole number of
-- 10^-18 credits; "/" would round.
CREATE FUNCTION billing.hour_price(value numeric, k integer, hours integer) RETURNS numeric
LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT (div(value * 1000000000000000000 * k, hours) - div(value * 1000000000000000000 * (k - 1), hours)) * 0.000000000000000001
$$;

-- Writes the line of the hour that begins at an instant.
CREATE FUNCTION billing.post_hour(owner_id uuid, gateway_id uuid, begins timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    cycle_number integer := billing.ensure_cycle(begins);
    month billing.cycle;
    place uuid;
    version gateway.rate_version;
    price numeric(20, 9);
    k integer;
    hours integer;
BEGIN
    SELECT c.* INTO STRICT month FROM billing.cycle c WHERE c.id = cycle_number;
    SELECT g.location INTO STRICT place FROM gateway.gateway g WHERE g.owner = owner_id AND g.id = gateway_id;
    version := billing.rate_at(place, begins);
    price := coalesce((billing.hold_bucket(owner_id, gateway_id, month.id)).credit_value, version.credit_value);
    k := floor(extract(epoch FROM begins - month.starts) / 3600) + 1;
    hours := extract(epoch FROM month.ends - month.starts) / 3600;
    INSERT INTO billing.ledger (owner, gateway, kind, utc_hour, span, cycle, rate, rate_version, hour_index, month_hours, amount)
    VALUES (owner_id, gateway_id, 'base', date_trunc('hour', begins, 'UTC'), tstzrange(begins, begins + interval '1 hour'), month.id,
            price, version.id, k, hours, billing.hour_price(price, k, hours))
    ON CONFLICT (owner, gateway, kind, utc_hour, part) DO NOTHING;
END
$$;

-- Posts the hours whose beginning has been reported active: the first at the first active instant, each further one at
-- the first active instant at or behind the end of the one before. The caller holds the gateway's row.
CREATE FUNCTION billing.post_base(owner_id uuid, gateway_id uuid) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    free_from timestamptz;
    begins timestamptz;
    posted integer := 0;
BEGIN
    SELECT upper(l.span) INTO free_from FROM billing.ledger l
    WHERE l.owner = owner_id AND l.gateway = gateway_id AND l.kind = 'base' ORDER BY l.utc_hour DESC LIMIT 1;
    free_from := coalesce(free_from, '-infinity');
    LOOP
        SELECT min(greatest(lower(i.span), free_from)) INTO begins FROM billing.active_interval i
        WHERE i.owner = owner_id AND i.gateway = gateway_id AND i.state = 'active' AND i.span && tstzrange(free_from, NULL);
        EXIT WHEN begins IS NULL;
        PERFORM billing.post_hour(owner_id, gateway_id, begins);
        free_from := begins + interval '1 hour';
        posted := posted + 1;
    END LOOP;
    RETURN posted;
END
$$;

-- ---- bandwidth (B2, B5) -------------------------------------------------------------------------------------------

-- Posts the overage of hours that are reported completely, or of all when nothing more can come. Bytes that an hour
-- gained since its last line are a further part. The caller holds the gateway's row.
CREATE FUNCTION billing.post_bandwidth(owner_id uuid, gateway_id uuid, everything boolean DEFAULT false) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    due billing.overage_hour;
    complete timestamptz;
    posted integer := 0;
BEGIN
    SELECT g.complete_through INTO complete FROM gateway.gateway g WHERE g.owner = owner_id AND g.id = gateway_id;
    FOR due IN SELECT o.* FROM billing.overage_hour o
               WHERE o.owner = owner_id AND o.gateway = gateway_id AND o.bytes > o.posted_bytes
                 AND (everything OR o.hour + interval '1 hour' <= complete)
               ORDER BY o.hour, o.bucket
    LOOP
        INSERT INTO billing.ledger (owner, gateway, kind, utc_hour, part, span, cycle, bucket, bytes, rate, rate_version, amount)
        SELECT due.owner, due.gateway, 'bandwidth', due.hour,
               (SELECT coalesce(max(l.part), 0) + 1 FROM billing.ledger l
                WHERE l.owner = due.owner AND l.gateway = due.gateway AND l.kind = 'bandwidth' AND l.utc_hour = due.hour),
               tstzrange(due.hour, due.hour + interval '1 hour'), b.cycle, b.id, due.bytes - due.posted_bytes, v.bandwidth_rate, v.id,
               v.bandwidth_rate * (due.bytes - due.posted_bytes) * 0.000000001
        FROM billing.bucket b, gateway.rate_version v
        WHERE b.owner = due.owner AND b.id = due.bucket AND v.id = due.rate_version;
        UPDATE billing.overage_hour SET posted_bytes = bytes, parts = parts + 1
        WHERE owner = due.owner AND gateway = due.gateway AND hour = due.hour AND bucket = due.bucket;
        posted := posted + 1;
    END LOOP;
    RETURN posted;
END
$$;

-- ---- the end of a gateway (G7) --------------------------------------------------------------------------------------

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
    DELETE FROM gateway.token WHERE gateway = g.id;
    UPDATE gateway.job SET finished = true, uid_number = NULL, worker = NULL, lease_until = NULL WHERE gateway = g.id;
    UPDATE gateway.gateway
    SET status = 'deleted', deleted = now(), revision = revision + 1, suspended_reasons = '{}', error = NULL
    WHERE owner = g.owner AND id = g.id;
    PERFORM pg_notify('wiretoll_revision', g.id::text);
END
$$;

-- ---- the clock ------------------------------------------------------------------------------------------------------

-- Takes the next gateways into the cycle of the instant; done when none is left.
CREATE FUNCTION billing.roll_cycle(instant timestamptz, batch integer DEFAULT 200) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    entering integer := billing.ensure_cycle(instant);
    g record;
    entered integer := 0;
BEGIN
    IF (SELECT c.rolled FROM billing.cycle c WHERE c.id = entering) THEN
        RETURN 0;
    END IF;
    UPDATE billing.cycle SET state = 'closing' WHERE state = 'open' AND ends <= instant;
    FOR g IN SELECT x.owner, x.id FROM gateway.gateway x
             WHERE x.status <> 'deleted'
               AND NOT EXISTS (SELECT FROM billing.bucket b WHERE b.owner = x.owner AND b.holder = x.id AND b.cycle = entering)
             ORDER BY x.owner, x.id LIMIT batch
    LOOP
        PERFORM billing.hold_bucket(g.owner, g.id, entering);
        entered := entered + 1;
    END LOOP;
    UPDATE billing.cycle SET rolled = true WHERE id = entering AND entered < batch;
    RETURN entered;
END
$$;

-- B9: a cycle that has ended is final when every gateway has reported past its end, or after 72 hours.
CREATE FUNCTION billing.finish_cycles(instant timestamptz) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    UPDATE billing.cycle c SET state = 'final'
    WHERE c.state = 'closing'
      AND (instant >= c.ends + interval '72 hours'
           OR NOT EXISTS (SELECT FROM billing.bucket b JOIN gateway.gateway g ON g.owner = b.owner AND g.id = b.holder
                          WHERE b.cycle = c.id AND g.active_since IS NOT NULL
                            AND (g.complete_through IS NULL OR g.complete_through < c.ends)))
$$;

-- B3: versions whose hour has begun reach the gateways of their location as a new grant.
CREATE FUNCTION billing.announce_rates(instant timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g record;
BEGIN
    FOR g IN SELECT x.owner, x.id FROM gateway.gateway x
             WHERE x.status <> 'deleted'
               AND x.location IN (SELECT v.location FROM gateway.rate_version v WHERE NOT v.announced AND v.from_hour <= instant)
             ORDER BY x.owner, x.id
    LOOP
        PERFORM billing.raise_revision(g.owner, g.id);
        UPDATE billing.bucket SET grant_seq = grant_seq + 1
        WHERE owner = g.owner AND holder = g.id AND cycle = billing.cycle_id(instant);
    END LOOP;
    UPDATE gateway.rate_version SET announced = true WHERE NOT announced AND from_hour <= instant;
END
$$;

-- Gives the lines committed since the last step their ids. One step at a time, and a line gets its id only after its
-- own commit: who has read up to an id has missed nothing below it.
CREATE FUNCTION billing.seal_feed() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM billing.ledger l WHERE l.feed_id IS NULL)
       AND NOT EXISTS (SELECT FROM billing.action a WHERE a.feed_id IS NULL) THEN
        RETURN;
    END IF;
    WITH sealed AS (
        INSERT INTO billing.feed (owner, type, line)
        SELECT u.owner, u.type, u.id
        FROM (SELECT l.owner, 'ledger' AS type, l.id, l.created, l.utc_hour AS hour FROM billing.ledger l WHERE l.feed_id IS NULL
              UNION ALL SELECT a.owner, 'action', a.id, a.created, a.created FROM billing.action a WHERE a.feed_id IS NULL) u
        ORDER BY u.created, u.hour, u.id
        RETURNING id, owner, type, line),
    ledger AS (
        UPDATE billing.ledger l SET feed_id = s.id FROM sealed s
        WHERE l.feed_id IS NULL AND s.type = 'ledger' AND l.owner = s.owner AND l.id = s.line)
    UPDATE billing.action a SET feed_id = s.id FROM sealed s
    WHERE a.feed_id IS NULL AND s.type = 'action' AND a.owner = s.owner AND a.id = s.line;
END
$$;

-- What is due now, by one replica at a time; false when another one is at it.
CREATE FUNCTION billing.tick() RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('wiretoll billing clock')) THEN
        RETURN false;
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

REVOKE EXECUTE ON FUNCTION gateway.complete_delete FROM PUBLIC;
