# SPDX-License-Identifier: BSD-2-Clause
"""What usage and money must come to: dicts and Fractions that share no code with the database; and random traffic."""

import calendar
import math
import threading
import time
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from fractions import Fraction

from simulated_agent import HOUR, MICROSECOND, cycle_of, hour_of, now

GB = 10**9
SECOND = timedelta(seconds=1)


def wait(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.03)


def at_once(*functions):
    """Their results, run in threads of their own."""
    results, failures, barrier = [None] * len(functions), [], threading.Barrier(len(functions))

    def run(i):
        barrier.wait()
        try:
            results[i] = functions[i]()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert not any(thread.is_alive() for thread in threads), "they do not end"
    if failures:
        raise failures[0]
    return results


def complete_elsewhere(api, gateway):
    connection = api.postgres.connect()
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT gateway.complete_delete(%s)", (gateway.id,))
    connection.close()


def floor18(value):
    return Fraction(math.floor(value * 10**18), 10**18)


def month_of(instant):
    """Its beginning and its hours."""
    begin = datetime(instant.year, instant.month, 1, tzinfo=timezone.utc)
    return begin, 24 * calendar.monthrange(instant.year, instant.month)[1]


def hour_price(value, instant):
    begin, hours = month_of(instant)
    k = (instant - begin) // HOUR + 1
    return floor18(value * k / hours) - floor18(value * (k - 1) / hours)


def base_hours(active):
    """When billed hours begin, by the intervals reported active."""
    hours, free_from = [], None
    for begin, end in sorted(active):
        at = max(begin, free_from) if free_from else begin
        while at < end:
            hours.append(at)
            free_from = at + HOUR
            at = free_from
    return hours


def overage(hourly, limit, versions):
    """Fees by hour: bytes counted in each hour, the allowance of a cycle, and (policy, rate) of each hour.

    What a limit let pass is of the cycle of the grant, which is this month's, and all else of the cycle of its hour.
    """
    used, charged, fees = defaultdict(int), defaultdict(int), {}
    for hour in sorted(hourly):
        cycle = cycle_of(now() if versions[hour][0] == "revoke_access" else hour)
        used[cycle] += hourly[hour]
        over = max(0, used[cycle] - limit - charged[cycle])
        charged[cycle] += over
        policy, rate = versions[hour]
        if over and policy == "charge_overage":
            fees[hour] = over * Fraction(rate) / GB
    return used, charged, fees


def sums(lines):
    total = defaultdict(Fraction)
    for hour, _, _, amount, _, _ in lines:
        total[hour] += Fraction(amount)
    return dict(total)


def past_hours(n):
    this = hour_of(now())
    return [this - i * HOUR for i in range(n, 0, -1)]


class Traffic:
    """Random batches of an agent over some hours, with what they add up to."""

    def __init__(self, agent, hours, rng, batches=25, masks=None):
        self.agent, self.rng = agent, rng
        self.peers = {slot: agent.gateway.peer() for slot in (1, 2, 3)}
        self.hourly = defaultdict(int)  # counted
        self.usage = defaultdict(lambda: [0, 0])  # (peer, hour): up, down
        self.bodies = []
        masks = masks or {}
        spots = sorted(rng.choice(hours) for _ in range(batches))
        before = hours[0]
        for hour in spots:
            records = []
            for part in sorted({before, hour} if rng.random() < 0.5 else {hour}):
                agent.mask = masks.get(part, "both")
                for slot in rng.sample((0, 1, 2, 3), rng.randint(0, 4)):
                    records.append(self.record(slot, part))
            begin = max(before, agent.active_since)
            self.bodies.append(agent.batch(records, covered=(begin, hour + HOUR - MICROSECOND)))
            before = hour
        self.bodies.append(agent.batch(covered=(before, hours[-1] + HOUR)))

    def record(self, slot, hour):
        up, down = (self.rng.choice((0, 1, self.rng.randint(0, 3 * GB))) for _ in range(2))
        peer = self.peers.get(slot)
        counted = self.agent.counted
        record = self.agent.grow(slot, peer, hour, upload_bytes=up, download_bytes=down)
        self.hourly[hour] += self.agent.counted - counted
        self.usage[peer, hour][0] += up
        self.usage[peer, hour][1] += down
        return record

    def deliver(self):
        """In any order and any number of times; a batch is taken when it is the next one."""
        taken = 0
        first = self.bodies[0]["seq"]
        while taken < len(self.bodies):
            i = self.rng.choice((taken, self.rng.randrange(len(self.bodies))))
            status, answer = self.agent.send(self.bodies[i])
            if i > taken:
                assert (status, answer["reason"], answer["held_seq"]) == (409, "gap", first + taken - 1)
                continue
            taken += i == taken
            assert (status, answer["held_seq"]) == (200, first + taken - 1)


def stored_usage(gateway):
    rows = gateway.api.sql("SELECT nullif(peer, '00000000-0000-0000-0000-000000000000')::text, hour, up, down FROM billing.usage_hour"
                           " WHERE owner = %s AND gateway = %s AND up + down > 0", gateway.owner, gateway.id)
    return {(peer, hour): [up, down] for peer, hour, up, down in rows}
