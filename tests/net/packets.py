# SPDX-License-Identifier: BSD-2-Clause
"""IP packets written by hand, and network namespaces to send them through."""
import array
import ctypes
import fcntl
import ipaddress
import os
import select
import socket
import struct
import subprocess
import time

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x1001
ETH_P_ALL = 0x0003
ETHERTYPE = {4: b"\x08\x00", 6: b"\x86\xdd"}
TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
ECHO_REPLY, ECHO_REQUEST = {4: 0, 6: 129}, {4: 8, 6: 128}
SYN, ACK = 0x02, 0x10

libc = ctypes.CDLL(None, use_errno=True)


def check(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def checksum(data):
    words = array.array("H", data + b"\0" * (len(data) % 2))
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("=H", ~total & 0xFFFF)


def ip(source, destination, protocol, payload):
    """An IPv4 or IPv6 packet; the payload's checksum, where the protocol has one, is filled in."""
    source, destination = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    at = {TCP: 16, UDP: 6, ICMP: 2, ICMPV6: 2}[protocol]
    pseudo = source.packed + destination.packed + struct.pack("!II", len(payload), protocol)
    total = checksum((b"" if protocol == ICMP else pseudo) + payload)
    payload = payload[:at] + total + payload[at + 2 :]
    if source.version == 6:
        return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + source.packed + destination.packed + payload
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0) + source.packed + destination.packed
    return header[:10] + checksum(header) + header[12:] + payload


def udp(source, destination, marker, sport=4000, dport=4000):
    return ip(source, destination, UDP, struct.pack("!HHHH", sport, dport, 8 + len(marker), 0) + marker)


def tcp_syn(source, destination, mss, sport=4000, dport=4001, flags=SYN, sequence=1, acknowledged=0):
    header = struct.pack("!HHIIBBHHH", sport, dport, sequence, acknowledged, 6 << 4, flags, 65535, 0, 0)
    return ip(source, destination, TCP, header + struct.pack("!BBH", 2, 4, mss))


def icmp(source, destination, kind, rest, code=0):
    version = ipaddress.ip_address(source).version
    return ip(source, destination, ICMP if version == 4 else ICMPV6, struct.pack("!BBH", kind, code, 0) + rest)


def echo(source, destination, marker, reply=False):
    version = ipaddress.ip_address(source).version
    kind = (ECHO_REPLY if reply else ECHO_REQUEST)[version]
    return icmp(source, destination, kind, struct.pack("!HH", 7, 1) + marker)


def fields(packet):
    """(source, destination, protocol, payload) of a packet; None for what is no IP."""
    if packet and packet[0] >> 4 == 4 and len(packet) >= 20:
        return str(ipaddress.ip_address(packet[12:16])), str(ipaddress.ip_address(packet[16:20])), packet[9], packet[20:]
    if packet and packet[0] >> 4 == 6 and len(packet) >= 40:
        return str(ipaddress.ip_address(packet[8:24])), str(ipaddress.ip_address(packet[24:40])), packet[6], packet[40:]
    return None


def mss_of(packet):
    """The MSS option of a SYN made by tcp_syn(); None for other packets."""
    _, _, protocol, segment = fields(packet)
    return struct.unpack("!H", segment[22:24])[0] if protocol == TCP and len(segment) == 24 else None


class Namespace:
    """A network namespace that lives as long as this object's descriptor."""

    def __init__(self):
        with open("/proc/self/ns/net") as before:
            check(libc.unshare(CLONE_NEWNET))
            self.fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            check(libc.setns(before.fileno(), CLONE_NEWNET))
        self.path = f"/proc/{os.getpid()}/fd/{self.fd}"
        # No duplicates to detect: addresses are usable at once.
        self.run("ip link set lo up; sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0")

    def __enter__(self):
        self.before = open("/proc/self/ns/net")
        check(libc.setns(self.fd, CLONE_NEWNET))
        return self

    def __exit__(self, *_):
        check(libc.setns(self.before.fileno(), CLONE_NEWNET))
        self.before.close()

    def run(self, script):
        done = subprocess.run(["sh", "-ec", script], preexec_fn=self.enter, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{script}: {done.stderr}"
        return done.stdout

    def enter(self):
        check(libc.setns(self.fd, CLONE_NEWNET))

    def socket(self, *arguments):
        with self:
            made = socket.socket(*arguments)
        made.settimeout(60)
        return made


class Receiver:
    """What arrives at one end; subclasses read one packet."""

    def wait(self, wanted, seconds):
        """The first packet for which wanted() is true, or None."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self], [], [], left)[0]:
                packet = self.receive()
                if fields(packet) and wanted(packet):
                    return packet
        return None

    def drain(self):
        packets = []
        while select.select([self], [], [], 0)[0]:
            packets.append(self.receive())
        return [packet for packet in packets if fields(packet)]


class Wire(Receiver):
    """A host's end of a veth: packets go out towards the gateway and come in as they are on the wire."""

    def __init__(self, namespace, interface, gateway_mac):
        self.socket = namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.socket.bind((interface, 0))
        self.mac = self.socket.getsockname()[4]
        self.gateway_mac = bytes.fromhex(gateway_mac.replace(":", ""))

    def fileno(self):
        return self.socket.fileno()

    def send(self, packet):
        self.socket.send(self.gateway_mac + self.mac + ETHERTYPE[packet[0] >> 4] + packet)

    def receive(self):
        frame, address = self.socket.recvfrom(65536)
        # What the host itself sends is seen here, too.
        return b"" if address[2] == socket.PACKET_OUTGOING else frame[14:]


class Tunnel(Receiver):
    """The gateway's layer 3 device: what is written to it has come from a peer."""

    def __init__(self, namespace, interface):
        with namespace:
            self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            fcntl.ioctl(self.fd, TUNSETIFF, struct.pack("16sH", interface.encode(), IFF_TUN_NO_PI))

    def fileno(self):
        return self.fd

    def send(self, packet):
        os.write(self.fd, packet)

    def receive(self):
        return os.read(self.fd, 65536)
