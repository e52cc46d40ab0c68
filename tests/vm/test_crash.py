# SPDX-License-Identifier: BSD-2-Clause
"""A gateway VM that loses power, and one that goes back in time: the agent on Debian's kernel, the real API, and a client
outside, whose own device knows what was sent and received.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/api"))
sys.path.insert(0, str(ROOT / "tests/net"))

from agent_lab import Client, make_namespaces, plug, run, wait_for  # noqa: E402
from conftest import api  # noqa: E402, F401
from simulated_agent import Gateway, World  # noqa: E402

BIN = ROOT / "build/bin"  # plain: the sanitizers' start takes long in an emulated machine
FOLDER = ROOT / "build/vm-gateway"
LAST_INTERVAL = 1.0  # seconds between two samples
SLACK = 3.0  # seconds that an emulated machine may be late with one, or more when it is seen to be
PATIENCE = 300  # such a machine takes long to start, too


class Machine:
    """qemu with a disk of its own, reachable by the address of the gateway, and a monitor."""

    def __init__(self, folder, disk, incoming=None):
        self.folder, self.disk, self.shell = folder, disk, None
        self.monitor_path = str(folder / "monitor")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.monitor_path)
        command = ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max",
                   "-smp", "2", "-m", "512", "-display", "none", "-no-reboot", "-rtc", "base=utc",
                   "-drive", f"file={disk},format=raw,if=virtio", "-nic",
                   "user,model=virtio-net-pci,restrict=off,hostfwd=udp:198.51.100.10:51820-10.0.2.15:51820",
                   "-monitor", f"unix:{self.monitor_path},server=on,wait=off", "-serial", f"file:{folder}/console.log",
                   "-serial", f"file:{folder}/agent.log", "-serial", f"unix:{folder}/shell,server=on,wait=off", "-kernel", FOLDER / "vmlinuz", "-initrd", FOLDER / "initramfs",
                   "-append", "console=ttyS0 quiet panic=-1"]
        if incoming:
            command += ["-incoming", f"exec:cat {incoming}"]
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL)

    def monitor(self, command):
        """What the monitor answers."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(self.monitor_path)
            self.read_prompt(connection)
            connection.sendall(command.encode() + b"\n")
            return self.read_prompt(connection)

    def run(self, command):
        """In the guest; nobody waits for it. The connection stays: what a serial port has not taken yet would be lost with it."""
        if not self.shell:
            self.shell = socket.socket(socket.AF_UNIX)
            self.shell.connect(f"{self.folder}/shell")
        self.shell.sendall(command.encode() + b"\n")

    @staticmethod
    def read_prompt(connection):
        text = b""
        while not text.endswith(b"(qemu) "):
            data = connection.recv(65536)
            assert data, text
            text += data
        return text.decode()

    def resume(self):
        """Of a machine whose memory has come in: it was stopped when it was saved."""
        wait_for("the machine's memory", lambda: os.path.exists(self.monitor_path) and "paused" in self.monitor("info status") and
                 "inmigrate" not in self.monitor("info status"), PATIENCE)
        self.monitor("cont")

    def snapshot(self, state, disk):
        """The machine's memory and disk of one moment; it goes on afterwards."""
        self.monitor("stop")
        self.monitor(f'migrate "exec:cat > {state}"')
        wait_for("the snapshot", lambda: "completed" in self.monitor("info migrate"), PATIENCE)
        shutil.copy(self.disk, disk)
        self.monitor("cont")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        if self.shell:
            self.shell.close()


class Watch(threading.Thread):
    """What something has counted, over time."""

    def __init__(self, counts):
        super().__init__(daemon=True)
        self.counts, self.over, self.seen = counts, threading.Event(), []
        self.start()
        wait_for("a first look", lambda: self.seen)

    def run(self):
        while not self.over.wait(0.02):
            counts = self.counts()
            self.seen.append((time.monotonic(), *counts))

    def end(self):
        self.over.set()
        self.join()

    def before(self, moment):
        """(upload, download) at that moment, or a little earlier."""
        return next(counts for then, *counts in reversed(self.seen) if then <= moment)

    def after(self, moment):
        """(upload, download) a little later than that moment: the first look may have begun before it."""
        return [counts for then, *counts in self.seen if then > moment][1]

    def behind(self, watch):
        """How many seconds this one was behind the other at most."""
        return max(moment - max(then for then, *counts in watch.seen if then <= moment and counts[0] <= told)
                   for moment, told, _ in self.seen if moment >= watch.seen[0][0])


@pytest.fixture(scope="module")
def image():
    FOLDER.mkdir(parents=True, exist_ok=True)
    subprocess.run(["bash", ROOT / "tests/vm/image.sh", FOLDER, os.environ.get("KERNEL") or "6.1", BIN / "wiretoll-agent"], check=True, timeout=900,
                   env={**os.environ, "VM_INIT": "gateway.sh", "VM_MODULES": "virtio_net virtio_blk virtio_pci"})


@pytest.fixture
def lab(api, image, tmp_path):
    """The API, a client behind a bridge, and a disk with what a driver hands over."""
    make_namespaces(["c1"])
    # Of its own, or it has its ports' lowest, which changes as they come and go: who knows the old one is unheard for seconds.
    run("ip", "link", "add", "pub", "address", "02:00:00:00:00:01", "type", "bridge")
    run("ip", "link", "set", "pub", "up")
    for address in ("198.51.100.1/24", "198.51.100.10/24"):
        run("ip", "addr", "add", address, "dev", "pub")
    plug("c1", "eth0", "pub", "198.51.100.21/24")
    world = World(api)
    gateway = Gateway(world, world.plan("0"), world.begin)
    client = Client(1)
    status, peer = api.request("POST", f"/v1/gateways/{gateway.id}/peers", {"name": "laptop", "public_key": client.public_key},
                               token=world.token())
    assert status == 201, peer
    client.address = peer["tunnel_ip"]
    base = tmp_path / "disk" / "base"
    base.mkdir(parents=True, mode=0o700)
    bootstrap = base / "bootstrap.json"
    bootstrap.write_text(json.dumps({
        "gateway": gateway.id, "attempt": 1, "interface": "wg0", "ca_pem": api.ca_pem.read_text(), "expires": "2099-01-01T00:00:00.000000Z",
        "api": [{"address": "10.0.2.2", "port": api.port}], "one_time_token": gateway.one_time_token()}))
    bootstrap.chmod(0o600)
    disk = tmp_path / "disk.img"
    run("mke2fs", "-q", "-t", "ext4", "-d", tmp_path / "disk", disk, "64M")
    machines = []

    def boot(**options):
        machines.append(Machine(tmp_path, disk, **options))
        return machines[-1]

    try:
        yield gateway, client, boot, disk, tmp_path
    finally:
        for machine in machines:
            if machine.process.poll() is None:
                machine.kill()
        if hasattr(client, "process"):
            client.process.kill()
            client.process.wait()
        for name in ("console.log", "agent.log"):
            print((tmp_path / name).read_text()[-4000:] if (tmp_path / name).exists() else "")
        run("ip", "netns", "del", "c1")
        run("ip", "link", "del", "pub")


def billed(gateway):
    """(upload, download) in the ledger's usage."""
    [[up, down]] = gateway.api.sql("SELECT coalesce(sum(up), 0)::bigint, coalesce(sum(down), 0)::bigint FROM billing.usage_hour "
                                   "WHERE owner = %s AND gateway = %s", gateway.owner, gateway.id)
    return up, down


def epochs(gateway):
    return gateway.api.sql("SELECT id::text, sealed IS NOT NULL, quarantined FROM billing.epoch WHERE owner = %s AND gateway = %s ORDER BY created",
                           gateway.owner, gateway.id)


def compared(gateway):
    """What was held against each other in this hour, as (counts, drift)."""
    rows = gateway.api.sql("SELECT counts, drift FROM billing.reconciliation WHERE gateway = %s AND claimed > now() - interval '1 minute'", gateway.id)
    return rows[0] if rows else None


def watch(gateway):
    gateway.api.sql("UPDATE gateway.gateway SET watch_until = now() + interval '1 hour' WHERE id = %s", gateway.id)


def at_rest(gateway, client):
    """(billed, counted by the client) once neither has changed while the agent told several more samples."""
    def told():
        return gateway.api.sql("SELECT last_seq FROM billing.epoch WHERE owner = %s AND gateway = %s ORDER BY created DESC LIMIT 1",
                               gateway.owner, gateway.id)[0][0]

    before = None
    while (now := (billed(gateway), client.counters())) != before:
        before, seq = now, told()
        wait_for("samples are told", lambda: told() >= seq + 4, PATIENCE)
    return now


def wait_active(gateway, number):
    wait_for(f"epoch {number} is told", lambda: len(epochs(gateway)) == number and gateway.row("status") == "active", PATIENCE)


def wait_told(gateway, client):
    """At rest: what is billed is what the client's device counted."""
    wait_for("all is told", lambda: billed(gateway) == client.counters(), PATIENCE)


def reconnect(client, key):
    client.set_peer(key)
    wait_for("the client passes", lambda: client.ping(wait=1), PATIENCE)


def test_power_lost_and_back_in_time(lab):
    """I8, M6: at most the last interval is lost and nothing doubled; a machine rolled back is found out, and never billed twice."""
    gateway, client, boot, disk, folder = lab
    machine = boot()
    wait_active(gateway, 1)
    key = gateway.row("encode(public_key, 'base64')")
    watch(gateway)
    client.connect(key)
    wait_for("the client passes", lambda: client.ping(wait=1), PATIENCE)
    assert client.ping(count=20, interval=0.02, size=600, wait=PATIENCE) == 20
    wait_told(gateway, client)

    # The clock is set while packets flow, forth and back: noticed at once, and nothing is lost by it.
    pinger = threading.Thread(target=client.ping, kwargs={"count": 150, "interval": 0.02, "size": 300, "wait": 1})
    pinger.start()
    for step in (4, -4):
        time.sleep(1)
        machine.run(f"busybox date -s @$(( $(busybox date +%s) + {step} ))")
        wait_for(f"a step of {step} s is noticed", lambda: any(
            abs(float(said.split()[0]) - step) < 4 for said in (folder / "agent.log").read_text().split("the clock was set by ")[1:]), PATIENCE)
    pinger.join()
    wait_told(gateway, client)

    # What the kernel's WireGuard and its interface counted, told by the next process, agrees with the records.
    gateway.api.sql("UPDATE billing.reconciliation SET at = at - interval '1 hour', claimed = claimed - interval '1 hour' WHERE gateway = %s",
                    gateway.id)
    machine.run("busybox killall -9 wiretoll-agent")
    counts, drift = wait_for("counts are compared", lambda: compared(gateway), PATIENCE)
    assert set(drift) == {"records_rollup", "overage_lines", "meter_records", "wireguard_meter", "interface_meter"}
    assert set(drift.values()) == {"0"}, (counts, drift)
    records = {field: int(value) for field, value in counts["records"].items()}
    received, explained = int(counts["wireguard"]["rx_bytes"]), records["upload_bytes"] + 32 * records["upload_packets"]
    assert records["upload_packets"] > 170 and explained <= received <= explained + 15 * records["upload_packets"] + 2000

    # Power is lost under traffic.
    seen, tells = Watch(client.counters), Watch(lambda: billed(gateway))
    pinger = threading.Thread(target=client.ping, kwargs={"count": 400, "interval": 0.02, "size": 800, "wait": 1})
    pinger.start()
    time.sleep(5.4)
    machine.kill()
    lost_at = time.monotonic()
    tells.end()
    pinger.join()
    seen.end()
    machine = boot()
    wait_active(gateway, 2)
    wait_for("the first epoch is sealed", lambda: epochs(gateway)[0][1], PATIENCE)
    told, sent = billed(gateway), client.counters()
    # A machine that is late with its samples is late with telling them, too.
    least = seen.before(lost_at - LAST_INTERVAL - max(SLACK, tells.behind(seen)))
    at_end = seen.after(lost_at)
    assert all(a <= b for a, b in zip(told, at_end)), f"doubled: {told} of {at_end}"
    assert all(a >= b for a, b in zip(told, least)), f"lost more than an interval: {told}, {least} a moment before the end"
    lost = tuple(b - a for a, b in zip(told, at_end))

    # The new epoch has every byte from its beginning.
    reconnect(client, key)
    first, begun = at_rest(gateway, client)
    assert client.ping(count=30, interval=0.02, size=700, wait=PATIENCE) == 30
    wait_for("all is told", lambda: difference(billed(gateway), first) == difference(client.counters(), begun), PATIENCE)

    # A snapshot, traffic that is told, and back to the snapshot.
    machine.snapshot(folder / "state", folder / "disk.snapshot")
    wait_for("the client passes", lambda: client.ping(wait=1), PATIENCE)
    assert client.ping(count=30, interval=0.02, size=500, wait=PATIENCE) == 30
    before_rollback = client.counters()
    wait_for("all is told", lambda: difference(billed(gateway), first) == difference(before_rollback, begun), PATIENCE)
    machine.kill()
    shutil.copy(folder / "disk.snapshot", disk)
    boot(incoming=folder / "state").resume()
    wait_active(gateway, 3)
    marks = epochs(gateway)
    assert marks[1][2] == "rolled_back", marks
    assert all(a <= b for a, b in zip(billed(gateway), client.counters())), "billed twice"
    reconnect(client, key)
    third, begun = at_rest(gateway, client)
    assert client.ping(count=30, interval=0.02, size=400, wait=PATIENCE) == 30
    wait_for("all is told", lambda: difference(billed(gateway), third) == difference(client.counters(), begun), PATIENCE)
    assert all(a <= b for a, b in zip(billed(gateway), client.counters()))
    assert difference(billed(gateway), third)[0] > 0 and sent
    print(f"power lost: {lost[0]:,} and {lost[1]:,} bytes of the last interval; rolled back: epoch quarantined, nothing billed twice")


def difference(after, before):
    return tuple(a - b for a, b in zip(after, before))
