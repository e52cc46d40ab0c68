# SPDX-License-Identifier: BSD-2-Clause
"""`wiretoll up --sample`: live traffic that is metered, logins that work, and nothing left of it afterwards."""

import json
import os
import re
import signal
import ssl
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from deploy_lab import BIN, PATIENCE, Snapshot, processes, run, wait_for

PORT = 8443
LAST_LINE = "Ctrl-C stops"


class Sample:
    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(mode=0o755)
        self.state, self.run_folder, self.out = self.folder / "state", self.folder / "run", self.folder / "out"
        self.out.write_text("")
        self.process = None

    def command(self, *more):
        return [str(BIN / "wiretoll"), "up", "--sample", "--state", str(self.state), "--run", str(self.run_folder), *more]

    def launch(self, command=None):
        self.out.write_text("")
        with open(self.out, "a", encoding="utf-8") as out:
            self.process = subprocess.Popen(command or self.command(), stdout=out, stderr=out, start_new_session=True)
        return self

    def reach(self, words):
        wait_for(words, lambda: words in self.text() or self.process.poll() is not None, timeout=PATIENCE)
        assert self.process.poll() is None, self.text()
        return self

    def start(self, command=None):
        return self.launch(command).reach(LAST_LINE)

    def stop(self, number=signal.SIGINT):
        self.process.send_signal(number)
        status = self.process.wait(PATIENCE)
        self.process = None
        return status

    def text(self):
        return self.out.read_text()

    def token(self, user):
        return re.search(rf'"{user}".*:\n\s+(\S+)\n', self.text())[1]

    def sign_in(self, user):
        """Pastes the printed command and the printed token."""
        command = re.search(r"^ +wiretoll (login .*)$", self.text(), re.M)[1].split()
        environment = dict(os.environ, WIRETOLL_CONFIG=str(self.folder / f"{user}.json"))
        done = subprocess.run([BIN / "wiretoll", *command], input=self.token(user), env=environment, text=True,
                              capture_output=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        return json.loads((self.folder / f"{user}.json").read_text())["token"]

    def get(self, token, path):
        context = ssl.create_default_context(cafile=str(self.state / "api/ca.pem"))
        request = urllib.request.Request(f"https://127.0.0.1:{PORT}/v1{path}", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, context=context, timeout=PATIENCE) as answer:
            return json.load(answer)

    def counters(self, token):
        """Of the one peer; asking for the usage makes the agent report each second."""
        self.get(token, "/gateways/sample/usage")
        (peer,) = self.get(token, "/gateways/sample/peers")["items"]
        assert peer["name"] == "laptop"
        return int(peer["upload_bytes"]), int(peer["download_bytes"])

    def wait_tunnel(self):
        """The server's answers arrive in the laptop through the tunnel, as WireGuard itself counts them."""
        def received():
            return int(run("ip", "netns", "exec", "wtsample-laptop", "wg", "show", "wtsample-wg", "transfer").split()[1])

        before = received()
        wait_for("answers arrive", lambda: received() > before + 5000)

    def wait_growth(self, token):
        """Both directions, twice, so that it is not the rest of an earlier run."""
        for _ in range(2):
            before = self.counters(token)
            wait_for("the meter moves", lambda: all(a > b for a, b in zip(self.counters(token), before)), step=0.2)


def remnants():
    return [line for line in processes().values()
            if re.search(r"postgres|wiretoll|wireguard", line) and "pytest" not in line]


def owner_of(pid):
    """The user that a process runs as, None once it has ended."""
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return None


def laptop_device():
    """(sent, received) bytes, as the laptop's kernel counted them on its own tunnel device."""
    stats = json.loads(run("ip", "netns", "exec", "wtsample-laptop", "ip", "-s", "-j", "link", "show", "wtsample-wg"))[0]["stats64"]
    return stats["tx"]["bytes"], stats["rx"]["bytes"]


def at_rest(reading, seconds=1):
    """What it reads once that has not changed for so long."""
    value, since = reading(), time.monotonic()
    deadline = since + 60
    while time.monotonic() - since < seconds:
        assert time.monotonic() < deadline, "it does not come to rest"
        time.sleep(0.1)
        now = reading()
        if now != value:
            value, since = now, time.monotonic()
    return value


def nothing_left(before):
    wait_for("nothing runs any more", lambda: remnants() == [])
    assert Snapshot() == before
    assert list(Path("/run/wireguard").iterdir()) == []


@pytest.fixture
def before():
    assert remnants() == []
    return Snapshot()


@pytest.fixture
def sample(before):
    made = Sample(f"/run/sample-{len(os.listdir('/run'))}")
    yield made
    print(made.text())
    if made.process and made.process.poll() is None:
        assert made.stop() == 0
    nothing_left(before)


def test_traffic_logins_and_an_end_without_traces(sample, before):
    sample.start()
    customer, operator = sample.sign_in("customer"), sample.sign_in("operator")
    assert sample.get(customer, "/me")["role"] == "user" and sample.get(operator, "/me")["role"] == "admin"
    said = " ".join(processes().values())
    assert sample.token("customer") not in said and sample.token("operator") not in said
    sample.wait_growth(customer)
    (traffic,) = [pid for pid in processes() if owner_of(pid) == 999000003]
    assert re.search(r"CapEff:\s+0+\n", Path(f"/proc/{traffic}/status").read_text())
    os.kill(traffic, signal.SIGSTOP)
    sent, received = at_rest(laptop_device)
    wait_for("what the laptop has is metered", lambda: sample.counters(customer)[1] >= received, step=0.2)
    metered = at_rest(lambda: sample.counters(customer), seconds=2.5)
    # Between the two a busy machine loses some: of uploads before the meter, of downloads behind it.
    assert sent * 3 / 4 < metered[0] <= sent and received <= metered[1] < received * 4 / 3
    assert metered[1] > metered[0], "more comes down than goes up"
    os.kill(traffic, signal.SIGCONT)
    (client,) = [pid for pid, line in processes().items() if line == "wireguard-go --foreground wtsample-wg"]
    sample.out.write_text("")
    os.kill(client, signal.SIGKILL)
    sample.reach(LAST_LINE).wait_tunnel()
    assert sample.stop(signal.SIGINT) == 0
    nothing_left(before)
    assert not sample.state.exists() and not sample.run_folder.exists()


def test_a_second_start_goes_on(sample):
    sample.state.mkdir(mode=0o755)
    sample.start()
    token = sample.sign_in("operator")
    first = sample.get(token, "/gateways/sample")
    assert sample.stop(signal.SIGTERM) == 0
    assert (sample.state / "pg/PG_VERSION").exists(), "a folder that was there before stays"
    sample.start()
    assert sample.get(token, "/gateways/sample")["id"] == first["id"]
    for noun in ("gateways", "vpcs", "locations", "plans", "hypervisors", "images"):
        assert len(sample.get(token, f"/{noun}")["items"]) == 1, noun
    assert sample.sign_in("customer") != token
    sample.wait_tunnel()
    # Whoever comes and goes on the bridge, its own address stays: who knows it goes on being heard.
    bridge = Path("/sys/class/net/wtsample-pub/address")
    address = bridge.read_text()
    run("ip", "link", "add", "lowest", "address", "02:00:00:00:00:00", "type", "veth")
    run("ip", "link", "set", "lowest", "master", "wtsample-pub")
    assert bridge.read_text() == address
    run("ip", "link", "del", "lowest")


@pytest.mark.parametrize("words", ["sample: networks", "fingerprint", "client connects"])
def test_interrupted_on_the_way(sample, words):
    """As a terminal does it, twice: every process of the group gets the signal."""
    sample.launch().reach(words)
    os.killpg(sample.process.pid, signal.SIGINT)
    wait_for("it stops", lambda: "sample: removing" in sample.text())
    os.killpg(sample.process.pid, signal.SIGINT)
    assert sample.process.wait(PATIENCE) == 0
    assert not sample.state.exists() and not sample.run_folder.exists()


def test_goes_on_after_kill_9(sample, before):
    sample.start()
    sample.stop(signal.SIGKILL)
    wait_for("the traffic ends with it", lambda: not [line for line in remnants() if "up --sample" in line])
    sample.start()
    sample.wait_tunnel()
    sample.stop(signal.SIGKILL)
    assert subprocess.run(sample.command("--down"), timeout=PATIENCE).returncode == 0
    nothing_left(before)


def test_down_ends_one_that_runs(sample, before):
    sample.start()
    assert subprocess.run(sample.command("--down"), timeout=PATIENCE).returncode == 0
    assert sample.process.wait(PATIENCE) == 0
    nothing_left(before)
    assert not sample.state.exists() and not sample.run_folder.exists()


def test_default_folders(before):
    """On an empty /var/lib of its own."""
    run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/var/lib")
    try:
        sample = Sample("/run/sample-default").start([BIN / "wiretoll", "up", "--sample"])
        assert Path("/var/lib/wiretoll-sample/pg").exists() and Path("/run/wiretoll-sample/gw").exists()
        assert sample.stop() == 0
        assert list(Path("/var/lib").iterdir()) == [] and not Path("/run/wiretoll-sample").exists()
    finally:
        run("umount", "-l", "/var/lib")
    nothing_left(before)


@pytest.mark.parametrize("make, remove, words", [
    (["link", "add", "wtsample-vpc", "type", "bridge"], ["link", "del", "wtsample-vpc"], ["interface wtsample-vpc"]),
    (["netns", "add", "wtsample-laptop"], ["netns", "del", "wtsample-laptop"], ["namespace wtsample-laptop"]),
    (["addr", "add", "198.51.100.7/32", "dev", "lo"], ["addr", "del", "198.51.100.7/32", "dev", "lo"],
     ["address 198.51.100.7", "lo", "198.51.100.0/24"]),
    (["route", "add", "10.231.0.128/25", "dev", "lo"], ["route", "del", "10.231.0.128/25"],
     ["route to 10.231.0.128/25", "lo", "10.231.0.0/24"]),
])
def test_what_is_another_s_is_left_alone(sample, make, remove, words):
    run("ip", *make)
    try:
        with_theirs = Snapshot()
        done = subprocess.run(sample.command(), capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 1
        for word in words:
            assert word in done.stderr
        assert Snapshot() == with_theirs and not sample.state.exists() and not sample.run_folder.exists()
    finally:
        run("ip", *remove)
        subprocess.run(["umount", "/run/netns"], capture_output=True)


def test_d10_the_hosts_first_ip_netns_add_keeps_nothing(sample, before):
    """It mounts /run/netns on itself, with all that is in it, where nothing is mounted: pins made before lie beneath."""
    assert not os.path.ismount("/run/netns"), "an envelope's /run is new"
    sample.start()
    run("ip", "netns", "add", "first")
    run("ip", "netns", "exec", "wtsample-laptop", "true")
    run("ip", "netns", "delete", "first")
    assert sample.stop() == 0
    nothing_left(before)


def test_needs_root(sample):
    done = subprocess.run(["setpriv", "--reuid=nobody", "--clear-groups", *sample.command()], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1 and "needs root" in done.stderr
    assert not sample.state.exists()
