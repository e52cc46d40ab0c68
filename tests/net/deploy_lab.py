# SPDX-License-Identifier: BSD-2-Clause
"""A private PostgreSQL with the product's schema, an operator's inventory in it, and the worker under test.

Everything is read back from the kernel, from /proc or from the tables, never from the worker's own words.
"""

import contextlib
import glob
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psycopg2

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("WIRETOLL_BIN", ROOT / "build/bin")).resolve()
PATIENCE = 180  # seconds for what ends by itself: a busy machine takes long, an idle one waits for none of them
PG_BIN = Path(sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda p: int(p.split("/")[4]))[-1])

AGENT = """#!/bin/sh
# Stands in for the agent: shows what rights it has, ends when told.
base=$2 bpf=$4
grep -E '^(Cap|Uid|NoNewPrivs|Groups)' /proc/self/status > "$base/status"
{ echo "session $(ps -o sid= -p $$)"; echo "pid $$"; readlink /proc/self/cwd /proc/self/fd/0; } > "$base/place"
ls -ld "$bpf" /run/wireguard /dev/net/tun > "$base/furniture"
grep -E ' (nsfs|bpf) ' /proc/self/mountinfo > "$base/pins"
echo started >> "$base/starts"
trap 'echo term >> "$base/said"; exit 0' TERM
while [ ! -e "$base/gone" ]; do sleep 0.05; done
echo gone >> "$base/said"
exit 0
"""


def run(*command, check=True, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=PATIENCE, **options)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def wait_for(what, condition, timeout=60.0, step=0.02):
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s in vain: {what}")
        time.sleep(step)


def processes():
    """pid → command line, of all that live in this process namespace; zombies are shown as such, but for those of process 1,
    which has yet to collect what became its own."""
    table = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                line = b" ".join(words).decode().strip() or f"[{(entry / 'comm').read_text().strip()}]"
                if not line.startswith("[") or parent(int(entry.name)) not in (None, 1):
                    table[int(entry.name)] = line
    return table


def parent(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return None


class Snapshot:
    """What a host has that a gateway could leave behind."""

    def __init__(self):
        self.netns = sorted(p.name for p in Path("/run/netns").iterdir())
        self.links = sorted(link["ifname"] for link in json.loads(run("ip", "-j", "link")))
        self.mounts = sorted(line.split(" ", 4)[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
        self.pins = sorted(str(p) for p in Path("/sys/fs/bpf").rglob("*"))
        self.routes = sorted(line.replace(" linkdown", "") for line in run("ip", "route", "show", "table", "all").splitlines())
        table = processes()
        # But for a child that is about to become another program, or to end.
        parents = {pid: parent(pid) for pid, line in table.items() if re.search("gateway|agent|wireguard", line)}
        self.processes = sorted(table[pid] for pid, its in parents.items() if its is not None and table.get(its) != table[pid])

    def __eq__(self, other):
        return vars(self) == vars(other)

    def __repr__(self):
        return json.dumps(vars(self), indent=1)


class Database:
    def __init__(self, folder):
        self.folder = Path(folder)
        postgres = pwd.getpwnam("postgres")
        self.folder.mkdir(mode=0o755)
        os.chown(self.folder, postgres.pw_uid, postgres.pw_gid)
        self.as_postgres("initdb", "-D", self.folder / "data", "-U", "owner", "-A", "trust", "--no-sync")
        self.start()
        run(PG_BIN / "createdb", "-h", self.folder, "-U", "owner", "wiretoll")
        with self.connect() as connection:
            cursor = connection.cursor()
            cursor.execute("CREATE ROLE wiretoll_api LOGIN; CREATE ROLE wiretoll_deploy LOGIN")
            for migration in sorted((ROOT / "api/store/migrations").glob("*.sql")):
                cursor.execute(migration.read_text())
        self.file = self.folder / "deploy.conn"
        self.file.write_text(self.connection_string("wiretoll_deploy") + "\n")

    def as_postgres(self, program, *arguments):
        run("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", PG_BIN / program, *arguments,
            cwd="/")

    def start(self):
        self.as_postgres("pg_ctl", "-D", self.folder / "data", "-w", "-l", self.folder / "log", "-o",
                         f"-k {self.folder} -c listen_addresses='' -c fsync=off", "start")

    def stop(self, mode="fast"):
        self.as_postgres("pg_ctl", "-D", self.folder / "data", "-m", mode, "stop")

    def connection_string(self, role):
        return f"host={self.folder} dbname=wiretoll user={role}"

    def connect(self, role="owner"):
        connection = psycopg2.connect(self.connection_string(role))
        connection.autocommit = True
        return connection

    def query(self, sql, *values, role="owner"):
        connection = self.connect(role)
        try:
            cursor = connection.cursor()
            cursor.execute(sql, values)
            return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def value(self, sql, *values, role="owner"):
        rows = self.query(sql, *values, role=role)
        return rows[0][0] if rows else None


class Inventory:
    """A location with a hypervisor, a plan and one user, and VPCs as they are needed."""

    def __init__(self, database, hypervisor="here", cpu=100):
        self.db = database
        tag = uuid.uuid4().hex[:8]
        self.plan = database.value("INSERT INTO gateway.plan (name, cpu, ram_mb, storage_gb, included_gb) "
                                   "VALUES (%s, 1, 512, 4, 10) RETURNING id", f"plan-{tag}")
        self.location = database.value("INSERT INTO gateway.location (name) VALUES (%s) RETURNING id", f"location-{tag}")
        database.query("INSERT INTO gateway.rate_version (location, from_hour, credit_value, bandwidth_rate, accounting, overage) "
                       "VALUES (%s, date_trunc('hour', now(), 'UTC'), 5, 0.1, 'both', 'none')", self.location)
        self.hypervisor = database.value(
            "INSERT INTO gateway.hypervisor (name, location, driver, cpu, ram_mb, storage_gb) "
            "VALUES (%s, %s, 'netns', %s, 65536, 1000) RETURNING id", hypervisor, self.location, cpu)
        self.user = database.value("INSERT INTO gateway.app_user (name, role) VALUES (%s, 'user') RETURNING id", f"user-{tag}")
        database.query("INSERT INTO gateway.account (owner) VALUES (%s)", self.user)
        self.vpcs = 0

    def vpc(self, private="10.1.0.0/24", first="10.1.0.2", last="10.1.0.9", public_first="198.51.100.10",
            public_last="198.51.100.29", bridge="vpc1", route_netns=("i1",), private6=None):
        self.vpcs += 1
        vpc = self.db.value("INSERT INTO gateway.vpc (owner, location, name) VALUES (%s, %s, %s) RETURNING id", self.user,
                            self.location, f"vpc{self.vpcs}")
        subnets = {}
        wanted = [(False, private, first, last, bridge, list(route_netns)),
                  (True, "198.51.100.0/24", public_first, public_last, "public", [])]
        if private6:  # a second subnet on the same bridge; its range is the first addresses behind ::1
            prefix = private6.split("/")[0]
            wanted.append((False, private6, f"{prefix}2", f"{prefix}9", bridge, list(route_netns)))
        for public, cidr, a, b, on, netns in wanted:
            subnets[public] = self.db.value(
                "INSERT INTO gateway.subnet (owner, vpc, cidr, public, range_first, range_last, router) "
                "VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING id", self.user, vpc, cidr, public, a, b,
                "198.51.100.1" if public else None)
            self.db.query("INSERT INTO gateway.attachment (owner, subnet, hypervisor, bridge, route_netns) "
                          "VALUES (%s, %s, %s, %s, %s)", self.user, subnets[public], self.hypervisor, on, netns)
        return vpc, subnets[True]

    def gateway(self, name, deadline="5 minutes", **options):
        vpc, public = self.vpc(**options)
        gateway = self.db.value(
            "INSERT INTO gateway.gateway (owner, name, vpc, public_subnet, location, plan, tunnel_subnet, tunnel_subnet6) "
            "VALUES (%s, %s, %s, %s, %s, %s, '10.99.0.0/24', 'fd12::/64') RETURNING id",
            self.user, name, vpc, public, self.location, self.plan)
        self.db.query("UPDATE gateway.account SET gateways = gateways + 1 WHERE owner = %s", self.user)
        self.db.query("INSERT INTO gateway.job (gateway, owner, attempt, goal, deadline) "
                      "VALUES (%s, %s, 1, 'active', now() + %s::interval)", gateway, self.user, deadline)
        self.db.query("NOTIFY wiretoll_job")
        return gateway

    def retry(self, gateway):
        self.db.query("UPDATE gateway.gateway SET attempt = attempt + 1, status = 'deploying', error = NULL WHERE id = %s", gateway)
        self.db.query("UPDATE gateway.job SET attempt = attempt + 1, goal = 'active', finished = false, tries = 0, worker = NULL, "
                      "lease_until = NULL, not_before = now(), deadline = now() + interval '5 minutes' WHERE gateway = %s", gateway)
        self.db.query("NOTIFY wiretoll_job")

    def delete(self, gateway):
        self.db.query("UPDATE gateway.gateway SET status = 'deleting' WHERE id = %s", gateway)
        self.db.query("UPDATE gateway.job SET goal = 'absent', finished = false, not_before = now() WHERE gateway = %s", gateway)
        self.db.query("NOTIFY wiretoll_job")

    def job(self, gateway):
        row = self.db.query("SELECT finished, goal, step, worker, tries FROM gateway.job WHERE gateway = %s", gateway)
        return dict(zip(("finished", "goal", "step", "worker", "tries"), row[0])) if row else None

    def status(self, gateway):
        return self.db.query("SELECT status, error FROM gateway.gateway WHERE id = %s", gateway)[0]


class Worker:
    """wiretoll-deployd and what it has made."""

    def __init__(self, database, folder, hypervisors=("here",), agent=None):
        self.db = database
        self.folder = Path(folder)
        self.state, self.run_folder = self.folder / "state", self.folder / "run"
        self.folder.mkdir(mode=0o755, exist_ok=True)
        self.ca = self.folder / "ca.pem"
        self.ca.write_text("-----BEGIN CERTIFICATE-----\nstand-in\n-----END CERTIFICATE-----\n")
        self.agent = agent or self.folder / "wiretoll-agent"
        if agent is None:
            self.agent.write_text(AGENT)
            self.agent.chmod(0o755)
        self.hypervisors = hypervisors
        self.process = None

    def base_command(self):
        return [str(BIN / "wiretoll-deployd"), "--state", str(self.state), "--run", str(self.run_folder)]

    def start(self):
        names = [word for name in self.hypervisors for word in ("--hypervisor", name)]
        self.log = open(self.folder / "deployd.log", "a", encoding="utf-8")
        self.process = subprocess.Popen(
            self.base_command() + ["--database-file", str(self.db.file), *names, "--api-port", "8443", "--ca-file",
                                   str(self.ca), "--agent", str(self.agent), "--log-level", "debug"],
            stderr=self.log, stdout=self.log)
        return self

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        status = self.process.wait(PATIENCE)
        self.process = None
        self.log.close()
        return status

    def destroy_all(self):
        return subprocess.run(self.base_command() + ["--destroy-all"], timeout=PATIENCE, capture_output=True, text=True)

    def base(self, gateway):
        return self.state / "gw" / gateway

    def first_uid(self):
        return int((self.state / "first_uid").read_text())

    def log_of(self, gateway, program="agent"):
        return self.state / "log" / gateway / f"{program}.log"

    def run_of(self, gateway):
        return self.run_folder / "gw" / gateway

    def pid(self, gateway, program="agent"):
        """The program's pid by its pid file, if such a process runs."""
        try:
            pid = int((self.run_of(gateway) / f"{program}.pid").read_text().split()[0])
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (OSError, ValueError, IndexError):
            return None
        return pid if state not in "ZX" else None

    def netns(self, gateway, attempt=1):
        return f"wt-{gateway[:8]}-{attempt}"

    def wait_deployed(self, inventory, gateway):
        wait_for("the job is finished", lambda: inventory.job(gateway)["finished"])
        assert inventory.status(gateway)[1] is None, inventory.status(gateway)
        wait_for("the agent runs", lambda: self.pid(gateway) and (self.base(gateway) / "starts").exists())


def make_networks():
    """The public bridge with the host on it, one VPC's bridge, and an instance that needs routes."""
    for bridge in ("public", "vpc1"):
        run("ip", "link", "add", bridge, "type", "bridge")
        run("ip", "link", "set", bridge, "up")
    # Of its own, or it has its ports' lowest, which changes as they come and go: who knows the old one is unheard for seconds.
    run("ip", "link", "set", "public", "address", "02:00:00:00:00:01")
    run("ip", "addr", "add", "198.51.100.1/24", "dev", "public")
    run("ip", "netns", "add", "i1")
    run("ip", "link", "add", "i1", "type", "veth", "peer", "name", "eth0", "netns", "i1")
    run("ip", "link", "set", "i1", "master", "vpc1", "up")
    run("ip", "-n", "i1", "addr", "add", "10.1.0.100/24", "dev", "eth0")
    run("ip", "-n", "i1", "link", "set", "eth0", "up")


def routes_in(netns, address="10.1.0."):
    return {route["dst"] for route in json.loads(run("ip", "-n", netns, "-j", "route", "show"))
            if route.get("gateway", "").startswith(address)}
