-- SPDX-License-Identifier: BSD-2-Clause
-- A database that is brought back is of the past, and has given out numbers since that it does not know of. What restoring sets beyond them.

ALTER TABLE billing.feed DROP CONSTRAINT feed_type_check, ADD CHECK (type IN ('ledger', 'action', 'restored'));

-- To be called once after each restore, before anything is served. The number of a restoration is the time in seconds, so that two from one
-- backup differ. Generations, revisions and grants go on from it: greater than any that was given out. The feed goes on from
-- number · 10^8, behind an item which says that what its readers have had behind `feed_before` is void. Who was signed in signs in again:
-- a token revoked since the backup would be valid again, a one-time token could be traded twice. Agents keep theirs.
CREATE FUNCTION billing.note_restored() RETURNS billing.restoration
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    made billing.restoration;
    first_id bigint;
BEGIN
    PERFORM billing.grant_temporary();
    INSERT INTO billing.restoration (number, taken, feed_before)
    SELECT greatest(billing.restored() + 1, extract(epoch FROM clock_timestamp())::bigint),
           coalesce((SELECT max(g.last_report) FROM gateway.gateway g), now()), coalesce((SELECT max(f.id) FROM billing.feed f), 0)
    RETURNING * INTO made;
    DELETE FROM gateway.token WHERE kind <> 'agent';
    UPDATE gateway.token SET generation = made.number;
    UPDATE gateway.gateway SET generation = made.number, revision = made.number;
    UPDATE billing.bucket SET grant_seq = made.number WHERE holder IS NOT NULL;
    first_id := made.number * 100000000;
    INSERT INTO billing.feed (id, owner, type, line) OVERRIDING SYSTEM VALUE
    VALUES (first_id, '00000000-0000-0000-0000-000000000000', 'restored', gen_random_uuid());
    PERFORM setval(pg_get_serial_sequence('billing.feed', 'id'), first_id);
    INSERT INTO gateway.audit (action, object, detail)
    VALUES ('restore', 'database', jsonb_build_object('number', made.number, 'taken', billing.rfc3339(made.taken)));
    RETURN made;
END
$$;

-- B7: the feed behind an id, as {"items", "next"}.
CREATE FUNCTION billing.feed_page(after bigint, page_size integer) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH page AS (
        SELECT f.* FROM billing.feed f WHERE f.id > after ORDER BY f.id LIMIT page_size
    )
    SELECT jsonb_build_object(
        'next', CASE WHEN EXISTS (SELECT FROM billing.feed f WHERE f.id > max(p.id)) THEN max(p.id)::text END,
        'items', coalesce(jsonb_agg(jsonb_build_object('id', p.id::text, 'type', p.type, 'owner', p.owner) || CASE p.type
            WHEN 'ledger' THEN jsonb_build_object(
                'line', l.id, 'gateway', l.gateway, 'kind', l.kind, 'adjusts', l.adjusts, 'hour', billing.rfc3339(l.utc_hour), 'part', l.part,
                'from', billing.rfc3339(lower(l.span)), 'to', billing.rfc3339(upper(l.span)), 'cycle', l.cycle, 'bucket', l.bucket,
                'bytes', l.bytes::text, 'rate', trim_scale(l.rate)::text, 'rate_version', l.rate_version, 'hour_index', l.hour_index,
                'month_hours', l.month_hours, 'amount', trim_scale(l.amount)::text, 'created', billing.rfc3339(l.created))
            WHEN 'restored' THEN jsonb_build_object('number', r.number, 'void_after', r.feed_before::text, 'taken', billing.rfc3339(r.taken))
            ELSE jsonb_build_object(
                'action', a.id, 'gateway', a.gateway, 'bucket', a.bucket, 'kind', a.kind, 'key', a.key, 'detail', a.detail,
                'created', billing.rfc3339(a.created)) END ORDER BY p.id), '[]'))
    FROM page p
    LEFT JOIN billing.ledger l ON p.type = 'ledger' AND l.owner = p.owner AND l.id = p.line
    LEFT JOIN billing.action a ON p.type = 'action' AND a.owner = p.owner AND a.id = p.line
    LEFT JOIN billing.restoration r ON p.type = 'restored' AND r.number = p.id / 100000000
$$;

REVOKE EXECUTE ON FUNCTION billing.restored, billing.note_restored, billing.feed_page FROM PUBLIC;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'wiretoll_api') THEN
        GRANT EXECUTE ON FUNCTION billing.restored, billing.feed_page TO wiretoll_api;
    END IF;
END
$$;
