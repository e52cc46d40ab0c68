-- SPDX-License-Identifier: BSD-2-Clause
-- Independent counts of the same bytes, held against each other once an hour for each gateway (docs/decisions/reconciliation.md).

-- The last comparison of a gateway. Counts are of the epoch, in bytes; NULL: not said. `drift` has, for each two that were compared,
-- by how much they differ beyond what is explained.
CREATE TABLE billing.reconciliation (
    owner   uuid NOT NULL,
    gateway uuid NOT NULL,
    epoch   uuid NOT NULL,
    seq     bigint NOT NULL,
    at      timestamptz NOT NULL DEFAULT now(),
    claimed timestamptz, -- when the agent last told its own counts
    counts  jsonb NOT NULL,
    drift   jsonb NOT NULL,
    PRIMARY KEY (owner, gateway)
);

-- Sums that must be the same whatever the agent says: records and hourly sums of the hour before this one, and what was posted
-- and the lines of the last 40 days. The caller holds the gateway's row. (Once an hour for each gateway: its plans are worth keeping.)
CREATE FUNCTION billing.ledger_drift(owner_id uuid, gateway_id uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before timestamptz := date_trunc('hour', now(), 'UTC') - interval '1 hour';
    since timestamptz := before - interval '40 days';
BEGIN
    RETURN jsonb_build_object('records_rollup', (
               (SELECT coalesce(sum(u.d_up + u.d_down), 0) FROM billing.usage_record u
                WHERE u.owner = owner_id AND u.gateway = gateway_id AND u.hour = before)
               - (SELECT coalesce(sum(s.up + s.down), 0) FROM billing.usage_hour s
                  WHERE s.owner = owner_id AND s.gateway = gateway_id AND s.hour = before))::text,
           'overage_lines', (
               (SELECT coalesce(sum(o.posted_bytes - o.refunded_bytes), 0) FROM billing.overage_hour o
                WHERE o.owner = owner_id AND o.gateway = gateway_id AND o.hour >= since)
               - (SELECT coalesce(sum(CASE WHEN l.adjusts = 'undelivered' THEN -l.bytes ELSE l.bytes END), 0) FROM billing.ledger l
                  WHERE l.owner = owner_id AND l.gateway = gateway_id AND (l.kind = 'bandwidth' OR l.adjusts IN ('bandwidth', 'undelivered'))
                    AND l.utc_hour >= since))::text);
END
$$;

-- A shortfall, or what is beyond the explained; NULL: not said.
CREATE FUNCTION billing.beyond(difference numeric, explained numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN difference < 0 THEN difference ELSE greatest(difference - explained, 0) END
$$;

-- What an agent says of its epoch against what is held of it. The meter and the journal have to agree to the byte. WireGuard receives at least
-- 32 bytes more than the meter for each packet, and of what it sends it can only drop. The interface counts what the meter
-- counts, or padded to 16; or messages, which are as long as WireGuard's.
CREATE FUNCTION billing.agent_drift(said jsonb, held_seq bigint, up bigint, down bigint, up_packets bigint, down_packets bigint, grown bigint)
RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object(
        'meter_records', ((said #>> '{meter,upload_bytes}')::numeric + (said #>> '{meter,download_bytes}')::numeric - up - down)::text,
        'journal_records', CASE WHEN (said #>> '{journal,seq}')::bigint = held_seq THEN (
            (said #>> '{journal,upload_bytes}')::numeric + (said #>> '{journal,download_bytes}')::numeric - (up + down - grown))::text END,
        'wireguard_meter', billing.beyond((said #>> '{wireguard,rx_bytes}')::numeric - up - 32::numeric * up_packets, 'Infinity')::text,
        'interface_meter', CASE WHEN (said #>> '{interface,encrypted}')::boolean
            THEN billing.beyond((said #>> '{interface,rx_bytes}')::numeric - up - 32::numeric * up_packets, 'Infinity')
            ELSE billing.beyond((said #>> '{interface,rx_bytes}')::numeric - up, 15::numeric * up_packets) END::text))
$$;

-- The first report of an hour, and the first with counts of the agent's own, is compared. A drift is an alarm until it is gone.
CREATE FUNCTION billing.reconcile_reports() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    due record;
    held record;
    found_drift jsonb;
    pair record;
BEGIN
    FOR due IN
        SELECT w.n, w.owner, w.gateway, w.epoch, w.seq, w.held_seq, r.reconcile
        FROM report_work w JOIN report_in r ON r.n = w.n
        LEFT JOIN billing.reconciliation k ON k.owner = w.owner AND k.gateway = w.gateway
        WHERE w.verdict IS NULL AND NOT r.more AND NOT r.over
          AND least(k.at, CASE WHEN r.reconcile IS NOT NULL THEN coalesce(k.claimed, '-infinity') END) < date_trunc('hour', now(), 'UTC')
              IS NOT FALSE
        ORDER BY w.owner, w.gateway
    LOOP
        SELECT coalesce(billing.total(c.up), 0) AS up, coalesce(billing.total(c.down), 0) AS down,
               coalesce(billing.total(c.up_packets), 0) AS up_packets, coalesce(billing.total(c.down_packets), 0) AS down_packets
        INTO held FROM billing.counter c WHERE c.owner = due.owner AND c.gateway = due.gateway AND c.epoch = due.epoch;
        found_drift := billing.ledger_drift(due.owner, due.gateway) || billing.agent_drift(due.reconcile, due.held_seq, held.up, held.down,
            held.up_packets, held.down_packets, (SELECT billing.total(s.up + s.down) FROM sample_in s WHERE s.n = due.n));
        INSERT INTO billing.reconciliation AS k (owner, gateway, epoch, seq, claimed, counts, drift)
        VALUES (due.owner, due.gateway, due.epoch, due.seq, CASE WHEN due.reconcile IS NOT NULL THEN now() END,
                coalesce(due.reconcile, '{}') || jsonb_build_object('records', jsonb_build_object(
                    'upload_bytes', held.up::text, 'download_bytes', held.down::text,
                    'upload_packets', held.up_packets::text, 'download_packets', held.down_packets::text)), found_drift)
        ON CONFLICT (owner, gateway) DO UPDATE
        SET epoch = excluded.epoch, seq = excluded.seq, at = now(), claimed = coalesce(excluded.claimed, k.claimed), counts = excluded.counts,
            drift = excluded.drift;
        FOR pair IN SELECT d.key AS between, d.value AS bytes FROM jsonb_each_text(found_drift) d LOOP
            IF pair.bytes::numeric <> 0 THEN
                PERFORM billing.raise_alarm(due.owner, due.gateway, 'drift', pair.between, jsonb_build_object('bytes', pair.bytes, 'seq', due.seq));
            ELSE
                UPDATE billing.alarm SET cleared = now()
                WHERE owner = due.owner AND gateway = due.gateway AND kind = 'drift' AND subject = pair.between AND cleared IS NULL;
            END IF;
        END LOOP;
    END LOOP;
END
$$;

REVOKE EXECUTE ON FUNCTION billing.ledger_drift, billing.agent_drift, billing.beyond, billing.reconcile_reports FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'wiretoll_api') THEN
        GRANT SELECT, INSERT, UPDATE ON billing.reconciliation TO wiretoll_api;
        GRANT EXECUTE ON FUNCTION billing.ledger_drift, billing.agent_drift, billing.beyond, billing.reconcile_reports TO wiretoll_api;
    END IF;
END
$$;
