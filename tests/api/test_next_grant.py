# SPDX-License-Identifier: BSD-2-Clause
"""The coming cycle's grant, told beforehand, is the one that the cycle then brings."""

from datetime import datetime, timezone

import pytest

from simulated_agent import World, active_agent, now

HOUR = "date_trunc('hour', now(), 'UTC')"


def next_month():
    today = now()
    return datetime(today.year + today.month // 12, today.month % 12 + 1, 1, tzinfo=timezone.utc)


def told(agent):
    status, answer = agent.state()
    assert status == 200
    return answer["next_grant"]


@pytest.mark.parametrize("overage, ceiling", [("revoke_access", "1000000"), ("none", None), ("charge_overage", None)])
def test_it_is_what_the_turn_brings(api, steady_hour, overage, ceiling):
    agent = active_agent(World(api, overage=overage), included_gb="0.001")
    agent.report([agent.grow(1, agent.gateway.peer(), now(), upload_bytes=700000)])
    grant = told(agent)
    begins = next_month()
    assert grant == {"cycle": begins.year * 100 + begins.month, "grant_seq": 1, "mask": "both", "ceiling": ceiling,
                     "epoch": grant["epoch"], "not_before": begins.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
    # The bucket that the turn would make, made and taken back: the same numbers.
    connection = api.postgres.connect("wiretoll_owner")
    cursor = connection.cursor()
    cursor.execute("SELECT billing.ensure_cycle(%s)", (begins,))
    cursor.execute("SELECT cycle, grant_seq, allowance, used FROM billing.hold_bucket(%s, %s, %s)",
                   (agent.gateway.owner, agent.gateway.id, grant["cycle"]))
    assert cursor.fetchone() == (grant["cycle"], 1, 1000000, 0)
    connection.rollback()
    connection.close()


def test_no_ceiling_without_an_epoch_that_it_counts_in(api):
    gateway = World(api, overage="revoke_access").gateway(included_gb="0.001")
    assert api.sql("SELECT billing.next_grant(g) FROM gateway.gateway g WHERE id = %s", gateway.id) == [(None,)]
