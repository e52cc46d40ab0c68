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
-- After a restore grants have to be newer than any that were given of a cycle that the backup does not know.
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
    SET holder = gateway_id, allowance = included, credit_value = price, grant_seq = greatest(grant_seq + 1, billing.restored())
    WHERE owner = owner_id AND id = (
        SELECT b.id FROM billing.bucket b
        WHERE b.owner = owner_id AND b.location = place AND b.cycle = cycle_number AND b.holder IS NULL
        ORDER BY b.used DESC, b.number LIMIT 1)
    RETURNING * INTO held;
    IF NOT FOUND THEN
        INSERT INTO billing.bucket (owner, location, cycle, number, holder, allowance, credit_value, grant_seq)
        SELECT owner_id, place, cycle_number, coalesce(max(b.number), 0) + 1, gateway_id, included, price, greatest(1, billing.restored())
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

