#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Seeds and dictionaries of the fuzz targets: one folder and one file FOLDER/TARGET.dict for each target.

usage: seeds.py FOLDER
"""
import base64
import json
import pathlib
import struct
import sys

UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"
KEYS = [base64.b64encode(bytes([n] * 32)).decode() for n in (0, 1, 2)]
HOUR = "2026-11-22T14:00:00.000000Z"
COUNTS = ["upload_bytes", "download_bytes", "upload_packets", "download_packets", "undelivered_bytes", "refused_bytes"]


def packets():
    """gso_size, gso_segs, what UDP is cut into, bytes beyond those captured; then an IP packet."""
    tcp, udp = bytes(12) + b"\x50" + bytes(7), bytes(8)
    ipv4 = b"\x45" + bytes(8)
    extensions = b"\x3c\x00" + bytes(6) + b"\x2c\x01" + bytes(14) + b"\x33\x00" + bytes(6) + b"\x06\x02" + bytes(14)
    whole = [
        ipv4 + b"\x06" + bytes(10) + tcp,
        ipv4 + b"\x11" + bytes(10) + udp,
        b"\x4f" + bytes(8) + b"\x06" + bytes(50) + tcp,
        b"\x60" + bytes(5) + b"\x06" + bytes(33) + tcp,
        b"\x60" + bytes(5) + b"\x11" + bytes(33) + udp,
        b"\x60" + bytes(5) + b"\x00" + bytes(33) + extensions + tcp,
    ]
    for packet in whole:
        for gso_size in (0, 1, 1368):
            yield struct.pack("<HHB", gso_size, 2, 0) + (3000).to_bytes(3, "little") + packet


def attribute(kind, value):
    data = struct.pack("<HH", 4 + len(value), kind) + value
    return data + bytes(-len(data) % 4)


def device_messages():
    """Attributes of WireGuard's generic netlink family, as <linux/wireguard.h> numbers them."""
    def allowed_ip(family, address, length):
        return attribute(0x8000, attribute(1, struct.pack("<H", family)) + attribute(2, address) + attribute(3, bytes([length])))

    endpoint = struct.pack("<HH", 2, 7777) + bytes([192, 0, 2, 1]) + bytes(8)
    ips = allowed_ip(2, bytes([10, 0, 0, 7]), 32) + allowed_ip(10, bytes([0xFD] + [0] * 15), 64)
    peer = (attribute(1, bytes([7] * 32)) + attribute(2, bytes([9] * 32)) + attribute(4, endpoint) + attribute(5, struct.pack("<H", 25))
            + attribute(6, struct.pack("<qq", 1700000000, 5)) + attribute(7, struct.pack("<Q", 1)) + attribute(8, struct.pack("<Q", 2))
            + attribute(0x8009, ips))
    message = attribute(4, bytes([3] * 32)) + attribute(6, struct.pack("<H", 51820)) + attribute(0x8008, attribute(0x8000, peer))
    continued = attribute(0x8008, attribute(0x8000, attribute(1, bytes([7] * 32)) + attribute(0x8009, allowed_ip(2, bytes([10, 1, 0, 0]), 16))))
    yield b"".join(struct.pack("<H", len(one)) + one for one in (message, continued))


def uapi():
    hexadecimal = "1b" * 32
    yield f"""private_key={"48" * 32}
listen_port=51820
fwmark=0
public_key={hexadecimal}
preshared_key={"00" * 32}
protocol_version=1
endpoint=[fe80::1%2]:51820
last_handshake_time_sec=1700000000
last_handshake_time_nsec=123
tx_bytes=18446744073709551615
rx_bytes=1
persistent_keepalive_interval=25
allowed_ip=10.0.0.0/24
allowed_ip=fd00::/64
public_key={"2c" * 32}
endpoint=192.0.2.1:1
allowed_ip=0.0.0.0/0
errno=0

"""
    yield "errno=-22\n\n"


def desired():
    peer = {"id": UUID, "public_key": KEYS[1], "preshared_key": KEYS[2], "endpoint": "vpn.example.org:51820", "keepalive": 25,
            "allowed_ips": ["10.99.0.2/32", "fd00::/64"], "enabled": True}
    grant = {"cycle": 202611, "grant_seq": 4, "ceiling": "9000000", "mask": "both", "epoch": UUID}
    state = {"revision": 7, "interface": {"addresses": ["10.99.0.1/24", "fd12::1/64"], "listen_port": 51820, "mtu": 1420},
             "firewall": {"tunnel_subnets": ["10.99.0.0/24"], "vpc_subnets": ["10.1.0.0/24"], "remote_subnets": []},
             "routes": ["192.168.7.0/24"], "masquerade": "road_warriors", "peers": [peer], "refuse": ["admin", "billing"], "grants": [grant]}
    yield json.dumps(state)
    yield json.dumps({"revision": 8, "gone": True})


def report():
    record = {"slot": 1, "incarnation": 1, "peer": UUID, "hour": HOUR} | {count: "1" for count in COUNTS}
    stranger = record | {"slot": 0, "peer": None}
    body = {
        "generation": 3, "epoch": {"id": UUID, "boot_id": UUID, "final": False}, "seq": 17, "covered_from": HOUR, "covered_to": HOUR,
        "states": [{"from": HOUR, "to": HOUR, "state": "active"}], "active_since": HOUR, "public_key": KEYS[1], "applied_revision": 7,
        "cannot_apply": [{"what": "peer", "reason": "no"}], "counted": "123", "now": HOUR, "records": [record, stranger],
        "grant": {"cycle": 202611, "grant_seq": 4, "cycle_counted": "123", "exhausted": False},
        "status": [{"peer": UUID, "handshake": HOUR, "endpoint": "203.0.113.5:1", "audit": "rx_short"}]}
    yield json.dumps(body)
    yield json.dumps(body, separators=(",", ":"))


def history():
    totals = {count: "5" for count in COUNTS[:4]} | {"refused_bytes": "0", "refused_packets": "0"}
    volume = {"upload_bytes": "1", "download_bytes": "2"}
    periods = {name: volume | {"undelivered": "0", "utc_ns": 1795305600000000000} for name in ("day", "month")}
    limit = {"set": True, "bytes": "1000000", "period": "month", "cycle": "3", "cycle_period": "day", "cycle_began": 1}
    delivery = {name: "1" for name in ("undelivered", "base_bytes", "base_packets", "base_sent", "base_undelivered", "last_sent")}
    record = {"public_key": KEYS[1], "name": "laptop", "present": True, "slot": 1, "incarnation": 2, "total": totals, "cell": totals,
              "before_attach": volume, "period_began": periods, "limit": limit, "delivery": delivery, "allowed_ips": ["10.0.0.2/32"]}
    whole = {"version": 1, "saved": HOUR, "interface": "wg0", "place": "1-2", "epoch": "00112233445566778899aabbccddeeff",
             "accounting": 3, "period_began": periods, "limit": limit, "records": [record | {"public_key": KEYS[0], "name": None}, record]}
    yield json.dumps(whole)
    yield json.dumps(whole | {"records": [record, record]})


def names():
    yield f"# names\n{KEYS[1]} laptop\n\n{KEYS[2]}\tthe office, 2nd floor\n"


def values():
    yield from ("10.0.0.0/24", "fd00::1/64", "::ffff:10.0.0.1", "50GiB/month", "1.5GB", "1000000/day", HOUR, KEYS[1], "1b" * 32,
                "prod/laptop", "10.1.0.0/24,bridge=br0,hypervisor=h1,range=10.1.0.2-10.1.0.9,router=10.1.0.1,route-netns=", "road-warrior",
                ":".join(["ab"] * 32), "on", "10.5")


def options():
    yield "\n".join(["alice", "--all", "--name", "x", "--count=5", "--allow", "10.0.0.0/8,::/0", "--subnet", "10.1.0.0/24,bridge=b",
                     "--kind", "site", "--masquerade", "on", "--price", "1.5", "--none", "--", "--rest"])


# The first byte chooses: odd is damage to known records, even is a segment as it is.
SEEDS = {
    "parse": packets, "attribution": lambda: iter([bytes(range(200)), bytes([1, 2, 3] * 60)]), "uapi": uapi, "netlink": device_messages,
    "journal": lambda: iter([b"\x01\x02\x10\x00\x08\x01", b"\x01\x00\x30\x00\x20\x03abc", b"\x00" + b"WTJ2" + bytes(40)]),
    "desired": desired, "report": report, "history": history, "names": names, "values": values, "options": options,
}


def words(value):
    """What a dictionary has of a JSON text: names and texts, quoted as they stand there."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield json.dumps(name) + ":"
            yield from words(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from words(inner)
    elif isinstance(value, str):
        yield json.dumps(value)


def tokens(seed):
    if isinstance(seed, bytes):
        return []
    if seed.startswith("{"):
        return list(words(json.loads(seed))) + ['""', "null", "true", "-1", "9223372036854775807", '"9223372036854775808"', "[]", "{}"]
    return [word for word in seed.replace("=", "=\n").replace(",", ",\n").splitlines() if word]


def main():
    folder = pathlib.Path(sys.argv[1])
    for target, seeds in SEEDS.items():
        (folder / target).mkdir(parents=True, exist_ok=True)
        dictionary = {}
        for number, seed in enumerate(seeds()):
            (folder / target / f"seed-{number}").write_bytes(seed if isinstance(seed, bytes) else seed.encode())
            dictionary |= dict.fromkeys(tokens(seed))
        quoted = (word.replace("\\", "\\\\").replace('"', '\\"') for word in dictionary)
        # libFuzzer takes no empty dictionary.
        (folder / f"{target}.dict").write_text("".join(f'"{word}"\n' for word in quoted) or '"\\x00"\n')


main()
