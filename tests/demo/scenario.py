# SPDX-License-Identifier: BSD-2-Clause
"""The main job, end to end, on real packets; runs inside the envelope that run.sh makes.

Real WireGuard clients reach a private network through gateways; every byte is counted in the kernel, billed in
PostgreSQL, and cut off at the packet where the allowance ends. Each step asserts; the first assertion that fails ends it
with status 1. The requirements proved are named in brackets.
"""

import argparse
import base64
import calendar
import contextlib
import datetime
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

from lab import (Api, Client, Host, Pinger, PinnedPrefixes, Refused, Sink, Uapi, process_of, run, tcp, udp, udp_errors_of, wait_for)

GB = 10 ** 9
ALLOWANCE_L1 = 100_000_000  # room for runs that are not valid, and to run into
ALLOWANCE_L2 = 10_000_000
CREDIT_VALUE = "7.44"
RATE = "0.10"
PORT = 8443
STATE = Path("/run/demo/state")
RUNDIR = Path("/run/demo/wt")


class Progress:
    """Plain lines off a terminal; on one, a line that is rewritten with the live counts below finished steps."""

    def __init__(self):
        self.terminal = sys.stdout.isatty()
        self.begun = time.monotonic()
        self.live = False

    def step(self, text):
        self.clear()
        print(f"[{time.monotonic() - self.begun:6.1f} s] {text}", flush=True)

    def note(self, text):
        self.clear()
        print(f"             {text}", flush=True)

    def update(self, text):
        if self.terminal:
            width = shutil.get_terminal_size().columns - 1
            print("\r\033[K" + text[:width], end="", flush=True)
            self.live = True

    def clear(self):
        if self.live:
            print("\r\033[K", end="")
            self.live = False


class Scenario:
    api_type = Api

    def __init__(self, binaries):
        self.bin = Path(binaries).resolve()
        self.progress = Progress()
        self.result = {}
        self.up = None
        self.connected = []
        self.invalid_runs = 0
        self.addresses = ("127.0.0.1", "198.51.100.1")

    # ---- tools -------------------------------------------------------------------------------------------------

    def cli(self, *words, stdin=None, check=True):
        """The command line, as the customer uses it."""
        return run("env", f"WIRETOLL_CONFIG={STATE.parent}/alice.json", self.bin / "wiretoll", *words, stdin=stdin,
                   check=check)

    def gateway(self, name):
        return json.loads(self.cli("gateway", "show", name, "--json"))

    def metered(self, name):
        """What Wiretoll says of each peer: {name: (upload, download)}."""
        peers = self.admin.items(f"/v1/gateways/{self.ids[name]}/peers")
        return {peer["name"]: (int(peer["upload_bytes"]), int(peer["download_bytes"])) for peer in peers}

    def at_rest(self, name):
        """What is metered once the agent has reported past this moment."""
        def reported():
            as_of = self.admin.get(f"/v1/gateways/{self.ids[name]}")["bandwidth"]["as_of"]
            return as_of and datetime.datetime.fromisoformat(as_of.replace("Z", "+00:00")) > quiet

        quiet = datetime.datetime.now(datetime.timezone.utc)
        self.cli("usage", name)  # while a customer looks, the agent reports every second
        wait_for(f"the agent of {name} reports", reported, step=0.1)
        return self.metered(name)

    def settled(self, name, reading, agree=lambda metered, read: True):
        """(metered, what `reading` says) once nothing is under way: both are the same before and after a report. For a minute
        it waits until they agree as well; after that, and of packets that were lost, it returns what they are."""
        deadline = time.monotonic() + 60
        now = self.at_rest(name), reading()
        while True:
            before, now = now, (self.at_rest(name), reading())
            if now == before and (agree(*now) or time.monotonic() > deadline):
                return now
            assert time.monotonic() < deadline + 60, f"{name} does not come to rest"

    def equal_growth(self, name, clients, traffic, what):
        """Runs traffic(rate), slower each time, until nothing was lost on the way: then the meter has grown by what the
        clients' devices counted. Returns {peer: (upload, download, true upload, true download)} of that run."""
        def growth_of(after, true_after):
            return {peer: tuple(after[peer][i] - metered[peer][i] for i in (0, 1)) +
                    tuple(true_after[peer][i] - truth[peer][i] for i in (0, 1)) for peer in clients}

        def equal(*read):
            return self.losses() != lost or all(four[:2] == four[2:] for four in growth_of(*read).values())

        for attempt in range(4):
            metered, truth = self.settled(name, lambda: counters(clients))
            lost = self.losses()
            traffic(3_000_000 >> attempt)
            growth = growth_of(*self.settled(name, lambda: counters(clients), equal))
            if self.losses() == lost:
                break
            self.invalid_runs += 1
            self.progress.note(f"run {attempt + 1} lost packets on the way and is not valid; again")
        else:
            raise AssertionError("four runs lost packets on the way")
        for peer, (up, down, true_up, true_down) in growth.items():
            assert (up, down) == (true_up, true_down), f"{what}: {peer}: metered {up}, {down}; truth {true_up}, {true_down}"
        return growth

    def losses(self):
        """Everything that any device or socket on the way had to drop; 0 before a comparison counts."""
        lost = sum(client.drops() + client.udp_errors() for client in self.connected)
        lost += sum(host.udp_errors() for host in self.instances.values())
        for name, gateway_id in self.ids.items():
            stats = self.link_of(name)
            lost += stats["tx"]["dropped"] + stats["rx"]["dropped"] + stats["tx"]["errors"] + stats["rx"]["errors"]
            pid = process_of(RUNDIR / "gw" / gateway_id / "agent.pid")
            if pid:
                lost += udp_errors_of(Path(f"/proc/{pid}/net/snmp").read_text())
        return lost

    def link_of(self, name):
        """The kernel's statistics of a gateway's WireGuard device."""
        inside = ["nsenter", f"--net={self.netns_of(name)}", "--"]
        return json.loads(run(*inside, "ip", "-s", "-j", "link", "show", "dev", "wg0"))[0]["stats64"]

    def netns_of(self, name):
        gateway = self.admin.get(f"/v1/gateways/{self.ids[name]}")
        return f"/run/netns/wt-{gateway['id'][:8]}-{gateway['attempt']}"

    def watch_live(self, name, stop):
        """The live table: on a terminal the peers' counts, twice a second."""
        while not stop.wait(0.5):
            peers = "   ".join(f"{peer} ↑ {up / 1e6:.2f} MB ↓ {down / 1e6:.2f} MB"
                               for peer, (up, down) in self.metered(name).items())
            self.progress.update(peers)

    # ---- the steps ---------------------------------------------------------------------------------------------

    def networks(self):
        self.progress.step("networks: two bridges of two clouds, a public one, four instances, four clients")
        # Of its own, or it has its ports' lowest, which changes as they come and go: who knows the old one is unheard for seconds.
        run("ip", "link", "add", "public", "address", "02:00:00:00:00:01", "type", "bridge")
        run("ip", "addr", "add", "198.51.100.1/24", "dev", "public")
        run("ip", "link", "set", "public", "up")
        self.instances = {}
        for number in (1, 2):
            run("ip", "link", "add", f"vpc{number}", "type", "bridge")
            run("ip", "link", "set", f"vpc{number}", "up")
            for letter, last in (("a", 10), ("b", 11)):
                host = Host(f"i{number}{letter}")
                host.plug(f"vpc{number}", "eth0", f"10.{number}.0.{last}/24", f"fd00:{number}::{last}/64")
                host.count_arrivals("eth0")
                Sink(host)
                self.instances[host.name] = host
        self.c1 = Client("laptop", "public", "198.51.100.101/24")
        self.c2 = Client("phone", "public", "198.51.100.102/24")
        self.site = Client("office", "public", "198.51.100.103/24")
        self.c3 = Client("tablet", "public", "198.51.100.104/24")
        self.victim = Client("victim", "public", "198.51.100.105/24")
        # The office's network behind its router, with one machine in it.
        run("ip", "link", "add", "lan7", "type", "bridge")
        run("ip", "link", "set", "lan7", "up")
        self.site.plug("lan7", "lan", "192.168.7.1/24", "fd00:7::1/64")
        self.desk = Host("desk")
        self.desk.plug("lan7", "eth0", "192.168.7.10/24", "fd00:7::10/64")
        self.desk.run("ip", "route", "add", "default", "via", "192.168.7.1")
        self.desk.run("ip", "route", "add", "default", "via", "fd00:7::1")
        Sink(self.desk)
        self.clients_of_l1 = {"laptop": self.c1, "phone": self.c2, "office": self.site}

    def start_control_plane(self):
        self.progress.step("wiretoll up: PostgreSQL, API, deployment worker")
        STATE.mkdir(parents=True, mode=0o755)
        self.log = open(STATE.parent / "up.log", "w", encoding="utf-8")
        listen = [word for address in self.addresses for word in ("--listen", f"{address}:{PORT}")]
        self.up = subprocess.Popen(
            [self.bin / "wiretoll", "up", "--state", STATE, "--run", RUNDIR, *listen, "--hypervisor", "host-L1",
             "--hypervisor", "host-L2"], stdout=self.log, stderr=subprocess.STDOUT)

        def ready():
            assert self.up.poll() is None, f"wiretoll up ended:\n{(STATE.parent / 'up.log').read_text()}"
            return "ready" in (STATE.parent / "up.log").read_text()

        wait_for("wiretoll up is ready", ready, timeout=180, step=0.05)
        ca_pem = (STATE / "api" / "ca.pem").read_text()
        self.fingerprint = run("openssl", "x509", "-in", STATE / "api" / "ca.pem", "-noout", "-fingerprint",
                               "-sha256").strip().split("=")[1].replace(":", "").lower()
        self.admin = self.api_type(f"https://127.0.0.1:{PORT}", ca_pem)
        one_time = (STATE / "admin-token").read_text().strip()
        self.admin.token = self.admin.post("/v1/login", {"one_time_token": one_time})["token"]

    def offer(self):
        """What the operator sets up, and the inventory that mirrors the customer's networks (A1–A9)."""
        self.progress.step("operator: locations L1 (revoke_access) and L2 (charge_overage), plans, user, VPCs")
        admin = self.admin
        image = admin.post("/v1/images", {"name": "gateway", "purpose": "vpn_gateway", "path": "/", "enabled": True})
        groups = {}
        for name, included in (("L1", ALLOWANCE_L1), ("L2", ALLOWANCE_L2)):
            gigabytes = f"{included // GB}.{included % GB:09d}"
            plan = admin.post("/v1/plans", {"name": f"small-{name}", "cpu": 1, "ram_mb": 512, "storage_gb": 4,
                                            "included_gb": gigabytes, "credit_value": None})
            groups[name] = admin.post("/v1/plan-groups", {"name": f"plans-{name}", "plans": [plan["id"]]})["id"]
        for name, overage in (("L1", "revoke_access"), ("L2", "charge_overage")):
            admin.post("/v1/locations", {
                "name": name, "vpn_enabled": True, "credit_value": CREDIT_VALUE, "bandwidth_rate": RATE,
                "accounting": "both", "overage": overage, "image": image["id"], "plan_group": groups[name]})
        user = admin.post("/v1/users", {"name": "alice", "email": "alice@example.net", "role": "user",
                                        "max_gateways": 5})
        for number, location in ((1, "L1"), (2, "L2")):
            # One host serves both locations: it is entered once for each.
            admin.post("/v1/hypervisors", {"name": f"host-{location}", "location": location, "driver": "netns", "cpu": 8,
                                           "ram_mb": 8192, "storage_gb": 100})
            attachment = {"bridge": f"vpc{number}", "route_netns": [f"i{number}a", f"i{number}b"]}
            admin.post("/v1/vpcs", {"name": f"prod{number}", "owner": user["id"], "location": location, "subnets": [
                {"cidr": f"10.{number}.0.0/24", "public": False, "gateway_range": f"10.{number}.0.2-10.{number}.0.9",
                 "router": None, "attachment": attachment},
                {"cidr": f"fd00:{number}::/64", "public": False, "router": None,
                 "gateway_range": f"fd00:{number}::2-fd00:{number}::9", "attachment": attachment},
                {"cidr": "198.51.100.0/24", "public": True, "router": None,
                 "gateway_range": f"198.51.100.{number}0-198.51.100.{number}9",
                 "attachment": {"bridge": "public", "route_netns": []}}]})
        self.user = user["id"]
        token = admin.post(f"/v1/users/{self.user}/login-token", {})["one_time_token"]
        self.cli("login", f"https://127.0.0.1:{PORT}", "--ca-fingerprint", self.fingerprint, stdin=token)
        self.ids = {}

    def deploy(self, vpc, name):
        """Creates a gateway as the customer does and times it to `active` [G1, G4]."""
        begun = time.monotonic()
        self.cli("gateway", "create", "--vpc", vpc, "--name", name, "--wait")
        took = (time.monotonic() - begun) * 1000
        gateway = self.gateway(name)
        assert gateway["status"] == "active", gateway
        self.ids[name] = gateway["id"]
        self.progress.note(f"{name}: active at {gateway['public_ip']} after {took:.0f} ms")
        return took

    def add_peer(self, gateway, client, *options):
        """Adds a client and imports the downloaded configuration, with only the placeholder replaced [P1–P3]."""
        self.cli("peer", "add", f"{gateway}/{client.name}", "--public-key", client.public_key, *options)
        client.connect(self.cli("peer", "config", f"{gateway}/{client.name}"))
        self.connected.append(client)

    def build_l1(self):
        self.progress.step("gateway in L1, two road warriors and a site with a preshared key")
        self.result["deploy_ms"] = round(self.deploy("prod1", "gw1"), 1)
        assert self.result["deploy_ms"] < 6000, "active in seconds, in under 2 of an idle machine's"
        self.add_peer("gw1", self.c1)
        self.add_peer("gw1", self.c2)
        self.add_peer("gw1", self.site, "--kind", "site", "--allowed-ips", "192.168.7.0/24,fd00:7::/64",
                      "--generate-preshared-key", "--keepalive", "0")
        for host, address in ((self.c1, "10.1.0.10"), (self.c2, "fd00:1::11"), (self.desk, "10.1.0.10")):
            wait_for(f"{host.name} reaches {address}",
                     lambda: "1 received" in host.run("ping", "-n", "-c", "1", "-W", "1", address, check=False))

    def all_kinds_of_traffic(self, rate):
        stop = threading.Event()
        table = threading.Thread(target=self.watch_live, args=("gw1", stop))
        table.start()
        try:
            tcp(self.c1, "10.1.0.10", upload=4_000_000, download=4_000_000, rate=rate)
            tcp(self.c2, "fd00:1::11", upload=2_000_000, download=2_000_000, rate=rate)
            udp(self.c1, "10.1.0.11", total=500_000, size=100, rate=200_000)
            udp(self.c2, "fd00:1::10", total=300_000, size=100, rate=200_000)
            self.c1.run("ping", "-n", "-q", "-i", "0.01", "-c", "100", "-s", "600", "10.1.0.11")
            self.c2.run("ping", "-n", "-q", "-i", "0.01", "-c", "100", "fd00:1::10")
            tcp(self.desk, "10.1.0.10", upload=1_500_000, download=1_500_000, rate=rate)
            tcp(self.instances["i1b"], "192.168.7.10", upload=1_500_000, download=1_500_000, rate=rate)
            tcp(self.desk, "fd00:1::10", upload=500_000, download=500_000, rate=rate)
            tcp(self.instances["i1b"], "fd00:7::10", upload=500_000, download=500_000, rate=rate)
        finally:
            stop.set()
            table.join()

    def exact_counts(self):
        self.progress.step("TCP both ways, small UDP, ICMP, IPv6, site to site: metered = the clients' own counters")
        growth = self.equal_growth("gw1", self.clients_of_l1, self.all_kinds_of_traffic, "metered = truth, to the byte")
        kinds = {"laptop": "road_warrior", "phone": "road_warrior", "office": "site_to_site"}
        self.result["peers"] = [
            {"name": name, "kind": kinds[name], "upload_bytes": up, "download_bytes": down, "truth_upload_bytes": true_up,
             "truth_download_bytes": true_down} for name, (up, down, true_up, true_down) in growth.items()]
        for name, (up, down, *_) in growth.items():
            assert up > 1_000_000 and down > 1_000_000, f"{name} moved data both ways"
        usage = self.admin.items(f"/v1/gateways/{self.ids['gw1']}/usage?interval=total&by=peer")
        self.result["unattributed_bytes"] = sum(int(item["upload_bytes"]) + int(item["download_bytes"])
                                                for item in usage if item["peer"] is None)
        assert self.result["unattributed_bytes"] == 0, "nothing belongs to no peer"

    def peer_changes(self):
        self.progress.step("200 peer changes while another peer is pinged every millisecond [P5, P6]")
        self.add_peer("gw1", self.victim)
        gateway = self.ids["gw1"]
        path = f"/v1/gateways/{gateway}/peers/victim"
        address = self.admin.get(path)["tunnel_ip"]
        key = base64.b64decode(self.victim.public_key).hex()
        agent = process_of(RUNDIR / "gw" / gateway / "agent.pid")
        wireguard = Uapi(f"/proc/{agent}/root/run/wireguard/wg0.sock")
        prefixes = PinnedPrefixes(self.find_pin(agent, gateway))
        wait_for("the victim reaches its instance", lambda: "1 received" in self.victim.run(
            "ping", "-n", "-c", "1", "-W", "1", "10.1.0.11", check=False))

        bystander = Pinger(self.c1, "10.1.0.10", "0.001")
        disturbed = Pinger(self.victim, "10.1.0.11", "0.01")
        times, returns, passed_while_off = [], [], 0
        arrived = self.instances["i1b"].arrived

        def timed(body, effective):
            self.admin.call("PATCH", path, body)
            begun = time.perf_counter()
            wait_for(f"{body} is in WireGuard and the meter", effective, step=0.001)
            times.append((time.perf_counter() - begun) * 1000)

        for number in range(200):
            kind = ("edit", "disable", "enable", "edit")[number % 4]
            if kind == "edit":
                seconds = 21 + number % 97
                timed({"keepalive": seconds},
                      lambda: wireguard.peers().get(key, {}).get("persistent_keepalive_interval") == str(seconds))
            elif kind == "disable":
                timed({"enabled": False}, lambda: key not in wireguard.peers() and not prefixes.holds(address))
                # The last one that was let in may still be on its way to the instance.
                before, on_its_way = arrived(), arrived()
                for _ in range(10):
                    if before == on_its_way:
                        break
                    before, on_its_way = on_its_way, arrived()
                time.sleep(0.03)
                passed_while_off += arrived() - before
            else:
                timed({"enabled": True}, lambda: key in wireguard.peers() and prefixes.holds(address))
                enabled = time.time()
                wait_for("the enabled peer is back", lambda: disturbed.replies and disturbed.replies[-1] > enabled, step=0.002)
                returns.append(disturbed.replies[-1] - enabled)
            self.progress.update(f"change {number + 1} of 200: {times[-1]:.1f} ms")
        disturbed.stop()
        sent, lost = bystander.stop()
        times.sort()
        p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100 - 1]
        self.result["peer_change_ms"] = {"p50": round(p50, 2), "p99": round(p99, 2)}
        self.result["undisturbed"] = {"sent": sent, "lost": lost}
        self.progress.note(f"change to kernel: p50 {p50:.1f} ms, p99 {p99:.1f} ms; back after enabling: "
                           f"at most {max(returns) * 1000:.0f} ms; bystander lost {lost} of {sent}")
        assert sent > 1000 and lost == 0, "no other peer loses one packet"
        assert passed_while_off == 0, "a disabled peer passes nothing"
        # Of WireGuard's own accord it would take 5 s each time. A machine that does other things as well may have its moments.
        assert sorted(returns)[-2] < 1, "an enabled peer is back within a second, but for a moment of the machine's own"
        # The goal is a p99 under 100 ms; here it is shown that no change waits for anything but processors.
        assert p99 < 1000, "every change is in the kernel within a second"

    @staticmethod
    def find_pin(agent, gateway):
        """The IPv4 attribution table among the gateway's pins, seen through the agent's mount namespace."""
        folder = Path(f"/proc/{agent}/root{RUNDIR}/gw/{gateway}/bpf")
        return next(path for path in folder.rglob("buckets4") if path.parent.name == "live")

    def arrivals_and_receipts(self):
        """Bytes let through by gw1: what reached the instances, and what reached the clients."""
        through = sum(self.instances[name].arrived() for name in ("i1a", "i1b"))
        clients = [*self.clients_of_l1.values(), self.victim]
        return through + sum(client.counters()[1] for client in clients)

    def used(self, name):
        return int(self.admin.get(f"/v1/gateways/{self.ids[name]}")["bandwidth"]["used_bytes"])

    def run_into_limit(self):
        self.progress.step("the allowance is run into with paced UDP: stopped in the kernel [M7, B4]")
        # What was lost on the way before, in a run that was not valid or to a peer while it was disabled, is counted.
        _, (used, admitted_before) = self.settled("gw1", lambda: (self.used("gw1"), self.arrivals_and_receipts()))
        assert used >= admitted_before, f"counted {used}, delivered {admitted_before}"
        assert used < ALLOWANCE_L1 - 5_000_000, "there is allowance left to run into"
        udp(self.c1, "10.1.0.10", total=ALLOWANCE_L1 - used + 4_000_000, size=1200, rate=8_000_000)

        def suspended():
            if self.gateway("gw1")["status"] == "suspended":
                return True
            # What a busy machine has lost on the way to the meter is sent again.
            udp(self.c1, "10.1.0.10", total=2_000_000, size=1200, rate=4_000_000)
            return False

        wait_for("suspended", suspended, timeout=180, step=0.05)
        _, (counted, admitted) = self.settled("gw1", lambda: (self.used("gw1"), self.arrivals_and_receipts()),
                                              lambda _, read: read[0] - used == read[1] - admitted_before)
        assert counted - used == admitted - admitted_before, f"counted {counted - used}, admitted {admitted - admitted_before}"
        assert counted <= ALLOWANCE_L1
        # By the instances' and the clients' own counts, on top of what was counted before.
        admitted_bytes = used + admitted - admitted_before
        self.result["suspend"] = {"limit_bytes": ALLOWANCE_L1, "admitted_bytes": admitted_bytes}
        self.progress.note(f"admitted {admitted_bytes:,} of {ALLOWANCE_L1:,} bytes; {ALLOWANCE_L1 - admitted_bytes:,} unused")
        assert admitted_bytes <= ALLOWANCE_L1, "not one byte beyond the limit"
        assert ALLOWANCE_L1 - admitted_bytes < max(1_000_000, ALLOWANCE_L1 // 1000), "the limit is used up"
        for client, address in ((self.c1, "10.1.0.10"), (self.c2, "fd00:1::11")):
            assert " 0 received" in client.run("ping", "-n", "-c", "3", "-i", "0.1", "-W", "1", address, check=False)
        assert self.arrivals_and_receipts() == admitted, "suspended: nothing passes in either direction"

    def extra(self):
        self.progress.step("the operator grants extra GB: active again, nothing done on any client")
        ping = Pinger(self.c1, "10.1.0.10", "0.01")
        time.sleep(0.3)
        assert not ping.replies
        self.admin.post(f"/v1/gateways/{self.ids['gw1']}/extra", {"gb": "0.05"})
        granted = time.time()
        wait_for("the first packet through", lambda: ping.replies, step=0.005)
        self.result["resume_ms"] = round((ping.replies[0] - granted) * 1000, 1)
        ping.stop()
        self.progress.note(f"first packet through {self.result['resume_ms']} ms after the grant")
        assert self.result["resume_ms"] < 1000
        wait_for("active again", lambda: self.gateway("gw1")["status"] == "active", step=0.1)

    def overage(self):
        self.progress.step("a gateway in L2 passes 0.02 GB of 0.01 included: overage [B2]")
        self.deploy("prod2", "gw2")
        self.add_peer("gw2", self.c3)
        wait_for("the tablet reaches its instance", lambda: "1 received" in self.c3.run(
            "ping", "-n", "-c", "1", "-W", "1", "10.2.0.10", check=False))
        self.equal_growth("gw2", {"tablet": self.c3},
                          lambda rate: tcp(self.c3, "10.2.0.10", upload=10_000_000, download=10_000_000, rate=rate),
                          "metered = truth in L2")

    def kill_and_return(self):
        self.progress.step("agent, then API, killed with -9 under traffic [M5, M6]")
        victims = {"agent": lambda: process_of(RUNDIR / "gw" / self.ids["gw2"] / "agent.pid"), "API": self.api_pid}
        def under_traffic(rate):
            pid = pid_of()
            assert pid, f"the {name} runs"
            traffic = threading.Thread(target=tcp, args=(self.c3, "10.2.0.11"),
                                       kwargs={"upload": 2_000_000, "download": 2_000_000, "rate": rate // 3})
            traffic.start()
            time.sleep(0.7)
            os.kill(pid, signal.SIGKILL)
            wait_for(f"the {name} is back", lambda: pid_of() not in (None, pid))
            wait_for("the API answers", self.is_healthy, step=0.1)
            traffic.join()

        for name, pid_of in victims.items():
            self.equal_growth("gw2", {"tablet": self.c3}, under_traffic, f"metered = truth after the {name} was killed")
            self.progress.note(f"{name} killed and back: metered = truth still")

    def is_healthy(self):
        with contextlib.suppress(OSError, Refused, http.client.HTTPException):
            return self.admin.get("/v1/health")["status"] == "ok"
        return False

    @staticmethod
    def api_pid():
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if words[0].endswith(b"wiretoll-api") and b"serve" in words:
                    return int(entry.name)
        return None

    def delete_all(self):
        self.progress.step("both gateways deleted: last bytes billed, everything freed [G7]")
        # Before the last reports, what must stand on the invoice is computed from the client's own counters. Had a run
        # lost packets, they would be on the invoice, and in no counter of the client.
        lost = sum(self.at_rest("gw2")["tablet"]) - sum(self.c3.counters())
        assert lost == 0 or self.invalid_runs, f"the meter of gw2 is {lost} bytes off"
        overage = sum(self.c3.counters()) + lost - ALLOWANCE_L2
        self.expected_bandwidth = Fraction(overage) * Fraction(RATE) / GB
        assert self.expected_bandwidth > 0
        for name in ("gw1", "gw2"):
            self.cli("gateway", "delete", name, "--wait")
        assert "wt-" not in run("ip", "netns", "list"), "the gateways' namespaces are gone"
        assert not [name for name in os.listdir(RUNDIR / "gw")], "no pin or process file of a gateway stays"
        left = run("ip", "-o", "link", "show")
        assert left.count("master vpc1") == 2, f"only the instances' cables stay on the bridge: {left}"

    def bill(self):
        self.progress.step("usage report and ledger")
        def billed_in(ledger):
            return sum(Fraction(line["amount"]) for line in ledger if line["kind"] == "bandwidth")

        # A line may be on its way to the feed; where the clock's hour has turned meanwhile, bandwidth has one for each.
        with contextlib.suppress(AssertionError):
            wait_for("the feed is sealed", lambda: billed_in(self.ledger()) == self.expected_bandwidth, step=0.1)
        ledger = self.ledger()
        now = datetime.datetime.now(datetime.timezone.utc)
        report = json.loads(self.cli("report", "--cycle", f"{now.year}-{now.month:02d}", "--json"))
        print(self.cli("report", "--cycle", f"{now.year}-{now.month:02d}"))
        base = [line for line in ledger if line["kind"] == "base"]
        assert sorted(line["gateway"] for line in base) == sorted(self.ids.values()), "one hour line each [B1]"
        for line in base:
            assert Fraction(line["amount"]) == self.hour_price(line["hour"]), line
        billed = billed_in(ledger)
        assert billed == self.expected_bandwidth, f"billed {billed}, expected {self.expected_bandwidth} [B2]"
        totals = report["totals"]
        equal = (Fraction(totals["base_credits"]) == sum(Fraction(line["amount"]) for line in base) and
                 Fraction(totals["bandwidth_credits"]) == billed and
                 Fraction(totals["total_credits"]) == sum(Fraction(line["amount"]) for line in ledger) and
                 totals["hours"] == 2)
        self.result["report"] = {"hours": totals["hours"], "base_credits": totals["base_credits"],
                                 "bandwidth_credits": totals["bandwidth_credits"],
                                 "expected_bandwidth_credits": decimal(self.expected_bandwidth)}
        self.result["ledger_equals_report"] = equal
        assert equal, f"report {totals} and ledger {ledger} differ [B6]"

    def ledger(self):
        return [line for line in self.admin.items("/v1/ledger") if line["type"] == "ledger"]

    @staticmethod
    def hour_price(text):
        """floor18(V·k/H) − floor18(V·(k−1)/H), in exact arithmetic (B1)."""
        hour = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
        hours = 24 * calendar.monthrange(hour.year, hour.month)[1]
        k = (hour.day - 1) * 24 + hour.hour + 1

        def floor18(value):
            return Fraction(value.numerator * 10 ** 18 // value.denominator, 10 ** 18)

        value = Fraction(CREDIT_VALUE)
        return floor18(value * k / hours) - floor18(value * (k - 1) / hours)

    def stop_control_plane(self):
        self.up.send_signal(signal.SIGTERM)
        assert self.up.wait(60) == 0, "wiretoll up stops cleanly"
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):  # ended between the two looks
                assert not entry.name.isdigit() or b"postgres" not in (entry / "cmdline").read_bytes().split(b"\0")[0], entry

    def summary(self):
        result = self.result
        print()
        print(f"  {'peer':<10} {'kind':<14} {'upload':>14} {'truth':>14} {'download':>14} {'truth':>14}")
        for peer in result["peers"]:
            print(f"  {peer['name']:<10} {peer['kind']:<14} {peer['upload_bytes']:>14,} {peer['truth_upload_bytes']:>14,} "
                  f"{peer['download_bytes']:>14,} {peer['truth_download_bytes']:>14,}")
        suspend, report = result["suspend"], result["report"]
        rows = (("deployed to active", f"{result['deploy_ms']} ms"),
                ("unattributed bytes", result["unattributed_bytes"]),
                ("peer change, p50 / p99", f"{result['peer_change_ms']['p50']} / {result['peer_change_ms']['p99']} ms"),
                ("bystander's pings lost", f"{result['undisturbed']['lost']} of {result['undisturbed']['sent']}"),
                ("limit / admitted bytes", f"{suspend['limit_bytes']:,} / {suspend['admitted_bytes']:,}"),
                ("first packet after the grant", f"{result['resume_ms']} ms"),
                ("hours, base credits", f"{report['hours']}, {report['base_credits']}"),
                ("bandwidth credits", report["bandwidth_credits"]),
                ("  from the client's counters", report["expected_bandwidth_credits"]),
                ("ledger equals report", result["ledger_equals_report"]))
        for name, value in rows:
            print(f"  {name:<30} {value}")

    def play(self):
        self.networks()
        self.start_control_plane()
        self.offer()
        self.build_l1()
        self.exact_counts()
        self.peer_changes()
        self.run_into_limit()
        self.extra()
        self.overage()
        self.kill_and_return()
        self.delete_all()
        self.bill()
        self.stop_control_plane()
        self.summary()


def counters(clients):
    return {name: client.counters() for name, client in clients.items()}


def decimal(value):
    """A Fraction whose denominator divides 10^18, as the shortest decimal."""
    scaled = value * 10 ** 18
    assert scaled.denominator == 1
    return f"{scaled.numerator // 10 ** 18}.{scaled.numerator % 10 ** 18:018d}".rstrip("0").rstrip(".")


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--bin", required=True)
    options.add_argument("--result", required=True)
    arguments = options.parse_args()
    result = Path(arguments.result).resolve()
    scenario = Scenario(arguments.bin)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with it ignored
    try:
        scenario.play()
    except KeyboardInterrupt:
        scenario.progress.clear()
        print("demo: interrupted; what it made goes with its namespaces", file=sys.stderr)
        return 130
    except (AssertionError, RuntimeError, OSError, subprocess.SubprocessError) as error:
        scenario.progress.clear()
        print(f"demo: FAILED: {error}", file=sys.stderr)
        if os.environ.get("WIRETOLL_DEMO_DEBUG"):
            raise
        for log in (STATE.parent / "up.log", *STATE.glob("gw/*/*.log")):
            if log.exists():
                print(f"---- last lines of {log}:", *log.read_text().splitlines()[-25:], sep="\n", file=sys.stderr)
        return 1
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(json.dumps(scenario.result, indent=2) + "\n")
    print(f"\ndemo: every assertion held in {time.monotonic() - scenario.progress.begun:.0f} s; {result} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
