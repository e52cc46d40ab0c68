# SPDX-License-Identifier: BSD-2-Clause
"""Killed in the middle of a commit, and right behind an acknowledgement: simulated agents, the real API and PostgreSQL."""

import contextlib
import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/api"))

from conftest import Server, api  # noqa: E402, F401
from simulated_agent import Agent, World, now  # noqa: E402

from figures import SEED, figures  # noqa: E402

# What a batch is written to, in the order in which it is: the transaction is held up at each.
TABLES = ("gateway.gateway", "billing.usage_record", "billing.usage_hour", "billing.counter", "billing.bucket", "billing.overage_hour",
          "billing.action", "billing.epoch", "billing.epoch_batch")
ACKNOWLEDGED = 30 if os.environ.get("SOAK_LONG") else 6


@pytest.fixture
def agent(api):
    agent = Agent(World(api).gateway(included_gb="0"))
    agent.activate()
    agent.peer = agent.gateway.peer()
    return agent


def next_batch(agent, growth):
    return json.dumps(agent.batch([agent.grow(1, agent.peer, now(), upload_bytes=growth)])).encode()


def send_until_taken(agent, raw):
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError, ValueError):
            status, answer = agent.send(raw)
            if status == 200:
                return answer
            assert status in (500, 503), answer
        assert time.monotonic() < deadline, "it is never taken"
        time.sleep(0.1)


def restart_api(api, number=signal.SIGKILL):
    api.stop(number)
    Server.__init__(api, api.state, api.database_files["wiretoll_api"], api.log)


def postgres_processes():
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "comm").read_text() == "postgres\n" and ") Z " not in (entry / "stat").read_text():
                yield int(entry.name)


def kill_postgres(api):
    """Every process of the cluster at once; then it is started again, and recovers."""
    while pids := list(postgres_processes()):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    api.postgres.process.wait(60)
    api.postgres.start()
    api.db = api.postgres.connect()
    api.db.autocommit = True


def wait_held_up(api, table):
    """Until a report waits for the table that is locked: the billing clock may wait for it, too."""
    connection = api.postgres.connect("postgres")  # who sees what others do
    connection.autocommit = True
    cursor = connection.cursor()
    deadline = time.monotonic() + 60
    try:
        while True:
            cursor.execute("SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE relation = %s::regclass AND NOT granted"
                           " AND query LIKE '%%apply_reports%%'", (table,))
            if cursor.fetchone()[0]:
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
    finally:
        connection.close()


@pytest.mark.parametrize("victim", ("API", "PostgreSQL"))
def test_killed_in_the_middle_of_a_commit(api, agent, victim):
    """I8: wherever in its transaction a batch is cut off, its repeat is taken, once and whole."""
    held_up = 0
    for turn, table in enumerate(TABLES):
        raw = next_batch(agent, 1000 + turn)
        lock = api.postgres.connect()
        lock.cursor().execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")
        answers = []
        report = threading.Thread(target=lambda: answers.append(swallow(agent, raw)))
        report.start()
        held_up += wait_held_up(api, table)
        if victim == "API":
            restart_api(api)
            lock.rollback()
            lock.close()
        else:
            kill_postgres(api)
        report.join(60)
        assert answers == [None], "it was cut off"
        assert send_until_taken(agent, raw)["held_seq"] == agent.seq
        assert agent.gateway.bucket_row("used") == agent.counted, f"cut off at {table}"
        told = api.sql("SELECT sum(up) FROM billing.usage_hour WHERE owner = %s AND gateway = %s", agent.gateway.owner, agent.gateway.id)
        assert told == [(agent.counted,)]
    assert held_up == len(TABLES), "each table was a place to be cut off at"
    figures(f"{victim} killed in the middle of a commit at {held_up} places: each batch taken once and whole by its repeat")


def swallow(agent, raw):
    """The status of a report, None when there was no answer."""
    try:
        status, _ = agent.send(raw)
    except (OSError, ValueError):
        return None
    return status if status not in (500, 503) else None


def test_what_is_acknowledged_is_durable(api, agent):
    """I8: PostgreSQL killed the moment an answer has come: the batch is there, and the next follows it."""
    chance = random.Random(SEED)
    for _ in range(ACKNOWLEDGED):
        for _ in range(chance.randrange(1, 4)):
            held = send_until_taken(agent, next_batch(agent, chance.randrange(1, 10_000)))["held_seq"]
        kill_postgres(api)
        [[last_seq]] = api.sql("SELECT last_seq FROM billing.epoch WHERE owner = %s AND id = %s", agent.gateway.owner, agent.epoch)
        assert last_seq == held == agent.seq
        assert agent.gateway.bucket_row("used") == agent.counted
    figures(f"PostgreSQL killed right behind {ACKNOWLEDGED} acknowledgements: all there")
