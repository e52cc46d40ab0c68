# SPDX-License-Identifier: BSD-2-Clause
"""What the catalogue must say, so that the tables can be distributed by owner and the rules stand in the database."""

import pytest

# Grow with traffic or with customers.
BY_OWNER = {
    "gateway": {"vpc", "subnet", "attachment", "gateway", "peer", "prefix", "account"},
    "billing": {"bucket", "epoch", "epoch_batch", "counter", "usage_record", "usage_hour", "overage_hour", "active_interval",
                "ledger", "action", "part_hour", "quarantine", "alarm", "reconciliation"},
}
# Small, and the same everywhere; or local to the coordinator, with nothing that refers to them.
REFERENCE = {"app_user", "location", "plan", "plan_group", "plan_group_plan", "image", "hypervisor", "rate_version", "cycle"}
LOCAL = {"token", "address", "job", "job_log", "feed", "audit", "schema_migration", "restoration"}


@pytest.fixture(scope="module")
def tables(api):
    found = api.sql("SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
                    "WHERE n.nspname IN ('gateway', 'billing') AND c.relkind IN ('r', 'p') AND NOT c.relispartition")
    return set(found)


def test_every_table_is_of_one_kind(tables):
    named = {(schema, table) for schema, names in BY_OWNER.items() for table in names}
    assert named <= tables
    assert {table for _, table in tables - named} == REFERENCE | LOCAL


def test_every_key_of_an_owners_table_has_the_owner(api):
    for schema, names in BY_OWNER.items():
        for table in names:
            keys = api.sql("""
                SELECT i.relname, array_agg(a.attname::text) FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
                JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = ANY (x.indkey)
                WHERE x.indrelid = %s::regclass AND (x.indisunique OR x.indisexclusion) GROUP BY 1""", f"{schema}.{table}")
            assert keys, f"{schema}.{table} has no key"
            for name, columns in keys:
                assert "owner" in columns, f"{schema}.{table}: {name} is on {columns}"


def test_every_key_of_what_grows_with_traffic_has_the_gateway(api):
    for table in ("epoch", "epoch_batch", "counter", "usage_record", "usage_hour", "overage_hour", "part_hour", "active_interval", "ledger",
                  "quarantine", "alarm", "reconciliation"):
        keys = api.sql("""
            SELECT i.relname, array_agg(a.attname::text) FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
            JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = ANY (x.indkey)
            WHERE x.indrelid = %s::regclass AND (x.indisunique OR x.indisexclusion) GROUP BY 1""", f"billing.{table}")
        assert keys and all({"owner", "gateway"} <= set(columns) for _, columns in keys), (table, keys)


def test_every_foreign_key_has_the_owner_or_refers_to_a_reference_table(api):
    keys = api.sql("""
        SELECT c.conname, t.relname, r.relname,
               ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attnum = ANY (c.conkey))
        FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid JOIN pg_class r ON r.oid = c.confrelid
        WHERE c.contype = 'f' AND t.relnamespace IN ('gateway'::regnamespace, 'billing'::regnamespace)""")
    owned = set().union(*BY_OWNER.values())
    assert len(keys) > 15
    for name, table, referred, columns in keys:
        assert referred not in LOCAL, f"{name}: {table} refers to the local table {referred}"
        if referred in owned:
            assert "owner" in columns, f"{name}: {table} refers to {referred} without the owner"


def test_there_are_no_triggers(api):
    assert api.sql("""SELECT tgname FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid WHERE NOT g.tgisinternal
                      AND c.relnamespace IN ('gateway'::regnamespace, 'billing'::regnamespace)""") == []


def test_money_is_exact(api):
    columns = api.sql("""SELECT table_name || '.' || column_name, data_type, numeric_precision, numeric_scale
                         FROM information_schema.columns WHERE table_schema IN ('gateway', 'billing')""")
    kinds = {name: (kind, precision, scale) for name, kind, precision, scale in columns}
    assert not [name for name, (kind, _, _) in kinds.items() if kind in ("real", "double precision", "money")]
    assert kinds["ledger.amount"] == ("numeric", 38, 18)
    for name in ("plan.included_gb", "plan.credit_value", "rate_version.credit_value", "rate_version.bandwidth_rate", "ledger.rate"):
        assert kinds[name] == ("numeric", 20, 9)


def test_the_rules_stand_in_the_database(api):
    defined = {name: text for name, text in api.sql("""
        SELECT c.relname, pg_get_indexdef(c.oid) FROM pg_class c WHERE c.relkind = 'i'
        AND c.relnamespace IN ('gateway'::regnamespace, 'billing'::regnamespace)""")}
    assert "UNIQUE INDEX" in defined["gateway_one_per_vpc"] and "(owner, vpc)" in defined["gateway_one_per_vpc"]  # G2
    assert "(owner, gateway, kind, utc_hour, part)" in defined["ledger_owner_gateway_kind_utc_hour_part_key"]  # one line per hour
    assert "gist (owner, gateway, cidr" in defined["prefix_owned_once"]  # P7


def test_every_function_has_its_search_path_pinned(api):
    loose = api.sql("""SELECT p.proname FROM pg_proc p WHERE p.prokind <> 'a' AND p.pronamespace IN ('gateway'::regnamespace, 'billing'::regnamespace)
                       AND p.prosqlbody IS NULL -- whose names were resolved when it was made
                       AND NOT EXISTS (SELECT FROM unnest(p.proconfig) c WHERE c LIKE 'search_path=%%')""")
    assert loose == []


def test_the_workers_role_reads_no_table(api):
    rights = api.sql("""SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                        WHERE n.nspname IN ('gateway', 'billing') AND c.relkind IN ('r', 'p', 'S', 'v')
                        AND (CASE WHEN c.relkind = 'S' THEN has_sequence_privilege('wiretoll_deploy', c.oid, 'USAGE')
                             ELSE has_table_privilege('wiretoll_deploy', c.oid, 'SELECT, INSERT, UPDATE, DELETE') END)""")
    assert rights == []


def test_the_apis_role_owns_nothing(api):
    assert api.sql("""SELECT c.relname FROM pg_class c WHERE pg_get_userbyid(c.relowner) IN ('wiretoll_api', 'wiretoll_deploy')
                      AND c.relnamespace IN ('gateway'::regnamespace, 'billing'::regnamespace)""") == []
    assert api.sql("SELECT has_schema_privilege('wiretoll_api', 'gateway', 'CREATE')") == [(False,)]


def test_the_apis_role_deletes_only_what_it_keeps_for_a_while(api):
    """What was counted, settled and billed stays, whoever has broken into the API."""
    rights = api.sql("""SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'billing'::regnamespace AND c.relkind IN ('r', 'p')
                        AND has_table_privilege('wiretoll_api', c.oid, 'DELETE, TRUNCATE')""")
    assert {table for table, in rights} == {"active_interval", "epoch_batch", "part_hour"}
