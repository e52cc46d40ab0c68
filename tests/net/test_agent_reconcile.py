# SPDX-License-Identifier: BSD-2-Clause
"""WireGuard's own counts since the epoch began, as reports tell them once an hour and when an agent begins (X2).

The oracle reads `wg show wg0 transfer` itself, before and after each change, and adds up what each peer had in its time.
"""

import subprocess

import pytest

from agent_lab import inside, laboratory, run, wait_for
from test_agent import deploy

HANDSHAKES = 2000  # bytes of handshakes and keepalives that the packets do not explain


@pytest.fixture
def lab():
    with laboratory() as parts:
        yield parts


class Truth:
    """Sums of (received, sent) over all peers that ever were in the device."""

    def __init__(self, clients):
        self.names = {client.public_key: client for client in clients}
        self.gone = [0, 0]

    def now(self):
        lines = [line.split() for line in run(*inside("gw", "wg", "show", "wg0", "transfer")).splitlines()]
        return {key: (int(rx), int(tx)) for key, rx, tx in lines}

    def leaves(self, client):
        for way, count in enumerate(self.now()[client.public_key]):
            self.gone[way] += count

    def sums(self):
        live = self.now().values()
        return [gone + sum(of[way] for of in live) for way, gone in enumerate(self.gone)]


def assert_agree(api, gateway, truth):
    """What is told lies between what WireGuard has received before and after, and what the API holds against it is no drift."""
    before = truth.sums()
    counts = told(api, gateway)
    after = truth.sums()
    wireguard, meter = counts["wireguard"], counts["meter"]
    for field, least, most in zip(("rx_bytes", "tx_bytes"), before, after):
        assert least <= wireguard[field] <= most + HANDSHAKES
    explained = meter["upload_bytes"] + 32 * meter["upload_packets"]
    assert explained <= wireguard["rx_bytes"] <= explained + 15 * meter["upload_packets"] + HANDSHAKES
    return counts


def told(api, gateway):
    """What the next process tells first. The one before is killed."""
    gateway.kill_agent()
    with api.lock:
        mark = len(api.batches)
    gateway.start_agent()
    wait_for("counts are told", lambda: any("reconcile" in batch for batch in api.batches[mark:]))
    with api.lock:
        counts = next(batch["reconcile"] for batch in api.batches[mark:] if "reconcile" in batch)
    return {source: {field: int(value) for field, value in of.items()} for source, of in counts.items()}


def test_wireguards_counts_outlive_peers_and_processes(lab):
    api, gateway, clients = lab
    deploy(lab)
    truth = Truth(clients)
    first, second = clients
    assert first.ping(count=30, size=700) == 30 and second.ping(count=20) == 20
    assert_agree(api, gateway, truth)
    # Gone, and back: WireGuard counts it from 0.
    truth.leaves(first)
    api.wait_applied(api.set_state(peers=[second.peer()]))
    api.wait_applied(api.set_state(peers=[first.peer(), second.peer()]))
    first.set_peer(gateway.key())
    assert first.ping(count=10, size=300) == 10
    assert_agree(api, gateway, truth)
    # Under another key, which takes the address over.
    truth.leaves(second)
    moved = {**second.peer(), "public_key": run("wg", "pubkey", input=run("wg", "genkey")).strip()}
    api.wait_applied(api.set_state(peers=[first.peer(allowed_ips=[f"{first.address}/32", "192.168.7.0/24"]), moved]))
    assert first.ping(count=5) == 5
    counts = assert_agree(api, gateway, truth)
    assert counts["wireguard"]["rx_bytes"] > sum(rx for rx, _ in truth.now().values()) + 10000
    assert len({batch["epoch"]["id"] for batch in api.batches}) == 1


def test_a_peer_that_leaves_while_it_sends_is_not_short(lab):
    """Its last packets are in WireGuard's count when that is read, however many are under way.

    They need no padding: beyond 32 bytes a packet there are only the handshakes, of less than one packet together.
    """
    api, gateway, clients = lab
    deploy(lab)
    sender = clients[0]
    flood = subprocess.Popen(inside(sender.namespace, "ping", "-q", "-f", "-s", "996", "10.1.0.10"), stdout=subprocess.DEVNULL)
    try:
        for _ in range(5):
            wait_for("its bytes", lambda: Truth(clients).now()[sender.public_key][0] > 150000)
            api.wait_applied(api.set_state(peers=[clients[1].peer()]))
            api.wait_applied(api.set_state(peers=[client.peer() for client in clients]))
            sender.set_peer(gateway.key())
    finally:
        flood.terminate()
        flood.wait()
    counts = told(api, gateway)
    meter, received = counts["meter"], counts["wireguard"]["rx_bytes"]
    assert meter["upload_packets"] > 500
    assert 0 <= received - meter["upload_bytes"] - 32 * meter["upload_packets"]


def test_what_others_have_changed_is_not_told(lab):
    """Who takes a peer out behind the agent takes its counts away: no sum is told rather than a wrong one."""
    api, gateway, clients = lab
    deploy(lab)
    assert clients[0].ping(count=20, size=700) == 20
    assert "wireguard" in told(api, gateway)
    run(*inside("gw", "wg", "set", "wg0", "peer", clients[0].public_key, "remove"))
    counts = told(api, gateway)
    assert "wireguard" not in counts and counts["meter"]["upload_packets"] >= 20
    wait_for("the peer is back", lambda: clients[0].public_key in gateway.peers())
    assert "wireguard" not in told(api, gateway)
