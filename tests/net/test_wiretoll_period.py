# SPDX-License-Identifier: BSD-2-Clause
"""A limit's period turns while it refuses: it resumes on time with no process alive, and what was used in which is known.

The processes' wall clocks are shifted, so that a month ends while the test runs; the kernel goes by its own.
"""

import datetime
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from test_wiretoll_meter import Meter, clean, flood, is_limited, lab, network, quiet, show, use, wiretoll  # noqa: F401

HERE = Path(__file__).resolve().parent
LIMIT = 3_000_000
LEAD = 9.0  # seconds before the turn that are enough to use a limit up


@pytest.fixture
def before_a_month_ends(tmp_path, monkeypatch):
    """Returns when, by time.time(), the shifted clocks turn to a new month."""
    library = tmp_path / "shifted_clock.so"
    lab.run("gcc", "-shared", "-fPIC", "-O2", "-D_GNU_SOURCE", "-o", library, HERE / "shifted_clock.c")
    now = datetime.datetime.now(datetime.timezone.utc)
    month = (now.replace(day=1, hour=0, minute=0, second=0, microsecond=0) + datetime.timedelta(days=32)).replace(day=1)
    turn = time.time() + LEAD
    monkeypatch.setenv("WALL_CLOCK_AHEAD_NS", str(int((month.timestamp() - turn) * 10**9)))
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("ASAN_OPTIONS", "verify_asan_link_order=0:" + os.environ.get("ASAN_OPTIONS", ""))
    return turn


def totals(peer):
    return peer["upload_bytes"] + peer["download_bytes"]


def peers_of(sample, network):
    return [next(peer for peer in sample["peers"] if peer["public_key"] == client.public_key) for client in (network.a, network.b)]


def use_up(meter, network):
    threads = [threading.Thread(target=flood, args=(client, lambda client=client: is_limited(meter, client))) for client in (network.a, network.b)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for peer in peers_of(meter.last, network):
        assert LIMIT - 1_000_000 < totals(peer) <= LIMIT


def answers(client):
    return " 1 received" in client.run("ping", "-q", "-c", 1, "-W", 1, "10.99.0.1", check=False)


@pytest.mark.parametrize("alive", [False, True])
def test_resumes_by_itself(network, before_a_month_ends, alive):
    turn = before_a_month_ends
    limits = ("--limit", f"{network.a.public_key}={LIMIT}/day", "--limit", f"{network.b.public_key}={LIMIT}/month")
    meter = Meter(*limits)
    use_up(meter, network)
    assert time.time() < turn - 0.5, "too slow a machine: the period turned before the limits were used up"
    at_cut = peers_of(meter.last, network)
    if not alive:
        assert meter.end(signal.SIGKILL) == -signal.SIGKILL
    assert not answers(network.a) or time.time() > turn
    time.sleep(max(0, turn - time.time()))
    for client in (network.a, network.b):
        lab.wait_for("the next period", lambda client=client: answers(client))
    use(network.a, upload=400_000, download=400_000)
    quiet(network.a, network.b)
    if not alive:
        meter = Meter(*limits)
    else:
        time.sleep(1)
    for peer, before in zip(peers_of(meter.last, network), at_cut):
        assert peer["state"] == "ok"
        assert peer["used_bytes"] == totals(peer) - totals(before) > 0, "of the new period, and all of it"
    assert peers_of(meter.last, network)[0]["used_bytes"] > 800_000
    # And its limit is as exact as the first.
    flood(network.a, lambda: is_limited(meter, network.a))
    peer = peers_of(meter.last, network)[0]
    assert LIMIT - 1_000_000 < peer["used_bytes"] == totals(peer) - totals(at_cut[0]) <= LIMIT
    assert peers_of(meter.last, network)[1]["state"] == "ok", "the other is not concerned"
    assert meter.end() == 0
