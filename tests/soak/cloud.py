# SPDX-License-Identifier: BSD-2-Clause
"""A whole cloud on one host, to be broken: `wiretoll up` with two gateways, three clients and traffic that stops on demand.

The laboratory is the demo's. Agents reach the API through a proxy only. Truth is what the kernels of the clients and of
the gateways counted on their WireGuard devices.
"""

import contextlib
import http.client
import os
import random
import signal
import sys
import threading
import time
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/demo"))

from lab import PLAIN_WIREGUARD, Api, Refused, process_of, run, tcp, udp, wait_for  # noqa: E402
from scenario import ALLOWANCE_L1, PORT, RUNDIR, STATE, Scenario  # noqa: E402

from proxy import Proxy  # noqa: E402

BIN = Path(os.environ.get("WIRETOLL_BIN", ROOT / "build/bin"))
RATE = 400_000  # bytes a second: what two busy processors carry without losing a packet
PATIENCE = 180  # seconds that a busy machine may need to put all that was killed up again


class PatientApi(Api):
    """Asks a control plane that is being killed: again, until it answers for itself. What is asked must bear being done twice."""

    def call(self, *question, **options):
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return super().call(*question, **options)
            except (OSError, Refused, http.client.HTTPException, ValueError) as error:
                if getattr(error, "status", 503) != 503 or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


class Cloud(Scenario):
    api_type = PatientApi

    def __init__(self, seed):
        super().__init__(BIN)
        # The gateways' devices are a truth, too, and count packets.
        os.environ["PATH"] = f"{os.path.dirname(PLAIN_WIREGUARD)}:{os.environ['PATH']}"
        self.addresses = ("127.0.0.1",)
        self.random = random.Random(seed)
        self.proxy = None
        self.compared = 0
        self.slowest = 0.0

    # ---- putting it up -----------------------------------------------------------------------------------------

    def build(self, seed):
        self.networks()
        self.start_control_plane()
        self.proxy = Proxy("198.51.100.1", PORT, ("127.0.0.1", PORT), STATE / "api/server.pem", seed)
        self.offer()
        self.deploy("prod1", "gw1")
        self.add_peer("gw1", self.c1)
        self.add_peer("gw1", self.c2)
        self.deploy("prod2", "gw2")
        self.add_peer("gw2", self.c3)
        self.clients = {"gw1": {"laptop": self.c1, "phone": self.c2}, "gw2": {"tablet": self.c3}}
        self.routes = [(self.c1, "10.1.0.10"), (self.c2, "fd00:1::11"), (self.c3, "10.2.0.10")]
        for client, address in self.routes:
            wait_for(f"{client.name} reaches {address}",
                     lambda: "1 received" in client.run("ping", "-n", "-c", "1", "-W", "1", address, check=False))

    def close(self):
        if self.proxy:
            self.proxy.close()
        if self.up:
            self.up.send_signal(signal.SIGTERM)
            with contextlib.suppress(Exception):
                self.up.wait(20)

    def logs(self):
        return "\n".join(f"---- {log}\n{log.read_text()[-6000:]}" for log in (STATE.parent / "up.log", *STATE.glob("*.log"), *STATE.glob("gw/*/*.log"))
                         if log.exists())

    # ---- what is recorded ----------------------------------------------------------------------------------------

    def watch(self, name):
        """Somebody looks: the agent reports every second."""
        return self.admin.get(f"/v1/gateways/{self.ids[name]}/usage?interval=total&by=peer")

    def as_told(self, name):
        """A gateway as the API tells it."""
        return self.admin.get(f"/v1/gateways/{self.ids[name]}")

    def recorded(self, name):
        """{peer: (upload, download)}, None for what belongs to nobody."""
        names = {peer["id"]: peer["name"] for peer in self.admin.items(f"/v1/gateways/{self.ids[name]}/peers")}
        items = self.admin.items(f"/v1/gateways/{self.ids[name]}/usage?interval=total&by=peer")
        return {names.get(item["peer"]): (int(item["upload_bytes"]), int(item["download_bytes"])) for item in items}

    def complete_through(self, name):
        as_of = self.as_told(name)["bandwidth"]["as_of"]
        return as_of and datetime.fromisoformat(as_of.replace("Z", "+00:00"))

    # ---- the truth, and what it is compared with -------------------------------------------------------------------

    def truth(self, name):
        return {peer: client.counters() for peer, client in self.clients[name].items()}

    def device(self, name):
        """What the gateway's own WireGuard device counted, all peers together: (upload, download)."""
        stats = self.link_of(name)
        return stats["rx"]["bytes"], stats["tx"]["bytes"]

    def wait_quiet(self):
        """Until nothing moves any more on any device."""
        def reading():
            return [self.truth(name) for name in self.clients], [self.device(name) for name in self.clients]

        before = reading()
        while True:
            time.sleep(0.15)
            after = reading()
            if after == before:
                return
            before = after

    def check_equal(self, what):
        """At rest, all that is recorded is all that passed: of each peer as his own device says, and in total."""
        self.wait_quiet()
        begun = time.monotonic()
        for name in self.clients:
            self.watch(name)
        for name, clients in self.clients.items():
            recorded, truth = self.check_device(name, what)
            self.slowest = max(self.slowest, time.monotonic() - begun)
            if not self.losses():
                assert {peer: recorded[peer] for peer in clients} == truth, f"{what}: {name}: recorded {recorded}, truth {truth}"
        self.compared += 1

    def recorded_at_rest(self, name, what):
        """What is recorded of a gateway, what its device and what its clients counted, all of one moment."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self.wait_quiet()
            device, truth, quiet = self.device(name), self.truth(name), datetime.now(timezone.utc)
            wait_for(f"{what}: {name} reports", lambda: (self.complete_through(name) or quiet) > quiet, PATIENCE, 0.1)
            recorded = self.recorded(name)
            # On a busy machine a connection's last packet may follow after a pause, and wait long between the gateway's
            # device and the client's: then it is looked at again.
            arrived = device == tuple(sum(counts[i] for counts in truth.values()) for i in (0, 1)) or self.losses()
            if (self.device(name), self.truth(name)) == (device, truth) and (arrived or time.monotonic() > deadline):
                return recorded, device, truth

    def check_device(self, name, what=""):
        """All that is recorded of a gateway, in total, is what its own device counted. Returns what is recorded, and the truth."""
        recorded, device, truth = self.recorded_at_rest(name, what)
        total = tuple(sum(counts[i] for counts in recorded.values()) for i in (0, 1))
        assert total == device, f"{what}: {name}: recorded {total}, its device {device}: {recorded}"
        return recorded, truth

    def check_not_beyond(self):
        """Under traffic: nothing is recorded that has not passed. A download is counted before the client has it: it may be on its
        way, or lost there."""
        for name in self.clients:
            recorded, truth = self.recorded(name), self.truth(name)
            for peer, true in truth.items():
                upload, download = recorded.get(peer, (0, 0))
                assert upload <= true[0], f"{name}: {peer}: {recorded} beyond {truth}"
                wait_for(f"{name}: {peer}: {recorded}, its client's device has {truth}",
                         lambda: download <= self.truth(name)[peer][1] or self.losses())

    def moved(self):
        return sum(sum(counts) for name in self.clients for counts in self.truth(name).values())

    # ---- killing -----------------------------------------------------------------------------------------------------

    def programs(self, program):
        """Pids by program; of PostgreSQL the postmaster first."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if program in (entry / "comm").read_text() and " Z " not in (entry / "stat").read_text():
                        parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                        found.append((parent != self.up.pid, int(entry.name)))
        return [pid for _, pid in sorted(found)]

    def victims(self):
        """Kind of victim: the processes to kill, none while it is down."""
        postgres = self.programs("postgres")
        table = {f"agent of {name}": [pid] for name, gateway in self.ids.items()
                 if (pid := process_of(RUNDIR / "gw" / gateway / "agent.pid"))}
        table["API"] = self.programs("wiretoll-api")
        table["worker"] = self.programs("wiretoll-deplo")
        table["PostgreSQL"] = postgres
        table["PostgreSQL's postmaster"] = postgres[:1]
        table["a backend"] = [self.random.choice(postgres[1:])] if len(postgres) > 1 else []
        return {kind: pids for kind, pids in table.items() if pids}

    def kill_one(self):
        """Kills something that lives, and says what."""
        victims = wait_for("something lives", self.victims)
        kind = self.random.choice(sorted(victims))
        for pid in victims[kind]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return kind

    def kill_agent(self):
        """Kills an agent that lives."""
        agents = {kind: pids for kind, pids in self.victims().items() if kind.startswith("agent")}
        if agents:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.random.choice(sorted(agents.values()))[0], signal.SIGKILL)

    @contextlib.contextmanager
    def without_database(self):
        """PostgreSQL is killed and cannot start: its folder is elsewhere."""
        data = next(path.parent for path in STATE.rglob("PG_VERSION") if (path.parent / "global").is_dir())
        elsewhere = data.with_name("elsewhere")
        data.rename(elsewhere)
        for pid in self.programs("postgres"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            yield
        finally:
            elsewhere.rename(data)

    def wait_alive(self):
        """Until all that was killed is back and answers."""
        wait_for("the control plane is back", lambda: self.admin.get("/v1/health")["status"] == "ok", PATIENCE)
        for name, gateway in self.ids.items():
            wait_for(f"the agent of {name} is back", lambda: process_of(RUNDIR / "gw" / gateway / "agent.pid"), PATIENCE)


class Traffic:
    """Real packets of several kinds between every client and his instance, until the block ends."""

    def __init__(self, cloud, seed):
        self.cloud, self.seed = cloud, seed
        self.stop = threading.Event()
        self.errors = []

    def __enter__(self):
        self.threads = [threading.Thread(target=self.run, args=(number, *route)) for number, route in enumerate(self.cloud.routes)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()
        assert not self.errors, self.errors

    def run(self, number, client, address):
        chance = random.Random(f"{self.seed}-{number}")
        try:
            while not self.stop.is_set():
                size = chance.randrange(10_000, 120_000)
                kind = chance.choice(("tcp", "udp", "ping"))
                if kind == "tcp":
                    tcp(client, address, upload=size, download=chance.randrange(10_000, 120_000), rate=RATE)
                elif kind == "udp":
                    udp(client, address, total=size, size=chance.randrange(60, 1300), rate=RATE // 2)
                else:
                    client.run("ping", "-n", "-q", "-i", "0.02", "-c", "15", "-s", chance.randrange(0, 1300), address, check=False)
        except Exception as error:  # a thread's would be lost
            self.errors.append(f"{client.name}: {error}")
