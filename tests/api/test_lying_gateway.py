# SPDX-License-Identifier: BSD-2-Clause
"""A gateway that lies: all that an agent can say, its bound, and what happens beyond it (docs/operate/reports.md), one test a row.
And reports with random lies in them, after each of which billing still adds up and nobody else's rows have changed.

LIES is how many (60), LIES_SECONDS for how long instead, SEED repeats a run.
"""

import base64
import json
import os
import random
import re
import time
import uuid
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from billing_model import past_hours
from simulated_agent import HOUR, MICROSECOND, Agent, World, active_agent, crc32c, hour_of, key, now, text_of, wire_form
from test_ingestion import metric
from test_restore import Copy, backup

BEYOND = 2**63 - 1
LINK = 400 * 10**9 // 8  # bytes a second, unless the location says otherwise
MARGIN = 3600 * LINK
DOCUMENTED = {200, 400, 401, 409, 410, 413, 503}  # docs/agent-protocol.md


@pytest.fixture
def agent(api):
    return active_agent(World(api), included_gb="10")


def refused(agent, body, reason="implausible"):
    status, answer = agent.send(body)
    assert (status, answer.get("reason")) == (409, reason), answer
    return answer


def goes_on(agent):
    """What its agent does then: a new epoch, which is taken and billed."""
    agent.new_epoch()
    peer, before = agent.gateway.peer(), agent.gateway.used()
    agent.report([agent.grow(1, peer, now(), upload_bytes=7)])
    assert agent.gateway.used() == before + 7


def view(agent):
    return agent.api.request("GET", f"/v1/gateways/{agent.gateway.id}", token=agent.api.admin_token)[1]


# ---- counts ----

@pytest.mark.parametrize("field, value", [
    ("upload_bytes", BEYOND), ("download_bytes", MARGIN * 41), ("upload_packets", BEYOND), ("download_packets", MARGIN * 41),
    ("undelivered_bytes", BEYOND), ("refused_bytes", BEYOND), ("counted", BEYOND), ("cycle_counted", MARGIN * 41), ("unattributed", BEYOND)])
def test_m2_more_than_a_link_carries_is_quarantined(agent, field, value):
    peer, alarms = agent.gateway.peer(), metric(agent.api, 'wiretoll_alarms{kind="quarantine"}')
    agent.report([agent.grow(1, peer, now(), upload_bytes=100, download_bytes=100)])
    body = agent.batch([agent.grow(1, peer, now(), upload_bytes=1)])
    if field == "counted":
        body["counted"] = str(value)
    elif field == "cycle_counted":
        body["grant"]["cycle_counted"] = str(value)
    elif field == "unattributed":
        body["records"].append({**body["records"][0], "slot": 0, "peer": None, "upload_bytes": str(value)})
    else:
        body["records"][0][field] = str(value)
        if field == "undelivered_bytes":
            body["records"][0]["download_bytes"] = str(value)
    refused(agent, body)
    refused(agent, agent.batch())  # nothing more of this epoch
    assert agent.gateway.used() == 200
    assert agent.api.sql("SELECT sum(up + down)::bigint FROM billing.usage_hour WHERE gateway = %s", agent.gateway.id) == [(200,)]
    [alarm] = view(agent)["alarms"]
    assert (alarm["kind"], alarm["subject"], alarm["detail"]["reason"]) == ("quarantine", agent.epoch, "implausible")
    assert "a link of 400 Gbit/s" in alarm["detail"]["detail"]
    assert metric(agent.api, 'wiretoll_alarms{kind="quarantine"}') == alarms + 1
    assert agent.api.sql("SELECT reason, body FROM billing.quarantine WHERE gateway = %s AND seq = 3", agent.gateway.id) == [
        ("implausible", wire_form(body).decode())]
    goes_on(agent)


def test_m2_many_records_add_up_to_more_than_64_bits(agent):
    peer = agent.gateway.peer()
    record = agent.grow(1, peer, now(), upload_bytes=1)
    refused(agent, agent.batch([{**record, "slot": slot, "upload_bytes": str(2**62), "download_bytes": str(BEYOND)} for slot in range(1, 2000)]))
    goes_on(agent)


@pytest.mark.parametrize("what", ["bytes", "packets"])
def test_m2_both_directions_together_are_what_a_link_carries(agent, what):
    """Of the records, whatever `counted` says."""
    record = agent.grow(1, agent.gateway.peer(), now(), **{f"upload_{what}": MARGIN * 2 // 3, f"download_{what}": MARGIN * 2 // 3})
    body = agent.batch([record], counted="0")
    body["grant"]["cycle_counted"] = "0"
    refused(agent, body)
    goes_on(agent)


def test_m2_what_was_claimed_once_is_not_there_again(agent):
    """The margin of an hour is for clocks that differ, and is one, however many reports, parts and epochs share it."""
    peer = agent.gateway.peer()
    for more in (True, False):
        agent.report([agent.grow(1, peer, now(), upload_bytes=MARGIN * 2 // 5)], more=more)
    agent.new_epoch()
    refused(agent, agent.batch([agent.grow(1, peer, now(), upload_bytes=MARGIN * 2 // 5)]))
    assert agent.gateway.used() == MARGIN * 4 // 5
    goes_on(agent)


def test_m2_late_reports_have_the_time_that_they_are_late(api):
    """Two days without the API at three quarters of the link: all of it is taken, in two epochs, however fast it is sent."""
    hours = past_hours(48)
    agent = active_agent(World(api, since=hours[0]), since=hours[0], created=hours[0], included_gb="1000000000")
    peer, sent = agent.gateway.peer(), 0
    for i, hour in enumerate(hours):
        if i == 30:  # a reboot
            agent.new_epoch()
        agent.report([agent.grow(1, peer, hour, upload_bytes=3600 * LINK // 2, download_bytes=3600 * LINK // 4)], covered=(hour, hour + HOUR))
        sent += 3600 * LINK // 2 + 3600 * LINK // 4
    assert agent.gateway.used() == sent and view(agent)["alarms"] == []


def test_m2_what_came_since_a_backup_is_filled_in_by_any_epoch(api):
    """The newest epoch is heard of first, and says that all is complete until now; what the journals have is taken all the same, and once."""
    hours = past_hours(20)
    agent = active_agent(World(api, since=hours[0]), since=hours[0], created=hours[0], included_gb="1000000000")
    agent.report([agent.grow(1, agent.gateway.peer(), hours[0], upload_bytes=5)], covered=(hours[0], hours[0] + MICROSECOND))
    api.sql("UPDATE gateway.gateway SET last_report = now() - interval '20 hours' WHERE id <> %s AND last_report > now() - interval '20 hours'"
            " AND owner = %s", agent.gateway.id, agent.gateway.owner)
    there = Copy(api, backup(api, "liar.dump"))
    there.sql("UPDATE billing.restoration SET taken = %s", hours[0])
    agent.api = there
    old = agent.epoch, agent.boot_id, agent.seq, agent.totals, agent.counted
    unknown = str(uuid.uuid4())  # made after the backup
    agent.new_epoch()
    agent.report([agent.grow(1, unknown, now(), upload_bytes=3)])
    agent.epoch, agent.boot_id, agent.seq, agent.totals, agent.counted = old
    for hour in hours[1:]:
        status, answer = agent.send(agent.batch([agent.grow(2, unknown, hour, upload_bytes=3600 * LINK // 2)], covered=(hour, hour + HOUR)), over=True)
        assert status == 200, answer
    refused(agent, agent.batch([agent.grow(2, unknown, now(), upload_bytes=3600 * LINK * 14)]))
    there.stop()


def test_m2_the_databases_own_clock_was_ahead(agent):
    """It has been set back by days: what is honest is taken all the same."""
    peer = agent.gateway.peer()
    agent.api.sql("UPDATE gateway.gateway SET complete_through = now() + interval '3 days' WHERE id = %s", agent.gateway.id)
    for _ in range(3):
        agent.report([agent.grow(1, peer, now(), upload_bytes=10**9)])
    assert agent.gateway.used() == 3 * 10**9 and view(agent)["alarms"] == []


def test_m2_an_operator_says_how_fast_a_gateway_can_be(agent):
    api, world = agent.api, agent.gateway.world
    body = agent.batch([agent.grow(1, agent.gateway.peer(), now(), upload_bytes=2 * MARGIN)])
    refused(agent, body)
    for wrong in (0, 10001, "400", None):
        status, problem = api.request("PATCH", f"/v1/locations/{world.location}", {"link_gbps": wrong}, token=api.admin_token)
        assert (status, problem.get("field")) == (422, "link_gbps") or wrong is None, problem
    status, location = api.request("PATCH", f"/v1/locations/{world.location}", {"link_gbps": 1000}, token=api.admin_token)
    assert status == 200 and location["link_gbps"] == 1000, location
    refused(agent, body)  # until somebody has looked at it
    assert api.request("DELETE", f"/v1/gateways/{agent.gateway.id}/alarms", token=api.admin_token)[0] == 204
    assert agent.send(body)[0] == 200
    assert agent.gateway.used() == 2 * MARGIN and view(agent)["alarms"] == []
    assert api.sql("SELECT count(*) FROM gateway.audit WHERE action = 'gateway.alarms.clear' AND object = %s", agent.gateway.id) == [(1,)]


def test_m2_what_contradicts_itself_is_not_released(agent):
    peer = agent.gateway.peer()
    agent.report([agent.grow(1, peer, now(), upload_bytes=100)])
    body = agent.batch([agent.grow(1, peer, now())])
    body["records"][0]["upload_bytes"] = "99"
    refused(agent, body, "regressed")
    assert agent.api.request("DELETE", f"/v1/gateways/{agent.gateway.id}/alarms", token=agent.api.admin_token)[0] == 204
    refused(agent, agent.batch(), "regressed")


@pytest.mark.parametrize("accounting, counted", [("both", 1), ("uploads", 0.6), ("downloads", 0.4)])
@pytest.mark.parametrize("released", [False, True])
def test_m2_parts_that_came_before_a_quarantine_are_billed(api, accounting, counted, released):
    """Once, with the next report; also where the epoch may go on and its last part comes after all."""
    agent = active_agent(World(api, accounting=accounting, rate="1"), mask=accounting, included_gb="0.000001")
    peers = [agent.gateway.peer() for _ in range(2)]

    def grown(slot, amount):
        return agent.grow(slot, peers[slot - 1], now(), upload_bytes=amount * 6, download_bytes=amount * 4)

    agent.report([grown(1, 500)])
    agent.report([grown(1, 700)], more=True)
    body = agent.batch([grown(2, 10)])
    if released:
        wrong = {**body, "counted": str(BEYOND)}
        refused(agent, wrong)
    else:
        refused(agent, {**body, "records": [{**body["records"][0], "slot": 1, "peer": peers[0], "upload_bytes": "1"}]}, "regressed")
    old = agent.__dict__.copy()
    agent.new_epoch()
    agent.report([grown(1, 1)])
    agent.report([grown(1, 1)])
    sent = (500 + 700 + 2) * 10
    if released:
        assert api.request("DELETE", f"/v1/gateways/{agent.gateway.id}/alarms", token=api.admin_token)[0] == 204
        agent.__dict__.update(old)
        assert agent.send(body)[0] == 200
        sent += 100
    assert agent.gateway.used() == round(sent * counted)
    assert api.sql("SELECT sum(up + down)::bigint FROM billing.usage_hour WHERE gateway = %s", agent.gateway.id) == [(sent,)]
    assert api.sql("SELECT sum(bytes)::bigint FROM billing.overage_hour WHERE gateway = %s", agent.gateway.id) == [(round(sent * counted) - 1000,)]
    assert api.sql("SELECT count(*) FROM billing.part_hour WHERE gateway = %s", agent.gateway.id) == [(0,)]


def test_m2_sums_end_at_64_bits(agent):
    """Of a database that took a lie before there was a bound: honest reports are taken, and the sums stay at their end."""
    peer = agent.gateway.peer()
    agent.report([agent.grow(1, peer, now(), upload_bytes=20 * 10**9)])
    agent.api.sql("UPDATE billing.bucket SET used = %s, charged = %s WHERE id = %s", BEYOND, BEYOND - 10, agent.gateway.bucket)
    agent.api.sql("UPDATE billing.usage_hour SET up = %s, down = %s WHERE gateway = %s", BEYOND, BEYOND - 1, agent.gateway.id)
    agent.api.sql("UPDATE billing.overage_hour SET bytes = %s WHERE gateway = %s", BEYOND, agent.gateway.id)
    for _ in range(2):
        agent.report([agent.grow(1, peer, now(), upload_bytes=10**9, download_bytes=10**9)])
    assert agent.gateway.bucket_row("used") == BEYOND
    assert agent.api.sql("SELECT DISTINCT up, down FROM billing.usage_hour WHERE gateway = %s AND hour = %s", agent.gateway.id, hour_of(now())) in (
        [(BEYOND, BEYOND)], [])


def test_m2_what_the_database_cannot_take_has_a_status_of_the_protocol(agent):
    """Whatever it is: a rule of the database that nothing before it has, here."""
    peer = agent.gateway.peer()
    body = agent.batch([agent.grow(1, peer, now(), upload_bytes=123456789)])
    agent.api.sql("ALTER TABLE billing.counter ADD CONSTRAINT of_this_test CHECK (up <> 123456789)")
    try:
        answer = refused(agent, body)
        assert answer["held_seq"] == 1 and answer["held_crc"] is not None
    finally:
        agent.api.sql("ALTER TABLE billing.counter DROP CONSTRAINT of_this_test")
    [alarm] = view(agent)["alarms"]
    assert "of_this_test" in alarm["detail"]["detail"] and agent.gateway.used() == 0
    refused(agent, agent.batch())
    goes_on(agent)


def test_m2_more_undelivered_than_downloaded(agent):
    peer = agent.gateway.peer()
    agent.report([agent.grow(1, peer, now(), download_bytes=100, undelivered_bytes=100)])
    refused(agent, agent.batch([agent.grow(1, peer, now(), undelivered_bytes=1)]))
    assert agent.gateway.used() == 0
    goes_on(agent)


@pytest.mark.parametrize("whose", ["nobody", "another gateway", "another owner"])
def test_m2_a_peer_that_is_not_its_own(agent, whose):
    peer = {"nobody": lambda: str(uuid.uuid4()), "another gateway": agent.gateway.world.gateway().peer,
            "another owner": lambda: active_agent(World(agent.api)).gateway.peer()}[whose]()
    refused(agent, agent.batch([agent.grow(1, peer, now(), upload_bytes=1)]))
    assert agent.api.sql("SELECT count(*) FROM billing.usage_hour WHERE peer = %s", peer) == [(0,)]
    goes_on(agent)


def test_m6_numbers_are_decimal_digits(agent):
    peer = agent.gateway.peer()
    texts = ["+1", "-1", "1.0", "1e3", "007", " 1", "1 ", "0x1", "", "٣", str(2**63), str(2**64), "9" * 400]
    for field, text in [(field, text) for text in texts for field in ("counted", "upload_bytes")]:
        body = agent.batch([agent.grow(1, peer, now(), upload_bytes=1)])
        (body if field == "counted" else body["records"][0])[field] = text
        status, problem = agent.send(body)
        assert status == 400 and "accepted" in problem["detail"] and problem["field"].endswith(field), text
        agent.seq -= 1
    agent.report()


# ---- instants ----

FAR = ["0001-01-01T00:00:00Z", "1677-09-21T00:12:44Z", "1970-01-01T00:00:00Z", "2261-12-31T23:00:00Z", "2262-04-11T23:47:16.854775Z",
       "9999-12-31T23:59:59Z"]


@pytest.mark.parametrize("instant", FAR)
def test_m6_far_instants(agent, instant):
    """They are no error (a clock may be wrong), and move nothing beyond the gateway's life."""
    peer, created = agent.gateway.peer(), agent.gateway.row("created")
    agent.report([agent.grow(1, peer, now(), upload_bytes=100)])
    base = agent.gateway.ledger("base")
    hour = instant[:14] + "00:00Z"
    body = agent.batch([{**agent.grow(1, peer, now(), upload_bytes=1), "hour": hour}], covered_from=instant, covered_to=instant, now=instant,
                       status=[{"peer": peer, "handshake": instant, "endpoint": None}])
    body["states"] = [{"from": a, "to": b, "state": state} for a, b in ((instant, text_of(now())), (text_of(now()), instant))
                      for state in ("active", "suspended")]
    status, answer = agent.send(body)
    assert status == (400 if instant[0] in "09" or instant.startswith("1677") else 200), answer
    if status == 400:
        return
    complete, since = agent.gateway.row("complete_through, active_since")
    assert created <= since <= complete <= now()
    assert agent.api.sql("SELECT bool_and(hour BETWEEN %s AND %s) FROM billing.usage_hour WHERE gateway = %s",
                         hour_of(created), now(), agent.gateway.id) == [(True,)]
    assert agent.api.sql("SELECT bool_and(lower(span) >= %s AND upper(span) <= now() + interval '5 seconds') FROM billing.active_interval"
                         " WHERE gateway = %s", created, agent.gateway.id) == [(True,)]
    [[seen]] = agent.api.sql("SELECT last_handshake FROM gateway.peer WHERE id = %s", peer)
    assert seen is None or seen <= now()
    assert agent.gateway.ledger("base")[:1] == base[:1] and agent.gateway.used() == 101
    agent.report([agent.grow(1, peer, now(), upload_bytes=1)], status=[{"peer": peer, "handshake": text_of(now()), "endpoint": None}])
    [[seen]] = agent.api.sql("SELECT last_handshake FROM gateway.peer WHERE id = %s", peer)
    assert now() - seen < timedelta(seconds=60)


def test_l6_nobody_was_active_before_it_was_made(api):
    begin = now() - timedelta(minutes=90)
    agent = Agent(World(api).gateway(created=begin))
    agent.active_since = datetime(1970, 1, 1, tzinfo=timezone.utc)
    agent.report()
    assert agent.gateway.row("active_since") == begin
    assert [line[4] for line in agent.gateway.ledger("base")] == [begin]
    assert api.sql("SELECT lower(span) FROM billing.active_interval WHERE gateway = %s", agent.gateway.id) == [(begin,)]


# ---- states ----

def test_m3_states_beyond_64_are_refused(agent):
    at = now() - HOUR
    states = [(at + i * MICROSECOND, at + (i + 1) * MICROSECOND, "active") for i in range(8400)]
    for n in (65, 8400):
        status, problem = agent.send(agent.batch(states=states[:n]))
        assert (status, problem["field"]) == (400, "states") and "at most 64" in problem["detail"]
        agent.seq -= 1
    agent.report(states=states[:64])


@pytest.mark.parametrize("seed", range(3))
def test_m3_states_are_merged_as_a_set(agent, seed):
    """Against plain Python, microsecond by microsecond: what is known first stays, and touching intervals of one state are one."""
    rng = random.Random(seed)
    begin = agent.gateway.row("created") + HOUR
    known = {}
    for _ in range(12):
        told = [(a, a + rng.randint(0, 40), rng.choice(("active", "suspended"))) for a in (rng.randint(0, 600) for _ in range(rng.randint(1, 64)))]
        agent.report(states=[(begin + a * MICROSECOND, begin + b * MICROSECOND, state) for a, b, state in told])
        for a, b, state in told:
            for moment in range(a, b):
                known.setdefault(moment, state)
    expected = []
    for moment in sorted(known):
        if expected and expected[-1][1] == moment and expected[-1][2] == known[moment]:
            expected[-1][1] += 1
        else:
            expected.append([moment, moment + 1, known[moment]])
    assert agent.api.sql("SELECT lower(span), upper(span), state FROM billing.active_interval WHERE gateway = %s AND upper(span) < %s ORDER BY span",
                         agent.gateway.id, begin + HOUR) == [(begin + a * MICROSECOND, begin + b * MICROSECOND, state) for a, b, state in expected]


def test_m3_states_among_a_thousand_known_ones(agent):
    """Merging takes time for each of them: beyond that, what is known stays as it is. What comes behind them is taken."""
    begin = agent.gateway.row("created") + HOUR
    agent.api.sql("INSERT INTO billing.active_interval (owner, gateway, span, state) SELECT %s, %s, tstzrange(%s::timestamptz + i * interval '2 ms',"
                  " %s::timestamptz + i * interval '2 ms' + interval '1 ms'), 'suspended' FROM generate_series(1, 1001) i",
                  agent.gateway.owner, agent.gateway.id, begin, begin)

    def known():
        return agent.api.sql("SELECT count(*)::int, max(upper(span)) FROM billing.active_interval WHERE gateway = %s AND upper(span) < %s",
                             agent.gateway.id, begin + HOUR)[0]

    before = known()
    agent.report(states=[(begin, begin + HOUR / 2, "active")])
    assert known() == before
    agent.report(states=[(begin + HOUR / 4, begin + HOUR / 2, "active")])
    assert known() == (1002, begin + HOUR / 2)
    agent.report(states=[(begin, begin + timedelta(milliseconds=1000), "active")])
    assert known()[0] > 1002


# ---- grants ----

@pytest.mark.parametrize("seq", [2, 10**6, BEYOND])
def test_l5_a_grant_that_was_never_given_suspends_nobody(api, seq):
    agent = active_agent(World(api, overage="revoke_access"), included_gb="1")
    body = agent.batch(exhausted=True)
    body["grant"]["grant_seq"] = seq
    assert agent.send(body)[0] == 200
    assert agent.gateway.row("suspended_reasons") == [] and agent.gateway.bucket_row("exhausted_seq") == 0
    agent.report(exhausted=True)
    assert agent.gateway.row("suspended_reasons") == ["allowance"]
    api.sql("UPDATE billing.bucket SET extra = 10, grant_seq = grant_seq + 1 WHERE id = %s", agent.gateway.bucket)
    agent.take_grant()
    agent.report()
    assert agent.gateway.row("suspended_reasons") == []


@pytest.mark.parametrize("cycle", [197001, 202613, 999912, "next"])
def test_l5_a_grant_of_a_cycle_that_is_not_there(agent, cycle):
    body = agent.batch([agent.grow(1, agent.gateway.peer(), now(), upload_bytes=9)], exhausted=True)
    body["grant"]["cycle"] = body["grant"]["cycle"] + 100 if cycle == "next" else cycle
    assert agent.send(body)[0] == 200
    assert agent.gateway.row("suspended_reasons") == [] and agent.gateway.used() == 9
    agent.report()


# ---- what it tells of itself and its peers ----

def lines(agent):
    return [line for [line] in agent.api.sql("SELECT line FROM gateway.job_log WHERE gateway = %s AND step = 'apply' ORDER BY id", agent.gateway.id)]


def test_m6_what_cannot_be_applied_is_told_once_for_a_revision(agent):
    complaint = [{"what": "peer x", "reason": "no such name"}]
    for _ in range(5):
        agent.report(applied_revision=BEYOND, cannot_apply=complaint)
    assert lines(agent) == ["cannot apply peer x: no such name"]
    agent.api.sql("UPDATE gateway.gateway SET revision = revision + 1 WHERE id = %s", agent.gateway.id)
    agent.report(applied_revision=BEYOND, cannot_apply=[{"what": "a\r\nb\u0085\x1b[31m" + "w" * 10**5, "reason": "é" * 10**5, "more": "x" * 10**5}])
    assert lines(agent)[1] == ("cannot apply a  b  [31m" + "w" * 200)[:213] + ": " + "é" * 500
    assert agent.gateway.row("applied_revision = revision")


def test_m6_complaints_are_bounded(agent):
    status, problem = agent.send(agent.batch(cannot_apply=[{"what": "x", "reason": "y"}] * 101))
    assert (status, problem["field"]) == (400, "cannot_apply")
    agent.seq -= 1
    for i in range(3):
        agent.api.sql("UPDATE gateway.gateway SET revision = revision + 1 WHERE id = %s", agent.gateway.id)
        agent.report(applied_revision=BEYOND, cannot_apply=[{"what": f"{i}-{j}", "reason": ""} for j in range(100)])
        assert len(lines(agent)) <= 200
    agent.report()
    assert lines(agent)[-1] == "cannot apply 2-99: "


ENDPOINTS = ["x" * 500_000, "", " ", "203.0.113.5", "203.0.113.5:0", "203.0.113.5:65536", "203.0.113.5:080", "203.0.113.05:1", "[::1:5", "::1:5",
             "office.example:51820", "203.0.113.5:1\n", "203.0.113.5:1\t203.0.113.6:2", "\\N", "[fe80::1%eth0]:1", "'; DROP TABLE x; --:1"]


def test_m6_endpoints_are_addresses(agent):
    peer = agent.gateway.peer()

    def told(text):
        agent.report(status=[{"peer": peer, "handshake": None, "endpoint": text}])
        return agent.api.sql("SELECT current_endpoint FROM gateway.peer WHERE id = %s", peer)[0][0]

    assert told("203.0.113.5:40001") == "203.0.113.5:40001"
    for endpoint in ENDPOINTS:
        assert told(endpoint) == "203.0.113.5:40001"
    assert told("[2001:db8::1]:65535") == "[2001:db8::1]:65535"


@pytest.mark.parametrize("whose", ["another gateway", "another owner"])
def test_m6_the_status_of_somebody_elses_peer(agent, whose):
    other = (agent.gateway.world.gateway() if whose == "another gateway" else World(agent.api).gateway()).peer()
    agent.report(status=[{"peer": other, "handshake": text_of(now()), "endpoint": "203.0.113.5:40001"}])
    assert agent.api.sql("SELECT last_handshake, current_endpoint FROM gateway.peer WHERE id = %s", other) == [(None, None)]


def test_m6_more_status_than_a_batch_has(agent):
    status, problem = agent.send(agent.batch(status=[{"peer": str(uuid.uuid4())}] * 1001))
    assert (status, problem["field"]) == (400, "status")
    agent.seq -= 1
    agent.report(status=[{"peer": str(uuid.uuid4())}] * 1000)


def test_m6_unknown_members_are_kept_nowhere(agent):
    junk = {"unknown": "junk" * 20000}
    body = agent.batch([{**agent.grow(1, agent.gateway.peer(), now(), upload_bytes=1), **junk}], **junk,
                       reconcile={"meter": {**dict.fromkeys(("upload_bytes", "download_bytes", "upload_packets", "download_packets"), "1"), **junk},
                                  "journal": {"seq": 1, "upload_bytes": "0", "download_bytes": "0", "rx_bytes": junk}, "other": junk},
                       cannot_apply=[{"what": "x", "reason": "y", **junk}])
    body["epoch"].update(junk)
    body["grant"].update(junk)
    assert agent.send(body)[0] == 200
    for table in ("billing.reconciliation", "billing.epoch", "billing.usage_record", "gateway.job_log", "gateway.gateway"):
        [[held]] = agent.api.sql(f"SELECT coalesce(string_agg(t::text, ''), '') FROM {table} t WHERE t.{'id' if table == 'gateway.gateway' else 'gateway'} = %s",
                                 agent.gateway.id)
        assert "junk" not in held, table
    assert agent.enroll(protocol={"x": "junk" * 1000}, unknown="junk" * 1000)[0] == 403  # traded before


def test_m6_keys_are_keys(agent):
    other = Agent.__new__(Agent)
    other.__dict__.update(agent.__dict__)
    other.one_time_token = agent.gateway.one_time_token()
    for text in ("", "A" * 43, base64.b64encode(bytes(32)).decode(), "A" * 15_000, "=" * 44, key() + "\n"):
        for status, problem in (agent.send(agent.batch(public_key=text)), other.enroll(public_key=text)):
            assert (status, problem["field"]) == (400, "public_key"), text[:50]


def test_m6_enrolment_is_bounded(api):
    agent = Agent(World(api).gateway())
    agent.one_time_token = agent.gateway.one_time_token()
    for change in ({"attempt": 2**31}, {"attempt": -1}, {"attempt": 1.0}, {"attempt": True}, {"gateway": "x" * 15_000}, {"gateway": ["x"]},
                   {"one_time_token": {}}, {"one_time_token": 5}):
        status, problem = agent.enroll(**change)
        assert status == 400 and problem["field"] in change and "detail" in problem, problem
    assert agent.enroll(one_time_token="x" * 15_000)[0] == 403
    assert agent.enroll(one_time_token="x" * 500_000)[0] == 413
    assert agent.enroll()[0] == 201


# ---- the frame ----

def test_m6_sequences_end_before_64_bits(agent):
    for seq in (10**18, 2**62, BEYOND):
        body = agent.batch(seq=seq)
        refused(agent, body, "gap")
        status, _ = agent.send(body, kept_from=seq)
        assert status == 400  # a header of 18 digits at most
        agent.seq -= 1
    seq = 10**18 - 1
    assert agent.send(agent.batch(seq=seq), kept_from=seq)[0] == 200
    agent.seq = seq
    agent.report()
    goes_on(agent)


def test_m6_checksums_are_of_the_last_thousand_sequences(agent):
    """Also where sequences are left out."""
    for step in (1, 1, 500, 1, 999, 1, 1000, 1, 10**6, 1, 1):
        agent.seq += step - 1
        body = agent.batch()
        assert agent.send(body, kept_from=body["seq"])[0] == 200
        kept = [seq for [seq] in agent.api.sql("SELECT seq FROM billing.epoch_batch WHERE gateway = %s ORDER BY seq", agent.gateway.id)]
        assert kept[0] > agent.seq - 1000 and kept[-1] == agent.seq
    assert len(kept) == 3


def rows(agent):
    return [agent.api.sql(f"SELECT count(*) FROM billing.{table} WHERE gateway = %s", agent.gateway.id)
            for table in ("counter", "usage_record", "usage_hour", "active_interval", "epoch_batch", "epoch", "ledger", "action")]


def test_m6_no_more_rows_than_a_gateway_can_have_to_say(agent):
    """Two a second for each peer and eight: with one, 18. Beyond that it has to wait, and loses nothing."""
    api, gateway, peer = agent.api, agent.gateway, agent.gateway.peer()
    body = agent.batch([{**agent.grow(slot, peer, now(), incarnation=slot, upload_bytes=1)} for slot in range(1, 3601)])

    def send(saved_up):
        api.sql("UPDATE gateway.gateway SET rows_until = now() - %s * interval '1 second' WHERE id = %s", saved_up, gateway.id)
        return api.exchange("POST", "/v1/agent/report", wire_form(body), agent.token, {"Wiretoll-Batch-CRC32C": str(crc_of(body))})

    before = rows(agent)
    for _ in range(2):
        answer = send(10)  # 190 more would be a machine that takes as long for the request
        problem = json.loads(answer.body)
        assert answer.status == 503 and int(answer.headers["Retry-After"]) > 0 and problem["field"] == "records" and "two rows a second" in problem["detail"]
    assert rows(agent) == before and gateway.used() == 0 and view(agent)["alarms"] == []
    at = now()
    assert send(10_000).status == 200 and gateway.used() == 3600
    [[until]] = api.sql("SELECT rows_until FROM gateway.gateway WHERE id = %s", gateway.id)
    assert until >= at + timedelta(seconds=3601 / 18 - 10_000)
    # No more than a day is saved up, and a state is a row as well.
    states = [(now() - i * HOUR / 100, now() - i * HOUR / 100 + MICROSECOND, "active") for i in range(54)]
    for _ in range(2):
        body = agent.batch(states=states)
        send(10**7)
    [[until, at]] = api.sql("SELECT rows_until, now() FROM gateway.gateway WHERE id = %s", gateway.id)
    assert timedelta(0) < at - until + timedelta(seconds=55 / 18) - timedelta(days=1) < timedelta(seconds=60)
    # A new epoch is none before it may be; and who has more peers has more to say.
    agent.new_epoch()
    body = agent.batch(states=states)
    before = rows(agent)
    assert send(-30).status == 503 and rows(agent) == before
    # This database's own clock was ahead.
    assert send(-10**6).status == 200
    [[one]] = api.sql("SELECT extract(epoch FROM billing.rows_until(g, 18) - billing.rows_until(g, 0))::float8 FROM gateway.gateway g WHERE id = %s", gateway.id)
    gateway.peer()
    [[two]] = api.sql("SELECT extract(epoch FROM billing.rows_until(g, 20) - billing.rows_until(g, 0))::float8 FROM gateway.gateway g WHERE id = %s", gateway.id)
    assert (one, two) == (1, 1)


@pytest.mark.parametrize("name", ["id", "boot_id"])
def test_m6_epochs_of_others(agent, name):
    """An epoch is (owner, gateway, id): who names another's begins one of its own."""
    other = active_agent(World(agent.api))
    before = agent.api.sql("SELECT e::text FROM billing.epoch e WHERE gateway = %s", other.gateway.id)
    agent.new_epoch()
    agent.epoch, agent.boot_id = (other.epoch, agent.boot_id) if name == "id" else (agent.epoch, other.boot_id)
    agent.report([agent.grow(1, agent.gateway.peer(), now(), upload_bytes=1)])
    assert agent.api.sql("SELECT e::text FROM billing.epoch e WHERE gateway = %s", other.gateway.id) == before
    other.report()


def test_m6_epochs_begin_as_often_as_agents_start(agent):
    """Beyond that a gateway has to wait, and loses nothing: 1000, and 100 a day."""
    api, gateway = agent.api, agent.gateway
    api.sql("INSERT INTO billing.epoch (owner, gateway, id, boot_id, generation) SELECT %s, %s, gen_random_uuid(), %s, 1"
            " FROM generate_series(1, 1000 + 100 * 2)", gateway.owner, gateway.id, agent.boot_id)
    agent.new_epoch()
    body = agent.batch([agent.grow(1, gateway.peer(), now(), upload_bytes=1)])
    count = api.sql("SELECT count(*) FROM billing.epoch WHERE gateway = %s", gateway.id)
    for _ in range(2):  # the same again is no other epoch, and has to wait as well
        answer = api.exchange("POST", "/v1/agent/report", wire_form(body), agent.token, {"Wiretoll-Batch-CRC32C": str(crc_of(body))})
        assert answer.status == 503 and int(answer.headers["Retry-After"]) > 0 and json.loads(answer.body)["field"] == "epoch"
    assert view(agent)["alarms"] == [] and api.sql("SELECT count(*) FROM billing.epoch WHERE gateway = %s", gateway.id) == count
    [[answer]] = api.sql("SELECT billing.refuse_report(%s, %s, 1, %s, %s, %s, 1, 1, 'it cannot be', '{}')",  # what the database cannot take
                         gateway.owner, gateway.id, agent.generation, str(uuid.uuid4()), agent.boot_id)
    assert answer["held_seq"] == 0 and api.sql("SELECT count(*) FROM billing.epoch WHERE gateway = %s", gateway.id) == count
    api.sql("DELETE FROM billing.epoch WHERE gateway = %s AND last_seq = 0", gateway.id)
    assert agent.send(body)[0] == 200


def crc_of(body):
    from simulated_agent import crc32c
    return crc32c(wire_form(body))


def test_m6_alarms_and_kept_bodies_are_bounded(agent):
    peer, whose = agent.gateway.peer(), (agent.gateway.owner, agent.gateway.id)
    agent.api.sql("INSERT INTO billing.alarm (owner, gateway, kind, subject) SELECT %s, %s, 'quarantine', gen_random_uuid() FROM generate_series(1, 98)", *whose)
    agent.api.sql("INSERT INTO billing.quarantine (owner, gateway, epoch, seq, crc, reason, held_seq, body) SELECT %s, %s, gen_random_uuid(), 1, 1,"
                  " 'implausible', 1, '{}' FROM generate_series(1, 98)", *whose)
    for _ in range(4):
        agent.new_epoch()
        refused(agent, agent.batch([agent.grow(1, peer, now(), upload_bytes=BEYOND)]))
    assert len(view(agent)["alarms"]) == 100
    assert agent.api.sql("SELECT count(*) FROM billing.quarantine WHERE gateway = %s", agent.gateway.id) == [(100,)]
    goes_on(agent)


def test_m6_a_kept_body_is_cut(agent):
    refused(agent, agent.batch([agent.grow(1, agent.gateway.peer(), now(), upload_bytes=BEYOND)], junk="é" * 100_000))
    assert agent.api.sql("SELECT length(body) FROM billing.quarantine WHERE gateway = %s", agent.gateway.id) == [(65536,)]


NO_REPORTS = [
    b"", b"{", b"[]", b"null", b"\xef\xbb\xbf{}", b'{"a": "\xff"}', b'{"a": "\\ud800"}', b'{"a": "\\u0000"}', b'{"a": 1, "a": 2}', b'{"seq": 01}',
    b'{"seq": +1}', b'{"seq": 1e999}', b'{"seq": 99999999999999999999}', b'{"seq": NaN}', b"[" * 100_000, b'{"a":' * 33 + b"1" + b"}" * 33,
    b'{"a": "' + b"x" * 1_000_000]


def test_m6_what_is_no_report(agent):
    for raw in NO_REPORTS:
        status, problem = agent.send(raw)
        assert status == 400 and problem["detail"], raw[:50]
    raw = wire_form(agent.batch())
    agent.seq -= 1
    for header, value in (("Wiretoll-Epoch-Over", "maybe"), ("Wiretoll-Epoch-Over", "True"), ("Wiretoll-Epoch-Over", ""), ("Wiretoll-Kept-From", "0"),
                          ("Wiretoll-Kept-From", "+1"), ("Wiretoll-Kept-From", str(BEYOND))):
        status, problem = agent.api.request("POST", "/v1/agent/report", raw, token=agent.token,
                                            headers={"Wiretoll-Batch-CRC32C": str(crc32c(raw)), header: value})
        assert (status, problem.get("field")) == (400, header), (header, value, problem)
    agent.report()


def test_m6_a_body_of_more_than_a_mebibyte(agent):
    assert agent.send(b'{"a": "' + b"x" * 2**20 + b'"}')[0] == 413
    agent.report()


# ---- any of it, at random ----

OTHERS = ["billing.epoch", "billing.epoch_batch", "billing.counter", "billing.usage_record", "billing.usage_hour", "billing.overage_hour",
          "billing.active_interval", "billing.ledger", "billing.action", "billing.quarantine", "billing.alarm", "billing.part_hour",
          "billing.reconciliation", "gateway.peer", "gateway.job_log"]


class Lies:
    """A gateway that lies beside one of the same owner and one of another."""

    def __init__(self, api, rng):
        self.api, self.rng = api, rng
        world = World(api, rate="1", overage=rng.choice(("charge_overage", "revoke_access", "none")))
        self.honest = [active_agent(world), active_agent(World(api, rate="1"))]
        self.liar = active_agent(world, included_gb="0.00001")
        self.peers = {agent: [agent.gateway.peer() for _ in range(3)] for agent in (*self.honest, self.liar)}
        for agent in self.honest:
            self.be_honest(agent)
        self.others = self.rows_of_others()
        names = [name for agent in self.honest for name in (agent.epoch, agent.gateway.id, agent.gateway.owner, *self.peers[agent])]
        self.values = [
            None, True, False, 0, 1, -1, 2**31 - 1, 2**31, 2**32, 2**53, BEYOND, 2**63, 2**64, -2**63, 1.0, 0.5, 1e308, -0.0, "", "0", "1", "-1", "+1",
            "1.0", "00", str(BEYOND), str(2**63), str(2**64), str(2**62), str(MARGIN), "9" * 300, "x", "x" * 100_000, "\x7f\x01\t\n\\N", "\u202e\ud7ff",
            "{}", [], {}, [[]], [{}], [None], {"a": {"b": []}}, "00000000-0000-0000-0000-000000000000", str(uuid.uuid4()), *names, *FAR,
            text_of(now() + HOUR), text_of(now() - 1000 * HOUR), "2026-02-30T00:00:00Z", "2026-01-01T24:00:00Z", "2026-12-31T23:59:60Z", "infinity", "now",
            "203.0.113.5:40001", key(), "active", "suspended"]

    def be_honest(self, agent):
        agent.report([agent.grow(slot, peer, now(), upload_bytes=self.rng.randint(0, 10**6), download_bytes=self.rng.randint(0, 10**6))
                      for slot, peer in enumerate(self.peers[agent], 1)])

    def report(self):
        """A report that is true, with all that one can have."""
        agent, rng = self.liar, self.rng
        records = [agent.grow(0, None, now(), upload_bytes=5)]
        for slot, peer in enumerate(self.peers[agent], 1):
            records.append(agent.grow(slot, peer, rng.choice((now(), now() - HOUR)), upload_bytes=rng.randint(0, 10**5), download_bytes=10**5,
                                      upload_packets=3, download_packets=9, undelivered_bytes=rng.randint(0, 10**4), refused_bytes=5))
        at = now()
        return agent.batch(records, covered=(at - HOUR, at), states=[(at - HOUR, at - HOUR / 2, "active"), (at - HOUR / 2, at, "suspended")],
                           status=[{"peer": peer, "handshake": text_of(at), "endpoint": "203.0.113.5:40001", "audit": "rx_short"} for peer in self.peers[agent]],
                           cannot_apply=[{"what": "peer x: endpoint", "reason": "no such name"}], more=False,
                           reconcile={"meter": dict.fromkeys(("upload_bytes", "download_bytes", "upload_packets", "download_packets"), "9"),
                                      "wireguard": {"rx_bytes": "9", "tx_bytes": "9"}, "interface": {"rx_bytes": "9", "tx_bytes": "9", "encrypted": True},
                                      "journal": {"seq": 1, "upload_bytes": "0", "download_bytes": "0"}})

    def places(self, value):
        """Every member and element below: (container, key)."""
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for name, inner in pairs:
            yield value, name
            yield from self.places(inner)

    def lie(self, body):
        rng = self.rng
        said = []
        for _ in range(rng.choice((1, 1, 2))):
            container, name = rng.choice(list(self.places(body)))
            kind = rng.random()
            said.append((name, kind))
            if kind < 0.1 and isinstance(container, dict):
                del container[name]
            elif kind < 0.2 and isinstance(container, list):
                container.extend([json.loads(json.dumps(container[name]))] * rng.choice((1, 1, 70)))
            else:
                container[name] = rng.choice(self.values)
        raw = wire_form(body)
        if rng.random() < 0.15:  # its bytes
            at = rng.randrange(len(raw))
            raw = raw[:at] + rng.choice((b"", b"\xff", b"\x00", b'"', b"\\ud800", b"0", b"-", b"}", raw[at:at + 40] * 2)) + raw[at + rng.randint(0, 3):]
        return said, raw

    def rows_of_others(self):
        """All that is held of them; the feed's numbers come later."""
        ids = [agent.gateway.id for agent in self.honest]
        rows = {table: self.api.sql(f"SELECT md5(coalesce(string_agg((to_jsonb(t) - 'feed_id')::text, ',' ORDER BY (to_jsonb(t) - 'feed_id')::text), ''))"
                                    f" FROM {table} t WHERE gateway::text = ANY (%s)", ids) for table in OTHERS}
        rows["buckets"] = self.api.sql("SELECT b::text FROM billing.bucket b WHERE holder::text = ANY (%s) ORDER BY 1", ids)
        rows["gateways"] = self.api.sql("SELECT g::text FROM gateway.gateway g WHERE id::text = ANY (%s) ORDER BY 1", ids)
        rows["owners"] = self.api.sql("SELECT a::text FROM gateway.account a WHERE owner::text = ANY (%s) ORDER BY 1", [agent.gateway.owner for agent in self.honest])
        return rows

    def check(self):
        """What holds whatever it said."""
        api, gateway = self.api, self.liar.gateway
        sums = "sum({0}up)::text, sum({0}down)::text, sum({0}up_packets)::text, sum({0}down_packets)::text, sum({0}undelivered)::text, sum({0}refused)::text"
        counters, records, hours = (api.sql(f"SELECT {sums.format(prefix)} FROM billing.{table} WHERE gateway = %s", gateway.id)
                                    for table, prefix in (("counter", ""), ("usage_record", "d_"), ("usage_hour", "")))
        assert counters == records == hours
        [[counted, oldest]] = api.sql("SELECT coalesce(sum(greatest(counted, cycle_counted)), 0), min(created) FROM billing.epoch WHERE gateway = %s", gateway.id)
        [[created, since, complete, status]] = api.sql("SELECT created, active_since, complete_through, status FROM gateway.gateway WHERE id = %s", gateway.id)
        [[used, charged]] = api.sql("SELECT sum(used), sum(charged) FROM billing.bucket WHERE holder = %s", gateway.id)
        most = LINK * ((now() - created).total_seconds() + 3600)
        assert used <= counted and charged <= counted and counted <= 2 * most and float(counters[0][0] or 0) <= most
        assert created <= since <= now() and complete <= now() and status == "active"
        assert api.sql("SELECT count(*) FROM billing.usage_hour WHERE gateway = %s AND (hour < date_trunc('hour', %s, 'UTC') OR hour > now())", gateway.id, created) == [(0,)]
        assert api.sql("SELECT count(*) FROM gateway.peer WHERE gateway = %s AND (last_handshake > now() OR length(current_endpoint) > 64)", gateway.id) == [(0,)]
        [[longest, n]] = api.sql("SELECT max(length(line)), count(*) FROM gateway.job_log WHERE gateway = %s", gateway.id)
        assert n <= 200 and (longest or 0) < 800
        [[length]] = api.sql("SELECT max(length(k::text)) FROM billing.reconciliation k WHERE gateway = %s", gateway.id)
        assert (length or 0) < 10_000
        assert api.sql("SELECT count(*) FROM billing.ledger WHERE gateway = %s AND (lower(span) < date_trunc('hour', %s, 'UTC') OR lower(span) > now() + interval '5 seconds')",
                       gateway.id, created) == [(0,)]
        assert oldest <= now()

    def round(self):
        said, raw = self.lie(self.report())
        header = self.rng.choice((None, None, None, None, 1, self.liar.seq, 10**17, "x", "-1"))
        status, answer = self.liar.send(raw, kept_from=header, over=self.rng.random() < 0.1)
        assert status in DOCUMENTED - {401, 410, 413}, (said, answer)
        if status != 200:
            assert answer.get("detail") or answer.get("reason") in ("gap", "regressed", "rolled_back", "implausible", "fenced"), answer
        self.check()
        assert self.rows_of_others() == self.others
        self.liar.new_epoch()
        self.be_honest(self.liar)  # what its agent goes on with


def test_whatever_a_gateway_says_it_changes_its_own_rows_only(api):
    """All rows of docs/operate/reports.md at once: statuses that the protocol names, sums that agree, and the others' rows as they were."""
    seed = int(os.environ.get("SEED", 20261130))
    rng, seconds = random.Random(seed), float(os.environ.get("LIES_SECONDS", 0))
    rounds, begun = int(os.environ.get("LIES", 60)), time.monotonic()
    done = 0
    while done < rounds or time.monotonic() < begun + seconds:
        lies = Lies(api, rng)
        for _ in range(min(60, rounds) if not seconds else 400):
            try:
                lies.round()
            except AssertionError as error:
                raise AssertionError(f"SEED={seed}, round {done}: {error}") from error
            done += 1
        for agent in lies.honest:
            before = agent.gateway.used()
            lies.be_honest(agent)
            assert agent.gateway.used() > before
        if seconds and time.monotonic() > begun + seconds:
            break
    print(f"{done} reports with lies in them, seed {seed}")


def test_each_row_of_the_page_is_shown():
    """The table in docs/operate/reports.md names, for each thing that an agent can say, the test that shows its bound."""
    page = (Path(__file__).resolve().parents[2] / "docs/operate/reports.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 20
    for row in rows:
        [*_, last] = [cell.strip() for cell in row.strip("| ").split("|")]
        names = re.findall(r"test_\w+", last)
        assert names and all(name in globals() for name in names), row
