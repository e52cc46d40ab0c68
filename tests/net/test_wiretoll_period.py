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
LEADS = 9, 27, 81  # seconds before the turn: the next one where they were not enough to use a limit up


@pytest.fixture
def before_a_month_ends(tmp_path, monkeypatch):
    """Shifts the clocks: they turn to a new month in so many seconds. Returns when that is by time.time()."""
    library = tmp_path / "shifted_clock.so"
    lab.run("gcc", "-shared", "-fPIC", "-O2", "-D_GNU_SOURCE", "-o", library, HERE / "shifted_clock.c")
    monkeypatch.setenv("ASAN_OPTIONS", "verify_asan_link_order=0:" + os.environ.get("ASAN_OPTIONS", ""))
    now = datetime.datetime.now(datetime.timezone.utc)
    month = (now.replace(day=1, hour=0, minute=0, second=0, microsecond=0) + datetime.timedelta(days=32)).replace(day=1)

    def shift(lead):
        turn = time.time() + lead
        monkeypatch.setenv("WALL_CLOCK_AHEAD_NS", str(int((month.timestamp() - turn) * 10**9)))
        monkeypatch.setenv("LD_PRELOAD", str(library))
        return turn
    return shift


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
    return peers_of(meter.fresh(), network)


def use_up_before_the_turn(limits, shift, network):
    """Returns the meter, its peers when both limits were used up, and when the turn comes."""
    for lead in LEADS:
        turn = shift(lead)
        meter = Meter(*limits)
        at_cut = use_up(meter, network)
        if time.time() < turn - 0.5:
            for peer in at_cut:
                assert LIMIT - 1_000_000 < totals(peer) <= LIMIT
            return meter, at_cut, turn
        assert meter.end() == 0
        wiretoll("meter", "stop", "wg0")
    raise AssertionError(f"the limits were not used up within {LEADS[-1]} s")


def answers(client):
    return " 1 received" in client.run("ping", "-q", "-c", 1, "-W", 1, "10.99.0.1", check=False)


@pytest.mark.parametrize("alive", [False, True])
def test_resumes_by_itself(network, before_a_month_ends, alive):
    limits = ("--limit", f"{network.a.public_key}={LIMIT}/day", "--limit", f"{network.b.public_key}={LIMIT}/month")
    meter, at_cut, turn = use_up_before_the_turn(limits, before_a_month_ends, network)
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
    for peer, before in zip(peers_of(meter.fresh(), network), at_cut):
        assert peer["state"] == "ok"
        assert peer["used_bytes"] == totals(peer) - totals(before) > 0, "of the new period, and all of it"
    assert peers_of(meter.last, network)[0]["used_bytes"] > 800_000
    # And its limit is as exact as the first.
    flood(network.a, lambda: is_limited(meter, network.a))
    peer = peers_of(meter.fresh(), network)[0]
    assert LIMIT - 1_000_000 < peer["used_bytes"] == totals(peer) - totals(at_cut[0]) <= LIMIT
    assert peers_of(meter.last, network)[1]["state"] == "ok", "the other is not concerned"
    assert meter.end() == 0
