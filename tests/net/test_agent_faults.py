# SPDX-License-Identifier: BSD-2-Clause
"""Every write, sync and send of the agent fails in turn, in each way it can: it does not crash, and loses no byte.

A life of the agent for each call; tests/net/faults.c makes that one fail. What fails while it starts ends it with
status 1, and its supervisor starts it again; what fails later it recovers from by itself.
"""

import errno
import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from agent_lab import BIN, inside, laboratory, unprivileged
from test_agent import deploy, wait_truth

FULL = os.environ.get("FULL") == "1"
PATIENCE = 60
WAYS = [errno.ENOSPC, errno.EIO, errno.EAGAIN, 0]


@pytest.fixture
def lab():
    with laboratory() as parts:
        yield parts


@pytest.fixture(scope="module")
def folder():
    """Open to the agent's user; pytest's own are closed again by the next session that begins."""
    with tempfile.TemporaryDirectory(prefix="faults-", dir="/run") as name:
        os.chmod(name, 0o777)
        yield Path(name)


@pytest.fixture(scope="module")
def library(folder):
    path = folder / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run(["gcc", "-std=gnu17", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-O1", "-fPIC", "-shared", "-include", "stdbool.h",
                    "-o", path, source, "-ldl"], check=True)
    path.chmod(0o755)
    return path


def start(gateway, library, kind, call, way, log):
    plan = [f"LD_PRELOAD={library}", f"FAULT_CLASS={kind}", f"FAULT_CALL={call}", f"FAULT_ERROR={way}", f"FAULT_LOG={log}",
            "ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0"]
    with gateway.log.open("a") as output:
        gateway.agent = subprocess.Popen(inside("gw", *unprivileged("env", *plan, BIN / "wiretoll-agent", "--base", gateway.base,
                                                                    "--bpf", gateway.bpf)), stderr=output)


def live(api, gateway, library, kind, call, way, folder, is_sure):
    """One life. Returns the call that failed, or None when there was no such call within a few reports; one that is sure
    to come is waited for."""
    log = folder / f"{kind}-{call}-{way}"
    start(gateway, library, kind, call, way, log)
    begun = len(api.batches)
    deadline = time.monotonic() + PATIENCE
    while not log.exists() and gateway.agent.poll() is None and (is_sure or len(api.batches) < begun + (8 if FULL else 4)):
        assert time.monotonic() < deadline, f"{kind} {call} way {way}: it does not begin to report"
        time.sleep(0.01)
    status, hit = gateway.agent.poll(), log.exists()
    assert hit or status is None, f"{kind} {call} way {way}: status {status} before anything failed\n{gateway.log.read_text()[-2000:]}"
    known = len(api.batches) if hit else begun
    deadline = time.monotonic() + PATIENCE
    while hit and len(api.batches) < known + 2:
        status = gateway.agent.poll()
        assert status in (None, 1), f"{kind} {call} way {way}: status {status}"
        if status == 1:
            gateway.start_agent()
        assert time.monotonic() < deadline, f"{kind} {call} way {way}: nothing is reported any more\n{gateway.log.read_text()[-2000:]}"
        time.sleep(0.01)
    gateway.kill_agent()
    return log.read_text() if hit else None


# Calls that every life comes to, however its reports are cut into sends; of the many sends, every fifth in the short form.
@pytest.mark.parametrize("kind, least, step", [("write", 8, 1), ("sync", 6, 1), ("send", 5, 5)])
def test_each_call_fails_in_turn(lab, library, folder, kind, least, step):
    api, gateway, clients = lab
    deploy(lab)
    gateway.kill_agent()
    stop = threading.Event()

    def ping():
        while not stop.is_set():
            clients[0].ping(count=20, interval=0.02, size=500, wait=1)

    pinger = threading.Thread(target=ping)
    pinger.start()
    hits, call, reached = [], 1, True
    try:
        while reached and call <= (200 if FULL else 16 * step):
            # In the short form one way a call, each in turn; the long form has them all.
            for way in WAYS if FULL else [WAYS[(call // step) % len(WAYS)]]:
                reached = live(api, gateway, library, kind, call, way, folder, is_sure=call <= 1 + (least - 1) * step)
                hits += [reached] if reached else []
            call += 1 if FULL else step
    finally:
        stop.set()
        pinger.join()
    print(f"{kind}: {len(hits)} calls failed, the last was number {call}")
    assert len(hits) >= least, hits
    gateway.start_agent()
    wait_truth(api, clients)
    assert len(api.held) == 1
