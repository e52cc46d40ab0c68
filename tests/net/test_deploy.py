# SPDX-License-Identifier: BSD-2-Clause
"""The deployment worker and its driver `netns`, on this host's real namespaces, with a stand-in for the agent."""

import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path

import pytest

from deploy_lab import (Database, Inventory, Snapshot, Worker, make_networks, processes, routes_in, run, wait_for)

CAP_NET_ADMIN, CAP_NET_RAW, CAP_PERFMON, CAP_BPF = 1 << 12, 1 << 13, 1 << 38, 1 << 39


@pytest.fixture(scope="module")
def database():
    make_networks()
    database = Database("/run/lab-db")
    yield database
    database.stop("immediate")


@pytest.fixture
def host(database, request):
    """(worker, inventory), and afterwards nothing of either is left on the host."""
    before = Snapshot()
    inventory = Inventory(database, hypervisor=request.node.name[:60])
    worker = Worker(database, f"/run/lab-{len(os.listdir('/run'))}", hypervisors=[request.node.name[:60]]).start()
    yield worker, inventory
    print((worker.folder / "deployd.log").read_text())
    if worker.process:
        assert worker.stop() == 0
    assert worker.destroy_all().returncode == 0
    assert Snapshot() == before
    database.query("DELETE FROM gateway.job")
    database.query("UPDATE gateway.gateway SET status = 'deleted', deleted = now() WHERE status <> 'deleted'")
    database.query("UPDATE gateway.address SET gateway = NULL, freed = now() - interval '1 day'")


def caps(text):
    return {line.split(":")[0]: (line.split() + [""])[1] for line in text.splitlines()}


def test_deploy_makes_what_the_contract_says(host):
    worker, inventory = host
    begun = time.monotonic()
    gateway = inventory.gateway("gw")
    worker.wait_deployed(inventory, gateway)
    base, netns = worker.base(gateway), worker.netns(gateway)

    status = caps((base / "status").read_text())
    uid = int(status["Uid"])
    assert uid == worker.first_uid() + inventory.db.value("SELECT uid_number FROM gateway.job WHERE gateway = %s", gateway)
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == CAP_NET_ADMIN | CAP_PERFMON | CAP_BPF, kind
    assert status["NoNewPrivs"] == "1"
    assert status["Groups"] == ""
    place = (base / "place").read_text().split()
    assert place[1] == place[3], "the agent leads a session of its own"
    assert place[4:] == ["/", "/dev/null"]
    log = worker.log_of(gateway)
    assert os.readlink(f"/proc/{worker.pid(gateway)}/fd/2") == str(log)
    assert stat.S_IMODE(log.stat().st_mode) == 0o600 and log.stat().st_uid == 0
    for line in (base / "furniture").read_text().splitlines():
        owner = line.split()[2]
        assert owner == str(uid), line
    pins = (base / "pins").read_text().split("\n")
    assert [line.split()[4] for line in pins if line] == [str(worker.run_of(gateway) / "bpf")], "no pins of others"

    wireguard = worker.pid(gateway, "wireguard")
    text = Path(f"/proc/{wireguard}/status").read_text()
    assert int(re.search(r"CapEff:\s*(\w+)", text)[1], 16) == CAP_NET_ADMIN
    assert int(re.search(r"CapBnd:\s*(\w+)", text)[1], 16) == CAP_NET_ADMIN
    assert re.search(r"Seccomp:\s*2", text), "h4: wireguard-go runs under a filter of system calls"
    wait_for("wireguard-go has made its device", lambda: "wg0" in run("ip", "-n", netns, "link"))
    assert "DOWN" in run("ip", "-n", netns, "-o", "link", "show", "wg0"), "the agent brings it up"

    def look():
        """The addresses of each link, once each that has a cable has one of its own."""
        found = {link["ifname"]: link["addr_info"] for link in json.loads(run("ip", "-n", netns, "-j", "addr"))}
        return found if all(any(a["scope"] == "link" for a in found[name]) for name in ("pub0", "vpc0")) else None

    found = wait_for("the links are ready", look)
    addresses = {name: [a["local"] for a in items if a["scope"] == "global"] for name, items in found.items()}
    for name in ("pub0", "vpc0"):  # neighbours are asked from it, at once, for what is forwarded over IPv6
        assert [a.get("tentative") for a in found[name] if a["scope"] == "link"] == [None], name
    assert not [a for a in found["wg0"] if a["family"] == "inet6"]
    assert addresses["pub0"] == ["198.51.100.10"] and addresses["vpc0"] == ["10.1.0.2"]
    assert "default via 198.51.100.1" in run("ip", "-n", netns, "route")
    run("ip", "netns", "exec", netns, "ping", "-c", "1", "-W", "20", "198.51.100.1")
    run("ip", "netns", "exec", netns, "ping", "-c", "1", "-W", "20", "10.1.0.100")
    for key, value in (("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1"),
                       ("net.ipv4.conf.all.rp_filter", "0"), ("net.ipv6.conf.default.addr_gen_mode", "1")):
        assert run("ip", "netns", "exec", netns, "sysctl", "-n", key).strip() == value, key
    wait_for("the instance's routes", lambda: routes_in("i1") == {"10.99.0.0/24"})

    bootstrap = json.loads((base / "bootstrap.json").read_text())
    assert stat.S_IMODE((base / "bootstrap.json").stat().st_mode) == 0o600
    assert (base / "bootstrap.json").stat().st_uid == uid and base.stat().st_uid == uid
    assert stat.S_IMODE(base.stat().st_mode) == 0o700
    assert bootstrap["api"] == [{"address": "198.51.100.1", "port": 8443}]
    assert (bootstrap["gateway"], bootstrap["attempt"], bootstrap["interface"]) == (gateway, 1, "wg0")
    digest = hashlib.blake2b(bootstrap["one_time_token"].encode(), digest_size=32).digest()
    kind, lifetime = inventory.db.query(
        "SELECT kind, extract(epoch FROM expires - now()) FROM gateway.token WHERE hash = %s", digest)[0]
    assert kind == "enroll" and 899 - (time.monotonic() - begun) < lifetime <= 900
    everything = " ".join(processes().values()) + (worker.folder / "deployd.log").read_text()
    assert bootstrap["one_time_token"] not in everything
    steps = [row[0] for row in inventory.db.query("SELECT step FROM gateway.job_log WHERE gateway = %s ORDER BY id", gateway)]
    assert steps == ["creating namespaces", "connecting links", "handing over the token"]


def test_w8_no_process_in_a_gateway_can_open_packet_sockets(host):
    """Whoever can puts packets on its interface that no hook of tc sees. (The worker's own `ip` goes in and out as root.)"""
    worker, inventory = host
    gateway = inventory.gateway("gw")
    worker.wait_deployed(inventory, gateway)
    uid = str(worker.base(gateway).stat().st_uid)
    found = set()
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        if uid not in re.search(r"Uid:\s*(.*)", text)[1].split():
            continue
        found.add(re.search(r"Name:\s*(\S+)", text)[1])
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert not int(re.search(rf"{kind}:\s*(\w+)", text)[1], 16) & CAP_NET_RAW, (kind, text)
        assert re.search(r"NoNewPrivs:\s*1", text), text
    assert {"wiretoll-agent", "wireguard-go"} <= found, found


def test_deploy_is_quick(host):
    worker, inventory = host
    wait_for("the worker serves", lambda: "serving" in (worker.folder / "deployd.log").read_text())
    seconds = []
    # Another one when it took longer: the machine may have been busy with something else, but not each time.
    while len(seconds) < 12 and not (seconds and seconds[-1] < 1.0):
        begun, number = time.monotonic(), 1 + len(seconds)
        gateway = inventory.gateway(f"gw{number}", private=f"10.{number}.0.0/24", first=f"10.{number}.0.2", last=f"10.{number}.0.9")
        wait_for("the agent runs", lambda: worker.pid(gateway), step=0.005)
        seconds.append(time.monotonic() - begun)
    assert seconds[-1] < 1.0, seconds


def test_delete_leaves_nothing(host):
    worker, inventory = host
    before = None
    gateway = inventory.gateway("gw")
    worker.wait_deployed(inventory, gateway)
    wait_for("routes", lambda: routes_in("i1"))
    inventory.delete(gateway)
    time.sleep(0.3)
    assert worker.pid(gateway), "the agent gets its last word"
    (worker.base(gateway) / "gone").touch()
    wait_for("the deletion is finished", lambda: inventory.job(gateway)["finished"])
    assert inventory.status(gateway)[0] == "deleted"
    assert worker.netns(gateway) not in os.listdir("/run/netns")
    assert not worker.base(gateway).exists() and not worker.run_of(gateway).exists()
    assert routes_in("i1") == set()
    assert not [link for link in os.listdir("/sys/class/net") if link.startswith("wt")]
    assert not [p for p in processes().values() if gateway in p]
    assert inventory.db.value("SELECT count(*) FROM gateway.address WHERE gateway = %s", gateway) == 0


def test_delete_kills_an_agent_that_stays(host):
    worker, inventory = host
    gateway = inventory.gateway("gw")
    worker.wait_deployed(inventory, gateway)
    begun = time.monotonic()
    inventory.delete(gateway)
    wait_for("the deletion is finished", lambda: inventory.job(gateway)["finished"])
    assert 9 < time.monotonic() - begun < 30
    assert inventory.status(gateway)[0] == "deleted"


def test_killed_programs_come_back(host):
    worker, inventory = host
    gateway = inventory.gateway("gw")
    worker.wait_deployed(inventory, gateway)
    wait_for("wireguard-go", lambda: worker.pid(gateway, "wireguard"))
    for program, other in (("agent", "wireguard"), ("wireguard", "agent")):
        killed, untouched = worker.pid(gateway, program), worker.pid(gateway, other)
        os.kill(killed, signal.SIGKILL)
        wait_for(f"a new {program}", lambda: worker.pid(gateway, program) not in (None, killed))
        assert worker.pid(gateway, other) == untouched, "only the dead one is started"
    wait_for("no zombies", lambda: not [p for p in processes().values() if p.startswith("[")])


def test_pauses_grow(host):
    worker, inventory = host
    worker.agent.write_text("#!/bin/sh\ndate +%s.%N >> $2/starts\nexit 3\n")
    gateway = inventory.gateway("gw")
    starts = worker.base(gateway) / "starts"
    wait_for("five starts", lambda: starts.exists() and len(starts.read_text().split()) >= 5)
    at = [float(word) for word in starts.read_text().split()]
    pauses = [b - a for a, b in zip(at, at[1:])]
    for pause, least in zip(pauses, (0.1, 0.2, 0.4, 0.8)):
        assert least <= pause < least * 2 + 2, pauses


def test_agent_that_is_done_stays_down(host):
    worker, inventory = host
    gateway = inventory.gateway("gw")
    worker.wait_deployed(inventory, gateway)
    (worker.base(gateway) / "gone").touch()
    wait_for("the agent has ended", lambda: not worker.pid(gateway))
    time.sleep(0.6)
    assert (worker.base(gateway) / "starts").read_text().split() == ["started"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_gateways_outlive_the_worker_and_are_adopted(host, number):
    worker, inventory = host
    gateway = inventory.gateway("gw")
    worker.wait_deployed(inventory, gateway)
    pids = [wait_for(program, lambda: worker.pid(gateway, program)) for program in ("agent", "wireguard")]
    worker.stop(number)
    time.sleep(0.2)
    assert [worker.pid(gateway, program) for program in ("agent", "wireguard")] == pids
    worker.start()
    wait_for("adoption", lambda: (worker.folder / "deployd.log").read_text().count("info: adopted") == 2)
    assert [worker.pid(gateway, program) for program in ("agent", "wireguard")] == pids
    os.kill(pids[0], signal.SIGKILL)
    wait_for("the adopted agent is started again", lambda: worker.pid(gateway) not in (None, pids[0]))
    starts = worker.base(gateway) / "starts"
    wait_for("it begins", lambda: starts.read_text().split() == ["started"] * 2)


def test_pins_outlive_every_process(host):
    worker, inventory = host
    gateway = inventory.gateway("gw")
    worker.wait_deployed(inventory, gateway)
    bpf = worker.run_of(gateway) / "bpf"
    (bpf / "kept").mkdir()
    worker.stop(signal.SIGKILL)
    for program in ("agent", "wireguard"):
        os.kill(worker.pid(gateway, program), signal.SIGKILL)
    wait_for("both are dead", lambda: not worker.pid(gateway) and not worker.pid(gateway, "wireguard"))
    assert (bpf / "kept").is_dir()
    worker.start()
    wait_for("both run again", lambda: (worker.base(gateway) / "starts").read_text().split() == ["started"] * 2 and
             worker.pid(gateway) and worker.pid(gateway, "wireguard"))
    assert "kept" in run("nsenter", f"--mount=/proc/{worker.pid(gateway)}/ns/mnt", "ls", bpf)


def test_deploying_twice_is_deploying_once(host):
    worker, inventory = host
    gateway = inventory.gateway("gw")
    worker.wait_deployed(inventory, gateway)
    token = (worker.base(gateway) / "bootstrap.json").read_text()
    routed = "set the routes of done"
    log = worker.folder / "deployd.log"
    wait_for("the routes", lambda: routed in log.read_text())  # its child is a process, too
    wait_for("wireguard-go has made its device", lambda: "wg0" in run("ip", "-n", worker.netns(gateway), "link"))
    agent, snapshot = worker.pid(gateway), Snapshot()
    # As after a worker that died between its last step and its report.
    inventory.db.query("UPDATE gateway.job SET finished = false WHERE gateway = %s", gateway)
    inventory.db.query("NOTIFY wiretoll_job")
    wait_for("the job is finished again", lambda: inventory.job(gateway)["finished"])
    wait_for("nothing more and nothing less", lambda: Snapshot() == snapshot)
    assert worker.pid(gateway) == agent and (worker.base(gateway) / "bootstrap.json").read_text() == token


def test_retry_starts_afresh_and_keeps_key_and_address(host):
    worker, inventory = host
    gateway = inventory.gateway("gw")
    worker.wait_deployed(inventory, gateway)
    (worker.base(gateway) / "private.key").write_text("stays")
    (worker.base(gateway) / "agent.json").write_text("{}")
    address = inventory.db.value("SELECT public_ip FROM gateway.gateway WHERE id = %s", gateway)
    inventory.retry(gateway)
    wait_for("the second attempt", lambda: worker.netns(gateway, 2) in os.listdir("/run/netns"))
    wait_for("the job is finished", lambda: inventory.job(gateway)["finished"])
    wait_for("the agent runs", lambda: worker.pid(gateway))
    assert worker.netns(gateway, 1) not in os.listdir("/run/netns")
    assert (worker.base(gateway) / "said").read_text().split() == ["term"], "the first agent could report"
    assert (worker.base(gateway) / "private.key").read_text() == "stays"
    assert not (worker.base(gateway) / "agent.json").exists()
    assert json.loads((worker.base(gateway) / "bootstrap.json").read_text())["attempt"] == 2
    assert inventory.db.value("SELECT public_ip FROM gateway.gateway WHERE id = %s", gateway) == address


def test_deleting_while_deploying(host):
    worker, inventory = host
    worker.stop()
    gateway = inventory.gateway("gw")
    worker.start()
    wait_for("it is being deployed", lambda: inventory.job(gateway)["worker"] or inventory.job(gateway)["finished"], step=0.001)
    inventory.delete(gateway)
    wait_for("the agent runs or it is gone", lambda: worker.base(gateway).exists() or inventory.job(gateway)["finished"])
    if worker.base(gateway).exists():
        with contextlib.suppress(FileNotFoundError):  # gone already
            (worker.base(gateway) / "gone").touch()
    wait_for("the deletion is finished", lambda: inventory.status(gateway)[0] == "deleted")


def test_destroying_twice(host):
    worker, inventory = host
    gateway = inventory.gateway("gw")
    worker.wait_deployed(inventory, gateway)
    worker.stop()
    (worker.base(gateway) / "journal").mkdir()
    for _ in range(2):
        assert worker.destroy_all().returncode == 0
        assert worker.netns(gateway) not in os.listdir("/run/netns")
        assert (worker.base(gateway) / "journal").is_dir(), "what is not reported yet stays"


def test_put_up_again_after_a_reboot(host):
    worker, inventory = host
    gateway = inventory.gateway("gw")
    worker.wait_deployed(inventory, gateway)
    (worker.base(gateway) / "agent.json").write_text("{}")
    (worker.base(gateway) / "bootstrap.json").unlink()
    worker.stop()
    worker.destroy_all()
    worker.start()
    wait_for("the agent runs again", lambda: worker.pid(gateway))
    assert (worker.base(gateway) / "agent.json").exists() and not (worker.base(gateway) / "bootstrap.json").exists()
    wait_for("the instance's routes", lambda: routes_in("i1") == {"10.99.0.0/24"})


def test_reaper_takes_what_nobody_owns(host):
    worker, inventory = host
    kept, lost = inventory.gateway("kept"), inventory.gateway("lost", private="10.2.0.0/24", first="10.2.0.2",
                                                              last="10.2.0.9", route_netns=())
    for gateway in (kept, lost):
        worker.wait_deployed(inventory, gateway)
    agent = worker.pid(kept)
    worker.stop()
    inventory.db.query("DELETE FROM gateway.job WHERE gateway = %s", lost)
    worker.start()
    wait_for("it is reaped", lambda: not worker.base(lost).exists() and not worker.run_of(lost).exists())
    assert worker.netns(lost) not in os.listdir("/run/netns")
    assert worker.pid(kept) == agent


def test_nothing_is_reaped_without_the_database(host):
    worker, inventory = host
    gateway = inventory.gateway("gw")
    worker.wait_deployed(inventory, gateway)
    pid = worker.pid(gateway)
    inventory.db.stop("immediate")
    try:
        worker.stop(signal.SIGKILL)
        worker.start()
        time.sleep(1)
        assert worker.pid(gateway) == pid
    finally:
        inventory.db.start()
    wait_for("it is adopted when the database is back",
             lambda: "adopted agent" in (worker.folder / "deployd.log").read_text())


def test_routes_follow_the_sites(host):
    worker, inventory = host
    gateway = inventory.gateway("gw")
    worker.wait_deployed(inventory, gateway)
    wait_for("the tunnel's route", lambda: routes_in("i1") == {"10.99.0.0/24"})
    run("ip", "-n", "i1", "route", "add", "203.0.113.0/24", "via", "10.1.0.2")
    peer = inventory.db.value("INSERT INTO gateway.peer (owner, gateway, kind, name, public_key) "
                              "VALUES (%s, %s, 'site_to_site', 'office', %s) RETURNING id", inventory.user, gateway, b"k" * 32)
    inventory.db.query("INSERT INTO gateway.prefix (owner, gateway, peer, cidr, tunnel) VALUES (%s, %s, %s, '192.168.7.0/24', false)",
                       inventory.user, gateway, peer)
    inventory.db.query("NOTIFY wiretoll_job")
    mine = "203.0.113.0/24"
    wait_for("the site's route", lambda: routes_in("i1") == {"10.99.0.0/24", "192.168.7.0/24", mine})
    inventory.db.query("UPDATE gateway.prefix SET freed = now() WHERE gateway = %s", gateway)
    inventory.db.query("NOTIFY wiretoll_job")
    wait_for("it goes again, another's stays", lambda: routes_in("i1") == {"10.99.0.0/24", mine})
    run("ip", "-n", "i1", "route", "delete", "203.0.113.0/24")


def test_failure_names_its_reason(host):
    worker, inventory = host
    gateway = inventory.gateway("gw", bridge="nowhere")
    wait_for("it failed", lambda: inventory.status(gateway)[0] == "error")
    assert 'no bridge "nowhere"' in inventory.status(gateway)[1]
    log = inventory.db.value("SELECT line FROM gateway.job_log WHERE gateway = %s ORDER BY id DESC LIMIT 1", gateway)
    assert log.startswith("failed:") and "nowhere" in log


def test_host_without_an_address_is_an_error(host):
    worker, inventory = host
    run("ip", "addr", "del", "198.51.100.1/24", "dev", "public")
    try:
        gateway = inventory.gateway("gw")
        wait_for("it failed", lambda: inventory.status(gateway)[0] == "error")
        assert "no address of the public subnet" in inventory.status(gateway)[1]
    finally:
        run("ip", "addr", "add", "198.51.100.1/24", "dev", "public")


def ports(bridge):
    return [link["ifname"] for link in json.loads(run("ip", "-j", "link", "show", "master", bridge)) if link["ifname"].startswith("wt")]


def test_s3f_a_dual_stack_vpc_loses_no_ping_when_neighbours_ask_anew(host):
    worker, inventory = host
    gateway = inventory.gateway("gw", private6="fd10:1::/64")
    worker.wait_deployed(inventory, gateway)
    netns = worker.netns(gateway)
    assert len(ports("vpc1")) == 1, "one link for each bridge, whatever the subnets on it"
    # What the agent's firewall says of sources: they are routed back through where they came from.
    run("ip", "netns", "exec", netns, "nft", "table inet guard { chain prerouting { type filter hook prerouting priority filter; "
        "fib saddr . iif oif missing drop; }; }")
    run("ip", "-n", "i1", "addr", "replace", "fd10:1::100/64", "dev", "eth0", "nodad")
    try:
        for address in ("10.1.0.2", "fd10:1::2"):
            for _ in range(3):
                run("ip", "-n", "i1", "neigh", "flush", "dev", "eth0")
                said = run("ip", "netns", "exec", "i1", "ping", "-c", "30", "-i", "0.01", "-W", "20", address)
                assert "30 packets transmitted, 30 received" in said, said
    finally:
        run("ip", "-n", "i1", "addr", "del", "fd10:1::100/64", "dev", "eth0")


def test_s3f_links_of_an_earlier_version_become_one(host):
    worker, inventory = host
    gateway = inventory.gateway("gw", private6="fd10:1::/64")
    worker.wait_deployed(inventory, gateway)
    first, netns = ports("vpc1")[0], worker.netns(gateway)
    worker.stop()
    second = first[:-1] + "1"
    run("ip", "link", "add", second, "type", "veth", "peer", "name", "vpc1", "netns", netns)
    run("ip", "link", "set", second, "master", "vpc1", "up")
    run("ip", "link", "set", first, "group", "default")
    run("ip", "-n", netns, "addr", "del", "fd10:1::2/64", "dev", "vpc0")
    run("ip", "-n", netns, "addr", "add", "fd10:1::2/64", "dev", "vpc1", "nodad")
    run("ip", "-n", netns, "link", "set", "vpc1", "up")
    worker.start()
    wait_for("one link", lambda: ports("vpc1") == [first])
    wait_for("with both addresses", lambda: {"10.1.0.2", "fd10:1::2"} <= {
        a["local"] for a in json.loads(run("ip", "-n", netns, "-j", "addr", "show", "vpc0"))[0]["addr_info"]})
    wait_for("and guarded", lambda: json.loads(run("ip", "-j", "link", "show", first))[0]["group"] == "1465122817")


@contextlib.contextmanager
def host_in_vpc():
    """The host has addresses in the VPC, on its bridge, and others elsewhere; it listens on all."""
    run("ip", "link", "add", "elsewhere", "type", "bridge")
    run("ip", "link", "set", "elsewhere", "up")
    mine = (("vpc1", "10.1.0.1/24"), ("vpc1", "fd10:1::1/64"), ("elsewhere", "203.0.113.9/32"), ("elsewhere", "2001:db8:9::9/128"),
            ("vpc1", "169.254.7.7/16"), ("vpc1", "fe80::1:1/64"))
    for interface, address in mine:
        run("ip", "addr", "add", address, "dev", interface, *(["nodad"] if ":" in address else []))
    listeners = []
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        listener = socket.socket(family, socket.SOCK_STREAM)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, 8443))
        listener.listen()
        listeners.append(listener)
    try:
        yield
    finally:
        for listener in listeners:
            listener.close()
        for interface, address in mine[:2] + mine[4:]:
            run("ip", "addr", "del", address, "dev", interface, check=False)
        run("ip", "link", "del", "elsewhere")


def reaches(netns, address, seconds="1"):
    """Whether a TCP connection comes about: the API's port is open on all of the host's addresses."""
    script = f"import socket; socket.create_connection(('{address}', 8443), {seconds})"
    return subprocess.run(["ip", "netns", "exec", netns, "/usr/bin/python3", "-c", script], stderr=subprocess.DEVNULL,
                          timeout=60).returncode == 0


def refused():
    """In IP's chain and in the bridge's; without them none."""
    listings = [run("nft", "-j", "list", "counter", family, "wiretoll_host", "refused", check=False) for family in ("inet", "bridge")]
    return sum(json.loads(listing)["nftables"][-1]["counter"]["packets"] for listing in listings if listing)


def test_g10_the_host_is_never_reached_from_a_vpc_link_whatever_its_addresses(host):
    worker, inventory = host
    with host_in_vpc():
        gateway = inventory.gateway("gw", private6="fd10:1::/64")
        worker.wait_deployed(inventory, gateway)
        netns = worker.netns(gateway)
        run("ip", "-n", netns, "route", "add", "203.0.113.9", "via", "10.1.0.1")
        run("ip", "-n", netns, "route", "add", "2001:db8:9::9", "via", "fd10:1::1")
        run("ip", "-n", netns, "addr", "add", "169.254.8.8/16", "dev", "vpc0")
        # The agent's way to the API, over the public link, stays.
        assert reaches(netns, "198.51.100.1", 20)
        # An instance of the VPC is not the gateway: it reaches what it reached before.
        assert reaches("i1", "10.1.0.1", 20)
        for address in ("10.1.0.1", "fd10:1::1", "203.0.113.9", "2001:db8:9::9", "169.254.7.7", "fe80::1:1%vpc0"):
            before = refused()
            assert not reaches(netns, address), address
            assert refused() > before, f"{address}: dropped by the rule, not for another reason"
            ping = subprocess.run(["ip", "netns", "exec", netns, "ping", "-c", "1", "-W", "1", address], capture_output=True, timeout=60)
            assert ping.returncode != 0, address
        # An address that the host gets later; and what the host itself begins is answered.
        run("ip", "addr", "add", "10.1.0.77/24", "dev", "vpc1")
        try:
            before = refused()
            assert not reaches(netns, "10.1.0.77") and refused() > before
            run("ping", "-c", "1", "-W", "20", "10.1.0.2")
            run("ping", "-c", "1", "-W", "20", "fd10:1::2")
        finally:
            run("ip", "addr", "del", "10.1.0.77/24", "dev", "vpc1")
        # And instances still reach each other's side through the gateway's link.
        run("ip", "netns", "exec", netns, "ping", "-c", "1", "-W", "20", "10.1.0.100")


def test_g10_the_hosts_rules_go_with_the_last_gateway(host):
    worker, inventory = host
    gateway = inventory.gateway("gw")
    worker.wait_deployed(inventory, gateway)
    assert "wiretoll_host" in run("nft", "list", "tables")
    worker.stop()
    assert "wiretoll_host" in run("nft", "list", "tables"), "as long as there is one"
    worker.destroy_all()
    assert "wiretoll_host" not in run("nft", "list", "tables")


@contextlib.contextmanager
def mounted(*mounts):
    """Each is (type, source, path), or of type "bind"; taken off again in the opposite order."""
    with contextlib.ExitStack() as stack:
        for kind, source, path in mounts:
            run("mount", *(["--bind"] if kind == "bind" else ["-t", kind]), source, path)
            stack.callback(run, "umount", "--lazy", path)
        yield


def test_d9_pins_beneath_other_mounts_are_taken_off(host, tmp_path):
    """As systemd's BPF file system has, which a tool mounts once more or a container's /sys covers; what covers them stays."""
    worker, inventory = host
    outer, deep = tmp_path / "outer", tmp_path / "outer/deep"
    deep.mkdir(parents=True)
    (outer / "net").touch()
    twice, inner = tmp_path / "twice with spaces", tmp_path / "cover/inner"
    twice.mkdir()
    inner.mkdir(parents=True)
    with mounted(("bpf", "bpf", "/sys/fs/bpf"), ("bind", "/sys", "/sys"), ("bpf", "bpf", "/sys/fs/bpf"), ("debugfs", "debugfs", "/sys/kernel/debug"),
                 ("bpf", "bpf", twice), ("bpf", "bpf", twice), ("bpf", "bpf", deep), ("bind", "/proc/self/ns/net", outer / "net"),
                 ("tmpfs", "tmpfs", outer), ("bpf", "bpf", inner), ("tmpfs", "tmpfs", tmp_path / "cover"), ("tmpfs", "tmpfs", tmp_path)):
        (tmp_path / "marker").touch()
        gateway = inventory.gateway("gw")
        worker.wait_deployed(inventory, gateway)
        pins = [line.split()[4] for line in (worker.base(gateway) / "pins").read_text().splitlines()]
        assert pins == [str(worker.run_of(gateway) / "bpf")]
        pid = worker.pid(gateway)
        assert Path(f"/proc/{pid}/root{tmp_path}/marker").exists()
        table = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
        assert [fields[fields.index("-") + 1] for fields in table if fields[4] == "/sys/kernel/debug"] == ["debugfs"]


def routes_of_host(*more):
    """But for what is told of a bridge that just lost its last port."""
    return run("ip", "route", "show", *more).replace(" linkdown", "").splitlines()


def test_h2_the_hosts_own_routes_are_never_replaced(host):
    """A site asks for what the host routes itself, is attached to, or for what is nobody's network."""
    worker, inventory = host
    run("ip", "addr", "add", "10.1.0.1/24", "dev", "vpc1")
    own = ["10.200.0.0/16 via 198.51.100.77 dev public", "10.201.0.0/16 via 198.51.100.77 dev public metric 100", "10.202.0.0/16 via 198.51.100.77 dev public"]
    for route in own:
        run("ip", "route", "add", *route.split())
    try:
        gateway = inventory.gateway("gw", route_netns=("",))
        worker.wait_deployed(inventory, gateway)
        before = [line for line in routes_of_host() if "198.51.100.77" in line]
        peer = inventory.db.value("INSERT INTO gateway.peer (owner, gateway, kind, name, public_key) "
                                  "VALUES (%s, %s, 'site_to_site', 'office', %s) RETURNING id", inventory.user, gateway, b"k" * 32)
        refused = ["10.200.0.0/16", "10.201.0.0/16", "198.51.100.128/25", "0.0.0.0/5", "64.0.0.0/2", "169.254.169.254/32", "224.0.0.0/4"]
        for cidr in (*refused, "192.168.7.0/24", "10.202.7.0/24"):
            inventory.db.query("INSERT INTO gateway.prefix (owner, gateway, peer, cidr, tunnel) VALUES (%s, %s, %s, %s, false)",
                               inventory.user, gateway, peer, cidr)
        inventory.db.query("NOTIFY wiretoll_job")
        wait_for("the routes that may be", lambda: all(route in "\n".join(routes_of_host()) for route in ("192.168.7.0/24 via", "10.202.7.0/24 via")))
        assert [line for line in routes_of_host() if "198.51.100.77" in line] == before
        assert {line.split()[0] for line in routes_of_host("proto", "87")} == {"10.99.0.0/24", "192.168.7.0/24", "10.202.7.0/24"}
        told = wait_for("what is left out is told", lambda: inventory.db.value(
            "SELECT cannot_route FROM gateway.gateway WHERE id = %s AND cannot_route <> '[]'", gateway))
        assert {entry["what"] for entry in told} == {f"route {cidr}" for cidr in refused}
        # The peer goes, and with it only what is ours.
        inventory.db.query("UPDATE gateway.prefix SET freed = now() WHERE gateway = %s", gateway)
        inventory.db.query("NOTIFY wiretoll_job")
        wait_for("they go", lambda: {line.split()[0] for line in routes_of_host("proto", "87")} == {"10.99.0.0/24"})
        wait_for("nothing is told any more", lambda: inventory.db.value("SELECT cannot_route FROM gateway.gateway WHERE id = %s", gateway) == [])
        assert [line for line in routes_of_host() if "198.51.100.77" in line] == before
        inventory.delete(gateway)
        wait_for("it is deleted", lambda: inventory.status(gateway)[0] == "deleted")
        assert [line for line in routes_of_host() if "198.51.100.77" in line] == before and routes_of_host("proto", "87") == []
    finally:
        for route in own:
            run("ip", "route", "del", *route.split(), check=False)
        run("ip", "addr", "del", "10.1.0.1/24", "dev", "vpc1")


def test_h2_routes_of_an_earlier_version_are_taken_over(host):
    worker, inventory = host
    gateway = inventory.gateway("gw")
    worker.wait_deployed(inventory, gateway)
    wait_for("the tunnel's route", lambda: routes_in("i1") == {"10.99.0.0/24"})
    worker.stop()
    run("ip", "-n", "i1", "route", "replace", "10.99.0.0/24", "via", "10.1.0.2", "proto", "188")
    run("ip", "-n", "i1", "route", "add", "192.168.9.0/24", "via", "10.1.0.2", "proto", "188")
    run("ip", "-n", "i1", "route", "add", "192.168.10.0/24", "via", "10.1.0.3", "proto", "188")
    worker.start()
    wait_for("they carry today's number", lambda: "10.99.0.0/24" in run("ip", "-n", "i1", "route", "show", "proto", "87"))
    wait_for("what is wanted no longer goes", lambda: run("ip", "-n", "i1", "route", "show", "proto", "188").split("\n")[0].split()[0]
             == "192.168.10.0/24")
    run("ip", "-n", "i1", "route", "del", "192.168.10.0/24")
