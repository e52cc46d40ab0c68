# SPDX-License-Identifier: BSD-2-Clause
"""Reports of simulated agents through the real API into PostgreSQL, against a bare COPY of the same rows into the same
table. Prints rows a second as lines of JSON. A byte that is missing, or there twice, ends it with an error.
"""

import argparse
import io
import json
import random
import threading
import time
from datetime import timedelta

from store import Line, add_peers, request_of, whole_api  # first: it finds the modules of the tests
from simulated_agent import HOUR, MICROSECOND, Agent, World, hour_of, now

# Gateways, batches of each, peers of each, samples of a counter in a batch.
SHAPES = {"catch-up": (8, 5, 50, 20), "single": (8, 5, 1000, 1), "small": (100, 10, 20, 1)}
LINES = 16
COLUMNS = ("upload_bytes", "download_bytes", "upload_packets", "download_packets")


def make_requests(api, shape):
    """Each gateway's requests in order, and the bytes that they tell."""
    gateways, batches, peers, samples = SHAPES[shape]
    begin = hour_of(now()) - (batches * samples + 1) * HOUR
    world = World(api, since=begin)
    chance, queues, told = random.Random(1), [], 0
    for _ in range(gateways):
        agent = Agent(world.gateway(created=begin))
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
    return world, queues, told


def send_all(api, queues):
    """Seconds until all are answered. A gateway's batches go one after another, gateways side by side."""
    waiting, lock, faults = list(queues), threading.Lock(), []

    def work(line):
        try:
            while True:
                with lock:
                    if not waiting:
                        return
                    queue = waiting.pop()
                for request in queue:
                    line.exchange(request)
        except Exception as fault:  # it is raised again below, where the main thread sees it
            faults.append(fault)

    lines = [Line(api) for _ in range(min(LINES, len(queues)))]
    threads = [threading.Thread(target=work, args=(line,)) for line in lines]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    return time.monotonic() - begun


def copy_again(api):
    """Takes all rows out of the table, and puts them in again by COPY; returns its seconds."""
    rows = io.StringIO()
    with api.db.cursor() as cursor:
        cursor.copy_expert("COPY (SELECT * FROM billing.usage_record) TO STDOUT", rows)
        cursor.execute("TRUNCATE billing.usage_record")
        rows.seek(0)
        begun = time.monotonic()
        cursor.copy_expert("COPY billing.usage_record FROM STDIN", rows)
        return time.monotonic() - begun


def checkpoint(api):
    """So that what comes next begins with nothing left to write."""
    superuser = api.postgres.connect("postgres")
    superuser.autocommit = True
    superuser.cursor().execute("CHECKPOINT")
    superuser.close()


def measure(api, shape):
    """(rows a second of the API, of COPY)."""
    gateways, batches, peers, samples = SHAPES[shape]
    rows = gateways * batches * peers * samples
    world, queues, told = make_requests(api, shape)
    api.sql("TRUNCATE billing.usage_record")
    checkpoint(api)
    taken = send_all(api, queues)
    [[stored, billed, rolled]] = api.sql(
        "SELECT count(*), sum(d_up + d_down), (SELECT sum(up + down) FROM billing.usage_hour WHERE owner = %s)"
        " FROM billing.usage_record", world.user)
    assert (stored, billed, rolled) == (rows, told, told), f"{rows} rows and {told} bytes: {stored}, {billed}, {rolled}"
    checkpoint(api)
    return rows / taken, rows / copy_again(api)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=list(SHAPES))
    arguments = parser.parse_args()
    results = {shape: ([], []) for shape in arguments.shapes}
    with whole_api() as api:
        for _ in range(arguments.rounds):
            for shape in arguments.shapes:
                for values, value in zip(results[shape], measure(api, shape)):
                    values.append(round(value, 1))
    for shape, (ours, copy) in results.items():
        print(json.dumps({"series": f"ingest/{shape}/api", "unit": "1/s", "values": ours}))
        print(json.dumps({"series": f"ingest/{shape}/copy", "unit": "1/s", "values": copy}))


if __name__ == "__main__":
    main()
