# SPDX-License-Identifier: BSD-2-Clause
"""The database away for a day, and two agents that both believe to be the gateway's: simulated agents, the real API."""

import json
import os
import random
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/api"))

from conftest import api  # noqa: E402, F401
from simulated_agent import HOUR, Agent, World, crc32c, hour_of, now, text_of  # noqa: E402

from figures import SEED, figures  # noqa: E402

LONG = bool(os.environ.get("SOAK_LONG"))
GATEWAYS = 5 if LONG else 2
EVERY = timedelta(seconds=10 if LONG else 120)
DAY = 24 * HOUR


class Sender:
    """Sends prepared batches over one connection, in order, each until it is taken; as agents do."""

    def __init__(self, agent):
        self.agent, self.api = agent, agent.api
        self.connection = None
        self.refused = 0

    def send(self, raw, crc):
        headers = {"Wiretoll-Protocol": "1", "Wiretoll-Batch-CRC32C": str(crc), "Content-Type": "application/json"}
        try:
            self.connection = self.connection or self.api.connect()
            answer = self.api.exchange("POST", "/v1/agent/report", raw, self.agent.token, headers, self.connection)
        except (OSError, ValueError):
            self.connection = None
            return None, {}
        return answer.status, json.loads(answer.body) if answer.body else {}

    def send_all(self, batches, answers):
        for seq, raw, crc in batches:
            while True:
                status, answer = self.send(raw, crc)
                if status == 200:
                    break
                assert status in (None, 503), answer
                self.refused += 1
                time.sleep(0.2)
            answers.append((seq, answer["held_seq"]))


def a_day_of_batches(agent, peer, chance, begin):
    """A batch every so often and at each UTC hour, as a gateway journals them; and what grew in each hour."""
    batches, by_hour, at = [], {}, begin
    while at < begin + DAY:
        until = min(at + EVERY, hour_of(at) + HOUR)
        up, down = chance.randrange(1_000_000), chance.randrange(1_000_000)
        record = agent.grow(1, peer, at, upload_bytes=up, download_bytes=down, upload_packets=1, download_packets=1)
        body = agent.batch([record], (at, until), [(at, until, "active")])
        raw = json.dumps(body).encode()
        batches.append((body["seq"], raw, crc32c(raw)))
        hour = by_hour.setdefault(hour_of(at), [0, 0])
        hour[0] += up
        hour[1] += down
        at = until
    return batches, by_hour


def test_a_day_without_the_database(api):
    """I1, M6: a day of samples waits in journals; once the database is back they are told in order, within minutes."""
    chance = random.Random(SEED)
    world = World(api, since=hour_of(now()) - 40 * HOUR)
    agents = []
    for _ in range(GATEWAYS):
        agent = Agent(world.gateway(included_gb="0"))
        agent.activate(now() - DAY - timedelta(minutes=7))
        peer = agent.gateway.peer()
        agents.append((agent, peer, *a_day_of_batches(agent, peer, chance, now() - DAY - timedelta(minutes=5))))
    api.postgres.stop()
    senders = [Sender(agent) for agent, *_ in agents]
    answers = [[] for _ in agents]
    threads = [threading.Thread(target=sender.send_all, args=(batches, taken))
               for sender, (_, _, batches, _), taken in zip(senders, agents, answers)]
    for thread in threads:
        thread.start()
    while not all(sender.refused for sender in senders):
        time.sleep(0.05)
    assert not any(answers)
    api.postgres.start()
    api.db = api.postgres.connect()
    api.db.autocommit = True
    begun = time.monotonic()
    for thread in threads:
        thread.join()
    took = time.monotonic() - begun
    total = 0
    for (agent, peer, batches, by_hour), taken in zip(agents, answers):
        assert [held for _, held in taken] == [seq for seq, _, _ in batches], "each is taken when its turn comes"
        told = api.sql("SELECT hour, up, down FROM billing.usage_hour WHERE owner = %s AND gateway = %s AND peer = %s ORDER BY hour",
                       agent.gateway.owner, agent.gateway.id, peer)
        assert [(hour, [up, down]) for hour, up, down in told] == sorted(by_hour.items())
        assert agent.gateway.used() == agent.counted
        total += agent.counted
        assert len(agent.gateway.ledger("base")) == 25
    number = sum(len(batches) for _, _, batches, _ in agents)
    assert took < (900 if LONG else 300)
    figures(f"database away for a day: {GATEWAYS} gateways, {number:,} batches, {total:,} bytes, told in order in {took:.1f} s "
            f"({number / took:.0f} a second), 0 bytes off")


class Machine:
    """An agent with its journal, that reports one batch after the other until it is refused or has sent enough."""

    def __init__(self, agent, peer, chance, contents):
        self.agent, self.peer, self.chance, self.contents = agent, peer, chance, contents
        self.lock = threading.Lock()
        self.journal = []
        self.taken_at = []  # when sending began, of those that were taken

    def copy(self, agent):
        """The volume with the journal moves: what was journaled is there, and the totals of that moment."""
        other = Machine(agent, self.peer, self.chance, self.contents)
        with self.lock:
            for field in ("epoch", "boot_id", "seq", "counted", "grant", "cycle_counted", "active_since"):
                setattr(agent, field, getattr(self.agent, field))
            agent.totals = {slot: dict(totals) for slot, totals in self.agent.totals.items()}
            other.journal = self.journal[-1:]
        return other

    def write(self):
        with self.lock:
            body = self.agent.batch([self.agent.grow(1, self.peer, now(), upload_bytes=self.chance.randrange(1, 1000))])
            raw = json.dumps(body).encode()
            self.journal.append((body["epoch"]["id"], body["seq"], raw, self.agent.counted))

    def report(self, number):
        """Returns the status that ended it, None when all were taken."""
        sender = Sender(self.agent)
        for turn in range(number):
            if turn or not self.journal:
                self.write()
            epoch, seq, raw, counted = self.journal[-1]
            begun = time.monotonic()
            status, _ = sender.send(raw, crc32c(raw))
            while status in (None, 503) and time.monotonic() < begun + 60:
                time.sleep(0.1)
                status, _ = sender.send(raw, crc32c(raw))
            if status != 200:
                return status
            self.taken_at.append(begun)
            assert self.contents.setdefault((epoch, seq), (raw, counted)) == (raw, counted), "one content for a number"
            if self.chance.random() < 0.3:
                assert sender.send(raw, crc32c(raw))[0] in (200, 401, 409), "a repeat changes nothing"
        return None


def test_two_agents_of_one_gateway(api):
    """I7, I10: the old agent goes on while a new one takes over: at most one moves a cursor, no number has two contents."""
    chance = random.Random(SEED)
    world = World(api)
    rounds = 60 if LONG else 8
    new_epochs = 0
    for _ in range(rounds):
        contents, refusals = {}, []
        agent = Agent(world.gateway(included_gb="0"))
        agent.activate()
        old = Machine(agent, agent.gateway.peer(), chance, contents)
        goes_on = threading.Thread(target=lambda: refusals.append(old.report(100_000)))
        goes_on.start()
        time.sleep(chance.uniform(0.02, 0.2))
        before = chance.random() < 0.5
        successor = Agent.__new__(Agent)
        vars(successor).update(vars(agent))
        successor.one_time_token, successor.public_key = agent.gateway.one_time_token(), agent.public_key
        new = old.copy(successor) if before else None
        status, answer = successor.enroll()
        assert status == 201, answer
        enrolled = time.monotonic()
        new = new or old.copy(successor)
        successor.token, successor.generation = answer["token"], answer["generation"]
        while (status := new.report(20)) is not None:
            # The copy was older than what the first had reported by then: its epoch is over.
            assert before and status == 409
            successor.new_epoch()
            new.journal.clear()
            new_epochs += 1
        goes_on.join()
        assert refusals[0] in (401, 409) and all(begun < enrolled for begun in old.taken_at)
        assert len(new.taken_at) >= 20
        last = {epoch: counted for (epoch, seq), (_, counted) in sorted(contents.items(), key=lambda item: item[0][1])}
        assert agent.gateway.bucket_row("used") == sum(last.values())
    figures(f"two agents: {rounds} take-overs under way, {new_epochs} of them by an older copy: a new epoch; no number with two contents")
