# SPDX-License-Identifier: BSD-2-Clause
"""What keeps gateways from the host: that it stays, whatever others do to the host's rules, and that it refuses nothing else (G10)."""

import contextlib
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from deploy_lab import Inventory, Worker, run, wait_for
from test_deploy import database, host, host_in_vpc, ports, reaches, refused  # noqa: F401  fixtures

EARLIER = """
table bridge wiretoll_host {
	chain prerouting { type filter hook prerouting priority filter; policy accept; iifgroup 1465122817 meta mark set meta mark or 0x20000000; }
}
table inet wiretoll_host {
	counter refused { }
	chain prerouting { type filter hook prerouting priority mangle; policy accept; meta mark and 0x20000000 == 0 accept; counter name refused drop; }
}
"""


def rules():
    return run("nft", "-s", "list", "table", "bridge", "wiretoll_host", check=False) + \
        run("nft", "-s", "list", "table", "inet", "wiretoll_host", check=False)


def seconds_until(what, condition):
    began = time.monotonic()
    wait_for(what, condition)
    return time.monotonic() - began


def test_g10_rules_that_somebody_takes_away_are_put_back(host):
    worker, inventory = host
    with host_in_vpc():
        gateway = inventory.gateway("gw")
        worker.wait_deployed(inventory, gateway)
        netns, whole = worker.netns(gateway), rules()
        # As /etc/nftables.conf does it, each table by itself, and one rule of them.
        handle = run("nft", "-a", "list", "chain", "inet", "wiretoll_host", "prerouting").split("type { local, anycast }")[1].split("# handle ")[1].split()[0]
        for command in ("flush ruleset", "delete table bridge wiretoll_host", "delete table inet wiretoll_host",
                        "flush chain bridge wiretoll_host input", f"delete rule inet wiretoll_host prerouting handle {handle}"):
            run("nft", command)
            assert rules() != whole
            assert seconds_until(f"the rules after {command}", lambda: rules() == whole) < 5, command
            before = refused()
            assert not reaches(netns, "10.1.0.1") and refused() > before, command
        log = (worker.folder / "deployd.log").read_text()
        assert log.count("put back the rules that keep tunnels from this host") == 5
        # And by a worker that begins, whatever was done while there was none.
        worker.stop()
        run("nft", "flush ruleset")
        worker.start()
        assert seconds_until("the rules after a start", lambda: rules() == whole) < 5
        assert reaches("i1", "10.1.0.1", 20)


def test_g10_others_rules_do_not_make_it_work_for_ever(host):
    """Its own changes, and those of others, are looked at and then left alone."""
    worker, inventory = host
    worker.wait_deployed(inventory, inventory.gateway("gw"))
    whole, handles = rules(), run("nft", "-a", "list", "table", "inet", "wiretoll_host")
    before = worker_time(worker)
    for number in range(200):
        run("nft", f"add table inet others{number % 2}; delete table inet others{number % 2}")
    time.sleep(2)
    assert rules() == whole and run("nft", "-a", "list", "table", "inet", "wiretoll_host") == handles, "not made anew"
    assert worker_time(worker) - before < 2, "seconds of CPU, its children's included"


def worker_time(worker):
    fields = Path(f"/proc/{worker.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15])) / 100


def test_g10_rules_of_an_earlier_version_are_replaced(host):
    worker, inventory = host
    run("nft", EARLIER)
    worker.wait_deployed(inventory, inventory.gateway("gw"))
    assert "0x20000000" not in rules() and "0x00002000" in rules()


def test_g10_marks_that_others_set_do_not_open_it(host):
    """As wg-quick does with each datagram, and many a firewall: the connection's mark instead of the packet's."""
    worker, inventory = host
    run("nft", "table inet others { chain a { type filter hook prerouting priority -150; meta mark set ct mark; }; }")
    run("nft", "table bridge others { chain a { type filter hook prerouting priority -200; meta mark set 0; }; }")
    try:
        with host_in_vpc():
            gateway = inventory.gateway("gw")
            worker.wait_deployed(inventory, gateway)
            before = refused()
            assert not reaches(worker.netns(gateway), "10.1.0.1") and refused() > before
    finally:
        run("nft", "delete table inet others; delete table bridge others")


# ---- what goes to many ----------------------------------------------------------------------------------

LISTEN = """
import select, socket, struct, sys
device = socket.if_nametoindex(sys.argv[1])
six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, socket.inet_pton(socket.AF_INET6, "ff02::4242") + struct.pack("I", device))
six.bind(("::", 9999))
four = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
four.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, struct.pack("4s4si", socket.inet_aton("239.1.2.3"), bytes(4), device))
four.bind(("", 9999))
print("listening", flush=True)
while True:
    for ready in select.select([four, six], [], [])[0]:
        print(ready.recv(100).decode(), flush=True)
"""

# What to say and to whom; `frame` is the MAC address that the host's (or another's) is made to be.
SENT = """
import socket, struct, sys
def send(address, words):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if family == socket.AF_INET6:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("vpc0"))
        else:
            s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("4s4si", bytes(4), bytes(4), socket.if_nametoindex("vpc0")))
        s.sendto(words.encode(), (address, 9999))
for pair in sys.argv[1:]:
    send(*pair.split("="))
"""


@contextlib.contextmanager
def listener(device, netns=None):
    """The lines that it prints, one for each datagram."""
    words = ["ip", "netns", "exec", netns] if netns else []
    process = subprocess.Popen([*words, "/usr/bin/python3", "-c", LISTEN, device], stdout=subprocess.PIPE, text=True)
    heard = []

    def read():
        for line in process.stdout:
            heard.append(line.strip())
    reader = threading.Thread(target=read)
    reader.start()
    try:
        wait_for("the listener", lambda: heard)
        heard.clear()
        yield heard
    finally:
        process.kill()
        process.wait()
        reader.join()


@contextlib.contextmanager
def set_br_netfilter(value):
    """Whether IP's chains see what is only bridged, too."""
    switches = {Path(f"/proc/sys/net/bridge/bridge-nf-call-{family}tables"): value for family in ("ip", "ip6")}
    if not all(switch.exists() for switch in switches):
        if value == "1":
            pytest.skip("this kernel has no br_netfilter")
        switches = {}
    before = {switch: switch.read_text() for switch in switches}
    for switch, number in switches.items():
        switch.write_text(number)
    try:
        yield
    finally:
        for switch, number in before.items():
            switch.write_text(number)


@pytest.mark.parametrize("br_netfilter", ["0", "1"])
def test_g10_groups_reach_instances_and_not_the_host(host, br_netfilter):
    worker, inventory = host
    with set_br_netfilter(br_netfilter):
        with host_in_vpc(), listener("vpc1") as at_host, listener("eth0", "i1") as at_instance:
            gateway = inventory.gateway("gw")
            worker.wait_deployed(inventory, gateway)
            netns = worker.netns(gateway)

            def send(*pairs):
                run("ip", "netns", "exec", netns, "/usr/bin/python3", "-c", SENT, *pairs)

            send("10.1.0.255=broadcast", "239.1.2.3=group", "ff02::4242=group 6", "10.1.0.100=one", "10.1.0.1=host")
            # The host's IP address, in frames to a group. Of those to the last address no chain of the bridge is told.
            for number, mac in enumerate(("ff:ff:ff:ff:ff:ff", "01:00:5e:01:02:03", "01:80:c2:00:00:00", "01:80:c2:00:00:03", "01:80:c2:00:00:0e")):
                run("ip", "-n", netns, "neigh", "replace", "10.1.0.1", "lladdr", mac, "dev", "vpc0", "nud", "permanent")
                send(f"10.1.0.1=frame {number}")
            run("ip", "-n", netns, "neigh", "del", "10.1.0.1", "dev", "vpc0")
            # The subnet's broadcast address, in a frame to the host alone.
            mac = Path("/sys/class/net/vpc1/address").read_text().strip()
            run("ip", "-n", netns, "addr", "flush", "dev", "vpc0", "scope", "global")
            run("ip", "-n", netns, "addr", "add", "10.1.0.2/32", "dev", "vpc0")
            run("ip", "-n", netns, "route", "add", "10.1.0.77", "dev", "vpc0")
            run("ip", "-n", netns, "neigh", "add", "10.1.0.77", "lladdr", mac, "dev", "vpc0", "nud", "permanent")
            run("ip", "-n", netns, "route", "add", "10.1.0.255", "via", "10.1.0.77", "dev", "vpc0")
            send("10.1.0.255=broadcast to one")
            run("ip", "-n", netns, "addr", "flush", "dev", "vpc0", "scope", "global")
            run("ip", "-n", netns, "addr", "add", "10.1.0.2/24", "dev", "vpc0")
            # The last words, in order behind the others: to the host those of an instance.
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
                own.sendto(b"end", ("10.1.0.100", 9999))
            run("ip", "netns", "exec", "i1", "/usr/bin/python3", "-c", "import socket\n"
                "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'end', ('10.1.0.1', 9999))")
            wait_for("the last words", lambda: "end" in at_host and "end" in at_instance)
            assert at_host == ["end"]
            assert {"broadcast", "group", "group 6", "one"} <= set(at_instance)


# ---- several workers ------------------------------------------------------------------------------------

def test_g10_workers_that_make_the_rules_at_once_all_do(host, database):
    """Two workers of one host, with a state each: one's last gateway goes while the other's first comes, and both come at once."""
    worker, inventory = host
    other_inventory = Inventory(database, hypervisor="another of this host")
    other = Worker(database, f"/run/lab-guard-{time.monotonic_ns()}", hypervisors=["another of this host"]).start()
    whole = None
    try:
        for _ in range(4):
            mine, its = inventory.gateway("mine"), other_inventory.gateway("its", first="10.1.0.20", last="10.1.0.29", route_netns=(),
                                                                           public_first="198.51.100.30", public_last="198.51.100.39")
            worker.wait_deployed(inventory, mine)
            other.wait_deployed(other_inventory, its)
            whole = whole or rules()
            assert rules() == whole and "fib daddr" in whole and len(ports("vpc1")) == 2
            inventory.delete(mine)
            other_inventory.delete(its)
            wait_for("both are gone", lambda: inventory.status(mine)[0] == "deleted" and other_inventory.status(its)[0] == "deleted")
        assert "could not" not in (worker.folder / "deployd.log").read_text() + (other.folder / "deployd.log").read_text()
    finally:
        other.stop()
        other.destroy_all()
        shutil.rmtree(other.folder, ignore_errors=True)
