# SPDX-License-Identifier: BSD-2-Clause
"""The agents' side of the API: enrolment, desired state, and which batches are taken."""

import base64
import ctypes
import json
import secrets
import threading
import time
from datetime import timedelta

import pytest

from billing_model import wait
from simulated_agent import HOUR, Agent, World, active_agent, hour_of, key, now, text_of

PEER = "11111111-1111-4111-8111-111111111111"


# ---- enrolment ----

def test_enroll_trades_the_token_once(api):
    agent = Agent(World(api).gateway())
    assert agent.generation == 1
    assert agent.gateway.row("encode(public_key, 'base64')") == agent.public_key
    assert agent.enroll(public_key=key())[0] == 403  # another one has the token
    agent.report()
    assert agent.enroll()[0] == 403  # the first token is at work


def test_a_lost_answer_strands_no_gateway(api):
    agent = Agent(World(api).gateway())
    status, answer = agent.enroll()
    assert (status, answer["generation"]) == (201, 2)
    assert agent.state()[0] == 401  # the token nobody received is revoked
    agent.token, agent.generation = answer["token"], 2
    agent.report()


@pytest.mark.parametrize("change, status", [
    ({"one_time_token": "wrong"}, 403), ({"attempt": 2}, 409), ({"gateway": PEER}, 403),
    ({"gateway": "x"}, 400), ({"attempt": "1"}, 400), ({"public_key": "AAAA"}, 400), ({"one_time_token": None}, 400)])
def test_enroll_refuses(api, change, status):
    agent = Agent(World(api).gateway())
    agent.one_time_token = agent.gateway.one_time_token()
    answer = agent.enroll(**change)
    assert answer[0] == status, answer
    assert "wrong" not in answer[1]["detail"]
    assert agent.enroll()[0] == 201


def test_enroll_refuses_an_expired_token(api):
    agent = Agent(World(api).gateway())
    agent.one_time_token = agent.gateway.one_time_token(minutes=-1)
    assert agent.enroll()[0] == 403


def test_tokens_are_not_stored(api):
    agent = Agent(World(api).gateway())
    [[stored]] = api.sql("SELECT string_agg(t::text, ' ') FROM gateway.token t WHERE gateway = %s", agent.gateway.id)
    assert agent.token not in stored and agent.one_time_token not in stored
    assert agent.token not in api.log.read_text()


# ---- desired state ----

def seal(api, gateway, peer, psk):
    """What api/seal.c stores, made by libsodium itself."""
    sodium = ctypes.CDLL("libsodium.so.23")
    sealing = (api.state / "sealing.key").read_bytes()
    bound = f"peer:{gateway.owner}:{gateway.id}:{peer}".encode()
    nonce, length, sealed = secrets.token_bytes(24), ctypes.c_ulonglong(), ctypes.create_string_buffer(len(psk) + 16)
    sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(
        sealed, ctypes.byref(length), psk, ctypes.c_ulonglong(len(psk)), bound, ctypes.c_ulonglong(len(bound)), None, nonce, sealing)
    return b"\x01" + nonce + sealed.raw[:length.value]


def test_state_is_what_the_gateway_needs(api, steady_hour):
    agent = Agent(World(api, overage="none").gateway())
    gateway = agent.gateway
    warrior, site, psk = gateway.peer(), gateway.peer(), secrets.token_bytes(32)
    api.sql("UPDATE gateway.peer SET kind = 'site_to_site', endpoint = 'office.example:51820', keepalive = 25, enabled = false,"
            " psk_sealed = %s WHERE id = %s", seal(api, gateway, site, psk), site)
    for peer, cidr, tunnel in ((warrior, "10.99.0.2/32", True), (warrior, "fd12:3456:789a:1::2/128", True), (site, "192.168.7.0/24", False)):
        api.sql("INSERT INTO gateway.prefix (owner, gateway, peer, cidr, tunnel) VALUES (%s, %s, %s, %s, %s)",
                gateway.owner, gateway.id, peer, cidr, tunnel)
    api.sql("UPDATE gateway.gateway SET suspended_reasons = '{allowance,admin}' WHERE id = %s", gateway.id)
    keys = dict(api.sql("SELECT id::text, encode(public_key, 'base64') FROM gateway.peer WHERE gateway = %s", gateway.id))
    status, state = agent.state()
    assert status == 200
    following = state.pop("next_grant")
    assert following["grant_seq"] == 1 and following["ceiling"] is None and following["mask"] == "both"
    assert state == {
        "revision": 1, "gateway": gateway.id,
        "interface": {"addresses": ["10.99.0.1/24", "fd12:3456:789a:1::1/64"], "listen_port": 51820, "mtu": 1420},
        "firewall": {"tunnel_subnets": ["10.99.0.0/24", "fd12:3456:789a:1::/64"], "vpc_subnets": ["10.1.0.0/24"],
                     "remote_subnets": ["192.168.7.0/24"]},
        "routes": ["192.168.7.0/24"], "masquerade": "road_warriors",
        "peers": [
            {"id": warrior, "public_key": keys[warrior], "preshared_key": None, "endpoint": None, "keepalive": 0, "enabled": True,
             "allowed_ips": ["10.99.0.2/32", "fd12:3456:789a:1::2/128"]},
            {"id": site, "public_key": keys[site], "preshared_key": base64.b64encode(psk).decode(),
             "endpoint": "office.example:51820", "keepalive": 25, "enabled": False, "allowed_ips": ["192.168.7.0/24"]}],
        "refuse": ["admin"],
        "grants": [{"cycle": now().year * 100 + now().month, "grant_seq": 1, "ceiling": None, "mask": "both", "epoch": None}]}


def test_a_preshared_key_of_another_row_does_not_open(api):
    agent = Agent(World(api).gateway())
    one, other = agent.gateway.peer(), agent.gateway.peer()
    api.sql("UPDATE gateway.peer SET psk_sealed = %s WHERE id = %s", seal(api, agent.gateway, other, b"k" * 32), one)
    assert agent.state()[0] == 500


def test_the_poll_waits_and_wakes(api):
    agent = Agent(World(api, overage="none").gateway())
    api.sql("SELECT billing.raise_revision(%s, %s)", agent.gateway.owner, agent.gateway.id)
    assert agent.state(have=1)[1]["revision"] == 2
    answers = []
    thread = threading.Thread(target=lambda: answers.append((agent.state(have=2), time.monotonic())))
    thread.start()
    time.sleep(0.4)
    assert thread.is_alive()
    begin = time.monotonic()
    api.sql("SELECT billing.raise_revision(%s, %s)", agent.gateway.owner, agent.gateway.id)
    thread.join(60)
    [((status, state), end)] = answers
    assert status == 200 and state["revision"] == 3
    assert end - begin < 40, "woken, and not by the end of its time"


@pytest.mark.parametrize("have", ["-1", "x", "", "9" * 30, "%2B1", "%201"])
def test_have_is_checked(api, have):
    assert Agent(World(api).gateway()).state(have)[0] == 400


def test_ceilings_stand_still_under_traffic_and_rise_by_the_extra(api):
    world = World(api, overage="revoke_access")
    agent = Agent(world.gateway(included_gb="0.01"))
    peer = agent.gateway.peer()
    assert agent.state()[1]["grants"] == []  # the epoch is not known
    revision = agent.gateway.row("revision")
    assert agent.report()["revision"] == revision + 1  # so the poll answers with the ceiling
    assert agent.take_grant()["ceiling"] == "10000000"
    agent.report([agent.grow(1, peer, now(), upload_bytes=1234567, download_bytes=11)])
    assert agent.gateway.bucket_row("used") == 1234578
    grant = agent.take_grant()
    assert (grant["ceiling"], grant["epoch"]) == ("10000000", agent.epoch)
    api.sql("UPDATE billing.bucket SET extra = extra + 17000001, grant_seq = grant_seq + 1 WHERE id = %s", agent.gateway.bucket)
    grant = agent.take_grant()
    assert (grant["ceiling"], grant["grant_seq"]) == ("27000001", 2)
    agent.report(final=True)
    assert agent.state()[1]["grants"] == []  # sealed: the next epoch has to be told of first
    agent.new_epoch()
    agent.report()
    assert agent.take_grant()["ceiling"] == str(27000001 - 1234578)
    api.sql("UPDATE billing.bucket SET allowance = 5, extra = 0 WHERE id = %s", agent.gateway.bucket)
    assert agent.state()[1]["grants"][0]["ceiling"] == "0"


def test_bytes_found_undelivered_raise_the_ceiling(api):
    agent = active_agent(World(api, overage="revoke_access"), included_gb="0.001")
    peer = agent.gateway.peer()
    agent.report([agent.grow(1, peer, now(), download_bytes=900000)])
    agent.report([agent.grow(1, peer, now(), undelivered_bytes=1000)])
    assert agent.gateway.bucket_row("used") == 899000
    grant = agent.take_grant()
    assert (grant["ceiling"], grant["grant_seq"]) == ("1001000", 2)


@pytest.mark.parametrize("overage, included", [("none", "1"), ("charge_overage", "1"), ("revoke_access", None)])
def test_no_ceiling_without_a_limit(api, overage, included):
    agent = Agent(World(api, overage=overage).gateway(included_gb=included))
    assert agent.take_grant()["ceiling"] is None


def test_a_new_version_reaches_the_gateway_as_a_newer_grant(api):
    world = World(api, overage="none")
    agent = active_agent(world)
    world.rate_version(hour_of(now()), "revoke_access", accounting="downloads", announced=False)
    wait(lambda: agent.gateway.bucket_row("grant_seq") > 1)
    grant = agent.take_grant()
    assert (grant["grant_seq"], grant["mask"], grant["ceiling"]) == (2, "downloads", "10000000000")


def test_deleting_and_deleted(api):
    agent = active_agent(World(api))
    api.sql("UPDATE gateway.gateway SET status = 'deleting', revision = revision + 1 WHERE id = %s", agent.gateway.id)
    status, state = agent.state()
    assert status == 200 and state["gone"] is True and "peers" not in state
    agent.report(final=True)
    agent.gateway.complete_delete()
    assert agent.state()[0] == 410
    status, problem = agent.send(agent.batch())
    assert (status, problem["status"], problem["held_seq"]) == (410, 410, 2)


def test_an_attempt_that_is_over(api):
    old = active_agent(World(api))
    api.sql("UPDATE gateway.gateway SET attempt = 2, status = 'deploying', active_since = NULL WHERE id = %s", old.gateway.id)
    assert old.state()[0] == 410
    assert old.send(old.batch())[0] == 410
    Agent(old.gateway, attempt=2).activate()
    assert old.gateway.row("status") == "active"
    assert old.state()[0] == 401


# ---- batches ----

def test_the_checksum_is_of_the_bytes(api):
    agent = Agent(World(api).gateway())
    raw = json.dumps(agent.batch()).encode()
    assert agent.send(raw, crc=1)[0] == 400
    assert agent.send(raw, crc="x")[0] == 400
    assert agent.send(raw)[0] == 200
    assert agent.send(raw + b" ")[0] == 409  # the same batch in other bytes


def test_repeats_gaps_and_rollbacks(api):
    agent = active_agent(World(api))
    peer = agent.gateway.peer()
    batches = [agent.batch([agent.grow(1, peer, now(), upload_bytes=100)]) for _ in range(3)]
    first = agent.send(batches[0])
    assert first[0] == 200
    for _ in range(2):
        assert agent.send(batches[0]) == first
    status, answer = agent.send(batches[2])
    assert status == 409 and answer["reason"] == "gap" and answer["held_seq"] == 2
    assert agent.send(batches[1])[0] == agent.send(batches[2])[0] == 200
    assert agent.send(batches[0])[0] == 200
    assert agent.gateway.bucket_row("used") == 300
    status, answer = agent.send({**batches[1], "counted": "1"})
    assert (status, answer["reason"], answer["held_seq"]) == (409, "rolled_back", 4)
    [[crc]] = api.sql("SELECT crc FROM billing.epoch_batch WHERE epoch = %s AND seq = 4", agent.epoch)
    assert answer["held_crc"] == crc
    assert agent.send(agent.batch())[1]["reason"] == "rolled_back"  # quarantined
    assert agent.send(batches[0])[0] == 200  # what was taken stays taken
    assert agent.state()[1]["grants"][0]["epoch"] is None


def test_a_new_epoch_begins_with_its_first_batch(api):
    agent = Agent(World(api).gateway())
    agent.seq = 1
    status, answer = agent.send(agent.batch())
    assert (status, answer) == (409, {"held_seq": 0, "held_crc": None, "reason": "gap", "restored": 0})


@pytest.mark.parametrize("shrunk", ["upload_bytes", "download_bytes", "upload_packets", "download_packets", "undelivered_bytes",
                                    "refused_bytes", "counted", "cycle_counted", "peer", "within", "boot"])
def test_a_total_that_shrinks_is_refused_whole(api, shrunk):
    agent = active_agent(World(api))
    peer, other = agent.gateway.peer(), agent.gateway.peer()
    agent.report([agent.grow(1, peer, now(), upload_bytes=10, download_bytes=10, upload_packets=1, download_packets=1,
                             undelivered_bytes=1, refused_bytes=1)])
    body = agent.batch([agent.grow(2, other, now(), upload_bytes=77), agent.grow(1, peer, now())])
    if shrunk == "counted":
        body["counted"] = "19"
    elif shrunk == "cycle_counted":
        body["grant"]["cycle_counted"] = "19"
    elif shrunk == "peer":
        body["records"][1]["peer"] = other
    elif shrunk == "within":
        body["records"].append({**body["records"][0], "upload_bytes": "76"})
    elif shrunk == "boot":
        body["epoch"]["boot_id"] = PEER
    else:
        body["records"][1][shrunk] = "0"
    status, answer = agent.send(body)
    assert (status, answer["reason"], answer["held_seq"]) == (409, "rolled_back" if shrunk == "boot" else "regressed", 2)
    [[held, quarantined]] = api.sql("SELECT last_seq, quarantined FROM billing.epoch WHERE id = %s", agent.epoch)
    assert (held, quarantined) == (2, answer["reason"])
    [[up]] = api.sql("SELECT sum(up) FROM billing.usage_hour WHERE gateway = %s", agent.gateway.id)
    assert up == 10


def test_older_generations_are_fenced(api):  # I10
    agent = Agent(World(api).gateway())
    old_token, old_body = agent.token, agent.batch()
    api.sql("UPDATE gateway.gateway SET generation = 2 WHERE id = %s", agent.gateway.id)
    status, answer = agent.send(old_body)
    assert (status, answer["reason"]) == (409, "fenced")
    api.sql("UPDATE gateway.gateway SET generation = 1 WHERE id = %s", agent.gateway.id)
    status, answer = agent.send({**old_body, "generation": 2})
    assert (status, answer["reason"]) == (409, "fenced")
    agent.one_time_token = agent.gateway.one_time_token()
    agent.token = agent.enroll()[1]["token"]
    assert agent.send(old_body, token=old_token)[0] == 401
    assert agent.send(old_body)[0] == 200  # journaled before, sent by who holds the gateway now


BAD = [
    ("generation", "1"), ("seq", 0), ("seq", None), ("epoch", {"id": "x"}), ("epoch", None), ("counted", 5), ("counted", "-1"),
    ("counted", str(2**63)), ("public_key", "x"), ("applied_revision", -1), ("covered_from", "2999-01-01T00:00:00Z"),
    ("covered_to", "yesterday"), ("now", None), ("active_since", 5), ("records", {}), ("records", [1]), ("states", None),
    ("status", [{"peer": "x"}]), ("cannot_apply", [{"what": "x"}]),
    ("grant", {"cycle": 1, "grant_seq": 1, "cycle_counted": "1", "exhausted": False}),
    ("grant", {"cycle": 202611, "grant_seq": 1, "cycle_counted": "1"}),
    ("states", [{"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z", "state": "asleep"}]),
]


@pytest.mark.parametrize("field, value", BAD)
def test_malformed_batches(api, field, value):
    agent = Agent(World(api).gateway())
    body = {**agent.batch(), field: value}
    status, answer = agent.send(body)
    assert status == 400, answer
    assert answer["field"] in answer["detail"] or field in answer["field"]
    assert agent.send({**agent.batch(), "seq": 1})[0] == 200


@pytest.mark.parametrize("field, value", [("slot", -1), ("slot", 0), ("incarnation", None), ("peer", None), ("peer", "x"),
                                          ("hour", "2026-01-01T00:30:00Z"), ("upload_bytes", 1), ("refused_bytes", str(2**64))])
def test_malformed_records(api, field, value):
    agent = Agent(World(api).gateway())
    record = {**agent.grow(1, PEER, now()), field: value}
    status, answer = agent.send(agent.batch([record]))
    assert status == 400, answer
    assert answer["field"] == f"records[0].{field}" or (field == "slot" and answer["field"] == "records[0].peer")


def test_c3_reports_say_what_is_applied_and_who_is_there(api, world):
    agent = active_agent(World(api))
    peer, seen = agent.gateway.peer(), now() - timedelta(seconds=3)
    api.sql("UPDATE gateway.gateway SET revision = 7 WHERE id = %s", agent.gateway.id)
    agent.report(applied_revision=5, status=[{"peer": peer, "handshake": text_of(seen), "endpoint": "203.0.113.5:40001"}],
                 cannot_apply=[{"what": f"peer {peer}: endpoint", "reason": "no such name"}])
    # C3: the gateway's and the peer's answers have it, as long as the newest report does.
    other = agent.gateway.peer()
    shown = world.call("GET", f"/v1/gateways/{agent.gateway.id}")["cannot_apply"]
    assert shown == [{"what": f"peer {peer}: endpoint", "reason": "no such name"}]
    path = f"/v1/gateways/{agent.gateway.id}/peers"
    assert [world.call("GET", f"{path}/{each}")["cannot_apply"] for each in (peer, other)] == [["no such name"], []]
    agent.report(applied_revision=5, status=[{"peer": peer, "handshake": None, "endpoint": None}])
    assert world.call("GET", f"/v1/gateways/{agent.gateway.id}")["cannot_apply"] == []
    assert world.call("GET", f"{path}/{peer}")["cannot_apply"] == []
    assert agent.gateway.row("applied_revision") == 5
    [[handshake, endpoint]] = api.sql("SELECT last_handshake, current_endpoint FROM gateway.peer WHERE id = %s", peer)
    assert (handshake, endpoint) == (seen, "203.0.113.5:40001")
    assert api.sql("SELECT line FROM gateway.job_log WHERE gateway = %s", agent.gateway.id) == [
        (f"cannot apply peer {peer}: endpoint: no such name",)]


def test_activity_needs_a_right_clock(api):  # B1
    for off in (-6, 6):
        while True:
            agent, begun = Agent(World(api).gateway()), time.monotonic()
            agent.active_since = now() + timedelta(seconds=off)
            status, answer = agent.send(agent.batch(now=text_of(now() + timedelta(seconds=off))))
            if time.monotonic() - begun < 0.9:  # later, a clock that is ahead is less than 5 seconds ahead
                break
        assert (status, answer["field"]) == (400, "active_since")
        assert agent.gateway.row("status") == "deploying"
        assert api.sql("SELECT count(*) FROM billing.epoch WHERE gateway = %s", agent.gateway.id) == [(0,)]
    agent.seq, agent.active_since = 0, now() - timedelta(seconds=2)
    agent.report()
    assert agent.gateway.row("status, active_since") == ("active", agent.active_since)
    agent.report(now=text_of(now() - HOUR))  # later batches may be late


def test_an_epoch_that_is_over_says_nothing_of_now(api):
    """However late its batches come, what is in force now stays as the current one has told it."""
    agent = active_agent(World(api))
    api.sql("UPDATE gateway.gateway SET revision = 9 WHERE id = %s", agent.gateway.id)
    old_key, agent.public_key = agent.public_key, key()
    agent.report(applied_revision=9)
    before = agent.gateway.row("public_key, applied_revision")
    late = Agent.__new__(Agent)
    late.__dict__.update(agent.__dict__)
    late.new_epoch()
    late.public_key = old_key
    status, answer = late.send(late.batch([late.grow(1, agent.gateway.peer(), now(), upload_bytes=7)]), over=True)
    assert (status, answer["held_seq"]) == (200, 1)
    assert agent.gateway.bucket_row("used") == 7
    assert agent.gateway.row("public_key, applied_revision") == before


def test_what_a_failed_attempt_tells_late_activates_nothing(api):  # B1: a failed deployment costs nothing
    """It came up, but could not say so before its deadline; the next attempt sends its journal."""
    gateway = World(api).gateway()
    failed = Agent(gateway)
    api.sql("UPDATE gateway.token SET created = created - interval '1 hour' WHERE gateway = %s", gateway.id)
    failed.active_since = now() - timedelta(minutes=50)
    body = failed.batch([failed.grow(1, gateway.peer(), now(), upload_bytes=7)], covered=(failed.active_since, now()),
                        states=[(failed.active_since, now(), "active")])
    api.sql("UPDATE gateway.gateway SET attempt = 2 WHERE id = %s", gateway.id)
    agent = Agent(gateway, attempt=2)
    status, answer = agent.send({**body, "now": text_of(now())}, over=True)
    assert (status, answer["held_seq"]) == (200, 1) and gateway.bucket_row("used") == 7
    assert gateway.row("status, active_since") == ("deploying", None) and gateway.ledger("base") == []
    agent.activate()
    assert gateway.row("status, active_since") == ("active", agent.active_since)
    assert [lower for *_, lower, _ in gateway.ledger("base")] == [agent.active_since]


def test_watching_asks_for_a_report_every_second(api):
    world = World(api)
    agent = active_agent(world)
    assert agent.report()["watch_until"] is None
    world.get(f"/v1/gateways/{agent.gateway.id}/usage", role="billing")
    assert agent.report()["watch_until"] is None
    begun = now()
    world.get(f"/v1/gateways/{agent.gateway.name}/usage")
    assert agent.report()["watch_until"] >= text_of(begun + timedelta(seconds=30))
