# SPDX-License-Identifier: BSD-2-Clause
"""A gateway's token speaks for its own gateway: a broken-into one learns and changes nothing of another's, of any owner's."""

import pytest

from simulated_agent import World, active_agent, now


def everything(api, gateway):
    """What the database holds of a gateway, but for when it was heard of, and the ids that the clock gives to lines."""
    return [api.sql(f"SELECT (to_jsonb(t) - 'feed_id')::text FROM {table} t WHERE {column} = %s ORDER BY 1", gateway.id) for table, column in (
        ("billing.epoch", "gateway"), ("billing.counter", "gateway"), ("billing.usage_record", "gateway"), ("billing.ledger", "gateway"),
        ("billing.action", "gateway"), ("gateway.peer", "gateway"))] + [
        api.sql("SELECT used, charged, grant_seq FROM billing.bucket WHERE id = %s", gateway.bucket),
        gateway.row("status, revision, suspended_reasons, public_key, applied_revision")]


@pytest.fixture
def two(api):
    """The victim has traffic; the intruder has a gateway and a token of its own, of another owner."""
    victim, intruder = active_agent(World(api, overage="revoke_access")), active_agent(World(api, overage="revoke_access"))
    victim.peer = victim.gateway.peer()
    victim.report([victim.grow(1, victim.peer, now(), upload_bytes=1000)])
    return victim, intruder


def test_it_reads_its_own_state_only(api, two):
    victim, intruder = two
    for query in ("", f"&gateway={victim.gateway.id}", f"&owner={victim.gateway.owner}"):
        status, answer = api.request("GET", f"/v1/agent/state?have=0{query}", token=intruder.token)
        assert status in (200, 400)
        if status == 200:
            assert answer["gateway"] == intruder.gateway.id and victim.peer not in str(answer)
    for path in (f"/v1/gateways/{victim.gateway.id}", f"/v1/gateways/{victim.gateway.id}/peers", "/v1/gateways", "/v1/usage", "/v1/ledger"):
        assert api.request("GET", path, token=intruder.token)[0] in (403, 404), path


def test_it_reports_for_its_own_gateway_only(api, two):
    victim, intruder = two
    before = everything(api, victim.gateway)
    body = intruder.batch([intruder.grow(1, victim.peer, now(), upload_bytes=5000)])
    attempts = [
        body,  # its bytes for the other's peer
        {**body, "epoch": {**body["epoch"], "id": victim.epoch}},  # in the other's epoch
        {**body, "epoch": {**body["epoch"], "id": victim.epoch, "final": True}, "seq": victim.seq + 1},  # or to end it
        {**body, "gateway": victim.gateway.id, "owner": victim.gateway.owner},
    ]
    for attempt in attempts:
        status = intruder.send(attempt)[0]
        assert status in (200, 400, 403, 409), status
        assert everything(api, victim.gateway) == before, attempt
    # The other one goes on undisturbed.
    victim.report([victim.grow(1, victim.peer, now(), upload_bytes=1)])
    assert victim.gateway.bucket_row("used") == 1001


def test_it_cannot_be_traded_for_anothers(api, two):
    victim, intruder = two
    other = intruder.gateway.one_time_token()
    before = everything(api, victim.gateway)
    for changes in ({"gateway": victim.gateway.id, "one_time_token": other}, {"gateway": victim.gateway.id, "one_time_token": intruder.token},
                    {"gateway": victim.gateway.id}):
        assert intruder.enroll(**changes)[0] in (400, 403, 409)
    assert everything(api, victim.gateway) == before and victim.state()[0] == 200
