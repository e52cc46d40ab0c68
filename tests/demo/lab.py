# SPDX-License-Identifier: BSD-2-Clause
"""The laboratory of the demo: hosts as network namespaces, traffic between them, and counts read from the kernel.

Nothing here knows how Wiretoll counts: every truth comes from the clients' own devices, from nftables at the
instances, from ping's replies, or from the maps read by plain bpf(2) calls.
"""

import contextlib
import ctypes
import json
import mmap
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
PLAIN_WIREGUARD = "/run/plain/wireguard-go"  # of tests/envelope.sh


def run(*command, check=True, stdin=None, timeout=180):
    """Runs a command, returns its standard output; an error carries what the command said."""
    done = subprocess.run([str(c) for c in command], input=stdin, capture_output=True, text=True, timeout=timeout)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def wait_for(what, condition, timeout=60.0, step=0.02):
    """Polls until the condition holds and returns its value; otherwise fails, saying what was awaited."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s in vain: {what}")
        time.sleep(step)


class Host:
    """A network namespace with a mount namespace of its own (for /run/wireguard and /sys)."""

    def __init__(self, name):
        self.name = name
        run("ip", "netns", "add", name)
        self.keeper = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{name}", "unshare", "--mount", "sh", "-c",
             "mount -t sysfs sysfs /sys && mount -t tmpfs tmpfs /run/wireguard && echo ready && exec sleep 86400"],
            stdout=subprocess.PIPE, text=True)
        assert self.keeper.stdout.readline() == "ready\n"
        for key in ("net.ipv6.conf.default.addr_gen_mode=1", "net.ipv6.conf.all.forwarding=1",
                    "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv6.conf.default.accept_dad=0",
                    "net.ipv6.conf.all.accept_dad=0", "net.ipv4.ping_group_range=0 2147483647"):
            self.run("sysctl", "-qw", key)
        self.run("ip", "link", "set", "lo", "up")

    def command(self, *command):
        return ["nsenter", "-t", str(self.keeper.pid), "-n", "-m", "--", *map(str, command)]

    def run(self, *command, **options):
        return run(*self.command(*command), **options)

    def spawn(self, *command, **options):
        return subprocess.Popen(self.command(*command), **options)

    def outer(self, interface):
        """The bridge's end of a cable."""
        return f"{self.name}-{interface}"[:15]

    def plug(self, bridge, interface, *addresses):
        """A cable from this host's interface to a bridge of the outer namespace."""
        outer = self.outer(interface)
        run("ip", "link", "add", outer, "type", "veth", "peer", "name", interface, "netns", self.name)
        run("ip", "link", "set", outer, "master", bridge, "up")
        for address in addresses:
            self.run("ip", "addr", "add", address, "dev", interface)
        # A router asks its neighbours, for what it forwards over IPv6, from a link-local address.
        self.run("ip", "link", "set", interface, "addrgenmode", "eui64", "up")

    def link(self, interface):
        """The kernel's statistics of an interface."""
        return json.loads(self.run("ip", "-s", "-j", "link", "show", "dev", interface))[0]["stats64"]

    def count_arrivals(self, interface):
        """Counts every IP packet that arrives for this host, but for neighbour discovery: what a gateway let in."""
        # Segments that a gateway's wireguard-go has put together come one by one, each with its headers.
        run("ip", "link", "set", self.outer(interface), "gso_max_segs", 1)
        self.run("nft", "-f", "-", stdin=f"""
            table inet oracle {{
                counter arrived {{ }}
                chain prerouting {{
                    type filter hook prerouting priority raw; policy accept;
                    iifname != "{interface}" accept
                    meta pkttype != host accept
                    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
                    counter name arrived
                }}
            }}""")

    def arrived(self):
        listing = json.loads(self.run("nft", "-j", "list", "counter", "inet", "oracle", "arrived"))
        return next(item["counter"]["bytes"] for item in listing["nftables"] if "counter" in item)

    def udp_errors(self):
        return udp_errors_of(self.run("cat", "/proc/net/snmp"))


def udp_errors_of(snmp):
    """Datagrams that UDP sockets had to drop, from /proc/net/snmp."""
    names, values = [line.split()[1:] for line in snmp.splitlines() if line.startswith("Udp:")]
    table = dict(zip(names, map(int, values)))
    return table["RcvbufErrors"] + table["SndbufErrors"] + table["InErrors"]


class Client(Host):
    """A host that runs WireGuard as a customer would: wg-quick, wireguard-go and a downloaded configuration. Its device counts
    each packet, whatever this wireguard-go can do: it is the truth."""

    def __init__(self, name, bridge, address):
        super().__init__(name)
        self.plug(bridge, "eth0", address)
        self.private_key = run("wg", "genkey").strip()
        self.public_key = run("wg", "pubkey", stdin=self.private_key).strip()
        self.interface = name
        # The kernel announces its multicast groups on every device with an IPv6 address. No peer's allowed IPs hold
        # them, so they never leave the client, but its device would count them.
        self.run("nft", "-f", "-", stdin=f"""
            table ip6 quiet {{
                chain output {{
                    type filter hook output priority filter; policy accept;
                    oifname "{name}" icmpv6 type mld2-listener-report drop
                }}
            }}""")

    def connect(self, configuration):
        assert configuration.count("[YOUR_PRIVATE_KEY]") == 1, "the configuration has one placeholder"
        folder = Path("/run/demo-clients")
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / f"{self.interface}.conf"
        path.touch(mode=0o600)
        path.write_text(configuration.replace("[YOUR_PRIVATE_KEY]", self.private_key))
        self.run("env", f"WG_QUICK_USERSPACE_IMPLEMENTATION={PLAIN_WIREGUARD}", "wg-quick", "up", path)

    def counters(self):
        """(upload, download) in bytes, as the client's own WireGuard device counted them."""
        stats = self.link(self.interface)
        return stats["tx"]["bytes"], stats["rx"]["bytes"]

    def drops(self):
        stats = self.link(self.interface)
        return stats["tx"]["dropped"] + stats["rx"]["dropped"] + stats["tx"]["errors"] + stats["rx"]["errors"]


# ---- traffic -----------------------------------------------------------------------------------------------------

class Sink:
    """A TCP and UDP server in a host: swallows what comes, and over TCP gives as many bytes as asked for."""

    def __init__(self, host, port=9000):
        self.process = host.spawn(sys.executable, HERE / "traffic.py", "serve", port, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"


def tcp(host, address, upload=0, download=0, rate=3_000_000, port=9000):
    """Moves bytes over one TCP connection, paced by the kernel at `rate` bytes per second."""
    host.run(sys.executable, HERE / "traffic.py", "tcp", address, port, upload, download, rate, timeout=300)


def udp(host, address, total, size, rate, port=9000):
    """Sends `total` bytes of payload in datagrams of `size` bytes."""
    host.run(sys.executable, HERE / "traffic.py", "udp", address, port, total, size, rate, timeout=300)


class Pinger:
    """ping at a fixed interval; knows when each reply came, and which never did."""

    def __init__(self, host, address, interval):
        self.process = host.spawn("ping", "-n", "-D", "-i", interval, address, stdout=subprocess.PIPE, text=True)
        self.replies = []
        self.numbers = set()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        turns, last = 0, 0  # icmp_seq has 16 bits
        for line in self.process.stdout:
            reply = re.match(r"\[([0-9.]+)\] \d+ bytes from .* icmp_seq=(\d+)", line)
            if reply:
                number = int(reply.group(2))
                turns += number < last - 32768
                last = number
                self.numbers.add(turns * 65536 + number)
                self.replies.append(float(reply.group(1)))

    def stop(self):
        """Ends it, as it is still answered, and returns (sent, lost) up to the last reply: what is on its way at the end is
        not lost."""
        told = time.time()
        wait_for("it is answered to the end", lambda: self.replies and self.replies[-1] > told, step=0.005)
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        self.reader.join(60)
        sent = max(self.numbers)
        return sent, sent - len(self.numbers)


# ---- the maps and WireGuard, read without Wiretoll's code ---------------------------------------------------------

class PinnedPrefixes:
    """The pinned buckets of the IPv4 attribution table, mapped into memory: eight words a bucket, of which the first
    has a tag for each of the others (0: free), and those a prefix: its address, a bit set below it, and the slot."""

    BPF_OBJ_GET, BPF_OBJ_GET_INFO_BY_FD, SYS_BPF = 7, 15, 321
    BUCKET, SLOT_BITS = struct.Struct("=8Q"), 20

    def __init__(self, path):
        self.libc = ctypes.CDLL(None, use_errno=True)
        name = ctypes.create_string_buffer(str(path).encode())
        fd = self._bpf(self.BPF_OBJ_GET, struct.pack("=QII", ctypes.addressof(name), 0, 0))
        info = ctypes.create_string_buffer(80)
        if fd < 0 or self._bpf(self.BPF_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, 80, ctypes.addressof(info))):
            raise OSError(ctypes.get_errno(), f"bpf object {path}")
        _kind, _id, _key_size, value_size, entries = struct.unpack_from("=5I", info)
        assert value_size == self.BUCKET.size, "a bucket is as described above"
        self.buckets = mmap.mmap(fd, entries * value_size, mmap.MAP_SHARED, mmap.PROT_READ)
        os.close(fd)

    def _bpf(self, command, attributes):
        buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"))
        return self.libc.syscall(self.SYS_BPF, command, buffer, 128)

    def holds(self, address):
        """Whether the address itself is a peer's."""
        prefix = int.from_bytes(socket.inet_aton(address), "big") << 1 | 1
        return any(words[0] >> 8 * way & 0xff and words[way] >> self.SLOT_BITS == prefix
                   for words in self.BUCKET.iter_unpack(self.buckets) if words[0] for way in range(1, 8))


class Uapi:
    """A userspace WireGuard's peers, asked over its socket."""

    def __init__(self, path):
        self.path = str(path)

    def peers(self):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(self.path)
            connection.sendall(b"get=1\n\n")
            text = b""
            while not text.endswith(b"\n\n"):
                text += connection.recv(1 << 20)
        peers, peer = {}, None
        for line in text.decode().split("\n"):
            key, _, value = line.partition("=")
            if key == "public_key":
                peer = peers.setdefault(value, {})
            elif peer is not None and key:
                peer[key] = value
        return peers


# ---- the API, as any program would use it --------------------------------------------------------------------------

class Refused(AssertionError):
    """An answer that is not a success."""

    def __init__(self, what, status, text):
        super().__init__(f"{what}: {status} {text}")
        self.status = status


class Api:
    def __init__(self, url, ca_pem):
        self.url = url
        self.context = ssl.create_default_context(cadata=ca_pem)
        self.token = None

    def call(self, method, path, body=None, raw=False):
        request = urllib.request.Request(self.url + path, method=method)
        if self.token:
            request.add_header("Authorization", "Bearer " + self.token)
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, data, timeout=60, context=self.context) as answer:
                text = answer.read().decode()
        except urllib.error.HTTPError as error:
            raise Refused(f"{method} {path}", error.code, error.read().decode()) from None
        return text if raw else (json.loads(text) if text else None)

    def get(self, path):
        return self.call("GET", path)

    def post(self, path, body):
        return self.call("POST", path, body)

    def items(self, path):
        """All pages of a list."""
        found, after = [], None
        while True:
            page = self.get(path + (("&" if "?" in path else "?") + f"after={after}" if after else ""))
            found += page["items"]
            after = page["next"]
            if not after:
                return found


def process_of(pid_file):
    """The pid that a pid file names, if that process lives."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(Path(pid_file).read_text().split()[0])
        os.kill(pid, 0)
        return pid
    return None
