# SPDX-License-Identifier: BSD-2-Clause
"""Fair and audited (M4): what WireGuard drops is given back, what it delivers is not, and a count without WireGuard's is told.

The truth is what the sender sent, what the clients' own devices counted, and what WireGuard itself says.
"""

import base64
import datetime
import subprocess
import time
import uuid
from pathlib import Path

import pytest

from agent_lab import BIN, inside, laboratory, run, wait_for

STATE = {
    "interface": {"addresses": ["10.99.0.1/24"], "listen_port": 51820, "mtu": 1420},
    "firewall": {"tunnel_subnets": ["10.99.0.0/24"], "vpc_subnets": ["10.1.0.0/24"], "remote_subnets": ["10.99.0.0/24"]},
    "routes": [],
    "masquerade": "road_warriors",
    "refuse": [],
}
SETTLE = 3  # seconds; what waits for a handshake must be through by then
PYTHON = "/usr/bin/python3"

SEND = """
import socket, sys, time
source, address, count, length, pause = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((source, 0))
begin = time.monotonic()
for i in range(count):
    s.sendto(bytes(length - 28), (address, 7000))
    time.sleep(max(0, begin + (i + 1) * pause - time.monotonic()))
"""

# Uploads in TCP and UDP, echoed: each packet goes both ways, in several sizes.
ECHO_SERVER = """
import socket, threading
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(('10.1.0.10', 6000))
t = socket.create_server(('10.1.0.10', 5000))
def datagrams():
    while True:
        data, peer = u.recvfrom(2000)
        u.sendto(data, peer)
threading.Thread(target=datagrams, daemon=True).start()
while True:
    c = t.accept()[0]
    c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := c.recv(65536): c.sendall(data)
    c.close()
"""
ECHO_CLIENT = """
import socket, threading, time
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.connect(('10.1.0.10', 6000)); u.settimeout(20)
t = socket.create_connection(('10.1.0.10', 5000)); t.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
for i in range(250):
    u.send(bytes(1 + i * 7 % 1390))
    assert len(u.recv(2000)) == 1 + i * 7 % 1390
    t.sendall(bytes(3000)); n = 0
    while n < 3000: n += len(t.recv(65536))
    time.sleep(0.002)
"""


@pytest.fixture
def lab():
    with laboratory() as parts:
        yield parts


def deploy(lab, connect=(), settle=SETTLE):
    api, gateway, clients = lab
    api.set_state(**STATE, peers=[client.peer() for client in clients])
    gateway.start_wireguard()
    gateway.start_agent("--settle-seconds", settle)
    wait_for("the gateway is active", lambda: api.batches and api.batches[-1]["active_since"])
    for client in connect:
        client.connect(gateway.key())
        assert client.ping() == 1


def send(client, count, length, pause=0.001):
    """Paced datagrams of `length` bytes, IP header included, from the instance to a client."""
    run(*inside("inst", PYTHON, "-c", SEND, "10.1.0.10", client.address, count, length, pause))
    return count * length


def undelivered(api, client):
    with api.lock:
        return sum(int(record["undelivered_bytes"]) for peer, record in api.totals.values() if peer == client.id)


def seconds_until_given_back(api, client):
    """By the gateway's clock, from no later than the first byte's count until bytes were first said to be undelivered."""
    def when(edge, field):
        return next(datetime.datetime.fromisoformat(batch[edge].replace("Z", "+00:00")) for batch in api.batches
                    for record in batch["records"] if record["peer"] == client.id and int(record[field]))

    with api.lock:
        return (when("covered_to", "undelivered_bytes") - when("covered_from", "download_bytes")).total_seconds()


def audits(api):
    """All that the reports ever said about an audit: (peer, verdict)."""
    with api.lock:
        return [(entry["peer"], entry["audit"]) for batch in api.batches for entry in batch["status"] if "audit" in entry]


def settled(api):
    """All samples that may hold a count of before now are taken, compared and reported."""
    time.sleep(SETTLE * 1.25 + 1)
    seen = len(api.batches)
    wait_for("two reports more", lambda: len(api.batches) >= seen + 2)


def test_a_peer_without_an_endpoint_is_not_billed(lab):
    api, gateway, (there, absent) = lab
    deploy(lab, connect=[there])
    sent = send(absent, 700, 500)
    wait_for("the count", lambda: api.counted(absent.id)[1] == sent)
    wait_for("all of it to be given back", lambda: undelivered(api, absent) == sent)
    assert seconds_until_given_back(api, absent) > SETTLE, "until then it might still have arrived"
    # What was said stands, whoever is killed, and is said by the next process, too.
    gateway.kill_agent()
    sent += send(absent, 100, 700)
    gateway.start_agent("--settle-seconds", SETTLE)
    wait_for("the count goes on", lambda: api.counted(absent.id)[1] == sent)
    before = undelivered(api, absent)
    assert before == 700 * 500
    # Found anew from where the new process began to compare, and not again what the first had found.
    def found_more():
        nonlocal sent
        sent += send(absent, 10, 300)
        time.sleep(0.5)
        return undelivered(api, absent) > before

    wait_for("the new process to compare", found_more)
    since = undelivered(api, absent)
    sent += send(absent, 50, 300)
    wait_for("the rest", lambda: undelivered(api, absent) >= since + 50 * 300)
    assert undelivered(api, absent) <= sent
    assert undelivered(api, there) == 0 and audits(api) == []


def test_what_waited_and_arrived_is_billed(lab):
    api, gateway, (staged, flooded) = lab
    deploy(lab, settle=8)
    for client in (staged, flooded):
        client.connect(gateway.key())  # and says nothing yet
    sent = send(staged, 60, 500)
    lost = send(flooded, 400, 480)  # more than WireGuard keeps waiting
    for client in (staged, flooded):
        run(*inside(client.namespace, "wg", "set", client.device, "peer", gateway.key(), "persistent-keepalive", 25))
    wait_for("what waited", lambda: staged.counters()[1] == sent)
    # Packets of one size that needs no padding: only handshakes and keepalives stand against what was dropped.
    wait_for("what was dropped to be given back", lambda: undelivered(api, flooded) >= lost - flooded.counters()[1] - 600)
    delivered = flooded.counters()[1]
    assert 0 < delivered < lost
    assert undelivered(api, flooded) <= lost - delivered
    assert undelivered(api, staged) == 0
    assert api.counted(flooded.id)[1] == lost
    assert audits(api) == []


def test_an_honest_peer_gets_exactly_nothing_back(lab):
    api, gateway, clients = lab
    deploy(lab, connect=clients)
    server = subprocess.Popen(inside("inst", PYTHON, "-c", ECHO_SERVER))
    try:
        wait_for("the server listens", lambda: "5000" in run(*inside("inst", "ss", "-ltn")))
        for _ in range(2):
            for client in clients:
                run(*inside(client.namespace, PYTHON, "-c", ECHO_CLIENT))
                assert client.ping(count=50, size=1372) == 50
                send(client, 200, 1420)
            # Removed and made anew, key and slot the same: WireGuard counts from 0 again.
            for enabled in (False, True):
                api.wait_applied(api.set_state(peers=[clients[0].peer(enabled=enabled), clients[1].peer()]))
            wait_for("the peer's return", lambda: clients[0].ping(wait=1))
    finally:
        server.kill()
        server.wait()
    settled(api)
    with api.lock:
        said = [record["undelivered_bytes"] for batch in api.batches for record in batch["records"]]
    assert set(said) == {"0"} and audits(api) == []
    assert all(min(api.counted(client.id)) > 700_000 for client in clients)


# Datagrams that name a client as their source enter the gateway's device from another one, past WireGuard.
FORGE = """
import fcntl, os, struct, subprocess, sys, time
sys.path.insert(0, sys.argv[1])
import packets
fd = os.open('/dev/net/tun', os.O_RDWR)
fcntl.ioctl(fd, packets.TUNSETIFF, struct.pack('16sH', b'forge', packets.IFF_TUN_NO_PI))
for command in ('ip link set forge up', 'tc qdisc add dev forge clsact',
                'tc filter add dev forge ingress protocol ip u32 match u32 0 0 action mirred ingress redirect dev wg0'):
    subprocess.run(command.split(), check=True)
for _ in range(400):
    os.write(fd, packets.udp(sys.argv[2], '10.1.0.10', bytes(1200)))
    time.sleep(0.0005)
"""


def test_uploads_that_wireguard_never_received_raise_an_alarm(lab):
    api, gateway, (forged, strange) = lab
    deploy(lab, connect=[forged, strange])
    wait_for("a baseline", lambda: len(api.batches) > 3)
    run(*inside("gw", PYTHON, "-c", FORGE, Path(__file__).parent, forged.address))
    wait_for("the forged count", lambda: api.counted(forged.id)[0] > 400000)
    # A client that sends what it may not: WireGuard receives and drops it.
    run(*inside(strange.namespace, "ip", "addr", "add", "10.99.0.77/32", "dev", strange.device))
    run(*inside(strange.namespace, PYTHON, "-c", SEND, "10.99.0.77", "10.1.0.10", 400, 1300, 0.001))
    wait_for("alarm and note", lambda: sorted(set(audits(api))) == sorted([(forged.id, "rx_short"), (strange.id, "over_padding")]))
    time.sleep(2.5)
    assert gateway.log.read_text().count("WireGuard did not receive") == 1
    assert undelivered(api, forged) == undelivered(api, strange) == 0


# A program in front of the meter's; TCX_NEXT lets all pass. Holds it until it is killed.
SHADOW = """
import ctypes, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes.ljust(128, bytes(1)), 128)
    fd = libc.syscall(321, command, buffer, 128)
    assert fd >= 0, ctypes.get_errno()
    return fd
code = ctypes.create_string_buffer(struct.pack('<BBhiBBhi', 0xb7, 0, 0, -1, 0x95, 0, 0, 0))
license = ctypes.create_string_buffer(b'BSD')
program = bpf(5, struct.pack('<IIQQ', 3, 2, ctypes.addressof(code), ctypes.addressof(license)))
link = bpf(28, struct.pack('<IIII', program, socket.if_nametoindex('wg0'), 46, 1 << 3))
print('there', flush=True)
sys.stdin.read()
"""


def complaints(api):
    return [entry for entry in api.last()["cannot_apply"] if entry["what"] == "meter"]


def test_a_program_in_front_is_told_and_a_lost_meter_begins_anew(lab):
    api, gateway, (there, _) = lab
    deploy(lab, connect=[there])
    shadow = subprocess.Popen(inside("gw", PYTHON, "-c", SHADOW), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert shadow.stdout.readline() == "there\n"
        wait_for("the complaint", lambda: complaints(api))
        time.sleep(2.5)
        assert len(complaints(api)) == 1 and "shadowed" in complaints(api)[0]["reason"]
        assert gateway.log.read_text().count("shadowed") == 1
    finally:
        shadow.kill()
        shadow.wait()
    wait_for("the complaint to end", lambda: not complaints(api))
    first = api.last_epoch()
    links = [path for path in gateway.bpf.rglob("*") if "link" in path.name]
    assert links
    for path in links:
        run("bpftool", "link", "detach", "pinned", path)
    assert gateway.agent.wait(timeout=60) == 1
    gateway.start_agent("--settle-seconds", SETTLE)
    wait_for("a new epoch", lambda: api.last_epoch() != first)
    wait_for("the client passes again", lambda: there.ping(wait=1))
    assert [b["epoch"]["final"] for b in api.batches if b["epoch"]["id"] == first][-1]


SEND_ALL = """
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(2, 1002):
    s.sendto(bytes(500), (f'10.99.{i >> 8}.{i & 255}', 7000))
    time.sleep(0.0005)
"""


def test_a_thousand_peers_take_little_memory(lab):
    api, gateway, _ = lab
    if "sanitize" in str(BIN):
        pytest.skip("sanitizers need more memory than the program")
    peers = [{"id": str(uuid.UUID(int=i)), "public_key": base64.b64encode(i.to_bytes(32, "little")).decode(),
              "preshared_key": None, "endpoint": None, "keepalive": 0, "enabled": True,
              "allowed_ips": [f"10.99.{i >> 8}.{i & 255}/32"]} for i in range(2, 1002)]
    subnets = {"tunnel_subnets": ["10.99.0.0/16"], "vpc_subnets": ["10.1.0.0/24"], "remote_subnets": ["10.99.0.0/16"]}
    api.set_state(**{**STATE, "firewall": subnets, "interface": {**STATE["interface"], "addresses": ["10.99.0.1/16"]}}, peers=peers)
    gateway.start_wireguard()
    gateway.start_agent("--settle-seconds", 1)
    wait_for("the gateway is active", lambda: api.batches and api.batches[-1]["active_since"])
    run(*inside("inst", "ip", "route", "add", "10.99.0.0/16", "via", "10.1.0.2"))
    # Each has a count, an audit and something to give back.
    run(*inside("inst", PYTHON, "-c", SEND_ALL))
    wait_for("all is given back", lambda: all(int(record["undelivered_bytes"]) == 528
                                              for peer, record in api.totals.values() if peer) and len(api.totals) >= 1000)
    status = open(f"/proc/{gateway.agent.pid}/status").read()
    assert int(status.split("RssAnon:")[1].split()[0]) < 6 * 1024
