# SPDX-License-Identifier: BSD-2-Clause
"""wiretoll meter and wiretoll top on real tunnels (M10). What is metered is compared with the clients' own devices."""

import base64
import contextlib
import ctypes
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import termios
import threading
import time
import urllib.request
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "demo"))
import lab  # noqa: E402

from echo import echo  # noqa: E402

WIRETOLL = Path(os.environ.get("WIRETOLL_BIN", HERE.parents[1] / "build" / "bin")).resolve() / "wiretoll"
SERVER = "198.51.100.1"
PIDFD_GETFD, SO_RCVBUFFORCE = 438, 33
BPF = Path("/run/wiretoll/bpf")
CONFIGURATION = """
[Interface]
PrivateKey = [YOUR_PRIVATE_KEY]
Address = 10.99.0.{number}/32, fd99::{number}/128
MTU = 1420
[Peer]
PublicKey = {key}
Endpoint = {endpoint}:51820
AllowedIPs = 10.99.0.0/24, fd99::/64
"""

# Asked in the server's own namespaces. Not by `wg`: that removes a socket on which nobody listens yet.
LISTENS = """
import socket
if socket.socket(socket.AF_UNIX).connect_ex("/run/wireguard/wg0.sock") == 0:
    print("yes")
"""


def wiretoll(*arguments, check=True, prefix=(), timeout=180):
    done = subprocess.run([*map(str, prefix), str(WIRETOLL), *map(str, arguments)], capture_output=True, text=True,
                          timeout=timeout)
    assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr
    if check:
        assert done.returncode == 0, done.stderr
    return done


class Meter:
    """A running `wiretoll meter --json`."""

    def __init__(self, *options, interface="wg0", prefix=()):
        self.samples, self.errors = [], []
        self.process = subprocess.Popen(
            [*map(str, prefix), str(WIRETOLL), "meter", interface, "--json", "--interval", "0.2", *map(str, options)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.threads = [threading.Thread(target=self._read, daemon=True), threading.Thread(target=self._read_errors, daemon=True)]
        for thread in self.threads:
            thread.start()
        lab.wait_for("the first sample", lambda: self.samples or self.process.poll() is not None)
        assert self.samples, "".join(self.errors)

    def _read(self):
        for line in self.process.stdout:
            if line.endswith("\n"):  # whoever is killed may have written half of one
                self.samples.append(json.loads(line))

    def _read_errors(self):
        for line in self.process.stderr:
            self.errors.append(line)

    @property
    def last(self):
        return self.samples[-1]

    def fresh(self):
        """A sample that began after this was asked."""
        seen = len(self.samples)
        lab.wait_for("two more samples", lambda: len(self.samples) >= seen + 2)
        return self.last

    def peer(self, key):
        return next((peer for peer in self.last["peers"] if peer["public_key"] == key), None)

    def end(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
        status = self.process.wait(60)
        for thread in self.threads:
            thread.join(60)
        text = "".join(self.errors)
        assert "Sanitizer" not in text and "runtime error" not in text, text
        return status


@contextlib.contextmanager
def metering(*options, **more):
    meter = Meter(*options, **more)
    try:
        yield meter
    finally:
        status = meter.end()
    assert status == 0, "".join(meter.errors)


QUEUE = 10000


def widen(pid):
    """A WireGuard's sockets take what it is slow to read on a busy machine: what is lost between two counts is a difference."""
    handle, widened = os.pidfd_open(pid), 0
    for number in os.listdir(f"/proc/{pid}/fd"):
        copy = ctypes.CDLL(None).syscall(PIDFD_GETFD, handle, int(number), 0)
        if copy < 0:
            continue  # closed meanwhile
        if not stat.S_ISSOCK(os.fstat(copy).st_mode):
            os.close(copy)
            continue
        with socket.socket(fileno=copy) as connection:
            if connection.type == socket.SOCK_DGRAM:
                connection.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
                widened += 1
    os.close(handle)
    assert widened, "it listens"


def wireguard_of(client):
    """The process that wg-quick has started."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().rstrip(b"\0").split(b"\0") == [b"wireguard-go", client.interface.encode()]:
                return int(path.parent.name)
    raise AssertionError(f"no wireguard-go {client.interface}")


class Server:
    """A host with a WireGuard interface wg0 that Wiretoll did not make."""

    def __init__(self, command=lambda *words: [str(word) for word in words], program="wireguard-go"):
        self.command = command
        self.program = program
        self.private_key = lab.run("wg", "genkey").strip()
        self.key = lab.run("wg", "pubkey", stdin=self.private_key).strip()
        self.make()

    def run(self, *words, **options):
        return lab.run(*self.command(*words), **options)

    def make(self):
        self.wireguard = subprocess.Popen(self.command(self.program, "--foreground", "wg0"), stdout=subprocess.DEVNULL,
                                          stderr=subprocess.DEVNULL)
        lab.wait_for("wg0", lambda: self.run(sys.executable, "-c", LISTENS, check=False))
        self.run("wg", "set", "wg0", "private-key", "/dev/stdin", "listen-port", 51820, stdin=self.private_key)
        for address in ("10.99.0.1/24", "fd99::1/64", "10.99.7.1/24"):
            self.run("ip", "addr", "add", address, "dev", "wg0")
        self.run("ip", "link", "set", "wg0", "mtu", 1420, "txqueuelen", QUEUE, "up")
        widen(self.wireguard.pid)

    def close(self):
        self.wireguard.kill()
        self.wireguard.wait()

    def admit(self, client, *allowed):
        self.run("wg", "set", "wg0", "peer", client.public_key, "allowed-ips",
                 ",".join(allowed or (f"10.99.0.{client.number}/32", f"fd99::{client.number}/128")))

    def expel(self, client):
        self.run("wg", "set", "wg0", "peer", client.public_key, "remove")


def reconnect(client, server, endpoint=SERVER):
    """The server has forgotten the session: the client begins one afresh, so that no packet is lost on the way."""
    client.run("wg", "set", client.interface, "peer", server.key, "remove")
    client.run("wg", "set", client.interface, "peer", server.key, "endpoint", f"{endpoint}:51820",
               "allowed-ips", "10.99.0.0/24,fd99::/64")
    pings(client, 1)


def pings(client, count, source=None):
    """So many echo requests of 84 bytes, each of which is answered: all of them are counted then."""
    assert echo(client.name, "10.99.0.1", count=count, interval=0.05, wait=60, source=source) == count


def make_client(name, number, server, bridge, endpoint):
    client = lab.Client(name, bridge, f"{endpoint.rsplit('.', 1)[0]}.{number + 20}/24")
    client.number = number
    server.admit(client)
    client.connect(CONFIGURATION.format(number=number, key=server.key, endpoint=endpoint))
    client.run("ip", "link", "set", client.interface, "txqueuelen", QUEUE)
    widen(wireguard_of(client))
    pings(client, 1)
    return client


class Lab:
    def __init__(self):
        # Of its own, or it has its ports' lowest, which changes as they come and go: who knows the old one is unheard for seconds.
        lab.run("ip", "link", "add", "pub", "address", "02:00:00:00:00:01", "type", "bridge")
        lab.run("ip", "addr", "add", f"{SERVER}/24", "dev", "pub")
        lab.run("ip", "link", "set", "pub", "up")
        self.server = Server(program=lab.PLAIN_WIREGUARD)  # Whole compares with its device
        self.sink = subprocess.Popen([sys.executable, str(HERE.parent / "demo" / "traffic.py"), "serve", "9000"],
                                     stdout=subprocess.PIPE, text=True)
        assert self.sink.stdout.readline() == "ready\n"
        self.a = make_client("ca", 2, self.server, "pub", SERVER)
        self.b = make_client("cb", 3, self.server, "pub", SERVER)


@pytest.fixture(scope="module")
def network():
    return Lab()


@pytest.fixture(autouse=True)
def clean(network):
    """Each test begins and ends without a meter, with both clients admitted."""
    for client in (network.a, network.b):
        network.server.admit(client)
        quiet(client)
    yield
    wiretoll("meter", "stop", "wg0", check=False)
    assert not Path("/run/wiretoll").exists(), lab.run("find", "/run/wiretoll")


def connections(client):
    """Those that may still send something: neither ended by both sides nor only listening."""
    rows = client.run("cat", "/proc/net/tcp", "/proc/net/tcp6").splitlines()
    return [row for row in rows if "sl" not in row.split() and row.split()[3] not in ("06", "0A")]


def quiet(*clients):
    """Waits until the clients' connections have ended and their counters stand still."""
    def still():
        before = [client.counters() for client in clients]
        time.sleep(0.3)
        return not any(map(connections, clients)) and before == [client.counters() for client in clients]
    lab.wait_for("silence in the tunnels", still, timeout=120)


def agree(what, one, other, again=lambda: time.sleep(0.1)):
    """Waits until both say the same, and still do when they are read again; returns it."""
    def same():
        seen[:] = [one(), other()]
        return seen[0] == seen[1] == one()
    seen = []
    with contextlib.suppress(AssertionError):
        lab.wait_for(what, lambda: same() and (again(), same())[1], step=0.1)
    assert seen[0] == seen[1], what
    return seen[0]


class Compared:
    """What a client's device has counted since now, beside what the meter says."""

    def __init__(self, meter, client):
        quiet(client)
        # Its answer comes behind whatever was under way, in both directions.
        pings(client, 1)
        self.meter, self.client = meter, client
        self.device = client.counters()
        if meter:
            meter.fresh()
        meter_now = meter.peer(client.public_key) if meter else show_peer(client)
        self.metered = (meter_now["upload_bytes"], meter_now["download_bytes"]) if meter_now else (0, 0)

    def device_bytes(self):
        return tuple(now - then for now, then in zip(self.client.counters(), self.device))

    def metered_bytes(self):
        peer = self.meter.peer(self.client.public_key) if self.meter else show_peer(self.client)
        return tuple(now - then for now, then in zip((peer["upload_bytes"], peer["download_bytes"]), self.metered))

    def check(self):
        quiet(self.client)
        return agree("equal counts", self.device_bytes, self.metered_bytes, again=self.meter.fresh if self.meter else lambda: None)


def show(*options, interface="wg0", prefix=()):
    return json.loads(wiretoll("meter", "show", interface, "--json", *options, prefix=prefix).stdout)


def show_peer(client):
    return next(peer for peer in show()["peers"] if peer["public_key"] == client.public_key)


class Whole:
    """What wg0 itself has counted since now, beside all that the meter says: no packet lost in the tunnel matters."""

    def __init__(self, network):
        quiet(network.a, network.b)
        while True:
            self.device, self.metered = self.device_bytes(), self.metered_bytes()
            if self.device == self.device_bytes():
                break

    @staticmethod
    def device_bytes():
        stats = json.loads(lab.run("ip", "-s", "-j", "link", "show", "dev", "wg0"))[0]["stats64"]
        return stats["rx"]["bytes"], stats["tx"]["bytes"], stats["tx"]["dropped"]

    @staticmethod
    def metered_bytes():
        sample = show()
        return tuple(sum(peer[field] for peer in [*sample["peers"], sample["unattributed"]]) for field in ("upload_bytes", "download_bytes"))

    def check(self):
        assert self.device_bytes()[2] == self.device[2], "the device dropped packets behind the meter"
        return agree("equal counts", lambda: tuple(now - then for now, then in zip(self.device_bytes()[:2], self.device)),
                     lambda: tuple(now - then for now, then in zip(self.metered_bytes(), self.metered)))


def use(client, upload=300_000, download=300_000, address="10.99.0.1"):
    lab.tcp(client, address, upload=upload, download=download)


COUNT = int
SCHEMA = {"time": str, "interface": str, "epoch": str, "peers": list, "unattributed": dict}
PEER_SCHEMA = {"public_key": str, "name": (str, type(None)), "allowed_ips": list, "upload_bytes": COUNT, "download_bytes": COUNT,
               "upload_packets": COUNT, "download_packets": COUNT, "refused_bytes": COUNT, "undelivered_bytes": COUNT,
               "limit_bytes": (COUNT, type(None)), "state": str}
UNATTRIBUTED_SCHEMA = {key: COUNT for key in ("upload_bytes", "download_bytes", "upload_packets", "download_packets")}


def assert_schema(value, schema):
    for field, kind in schema.items():
        assert isinstance(value[field], kind) and not isinstance(value[field], bool), (field, value.get(field))


def test_wrong_usage_and_rights():
    for arguments in (["meter"], ["meter", "show"], ["meter", "wg0", "--interval", "0"], ["meter", "wg0", "--count", "0"],
                      ["meter", "wg0", "--limit-interface", "1GBs"], ["meter", "wg0", "--limit", "nobody=1GB"],
                      ["meter", "wg0", "--attach", "ebpf"], ["meter", "wg0", "--accounting", "all"],
                      ["meter", "wg0", "wg1"], ["meter", "an-interface-with-a-long-name"]):
        done = wiretoll(*arguments, check=False)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert done.stderr.startswith("wiretoll: ") and "Usage: wiretoll meter" in done.stderr
    for arguments in (["meter", "wg0", "--count", "1"], ["meter", "show", "wg0"], ["meter", "stop", "wg0"], ["top", "wg0"]):
        done = wiretoll(*arguments, check=False, prefix=["setpriv", "--reuid=65534", "--clear-groups"])
        assert done.returncode == 1 and "needs root" in done.stderr, done
    for arguments, words in ((["meter", "nope0", "--count", "1"], 'no interface "nope0"'),
                             (["meter", "pub", "--count", "1"], "no WireGuard interface"),
                             (["meter", "show", "wg0"], "no meter is attached"),
                             (["meter", "stop", "wg0"], "no meter is attached"),
                             (["meter", "wg0", "--names", "/nowhere"], "could not read /nowhere")):
        done = wiretoll(*arguments, check=False)
        assert done.returncode == 1 and words in done.stderr, done


def test_samples_equal_the_clients_devices(network):
    first = json.loads(wiretoll("meter", "run", "wg0", "--count", "1", "--json").stdout)
    assert_schema(first, SCHEMA)
    assert_schema(first["unattributed"], UNATTRIBUTED_SCHEMA)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", first["time"])
    assert first["interface"] == "wg0" and re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", first["epoch"])
    assert [peer["public_key"] for peer in first["peers"]] == sorted(
        (network.a.public_key, network.b.public_key), key=lambda key: base64.b64decode(key))
    for peer in first["peers"]:
        assert_schema(peer, PEER_SCHEMA)
        assert peer["state"] == "ok" and peer["limit_bytes"] is None and peer["name"] is None
        # They pinged before: WireGuard knows, the meter does not claim it.
        assert peer["before_attach"]["upload_bytes"] > 0 and peer["upload_bytes"] == 0
    # Nothing runs now, and yet it counts.
    compared = [Compared(None, network.a), Compared(None, network.b)]
    use(network.a, upload=2_000_000, download=1_000_000)
    use(network.b, address="fd99::1")
    assert compared[0].check()[0] > 2_000_000
    assert compared[1].check()[1] > 300_000
    assert show()["epoch"] == first["epoch"]
    packets = show_peer(network.a)["upload_packets"]
    assert 1400 < packets, "segments, not aggregates"
    table = wiretoll("meter", "show", "wg0").stdout
    assert re.search(rf"^{re.escape(network.a.public_key)} +2\.\d+ MB +1\.\d+ MB", table, re.M), table
    assert "(unattributed)" in table and "before_attach" in table


def test_follows_wg_set(network):
    a, b, server = network.a, network.b, network.server
    server.expel(b)
    with metering() as meter:
        assert meter.peer(b.public_key) is None
        server.admit(b)
        lab.wait_for("the new peer", lambda: meter.peer(b.public_key))
        reconnect(b, server)
        both = [Compared(meter, a), Compared(meter, b)]
        use(a)
        use(b)
        for one in both:
            one.check()
        # A nested prefix goes from one peer to the other: the longest prefix says whose bytes they are.
        server.admit(a, "10.99.0.2/32", "fd99::2/128", "10.99.7.0/24")
        server.admit(b, "10.99.0.3/32", "fd99::3/128", "10.99.7.64/26")
        for client in (a, b):
            client.run("ip", "addr", "add", "10.99.7.70/32", "dev", client.interface)
            client.run("wg", "set", client.interface, "peer", server.key, "allowed-ips", "10.99.0.0/24,fd99::/64,10.99.7.0/24")
            client.run("ip", "route", "replace", "10.99.7.1/32", "dev", client.interface, "src", "10.99.7.70")
        lab.wait_for("the prefix", lambda: "10.99.7.64/26" in meter.peer(b.public_key)["allowed_ips"])
        both = [Compared(meter, a), Compared(meter, b)]
        assert echo(b.name, "10.99.7.1", count=5, source="10.99.7.70", wait=60) == 5
        assert both[1].check() == (420, 420) and both[0].check() == (0, 0)
        server.admit(a, "10.99.0.2/32", "fd99::2/128", "10.99.7.0/24", "10.99.7.64/26")
        lab.wait_for("the move", lambda: "10.99.7.64/26" in meter.peer(a.public_key)["allowed_ips"])
        both = [Compared(meter, a), Compared(meter, b)]
        assert echo(a.name, "10.99.7.1", count=5, source="10.99.7.70", wait=60) == 5
        assert both[0].check() == (420, 420) and both[1].check() == (0, 0)
        for client in (a, b):
            client.run("ip", "route", "del", "10.99.7.1/32")
            client.run("ip", "addr", "del", "10.99.7.70/32", "dev", client.interface)
        # Gone and come again: the key's total goes on.
        quiet(b)
        meter.fresh()
        before = meter.peer(b.public_key)
        server.expel(b)
        lab.wait_for("the peer's end", lambda: meter.peer(b.public_key) is None)
        last = [peer for sample in meter.samples for peer in sample["peers"] if peer["public_key"] == b.public_key][-1]
        assert last["removed"] and last["upload_bytes"] == before["upload_bytes"]
        server.admit(b)
        lab.wait_for("its return", lambda: meter.peer(b.public_key))
        assert meter.peer(b.public_key)["upload_bytes"] == before["upload_bytes"]
        reconnect(b, server)
        compared = Compared(meter, b)
        use(b)
        compared.check()
        totals = [[peer["upload_bytes"] for peer in sample["peers"] if peer["public_key"] == b.public_key] for sample in meter.samples]
        flat = [total[0] for total in totals if total]
        assert flat == sorted(flat), "no total ever falls"


def test_a_killed_process_loses_nothing(network):
    meter = Meter()
    epoch = meter.last["epoch"]
    compared = Compared(None, network.a)
    traffic = threading.Thread(target=use, args=(network.a, 4_000_000, 4_000_000))
    traffic.start()
    for _ in range(3):
        time.sleep(0.3)
        assert meter.end(signal.SIGKILL) == -signal.SIGKILL
        meter = Meter()
        assert meter.last["epoch"] == epoch
    traffic.join()
    compared.check()
    assert meter.end() == 0
    assert compared.check()[0] > 4_000_000


def written_bytes(state, client):
    records = json.loads((state / "wg0.json").read_text())["records"]
    return sum(int(record["total"]["upload_bytes"]) for record in records if record["public_key"] == client.public_key)


def test_the_history_of_very_many_peers(network, tmp_path):
    """It is written less often, so the file lags behind: a kill loses nothing all the same, and an end in peace writes it."""
    state = tmp_path / "state"
    others = [base64.b64encode(os.urandom(32)).decode() for _ in range(2000)]
    lab.run("wg", "addconf", "wg0", "/dev/stdin", stdin="".join(f"[Peer]\nPublicKey = {key}\n" for key in others))
    try:
        meter = Meter("--state", state, "--interval", 1)
        compared = Compared(None, network.a)
        lab.wait_for("a history", (state / "wg0.json").exists)

        def lags():
            pings(network.a, 1)
            return written_bytes(state, network.a) < show_peer(network.a)["upload_bytes"]
        lab.wait_for("a file that lags behind", lags)
        assert meter.end(signal.SIGKILL) == -signal.SIGKILL
        with metering("--state", state, "--interval", 1):
            compared.check()
            pings(network.a, 3)
        assert written_bytes(state, network.a) == show_peer(network.a)["upload_bytes"]
    finally:
        lab.run("wg", "set", "wg0", *(word for key in others for word in ("peer", key, "remove")))


def test_a_second_process_is_refused(network):
    with metering():
        done = wiretoll("meter", "wg0", "--count", "1", check=False)
        assert done.returncode == 1 and "another process runs the meter on wg0" in done.stderr
        done = wiretoll("meter", "stop", "wg0", check=False)
        assert done.returncode == 1 and "another process runs" in done.stderr
        assert len(show()["peers"]) == 2, "looking is always possible"


@contextlib.contextmanager
def uploading(client, rate):
    process = client.spawn(sys.executable, lab.HERE / "traffic.py", "tcp", "10.99.0.1", 9000, 10**9, 0, rate, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def flood(client, cut=None):
    """More than a limit lets through: until that is seen to cut, or else for a while."""
    with uploading(client, 8_000_000):
        if cut:
            lab.wait_for("the cut", cut)
        else:
            time.sleep(2)


def is_limited(meter, client):
    return meter.peer(client.public_key)["state"] == "limited"


def test_a_limit_on_a_peer_cuts_exactly(network, tmp_path):
    names = tmp_path / "names"
    names.write_text(f"# who is who\n\n{network.a.public_key} anna's laptop\n{network.b.public_key}\tbob\n")
    limit = 5_000_000
    with metering("--names", names, "--limit", f"anna's laptop={limit}") as meter:
        assert meter.peer(network.a.public_key)["name"] == "anna's laptop"
        assert meter.peer(network.b.public_key)["name"] == "bob"
        flood(network.a, lambda: is_limited(meter, network.a) and meter.peer(network.a.public_key)["refused_bytes"] > 0)
        meter.fresh()
        peer = meter.peer(network.a.public_key)
        counted = peer["upload_bytes"] + peer["download_bytes"]
        assert limit - 1_000_000 < counted <= limit
        assert peer["used_bytes"] == counted and peer["limit_bytes"] == limit and peer["refused_bytes"] > 0
        assert network.a.run("ping", "-q", "-c", 3, "-i", 0.1, "-W", 1, "10.99.0.1", check=False).count(" 0 received") == 1
        # The other peer does not notice.
        compared = Compared(meter, network.b)
        use(network.b)
        compared.check()
        assert meter.peer(network.b.public_key)["state"] == "ok"
    # It holds with nobody there, and after a restart; a higher one lets through again.
    assert network.a.run("ping", "-q", "-c", 2, "-i", 0.1, "-W", 1, "10.99.0.1", check=False).count(" 0 received") == 1
    with metering("--limit", f"{network.a.public_key}={limit}") as meter:
        flood(network.a)
        peer = meter.peer(network.a.public_key)
        assert peer["upload_bytes"] + peer["download_bytes"] <= limit
    with metering("--limit", f"{network.a.public_key}=8MB/month") as meter:
        pings(network.a, 3)
        flood(network.a, lambda: is_limited(meter, network.a))
        meter.fresh()
        peer = meter.peer(network.a.public_key)
        assert 7_000_000 < peer["upload_bytes"] + peer["download_bytes"] <= 8_000_000
    with metering() as meter:
        assert meter.peer(network.a.public_key)["state"] == "ok"
        pings(network.a, 3)


def test_a_limit_on_the_interface(network):
    with metering("--limit-interface", "4MiB/day", "--accounting", "uploads") as meter:
        threads = [threading.Thread(target=flood, args=(client, lambda: meter.last["state"] == "limited"))
                   for client in (network.a, network.b)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sample = meter.fresh()
        uploads = sum(peer["upload_bytes"] for peer in sample["peers"]) + sample["unattributed"]["upload_bytes"]
        assert 4 * 2**20 - 1_000_000 < uploads <= 4 * 2**20
        assert sample["used_bytes"] == uploads
        assert [peer["state"] for peer in sample["peers"]] == ["limited", "limited"]
    used = show()["used_bytes"]
    assert used == uploads
    with metering("--limit-interface", "4MiB/day", "--accounting", "uploads") as meter:
        flood(network.a)
        assert sum(peer["upload_bytes"] for peer in meter.last["peers"]) <= 4 * 2**20


def test_the_history_survives_a_reboot(network, tmp_path):
    state = tmp_path / "state"
    options = ("--state", state, "--limit", f"{network.a.public_key}=6MB/month")
    with metering(*options) as meter:
        compared = Compared(meter, network.a)
        use(network.a, upload=3_000_000, download=0)
        assert compared.check()[0] > 3_000_000
        before, epoch = meter.peer(network.a.public_key), meter.last["epoch"]
    assert {path.name for path in state.iterdir()} == {"wg0.json", "wg0.json.lock"}
    assert (state / "wg0.json").stat().st_mode & 0o777 == 0o600
    # As after a reboot: neither pins nor /run are there.
    for path in sorted(BPF.glob("*/*/*")):
        path.unlink()
    lab.run("umount", BPF)
    shutil.rmtree("/run/wiretoll")
    with metering(*options) as meter:
        assert meter.last["epoch"] != epoch
        after = meter.peer(network.a.public_key)
        assert [after[key] for key in ("upload_bytes", "download_bytes", "upload_packets")] == [
            before[key] for key in ("upload_bytes", "download_bytes", "upload_packets")]
        compared = Compared(meter, network.b)
        use(network.b)
        compared.check()
        flood(network.a, lambda: is_limited(meter, network.a))
        meter.fresh()
        peer = meter.peer(network.a.public_key)
        assert 5_000_000 < peer["upload_bytes"] + peer["download_bytes"] <= 6_000_000, "used before the reboot counts"
        last = peer
    wiretoll("meter", "stop", "wg0")
    with metering("--state", state) as meter:
        assert meter.peer(network.a.public_key)["upload_bytes"] >= last["upload_bytes"]
    (state / "wg0.json").write_text("{}")
    wiretoll("meter", "stop", "wg0", check=False)
    done = wiretoll("meter", "wg0", "--count", "1", "--state", state, check=False)
    assert done.returncode == 1 and "is no history" in done.stderr
    shutil.rmtree(state)
    for path in sorted(BPF.glob("*/*/*")):
        path.unlink()
    with contextlib.suppress(RuntimeError):
        lab.run("umount", BPF)
    shutil.rmtree("/run/wiretoll", ignore_errors=True)


def parse_prometheus(text):
    """The text format, strictly: each sample belongs to a family with HELP and TYPE, all of it in one block."""
    kinds, helped, samples, family = {}, set(), {}, None
    assert text.endswith("\n")
    for line in text.splitlines():
        head = re.fullmatch(r"# (HELP|TYPE) ([a-z_:][a-z0-9_:]*) (.+)", line)
        if head and head[1] == "HELP":
            assert head[2] not in helped
            helped.add(head[2])
        elif head:
            assert head[2] in helped and head[2] not in kinds and head[3] in ("counter", "gauge")
            family, kinds[head[2]] = head[2], head[3]
        else:
            sample = re.fullmatch(r'([a-z_]+)\{((?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*",?)*)\} (\d+)', line)
            assert sample and sample[1] == family, line
            labels = re.findall(r'([a-z_]+)="((?:[^"\\]|\\.)*)"', sample[2])
            key = (sample[1], frozenset(labels))
            assert key not in samples
            samples[key] = int(sample[3])
    return kinds, samples


def test_prometheus(network, tmp_path):
    names = tmp_path / "names"
    names.write_text(f'{network.a.public_key} a "quoted\\ name\n')
    with metering("--prometheus", "127.0.0.1:9586", "--names", names, "--limit", f"{network.b.public_key}=1GB/day") as meter:
        compared = Compared(meter, network.a)
        use(network.a)
        device = compared.check()
        answer = urllib.request.urlopen("http://127.0.0.1:9586/metrics", timeout=60)
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        kinds, samples = parse_prometheus(answer.read().decode())
        labels = {"interface": "wg0", "public_key": network.a.public_key, "name": 'a \\"quoted\\\\ name'}
        for direction, count in zip(("upload", "download"), (sum(both) for both in zip(compared.metered, device))):
            key = ("wiretoll_peer_bytes_total", frozenset({**labels, "direction": direction}.items()))
            assert samples[key] == count
        assert kinds["wiretoll_peer_bytes_total"] == "counter" and kinds["wiretoll_peer_limit_bytes"] == "gauge"
        assert [value for key, value in samples.items() if key[0] == "wiretoll_peer_limit_bytes"] == [10**9]
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen("http://127.0.0.1:9586/", timeout=60)
        assert error.value.code == 404


def status_of(address, target):
    """The status that a bare request for the target gets."""
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: meter\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.count(b"wiretoll_interface_limited") in (0, 3)
    return int(answer.split()[1])


def test_f14_prometheus_takes_the_absolute_form(network):
    with metering("--prometheus", "[::1]:9588"):
        for target, status in (("/metrics", 200), ("http://meter/metrics", 200), ("HTTP://[::1]:9588/metrics", 200),
                               ("http://meter/", 404), ("http://meter", 404), ("http:/metrics", 404), ("/metrics/", 404)):
            assert status_of(("::1", 9588), target) == status, target


@pytest.mark.parametrize("address", ["::1:9586", "everywhere", "127.0.0.1", "127.0.0.1:", ":9586", "[::1]", "127.0.0.1:0", "127.0.0.1:70000",
                                     "127.0.0.1: 80", "localhost:9586", "[127.0.0.1:9586"])
def test_s2a_a_wrong_address_is_wrong_usage(network, address):
    done = wiretoll("meter", "wg0", "--count", "1", "--prometheus", address, check=False)
    assert (done.returncode, done.stdout) == (2, "") and "127.0.0.1:9586 or [::1]:9586" in done.stderr, done
    assert not Path("/run/wiretoll").exists(), "nothing was attached"


def test_two_namespaces_with_the_same_name(network):
    with metering() as meter:
        other = lab.Host("other")
        other.plug("pub", "eth0", "198.51.100.2/24")
        server = Server(other.command)
        client = make_client("cc", 4, server, "pub", "198.51.100.2")
        try:
            compared = Compared(meter, network.a)
            # Its mounts are its own; the BPF file system was there before, so it is seen.
            first = json.loads(wiretoll("meter", "wg0", "--count", "1", "--json", prefix=other.command()).stdout)
            assert [peer["public_key"] for peer in first["peers"]] == [client.public_key]
            assert first["epoch"] != meter.last["epoch"]
            pings(client, 4)
            peer = show(prefix=other.command())["peers"][0]
            assert (peer["upload_bytes"], peer["download_bytes"]) == (4 * 84, 4 * 84)
            assert compared.check() == (0, 0), "and nothing of it here"
        finally:
            wiretoll("meter", "stop", "wg0", prefix=other.command(), check=False)
            server.close()


def test_own_mounts_that_would_die(network):
    lab.run("ip", "netns", "add", "alone")
    lab.run("ip", "netns", "exec", "alone", "ip", "link", "add", "wg0", "type", "bridge")
    done = wiretoll("meter", "wg0", "--count", "1", prefix=["unshare", "--mount"], check=False)
    assert done.returncode == 1 and "mount -t bpf bpf /run/wiretoll/bpf" in done.stderr, done
    lab.run("ip", "netns", "del", "alone")
    shutil.rmtree("/run/wiretoll", ignore_errors=True)


def test_an_interface_made_anew(network, tmp_path):
    wiretoll("meter", "wg0", "--count", "1")
    other = lab.Host("anew")
    other.plug("pub", "eth0", "198.51.100.3/24")
    server = Server(other.command)
    client = make_client("cd", 5, server, "pub", "198.51.100.3")
    state = tmp_path / "anew"
    meter = Meter("--state", state, prefix=other.command())
    pings(client, 3)
    lab.wait_for("the count", lambda: meter.last["peers"][0]["upload_bytes"] == 252)
    server.close()
    assert meter.process.wait(60) == 1
    assert meter.end() == 1 and "wg0 is gone" in "".join(meter.errors)
    server.make()
    server.admit(client)
    meter = Meter("--state", state, prefix=other.command())
    assert meter.last["peers"][0]["upload_bytes"] == 252
    # Nobody sees it end this time: what was counted since the last sample is still found.
    assert meter.end(signal.SIGKILL) == -signal.SIGKILL
    reconnect(client, server, "198.51.100.3")
    pings(client, 2)
    server.close()
    lab.wait_for("the end of wg0", lambda: not other.run("ls", "/sys/class/net/wg0", check=False))
    server.make()
    server.admit(client)
    meter = Meter("--state", state, prefix=other.command())
    assert meter.last["peers"][0]["upload_bytes"] == 504
    assert meter.end() == 0
    wiretoll("meter", "stop", "wg0", prefix=other.command())
    server.close()


def vanish(host, server):
    """The namespace goes with everything in it."""
    server.close()
    lab.run("ip", "netns", "del", host.name)
    host.keeper.kill()
    host.keeper.wait()


@pytest.mark.parametrize("attach", ["tcx", "tc"])
def test_what_vanished_is_sealed_and_removed(network, tmp_path, attach):
    """By whatever command comes next, wherever; what lives is not touched, with a process or without one."""
    wiretoll("meter", "wg0", "--count", "1")
    names = f"gone-{attach}", f"alive-{attach}"
    gone, alive = (lab.Host(name) for name in names)
    servers, clients, states = [], [], []
    for number, host in enumerate((gone, alive)):
        address = f"198.51.100.{number + (4 if attach == 'tcx' else 6)}"
        host.plug("pub", "eth0", f"{address}/24")
        servers.append(Server(host.command))
        clients.append(make_client(f"{attach}{number}", number + (10 if attach == "tcx" else 12), servers[-1], "pub", address))
        states.append(tmp_path / host.name)
        done = wiretoll("meter", "wg0", "--count", "1", "--attach", attach, "--state", states[-1], prefix=host.command(), check=False)
        assert done.returncode == 0 or "cannot attach as asked" in done.stderr, done
        if done.returncode:
            pytest.skip("this kernel has no tcx links")
        pings(clients[-1], 3)
    with metering() as meter:
        assert len(list(BPF.glob("[0-9]*"))) == 3
        epoch = meter.last["epoch"]
        if attach == "tcx":
            vanish(gone, servers[0])
        else:
            # Of a filter in another namespace nothing is known from here: its own has to look.
            servers[0].close()
            lab.wait_for("the end of wg0", lambda: not gone.run("ls", "/sys/class/net/wg0", check=False))
            gone.run("ip", "link", "add", "wg9", "type", "veth")
            done = wiretoll("meter", "stop", "wg9", prefix=gone.command(), check=False)
            assert done.returncode == 1 and "no meter is attached" in done.stderr
        show()
        assert len(list(BPF.glob("[0-9]*"))) == 2, lab.run("find", "/run/wiretoll")
        history = json.loads((states[0] / "wg0.json").read_text())
        record = next(each for each in history["records"] if each["public_key"] == clients[0].public_key)
        assert record["total"]["upload_bytes"] == "252", "the last counts, which no process had seen"
        # The living, with and without a process, count on.
        pings(clients[1], 2)
        peer = show(prefix=alive.command())["peers"][0]
        assert (peer["upload_bytes"], peer["download_bytes"]) == (420, 420)
        assert meter.last["epoch"] == epoch
    wiretoll("meter", "stop", "wg0", prefix=alive.command())
    vanish(alive, servers[1])


class Shadow:
    """A program put before everything at an interface's ingress by bpf(2) itself; it lets all pass."""

    PROG_LOAD, LINK_CREATE, SYS_BPF, SCHED_CLS, TCX_INGRESS, BEFORE = 5, 28, 321, 3, 46, 8

    PASS = (0xB7, 0, 0, -1),

    def __init__(self, interface, instructions=PASS):
        self.libc = ctypes.CDLL(None, use_errno=True)
        instructions += (0x95, 0, 0, 0),
        code = ctypes.create_string_buffer(b"".join(struct.pack("<BBhi", *each) for each in instructions))
        license_text = ctypes.create_string_buffer(b"GPL")
        program = self.bpf(self.PROG_LOAD, struct.pack("=IIQQ", self.SCHED_CLS, len(instructions), ctypes.addressof(code),
                                                       ctypes.addressof(license_text)))
        self.fds = [program, self.bpf(self.LINK_CREATE, struct.pack("=IIII", program, socket.if_nametoindex(interface),
                                                                    self.TCX_INGRESS, self.BEFORE))]

    def bpf(self, command, attributes):
        fd = self.libc.syscall(self.SYS_BPF, command, ctypes.create_string_buffer(attributes.ljust(128, b"\0")), 128)
        if fd < 0:
            raise OSError(ctypes.get_errno(), f"bpf command {command}")
        return fd

    def remove(self):
        for fd in self.fds:
            os.close(fd)


def test_xdp_needs_whole_packets(network):
    lab.run("ethtool", "-K", "wg0", "gro", "on")
    done = wiretoll("meter", "wg0", "--count", "1", "--attach", "xdp", check=False)
    assert done.returncode == 1 and "ethtool -K wg0 gro off" in done.stderr, done
    assert not Path("/run/wiretoll").exists(), "nothing stays of it"
    lab.run("ethtool", "-K", "wg0", "gro", "off")
    with metering() as meter:
        assert meter.last["attachment"] != "xdp", "auto never takes it"
    wiretoll("meter", "stop", "wg0")
    meter = Meter("--attach", "xdp")
    assert meter.last["attachment"] == "xdp" and not meter.last["shadowed"]
    whole = Whole(network)
    use(network.a, upload=1_000_000, download=1_000_000)
    assert meter.end(signal.SIGKILL) == -signal.SIGKILL
    use(network.a, address="fd99::1")
    quiet(network.a)
    with metering() as meter:
        assert meter.last["attachment"] == "xdp", "it stays what it was"
        assert min(whole.check()) > 1_300_000
        assert "xdp" in lab.run("ip", "link", "show", "wg0")
        lab.run("ethtool", "-K", "wg0", "gro", "on")
        lab.wait_for("shadowed", lambda: meter.last["shadowed"])
    wiretoll("meter", "stop", "wg0")
    assert "xdp" not in lab.run("ip", "link", "show", "wg0")


class Forger:
    """Puts packets into wg0 that WireGuard never received, as if a peer had uploaded them: by way of another device."""

    REDIRECT, INGRESS = 23, 1

    def __init__(self):
        lab.run("ip", "link", "add", "forger", "type", "veth", "peer", "name", "forged")
        for device in ("forger", "forged"):
            lab.run("ip", "link", "set", device, "up")
        self.program = Shadow("forged", ((0xB7, 1, 0, socket.if_nametoindex("wg0")), (0xB7, 2, 0, self.INGRESS),
                                         (0x85, 0, 0, self.REDIRECT)))
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self.socket.bind(("forger", 0))
        self.address = bytes.fromhex(lab.run("cat", "/sys/class/net/forged/address").strip().replace(":", ""))

    def forge(self, source, count, size=1400):
        header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, size, 0, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton("10.99.0.1"))
        frame = self.address + bytes(6) + b"\x08\x00" + header + struct.pack("!HHHH", 9, 9, size - 20, 0) + bytes(size - 28)
        for _ in range(count):
            self.socket.send(frame)
            time.sleep(0.001)

    def close(self):
        self.program.remove()
        self.socket.close()
        lab.run("ip", "link", "del", "forger")


def test_uploads_that_wireguard_never_received(network):
    forger = Forger()
    with metering("--prometheus", "127.0.0.1:9587") as meter:
        # Honest traffic first, and some that is within what the two counts may differ by.
        use(network.a, upload=3_000_000, download=1_000_000)
        quiet(network.a)
        meter.fresh()
        before = meter.peer(network.a.public_key)["upload_bytes"]
        forger.forge("10.99.0.2", 40)
        lab.wait_for("the forged packets", lambda: meter.peer(network.a.public_key)["upload_bytes"] >= before + 40 * 1400)
        time.sleep(1.5)
        assert [peer["audit"] for peer in meter.last["peers"]] == [None, None], meter.last
        assert not any("did not receive" in line for line in meter.errors)
        forger.forge("10.99.0.2", 200)
        lab.wait_for("the alarm", lambda: meter.peer(network.a.public_key)["audit"] == "rx_short")
        forger.forge("10.99.0.2", 200)
        time.sleep(1.5)
        assert meter.peer(network.b.public_key)["audit"] is None
        lines = [line for line in meter.errors if "did not receive" in line]
        assert len(lines) == 1 and network.a.public_key in lines[0]
        _, samples = parse_prometheus(urllib.request.urlopen("http://127.0.0.1:9587/metrics", timeout=60).read().decode())
        alarms = {dict(key[1])["public_key"]: value for key, value in samples.items() if key[0] == "wiretoll_peer_audit_rx_short"}
        assert alarms == {network.a.public_key: 1, network.b.public_key: 0}
    assert show_peer(network.a)["audit"] == "rx_short", "it is no passing thing"
    with metering() as meter:
        assert meter.peer(network.a.public_key)["audit"] == "rx_short"
    forger.close()


def test_shadowed(network):
    with metering() as meter:
        assert meter.last["shadowed"] is False
        if meter.last["attachment"] != "tcx":
            pytest.skip("this kernel has no tcx links to put one before the meter's")
        shadow = Shadow("wg0")
        lab.wait_for("shadowed", lambda: meter.last["shadowed"])
        lab.wait_for("the warning", lambda: any("shadowed: another program runs before" in line for line in meter.errors))
        assert show()["shadowed"] is True
        shadow.remove()
        lab.wait_for("not shadowed any more", lambda: not meter.last["shadowed"])


def test_shadowed_by_a_filter(network):
    with metering("--attach", "tc") as meter:
        assert meter.last["attachment"] == "tc" and not meter.last["shadowed"]
        lab.run("tc", "filter", "add", "dev", "wg0", "egress", "pref", 100, "protocol", "ip", "u32", "match", "u32", 0, 0,
                "classid", "1:1")
        lab.wait_for("shadowed", lambda: meter.last["shadowed"])
        lab.run("tc", "filter", "del", "dev", "wg0", "egress", "pref", 100)
        lab.wait_for("not shadowed any more", lambda: not meter.last["shadowed"])
    wiretoll("meter", "stop", "wg0")
    lab.run("tc", "filter", "add", "dev", "wg0", "ingress", "pref", 1, "protocol", "ip", "u32", "match", "u32", 0, 0,
            "classid", "1:1")
    done = wiretoll("meter", "wg0", "--count", "1", "--attach", "tc", check=False)
    assert done.returncode == 1 and "ingress pref 1" in done.stderr, done
    lab.run("tc", "qdisc", "del", "dev", "wg0", "clsact")


def test_top(network):
    before = wiretoll("top", "wg0").stdout
    assert network.a.public_key in before and "UP/S" in before
    assert not Path("/run/wiretoll").exists(), "what a look attached is gone after it"
    with metering("--limit", f"{network.b.public_key}=100MB"), uploading(network.b, 1_000_000):
        lab.wait_for("the tunnel to carry it", lambda: show_peer(network.b)["upload_bytes"] > 100_000)

        def first():
            table = wiretoll("top", "wg0").stdout.splitlines()
            rows[:] = [line for line in table if network.a.public_key in line or network.b.public_key in line]
            return network.b.public_key in rows[0]
        rows = []
        lab.wait_for("the fastest first", first)
    assert re.search(r" [\d.]+ (kB|MB) .* \d+\.\d %", rows[0]), rows[0]


def test_s2b_top_counts_peers_only(network):
    wiretoll("meter", "wg0", "--count", "1")
    # The host's own multicast belongs to no peer.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"wg0")
        sender.sendto(b"all", ("224.0.0.251", 5353))
    lab.wait_for("what is unattributed", lambda: show()["unattributed"]["download_packets"])
    table = wiretoll("top", "wg0").stdout
    assert "(unattributed)" in table and table.splitlines()[0].startswith("wg0  2 peers"), table


def test_f17_only_what_was_mounted_by_it_is_unmounted(network):
    BPF.mkdir(parents=True)
    lab.run("mount", "-t", "bpf", "bpf", BPF)
    try:
        for prefix in ([], ["unshare", "--mount"]):
            wiretoll("meter", "wg0", "--count", "1", prefix=prefix)
            wiretoll("meter", "stop", "wg0", prefix=prefix)
            assert os.path.ismount(BPF) and not list(BPF.glob("[0-9]*"))
    finally:
        lab.run("umount", BPF)
        shutil.rmtree("/run/wiretoll")
    # Its own goes, but not by a command that has mounts of its own.
    wiretoll("meter", "wg0", "--count", "1")
    wiretoll("meter", "stop", "wg0", prefix=["unshare", "--mount"])
    assert os.path.ismount(BPF) and not list(BPF.glob("[0-9]*"))
    wiretoll("meter", "wg0", "--count", "1", prefix=["unshare", "--mount"])
    wiretoll("meter", "stop", "wg0")
    assert not os.path.ismount(BPF)


def test_top_on_a_terminal(network):
    wiretoll("meter", "wg0", "--count", "1")
    for end in (b"q", b"\x03"):
        controller, terminal = pty.openpty()
        settings = termios.tcgetattr(terminal)
        process = subprocess.Popen([str(WIRETOLL), "top", "wg0"], stdin=terminal, stdout=terminal, stderr=terminal,
                                   start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        text = b""

        def seen(words):
            nonlocal text
            if select.select([controller], [], [], 0.1)[0]:
                text += os.read(controller, 65536)
            return words in text

        lab.wait_for("two screens", lambda: seen(b"") and text.count(b"PEER") >= 2)
        assert termios.tcgetattr(terminal)[3] & termios.ECHO == 0
        os.write(controller, end)
        lab.wait_for("the end", lambda: process.poll() is not None)
        lab.wait_for("the screen to be given back", lambda: seen(b"\x1b[?1049l"))
        assert process.returncode == 0
        assert termios.tcgetattr(terminal) == settings
        os.close(controller)
        os.close(terminal)
    wiretoll("meter", "stop", "wg0")


def test_stop_leaves_nothing(network):
    wiretoll("meter", "wg0", "--count", "1", "--limit-interface", "1")
    assert list(BPF.iterdir())
    assert " 0 received" in network.a.run("ping", "-q", "-c", 2, "-i", 0.1, "-W", 1, "10.99.0.1", check=False)
    wiretoll("meter", "stop", "wg0")
    pings(network.a, 3)
    assert not Path("/run/wiretoll").exists()
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    assert not [path for path in mounted if f"{path}/".startswith("/run/wiretoll/")]
    attached = json.loads(lab.run("bpftool", "-j", "net", "show", "dev", "wg0"))
    assert all(not entries for part in attached for entries in part.values()), attached
