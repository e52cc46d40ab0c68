# SPDX-License-Identifier: BSD-2-Clause
"""Who may do what: tokens, and every row of the route table against every role."""

import json
import re

import pytest

from conftest import REPOSITORY
from world import token_hash

ROLES = {"ROLE_ADMIN": {"admin"}, "ROLE_USER": {"user"}, "ROLE_BILLING": {"billing"}, "ROLE_SERVICE": {"service"},
         "ROLE_GATEWAY": {"gateway"}, "ROLE_NONE": set(), "ROLE_CUSTOMER": {"user", "service", "admin"},
         "ROLE_ANY_USER": {"user", "service", "admin", "billing"}}


def routes():
    """The rows as they stand in the source: method, path, roles."""
    found = []
    for source in sorted((REPOSITORY / "api").rglob("*.c")):
        for method, path, roles in re.findall(r'\{\s*"(GET|POST|PUT|PATCH|DELETE)",\s*"(/v1/[^"]*)",\s*([A-Z_ |]+),\s*\w+,\s*[^{}]+\}',
                                              source.read_text()):
            found.append((method, path, frozenset(re.findall(r"ROLE_\w+", roles))))
    return found


def allowed(roles):
    return set().union(*(ROLES[role] for role in roles))


@pytest.fixture(scope="module")
def tokens(api):
    from world import World
    world = World(api)
    gateway = world.gateway()
    made = {role: world.user(role)["token"] for role in ("admin", "user", "billing", "service")}
    made["gateway"] = world.agent_token(gateway)
    return made


def test_the_table_is_whole():
    table = routes()
    assert len(table) > 60 and len({(method, path) for method, path, _ in table}) == len(table)
    # What is documented exists: each path of the reference has a row.
    documented = set(re.findall(r"/v1/[a-z-]+", (REPOSITORY / "docs/api.md").read_text()))
    assert documented <= {re.match(r"/v1/[a-z-]+", path)[0] for _, path, _ in table}


@pytest.mark.parametrize("method, path, roles", routes(), ids=lambda value: value if isinstance(value, str) else "")
def test_each_route_admits_its_roles_only(api, tokens, method, path, roles):
    """With ids of nothing and an empty body no handler does anything; what counts is how far a token comes."""
    if path == "/v1/logout":
        return
    real = re.sub(r"\{\w+\}", "00000000-0000-4000-8000-000000000000", path)
    body = {} if method in ("POST", "PUT", "PATCH") else None
    headers = {"Wiretoll-Protocol": "1"}
    status, answer = api.request(method, real, body, headers=headers)
    if "ROLE_NONE" in roles:
        assert status not in (404, 405, 500) and (status != 401 or "token is required" not in answer["detail"])
        return
    assert status == 401 and "bearer token" in answer["detail"]
    for role, token in tokens.items():
        answer = api.exchange(method, real, body, token, headers)
        if role not in allowed(roles):
            assert answer.status == 403, f"{role} may {method} {path}: {answer.status} {answer.body}"
            assert json.loads(answer.body)["status"] == 403
        else:
            assert answer.status not in (401, 403, 405, 500), f"{role} may not {method} {path}: {answer.status} {answer.body}"


def test_an_agents_token_opens_agents_paths_only(api, tokens):
    for method, path, roles in routes():
        if "ROLE_GATEWAY" in roles:
            assert path.startswith("/v1/agent/"), path
    assert api.request("GET", "/v1/me", token=tokens["gateway"])[0] == 403


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic YWRtaW46YWRtaW4=", "Bearer x", "Bearer " + "A" * 43,
                                    "Bearer " + "A" * 5000, "bearer '; DROP TABLE gateway.token; --"])
def test_what_is_no_token(api, header):
    answer = api.exchange("GET", "/v1/me", headers={"Authorization": header} if header is not None else {})
    assert answer.status == 401 and answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_token_is_stored_as_its_hash_only(api, world):
    user = world.user()
    assert len(user["token"]) == 43
    assert api.sql("SELECT kind FROM gateway.token WHERE hash = %s", token_hash(user["token"])) == [("session",)]
    rows = "\n".join(row[0] for row in api.sql("SELECT t::text FROM gateway.token t"))
    assert user["token"] not in rows and user["token"].encode().hex() not in rows


def test_login_tokens_work_once_and_for_a_day(api, world):
    user = world.user()
    token = api.login_token(user["id"])
    assert api.request("GET", "/v1/me", token=token)[0] == 401  # it is no session
    status, answer = api.request("POST", "/v1/login", {"one_time_token": token})
    assert status == 200 and (answer["role"], answer["user"]) == ("user", user["id"]) and answer["expires"].endswith("Z")
    world.refused("POST", "/v1/login", {"one_time_token": token}, status=401, says="used already")
    late = api.login_token(user["id"])
    assert api.sql("SELECT expires - created FROM gateway.token WHERE hash = %s", token_hash(late))[0][0].total_seconds() == 86400
    api.sql("UPDATE gateway.token SET expires = now() WHERE hash = %s", token_hash(late))
    world.refused("POST", "/v1/login", {"one_time_token": late}, status=401, says="expired")
    for body in ({}, {"one_time_token": ""}, {"one_time_token": 7}, {"token": late}):
        world.refused("POST", "/v1/login", body, says="one_time_token")


def test_sessions_end(api, world):
    user = world.user()
    assert api.request("GET", "/v1/me", token=user["token"])[1] == {"user": user["id"], "name": user["name"], "role": "user"}
    api.sql("UPDATE gateway.token SET expires = now() WHERE hash = %s", token_hash(user["token"]))
    assert api.request("GET", "/v1/me", token=user["token"])[0] == 401
    again = api.token_of(user["id"])
    assert api.request("POST", "/v1/logout", token=again)[0] == 204
    assert api.request("GET", "/v1/me", token=again)[0] == 401


def test_a_role_that_changes_changes_at_once(api, world):
    user = world.user()
    assert api.request("GET", "/v1/users", token=user["token"])[0] == 403
    world.call("PATCH", f"/v1/users/{user['id']}", {"role": "admin"})
    assert api.request("GET", "/v1/users", token=user["token"])[0] == 200


def test_no_token_is_in_the_log(api, world):
    user = world.user()
    one_time = api.login_token(user["id"])
    api.request("POST", "/v1/login", {"one_time_token": one_time})
    log = api.log.read_text()
    for secret in (api.admin_token, api.first_admin_token, user["token"], one_time):
        assert secret not in log
