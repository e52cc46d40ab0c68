-- SPDX-License-Identifier: BSD-2-Clause
-- What taking many gateways' batches at once needs: owner and gateway in every key, months as partitions, parts of a sample, alarms,
-- what was refused, and the layout of the temporary tables that batches are copied into.

-- ---- keys ---------------------------------------------------------------------------------------------------------

ALTER TABLE billing.epoch DROP CONSTRAINT epoch_pkey, ADD PRIMARY KEY (owner, gateway, id);
DROP INDEX billing.epoch_gateway;

ALTER TABLE billing.epoch_batch ADD COLUMN gateway uuid;
UPDATE billing.epoch_batch b SET gateway = e.gateway FROM billing.epoch e WHERE e.owner = b.owner AND e.id = b.epoch;
ALTER TABLE billing.epoch_batch ALTER COLUMN gateway SET NOT NULL, DROP CONSTRAINT epoch_batch_pkey,
    ADD PRIMARY KEY (owner, gateway, epoch, seq);

ALTER TABLE billing.counter ADD COLUMN gateway uuid;
UPDATE billing.counter c SET gateway = e.gateway FROM billing.epoch e WHERE e.owner = c.owner AND e.id = c.epoch;
ALTER TABLE billing.counter ALTER COLUMN gateway SET NOT NULL, DROP CONSTRAINT counter_pkey,
    ADD PRIMARY KEY (owner, gateway, epoch, slot, incarnation);

ALTER TABLE billing.usage_record DROP CONSTRAINT usage_record_pkey, ADD PRIMARY KEY (owner, gateway, hour, epoch, seq, slot, incarnation);
ALTER TABLE billing.ledger DROP CONSTRAINT ledger_pkey, ADD PRIMARY KEY (owner, gateway, id);
ALTER TABLE billing.action DROP CONSTRAINT action_pkey, ADD PRIMARY KEY (owner, gateway, id);

-- Rows that every report changes find room for their next version on their own page.
ALTER TABLE billing.epoch SET (fillfactor = 50);
ALTER TABLE billing.counter SET (fillfactor = 70);
ALTER TABLE billing.usage_hour SET (fillfactor = 70);
ALTER TABLE billing.bucket SET (fillfactor = 50);
ALTER TABLE gateway.gateway SET (fillfactor = 50);

-- Not measured at the hour's end, but divided by time: the agent slept through it.
ALTER TABLE billing.usage_record ADD COLUMN split boolean NOT NULL DEFAULT false;
ALTER TABLE billing.usage_hour ADD COLUMN split boolean NOT NULL DEFAULT false;

CREATE INDEX overage_hour_due ON billing.overage_hour (owner, gateway, hour) WHERE bytes > posted_bytes;

-- ---- usage records by month -----------------------------------------------------------------------------------------

-- Makes the partitions of the instant's month and of some months behind it. Rows that came before their partition move into it.
-- Runs with the rights of the tables' owner; tried again by the next round of the clock when others hold the table.
CREATE FUNCTION billing.ensure_partitions(instant timestamptz, ahead integer DEFAULT 2) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    begins timestamptz;
    ends timestamptz;
    partition text;
    made integer := 0;
BEGIN
    FOR i IN 0..ahead LOOP
        begins := (date_trunc('month', instant AT TIME ZONE 'UTC') + i * interval '1 month') AT TIME ZONE 'UTC';
        ends := (date_trunc('month', instant AT TIME ZONE 'UTC') + (i + 1) * interval '1 month') AT TIME ZONE 'UTC';
        partition := 'usage_record_' || billing.cycle_id(begins);
        CONTINUE WHEN to_regclass('billing.' || partition) IS NOT NULL;
        EXECUTE format('CREATE TABLE billing.%I (LIKE billing.usage_record INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', partition);
        EXECUTE format('WITH moved AS (DELETE FROM billing.usage_record_default WHERE hour >= %L AND hour < %L RETURNING *)'
                       ' INSERT INTO billing.%I SELECT * FROM moved', begins, ends, partition);
        EXECUTE format('ALTER TABLE billing.usage_record ATTACH PARTITION billing.%I FOR VALUES FROM (%L) TO (%L)', partition, begins, ends);
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;

-- Detaches the partitions of the months before a cycle and names them; the tables stay, to be saved and dropped. Bills and usage
-- are read from the ledger and the hourly sums, which stay too. A month that is not final yet is not detached.
CREATE FUNCTION billing.detach_usage(before_cycle integer) RETURNS SETOF text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    month record;
BEGIN
    FOR month IN
        SELECT c.relname, substring(c.relname FROM '\d{6}$')::integer AS cycle
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'billing.usage_record'::regclass AND c.relname ~ '^usage_record_\d{6}$' ORDER BY c.relname
    LOOP
        EXIT WHEN month.cycle >= before_cycle;
        IF (SELECT x.state <> 'final' FROM billing.cycle x WHERE x.id = month.cycle) THEN
            RAISE EXCEPTION 'cycle % is not final yet', month.cycle USING ERRCODE = 'object_in_use';
        END IF;
        EXECUTE format('ALTER TABLE billing.usage_record DETACH PARTITION billing.%I', month.relname);
        RETURN NEXT 'billing.' || month.relname;
    END LOOP;
END
$$;

SELECT billing.ensure_partitions(now());

-- ---- parts of a sample ------------------------------------------------------------------------------------------------

-- A sample too large for one batch comes in parts. What the parts before the last have grown by is settled with the last.
CREATE TABLE billing.part_hour (
    owner       uuid NOT NULL,
    gateway     uuid NOT NULL,
    epoch       uuid NOT NULL,
    hour        timestamptz NOT NULL CHECK (hour = date_trunc('hour', hour, 'UTC')),
    up          bigint NOT NULL CHECK (up >= 0),
    down        bigint NOT NULL CHECK (down >= 0),
    undelivered bigint NOT NULL CHECK (undelivered >= 0),
    PRIMARY KEY (owner, gateway, epoch, hour)
);
ALTER TABLE billing.epoch ADD COLUMN has_parts boolean NOT NULL DEFAULT false;

-- ---- what was refused, and alarms -----------------------------------------------------------------------------------------

-- The content of batches that contradict what is held, kept for whoever finds out why; at most 100 of a gateway.
CREATE TABLE billing.quarantine (
    owner    uuid NOT NULL,
    gateway  uuid NOT NULL,
    epoch    uuid NOT NULL,
    seq      bigint NOT NULL,
    crc      bigint NOT NULL,
    reason   text NOT NULL,
    held_seq bigint NOT NULL,
    held_crc bigint,
    body     text NOT NULL,
    received timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner, gateway, epoch, seq, crc)
);

-- What somebody has to look at. One open row for a gateway, kind and subject.
CREATE TABLE billing.alarm (
    owner   uuid NOT NULL,
    gateway uuid NOT NULL,
    kind    text NOT NULL CHECK (kind IN ('quarantine', 'gap', 'drift')),
    subject text NOT NULL, -- the epoch; of a drift: the two counts that differ
    raised  timestamptz NOT NULL DEFAULT now(),
    cleared timestamptz,
    detail  jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (owner, gateway, kind, subject, raised)
);
CREATE UNIQUE INDEX alarm_open ON billing.alarm (owner, gateway, kind, subject) WHERE cleared IS NULL;

-- Raises an alarm unless it is open; every replica hears of it and says so in its log.
CREATE FUNCTION billing.raise_alarm(owner_id uuid, gateway_id uuid, alarm_kind text, alarm_subject text, alarm_detail jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO billing.alarm (owner, gateway, kind, subject, detail) VALUES (owner_id, gateway_id, alarm_kind, alarm_subject, alarm_detail)
    ON CONFLICT (owner, gateway, kind, subject) WHERE cleared IS NULL DO NOTHING;
    IF FOUND THEN
        PERFORM pg_notify('wiretoll_alarm', json_build_object('gateway', gateway_id, 'kind', alarm_kind, 'subject', alarm_subject,
                                                              'detail', alarm_detail)::text);
    END IF;
END
$$;

-- ---- restoring ------------------------------------------------------------------------------------------------------------

-- How often this database has been restored from a backup: a row each. Agents that see a new number fill it again.
CREATE TABLE billing.restoration (
    number      bigint PRIMARY KEY,
    taken       timestamptz NOT NULL, -- when the backup was
    restored    timestamptz NOT NULL DEFAULT now(),
    feed_before bigint NOT NULL DEFAULT 0
);

CREATE FUNCTION billing.restored() RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(max(r.number), 0) FROM billing.restoration r
$$;

-- sum(bigint) counts in numeric; this one is exact too, as it fails beyond 64 bits, and several times faster.
CREATE AGGREGATE billing.total(bigint) (SFUNC = int8pl, STYPE = bigint, INITCOND = '0', COMBINEFUNC = int8pl, PARALLEL = SAFE);

-- ---- the layout of batches on their way in ----------------------------------------------------------------------------------

-- `n` names the batch within its transaction; a gateway has at most one in each.
CREATE TYPE billing.report_in AS (
    n bigint, owner uuid, gateway uuid, attempt integer, token_generation bigint, crc bigint, kept_from bigint, over boolean,
    shrunk boolean, tangled boolean, -- a total that is smaller than one before it; hours that are not in order
    several boolean, -- a peer has more than one slot
    generation bigint, epoch uuid, boot_id uuid, final boolean, seq bigint, more boolean, covered_from timestamptz, covered_to timestamptz,
    active_since timestamptz, public_key bytea, applied_revision bigint, counted bigint, grant_cycle integer, grant_seq bigint,
    cycle_counted bigint, exhausted boolean, sent timestamptz, cannot_apply jsonb, reconcile jsonb
);
-- A slot's growth in an hour, since its record before in the batch or, where it `begins`, since zero.
CREATE TYPE billing.sample_in AS (
    n bigint, slot integer, incarnation bigint, peer uuid, hour timestamptz,
    up bigint, down bigint, up_packets bigint, down_packets bigint, undelivered bigint, refused bigint, begins boolean, split boolean
);
-- The first totals of a slot in a batch, and the last.
CREATE TYPE billing.counter_in AS (
    n bigint, slot integer, incarnation bigint, peer uuid,
    first_up bigint, first_down bigint, first_up_packets bigint, first_down_packets bigint, first_undelivered bigint, first_refused bigint,
    up bigint, down bigint, up_packets bigint, down_packets bigint, undelivered bigint, refused bigint
);
-- What a slot of counter_in had reached before, where it is known.
CREATE TYPE billing.counter_base AS (
    n bigint, slot integer, incarnation bigint, peer uuid,
    up bigint, down bigint, up_packets bigint, down_packets bigint, undelivered bigint, refused bigint
);
-- What the peers of a batch have grown by in an hour, unless it tells of none (`peers`). `fresh`: each of its records is a new hourly sum.
CREATE TYPE billing.hour_sum AS (n bigint, hour timestamptz, peers boolean, up bigint, down bigint, undelivered bigint, fresh boolean);
CREATE TYPE billing.state_in AS (n bigint, i integer, state text, begins timestamptz, ends timestamptz);
CREATE TYPE billing.seen_in AS (n bigint, peer uuid, handshake timestamptz, endpoint text);

-- A batch with what is known of its gateway and epoch. verdict: NULL: taken; 'held': taken before; else why not.
CREATE TYPE billing.report_work AS (
    n bigint, owner uuid, gateway uuid, epoch uuid, seq bigint, verdict text, detail text,
    location uuid, created timestamptz, status text, active_since timestamptz, attempt integer, applied_revision bigint, first boolean,
    known boolean, held_seq bigint, held_counted bigint, held_cycle integer, held_cycle_counted bigint, has_parts boolean,
    grant_cycle integer, this_hour timestamptz, overage text, accounting text
);

-- Bytes of a batch in an hour, on their way to the bucket of a cycle.
CREATE TYPE billing.settle_piece AS (
    n bigint, owner uuid, gateway uuid, cycle integer, hour timestamptz, later boolean, bytes bigint,
    rate_version bigint, rate numeric, overage text
);

-- Batches are laid out in temporary tables first; where PUBLIC may make none, the API must. No backup has a database's own rights.
CREATE FUNCTION billing.grant_temporary() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'wiretoll_api') THEN
        EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO wiretoll_api', current_database());
    END IF;
END
$$;
REVOKE EXECUTE ON FUNCTION billing.grant_temporary FROM PUBLIC;
SELECT billing.grant_temporary();

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'wiretoll_api') THEN
        GRANT SELECT, INSERT, UPDATE, DELETE ON billing.part_hour TO wiretoll_api;
        GRANT SELECT, INSERT ON billing.quarantine TO wiretoll_api;
        GRANT SELECT, INSERT, UPDATE ON billing.alarm TO wiretoll_api;
        GRANT SELECT ON billing.restoration TO wiretoll_api;
    END IF;
END
$$;
