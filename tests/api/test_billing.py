# SPDX-License-Identifier: BSD-2-Clause
"""Usage and money: what the database makes of reports, against models of plain dicts and Fractions that share no code with it."""

import calendar
import csv
import io
import math
import random
import threading
import time
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from fractions import Fraction

import pytest
from psycopg2 import errors

from simulated_agent import HOUR, MICROSECOND, Agent, Gateway, World, active_agent, cycle_of, hour_of, now, split, text_of

GB = 10**9
SECOND = timedelta(seconds=1)


def wait(condition, seconds=15):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.03)


# ---- the model --------------------------------------------------------------------------------------------------

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
    """Fees by hour: bytes counted in each hour, the allowance of a cycle, and (policy, rate) of each hour."""
    used, charged, fees = defaultdict(int), defaultdict(int), {}
    for hour in sorted(hourly):
        cycle = cycle_of(hour)
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


# ---- batches ----------------------------------------------------------------------------------------------------

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


def past_hours(n):
    return [hour_of(now()) - i * HOUR for i in range(n, 0, -1)]


@pytest.mark.parametrize("seed", range(6))
def test_any_delivery_gives_the_same_totals_and_fees(api, seed):  # I1, I7, I19
    rng = random.Random(seed)
    hours = past_hours(8)
    world = World(api)
    masks, versions = {}, {}
    for hour in hours:
        masks[hour] = rng.choice(("both", "uploads", "downloads"))
        versions[hour] = (rng.choice(("charge_overage", "charge_overage", "none", "revoke_access")),
                          f"{rng.randint(0, 10**12)}e-9")
        world.rate_version(hour, versions[hour][0], masks[hour], versions[hour][1])
    limit = rng.randint(0, 20 * GB)
    agent = active_agent(world, since=hours[0], included_gb=f"{limit // GB}.{limit % GB:09d}")
    traffic = Traffic(agent, hours, rng, masks=masks)
    if rng.random() < 0.5:
        for body in traffic.bodies:
            rng.shuffle(body["records"])
    traffic.deliver()

    expected = {key: value for key, value in traffic.usage.items() if any(value)}
    assert stored_usage(agent.gateway) == expected
    [[up, down]] = api.sql("SELECT sum(d_up), sum(d_down) FROM billing.usage_record WHERE gateway = %s", agent.gateway.id)
    assert [up, down] == [sum(value[i] for value in expected.values()) for i in (0, 1)]  # conservation, slot 0 included
    [[up, down]] = api.sql("SELECT sum(up), sum(down) FROM billing.counter WHERE epoch = %s", agent.epoch)
    assert [up, down] == [sum(totals[field] for totals in agent.totals.values()) for field in ("upload_bytes", "download_bytes")]

    used, charged, fees = overage(traffic.hourly, limit, versions)
    rows = api.sql("SELECT cycle, used, charged FROM billing.bucket WHERE holder = %s AND used > 0", agent.gateway.id)
    assert {cycle: (used, charged) for cycle, used, charged in rows} == {c: (used[c], charged[c]) for c in used if used[c]}
    assert sums(agent.gateway.ledger("bandwidth")) == fees


def test_a_batch_that_subsumes_others_gives_the_same_totals(api):  # I7
    world, hour = World(api), past_hours(1)[0]
    many, one = (active_agent(world, since=hour) for _ in range(2))
    for agent, steps in ((many, [1, 2, 3]), (one, [6])):
        peer = agent.gateway.peer()
        for step in steps:
            agent.report([agent.grow(1, peer, hour, upload_bytes=step, download_bytes=10 * step)])
    assert [list(stored_usage(agent.gateway).values()) for agent in (many, one)] == [[[6, 60]]] * 2


def test_hours_outside_the_gateways_life_are_put_to_its_ends(api):
    world = World(api)
    agent = active_agent(world, since=None, created=hour_of(now()) - 2 * HOUR)
    peer = agent.gateway.peer()
    agent.report([agent.grow(1, peer, now() - 900 * HOUR, upload_bytes=1), agent.grow(1, peer, now() - 800 * HOUR, upload_bytes=2),
                  agent.grow(1, peer, now() + 900 * HOUR, upload_bytes=4)])
    assert stored_usage(agent.gateway) == {(peer, hour_of(now()) - 2 * HOUR): [3, 0], (peer, hour_of(now())): [4, 0]}


def test_what_belongs_to_no_peer_is_kept_and_never_billed(api):
    agent = active_agent(World(api), included_gb="0")
    agent.report([agent.grow(0, None, now(), upload_bytes=5 * GB, download_bytes=GB)])
    assert agent.gateway.bucket_row("used, charged") == (0, 0)
    assert stored_usage(agent.gateway) == {(None, hour_of(now())): [5 * GB, GB]}
    agent.gateway.complete_delete()
    assert agent.gateway.ledger("bandwidth") == []


def test_epochs_follow_each_other(api):
    agent = active_agent(World(api))
    peer = agent.gateway.peer()
    old = agent.batch([agent.grow(1, peer, now(), upload_bytes=100)], final=True)
    assert agent.send(old)[0] == 200
    agent.new_epoch()
    agent.report([agent.grow(1, peer, now(), upload_bytes=30)])
    assert agent.send(old)[0] == 200
    agent.report([agent.grow(1, peer, now(), incarnation=2, upload_bytes=4)])
    assert agent.gateway.bucket_row("used") == 134
    assert stored_usage(agent.gateway)[peer, hour_of(now())] == [134, 0]


def test_a_deployment_anew_goes_on_with_the_bucket(api):
    old = active_agent(World(api))
    peer = old.gateway.peer()
    old.report([old.grow(1, peer, now(), upload_bytes=100)])
    api.sql("UPDATE gateway.gateway SET attempt = 2, status = 'deploying', active_since = NULL WHERE id = %s", old.gateway.id)
    new = Agent(old.gateway, attempt=2)
    new.activate()
    assert old.send(old.batch([old.grow(1, peer, now(), upload_bytes=7)]))[0] in (401, 410)
    new.report([new.grow(1, peer, now(), upload_bytes=3)])
    assert old.gateway.bucket_row("used") == 103
    assert len(old.gateway.ledger("base")) == 1  # the hour that had begun goes on


def test_the_same_report_twice_at_once(api):
    for _ in range(5):
        agent = active_agent(World(api))
        body = agent.batch([agent.grow(1, agent.gateway.peer(), now(), upload_bytes=100)])
        answers = at_once(lambda: agent.send(body), lambda: agent.send(body), lambda: agent.send(body))
        assert [status for status, _ in answers] == [200] * 3
        assert agent.gateway.bucket_row("used") == 100


def test_two_reports_of_one_gateway_at_once(api):  # I10
    for _ in range(5):
        agent = active_agent(World(api))
        peer = agent.gateway.peer()
        one = agent.batch([agent.grow(1, peer, now(), upload_bytes=100)])
        other = {**one, "counted": "7", "records": [{**one["records"][0], "upload_bytes": "7"}]}
        other["grant"] = {**one["grant"], "cycle_counted": "7"}
        answers = at_once(lambda: agent.send(one), lambda: agent.send(other))
        assert sorted(status for status, _ in answers) == [200, 409]
        assert agent.gateway.bucket_row("used") == (100 if answers[0][0] == 200 else 7)


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
        thread.join(60)
    if failures:
        raise failures[0]
    return results


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
    assert agent.gateway.bucket_row("used") == 5
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


# ---- actions and suspension (B4, B5) ----------------------------------------------------------------------------------

def test_suspended_once_and_restored_once(api):
    agent = active_agent(World(api, overage="revoke_access"), included_gb="0.001")
    peer, gateway = agent.gateway.peer(), agent.gateway
    agent.report([agent.grow(1, peer, now(), upload_bytes=799999)])
    assert gateway.actions() == []
    agent.report([agent.grow(1, peer, now(), upload_bytes=1)])
    assert gateway.actions() == [("warning_80", "1000000")]
    for _ in range(3):
        agent.report([agent.grow(1, peer, now(), upload_bytes=1, refused_bytes=1500)], exhausted=True)
    assert gateway.row("suspended_reasons, status") == (["allowance"], "active")
    suspended = [("suspend", "1"), ("warning_100", "1000000"), ("warning_80", "1000000")]
    assert sorted(gateway.actions()) == suspended
    api.sql("UPDATE billing.bucket SET extra = 500000, grant_seq = grant_seq + 1 WHERE id = %s", gateway.bucket)
    agent.report(exhausted=True)  # the newer grant has not arrived yet
    assert gateway.row("suspended_reasons") == ["allowance"]
    assert agent.take_grant()["ceiling"] == "1500000"
    for _ in range(2):
        agent.report([agent.grow(1, peer, now(), upload_bytes=1)])
    assert gateway.row("suspended_reasons") == []
    assert sorted(gateway.actions()) == sorted([*suspended, ("restore", "2")])
    agent.report([agent.grow(1, peer, now(), upload_bytes=700000)])
    assert gateway.row("suspended_reasons") == ["allowance"]  # the new ceiling is used up to the byte
    assert ("suspend", "2") in gateway.actions() and ("warning_100", "1500000") in gateway.actions()


def test_each_actor_clears_its_own_reason(api):
    agent = active_agent(World(api, overage="revoke_access"), included_gb="0.001")
    agent.report([agent.grow(1, agent.gateway.peer(), now(), upload_bytes=10)], exhausted=True)
    api.sql("UPDATE gateway.gateway SET suspended_reasons = suspended_reasons || '{admin}' WHERE id = %s", agent.gateway.id)
    api.sql("UPDATE billing.bucket SET extra = 500000, grant_seq = grant_seq + 1 WHERE id = %s", agent.gateway.bucket)
    agent.take_grant()
    agent.report()
    assert agent.gateway.row("suspended_reasons") == ["admin"]


def test_no_warnings_under_none_and_a_charge_once_an_hour(api):
    agent = active_agent(World(api, overage="none"), included_gb="0.001")
    agent.report([agent.grow(1, agent.gateway.peer(), now(), upload_bytes=GB)])
    assert agent.gateway.actions() == []
    hours = past_hours(2)
    agent = active_agent(World(api), since=hours[0], included_gb="0")
    peer = agent.gateway.peer()
    for hour in (hours[0], hours[0], hours[1], hours[1]):
        agent.report([agent.grow(1, peer, hour, upload_bytes=5)], covered=(hour, hour))
    assert [key for kind, key in agent.gateway.actions() if kind == "charge"] == [text_of(hour) for hour in hours]


# ---- buckets and cycles (B8, B4) ----------------------------------------------------------------------------------------

def test_deleting_and_making_anew_gives_no_fresh_allowance(api):
    world = World(api, overage="revoke_access")
    first, second = (active_agent(world, included_gb="0.001") for _ in range(2))
    assert first.gateway.bucket != second.gateway.bucket
    for agent, amount in ((first, 300), (second, 400)):
        agent.report([agent.grow(1, agent.gateway.peer(), now(), upload_bytes=amount)])
    api.sql("UPDATE billing.bucket SET extra = 77 WHERE id = %s", second.gateway.bucket)
    first.gateway.complete_delete()
    second.gateway.complete_delete()
    assert api.sql("SELECT gateways FROM gateway.account WHERE owner = %s", world.user) == [(0,)]
    third, fourth, fifth = (world.gateway(included_gb=gb) for gb in ("0.002", "0.003", "0.004"))
    assert [gateway.bucket for gateway in (third, fourth)] == [second.gateway.bucket, first.gateway.bucket]
    assert third.bucket_row("used, extra, allowance") == (400, 77, 2000000)
    assert fifth.bucket_row("used, number") == (0, 3)
    agent = Agent(third)
    agent.activate()
    assert agent.grant["ceiling"] == str(2000000 + 77 - 400)


def test_a_used_up_bucket_suspends_its_next_holder(api):
    world = World(api, overage="revoke_access")
    first = active_agent(world, included_gb="0.001")
    first.report([first.grow(1, first.gateway.peer(), now(), upload_bytes=1000000)], exhausted=True)
    first.gateway.complete_delete()
    second = active_agent(world, included_gb="0.001")
    assert (second.grant["ceiling"], second.grant["grant_seq"]) == ("0", 2)
    second.report([second.grow(1, second.gateway.peer(), now(), refused_bytes=1500)], exhausted=True)
    assert second.gateway.row("suspended_reasons") == ["allowance"]
    assert second.gateway.actions() == [("suspend", "2")]  # the warnings of this allowance have been given


def test_gateways_made_at_once_take_different_buckets(api):
    world = World(api)
    gateways = [world.gateway() for _ in range(4)]
    for gateway in gateways:
        gateway.complete_delete()
    api.sql("UPDATE billing.bucket SET used = number WHERE owner = %s", world.user)
    made = at_once(*[world.gateway] * 6)
    assert len({gateway.bucket for gateway in made}) == 6
    assert sum(gateway.bucket_row("used") for gateway in made) == 1 + 2 + 3 + 4


def test_deleting_frees_everything_once(api):
    world = World(api)
    agent = active_agent(world, included_gb="0")
    gateway, peer = agent.gateway, agent.gateway.peer()
    api.sql("INSERT INTO gateway.prefix (owner, gateway, peer, cidr, tunnel) VALUES (%s, %s, %s, '10.99.0.2/32', true)",
            gateway.owner, gateway.id, peer)
    api.sql("INSERT INTO gateway.address (subnet, ip, public, owner, gateway, attempt) SELECT public_subnet, '198.51.100.77', true, owner, id, 1"
            " FROM gateway.gateway WHERE id = %s", gateway.id)
    agent.report([agent.grow(1, peer, now(), upload_bytes=123)])
    api.sql("UPDATE gateway.gateway SET status = 'deleting' WHERE id = %s", gateway.id)
    at_once(gateway.complete_delete, lambda: complete_elsewhere(api, gateway))
    assert gateway.row("status") == "deleted" and gateway.row("deleted") is not None
    [[left]] = api.sql("SELECT (SELECT count(*) FROM gateway.prefix WHERE gateway = %s AND freed IS NULL)"
                       " + (SELECT count(*) FROM gateway.peer WHERE gateway = %s AND removed IS NULL)"
                       " + (SELECT count(*) FROM gateway.address WHERE gateway = %s) + (SELECT count(*) FROM gateway.token WHERE gateway = %s)"
                       " + (SELECT count(*) FROM gateway.job WHERE gateway = %s AND NOT finished)"
                       " + (SELECT count(*) FROM billing.bucket WHERE holder = %s)"
                       " + (SELECT count(*) FROM billing.epoch WHERE gateway = %s AND sealed IS NULL)", *[gateway.id] * 7)
    assert left == 0
    assert api.sql("SELECT gateways FROM gateway.account WHERE owner = %s", world.user) == [(0,)]
    assert len(gateway.ledger("base")) == 1
    assert [(line[2], Fraction(line[3])) for line in gateway.ledger("bandwidth")] == [(123, 123 * Fraction("0.1") / GB)]


def complete_elsewhere(api, gateway):
    connection = api.postgres.connect()
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT gateway.complete_delete(%s)", (gateway.id,))
    connection.close()


def test_a_new_cycle_gives_a_new_bucket_and_resumes(api):
    agent = active_agent(World(api, overage="revoke_access"), included_gb="0.001", created=now() - 20 * HOUR)
    gateway, peer = agent.gateway, agent.gateway.peer()
    agent.report([agent.grow(1, peer, now(), upload_bytes=1000000)], exhausted=True)
    assert gateway.row("suspended_reasons") == ["allowance"]
    # As if the month had turned: what was this cycle's is the last one's.
    begin = datetime(now().year, now().month, 1, tzinfo=timezone.utc)
    last = cycle_of(begin - HOUR)
    current = cycle_of(now())
    old = gateway.bucket
    api.sql("SELECT billing.ensure_cycle(%s)", begin - HOUR)
    api.sql("UPDATE billing.bucket SET cycle = %s WHERE id = %s", last, old)
    api.sql("UPDATE billing.epoch SET cycle = %s WHERE id = %s", last, agent.epoch)
    agent.grant["cycle"] = last
    revision = gateway.row("revision")
    api.sql("UPDATE billing.cycle SET rolled = false WHERE id = %s", current)
    wait(lambda: gateway.row("revision") > revision)
    assert gateway.row("suspended_reasons") == []
    agent.report([agent.grow(1, peer, now(), refused_bytes=1)], exhausted=True)  # still the old grant: suspended already, once
    assert gateway.row("suspended_reasons") == []
    before = agent.counted
    [[gateway.bucket]] = api.sql("SELECT id::text FROM billing.bucket WHERE holder = %s AND cycle = %s", gateway.id, current)
    grant = agent.take_grant()
    assert (grant["cycle"], grant["ceiling"]) == (current, "1000000")
    agent.report([agent.grow(1, peer, now(), upload_bytes=50)])
    assert agent.counted == before + 50
    assert gateway.bucket_row("used") == 50
    assert api.sql("SELECT used FROM billing.bucket WHERE id = %s", old) == [(1000000,)]
    assert [kind for kind, _ in gateway.actions()].count("restore") == 1
    assert [kind for kind, _ in gateway.actions()].count("suspend") == 1
    assert agent.take_grant()["ceiling"] == "1000000"


def test_a_report_before_the_clock_takes_the_gateway_into_the_cycle(api):
    agent = active_agent(World(api, overage="revoke_access"), included_gb="0.001", created=now() - 20 * HOUR)
    gateway, peer = agent.gateway, agent.gateway.peer()
    agent.report([agent.grow(1, peer, now(), upload_bytes=7)], exhausted=True)
    begin = datetime(now().year, now().month, 1, tzinfo=timezone.utc)
    last = cycle_of(begin - HOUR)
    api.sql("SELECT billing.ensure_cycle(%s)", begin - HOUR)
    wait(lambda: api.sql("SELECT rolled FROM billing.cycle WHERE id = %s", cycle_of(now())) == [(True,)])  # the clock has done its part
    api.sql("UPDATE billing.epoch SET cycle = %s WHERE id = %s", last, agent.epoch)
    api.sql("UPDATE billing.bucket SET cycle = %s WHERE id = %s", last, gateway.bucket)
    agent.grant["cycle"] = last
    revision = gateway.row("revision")
    agent.report(exhausted=True)
    assert gateway.row("suspended_reasons, revision") == ([], revision + 1)
    assert gateway.actions().count(("restore", "1")) == 1
    assert agent.take_grant()["ceiling"] == "1000000"


def test_bytes_under_the_old_grant_stay_in_the_old_cycle(api):
    agent = active_agent(World(api, overage="revoke_access"), included_gb="1", created=now() - 20 * HOUR)
    gateway, peer = agent.gateway, agent.gateway.peer()
    agent.report([agent.grow(1, peer, now(), upload_bytes=100)])
    last = cycle_of(datetime(now().year, now().month, 1, tzinfo=timezone.utc) - HOUR)
    api.sql("SELECT billing.ensure_cycle(now() - interval '32 days')")
    api.sql("SELECT billing.ensure_cycle((SELECT starts FROM billing.cycle WHERE id = %s) - interval '1 hour')", cycle_of(now()))
    api.sql("UPDATE billing.bucket SET cycle = %s WHERE id = %s", last, gateway.bucket)
    api.sql("UPDATE billing.epoch SET cycle = %s WHERE id = %s", last, agent.epoch)
    old, agent.grant["cycle"] = gateway.bucket, last
    agent.grow(1, peer, now(), upload_bytes=20)
    [[gateway.bucket]] = api.sql("SELECT billing.take_bucket(%s, %s)::text", gateway.owner, gateway.id)
    agent.take_grant()
    agent.report([agent.grow(1, peer, now(), upload_bytes=3)])
    assert api.sql("SELECT used FROM billing.bucket WHERE id = %s", old) == [(120,)]
    assert gateway.bucket_row("used") == 3


# ---- what is read -----------------------------------------------------------------------------------------------------------

def feed(world, after=0, limit=3):
    """All of it, page by page, by a billing service."""
    token, items = world.token("billing"), []
    while True:
        status, page = world.api.request("GET", f"/v1/ledger?after={after}&limit={limit}", token=token)
        assert status == 200, page
        items += page["items"]
        if page["next"] is None:
            return items
        assert page["next"] == page["items"][-1]["id"]
        after = page["next"]


def test_report_ledger_and_model_are_one(api):  # B6, I20
    rng = random.Random(20)
    hours = past_hours(5)
    world = World(api, rate="0.123456789", credit_value="9.876543211")
    limit = GB
    expected = defaultdict(lambda: [0, Fraction(0), 0, Fraction(0)])
    gateways = []
    for _ in range(3):
        agent = active_agent(world, since=hours[0] + timedelta(minutes=7), included_gb="1", created=hours[0])
        gateways.append(agent.gateway)
        traffic = Traffic(agent, hours, rng, batches=10)
        traffic.deliver()
        end = hours[-1] + HOUR
        agent.report(covered=(hours[0], end), states=[(agent.active_since, end, "active")])
        for begin in base_hours([(agent.active_since, end)]):
            row = expected[cycle_of(begin), agent.gateway.id]
            row[0] += 1
            row[1] += hour_price(Fraction("9.876543211"), begin)
        _, _, fees = overage(traffic.hourly, limit, {hour: ("charge_overage", "0.123456789") for hour in hours})
        for hour, fee in fees.items():
            row = expected[cycle_of(hour), agent.gateway.id]
            row[2] += int(fee * GB / Fraction("0.123456789"))
            row[3] += fee
    gateways[0].complete_delete()
    wait(lambda: api.sql("SELECT count(*) FROM billing.ledger WHERE owner = %s AND feed_id IS NULL", world.user) == [(0,)])
    lines = [item for item in feed(world, limit=200) if item["owner"] == world.user and item["type"] == "ledger"]
    for cycle in {cycle for cycle, _ in expected}:
        text = f"{cycle // 100}-{cycle % 100:02d}"
        report = world.get(f"/v1/users/{world.user}/report?cycle={text}")
        assert report["cycle"] == text and report["user"] == world.user
        by_id = {row["gateway"]: row for row in report["gateways"]}
        assert {g.id for g in gateways} >= set(by_id)
        for row in by_id.values():
            hours_, base, bytes_, bandwidth = expected[cycle, row["gateway"]]
            mine = [line for line in lines if line["gateway"] == row["gateway"] and line["cycle"] == cycle]
            assert row["hours"] == hours_ == sum(line["kind"] == "base" for line in mine)
            assert Fraction(row["base_credits"]) == base == sum(Fraction(line["amount"]) for line in mine if line["kind"] == "base")
            assert int(row["bandwidth_bytes"]) == bytes_
            assert Fraction(row["bandwidth_credits"]) == bandwidth
            assert Fraction(row["total_credits"]) == base + bandwidth == sum(Fraction(line["amount"]) for line in mine)
        totals = report["totals"]
        assert Fraction(totals["total_credits"]) == sum(Fraction(row["total_credits"]) for row in by_id.values())
        assert totals["hours"] == sum(row["hours"] for row in by_id.values())
        text = world.get(f"/v1/users/u{world.user[:8]}/report?format=csv&cycle={text}", role="billing")
        *rows, total = csv.DictReader(io.StringIO(text))
        assert {row["gateway"]: row["total_credits"] for row in rows} == {key: row["total_credits"] for key, row in by_id.items()}
        assert (total["name"], total["total_credits"], total["hours"]) == ("total", totals["total_credits"], str(totals["hours"]))


def test_the_feed_misses_nothing_while_it_is_written(api):  # B7
    world = World(api)
    gateway = world.gateway()
    seen, stop = [], threading.Event()

    def write(worker):
        connection = api.postgres.connect()
        rng = random.Random(worker)
        for i in range(15):
            with connection, connection.cursor() as cursor:
                cursor.execute("INSERT INTO billing.action (owner, bucket, gateway, kind, key) VALUES (%s, %s, %s, 'charge', %s)",
                               (gateway.owner, gateway.bucket, gateway.id, f"{worker}-{i}"))
                time.sleep(rng.random() * 0.15)
        connection.close()

    def follow():
        after = int(api.sql("SELECT coalesce(max(id), 0) FROM billing.feed")[0][0])
        while True:
            last = stop.is_set()
            items = feed(world, after, limit=7)
            seen.extend(items)
            after = int(items[-1]["id"]) if items else after
            if last and not items:
                return
            time.sleep(0.02)

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    reader = threading.Thread(target=follow)
    for thread in [reader, *threads]:
        thread.start()
    for thread in threads:
        thread.join(60)
    wait(lambda: api.sql("SELECT count(*) FROM billing.action WHERE owner = %s AND feed_id IS NULL", world.user) == [(0,)])
    stop.set()
    reader.join(60)
    ids = [int(item["id"]) for item in seen]
    assert ids == sorted(set(ids))
    mine = [item["key"] for item in seen if item["owner"] == world.user]
    assert sorted(mine) == sorted(f"{worker}-{i}" for worker in range(4) for i in range(15))


def test_usage_by_interval_and_peer(api):
    hours = past_hours(30)
    world = World(api)
    agent = active_agent(world, since=hours[0])
    traffic = Traffic(agent, hours, random.Random(3), batches=40)
    traffic.deliver()
    gateway = agent.gateway
    names = dict(api.sql("SELECT id::text, name FROM gateway.peer WHERE gateway = %s", gateway.id))

    def read(path):
        items, after = [], ""
        while True:
            page = world.get(f"{path}&limit=7{after}")
            items += page["items"]
            if page["next"] is None:
                return items
            after = f"&after={page['next']}"

    def group(key, by_peer):
        totals = defaultdict(lambda: [0, 0])
        for (peer, hour), (up, down) in traffic.usage.items():
            if by_peer or peer:
                totals[key(hour), peer if by_peer else None][0] += up
                totals[key(hour), peer if by_peer else None][1] += down
        return {key: value for key, value in totals.items() if any(value)}

    starts = {"hour": hour_of, "day": lambda hour: hour.replace(hour=0), "cycle": lambda hour: month_of(hour)[0]}
    for interval, start in starts.items():
        for by in ("peer", "gateway"):
            items = read(f"/v1/gateways/{gateway.id}/usage?interval={interval}&by={by}")
            got = {(datetime.fromisoformat(item["from"].replace("Z", "+00:00")), item["peer"]):
                   [int(item["upload_bytes"]), int(item["download_bytes"])] for item in items}
            assert {key: value for key, value in got.items() if any(value)} == group(start, by == "peer")
            assert all(item["peer_name"] == names.get(item["peer"]) for item in items)
    [total] = read(f"/v1/users/{world.user}/usage?interval=total")
    assert [int(total["upload_bytes"]), int(total["download_bytes"])] == [
        sum(value[i] for (peer, _), value in traffic.usage.items() if peer) for i in (0, 1)]
    assert total["gateway"] == gateway.id
    cut = read(f"/v1/gateways/{gateway.id}/usage?interval=hour&by=gateway&from={text_of(hours[4])}&to={text_of(hours[9])}")
    assert {item["from"] for item in cut} <= {text_of(hour) for hour in hours[4:9]}


def test_money_is_shown_to_its_owner_only(api):
    world, stranger = World(api), World(api)
    gateway = world.gateway()
    for path in (f"/v1/gateways/{gateway.id}/usage", f"/v1/gateways/{gateway.name}/usage", f"/v1/users/{world.user}/usage",
                 f"/v1/users/{world.user}/report"):
        assert api.request("GET", path, token=stranger.token())[0] == 404
        assert api.request("GET", path, token=world.token())[0] == 200
        assert api.request("GET", path, token=world.token("billing"))[0] == 200
        assert api.request("GET", path)[0] == 401
    assert api.request("GET", "/v1/ledger", token=world.token())[0] == 403


@pytest.mark.parametrize("query, field", [("interval=week", "interval"), ("from=now", "from"), ("limit=0", "limit"), ("limit=201", "limit"),
                                          ("by=name", "by"), ("to=2026-13-01", "to"), ("after=x", "after"),
                                          ("after=,,", "after"), (f"after=-infinity,{36 * '0'},{36 * '0'}", "after")])
def test_queries_are_checked(api, query, field):
    world = World(api)
    status, answer = api.request("GET", f"/v1/gateways/{world.gateway().id}/usage?{query}", token=world.token())
    assert (status, answer["field"]) == (422, field)
    for path, field in (("report?cycle=2026-13", "cycle"), ("report?cycle=202611", "cycle"), ("report?format=pdf", "format")):
        status, answer = api.request("GET", f"/v1/users/{world.user}/{path}", token=world.token())
        assert (status, answer["field"]) == (422, field)
    status, answer = api.request("GET", "/v1/ledger?after=x", token=world.token("billing"))
    assert (status, answer["field"]) == (422, "after")


def test_names_find_living_gateways_first(api):
    world, other = World(api), World(api)
    old, new, third = world.gateway(), world.gateway(), other.gateway()
    old.complete_delete()
    api.sql("UPDATE gateway.gateway SET name = 'twice-' || %s WHERE id IN (%s, %s, %s)", world.user[:8], old.id, new.id, third.id)
    path = f"/v1/gateways/twice-{world.user[:8]}/usage"
    agent = Agent(new)
    agent.activate()
    agent.report([agent.grow(1, new.peer(), now(), upload_bytes=1)])
    assert world.get(path)["items"][0]["gateway"] == new.id
    assert api.request("GET", path, token=world.token("admin"))[0] == 404  # two owners have one
    third.complete_delete()
    assert world.get(path, role="admin")["items"][0]["gateway"] == new.id


# ---- the clock --------------------------------------------------------------------------------------------------------------

def test_a_deployment_past_its_deadline_fails(api):  # G6
    world = World(api)
    late, fine = world.gateway(), world.gateway()
    api.sql("UPDATE gateway.job SET deadline = now() - interval '1 second', step = 'network' WHERE gateway = %s", late.id)
    wait(lambda: late.row("status") == "error")
    assert "network" in late.row("error")
    assert fine.row("status") == "deploying"


def test_expired_tokens_go(api):
    world = World(api)
    token = world.gateway().one_time_token(minutes=-1)
    assert token
    wait(lambda: api.sql("SELECT count(*) FROM gateway.token WHERE owner = %s", world.user) == [(0,)])


def test_ended_cycles_close_when_all_have_reported(api):  # B9
    world = World(api)
    gateway = world.gateway()
    year = 1990 + random.randrange(25)
    begin = datetime(year, 3, 1, tzinfo=timezone.utc)
    cycle = year * 100 + 3
    api.sql("INSERT INTO billing.cycle (id, starts, ends, state) VALUES (%s, %s, %s, 'closing')",
            cycle, begin, begin + 744 * HOUR)
    api.sql("SELECT billing.hold_bucket(%s, %s, %s)", gateway.owner, gateway.id, cycle)
    wait(lambda: api.sql("SELECT state FROM billing.cycle WHERE id = %s", cycle) == [("final",)])
    ends = begin + 744 * HOUR
    api.sql("UPDATE gateway.gateway SET active_since = %s, complete_through = %s WHERE id = %s", begin, ends - SECOND, gateway.id)
    for change, at, state in ((None, ends + HOUR, "closing"), (None, ends + 72 * HOUR, "final"), (ends, ends + HOUR, "final")):
        api.db.autocommit = False
        try:
            if change:
                api.sql("UPDATE gateway.gateway SET complete_through = %s WHERE id = %s", change, gateway.id)
            api.sql("UPDATE billing.cycle SET state = 'closing' WHERE id = %s", cycle)
            api.sql("SELECT billing.finish_cycles(%s)", at)
            assert api.sql("SELECT state FROM billing.cycle WHERE id = %s", cycle) == [(state,)]
        finally:
            api.db.rollback()
            api.db.autocommit = True


def test_two_servers_share_the_clock(api):
    world = World(api)
    other = api.another()
    try:
        gateways = [world.gateway() for _ in range(10)]
        for gateway in gateways:
            api.sql("INSERT INTO billing.action (owner, bucket, gateway, kind, key) VALUES (%s, %s, %s, 'charge', 'x')",
                    gateway.owner, gateway.bucket, gateway.id)
        wait(lambda: api.sql("SELECT count(*) FROM billing.action WHERE owner = %s AND feed_id IS NULL", world.user) == [(0,)])
        assert api.sql("SELECT count(*), count(DISTINCT line) FROM billing.feed WHERE owner = %s", world.user) == [(10, 10)]
    finally:
        assert other.stop() == 0


# ---- what no bug and no race may pass ---------------------------------------------------------------------------------------

def refused(connection, error, statement, *values):
    with pytest.raises(error):
        with connection, connection.cursor() as cursor:
            cursor.execute(statement, values)


LINE = ("INSERT INTO billing.ledger (owner, gateway, kind, utc_hour, part, span, cycle, bytes, rate, rate_version, amount, hour_index,"
        " month_hours) SELECT owner, gateway, %s, utc_hour, %s, span, cycle, %s, %s, rate_version, %s, %s, %s FROM billing.ledger"
        " WHERE gateway = %s AND kind = 'base'")


def test_the_ledger_defends_itself(api):
    gateway = active_agent(World(api)).gateway
    connection = api.postgres.connect("wiretoll_api")
    refused(connection, errors.UniqueViolation, LINE, "base", 1, None, 1, 1, 1, 720, gateway.id)
    refused(connection, errors.CheckViolation, LINE, "base", 2, None, 1, 1, 1, 720, gateway.id)
    refused(connection, errors.CheckViolation, LINE, "bandwidth", 1, 10**9, "0.1", "0.100000000000000001", None, None, gateway.id)
    refused(connection, errors.CheckViolation, LINE, "bandwidth", 1, 0, "0.1", "0", None, None, gateway.id)
    for statement in ("UPDATE billing.ledger SET amount = 0", "DELETE FROM billing.ledger", "DELETE FROM billing.action",
                      "UPDATE billing.usage_record SET d_up = 0", "DELETE FROM billing.counter"):
        refused(connection, errors.InsufficientPrivilege, statement)
    connection.close()


def test_the_workers_role_sees_no_money(api):
    gateway = World(api).gateway()
    connection = api.postgres.connect("wiretoll_deploy")
    for statement in ("SELECT billing.tick()", "SELECT * FROM billing.ledger", "SELECT * FROM gateway.token",
                      f"SELECT gateway.complete_delete('{gateway.id}')", f"SELECT gateway.agent_state('{gateway.owner}', '{gateway.id}')"):
        refused(connection, errors.InsufficientPrivilege, statement)
    connection.close()


def test_every_function_pins_its_search_path(api):
    assert api.sql("SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace IN ('gateway'::regnamespace, 'billing'::regnamespace)"
                   " AND NOT coalesce(p.proconfig @> ARRAY ['search_path=pg_catalog, pg_temp'], false)") == []


def test_everything_at_once(api):
    """Reports, creations, deletions and the turn of a cycle of one owner: no deadlock is seen and no byte is lost."""
    world = World(api, overage="revoke_access")
    agents = [active_agent(world) for _ in range(4)]
    for agent in agents:
        agent.peer = agent.gateway.peer()

    def reports(agent):
        for i in range(25):
            agent.report([agent.grow(1, agent.peer, now(), upload_bytes=i)])

    def come_and_go():
        for _ in range(8):
            gateway = Gateway(world, world.plan("1"), world.begin)
            complete_elsewhere(api, gateway)

    def turn():
        for _ in range(30):
            api.sql("UPDATE billing.cycle SET rolled = false WHERE id = %s", cycle_of(now()))
            time.sleep(0.05)

    at_once(*[lambda agent=agent: reports(agent) for agent in agents], come_and_go, turn)
    assert [agent.gateway.bucket_row("used") for agent in agents] == [300] * 4
    assert [agent.seq for agent in agents] == [26] * 4
    assert api.sql("SELECT gateways FROM gateway.account WHERE owner = %s", world.user) == [(4,)]


def test_one_clock_at_a_time(api):
    """Were two to seal at once, an id could appear below one that has been read."""
    first, second = (api.postgres.connect("wiretoll_api") for _ in range(2))

    def tick(connection):
        with connection.cursor() as cursor:
            cursor.execute("SELECT billing.tick()")
            return cursor.fetchone()[0]

    def holds():
        if tick(first):
            return True
        first.rollback()
        return False

    try:
        wait(holds)
        assert tick(second) is False
        first.commit()
        second.rollback()
        wait(lambda: tick(second))
    finally:
        first.close()
        second.close()
