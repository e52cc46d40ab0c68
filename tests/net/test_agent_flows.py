# SPDX-License-Identifier: BSD-2-Clause
"""Connections end with the right to them: at once, with real packets and the kernel's own table of connections."""

import contextlib
import re
import subprocess
import time

import pytest

from agent_lab import inside, laboratory, run, wait_for
from test_agent import STATE, deploy

PORT = 5353
ENOUGH = 100  # datagrams

# Answers one datagram with a stream, for as long as it lives: what a replayed or forgotten connection would let through.
# Each datagram has its number and when it was sent: one that was under way is no sign of what is let through now.
STREAM = f"""
import itertools, socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('10.1.0.10', {PORT}))
s.settimeout(0.005)
callers = set()
for number in itertools.count():
    try: callers.add(s.recvfrom(2000)[1])
    except TimeoutError: pass
    for caller in callers: s.sendto(f'{{number}} {{time.monotonic()}}'.encode().ljust(200), caller)
"""
# Calls it (or only listens, where another has called), and writes down what comes.
LISTEN = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
s.bind((sys.argv[1], 4000))
if sys.argv[2] == 'call': s.sendto(b'x', ('10.1.0.10', %d))
print('ready', flush=True)
while True:
    print(s.recv(2000).decode(), flush=True)
""" % PORT


@pytest.fixture
def lab():
    with laboratory() as parts:
        yield parts


class Listener:
    def __init__(self, namespace, address, verb, folder):
        self.path = folder / f"{namespace}-{verb}-{address}"
        self.process = subprocess.Popen(inside(namespace, "/usr/bin/python3", "-c", LISTEN, address, verb), stdout=open(self.path, "w"))
        wait_for("it listens", lambda: self.path.read_text())

    def datagrams(self):
        """(number, when it was sent) of each that came."""
        whole, _, _ = self.path.read_text().partition("\n")[2].rpartition("\n")
        return [(int(number), float(sent)) for number, sent in (line.split() for line in whole.splitlines())]

    def since(self, moment):
        """Those that were sent behind it."""
        return [number for number, sent in self.datagrams() if sent > moment]

    def wait_flows(self):
        """Many more that are sent from now on."""
        now = time.monotonic()
        wait_for("it flows", lambda: len(self.since(now)) >= ENOUGH)


@contextlib.contextmanager
def streaming(*listeners):
    server = subprocess.Popen(inside("inst", "/usr/bin/python3", "-c", STREAM))
    made = []
    try:
        wait_for("the server listens", lambda: f":{PORT}" in run(*inside("inst", "ss", "-lun")))
        made = [make() for make in listeners]
        yield made
    finally:
        for process in [server, *(listener.process for listener in made)]:
            process.kill()
            process.wait()


def tracked(address):
    return run(*inside("gw", "conntrack", "-L", "-s", address, "-p", "udp"), check=False).count("src=" + address)


def test_a_disabled_peers_connections_end_and_no_others(lab, tmp_path):
    api, _, clients = lab
    deploy(lab)
    with streaming(*(lambda c=c: Listener(c.namespace, c.address, "call", tmp_path) for c in clients)) as (first, second):
        first.wait_flows()
        second.wait_flows()
        assert tracked(clients[0].address) == tracked(clients[1].address) == 1
        revision = api.set_state(peers=[clients[0].peer(enabled=False), clients[1].peer()])
        api.wait_applied(revision)
        applied = time.monotonic()
        wait_for("the table forgets", lambda: tracked(clients[0].address) == 0)
        second.wait_flows()
        assert first.since(applied) == []
        assert tracked(clients[1].address) == 1
        numbers = [number for number, _ in second.datagrams()]
        assert max(b - a for a, b in zip(numbers, numbers[1:])) < ENOUGH, "the other's went on"


def test_an_address_given_anew_inherits_nothing(lab, tmp_path):
    """The stream that the first peer called for must not reach the second, who has its address now."""
    api, _, clients = lab
    deploy(lab)
    heir = clients[1]
    with streaming(lambda: Listener(clients[0].namespace, clients[0].address, "call", tmp_path),
                   lambda: Listener("inst", "10.1.0.10", "call", tmp_path)) as (first, beside):
        first.wait_flows()
        run(*inside(heir.namespace, "ip", "addr", "add", f"{clients[0].address}/32", "dev", heir.device))
        listener = Listener(heir.namespace, clients[0].address, "listen", tmp_path)
        try:
            # In one change, as a site's prefix moves: the address is nobody's for no moment.
            moved = api.set_state(peers=[heir.peer(allowed_ips=[f"{heir.address}/32", f"{clients[0].address}/32"])])
            api.wait_applied(moved)
            applied = time.monotonic()
            assert heir.ping() == 1, "the heir is connected"
            beside.wait_flows()
            # What the gateway had passed on to WireGuard before, WireGuard may deliver by what it is told meanwhile.
            assert listener.since(applied) == []
            assert tracked(clients[0].address) == 0
            # It is its address: its own call is answered.
            run(*inside(heir.namespace, "/usr/bin/python3", "-c", "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
                        f"s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(('{clients[0].address}', 4001));"
                        f"s.settimeout(30); s.sendto(b'x', ('10.1.0.10', {PORT})); s.recv(2000)"))
        finally:
            listener.process.kill()
            listener.process.wait()


def test_a_range_that_is_no_longer_allowed_is_cut_off_at_once(lab, tmp_path):
    api, _, clients = lab
    deploy(lab)
    with streaming(lambda: Listener("c1", clients[0].address, "call", tmp_path),
                   lambda: Listener("inst", "10.1.0.10", "call", tmp_path)) as (listener, beside):
        listener.wait_flows()
        # The rules alone would let it pass for ever: it is established, and both ends keep it alive.
        assert "ct state established,related accept" in re.sub(r"\s+", " ", run(*inside("gw", "nft", "list", "ruleset"))).replace(
            "established, related", "established,related")
        narrowed = {**STATE["firewall"], "vpc_subnets": ["10.1.0.128/25"]}
        revision = api.set_state(firewall=narrowed)
        api.wait_applied(revision)
        applied = time.monotonic()
        beside.wait_flows()
        assert listener.since(applied) == []
        assert tracked(clients[0].address) == 0 and clients[0].ping(wait=1) == 0
        api.wait_applied(api.set_state(firewall=STATE["firewall"]))
        assert clients[0].ping() == 1


def test_what_changed_while_the_agent_was_away_ends_at_its_start(lab, tmp_path):
    api, gateway, clients = lab
    deploy(lab)
    with streaming(*(lambda c=c: Listener(c.namespace, c.address, "call", tmp_path) for c in clients)) as (first, second):
        first.wait_flows()
        second.wait_flows()
        gateway.kill_agent()
        revision = api.set_state(peers=[clients[1].peer()])
        first.wait_flows()  # nothing ends without it
        gateway.start_agent()
        api.wait_applied(revision)
        applied = time.monotonic()
        wait_for("the table forgets", lambda: tracked(clients[0].address) == 0)
        assert tracked(clients[1].address) == 1
        second.wait_flows()
        assert first.since(applied) == []


def seconds_until_it_is_back(api, client):
    ticks = subprocess.Popen(inside("inst", "ping", "-D", "-O", "-i", "0.02", "-W", "1", client.address), stdout=subprocess.PIPE, text=True)
    try:
        api.wait_applied(api.set_state(peers=[client.peer(enabled=False)], masquerade="none",
                                       firewall={**STATE["firewall"], "remote_subnets": [f"{client.address}/32", "192.168.7.0/24"]}))
        time.sleep(1)
        begun = time.time()
        api.set_state(peers=[client.peer()])
        for line in ticks.stdout:
            if " bytes from " in line and float(line[1:line.index("]")]) > begun:
                return float(line[1:line.index("]")]) - begun
            assert time.time() < begun + 20, "it does not come back"
    finally:
        ticks.kill()
        ticks.wait()
    raise AssertionError("ping has ended")


def test_a_disabled_peer_is_back_in_half_a_second(lab):
    """Its last endpoint is given back and called: with no keepalive of its own, the client would not ask for 10 s or more."""
    api, _, clients = lab
    deploy(lab)
    seconds = []
    # Again when it took longer: the machine may have been busy with something else, but not each time.
    while len(seconds) < 15 and not (seconds and seconds[-1] < 0.5):
        seconds.append(seconds_until_it_is_back(api, clients[0]))
    assert seconds[-1] < 0.5, seconds
