# SPDX-License-Identifier: BSD-2-Clause
"""The agent under a wall clock that is set at will (tests/net/clock.c), with real traffic. Truth is the clients' devices."""

import datetime
import random
import struct
import subprocess
import threading
import time
from pathlib import Path

import pytest

from agent_lab import BIN, UID, inside, laboratory, run, unmount, unprivileged, wait_for
from test_agent import deploy, wait_truth
from test_agent_journal import fill_up, records_of

HOUR = 3600 * 10**9


@pytest.fixture
def lab():
    with laboratory() as parts:
        yield parts


class Clock:
    def __init__(self, gateway):
        self.gateway = gateway
        self.folder = gateway.base.parent / "clock"
        self.folder.mkdir(mode=0o755)
        self.library, self.offset = self.folder / "clock.so", self.folder / "offset"
        subprocess.run(["gcc", "-std=gnu17", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-O1", "-fPIC", "-shared",
                        "-o", self.library, Path(__file__).with_name("clock.c"), "-ldl"], check=True)
        self.off_by = 0
        self.set(0)

    def set(self, off_by):
        self.off_by = off_by
        with open(self.offset, "r+b" if self.offset.exists() else "wb") as file:
            file.write(struct.pack("<q", off_by))

    def start_agent(self):
        plan = [f"LD_PRELOAD={self.library}", f"CLOCK_OFFSET={self.offset}",
                "ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0"]
        with self.gateway.log.open("a") as output:
            self.gateway.agent = subprocess.Popen(
                inside("gw", *unprivileged("env", *plan, BIN / "wiretoll-agent", "--base", self.gateway.base,
                                           "--bpf", self.gateway.bpf)), stderr=output)


def instant(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


def hours_around(off_by):
    """Those that a clock shows which is off by so much, and showed or will show within five seconds."""
    now = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=off_by / 1e9)
    return {(now + datetime.timedelta(seconds=slack)).replace(minute=0, second=0, microsecond=0) for slack in (-5, 0, 5)}


def test_I12_steps_of_the_clock_change_no_total(lab):
    """Set by up to two days, back and forth: nothing is lost, doubled or negative; the seed is in a failure's output."""
    api, gateway, clients = lab
    seed = time.time_ns()
    print("seed", seed)
    random.seed(seed)
    shown = hours_around(0)
    deploy(lab)
    gateway.kill_agent()
    clock = Clock(gateway)
    clock.start_agent()
    replies = []
    pinger = threading.Thread(target=lambda: replies.append(clients[0].ping(count=1500, interval=0.005, size=300)))
    pinger.start()
    mark = len(api.batches)
    while pinger.is_alive():
        shown |= hours_around(clock.off_by)
        clock.set(random.randrange(-48 * HOUR, 48 * HOUR))
        shown |= hours_around(clock.off_by)
        time.sleep(random.random() * 0.8)
        if random.random() < 0.2:
            gateway.kill_agent()
            clock.start_agent()
    pinger.join()
    assert replies == [1500]
    wait_truth(api, clients)
    shown |= hours_around(clock.off_by)
    assert len(api.held) == 1
    for batch in api.batches[mark:]:
        assert instant(batch["covered_from"]) < instant(batch["covered_to"])
        # An hour is one that the clock has shown, whatever it is.
        assert all(instant(record["hour"]) in shown for record in batch["records"])


def batches_in(journal):
    return sum(kind == 3 for _, _, kind, _ in records_of(journal)[1])


def test_short_of_room_each_hour_has_one_batch(lab):
    """The disk is full and the API away, for hours: one batch an hour is kept, and not a byte is missing."""
    api, gateway, clients = lab
    journal = gateway.base / "journal"
    journal.mkdir(mode=0o700)
    run("mount", "-t", "tmpfs", "-o", f"size=24m,uid={UID},gid={UID},mode=0700", "tmpfs", journal)
    try:
        deploy(lab)
        gateway.kill_agent()
        clock = Clock(gateway)
        # Far from the turn of an hour, so that the only ones are those to which the clock is set.
        clock.set((1200 - int(time.time()) % 3600) % 3600 * 10**9)
        clock.start_agent()
        mark = api.last()["seq"]
        wait_for("it reports", lambda: api.last()["seq"] > mark + 1)
        api.away = True
        # Its spare segment is taken from it, too; a start finds that out.
        gateway.kill_agent()
        for spare in journal.rglob("spare"):
            spare.unlink()
        fill_up(journal / "ballast")
        clock.start_agent()
        wait_for("it knows", lambda: "short of room" in gateway.log.read_text())
        mark, counts = api.last()["seq"], []
        hours = 6
        for _ in range(hours):
            assert clients[0].ping(count=40, interval=0.05, size=900) == 40
            kept = batches_in(journal)
            clock.set(clock.off_by + HOUR)
            wait_for("the hour's batch", lambda kept=kept: batches_in(journal) > kept)
        api.away = False
        wait_truth(api, clients)
        late = [batch for batch in api.batches if mark < batch["seq"] and batch["records"]]
        for batch in late:
            counts += [record["hour"] for record in batch["records"] if record["peer"] == clients[0].id]
        # A batch or two before it knew, then one for each hour, and one when the API was back.
        assert hours <= len(set(counts)) <= hours + 1
        assert len(late) <= hours + 4, counts
        assert len(api.held) == 1
    finally:
        gateway.kill_agent()
        unmount(journal)
