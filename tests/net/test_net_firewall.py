# SPDX-License-Identifier: BSD-2-Clause
"""
The firewall of G10 with real packets, IPv4 and IPv6: an Internet host, a gateway and a VPC host in namespaces of their
own, and a tunnel whose peers this test is. Packets are built by hand, sent on the wire, and looked for on the wire.
"""
import itertools
import os
import pathlib
import socket
import struct
import subprocess
import threading
import time

import pytest

from packets import (ACK, SYN, UDP, Namespace, Tunnel, Wire, echo, fields, icmp, mss_of, tcp_syn, udp)

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("WIRETOLL_BIN", ROOT / "build/bin")).resolve().parent / "tests/net/test_net_firewall"
ARRIVES, NEVER = 20, 0.15  # seconds to wait for what must come, and for what must not
NONE, ROAD_WARRIORS, ALL = 0, 1, 2

# The same roles in both families.
ADDRESSES = {
    4: dict(internet="198.51.100.2", public="198.51.100.1", vpc="10.0.0.2", vpc_gateway="10.0.0.1", other_vpc="10.0.0.9",
            tunnel_gateway="10.99.0.1", warrior="10.99.0.2", second="10.99.0.3", site="10.77.0.5", stranger="203.0.113.9",
            link_local="169.254.169.254"),
    6: dict(internet="2001:db8:1::2", public="2001:db8:1::1", vpc="fd10::2", vpc_gateway="fd10::1", other_vpc="fd10::9",
            tunnel_gateway="fd99::1", warrior="fd99::2", second="fd99::3", site="fd77::5", stranger="2001:db8:9::9",
            link_local="fe80::77"),
}
TUNNEL, VPC, REMOTE = "10.99.0.0/24,fd99::/64", "10.0.0.0/24,fd10::/64", "10.77.0.0/16,fd77::/48"
API = "198.51.100.2,2001:db8:1::2"
markers = (b"marker-%06d" % number for number in itertools.count())


class Site:
    """The three hosts and the tunnel."""

    def __init__(self):
        self.internet, self.gateway, self.vpc = Namespace(), Namespace(), Namespace()
        gateway = self.gateway
        gateway.run(f"""
            ip link add inet0 type veth peer name eth0 netns {self.internet.path}
            ip link add vpc0 type veth peer name eth0 netns {self.vpc.path}
            ip addr add 198.51.100.1/24 dev inet0; ip addr add 2001:db8:1::1/64 dev inet0
            ip addr add 10.0.0.1/24 dev vpc0; ip addr add fd10::1/64 dev vpc0
            ip link set inet0 up; ip link set vpc0 up
            sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0""")
        self.tunnel = Tunnel(gateway, "wg0")
        gateway.run("""
            ip link set wg0 addrgenmode none mtu 1420 up
            ip addr add 10.99.0.1/24 dev wg0; ip addr add fd99::1/64 dev wg0
            ip route add 10.77.0.0/16 dev wg0; ip route add fd77::/48 dev wg0
            ip route add default via 198.51.100.2; ip route add default via 2001:db8:1::2""")
        self.internet.run("""
            ip link set eth0 up; ip addr add 198.51.100.2/24 dev eth0; ip addr add 2001:db8:1::2/64 dev eth0
            ip route add default via 198.51.100.1; ip route add default via 2001:db8:1::1""")
        self.vpc.run("""
            ip link set eth0 up; ip addr add 10.0.0.2/24 dev eth0; ip addr add fd10::2/64 dev eth0
            ip route add default via 10.0.0.1; ip route add default via fd10::1""")
        # No error that is sent for a packet is left out because there was one a moment ago.
        self.vpc.run("sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0")
        for address in ("198.51.100.2", "2001:db8:1::2", "10.0.0.2", "fd10::2"):
            gateway.run(f"for i in $(seq 100); do ping -q -n -c 1 -W 1 {address} > /dev/null && exit; sleep 0.1; done; exit 1")
        self.wires = {
            "internet": Wire(self.internet, "eth0", self.mac("inet0")),
            "vpc": Wire(self.vpc, "eth0", self.mac("vpc0")),
            "tunnel": self.tunnel,
        }
        # A second address of the VPC host, for packets that only have to arrive.
        host = self.wires["vpc"].mac.hex(":")
        gateway.run(f"ip neigh add 10.0.0.9 lladdr {host} dev vpc0; ip neigh add fd10::9 lladdr {host} dev vpc0")

    def mac(self, interface):
        return self.gateway.run(f"ip -o link show {interface}").split("link/ether ")[1].split()[0]

    def apply(self, tunnel=TUNNEL, vpc=VPC, remote=REMOTE, api=API, dns=0, masquerade=NONE, user=()):
        done = subprocess.run([*user, PROGRAM, tunnel, vpc, remote, api, str(dns), str(masquerade)],
                              preexec_fn=self.gateway.enter, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr

    def send(self, side, packet):
        self.wires[side].send(packet)

    def crosses(self, side, packet, other, expected):
        """Whether a packet that is sent on one side comes out on the other; the packet as it came, or None."""
        marker = fields(packet)[3][-13:]
        self.wires[other].drain()
        self.send(side, packet)
        return self.wires[other].wait(lambda seen: fields(seen)[3].endswith(marker), ARRIVES if expected else NEVER)

    def passes(self, side, packet, other):
        return self.crosses(side, packet, other, True)

    def refuses(self, side, packet, other):
        return self.crosses(side, packet, other, False) is None

    def dropped(self, counter, expected=0):
        """What the counter says once it is as expected: a packet that was sent may still be on its way."""
        end = time.monotonic() + ARRIVES
        while True:
            listed = self.gateway.run(f"nft list counter inet wiretoll {counter}")
            packets = int(listed.split("packets ")[1].split()[0])
            if packets >= expected or time.monotonic() > end:
                return packets


@pytest.fixture(scope="module")
def site():
    if not PROGRAM.exists():
        pytest.fail(f"{PROGRAM} is not built")
    return Site()


@pytest.fixture
def rules(site):
    """The plain rule set, and no connection known from the test before."""
    site.apply()
    subprocess.run(["conntrack", "-F"], preexec_fn=site.gateway.enter, capture_output=True, check=True)
    return site


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def at(request):
    return ADDRESSES[request.param]


def mark():
    return next(markers)


# ---- control: without a firewall everything below would pass ------------------------------------------------------------


def test_without_firewall_all_passes(site, at):
    site.gateway.run("nft flush ruleset")
    assert site.passes("tunnel", udp(at["warrior"], at["internet"], mark()), "internet")
    assert site.passes("vpc", udp(at["vpc"], at["warrior"], mark()), "tunnel")
    assert site.passes("tunnel", udp(at["warrior"], at["second"], mark()), "tunnel")
    assert site.passes("vpc", udp(at["warrior"], at["site"], mark()), "tunnel")
    assert site.passes("tunnel", udp(at["other_vpc"], at["vpc"], mark()), "vpc")
    assert site.passes("internet", udp(at["internet"], at["vpc"], mark()), "vpc")
    assert site.passes("internet", echo(at["internet"], at["public"], mark()), "internet")


# ---- forward ------------------------------------------------------------------------------------------------------------


def test_tunnel_reaches_vpc_and_replies_return(rules, at):
    assert rules.passes("tunnel", udp(at["warrior"], at["vpc"], mark()), "vpc")
    assert rules.passes("vpc", udp(at["vpc"], at["warrior"], mark()), "tunnel")
    assert rules.passes("tunnel", udp(at["site"], at["vpc"], mark()), "vpc")


def test_real_host_answers_the_tunnel(rules, at):
    marker = mark()
    rules.send("tunnel", echo(at["warrior"], at["vpc"], marker))
    assert rules.tunnel.wait(lambda seen: fields(seen)[3].endswith(marker), ARRIVES)


def test_vpc_calls_sites_but_not_road_warriors(rules, at):
    assert rules.passes("vpc", udp(at["vpc"], at["site"], mark()), "tunnel")
    assert rules.passes("tunnel", udp(at["site"], at["vpc"], mark()), "vpc")
    before = rules.dropped("forward_dropped")
    assert rules.refuses("vpc", udp(at["vpc"], at["warrior"], mark(), sport=5000), "tunnel")
    assert rules.dropped("forward_dropped", before + 1) == before + 1


def test_unreachable_from_vpc_comes_back_as_related(rules, at):
    """The VPC host has nobody on that port: its error belongs to the peer's packet."""
    rules.tunnel.drain()
    rules.send("tunnel", udp(at["warrior"], at["vpc"], mark(), dport=9))
    kind = 3 if at is ADDRESSES[4] else 1
    assert rules.tunnel.wait(lambda seen: fields(seen)[0] == at["vpc"] and fields(seen)[3][0] == kind, ARRIVES)


def test_peers_do_not_see_each_other(rules, at):
    before = rules.dropped("forward_peer_to_peer")
    assert rules.refuses("tunnel", udp(at["warrior"], at["second"], mark()), "tunnel")
    assert rules.refuses("tunnel", udp(at["warrior"], at["site"], mark()), "tunnel")
    assert rules.dropped("forward_peer_to_peer", before + 2) == before + 2


def test_tunnel_never_reaches_internet_or_api(rules, at):
    assert rules.refuses("tunnel", udp(at["warrior"], at["stranger"], mark()), "internet")
    assert rules.refuses("tunnel", udp(at["warrior"], at["internet"], mark(), dport=8443), "internet")


def test_api_inside_the_vpc_stays_closed_to_the_tunnel(rules, at):
    rules.apply(api=at["vpc"])
    assert rules.refuses("tunnel", udp(at["warrior"], at["vpc"], mark()), "vpc")
    assert rules.passes("tunnel", udp(at["warrior"], at["other_vpc"], mark()), "vpc")


def test_link_local_is_never_forwarded(rules):
    """Not even where somebody has listed it as a VPC range."""
    rules.apply(vpc="10.0.0.0/24,169.254.0.0/16,fd10::/64,fe80::/10")
    rules.gateway.run("ip route replace 169.254.0.0/16 via 10.0.0.2")
    before = rules.dropped("forward_link_local")
    assert rules.refuses("tunnel", udp("10.99.0.2", "169.254.169.254", mark()), "vpc")
    assert rules.refuses("vpc", udp("169.254.1.1", "10.77.0.5", mark()), "tunnel")
    assert rules.dropped("forward_link_local", before + 2) == before + 2
    assert rules.refuses("tunnel", udp("fe80::77", "fd10::2", mark()), "vpc")
    assert rules.refuses("tunnel", udp("fd99::2", "fe80::77", mark()), "vpc")
    rules.gateway.run("ip route del 169.254.0.0/16")


def test_spoofed_sources_of_the_tunnel(rules, at):
    before = rules.dropped("forward_spoofed")
    assert rules.refuses("tunnel", udp(at["other_vpc"], at["vpc"], mark()), "vpc")
    assert rules.refuses("tunnel", udp(at["stranger"], at["vpc"], mark()), "vpc")
    assert rules.refuses("tunnel", udp(at["internet"], at["vpc"], mark()), "vpc")
    assert rules.dropped("forward_spoofed", before + 3) == before + 3


def test_spoofed_sources_of_the_vpc(rules, at):
    before = rules.dropped("forward_spoofed")
    assert rules.refuses("vpc", udp(at["warrior"], at["site"], mark()), "tunnel")
    assert rules.refuses("vpc", udp(at["site"], at["warrior"], mark()), "tunnel")
    assert rules.refuses("vpc", udp(at["stranger"], at["site"], mark()), "tunnel")
    assert rules.dropped("forward_spoofed", before + 3) == before + 3


def test_spoofed_sources_while_routes_are_missing(rules, at):
    """Before routes are set, or after the device went down, the sets alone hold."""
    rules.gateway.run("ip route del 10.77.0.0/16 dev wg0; ip route del fd77::/48 dev wg0;"
                      "ip route add 10.77.0.0/16 via 10.0.0.2; ip route add fd77::/48 via fd10::2")
    try:
        before = rules.dropped("forward_spoofed")
        assert rules.refuses("vpc", udp(at["site"], at["warrior"], mark()), "tunnel")
        assert rules.dropped("forward_spoofed", before + 1) == before + 1
    finally:
        rules.gateway.run("ip route del 10.77.0.0/16; ip route del fd77::/48;"
                          "ip route add 10.77.0.0/16 dev wg0; ip route add fd77::/48 dev wg0")


def test_internet_reaches_nothing_behind(rules, at):
    assert rules.refuses("internet", udp(at["internet"], at["vpc"], mark()), "vpc")
    assert rules.refuses("internet", udp(at["internet"], at["warrior"], mark()), "tunnel")
    assert rules.refuses("internet", udp(at["internet"], at["site"], mark()), "tunnel")
    before = rules.dropped("forward_spoofed")
    assert rules.refuses("internet", udp(at["other_vpc"], at["site"], mark()), "tunnel")
    assert rules.dropped("forward_spoofed", before + 1) == before + 1


def test_vpc_does_not_reach_the_internet(rules, at):
    assert rules.refuses("vpc", udp(at["vpc"], at["internet"], mark()), "internet")


# ---- input --------------------------------------------------------------------------------------------------------------


def family(at):
    return socket.AF_INET if at is ADDRESSES[4] else socket.AF_INET6


def gateway_hears(rules, at, port, side, packet_to, seconds=NEVER):
    """Whether a process on the gateway gets a datagram."""
    with rules.gateway.socket(family(at), socket.SOCK_DGRAM) as listener:
        listener.bind(("::" if family(at) == socket.AF_INET6 else "0.0.0.0", port))
        marker = mark()
        rules.send(side, packet_to(marker))
        listener.settimeout(seconds)
        try:
            return listener.recv(100) == marker
        except TimeoutError:
            return False


def test_internet_reaches_the_wireguard_port_only(rules, at):
    source, public = at["internet"], at["public"]
    assert gateway_hears(rules, at, 51820, "internet", lambda m: udp(source, public, m, dport=51820), ARRIVES)
    assert not gateway_hears(rules, at, 51821, "internet", lambda m: udp(source, public, m, dport=51821))
    assert not gateway_hears(rules, at, 51821, "internet", lambda m: udp(source, public, m, sport=51820, dport=51821))
    assert rules.refuses("internet", echo(source, public, mark()), "internet")


def test_no_tcp_service_of_the_gateway_is_reachable(rules, at):
    with rules.gateway.socket(family(at), socket.SOCK_STREAM) as listener:
        listener.bind(("::" if family(at) == socket.AF_INET6 else "0.0.0.0", 2222))
        listener.listen()
        for side, source, target in (("internet", "internet", "public"), ("tunnel", "warrior", "tunnel_gateway"),
                                     ("tunnel", "warrior", "vpc_gateway"), ("vpc", "vpc", "vpc_gateway")):
            rules.wires[side].drain()
            rules.send(side, tcp_syn(at[source], at[target], 1400, dport=2222))
            assert not rules.wires[side].wait(lambda seen: fields(seen)[0] == at[target], NEVER), side


def answered(rules, at, target):
    marker = mark()
    rules.tunnel.drain()
    rules.send("tunnel", echo(at["warrior"], at[target], marker))
    return rules.tunnel.wait(lambda seen: fields(seen)[0] == at[target] and fields(seen)[3].endswith(marker),
                             ARRIVES if target == "tunnel_gateway" else NEVER)


def test_tunnel_may_ping_the_gateway_and_nothing_more(rules, at):
    assert answered(rules, at, "tunnel_gateway")
    assert not answered(rules, at, "vpc_gateway")
    assert not answered(rules, at, "public")
    for target in ("tunnel_gateway", "vpc_gateway", "public"):
        assert not gateway_hears(rules, at, 51820, "tunnel", lambda m, to=at[target]: udp(at["warrior"], to, m, dport=51820))


def test_vpc_does_not_reach_the_gateway_itself(rules, at):
    assert rules.refuses("vpc", echo(at["vpc"], at["vpc_gateway"], mark()), "vpc")
    assert not gateway_hears(rules, at, 53, "vpc", lambda m: udp(at["vpc"], at["vpc_gateway"], m, dport=53))


def test_path_mtu_messages_are_heard(rules, at):
    """A router's "too big" about a packet of WireGuard's lowers the route's MTU."""
    with rules.gateway.socket(family(at), socket.SOCK_DGRAM) as wireguard:
        wireguard.bind((at["public"], 51820))
        wireguard.sendto(b"x" * 1000, (at["internet"], 6000))
        sent = rules.wires["internet"].wait(lambda seen: fields(seen)[2] == UDP and len(seen) > 1000, ARRIVES)
        assert sent
        if family(at) == socket.AF_INET:
            message = icmp(at["internet"], at["public"], 3, struct.pack("!HH", 0, 1300) + sent[:28], code=4)
        else:
            message = icmp(at["internet"], at["public"], 2, struct.pack("!I", 1300) + sent[:500])
        rules.send("internet", message)
        end = time.monotonic() + ARRIVES
        while "mtu 1300" not in rules.gateway.run(f"ip route get {at['internet']}"):
            assert time.monotonic() < end, "it is not heard"
    rules.gateway.run("ip route flush cache; ip -6 route flush cache")


def test_neighbours_are_found(rules, at):
    """ARP and neighbour discovery work both ways, from nothing."""
    rules.internet.run("ip neigh flush all")
    rules.gateway.run("ip neigh flush all; ip -6 neigh flush all")
    with rules.gateway.socket(family(at), socket.SOCK_DGRAM) as wireguard, \
         rules.internet.socket(family(at), socket.SOCK_DGRAM) as client:
        wireguard.bind((at["public"], 51820))
        client.sendto(b"hello", (at["public"], 51820))
        assert wireguard.recv(10) == b"hello"
        rules.gateway.run("ip neigh flush all; ip -6 neigh flush all")
        wireguard.sendto(b"back", (at["internet"], client.getsockname()[1]))
        assert client.recv(10) == b"back"


# ---- output -------------------------------------------------------------------------------------------------------------


def connects(rules, at, port, seconds=NEVER):
    with rules.internet.socket(family(at), socket.SOCK_STREAM) as server, \
         rules.gateway.socket(family(at), socket.SOCK_STREAM) as client:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((at["internet"], port))
        server.listen()
        client.settimeout(seconds)
        try:
            client.connect((at["internet"], port))
        except OSError:
            return False
        connection, _ = server.accept()
        connection.sendall(b"answer")
        received = client.recv(10)
        connection.close()
        return received == b"answer"


def test_gateway_calls_the_api_only(rules, at):
    assert connects(rules, at, 8443, ARRIVES)
    assert not connects(rules, at, 8444)
    rules.apply(api="")
    assert not connects(rules, at, 8443)


def emits(rules, at, side, target, port, source_port=0, seconds=NEVER):
    """Whether a datagram of the gateway's own gets out."""
    marker = mark()
    wire = rules.wires[side]
    wire.drain()
    with rules.gateway.socket(family(at), socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sender.bind(("::" if family(at) == socket.AF_INET6 else "0.0.0.0", source_port))
        try:
            sender.sendto(marker, (at[target], port))
        except PermissionError:
            return False
    return bool(wire.wait(lambda seen: fields(seen)[3].endswith(marker), seconds))


def test_gateway_sends_wireguard_and_little_else(rules, at):
    assert emits(rules, at, "internet", "internet", 6000, source_port=51820, seconds=ARRIVES)
    assert not emits(rules, at, "internet", "internet", 6001)
    assert not emits(rules, at, "vpc", "vpc", 6002)
    assert not emits(rules, at, "tunnel", "warrior", 6003)
    assert not emits(rules, at, "tunnel", "warrior", 6004, source_port=51820)
    assert not emits(rules, at, "internet", "internet", 53)
    rules.apply(dns=1)
    assert emits(rules, at, "internet", "internet", 53, seconds=ARRIVES)
    assert not emits(rules, at, "tunnel", "warrior", 53)


# ---- MSS, masquerading --------------------------------------------------------------------------------------------------


def mss_seen(rules, side, source, target, other, mss, **segment):
    """The MSS of a SYN when it comes out on the other side."""
    rules.wires[other].drain()
    rules.send(side, tcp_syn(source, target, mss, **segment))
    seen = rules.wires[other].wait(lambda seen: fields(seen)[:2] == (source, target) and mss_of(seen), ARRIVES)
    return seen and mss_of(seen)


def test_mss_is_clamped_both_ways(rules, at):
    clamped = 1420 - (40 if at is ADDRESSES[4] else 60)
    for mss, expected in ((1460, clamped), (500, 500)):
        assert mss_seen(rules, "tunnel", at["warrior"], at["vpc"], "vpc", mss, sport=mss, dport=7001) == expected
        assert mss_seen(rules, "vpc", at["vpc"], at["site"], "tunnel", mss, sport=mss, dport=7002) == expected


def test_mss_of_the_answer_is_clamped(rules, at):
    clamped = 1420 - (40 if at is ADDRESSES[4] else 60)
    assert mss_seen(rules, "vpc", at["other_vpc"], at["site"], "tunnel", 1300, sport=7101, dport=7004) == 1300
    answer = dict(sport=7004, dport=7101, flags=SYN | ACK, acknowledged=2)
    assert mss_seen(rules, "tunnel", at["site"], at["other_vpc"], "vpc", 1460, **answer) == clamped


@pytest.mark.parametrize("mode, hidden", [(NONE, ()), (ROAD_WARRIORS, ("warrior",)), (ALL, ("warrior", "site"))],
                         ids=["none", "road_warriors", "all"])
def test_masquerade(rules, at, mode, hidden):
    rules.apply(masquerade=mode)
    for peer in ("warrior", "site"):
        seen = rules.passes("tunnel", udp(at[peer], at["vpc"], mark(), sport=8000 + mode), "vpc")
        assert fields(seen)[0] == (at["vpc_gateway"] if peer in hidden else at[peer])
        answer = fields(seen)[3]
        port = struct.unpack("!H", answer[:2])[0]
        back = rules.passes("vpc", udp(at["vpc"], fields(seen)[0], mark(), sport=4000, dport=port), "tunnel")
        assert fields(back)[1] == at[peer]
    # A site that is called sees who calls.
    seen = rules.passes("vpc", udp(at["vpc"], at["site"], mark(), sport=8010 + mode), "tunnel")
    assert fields(seen)[0] == at["vpc"]


# ---- the rule set as a whole --------------------------------------------------------------------------------------------


def test_replaced_under_traffic_without_a_gap(rules, at):
    """Up to 1,000 packets a second: every allowed one passes, no refused one does, whatever is being replaced."""
    sent, arrived, refused = set(), set(), []
    stop = threading.Event()

    def take():
        arrived.update(sent & {fields(packet)[3][8:] for packet in rules.wires["vpc"].drain()})
        refused.extend(packet for side in ("internet", "tunnel") for packet in rules.wires[side].drain() if b"refused" in packet)

    def flow():
        for number in itertools.count():
            if stop.is_set():
                break
            marker = b"allowed-%06d" % number
            sent.add(marker)
            rules.tunnel.send(udp(at["warrior"], at["vpc"], marker))
            rules.tunnel.send(udp(at["warrior"], at["internet"], b"refused-%06d" % number))
            rules.wires["vpc"].send(udp(at["vpc"], at["second"], b"refused-%06d" % number))
            take()
            # No more on the way than the kernel's queues hold, however long it takes: what is lost is lost by the rules.
            while len(sent) - len(arrived) > 100 and not stop.is_set():
                time.sleep(0.001)
                take()
            time.sleep(0.001)

    for wire in rules.wires.values():
        wire.drain()
    thread = threading.Thread(target=flow)
    thread.start()
    try:
        for round_ in range(20):
            begun, end = len(sent), time.monotonic() + ARRIVES
            rules.apply(remote="" if round_ % 2 else REMOTE, dns=round_ % 2)
            while len(sent) < begun + 5:
                assert time.monotonic() < end, f"{len(sent - arrived)} have not arrived"
                time.sleep(0.001)
    finally:
        stop.set()
        thread.join()
    end = time.monotonic() + ARRIVES
    while sent - arrived and time.monotonic() < end:
        time.sleep(0.01)
        take()
    assert sent - arrived == set()
    time.sleep(NEVER)
    take()
    assert not refused


def test_applied_by_an_unprivileged_user(rules, at):
    rules.gateway.run("nft delete table inet wiretoll")
    rules.apply(user=["setpriv", "--reuid", "4242", "--regid", "4242", "--clear-groups",
                      "--inh-caps=-all,+net_admin", "--ambient-caps=-all,+net_admin"])
    assert rules.passes("tunnel", udp(at["warrior"], at["vpc"], mark()), "vpc")
    assert rules.refuses("tunnel", udp(at["warrior"], at["stranger"], mark()), "internet")


def test_other_tables_are_left_alone(rules):
    rules.gateway.run("nft add table inet somebody; nft add chain inet somebody rules")
    rules.apply()
    assert "chain rules" in rules.gateway.run("nft list table inet somebody")
    rules.gateway.run("nft delete table inet somebody")
