# SPDX-License-Identifier: BSD-2-Clause
"""Every byte once, whatever is killed and whatever the network does: on real processes, packets and PostgreSQL.

SOAK_KILLS and SOAK_REPORTS set the length, SEED repeats a run. The figures are appended to SOAK_FIGURES.
"""

import collections
import os
import threading
import time
from datetime import datetime, timezone
from fractions import Fraction

import pytest

from cloud import ALLOWANCE_L1, PATIENCE, STATE, Cloud, Traffic, tcp, udp, wait_for
from figures import SEED, figures, progress
from scenario import ALLOWANCE_L2, GB, RATE, decimal

KILLS = int(os.environ.get("SOAK_KILLS", 60))
REPORTS = int(os.environ.get("SOAK_REPORTS", 60))
AWAY = 60 if os.environ.get("SOAK_LONG") else 6  # seconds
KILLS_A_ROUND = 10


@pytest.fixture(scope="module")
def cloud():
    print(f"SEED={SEED}")
    STATE.parent.mkdir(parents=True, exist_ok=True)
    cloud = Cloud(SEED)
    try:
        cloud.build(SEED)
        cloud.limit = max(ALLOWANCE_L1, KILLS * 1_200_000 + 40_000_000)
        extra = cloud.limit - ALLOWANCE_L1
        if extra:
            cloud.admin.post(f"/v1/gateways/{cloud.ids['gw1']}/extra", {"gb": f"{extra // GB}.{extra % GB:09d}"})
        yield cloud
    finally:
        cloud.close()
        print(cloud.logs())


def test_every_byte_once_through_kills(cloud):
    """I1, I8, M5, M6: agents, API, worker and PostgreSQL killed with -9 at random moments under traffic."""
    killed, begun, round_ = collections.Counter(), time.monotonic(), 0
    cloud.check_equal("before")
    while sum(killed.values()) < KILLS:
        round_ += 1
        with Traffic(cloud, f"{SEED}-{round_}"):
            for _ in range(min(KILLS_A_ROUND, KILLS - sum(killed.values()))):
                time.sleep(cloud.random.uniform(0.02, 0.9))
                killed[cloud.kill_one()] += 1
            cloud.check_not_beyond()
        cloud.check_equal(f"seed {SEED}, {dict(killed)}")
        progress(f"{sum(killed.values()):,} of {KILLS:,} kills, {cloud.moved():,} bytes, 0 off, {time.monotonic() - begun:.0f} s")
    cloud.wait_alive()
    kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(killed.items()))
    figures(f"kills: {sum(killed.values())} ({kinds}); {cloud.moved():,} bytes, compared {cloud.compared} times, 0 bytes off; told "
            f"{cloud.slowest:.1f} s later at most; {time.monotonic() - begun:.0f} s, seed {SEED}")


def test_every_byte_once_through_a_hostile_proxy(cloud):
    """I7, I8: requests and answers lost, cut, late, twice and out of order, also after the commit, and agents killed as well."""
    begun, before = time.monotonic(), cloud.proxy.passed
    compared = cloud.compared
    cloud.proxy.hostility = 0.6
    while cloud.proxy.passed - before < REPORTS:
        with Traffic(cloud, f"{SEED}-proxy-{cloud.proxy.passed}"):
            until = time.monotonic() + 6
            while time.monotonic() < until:
                for name in cloud.ids:
                    cloud.watch(name)
                time.sleep(1.5)
                if cloud.random.random() < 0.3:
                    cloud.kill_one()
            cloud.check_not_beyond()
        cloud.check_equal(f"seed {SEED}, hostile proxy, {dict(cloud.proxy.done)}")
        progress(f"{cloud.proxy.passed - before:,} of {REPORTS:,} reports through a hostile proxy, 0 bytes off")
    cloud.proxy.hostility = 0.0
    cloud.wait_alive()
    cloud.check_equal("after the proxy")
    done = ", ".join(f"{mood} {number}" for mood, number in sorted(cloud.proxy.done.items()))
    assert sum(cloud.proxy.done.values()) >= REPORTS // 4
    figures(f"proxy: {cloud.proxy.passed - before} reports, of them {sum(cloud.proxy.done.values())} treated badly ({done}); compared "
            f"{cloud.compared - compared} times, 0 bytes off; {time.monotonic() - begun:.0f} s")


def test_every_byte_once_without_the_database(cloud):
    """M5, M6: PostgreSQL gone under traffic, and agents killed meanwhile; back, all is told in order."""
    begun = time.monotonic()
    with Traffic(cloud, f"{SEED}-away"), cloud.without_database():
        until = begun + AWAY
        while time.monotonic() < until:
            time.sleep(2)
            cloud.kill_agent()
    back = time.monotonic()
    cloud.wait_alive()
    cloud.check_equal("after the database was away")
    figures(f"database away under traffic: {back - begun:.0f} s, agents killed meanwhile; all told {time.monotonic() - back:.1f} s after, "
            f"0 bytes off")


def flood(cloud, enough, unused, let_through):
    """Sends until nothing passes any more: a busy machine loses some on its way, before it is counted; for a while perhaps all."""
    begun, until = let_through(), time.monotonic() + PATIENCE
    while (before := let_through()) < begun + 2 * enough and time.monotonic() < until:
        rest = max(begun + enough - before, 0)
        udp(cloud.c1, "10.1.0.10", total=min(rest, 100_000_000) + 6_000_000, size=1200, rate=8_000_000)
        if let_through() > before:
            until = time.monotonic() + PATIENCE
        elif before > begun + enough - unused:
            break


def test_a_limit_is_told_once_and_what_it_refuses_costs_nothing(cloud):
    """I14, I15: run into while agent, API and PostgreSQL are killed; what was let through is what is billed."""
    def let_through():
        return sum(cloud.instances[name].arrived() for name in ("i1a", "i1b")) + sum(
            client.counters()[1] for client in cloud.clients["gw1"].values())

    def used():
        return int(cloud.as_told("gw1")["bandwidth"]["used_bytes"])

    def status():
        return cloud.as_told("gw1")["status"]

    def actions():
        return collections.Counter(item["kind"] for item in cloud.admin.items("/v1/ledger")
                                   if item["type"] == "action" and item["gateway"] == cloud.ids["gw1"])

    cloud.check_equal("before the limit")
    before, passed_before, killed = used(), let_through(), 0
    unused = max(1_000_000, cloud.limit // 1000)
    assert before == sum(sum(counts) for counts in cloud.truth("gw1").values()) or cloud.losses()
    flooded = threading.Thread(target=flood, args=(cloud, cloud.limit - before, unused, lambda: let_through() - passed_before))
    flooded.start()
    while flooded.is_alive():
        time.sleep(0.7)
        cloud.kill_one()
        killed += 1
    flooded.join()
    cloud.wait_alive()
    wait_for(f"suspended: {used():,} of {cloud.limit:,} used, {let_through() - passed_before:,} let through of {cloud.limit - before:,}",
             lambda: status() == "suspended", PATIENCE, 0.1)
    # What has passed the meter may be under way for a while: both are read anew until they agree, and stay so.
    wait_for("all that passed is told", lambda: used() - before == let_through() - passed_before, PATIENCE, 0.2)
    agreed = datetime.now(timezone.utc)
    cloud.watch("gw1")
    wait_for("the next report", lambda: cloud.complete_through("gw1") > agreed, PATIENCE, 0.1)
    assert used() - before == let_through() - passed_before
    assert cloud.limit - unused < used() <= cloud.limit
    refused = cloud.c1.counters()[0] - cloud.recorded("gw1")["laptop"][0]
    assert refused > 0
    # Once told, it is told no more: neither by the next process nor by later batches.
    cloud.kill_one()
    cloud.wait_alive()
    extra = cloud.limit // 2  # of the new allowance less than 80 % are used: it has no warning of its own
    cloud.admin.post(f"/v1/gateways/{cloud.ids['gw1']}/extra", {"gb": f"{extra // GB}.{extra % GB:09d}"})
    wait_for("active again", lambda: status() == "active", PATIENCE, 0.1)
    wait_for("the client passes again", lambda: "1 received" in cloud.c1.run(
        "ping", "-n", "-c", "1", "-W", "1", "10.1.0.10", check=False), PATIENCE)
    expected = {"warning_80": 1, "warning_100": 1, "suspend": 1, "restore": 1}
    wait_for("its actions are in the feed", lambda: actions() == expected, PATIENCE, 0.2)
    figures(f"limit: {cloud.limit:,} bytes, {used():,} used, {refused:,} refused and not billed, one suspension and one return; "
            f"{killed} killed meanwhile")


def test_the_invoice_is_what_passed(cloud):
    """I1: the bandwidth lines of the ledger, to the last digit, from what the clients' kernels counted."""
    tcp(cloud.c3, "10.2.0.10", upload=ALLOWANCE_L2 // 2, download=ALLOWANCE_L2 // 2)
    cloud.check_device("gw2")
    total = sum(cloud.device("gw2"))
    for name in cloud.ids:
        cloud.cli("gateway", "delete", name, "--wait")

    def lines():
        return [line for line in cloud.ledger() if line["kind"] == "bandwidth"]

    expected = Fraction(total - ALLOWANCE_L2) * Fraction(RATE) / GB
    wait_for("the feed is sealed", lambda: sum(Fraction(line["amount"]) for line in lines()) == expected, PATIENCE, 0.2)
    assert {line["gateway"] for line in lines() if Fraction(line["amount"])} == {cloud.ids["gw2"]}
    figures(f"invoice: {decimal(expected)} credits for {total:,} bytes, as the device counted")
