# SPDX-License-Identifier: BSD-2-Clause
"""The shipped units under a real systemd: checked by its own tools, then booted, with real packets through what they run."""

import json
import os
import re
import signal
import stat
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent_lab import inside, laboratory, run, wait_for
from deploy_lab import Database
from systemd_lab import ROOT, Machine
from test_agent import STATE, wait_truth
from test_deploy_whole import Api

# systemd-analyze's exposure, 0 (none) to 10: what each unit may have at most. deployd makes mounts and namespaces for all.
EXPOSURE = {"wiretoll-agent.service": 2.0, "wiretoll-api.service": 1.5, "wiretoll-meter@.service": 2.5,
            "wiretoll-deployd.service": 6.0}
UNITS = sorted(path.name for path in (ROOT / "dist/systemd").iterdir())


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    prefix = tmp_path_factory.mktemp("prefix")
    run("make", "-s", "-C", ROOT, "install", f"PREFIX={prefix}", f"SYSCONFDIR={prefix}/etc")
    return prefix


def test_install_places_everything_below_its_prefix(tmp_path):
    run("make", "-s", "-C", ROOT, "install", f"DESTDIR={tmp_path}", "PREFIX=/usr")
    found = {str(path.relative_to(tmp_path)): path for path in tmp_path.rglob("*") if path.is_file()}
    assert {f"usr/lib/systemd/system/{unit}" for unit in UNITS} <= found.keys()
    assert {"usr/bin/wiretoll", "usr/bin/wiretoll-agent", "usr/bin/wiretoll-api", "usr/bin/wiretoll-deployd",
            "usr/lib/sysusers.d/wiretoll.conf", "usr/lib/tmpfiles.d/wiretoll.conf", "usr/lib/wiretoll/backoff",
            "usr/lib/wiretoll/gateway.conf"} <= found.keys()
    for name, path in found.items():
        assert name.startswith(("usr/", "etc/iproute2/rt_protos.d/")) and stat.S_IMODE(path.stat().st_mode) in (0o644, 0o755), name
        if "/systemd/" in name:
            text = path.read_text()
            assert not re.search(r"@[A-Z]+@|/usr/local", text), name
            programs = re.findall(r"^Exec\w+=\+?(/usr/(?:bin|lib)/\S*wiretoll\S*)", text, re.MULTILINE)
            assert programs or name.endswith(".mount")
            assert all((tmp_path / program.lstrip("/")).exists() for program in programs), programs


def test_systemd_finds_no_fault(installed):
    units = [str(installed / "lib/systemd/system" / unit) for unit in UNITS]
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "SYSTEMD_UNIT_PATH": f"{installed}/lib/systemd/system:"})
    assert done.returncode == 0 and done.stdout == "" and done.stderr == "", done.stderr


@pytest.mark.parametrize("unit", EXPOSURE)
def test_exposure_stays_below_its_threshold(installed, unit):
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager",
                           f"--threshold={int(EXPOSURE[unit] * 10)}", str(installed / "lib/systemd/system" / unit)],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout.splitlines()[-1]


def test_the_agents_own_filter_is_narrower_than_the_units():
    """Else the unit would take away what the agent counts on."""
    source = (ROOT / "userspace/base/syscalls.c").read_text()
    needed = set(re.findall(r'"(\w+)"', source[source.index("agent_needs[] ="):source.index("hostile[] =")]))
    assert len(needed) > 100
    groups = {}
    for line in run("systemd-analyze", "--no-pager", "syscall-filter").splitlines():
        if line.startswith("@"):
            groups[line.strip()] = current = set()
        elif line.strip() and not line.strip().startswith("#") and line.startswith(" "):
            current.add(line.strip())

    def calls(name):
        return set().union(*(calls(word) if word.startswith("@") else {word} for word in groups[name]))

    unit = (ROOT / "dist/systemd/wiretoll-agent.service").read_text()
    allowed = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", unit, re.MULTILINE):
        words = set().union(*(calls(word) if word.startswith("@") else {word} for word in line.lstrip("~").split()))
        allowed = allowed - words if line.startswith("~") else allowed | words
    assert needed - allowed == set()


# ---- booted -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def lab():
    with laboratory() as parts:
        yield parts


def boot(request, netns=None):
    machine = Machine(f"/run/machine-{len(os.listdir('/run'))}", netns)
    request.addfinalizer(machine.close)
    return machine


def give(machine, gateway, name):
    """The bootstrap file, as a deployment driver leaves it in a machine."""
    base = machine.path("/var/lib/wiretoll/agent")
    base.mkdir(parents=True, mode=0o700)
    (base / "bootstrap.json").write_text((gateway.base / "bootstrap.json").read_text())
    uid = machine.uid(name)
    for path in (base, base / "bootstrap.json"):
        os.chown(path, uid, uid)
    (base / "bootstrap.json").chmod(0o600)
    return uid


def start_wireguard(gateway, uid):
    os.chown("/run/wireguard", uid, uid)
    gateway.wireguard = subprocess.Popen(
        inside("gw", "setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=+net_admin",
               "--ambient-caps=+net_admin", "wireguard-go", "--foreground", "wg0"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_agent(machine):
    pid = machine.main_pid("wiretoll-agent")
    os.kill(pid, signal.SIGKILL)
    return pid


def runs_again(machine, killed):
    """Not what systemd says until it has noticed."""
    return machine.main_pid("wiretoll-agent") not in (None, killed) and machine.show("wiretoll-agent", "ActiveState") == "active"


class FolderInUse:
    """Waits for the lock that the agent has, before the next agent does, and then keeps it."""

    def __init__(self, folder):
        self.fd = os.open(folder, os.O_RDONLY)
        self.process = subprocess.Popen(["flock", str(self.fd)], pass_fds=[self.fd])
        pattern = re.compile(rf"-> FLOCK +ADVISORY +WRITE +{self.process.pid} ")
        wait_for("it is next", lambda: pattern.search(Path("/proc/locks").read_text()))

    def taken(self):
        assert self.process.wait(60) == 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.fd)
        self.process.kill()
        self.process.wait()


def test_the_agents_unit_runs_a_gateway(request, lab):
    api, gateway, clients = lab
    machine = boot(request, "gw")
    uid = give(machine, gateway, "wiretoll-agent")
    start_wireguard(gateway, uid)
    api.set_state(**STATE, peers=[client.peer() for client in clients])
    machine.systemctl("start", "wiretoll-agent")
    wait_for("the gateway is active", lambda: api.batches and api.batches[-1]["active_since"])

    pid = machine.main_pid("wiretoll-agent")
    status = Path(f"/proc/{pid}/status").read_text()
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(re.search(rf"{kind}:\s+(\w+)", status)[1], 16) == 1 << 12 | 1 << 38 | 1 << 39, kind
    assert re.search(rf"Uid:\s+{uid}\s+{uid}\s+{uid}", status) and re.search(r"NoNewPrivs:\s+1", status)
    assert int(re.search(r"Seccomp_filters:\s+(\d+)", status)[1]) >= 2, "systemd's and its own"
    # Its view of the file system: read-only but for its own folder and its pins.
    mounts = {line.split()[4]: line.split()[5].split(",") for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()}
    assert "ro" in mounts["/"] and "ro" in mounts["/usr"]
    assert "rw" in mounts["/run/wiretoll/agent"] and "noexec" in mounts["/run/wiretoll/agent"]
    pins = machine.path("/run/wiretoll/agent")
    assert (pins.stat().st_mode & 0o777, pins.stat().st_uid) == (0o700, uid)
    assert machine.run("cat", "/proc/sys/net/ipv4/ip_forward").strip() == "1"

    for client in clients:
        client.connect(gateway.key())
        assert client.ping(count=20, size=800) == 20
    wait_truth(api, clients)

    # Killed again and again: each time it is there after a longer pause, and counting never stops.
    pauses, least, before = [], 0.1, 0.0
    for _ in range(4):
        begun = time.monotonic()
        killed = kill_agent(machine)
        assert clients[0].ping(count=2) == 2
        wait_for("it runs again", lambda: runs_again(machine, killed))
        # A pause is twice the one before, but for a run of 10 s in between, on a machine as busy as that.
        least = least * 2 if before and time.monotonic() - before < 9 else 0.1
        pauses.append((least, time.monotonic() - begun))
        before = begun
    assert all(pause >= least for least, pause in pauses), pauses
    wait_truth(api, clients)
    assert len(api.known_epochs) == 1

    # Its own wish to begin anew, here as its folder is in use, is granted, however often.
    restarts = int(machine.show("wiretoll-agent", "NRestarts"))
    with FolderInUse(machine.path("/var/lib/wiretoll/agent")) as folder:
        killed = kill_agent(machine)
        folder.taken()
        wait_for("it has tried again", lambda: int(machine.show("wiretoll-agent", "NRestarts")) >= restarts + 2)
        assert "another agent is at work there" in machine.log("wiretoll-agent")
    wait_for("it runs again", lambda: runs_again(machine, killed))

    # Stopped and started: the pins are outside of it.
    machine.systemctl("stop", "wiretoll-agent")
    assert machine.show("wiretoll-agent", "ActiveState") == "inactive", "stopped, and not failed"
    assert clients[1].ping(count=5) == 5
    machine.systemctl("start", "wiretoll-agent")
    wait_truth(api, clients)
    assert len(api.known_epochs) == 1

    # The gateway's end is the service's: it is not started again.
    api.delete()
    wait_for("it has ended", lambda: machine.show("wiretoll-agent", "ActiveState") == "inactive")
    assert machine.show("wiretoll-agent", "Result") == "success"
    time.sleep(0.5)
    assert machine.show("wiretoll-agent", "ActiveState") == "inactive"


def test_the_meters_unit_counts_and_goes_on_counting(request, lab):
    """On a client's interface: any WireGuard will do."""
    api, gateway, clients = lab
    api.set_state(**STATE, peers=[client.peer() for client in clients])
    gateway.start_wireguard()
    gateway.start_agent()
    wait_for("the gateway is active", lambda: api.batches and api.batches[-1]["active_since"])
    client = clients[0]
    client.connect(gateway.key())
    machine = boot(request, client.namespace)
    before = client.counters()

    def counted():
        sample = json.loads(machine.run("wiretoll", "meter", "show", client.device, "--json"))
        peer = sample["peers"][0]
        assert sample["unattributed"]["upload_bytes"] == 0
        # Seen from this side of the tunnel, what it sends is the other's download.
        return peer["download_bytes"], peer["upload_bytes"]

    unit = f"wiretoll-meter@{client.device}"
    machine.systemctl("start", unit)
    wait_for("it has attached", lambda: machine.run("wiretoll", "meter", "show", client.device, "--json", check=False))
    counted()  # behind the one that attaches: by now it knows the peers' prefixes, too
    pid = machine.main_pid(unit)
    assert re.search(r"CapEff:\s+0*c000001000\n", Path(f"/proc/{pid}/status").read_text())
    assert client.ping(count=10, size=700) == 10

    def truth():
        now = client.counters()
        return now[0] - before[0], now[1] - before[1]

    wait_for("all is counted", lambda: counted() == truth())
    os.kill(pid, signal.SIGKILL)
    assert client.ping(count=10, size=700) == 10
    wait_for("it runs again", lambda: machine.show(unit, "ActiveState") == "active" and machine.main_pid(unit) not in (None, pid))
    machine.systemctl("stop", unit)
    assert client.ping(count=10, size=700) == 10
    wait_for("all is counted without a process", lambda: counted() == truth())


def prepare_control_plane(machine):
    """What docs/operate/README.md says: the schema, the connection strings, the API's secrets. Returns the admin's token."""
    database = Database(machine.shared / "db")
    database.query("DROP SCHEMA gateway, billing CASCADE")
    strings = {role: f"host=/run/host/db dbname=wiretoll user={role}" for role in ("owner", "wiretoll_api", "wiretoll_deploy")}
    for role, name in (("owner", "owner"), ("wiretoll_api", "api"), ("wiretoll_deploy", "deploy")):
        path = machine.path(f"/etc/wiretoll/{name}.conn")
        path.write_text(strings[role] + "\n")
        path.chmod(0o600)
    machine.run("systemd-tmpfiles", "--create")
    machine.run("wiretoll-api", "migrate", "--database-file", "/etc/wiretoll/owner.conn")
    machine.run("mkdir", "-p", "-m", "0700", "/var/lib/wiretoll/api")
    answer = json.loads(machine.run("wiretoll-api", "init", "--state", "/var/lib/wiretoll/api", "--database-file",
                                    "/etc/wiretoll/api.conn"))
    machine.run("install", "-m", "0644", "/var/lib/wiretoll/api/ca.pem", "/etc/wiretoll/ca.pem")
    return database, answer["admin_token"]


def make_bridges(machine):
    for bridge in ("public", "vpc1"):
        machine.run("ip", "link", "add", bridge, "type", "bridge")
        machine.run("ip", "link", "set", bridge, "up")
    # Of its own, or it has its ports' lowest, which changes as they come and go: who knows the old one is unheard for seconds.
    machine.run("ip", "link", "set", "public", "address", "02:00:00:00:00:01")
    machine.run("ip", "addr", "add", "198.51.100.1/24", "dev", "public")
    machine.run("ip", "netns", "add", "i1")


def test_the_control_planes_units_serve(request, tmp_path):
    machine = boot(request)
    database, admin_token = prepare_control_plane(machine)
    request.addfinalizer(lambda: database.stop("immediate"))
    make_bridges(machine)
    machine.systemctl("start", "wiretoll-api", "wiretoll-deployd")

    api, uid = machine.main_pid("wiretoll-api"), machine.uid("wiretoll")
    status = Path(f"/proc/{api}/status").read_text()
    assert re.search(rf"Uid:\s+{uid}\s+{uid}\s+{uid}", status) and re.search(r"Seccomp:\s+2", status)
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert re.search(rf"{kind}:\s+0+\n", status), kind
    limits = [int(re.search(r"Max open files +\d+ +(\d+) ", Path(f"/proc/{pid}/limits").read_text())[1]) for pid in (api, machine.pid)]
    assert limits[0] == min(65536, limits[1]), "systemd itself may be held lower here"
    environment = Path(f"/proc/{api}/environ").read_bytes() + Path(f"/proc/{api}/cmdline").read_bytes()
    assert b"dbname" not in environment
    for path in machine.path("/var/lib/wiretoll/api").iterdir():
        assert path.stat().st_uid == uid, "what root's init made is the service's"
    deployd = Path(f"/proc/{machine.main_pid('wiretoll-deployd')}/status").read_text()
    assert int(re.search(r"CapEff:\s+(\w+)", deployd)[1], 16).bit_count() == 14

    (tmp_path / "api").mkdir()
    (tmp_path / "api/ca.pem").write_text(machine.path("/etc/wiretoll/ca.pem").read_text())
    (tmp_path / "admin-token").write_text(admin_token)
    client = Api(SimpleNamespace(state=tmp_path))
    gateway = client.order_gateway()
    wait_for("the gateway is active", lambda: client.status(gateway) == "active")

    def programs():
        return {name: int(machine.path(f"/run/wiretoll/gw/{gateway}/{name}.pid").read_text().split()[0]) for name in ("agent", "wireguard")}

    before = programs()
    machine.systemctl("restart", "wiretoll-deployd", "wiretoll-api")
    wait_for("adoption", lambda: machine.log("wiretoll-deployd").count("adopted") == 2)
    assert programs() == before and client.status(gateway) == "active"
    client.call("DELETE", f"/v1/gateways/{gateway}")
    wait_for("it is gone", lambda: not machine.path(f"/var/lib/wiretoll/gw/{gateway}").exists())
    for unit in ("wiretoll-deployd", "wiretoll-api"):
        machine.systemctl("stop", unit)
        assert machine.show(unit, "Result") == "success", machine.log(unit)
