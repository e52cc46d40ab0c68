# SPDX-License-Identifier: BSD-2-Clause
"""What the operator offers: images, plans, plan groups, locations with their prices, hypervisors, users, the audit log."""

import datetime
from urllib.parse import quote

import psycopg2
import pytest


def test_image(world):
    image = world.image(path="/images/debian.qcow2")
    assert image["purpose"] == "vpn_gateway" and image["enabled"] is True
    for key in (image["id"], image["name"]):
        assert world.call("GET", f"/v1/images/{key}") == image
    assert world.call("PATCH", f"/v1/images/{image['id']}", {"enabled": False})["enabled"] is False
    world.refused("POST", "/v1/images", {"name": image["name"]}, status=409, field="name", says=[image["name"], "taken"])
    world.refused("POST", "/v1/images", {"name": "x", "path": "relative"}, field="path", says=["relative", "absolute"])
    world.call("DELETE", f"/v1/images/{image['id']}", status=204)
    world.refused("GET", f"/v1/images/{image['id']}", status=404, says=image["id"])


def test_plan(world):
    plan = world.plan(included_gb="10.500000000", credit_value="29.90")
    assert plan["included_gb"] == "10.5" and plan["credit_value"] == "29.9"
    unlimited = world.plan(included_gb=None)
    assert unlimited["included_gb"] is None and unlimited["credit_value"] is None
    changed = world.call("PATCH", f"/v1/plans/{plan['name']}", {"included_gb": None, "ram_mb": 1024})
    assert changed["included_gb"] is None and changed["ram_mb"] == 1024 and changed["credit_value"] == "29.9"


@pytest.mark.parametrize("field, value, accepted", [
    ("included_gb", "0.0000000001", "9 places"),
    ("included_gb", "-1", "9 places"),
    ("included_gb", "1e3", "9 places"),
    ("included_gb", "ten", "9 places"),
    ("included_gb", 10, "a string"),
    ("included_gb", "9999999999", ""),
    ("credit_value", ".5", "9 places"),
    ("credit_value", "5.", "9 places"),
    ("cpu", 0, "from 1"),
    ("cpu", 1.5, "an integer"),
    ("ram_mb", "512", "an integer"),
    ("storage_gb", None, "required"),
    ("name", "", "1 to 63"),
    ("name", "x\ny", "printable"),
    ("price", "1", "accepted are: name, cpu"),
])
def test_bad_plan(world, field, value, accepted):
    body = {"name": world.name("plan"), "cpu": 1, "ram_mb": 512, "storage_gb": 4, "included_gb": "1", field: value}
    world.refused("POST", "/v1/plans", body, says=accepted)


def test_a_plan_in_use_stays(world):
    plan = world.plan()
    world.group(plan)
    world.refused("DELETE", f"/v1/plans/{plan['id']}", status=409, says="in use")


def test_plan_group_keeps_the_order(world):
    plans = [world.plan() for _ in range(3)]
    group = world.group(plans[2], plans[0])
    assert group["plans"] == [plans[2]["id"], plans[0]["id"]]
    changed = world.call("PATCH", f"/v1/plan-groups/{group['id']}", {"plans": [p["name"] for p in plans]})
    assert changed["plans"] == [p["id"] for p in plans]
    world.refused("PATCH", f"/v1/plan-groups/{group['id']}", {"plans": [plans[0]["id"], "nothing"]}, field="plans[1]",
                  says=["nothing", "a plan"])
    world.refused("PATCH", f"/v1/plan-groups/{group['id']}", {"plans": [plans[0]["id"], plans[0]["name"]]}, field="plans[1]",
                  says="twice")
    assert world.call("GET", f"/v1/plan-groups/{group['id']}")["plans"] == [p["id"] for p in plans]


def test_location(world):
    group, image = world.group(world.plan()), world.image()
    location = world.call("POST", "/v1/locations", {
        "name": world.name("location"), "vpn_enabled": True, "credit_value": "30", "bandwidth_rate": "0.10",
        "accounting": "uploads", "overage": "revoke_access", "image": image["name"], "plan_group": group["name"]}, status=201)
    assert (location["credit_value"], location["bandwidth_rate"]) == ("30", "0.1")
    assert (location["accounting"], location["overage"]) == ("uploads", "revoke_access")
    assert (location["image"], location["plan_group"], location["scheduled"]) == (image["id"], group["id"], None)
    path = f"/v1/locations/{location['id']}"
    world.refused("PATCH", path, {"plan_group": None}, field="plan_group", says=["null", "vpn_enabled"])
    off = world.call("PATCH", path, {"vpn_enabled": False, "plan_group": None, "image": None})
    assert (off["vpn_enabled"], off["plan_group"], off["image"]) == (False, None, None)
    world.refused("PATCH", path, {"vpn_enabled": True}, field="plan_group", says="plan_group")
    for field, value, accepted in (("accounting", "all", "uploads, downloads, both"), ("overage", "block", "none, charge_overage"),
                                   ("bandwidth_rate", 0.1, "a string"), ("plan_group", "nothing", "plan group"), ("image", "x", "image")):
        world.refused("PATCH", path, {field: value}, field=field, says=[str(value), accepted])


def test_prices_change_with_the_next_hour(api, world, steady_hour):
    location = world.location(credit_value="30", bandwidth_rate="0.1")
    path = f"/v1/locations/{location['id']}"
    changed = world.call("PATCH", path, {"bandwidth_rate": "0.2"})
    assert changed["bandwidth_rate"] == "0.1" and changed["scheduled"]["bandwidth_rate"] == "0.2"
    begins = datetime.datetime.fromisoformat(changed["scheduled"]["from"].replace("Z", "+00:00"))
    now = datetime.datetime.now(datetime.timezone.utc)
    assert begins.minute == begins.second == begins.microsecond == 0 and datetime.timedelta(0) < begins - now <= datetime.timedelta(hours=1)
    again = world.call("PATCH", path, {"overage": "charge_overage"})["scheduled"]
    assert (again["bandwidth_rate"], again["overage"], again["credit_value"]) == ("0.2", "charge_overage", "30")
    rows = api.sql("SELECT from_hour = date_trunc('hour', now(), 'UTC'), bandwidth_rate::text FROM gateway.rate_version "
                   "WHERE location = %s ORDER BY from_hour", location["id"])
    assert rows == [(True, "0.100000000"), (False, "0.200000000")]


def test_nothing_included_only_where_every_byte_can_be_charged(world):
    zero = world.plan(included_gb="0")
    charging, other = world.location(zero, overage="charge_overage"), world.location()
    world.refused("PATCH", f"/v1/locations/{charging['id']}", {"overage": "none"}, field="included_gb",
                  says=[zero["name"], charging["name"], "charge_overage"])
    world.refused("PATCH", f"/v1/plan-groups/{other['plan_group']}", {"plans": [zero["id"]]}, says=[zero["name"], other["name"]])
    world.refused("PATCH", f"/v1/locations/{other['id']}", {"plan_group": charging["plan_group"]}, says=[zero["name"], other["name"]])
    plan = world.call("GET", f"/v1/plan-groups/{other['plan_group']}")["plans"][0]
    world.refused("PATCH", f"/v1/plans/{plan}", {"included_gb": "0.0"}, says=["is 0", other["name"]])
    world.refused("POST", "/v1/locations", {"name": "z", "plan_group": charging["plan_group"], "credit_value": "1", "bandwidth_rate": "1"}, says=zero["name"])
    assert world.call("GET", f"/v1/plans/{plan}")["included_gb"] == "10"


def test_hypervisor(world):
    location = world.location()
    host = world.hypervisor(location)
    assert host["location"] == location["id"] and host["driver"] == "netns"
    assert world.call("PATCH", f"/v1/hypervisors/{host['name']}", {"cpu": 2})["cpu"] == 2
    world.refused("PATCH", f"/v1/hypervisors/{host['id']}", {"driver": "netns"}, field="driver")
    world.refused("POST", "/v1/hypervisors", {"name": "h", "location": location["id"], "driver": "kvm", "cpu": 1, "ram_mb": 1,
                                              "storage_gb": 1}, field="driver", says=["kvm", "netns"])
    world.refused("DELETE", f"/v1/locations/{location['id']}", status=409, says="in use")
    world.call("DELETE", f"/v1/hypervisors/{host['id']}", status=204)


def test_user(api, world):
    user = world.user(email="a@example.org")
    assert (user["role"], user["max_gateways"], user["gateways"]) == ("user", 5, 0)
    changed = world.call("PATCH", f"/v1/users/{user['id']}", {"max_gateways": 0, "role": "billing"})
    assert (changed["max_gateways"], changed["role"], changed["email"]) == (0, "billing", "a@example.org")
    world.refused("POST", "/v1/users", {"name": user["name"]}, status=409, field="name", says=[user["name"], "taken"])
    for field, value, accepted in (("role", "root", "admin, user, billing, service"), ("email", "nobody", "@"),
                                   ("max_gateways", -1, "from 0"), ("name", "a b", "a-z"), ("name", world.unknown(), "no UUID")):
        world.refused("POST", "/v1/users", {"name": "n", **{field: value}}, field=field, says=[str(value), accepted])
    world.call("DELETE", f"/v1/users/{user['id']}", status=204)
    assert api.request("GET", "/v1/me", token=user["token"])[0] == 401
    world.refused("DELETE", "/v1/users/admin", status=409, says="admin")


def test_put_user_is_idempotent(world):
    external, name = world.name("cloud:user/1"), world.name("user")
    path = f"/v1/users/{quote(external, safe='')}"
    first = world.call("PUT", path, {"name": name, "max_gateways": 3}, status=201)
    again = world.call("PUT", path, {"name": name, "email": "x@example.org"})
    assert again["id"] == first["id"] and again["external_id"] == external
    assert (again["max_gateways"], again["email"]) == (3, "x@example.org")


def test_users_with_vpcs_stay(world):
    user = world.user()
    world.vpc(user, world.location())
    world.refused("DELETE", f"/v1/users/{user['id']}", status=409, says=[user["id"], "in use by VPC"])


def test_audit_says_who_what_and_from_where(api, world):
    plan = world.plan()
    entry = world.call("GET", "/v1/audit?limit=1")["items"][0]
    assert (entry["action"], entry["object"], entry["actor_name"]) == ("create", "/v1/plans", "admin")
    assert entry["address"] == "127.0.0.1" and entry["detail"]["name"] == plan["name"]
    for _ in range(20):
        world.plan()
    ids, after = [], ""
    while after is not None and len(ids) < 20:
        page = world.call("GET", f"/v1/audit?limit=7&after={after}")
        ids += [int(item["id"]) for item in page["items"]]
        after = page["next"]
    assert ids == sorted(set(ids), reverse=True) and len(ids) >= 20
    # The API's own role cannot rewrite it.
    connection = api.postgres.connect("wiretoll_api")
    for statement in ("UPDATE gateway.audit SET action = 'x'", "DELETE FROM gateway.audit", "DELETE FROM billing.ledger",
                      "UPDATE billing.ledger SET amount = 0", "DELETE FROM billing.bucket", "TRUNCATE billing.feed"):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            connection.cursor().execute(statement)
        connection.rollback()
    connection.close()
