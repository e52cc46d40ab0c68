# SPDX-License-Identifier: BSD-2-Clause
"""Every byte once, from the kernel to the API: crashes of the host, an API put back in time, disks that are full.

Truth is the clients' own device counters. A crash of the host is played by taking away all that dies with a kernel:
the processes, the BPF file system with its pins, the WireGuard device. The disk stays.
"""

import base64
import datetime
import json
import os
import shutil
import struct
import subprocess
import threading
import time

import pytest

from agent_lab import BIN, PLAIN_WIREGUARD, UID, Echoes, crc32c, inside, laboratory, run, unmount, wait_for
from test_agent import STATE, deploy, wait_truth


@pytest.fixture
def lab():
    with laboratory() as parts:
        yield parts


def crash_host(gateway):
    gateway.kill_agent()
    gateway.wireguard.kill()
    gateway.wireguard.wait()
    unmount(gateway.bpf)
    run("mount", "-t", "bpf", "bpf", gateway.bpf)
    os.chown(gateway.bpf, UID, UID)
    gateway.bpf.chmod(0o700)


def boot_host(gateway):
    gateway.start_wireguard()
    gateway.start_agent()


def truths(clients):
    return [client.counters() for client in clients]


def counts(api, clients):
    return [api.counted(client.id) for client in clients]


def seconds_of(instant):
    return datetime.datetime.fromisoformat(instant.replace("Z", "+00:00")).timestamp()


def contents(folder, kind):
    lines = map(json.loads, journal("show", folder, "--json").stdout.splitlines())
    return [line["content"] for line in lines if line["kind"] == kind]


def samples(gateway):
    """(when, what was counted) of each sample since the last batch."""
    return [(seconds_of(sample["time"]), int(sample["counted"]))
            for sample in contents(gateway.base / "journal" / "samples", "sample")]


def last_written(gateway):
    """When a sample or a batch was, whichever is newer."""
    batches = contents(gateway.base / "journal", "batch")
    return max([seconds_of(batches[-1]["report"]["covered_to"]), *(at for at, _ in samples(gateway))])


def test_I8_a_crashed_host_loses_at_most_the_last_second(lab):
    """Batches are half a minute apart, samples a second: what was counted a second before the crash is billed."""
    api, gateway, clients = lab
    api.report_every = 30
    deploy(lab)
    first = api.last_epoch()
    seen = None
    # Anew when a batch came between, as at the turn of an hour: what it told would prove nothing.
    while seen != len(api.batches):
        seen = len(api.batches)
        assert clients[0].ping(count=40, interval=0.06) == 40 and clients[1].ping(count=20, size=1000) == 20
        before = truths(clients)
        wait_for("a sample", lambda: (samples(gateway) or [(0, 0)])[-1][1] >= sum(map(sum, before)) or seen != len(api.batches))
        times = [at for at, _ in samples(gateway)]
    assert min(b - a for a, b in zip(times, times[1:])) < 1.5, times
    crash_host(gateway)
    boot_host(gateway)
    wait_for("the old epoch is sealed", lambda: any(b["epoch"]["final"] and b["epoch"]["id"] == first for b in api.batches))
    assert counts(api, clients) == before
    sealed = [b for b in api.batches if b["epoch"]["id"] == first]
    assert sum(b["epoch"]["final"] for b in sealed) == 1 and sealed[-1]["epoch"]["final"]
    # The interface's count and the grant are of the same moment; the gateway was active until then.
    assert int(sealed[-1]["counted"]) >= sum(sum(pair) for pair in before)
    assert sealed[-1]["grant"]["cycle"] == api.grant["cycle"]
    assert [state["state"] for state in sealed[-1]["states"]] == ["active"]
    wait_for("a new epoch", lambda: api.last_epoch() != first)


def test_I8_crashes_under_traffic_bill_nothing_twice(lab):
    """In the middle of traffic: less than the clients sent, by no more than what passed since the last sample."""
    api, gateway, (client, other) = lab
    api.report_every = 30
    deploy(lab)
    size, interval, ages, most = 1200, 0.005, [], 0
    for _ in range(3):
        known = len(api.held)
        assert client.ping(count=500, interval=interval, size=size) == 500
        crashed = time.time()
        crash_host(gateway)
        ages.append(max(0, crashed - last_written(gateway)))
        boot_host(gateway)
        wait_for("sealed", lambda: sum(b["epoch"]["final"] for b in api.batches) == known)
        wait_for("a new epoch", lambda: len(api.held) == known + 1)
        counted, truth = api.counted(client.id), client.counters()
        lost = [t - c for t, c in zip(truth, counted)]
        # What is sent to a dead device is the client's loss, too: a few pings that nobody answers.
        most += (ages[-1] / interval + 10) * (size + 28)
        assert all(0 <= n <= most for n in lost), (lost, ages)
        wait_for("the gateway is up", lambda: gateway.is_up())
        for each in (client, other):
            each.set_peer(gateway.key())
            wait_for("it passes again", lambda each=each: each.ping(wait=1))
    # Each second; a machine that is busy may come to it later, but not each time.
    assert sorted(ages)[1] < 1.5, ages


def begin_second_epoch(lab):
    """Some batches of an epoch that a crash of the host ends, then of the next. Returns the two epochs."""
    api, gateway, clients = lab
    deploy(lab)
    assert clients[0].ping(count=20) == 20
    wait_for("some batches", lambda: len(api.batches) >= 5)
    with api.lock:
        first = api.last_epoch()
    crash_host(gateway)
    boot_host(gateway)
    wait_for("a new epoch", lambda: api.last_epoch() != first)
    wait_for("the gateway is up", lambda: api.last()["states"] and api.last()["states"][-1]["state"] == "active")
    for client in clients:
        client.set_peer(gateway.key())
        wait_for("the client passes again", lambda client=client: client.ping(wait=1))
    assert clients[1].ping(count=30) == 30
    wait_for("it is told", lambda: api.last()["seq"] > 4)
    with api.lock:
        return first, api.last_epoch()


def restore(api, first, second):
    """The database goes back to before the second epoch, and of the first it holds two batches. With the lock held."""
    api.forget(first, behind=2)
    api.batches = [b for b in api.batches if b["epoch"]["id"] == first]
    api.totals = {key: value for key, value in api.totals.items() if key[0] == first}
    api.checksums = {key: crc for key, crc in api.checksums.items() if key[0] == first}
    del api.held[second]
    api.restored += 1


def test_a_restore_fills_every_epoch_again(lab):
    """The database goes back to before the current epoch: the rest of the old one and all of the new one come again."""
    api, gateway, clients = lab
    first, second = begin_second_epoch(lab)
    with api.lock:
        before, checksums = dict(api.totals), dict(api.checksums)
        held = dict(api.held)
        restore(api, first, second)
        api.headers.clear()
        mark = len(api.batches)
    wait_for("all is held again", lambda: api.held.get(second, (0,))[0] > held[second][0] and api.held[first] == held[first])
    assert all(api.checksums[key] == crc for key, crc in checksums.items())
    # In order: the older epoch's rest, said to be over, then the newer one from its first batch on.
    again = [(b["epoch"]["id"], b["seq"]) for b in api.batches[mark:]]
    assert again[:held[first][0] - 2] == [(first, seq) for seq in range(3, held[first][0] + 1)]
    assert again[held[first][0] - 2:][0] == (second, 1)
    assert ("true" in {over for _, _, over in api.headers})
    for key, (peer, record) in before.items():
        assert int(api.totals[key][1]["upload_bytes"]) >= int(record["upload_bytes"])
    api.conflicts.clear()
    # A restarted agent knows that it has done so.
    arrivals = len(api.arrivals)
    gateway.kill_agent()
    gateway.start_agent()
    wait_for("it reports on", lambda: len(api.arrivals) > arrivals + 3)
    assert not api.conflicts


def test_I8_killed_while_a_restored_database_is_filled(lab):
    """It has asked what is held, and dies before it has sent any of it: the next process knows that it is still to be sent."""
    api, gateway, _ = lab
    first, second = begin_second_epoch(lab)
    answer, asked = api.what_is_held, threading.Event()

    def answer_and_go_away():
        api.away = True
        asked.set()
        return answer()

    with api.lock:
        held = dict(api.held)
        restore(api, first, second)
        api.what_is_held = answer_and_go_away
    assert asked.wait(60)
    wait_for("the agent has the answer", lambda: "was restored" in gateway.log.read_text())
    gateway.kill_agent()
    api.what_is_held, api.away = answer, False
    gateway.start_agent()
    wait_for("all is held again", lambda: api.held[first] == held[first] and api.held.get(second, (0,))[0] > held[second][0])
    api.conflicts.clear()


def test_a_journal_that_kept_less_says_so(lab):
    """The API goes back further than the journal does: the gap is named, and totals are as they were."""
    api, gateway, clients = lab
    deploy(lab)
    assert clients[0].ping(count=20) == 20
    wait_for("some batches", lambda: len(api.batches) >= 4)
    gateway.kill_agent()
    with api.lock:
        epoch, held = api.last_epoch(), api.last()["seq"]
    # The journal begins anew behind what was acknowledged, as after a week: its only segment is moved away.
    gateway.start_agent()
    wait_for("it goes on", lambda: api.last()["seq"] > held + 2)
    with api.lock:
        assert api.last_epoch() == epoch
    folder = gateway.base / "journal"
    assert clients[0].ping(count=20) == 20
    gateway.kill_agent()
    drop_oldest_records(folder, keep=4)
    with api.lock:
        api.forget(epoch, behind=1)
        api.headers.clear()
    gateway.start_agent()
    wait_for("the gap is named", lambda: any(kept for _, kept, _ in api.headers))
    wait_for("it is taken", lambda: api.held[epoch][0] > 1)
    api.conflicts.clear()
    wait_truth(api, clients)


def test_a_journal_that_kept_a_final_batch_only(lab):
    """Of an epoch that is over the journal has the end: who was idle by then is in it, too."""
    api, gateway, clients = lab
    deploy(lab)
    first = api.last_epoch()
    assert clients[0].ping(count=20) == 20
    wait_truth(api, clients)
    known = api.last()["seq"]
    wait_for("batches without it", lambda: api.last()["seq"] > known + 2)
    api.refuse = (200, {"held_seq": 10**6, "watch_until": None, "revision": 1})
    assert gateway.agent.wait(timeout=60) == 1
    gateway.start_agent()
    wait_for("a new epoch", lambda: api.last_epoch() != first and api.last()["seq"] > 2)
    assert clients[1].ping(count=20) == 20
    wait_truth(api, clients)
    gateway.kill_agent()
    folder, second = gateway.base / "journal", api.last_epoch()
    _, records = records_of(folder)
    ends = [number for number, (_, _, kind, payload) in enumerate(records) if kind == 3 and report_in(payload)["epoch"]["final"]]
    drop_oldest_records(folder, keep=len(records) - ends[0])
    with api.lock:
        restore(api, first, second)
        api.forget(first, behind=1)
        assert counts(api, clients) != truths(clients)
    gateway.start_agent()
    wait_for("both are held", lambda: second in api.held and api.held[first][0] > 1)
    api.conflicts.clear()
    wait_truth(api, clients)


def test_a_batch_that_is_damaged_while_it_waits(lab):
    """It cannot be read back: those behind it are sent, and what only it said is said again."""
    api, gateway, clients = lab
    deploy(lab)
    api.away = True
    known = api.last()["seq"]
    assert clients[0].ping(count=20) == 20
    folder = gateway.base / "journal"

    def carriers():
        return [(at, payload) for at, _, kind, payload in records_of(folder)[1] if kind == 3 and report_in(payload)["seq"] > known
                and any(record["peer"] == clients[0].id for record in report_in(payload)["records"])]

    wait_for("its bytes are in the journal", carriers)
    time.sleep(2.5)
    assert clients[1].ping(count=20) == 20
    wait_for("batches behind it", lambda: report_in(records_of(folder)[1][-1][3])["seq"] > known + 3)
    segment = records_of(folder)[0]
    with open(segment, "r+b") as file:
        for at, payload in carriers():
            file.seek(at + 24 + len(payload) // 2)
            file.write(bytes([payload[len(payload) // 2] ^ 1]))
    # The API stays away until that is noticed: what was read before the damage may be under way.
    wait_for("it is noticed", lambda: "is left out" in gateway.log.read_text())
    api.away = False
    wait_truth(api, clients)
    assert gateway.agent.poll() is None


def records_of(folder):
    """The only segment of a journal and (offset, sequence, kind, payload) of its records, as the format says.

    Not of the last one while it is being written.
    """
    (segment,) = [path for path in folder.iterdir() if path.suffix == ".wtj"]
    data = segment.read_bytes()
    records, at, before, checksum = [], 0, 0, 0
    while at + 24 <= len(data) and data[at:at + 4] == b"WTJ2":
        before = checksum
        _, length, sequence, kind, checksum = struct.unpack_from("<IIQII", data, at)
        records.append((at, sequence, kind, data[at + 24:at + 24 + length]))
        at += 24 + length
    if records:
        at, _, _, payload = records[-1]
        if crc32c(data[at:at + 20] + bytes(4) + payload, before) != checksum:
            records.pop()
    return segment, records


def report_in(payload):
    """The report of a batch's record: behind the summary."""
    return json.loads(payload[112:])


def drop_oldest_records(folder, keep):
    """What a bound does: the journal begins with a later segment. Written as the format says, by this test itself."""
    segment, records = records_of(folder)
    kept, previous, out = records[-keep:], 0, b""
    for _, sequence, kind, payload in kept:
        header = struct.pack("<IIQI", 0x324a5457, len(payload), sequence, kind)
        previous = crc32c(header + b"\0\0\0\0" + payload, previous)
        out += header + struct.pack("<I", previous) + payload
    replacement = folder / f"{kept[0][1]:016x}.wtj"
    replacement.write_bytes(out)
    os.chown(replacement, UID, UID)
    segment.unlink()


def test_a_full_disk_loses_nothing(lab):
    """The gateway's disk is full while the API is away: counting goes on, and all of it is told in the end."""
    api, gateway, clients = lab
    journal = gateway.base / "journal"
    journal.mkdir(mode=0o700)
    run("mount", "-t", "tmpfs", "-o", f"size=24m,uid={UID},gid={UID},mode=0700", "tmpfs", journal)
    try:
        deploy(lab)
        assert clients[0].ping(count=20) == 20
        api.away = True
        ballast = journal / "ballast"
        fill_up(ballast)
        # Less than what is left of the segment and the spare one would need: it must be spent, too.
        for segment in journal.rglob("spare"):
            segment.unlink(missing_ok=True)
        fill_up(ballast)
        assert clients[0].ping(count=100, size=1200) == 100
        time.sleep(3)
        assert clients[1].ping(count=50, size=700) == 50
        gateway.kill_agent()
        gateway.start_agent()
        wait_for("it says so", lambda: "room" in gateway.log.read_text())
        assert clients[1].ping(count=10) == 10
        assert gateway.agent.poll() is None
        api.away = False
        wait_truth(api, clients)
        ballast.unlink()
        assert clients[0].ping(count=10) == 10
        wait_truth(api, clients)
        assert len(api.held) == 1
    finally:
        gateway.kill_agent()
        unmount(journal)


def fill_up(ballast):
    with open(ballast, "ab", buffering=0) as file:
        for size in (1 << 20, 4096):
            while True:
                try:
                    if file.write(bytes(size)) < size:
                        break
                except OSError:
                    break


def journal(verb, path, *arguments):
    return subprocess.run([BIN / "wiretoll", "journal", verb, path, *arguments], capture_output=True, text=True, timeout=60)


def test_journal_command(lab, tmp_path):
    """Shown and verified while it is written; the first damaged byte is named."""
    api, gateway, clients = lab
    api.report_every = 3
    deploy(lab)
    folder = gateway.base / "journal"
    pinger = threading.Thread(target=lambda: clients[0].ping(count=800, interval=0.005))
    pinger.start()
    try:
        wait_for("a sample", lambda: list((folder / "samples").glob("*.wtj")))
        while pinger.is_alive():
            for path in (folder, folder / "samples"):
                done = journal("verify", path)
                assert done.returncode == 0, done.stderr
    finally:
        pinger.join()
    wait_truth(api, clients)
    gateway.kill_agent()
    lines = [json.loads(line) for line in journal("show", folder, "--json").stdout.splitlines()]
    batches = [line for line in lines if line["kind"] == "batch"]
    assert {(line["content"]["epoch"], line["content"]["seq"]) for line in batches} >= set(api.checksums)
    assert all(api.checksums.get((line["content"]["epoch"], line["content"]["seq"]), line["content"]["checksum"])
               == line["content"]["checksum"] for line in batches)
    assert any(line["content"]["report"]["records"] for line in batches)
    assert "acknowledgement" in journal("show", folder).stdout
    samples = [json.loads(line) for line in journal("show", folder / "samples", "--json").stdout.splitlines()]
    assert {"time", "slots", "epoch", "counted"} <= set([s for s in samples if s["kind"] == "sample"][-1]["content"])
    # A byte of each record in turn.
    copy = tmp_path / "journal"
    shutil.copytree(folder, copy)
    for line in lines[::3]:
        segment = copy / line["segment"]
        whole = segment.read_bytes()
        at = line["offset"] + 24 + line["length"] // 2
        segment.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])
        done = journal("verify", copy)
        assert done.returncode == 1 and f"in {line['segment']} at offset {line['offset']} " in done.stderr
        verdict = json.loads(journal("verify", segment, "--json").stdout)
        assert verdict["valid"] is False and verdict["offset"] == line["offset"]
        segment.write_bytes(whole)
    assert journal("verify", copy).returncode == 0
    for path, words in ((tmp_path / "none", "is not there"), (tmp_path, "no segment"), (__file__, "no segment of a journal")):
        done = journal("verify", path)
        assert done.returncode == 1 and words in done.stderr
    assert journal("verify", copy, "more").returncode == 2


def test_a_full_meter_grows_under_traffic(lab):
    """More peers than slots: the old epoch is sealed and a larger meter takes over, while packets flow."""
    api, gateway, clients = lab
    deploy(lab)
    first = api.last_epoch()
    others = [{"id": f"{number:08x}-0000-4000-8000-000000000000", "public_key": base64.b64encode(os.urandom(32)).decode(),
               "preshared_key": None, "endpoint": None, "keepalive": 0,
               "allowed_ips": [f"10.{100 + number // 65536}.{number // 256 % 256}.{number % 256}/32"], "enabled": True}
              for number in range(4100)]
    with Echoes(clients[0], size=300) as echoes:
        revision = api.set_state(peers=[client.peer() for client in clients] + others)
        assert gateway.agent.wait(timeout=60) == 1
        gateway.start_agent()
        api.wait_applied(revision)
    assert len(echoes.lost) < len(echoes.seen) / 10  # WireGuard takes 4,100 peers: a moment without answers
    assert "room for 8191 peers" in gateway.log.read_text()
    wait_truth(api, clients)
    assert len(api.held) == 2 and api.last_epoch() != first
    sealed = [batch for batch in api.batches if batch["epoch"]["id"] == first]
    assert sealed[-1]["epoch"]["final"] and not any(batch["epoch"]["final"] for batch in sealed[:-1])
    assert sealed[-1]["states"] and sealed[-1]["grant"]["exhausted"] is False
    # The limit's line goes on in the new epoch, its count begins anew.
    assert int(api.last()["grant"]["cycle_counted"]) >= int(sealed[-1]["grant"]["cycle_counted"])


def test_a_table_full_of_prefixes_grows_under_traffic(lab):
    """More prefixes than a meter of 4,096 slots has room for, all of one peer: what comes from the last of them is counted for it."""
    api, gateway, (steady, many) = lab
    deploy(lab)
    first = api.last_epoch()
    run(*inside("inst", "ip", "route", "add", "192.168.0.0/16", "via", "10.1.0.2"))
    run(*inside(many.namespace, "ip", "addr", "add", "192.168.66.9/32", "dev", many.device))
    prefixes = [f"192.168.{number // 256}.{number % 256}/32" for number in range(66 * 256 + 10)]
    changed = {"firewall": {**STATE["firewall"], "remote_subnets": ["192.168.0.0/16"]}, "routes": ["192.168.0.0/16"]}
    with Echoes(steady) as echoes:
        revision = api.set_state(**changed, peers=[steady.peer(), many.peer(allowed_ips=[f"{many.address}/32", *prefixes])])
        assert gateway.agent.wait(timeout=60) == 1
        gateway.start_agent()
        api.wait_applied(revision)
    assert len(echoes.lost) < len(echoes.seen) / 10  # WireGuard takes 16,906 prefixes: a moment without answers
    assert api.last_epoch() != first and api.last()["cannot_apply"] == []
    assert "room for 8191 peers" in gateway.log.read_text()
    assert many.ping(count=20, source="192.168.66.9") == 20
    wait_truth(api, [steady, many])


def test_a_removed_peer_is_told_though_the_agent_dies_first(lab):
    """Killed between the last count and its acknowledgement: the slot is kept for it, and no other peer counts there."""
    api, gateway, (leaving, staying) = lab
    deploy(lab)
    api.away = True
    assert leaving.ping(count=30, size=900) == 30
    truth = leaving.counters()
    api.set_state(peers=[staying.peer()])
    wait_for("it is out of WireGuard", lambda: leaving.public_key not in gateway.peers())
    gateway.kill_agent()
    gateway.start_agent()
    wait_for("it is at work again", lambda: gateway.log.read_text().count("adopted the meter") == 1)
    newcomers = [{**staying.peer(), "id": f"0000000{n}-0000-4000-8000-000000000000", "allowed_ips": [f"10.99.0.{100 + n}/32"],
                  "public_key": base64.b64encode(os.urandom(32)).decode()} for n in range(3)]
    api.set_state(peers=[staying.peer(), *newcomers])
    wait_for("the newcomers are there", lambda: len(gateway.peers()) == 4)
    gateway.kill_agent()
    gateway.start_agent()
    api.away = False
    wait_for("its last bytes are told", lambda: api.counted(leaving.id) == truth)
    assert staying.ping(count=10) == 10
    wait_truth(api, [staying])
    owners = {}
    with api.lock:
        totals = list(api.totals.items())
    for (epoch, slot, incarnation), (peer, _) in totals:
        assert owners.setdefault((epoch, slot, incarnation), peer) == peer
    assert api.counted(leaving.id) == truth


def test_a_machine_that_went_back_in_time_begins_anew(lab):
    """The API holds more than this agent has ever made: its epoch ends, a new one begins, and no packet notices it."""
    api, gateway, clients = lab
    deploy(lab)
    counted = int(api.last()["grant"]["cycle_counted"])
    api.grant = {"cycle": 202611, "grant_seq": 2, "ceiling": str(counted + 2_500_000), "mask": "both"}
    api.wait_applied(api.set_state())
    first = api.last_epoch()
    with Echoes(clients[0]) as echoes:  # less than the limit, however long this takes
        echoes.wait_more(40)
        api.refuse = (200, {"held_seq": 10**6, "watch_until": None, "revision": 1})
        assert gateway.agent.wait(timeout=60) == 1
        echoes.wait_more(40)  # it counts with no process alive
        gateway.start_agent()
        wait_for("a new epoch", lambda: api.last_epoch() != first)
        echoes.wait_more(40)
    assert echoes.lost == []
    wait_truth(api, clients)
    # The limit goes on in it: never more than was granted, and all of that but for the bound.
    clients[0].ping(count=200, interval=0.005, size=8000, wait=1)
    wait_for("exhausted is reported", lambda: api.last()["grant"]["exhausted"])
    with api.lock:
        total = sum(sum(api.counted(client.id)) for client in clients)
        assert int(api.last()["grant"]["cycle_counted"]) == total
    assert counted + 1_500_000 < total <= counted + 2_500_000


def test_counts_made_elsewhere_agree(lab):
    """In an hour's first batch, and a process's: the meter's cells and the interface's own counters, since the epoch began."""
    api, gateway, clients = lab
    gateway.program = PLAIN_WIREGUARD  # others' counters are of no use for this
    deploy(lab)
    assert clients[0].ping(count=40, size=700) == 40 and clients[1].ping(count=20) == 20
    wait_truth(api, clients)
    gateway.kill_agent()
    assert clients[1].ping(count=20) == 20
    mark = api.last()["seq"]
    gateway.start_agent()
    wait_for("counts are told", lambda: api.last()["seq"] > mark)
    wait_truth(api, clients)
    with api.lock:
        said = [batch["reconcile"] for batch in api.batches if "reconcile" in batch][-1]
        records = [record for _, record in api.totals.values()]
    meter, interface = ({field: int(value) for field, value in said[source].items()} for source in ("meter", "interface"))
    for field in ("upload_bytes", "download_bytes", "upload_packets", "download_packets"):
        assert meter[field] == sum(int(record[field]) for record in records)
    assert meter["upload_bytes"] <= interface["rx_bytes"] <= meter["upload_bytes"] + 15 * meter["upload_packets"]
    assert interface["tx_bytes"] == meter["download_bytes"]
    assert sum("reconcile" in batch for batch in api.batches) <= 3
