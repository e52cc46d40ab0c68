# SPDX-License-Identifier: BSD-2-Clause
"""Reports of simulated agents through the real API into PostgreSQL, against a bare COPY of the same rows into the same
table: by one connection, and by as many as the API has collectors. Prints rows a second and CPU time as lines of JSON. A
byte that is missing, or there twice, ends it with an error.
"""

import argparse
import io
import json
import os
import random
import threading
import time
from datetime import timedelta

from store import Line, add_peers, request_of, whole_api  # first: it finds the modules of the tests
from crowd import database_time
from process import cpu_time
from simulated_agent import HOUR, MICROSECOND, Agent, World, hour_of, now

# Gateways, batches of each, peers of each, samples of a counter in a batch.
SHAPES = {"catch-up": (32, 5, 50, 20), "single": (16, 10, 1000, 1), "small": (100, 20, 20, 1)}
LINES = 16
COLLECTORS = 2  # of the API
COLUMNS = ("upload_bytes", "download_bytes", "upload_packets", "download_packets")


def make_requests(api, shape):
    """The owners, each of one gateway; each gateway's requests in order, and the bytes that they tell."""
    gateways, batches, peers, samples = SHAPES[shape]
    begin = hour_of(now()) - (batches * samples + 1) * HOUR
    chance, owners, queues, told = random.Random(1), [], [], 0
    for _ in range(gateways):
        agent = Agent(World(api, since=begin).gateway(created=begin))  # an owner's share is not what is measured
        owners.append(agent.gateway.owner)
        agent.activate(begin)
        ids, queue, upto = add_peers(agent.gateway, peers), [], begin + MICROSECOND
        for batch in range(batches):
            records = []
            for sample in range(samples):
                hour = begin + (batch * samples + sample) * HOUR if samples > 1 else begin
                for slot, peer in enumerate(ids, 1):
                    growth = {name: chance.randint(1, 10**6) for name in COLUMNS}
                    told += growth["upload_bytes"] + growth["download_bytes"]
                    records.append(agent.grow(slot, peer, hour, **growth))
            end = upto + (samples * HOUR if samples > 1 else timedelta(seconds=60))
            body = agent.batch(records, (upto, end), [(upto, end, "active")])
            queue.append(request_of(agent, body))
            upto = end
        queues.append(queue)
    return owners, queues, told


def side_by_side(tasks):
    """Seconds that they took together. What one of them raises is raised here."""
    faults = []

    def run(task):
        try:
            task()
        except Exception as fault:
            faults.append(fault)

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    return time.monotonic() - begun


def send_all(api, queues):
    """Seconds until all are answered. A gateway's batches go one after another, gateways side by side."""
    waiting, lock = list(queues), threading.Lock()

    def work(line):
        while True:
            with lock:
                if not waiting:
                    return
                queue = waiting.pop()
            for request in queue:
                line.exchange(request)

    lines = [Line(api) for _ in range(min(LINES, len(queues)))]
    return side_by_side([lambda line=line: work(line) for line in lines])


def copy_again(api, rows, connections):
    """Takes all rows out of the table, and puts them in again by COPY, a share by each connection; returns its seconds, and the
    CPU seconds of PostgreSQL."""
    api.sql("TRUNCATE billing.usage_record")
    checkpoint(api)
    size = -(-len(rows) // connections)
    shares = [io.StringIO("".join(rows[i:i + size])) for i in range(0, len(rows), size)]
    opened = [api.postgres.connect() for _ in shares]

    def put(connection, share):
        with connection.cursor() as cursor:
            cursor.copy_expert("COPY billing.usage_record FROM STDIN", share)
        connection.commit()

    before = database_time(api.postgres.process.pid)
    taken = side_by_side([lambda pair=pair: put(*pair) for pair in zip(opened, shares)])
    spent_here = database_time(api.postgres.process.pid) - before
    for connection in opened:
        connection.close()
    return taken, spent_here


def stored_rows(api):
    rows = io.StringIO()
    with api.db.cursor() as cursor:
        cursor.copy_expert("COPY (SELECT * FROM billing.usage_record) TO STDOUT", rows)
    return rows.getvalue().splitlines(keepends=True)


def checkpoint(api):
    """So that what comes next begins with nothing left to write."""
    superuser = api.postgres.connect("postgres")
    superuser.autocommit = True
    superuser.cursor().execute("CHECKPOINT")
    superuser.close()


def spent(api):
    """CPU seconds of all who take part."""
    return {"api": cpu_time(api.process.pid), "database": database_time(api.postgres.process.pid), "senders": cpu_time(os.getpid())}


def measure(api, shape):
    """Name -> rows a second, or microseconds of CPU time for a row."""
    gateways, batches, peers, samples = SHAPES[shape]
    rows = gateways * batches * peers * samples
    owners, queues, told = make_requests(api, shape)
    api.sql("TRUNCATE billing.usage_record")
    checkpoint(api)
    before = spent(api)
    taken = send_all(api, queues)
    after = spent(api)
    [[stored, billed, rolled]] = api.sql(
        "SELECT count(*), sum(d_up + d_down), (SELECT sum(up + down) FROM billing.usage_hour WHERE owner = ANY (%s::uuid[]))"
        " FROM billing.usage_record", owners)
    assert (stored, billed, rolled) == (rows, told, told), f"{rows} rows and {told} bytes: {stored}, {billed}, {rolled}"
    lines = stored_rows(api)
    alone, spent_alone = copy_again(api, lines, 1)
    together, _ = copy_again(api, lines, COLLECTORS)
    return {"api": rows / taken, "copy": rows / alone, "copies": rows / together, "cpu-copy": spent_alone / rows * 1e6,
            **{f"cpu-{who}": (after[who] - before[who]) / rows * 1e6 for who in after}}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=list(SHAPES))
    arguments = parser.parse_args()
    results = {}
    with whole_api() as api:
        for _ in range(arguments.rounds):
            for shape in arguments.shapes:
                for name, value in measure(api, shape).items():
                    results.setdefault((shape, name), []).append(round(value, 2))
    for (shape, name), values in results.items():
        print(json.dumps({"series": f"ingest/{shape}/{name}", "unit": "us" if name.startswith("cpu-") else "1/s", "values": values}))


if __name__ == "__main__":
    main()
