# SPDX-License-Identifier: BSD-2-Clause
"""What comes after an hour or a cycle is closed (B9), and what is given back at its end, against Fractions."""

import random
from datetime import datetime, timezone
from fractions import Fraction

import psycopg2
import pytest

from billing_model import GB, hour_price, wait
from simulated_agent import HOUR, MICROSECOND, World, active_agent, cycle_of, now

MONTHS = iter((2021, month) for month in range(1, 13))


def lines(gateway, condition="true"):
    return gateway.api.sql("SELECT kind, adjusts, cycle, utc_hour, bytes, rate::text, amount::text, lower(span) FROM billing.ledger"
                           f" WHERE gateway = %s AND {condition} ORDER BY utc_hour, kind, part", gateway.id)


def old_month():
    """A month of its own for a test, long past: the clock makes it final once it is closing."""
    return datetime(*next(MONTHS), 10, tzinfo=timezone.utc)


def close(api, begin):
    [[state]] = api.sql("UPDATE billing.cycle SET state = 'closing' WHERE id = %s RETURNING state", cycle_of(begin))
    wait(lambda: api.sql("SELECT state FROM billing.cycle WHERE id = %s", cycle_of(begin)) == [("final",)])


def test_bytes_after_final_are_adjustments_by_the_old_rules(api):
    begin = old_month()
    world = World(api, since=begin - HOUR, rate="3.000000007")
    world.rate_version(begin + 40 * HOUR, "charge_overage", rate="500")
    agent = active_agent(world, since=now(), included_gb="0", created=begin)
    gateway, peer = agent.gateway, agent.gateway.peer()
    agent.report([agent.grow(1, peer, begin, upload_bytes=11)], covered=(begin, begin + 2 * HOUR))
    closed = lines(gateway, "kind <> 'base'")
    assert [(line[0], line[2], line[4]) for line in closed] == [("bandwidth", cycle_of(begin), 11)]
    close(api, begin)
    agent.report([agent.grow(1, peer, begin, upload_bytes=7), agent.grow(1, peer, begin + HOUR, upload_bytes=13)])
    agent.report([agent.grow(1, peer, begin, upload_bytes=1)])
    written = lines(gateway, "kind <> 'base'")
    assert [line for line in written if line[2] == cycle_of(begin)] == closed
    later = [line for line in written if line[2] != cycle_of(begin)]
    assert {line[2] for line in later} <= {row[0] for row in api.sql("SELECT id FROM billing.cycle WHERE state <> 'final'")}
    assert [(line[0], line[1], line[3], line[4], Fraction(line[6])) for line in later] == [
        ("adjust", "bandwidth", hour, size, Fraction("3.000000007") * size / GB) for hour, size in ((begin, 7), (begin, 1), (begin + HOUR, 13))]
    month = f"{later[0][2] // 100}-{later[0][2] % 100:02}"
    report = world.get(f"/v1/users/{world.user}/report?cycle={month}")["gateways"][0]
    assert Fraction(report["adjustment_credits"]) == Fraction("3.000000007") * 21 / GB
    assert Fraction(report["total_credits"]) == sum(Fraction(line[6]) for line in lines(gateway) if line[2] == later[0][2])


def test_an_hour_reported_after_final_is_an_adjustment_once(api):
    begin = old_month()
    world = World(api, since=begin - HOUR, credit_value="7.000000003")
    agent = active_agent(world, since=now(), created=begin)
    gateway = agent.gateway
    agent.report(covered=(begin, begin + HOUR))
    api.sql("SELECT billing.ensure_cycle(%s)", begin)
    api.sql("DELETE FROM billing.ledger WHERE gateway = %s", gateway.id)
    api.sql("DELETE FROM billing.active_interval WHERE gateway = %s", gateway.id)
    close(api, begin)
    start = begin + 17 * MICROSECOND
    for _ in range(2):
        agent.report(covered=(begin, begin + 2 * HOUR), states=[(start, start + HOUR + MICROSECOND, "active")])
    assert [(line[0], line[1], line[2] > cycle_of(begin), Fraction(line[6]), line[7]) for line in lines(gateway)] == [
        ("adjust", "base", True, hour_price(Fraction("7.000000003"), at), at) for at in (start, start + HOUR)]


class Model:
    """Step by step, in whole bytes: used, charged, what is to be given back, and fees by hour."""

    def __init__(self, limit):
        self.limit, self.used, self.charged, self.refundable = limit, 0, 0, 0
        self.hours = {}

    def over(self):
        return max(0, self.used - self.limit)

    def step(self, hour, grown, policy):
        before = self.over()
        self.used += grown
        rise = max(0, self.over() - self.charged)
        self.charged += rise
        if rise and policy == "charge_overage":
            self.hours[hour] = self.hours.get(hour, 0) + rise
        if policy == "charge_overage":
            self.refundable += max(0, before - self.over())
        self.refundable = min(self.refundable, self.charged - self.over())

    def refunds(self):
        rest, found = self.refundable, []
        for hour in sorted(self.hours, reverse=True):
            part = min(rest, self.hours[hour])
            rest -= part
            if part:
                found.append((hour, part))
        return sorted(found)


@pytest.mark.parametrize("seed", range(6))
def test_what_was_charged_and_not_delivered_is_given_back_at_the_close(api, seed):  # part I, 7
    rng = random.Random(seed)
    begin = old_month()
    rates = ["2", "0.000000001", "77.7", "13", "5", "1"]
    world = World(api, since=begin - HOUR, rate="1")
    versions = {}
    for i, rate in enumerate(rates):
        versions[begin + i * HOUR] = ("none" if seed >= 4 and i % 3 == 1 else "charge_overage", Fraction(rate))
        world.rate_version(begin + i * HOUR, versions[begin + i * HOUR][0], rate=rate)
    agent = active_agent(world, since=now(), included_gb="0.000001", created=begin)
    gateway, peer, model = agent.gateway, agent.gateway.peer(), Model(1000)
    delivered = 0
    for hour in sorted(versions):
        for _ in range(rng.randint(1, 5)):
            down, back = rng.randint(0, 900), rng.randint(0, min(delivered, 500)) if rng.random() < 0.6 else 0
            delivered += down - back
            agent.report([agent.grow(1, peer, hour, download_bytes=down, undelivered_bytes=back)], covered=(begin, hour))
            model.step(hour, down - back, versions[hour][0])
    assert gateway.api.sql("SELECT used, charged, refundable FROM billing.bucket WHERE holder = %s AND cycle = %s", gateway.id, cycle_of(begin)) == [
        (model.used, model.charged, model.refundable)]
    agent.report(covered=(begin, begin + 6 * HOUR))
    close(api, begin)
    written = [line for line in lines(gateway) if line[2] == cycle_of(begin)]
    assert [(line[3], line[4], Fraction(line[6])) for line in written if line[1] == "undelivered"] == [
        (hour, size, -versions[hour][1] * size / GB) for hour, size in model.refunds()]
    assert sum(Fraction(line[6]) for line in written if line[0] == "bandwidth") == sum(
        versions[hour][1] * size / GB for hour, size in model.hours.items())
    # What is used after that is charged again, in a cycle that is open.
    again = sum(size for _, size in model.refunds())
    agent.report([agent.grow(1, peer, begin + 5 * HOUR, download_bytes=again + 9)])
    model.step(begin + 5 * HOUR, again + 9, versions[begin + 5 * HOUR][0])
    charged = sum(line[4] for line in lines(gateway) if line[0] == "bandwidth" or line[1] == "bandwidth")
    refunded = sum(line[4] for line in lines(gateway) if line[1] == "undelivered")
    if seed < 4:  # no hour under none, in which charged rises without a fee
        assert charged - refunded == model.over()


def test_what_is_found_undelivered_after_final_is_given_back_in_an_open_cycle(api):
    begin = old_month()
    agent = active_agent(World(api, since=begin - HOUR, rate="4"), since=now(), included_gb="0", created=begin)
    gateway, peer = agent.gateway, agent.gateway.peer()
    agent.report([agent.grow(1, peer, begin, download_bytes=100)], covered=(begin, begin + HOUR))
    close(api, begin)
    agent.report([agent.grow(1, peer, begin, undelivered_bytes=30)])
    wait(lambda: lines(gateway, "adjusts = 'undelivered'"))
    [line] = lines(gateway, "adjusts = 'undelivered'")
    assert line[2] > cycle_of(begin) and line[3:5] == (begin, 30) and Fraction(line[6]) == -Fraction(4) * 30 / GB


def test_a_line_that_is_written_stays(api):
    agent = active_agent(World(api))
    assert agent.gateway.ledger("base")
    for statement in ("UPDATE billing.ledger SET amount = 0", "UPDATE billing.ledger SET cycle = 202001", "DELETE FROM billing.ledger",
                      "TRUNCATE billing.ledger"):
        with api.postgres.connect("wiretoll_api") as connection, connection.cursor() as cursor:
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cursor.execute(statement)
        connection.close()
