# SPDX-License-Identifier: BSD-2-Clause
"""Thousands of simulated gateways at one replica of the real API: reports of all in each period, or a suspended poll of
each over TLS while the replica is killed. Prints its samples as lines of JSON; a request that is refused, or a gateway
that is not served again, ends it with an error.
"""

import argparse
import asyncio
import json
import os
import random
import secrets
import signal
import statistics
import subprocess
import time
import types
import uuid
from datetime import timedelta
from pathlib import Path

from psycopg2.extras import execute_values

from process import cpu_time, memory
from store import request_of, whole_api  # first: it finds the modules of the tests
from conftest import BIN, Server
from simulated_agent import MICROSECOND, Agent, World, hour_of, key, now, token_hash

PEERS = 20
CALLERS = 64
PORT = 8443


def put(name, unit, values):
    print(json.dumps({"series": f"crowd/{name}", "unit": unit, "values": values}), flush=True)


def log(words):
    print(f"    {words}", file=os.sys.stderr, flush=True)


# ---- gateways as deployment leaves them ------------------------------------------------------------------------------

def insert(cursor, table, columns, rows):
    execute_values(cursor, f"INSERT INTO {table} ({columns}) VALUES %s", rows, page_size=1000)


def make_agents(api, count, peers):
    world = World(api)
    plan, begin = world.plan("1000"), hour_of(now())
    agents = []
    for i in range(count):
        agent = Agent.__new__(Agent)
        agent.gateway = types.SimpleNamespace(id=str(uuid.uuid4()))
        agent.api, agent.mask, agent.generation = api, "both", 1
        agent.public_key, agent.token = key(), secrets.token_urlsafe(32)
        agent.vpc, agent.subnets = str(uuid.uuid4()), [str(uuid.uuid4()) for _ in range(2)]
        agent.peers = [str(uuid.uuid4()) for _ in range(peers)]
        agent.active_since = None
        agent.new_epoch()
        agents.append(agent)
    owner = world.user
    with api.db.cursor() as cursor:
        insert(cursor, "gateway.vpc", "owner, id, location, name",
               [(owner, a.vpc, world.location, a.vpc) for a in agents])
        insert(cursor, "gateway.subnet", "owner, id, vpc, cidr, public",
               [(owner, a.subnets[i], a.vpc, cidr, i == 0) for a in agents
                for i, cidr in enumerate(("198.51.100.0/24", "10.1.0.0/24"))])
        insert(cursor, "gateway.gateway", "owner, id, name, vpc, public_subnet, location, plan, tunnel_subnet, tunnel_subnet6,"
               " created, generation, public_key",
               [(owner, a.gateway.id, "g" + a.gateway.id[:13], a.vpc, a.subnets[0], world.location, plan, "10.99.0.0/24",
                 "fd12:3456:789a:1::/64", begin, 1, secrets.token_bytes(32)) for a in agents])
        insert(cursor, "gateway.peer", "id, owner, gateway, kind, name, public_key",
               [(p, owner, a.gateway.id, "road_warrior", f"p{n}", secrets.token_bytes(32))
                for a in agents for n, p in enumerate(a.peers)])
        insert(cursor, "gateway.token", "hash, kind, owner, gateway, attempt, generation, expires",
               [(token_hash(a.token), "agent", owner, a.gateway.id, 1, 1, "infinity") for a in agents])
        cursor.execute("UPDATE gateway.account SET gateways = %s WHERE owner = %s", (count, owner))
        cursor.execute("SELECT count(billing.take_bucket(owner, id)) FROM gateway.gateway WHERE owner = %s", (owner,))
        cursor.execute("ANALYZE")
    return world, agents


# ---- what the processes use ------------------------------------------------------------------------------------------

def children(parent):
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1]) == parent:
                    yield int(entry.name)
            except OSError:
                pass


def database_time(postmaster):
    """CPU seconds of PostgreSQL, of its processes that have ended, too."""
    ended = sum(map(int, Path(f"/proc/{postmaster}/stat").read_text().rsplit(")", 1)[1].split()[13:15]))
    total = cpu_time(postmaster) + ended / os.sysconf("SC_CLK_TCK")
    for pid in children(postmaster):
        try:
            total += cpu_time(pid)
        except OSError:
            pass
    return total


def database_memory(postmaster):
    """What PostgreSQL's processes hold besides what they share."""
    total = 0
    for pid in [postmaster, *children(postmaster)]:
        try:
            total += memory(pid)
        except (OSError, IndexError):
            pass
    return total


# ---- requests --------------------------------------------------------------------------------------------------------

class Line:
    """One connection that is kept, and opened again when it is needed."""

    def __init__(self, server):
        self.server, self.reader, self.writer = server, None, None

    async def open(self):
        self.reader, self.writer = await asyncio.open_connection(
            "127.0.0.1", self.server.port, ssl=self.server.tls, server_hostname="127.0.0.1")

    async def exchange(self, request):
        """Status and body."""
        self.writer.write(request)
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length:")[2].split()
        body = await self.reader.readexactly(int(length[0])) if length else b""
        return int(head[9:12]), body

    def close(self):
        if self.writer:
            self.writer.transport.abort()


# ---- reports ---------------------------------------------------------------------------------------------------------

def report(agent, chance):
    if agent.active_since is None:
        agent.active_since = agent.upto = now()
        end, records = agent.upto + MICROSECOND, []
    else:
        end = max(now(), agent.upto + timedelta(milliseconds=1))
        records = [agent.grow(slot, peer, end, upload_bytes=chance.randint(1, 10**6), download_bytes=chance.randint(1, 10**7),
                              upload_packets=chance.randint(1, 1000), download_packets=chance.randint(1, 10000))
                   for slot, peer in enumerate(agent.peers, 1)]
    body = agent.batch(records, (agent.upto, end), [(agent.upto, end, "active")])
    agent.upto = end
    return request_of(agent, body)


async def send_reports(server, agents, period, seconds, samples):
    """Each agent in its turn, period after period; returns by how much the answers came late. The first period only
    activates the gateways and is not counted.
    """
    begun, chance, late = time.monotonic(), random.Random(1), []
    turns = iter(range(round(len(agents) * (period + seconds) / period)))

    async def call():
        line = Line(server)
        await line.open()
        for turn in turns:
            due = begun + turn * period / len(agents)
            await asyncio.sleep(max(due - time.monotonic(), 0))
            request = report(agents[turn % len(agents)], chance)
            while (answer := await line.exchange(request))[0] == 503:  # too busy: an agent tries again
                await asyncio.sleep(0.2)
            assert answer[0] == 200, answer
            if turn >= len(agents):
                late.append(time.monotonic() - due)
        line.close()

    watcher = asyncio.create_task(samples(begun + period))
    await asyncio.gather(*(call() for _ in range(CALLERS)))
    watcher.cancel()
    return late


def transactions(api):
    _, text = api.request("GET", "/metrics", token=api.admin_token)
    return int(text.partition("\nwiretoll_report_transactions_total ")[2].split()[0])


def run_reports(api, arguments):
    _, agents = make_agents(api, arguments.gateways, PEERS)
    log(f"{len(agents)} gateways are made")
    postmaster, memories, start = api.postgres.process.pid, [], {}

    async def samples(at):
        await asyncio.sleep(max(at - time.monotonic(), 0))
        start.update(clock=time.monotonic(), api=cpu_time(api.process.pid), database=database_time(postmaster),
                     own=cpu_time(os.getpid()), transactions=transactions(api))
        while True:
            memories.append((memory(api.process.pid), database_memory(postmaster)))
            await asyncio.sleep(2)

    late = asyncio.run(send_reports(api, agents, arguments.period, arguments.seconds, samples))
    elapsed = time.monotonic() - start["clock"]
    share = 100 / elapsed / os.cpu_count()
    put("reports/api", "%", [(cpu_time(api.process.pid) - start["api"]) * share])
    put("reports/database", "%", [(database_time(postmaster) - start["database"]) * share])
    put("reports/own", "%", [(cpu_time(os.getpid()) - start["own"]) * share])
    put("reports/late", "s", [statistics.quantiles(late, n=100, method="inclusive")[98]])
    put("reports/together", "reports", [len(late) / (transactions(api) - start["transactions"])])
    put("reports/seconds", "s", [elapsed])
    put("reports/gateways", "gateways", [len(agents)])
    put("reports/period", "s", [arguments.period])
    put("reports/count", "1/s", [len(late) / elapsed])
    quarter = max(len(memories) // 4, 1)
    put("reports/memory-first", "bytes", [statistics.median(map(sum, memories[:quarter]))])
    put("reports/memory-last", "bytes", [statistics.median(map(sum, memories[-quarter:]))])


# ---- suspended polls -------------------------------------------------------------------------------------------------

class Polls:
    """The agents of polls.c, as a process of its own."""

    def __init__(self, server, agents):
        self.count = len(agents)
        self.process = subprocess.Popen([BIN.parent / "bench" / "bench", "polls"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdin.write(f"{server.port} {server.ca_pem}\n" + "".join(f"{agent.token}\n" for agent in agents) + "\n")
        self.process.stdin.flush()

    def all_beyond(self, revision, patience):
        """Waits until each has been told a later revision; returns how many attempts have failed."""
        self.process.stdin.write(f"{revision}\n")
        self.process.stdin.flush()
        until = time.monotonic() + patience
        for line in self.process.stdout:
            asked, beyond, failed = map(int, line.split())
            if asked == revision and beyond == self.count:
                return failed
            assert time.monotonic() < until, f"{self.count - beyond} of {self.count} gateways are not served"
        raise AssertionError("the agents have ended")


def start_replica(api, count):
    server = Server(api.state, api.database_files["wiretoll_api"], api.folder / "replica.log", "--connections", str(count + 100),
                    "--connections-per-address", str(count + 100),
                    "--listen", f"127.0.0.1:{PORT}")
    server.port = PORT
    return server


def hold_polls(api, world, agents, patience):
    def spent():
        return cpu_time(server.process.pid), database_time(postmaster), cpu_time(polls.process.pid)

    def put_spent(phase, before):
        for name, seconds, begun in zip(("api", "database", "own"), spent(), before):
            put(f"polls/{phase}-{name}", "ms", [(seconds - begun) * 1000 / len(agents)])

    server, postmaster = start_replica(api, len(agents)), api.postgres.process.pid
    before, begun, polls = memory(server.process.pid), time.monotonic(), Polls(server, agents)
    at = spent()
    failed = polls.all_beyond(0, patience)
    put("polls/gateways", "gateways", [len(agents)])
    put("polls/first", "s", [time.monotonic() - begun])
    put_spent("first", at)
    log(f"all were served; {failed} attempts had failed")
    time.sleep(5)
    put("polls/anonymous", "bytes", [memory(server.process.pid) - before])
    put("polls/resident", "bytes", [memory(server.process.pid, "VmRSS")])
    [[revision]] = api.sql("SELECT max(revision) FROM gateway.gateway")
    begun = time.monotonic()
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    api.sql("SELECT count(billing.raise_revision(owner, id)) FROM gateway.gateway WHERE owner = %s", world.user)
    server = start_replica(api, len(agents))
    at = spent()
    log(f"another replica began after {time.monotonic() - begun:.1f} s")
    again = polls.all_beyond(revision, patience)
    put("polls/again", "s", [time.monotonic() - begun])
    put_spent("again", at)
    log(f"all were served again; {again - failed} attempts had failed")
    polls.process.stdin.close()
    polls.process.wait()
    server.stop(signal.SIGKILL)


def run_polls(api, arguments):
    world, agents = make_agents(api, arguments.gateways, 1)
    log(f"{len(agents)} gateways are made")
    hold_polls(api, world, agents, arguments.patience)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("reports", "polls"))
    parser.add_argument("--gateways", type=int, default=10000)
    parser.add_argument("--period", type=float, default=60, help="seconds from one report of a gateway to the next")
    parser.add_argument("--seconds", type=float, default=1800, help="that are measured, after the first period")
    parser.add_argument("--patience", type=float, default=300, help="seconds after which polls are given up")
    arguments = parser.parse_args()
    with whole_api() as api:
        (run_reports if arguments.what == "reports" else run_polls)(api, arguments)


if __name__ == "__main__":
    main()
