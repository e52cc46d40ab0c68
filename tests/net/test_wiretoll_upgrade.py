# SPDX-License-Identifier: BSD-2-Clause
"""wiretoll meter takes over what an earlier version has pinned, and grows, while clients use their tunnels."""

import base64
import ctypes
import os
import random
import struct
import subprocess
import threading
import time

from test_wiretoll_meter import (BPF, WIRETOLL, Whole, clean, lab, metering, network, pings, quiet,  # noqa: F401
                                 reconnect, show, show_peer, wiretoll)

# The layout before, whose maps are the same but for a word that was 0 and unused.
EARLIER = 3


def age():
    """Makes the pinned meter one of the version before."""
    libc = ctypes.CDLL(None, use_errno=True)

    def bpf(command, attributes):
        buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"))
        result = libc.syscall(321, command, buffer, 128)
        if result < 0:
            raise OSError(ctypes.get_errno(), f"bpf command {command}")
        return result

    path = ctypes.create_string_buffer(str(next(BPF.glob("*/live/meta"))).encode())
    fd = bpf(7, struct.pack("=QII", ctypes.addressof(path), 0, 0))
    key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(80)
    bpf(1, struct.pack("=I4xQQQ", fd, ctypes.addressof(key), ctypes.addressof(value), 0))
    struct.pack_into("=I", value, 0, EARLIER)
    bpf(2, struct.pack("=I4xQQQ", fd, ctypes.addressof(key), ctypes.addressof(value), 0))
    os.close(fd)


def public_key(number):
    """A key that nobody has the other half of."""
    return base64.b64encode(number.to_bytes(4, "big").rjust(31, b"\x07") + b"\x05").decode()


class Using:
    """Clients that send and receive until the block ends."""

    def __init__(self, *clients):
        self.clients, self.stopped = clients, False

    def _use(self, client):
        while not self.stopped:
            lab.tcp(client, "10.99.0.1", upload=1_000_000, download=1_000_000)

    def __enter__(self):
        self.threads = [threading.Thread(target=self._use, args=(client,)) for client in self.clients]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *failure):
        self.stopped = True
        for thread in self.threads:
            thread.join()
        quiet(*self.clients)


def test_an_earlier_version_is_taken_over(network):
    limit = ("--limit", f"{network.a.public_key}=1GB/month")
    wiretoll("meter", "wg0", "--count", "1", *limit)
    whole = Whole(network)
    epochs, used = [show()["epoch"]], 0
    with Using(network.a, network.b):
        for _ in range(2):
            age()
            with metering(*limit) as meter:
                epochs.append(meter.last["epoch"])
                peer = meter.peer(network.a.public_key)
                assert peer["used_bytes"] == peer["upload_bytes"] + peer["download_bytes"] >= used
                assert peer["limit_bytes"] == 10**9 and peer["state"] == "ok"
                used = peer["used_bytes"]
    assert len(set(epochs)) == 3, "each a new epoch"
    assert min(whole.check()) > 1_000_000
    assert show()["unattributed"]["upload_bytes"] == 0
    assert {path.name for path in BPF.glob("*/*")} == {"live"}


def test_killed_while_it_takes_over(network):
    """The last counts of the old epoch are in the history once, wherever the process dies between the two."""
    wiretoll("meter", "wg0", "--count", "1")
    whole = Whole(network)
    chance = random.Random(20)
    with Using(network.a, network.b):
        for _ in range(6):
            age()
            process = subprocess.Popen([str(WIRETOLL), "meter", "wg0"], stdout=subprocess.DEVNULL)
            time.sleep(chance.uniform(0.05, 0.7))
            process.kill()
            process.wait()
        wiretoll("meter", "wg0", "--count", "1")
    assert min(whole.check()) > 1_000_000
    assert {path.name for path in BPF.glob("*/*")} == {"live"}


def test_it_grows_with_its_peers(network):
    """Beyond seven eighths of 4,096 slots."""
    a, b, server = network.a, network.b, network.server
    server.expel(b)
    process = subprocess.Popen([str(WIRETOLL), "meter", "wg0", "--interval", "60"], stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True)
    lab.wait_for("the meter", lambda: wiretoll("meter", "show", "wg0", check=False).returncode == 0)
    epoch, whole = show()["epoch"], Whole(network)
    with Using(a):
        lab.run("wg", "addconf", "wg0", "/dev/stdin", stdin="".join(
            f"[Peer]\nPublicKey = {public_key(i)}\nAllowedIPs = 10.98.{i // 250}.{i % 250 + 1}/32\n" for i in range(3600)))
        server.admit(b)
        lab.wait_for("the larger meter", lambda: show()["epoch"] != epoch, timeout=240, step=0.5)
        # With so many peers, WireGuard is not asked every second any more.
        lab.wait_for("the new peer", lambda: b.public_key in wiretoll("meter", "show", "wg0").stdout, timeout=240, step=0.5)
        reconnect(b, server)
    before = show_peer(b)["upload_bytes"]
    lab.tcp(b, "10.99.0.1", upload=300_000, download=300_000)
    quiet(b)
    pings(b, 1)
    assert show_peer(b)["upload_bytes"] > before + 300_000
    assert min(whole.check()) > 1_000_000
    assert len(show()["peers"]) == 3602
    process.terminate()
    assert "full" not in process.communicate(timeout=60)[1] and process.returncode == 0
    lab.run("wg", "syncconf", "wg0", "/dev/stdin", stdin=f"[Interface]\nPrivateKey = {server.private_key}\nListenPort = 51820\n" + "".join(
        f"[Peer]\nPublicKey = {client.public_key}\nAllowedIPs = 10.99.0.{client.number}/32, fd99::{client.number}/128\n"
        for client in (a, b)))
    reconnect(a, server)


def test_it_grows_with_its_prefixes(network):
    """Beyond seven eighths of the room that 4,096 slots have for them: the last one counts for its peer like the first."""
    a, b = network.a, network.b
    prefixes = [f"10.98.{i // 256}.{i % 256}/32" for i in range(66 * 256 + 10)]
    lab.run("ip", "route", "add", "10.98.0.0/16", "dev", "wg0")
    b.run("ip", "addr", "add", "10.98.66.9/32", "dev", b.interface)
    with metering() as meter:
        epoch, whole = show()["epoch"], Whole(network)
        with Using(a):
            lab.run("wg", "addconf", "wg0", "/dev/stdin", stdin=f"[Peer]\nPublicKey = {b.public_key}\n" + "".join(
                f"AllowedIPs = {prefix}\n" for prefix in [f"10.99.0.{b.number}/32", f"fd99::{b.number}/128", *prefixes]))
            lab.wait_for("the larger meter", lambda: show()["epoch"] != epoch, timeout=240, step=0.2)
        before = show_peer(b)["upload_packets"]
        pings(b, 20, source="10.98.66.9")
        assert show_peer(b)["upload_packets"] == before + 20
        assert min(whole.check()) > 10_000
    assert show()["unattributed"]["upload_bytes"] == 0
