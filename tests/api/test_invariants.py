# SPDX-License-Identifier: BSD-2-Clause
"""The invariants of metering that the server keeps, each by its name, against plain Python: I1, I7, I8, I10, I12, I15."""

import copy
import http.client
import random
import signal
import threading
from collections import defaultdict
from datetime import timedelta

import pytest

from billing_model import Traffic, at_once, past_hours, stored_usage, wait
from simulated_agent import FIELDS, HOUR, Agent, World, active_agent, hour_of, now, text_of

COLUMNS = ("up", "down", "up_packets", "down_packets", "undelivered", "refused")


def sums(agent, table, prefix="", by="slot, incarnation"):
    names = ", ".join(f"sum({prefix}{name})::bigint" for name in COLUMNS)
    rows = agent.api.sql(f"SELECT {by}, {names} FROM billing.{table} WHERE gateway = %s AND epoch = %s GROUP BY {by}", agent.gateway.id, agent.epoch)
    return {(row[0], row[1]): list(row[2:]) for row in rows if any(row[2:])}


def held_totals(agent):
    return {slot: [totals[field] for field in FIELDS] for slot, totals in agent.totals.items() if any(totals.values())}


def used(agent):
    return agent.gateway.used()


@pytest.mark.parametrize("seed", range(3))
def test_i1_conservation(api, seed):
    """Per epoch, all that was recorded adds up to the last totals acknowledged: what belongs to no peer, removed peers, all counts."""
    rng = random.Random(seed)
    hours = past_hours(4)
    agent = active_agent(World(api), since=hours[0])
    peers = [None, *(agent.gateway.peer() for _ in range(3))]
    hourly = defaultdict(lambda: [0] * 6)
    incarnations = [1, 1, 1, 1]
    for hour in sorted(rng.choice(hours) for _ in range(30)):
        records = []
        for slot in rng.sample(range(4), rng.randint(0, 4)):
            if slot and rng.random() < 0.1:  # the slot is another peer's from here on
                incarnations[slot] += 1
                peers[slot] = agent.gateway.peer()
            growth = {field: rng.choice((0, 1, rng.randint(0, 2**40))) for field in FIELDS}
            growth["undelivered_bytes"] = min(growth["undelivered_bytes"], growth["download_bytes"])
            records.append(agent.grow(slot, peers[slot], hour, incarnations[slot], **growth))
            for i, field in enumerate(FIELDS):
                hourly[peers[slot], hour][i] += growth[field]
        agent.report(records, covered=(hour, hour + HOUR), more=rng.random() < 0.2)
    agent.report()
    assert sums(agent, "usage_record", "d_") == sums(agent, "counter") == held_totals(agent)
    rows = api.sql("SELECT nullif(peer, '00000000-0000-0000-0000-000000000000')::text, hour, " + ", ".join(COLUMNS)
                   + " FROM billing.usage_hour WHERE gateway = %s", agent.gateway.id)
    assert {(row[0], row[1]): list(row[2:]) for row in rows if any(row[2:])} == {k: v for k, v in hourly.items() if any(v)}
    undelivered = sum(totals["undelivered_bytes"] for (slot, _), totals in agent.totals.items() if slot)
    assert used(agent) == agent.counted - undelivered


@pytest.mark.parametrize("seed", range(3))
def test_i7_idempotence(api, seed):
    """Twice is once; the records of a batch in any order, and any of them with each slot's last, come to the same totals."""
    rng = random.Random(seed)
    hours = past_hours(8)
    world = World(api)
    first = active_agent(world, since=hours[0])
    records = [first.grow(slot, None, hour, upload_bytes=rng.randint(0, 10**9), download_bytes=rng.randint(0, 10**9), upload_packets=1)
               for hour in hours for slot in (1, 2, 3)]
    permuted = rng.sample(records, len(records))
    subset = sorted((rng.sample(records[:-3], rng.randint(0, 12)) + records[-3:]), key=records.index)
    results = []
    for variant, times in ((records, 1), (records, 3), (permuted, 2), (subset, 2)):
        agent = active_agent(world, since=hours[0])
        peers = {slot: agent.gateway.peer() for slot in (1, 2, 3)}
        agent.counted = first.counted
        body = agent.batch([{**record, "peer": peers[record["slot"]]} for record in variant], covered=(hours[0], hours[-1] + HOUR))
        for _ in range(times):
            status, answer = agent.send(body)
            assert (status, answer["held_seq"]) == (200, 2)
        results.append((sums(agent, "counter"), sums(agent, "usage_record", "d_"), used(agent)))
    assert all(result == results[0] for result in results)
    assert results[0][0] == held_totals(first) and results[0][2] == first.counted


def test_i8_a_server_killed_at_any_moment(api):
    """Replicas die with kill -9 under four agents that repeat until they are answered: nothing is lost, nothing counts twice."""
    rng = random.Random(8)
    world = World(api)
    hours = past_hours(2)
    agents = [active_agent(world, since=hours[0]) for _ in range(4)]
    servers = [api.another("--workers", "2")]
    stop = threading.Event()
    killed = 0

    def deliver(agent):
        peer = agent.gateway.peer()
        while not stop.is_set():
            body = agent.batch([agent.grow(1, peer, now(), upload_bytes=1 + agent.seq, download_bytes=7)])
            while True:
                target = copy.copy(agent)
                target.api = servers[-1]
                try:
                    status, answer = Agent.send(target, body)
                except (OSError, http.client.HTTPException):
                    continue
                if status == 200:
                    assert answer["held_seq"] == body["seq"]
                    break
                assert status == 503, answer

    def kill():
        nonlocal killed
        try:
            for _ in range(6):
                fresh, told = api.another("--workers", "2"), sum(agent.seq for agent in agents)
                wait(lambda: sum(agent.seq for agent in agents) > told + 4)  # more than was under way
                stop.wait(rng.uniform(0.2, 0.7))
                servers.append(fresh)
                servers[-2].stop(signal.SIGKILL)
                killed += 1
        finally:
            stop.set()

    at_once(*[lambda agent=agent: deliver(agent) for agent in agents], kill)
    servers[-1].stop()
    assert killed == 6
    for agent in agents:
        assert sums(agent, "usage_record", "d_") == sums(agent, "counter") == held_totals(agent)
        assert used(agent) == agent.counted
        assert api.sql("SELECT last_seq, quarantined FROM billing.epoch WHERE id = %s", agent.epoch) == [(agent.seq, None)]


@pytest.mark.parametrize("seed", range(3))
def test_i10_of_two_agents_one_advances(api, seed):
    """Another agent enrols while the first one reports: from then on the first advances nothing, and no sequence has two contents."""
    rng = random.Random(seed)
    old = active_agent(World(api))
    peer = old.gateway.peer()
    old.report([old.grow(1, peer, now(), upload_bytes=10)])
    new = copy.deepcopy(old, {id(old.gateway): old.gateway, id(old.api): old.api})
    new.one_time_token = old.gateway.one_time_token()
    sent, lock = defaultdict(dict), threading.Lock()
    enrolled = threading.Event()

    def race(agent, size, reports, fence):
        advanced = []
        for _ in range(reports):
            body = agent.batch([agent.grow(1, peer, now(), upload_bytes=size)])
            late = fence and enrolled.is_set()
            status, answer = agent.send(body)
            with lock:
                sent[body["seq"]][size] = status
            if status != 200:
                return advanced
            assert not late, "fenced, and yet it advanced"
            advanced.append(body["seq"])
        return advanced

    def take_over():
        under_way = 4 + rng.randint(0, 4)
        wait(lambda: old.seq >= under_way)
        status, answer = new.enroll()
        assert status == 201
        enrolled.set()
        new.token, new.generation = answer["token"], answer["generation"]
        [[held]] = api.sql("SELECT last_seq FROM billing.epoch WHERE id = %s", new.epoch)
        for _ in range(held - new.seq):  # it goes on from what is held, as one that shares the maps does
            new.seq += 1
            new.grow(1, peer, now(), upload_bytes=1)
        return race(new, 1000, 12, False)

    by_old, by_new = at_once(lambda: race(old, 1, 10_000, True), take_over)
    assert not set(by_old) & set(by_new)
    assert len(by_new) == 12 and len(by_old) < 10_000
    [[last, quarantined]] = api.sql("SELECT last_seq, quarantined FROM billing.epoch WHERE id = %s", new.epoch)
    assert (last, quarantined) == (by_new[-1], None)
    assert used(new) == 10 + len(by_old) + 1000 * len(by_new)


def test_i10_two_clones_of_one_machine(api):
    """The same token, epoch and sequence, other bytes: one is taken, the epoch is quarantined, and nothing more of it is billed."""
    one = active_agent(World(api))
    peer = one.gateway.peer()
    other = copy.deepcopy(one, {id(one.gateway): one.gateway, id(one.api): one.api})
    bodies = [agent.batch([agent.grow(1, peer, now(), upload_bytes=size)]) for agent, size in ((one, 100), (other, 5000))]
    answers = at_once(lambda: one.send(bodies[0]), lambda: other.send(bodies[1]))
    assert sorted(status for status, _ in answers) == [200, 409]
    winner = 0 if answers[0][0] == 200 else 1
    assert answers[1 - winner][1]["reason"] == "rolled_back" and answers[1 - winner][1]["held_seq"] == 2
    assert used(one) == (100, 5000)[winner]
    for agent in (one, other):
        assert agent.send(agent.batch([agent.grow(1, peer, now(), upload_bytes=9)]))[1]["reason"] == "rolled_back"
    assert used(one) == (100, 5000)[winner]


@pytest.mark.parametrize("back", [3, 40])
def test_i10_a_machine_that_goes_back_in_time(api, back):
    """A snapshot is restored: the sequence held is above its own; its epoch is over, and what it has billed is not billed again."""
    agent = active_agent(World(api))
    peer = agent.gateway.peer()
    snapshot = None
    for i in range(back + 5):
        if i == 5:
            snapshot = copy.deepcopy(agent, {id(agent.gateway): agent.gateway, id(agent.api): agent.api})
        agent.report([agent.grow(1, peer, now(), upload_bytes=100)])
    billed = used(agent)
    status, answer = snapshot.send(snapshot.batch([snapshot.grow(1, peer, now(), upload_bytes=3)]))
    assert (status, answer["reason"]) == (409, "rolled_back") and answer["held_seq"] == agent.seq > snapshot.seq
    assert used(agent) == billed
    [alarm] = api.request("GET", f"/v1/gateways/{agent.gateway.id}", token=api.admin_token)[1]["alarms"]
    assert alarm["kind"] == "quarantine"
    snapshot.new_epoch()
    snapshot.report([snapshot.grow(1, peer, now(), upload_bytes=7)])
    assert used(agent) == billed + 7


@pytest.mark.parametrize("seed", range(3))
def test_i12_clocks_that_step(api, seed):
    """Whatever the agent's clock says, totals are the same, no interval is negative, and no byte leaves the gateway's life."""
    rng = random.Random(seed)
    begin = now() - 6 * HOUR
    agent = active_agent(World(api, since=hour_of(begin)), since=begin, created=begin)
    peer, total, straight = agent.gateway.peer(), 0, 0
    for _ in range(25):
        drift = timedelta(seconds=rng.choice((0, 0, rng.uniform(-10**5, 10**5), rng.uniform(-10**8, 10**8))))
        at, size = begin + rng.uniform(0, 6) * HOUR + drift, rng.randint(0, 10**9)
        total += size
        agent.report([agent.grow(1, peer, at, upload_bytes=size)], covered=(at, at - timedelta(seconds=rng.uniform(-50, 50))), now=text_of(at),
                     states=[(at, at + timedelta(seconds=rng.uniform(-50, 50)), rng.choice(("active", "suspended")))])
    usage = stored_usage(agent.gateway)
    assert sum(up for up, _ in usage.values()) == total
    assert all(hour_of(begin) <= hour <= now() for _, hour in usage)
    assert used(agent) == total
    spans = api.sql("SELECT lower(span), upper(span) FROM billing.active_interval WHERE gateway = %s ORDER BY span", agent.gateway.id)
    assert all(begin <= low < high <= now() + timedelta(seconds=6) for low, high in spans)
    assert all(before[1] <= after[0] for before, after in zip(spans, spans[1:]))
    starts = [line[4] for line in agent.gateway.ledger("base")]
    assert all(later - earlier >= HOUR for earlier, later in zip(starts, starts[1:])) and len(starts) <= 7


def test_i12_a_right_clock_misplaces_nothing(api):
    hours = past_hours(5)
    agent = active_agent(World(api), since=hours[0])
    traffic = Traffic(agent, hours, random.Random(12))
    traffic.deliver()
    assert stored_usage(agent.gateway) == {key: value for key, value in traffic.usage.items() if any(value)}


@pytest.mark.parametrize("seed", range(3))
def test_i15_enforcement_changes_no_bill(api, seed):
    """The same packets forwarded under none and under revoke_access: the same lines; what was refused is in no bill and in no `used`."""
    bills = []
    hours = past_hours(4)
    for policy in ("none", "revoke_access"):
        rng = random.Random(seed)
        agent = active_agent(World(api, overage=policy), since=hours[0] + timedelta(minutes=1), included_gb="0.000002")
        peer = agent.gateway.peer()
        for hour in hours:
            for _ in range(5):
                begin = max(hour, agent.active_since)
                agent.report([agent.grow(1, peer, hour, upload_bytes=rng.randint(0, 300), download_bytes=rng.randint(0, 300),
                                         **({"refused_bytes": 10**6} if policy == "revoke_access" else {}))],
                             covered=(begin, hour + HOUR), states=[(begin, hour + HOUR, "active")])
        bills.append(([(line[0], line[1], line[2], line[3]) for kind in ("base", "bandwidth", "adjust") for line in agent.gateway.ledger(kind)],
                      used(agent), agent.counted))
        assert api.sql("SELECT sum(refused)::bigint FROM billing.usage_hour WHERE gateway = %s", agent.gateway.id) == [
            (20 * 10**6 if policy == "revoke_access" else 0,)]
    assert bills[0] == bills[1] and bills[0][1] == bills[0][2] > 2000 and len(bills[0][0]) == 4
