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
SEND = """
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    for _ in range(20): s.sendto(b'x' * 1000, ('10.1.0.10', 5000))
    time.sleep(0.01)
"""
COUNT = """
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
s.bind(('10.1.0.10', 5000))
s.settimeout(0.05)
n, last = 0, 0
while True:
    try:
        s.recv(2000)
        n += 1
        now = time.time()
        if now - last < 0.02: continue
    except TimeoutError: pass
    last = time.time()
    print(last, n, flush=True)
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
        return [(float(at), int(n)) for at, n in (line.split() for line in whole.splitlines())]

    def arrived(self):
        return self.samples()[-1][1] * SIZE

    def flows(self, seconds=0.3):
        samples = self.samples()
        return samples[-1][1] > max((n for at, n in samples if at < samples[-1][0] - seconds), default=0)

    def stop(self):
        self.send.kill()
        self.send.wait()
        if self.count.poll() is None:
            wait_for("all has arrived", lambda: not self.flows(0.5))
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


def prepare(api, ceiling, next_ceiling, seconds):
    """Deployed with what is counted already beside it; returns when the next cycle begins."""
    counted = int(api.last()["grant"]["cycle_counted"])
    turn = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    api.grant = {**grant(202611, ceiling and counted + ceiling), "grant_seq": 2}
    api.next_grant = grant(202612, next_ceiling, not_before=turn.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    api.wait_applied(api.set_state())
    return turn.timestamp(), counted


@pytest.mark.parametrize("alive", [False, True], ids=["agent killed", "agent alive"])
def test_revoke_access_spends_its_grant_and_resumes_at_the_turn(lab, flow, alive):
    api, gateway, clients = lab
    deploy(lab)
    wait_for("its ping is reported", lambda: api.counted(clients[0].id)[0] >= 84)
    time.sleep(1.2)
    before = api.counted(clients[0].id)[0]
    turn, _ = prepare(api, 3_000_000, 4_000_000, 6)
    api.close()
    if not alive:
        gateway.kill_agent()
    traffic = flow()
    wait_for("the grant is spent", lambda: traffic.samples()[-1][0] > turn - 3 and not traffic.flows(1.0))
    assert 3_000_000 - BOUND < traffic.arrived() <= 3_000_000
    wait_for("the new cycle", traffic.flows)
    spent = [n for at, n in traffic.samples() if at < turn][-1] * SIZE
    assert 3_000_000 - BOUND < spent <= 3_000_000, "not a packet before it"
    resumed = [at for at, n in traffic.samples() if n * SIZE > spent][0]
    assert -0.1 < resumed - turn < 1.5, f"{resumed - turn:.3f} s"
    wait_for("the new grant is spent", lambda: not traffic.flows(1.0))
    assert 4_000_000 - BOUND < traffic.arrived() - spent <= 4_000_000
    traffic.stop()
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
    deploy(lab)
    wait_for("its ping is reported", lambda: api.counted(clients[0].id)[0] >= 84)
    time.sleep(1.2)
    before = api.counted(clients[0].id)[0]
    turn, counted = prepare(api, None, None, 4)
    api.close()
    traffic = flow()
    wait_for("the turn is over", lambda: time.time() > turn + 1)
    assert traffic.flows()
    gateway.kill_agent()
    time.sleep(1)
    assert traffic.flows()
    traffic.stop()
    arrived, until = traffic.arrived(), [n for at, n in traffic.samples() if at < turn][-1] * SIZE
    api.listen()
    gateway.start_agent()
    wait_for("all is reported", lambda: api.counted(clients[0].id)[0] == before + arrived)
    last = api.last()["grant"]
    assert last["cycle"] == 202612 and not last["exhausted"]
    assert abs(int(last["cycle_counted"]) - (arrived - until)) < 1_500_000, "from the turn on, to less than a second"
