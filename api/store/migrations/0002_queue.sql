-- SPDX-License-Identifier: BSD-2-Clause
-- The deployment queue as its workers see it. They run on hypervisors, so their role has no right on any table: only
-- these functions, each of which checks that the worker still holds the job and that the attempt is the current one.

CREATE SEQUENCE gateway.uid_number AS integer;

-- ---- placing a gateway ----------------------------------------------------------------------------------------

-- What keeps a gateway from a hypervisor's networks; NULL: nothing.
CREATE FUNCTION gateway.missing_network(g gateway.gateway, host gateway.hypervisor) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        WHEN host.location <> g.location THEN host.name || ' is in another location'
        WHEN NOT EXISTS (SELECT FROM gateway.attachment a
                         WHERE a.owner = g.owner AND a.subnet = g.public_subnet AND a.hypervisor = host.id)
            THEN 'the public subnet is not attached to ' || host.name
        WHEN NOT EXISTS (SELECT FROM gateway.attachment a JOIN gateway.subnet s ON s.owner = a.owner AND s.id = a.subnet
                         WHERE s.owner = g.owner AND s.vpc = g.vpc AND NOT s.public AND s.range_first IS NOT NULL
                           AND a.hypervisor = host.id)
            THEN 'no private subnet of the VPC with a gateway_range is attached to ' || host.name
    END
$$;

-- Which resources a hypervisor lacks for one more gateway of the plan; NULL: none.
CREATE FUNCTION gateway.missing_capacity(g gateway.gateway, host gateway.hypervisor) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT host.name || ' has ' || string_agg(format('%s of %s %s free, the plan needs %s', total - used, total, unit, needed), '; ')
    FROM (SELECT coalesce(sum(p.cpu), 0) AS cpu, coalesce(sum(p.ram_mb), 0) AS ram_mb, coalesce(sum(p.storage_gb), 0) AS storage_gb
          FROM gateway.gateway o JOIN gateway.plan p ON p.id = o.plan
          WHERE o.hypervisor = host.id AND o.status <> 'deleted' AND o.id <> g.id) u,
         gateway.plan p,
         LATERAL (VALUES (host.cpu, u.cpu, p.cpu, 'CPUs'),
                         (host.ram_mb, u.ram_mb, p.ram_mb, 'MB of RAM'),
                         (host.storage_gb, u.storage_gb, p.storage_gb, 'GB of storage')) r (total, used, needed, unit)
    WHERE p.id = g.plan AND total - used < needed
    HAVING count(*) > 0
$$;

-- A free address of the subnet's range: one never used, else the one that has been free longest, and none within ten
-- minutes of its release: others may still hold it in their caches. NULL: none. Public ranges are shared between VPCs.
CREATE FUNCTION gateway.free_address(s gateway.subnet) RETURNS inet
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH taken AS (
        SELECT a.ip, bool_and(a.gateway IS NULL) AS free, max(a.freed) AS freed
        FROM gateway.address a
        WHERE (a.subnet = s.id OR (s.public AND a.public)) AND a.ip BETWEEN s.range_first AND s.range_last
        GROUP BY a.ip
    ), reserved AS (
        SELECT host(s.router)::inet AS ip WHERE s.router IS NOT NULL
        UNION SELECT host(network(s.cidr))::inet WHERE masklen(s.cidr) < 31
        UNION SELECT host(broadcast(s.cidr))::inet WHERE masklen(s.cidr) < 31 AND family(s.cidr) = 4
    ), fresh AS (
        SELECT min(c.ip) AS ip
        FROM (SELECT host(s.range_first)::inet AS ip
              UNION SELECT ip + 1 FROM taken
              UNION SELECT ip + 1 FROM reserved) c
        WHERE c.ip BETWEEN host(s.range_first)::inet AND host(s.range_last)::inet
          AND NOT EXISTS (SELECT FROM taken t WHERE t.ip = c.ip) AND NOT EXISTS (SELECT FROM reserved r WHERE r.ip = c.ip)
    )
    SELECT coalesce((SELECT ip FROM fresh),
                    (SELECT t.ip FROM taken t WHERE t.free AND t.freed <= now() - interval '10 minutes'
                       AND NOT EXISTS (SELECT FROM reserved r WHERE r.ip = t.ip)
                     ORDER BY t.freed, t.ip LIMIT 1))
$$;

-- Gives the gateway an address of each attached subnet, or keeps those that it has. NULL, or which subnet is full.
CREATE FUNCTION gateway.reserve_addresses(g gateway.gateway) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    s gateway.subnet;
    chosen inet;
BEGIN
    FOR s IN SELECT n.* FROM gateway.subnet n JOIN gateway.attachment a ON a.owner = n.owner AND a.subnet = n.id
             WHERE n.owner = g.owner AND n.vpc = g.vpc AND a.hypervisor = g.hypervisor AND n.range_first IS NOT NULL
               AND (n.id = g.public_subnet OR NOT n.public)
             ORDER BY n.public, n.cidr
    LOOP
        UPDATE gateway.address SET attempt = g.attempt WHERE subnet = s.id AND gateway = g.id;
        CONTINUE WHEN FOUND;
        chosen := gateway.free_address(s);
        IF chosen IS NULL THEN
            RETURN format('no free address in %s of the subnet %s', host(s.range_first) || '-' || host(s.range_last), s.cidr);
        END IF;
        INSERT INTO gateway.address (subnet, ip, public, owner, gateway, attempt)
        VALUES (s.id, chosen, s.public, g.owner, g.id, g.attempt)
        ON CONFLICT (subnet, ip) DO UPDATE
            SET owner = excluded.owner, gateway = excluded.gateway, attempt = excluded.attempt, freed = NULL;
    END LOOP;
    UPDATE gateway.gateway SET public_ip = (SELECT a.ip FROM gateway.address a WHERE a.subnet = g.public_subnet AND a.gateway = g.id)
    WHERE owner = g.owner AND id = g.id;
    RETURN CASE WHEN NOT EXISTS (SELECT FROM gateway.address a WHERE a.subnet = g.public_subnet AND a.gateway = g.id)
           THEN 'the public subnet has no gateway_range' END;
END
$$;

-- What a driver needs to know of a gateway.
CREATE FUNCTION gateway.deploy_spec(g gateway.gateway, uid_number integer) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH link AS (
        SELECT s.public, s.cidr, s.router, a.bridge, a.route_netns, host(d.ip) || '/' || masklen(s.cidr) AS address
        FROM gateway.address d
        JOIN gateway.subnet s ON s.owner = g.owner AND s.id = d.subnet
        JOIN gateway.attachment a ON a.owner = g.owner AND a.subnet = s.id AND a.hypervisor = g.hypervisor
        WHERE d.gateway = g.id
    )
    SELECT jsonb_build_object(
        'gateway', g.id, 'attempt', g.attempt, 'name', g.name, 'interface', 'wg0', 'uid_number', uid_number,
        'public', (SELECT jsonb_build_object('bridge', bridge, 'address', address, 'router', host(router)) FROM link WHERE public),
        'vpcs', (SELECT coalesce(jsonb_agg(jsonb_build_object('bridge', bridge, 'address', address, 'route_netns', route_netns) ORDER BY cidr), '[]')
                 FROM link WHERE NOT public),
        'routes', (SELECT jsonb_agg(DISTINCT r.cidr::text)
                   FROM (SELECT g.tunnel_subnet AS cidr
                         UNION ALL SELECT g.tunnel_subnet6
                         UNION ALL SELECT x.cidr FROM gateway.prefix x
                                   WHERE x.owner = g.owner AND x.gateway = g.id AND x.freed IS NULL AND NOT x.tunnel) r))
$$;

-- ---- how a job ends -------------------------------------------------------------------------------------------

CREATE FUNCTION gateway.fail_job(gateway_id uuid, reason text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO gateway.job_log (gateway, attempt, step, line)
    SELECT j.gateway, j.attempt, j.step, 'failed: ' || reason FROM gateway.job j WHERE j.gateway = gateway_id;
    UPDATE gateway.job j SET finished = true, worker = NULL, lease_until = NULL WHERE j.gateway = gateway_id;
    UPDATE gateway.gateway g SET status = 'error', error = reason
    FROM gateway.job j
    WHERE j.gateway = gateway_id AND g.owner = j.owner AND g.id = j.gateway AND g.status = 'deploying';
END
$$;

-- G6: deployments past their deadline go to `error` by themselves. Any worker and the API's clock may call it.
CREATE FUNCTION gateway.fail_overdue() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    j gateway.job;
    failed integer := 0;
BEGIN
    FOR j IN SELECT q.* FROM gateway.job q
             WHERE q.goal = 'active' AND q.deadline < now()
               AND EXISTS (SELECT FROM gateway.gateway g WHERE g.owner = q.owner AND g.id = q.gateway AND g.status = 'deploying')
             FOR UPDATE OF q SKIP LOCKED
    LOOP
        PERFORM gateway.fail_job(j.gateway, format('not active before its deadline; the last step was "%s"', j.step));
        failed := failed + 1;
    END LOOP;
    RETURN failed;
END
$$;

-- ---- what a worker calls --------------------------------------------------------------------------------------

CREATE FUNCTION gateway.register_hypervisor(hypervisor_name text, hypervisor_driver text) RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT h.id FROM gateway.hypervisor h WHERE h.name = hypervisor_name AND h.driver = hypervisor_driver
$$;

-- Binds a job without a hypervisor to this one. NULL: done; '': another hypervisor may take it; else why none can.
CREATE FUNCTION gateway.place_job(j gateway.job, g gateway.gateway, here uuid) RETURNS text
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
            UPDATE gateway.job q SET hypervisor = here, uid_number = nextval('gateway.uid_number') WHERE q.gateway = j.gateway;
            UPDATE gateway.gateway x SET hypervisor = here WHERE x.owner = g.owner AND x.id = g.id;
            RETURN NULL;
        END IF;
        possible := possible OR reason IS NULL;
        reasons := reasons || reason;
    END LOOP;
    RETURN CASE WHEN possible THEN '' ELSE coalesce(array_to_string(reasons, '; '), 'the location has no hypervisor') END;
END
$$;

CREATE FUNCTION gateway.claim_job(worker_name text, here uuid, lease interval)
RETURNS TABLE (gateway uuid, attempt integer, goal text, step text, deadline timestamptz, spec jsonb)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    j gateway.job;
    g gateway.gateway;
    reason text;
    skipped uuid[] := '{}';
BEGIN
    PERFORM gateway.fail_overdue();
    LOOP
        SELECT q.* INTO j FROM gateway.job q
        WHERE NOT q.finished AND q.not_before <= now() AND (q.lease_until IS NULL OR q.lease_until <= now())
          AND (q.hypervisor = here OR q.hypervisor IS NULL) AND q.gateway <> ALL (skipped)
        ORDER BY q.not_before, q.gateway LIMIT 1 FOR UPDATE SKIP LOCKED;
        EXIT WHEN NOT FOUND;
        SELECT x.* INTO g FROM gateway.gateway x WHERE x.owner = j.owner AND x.id = j.gateway;
        -- It never came to any host: there is nothing to take down.
        IF j.goal = 'absent' AND j.hypervisor IS NULL THEN
            PERFORM gateway.complete_delete(j.gateway);
            UPDATE gateway.job q SET finished = true WHERE q.gateway = j.gateway;
            CONTINUE;
        END IF;
        reason := NULL;
        IF j.goal = 'active' THEN
            -- Room and addresses are counted and taken by one claim at a time.
            PERFORM pg_advisory_xact_lock(hashtext('wiretoll placement'));
            IF j.hypervisor IS NULL THEN
                reason := gateway.place_job(j, g, here);
                IF reason = '' THEN
                    skipped := skipped || j.gateway;
                    CONTINUE;
                END IF;
                SELECT x.* INTO g FROM gateway.gateway x WHERE x.owner = j.owner AND x.id = j.gateway;
            END IF;
            reason := coalesce(reason, gateway.reserve_addresses(g));
        END IF;
        IF reason IS NOT NULL THEN
            PERFORM gateway.fail_job(j.gateway, reason);
            CONTINUE;
        END IF;
        UPDATE gateway.job q SET worker = worker_name, lease_until = now() + lease WHERE q.gateway = j.gateway RETURNING q.* INTO j;
        RETURN QUERY SELECT j.gateway, j.attempt, j.goal, j.step, j.deadline, gateway.deploy_spec(g, j.uid_number);
        RETURN;
    END LOOP;
END
$$;

CREATE FUNCTION gateway.renew_job(worker_name text, gateway_id uuid, job_attempt integer, lease interval) RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE gateway.job SET lease_until = now() + lease
    WHERE gateway = gateway_id AND attempt = job_attempt AND worker = worker_name AND NOT finished
    RETURNING goal
$$;

CREATE FUNCTION gateway.log_job(worker_name text, gateway_id uuid, job_attempt integer, step_name text, text_line text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE gateway.job SET step = step_name
    WHERE gateway = gateway_id AND attempt = job_attempt AND worker = worker_name AND NOT finished;
    IF FOUND THEN
        INSERT INTO gateway.job_log (gateway, attempt, step, line) VALUES (gateway_id, job_attempt, step_name, text_line);
        RETURN true;
    END IF;
    RETURN false;
END
$$;

CREATE FUNCTION gateway.set_enroll_token(worker_name text, gateway_id uuid, job_attempt integer, token_hash bytea, token_expires timestamptz)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    j gateway.job;
BEGIN
    SELECT q.* INTO j FROM gateway.job q
    WHERE q.gateway = gateway_id AND q.attempt = job_attempt AND q.worker = worker_name AND q.goal = 'active' AND NOT q.finished
    FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM gateway.token WHERE gateway = gateway_id AND kind = 'enroll' AND used IS NULL;
    INSERT INTO gateway.token (hash, kind, owner, gateway, attempt, expires)
    VALUES (token_hash, 'enroll', j.owner, gateway_id, job_attempt, token_expires);
    RETURN true;
END
$$;

-- `reached` is the goal that the worker worked towards: it may have changed since, and then nothing is finished.
CREATE FUNCTION gateway.finish_job(worker_name text, gateway_id uuid, job_attempt integer, reached text, reason text, transient boolean)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    j gateway.job;
BEGIN
    SELECT q.* INTO j FROM gateway.job q
    WHERE q.gateway = gateway_id AND q.attempt = job_attempt AND q.worker = worker_name AND NOT q.finished
    FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE gateway.job SET worker = NULL, lease_until = NULL WHERE gateway = gateway_id;
    IF j.goal <> reached THEN
        RETURN false;
    END IF;
    IF reason IS NULL AND reached = 'absent' THEN
        PERFORM gateway.complete_delete(gateway_id);
        UPDATE gateway.job SET finished = true, uid_number = NULL WHERE gateway = gateway_id;
    ELSIF reason IS NULL THEN
        UPDATE gateway.job SET finished = true WHERE gateway = gateway_id;
    ELSIF reached = 'absent' OR (transient AND j.tries < 2) THEN
        -- A deletion never gives up; a deployment has three tries.
        UPDATE gateway.job SET tries = tries + 1, not_before = now() + least(2 ^ least(tries, 5), 30) * interval '1 second'
        WHERE gateway = gateway_id;
    ELSE
        PERFORM gateway.fail_job(gateway_id, reason);
    END IF;
    RETURN true;
END
$$;

-- All that is to exist on a host; what is there besides is left over and goes.
CREATE FUNCTION gateway.assigned(here uuid) RETURNS TABLE (gateway uuid, attempt integer, goal text, status text, spec jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT g.id, g.attempt, j.goal, g.status, gateway.deploy_spec(g, j.uid_number)
    FROM gateway.job j JOIN gateway.gateway g ON g.owner = j.owner AND g.id = j.gateway
    WHERE j.hypervisor = here AND g.status <> 'deleted'
$$;

-- ---- rights ---------------------------------------------------------------------------------------------------

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA gateway FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'wiretoll_deploy') THEN
        GRANT EXECUTE ON FUNCTION gateway.register_hypervisor, gateway.claim_job, gateway.renew_job, gateway.log_job,
            gateway.set_enroll_token, gateway.finish_job, gateway.assigned TO wiretoll_deploy;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'wiretoll_api') THEN
        GRANT EXECUTE ON FUNCTION gateway.fail_overdue TO wiretoll_api;
    END IF;
END
$$;
