# SPDX-License-Identifier: BSD-2-Clause
"""The mirror of the cloud's VPCs (A9)."""

from urllib.parse import quote

import pytest


def body(world, owner, location, **fields):
    return {"name": world.name("vpc"), "owner": owner["name"], "location": location["name"], "subnets": world.subnets(), **fields}


def test_vpc(world):
    user, location = world.user(), world.location()
    vpc = world.vpc(user, location)
    assert (vpc["owner"], vpc["location"], vpc["gateway"]) == (user["id"], location["id"], None)
    private, public = vpc["subnets"]
    assert (private["cidr"], private["public"], private["gateway_range"]) == ("10.1.0.0/24", False, "10.1.0.0-10.1.0.15")
    assert private["attachment"]["bridge"] == "vpc0" and private["router"] is None
    assert public["public"] is True and public["router"].endswith(".1")
    # What its owner sees of it is the same, but for the cloud's own things.
    shown = {**vpc, "subnets": [{**subnet, "attachment": None, "attachments": []} for subnet in vpc["subnets"]]}
    for key in (vpc["id"], vpc["name"]):
        assert world.call("GET", f"/v1/vpcs/{key}", token=user["token"]) == shown
        assert world.call("GET", f"/v1/vpcs/{vpc['id']}") == vpc
    other = world.user()
    world.refused("GET", f"/v1/vpcs/{vpc['id']}", token=other["token"], status=404)
    assert world.call("GET", "/v1/vpcs", token=other["token"])["items"] == []
    world.refused("POST", "/v1/vpcs", body(world, user, location, name=vpc["name"]), status=409, field="name", says=[vpc["name"], "taken"])
    world.refused("POST", "/v1/vpcs", body(world, user, location), user["token"], 403)


@pytest.mark.parametrize("field, value, accepted", [
    ("cidr", "10.2.0.1/24", "no bit set beyond the prefix"),
    ("cidr", "10.2.0.0", "a network"),
    ("cidr", "10.2.0.0/40", "a network"),
    ("cidr", "net", "a network"),
    ("gateway_range", "10.2.1.0/28", "within 10.2.0.0/24"),
    ("gateway_range", "10.2.0.9-10.2.0.2", "within 10.2.0.0/24"),
    ("gateway_range", "10.2.0.9-", "within 10.2.0.0/24"),
    ("router", "10.3.0.1", "within 10.2.0.0/24"),
    ("router", "10.2.0.1/24", "within 10.2.0.0/24"),
    ("public", 1, "true or false"),
    ("attachment", {"bridge": "br/0"}, "1 to 15"),
    ("attachment", {"bridge": "a-name-too-long-for-linux"}, "1 to 15"),
    ("attachment", {}, "bridge is required"),
    ("attachment", {"bridge": "br0", "route_netns": ["../etc"]}, "/run/netns"),
    ("attachment", {"bridge": "br0", "route_netns": ["/run/netns/a/b"]}, "/run/netns"),
    ("attachment", {"bridge": "br0", "route_netns": ['a","b']}, "/run/netns"),
    ("attachment", {"bridge": "br0", "hypervisor": "none"}, "a hypervisor"),
    ("vlan", 7, "accepted are: cidr"),
])
def test_bad_subnet(world, field, value, accepted):
    user, location = world.user(), world.location()
    subnets = [{"cidr": "10.2.0.0/24", "public": False, field: value}]
    problem = world.refused("POST", "/v1/vpcs", body(world, user, location, subnets=subnets), says=accepted)
    assert problem["field"].startswith(f"subnets[0].{field}")
    if isinstance(value, str):
        assert value in problem["detail"]


def test_subnets_that_overlap_are_both_named(world):
    user, location = world.user(), world.location()
    subnets = [{"cidr": "10.0.0.0/16"}, {"cidr": "10.0.7.0/24"}]
    world.refused("POST", "/v1/vpcs", body(world, user, location, subnets=subnets), status=409, field="subnets",
                  says=["subnets[1].cidr 10.0.7.0/24", "subnets[0].cidr 10.0.0.0/16"])
    world.refused("POST", "/v1/vpcs", {**body(world, user, location), "owner": "nobody"}, field="owner", says="nobody")
    world.refused("POST", "/v1/vpcs", {**body(world, user, location), "location": "nowhere"}, field="location", says="nowhere")


def test_put_is_idempotent_by_the_clouds_own_id(world):
    user, location = world.user(), world.location()
    external = world.name("projects/7/vpc")
    path, wanted = f"/v1/vpcs/{quote(external, safe='')}", body(world, user, location)
    first = world.call("PUT", path, wanted, status=201)
    assert world.call("PUT", path, wanted) == first
    assert first["external_id"] == external and world.call("GET", path) == first
    renamed = world.call("PUT", path, {**wanted, "name": world.name("vpc"), "subnets": wanted["subnets"][:1]})
    assert renamed["id"] == first["id"] and len(renamed["subnets"]) == 1
    assert renamed["subnets"][0]["id"] == first["subnets"][0]["id"]
    other, elsewhere = world.user(), world.location()
    world.refused("PUT", path, {**wanted, "owner": other["name"]}, status=409, field="owner", says=[other["name"], "never changes"])
    world.refused("PUT", path, {**wanted, "location": elsewhere["id"]}, status=409, field="location", says=[elsewhere["id"], "never"])


def test_a_service_mirrors_for_its_users(world):
    user, other, location, service = world.user(), world.user(), world.location(), world.user("service")
    act = {"Wiretoll-Act-For": user["id"]}
    wanted = body(world, user, location)
    del wanted["owner"]
    assert world.call("POST", "/v1/vpcs", wanted, service["token"], 201, act)["owner"] == user["id"]
    wanted["name"] = world.name("vpc")
    world.refused("POST", "/v1/vpcs", {**wanted, "owner": other["id"]}, service["token"], headers=act, field="owner")
    world.refused("POST", "/v1/vpcs", wanted, service["token"], field="owner", says="required")
    assert world.call("POST", "/v1/vpcs", {**wanted, "owner": other["id"]}, service["token"], 201)["owner"] == other["id"]


def test_what_is_in_use_stays(api, world):
    gateway = world.gateway()
    vpc = world.call("GET", f"/v1/vpcs/{gateway['vpc']}")
    assert vpc["gateway"] == gateway["id"]
    path = f"/v1/vpcs/{vpc['id']}"
    world.refused("DELETE", path, status=409, says=["in use", gateway["name"]])
    api.sql("UPDATE gateway.vpc SET external_id = %s WHERE id = %s", vpc["id"], vpc["id"])
    wanted = {"name": vpc["name"], "owner": vpc["owner"], "location": vpc["location"],
              "subnets": [{key: subnet[key] for key in ("cidr", "public", "gateway_range", "router", "attachment")}
                          for subnet in vpc["subnets"]]}
    world.call("PUT", path, wanted)
    world.refused("PUT", path, {**wanted, "subnets": wanted["subnets"][:1]}, status=409,
                  says=[wanted["subnets"][1]["cidr"], "in use", gateway["name"]])
    for more in ("10.99.0.0/16", "10.99.0.64/26"):
        world.refused("PUT", path, {**wanted, "subnets": [*wanted["subnets"], {"cidr": more}]}, status=409,
                      says=[more, "tunnel subnet 10.99.0.0/24", gateway["name"]])
    site = world.site(gateway, "192.168.7.0/24")
    world.refused("PUT", path, {**wanted, "subnets": [*wanted["subnets"], {"cidr": "192.168.0.0/16"}]}, status=409,
                  says=["192.168.0.0/16", "192.168.7.0/24 of peer", site["name"]])
    hidden = {**wanted["subnets"][1], "public": False}
    world.refused("PUT", path, {**wanted, "subnets": [wanted["subnets"][0], hidden]}, status=409, says=[hidden["cidr"], "stay public"])
    before = world.call("GET", f"/v1/gateways/{gateway['id']}")["revision"]
    world.call("PUT", path, {**wanted, "subnets": [*wanted["subnets"], {"cidr": "10.7.0.0/24"}]})
    assert world.call("GET", f"/v1/gateways/{gateway['id']}")["revision"] == before + 1
    api.sql("SELECT gateway.complete_delete(%s)", gateway["id"])
    world.call("DELETE", path, status=204)
    world.refused("GET", path, status=404)
    assert world.call("GET", f"/v1/gateways/{gateway['id']}")["vpc_name"] == vpc["name"]
    world.call("PUT", path, wanted, status=201)
