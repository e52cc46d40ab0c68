# SPDX-License-Identifier: BSD-2-Clause
"""Base hours and bandwidth (B1, B2), against models of Fractions."""

import random
from datetime import datetime, timedelta, timezone
from fractions import Fraction

import pytest

from billing_model import GB, SECOND, at_once, base_hours, floor18, hour_price, month_of, past_hours
from simulated_agent import HOUR, MICROSECOND, Agent, World, active_agent, cycle_of, hour_of, now, split


# ---- base hours (B1) ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("month", [(2023, 2), (2024, 2), (2023, 4), (2024, 3), (2024, 10), (2023, 12)])
def test_a_whole_month_pays_the_credit_value(api, month):  # I17
    begin, hours = month_of(datetime(*month, 1, tzinfo=timezone.utc))
    rng = random.Random(month[0] * 12 + month[1])
    values = ["0", "0.000000001", "1", "7.2", "99999999999.999999999"] + [f"{rng.randint(0, 10**18)}e-9" for _ in range(10)]
    for value in values:
        prices = [Fraction(row[0]) for row in api.sql(
            "SELECT billing.hour_price(%s, k, %s)::text FROM generate_series(1, %s) k ORDER BY k", value, hours, hours)]
        assert sum(prices) == Fraction(value)
        assert prices == [hour_price(Fraction(value), begin + k * HOUR) for k in range(hours)]
        assert set(prices) <= {floor18(Fraction(value) / hours), floor18(Fraction(value) / hours) + Fraction(1, 10**18)}


def post_base(api, gateway):
    """As a report's transaction does."""
    api.sql("SELECT billing.post_base(%s, g.id) FROM (SELECT id FROM gateway.gateway WHERE id = %s FOR UPDATE) g",
            gateway.owner, gateway.id)


def add_intervals(api, gateway, intervals, state="active"):
    for begin, end in intervals:
        api.sql("INSERT INTO billing.active_interval (owner, gateway, span, state) VALUES (%s, %s, tstzrange(%s, %s), %s)",
                gateway.owner, gateway.id, begin, end, state)


@pytest.mark.parametrize("year, month, offset", [(2023, 2, 0), (2024, 2, 1799.25), (2023, 4, 3599.999999), (2024, 3, 60), (2024, 10, 1.5)])
def test_a_gateway_alive_all_month_is_billed_the_credit_value(api, year, month, offset):  # I17, R3
    begin, hours = month_of(datetime(year, month, 1, tzinfo=timezone.utc))
    start = begin - 3 * HOUR + timedelta(seconds=offset)
    world = World(api, since=begin - 9 * HOUR, credit_value="12.345678901")
    gateway = world.gateway(created=start)
    add_intervals(api, gateway, [(start, begin + (hours + 3) * HOUR)])
    post_base(api, gateway)
    lines = [line for line in gateway.ledger("base") if cycle_of(line[0]) == year * 100 + month]
    assert len(lines) == hours
    assert sum(Fraction(line[3]) for line in lines) == Fraction("12.345678901")


@pytest.mark.parametrize("seed", range(8))
def test_hours_are_those_of_the_model_whoever_posts_them(api, seed):  # I18
    rng = random.Random(seed)
    origin = datetime(*rng.choice([(2024, 2, 28), (2023, 12, 31), (2024, 3, 31), (2024, 10, 26)]), 7, tzinfo=timezone.utc)
    world = World(api, since=origin - HOUR, credit_value="3.333333333")
    gateway = world.gateway(created=origin, plan_price=rng.choice([None, "5.000000007"]))
    at, active, suspended = origin, [], []
    for _ in range(40):
        begin = at + timedelta(microseconds=rng.choice((0, rng.randint(0, 10**7), rng.randint(0, 10**10))))
        at = begin + timedelta(microseconds=rng.choice((1, rng.randint(1, 10**8), rng.randint(1, 2 * 10**10))))
        (active if rng.random() < 0.7 else suspended).append((begin, at))
    add_intervals(api, gateway, suspended, "suspended")
    for i in range(0, len(active), 5):
        add_intervals(api, gateway, active[i:i + 5])
        at_once(*[lambda: run_alone(api, gateway)] * 4)
    expected = base_hours(active)
    value = Fraction(api.sql("SELECT coalesce(p.credit_value, 3.333333333)::text FROM gateway.gateway g JOIN gateway.plan p ON p.id = g.plan"
                             " WHERE g.id = %s", gateway.id)[0][0])
    assert [(line[0], line[1], Fraction(line[3]), line[4], line[5]) for line in gateway.ledger("base")] == [
        (hour_of(begin), 1, hour_price(value, begin), begin, begin + HOUR) for begin in expected]


def run_alone(api, gateway):
    """Posting with no lock but the constraint's."""
    connection = api.postgres.connect("wiretoll_api")
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT billing.post_base(%s, %s)", (gateway.owner, gateway.id))
    connection.close()


def test_two_minutes_of_life_are_one_hour(api):
    agent = active_agent(World(api), since=now() - 119 * SECOND)
    assert len(agent.gateway.ledger("base")) == 1  # at once
    begin = agent.active_since
    for i in range(12):
        agent.report(covered=(begin + i * 9 * SECOND, begin + (i + 1) * 9 * SECOND),
                     states=[(begin + i * 9 * SECOND, begin + (i + 1) * 9 * SECOND, "active")])
    agent.gateway.complete_delete()
    agent.gateway.complete_delete()
    [[hour, part, _, amount, begins, ends]] = agent.gateway.ledger("base")
    assert (hour, part, begins, ends) == (hour_of(begin), 1, begin, begin + HOUR)
    assert Fraction(amount) == hour_price(Fraction("7.2"), begin)


def test_a_first_report_that_covers_nothing_yet_posts_the_hour(api):
    agent = Agent(World(api).gateway())
    agent.active_since = now()
    agent.report(covered=(agent.active_since, agent.active_since))
    assert len(agent.gateway.ledger("base")) == 1


def test_late_reports_post_late_and_gaps_never(api):
    begin = now() - 10 * HOUR - timedelta(minutes=1)
    agent = active_agent(World(api), since=begin)

    def cover(first, last, state="active"):
        agent.report(covered=(begin + first, begin + last), states=[(begin + first, begin + last, state)])

    def hours():
        return [(line[4] - begin) / HOUR for line in agent.gateway.ledger("base")]

    cover(0 * HOUR, 0.5 * HOUR)
    assert hours() == [0]
    cover(0.5 * HOUR, 2.5 * HOUR)
    assert hours() == [0, 1, 2]
    cover(4.25 * HOUR, 4.5 * HOUR)  # nothing was reported from 2.5 to 4.25
    assert hours() == [0, 1, 2, 4.25]
    cover(4.5 * HOUR, 6 * HOUR, "suspended")
    assert hours() == [0, 1, 2, 4.25]
    cover(6 * HOUR, 6.1 * HOUR)
    assert hours() == [0, 1, 2, 4.25, 6]
    agent.report(covered=(begin + 6.1 * HOUR, begin + 6.4 * HOUR),  # suspend and resume within an hour
                 states=[(begin + 6.1 * HOUR, begin + 6.2 * HOUR, "suspended"), (begin + 6.2 * HOUR, begin + 6.4 * HOUR, "active")])
    assert hours() == [0, 1, 2, 4.25, 6]
    assert api.sql("SELECT count(*) FROM billing.active_interval WHERE gateway = %s", agent.gateway.id) == [(6,)]


def test_states_from_the_future_bill_nothing(api):
    agent = active_agent(World(api))
    agent.report(covered=(now(), now()), states=[(now(), now() + 500 * HOUR, "active")])
    assert len(agent.gateway.ledger("base")) == 1


def test_a_clock_that_steps_back_costs_nothing(api):  # I12
    begin = now() - 3 * HOUR
    agent = active_agent(World(api), since=begin)
    peer = agent.gateway.peer()
    agent.report(covered=(begin, begin + 0.9 * HOUR), states=[(begin, begin + 0.9 * HOUR, "active")])
    agent.report([agent.grow(1, peer, begin, upload_bytes=5)], covered=(begin + 0.9 * HOUR, begin + 0.2 * HOUR),
                 states=[(begin + 0.9 * HOUR, begin + 0.2 * HOUR, "active"), (begin + 0.1 * HOUR, begin + 0.95 * HOUR, "suspended"),
                         (begin + 0.5 * HOUR, begin + 1.1 * HOUR, "active")])
    assert [line[4] for line in agent.gateway.ledger("base")] == [begin, begin + HOUR]
    assert api.sql("SELECT lower(span), upper(span), state FROM billing.active_interval WHERE gateway = %s ORDER BY span", agent.gateway.id) == [
        (begin, begin + 0.9 * HOUR, "active"), (begin + 0.9 * HOUR, begin + 0.95 * HOUR, "suspended"),
        (begin + 0.95 * HOUR, begin + 1.1 * HOUR, "active")]
    assert agent.gateway.used() == 5
    assert agent.gateway.row("complete_through") == begin + 0.9 * HOUR


@pytest.mark.parametrize("status", ["deploying", "error"])
def test_deploying_and_error_begin_no_hour(api, status):
    agent = Agent(World(api).gateway())
    api.sql("UPDATE gateway.gateway SET status = %s WHERE id = %s", status, agent.gateway.id)
    agent.report(covered=(now() - HOUR, now()), states=[(now() - HOUR, now(), "active")])
    assert agent.gateway.ledger("base") == []


# ---- bandwidth (B2) -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("seed", range(4))
def test_the_example_of_the_allowance(api, seed):  # B2, I19
    rng = random.Random(seed)
    agent = active_agent(World(api, rate="0.10"), included_gb="10")
    peer, gateway = agent.gateway.peer(), agent.gateway

    def pass_gb(amount):
        for part in split(amount * GB, rng.randint(1, 6), rng):
            up = rng.randint(0, part)
            agent.report([agent.grow(1, peer, now(), upload_bytes=up, download_bytes=part - up)])

    def fee():
        [[amount]] = api.sql("SELECT coalesce(sum(o.bytes * v.bandwidth_rate * 0.000000001), 0)::text FROM billing.overage_hour o"
                             " JOIN gateway.rate_version v ON v.id = o.rate_version WHERE o.gateway = %s", gateway.id)
        return Fraction(amount)

    pass_gb(10)
    assert fee() == 0
    pass_gb(5)
    assert fee() == Fraction("0.50")
    api.sql("UPDATE billing.bucket SET allowance = %s WHERE id = %s", 100 * GB, gateway.bucket)
    pass_gb(88)
    assert fee() == Fraction("0.50")
    pass_gb(3)
    assert fee() == Fraction("0.60")
    gateway.complete_delete()
    assert sum(Fraction(line[3]) for line in gateway.ledger("bandwidth")) == Fraction("0.60")


@pytest.mark.parametrize("policy", ["none", "revoke_access"])
def test_only_charge_overage_charges(api, policy):
    agent = active_agent(World(api, overage=policy), included_gb="0.000000001")
    agent.report([agent.grow(1, agent.gateway.peer(), now(), upload_bytes=GB)])
    assert agent.gateway.bucket_row("used, charged") == (GB, GB - 1)
    agent.gateway.complete_delete()
    assert agent.gateway.ledger("bandwidth") == []


def test_unlimited_charges_nothing(api):
    agent = active_agent(World(api), included_gb=None)
    agent.report([agent.grow(1, agent.gateway.peer(), now(), upload_bytes=GB)])
    assert agent.gateway.bucket_row("used, charged") == (GB, 0)
    assert agent.gateway.actions() == []


def test_an_hour_is_posted_when_complete_and_later_bytes_are_a_further_part(api):
    hour = past_hours(1)[0]
    agent = active_agent(World(api, rate="123456789.123456789"), since=hour, included_gb="0")
    peer = agent.gateway.peer()
    agent.report([agent.grow(1, peer, hour, upload_bytes=999)], covered=(hour, hour + HOUR - MICROSECOND))
    assert agent.gateway.ledger("bandwidth") == []
    agent.report(covered=(hour, hour + HOUR))
    agent.report([agent.grow(1, peer, hour, upload_bytes=1)], covered=(hour + HOUR, hour + HOUR))
    agent.report(covered=(hour + HOUR, hour + HOUR))
    assert [(line[:3], Fraction(line[3])) for line in agent.gateway.ledger("bandwidth")] == [
        ((hour, 1, 999), Fraction("123456789.123456789") * 999 / GB), ((hour, 2, 1), Fraction("123456789.123456789") / GB)]


def test_bytes_given_back_after_they_were_charged_are_free_later(api):
    agent = active_agent(World(api), included_gb="0")
    peer = agent.gateway.peer()
    agent.report([agent.grow(1, peer, now(), download_bytes=1000)])
    agent.report([agent.grow(1, peer, now(), undelivered_bytes=300)])
    agent.report([agent.grow(1, peer, now(), download_bytes=200)])
    assert agent.gateway.bucket_row("used, charged") == (900, 1000)
    agent.report([agent.grow(1, peer, now(), download_bytes=101)])
    assert agent.gateway.bucket_row("used, charged") == (1001, 1001)


def test_the_mask_says_what_counts(api):
    for mask, used in (("uploads", 5), ("downloads", 40), ("both", 45)):
        agent = active_agent(World(api, accounting=mask), mask=mask)
        agent.report([agent.grow(1, agent.gateway.peer(), now(), upload_bytes=5, download_bytes=70, undelivered_bytes=30)])
        assert agent.gateway.bucket_row("used") == used
