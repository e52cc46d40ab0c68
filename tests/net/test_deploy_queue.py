# SPDX-License-Identifier: BSD-2-Clause
"""The queue's functions: placing, addresses, leases, ends, and that the worker's role has nothing else."""

import threading

import psycopg2
import pytest

from deploy_lab import Database, Inventory


@pytest.fixture(scope="module")
def database():
    database = Database("/run/lab-db")
    yield database
    database.stop("immediate")


@pytest.fixture
def inventory(database, request):
    yield Inventory(database, hypervisor=request.node.name[:60])
    database.query("DELETE FROM gateway.job")
    database.query("UPDATE gateway.gateway SET status = 'deleted', deleted = now(), hypervisor = NULL WHERE status <> 'deleted'")
    database.query("DELETE FROM gateway.address")


def claim(inventory, worker="w1", hypervisor=None, lease="30 seconds"):
    rows = inventory.db.query("SELECT gateway, attempt, goal, spec FROM gateway.claim_job(%s, %s, %s)", worker,
                              hypervisor or inventory.hypervisor, lease, role="wiretoll_deploy")
    return dict(zip(("gateway", "attempt", "goal", "spec"), rows[0])) if rows else None


def call(inventory, function, *values):
    marks = ", ".join(["%s"] * len(values))
    return inventory.db.value(f"SELECT gateway.{function}({marks})", *values, role="wiretoll_deploy")


def test_role_sees_functions_only(database):
    connection = database.connect("wiretoll_deploy")
    cursor = connection.cursor()
    cursor.execute("SELECT p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace "
                   "WHERE n.nspname IN ('gateway', 'billing') AND has_function_privilege(p.oid, 'execute')")
    assert sorted(row[0] for row in cursor.fetchall()) == [
        "assigned", "claim_job", "finish_job", "log_job", "note_routes", "register_hypervisor", "renew_job", "set_enroll_token"]
    cursor.execute("SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
                   "WHERE n.nspname IN ('gateway', 'billing') AND c.relkind IN ('r', 'p', 'v', 'S') "
                   "AND has_table_privilege(c.oid, 'select, insert, update, delete')")
    assert cursor.fetchall() == []
    for table in ("gateway.gateway", "gateway.token", "gateway.job", "billing.ledger"):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute(f"SELECT * FROM {table}")


def test_functions_pin_their_search_path(database):
    loose = database.query("SELECT proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'gateway' "
                           "AND prosecdef AND NOT coalesce(array_to_string(proconfig, ','), '') LIKE '%%search_path=%%'")
    assert loose == []


def test_claim_tells_the_driver_everything(inventory):
    gateway = inventory.gateway("gw")
    job = claim(inventory)
    assert (job["gateway"], job["attempt"], job["goal"]) == (gateway, 1, "active")
    spec = job["spec"]
    assert spec["public"] == {"bridge": "public", "address": "198.51.100.10/24", "router": "198.51.100.1"}
    assert spec["vpcs"] == [{"bridge": "vpc1", "address": "10.1.0.2/24", "route_netns": ["i1"]}]
    assert sorted(spec["routes"]) == ["10.99.0.0/24", "fd12::/64"]
    assert spec["uid_number"] > 0 and spec["interface"] == "wg0"
    assert claim(inventory) is None, "one claim a job"


def test_two_workers_never_get_one_job(inventory):
    gateways = {inventory.gateway(f"gw{n}", private=f"10.{n}.0.0/24", first=f"10.{n}.0.2", last=f"10.{n}.0.9") for n in range(1, 13)}
    claimed, lock = [], threading.Lock()

    def work(name):
        while job := claim(inventory, name):
            with lock:
                claimed.append((job["gateway"], job["spec"]["public"]["address"], job["spec"]["uid_number"]))

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == 12 and {c[0] for c in claimed} == gateways
    assert len({c[1] for c in claimed}) == 12 and len({c[2] for c in claimed}) == 12, "addresses and uids of their own"


def test_lease_that_ran_out_is_another_workers(inventory):
    gateway = inventory.gateway("gw")
    first = claim(inventory, "w1", lease="0 seconds")
    second = claim(inventory, "w2")
    assert second["gateway"] == gateway and second["attempt"] == first["attempt"]
    assert second["spec"] == first["spec"], "the same addresses"
    assert call(inventory, "renew_job", "w1", gateway, 1, "30 seconds") is None
    assert call(inventory, "log_job", "w1", gateway, 1, "step", "line") is False
    assert call(inventory, "finish_job", "w1", gateway, 1, "active", None, False) is False
    assert call(inventory, "renew_job", "w2", gateway, 1, "30 seconds") == "active"


def test_an_old_attempt_commits_nothing(inventory):
    gateway = inventory.gateway("gw")
    claim(inventory)
    inventory.retry(gateway)
    assert call(inventory, "renew_job", "w1", gateway, 1, "30 seconds") is None
    assert call(inventory, "set_enroll_token", "w1", gateway, 1, b"h" * 32, "2100-01-01") is False
    assert call(inventory, "finish_job", "w1", gateway, 1, "active", None, False) is False
    assert claim(inventory)["attempt"] == 2


def test_goal_that_changed_is_not_reached(inventory):
    gateway = inventory.gateway("gw")
    claim(inventory)
    inventory.delete(gateway)
    assert call(inventory, "renew_job", "w1", gateway, 1, "30 seconds") == "absent"
    assert call(inventory, "finish_job", "w1", gateway, 1, "active", None, False) is False
    assert inventory.status(gateway)[0] == "deleting"
    assert claim(inventory)["goal"] == "absent", "claimable at once"
    assert call(inventory, "finish_job", "w1", gateway, 1, "absent", None, False) is True
    assert inventory.status(gateway)[0] == "deleted"


def test_delete_before_any_host_needs_none(inventory):
    gateway = inventory.gateway("gw")
    inventory.delete(gateway)
    assert claim(inventory) is None
    assert inventory.status(gateway)[0] == "deleted" and inventory.job(gateway)["finished"]


def test_transient_failures_have_three_tries(inventory):
    gateway = inventory.gateway("gw")
    for tries in (1, 2):
        assert claim(inventory)["gateway"] == gateway
        before = inventory.db.value("SELECT now()")
        call(inventory, "finish_job", "w1", gateway, 1, "active", "no luck", True)
        assert inventory.job(gateway)["tries"] == tries and inventory.status(gateway) == ("deploying", None)
        # Longer than the pause itself, which may be over before this asks.
        paused = inventory.db.value("UPDATE gateway.job SET not_before = not_before + interval '1 minute' "
                                    "RETURNING extract(epoch FROM not_before - %s - interval '1 minute')", before)
        assert tries <= paused, "a pause, and then a longer one"
        assert claim(inventory) is None, "not before a pause"
        inventory.db.query("UPDATE gateway.job SET not_before = now()")
    claim(inventory)
    call(inventory, "finish_job", "w1", gateway, 1, "active", "no luck", True)
    assert inventory.status(gateway) == ("error", "no luck")


def test_permanent_failure_is_final(inventory):
    gateway = inventory.gateway("gw")
    claim(inventory)
    call(inventory, "finish_job", "w1", gateway, 1, "active", "no bridge", False)
    assert inventory.status(gateway) == ("error", "no bridge") and inventory.job(gateway)["finished"]


def test_deletion_never_gives_up(inventory):
    gateway = inventory.gateway("gw")
    claim(inventory)
    call(inventory, "finish_job", "w1", gateway, 1, "active", None, False)
    inventory.delete(gateway)
    for _ in range(5):
        inventory.db.query("UPDATE gateway.job SET not_before = now()")
        assert claim(inventory)["goal"] == "absent"
        call(inventory, "finish_job", "w1", gateway, 1, "absent", "busy", False)
    assert inventory.status(gateway)[0] == "deleting"


def test_deadline(inventory):
    gateway = inventory.gateway("gw", deadline="-1 second")
    assert claim(inventory) is None
    status, error = inventory.status(gateway)
    assert status == "error" and "deadline" in error and "queued" in error


def test_no_capacity_says_what_is_missing(database):
    inventory = Inventory(database, hypervisor="narrow", cpu=1)
    first = inventory.gateway("gw1")
    assert claim(inventory)["gateway"] == first
    second = inventory.gateway("gw2", private="10.2.0.0/24", first="10.2.0.2", last="10.2.0.9")
    assert claim(inventory) is None
    status, error = inventory.status(second)
    assert status == "error" and error == "no capacity: narrow has 0 of 1 CPUs free, the plan needs 1"
    database.query("DELETE FROM gateway.job")


def test_not_attached_says_where(inventory):
    gateway = inventory.gateway("gw")
    inventory.db.query("DELETE FROM gateway.attachment WHERE hypervisor = %s", inventory.hypervisor)
    assert claim(inventory) is None
    assert "public subnet is not attached" in inventory.status(gateway)[1]


def test_addresses_are_used_up_and_rest(inventory):
    narrow = {"public_first": "198.51.100.1", "public_last": "198.51.100.2"}
    first = inventory.gateway("gw1", **narrow)
    assert claim(inventory)["spec"]["public"]["address"] == "198.51.100.2/24", ".1 is the router's"
    second = inventory.gateway("gw2", private="10.2.0.0/24", first="10.2.0.2", last="10.2.0.9", **narrow)
    assert claim(inventory) is None
    status, error = inventory.status(second)
    assert status == "error" and "no free address in 198.51.100.1-198.51.100.2 of the subnet 198.51.100.0/24" in error

    inventory.db.query("UPDATE gateway.address SET gateway = NULL, freed = now() - interval '9 minutes' WHERE gateway = %s", first)
    inventory.retry(second)
    assert claim(inventory) is None, "it rests ten minutes"
    inventory.db.query("UPDATE gateway.address SET freed = now() - interval '11 minutes' WHERE gateway IS NULL")
    inventory.retry(second)
    assert claim(inventory)["spec"]["public"]["address"] == "198.51.100.2/24"


def test_longest_free_first(inventory):
    narrow = {"public_first": "198.51.100.40", "public_last": "198.51.100.42"}
    _, subnet = inventory.vpc(**narrow)
    for last, minutes in ((40, 20), (41, 40), (42, 30)):
        inventory.db.query("INSERT INTO gateway.address (subnet, ip, public, freed) VALUES (%s, %s, true, now() - %s::interval)",
                           subnet, f"198.51.100.{last}", f"{minutes} minutes")
    inventory.gateway("gw", private="10.9.0.0/24", first="10.9.0.2", last="10.9.0.9", **narrow)
    assert claim(inventory)["spec"]["public"]["address"] == "198.51.100.41/24"


def test_wide_ranges_are_not_listed(inventory):
    inventory.gateway("gw", private="fd00:1::/64", first="fd00:1::2", last="fd00:1::ffff:ffff")
    assert claim(inventory)["spec"]["vpcs"][0]["address"] == "fd00:1::2/64"


def test_a_new_token_replaces_the_unused(inventory):
    gateway = inventory.gateway("gw")
    claim(inventory)
    for letter in (b"a", b"b"):
        assert call(inventory, "set_enroll_token", "w1", gateway, 1, letter * 32, "2100-01-01") is True
    tokens = inventory.db.query("SELECT hash, kind, attempt FROM gateway.token WHERE gateway = %s", gateway)
    assert [(bytes(h), k, a) for h, k, a in tokens] == [(b"b" * 32, "enroll", 1)]


def test_register_wants_name_and_driver(inventory):
    name = inventory.db.value("SELECT name FROM gateway.hypervisor WHERE id = %s", inventory.hypervisor)
    assert call(inventory, "register_hypervisor", name, "netns") == inventory.hypervisor
    assert call(inventory, "register_hypervisor", name, "libvirt") is None
    assert call(inventory, "register_hypervisor", "nobody", "netns") is None
