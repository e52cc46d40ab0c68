-- SPDX-License-Identifier: BSD-2-Clause
-- Addresses promised at the order, a uid for a gateway's whole life, and what could not be applied, told.

-- ---- the public address is taken with the order ---------------------------------------------------------------

-- Takes the public address that the gateway will have, or NULL: none is free. One at a time, as placing is; so of orders
-- at once exactly as many succeed as there are addresses. Called last in its transaction: nothing is waited for with it held.
CREATE FUNCTION gateway.promise_address(gateway_owner uuid, gateway_id uuid) RETURNS inet
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g gateway.gateway;
    s gateway.subnet;
    chosen inet;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('wiretoll placement'));
    SELECT x.* INTO STRICT g FROM gateway.gateway x WHERE x.owner = gateway_owner AND x.id = gateway_id;
    SELECT x.* INTO STRICT s FROM gateway.subnet x WHERE x.owner = g.owner AND x.id = g.public_subnet;
    chosen := gateway.free_address(s);
    IF chosen IS NOT NULL THEN
        INSERT INTO gateway.address (subnet, ip, public, owner, gateway, attempt)
        VALUES (s.id, chosen, s.public, g.owner, g.id, g.attempt)
        ON CONFLICT (subnet, ip) DO UPDATE
            SET owner = excluded.owner, gateway = excluded.gateway, attempt = excluded.attempt, freed = NULL;
    END IF;
    RETURN chosen;
END
$$;

-- ---- one uid for a gateway's whole life -----------------------------------------------------------------------

-- As before, but a gateway that is placed again keeps its number: what an earlier attempt wrote is its own.
CREATE OR REPLACE FUNCTION gateway.place_job(j gateway.job, g gateway.gateway, here uuid) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    candidate gateway.hypervisor;
    reason text;
    reasons text[] := '{}';
    possible boolean := false;
BEGIN
    FOR candidate IN SELECT h.* FROM gateway.hypervisor h WHERE h.location = g.location ORDER BY h.id = here DESC, h.name
    LOOP
        reason := coalesce(gateway.missing_network(g, candidate), 'no capacity: ' || gateway.missing_capacity(g, candidate));
        IF reason IS NULL AND candidate.id = here THEN
            UPDATE gateway.job q SET hypervisor = here, uid_number = coalesce(q.uid_number, nextval('gateway.uid_number'))
            WHERE q.gateway = j.gateway;
            UPDATE gateway.gateway x SET hypervisor = here WHERE x.owner = g.owner AND x.id = g.id;
            RETURN NULL;
        END IF;
        possible := possible OR reason IS NULL;
        reasons := reasons || reason;
    END LOOP;
    RETURN CASE WHEN possible THEN '' ELSE coalesce(array_to_string(reasons, '; '), 'the location has no hypervisor') END;
END
$$;

-- ---- what could not be applied --------------------------------------------------------------------------------

-- [{"what", "reason"}]: the agent's of its newest report, and the driver's of the VPC's routes.
ALTER TABLE gateway.gateway ADD COLUMN cannot_apply jsonb NOT NULL DEFAULT '[]', ADD COLUMN cannot_route jsonb NOT NULL DEFAULT '[]';

-- What the newest reports say that their agents could not apply: at most 50 things each, cut as the log's lines are.
CREATE FUNCTION billing.note_cannot_apply() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    WITH told AS MATERIALIZED (
        SELECT DISTINCT ON (w.owner, w.gateway) w.owner, w.gateway, (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'what', regexp_replace(left(c.what, 200), '[[:cntrl:]]', ' ', 'g'),
                       'reason', regexp_replace(left(c.reason, 500), '[[:cntrl:]]', ' ', 'g')) ORDER BY c.number), '[]')
            FROM (SELECT x.value ->> 'what' AS what, x.value ->> 'reason' AS reason, x.ordinality AS number
                  FROM jsonb_array_elements(coalesce(r.cannot_apply, '[]')) WITH ORDINALITY x LIMIT 50) c) AS list
        FROM report_work w JOIN report_in r ON r.n = w.n
        WHERE w.verdict IS NULL AND NOT r.over AND NOT r.more
        ORDER BY w.owner, w.gateway, w.n DESC
    )
    UPDATE gateway.gateway g SET cannot_apply = t.list
    FROM told t WHERE g.owner = t.owner AND g.id = t.gateway AND g.cannot_apply <> t.list;
END
$$;

-- As before, and what could not be applied is noted.
CREATE OR REPLACE FUNCTION billing.apply_reports() RETURNS TABLE (n bigint, status integer, body jsonb, detail text, keep boolean)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    PERFORM billing.lock_reports();
    PERFORM billing.judge_reports();
    PERFORM billing.open_epochs();
    PERFORM billing.compare_totals();
    PERFORM billing.weigh_reports();
    PERFORM billing.place_hours();
    PERFORM billing.sum_hours();
    PERFORM billing.note_gateways();
    PERFORM billing.store_usage();
    PERFORM billing.roll_up();
    PERFORM billing.move_counters();
    PERFORM billing.keep_parts();
    PERFORM billing.divide_growth();
    PERFORM billing.hold_settled();
    PERFORM billing.put_to_grants();
    PERFORM billing.hold_settled();
    PERFORM billing.settle_pieces();
    PERFORM billing.move_cursors();
    PERFORM billing.judge_buckets();
    PERFORM billing.tell_agents();
    PERFORM billing.note_peers();
    PERFORM billing.note_cannot_apply();
    PERFORM billing.post_due();
    PERFORM billing.alarm_reports();
    PERFORM billing.reconcile_reports();
    RETURN QUERY
    SELECT w.n, CASE WHEN w.verdict IS NULL OR w.verdict = 'held' THEN 200 WHEN w.verdict = 'gone' THEN 410
                     WHEN w.verdict = 'clock' THEN 400 WHEN w.verdict = 'often' THEN 503 ELSE 409 END,
           CASE WHEN w.verdict IS NULL OR w.verdict = 'held' THEN jsonb_build_object(
                    'held_seq', CASE WHEN w.verdict IS NULL THEN w.seq ELSE w.held_seq END, 'restored', billing.restored(),
                    'revision', g.revision, 'watch_until', CASE WHEN g.watch_until > now() THEN billing.rfc3339(g.watch_until) END)
                ELSE jsonb_build_object('held_seq', w.held_seq, 'restored', billing.restored(), 'reason', w.verdict, 'held_crc', (
                    SELECT b.crc FROM billing.epoch_batch b
                    WHERE b.owner = w.owner AND b.gateway = w.gateway AND b.epoch = w.epoch AND b.seq = w.held_seq)) END,
           w.detail, coalesce(w.verdict IN ('rolled_back', 'regressed', 'implausible'), false)
               AND (SELECT count(*) FROM billing.quarantine q WHERE q.owner = w.owner AND q.gateway = w.gateway) < 100
    FROM report_work w LEFT JOIN gateway.gateway g ON g.owner = w.owner AND g.id = w.gateway;
END
$$;

-- The driver's own: routes of the VPC that are somebody else's. False: the gateway's attempt is no longer that host's.
CREATE FUNCTION gateway.note_routes(gateway_id uuid, job_attempt integer, list jsonb) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF jsonb_typeof(list) <> 'array' OR jsonb_array_length(list) > 50 OR pg_column_size(list) > 100000 THEN
        RAISE EXCEPTION 'at most 50 routes';
    END IF;
    UPDATE gateway.gateway g SET cannot_route = list
    FROM gateway.job j
    WHERE j.gateway = gateway_id AND j.attempt = job_attempt AND j.hypervisor IS NOT NULL
      AND g.owner = j.owner AND g.id = j.gateway AND g.cannot_route <> list;
    RETURN FOUND;
END
$$;

REVOKE EXECUTE ON FUNCTION gateway.promise_address, gateway.note_routes, billing.note_cannot_apply FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'wiretoll_deploy') THEN
        GRANT EXECUTE ON FUNCTION gateway.note_routes TO wiretoll_deploy;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'wiretoll_api') THEN
        GRANT EXECUTE ON FUNCTION gateway.promise_address, billing.note_cannot_apply TO wiretoll_api;
    END IF;
END
$$;
