# SPDX-License-Identifier: BSD-2-Clause
"""Backup and restore: a database brought back to an earlier point is filled again by the agents' journals, to the last byte and credit."""

import copy
import json
import random
import secrets
import stat
import subprocess
import time
from datetime import timedelta

import pytest

from billing_model import past_hours, stored_usage, wait
from conftest import BIN, Server
from simulated_agent import HOUR, Agent, World, active_agent, cycle_of, now


class Copy(Server):
    """A server on a database of its own in the same PostgreSQL, with the session's secrets."""

    def __init__(self, api, dump):
        self.session, self.name = api, "copy_" + secrets.token_hex(4)
        connection = api.postgres.connect("postgres", "postgres")
        connection.autocommit = True
        connection.cursor().execute(f"CREATE DATABASE {self.name} OWNER wiretoll_owner")
        connection.close()
        self.files = {}
        for role in ("wiretoll_owner", "wiretoll_api"):
            self.files[role] = api.folder / f"{self.name}.{role}.conn"
            self.files[role].touch(0o600)
            self.files[role].write_text(api.database_files[role].read_text().replace("dbname=wiretoll", f"dbname={self.name}"))
        api.run("restore", "--database-file", self.files["wiretoll_owner"], dump)
        self.db = api.postgres.connect("wiretoll_owner", self.name)
        self.db.autocommit = True
        super().__init__(api.state, self.files["wiretoll_api"], api.folder / f"{self.name}.log", "--workers", "2")
        api.others.append(self)

    def sql(self, statement, *values):
        with self.db.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else None


class Journal(Agent):
    """An agent that keeps what it has sent, epoch by epoch, as a journal does for a week."""

    def __init__(self, *arguments, **options):
        self.kept = []  # [epoch, {seq: bytes}]
        super().__init__(*arguments, **options)

    def new_epoch(self):
        super().new_epoch()
        self.kept.append([self.epoch, {}])

    def journal(self, *arguments, **options):
        body = json.dumps(self.batch(*arguments, **options)).encode()
        self.kept[-1][1][self.seq] = body
        return body

    def begin(self, **options):
        """The first batch: made anew when a busy machine has read late what it tells of the time."""
        def taken():
            self.seq = 0
            return self.send(self.journal(**options))[0] == 200

        wait(taken)

    def refill(self, server, forgotten=0):
        """As an agent does when `restored` has changed; of the first epoch it has no longer the first batches."""
        there = copy.copy(self)
        there.api = server
        status, held = server.request("GET", "/v1/agent/held", token=self.token)
        assert status == 200 and held["restored"] > 0
        known = {epoch["id"]: epoch["held_seq"] for epoch in held["epochs"]}
        for i, (epoch, bodies) in enumerate(self.kept):
            first = forgotten + 1 if i == 0 else 1
            for seq in range(max(known.get(epoch, 0) + 1, first), max(bodies, default=0) + 1):
                status, answer = Agent.send(there, bodies[seq], kept_from=first, over=epoch != self.epoch)
                assert (status, answer["held_seq"], answer["restored"]) == (200, seq, held["restored"]), answer


def backup(api, name):
    path = api.folder / name
    api.run("backup", "--database-file", api.database_files["wiretoll_owner"], path)
    return path


def money(server, gateway):
    return server.sql("SELECT kind, adjusts, utc_hour, part, span, cycle, bytes, rate::text, amount::text FROM billing.ledger"
                      " WHERE gateway = %s ORDER BY kind, utc_hour, part", gateway.id)


def usage(server, gateway):
    there = copy.copy(gateway)
    there.api = server
    buckets = server.sql("SELECT cycle, used, charged, refundable FROM billing.bucket WHERE holder = %s ORDER BY cycle", gateway.id)
    epochs = server.sql("SELECT id::text, last_seq, counted, sealed IS NULL, quarantined FROM billing.epoch WHERE gateway = %s ORDER BY id", gateway.id)
    return stored_usage(there), buckets, epochs


@pytest.mark.parametrize("seed", range(2))
def test_a_restored_database_is_filled_again(api, seed):
    rng = random.Random(seed)
    world = World(api, rate="17.000000001")
    hours = past_hours(6)
    agents = []
    for _ in range(3):
        agent = Journal(world.gateway(included_gb="0.000001"))
        agent.active_since = hours[0] + timedelta(seconds=90)
        agents.append(agent)
        agent.begin(covered=(agent.active_since,) * 2, states=[(agent.active_since, hours[0] + 0.5 * HOUR, "active")])
        agent.take_grant()
    peers = {agent: [agent.gateway.peer() for _ in range(3)] for agent in agents}

    def live(hour, restart=False):
        for agent in agents:
            for part in range(rng.randint(1, 3)):
                records = [agent.grow(slot, peers[agent][slot - 1], hour, upload_bytes=rng.randint(0, 3000), download_bytes=rng.randint(0, 3000),
                                      undelivered_bytes=rng.randint(0, 10)) for slot in (1, 2, 3) if rng.random() < 0.8]
                begin = max(hour, agent.active_since)
                assert agent.send(agent.journal(records, covered=(begin, hour + HOUR), states=[(begin, hour + HOUR, "active")]))[0] == 200
        if restart:  # a reboot: the epoch is sealed, the next begins
            for agent in agents:
                assert agent.send(agent.journal(final=True))[0] == 200
                agent.new_epoch()

    live(hours[0])
    live(hours[1], restart=True)
    live(hours[2])
    dump = backup(api, f"refill-{seed}.dump")
    live(hours[3])
    live(hours[4], restart=True)
    live(hours[5])
    server = Copy(api, dump)
    for agent in agents:
        there = copy.copy(agent)
        there.api = server
        status, answer = Agent.send(there, agent.journal(covered=(hours[5], hours[5] + HOUR)))  # the first that it hears of it
        assert (status, answer["reason"]) == (409, "gap") and answer["restored"] > 0
        assert agent.send(agent.kept[-1][1][agent.seq])[0] == 200
        agent.refill(server)
        agent.refill(server)  # nothing twice
        assert usage(server, agent.gateway) == usage(api, agent.gateway)
        assert money(server, agent.gateway) == money(api, agent.gateway)
        assert server.sql("SELECT count(*) FROM billing.alarm WHERE gateway = %s", agent.gateway.id) == [(0,)]
        # It goes on, under grants that are newer than any before.
        status, state = server.request("GET", "/v1/agent/state?have=5", token=agent.token)
        assert status == 200 and state["grants"][0]["grant_seq"] > 10**9 and state["grants"][0]["epoch"] in (None, agent.epoch)


def test_what_the_journal_has_no_longer_costs_time_and_no_byte(api):
    agent = Journal(World(api).gateway())
    agent.active_since = past_hours(3)[0]
    agent.begin()
    peer = agent.gateway.peer()
    dump = backup(api, "kept.dump")
    agent.new_epoch()
    for hour in past_hours(3) * 2:
        assert agent.send(agent.journal([agent.grow(1, peer, hour, upload_bytes=1000)], covered=(hour, hour + HOUR)))[0] == 200
    server = Copy(api, dump)
    del agent.kept[0]
    agent.refill(server, forgotten=4)
    there, here = usage(server, agent.gateway), usage(api, agent.gateway)
    assert there[1] == here[1] and sum(up for up, _ in there[0].values()) == 6000
    assert server.sql("SELECT kind, detail FROM billing.alarm WHERE gateway = %s", agent.gateway.id) == [("gap", {"seq": 5, "held_seq": 0})]


def test_numbers_given_out_are_not_given_out_again(api):
    agent = active_agent(World(api), since=past_hours(2)[0])
    wait(lambda: api.sql("SELECT (SELECT count(*) FROM billing.ledger WHERE feed_id IS NULL) + (SELECT count(*) FROM billing.action"
                         " WHERE feed_id IS NULL)") == [(0,)])
    [[before]] = api.sql("SELECT max(id) FROM billing.feed")
    session, enroll = World(api).token("billing"), agent.gateway.one_time_token()
    dump = backup(api, "numbers.dump")
    [[generation, revision]] = api.sql("SELECT generation, revision FROM gateway.gateway WHERE id = %s", agent.gateway.id)
    server = Copy(api, dump)
    assert server.request("GET", "/v1/ledger?after=0", token=session)[0] == 401  # who was signed in signs in again
    assert server.sql("SELECT DISTINCT kind FROM gateway.token") == [("agent",)] and enroll
    made = json.loads(api.run("init", "--state", api.state, "--database-file", server.files["wiretoll_api"], "--new-admin-token"))
    status, answer = server.request("POST", "/v1/login", {"one_time_token": made["admin_token"]})
    assert status == 200
    status, feed = server.request("GET", f"/v1/ledger?after={before}", token=answer["token"])
    assert status == 200
    marker = feed["items"][0]
    assert marker["type"] == "restored" and int(marker["void_after"]) == before and int(marker["id"]) > 10**16
    there = copy.copy(agent)
    there.api = server
    there.report([agent.grow(1, agent.gateway.peer(), now(), upload_bytes=1)])  # its token is good, its generation older
    assert server.sql("SELECT generation > %s AND revision > %s FROM gateway.gateway WHERE id = %s", generation, revision, agent.gateway.id) == [(True,)]
    time.sleep(1)
    again = Copy(api, dump)  # the same backup once more is another restoration
    assert again.sql("SELECT billing.restored()") > server.sql("SELECT billing.restored()")


def test_the_commands_refuse_what_would_lose_something(api):
    dump = backup(api, "first.dump")
    assert stat.S_IMODE(dump.stat().st_mode) == 0o600
    owner = api.database_files["wiretoll_owner"]

    def refused(*arguments):
        done = subprocess.run([BIN / "wiretoll-api", *map(str, arguments)], capture_output=True, text=True, timeout=180)
        assert done.returncode != 0
        return done.stderr

    assert "there already" in refused("backup", "--database-file", owner, dump)
    assert "not empty" in refused("restore", "--database-file", owner, dump)
    assert "file is required" in refused("backup", "--database-file", owner)
    assert "No such file" in refused("restore", "--database-file", owner, api.folder / "none.dump")
    password = api.postgres.passwords["wiretoll_owner"]
    broken = api.folder / "broken.conn"
    broken.write_text(f"host={api.postgres.folder} user=wiretoll_owner password={password[:-1]} dbname=wiretoll nonsense=1")
    text = refused("backup", "--database-file", broken, api.folder / "never.dump")
    assert password[:-1] not in text and not list(api.folder.glob("never*"))
    half = api.folder / "half.dump"
    half.write_bytes(dump.read_bytes()[:len(dump.read_bytes()) // 2])
    with pytest.raises(AssertionError):
        Copy(api, half)


def test_a_cycle_that_began_after_the_backup_has_newer_grants(api):
    """The kernel may hold a later grant of it than its first."""
    agent = active_agent(World(api, overage="revoke_access"), included_gb="0.001")
    server = Copy(api, backup(api, "turn.dump"))
    server.sql("SELECT billing.ensure_cycle(now() - interval '40 days')")
    server.sql("UPDATE billing.bucket SET cycle = billing.cycle_id(now() - interval '40 days') WHERE holder = %s",
               agent.gateway.id)  # the month has changed since
    there = copy.copy(agent)
    there.api = server
    there.report([agent.grow(1, agent.gateway.peer(), now(), upload_bytes=1)])
    status, state = there.state()
    assert status == 200 and state["grants"][0]["cycle"] == cycle_of(now())
    assert state["grants"][0]["grant_seq"] > 10**9 and state["next_grant"]["grant_seq"] > 10**9


def test_a_backup_touches_no_file_but_its_own(api):
    other = api.folder / "mine.dump.part"
    other.write_text("another backup on its way")
    backup(api, "mine.dump")
    assert other.read_text() == "another backup on its way"
    assert {path.name for path in api.folder.glob("mine.dump*")} == {"mine.dump", "mine.dump.part"}


def test_nothing_is_restored_under_a_running_api(api):
    agent = active_agent(World(api))
    dump = backup(api, "running.dump")
    server = Copy(api, dump)
    there = copy.copy(agent)
    there.api = server
    there.report([agent.grow(1, agent.gateway.peer(), now(), upload_bytes=1)])
    command = [BIN / "wiretoll-api", "restore", "--database-file", server.files["wiretoll_owner"], "--replace", dump]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode != 0 and "stop the API" in done.stderr, done
    there.report()
    server.stop()
    # PostgreSQL may not have ended its sessions yet: that is waited for. A database's own rights are in no backup.
    server.sql(f"REVOKE TEMPORARY ON DATABASE {server.name} FROM PUBLIC, wiretoll_api")
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done
    assert server.sql("SELECT has_database_privilege('wiretoll_api', current_database(), 'TEMPORARY')") == [(True,)]
