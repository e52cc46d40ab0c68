# SPDX-License-Identifier: BSD-2-Clause
"""An interface that is renamed, moved to another network namespace, deleted and made anew; a meter that somebody detaches."""

import contextlib
import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import threading
import urllib.request
from pathlib import Path

import pytest

from test_wiretoll_meter import (BPF, Compared, Meter, Server, Shadow, clean, lab, make_client, metering, network,  # noqa: F401
                                 parse_prometheus, pings, reconnect, show, wiretoll)

LIMIT = 30_000
SOCKETS = Path("/run/wireguard")


def limit(client):
    return "--limit", f"{client.public_key}={LIMIT}/month"


def nothing_passes(client):
    answer = client.run("ping", "-q", "-c", 3, "-i", 0.01, "-W", 1, "10.99.0.1", check=False)
    return " 0 received" in answer


def use_up(client):
    """Small packets, so that not one byte of the limit can be had."""
    client.run("ping", "-q", "-i", 0.002, "-c", 200, "-W", 1, "10.99.0.1", check=False)
    lab.wait_for("the limit", lambda: nothing_passes(client))


def still_limited(client, look):
    """Of a limit that was told anew, what CPUs had kept of it may be used: all in all not one byte more passes."""
    use_up(client)
    peer = peer_of(look(), client)
    assert peer["state"] == "limited" and LIMIT / 2 < peer["upload_bytes"] + peer["download_bytes"] <= LIMIT, peer


def rename(server, before, after):
    for words in (("set", before, "down"), ("set", before, "name", after), ("set", after, "up")):
        server.run("ip", "link", *words)


@contextlib.contextmanager
def renamed(server, after="wgB"):
    rename(server, "wg0", after)
    try:
        yield
    finally:
        rename(server, after, "wg0")
        server.run("ip", "addr", "replace", "fd99::1/64", "dev", "wg0")


def peer_of(sample, client):
    return next(peer for peer in sample["peers"] if peer["public_key"] == client.public_key)


@pytest.mark.parametrize("attach", ["auto", "tc"])
def test_f1_a_renamed_interface_stays_metered(network, tmp_path, attach):
    state = tmp_path / "state"
    with metering("--attach", attach, "--state", state, "--prometheus", "127.0.0.1:9589", *limit(network.a)) as meter:
        use_up(network.a)
        before = peer_of(meter.fresh(), network.a)
        with renamed(network.server):
            lab.wait_for("the new name", lambda: meter.last["interface"] == "wgB")
            assert not any("gone" in line or "detached" in line for line in meter.errors), meter.errors
            assert any("wg0 is called wgB now" in line for line in meter.errors)
            reconnect(network.b, network.server)
            compared = Compared(meter, network.b)
            pings(network.b, 5)
            assert compared.check() == (420, 420)
            assert nothing_passes(network.a)
            after = peer_of(meter.fresh(), network.a)
            assert after["state"] == "limited" and after["refused_bytes"] > before["refused_bytes"]
            assert [after[key] for key in ("upload_bytes", "download_bytes")] == [before[key] for key in ("upload_bytes", "download_bytes")]
            assert show(interface="wgB")["epoch"] == meter.last["epoch"] == meter.samples[0]["epoch"]
            text = urllib.request.urlopen("http://127.0.0.1:9589/metrics", timeout=60).read().decode()
            assert {dict(key[1])["interface"] for key in parse_prometheus(text)[1]} == {"wgB"}
            # Peers are followed, and the history has the name.
            network.server.run("wg", "set", "wg0", "peer", network.b.public_key, "allowed-ips", "10.99.0.3/32,10.99.8.0/24")
            lab.wait_for("the prefix", lambda: "10.99.8.0/24" in peer_of(meter.last, network.b)["allowed_ips"])
            lab.wait_for("the history", (state / "wgB.json").exists)
            assert json.loads((state / "wgB.json").read_text())["interface"] == "wgB"
            assert not (state / "wg0.json").exists()
        lab.wait_for("the old name", lambda: meter.last["interface"] == "wg0")
        assert meter.last["epoch"] == meter.samples[0]["epoch"]
    assert (state / "wg0.json").exists() and not (state / "wgB.json").exists()


@pytest.mark.parametrize("socket_name, named", [(None, True), ("wgB.sock", False)])
def test_f2_a_renamed_interface_is_adopted(network, tmp_path, socket_name, named):
    """A userspace WireGuard's socket keeps the old name, unless somebody has made one of the new name, too."""
    options = ("--state", tmp_path / "state") if named else ()
    epoch = json.loads(wiretoll("meter", "wg0", "--count", 1, "--json", *options, *limit(network.a)).stdout)["epoch"]
    use_up(network.a)
    with contextlib.ExitStack() as stack:
        stack.enter_context(renamed(network.server))
        if socket_name:
            (SOCKETS / socket_name).symlink_to("wg0.sock")
            stack.callback((SOCKETS / socket_name).unlink)
        shown = show(interface="wgB")
        assert (shown["epoch"], shown["interface"]) == (epoch, "wgB")
        sample = json.loads(wiretoll("meter", "wgB", "--count", 1, "--json", *options, *limit(network.a), timeout=60).stdout)
        assert (sample["epoch"], sample["interface"]) == (epoch, "wgB")
        reconnect(network.b, network.server)
        still_limited(network.a, lambda: show(interface="wgB"))
        done = wiretoll("meter", "show", "wg0", check=False, timeout=60)
        assert done.returncode == 1 and 'no interface "wg0"' in done.stderr
        wiretoll("meter", "stop", "wgB", timeout=60)
        assert not Path("/run/wiretoll").exists(), lab.run("find", "/run/wiretoll")
        if named:
            assert [path.name for path in (tmp_path / "state").iterdir()] == ["wgB.json"]


class Device:
    """A TUN device with a socket that answers what it is told to, in place of a WireGuard with very many peers, or a slow one."""

    def __init__(self, name, text, *, netns=None):
        self.name, self.text, self.silent = name, text.encode(), False
        self.asked = threading.Event()
        self.where = ("-n", netns) if netns else ()
        self.add()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(SOCKETS / f"{name}.sock"))
        self.socket.listen(64)
        threading.Thread(target=self._serve, daemon=True).start()

    def add(self):
        lab.run("ip", *self.where, "tuntap", "add", self.name, "mode", "tun")
        lab.run("ip", *self.where, "link", "set", self.name, "up")

    def delete(self):
        lab.run("ip", *self.where, "link", "del", self.name)

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection = self.socket.accept()[0]
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection):
        with contextlib.suppress(OSError), connection:
            if b"get=1" in connection.recv(64):
                self.asked.set()
                if self.silent:
                    connection.recv(1)  # until it gives up
                else:
                    connection.sendall(self.text)

    def close(self):
        self.socket.close()
        (SOCKETS / f"{self.name}.sock").unlink()


PEER = "11" * 32
EMPTY = "errno=0\n\n"


def test_f2_no_interface_waits_for_another(network):
    """A process that stands still amid its beginning holds up nobody else's."""
    wiretoll("meter", "wg0", "--count", 1)
    device = Device("wgS", EMPTY)
    with contextlib.ExitStack() as stack:
        stack.callback(device.close)
        stack.callback(device.delete)
        # The first answer is for who opens it; then it is silent.
        process = subprocess.Popen([str(wiretoll_path()), "meter", "wgS", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        device.silent = True
        stack.callback(process.wait)
        stack.callback(process.kill)
        assert device.asked.wait(60)
        process.send_signal(signal.SIGSTOP)
        assert len(show()["peers"]) == 2
        wiretoll("meter", "wg0", "--count", 1, timeout=60)
        wiretoll("meter", "stop", "wg0", timeout=60)
        process.send_signal(signal.SIGCONT)
    wiretoll("meter", "stop", "wgS", check=False)
    show_nothing = wiretoll("meter", "show", "wg0", check=False)
    assert "no meter is attached" in show_nothing.stderr


def wiretoll_path():
    from test_wiretoll_meter import WIRETOLL
    return WIRETOLL


class Elsewhere:
    """Another network namespace, which wg0 is taken to and fetched from."""

    def __init__(self, server, name="n2"):
        self.server, self.name = server, name
        lab.run("ip", "netns", "add", name)
        self.inside = ["nsenter", f"--net=/run/netns/{name}"]

    def take(self):
        lab.run("ip", "link", "set", "wg0", "netns", self.name)
        for words in (("addr", "add", "10.99.0.1/24", "dev", "wg0"), ("link", "set", "wg0", "up")):
            lab.run(*self.inside, "ip", *words)

    def fetch(self):
        """By a process of the outer namespace, as process 1 is."""
        lab.run(*self.inside, "ip", "link", "set", "wg0", "netns", 1)
        for address in ("10.99.0.1/24", "fd99::1/64"):
            lab.run("ip", "addr", "add", address, "dev", "wg0")
        lab.run("ip", "link", "set", "wg0", "up")


@contextlib.contextmanager
def moved(server, name="n2"):
    other = Elsewhere(server, name)
    other.take()
    try:
        yield other
    finally:
        other.fetch()
        with contextlib.suppress(RuntimeError):
            lab.run("ip", "netns", "del", name)


def needs_links():
    attachment = json.loads(wiretoll("meter", "wg0", "--count", 1, "--json").stdout)["attachment"]
    wiretoll("meter", "stop", "wg0")
    if attachment != "tcx":
        pytest.skip("this kernel has no tcx links, and clsact filters do not move with their interface")


def test_f3_a_moved_interface_stays_metered(network):
    needs_links()
    with metering(*limit(network.a)) as meter:
        use_up(network.a)
        before = peer_of(meter.fresh(), network.a)
        epoch = meter.last["epoch"]
        with moved(network.server) as other:
            lab.wait_for("the move", lambda: any("moved to another network namespace" in line for line in meter.errors))
            reconnect(network.b, network.server)
            compared = Compared(meter, network.b)
            pings(network.b, 5)
            assert compared.check() == (420, 420)
            assert nothing_passes(network.a)
            meter.fresh()
            assert peer_of(meter.last, network.a)["state"] == "limited" and meter.last["attached"] and not meter.last["shadowed"]
            assert peer_of(meter.last, network.a)["upload_bytes"] == before["upload_bytes"]
            network.server.run("wg", "set", "wg0", "peer", network.b.public_key, "allowed-ips", "10.99.0.3/32,10.99.9.0/24")
            lab.wait_for("the prefix", lambda: "10.99.9.0/24" in peer_of(meter.last, network.b)["allowed_ips"])
            # It is looked at from there, and from here by its id.
            identity, = (path.name for path in BPF.glob("[0-9]*"))
            assert show(prefix=other.inside)["epoch"] == show(interface=identity)["epoch"] == epoch
            done = wiretoll("meter", "wg0", "--count", 1, prefix=other.inside, check=False)
            assert done.returncode == 1 and "another process runs" in done.stderr, done
        lab.wait_for("the way back", lambda: sum("moved to another network namespace" in line for line in meter.errors) == 2)
        assert meter.fresh()["epoch"] == epoch and meter.last["attached"]
        assert len(list(BPF.glob("[0-9]*"))) == 1


@pytest.mark.parametrize("stopped_from", ["there", "here"])
def test_f3_a_moved_interface_is_found(network, stopped_from):
    needs_links()
    epoch = json.loads(wiretoll("meter", "wg0", "--count", 1, "--json", *limit(network.a)).stdout)["epoch"]
    use_up(network.a)
    with moved(network.server) as other:
        reconnect(network.b, network.server)
        assert nothing_passes(network.a)
        assert show(prefix=other.inside)["epoch"] == epoch
        assert show()["epoch"] == epoch
        # Adopted there: one meter, not two.
        sample = json.loads(wiretoll("meter", "wg0", "--count", 1, "--json", *limit(network.a), prefix=other.inside).stdout)
        assert sample["epoch"] == epoch
        still_limited(network.a, lambda: show(prefix=other.inside))
        assert len(list(BPF.glob("[0-9]*"))) == 1
        if stopped_from == "here":
            # It was seen there last: from here it goes by its id, which the refusal names.
            done = wiretoll("meter", "stop", "wg0", check=False)
            identity, = (path.name for path in BPF.glob("[0-9]*"))
            assert done.returncode == 1 and identity in done.stderr, done
            wiretoll("meter", "stop", identity)
        else:
            wiretoll("meter", "stop", "wg0", prefix=other.inside)
        pings(network.a, 3)
        assert not Path("/run/wiretoll").exists(), lab.run("find", "/run/wiretoll")


def test_f3_a_meter_that_cannot_be_reached_can_be_ended(network):
    needs_links()
    wiretoll("meter", "wg0", "--count", 1, *limit(network.a))
    use_up(network.a)
    with moved(network.server) as other:
        descriptor = os.open(f"/run/netns/{other.name}", os.O_RDONLY)
        lab.run("ip", "netns", "del", other.name)
        other.inside = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{descriptor}"]
        try:
            done = wiretoll("meter", "wg0", "--count", 1, check=False)
            assert done.returncode == 1 and "cannot be entered from here" in done.stderr, done
            assert peer_of(show(), network.a)["state"] == "limited" and show()["attached"]
            wiretoll("meter", "stop", "wg0")
            reconnect(network.a, network.server)
            pings(network.a, 3)
            assert not Path("/run/wiretoll").exists(), lab.run("find", "/run/wiretoll")
        finally:
            other.fetch()
            os.close(descriptor)
            other.fetch = lambda: None


def test_f3_filters_that_do_not_move_end_the_process(network):
    meter = Meter("--attach", "tc")
    with moved(network.server):
        assert meter.process.wait(60) == 1 and meter.end() == 1
        assert "clsact filters do not follow it" in "".join(meter.errors)
    reconnect(network.a, network.server)


# ---- detached by somebody else (F4) --------------------------------------------------------------------------------

def detach(attachment):
    if attachment == "tc":
        lab.run("tc", "qdisc", "del", "dev", "wg0", "clsact")
        return
    link, = BPF.glob("[0-9]*/live/ingress_link")
    name = ctypes.create_string_buffer(str(link).encode())
    bpf = Shadow.bpf
    holder = type("Holder", (), {"libc": ctypes.CDLL(None, use_errno=True), "SYS_BPF": Shadow.SYS_BPF})()
    fd = bpf(holder, 7, struct.pack("=QII", ctypes.addressof(name), 0, 0))  # BPF_OBJ_GET
    bpf(holder, 34, struct.pack("=I", fd))  # BPF_LINK_DETACH
    os.close(fd)


@pytest.mark.parametrize("attach", ["auto", "tc"])
def test_f4_a_detached_meter_is_attached_anew(network, attach):
    with metering("--attach", attach, "--prometheus", "127.0.0.1:9590", *limit(network.a)) as meter:
        use_up(network.a)
        first = meter.fresh()
        detach(first["attachment"])
        lab.wait_for("the meter", lambda: meter.last.get("reattached") == 1)
        assert (first["attached"], first["reattached"]) == (True, 0)
        sample = meter.fresh()
        assert sample["attached"] and sample["attachment"] == first["attachment"]
        still_limited(network.a, meter.fresh)
        compared = Compared(meter, network.b)
        pings(network.b, 5)
        assert compared.check() == (420, 420)
        detach(first["attachment"])
        lab.wait_for("the meter once more", lambda: meter.last["reattached"] == 2)
        meter.fresh()
        assert len({sample["epoch"] for sample in meter.samples}) == 3
        assert peer_of(meter.last, network.a)["upload_bytes"] >= peer_of(first, network.a)["upload_bytes"]
        assert sum("detached by somebody else: it is attached anew" in line for line in meter.errors) == 2
        text = urllib.request.urlopen("http://127.0.0.1:9590/metrics", timeout=60).read().decode()
        values = {key[0]: value for key, value in parse_prometheus(text)[1].items()}
        assert (values["wiretoll_interface_attached"], values["wiretoll_interface_reattached_total"]) == (1, 2)
    assert show()["reattached"] == 2
    # With no process nobody attaches it: that is told, and the next process does.
    detach(first["attachment"])
    assert show()["attached"] is False
    assert "detached: nothing is counted" in wiretoll("meter", "show", "wg0").stdout.splitlines()[0]
    with metering(*limit(network.a)) as meter:
        assert meter.last["attached"] and peer_of(meter.last, network.a)["used_bytes"] <= LIMIT


def test_f4_a_process_that_cannot_attach_anew_ends(network):
    meter = Meter("--attach", "tc")
    meter.process.send_signal(signal.SIGSTOP)
    detach("tc")
    lab.run("tc", "qdisc", "add", "dev", "wg0", "clsact")
    lab.run("tc", "filter", "add", "dev", "wg0", "ingress", "pref", 1, "protocol", "ip", "u32", "match", "u32", 0, 0, "classid", "1:1")
    meter.process.send_signal(signal.SIGCONT)
    assert meter.process.wait(60) == 1 and meter.end() == 1
    assert "could not be attached anew" in "".join(meter.errors)
    lab.run("tc", "qdisc", "del", "dev", "wg0", "clsact")


# ---- made anew (F7), deleted (F16, S2C) ----------------------------------------------------------------------------

def test_f7_an_interface_made_anew_has_its_history(network):
    """Without --state: with a process that saw it end, and with none."""
    # The BPF file system is to outlive the mounts of one command.
    wiretoll("meter", "wg0", "--count", 1)
    other = lab.Host("again")
    other.plug("pub", "eth0", "198.51.100.9/24")
    server = Server(other.command)
    client = make_client("cg", 9, server, "pub", "198.51.100.9")

    def make_anew():
        lab.wait_for("the end of wg0", lambda: not other.run("ls", "/sys/class/net/wg0", check=False))
        server.make()
        server.admit(client)
        # A new session, without a ping: it might be refused.
        for words in (("remove",), ("endpoint", "198.51.100.9:51820", "allowed-ips", "10.99.0.0/24,fd99::/64")):
            client.run("wg", "set", client.interface, "peer", server.key, *words)

    def used(sample):
        return peer_of(sample, client)["used_bytes"]

    meter = Meter(*limit(client), prefix=other.command())
    use_up(client)
    before = used(meter.fresh())
    assert before > LIMIT / 2
    server.close()
    assert meter.process.wait(60) == 1 and meter.end() == 1
    said = "".join(meter.errors)
    make_anew()
    meter = Meter(*limit(client), prefix=other.command())
    assert used(meter.fresh()) >= before, "not another allowance"
    assert "detached" not in said, "S2C"
    still_limited(client, meter.fresh)
    before = used(meter.fresh())
    assert meter.end(signal.SIGKILL) == -signal.SIGKILL
    server.close()
    make_anew()
    # A look at another interface seals it, and one at this leaves its history there.
    wiretoll("meter", "show", "lo", check=False)
    wiretoll("top", "wg0", prefix=other.command())
    wiretoll("meter", "wg0", "--count", 1, *limit(client), prefix=other.command())
    assert used(show(prefix=other.command())) >= before, "not another allowance"
    still_limited(client, lambda: show(prefix=other.command()))
    # Only stop forgets, also once the interface is gone.
    server.close()
    lab.wait_for("the end of wg0", lambda: not other.run("ls", "/sys/class/net/wg0", check=False))
    wiretoll("meter", "stop", "wg0", prefix=other.command())
    wiretoll("meter", "stop", "wg0", check=False)
    assert not Path("/run/wiretoll/meter").exists(), lab.run("find", "/run/wiretoll")


def test_f16_s2c_a_deleted_interface_ends_the_process_at_once(network):
    """Also with so many prefixes that a hundredth of the CPU time is one answer in minutes, on a slow machine."""
    addresses = "".join(f"allowed_ip=10.{number >> 16}.{number >> 8 & 255}.{number & 255}/32\n" for number in range(65_280))
    device = Device("wgM", f"public_key={PEER}\n{addresses}{EMPTY}")
    try:
        with contextlib.ExitStack() as stack:
            meter = Meter("--prometheus", "127.0.0.1:9591", interface="wgM")
            stack.callback(meter.end)
            assert len(meter.last["peers"][0]["allowed_ips"]) == 65_280
            device.delete()
            assert meter.process.wait(60) == 1
            errors = "".join(meter.errors)
            assert "wgM is gone; its meter has ended" in errors and "detached" not in errors
            # And the one made anew is metered.
            device.add()
            wiretoll("meter", "wgM", "--count", 1)
    finally:
        wiretoll("meter", "stop", "wgM", check=False)
        device.delete()
        device.close()


# ---- a network namespace that was deleted (F18) --------------------------------------------------------------------

HOLDERS = {"inside": ["nsenter", "--net=/run/netns/n9", "sleep", "86400"],
           "by a descriptor": ["sh", "-c", "exec 7< /run/netns/n9; exec sleep 86400"]}


@pytest.mark.parametrize("held", [None, *HOLDERS])
def test_f18_a_deleted_network_namespace_ends_its_meter(network, held):
    lab.run("ip", "netns", "add", "n9")
    device = Device("wgD", f"public_key={PEER}\n{EMPTY}", netns="n9")
    holder = subprocess.Popen(HOLDERS[held]) if held else None
    wiretoll("meter", "wg0", "--count", 1)
    try:
        meter = Meter(interface="wgD", prefix=["nsenter", "--net=/run/netns/n9"])
        inode = os.stat(f"/proc/{meter.process.pid}/ns/net").st_ino
        assert inode == os.stat("/run/netns/n9").st_ino
        lab.run("ip", "netns", "del", "n9")
        if held:
            lab.wait_for("the word of it", lambda: any(f"process {holder.pid} still holds it" in line for line in meter.errors))
            assert len(meter.fresh()["peers"]) == 1
            holder.kill()
            holder.wait()
        assert meter.process.wait(60) == 1 and meter.end() == 1
        assert "network namespace that was deleted, and that nothing else holds; its meter has ended" in "".join(meter.errors)
        assert len(list(BPF.glob("[0-9]*"))) == 1, "only wg0's is left"
    finally:
        device.close()
        if holder:
            holder.kill()
            holder.wait()
        # The history of a namespace that is gone stays until the reboot.
        for path in Path("/run/wiretoll/meter").glob("*-wgD.json"):
            path.unlink()
