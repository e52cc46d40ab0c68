# SPDX-License-Identifier: BSD-2-Clause
"""What the API accepts and what not: each refusal is a problem document that names field, value and what is accepted."""

import base64
import concurrent.futures
import json
import re
from urllib.parse import quote

import pytest

from test_roles import routes
from world import public_key, token_hash

NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def shared(api):
    from world import World
    return World(api)


@pytest.fixture(scope="module")
def gateway(shared):
    return shared.gateway()


@pytest.fixture(scope="module")
def office(shared, gateway):
    return shared.site(gateway, "192.168.201.0/24")


def peers(gateway, peer=None):
    return f"/v1/gateways/{gateway['id']}/peers" + (f"/{peer['id']}" if peer else "")


def site(**fields):
    return {"kind": "site_to_site", "name": "branch", "public_key": public_key(), "allowed_ips": ["192.168.7.0/24"], **fields}


# ---- every field of every body ----

# None of these is accepted in any field: wrong types, characters that do not show, far too much.
HOSTILE = ["line\nbreak", "\x1b[2J", "nul\x7f", "\x85", "\u202eevil", "\u2028", "\ufeff", "x" * 10240, "ä" * 5000, -(2 ** 63), 2 ** 63 - 1,
           1.5, {"a": 1}, [[["deep"]]]]
# These are no JSON, or hold what is no text.
RAW = [b"NaN", b"Infinity", b"1e999", b"1" + b"0" * 400, b'"\\ud800"', b'"\xff"', b'"\xc3"', b'"\xed\xa0\x80"', b'"nul\\u0000"', b"0x10", b"01", b"+1",
       b"'x'", b"[" * 100, b'"open']
NO_BODY = {("POST", "/v1/logout"), ("POST", "/v1/gateways/{gateway}/retry"), ("POST", "/v1/users/{user}/login-token")}


@pytest.fixture(scope="module")
def bodies(shared, gateway, office):
    """A good body for every route that takes one; what stands in the path exists."""
    location, user, plan, image = shared.location(), shared.user(), shared.plan(), shared.image()
    group, vpc = shared.group(plan), shared.vpc(user, location)
    laptop, host = shared.peer(gateway), shared.hypervisor(location)
    prices = {"credit_value": "7.2", "bandwidth_rate": "0.1", "accounting": "both", "overage": "none"}
    size = {"cpu": 1, "ram_mb": 512, "storage_gb": 4}
    subnets = [{"cidr": "10.77.0.0/24", "public": False, "gateway_range": "10.77.0.0/28", "router": "10.77.0.1",
                "attachment": {"bridge": "vpc7", "route_netns": ["ns"], "hypervisor": host["id"]}}]
    account = {"name": "someone", "email": "a@example.net", "role": "user", "max_gateways": 3}
    return {
        ("POST", "/v1/images"): {"name": "i", "path": "/i", "purpose": "other", "enabled": True},
        ("PATCH", f"/v1/images/{image['id']}"): {"name": "i2", "path": "/i", "purpose": "other", "enabled": True},
        ("POST", "/v1/plans"): {"name": "p", "included_gb": "1", "credit_value": "1", **size},
        ("PATCH", f"/v1/plans/{plan['id']}"): {"name": "p2", "included_gb": "1", "credit_value": "1", **size},
        ("POST", "/v1/plan-groups"): {"name": "g", "plans": [plan["id"]]},
        ("PATCH", f"/v1/plan-groups/{group['id']}"): {"name": "g2", "plans": [plan["id"]]},
        ("POST", "/v1/locations"): {"name": "l", "vpn_enabled": True, "image": image["id"], "plan_group": group["id"],
                                   "site_ranges": ["10.0.0.0/8"], **prices},
        ("PATCH", f"/v1/locations/{location['id']}"): {"name": "l2", "vpn_enabled": True, "image": image["id"],
                                                       "plan_group": group["id"], "site_ranges": ["10.0.0.0/8"], **prices},
        ("POST", "/v1/hypervisors"): {"name": "h", "location": location["id"], "driver": "netns", **size},
        ("PATCH", f"/v1/hypervisors/{host['id']}"): {"name": "h2", **size},
        ("POST", "/v1/users"): account,
        ("PATCH", f"/v1/users/{user['id']}"): {**account, "name": "someone2"},
        ("PUT", "/v1/users/ext-1"): {**account, "name": "someone3"},
        ("POST", "/v1/vpcs"): {"name": "v", "owner": user["id"], "location": location["id"], "subnets": subnets},
        ("PATCH", f"/v1/vpcs/{vpc['id']}"): {"name": "v2", "subnets": subnets},
        ("PUT", "/v1/vpcs/ext-1"): {"name": "v3", "owner": user["id"], "location": location["id"], "subnets": subnets},
        ("POST", "/v1/gateways"): {"vpc": vpc["id"], "plan": "none", "name": "gw", "public_subnet": "none", "tunnel_subnet": "10.98.0.0/24",
                                   "tunnel_subnet6": "fd98::/64", "listen_port": 51820, "masquerade_into_vpc": "all"},
        ("PATCH", f"/v1/gateways/{gateway['id']}"): {"name": gateway["name"], "masquerade_into_vpc": "all", "suspended": False},
        ("POST", f"/v1/gateways/{gateway['id']}/extra"): {"gb": "0.01"},
        ("POST", peers(gateway)): {"kind": "road_warrior", "name": "tablet", "public_key": public_key(), "tunnel_ip": "10.99.0.99",
                                   "tunnel_ip6": None, "dns": ["10.1.0.53"], "keepalive": 25, "enabled": True},
        ("PATCH", peers(gateway, laptop)): {"kind": "road_warrior", "name": "tablet2", "public_key": public_key(),
                                            "tunnel_ip": "10.99.0.98", "dns": ["10.1.0.53"], "keepalive": 25, "enabled": True},
        ("PATCH", peers(gateway, office)): site(name="office", endpoint="203.0.113.5:51820", preshared_key=public_key(), keepalive=25, enabled=True),
        ("POST", "/v1/login"): {"one_time_token": "x"},
    }


def row_counts(api):
    tables = api.sql("SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname IN ('gateway', 'billing') ORDER BY 1")
    return [(table, api.sql(f"SELECT count(*) FROM {table}")[0][0]) for (table,) in tables]


def spots(body, where=()):
    """Where in the body a value can be put: its fields, and those of objects and arrays within."""
    for key, value in body.items() if isinstance(body, dict) else enumerate(body):
        yield (*where, key)
        if isinstance(value, (dict, list)):
            yield from spots(value, (*where, key))


def with_value(body, spot, text):
    """The body as JSON, with this text in place of a value."""
    copy = json.loads(json.dumps(body))
    inner = copy
    for key in spot[:-1]:
        inner = inner[key]
    inner[spot[-1]] = "@here@"
    return json.dumps(copy).encode().replace(b'"@here@"', text)


def pattern(path):
    return re.compile(re.sub(r"\{\w+\}", "[^/]+", path) + "$")


def test_every_route_with_a_body_is_tried(bodies):
    for method, path, _ in routes():
        if method in ("POST", "PUT", "PATCH") and "/agent/" not in path and (method, path) not in NO_BODY:
            assert any(m == method and pattern(path).match(p) for m, p in bodies), (method, path)


def test_no_hostile_value_is_stored_or_fails(api, bodies):
    before, connection = row_counts(api), api.connect()
    for (method, path), body in bodies.items():
        token = None if path == "/v1/login" else api.admin_token
        for spot in spots(body):
            for value in [json.dumps(v).encode() for v in HOSTILE] + RAW:
                answer = api.exchange(method, path, with_value(body, spot, value), token, connection=connection)
                what = f"{method} {path} {spot} = {value[:40]!r}: {answer.status} {answer.body[:300]!r}"
                accepted = (400, 401, 409, 422) if token else (400, 401, 413, 422)  # without a token little is read
                assert answer.status in accepted and answer.headers["Content-Type"] == "application/problem+json", what
                problem = json.loads(answer.body)
                assert problem["detail"] and problem["title"] and problem["status"] == answer.status, what
                assert len(answer.body) < 2000 and answer.body.decode().isprintable(), what
                if answer.status == 422:
                    assert problem["field"].startswith(str(spot[0])) and re.search("accepted|required", problem["detail"]), what
    connection.close()
    assert row_counts(api) == before


def test_the_same_bodies_without_the_hostile_value_are_good(api, bodies):
    """So that it was the value that was refused. The wishes of the gateway's body and the token are of nothing."""
    for (method, path), body in bodies.items():
        if path not in ("/v1/login", "/v1/gateways"):
            status, answer = api.request(method, path, body, api.admin_token)
            assert status in (200, 201), f"{method} {path}: {status} {answer}"


# ---- L2, L10: text ----

@pytest.mark.parametrize("noun, body", [("users", {"name": "u"}), ("vpcs", {"name": "v"})])
@pytest.mark.parametrize("external", ["x" * 201, "x" * 3000, "ä" * 201, "a\nb", "a\x7fb", "\x1b[2J", "a\u202eb"])
def test_l2_an_id_of_the_clouds_is_short_text(api, shared, noun, body, external):
    before = row_counts(api)
    answer = api.exchange("PUT", f"/v1/{noun}/{quote(external, safe='')}", body, api.admin_token)
    problem = json.loads(answer.body)
    assert answer.status == 422 and "printable characters" in problem["detail"], problem
    assert row_counts(api) == before


def test_l2_a_long_id_of_the_clouds_is_kept(shared):
    external = "ü" * 200
    path = f"/v1/users/{quote(external)}"
    user = shared.call("PUT", path, {"name": shared.name("user")}, status=201)
    assert user["external_id"] == external and shared.call("PUT", path, {"name": user["name"]})["id"] == user["id"]


@pytest.mark.parametrize("raw, shown", [("%ff", "\\xff"), ("a%0ab", "a\\x0ab"), ("%c3", "…"), ("%ed%a0%80", "\\xed\\xa0\\x80"),
                                        ("%e2%80%ae", "\\xe2\\x80\\xae"), ("%f5%80%80%80", "\\xf5\\x80\\x80\\x80"), ("%c0%af", "\\xc0\\xaf")])
def test_l10_what_is_no_text_is_shown_all_the_same(shared, raw, shown):
    problem = shared.refused("GET", f"/v1/gateways?search={raw}", field="search", says=["search", "printable"])
    assert f'search is "{shown}"' in problem["detail"]
    for path in (f"/v1/gateways/{raw}", f"/v1/users/{raw}", f"/v1/vpcs/{raw}", f"/v1/images/{raw}", f"/v1/gateways/{raw}/usage"):
        shared.refused("GET", path, says=[raw, "printable"])


@pytest.mark.parametrize("character", ["ä", "€", "𝄞"])
def test_l10_a_value_is_cut_between_characters(shared, character):
    for shift in range(4):
        value = "x" * shift + character * 100
        problem = shared.refused("POST", "/v1/images", {"name": value, "path": "/x"}, field="name", says=["name is", "1 to 63"])
        shown = re.search('"(.*)"', problem["detail"])[1]
        assert value.startswith(shown.rstrip("…")) and len(shown) > 10


def test_names_are_counted_in_characters(api, shared):
    """63 of any kind, and a page that begins behind such a name."""
    names = ["𝄞" * 61 + str(n) for n in range(3)]
    for name in names:
        shared.image(name=name)
    page = shared.call("GET", f"/v1/images?limit=1&after={quote(NOBODY + ':' + names[0][:-1])}")
    assert page["items"][0]["name"] == names[0]
    after = quote(page["next"])
    assert shared.call("GET", f"/v1/images?limit=1&after={after}")["items"][0]["name"] == names[1]


@pytest.mark.parametrize("field", ["public_key", "preshared_key"])
@pytest.mark.parametrize("wrap", [lambda key: [key], lambda key: {"key": key}, lambda key: key + "\n", lambda key: key + "x" * 5000])
def test_a_key_is_never_quoted(shared, gateway, field, wrap):
    secret = public_key()
    problem = shared.refused("POST", peers(gateway), site(**{field: wrap(secret)}), field=field, says=[field, "not quoted", "accepted"])
    assert secret[:20] not in json.dumps(problem)


# ---- L9: queries ----

@pytest.mark.parametrize("path, query, says", [
    ("/v1/gateways", "colour=red", ["colour", "limit, after, search, status"]),
    ("/v1/gateways", "Limit=5", ["Limit", "limit, after"]),
    ("/v1/gateways", "limit=5&limit=6", ["limit", "more than once"]),
    ("/v1/gateways", "search=a&status=active&search=b", ["search", "more than once"]),
    ("/v1/gateways", "search", ["search", "no value"]),
    ("/v1/gateways", "search=a%00b", ["search", "printable"]),
    ("/v1/gateways", "status=Active", ["Active", "deploying, active"]),
    ("/v1/gateways", "limit=%20+5", ["limit", "1 to 200"]),
    ("/v1/gateways", "limit=%2B5", ["+5", "1 to 200"]),
    ("/v1/gateways", "limit=-5", ["-5", "1 to 200"]),
    ("/v1/gateways", "limit=5%20", ["5 ", "1 to 200"]),
    ("/v1/gateways", "limit=0x5", ["0x5", "1 to 200"]),
    ("/v1/gateways", "limit=5.0", ["5.0", "1 to 200"]),
    ("/v1/gateways", "limit=", ["limit", "1 to 200"]),
    ("/v1/gateways", "limit=18446744073709551621", ["18446744073709551621", "1 to 200"]),
    ("/v1/gateways", "=5", ['""', "limit, after"]),
    ("/v1/ledger", "limit=+5", ["limit", "1 to 200"]),
    ("/v1/ledger", "after=%201", ["after", "id of the feed"]),
    ("/v1/ledger", "from=2026-11-01T00:00:00Z", ["from", "limit, after"]),
    ("/v1/plans", "search=a", ["search", "limit, after"]),
    ("/v1/me", "x=1", ["x", "none"]),
    ("/v1/health", "x=1", ["x", "none"]),
    ("/v1/audit", "actor=a", ["actor", "limit, after"]),
    ("/metrics", "name=a", ["name", "none"]),
])
def test_l9_a_query_is_as_strict_as_a_body(shared, path, query, says):
    shared.refused("GET", f"{path}?{query}", says=says)


@pytest.mark.parametrize("query", ["interval=week", "interval=hour&interval=day", "from=2026-11-01", "from=%202026-11-01T00:00:00Z",
                                   "to=9999-01-01T00:00:00Z", "to=2026-11-01T00:00:00Z&from=2026-11-01T00:00:00Z", "to=2026-11-01T00:00:00Z&from=2026-11-02T00:00:00Z",
                                   "to=2026-02-30T00:00:00Z", "by=peer&by=gateway", "peer=x", "after=x"])
def test_l9_usage(shared, gateway, query):
    shared.refused("GET", f"/v1/gateways/{gateway['id']}/usage?{query}", field=re.match(r"\w+", query)[0], says=["accepted"])


def test_l9_what_changes_takes_no_query(api, shared):
    shared.refused("POST", "/v1/images?dry_run=1", {"name": "i", "path": "/i"}, says=["dry_run", "none"])
    assert shared.call("GET", "/v1/images?&limit=1&")["items"]


# ---- L1, L8: who asks for whom ----

def test_l1_names_of_users_cannot_be_tried_out(api, shared):
    asking, there = shared.user(), shared.user()
    for more in ("usage", "report"):
        texts = set()
        for name in (there["name"], there["id"], "no-such-user", NOBODY):
            problem = shared.refused("GET", f"/v1/users/{name}/{more}", token=asking["token"], status=404)
            texts.add(json.dumps(problem).replace(name, "NAME"))
        assert len(texts) == 1, texts


def test_l8_a_service_names_ordinary_users_only(api, shared):
    service, location, user = shared.user("service"), shared.location(), shared.user()
    wanted = {"name": "v", "location": location["id"], "subnets": []}
    details = set()
    for name in ("admin", shared.user("billing")["id"], service["id"], "nobody"):
        for method, path in (("POST", "/v1/vpcs"), ("PUT", "/v1/vpcs/l8")):
            problem = shared.refused(method, path, {**wanted, "owner": name}, service["token"], field="owner", says=[name, "role user"])
            details.add(problem["detail"].replace(name, "NAME"))
    assert len(details) == 1
    assert shared.call("POST", "/v1/vpcs", {**wanted, "owner": user["name"]}, service["token"], 201)["owner"] == user["id"]


@pytest.mark.parametrize("role", ["admin", "user", "billing"])
def test_l8_who_is_no_service_acts_for_nobody(shared, role):
    asking, other = shared.user(role), shared.user()
    for path in ("/v1/me", "/v1/locations"):
        shared.refused("GET", path, token=asking["token"], status=403, headers={"Wiretoll-Act-For": other["id"]},
                       field="Wiretoll-Act-For", says=["role service"])


def test_l8_a_service_is_told_that_it_has_to_act_for_somebody(shared):
    service = shared.user("service")
    for method, path, body in (("GET", "/v1/gateways", None), ("POST", "/v1/gateways", {}), ("GET", "/v1/vpcs", None),
                               ("GET", f"/v1/gateways/{NOBODY}", None), ("GET", f"/v1/gateways/{NOBODY}/usage", None),
                               ("POST", f"/v1/gateways/{NOBODY}/peers", {}), ("DELETE", "/v1/vpcs/x", None)):
        shared.refused(method, path, body, service["token"], field="Wiretoll-Act-For", says=["required", "role user"])
    for name in ("nobody", "admin", service["id"], "a\x80b", ""):
        shared.refused("GET", "/v1/gateways", token=service["token"], headers={"Wiretoll-Act-For": name}, field="Wiretoll-Act-For",
                       says="role user")
    assert shared.call("GET", "/v1/me", token=service["token"])["role"] == "service"
    shared.call("GET", "/v1/locations", token=service["token"])


# ---- F11: keys ----

SMALL_ORDER = [bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f", b"\xed" + b"\xff" * 30 + b"\x7f", b"\xee" + b"\xff" * 30 + b"\x7f",
               bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
               bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157")]
# The base point's other spellings: no private key has such a public one, and WireGuard compares bytes.
NOT_REDUCED = [b"\x09" + bytes(30) + b"\x80", b"\xf6" + b"\xff" * 30 + b"\x7f"]


@pytest.mark.parametrize("key", SMALL_ORDER + NOT_REDUCED, ids=lambda key: key.hex()[:8])
def test_f11_a_public_key_with_which_no_handshake_succeeds(shared, gateway, key):
    shared.refused("POST", peers(gateway), site(public_key=base64.b64encode(key).decode()), field="public_key", says="44 characters")


@pytest.mark.parametrize("value", [base64.b64encode(bytes(32)).decode(), False, 0, 1, "", "true", "A" * 43, "A" * 44,
                                   base64.b64encode(b"x" * 31).decode(), base64.b64encode(b"x" * 33).decode(), b"\xff".hex() * 32])
def test_f11_a_preshared_key_that_is_none(api, shared, gateway, office, value):
    before = row_counts(api), shared.call("GET", peers(gateway, office))
    shared.refused("POST", peers(gateway), site(preshared_key=value), field="preshared_key", says="accepted")
    problem = shared.refused("PATCH", peers(gateway, office), {"preshared_key": value}, field="preshared_key", says="accepted")
    if value != "":
        assert "true to have one made, or null for none" in problem["detail"]
    assert (row_counts(api), shared.call("GET", peers(gateway, office))) == before


# ---- F8, F9: endpoints ----

@pytest.mark.parametrize("endpoint", [
    "192.0.2.256:51820", "999.1.1.1:51820", "192.0.2.1.5:51820", "192.0.2.010:51820", "192.0.2:51820", "3221225985:51820", "0xc0000201:51820",
    "0xc0.0.2.1:51820", "192.0.2.0x1:51820", "192.0.2.1.:51820", "a..b:51820", ".a:51820", "a.:51820", "-a.example:51820", "a-.example:51820",
    "a_b.example:51820", "a,b:51820", "ä.example:51820", "a" * 64 + ".example:51820", "a." * 124 + "example:1",
    "localhost:51820", "a.localhost:51820", "LOCALHOST:1",
    "192.0.2.1:+51820", "192.0.2.1:051820", "192.0.2.1:5e4", "192.0.2.1:-1", "192.0.2.1:65536", "192.0.2.1:99999", "192.0.2.1:", "192.0.2.1", ":51820",
    "[2001:db8::1%eth0]:51820", "[2001:db8::1]51820", "[2001:db8::g]:51820", "[2001:db8::1]:0", "2001:db8::1:51820", "[192.0.2.1]:51820", "[]:51820",
    "[[2001:db8::1]]:51820", "[2001:db8::1 ]:51820", "wg://192.0.2.1:51820", "192.0.2.1/32:51820"])
def test_f9_what_is_no_endpoint(shared, gateway, office, endpoint):
    for method, path, body in (("POST", peers(gateway), site(endpoint=endpoint)), ("PATCH", peers(gateway, office), {"endpoint": endpoint})):
        shared.refused(method, path, body, field="endpoint", says=[f'endpoint is "{endpoint[:100]}', "HOST:PORT", "1 to 65535"])


@pytest.mark.parametrize("address, says", [
    ("0.0.0.0", "this network"), ("0.1.2.3", "this network"), ("255.255.255.255", "broadcast"), ("224.0.0.1", "multicast"), ("239.255.255.250", "multicast"),
    ("127.0.0.1", "loopback"), ("127.8.8.8", "loopback"), ("169.254.169.254", "link-local"), ("240.0.0.1", "reserved"), ("192.0.0.8", "IETF"),
    ("[::]", "unspecified"), ("[::1]", "loopback"), ("[ff02::1]", "multicast"), ("[fe80::1]", "link-local"), ("[::ffff:192.0.2.1]", "IPv4-mapped"),
    ("[64:ff9b::7f00:1]", "loopback"), ("[64:ff9b::e000:1]", "multicast"), ("[fec0::1]", "site-local"), ("[100::1]", "discard")])
def test_f9_an_address_that_cannot_be_called(shared, gateway, office, address, says):
    for method, path, body in (("POST", peers(gateway), site(endpoint=f"{address}:51820")),
                               ("PATCH", peers(gateway, office), {"endpoint": f"{address}:51820"})):
        shared.refused(method, path, body, field="endpoint", says=[address.strip("[]"), says, "accepted is a unicast address"])


@pytest.mark.parametrize("endpoint", ["192.0.2.10:51820", "10.7.0.1:1", "100.64.0.1:51820", "8.8.8.8:65535", "[2001:db8::10]:51820", "[fd00::1]:51820",
                                      "[64:ff9b::192.0.2.1]:51820", "VPN.Example.org:51820", "office:51820", "7.example:51820", "1.2.3.4.example:51820",
                                      "xn--bcher-kva.example:51820", None])
def test_f9_good_endpoints(shared, gateway, office, endpoint):
    assert shared.call("PATCH", peers(gateway, office), {"endpoint": endpoint})["endpoint"] == endpoint


def test_f9_the_gateways_own_addresses(api, shared):
    gateway = shared.gateway()
    shared.deployed(gateway)
    there = shared.site(gateway, "192.168.7.0/24")
    for method, path, body in (("POST", peers(gateway), site(allowed_ips=["192.168.8.0/24"], endpoint="198.51.100.10:51820")),
                               ("PATCH", peers(gateway, there), {"endpoint": "198.51.100.10:1"})):
        shared.refused(method, path, body, field="endpoint", says=["198.51.100.10", "an address of gateway", gateway["name"], "accepted"])
    assert shared.call("PATCH", peers(gateway, there), {"endpoint": "198.51.100.11:51820"})["endpoint"]


def test_f8_an_endpoint_in_a_sites_own_networks(shared):
    """Accepted, as the gateway's own packets never go into the tunnel; behind the tunnel itself nobody listens."""
    gateway = shared.gateway()
    for n, endpoint in ((7, "192.168.7.9:51820"), (8, "192.168.7.10:51820"), (9, "10.1.0.9:51820")):
        assert shared.site(gateway, f"192.168.{n}.0/24", endpoint=endpoint)["endpoint"] == endpoint
    for subnet, address in ((gateway["tunnel_subnet"], "10.99.0.7"), (gateway["tunnel_subnet6"], "[" + gateway["tunnel_subnet6"].replace("/64", "7]"))):
        shared.refused("POST", peers(gateway), site(allowed_ips=["192.168.10.0/24"], endpoint=f"{address}:51820"), status=409, field="endpoint",
                       says=[address, subnet, gateway["name"]])


# ---- F12, P7: networks ----

SPECIAL = [("0.0.0.0/24", "this network"), ("0.0.0.0/8", "this network"), ("127.0.0.0/24", "loopback"), ("127.0.0.0/8", "loopback"),
           ("169.254.7.0/24", "link-local"), ("169.254.0.0/16", "link-local"), ("192.0.0.0/24", "IETF"), ("192.88.99.0/24", "6to4"),
           ("224.0.0.0/24", "multicast"), ("239.0.0.0/16", "multicast"), ("240.0.0.0/24", "reserved"), ("255.255.255.0/24", "broadcast")]
SPECIAL6 = [("fe80::/64", "link-local"), ("ff02::/64", "multicast"), ("ff02::/16", "multicast"), ("::/64", "unspecified"), ("100::/64", "discard"),
            ("fec0::/64", "site-local"), ("4000::/64", "reserved"), ("::ffff:0.0.0.0/96", "mapped"), ("2001::/64", "IETF")]
TOO_LARGE = ["0.0.0.0/0", "0.0.0.0/5", "64.0.0.0/2", "128.0.0.0/1", "10.0.0.0/7", "8.0.0.0/5", "::/0", "2000::/3", "fc00::/7", "fd00::/15"]


@pytest.fixture(scope="module")
def bare(shared):
    """A VPC without a gateway."""
    user = shared.user()
    return shared.vpc(user, shared.location())


@pytest.mark.parametrize("network, name", [*SPECIAL, *SPECIAL6, ("192.0.2.0/24", "documentation"), ("203.0.113.0/25", "documentation"),
                                           ("2001:db8::/64", "documentation"), ("3fff::/64", "documentation")])
def test_f12_tunnel_subnets(api, shared, bare, network, name):
    field = "tunnel_subnet6" if ":" in network else "tunnel_subnet"
    before = row_counts(api)
    for body in ({"vpc": bare["id"], field: network}, {"vpc": bare["id"], "plan": "x", field: network}):
        problem = shared.refused("POST", "/v1/gateways", body, field=field, says=[network, "IPv6" if ":" in network else "IPv4", "accepted is an"])
    if not network.endswith(("/8", "/16")):
        assert name in problem["detail"]
    assert row_counts(api) == before


@pytest.mark.parametrize("network", ["10.0.0.0/15", "10.0.0.0/31", "10.0.0.1/24", "10.0.0.0", "10.0.0/24", "010.0.0.0/24", "10.0.0.0/024", "10.0.0.0/+24", "10.0.0.0/24 "])
def test_f12_what_is_no_tunnel_subnet(shared, bare, network):
    shared.refused("POST", "/v1/gateways", {"vpc": bare["id"], "tunnel_subnet": network}, field="tunnel_subnet", says=[network, "16 to 30"])


@pytest.mark.parametrize("network, name", [*SPECIAL, *SPECIAL6])
def test_f12_special_ranges_are_no_networks_of_sites_or_vpcs(api, shared, gateway, office, bare, network, name):
    before = row_counts(api)
    for method, path, body in (("POST", peers(gateway), site(allowed_ips=["192.168.7.0/24", network])),
                               ("PATCH", peers(gateway, office), {"allowed_ips": [network]})):
        problem = shared.refused(method, path, body, field="allowed_ips", says=["allowed_ips[", network, "accepted is a network"])
        assert name in problem["detail"]
    wanted = {"name": "x", "owner": bare["owner"], "location": bare["location"], "subnets": [{"cidr": network, "public": True}]}
    for method, path in (("POST", "/v1/vpcs"), ("PUT", "/v1/vpcs/f12")):
        shared.refused(method, path, wanted, field="subnets[0].cidr", says=[network, name, "accepted is a network"])
    assert row_counts(api) == before


@pytest.mark.parametrize("network", TOO_LARGE)
def test_f12_networks_that_hold_nearly_everything(shared, gateway, bare, network):
    shared.refused("POST", peers(gateway), site(allowed_ips=[network]), field="allowed_ips", says=[network, "too large", "of length"])
    wanted = {"name": "x", "owner": bare["owner"], "location": bare["location"], "subnets": [{"cidr": network}]}
    shared.refused("POST", "/v1/vpcs", wanted, field="subnets[0].cidr", says=[network, "too large", "of length"])


@pytest.mark.parametrize("network", ["8.8.8.0/24", "100.64.0.0/10", "198.51.100.10/32", "203.0.113.0/24", "2001:db8:7::/48", "2a00:1::/32", "172.32.0.0/16",
                                     "192.169.0.0/24", "11.0.0.0/8"])
def test_p7_sites_use_private_ranges_unless_the_operator_lets_them(shared, gateway, network):
    shared.refused("POST", peers(gateway), site(allowed_ips=["192.168.7.0/24", network]), field="allowed_ips",
                   says=[network, gateway["location_name"], "10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, fc00::/7"])


def test_p7_the_operator_says_what_sites_may_use(api, shared):
    gateway = shared.gateway()
    path = f"/v1/locations/{gateway['location']}"
    assert shared.call("GET", path)["site_ranges"] == ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]
    there = shared.site(gateway, "192.168.7.0/24")
    assert shared.call("PATCH", path, {"site_ranges": ["100.64.0.0/10", "0.0.0.0/0"]})["site_ranges"] == ["100.64.0.0/10", "0.0.0.0/0"]
    shared.site(gateway, "8.8.8.0/24")
    # What cannot be used, nobody may; nor the gateway's own address.
    shared.refused("POST", peers(gateway), site(allowed_ips=["127.0.0.0/24"]), field="allowed_ips", says="loopback")
    shared.refused("POST", peers(gateway), site(allowed_ips=["0.0.0.0/0"]), field="allowed_ips", says="too large")
    shared.deployed(gateway)
    shared.refused("POST", peers(gateway), site(allowed_ips=["198.51.100.8/29"]), status=409, field="allowed_ips",
                   says=["198.51.100.8/29", "198.51.100.10, the public address of gateway", gateway["name"]])
    # What a site has, it keeps (A10).
    shared.call("PATCH", path, {"site_ranges": []})
    assert shared.call("PATCH", peers(gateway, there), {"name": "kept"})["allowed_ips"] == ["192.168.7.0/24"]
    shared.refused("PATCH", peers(gateway, there), {"allowed_ips": ["192.168.7.0/25"]}, field="allowed_ips", says=["192.168.7.0/25", "none"])
    created = shared.call("POST", "/v1/locations", {"name": shared.name("l"), "site_ranges": ["fd00::/8"], "credit_value": "1", "bandwidth_rate": "1"}, status=201)
    assert created["site_ranges"] == ["fd00::/8"]


@pytest.mark.parametrize("value", [["10.0.0.1/8"], ["ten"], [7], [None], ["127.0.0.0/8"], ["169.254.1.0/24"], ["fe80::/10"], ["10.0.0.0/8", "224.0.0.0/4"],
                                   ["10.0.0.0/8"] * 65])
def test_site_ranges_that_are_none(shared, gateway, value):
    shared.refused("PATCH", f"/v1/locations/{gateway['location']}", {"site_ranges": value}, field="site_ranges", says=["site_ranges[", "up to 64 networks"])


# ---- F10: DNS ----

def test_f10_search_domains_stand_behind_the_servers(shared):
    gateway = shared.gateway()
    shared.deployed(gateway)
    wanted = ["corp.example", "10.1.0.53", "null", "fd00::53", "lab.corp.example"]
    peer = shared.peer(gateway, dns=wanted)
    assert peer["dns"] == ["10.1.0.53", "fd00::53", "corp.example", "null", "lab.corp.example"]
    text = shared.api.exchange("GET", peers(gateway, peer) + "/config", token=gateway["user"]["token"]).body.decode()
    assert "\nDNS = 10.1.0.53, fd00::53, corp.example, null, lab.corp.example\n" in text
    assert shared.call("PATCH", peers(gateway, peer), {"name": "renamed"})["dns"] == peer["dns"]
    assert shared.call("PATCH", peers(gateway, peer), {"dns": ["10.1.0.54"]})["dns"] == ["10.1.0.54"]
    assert shared.call("PATCH", peers(gateway, peer), {"dns": []})["dns"] == []


@pytest.mark.parametrize("entries, says", [
    (["corp.example"], "beside the IP address"), (["10.0.0.1"] * 5, "up to 4"), (["10.0.0.1"] + ["a.example"] * 7, "up to 6"),
    (["10.0.0.1", "10.0.0.256"], "10.0.0.256"), (["10.0.0.01"], "10.0.0.01"), (["10.0.0.1", "1.2.3"], "1.2.3"), (["10.0.0.1", "a..b"], "a..b"),
    (["10.0.0.1", "-a.example"], "-a.example"), (["10.0.0.1", "a b"], "a b"), (["10.0.0.1", 'a","b'], 'a","b'), (["10.0.0.1", "a,b"], "a,b"), (["10.0.0.1", "*.corp"], "*.corp"),
    (["10.0.0.1", ""], "dns[1]"), (["10.0.0.1/32"], "10.0.0.1/32"), (["10.0.0.1:53"], "10.0.0.1:53"), ([53], "dns[0]"), ([None], "dns[0]"),
    (["0.0.0.0"], "this network"), (["127.0.0.1"], "loopback"), (["224.0.0.251"], "multicast"), (["fe80::1"], "link-local"), (["::"], "unspecified"),
    (["255.255.255.255"], "broadcast")])
def test_f10_what_is_neither_server_nor_domain(shared, gateway, entries, says):
    body = {"name": "laptop", "public_key": public_key(), "dns": entries}
    shared.refused("POST", peers(gateway), body, field="dns", says=["dns", says, "accepted"])


# ---- L12: bridges, routers ----

@pytest.mark.parametrize("bridge", ["lo", "-x", ".x", "..", ".", "all", "default", "br/0", "br 0", "br:0", "x" * 16, "br%d", "bä", "br;0", "$x"])
def test_l12_what_is_no_bridge(shared, bare, bridge):
    wanted = {"name": "x", "owner": bare["owner"], "location": bare["location"], "subnets": [{"cidr": "10.2.0.0/24", "attachment": {"bridge": bridge}}]}
    for method, path in (("POST", "/v1/vpcs"), ("PUT", "/v1/vpcs/l12")):
        shared.refused(method, path, wanted, field="subnets[0].attachment.bridge", says=[f'bridge is "{bridge}"', "1 to 15"])


@pytest.mark.parametrize("field, value", [("router", "10.2.0.0"), ("router", "10.2.0.255"), ("router", "10.2.1.1"), ("router", "fd00::1"), ("router", "127.0.0.1"),
                                          ("gateway_range", "10.2.0.9-10.2.0.8"), ("gateway_range", "10.2.0.9-10.2.1.8"), ("gateway_range", "10.2.0.9-fd00::1"),
                                          ("gateway_range", "10.2.0.1-10.2.0.2-10.2.0.3"), ("gateway_range", "10.2.0.1/28")])
def test_a_routers_and_a_ranges_addresses(shared, bare, field, value):
    wanted = {"name": "x", "owner": bare["owner"], "location": bare["location"], "subnets": [{"cidr": "10.2.0.0/24", field: value}]}
    shared.refused("POST", "/v1/vpcs", wanted, field=f"subnets[0].{field}", says=[value, "within 10.2.0.0/24"])


# ---- S3A, S3B: what is in use ----

def in_use(shared, path, *users):
    """Refused with the kind, name and id of each, and no word of the database's own."""
    problem = shared.refused("DELETE", path, status=409, says=["is in use by", *(f"{kind} {user['name']} ({user['id']}" for kind, user in users)])
    assert not re.search("fkey|_key|constraint|_check", problem["detail"]), problem
    return problem


def test_s3a_an_image_that_a_location_names_stays(shared):
    image = shared.image()
    location = shared.location(image=image["id"])
    in_use(shared, f"/v1/images/{image['name']}", ("location", location))
    assert shared.call("GET", f"/v1/locations/{location['id']}")["image"] == image["id"]
    shared.call("PATCH", f"/v1/locations/{location['id']}", {"image": None})
    shared.call("DELETE", f"/v1/images/{image['id']}", status=204)


def test_s3b_what_is_in_use_says_by_what(api, shared):
    gateway = shared.gateway()
    vpc = shared.call("GET", f"/v1/vpcs/{gateway['vpc']}")
    location = shared.call("GET", f"/v1/locations/{gateway['location']}")
    group = shared.call("GET", f"/v1/plan-groups/{location['plan_group']}")
    [host] = [h for h in shared.call("GET", "/v1/hypervisors?limit=200")["items"] if h["location"] == location["id"]]
    in_use(shared, f"/v1/plans/{gateway['plan']}", ("plan group", group), ("gateway", gateway))
    in_use(shared, f"/v1/plan-groups/{group['id']}", ("location", location))
    in_use(shared, f"/v1/locations/{location['name']}", ("hypervisor", host), ("VPC", vpc), ("gateway", gateway))
    in_use(shared, f"/v1/hypervisors/{host['id']}", ("subnet 10.1.0.0/24 of VPC", vpc))
    in_use(shared, f"/v1/users/{gateway['owner']}", ("VPC", vpc), ("gateway", gateway))
    in_use(shared, f"/v1/vpcs/{vpc['id']}", ("gateway", gateway))
    # A gateway that is gone was billed: its owner, plan and location stay with its name.
    api.sql("SELECT gateway.complete_delete(%s)", gateway["id"])
    shared.call("DELETE", f"/v1/vpcs/{vpc['id']}", status=204)
    for path in (f"/v1/plans/{gateway['plan']}", f"/v1/users/{gateway['owner']}"):
        assert "deleted, but in its owner's bills" in in_use(shared, path, ("gateway", gateway))["detail"]


def test_s3b_more_than_a_few_are_not_all_told(shared):
    plan = shared.plan()
    for _ in range(5):
        shared.group(plan)
    problem = in_use(shared, f"/v1/plans/{plan['id']}")
    assert problem["detail"].count("plan group ") == 3 and "and more" in problem["detail"]


# ---- S3C: a VPC without an id of the cloud's ----

def test_s3c_a_vpc_is_changed_by_its_own_id(api, shared):
    gateway = shared.gateway()
    vpc = shared.call("GET", f"/v1/vpcs/{gateway['vpc']}")
    assert vpc["external_id"] is None
    path = f"/v1/vpcs/{vpc['id']}"
    renamed = shared.call("PATCH", path, {"name": shared.name("renamed")})
    assert (renamed["id"], renamed["subnets"]) == (vpc["id"], vpc["subnets"]) and renamed["name"] != vpc["name"]
    kept = [{key: subnet[key] for key in ("cidr", "public", "gateway_range", "router", "attachment")} for subnet in vpc["subnets"]]
    more = shared.call("PATCH", path, {"subnets": [*kept, {"cidr": "10.7.0.0/24"}]})
    assert [s["cidr"] for s in more["subnets"]] == sorted([*(s["cidr"] for s in vpc["subnets"]), "10.7.0.0/24"], key=lambda c: [int(n) for n in c.split("/")[0].split(".")])
    assert more["name"] == renamed["name"]
    shared.refused("PATCH", path, {"subnets": kept[:1]}, status=409, field="subnets", says=[kept[1]["cidr"], "in use", gateway["name"], gateway["id"]])
    for field in ("owner", "location", "external_id"):
        shared.refused("PATCH", path, {field: vpc["owner"]}, field=field, says=[field, "accepted are: name, subnets"])
    other = shared.vpc(gateway["user"], {"id": vpc["location"]})
    shared.refused("PATCH", path, {"name": other["name"]}, status=409, field="name", says=[other["name"], "taken"])
    shared.refused("PATCH", f"/v1/vpcs/{NOBODY}", {"name": "x"}, status=404, says=NOBODY)
    shared.refused("PATCH", path, {"name": "x"}, gateway["user"]["token"], 403)
    service = shared.user("service")
    assert shared.call("PATCH", path, {}, service["token"], headers={"Wiretoll-Act-For": gateway["owner"]})["id"] == vpc["id"]
    shared.refused("PATCH", path, {}, service["token"], 404, headers={"Wiretoll-Act-For": shared.user()["id"]})
    actions = [row[0] for row in api.sql("SELECT action FROM gateway.audit WHERE object = %s", path)]
    assert actions.count("change") == 3


# ---- S3D: the last admin ----

@pytest.fixture
def only_admin(api):
    """All others are ordinary users for a while."""
    others = [row[0] for row in api.sql("UPDATE gateway.app_user SET role = 'user' WHERE role = 'admin' AND name <> 'admin' RETURNING id::text")]
    yield
    api.sql("UPDATE gateway.app_user SET role = 'admin' WHERE name = 'admin' OR id::text = ANY (%s)", others)


def test_s3d_the_last_admin_stays_one(api, shared, only_admin):
    for role in ("user", "billing", "service"):
        shared.refused("PATCH", "/v1/users/admin", {"role": role}, status=409, field="role", says=["admin", "last admin", role])
    api.sql("UPDATE gateway.app_user SET external_id = 'the-admin' WHERE name = 'admin'")
    shared.refused("PUT", "/v1/users/the-admin", {"name": "admin", "role": "user"}, status=409, field="role", says="last admin")
    shared.call("PATCH", "/v1/users/admin", {"role": "admin", "email": "root@example.net"})
    second = shared.user("admin")
    assert shared.call("PATCH", "/v1/users/admin", {"role": "user"}, second["token"])["role"] == "user"
    shared.refused("PATCH", f"/v1/users/{second['id']}", {"role": "user"}, second["token"], 409, field="role", says="last admin")
    assert shared.call("PATCH", "/v1/users/admin", {"role": "admin"}, second["token"])["role"] == "admin"


def test_s3d_of_two_admins_who_demote_each_other_one_stays(api, shared, only_admin):
    second = shared.user("admin")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            first = pool.submit(api.request, "PATCH", f"/v1/users/{second['id']}", {"role": "user"}, api.admin_token)
            other = pool.submit(api.request, "PATCH", "/v1/users/admin", {"role": "user"}, second["token"])
            assert sorted((first.result()[0], other.result()[0]))[0] == 200
            assert api.sql("SELECT count(*) FROM gateway.app_user WHERE role = 'admin'") == [(1,)]
            api.sql("UPDATE gateway.app_user SET role = 'admin' WHERE name = 'admin' OR id = %s", second["id"])


def test_s3d_init_brings_an_admin_back(api, shared, only_admin):
    api.sql("UPDATE gateway.app_user SET role = 'user' WHERE name = 'admin'")
    token = json.loads(api.init("--new-admin-token"))["admin_token"]
    status, session = api.request("POST", "/v1/login", {"one_time_token": token})
    assert status == 200 and session["role"] == "admin"
    # Where there is another admin, the token is for that one, and nobody's role changes.
    second = shared.user("admin")
    api.sql("UPDATE gateway.app_user SET role = 'user' WHERE name = 'admin'")
    token = json.loads(api.init("--new-admin-token"))["admin_token"]
    status, session = api.request("POST", "/v1/login", {"one_time_token": token})
    assert (status, session["user"]) == (200, second["id"])
    assert api.sql("SELECT role FROM gateway.app_user WHERE name = 'admin'") == [("user",)]


# ---- S3E: prices ----

def test_s3e_prices_and_allowances_are_asked_for(shared):
    location = {"name": shared.name("location"), "credit_value": "0", "bandwidth_rate": "0"}
    plan = {"name": shared.name("plan"), "cpu": 1, "ram_mb": 64, "storage_gb": 1, "included_gb": None}
    for path, body, field, says in (("/v1/locations", location, "credit_value", "a decimal"), ("/v1/locations", location, "bandwidth_rate", "a decimal"),
                                    ("/v1/plans", plan, "included_gb", "null for unlimited")):
        missing = {key: value for key, value in body.items() if key != field}
        shared.refused("POST", path, missing, field=field, says=[f"{field} is required", says])
        if path == "/v1/locations":
            shared.refused("POST", path, {**body, field: None}, field=field, says="required")
    assert shared.call("POST", "/v1/locations", location, status=201)["credit_value"] == "0"
    assert shared.call("POST", "/v1/plans", plan, status=201)["included_gb"] is None


# ---- F13: names of configuration files ----

DEVICES = ["con", "PRN", "Aux", "nul", "com0", "COM9", "lpt1", "con.home", "nul.x.y", "lo", "all", "default"]


def config_name(shared, gateway, peer):
    answer = shared.api.exchange("GET", peers(gateway, peer) + "/config", token=gateway["user"]["token"])
    name = re.fullmatch(r'attachment; filename="(.*)\.conf"', answer.headers["Content-Disposition"])[1]
    assert re.fullmatch("[a-zA-Z0-9_=+.-]{1,15}", name) and name not in (".", "..")
    return name


def test_f13_names_of_files_are_short_unique_and_stay(shared):
    gateway = shared.gateway()
    shared.deployed(gateway)
    made = [shared.peer(gateway, name=name) for name in ("customer-site-berlin-1", "customer-site-berlin-2", "Customer-Site-Berlin-3", "laptop",
                                                        "LAPTOP", "a-very-long.name_of_a_laptop", "customer-site-2", "x" * 63, "y.")]
    names = [config_name(shared, gateway, peer) for peer in made]
    assert names[:7] == ["customer-site-b", "customer-site-2", "Customer-Site-3", "laptop", "LAPTOP-2", "a-very-long.nam", "customer-site-4"]
    assert names[7:] == ["x" * 15, "y."]
    assert len({name.lower() for name in names}) == len(names)
    assert [shared.call("GET", peers(gateway, peer))["config_name"] for peer in made] == names
    # What else comes, goes or changes, a name stays; one that is free again can be taken.
    shared.call("DELETE", peers(gateway, made[0]), status=204)
    shared.call("PATCH", peers(gateway, made[1]), {"name": "customer-site-berlin-2", "enabled": False})
    assert config_name(shared, gateway, made[1]) == "customer-site-2"
    assert config_name(shared, gateway, shared.peer(gateway, name="customer-site-bonn")) == "customer-site-b"
    shared.call("PATCH", peers(gateway, made[3]), {"name": "tablet"})
    assert config_name(shared, gateway, made[3]) == "tablet" and config_name(shared, gateway, made[4]) == "LAPTOP-2"


@pytest.mark.parametrize("name", DEVICES)
def test_f13_no_name_of_a_device(shared, gateway, name):
    shared.deployed(gateway)
    got = config_name(shared, gateway, shared.peer(gateway, name=name))
    assert got.lower() == f"wg-{name}".lower() and got.split(".")[0].lower() not in DEVICES


@pytest.mark.parametrize("name", ["console", "com10", "lpt", "null", "aux1", "all-of-us"])
def test_f13_what_only_looks_like_a_device(shared, gateway, name):
    shared.deployed(gateway)
    assert config_name(shared, gateway, shared.peer(gateway, name=name)) == name


# ---- L7: what customers see ----

def test_l7_customers_do_not_see_the_clouds_own_things(api, shared):
    gateway = shared.gateway()
    host = api.sql("UPDATE gateway.gateway SET hypervisor = (SELECT id FROM gateway.hypervisor WHERE location = %s) WHERE id = %s RETURNING "
                   "(SELECT name FROM gateway.hypervisor h WHERE h.id = hypervisor)", gateway["location"], gateway["id"])[0][0]
    service, act = shared.user("service")["token"], {"Wiretoll-Act-For": gateway["owner"]}
    for token, headers in ((gateway["user"]["token"], None), (service, act)):
        for path in (f"/v1/gateways/{gateway['id']}", "/v1/gateways", f"/v1/vpcs/{gateway['vpc']}", "/v1/vpcs"):
            text = json.dumps(shared.call("GET", path, token=token, headers=headers))
            for hidden in (host, "bridge", "route_netns", '"vpc0"', '"pub0"'):
                assert hidden not in text, (path, hidden)
        changed = shared.call("PATCH", f"/v1/gateways/{gateway['id']}", {"name": gateway["name"]}, token, headers=headers)
        assert changed["hypervisor"] is None
    assert shared.call("GET", f"/v1/gateways/{gateway['id']}")["hypervisor"] == host
    assert host in json.dumps(shared.call("GET", "/v1/gateways?limit=200"))
    assert shared.call("GET", f"/v1/vpcs/{gateway['vpc']}")["subnets"][0]["attachment"]["bridge"] == "vpc0"


# ---- M5: sessions ----

def sessions(shared, token, query=""):
    return shared.call("GET", f"/v1/sessions?limit=200{query}", token=token)["items"]


def test_m5_a_user_ends_its_own_sessions(api, shared):
    user = shared.user()
    second, one_time = api.token_of(user["id"]), shared.call("POST", f"/v1/users/{user['id']}/login-token", status=201)
    listed = sessions(shared, user["token"])
    assert [(s["kind"], s["current"]) for s in listed] == [("session", True), ("session", False), ("one_time_token", False)]
    assert all(s["user"] == user["id"] and s["user_name"] == user["name"] and s["expires"] > s["created"] for s in listed)
    assert [s["address"] for s in listed] == ["127.0.0.1", "127.0.0.1", None] and listed[2]["id"] == one_time["id"]
    assert one_time["one_time_token"] not in json.dumps(listed) and user["token"] not in json.dumps(listed)
    shared.call("DELETE", f"/v1/sessions/{listed[1]['id']}", token=user["token"], status=204)
    assert api.request("GET", "/v1/me", token=second)[0] == 401
    shared.call("DELETE", f"/v1/sessions/{listed[2]['id']}", token=user["token"], status=204)
    shared.refused("POST", "/v1/login", {"one_time_token": one_time["one_time_token"]}, status=401, field="one_time_token")
    shared.refused("DELETE", f"/v1/sessions/{listed[1]['id']}", token=user["token"], status=404, says=listed[1]["id"])
    shared.call("DELETE", f"/v1/sessions/{listed[0]['id']}", token=user["token"], status=204)
    assert api.request("GET", "/v1/me", token=user["token"])[0] == 401
    ended = api.sql("SELECT object, actor::text, owner::text FROM gateway.audit WHERE action = 'session.end' AND actor = %s ORDER BY id", user["id"])
    assert ended == [(listed[n]["id"], user["id"], user["id"]) for n in (1, 2, 0)]


def test_m5_an_admin_ends_anybodys_and_nobody_else_does(api, shared):
    user, other = shared.user(), shared.user("billing")
    [theirs] = sessions(shared, user["token"])
    for query in ("&user=" + user["id"], "&user=" + user["name"]):
        assert [s["id"] for s in sessions(shared, api.admin_token, query)] == [theirs["id"]]
        shared.refused("GET", f"/v1/sessions?{query[1:]}", token=other["token"], status=403, field="user", says="admin")
    text = {shared.refused("DELETE", f"/v1/sessions/{id}", token=other["token"], status=404)["detail"].replace(id, "ID")
            for id in (theirs["id"], NOBODY, "x")}
    assert len(text) == 1 and api.request("GET", "/v1/me", token=user["token"])[0] == 200
    shared.refused("GET", "/v1/sessions?user=nobody", field="user", says=["nobody", "a user"])
    shared.call("DELETE", f"/v1/sessions/{theirs['id']}", status=204)
    assert api.request("GET", "/v1/me", token=user["token"])[0] == 401
    # What is used up or expired is no session any more; an agent's token never was.
    token = shared.agent_token(shared.gateway())
    agents = api.sql("SELECT id::text FROM gateway.token WHERE hash = %s", token_hash(token))[0][0]
    shared.refused("DELETE", f"/v1/sessions/{agents}", status=404)
    api.sql("UPDATE gateway.token SET expires = now() WHERE user_id = %s", other["id"])
    assert sessions(shared, api.admin_token, "&user=" + other["id"]) == []


def test_m5_pages(shared, api):
    user = shared.user()
    for _ in range(4):
        api.token_of(user["id"])
    seen, after = [], ""
    while after is not None:
        page = shared.call("GET", f"/v1/sessions?limit=2&after={quote(after)}", token=user["token"])
        seen += [s["id"] for s in page["items"]]
        after = page["next"]
    assert seen == [s["id"] for s in sessions(shared, user["token"])] and len(set(seen)) == 5


def test_what_takes_no_body_refuses_one(shared):
    user = shared.user()
    for path in (f"/v1/users/{user['id']}/login-token", "/v1/logout", f"/v1/gateways/{NOBODY}/retry"):
        token = user["token"] if path == "/v1/logout" else None
        shared.refused("POST", path, {"days": 7}, token, field="days", says=["days", "none"])
