# SPDX-License-Identifier: BSD-2-Clause
"""How long the API takes to tell one gateway's usage of this cycle by hour, with much history of all gateways in the table.
Prints its samples as lines of JSON.
"""

import argparse
import json
import random
import statistics
import time

from store import Line, whole_api  # first: it finds the modules of the tests
from crowd import make_agents
from simulated_agent import now, text_of

PEERS = 20
HOURS = 365 * 24
ROWS = PEERS * HOURS  # of a gateway


def fill(api, world, agents):
    """A year of each gateway's peers, hour by hour."""
    begin = now().replace(minute=0, second=0, microsecond=0)
    for agent in agents:
        api.sql("INSERT INTO billing.usage_hour (owner, gateway, hour, peer, up, down, up_packets, down_packets, undelivered, refused)"
                " SELECT %s, %s, %s - i * interval '1 hour', p, i, 2 * i, 1, 1, 0, 0"
                " FROM generate_series(1, %s) i, unnest(%s::uuid[]) p",
                world.user, agent.gateway.id, begin, HOURS, agent.peers)
    api.sql("VACUUM ANALYZE billing.usage_hour")


def ask(line, token, gateway, begin):
    """Milliseconds of all pages, and how many items they had."""
    begun, after, items = time.monotonic(), "", 0
    while after is not None:
        path = f"/v1/gateways/{gateway}/usage?interval=hour&by=gateway&from={begin}&limit=200" + (f"&after={after}" if after else "")
        page = json.loads(line.exchange(
            f"GET {path} HTTP/1.1\r\nHost: wiretoll-api\r\nAuthorization: Bearer {token}\r\n\r\n".encode()))
        items, after = items + len(page["items"]), page["next"]
    return (time.monotonic() - begun) * 1000, items


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--questions", type=int, default=60)
    arguments = parser.parse_args()
    chance = random.Random(1)
    month = now().replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    hours = round((now().replace(minute=0, second=0, microsecond=0) - month).total_seconds() / 3600)
    with whole_api() as api:
        world, agents = make_agents(api, max(round(arguments.rows / ROWS), 2), PEERS)
        fill(api, world, agents)
        [[rows]] = api.sql("SELECT count(*) FROM billing.usage_hour")
        line, token, times = Line(api), world.token(), []
        for _ in range(arguments.questions):
            taken, items = ask(line, token, chance.choice(agents).gateway.id, text_of(month).replace("+", "%2B"))
            assert items == hours, f"{items} hours of {hours}"
            times.append(taken)
    for name, unit, values in (("rows", "rows", [rows]), ("milliseconds", "ms", times),
                               ("slowest", "ms", [statistics.quantiles(times, n=100, method="inclusive")[98]])):
        print(json.dumps({"series": f"query/{name}", "unit": unit, "values": values}))


if __name__ == "__main__":
    main()
