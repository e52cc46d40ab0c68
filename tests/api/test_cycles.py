# SPDX-License-Identifier: BSD-2-Clause
"""Overage actions, buckets, the turn of cycles, and the clock (B4, B5, B8, B9)."""

import random
from datetime import datetime, timezone
from fractions import Fraction

import pytest

from billing_model import GB, SECOND, at_once, complete_elsewhere, past_hours, wait
from simulated_agent import HOUR, Agent, World, active_agent, cycle_of, now, text_of

pytestmark = pytest.mark.usefixtures("steady_hour")


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
                       " + (SELECT count(*) FROM gateway.address WHERE gateway = %s) + (SELECT count(*) FROM gateway.token WHERE gateway = %s AND kind <> 'agent')"
                       " + (SELECT count(*) FROM gateway.job WHERE gateway = %s AND NOT finished)"
                       " + (SELECT count(*) FROM billing.bucket WHERE holder = %s)"
                       " + (SELECT count(*) FROM billing.epoch WHERE gateway = %s AND sealed IS NULL)", *[gateway.id] * 7)
    assert left == 0
    assert api.sql("SELECT gateways FROM gateway.account WHERE owner = %s", world.user) == [(0,)]
    assert len(gateway.ledger("base")) == 1
    assert [(line[2], Fraction(line[3])) for line in gateway.ledger("bandwidth")] == [(123, 123 * Fraction("0.1") / GB)]


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


# ---- the clock --------------------------------------------------------------------------------------------------------------

def test_a_deployment_past_its_deadline_fails(api):  # G6
    world = World(api)
    late, fine = world.gateway(), world.gateway()
    api.sql("UPDATE gateway.job SET deadline = now() - interval '1 second', step = 'network' WHERE gateway = %s", late.id)
    wait(lambda: late.row("status") == "error")
    assert "network" in late.row("error")
    assert fine.row("status") == "deploying"


def test_a_deployment_that_comes_late_is_active(api):  # G6
    gateway = World(api).gateway()
    api.sql("UPDATE gateway.job SET deadline = now() - interval '1 second' WHERE gateway = %s", gateway.id)
    wait(lambda: gateway.row("status") == "error")
    Agent(gateway).activate()
    assert gateway.row("status") == "active" and gateway.row("error") is None
    assert len(gateway.ledger("base")) == 1


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
