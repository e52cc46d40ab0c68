# SPDX-License-Identifier: BSD-2-Clause
"""Gateways: G1 to G9 as far as the API goes, limits and races included."""

import concurrent.futures
import contextlib
import ipaddress
import random

import pytest

from billing_model import wait
from world import public_key


def test_choices_of_one_are_made_by_themselves(api, world):
    user, location = world.user(), world.location()
    vpc = world.vpc(user, location)
    gateway = world.call("POST", "/v1/gateways", {}, user["token"], 201)
    assert gateway["vpc"] == vpc["id"] and gateway["name"] == vpc["name"]
    assert gateway["tunnel_subnet"] == "10.99.0.0/24" and gateway["listen_port"] == 51820
    ula = ipaddress.ip_network(gateway["tunnel_subnet6"])
    assert ula.prefixlen == 64 and ula.subnet_of(ipaddress.ip_network("fd00::/8"))
    assert gateway["status"] == "deploying" and gateway["attempt"] == 1 and gateway["public_key"] is None
    assert gateway["masquerade_into_vpc"] == "road_warriors" and gateway["suspended_reasons"] == []
    assert gateway["bandwidth"]["used_bytes"] == "0" and gateway["bandwidth"]["allowance_bytes"] == "10000000000"
    assert [r["destination"] for r in gateway["routes"]] == ["10.99.0.0/24", gateway["tunnel_subnet6"]]
    assert api.sql("SELECT attempt, goal, finished FROM gateway.job WHERE gateway = %s", gateway["id"]) == [(1, "active", False)]
    assert api.sql("SELECT count(*) FROM billing.bucket WHERE holder = %s", gateway["id"]) == [(1,)]


def test_two_generated_ulas_differ(world):
    first, second = world.gateway(), world.gateway()
    assert first["tunnel_subnet6"] != second["tunnel_subnet6"]


def test_several_choices_have_to_be_made(world):
    user, plans = world.user(), [world.plan(), world.plan()]
    location = world.location(*plans)
    vpcs = [world.vpc(user, location), world.vpc(user, location)]
    world.refused("POST", "/v1/gateways", {}, user["token"], field="vpc", says=["vpc is required", vpcs[0]["name"], vpcs[1]["name"]])
    world.refused("POST", "/v1/gateways", {"vpc": vpcs[0]["name"]}, user["token"], field="plan",
                  says=["plan is required", plans[0]["name"], plans[1]["name"]])
    gateway = world.call("POST", "/v1/gateways", {"vpc": vpcs[0]["name"], "plan": plans[1]["name"]}, user["token"], 201)
    assert gateway["plan"] == plans[1]["id"] and gateway["plan_name"] == plans[1]["name"]


def test_no_vpcs_available_and_why(world):
    user = world.user()
    world.refused("POST", "/v1/gateways", {}, user["token"], says=["No VPCs available", "no VPC"])
    off = world.location(vpn_enabled=False)
    vpc = world.vpc(user, off)
    world.refused("POST", "/v1/gateways", {}, user["token"], says=["No VPCs available", "VPN gateways on"])
    world.refused("POST", "/v1/gateways", {"vpc": vpc["id"]}, user["token"], field="vpc", says=[vpc["name"], off["name"], "off"])
    world.call("PATCH", f"/v1/locations/{off['id']}", {"vpn_enabled": True})
    world.call("POST", "/v1/gateways", {}, user["token"], 201)
    world.refused("POST", "/v1/gateways", {}, user["token"], says=["No VPCs available", "already"])


@pytest.mark.parametrize("field, value, accepted", [
    ("vpc", "nowhere", "VPC"),
    ("plan", "huge", "accepted are: plan-"),
    ("public_subnet", "203.0.113.0/24", "accepted are: 198."),
    ("name", "no spaces", "a-z"),
    ("name", "", "1 to 63"),
    ("tunnel_subnet", "10.99.0.1/24", "IPv4 network of length 16 to 30"),
    ("tunnel_subnet", "10.99.0.0/8", "IPv4 network of length 16 to 30"),
    ("tunnel_subnet", "10.99.0.0/33", "IPv4 network of length 16 to 30"),
    ("tunnel_subnet", "fd00::/64", "IPv4 network of length 16 to 30"),
    ("tunnel_subnet", "ten", "IPv4 network of length 16 to 30"),
    ("tunnel_subnet6", "10.99.0.0/24", "IPv6 network of length 48 to 120"),
    ("tunnel_subnet6", "fd00::1/64", "IPv6 network of length 48 to 120"),
    ("listen_port", 0, "from 1 to 65535"),
    ("listen_port", 65536, "from 1 to 65535"),
    ("listen_port", "51820", "an integer"),
    ("masquerade_into_vpc", "some", "road_warriors, all, none"),
    ("tunel_subnet", "10.99.0.0/24", "accepted are: vpc, plan, name"),
])
def test_bad_input_names_field_value_and_what_is_accepted(world, field, value, accepted):
    user = world.user()
    vpc = world.vpc(user, world.location())
    says = [field, accepted] if value == "" or field == "tunel_subnet" else [field, str(value), accepted]
    world.refused("POST", "/v1/gateways", {"vpc": vpc["id"], field: value}, user["token"], field=field, says=says)


def test_an_unknown_plan_is_one_of_another_location_too(world):
    user, foreign = world.user(), world.plan()
    vpc = world.vpc(user, world.location())
    world.refused("POST", "/v1/gateways", {"vpc": vpc["id"], "plan": foreign["name"]}, user["token"], field="plan",
                  says=foreign["name"])


def test_second_gateway_of_a_vpc(world):
    gateway = world.gateway()
    world.refused("POST", "/v1/gateways", {"vpc": gateway["vpc"]}, gateway["user"]["token"], 409, field="vpc",
                  says="This VPC already has a VPN gateway")


def test_requests_at_once_make_one_gateway_of_a_vpc(api, world):
    user = world.user()
    vpc = world.vpc(user, world.location())
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: api.request("POST", "/v1/gateways", {"vpc": vpc["id"]}, user["token"]), range(20)))
    assert sorted(status for status, _ in answers) == [201] + 19 * [409]
    assert all("This VPC already has a VPN gateway" in a["detail"] for status, a in answers if status == 409)
    assert api.sql("SELECT gateways FROM gateway.account WHERE owner = %s", user["id"]) == [(1,)]


def test_the_sixth_gateway_also_when_twenty_requests_come_at_once(api, world):
    user, location = world.user(), world.location()
    vpcs = [world.vpc(user, location) for _ in range(20)]
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda v: api.request("POST", "/v1/gateways", {"vpc": v["id"]}, user["token"]), vpcs))
    assert sorted(status for status, _ in answers) == 5 * [201] + 15 * [422]
    for status, answer in answers:
        if status == 422:
            assert answer["field"] == "max_gateways"
            assert user["name"] in answer["detail"] and "is 5 and 5 gateways exist" in answer["detail"]
    assert api.sql("SELECT count(*) FROM gateway.gateway WHERE owner = %s", user["id"]) == [(5,)]
    assert api.sql("SELECT gateways FROM gateway.account WHERE owner = %s", user["id"]) == [(5,)]
    # Lowering the limit is always allowed, and stops new gateways only; 0 is no limit.
    world.call("PATCH", f"/v1/users/{user['id']}", {"max_gateways": 1})
    free = [v for v, (status, _) in zip(vpcs, answers) if status == 422]
    world.refused("POST", "/v1/gateways", {"vpc": free[0]["id"]}, user["token"], says="is 1 and 5 gateways exist")
    world.call("PATCH", f"/v1/users/{user['id']}", {"max_gateways": 0})
    world.call("POST", "/v1/gateways", {"vpc": free[0]["id"]}, user["token"], 201)


def test_no_free_address(api, world):
    user, location = world.user(), world.location()
    subnets = world.subnets(addresses=1)
    first, second = (world.vpc(user, location, subnets=subnets) for _ in range(2))
    world.call("POST", "/v1/gateways", {"vpc": first["id"]}, user["token"], 201)
    public = subnets[1]["cidr"]
    world.refused("POST", "/v1/gateways", {"vpc": second["id"]}, user["token"], 409, field="public_subnet",
                  says=[public, "no free address", subnets[1]["gateway_range"]])
    assert api.sql("SELECT count(*) FROM gateway.gateway WHERE vpc = %s", second["id"]) == [(0,)]
    # An address rests for ten minutes after use.
    address = subnets[1]["gateway_range"].split("-")[0]
    api.sql("UPDATE gateway.gateway SET status = 'deleted', deleted = now() WHERE vpc = %s", first["id"])
    api.sql("UPDATE gateway.address SET owner = NULL, gateway = NULL, attempt = NULL, freed = now() - interval '9 minutes' "
            "WHERE subnet = %s AND ip = %s", first["subnets"][1]["id"], address)
    world.refused("POST", "/v1/gateways", {"vpc": second["id"]}, user["token"], 409, says="no free address")
    api.sql("UPDATE gateway.address SET freed = now() - interval '11 minutes' WHERE ip = %s", address)
    world.call("POST", "/v1/gateways", {"vpc": second["id"]}, user["token"], 201)


def test_l4_parallel_users_get_the_last_addresses(api, world):
    """Of 30 users at once for 13 addresses, 13 get one, and nobody has to try again."""
    location, subnets = world.location(), world.subnets(addresses=13)
    users = [world.user() for _ in range(30)]
    vpcs = [world.vpc(user, location, subnets=subnets) for user in users]
    with concurrent.futures.ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda pair: api.request("POST", "/v1/gateways", {"vpc": pair[1]["id"]}, pair[0]["token"]), zip(users, vpcs)))
    assert sorted(status for status, _ in answers) == 13 * [201] + 17 * [409]
    assert all("no free address" in answer["detail"] for status, answer in answers if status == 409)
    taken = api.sql("SELECT count(DISTINCT a.ip), count(*) FROM gateway.address a WHERE a.gateway = ANY (%s::uuid[])",
                    [answer["id"] for status, answer in answers if status == 201])
    assert taken == [(13, 13)]
    refused = [vpc["id"] for vpc, (status, _) in zip(vpcs, answers) if status == 409]
    assert api.sql("SELECT count(*) FROM gateway.gateway WHERE vpc = ANY (%s::uuid[])", refused) == [(0,)]


def test_s3g_a_failed_gateway_of_one_tenant_blocks_no_other(api, world):
    """Two tenants have ranges of their own in the same public network: the one's gateways take nothing of the other's range."""
    location, public = world.location(), world.subnets(addresses=1)
    cidr, base = public[1]["cidr"], public[1]["cidr"].rsplit(".", 1)[0]
    vpcs = {}
    for number, tenant in ((10, world.user()), (11, world.user())):
        mine = [public[0], {**public[1], "gateway_range": f"{base}.{number}-{base}.{number}"}]
        vpcs[number] = tenant, [world.vpc(tenant, location, subnets=mine) for _ in range(2)]
    first, (failed, again) = vpcs[10]
    gateway = world.call("POST", "/v1/gateways", {"vpc": failed["id"]}, first["token"], 201)
    api.sql("SELECT gateway.fail_job(%s, 'no capacity')", gateway["id"])
    world.refused("POST", "/v1/gateways", {"vpc": again["id"]}, first["token"], 409, says=[cidr, "no free address"])
    second, (other, more) = vpcs[11]
    world.call("POST", "/v1/gateways", {"vpc": other["id"]}, second["token"], 201)
    world.refused("POST", "/v1/gateways", {"vpc": more["id"]}, second["token"], 409, says=[cidr, "no free address"])


def test_a_vpc_without_public_range(world):
    user = world.user()
    vpc = world.vpc(user, world.location(), subnets=world.subnets()[:1])
    world.refused("POST", "/v1/gateways", {"vpc": vpc["id"]}, user["token"], field="public_subnet", says=[vpc["name"], "gateway_range"])


def test_no_enabled_image(api, world):
    user = world.user()
    image = world.image(enabled=False)
    vpc = world.vpc(user, world.location(image=image["id"]))
    world.refused("POST", "/v1/gateways", {"vpc": vpc["id"]}, user["token"], says=["no enabled image", "vpn_gateway"])
    world.call("PATCH", f"/v1/images/{image['id']}", {"enabled": True})
    world.call("POST", "/v1/gateways", {"vpc": vpc["id"]}, user["token"], 201)


def test_tunnel_subnet_over_the_vpc(world):
    user = world.user()
    vpc = world.vpc(user, world.location(), subnets=world.subnets("10.99.0.0/16"))
    world.refused("POST", "/v1/gateways", {"vpc": vpc["id"]}, user["token"], 409, field="tunnel_subnet",
                  says=["10.99.0.0/24", "10.99.0.0/16", vpc["name"]])


def test_an_admin_creates_one_for_the_vpcs_owner(world):
    user = world.user(max_gateways=1)
    vpcs = [world.vpc(user, world.location()) for _ in range(2)]
    assert world.call("POST", "/v1/gateways", {"vpc": vpcs[0]["id"]}, status=201)["owner"] == user["id"]
    world.refused("POST", "/v1/gateways", {"vpc": vpcs[1]["id"]}, field="max_gateways", says=[user["name"], "is 1 and 1"])
    world.refused("POST", "/v1/gateways", {}, field="vpc", says="vpc is required")


def test_a_name_that_several_owners_use_is_not_guessed(world):
    first, second, location = world.user(), world.user(), world.location()
    name = world.name("vpc")
    for owner in (first, second):
        world.gateway(owner, vpc=world.vpc(owner, location, name=name)["id"], name=name)
    world.refused("GET", f"/v1/gateways/{name}", status=409, says=[name, "use its id"])
    assert world.call("GET", f"/v1/gateways/{name}", token=second["token"])["owner"] == second["id"]


def test_gateways_are_their_owners_only(world):
    gateway, other = world.gateway(), world.user()
    for path in (gateway["id"], gateway["name"]):
        world.refused("GET", f"/v1/gateways/{path}", token=other["token"], status=404)
        world.refused("DELETE", f"/v1/gateways/{path}", token=other["token"], status=404)
        assert world.call("GET", f"/v1/gateways/{path}", token=gateway["user"]["token"])["id"] == gateway["id"]
    assert world.call("GET", "/v1/gateways", token=other["token"])["items"] == []
    world.refused("POST", "/v1/gateways", {"vpc": gateway["vpc"]}, other["token"], field="vpc")


def test_search_and_status(world):
    user = world.user(email="someone@example.org")
    gateway = world.gateway(user)
    for text in (gateway["name"].upper(), gateway["vpc_name"], user["name"], "someone@EXAMPLE"):
        found = world.call("GET", f"/v1/gateways?search={text}")["items"]
        assert gateway["id"] in [g["id"] for g in found]
    assert world.call("GET", "/v1/gateways?search=nothing-like-it")["items"] == []
    assert gateway["id"] in [g["id"] for g in world.call("GET", "/v1/gateways?status=deploying&limit=200")["items"]]
    assert gateway["id"] not in [g["id"] for g in world.call("GET", "/v1/gateways?status=active&limit=200")["items"]]
    world.refused("GET", "/v1/gateways?status=gone", says=["gone", "deploying, active"], field="status")


def test_change(api, world):
    gateway = world.gateway()
    token = gateway["user"]["token"]
    changed = world.call("PATCH", f"/v1/gateways/{gateway['id']}", {"name": "renamed", "masquerade_into_vpc": "none"}, token)
    assert changed["name"] == "renamed" and changed["masquerade_into_vpc"] == "none"
    assert changed["revision"] == gateway["revision"] + 1
    other = world.gateway(gateway["user"])
    world.refused("PATCH", f"/v1/gateways/{other['id']}", {"name": "renamed"}, token, 409, says=["renamed", "taken"], field="name")
    world.refused("PATCH", f"/v1/gateways/{gateway['id']}", {"listen_port": 1}, token, says="listen_port")


def test_suspension_is_the_admins(world):
    gateway = world.gateway()
    world.deployed(gateway)
    path = f"/v1/gateways/{gateway['id']}"
    world.refused("PATCH", path, {"suspended": True}, gateway["user"]["token"], 403, says="admin")
    suspended = world.call("PATCH", path, {"suspended": True})
    assert suspended["status"] == "suspended" and suspended["suspended_reasons"] == ["admin"]
    world.api.sql("UPDATE gateway.gateway SET suspended_reasons = '{admin,allowance}' WHERE id = %s", gateway["id"])
    assert world.call("PATCH", path, {"suspended": False})["suspended_reasons"] == ["allowance"]


def test_extra(api, world):
    gateway = world.gateway()
    path = f"/v1/gateways/{gateway['id']}/extra"
    before = api.sql("SELECT grant_seq FROM billing.bucket WHERE holder = %s", gateway["id"])[0][0]
    assert world.call("POST", path, {"gb": "0.01"})["bandwidth"]["extra_bytes"] == "10000000"
    assert world.call("POST", path, {"gb": "0.000000001"})["bandwidth"]["extra_bytes"] == "10000001"
    assert api.sql("SELECT grant_seq FROM billing.bucket WHERE holder = %s", gateway["id"]) == [(before + 2,)]
    assert world.call("GET", f"/v1/gateways/{gateway['id']}")["revision"] == gateway["revision"] + 2
    assert api.sql("SELECT count(*) FROM gateway.audit WHERE action = 'extra' AND object = %s", gateway["id"]) == [(2,)]
    for bad in ("0", "0.000", "-1", "0.0000000001", "1e3", "", "ten", 1, None):
        world.refused("POST", path, {"gb": bad}, field="gb", says="gb")
    world.refused("POST", path, {"gb": "9999999999.999999999"}, field="gb", says=["9999999999.999999999", "does not fit"])
    world.refused("POST", path, {"gb": "1"}, gateway["user"]["token"], 403)


def test_delete(api, world):
    gateway = world.gateway()
    path, token = f"/v1/gateways/{gateway['id']}", gateway["user"]["token"]
    assert world.call("DELETE", path, token=token, status=202)["status"] == "deleting"
    assert world.call("DELETE", path, token=token, status=202)["status"] == "deleting"
    assert api.sql("SELECT goal, finished FROM gateway.job WHERE gateway = %s", gateway["id"]) == [("absent", False)]
    world.refused("PATCH", path, {"name": "x"}, token, 409, says="deleting")
    world.refused("POST", f"{path}/peers", {"name": "x", "public_key": public_key()}, token, 409, says="deleting")
    world.refused("POST", "/v1/gateways", {"vpc": gateway["vpc"]}, token, 409, says="already has")
    api.sql("SELECT gateway.complete_delete(%s)", gateway["id"])
    assert world.call("GET", path, token=token)["status"] == "deleted"
    world.refused("GET", f"/v1/gateways/{gateway['name']}", token=token, status=404)
    world.refused("DELETE", path, token=token, status=404)
    again = world.call("POST", "/v1/gateways", {"vpc": gateway["vpc"]}, token, 201)
    assert again["id"] != gateway["id"] and again["name"] == gateway["name"]


def in_this_order(servers, api, gateway, *calls):
    """Makes the calls while the job's row is held, each once the one before waits for it; then lets them go on. Each by a
    server of its own: one works on one request of a gateway at a time."""
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool, contextlib.closing(api.postgres.connect()) as holder:
        holder.autocommit = False
        cursor = holder.cursor()
        cursor.execute("SELECT FROM gateway.job WHERE gateway = %s FOR UPDATE", (gateway["id"],))
        futures = []
        for server, (method, path) in zip(servers, calls):
            futures.append(pool.submit(server.request, method, path, None, gateway["user"]["token"]))
            wait(lambda: api.sql("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted") == [(len(futures),)])
        holder.commit()
        return [future.result()[0] for future in futures]


def fail(api, gateway):
    api.sql("UPDATE gateway.gateway SET status = 'error', error = 'it broke' WHERE id = %s", gateway["id"])
    api.sql("UPDATE gateway.job SET finished = true WHERE gateway = %s", gateway["id"])


ORDERS = [("dr", [202, 409], "deleting", 1), ("rd", [202, 202], "deleting", 2), ("rr", [202, 409], "deploying", 2),
          ("rrdr", [202, 409, 202, 409], "deleting", 2), ("drdr", [202, 409, 202, 409], "deleting", 1)]


def test_m1_what_waited_for_another_sees_what_that_did(api, world):
    servers = [api, *(api.another("--workers", "1") for _ in range(3))]
    try:
        for order, answers, status, attempt in ORDERS:
            gateway = world.gateway()
            path = f"/v1/gateways/{gateway['id']}"
            fail(api, gateway)
            calls = [("DELETE", path) if c == "d" else ("POST", f"{path}/retry") for c in order]
            assert in_this_order(servers, api, gateway, *calls) == answers, order
            assert api.sql("SELECT status, attempt FROM gateway.gateway WHERE id = %s", gateway["id"]) == [(status, attempt)]
            goal = "absent" if status == "deleting" else "active"
            assert api.sql("SELECT goal, attempt FROM gateway.job WHERE gateway = %s", gateway["id"]) == [(goal, attempt)]
    finally:
        for server in servers[1:]:
            server.stop()


def test_m1_a_deleted_gateway_stays_deleted_and_one_retry_is_accepted(api, world):
    gateway, rng, other = world.gateway(), random.Random(1), api.another()
    path, token = f"/v1/gateways/{gateway['id']}", gateway["user"]["token"]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        for _ in range(40):
            fail(api, gateway)
            calls = [("POST", f"{path}/retry")] * rng.randint(2, 5) + [("DELETE", path)] * rng.randint(0, 1)
            rng.shuffle(calls)
            answers = list(pool.map(lambda call: (call[1][0], (api, other)[call[0] % 2].request(*call[1], None, token)[0]), enumerate(calls)))
            accepted = answers.count(("POST", 202))
            deleted = ("DELETE", 202) in answers
            # Once the deletion is accepted nothing is retried; without one exactly one retry is.
            assert accepted <= 1 if deleted else accepted == 1, answers
            assert {s for m, s in answers} <= {202, 409, 503}  # 503: as many at once as one owner may have
            assert api.sql("SELECT status FROM gateway.gateway WHERE id = %s", gateway["id"]) == [
                ("deleting" if deleted else "deploying",)], answers


def test_retry(api, world):
    gateway = world.gateway()
    path, token = f"/v1/gateways/{gateway['id']}", gateway["user"]["token"]
    world.refused("POST", f"{path}/retry", token=token, status=409, says=["deploying", "error"])
    api.sql("SELECT gateway.fail_job(%s, 'no bridge pub0')", gateway["id"])
    failed = world.call("GET", path, token=token)
    assert failed["status"] == "error" and failed["error"] == "no bridge pub0"
    again = world.call("POST", f"{path}/retry", token=token, status=202)
    assert again["status"] == "deploying" and again["attempt"] == 2 and again["error"] is None
    assert again["tunnel_subnet6"] == gateway["tunnel_subnet6"]
    assert api.sql("SELECT attempt, goal, finished, deadline > now() FROM gateway.job WHERE gateway = %s", gateway["id"]) == \
        [(2, "active", False, True)]
    log = world.call("GET", f"{path}/log")["items"]
    assert [(line["attempt"], line["line"]) for line in log] == [(1, "failed: no bridge pub0")]
    world.refused("GET", f"{path}/log", token=token, status=403)


def test_past_the_deadline_it_is_an_error_by_itself(api, world):
    gateway = world.gateway()
    api.sql("UPDATE gateway.job SET deadline = now() - interval '1 second' WHERE gateway = %s", gateway["id"])
    wait(lambda: world.call("GET", f"/v1/gateways/{gateway['id']}")["status"] == "error")
    assert "deadline" in world.call("GET", f"/v1/gateways/{gateway['id']}")["error"]


def test_a_service_acts_for_a_user(world):
    gateway, service = world.gateway(), world.user("service")
    act = {"Wiretoll-Act-For": gateway["user"]["name"]}
    assert [g["id"] for g in world.call("GET", "/v1/gateways", token=service["token"], headers=act)["items"]] == [gateway["id"]]
    world.refused("GET", "/v1/gateways", token=service["token"], field="Wiretoll-Act-For", says="required")
    world.refused("GET", "/v1/gateways", token=service["token"], headers={"Wiretoll-Act-For": "nobody"}, field="Wiretoll-Act-For",
                  says=["nobody", "user"])
    world.refused("GET", "/v1/gateways", token=service["token"], headers={"Wiretoll-Act-For": "admin"}, says="admin")
    # Nobody else acts for anybody.
    other = world.user()
    world.refused("GET", "/v1/gateways", token=other["token"], headers=act, status=403, field="Wiretoll-Act-For", says="role service")


def test_unreachable(api, world):
    gateway = world.gateway()
    world.deployed(gateway)
    assert world.call("GET", f"/v1/gateways/{gateway['id']}")["unreachable_since"] is None
    api.sql("UPDATE gateway.gateway SET last_report = now() - interval '181 seconds' WHERE id = %s", gateway["id"])
    assert world.call("GET", f"/v1/gateways/{gateway['id']}")["unreachable_since"]
