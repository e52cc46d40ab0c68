# SPDX-License-Identifier: BSD-2-Clause
"""Each route of the API with bad parameters, bodies and paths: 4xx with field, value and what is accepted, and nothing stored."""

import json
import re

import pytest

from conftest import REPOSITORY
from test_input import NO_BODY, NOBODY, bodies, gateway, office, pattern, row_counts, shared  # noqa: F401, fixtures among them

# Of one value each; what a value means is no matter of the route that takes it.
BAD_VALUES = {
    "limit": ["", "0", "201", "-1", "+5", " 5", "5 ", "5.0", "1e2", "0x10", "05x", "٣", "NaN", "9" * 400],
    "after": ["x", "-1", "1e3", NOBODY, NOBODY + "x", f"{NOBODY}:" + "n" * 300, f"{NOBODY[:-1]}g:x", "9" * 30, "null"],
    "status": ["", "Active", "active,error", "null", "*"],
    "user": ["", "nobody", NOBODY, "a,b", "*"],
    "interval": ["", "week", "Hour", "hour,day", "1"],
    "by": ["", "user", "Peer", "peer,gateway"],
    "from": ["", "now", "2026-11-01", "2026-11-01T00:00:00", "2026-11-01T00:00:00+01:00", "2026-02-29T00:00:00Z", "2026-11-01T24:00:00Z",
             "2026-11-01T23:59:60Z", "9999-12-31T23:59:59Z", "0000-00-00T00:00:00Z", "-2026-11-01T00:00:00Z", "1793491200", "infinity"],
    "cycle": ["", "2026-1", "2026-13", "2026-00", "9999-12", "1969-12", "202611", "2026-+1", " 2026-11", "2026-11-01", "null"],
    "format": ["", "xml", "JSON", "json,csv"],
    "search": [],  # any text
}
BAD_VALUES["to"] = BAD_VALUES["from"]
# What is no printable text, whatever the parameter; as it stands in the URL.
NO_TEXT = ["%00", "a%00b", "%ff", "%c3", "%ed%a0%80", "%0a", "%1b%5b2J", "%e2%80%ae", "%e2%80%8b", "%zz", "%", "a%2", "%u0041"]
# No object of JSON, or one that can be read in two ways.
NO_BODIES = [b"[]", b"[{}]", b"null", b"true", b"0", b'"x"', b" ", b"{", b"}", b"{}{}", b"{} x", b"\xef\xbb\xbf{}", b"{'a': 1}", b"{a: 1}", b'{"a": 1,}',
             b'{"a" 1}', b"/**/{}", b'{"\xff": 1}', b'{"a\\u0000": 1}', b'{"a": 99999999999999999999}', b'{"a": 1e999}', b'{"a": NaN}',
             b'{"a": "\\ud800"}', '{"a": 1}'.encode("utf-16"), b'{"a":' * 33 + b"1" + b"}" * 33, b"\x00", b"name=a&path=/i"]
UNKNOWN = ["colour", "Name", "name ", "", "a\u202eb", "k" * 5000, "\u0301", "a\tb", "$ne", "__proto__", "name[]"]


def rows():
    """Method, path and the parameters of its query, as they stand in the source; the agent's are in test_agent_api.py."""
    constants, found = {"NULL": ""}, []
    sources = [source.read_text() for source in sorted((REPOSITORY / "api").rglob("*.[ch]"))]
    for text in sources:
        constants.update(re.findall(r'#define (QUERY_\w+)\s+"([^"]*)"', text))
    for text in sources:
        for method, path, query in re.findall(r'\{\s*"(GET|POST|PUT|PATCH|DELETE)",\s*"([^"]+)",\s*[A-Z_ |]+,\s*\w+,\s*([^{}]+?),?\s*\}', text):
            words = " ".join(constants.get(part, part.strip('"')) for part in re.findall(r'"[^"]*"|\w+', query))
            if "/agent/" not in path:
                found.append((method, path, words.split()))
    return found


@pytest.fixture(scope="module")
def there(shared, gateway, office):  # noqa: F811
    """The paths with ids of what exists, so that nothing but the parameter is wrong."""
    admin = shared.call("GET", "/v1/me")["user"]
    known = {"gateway": gateway["id"], "peer": office["id"], "user": admin, "vpc": gateway["vpc"], "location": gateway["location"],
             "plan": gateway["plan"], "group": shared.call("GET", f"/v1/locations/{gateway['location']}")["plan_group"]}
    return lambda path: re.sub(r"\{(\w+)\}", lambda found: known.get(found[1], NOBODY), path)


def checked(answer, what, statuses=(422,), field=None):
    assert answer.status in statuses and answer.headers["Content-Type"] == "application/problem+json", (what, answer.status, answer.body[:300])
    problem = json.loads(answer.body)
    assert problem["detail"] and problem["title"] and problem["status"] == answer.status, (what, problem)
    assert len(answer.body) < 2000 and answer.body.decode().isprintable(), (what, problem)
    if field is not None:
        assert problem.get("field") == field and re.search("accepted|required", problem["detail"]), (what, problem)
    return problem


def test_the_rows_are_those_of_the_table():
    """A value that is bad here for each parameter that a route takes."""
    table = rows()
    assert len(table) > 60 and {"/metrics", "/v1/ledger", "/v1/users/{user}/report"} <= {path for _, path, _ in table}
    assert {word for _, _, words in table for word in words} == set(BAD_VALUES)


def test_l9_each_query(api, there):
    before, connection = row_counts(api), api.connect()
    for method, path, words in rows():
        body = b"{}" if method in ("POST", "PUT", "PATCH") else None
        token = None if path in ("/v1/login", "/v1/health") else api.admin_token
        bad = [(word, f"{word}={value}") for word in words for value in map(quoted, BAD_VALUES[word])]
        bad += [(word, f"{word}={value}") for word in words for value in NO_TEXT]
        bad += [(word, query) for word in words for query in (word, f"{word}=1&{word}=1") if word not in ("from", "to") or "&" not in query]
        bad += [(name, f"{name}=1") for name in ("colour", "Limit", "limit[]") if name not in words]
        bad += [("", "=1"), ("colour", "colour")]
        for field, query in bad:
            what = f"{method} {path}?{query[:80]}"
            problem = checked(api.exchange(method, f"{there(path)}?{query}", body, token, connection=connection), what, field=field)
            assert field in problem["detail"], (what, problem)
        # More than any route takes; libmicrohttpd would keep room for each.
        for many in (9, 600):
            checked(api.exchange(method, there(path) + "?" + "&".join(["limit=1"] * many), body, token, connection=connection), path, field="limit")
    connection.close()
    assert row_counts(api) == before


def quoted(value):
    from urllib.parse import quote
    return quote(value, safe="")


def test_parameters_that_are_good(shared, there):
    """So that it was the value that was refused."""
    good = {"limit": "200", "after": "", "status": "active", "interval": "hour", "from": "2026-11-01T00:00:00Z", "to": "2100-01-01T00:00:00Z",
            "by": "gateway", "cycle": "2026-01", "format": "csv", "search": "%25+%2B%E2%82%AC", "user": "admin"}
    for method, path, words in rows():
        for word in words if method == "GET" else ():
            value = "0" if (path, word) == ("/v1/ledger", "after") else good[word]
            if (word, value) != ("after", "") or "usage" not in path:
                status, answer = shared.api.request(method, f"{there(path)}?&{word}={value}&", token=shared.api.admin_token)
                assert status == 200, (path, word, answer)


def test_each_body_that_is_none(api, there):
    before, connection = row_counts(api), api.connect()
    for method, path, _ in rows():
        if method not in ("POST", "PUT", "PATCH"):
            continue
        token = None if path == "/v1/login" else api.admin_token
        for body in NO_BODIES:
            checked(api.exchange(method, there(path), body, token, connection=connection), (method, path, body[:40]), (400,))
    connection.close()
    assert row_counts(api) == before


def test_each_member_that_is_unknown_or_there_twice(api, bodies):  # noqa: F811
    before, connection = row_counts(api), api.connect()
    for (method, path), body in bodies.items():
        token = None if path == "/v1/login" else api.admin_token
        for name in UNKNOWN:
            problem = checked(api.exchange(method, path, {**body, name: 1}, token, connection=connection), (method, path, name[:20]))
            assert "is no field here; accepted are: " in problem["detail"], (path, problem)
        for name in body:
            twice = json.dumps(body)[:-1] + f', "{name}": {json.dumps(body[name])}}}'
            problem = checked(api.exchange(method, path, twice, token, connection=connection), (method, path, name), (400,))
            assert "a member that was there before" in problem["detail"], (path, problem)
    connection.close()
    assert row_counts(api) == before


def test_what_takes_no_body_has_no_members(api, there):
    for method, path in sorted(NO_BODY):
        if path == "/v1/logout":
            continue
        for name in UNKNOWN:
            problem = checked(api.exchange(method, there(path), {name: 1}, api.admin_token), (path, name[:20]))
            assert "accepted are: none" in problem["detail"]


def test_null_in_a_change_means_none_or_is_refused(shared, api, bodies):  # noqa: F811
    """What a change names is what the answer shows: nothing is left as it was in silence."""
    cleared = set()
    for (method, path), body in bodies.items():
        for name in body if method == "PATCH" else ():
            status, answer = api.request(method, path, {name: None}, api.admin_token)
            assert status in (200, 422), (path, name, answer)
            if status == 200 and name == "preshared_key":
                assert answer["has_preshared_key"] is False
                cleared.add(name)
            elif status == 200:
                assert answer[name] is None, (path, name, answer)
                cleared.add(name)
            elif name != "plan_group":  # a location with gateways on needs one
                assert answer["field"] == name and f"{name} is null; accepted is a value" in answer["detail"], (path, answer)
    assert cleared == {"included_gb", "credit_value", "image", "email", "endpoint", "preshared_key"}


@pytest.mark.parametrize("path, fields", [
    ("/v1/images", {}), ("/v1/plans", {"cpu": 1, "ram_mb": 1, "storage_gb": 1, "included_gb": None}), ("/v1/plan-groups", {}),
    ("/v1/locations", {"credit_value": "0", "bandwidth_rate": "0"})])
@pytest.mark.parametrize("name", [" ", " a", "a ", "\u200b", "\u3164", "a\u00adb", "\u2060", "\U000e0041", NOBODY])
def test_a_name_that_does_not_show(shared, path, fields, name):  # noqa: F811
    shared.refused("POST", path, {**fields, "name": name}, field="name", says=["name is", "1 to 63 printable characters"])


@pytest.mark.parametrize("field, value, shown", [
    ("dns", ["10.0.0.1", ["x"]], 'dns[1] is ["x"]'), ("dns", [53], "dns[0] is 53"), ("dns", [None], "dns[0] is null"), ("dns", [{"a": True}], 'dns[0] is {"a":true}')])
def test_an_item_of_another_type_is_shown(shared, gateway, field, value, shown):  # noqa: F811
    from world import public_key
    shared.refused("POST", f"/v1/gateways/{gateway['id']}/peers", {"name": "x", "public_key": public_key(), field: value}, field=field, says=[shown, "accepted"])


def test_items_of_another_type_are_shown_everywhere(shared, gateway, office):  # noqa: F811
    user, location = gateway["user"]["id"], gateway["location"]
    vpc = {"name": "x", "owner": user, "location": location}
    for method, path, body, field, shown in (
            ("PATCH", f"/v1/gateways/{gateway['id']}/peers/{office['id']}", {"allowed_ips": [7]}, "allowed_ips", "allowed_ips[0] is 7"),
            ("PATCH", f"/v1/locations/{location}", {"site_ranges": [[]]}, "site_ranges", "site_ranges[0] is []"),
            ("POST", "/v1/plan-groups", {"name": "x", "plans": [1.5]}, "plans[0]", "plans[0] is 1.5"),
            ("POST", "/v1/vpcs", {**vpc, "subnets": ["10.0.0.0/24"]}, "subnets", 'subnets[0] is "10.0.0.0/24"'),
            ("POST", "/v1/vpcs", {**vpc, "subnets": [{"cidr": "10.0.0.0/24", "attachment": {"bridge": "b", "route_netns": [False]}}]},
             "subnets[0].attachment.route_netns", "route_netns[0] is false")):
        shared.refused(method, path, body, field=field, says=[shown, "accepted"])


@pytest.mark.parametrize("value", ["9000000000.000000001", "9000000001", "9999999999.999999999"])
def test_an_allowance_of_more_bytes_than_are_counted(shared, value):  # noqa: F811
    plan = {"name": shared.name("plan"), "cpu": 1, "ram_mb": 1, "storage_gb": 1, "included_gb": value}
    shared.refused("POST", "/v1/plans", plan, field="included_gb", says=[value, "up to 9000000000"])
    for good in ("9000000000", "9000000000.000", "8999999999.999999999", "0", "0000000001"):
        created = shared.call("POST", "/v1/plans", {**plan, "name": shared.name("plan"), "included_gb": good}, status=201)
        assert float(created["included_gb"]) == float(good)


def test_l10_paths_that_name_no_text(api, there):
    """The same for reading, changing and deleting."""
    connection = api.connect()
    for method, path, _ in rows():
        body = b"{}" if method in ("POST", "PUT", "PATCH") else None
        for text in (*NO_TEXT, "%2f", "..", "%2e%2e", "'", "x" * 3000):
            if "{" not in path or (method, text) == ("PUT", "'"):
                continue
            answer = api.exchange(method, re.sub(r"\{\w+\}", text, path), body, api.admin_token, connection=connection)
            checked(answer, (method, path, text), (422,) if text in NO_TEXT else (404, 422))
            if text in NO_TEXT:
                assert f"{text}" in json.loads(answer.body)["detail"]
    connection.close()


def test_every_body_has_a_route(bodies):  # noqa: F811
    assert all(any(m == method and pattern(p).match(path) for m, p, _ in rows()) for method, path in bodies)
