-- SPDX-License-Identifier: BSD-2-Clause
-- Adds intervals of states, in their order. What is known already stays; touching intervals of one state become one. A report tells of a
-- short time: where a thousand intervals of that are known, whatever else it says of it is not taken, as merging would take seconds.
CREATE OR REPLACE FUNCTION billing.merge_states(owner_id uuid, gateway_id uuid, told_states text[], told tstzrange[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known tstzmultirange;
    piece tstzmultirange;
    active tstzmultirange := '{}';
    suspended tstzmultirange := '{}';
    joined tstzmultirange;
    told_state text;
    n_known bigint;
BEGIN
    SELECT coalesce(range_agg(k.span), '{}'), count(*) INTO known, n_known
    FROM (SELECT i.span FROM billing.active_interval i
          WHERE i.owner = owner_id AND i.gateway = gateway_id
            AND i.span && (SELECT range_merge(range_agg(t.span)) FROM unnest(told) t (span)) LIMIT 1001) k;
    IF n_known > 1000 THEN
        RETURN;
    END IF;
    FOR k IN 1..cardinality(told) LOOP
        piece := tstzmultirange(told[k]) - known;
        known := known + piece;
        IF told_states[k] = 'active' THEN
            active := active + piece;
        ELSE
            suspended := suspended + piece;
        END IF;
    END LOOP;
    FOR told_state, piece IN SELECT * FROM (VALUES ('active', active), ('suspended', suspended)) v WHERE NOT isempty(v.column2) LOOP
        WITH touching AS (
            DELETE FROM billing.active_interval i USING unnest(piece) p (span)
            WHERE i.owner = owner_id AND i.gateway = gateway_id AND i.state = told_state AND i.span -|- p.span
            RETURNING i.span
        )
        SELECT piece + coalesce(range_agg(t.span), '{}') INTO joined FROM touching t;
        INSERT INTO billing.active_interval (owner, gateway, span, state) SELECT owner_id, gateway_id, j.span, told_state FROM unnest(joined) j (span);
    END LOOP;
END
$$;
