# SPDX-License-Identifier: BSD-2-Clause
"""Peers: P1 to P8 as far as the API goes. The database is asked for what must have been stored, and what must not."""

import base64
import concurrent.futures
import ipaddress
import re
import time

import psycopg2
import pytest

from world import public_key


@pytest.fixture
def gateway(world):
    return world.gateway()


def path(gateway, peer=None, more=""):
    return f"/v1/gateways/{gateway['id']}/peers" + (f"/{peer['id']}" if peer else "") + more


def test_road_warriors_get_the_next_free_addresses(world, gateway):
    first, second = world.peer(gateway), world.peer(gateway, kind="road_warrior")
    ula = ipaddress.ip_network(gateway["tunnel_subnet6"])
    assert (first["tunnel_ip"], second["tunnel_ip"]) == ("10.99.0.2", "10.99.0.3")
    assert (first["tunnel_ip6"], second["tunnel_ip6"]) == (str(ula[2]), str(ula[3]))
    assert first["allowed_ips"] == ["10.99.0.2/32", f"{ula[2]}/128"]
    assert first["kind"] == "road_warrior" and first["state"] == "never_seen" and first["enabled"] is True
    assert first["upload_bytes"] == first["download_bytes"] == "0" and first["has_preshared_key"] is False
    shown = world.call("GET", f"/v1/gateways/{gateway['id']}", token=gateway["user"]["token"])
    assert shown["revision"] == gateway["revision"] + 2


def test_a_wished_address(world, gateway):
    ula = ipaddress.ip_network(gateway["tunnel_subnet6"])
    peer = world.peer(gateway, tunnel_ip="10.99.0.77", tunnel_ip6=str(ula[0x77]), dns=["10.1.0.53", "fd00::53"], keepalive=20)
    assert (peer["tunnel_ip"], peer["tunnel_ip6"]) == ("10.99.0.77", str(ula[0x77]))
    assert peer["dns"] == ["10.1.0.53", "fd00::53"] and peer["keepalive"] == 20
    world.refused("POST", path(gateway), {"name": "x", "public_key": public_key(), "tunnel_ip": "10.99.0.77"}, status=409,
                  field="tunnel_ip", says=["10.99.0.77", peer["name"]])
    world.refused("POST", path(gateway), {"name": "x", "public_key": public_key(), "tunnel_ip6": peer["tunnel_ip6"]}, status=409,
                  field="tunnel_ip6", says=[peer["tunnel_ip6"], peer["name"]])


@pytest.mark.parametrize("field, value, accepted", [
    ("public_key", "short", "44 characters"),
    ("public_key", "A" * 44, "44 characters"),
    ("public_key", base64.b64encode(bytes(32)).decode(), "44 characters"),
    ("public_key", public_key()[:-1] + "!", "44 characters"),
    ("public_key", None, "required"),
    ("name", None, "required"),
    ("name", "a/b", "a-z"),
    ("name", "x" * 64, "1 to 63"),
    ("kind", "vpc_peering", "road_warrior, site_to_site"),
    ("tunnel_ip", "10.98.0.2", "10.99.0.0/24"),
    ("tunnel_ip", "10.99.0.0", "10.99.0.0/24"),
    ("tunnel_ip", "10.99.0.1", "10.99.0.0/24"),
    ("tunnel_ip", "10.99.0.255", "10.99.0.0/24"),
    ("tunnel_ip", "10.99.0.2/32", "IPv4 address"),
    ("tunnel_ip", "fd00::2", "IPv4 address"),
    ("tunnel_ip6", "10.99.0.2", "IPv6 address"),
    ("tunnel_ip6", "fd00::2", "accepted is an address of the tunnel subnet"),
    ("dns", ["dns.example.org"], "IP address"),
    ("dns", ["10.0.0.1"] * 5, "up to 4"),
    ("keepalive", -1, "from 0 to 65535"),
    ("enabled", "yes", "true or false"),
    ("allowed_ips", ["10.0.0.0/8"], "accepted are: kind, name"),
])
def test_bad_road_warrior(world, gateway, field, value, accepted):
    body = {"name": "laptop", "public_key": public_key(), field: value}
    problem = world.refused("POST", path(gateway), body, gateway["user"]["token"], field=field, says=[field, accepted])
    if field == "public_key" and value:  # it may be a private key
        assert value not in problem["detail"]
    elif isinstance(value, str):
        assert value in problem["detail"]


@pytest.mark.parametrize("field, value, accepted", [
    ("allowed_ips", None, "required"),
    ("allowed_ips", [], "1 to 256"),
    ("allowed_ips", ["192.168.7.1/24"], "no bit set beyond the prefix"),
    ("allowed_ips", ["192.168.7.0/33"], "no bit set beyond the prefix"),
    ("allowed_ips", ["office"], "no bit set beyond the prefix"),
    ("allowed_ips", [7], "no bit set beyond the prefix"),
    ("allowed_ips", "192.168.7.0/24", "an array"),
    ("allowed_ips", ["192.168.0.0/16", "192.168.7.0/24"], "do not overlap"),
    ("endpoint", "203.0.113.5", "HOST:PORT"),
    ("endpoint", "203.0.113.5:0", "HOST:PORT"),
    ("endpoint", "203.0.113.5:65536", "HOST:PORT"),
    ("endpoint", "fd00::1:51820", "HOST:PORT"),
    ("endpoint", "[10.0.0.1]:51820", "HOST:PORT"),
    ("endpoint", "two words:51820", "HOST:PORT"),
    ("preshared_key", "short", "44 characters"),
    ("preshared_key", False, "true to have one made"),
    ("tunnel_ip", "10.99.0.9", "accepted are: kind, name"),
])
def test_bad_site(world, gateway, field, value, accepted):
    body = {"kind": "site_to_site", "name": "office", "public_key": public_key(), "allowed_ips": ["192.168.7.0/24"], field: value}
    problem = world.refused("POST", path(gateway), body, gateway["user"]["token"], field=field, says=[field, accepted])
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str) and field not in ("preshared_key", "tunnel_ip"):
            assert item in problem["detail"]


@pytest.mark.parametrize("endpoint", ["203.0.113.5:51820", "vpn.example.org:1", "[2001:db8::1]:65535", None])
def test_endpoints(world, gateway, endpoint):
    assert world.site(gateway, "192.168.7.0/24", endpoint=endpoint)["endpoint"] == endpoint


def test_overlaps_name_both_sides(world, gateway):
    token, branch = gateway["user"]["token"], world.site(gateway, "192.168.7.0/24", "fd77::/64")
    laptop = world.peer(gateway)

    def refused(network, *says):
        body = {"kind": "site_to_site", "name": "office", "public_key": public_key(), "allowed_ips": ["172.16.0.0/24", network]}
        world.refused("POST", path(gateway), body, token, 409, field="allowed_ips", says=[network, *says])

    refused("192.168.7.0/24", "192.168.7.0/24 of peer", branch["name"])
    refused("192.168.7.128/25", "192.168.7.0/24 of peer", branch["name"])
    refused("192.168.0.0/16", "192.168.7.0/24 of peer", branch["name"])
    refused("fd77::/48", "fd77::/64 of peer", branch["name"])
    refused("10.1.0.0/25", "10.1.0.0/24 of VPC", gateway["vpc_name"])
    refused("10.99.0.128/25", "10.99.0.0/24, a tunnel subnet of gateway", gateway["name"])
    refused(gateway["tunnel_subnet6"], "a tunnel subnet of gateway", gateway["name"])
    everything = {"kind": "site_to_site", "name": "office", "public_key": public_key(), "allowed_ips": ["0.0.0.0/0"]}
    world.refused("POST", path(gateway), everything, token, says=["0.0.0.0/0", "too large"])
    # Not with itself, and not with what has gone.
    world.call("PATCH", path(gateway, branch), {"allowed_ips": ["192.168.7.0/25"]}, token)
    world.site(gateway, "192.168.7.128/25")
    world.refused("PATCH", path(gateway, branch), {"allowed_ips": ["192.168.7.0/24"]}, token, 409, says="192.168.7.128/25 of peer")
    assert laptop["name"] in world.refused("POST", path(gateway), {"name": "z", "public_key": public_key(), "tunnel_ip": "10.99.0.2"},
                                           token, 409)["detail"]


def test_overlaps_between_gateways_are_none(world, gateway):
    world.site(gateway, "192.168.7.0/24")
    world.site(world.gateway(), "192.168.7.0/24")


def test_requests_at_once_share_no_prefix_and_no_address(api, world, gateway):
    token = gateway["user"]["token"]

    def site(n):
        return api.request("POST", path(gateway), {"kind": "site_to_site", "name": f"s{n}", "public_key": public_key(),
                                                   "allowed_ips": [f"192.168.{n % 2}.0/24"]}, token)

    def laptop(n):
        return api.request("POST", path(gateway), {"name": f"l{n}", "public_key": public_key()}, token)

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        sites, laptops = list(pool.map(site, range(20))), list(pool.map(laptop, range(20)))
    assert sorted(status for status, _ in sites) == 2 * [201] + 18 * [409]
    assert all("of peer s" in answer["detail"] for status, answer in sites if status == 409)
    assert sorted(status for status, _ in laptops) == 20 * [201]
    assert len({answer["tunnel_ip"] for _, answer in laptops}) == 20


def test_the_constraint_stands_behind_the_check(api, world, gateway):
    peers = [world.peer(gateway), world.peer(gateway)]
    with pytest.raises(psycopg2.errors.ExclusionViolation):
        api.sql("INSERT INTO gateway.prefix (owner, gateway, peer, cidr, tunnel) VALUES (%s, %s, %s, '10.99.0.2/32', true)",
                gateway["owner"], gateway["id"], peers[1]["id"])
    with pytest.raises(psycopg2.errors.UniqueViolation):
        api.sql("UPDATE gateway.peer SET public_key = (SELECT public_key FROM gateway.peer WHERE id = %s) WHERE id = %s",
                peers[0]["id"], peers[1]["id"])


def test_public_keys_and_names_are_one_peers_only(api, world, gateway):
    token, laptop = gateway["user"]["token"], world.peer(gateway)
    world.refused("POST", path(gateway), {"name": "other", "public_key": laptop["public_key"]}, token, 409, field="public_key",
                  says=laptop["name"])
    world.refused("POST", path(gateway), {"name": laptop["name"], "public_key": public_key()}, token, 409, field="name",
                  says=laptop["name"])
    world.deployed(gateway)
    own = world.call("GET", f"/v1/gateways/{gateway['id']}")["public_key"]
    world.refused("POST", path(gateway), {"name": "other", "public_key": own}, token, 409, says="gateway itself")
    world.refused("PATCH", path(gateway, world.peer(gateway)), {"public_key": laptop["public_key"]}, token, 409, says=laptop["name"])


def test_no_free_tunnel_address(api, world):
    user = world.user()
    gateway = world.gateway(user, vpc=world.vpc(user, world.location())["id"], tunnel_subnet="10.98.0.0/30")
    only = world.peer(gateway)
    assert only["tunnel_ip"] == "10.98.0.2"
    body = {"name": "more", "public_key": public_key()}
    world.refused("POST", path(gateway), body, user["token"], field="tunnel_ip", says=["10.98.0.0/30", "no free address", "1 are held"])
    world.call("DELETE", path(gateway, only), token=user["token"], status=204)
    world.refused("POST", path(gateway), body, user["token"], says=["no free address", "1 rest"])
    world.refused("POST", path(gateway), {**body, "tunnel_ip": "10.98.0.2"}, user["token"], 409, says=["10.98.0.2", "rests until"])
    api.sql("UPDATE gateway.prefix SET freed = now() - interval '11 minutes' WHERE gateway = %s", gateway["id"])
    assert world.call("POST", path(gateway), body, user["token"], 201)["tunnel_ip"] == "10.98.0.2"


def test_a_freed_address_comes_last_and_the_longest_free_first(api, world):
    user = world.user()
    gateway = world.gateway(user, vpc=world.vpc(user, world.location())["id"], tunnel_subnet="10.98.0.0/29")
    peers = [world.peer(gateway) for _ in range(5)]  # .2 to .6: all of them
    for minutes, peer in ((20, peers[1]), (40, peers[3])):
        world.call("DELETE", path(gateway, peer), token=user["token"], status=204)
        api.sql("UPDATE gateway.prefix SET freed = now() - make_interval(mins => %s) WHERE peer = %s", minutes, peer["id"])
    assert [world.peer(gateway)["tunnel_ip"] for _ in range(2)] == [peers[3]["tunnel_ip"], peers[1]["tunnel_ip"]]


def test_change_and_disable(world, gateway):
    token, peer = gateway["user"]["token"], world.peer(gateway, dns=["10.1.0.53"])
    changed = world.call("PATCH", path(gateway, peer), {"name": "tablet", "keepalive": 25, "dns": []}, token)
    assert (changed["name"], changed["keepalive"], changed["dns"]) == ("tablet", 25, [])
    assert (changed["tunnel_ip"], changed["tunnel_ip6"], changed["public_key"]) == \
        (peer["tunnel_ip"], peer["tunnel_ip6"], peer["public_key"])
    disabled = world.call("PATCH", path(gateway, changed), {"enabled": False}, token)
    assert disabled["enabled"] is False and disabled["state"] == "disabled" and disabled["allowed_ips"] == peer["allowed_ips"]
    moved = world.call("PATCH", f"/v1/gateways/{gateway['name']}/peers/tablet", {"tunnel_ip": "10.99.0.9", "enabled": True}, token)
    assert moved["tunnel_ip"] == "10.99.0.9" and moved["tunnel_ip6"] == peer["tunnel_ip6"] and moved["state"] == "never_seen"
    world.refused("PATCH", path(gateway, peer), {"kind": "site_to_site"}, token, field="kind", says="never changes")
    world.refused("PATCH", path(gateway, peer), {"allowed_ips": ["10.5.0.0/16"]}, token, field="allowed_ips")
    shown = world.call("GET", f"/v1/gateways/{gateway['id']}", token=token)
    assert shown["revision"] == gateway["revision"] + 4


def test_a_site_changes(world, gateway):
    token = gateway["user"]["token"]
    site = world.site(gateway, "192.168.7.0/24", "192.168.8.0/24", endpoint="203.0.113.5:51820")
    assert site["keepalive"] == 25 and site["tunnel_ip"] is None
    changed = world.call("PATCH", path(gateway, site), {"endpoint": None, "allowed_ips": ["192.168.8.0/24", "192.168.9.0/24"]}, token)
    assert changed["endpoint"] is None and changed["allowed_ips"] == ["192.168.8.0/24", "192.168.9.0/24"]
    destinations = [r["destination"] for r in world.call("GET", f"/v1/gateways/{gateway['id']}", token=token)["routes"]]
    assert "192.168.9.0/24" in destinations and "192.168.7.0/24" not in destinations


def test_remove(api, world, gateway):
    token, peer = gateway["user"]["token"], world.site(gateway, "192.168.7.0/24", preshared_key=True)
    world.call("DELETE", path(gateway, peer), token=token, status=204)
    world.refused("GET", path(gateway, peer), token=token, status=404)
    world.refused("DELETE", path(gateway, peer), token=token, status=404)
    assert api.sql("SELECT removed IS NOT NULL, psk_sealed FROM gateway.peer WHERE id = %s", peer["id"]) == [(True, None)]
    again = world.site(gateway, "192.168.7.0/24", name=peer["name"], public_key=peer["public_key"])
    assert again["id"] != peer["id"]


def test_state(api, world, gateway):
    peer = world.peer(gateway)

    def state(age):
        begun = time.monotonic()
        api.sql("UPDATE gateway.peer SET last_handshake = now() - make_interval(secs => %s) WHERE id = %s", age, peer["id"])
        return world.call("GET", path(gateway, peer))["state"], time.monotonic() - begun

    assert state(5)[0] == "connected" and state(181)[0] == "idle"
    while True:  # an answer that took a second is of an older handshake than is asked for
        shown, took = state(179)
        if took < 0.9:
            break
    assert shown == "connected"


def test_road_warriors_configuration(world, gateway):
    token = gateway["user"]["token"]
    peer = world.peer(gateway, name="a-very-long.name_of_a_laptop", dns=["10.1.0.53"], keepalive=25)
    world.refused("GET", path(gateway, peer, "/config"), token=token, status=409, says="not deployed")
    world.deployed(gateway)
    answer = world.api.exchange("GET", path(gateway, peer, "/config"), token=token)
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/plain")
    assert answer.headers["Cache-Control"] == "no-store"
    name = re.fullmatch(r'attachment; filename="([a-zA-Z0-9_=+.-]{1,15})\.conf"', answer.headers["Content-Disposition"])
    assert name and name[1] == "a-very-long.nam"
    key = world.call("GET", f"/v1/gateways/{gateway['id']}", token=token)["public_key"]
    assert answer.body.decode().splitlines()[1:] == [
        "[Interface]", "PrivateKey = [YOUR_PRIVATE_KEY]", f"Address = {peer['tunnel_ip']}/32, {peer['tunnel_ip6']}/128",
        "DNS = 10.1.0.53", "", "[Peer]", f"PublicKey = {key}", "Endpoint = 198.51.100.10:51820",
        f"AllowedIPs = 10.1.0.0/24, 10.99.0.0/24, {gateway['tunnel_subnet6']}", "PersistentKeepalive = 25"]
    assert world.api.sql("SELECT actor::text FROM gateway.audit WHERE action = 'config' AND object = %s", peer["id"]) == \
        [(gateway["user"]["id"],)]


def test_sites_configuration_and_the_preshared_key(api, world, gateway):
    token, preshared = gateway["user"]["token"], public_key()
    world.deployed(gateway)
    site = world.site(gateway, "192.168.7.0/24", endpoint="203.0.113.5:51999", preshared_key=preshared)
    generated = world.site(gateway, "192.168.8.0/24", preshared_key=True)
    plain = world.site(gateway, "192.168.9.0/24")
    assert [p["has_preshared_key"] for p in (site, generated, plain)] == [True, True, False]
    text = api.exchange("GET", path(gateway, site, "/config"), token=token).body.decode()
    assert f"PresharedKey = {preshared}\n" in text and "ListenPort = 51999\n" in text
    assert "AllowedIPs = 10.1.0.0/24\n" in text and "PersistentKeepalive = 25\n" in text and "Address" not in text
    made = re.search("PresharedKey = (.*)", api.exchange("GET", path(gateway, generated, "/config"), token=token).body.decode())[1]
    assert len(base64.b64decode(made, validate=True)) == 32 and made != preshared
    assert "PresharedKey" not in api.exchange("GET", path(gateway, plain, "/config"), token=token).body.decode()
    # The owner only: neither another user nor the operator.
    assert api.exchange("GET", path(gateway, site, "/config"), token=world.user()["token"]).status == 404
    assert api.exchange("GET", path(gateway, site, "/config"), token=api.admin_token).status == 403
    assert api.exchange("GET", path(gateway, plain, "/config"), token=api.admin_token).status == 200
    # Nowhere else: not in any other answer, in no table in any form, in no log.
    assert preshared not in str(api.request("GET", path(gateway), token=token)) + str(api.request("GET", "/v1/audit?limit=200", token=api.admin_token))
    secret = base64.b64decode(preshared)
    for schema, table in api.sql("SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('gateway', 'billing')"):
        rows = "\n".join(row[0] for row in api.sql(f"SELECT t::text FROM {schema}.{table} t"))
        assert preshared not in rows and secret.hex() not in rows
    assert preshared not in api.log.read_text()


def test_a_sealed_key_opens_in_its_own_row_only(api, world, gateway):
    token = gateway["user"]["token"]
    world.deployed(gateway)
    first, second = (world.site(gateway, f"192.168.{n}.0/24", preshared_key=True) for n in (7, 8))
    sealed = api.sql("SELECT id, psk_sealed FROM gateway.peer WHERE gateway = %s", gateway["id"])
    assert len({bytes(blob) for _, blob in sealed}) == 2 and all(len(bytes(blob)) == 1 + 24 + 32 + 16 for _, blob in sealed)
    api.sql("UPDATE gateway.peer SET psk_sealed = (SELECT psk_sealed FROM gateway.peer WHERE id = %s) WHERE id = %s",
            first["id"], second["id"])
    assert api.exchange("GET", path(gateway, second, "/config"), token=token).status == 500
    assert api.exchange("GET", path(gateway, first, "/config"), token=token).status == 200
    assert world.call("PATCH", path(gateway, second), {"preshared_key": None}, token)["has_preshared_key"] is False
    assert world.call("PATCH", path(gateway, second), {"preshared_key": True}, token)["has_preshared_key"] is True


def test_pages(world, gateway):
    token, names = gateway["user"]["token"], sorted(world.peer(gateway)["name"] for _ in range(7))
    seen, after = [], ""
    for expected in (3, 3, 1):
        page = world.call("GET", path(gateway) + f"?limit=3&after={after}", token=token)
        assert len(page["items"]) == expected
        seen += [peer["name"] for peer in page["items"]]
        after = page["next"]
    assert seen == names and after is None
    for query, value in (("limit", "0"), ("limit", "201"), ("limit", "x"), ("after", "x"), ("after", "0" * 40)):
        world.refused("GET", path(gateway) + f"?{query}={value}", token=token, field=query, says=[query, value])
