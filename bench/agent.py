# SPDX-License-Identifier: BSD-2-Clause
"""What wiretoll-agent costs, and how fast a changed peer is in force, with real wireguard-go and a pretended API.

Prints its samples as lines of JSON, as the other parts do. A packet that is lost, or a peer that is not counted, ends
it with an error.
"""

import argparse
import base64
import contextlib
import io
import json
import os
import secrets
import socket
import statistics
import subprocess
import sys
import threading
import time
import types
import uuid
from pathlib import Path

from process import cpu_time, memory

for folder in ("net", "demo"):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / folder))

from agent_lab import UID, inside, laboratory, run, wait_for  # noqa: E402
from lab import Pinger  # noqa: E402

REPORT_EVERY = 10
PEERS, MANY = 1000, 4000  # the agent's meter has 4,096 slots
SETTLE = 1.0
SOCKET = "/run/wireguard/wg0.sock"
STATE = {
    "interface": {"addresses": ["10.99.0.1/24"], "listen_port": 51820, "mtu": 1420},
    "firewall": {"tunnel_subnets": ["10.99.0.0/24"], "vpc_subnets": ["10.1.0.0/24"], "remote_subnets": ["10.96.0.0/16"]},
    "routes": ["10.96.0.0/16"],
    "masquerade": "road_warriors",
    "refuse": [],
}
# Each peer's download grows every second. None has a session, so WireGuard drops what the meter has counted.
SENDER = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
due = time.monotonic()
while True:
    for i in range(int(sys.argv[1])):
        s.sendto(bytes(72), (f"10.96.{i >> 8}.{i & 255}", 9))
    due += 1
    time.sleep(max(due - time.monotonic(), 0))
"""


def put(name, unit, values):
    print(json.dumps({"series": name, "unit": unit, "values": values}), flush=True)


def peer(number):
    return {"id": str(uuid.UUID(int=0xDEF0000 + number)), "public_key": base64.b64encode(secrets.token_bytes(32)).decode(),
            "preshared_key": None, "endpoint": None, "keepalive": 0,
            "allowed_ips": [f"10.96.{number >> 8}.{number & 255}/32"], "enabled": True}


class Between:
    """Between the agent and WireGuard's socket: counts the requests that change something, and their bytes."""

    def __init__(self):
        self.sets = self.bytes = 0
        self.real = SOCKET + ".real"
        os.rename(SOCKET, self.real)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(SOCKET)
        os.chown(SOCKET, UID, UID)
        self.listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self._carry, args=(connection,), daemon=True).start()

    def _carry(self, agent):
        with agent, socket.socket(socket.AF_UNIX) as wireguard, contextlib.suppress(OSError):
            wireguard.connect(self.real)
            threading.Thread(target=self._answer, args=(wireguard, agent), daemon=True).start()
            while data := agent.recv(1 << 20):
                self.sets += data.count(b"set=1\n")
                self.bytes += len(data) if not data.startswith(b"get=1") else 0
                wireguard.sendall(data)
            wireguard.shutdown(socket.SHUT_WR)

    @staticmethod
    def _answer(wireguard, agent):
        with contextlib.suppress(OSError):
            while data := wireguard.recv(1 << 20):
                agent.sendall(data)
            agent.shutdown(socket.SHUT_WR)


def enroll_slowly(api):
    """As the real API answers: a report every ten seconds."""
    enroll = api.enroll

    def answer(body):
        status, reply = enroll(body)
        return status, {**reply, "report_every": REPORT_EVERY} if status == 201 else reply

    api.enroll = answer


def measure_cost(api, gateway, windows):
    run(*inside("inst", "ip", "route", "add", "10.96.0.0/16", "via", "10.1.0.2"))
    sender = subprocess.Popen(inside("inst", sys.executable, "-c", SENDER, PEERS))
    try:
        time.sleep(SETTLE)
        pid, shares = gateway.agent.pid, []
        for _ in range(windows):
            begun, used = time.monotonic(), cpu_time(pid)
            time.sleep(REPORT_EVERY)
            shares.append(100 / (time.monotonic() - begun) * (cpu_time(pid) - used))
        wait_for("a report of all peers", lambda: len(api.last()["records"]) >= PEERS, 2 * REPORT_EVERY)
    finally:
        sender.kill()
        sender.wait()
    put("agent/cpu", "%", shares)
    put("agent/anonymous", "bytes", [memory(pid)])
    put("agent/resident", "bytes", [memory(pid, "VmRSS")])


def change(api, peers, number):
    """Gives one peer another key; returns milliseconds until the agent has reported that it is in force."""
    peers[number] = {**peers[number], "public_key": peer(number)["public_key"]}
    begun = time.monotonic()
    revision = api.set_state(peers=peers)
    with api.lock:
        in_force = api.lock.wait_for(lambda: api.batches[-1]["applied_revision"] >= revision, 20)
    assert in_force, f"revision {revision} is applied"
    return (time.monotonic() - begun) * 1000


def measure_changes(api, peers, client, changes):
    """Of many peers, while another one exchanges packets all the time."""
    host = types.SimpleNamespace(
        spawn=lambda *command, **options: subprocess.Popen(inside(client.namespace, *command), **options))
    ping = Pinger(host, "10.1.0.10", "0.01")
    times = [change(api, peers, 1 + i % (len(peers) - 1)) for i in range(changes)]
    time.sleep(0.1)
    sent, lost = ping.stop()
    assert api.batches[-1]["cannot_apply"] == [], "every peer is in force"
    put("change/milliseconds", "ms", times)
    put("change/slowest", "ms", [statistics.quantiles(times, n=100, method="inclusive")[98]])
    put("change/lost", "packets", [lost])
    put("change/sent", "packets", [sent])


def count_messages(api, peers, between, size):
    peers += [peer(i) for i in range(len(peers), size + 1)]
    api.wait_applied(api.set_state(peers=peers), 120)
    assert api.batches[-1]["cannot_apply"] == [], "there is room for every peer"
    sets, octets, changes = between.sets, between.bytes, 5
    for i in range(changes):
        change(api, peers, 1 + i)
    put(f"messages/{size}/count", "messages", [(between.sets - sets) / changes])
    put(f"messages/{size}/bytes", "bytes", [(between.bytes - octets) / changes])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--windows", type=int, default=1)
    parser.add_argument("--changes", type=int, default=40)
    arguments = parser.parse_args()
    # The laboratory prints the agent's log at the end.
    with contextlib.redirect_stdout(io.StringIO()), laboratory() as (api, gateway, clients), \
            contextlib.redirect_stdout(sys.__stdout__):
        # A state of 1,000 peers takes several writes; the last must not wait for an acknowledgement.
        api.server.RequestHandlerClass.disable_nagle_algorithm = True
        enroll_slowly(api)
        client = clients[0]
        peers = [client.peer(), *(peer(i) for i in range(1, PEERS + 1))]
        api.set_state(**STATE, peers=peers)
        gateway.start_wireguard()
        wait_for("the gateway's socket", lambda: os.path.exists(SOCKET))
        between = Between()
        gateway.start_agent()
        wait_for("the gateway is active", lambda: api.batches and api.batches[-1]["active_since"], 60)
        measure_cost(api, gateway, arguments.windows)
        client.connect(gateway.key())
        wait_for("the client is connected", lambda: client.ping() == 1)
        measure_changes(api, peers, client, arguments.changes)
        for size in (PEERS, MANY):
            count_messages(api, peers, between, size)


if __name__ == "__main__":
    main()
