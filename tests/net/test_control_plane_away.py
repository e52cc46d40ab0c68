# SPDX-License-Identifier: BSD-2-Clause
"""No API, and no agent either: what was granted is spent, and the turn of the cycle comes on time. Truth is what arrived."""

import subprocess
import time
from datetime import datetime, timedelta, timezone

import pytest

from agent_lab import inside, laboratory, run, wait_for
from test_agent import deploy

SIZE = 1000 + 28  # of a packet, with IP and UDP
BOUND = 1_000_000  # a limit is reached within 1 MB or 0.1 %, and never passed
# Each says when the one before it was sent.
SEND = """
import socket, struct, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
before = 0
while True:
    for _ in range(20):
        now = time.time()
        s.sendto(struct.pack('=d', before).ljust(1000), ('10.1.0.10', 5000))
        before = now
    time.sleep(0.01)
"""
# When (as the kernel saw it), how many by then, and when the datagram before was sent: each 20 ms, and behind a gap.
COUNT = """
import socket, struct, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
s.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS
s.bind(('10.1.0.10', 5000))
s.settimeout(0.05)
n, last, at, before = 0, 0, 0, 0
while True:
    try:
        data, extra, _, _ = s.recvmsg(2000, 64)
        n += 1
        seconds, ns = struct.unpack('=qq', extra[0][2])
        at, (before,) = seconds + ns / 1e9, struct.unpack_from('=d', data)
        if at - last < 0.02: continue
        last = at
    except TimeoutError: at, last = time.time(), 0
    print(at, n, before, flush=True)
"""


@pytest.fixture
def lab():
    with laboratory() as parts:
        yield parts


class Flow:
    """Packets from a client to an instance, for as long as this lives, about 2 MB/s; and how many arrived when."""

    def __init__(self, client, folder):
        self.path = folder / "arrived"
        self.count = subprocess.Popen(inside("inst", "/usr/bin/python3", "-c", COUNT), stdout=open(self.path, "w"))
        wait_for("the counter listens", lambda: self.path.read_text())
        self.send = subprocess.Popen(inside(client.namespace, "/usr/bin/python3", "-c", SEND))

    def samples(self):
        whole, _, _ = self.path.read_text().rpartition("\n")
        return [(float(at), int(n), float(before)) for at, n, before in (line.split() for line in whole.splitlines())]

    def arrived(self):
        return self.samples()[-1][1] * SIZE

    def arrived_by(self, moment):
        return max((n for at, n, _ in self.samples() if at < moment), default=0) * SIZE

    def is_spent(self, most):
        """No more is left of so much than the bound, and nothing comes for a second."""
        at, n, _ = self.samples()[-1]
        return n * SIZE > most - BOUND and n * SIZE == self.arrived_by(at - 1.0)

    def wait_flows(self):
        before = self.arrived()
        wait_for("it flows", lambda: self.arrived() > before)

    def stop(self):
        self.send.kill()
        self.send.wait()
        if self.count.poll() is None:
            wait_for("all has arrived", lambda: self.arrived() == self.arrived_by(self.samples()[-1][0] - 0.5))
            self.count.kill()
            self.count.wait()


@pytest.fixture
def flow(lab, tmp_path):
    _, _, clients = lab
    made = []

    def begin():
        made.append(Flow(clients[0], tmp_path))
        return made[-1]

    yield begin
    for one in made:
        one.stop()


def grant(cycle, ceiling, **more):
    return {"cycle": cycle, "grant_seq": 1, "ceiling": ceiling if ceiling is None else str(ceiling), "mask": "both", **more}


def deploy_and_prepare(lab, ceiling, next_ceiling, seconds):
    """The ceiling comes on top of what is counted already. Returns when the next cycle begins, and that count's uploads.

    The next cycle is further away on a machine that is busy, which took longer for the deployment: about a second.
    """
    api, _, clients = lab
    begun = time.monotonic()
    deploy(lab)
    wait_for("its ping is reported", lambda: api.counted(clients[0].id)[0] >= 84)
    took = time.monotonic() - begun
    time.sleep(1.2)
    before, counted = api.counted(clients[0].id)[0], int(api.last()["grant"]["cycle_counted"])
    turn = datetime.now(timezone.utc) + timedelta(seconds=max(seconds, min(2.5 * took, 30)))
    api.grant = {**grant(202611, ceiling and counted + ceiling), "grant_seq": 2}
    api.next_grant = grant(202612, next_ceiling, not_before=turn.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    api.wait_applied(api.set_state())
    return turn.timestamp(), before


@pytest.mark.parametrize("alive", [False, True], ids=["agent killed", "agent alive"])
def test_revoke_access_spends_its_grant_and_resumes_at_the_turn(lab, flow, alive):
    api, gateway, clients = lab
    turn, before = deploy_and_prepare(lab, 3_000_000, 4_000_000, 8)
    api.close()
    if not alive:
        gateway.kill_agent()
    traffic = flow()
    wait_for("the new cycle", lambda: traffic.arrived() > traffic.arrived_by(turn))
    spent = traffic.arrived_by(turn - 0.1)
    assert 3_000_000 - BOUND < spent <= 3_000_000, "not a packet before it"
    last_refused = next(sent for _, n, sent in traffic.samples() if n * SIZE > spent)
    assert last_refused < turn + 1.5, f"{last_refused - turn:.3f} s"
    wait_for("the new grant is spent", lambda: traffic.is_spent(spent + 4_000_000))
    traffic.stop()
    assert traffic.arrived() - spent <= 4_000_000
    arrived = traffic.arrived()

    # Back again: every byte is reported, and in its cycle.
    api.listen()
    if not alive:
        gateway.start_agent()
    wait_for("all is reported", lambda: api.last()["grant"]["cycle"] == 202612 and api.counted(clients[0].id)[0] == before + arrived)
    assert int(api.last()["grant"]["cycle_counted"]) == arrived - spent and api.last()["grant"]["exhausted"]


def test_without_a_ceiling_everything_goes_on(lab, flow):
    """`none` and `charge_overage`: nothing to spend, so nothing ends; the agent turns the cycle by itself."""
    api, gateway, clients = lab
    turn, before = deploy_and_prepare(lab, None, None, 4)
    api.close()
    traffic = flow()
    wait_for("cycle 202612 has begun", lambda: "cycle 202612 has begun" in gateway.log.read_text())
    wait_for("the turn is over", lambda: time.time() > turn + 1)
    traffic.wait_flows()
    gateway.kill_agent()
    time.sleep(1)
    traffic.wait_flows()
    traffic.stop()
    arrived = traffic.arrived()
    api.listen()
    gateway.start_agent()
    wait_for("all is reported", lambda: api.counted(clients[0].id)[0] == before + arrived)
    last = api.last()["grant"]
    assert last["cycle"] == 202612 and not last["exhausted"]
    assert traffic.arrived_by(turn - 0.1) <= arrived - int(last["cycle_counted"]) <= traffic.arrived_by(turn + 1.5), "from the turn on"
