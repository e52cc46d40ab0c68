# SPDX-License-Identifier: BSD-2-Clause
"""What one customer's crowd and one gateway's large reports cost their neighbours: a customer who reads and a gateway that
reports, measured with and without the others in turns, against one replica of the real API. With --base, another build of
the programs is measured in turns with this one. Prints its samples as lines of JSON.
"""

import argparse
import asyncio
import contextlib
import json
import random
import ssl
import statistics
import subprocess
import sys
import time
import types
from datetime import timedelta
from pathlib import Path

from store import add_peers, request_of, whole_api  # first: it finds the modules of the tests
import conftest
from crowd import Line, database_time, log, report
from process import cpu_time
from simulated_agent import MICROSECOND, Agent, World, now
from world import public_key

CONNECTIONS = 40
PAUSE = 0.05  # seconds between two requests of a bystander
BYSTANDER_PEERS = 20
LARGE_PEERS = 3900  # one record of each is a body of nearly 1 MiB
LARGE_A_SECOND = 1  # at most: to make one takes a quarter of a second
AROUND = 5  # seconds that the others are at work besides those that are measured, at most
GATEWAYS = 8  # of the crowd's owner in a turn: a tunnel subnet has room for 253 peers


def put(name, unit, values):
    print(json.dumps({"series": f"neighbour/{name}", "unit": unit, "values": values}), flush=True)


def request_with(token, method, path, body=None):
    raw = json.dumps(body).encode() if body else b""
    return (f"{method} {path} HTTP/1.1\r\nHost: wiretoll-api\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Length: {len(raw)}\r\n\r\n").encode() + raw


# ---- the others, a process of their own ------------------------------------------------------------------------------

async def create_peers(line, token, gateways, done):
    """As a client does that is told to come again later."""
    while gateways:
        path = f"/v1/gateways/{gateways[-1]}/peers"
        body = {"name": f"p{random.getrandbits(60):x}", "public_key": public_key()}
        gateway = gateways[-1]
        status, answer = await line.exchange(request_with(token, "POST", path, body))
        done[status] = done.get(status, 0) + 1
        if status == 503:
            await asyncio.sleep(1)
        elif status == 422 and gateways and gateways[-1] == gateway:  # full
            gateways.pop()
        else:
            assert status in (201, 422, 500), answer


async def send_large(line, folder, done):
    begun = time.monotonic()
    for number, file in enumerate(sorted(folder.iterdir())):
        await asyncio.sleep(begun + number / LARGE_A_SECOND - time.monotonic())
        request = file.read_bytes()
        file.unlink()
        done["sent"] = done.get("sent", 0) + 1
        while (status := (await line.exchange(request))[0]) == 503:
            await asyncio.sleep(1)
        assert status == 200, status
        done["taken"] = done.get("taken", 0) + 1
    raise AssertionError("the large reports have run out: not all of the time had any")


async def be_the_others(server, token, gateways, folder):
    done, lines = {}, [Line(server) for _ in range(CONNECTIONS + 1)]
    await asyncio.gather(*(line.open() for line in lines))
    tasks = [asyncio.create_task(create_peers(line, token, gateways, done)) for line in lines[1:]]
    tasks.append(asyncio.create_task(send_large(lines[0], folder, done)))
    print("begun", flush=True)
    stop = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await stop
    for task in tasks:
        if task.done() and task.exception():
            raise task.exception()
        task.cancel()
    print(json.dumps({str(key): value for key, value in done.items()}), flush=True)


def run_the_others():
    """What to do comes as a line of JSON; it is done until the input ends."""
    work = json.loads(sys.stdin.readline())
    server = types.SimpleNamespace(port=work["port"], tls=ssl.create_default_context(cafile=work["ca"]))
    asyncio.run(be_the_others(server, work["token"], work["gateways"], Path(work["folder"])))


@contextlib.contextmanager
def the_others(stage):
    process = subprocess.Popen([sys.executable, __file__, "--others"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    gateways = [stage.crowd.gateway().id for _ in range(GATEWAYS)]
    process.stdin.write(json.dumps({"port": stage.api.port, "ca": str(stage.api.ca_pem), "token": stage.crowd_token,
                                    "gateways": gateways, "folder": str(stage.folder)}) + "\n")
    process.stdin.flush()
    done = {}
    try:
        assert process.stdout.readline() == "begun\n", "the others do not begin"
        yield done
        done.update(json.loads(process.communicate("", timeout=120)[0].splitlines()[-1]))
        assert "sent" in done, f"the others did {done}: no large report"
    finally:
        process.kill()
        process.wait()


# ---- the bystanders --------------------------------------------------------------------------------------------------

async def repeat(until, ask, times):
    while time.monotonic() < until:
        begun = time.monotonic()
        await ask()
        times.append((time.monotonic() - begun) * 1000)
        await asyncio.sleep(PAUSE)


async def stand_by(stage, seconds):
    """Milliseconds of every answer to the customer, and to the gateway."""
    reader, reporter, chance = Line(stage.api), Line(stage.api), random.Random(1)

    async def read():
        status, answer = await reader.exchange(request_with(stage.reader_token, "GET", "/v1/me"))
        assert status == 200, answer

    async def tell():
        status, answer = await reporter.exchange(report(stage.reporter, chance))
        assert status == 200, answer

    await reader.open()
    await reporter.open()
    until, reads, reports = time.monotonic() + seconds, [], []
    await asyncio.gather(repeat(until, read, reads), repeat(until, tell, reports))
    reader.close()
    reporter.close()
    return reads, reports


def slowest(times):
    return statistics.quantiles(times, n=100, method="inclusive")[98] if len(times) > 1 else times[0]


# ---- one build -------------------------------------------------------------------------------------------------------

class Stage:
    """An API, and who takes part."""

    def __init__(self, api, name, large):
        self.api, self.name = api, name
        self.crowd, self.reader = World(api), World(api)
        self.crowd_token, self.reader_token = self.crowd.token(), self.reader.token()
        self.creator = World(api)
        self.creator_token = self.creator.token()
        self.folder = api.folder / "reports"
        self.folder.mkdir()
        self.make_large_reports(Agent(self.reader.gateway()), large)
        self.reporter = Agent(World(api).gateway())
        self.reporter.peers = add_peers(self.reporter.gateway, BYSTANDER_PEERS)
        self.reporter.activate()
        self.reporter.upto = now()
        api.sql("ANALYZE")
        log(f"{name}: the API runs, {large} large reports are made")

    def make_large_reports(self, agent, count):
        agent.activate()
        peers, upto = add_peers(agent.gateway, LARGE_PEERS), now()
        for number in range(count):
            records = [agent.grow(slot, peer, upto, upload_bytes=100, upload_packets=1) for slot, peer in enumerate(peers, 1)]
            body = agent.batch(records, (upto, upto + MICROSECOND), [(upto, upto + MICROSECOND, "active")])
            upto += timedelta(microseconds=1)
            request = request_of(agent, body)
            assert len(request) < 1 << 20
            (self.folder / f"{number:04}").write_bytes(request)

    def turn(self, seconds):
        """99 of 100 answers to each bystander alone, and with the others."""
        alone = asyncio.run(stand_by(self, seconds))
        with the_others(self) as done:
            time.sleep(1)
            crowded = asyncio.run(stand_by(self, seconds))
        self.drain()
        log(f"{self.name}: {done}; read {slowest(alone[0]):.1f} -> {slowest(crowded[0]):.1f} ms, report "
            f"{slowest(alone[1]):.1f} -> {slowest(crowded[1]):.1f} ms")
        return {"read/alone": slowest(alone[0]), "read/crowded": slowest(crowded[0]),
                "report/alone": slowest(alone[1]), "report/crowded": slowest(crowded[1])}

    def drain(self):
        """Until what the crowd has left behind is done."""
        async def run():
            line = Line(self.api)
            await line.open()
            while (await line.exchange(request_with(self.crowd_token, "GET", "/v1/me")))[0] != 200:
                await asyncio.sleep(0.5)
            line.close()

        asyncio.run(run())
        time.sleep(1)

    def create(self, count):
        """Milliseconds of peers with automatic addresses, one after another: of the clock, and of CPU time for each."""
        gateway, before = self.creator.gateway().id, self.spent()

        async def run():
            line, times = Line(self.api), []
            await line.open()
            for i in range(count):
                begun = time.monotonic()
                status, answer = await line.exchange(request_with(self.creator_token, "POST", f"/v1/gateways/{gateway}/peers",
                                                                  {"name": f"p{i}", "public_key": public_key()}))
                assert status == 201, answer
                times.append((time.monotonic() - begun) * 1000)
            line.close()
            return times

        times = asyncio.run(run())
        return times, [(self.spent() - before) / count * 1000] * count

    def spent(self):
        """CPU seconds of API and PostgreSQL."""
        return cpu_time(self.api.process.pid) + database_time(self.api.postgres.process.pid)


@contextlib.contextmanager
def stage_of(name, programs, large):
    conftest.BIN = programs
    with whole_api() as api:
        yield Stage(api, name, large)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10, help="of each half of a turn")
    parser.add_argument("--peers", type=int, default=20, help="that are created")
    parser.add_argument("--base", type=Path, help="where the programs of another build are")
    parser.add_argument("--others", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.others:
        run_the_others()
        return
    builds, series = {"ours": conftest.BIN, **({"base": arguments.base} if arguments.base else {})}, {}
    large = round(arguments.rounds * (arguments.seconds + AROUND) * LARGE_A_SECOND)
    with contextlib.ExitStack() as stack:
        stages = [stack.enter_context(stage_of(name, programs, large)) for name, programs in builds.items()]
        for number in range(arguments.rounds):
            for stage in stages if number % 2 == 0 else stages[::-1]:
                for name, value in stage.turn(arguments.seconds).items():
                    series.setdefault(f"{stage.name}/{name}", []).append(value)
        for number in range(arguments.peers // 5):
            for stage in stages if number % 2 == 0 else stages[::-1]:
                for what, values in zip(("create", "create-cpu"), stage.create(5)):
                    series.setdefault(f"{stage.name}/{what}", []).extend(values)
    for name, values in series.items():
        put(name, "ms", [round(value, 3) for value in values])


if __name__ == "__main__":
    main()
