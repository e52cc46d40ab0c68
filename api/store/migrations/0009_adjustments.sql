-- SPDX-License-Identifier: BSD-2-Clause
-- What comes after an hour or a cycle is closed: a line that is written is never changed. Bytes and hours of a final cycle are lines of
-- kind adjust in the next one that is open, rated by the old one's rules and naming the old hour (B9). What was charged and then found
-- undelivered, and not used up by later bytes, is given back by such lines when its cycle closes.

ALTER TABLE billing.ledger ADD COLUMN adjusts text CHECK (adjusts IN ('base', 'bandwidth', 'undelivered')),
    ADD CHECK ((kind = 'adjust') = (adjusts IS NOT NULL)),
    ADD CHECK (coalesce(adjusts, 'base') = 'base' OR (bytes IS NOT NULL
        AND amount = CASE adjusts WHEN 'undelivered' THEN -rate ELSE rate END * bytes * 0.000000001));
-- One price for an hour, in whatever cycle it is posted; and where the chain of hours ends.
CREATE UNIQUE INDEX ledger_hour ON billing.ledger (owner, gateway, utc_hour) WHERE kind = 'base' OR adjusts = 'base';

-- Of what was charged, what has been given back: `charged` never falls.
ALTER TABLE billing.bucket ADD COLUMN refunded bigint NOT NULL DEFAULT 0 CHECK (refunded >= 0 AND refunded <= charged);
ALTER TABLE billing.overage_hour ADD COLUMN refunded_bytes bigint NOT NULL DEFAULT 0 CHECK (refunded_bytes >= 0),
    ADD CHECK (refunded_bytes <= posted_bytes);
CREATE INDEX bucket_refundable ON billing.bucket (owner, id) WHERE refundable > 0;

-- The cycle that lines of a cycle go to: itself, or, when it is final, the next one that is not. It cannot become final before
-- the caller's transaction ends.
CREATE FUNCTION billing.posting_cycle(cycle_number integer) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    target integer;
BEGIN
    LOOP
        SELECT c.id INTO target FROM billing.cycle c WHERE c.id >= cycle_number AND c.state <> 'final' ORDER BY c.id LIMIT 1 FOR SHARE;
        EXIT WHEN FOUND;
        PERFORM billing.ensure_cycle(now());
    END LOOP;
    RETURN target;
END
$$;

CREATE FUNCTION billing.next_part(owner_id uuid, gateway_id uuid, line_kind text, hour timestamptz) RETURNS integer
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(max(l.part), 0) + 1 FROM billing.ledger l
    WHERE l.owner = owner_id AND l.gateway = gateway_id AND l.kind = line_kind AND l.utc_hour = hour
$$;

-- Writes the lines of the hours that begin at these instants, in order.
CREATE FUNCTION billing.post_hours(owner_id uuid, gateway_id uuid, begins timestamptz[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO billing.ledger (owner, gateway, kind, adjusts, utc_hour, part, span, cycle, rate, rate_version, hour_index, month_hours, amount)
    SELECT owner_id, gateway_id, p.kind, CASE p.kind WHEN 'adjust' THEN 'base' END, p.hour,
           CASE p.kind WHEN 'adjust' THEN billing.next_part(owner_id, gateway_id, 'adjust', p.hour) ELSE 1 END,
           tstzrange(b.at, b.at + interval '1 hour'), c.target, coalesce(c.credit_value, v.credit_value), v.id,
           CASE p.kind WHEN 'base' THEN p.k END, CASE p.kind WHEN 'base' THEN c.hours END,
           billing.hour_price(coalesce(c.credit_value, v.credit_value), p.k, c.hours)
    FROM unnest(begins) b (at)
    JOIN (SELECT m.id, m.starts, m.ends, (extract(epoch FROM m.ends - m.starts) / 3600)::integer AS hours, billing.posting_cycle(m.id) AS target,
                 (billing.hold_bucket(owner_id, gateway_id, m.id)).credit_value
          FROM billing.cycle m
          WHERE m.id IN (SELECT DISTINCT billing.cycle_id(x.at) FROM unnest(begins) x (at)) OFFSET 0) c ON b.at >= c.starts AND b.at < c.ends
    CROSS JOIN LATERAL (SELECT (floor(extract(epoch FROM b.at - c.starts) / 3600) + 1)::integer AS k, date_trunc('hour', b.at, 'UTC') AS hour,
                               CASE WHEN c.target = c.id THEN 'base' ELSE 'adjust' END AS kind) p
    JOIN gateway.gateway g ON g.owner = owner_id AND g.id = gateway_id
    CROSS JOIN LATERAL (SELECT r.id, r.credit_value FROM gateway.rate_version r WHERE r.location = g.location AND r.from_hour <= b.at
                        ORDER BY r.from_hour DESC LIMIT 1) v
    ON CONFLICT DO NOTHING;
END
$$;

-- Posts the hours whose beginning has been reported active: the first at the first active instant, each further one at
-- the first active instant at or behind the end of the one before. The caller holds the gateway's row.
CREATE FUNCTION billing.post_base(owner_id uuid, gateway_id uuid) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    free_from timestamptz;
    active tstzrange;
    at timestamptz;
    begins timestamptz[] := '{}';
BEGIN
    SELECT upper(l.span) INTO free_from FROM billing.ledger l
    WHERE l.owner = owner_id AND l.gateway = gateway_id AND (l.kind = 'base' OR l.adjusts = 'base') ORDER BY l.utc_hour DESC LIMIT 1;
    free_from := coalesce(free_from, '-infinity');
    FOR active IN
        SELECT i.span FROM billing.active_interval i
        WHERE i.owner = owner_id AND i.gateway = gateway_id AND i.state = 'active' AND i.span && tstzrange(free_from, NULL) ORDER BY i.span
    LOOP
        at := greatest(lower(active), free_from);
        WHILE at < upper(active) LOOP
            IF begins = '{}' OR billing.cycle_id(begins[cardinality(begins)]) <> billing.cycle_id(at) THEN
                PERFORM billing.ensure_cycle(at);
            END IF;
            begins := begins || at;
            at := at + interval '1 hour';
        END LOOP;
        free_from := greatest(free_from, at);
    END LOOP;
    IF begins <> '{}' THEN
        PERFORM billing.post_hours(owner_id, gateway_id, begins);
    END IF;
    RETURN cardinality(begins);
END
$$;

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
        INSERT INTO billing.ledger (owner, gateway, kind, adjusts, utc_hour, part, span, cycle, bucket, bytes, rate, rate_version, amount)
        SELECT due.owner, due.gateway, p.kind, CASE p.kind WHEN 'adjust' THEN 'bandwidth' END, due.hour,
               billing.next_part(due.owner, due.gateway, p.kind, due.hour), tstzrange(due.hour, due.hour + interval '1 hour'), p.target, b.id,
               due.bytes - due.posted_bytes, v.bandwidth_rate, v.id, v.bandwidth_rate * (due.bytes - due.posted_bytes) * 0.000000001
        FROM billing.bucket b, gateway.rate_version v,
             LATERAL (SELECT t.target, CASE WHEN t.target = b.cycle THEN 'bandwidth' ELSE 'adjust' END AS kind
                      FROM billing.posting_cycle(b.cycle) t (target)) p
        WHERE b.owner = due.owner AND b.id = due.bucket AND v.id = due.rate_version;
        UPDATE billing.overage_hour SET posted_bytes = bytes, parts = parts + 1
        WHERE owner = due.owner AND gateway = due.gateway AND hour = due.hour AND bucket = due.bucket;
        posted := posted + 1;
    END LOOP;
    RETURN posted;
END
$$;

-- Gives back what is refundable of a bucket, at the rates of the hours that were charged last.
CREATE FUNCTION billing.refund(held billing.bucket, target integer) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    rest bigint := held.refundable;
    due billing.overage_hour;
    part_bytes bigint;
BEGIN
    FOR due IN SELECT o.* FROM billing.overage_hour o
                WHERE o.owner = held.owner AND o.bucket = held.id AND o.posted_bytes > o.refunded_bytes ORDER BY o.hour DESC, o.gateway FOR UPDATE
    LOOP
        EXIT WHEN rest = 0;
        part_bytes := least(rest, due.posted_bytes - due.refunded_bytes);
        INSERT INTO billing.ledger (owner, gateway, kind, adjusts, utc_hour, part, span, cycle, bucket, bytes, rate, rate_version, amount)
        SELECT due.owner, due.gateway, 'adjust', 'undelivered', due.hour, billing.next_part(due.owner, due.gateway, 'adjust', due.hour),
               tstzrange(due.hour, due.hour + interval '1 hour'), target, held.id, part_bytes, v.bandwidth_rate, v.id,
               -v.bandwidth_rate * part_bytes * 0.000000001
        FROM gateway.rate_version v WHERE v.id = due.rate_version;
        UPDATE billing.overage_hour SET refunded_bytes = refunded_bytes + part_bytes
        WHERE owner = due.owner AND gateway = due.gateway AND hour = due.hour AND bucket = due.bucket;
        rest := rest - part_bytes;
    END LOOP;
    UPDATE billing.bucket SET refundable = rest, refunded = refunded + held.refundable - rest WHERE owner = held.owner AND id = held.id;
END
$$;

-- B9: a cycle that has ended is final when every gateway has reported past its end, or after 72 hours; after a restore the agents have as
-- long to fill it again. What it has to give back is the last that is written into it; what is found later goes to the next.
CREATE FUNCTION billing.finish_cycles(instant timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    finished integer[];
    held billing.bucket;
BEGIN
    WITH final AS (
        UPDATE billing.cycle c SET state = 'final'
        WHERE c.state = 'closing'
          AND (instant >= greatest(c.ends, (SELECT max(r.restored) FROM billing.restoration r)) + interval '72 hours'
               OR NOT EXISTS (SELECT FROM billing.bucket b JOIN gateway.gateway g ON g.owner = b.owner AND g.id = b.holder
                              WHERE b.cycle = c.id AND g.active_since IS NOT NULL
                                AND (g.complete_through IS NULL OR g.complete_through < c.ends)))
        RETURNING c.id
    )
    SELECT array_agg(f.id) INTO finished FROM final f;
    FOR held IN
        SELECT b.* FROM billing.bucket b JOIN billing.cycle c ON c.id = b.cycle
        WHERE b.refundable > 0 AND c.state = 'final'
          AND EXISTS (SELECT FROM billing.overage_hour o WHERE o.owner = b.owner AND o.bucket = b.id AND o.posted_bytes > o.refunded_bytes)
        ORDER BY b.owner, b.id FOR UPDATE OF b
    LOOP
        PERFORM billing.refund(held, CASE WHEN held.cycle = ANY (finished) THEN held.cycle ELSE billing.posting_cycle(held.cycle) END);
    END LOOP;
END
$$;

-- B6: a pure sum of ledger lines, per gateway that has lines in the cycle or lived in it, and in total. Adjustments are of older hours.
CREATE FUNCTION billing.report(owner_id uuid, cycle_number integer) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH month AS (
        SELECT m.starts, (m.starts AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC' AS ends,
               coalesce((SELECT c.state FROM billing.cycle c WHERE c.id = cycle_number), 'open') AS state
        FROM (SELECT make_timestamptz(cycle_number / 100, cycle_number % 100, 1, 0, 0, 0, 'UTC') AS starts) m
    ), lines AS (
        SELECT l.gateway, count(*) FILTER (WHERE l.kind = 'base') AS hours,
               coalesce(sum(l.amount) FILTER (WHERE l.kind = 'base'), 0) AS base,
               coalesce(sum(l.bytes) FILTER (WHERE l.kind = 'bandwidth'), 0) AS bytes,
               coalesce(sum(l.amount) FILTER (WHERE l.kind = 'bandwidth'), 0) AS bandwidth,
               coalesce(sum(l.amount) FILTER (WHERE l.kind = 'adjust'), 0) AS adjustment, sum(l.amount) AS total
        FROM billing.ledger l WHERE l.owner = owner_id AND l.cycle = cycle_number GROUP BY l.gateway
    ), listed AS (
        SELECT g.id, g.name, g.created, coalesce(l.hours, 0) AS hours, coalesce(l.base, 0) AS base, coalesce(l.bytes, 0) AS bytes,
               coalesce(l.bandwidth, 0) AS bandwidth, coalesce(l.adjustment, 0) AS adjustment, coalesce(l.total, 0) AS total,
               CASE WHEN g.status <> 'deleted' AND g.active_since IS NOT NULL THEN g.complete_through END AS complete
        FROM month m CROSS JOIN gateway.gateway g LEFT JOIN lines l ON l.gateway = g.id
        WHERE g.owner = owner_id AND (l.gateway IS NOT NULL OR (g.created < m.ends AND (g.deleted IS NULL OR g.deleted >= m.starts)))
    )
    SELECT jsonb_build_object(
        'user', owner_id, 'cycle', to_char(m.starts AT TIME ZONE 'UTC', 'YYYY-MM'), 'state', m.state,
        'complete_through', billing.rfc3339(least(min(g.complete), m.ends)),
        'gateways', coalesce(jsonb_agg(jsonb_build_object(
            'gateway', g.id, 'name', g.name, 'hours', g.hours, 'base_credits', trim_scale(g.base)::text,
            'bandwidth_bytes', g.bytes::text, 'bandwidth_credits', trim_scale(g.bandwidth)::text,
            'adjustment_credits', trim_scale(g.adjustment)::text,
            'total_credits', trim_scale(g.total)::text) ORDER BY g.created, g.id) FILTER (WHERE g.id IS NOT NULL), '[]'),
        'totals', jsonb_build_object(
            'hours', coalesce(sum(g.hours), 0), 'base_credits', trim_scale(coalesce(sum(g.base), 0))::text,
            'bandwidth_bytes', coalesce(sum(g.bytes), 0)::text, 'bandwidth_credits', trim_scale(coalesce(sum(g.bandwidth), 0))::text,
            'adjustment_credits', trim_scale(coalesce(sum(g.adjustment), 0))::text,
            'total_credits', trim_scale(coalesce(sum(g.total), 0))::text))
    FROM month m LEFT JOIN listed g ON true GROUP BY m.starts, m.ends, m.state
$$;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA gateway, billing FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'wiretoll_api') THEN
        GRANT EXECUTE ON FUNCTION billing.posting_cycle, billing.next_part, billing.post_hours, billing.post_base, billing.post_bandwidth,
            billing.finish_cycles, billing.report, billing.refund TO wiretoll_api;
    END IF;
END
$$;
