# SPDX-License-Identifier: BSD-2-Clause
"""Batches of many gateways committed together: neighbours, parts of a sample, gaps, partitions, what was refused (M6)."""

import json
import os
import signal
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import psycopg2
import pytest

from billing_model import past_hours, stored_usage, wait
from simulated_agent import HOUR, World, active_agent, crc32c, hour_of, now, text_of, wire_form

BEYOND = str(2**63 - 1)


def metric(api, name):
    status, text = api.request("GET", "/metrics", token=api.admin_token)
    assert status == 200
    return sum(int(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def total_up(agent):
    [[up]] = agent.api.sql("SELECT coalesce(sum(up), 0)::bigint FROM billing.usage_hour WHERE gateway = %s", agent.gateway.id)
    return up


class Line:
    """An agent with a connection of its own: several ask, and then hear what the server says."""

    def __init__(self, agent, server):
        self.agent, self.connection = agent, server.connect()
        self.connection.connect()

    def ask(self, body=None):
        raw = wire_form(body or self.agent.batch())
        self.connection.request("POST", "/v1/agent/report", raw, {
            "Authorization": f"Bearer {self.agent.token}", "Wiretoll-Protocol": "1", "Wiretoll-Batch-CRC32C": str(crc32c(raw))})

    def hear(self):
        answer = self.connection.getresponse()
        return answer.status, json.loads(answer.read())

    def report(self):
        self.ask()
        assert self.hear()[0] == 200


def transactions(server):
    return metric(server, "wiretoll_report_transactions_total")


COLLECTORS = 3  # of the API


class Held:
    """All collectors wait for the database; what comes meanwhile is committed together when they go on."""

    def __init__(self, world):
        self.api = world.api
        self.agents = [active_agent(world) for _ in range(COLLECTORS)]
        self.lines, self.answers = [], {}

    def __enter__(self):
        self.sessions = self.find_sessions()
        self.transactions = transactions(self.api)
        for pid in self.sessions:
            os.kill(pid, signal.SIGSTOP)
        for agent in self.agents:
            self.send(agent, agent.batch())
        return self

    def find_sessions(self):
        connection = self.api.postgres.connect("postgres")  # who sees what others do
        with connection.cursor() as cursor:
            cursor.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'wiretoll-reports'")
            found = [pid for pid, in cursor.fetchall()]
        connection.close()
        assert len(found) >= COLLECTORS
        return found

    def send(self, agent, body):
        self.lines.append(Line(agent, self.api))
        self.lines[-1].ask(body)

    def __exit__(self, *_):
        for agent in self.agents:  # later requests are answered: what was sent last lies in the queue
            agent.state()
        time.sleep(0.5)
        for pid in self.sessions:
            os.kill(pid, signal.SIGCONT)
        for line in self.lines:
            self.answers[line.agent] = line.hear()
            line.connection.close()
        self.transactions = transactions(self.api) - self.transactions


def test_a_refused_batch_never_fails_its_neighbours(api):
    world = World(api)
    agents = [active_agent(world) for _ in range(20)]
    peers = [agent.gateway.peer() for agent in agents]
    for agent, peer in zip(agents, peers):
        agent.report([agent.grow(1, peer, now(), upload_bytes=100)])
    bodies = [agent.batch([agent.grow(1, peer, now(), upload_bytes=7)]) for agent, peer in zip(agents, peers)]
    bodies[3]["records"][0]["upload_bytes"] = "99"
    bodies[8]["seq"] += 5
    bodies[12]["epoch"]["boot_id"] = world.user
    with Held(world) as held:
        for agent, body in zip(agents, bodies):
            held.send(agent, body)
    verdicts = {agent: (status, answer.get("reason")) for agent, (status, answer) in held.answers.items()}
    assert held.transactions <= len(agents) // 2, "nothing was committed together"
    refused = {3: "regressed", 8: "gap", 12: "rolled_back"}
    for i, agent in enumerate(agents):
        assert verdicts[agent] == ((409, refused[i]) if i in refused else (200, None))
        assert total_up(agent) == (100 if i in refused else 107)


def test_a_batch_that_the_database_cannot_take_fails_alone(api):
    world = World(api)
    agents = [active_agent(world) for _ in range(12)]
    peers = [agent.gateway.peer() for agent in agents]
    bodies = [agent.batch([agent.grow(1, peer, now(), upload_bytes=7)]) for agent, peer in zip(agents, peers)]
    for slot in (2, 3):  # each fits 64 bits, an hour of the peer does not
        bodies[5]["records"].append({**bodies[5]["records"][0], "slot": slot, "upload_bytes": BEYOND})
    with Held(world) as held:
        for agent, body in zip(agents, bodies):
            held.send(agent, body)
    for i, agent in enumerate(agents):
        assert (held.answers[agent][0] == 200) == (i != 5), held.answers[agent]
        assert total_up(agent) == (0 if i == 5 else 7)
    assert held.answers[agents[5]][0] >= 400


def test_tables_that_could_not_be_made_are_made_later(api):
    superuser = api.postgres.connect("postgres")
    superuser.autocommit = True
    agent = active_agent(World(api))
    superuser.cursor().execute("REVOKE TEMPORARY ON DATABASE wiretoll FROM PUBLIC, wiretoll_api")
    try:
        agent.api = api.another("--workers", "1")
        body = agent.batch()
        assert agent.send(body)[0] == 500
    finally:
        superuser.cursor().execute("GRANT TEMPORARY ON DATABASE wiretoll TO PUBLIC, wiretoll_api")
        superuser.close()
    assert agent.send(body)[0] == 200
    for _ in range(4):
        agent.report()


def test_what_contradicts_is_kept_and_told(api):
    agent = active_agent(World(api))
    peer = agent.gateway.peer()
    agent.report([agent.grow(1, peer, now(), upload_bytes=100)])
    alarms = metric(api, 'wiretoll_alarms{kind="quarantine"}')
    body = agent.batch([agent.grow(1, peer, now())])
    body["records"][0]["upload_bytes"] = "99"
    for _ in range(2):
        assert agent.send(body)[1]["reason"] == "regressed"
    raw = wire_form(body).decode()
    assert api.sql("SELECT seq, crc, reason, held_seq, body FROM billing.quarantine WHERE gateway = %s", agent.gateway.id) == [
        (3, crc32c(raw.encode()), "regressed", 2, raw)]
    assert metric(api, 'wiretoll_alarms{kind="quarantine"}') == alarms + 1
    [alarm] = api.request("GET", f"/v1/gateways/{agent.gateway.id}", token=api.admin_token)[1]["alarms"]
    assert (alarm["kind"], alarm["subject"], alarm["detail"]) == ("quarantine", agent.epoch, {"reason": "regressed", "seq": 3, "held_seq": 2})
    wait(lambda: f'alarm: {{"gateway" : "{agent.gateway.id}", "kind" : "quarantine"' in api.log.read_text())
    assert api.request("DELETE", f"/v1/gateways/{agent.gateway.id}/alarms", token=api.admin_token)[0] == 204
    assert api.request("GET", f"/v1/gateways/{agent.gateway.id}", token=api.admin_token)[1]["alarms"] == []


# ---- parts of a sample ----

def test_only_the_last_part_makes_a_sample_complete(api):
    hours = past_hours(2)
    agent = active_agent(World(api, rate="1"), since=hours[0], included_gb="0")
    peers = {slot: agent.gateway.peer() for slot in (1, 2, 3)}
    before = agent.gateway.row("complete_through")
    parts = [[agent.grow(1, peers[1], hours[0], upload_bytes=10), agent.grow(1, peers[1], hours[1], upload_bytes=1)],
             [agent.grow(2, peers[2], hours[0], upload_bytes=20, download_bytes=5, undelivered_bytes=5)],
             [agent.grow(3, peers[3], hours[1], upload_bytes=400)]]
    covered = (hours[0], hours[1] + HOUR)
    for records in parts[:2]:
        agent.report(records, covered=covered, more=True)
        assert agent.gateway.row("complete_through") == before
        assert agent.gateway.used() == 0
        assert agent.gateway.ledger("bandwidth") == []
    assert total_up(agent) == 31  # what was counted is there at once
    agent.report(parts[2], covered=covered)
    assert agent.gateway.row("complete_through") == covered[1]
    assert agent.gateway.used() == 431
    assert [(line[0], line[2]) for line in agent.gateway.ledger("bandwidth")] == [(hours[0], 30), (hours[1], 401)]
    assert api.sql("SELECT count(*) FROM billing.part_hour WHERE gateway = %s", agent.gateway.id) == [(0,)]
    agent.report([agent.grow(1, peers[1], hours[1], upload_bytes=9)], covered=covered)
    assert agent.gateway.used() == 440


def test_the_final_part_seals(api):
    agent = active_agent(World(api))
    agent.report(more=True, final=True)
    assert api.sql("SELECT sealed FROM billing.epoch WHERE id = %s", agent.epoch) == [(None,)]
    agent.report(final=True)
    assert api.sql("SELECT sealed IS NULL FROM billing.epoch WHERE id = %s", agent.epoch) == [(False,)]


# ---- order within a batch ----

def test_hours_out_of_order_are_taken_by_their_totals(api):
    """A clock was set back within the batch: hours are labels, totals decide."""
    hour = hour_of(now()) - HOUR
    agent = active_agent(World(api), since=hour)
    peer = agent.gateway.peer()
    records = [agent.grow(1, peer, at, upload_bytes=amount) for at, amount in ((hour, 1), (hour + HOUR, 10), (hour, 100), (hour, 1000))]
    agent.report(records)
    assert stored_usage(agent.gateway) == {(peer, hour): [1101, 0], (peer, hour + HOUR): [10, 0]}


def test_divided_hours_say_so(api):
    hour = hour_of(now()) - HOUR
    agent = active_agent(World(api), since=hour)
    peer = agent.gateway.peer()
    agent.report([{**agent.grow(1, peer, hour, upload_bytes=5), "split": True}, agent.grow(1, peer, hour + HOUR, upload_bytes=5)])
    assert api.sql("SELECT hour, split FROM billing.usage_hour WHERE gateway = %s ORDER BY hour", agent.gateway.id) == [
        (hour, True), (hour + HOUR, False)]


# ---- gaps that cannot be filled ----

def test_a_gap_of_what_the_journal_has_no_longer(api):
    agent = active_agent(World(api))
    peer = agent.gateway.peer()
    bodies = [agent.batch([agent.grow(1, peer, now(), upload_bytes=100)]) for _ in range(5)]
    assert agent.send(bodies[4])[1]["reason"] == "gap"
    assert agent.send(bodies[3], kept_from=4)[1]["reason"] == "gap"  # it has more than it sends
    assert agent.send(bodies[3], kept_from="x")[0] == 400
    status, answer = agent.send(bodies[3], kept_from=5)
    assert (status, answer["held_seq"]) == (200, 5)
    assert agent.send(bodies[1])[0] == 200  # late, and of no effect
    assert agent.send(bodies[4])[0] == 200
    assert total_up(agent) == 500
    [alarm] = api.request("GET", f"/v1/gateways/{agent.gateway.id}", token=api.admin_token)[1]["alarms"]
    assert (alarm["kind"], alarm["detail"]) == ("gap", {"seq": 5, "held_seq": 1})


def test_an_epoch_that_is_over_is_never_the_newest(api):
    agent = active_agent(World(api, overage="revoke_access"))
    current = agent.epoch, agent.boot_id, agent.seq, agent.totals, agent.counted
    agent.new_epoch()
    peer = agent.gateway.peer()
    assert agent.send(agent.batch([agent.grow(1, peer, now(), upload_bytes=50)]), over=True)[0] == 200
    assert agent.state()[1]["grants"][0]["epoch"] == current[0]
    status, held = api.request("GET", "/v1/agent/held", token=agent.token)
    assert status == 200 and [(e["id"], e["held_seq"]) for e in held["epochs"]] == [(agent.epoch, 1), (current[0], current[2])]


# ---- months ----

def test_partitions_are_made_ahead(api):
    def partition_of(instant):
        [[name]] = api.sql("SELECT to_regclass('billing.usage_record_' || to_char(%s AT TIME ZONE 'UTC', 'YYYYMM'))::text", instant)
        return name

    assert partition_of(now()) and partition_of(now() + timedelta(days=28))
    api.sql("SELECT billing.ensure_partitions('2031-01-15', 0)")
    assert partition_of(hour_of(now()).replace(year=2031, month=1, day=2)) == "billing.usage_record_203101"


def test_detaching_old_months_changes_no_usage_and_no_bill(api):
    begin = hour_of(now()).replace(year=2023, month=5, day=10)
    world = World(api, since=begin - HOUR, rate="1")
    agent = active_agent(world, since=now(), included_gb="0", created=begin)
    peer = agent.gateway.peer()
    for i in range(3):
        agent.report([agent.grow(1, peer, begin + i * HOUR, upload_bytes=10**6 + i)], covered=(begin, begin + (i + 1) * HOUR))
    assert api.sql("SELECT DISTINCT tableoid::regclass::text FROM billing.usage_record WHERE gateway = %s", agent.gateway.id) == [
        ("billing.usage_record_default",)]
    api.sql("SELECT billing.ensure_partitions('2023-05-01', 0)")
    assert api.sql("SELECT tableoid::regclass::text, count(*) FROM billing.usage_record WHERE gateway = %s GROUP BY 1", agent.gateway.id) == [
        ("billing.usage_record_202305", 3)]

    def seen():
        return (world.get(f"/v1/gateways/{agent.gateway.id}/usage?interval=hour")["items"],
                world.get(f"/v1/users/{world.user}/report?cycle=2023-05"), stored_usage(agent.gateway),
                api.sql("SELECT kind, adjusts, cycle, utc_hour, bytes, amount::text FROM billing.ledger WHERE gateway = %s ORDER BY 1, 4, 3", agent.gateway.id))

    with api.postgres.connect() as connection, connection.cursor() as cursor, pytest.raises(psycopg2.errors.ObjectInUse):
        cursor.execute("UPDATE billing.cycle SET state = 'closing' WHERE id = 202305")
        cursor.execute("SELECT billing.detach_usage(202306)")
    api.sql("UPDATE billing.cycle SET state = 'final' WHERE id <= 202305")
    before = seen()
    assert len(before[0]) == 3 and before[2] and before[3]
    assert api.sql("SELECT billing.detach_usage(202306)") == [("billing.usage_record_202305",)]
    assert api.sql("SELECT count(*) FROM billing.usage_record WHERE gateway = %s", agent.gateway.id) == [(0,)]
    assert api.sql("SELECT count(*) FROM billing.usage_record_202305") == [(3,)]
    assert seen() == before
    with api.postgres.connect("wiretoll_api") as connection, connection.cursor() as cursor, pytest.raises(psycopg2.errors.InsufficientPrivilege):
        cursor.execute("SELECT billing.detach_usage(202306)")
    api.sql("DROP TABLE billing.usage_record_202305")


@pytest.fixture(scope="module")
def slow(api, tmp_path_factory):
    """A server whose clock goes 100 times slower: a report waits 2 s for others, and what was answered within 20 s was just now."""
    library = tmp_path_factory.mktemp("slow") / "slow_clock.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-D_GNU_SOURCE", "-o", library, Path(__file__).with_name("slow_clock.c")], check=True)
    server = api.another(environment={"LD_PRELOAD": str(library),
                                      "ASAN_OPTIONS": "verify_asan_link_order=0:" + os.environ.get("ASAN_OPTIONS", "")})
    yield server
    assert server.stop() == 0


def test_reports_of_a_moment_are_one_transaction(api, slow):
    """A report waits for others, unless its gateway was answered just now."""
    slow.admin_token = api.admin_token
    lines = [Line(active_agent(World(api)), slow) for _ in range(8)]
    before = transactions(slow)
    for line in lines:
        line.ask()
    assert [line.hear()[0] for line in lines] == [200] * 8
    assert transactions(slow) == before + 1


def test_who_has_more_to_tell_is_not_held_up(api, slow):
    line = Line(active_agent(World(api)), slow)

    def seconds():
        begun = time.monotonic()
        line.report()
        return time.monotonic() - begun

    assert seconds() > 1.9
    assert sum(seconds() for _ in range(20)) < 20, "half of the time that as many waits take"
