# SPDX-License-Identifier: BSD-2-Clause
"""A gateway, two clients and an instance as network namespaces, and an API that only pretends.

The API here is the oracle of the agent's protocol: it keeps what it was told, checks each batch against what it
holds, and fails in the ways that tests ask for. It shares no code with the agent.
"""

import contextlib
import http.server
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import uuid
from pathlib import Path

from echo import echo

PLAIN_WIREGUARD = "/run/plain/wireguard-go"  # of tests/envelope.sh
BIN = Path(os.environ.get("WIRETOLL_BIN", Path(__file__).resolve().parents[2] / "build/bin")).resolve()
UID = 12345
API_ADDRESS, API_PORT = "198.51.100.1", 8443
GATEWAY = "6f1c2d3e-4b5a-4978-8697-a5b4c3d2e1f0"
RIGHTS = "+net_admin,+bpf,+perfmon"


def run(*command, check=True, timeout=60, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=timeout, **options)
    if check and done.returncode:
        raise RuntimeError(f"{command}: status {done.returncode}: {done.stderr}")
    return done.stdout


def wait_for(what, condition, timeout=60.0):
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s in vain: {what}")
        time.sleep(0.01)


def unmount(path):
    """Once nobody holds it: the kernel may let go of what a killed process had under way, as on its ring, a moment later."""
    wait_for(f"nobody holds {path}", lambda: subprocess.run(["umount", path], capture_output=True).returncode == 0)


def listens(path):
    """Whether somebody listens there. `wg` removes a WireGuard's socket on which nobody does yet."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def inside(namespace, *command):
    return ["nsenter", f"--net=/run/netns/{namespace}", *[str(c) for c in command]]


def unprivileged(*command):
    return ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--no-new-privs",
            f"--inh-caps={RIGHTS}", f"--ambient-caps={RIGHTS}", f"--bounding-set=-all,{RIGHTS}",
            *[str(c) for c in command]]


def crc32c_of_byte(crc):
    for _ in range(8):
        crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc


CRC32C = [crc32c_of_byte(byte) for byte in range(256)]


def crc32c(data, before=0):
    """Castagnoli, from its polynomial; goes on from that of what was before."""
    crc = before ^ 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC32C[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


class Api:
    """What the agent talks to. Counts are kept as the protocol says: totals by (epoch, slot, incarnation)."""

    def __init__(self, folder):
        self.lock = threading.Condition(threading.RLock())
        self.state = None
        self.gone = False
        self.grant = {"cycle": 202611, "grant_seq": 1, "ceiling": None, "mask": "both"}
        self.next_grant = None  # of the cycle after it, with "not_before"
        self.known_epochs = set()
        self.held = {}  # epoch: (seq, crc)
        self.checksums = {}  # (epoch, seq): crc
        self.conflicts = []
        self.implausible = set()  # epochs of which nothing more is taken
        self.totals = {}  # (epoch, slot, incarnation): (peer, record)
        self.batches = []  # as committed
        self.arrivals = []  # (seq, body), repeats too
        self.violations = []
        self.lose_replies = 0
        self.refuse = None  # (status, body) to answer reports with, once
        self.away = False  # no report is answered
        self.report_every = 1
        self.restored = 0
        self.talking = 0  # connections from which a report may still come
        self.headers = []  # (seq, Wiretoll-Kept-From, Wiretoll-Epoch-Over) of each report
        self.on_first_report = None
        self.generation = 0
        self.enrolments = []
        self.tokens = set()
        self._serve(folder)

    def _serve(self, folder):
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-subj", "/CN=wiretoll-api", "-addext", "subjectAltName=DNS:wiretoll-api",
            "-keyout", folder / "api.key", "-out", folder / "api.pem")
        self.ca_pem = (folder / "api.pem").read_text()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "api.pem", folder / "api.key")
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 65536  # an answer in one write: two would wait for a delayed acknowledgement

            def log_message(self, *_):
                pass

            def handle(self):
                with api.lock:
                    api.talking += 1
                try:
                    super().handle()
                finally:
                    with api.lock:
                        api.talking -= 1

            def answer(self, status, body=None):
                data = json.dumps(body).encode() if body is not None else b""
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def authorized(self):
                token = self.headers.get("Authorization", "").removeprefix("Bearer ")
                if token in api.tokens and self.headers.get("Wiretoll-Protocol") == "1":
                    return True
                self.answer(401, {})
                return False

            def do_GET(self):
                if self.path == "/v1/agent/held" and self.authorized():
                    self.answer(200, api.what_is_held())
                elif self.path != "/v1/agent/held" and self.authorized():
                    self.answer(*api.poll(int(self.path.partition("have=")[2])))

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v1/agent/enroll":
                    self.answer(*api.enroll(json.loads(body)))
                elif self.authorized():
                    answer = api.report(body, self.headers)
                    if answer is None:
                        self.close_connection = True
                    else:
                        self.answer(*answer)

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, *_):
                pass  # an agent that is killed leaves broken connections

            def process_request(self, request, client_address):
                self.connections.append(request)
                super().process_request(request, client_address)

        def listen():
            self.server = Server((API_ADDRESS, API_PORT), Handler)
            self.server.connections = []
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
            threading.Thread(target=self.server.serve_forever, daemon=True).start()

        self.listen = listen
        listen()

    def close(self):
        """Refuses connections, and ends those that are open; listen() serves again."""
        self.server.shutdown()
        self.server.server_close()
        for connection in self.server.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def enroll(self, body):
        with self.lock:
            self.enrolments.append(body)
            if body["one_time_token"] != "once":
                return 403, {}
            self.generation += 1
            token = f"token-{self.generation}-{uuid.uuid4()}"
            self.tokens.add(token)
            return 201, {"token": token, "generation": self.generation, "report_every": self.report_every}

    def poll(self, have):
        with self.lock:
            self.talking -= 1
            self.lock.wait_for(lambda: self.state and self.state["revision"] != have, timeout=20)
            self.talking += 1
            if not self.state or self.state["revision"] == have:
                return 204, None
            if self.gone:
                return 200, {"revision": self.state["revision"], "gone": True}
            known = self.batches and self.batches[-1]["epoch"]["id"] in self.known_epochs
            return 200, {**self.state, "gateway": GATEWAY, "grants": [self.grant] if known else [],
                         "next_grant": self.next_grant if known else None}

    def set_state(self, **changes):
        """Changes the desired state and raises its revision, which is returned."""
        with self.lock:
            revision = (self.state or {"revision": 0})["revision"] + 1
            self.state = {**(self.state or {}), **changes, "revision": revision}
            self.lock.notify_all()
            return revision

    def delete(self):
        self.gone = True
        return self.set_state()

    def what_is_held(self):
        with self.lock:
            return {"restored": self.restored,
                    "epochs": [{"id": epoch, "held_seq": seq, "held_crc": crc} for epoch, (seq, crc) in self.held.items()]}

    def report(self, body, headers):
        with self.lock:
            if self.away:
                return 503, {}
            checksum, kept_from = headers["Wiretoll-Batch-CRC32C"], int(headers.get("Wiretoll-Kept-From", 0))
            batch = json.loads(body)
            epoch, seq = batch["epoch"]["id"], batch["seq"]
            self.headers.append((seq, kept_from, headers.get("Wiretoll-Epoch-Over")))
            self.arrivals.append((epoch, seq, body))
            if self.on_first_report and not self.batches:
                self.on_first_report(batch)
            if self.refuse:
                answer, self.refuse = self.refuse, None
                return answer
            crc = crc32c(body)
            if str(crc) != checksum:
                self.violations.append(f"checksum of {seq}")
            held_seq, held_crc = self.held.get(epoch, (0, None))
            by = int(headers["Authorization"].removeprefix("Bearer token-").partition("-")[0])
            if by != self.generation or batch["generation"] > by:
                return 409, {"held_seq": held_seq, "held_crc": held_crc, "reason": "fenced"}
            if epoch in self.implausible:
                self.conflicts.append(("implausible", batch["generation"]))
                return 409, {"held_seq": held_seq, "held_crc": held_crc, "reason": "implausible", "restored": self.restored}
            if seq == held_seq + 1 or seq == kept_from > held_seq:
                self._commit(batch, epoch, seq, crc)
            elif self.checksums.get((epoch, seq)) != crc:
                reason = "gap" if seq > held_seq else "rolled_back"
                self.conflicts.append((reason, batch["generation"]))
                return 409, {"held_seq": held_seq, "held_crc": held_crc, "reason": reason, "restored": self.restored}
            self.lock.notify_all()
            if self.lose_replies:
                self.lose_replies -= 1
                return None
            return 200, {"held_seq": self.held[epoch][0], "watch_until": None, "restored": self.restored,
                         "revision": self.state["revision"] if self.state else 0}

    def _commit(self, batch, epoch, seq, crc):
        previous = [b for b in self.batches if b["epoch"]["id"] == epoch]
        last = previous[-1] if previous else batch
        # Parts of one sample cover the same time; of parts that a crash cut off, the next batch covers it anew.
        begins = last["covered_from"] if last.get("more") else last["covered_to"]
        if previous and begins != batch["covered_from"] and last["seq"] == seq - 1:
            self.violations.append(f"hole before {seq}: {begins} to {batch['covered_from']}")
        for record in batch["records"]:
            key = (epoch, record["slot"], record["incarnation"])
            before = self.totals.get(key, (None, None))[1]
            for field in ("upload_bytes", "download_bytes", "upload_packets", "download_packets", "undelivered_bytes"):
                if before and int(record[field]) < int(before[field]):
                    self.violations.append(f"{field} of slot {record['slot']} fell")
            self.totals[key] = (record["peer"], record)
        self.held[epoch] = (seq, crc)
        self.checksums[epoch, seq] = crc
        self.known_epochs.add(epoch)
        self.batches.append(batch)

    def counted(self, peer):
        """(upload, download) bytes of a peer over all epochs."""
        with self.lock:
            records = [record for owner, record in self.totals.values() if owner == peer]
            return sum(int(r["upload_bytes"]) for r in records), sum(int(r["download_bytes"]) for r in records)

    def wait_applied(self, revision, timeout=60):
        wait_for(f"revision {revision} is applied",
                 lambda: self.batches and self.batches[-1]["applied_revision"] >= revision, timeout)

    def last_epoch(self):
        return self.batches[-1]["epoch"]["id"]

    def forget(self, epoch, behind):
        """As a database does that is restored to an earlier point. Call with the lock held."""
        self.batches = [b for b in self.batches if b["epoch"]["id"] != epoch or b["seq"] <= behind]
        self.held[epoch] = (behind, self.checksums[epoch, behind])
        self.checksums = {key: crc for key, crc in self.checksums.items() if key[0] != epoch or key[1] <= behind}
        self.totals = {}
        for batch in self.batches:
            for record in batch["records"]:
                key = (batch["epoch"]["id"], record["slot"], record["incarnation"])
                self.totals[key] = (record["peer"], record)

    def last(self):
        with self.lock:
            return self.batches[-1]


class Client:
    """A road warrior: a namespace with wireguard-go, never touched by Wiretoll, whose device counts each packet."""

    def __init__(self, number):
        self.namespace = f"c{number}"
        self.device = f"wgc{number}"
        self.address = f"10.99.0.{number + 1}"
        self.id = str(uuid.UUID(int=0xABC0 + number))
        self.private_key = run("wg", "genkey").strip()
        self.public_key = run("wg", "pubkey", input=self.private_key).strip()

    def peer(self, **changes):
        return {"id": self.id, "public_key": self.public_key, "preshared_key": None, "endpoint": None, "keepalive": 0,
                "allowed_ips": [f"{self.address}/32"], "enabled": True, **changes}

    def connect(self, gateway_key):
        # Multicast of the client's own would be counted there and dropped by its WireGuard.
        run(*inside(self.namespace, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"/run/wireguard/{self.device}.sock")
        self.process = subprocess.Popen(inside(self.namespace, PLAIN_WIREGUARD, "--foreground", self.device),
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for("the client's device", lambda: listens(f"/run/wireguard/{self.device}.sock"))
        with tempfile.NamedTemporaryFile("w") as key:
            key.write(self.private_key)
            key.flush()
            run(*inside(self.namespace, "wg", "set", self.device, "private-key", key.name))
        self.set_peer(gateway_key)
        run(*inside(self.namespace, "ip", "addr", "add", f"{self.address}/32", "dev", self.device))
        run(*inside(self.namespace, "ip", "link", "set", self.device, "mtu", 1420, "up"))
        run(*inside(self.namespace, "ip", "route", "add", "10.0.0.0/8", "dev", self.device))

    def set_peer(self, gateway_key):
        """Begins a session afresh, as a client does that is switched off and on."""
        run(*inside(self.namespace, "wg", "set", self.device, "peer", gateway_key, "remove"))
        run(*inside(self.namespace, "wg", "set", self.device, "peer", gateway_key,
                    "endpoint", "198.51.100.10:51820", "allowed-ips", "10.0.0.0/8"))

    def counters(self):
        """(upload, download) bytes as the kernel counted them on the client's own device."""
        stats = json.loads(run(*inside(self.namespace, "ip", "-s", "-j", "link", "show", self.device)))[0]["stats64"]
        assert stats["tx"]["dropped"] == 0 and stats["rx"]["dropped"] == 0
        return stats["tx"]["bytes"], stats["rx"]["bytes"]

    def ping(self, **options):
        """Number of replies; for the last of them it waits, in seconds, only as long as one is missing."""
        return echo(self.namespace, "10.1.0.10", **options)


class Echoes:
    """Pings of a client for as long as this is entered; then, which of them came back and which did not."""

    UNDER_WAY = 10  # of the last ones, one may have been overtaken by another on its way

    def __init__(self, client, interval=0.004, size=56):
        self.command = inside(client.namespace, "ping", "-n", "-i", interval, "-s", size, "10.1.0.10")
        self.output = tempfile.TemporaryFile("w+")  # a pipe would fill, and ping wait for who reads it

    def __enter__(self):
        self.process = subprocess.Popen(["stdbuf", "-oL", *self.command], stdout=self.output)
        return self

    def answered(self):
        text = os.pread(self.output.fileno(), 1 << 30, 0).decode()
        return {int(line.split("icmp_seq=")[1].split()[0]) for line in text.splitlines()[:-1] if "bytes from" in line}

    def wait_more(self, count):
        """So many more answers than there are now."""
        enough = len(self.answered()) + count
        wait_for(f"{count} more answers", lambda: len(self.answered()) >= enough)

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.wait_more(self.UNDER_WAY)
        finally:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(timeout=60)
        self.seen = self.answered()
        self.lost = sorted(set(range(1, max(self.seen, default=0) + 1 - self.UNDER_WAY)) - self.seen)
        self.output.close()


class Gateway:
    """The namespace, wireguard-go and the agent, started as the deployment driver does, but for its mounts."""

    def __init__(self, folder, api):
        self.base, self.bpf = folder / "base", folder / "bpf"
        self.api = api
        self.log = folder / "agent.log"
        self.agent = self.wireguard = None
        self.program = "wireguard-go"
        for path in (self.base, self.bpf):
            path.mkdir(mode=0o700)
        run("mount", "-t", "bpf", "bpf", self.bpf)
        for path in (self.base, self.bpf):
            os.chown(path, UID, UID)
            path.chmod(0o700)
        self.write_bootstrap()

    def write_bootstrap(self, attempt=1):
        path = self.base / "bootstrap.json"
        path.write_text(json.dumps({"gateway": GATEWAY, "attempt": attempt, "interface": "wg0", "ca_pem": self.api.ca_pem,
                                    "api": [{"address": API_ADDRESS, "port": API_PORT}], "one_time_token": "once",
                                    "expires": "2099-01-01T00:00:00.000000Z"}))
        path.chmod(0o600)
        os.chown(path, UID, UID)

    def start_wireguard(self):
        self.wireguard = subprocess.Popen(inside("gw", *unprivileged(self.program, "--foreground", "wg0")),
                                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def start_agent(self, *arguments):
        with self.log.open("a") as log:
            self.agent = subprocess.Popen(
                inside("gw", *unprivileged(BIN / "wiretoll-agent", "--base", self.base, "--bpf", self.bpf, *arguments)),
                stderr=log)

    def kill_agent(self):
        """Returns when the API has taken all that the agent had sent: nothing of it comes behind what a test does next."""
        self.agent.send_signal(signal.SIGKILL)
        self.agent.wait()
        wait_for("the API has taken what was sent", lambda: self.api.talking == 0)

    def key(self):
        return self.api.enrolments[-1]["public_key"]

    def is_up(self):
        links = json.loads(run(*inside("gw", "ip", "-j", "link", "show", "wg0"), check=False) or "[{}]")
        return "UP" in links[0].get("flags", [])

    def peers(self):
        return run(*inside("gw", "wg", "show", "wg0", "peers"), check=False).split()

    def close(self):
        for process in (self.agent, self.wireguard):
            if process and process.poll() is None:
                process.kill()
                process.wait()
        unmount(self.bpf)


def make_namespaces(names):
    for name in names:
        run("ip", "netns", "add", name)
        for setting in ("net.ipv6.conf.default.addr_gen_mode=1", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1",
                        "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0"):
            run(*inside(name, "sysctl", "-qw", setting))
        run(*inside(name, "ip", "link", "set", "lo", "up"))


def plug(namespace, device, bridge, address):
    run("ip", "link", "add", f"{bridge}-{namespace}", "type", "veth", "peer", "name", device, "netns", namespace)
    run("ip", "link", "set", f"{bridge}-{namespace}", "master", bridge, "up")
    run(*inside(namespace, "ip", "addr", "add", address, "dev", device))
    run(*inside(namespace, "ip", "link", "set", device, "up"))


@contextlib.contextmanager
def laboratory():
    """Bridges `pub` and `vpc`; gateway `gw`, clients `c1` and `c2`, instance `inst`. Needs an envelope of namespaces."""
    folder = Path(tempfile.mkdtemp(prefix="wiretoll-agent-", dir="/run"))
    folder.chmod(0o755)
    names = ("gw", "c1", "c2", "inst")
    make_namespaces(names)
    for bridge in ("pub", "vpc"):
        run("ip", "link", "add", bridge, "type", "bridge")
        run("ip", "link", "set", bridge, "up")
    # Of its own, or it has its ports' lowest, which changes as they come and go: who knows the old one is unheard for seconds.
    run("ip", "link", "set", "pub", "address", "02:00:00:00:00:01")
    run("ip", "addr", "add", f"{API_ADDRESS}/24", "dev", "pub")
    plug("gw", "pub0", "pub", "198.51.100.10/24")
    plug("c1", "eth0", "pub", "198.51.100.21/24")
    plug("c2", "eth0", "pub", "198.51.100.22/24")
    plug("gw", "vpc0", "vpc", "10.1.0.2/24")
    plug("inst", "eth0", "vpc", "10.1.0.10/24")
    run(*inside("inst", "ip", "route", "add", "10.99.0.0/24", "via", "10.1.0.2"))
    os.makedirs("/run/wireguard", exist_ok=True)
    os.chown("/run/wireguard", UID, UID)
    os.chmod("/dev/net/tun", 0o666)
    api = Api(folder)
    gateway = Gateway(folder, api)
    clients = [Client(1), Client(2)]
    try:
        yield api, gateway, clients
        assert not api.violations, api.violations
        assert [c for c in api.conflicts if c[1] == 1] == []
    finally:
        gateway.close()
        for client in clients:
            if hasattr(client, "process"):
                client.process.kill()
                client.process.wait()
        api.close()
        for name in names:
            run("ip", "netns", "del", name)
        for bridge in ("pub", "vpc"):
            run("ip", "link", "del", bridge)
        log = gateway.log.read_text() if gateway.log.exists() else ""
        print(log)
        shutil.rmtree(folder)
    assert "AddressSanitizer" not in log and "runtime error" not in log

