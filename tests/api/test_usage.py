# SPDX-License-Identifier: BSD-2-Clause
"""Reports, repeated, reordered and at once: every byte once, for whom it was, in its hour, at its price."""

import random

import pytest

from billing_model import GB, Traffic, at_once, overage, past_hours, stored_usage, sums
from simulated_agent import HOUR, Agent, World, active_agent, hour_of, now


@pytest.mark.parametrize("seed", range(6))
def test_any_delivery_gives_the_same_totals_and_fees(api, steady_hour, seed):  # I1, I7, I19
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


def test_hours_outside_the_gateways_life_are_put_to_its_ends(api, steady_hour):
    world = World(api)
    agent = active_agent(world, since=None, created=hour_of(now()) - 2 * HOUR)
    peer = agent.gateway.peer()
    agent.report([agent.grow(1, peer, now() - 900 * HOUR, upload_bytes=1), agent.grow(1, peer, now() - 800 * HOUR, upload_bytes=2),
                  agent.grow(1, peer, now() + 900 * HOUR, upload_bytes=4)])
    assert stored_usage(agent.gateway) == {(peer, hour_of(now()) - 2 * HOUR): [3, 0], (peer, hour_of(now())): [4, 0]}


def test_what_belongs_to_no_peer_is_kept_and_never_billed(api):
    agent, hour = active_agent(World(api), included_gb="0"), hour_of(now())
    agent.report([agent.grow(0, None, hour, upload_bytes=5 * GB, download_bytes=GB)])
    assert agent.gateway.bucket_row("used, charged") == (0, 0)
    assert stored_usage(agent.gateway) == {(None, hour): [5 * GB, GB]}
    agent.gateway.complete_delete()
    assert agent.gateway.ledger("bandwidth") == []


def test_epochs_follow_each_other(api):
    agent, hour = active_agent(World(api)), hour_of(now())
    peer = agent.gateway.peer()
    old = agent.batch([agent.grow(1, peer, hour, upload_bytes=100)], final=True)
    assert agent.send(old)[0] == 200
    agent.new_epoch()
    agent.report([agent.grow(1, peer, hour, upload_bytes=30)])
    assert agent.send(old)[0] == 200
    agent.report([agent.grow(1, peer, hour, incarnation=2, upload_bytes=4)])
    assert agent.gateway.bucket_row("used") == 134
    assert stored_usage(agent.gateway)[peer, hour] == [134, 0]


def test_slots_of_one_peer_become_one_sum(api):
    """In hours of which nothing is held, and in one that is held; what belongs to no peer comes last."""
    begin, middle, end = past_hours(3)
    agent = active_agent(World(api), since=begin)
    peer, other = agent.gateway.peer(), agent.gateway.peer()
    for _ in range(2):
        agent.report([agent.grow(slot, owner, hour, incarnation, upload_bytes=amount, download_bytes=10 * amount)
                      for slot, owner, incarnation, amount in ((1, peer, 1, 1), (2, other, 1, 2), (2, peer, 2, 4), (3, peer.upper(), 1, 8))
                      for hour in (begin, middle)] + [agent.grow(0, None, end, upload_bytes=16)])
    assert stored_usage(agent.gateway) == {**{(owner, hour): [2 * amount, 20 * amount] for hour in (begin, middle)
                                              for owner, amount in ((peer, 13), (other, 2))}, (None, end): [32, 0]}
    assert agent.gateway.used() == 2 * 2 * 11 * 15


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
