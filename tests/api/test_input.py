# SPDX-License-Identifier: BSD-2-Clause
"""What the API accepts and what not: each refusal is a problem document that names field, value and what is accepted."""

import base64
import json
import re
from urllib.parse import quote

import pytest

from test_roles import routes
from world import public_key

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
    return {"kind": "site_to_site", "name": "office", "public_key": public_key(), "allowed_ips": ["192.168.7.0/24"], **fields}


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
        ("POST", "/v1/locations"): {"name": "l", "vpn_enabled": True, "image": image["id"], "plan_group": group["id"], **prices},
        ("PATCH", f"/v1/locations/{location['id']}"): {"name": "l2", "vpn_enabled": True, "image": image["id"],
                                                       "plan_group": group["id"], **prices},
        ("POST", "/v1/hypervisors"): {"name": "h", "location": location["id"], "driver": "netns", **size},
        ("PATCH", f"/v1/hypervisors/{host['id']}"): {"name": "h2", **size},
        ("POST", "/v1/users"): account,
        ("PATCH", f"/v1/users/{user['id']}"): {**account, "name": "someone2"},
        ("PUT", "/v1/users/ext-1"): {**account, "name": "someone3"},
        ("POST", "/v1/vpcs"): {"name": "v", "owner": user["id"], "location": location["id"], "subnets": subnets},
        ("PUT", "/v1/vpcs/ext-1"): {"name": "v3", "owner": user["id"], "location": location["id"], "subnets": subnets},
        ("POST", "/v1/gateways"): {"vpc": vpc["id"], "plan": "none", "name": "gw", "public_subnet": "none", "tunnel_subnet": "10.98.0.0/24",
                                   "tunnel_subnet6": "fd98::/64", "listen_port": 51820, "masquerade_into_vpc": "all"},
        ("PATCH", f"/v1/gateways/{gateway['id']}"): {"name": gateway["name"], "masquerade_into_vpc": "all", "suspended": False},
        ("POST", f"/v1/gateways/{gateway['id']}/extra"): {"gb": "0.01"},
        ("POST", peers(gateway)): {"kind": "road_warrior", "name": "tablet", "public_key": public_key(), "tunnel_ip": "10.99.0.99",
                                   "tunnel_ip6": None, "dns": ["10.1.0.53"], "keepalive": 25, "enabled": True},
        ("PATCH", peers(gateway, laptop)): {"kind": "road_warrior", "name": "tablet2", "public_key": public_key(),
                                            "tunnel_ip": "10.99.0.98", "dns": ["10.1.0.53"], "keepalive": 25, "enabled": True},
        ("PATCH", peers(gateway, office)): site(endpoint="203.0.113.5:51820", preshared_key=public_key(), keepalive=25, enabled=True),
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
                assert answer.status in (400, 401, 409, 422) and answer.headers["Content-Type"] == "application/problem+json", what
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
                                   "to=9999-01-01T00:00:00Z", "to=2026-02-30T00:00:00Z", "by=peer&by=gateway", "peer=x", "after=x"])
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


@pytest.mark.parametrize("key", SMALL_ORDER, ids=lambda key: key.hex()[:8])
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
