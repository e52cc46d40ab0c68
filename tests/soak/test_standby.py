# SPDX-License-Identifier: BSD-2-Clause
"""A synchronous standby is promoted while the primary is killed: nothing that was acknowledged is lost."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/api"))

from conftest import Api, Postgres, postgres_programs  # noqa: E402
from simulated_agent import Agent, World, now  # noqa: E402

from figures import SEED, figures  # noqa: E402

ROUNDS = 20 if os.environ.get("SOAK_LONG") else 1
AGENTS = 6
PATIENCE = 180  # seconds that a busy machine may need


class Pair(Postgres):
    """A primary and a synchronous standby; clients are given both."""

    def __init__(self, folder):
        super().__init__(folder / "primary")
        self.folder.mkdir()
        self.create()
        self.standby = Postgres(folder / "standby")
        self.standby.folder.mkdir()
        shutil.chown(self.standby.folder, "postgres", "postgres")
        self.standby.passwords = self.passwords
        subprocess.run(self.as_postgres(postgres_programs() / "pg_basebackup", "-h", self.folder, "-U", "postgres", "-D", self.standby.data,
                                        "-R", "-X", "stream", "-c", "fast", "--no-sync"),
                       check=True, timeout=PATIENCE, capture_output=True, env={**os.environ, "PGPASSWORD": self.passwords["postgres"]})
        self.standby.start()
        connection = self.connect("postgres", "postgres")
        connection.autocommit = True
        cursor = connection.cursor()
        # Of the primary alone: the standby, once promoted, waits for nobody.
        cursor.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        cursor.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + PATIENCE
        while True:
            cursor.execute("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'")
            if cursor.fetchone() == (1,):
                break
            assert time.monotonic() < deadline, "the standby does not follow"
            time.sleep(0.05)
        connection.close()

    def connection_file(self, role):
        path = self.folder.parent / f"{role}.conn"
        path.touch(0o600)
        path.write_text(f"host={self.folder},{self.standby.folder} user={role} password={self.passwords[role]} dbname=wiretoll "
                        "target_session_attrs=read-write\n")
        return path

    def kill_primary(self):
        """As when its machine loses power: every process of it at once."""
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and self.is_primary(entry)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # one that has just ended
                os.kill(pid, signal.SIGKILL)
        self.process.wait(60)
        return len(pids)

    def is_primary(self, entry):
        try:
            return (entry / "comm").read_text() == "postgres\n" and os.readlink(entry / "cwd") == str(self.data)
        except OSError:
            return False

    def promote(self):
        subprocess.run(self.as_postgres(postgres_programs() / "pg_ctl", "-D", self.standby.data, "-w", "-t", PATIENCE, "promote"), check=True,
                       timeout=PATIENCE, capture_output=True)

    def close(self):
        self.stop()
        self.standby.stop()


class Reporter(threading.Thread):
    """An agent that reports without a pause; the same bytes until they are taken."""

    def __init__(self, agent, peer, seed):
        super().__init__(daemon=True)
        self.agent, self.peer, self.chance = agent, peer, random.Random(seed)
        self.over = threading.Event()
        self.acknowledged = (0, 0)  # (seq, counted)
        self.problem = None

    def run(self):
        while not self.over.is_set() and not self.problem:
            body = self.agent.batch([self.agent.grow(1, self.peer, now(), upload_bytes=self.chance.randrange(1, 10_000))])
            counted = self.agent.counted
            raw = json.dumps(body).encode()
            while True:
                try:
                    status, answer = self.agent.send(raw)
                except (OSError, ValueError):
                    status, answer = None, None
                if status == 200:
                    self.acknowledged = (body["seq"], counted)
                    break
                if status not in (None, 500, 503):
                    self.problem = (status, answer)
                    return
                time.sleep(0.1)


def fail_over(folder, seed):
    """One round; the number of batches that were acknowledged before, and the seconds until all were told again."""
    chance = random.Random(seed)
    pair = Pair(folder)
    server = None
    try:
        server = Api(folder, pair)
        world = World(server)
        reporters = []
        for number in range(AGENTS):
            agent = Agent(world.gateway(included_gb="0"))
            agent.activate()
            reporters.append(Reporter(agent, agent.gateway.peer(), f"{seed}-{number}"))
        for reporter in reporters:
            reporter.start()
        deadline = time.monotonic() + PATIENCE
        while not all(reporter.acknowledged[0] > 1 for reporter in reporters):
            assert time.monotonic() < deadline and not any(reporter.problem for reporter in reporters), "they do not report"
            time.sleep(0.05)
        time.sleep(chance.uniform(0.5, 2.5))
        pair.kill_primary()
        promised = [reporter.acknowledged for reporter in reporters]
        begun = time.monotonic()
        pair.promote()
        server.db = pair.standby.connect()
        server.db.autocommit = True
        for reporter, (seq, counted) in zip(reporters, promised):
            [[held]] = server.sql("SELECT last_seq FROM billing.epoch WHERE owner = %s AND id = %s",
                                  reporter.agent.gateway.owner, reporter.agent.epoch)
            assert held >= seq > 1, f"acknowledged up to {seq}, the standby holds {held}"
            assert reporter.agent.gateway.bucket_row("used") >= counted
        deadline = time.monotonic() + PATIENCE
        while not all(reporter.acknowledged > before for reporter, before in zip(reporters, promised)):
            assert time.monotonic() < deadline and not any(reporter.problem for reporter in reporters), \
                [(reporter.problem, reporter.acknowledged, before) for reporter, before in zip(reporters, promised)]
            time.sleep(0.05)
        took = time.monotonic() - begun
        for reporter in reporters:
            reporter.over.set()
        for reporter in reporters:
            reporter.join(PATIENCE)
            assert not reporter.problem, reporter.problem
            assert reporter.agent.gateway.bucket_row("used") == reporter.acknowledged[1] == reporter.agent.counted
        return sum(seq for seq, _ in promised), took
    finally:
        if server:
            server.stop(signal.SIGKILL)
        pair.close()


def test_a_standby_is_promoted_and_nothing_is_lost():
    """I8, M6: two clusters, a connection string with both hosts, agents that report all the while."""
    batches, slowest = 0, 0.0
    for number in range(ROUNDS):
        folder = Path(tempfile.mkdtemp(prefix="wt-standby-"))
        folder.chmod(0o755)
        try:
            told, took = fail_over(folder, f"{SEED}-{number}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        batches += told
        slowest = max(slowest, took)
    figures(f"standby promoted {ROUNDS} times: {batches:,} batches acknowledged before, all there; all agents told again within {slowest:.1f} s")
