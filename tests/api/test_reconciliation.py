# SPDX-License-Identifier: BSD-2-Clause
"""Counts held against each other once an hour: the meter, WireGuard, the interface, the journal, records and ledger (X2)."""

import pytest

from billing_model import past_hours
from simulated_agent import HOUR, World, active_agent, now
from test_ingestion import metric


def said(agent, encrypted=False, **changes):
    """What an agent without fault says: WireGuard adds 32 bytes a packet and pads, the interface counts the same."""
    up, down, up_packets, down_packets = (sum(t[field] for t in agent.totals.values()) for field in
                                          ("upload_bytes", "download_bytes", "upload_packets", "download_packets"))
    counts = {
        "meter": {"upload_bytes": up, "download_bytes": down, "upload_packets": up_packets, "download_packets": down_packets},
        "wireguard": {"rx_bytes": up + 33 * up_packets, "tx_bytes": down + 40 * down_packets},
        "interface": {"rx_bytes": up, "tx_bytes": down},
        "journal": {"seq": agent.seq, "upload_bytes": agent.journaled[0], "download_bytes": agent.journaled[1]}}
    if encrypted:
        counts["interface"] = {"rx_bytes": up + 32 * up_packets, "tx_bytes": down + 32 * down_packets}
    for path, by in changes.items():
        source, field = path.split("__")
        counts[source][field] += by
    told = {source: {field: value if field == "seq" else str(value) for field, value in of.items()} for source, of in counts.items()}
    if encrypted:
        told["interface"]["encrypted"] = True
    return told


def report(agent, peer, **changes):
    """An hour has passed since the last comparison."""
    api = agent.api
    api.sql("UPDATE billing.reconciliation SET at = at - interval '1 hour', claimed = claimed - interval '1 hour' WHERE gateway = %s", agent.gateway.id)
    agent.journaled = [sum(t[field] for t in agent.totals.values()) for field in ("upload_bytes", "download_bytes")]
    records = [agent.grow(0, None, now(), upload_bytes=3, upload_packets=1),
               agent.grow(1, peer, now(), upload_bytes=1000, download_bytes=700, upload_packets=10, download_packets=2)]
    agent.report(records, reconcile=said(agent, **changes))
    view = api.request("GET", f"/v1/gateways/{agent.gateway.id}", token=api.admin_token)[1]
    return view["reconciliation"], [(alarm["kind"], alarm["subject"], alarm["detail"]["bytes"]) for alarm in view["alarms"]]


PAIRS = {"records_rollup", "overage_lines", "meter_records", "journal_records", "wireguard_meter", "interface_meter"}


def test_counts_that_agree_are_no_drift(api):
    agent = active_agent(World(api), included_gb="0")
    peer = agent.gateway.peer()
    for _ in range(3):
        compared, alarms = report(agent, peer)
        assert compared["drift"] == dict.fromkeys(PAIRS, "0") and alarms == []
    assert compared["epoch"] == agent.epoch
    assert compared["counts"]["records"] == {"upload_bytes": "3009", "download_bytes": "2100", "upload_packets": "33", "download_packets": "6"}
    assert metric(api, "wiretoll_reconciled_gateways") >= 1


@pytest.mark.parametrize("change, between, drift", [
    ({"meter__upload_bytes": 1}, "meter_records", "1"), ({"meter__download_bytes": -2}, "meter_records", "-2"),
    ({"wireguard__rx_bytes": -12}, "wireguard_meter", "-1"), ({"wireguard__rx_bytes": -11}, None, None),
    ({"interface__rx_bytes": -1}, "interface_meter", "-1"), ({"interface__rx_bytes": 15 * 11 + 4}, "interface_meter", "4"),
    ({"interface__rx_bytes": 15 * 11}, None, None),
    ({"journal__upload_bytes": 5}, "journal_records", "5"), ({"wireguard__tx_bytes": -80}, None, None)])
def test_counts_that_differ_are_a_drift_until_they_agree(api, change, between, drift):
    agent = active_agent(World(api))
    peer = agent.gateway.peer()
    name = f'wiretoll_drift_bytes{{gateway="{agent.gateway.id}",between="{between}"}}'
    compared, alarms = report(agent, peer, **change)
    assert {pair: by for pair, by in compared["drift"].items() if by != "0"} == ({between: drift} if between else {})
    assert alarms == ([("drift", between, drift)] if between else [])
    assert metric(api, name) == int(drift or 0)
    assert report(agent, peer)[1] == []
    assert metric(api, name) == 0


def test_an_interface_that_counts_messages(api):
    """As the kernel's WireGuard does: 32 bytes more for each packet at least, and handshakes."""
    agent = active_agent(World(api))
    peer = agent.gateway.peer()
    for beyond, drift in ((0, "0"), (-1, "-1"), (5000, "0")):
        compared, alarms = report(agent, peer, interface__rx_bytes=beyond, encrypted=True)
        assert compared["drift"]["interface_meter"] == drift
        assert alarms == ([("drift", "interface_meter", drift)] if drift != "0" else [])


def test_records_and_ledger_are_compared_without_the_agent(api):
    hours = past_hours(2)
    agent = active_agent(World(api), since=hours[0], included_gb="0")
    peer = agent.gateway.peer()
    agent.report([agent.grow(1, peer, hour, upload_bytes=500) for hour in hours], covered=(hours[0], hours[1] + HOUR))
    api.sql("UPDATE billing.usage_hour SET up = up + 9 WHERE gateway = %s AND hour = %s", agent.gateway.id, hours[1])
    api.sql("UPDATE billing.overage_hour SET posted_bytes = posted_bytes - 7 WHERE gateway = %s AND hour = %s", agent.gateway.id, hours[0])
    agent.journaled = [0, 0]
    compared, alarms = report(agent, peer)
    assert (compared["drift"]["records_rollup"], compared["drift"]["overage_lines"]) == ("-9", "-7")
    assert sorted(alarms) == [("drift", "overage_lines", "-7"), ("drift", "records_rollup", "-9")]


@pytest.mark.parametrize("counts", [{"meter": {"upload_bytes": "1"}}, {"wireguard": {"rx_bytes": 1, "tx_bytes": "1"}}, {"journal": {
    "seq": "1", "upload_bytes": "1", "download_bytes": "1"}}, {"interface": []}, {
    "interface": {"rx_bytes": "1", "tx_bytes": "1", "encrypted": "yes"}}, 5])
def test_malformed_counts(api, counts):
    agent = active_agent(World(api))
    assert agent.send(agent.batch(reconcile=counts))[0] == 400
