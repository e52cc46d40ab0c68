# SPDX-License-Identifier: BSD-2-Clause
"""`wiretoll up`: a control plane that starts, survives kills, stops clean, and starts again on the same state."""

import contextlib
import http.client
import json
import os
import pwd
import re
import signal
import socket
import ssl
import stat
import subprocess
import urllib.request
from pathlib import Path

import psycopg2
import pytest

from deploy_lab import BIN, PATIENCE, Snapshot, parent, processes, run, wait_for

PORT = 8443


class Up:
    def __init__(self, folder, addresses=("127.0.0.1",)):
        self.folder = Path(folder)
        self.listen = [word for address in addresses for word in ("--listen", f"{address}:{PORT}")]
        self.folder.mkdir(mode=0o755)
        self.state, self.run_folder, self.out = self.folder / "state", self.folder / "run", self.folder / "out"
        self.process = None

    def command(self, *more):
        return [str(BIN / "wiretoll"), "up", "--state", str(self.state), "--run", str(self.run_folder), *more]

    def start(self):
        self.out.write_text("")
        with open(self.out, "a", encoding="utf-8") as out:
            self.process = subprocess.Popen(self.command(*self.listen), stdout=out, stderr=out)
        wait_for("ready", lambda: "ready\n" in self.out.read_text() or self.process.poll() is not None, timeout=PATIENCE)
        assert self.process.poll() is None, self.out.read_text()
        return self

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        status = self.process.wait(PATIENCE)
        self.process = None
        return status

    def health(self):
        context = ssl.create_default_context(cafile=str(self.state / "api/ca.pem"))
        context.check_hostname = False
        try:
            with urllib.request.urlopen(f"https://127.0.0.1:{PORT}/v1/health", context=context, timeout=PATIENCE) as answer:
                return json.load(answer)["status"] == "ok"
        except (OSError, http.client.HTTPException):
            return False

    def pid(self, program):
        """Of the child of `wiretoll up` that is this program."""
        pids = [pid for pid, line in processes().items()
                if line.split(" ")[0].endswith("/" + program) and parent(pid) == self.process.pid]
        assert len(pids) <= 1, pids
        return pids[0] if pids else None


def remnants():
    return [line for line in processes().values() if "postgres" in line or "wiretoll-" in line]


@pytest.fixture
def up():
    before = Snapshot()
    assert remnants() == []
    control_plane = Up(f"/run/up-{len(os.listdir('/run'))}")
    yield control_plane
    print(control_plane.out.read_text() if control_plane.out.exists() else "")
    if control_plane.process and control_plane.process.poll() is None:
        assert control_plane.stop() == 0
    wait_for("nothing runs any more", lambda: remnants() == [])
    assert Snapshot() == before


def test_ready_and_what_runs_as_whom(up):
    up.start()
    assert up.health()
    out = up.out.read_text()
    fingerprint = run("openssl", "x509", "-in", up.state / "api/ca.pem", "-noout", "-fingerprint", "-sha256")
    assert fingerprint.strip().split("=")[1].replace(":", "").lower() in out.lower()
    token = (up.state / "admin-token").read_text()
    assert token in out and stat.S_IMODE((up.state / "admin-token").stat().st_mode) == 0o600
    api = Path(f"/proc/{up.pid('wiretoll-api')}/status").read_text()
    assert re.search(r"Uid:\s+999000001\s+999000001\s+999000001", api)
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert re.search(rf"{kind}:\s+0+\n", api), kind
    assert Path(f"/proc/{up.pid('postgres')}").stat().st_uid == pwd.getpwnam("postgres").pw_uid
    assert stat.S_IMODE((up.state / "pg").stat().st_mode) == 0o700
    listening = run("ss", "-Hlntup")
    assert f":{PORT}" in listening and len(listening.splitlines()) == 1, "the API's port is the only one"
    for program in ("wiretoll-api", "wiretoll-deployd", "postgres", None):
        pid = up.pid(program) if program else up.process.pid
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert re.search(r"Max core file size +0 +0 ", limits), "secrets of every one are kept from core dumps"
        if program != "postgres":
            # What a process that is not dumpable has in /proc belongs to root, and only root's tracers may look.
            assert Path(f"/proc/{pid}/environ").stat().st_uid == 0
            assert Path(f"/proc/{pid}/status").read_text().count("NoNewPrivs:\t1") == (program == "wiretoll-api")


def test_c4_an_address_that_is_taken_ends_it_before_anything_is_told(up):
    with socket.create_server(("127.0.0.1", PORT)):
        with open(up.out, "w", encoding="utf-8") as out:
            status = subprocess.run(up.command(*up.listen), stdout=out, stderr=out, timeout=PATIENCE, check=False).returncode
    said = up.out.read_text()
    assert status == 1 and f"cannot listen at 127.0.0.1:{PORT}" in said and "--listen" in said
    assert "token" not in said and not (up.state / "admin-token").exists()
    up.start()
    assert up.health()


def as_user(uid, *command):
    return subprocess.run(["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs", *map(str, command)],
                          capture_output=True, timeout=PATIENCE)


def test_no_part_reaches_what_is_anothers(up):
    """As each user, with what it might reach for when it is broken into; its own as the proof that the path is right."""
    up.start()
    api, gateway, postgres = 999000001, 1_000_000_001, pwd.getpwnam("postgres").pw_uid
    owners = {"secrets/api.conn": api, "api/sealing.key": api, "api/server.pem": api, "secrets/owner.conn": 999000002,
              "secrets/deploy.conn": 0, "admin-token": 0, "pg/PG_VERSION": postgres}
    assert not [name for name in owners if not (up.state / name).is_file()]
    for name, owner in owners.items():
        for uid in (api, gateway, postgres, 0):
            may = uid in (owner, 0)
            done = as_user(uid, "cat", up.state / name)
            assert (done.returncode == 0) == may, f"{uid} {'may not' if may else 'may'} read {name}"
    for uid in (api, gateway):
        assert as_user(uid, "touch", up.state / "x").returncode != 0
        assert as_user(uid, "kill", "-0", up.pid("postgres")).returncode != 0
        assert as_user(uid, "cat", f"/proc/{up.pid('wiretoll-deployd')}/environ").returncode != 0


def test_database_roles_have_their_rights_only(up):
    up.start()
    for name in ("api", "deploy"):
        cursor = psycopg2.connect((up.state / f"secrets/{name}.conn").read_text()).cursor()
        cursor.execute("SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, current_setting('is_superuser') "
                       "FROM pg_roles WHERE rolname = current_user")
        assert cursor.fetchone() == (False, False, False, False, False, "off")
        cursor.execute("SELECT nspname FROM pg_namespace WHERE has_schema_privilege(oid, 'create') AND nspname !~ '^pg_temp'")
        assert cursor.fetchall() == []
        cursor.execute("SELECT count(*) FROM pg_auth_members WHERE member = current_user::regrole")
        assert cursor.fetchone() == (0,), "a member of nothing"
        cursor.execute("SELECT c.oid::regclass FROM pg_class c WHERE c.relowner = current_user::regrole")
        assert cursor.fetchall() == []


def test_each_role_has_its_own_secret(up):
    up.start()
    passwords = set()
    for name, uid in (("owner", 999000002), ("api", 999000001), ("deploy", 0)):
        path = up.state / f"secrets/{name}.conn"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 and path.stat().st_uid == uid
        psycopg2.connect(path.read_text()).close()
        passwords.add(re.search(r"password=(\S+)", path.read_text())[1])
        with pytest.raises(psycopg2.OperationalError):
            psycopg2.connect(re.sub(r"password=\S+", "password=wrong", path.read_text()))
    assert len(passwords) == 3
    said = " ".join(processes().values()) + up.out.read_text() + (up.state / "postgres.log").read_text()
    assert not [p for p in passwords if p in said]
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        psycopg2.connect((up.state / "secrets/deploy.conn").read_text()).cursor().execute("SELECT * FROM gateway.gateway")


def test_starts_again_on_the_same_state(up):
    up.start()
    ca = (up.state / "api/ca.pem").read_bytes()
    sealing = (up.state / "api/sealing.key").read_bytes()
    for number in (signal.SIGTERM, signal.SIGINT):
        assert up.stop(number) == 0
        assert remnants() == [] and not (up.state / "pg/postmaster.pid").exists()
        up.start()
        assert up.health()
    assert (up.state / "api/ca.pem").read_bytes() == ca and (up.state / "api/sealing.key").read_bytes() == sealing
    assert "one-time admin token" not in up.out.read_text(), "it is printed once"


def test_starts_again_after_kill_9(up):
    up.start()
    up.stop(signal.SIGKILL)
    up.start()
    assert up.health() and up.pid("postgres") and up.pid("wiretoll-deployd")


def test_starts_again_when_everything_was_killed(up):
    up.start()
    victims = [pid for pid, line in processes().items() if "postgres" in line or "wiretoll" in line.split(" ")[0]]
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):  # gone with one that was killed before it
            os.kill(pid, signal.SIGKILL)
    up.process.wait(PATIENCE)
    stale = up.state / "pg/postmaster.pid"
    assert stale.exists()
    # The worst case: the pid in it lives again as something else.
    lines = stale.read_text().split("\n")
    sleeper = subprocess.Popen(["setpriv", "--reuid=postgres", "--clear-groups", "--regid=postgres", "sleep", "600"])
    stale.write_text("\n".join([str(sleeper.pid)] + lines[1:]))
    try:
        up.start()
        assert up.health() and sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()


@pytest.mark.parametrize("program", ["wiretoll-api", "wiretoll-deployd", "postgres"])
def test_killed_services_come_back(up, program):
    up.start()
    pid = up.pid(program)
    os.kill(pid, signal.SIGKILL)
    wait_for("another one", lambda: up.pid(program) not in (None, pid))
    wait_for("the API answers", up.health)
    assert "starting it again" in up.out.read_text()


def test_starts_again_beside_a_session_that_never_ends(up):
    """As one does that waits for a lock which went with another process: it holds the shared memory."""
    up.start()
    server = up.pid("postgres")
    session = wait_for("a session", lambda: next((pid for pid, line in processes().items() if line.endswith(" idle") and
                                                  parent(pid) == server), None))
    os.kill(session, signal.SIGSTOP)
    os.kill(server, signal.SIGKILL)
    wait_for("another one", lambda: up.pid("postgres") not in (None, server))
    wait_for("the API answers", up.health)
    assert session not in processes()


def test_a_second_one_is_refused(up):
    up.start()
    done = subprocess.run(up.command(), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert f"another `wiretoll up` (pid {up.process.pid})" in done.stderr and str(up.state) in done.stderr
    assert up.health()


def test_down_stops_the_one_that_runs(up):
    up.start()
    done = subprocess.run(up.command("--down"), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert up.process.wait(PATIENCE) == 0
    assert subprocess.run(up.command("--down"), timeout=PATIENCE).returncode == 0, "also when nothing runs"


def test_ctrl_c_before_it_is_ready(up):
    up.out.write_text("")
    process = subprocess.Popen(up.command(*up.listen), stdout=subprocess.DEVNULL)
    wait_for("PostgreSQL starts", lambda: (up.state / "pg").exists())
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 0
    assert remnants() == []
    up.start()


@pytest.mark.parametrize("arguments, status, words", [
    (["--listen", "here"], 2, ["--listen", '"here"', "ADDRESS:PORT"]),
    (["--listen", "127.0.0.1:70000"], 2, ['"127.0.0.1:70000"', "65535"]),
    (["--state", "relative"], 2, ["--state", '"relative"', "absolute"]),
    (["--listen", "127.0.0.1:1", "--listen", "127.0.0.2:2"], 2, ["another port"]),
    (["extra"], 2, ['"extra"']),
    (["--run", "/run/" + "x" * 90], 1, ["too long for a socket"]),
])
def test_bad_arguments(up, arguments, status, words):
    done = subprocess.run(up.command(*arguments), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == status, done.stderr
    for word in words:
        assert word in done.stderr


def test_needs_root(up):
    done = subprocess.run(["setpriv", "--reuid=nobody", "--clear-groups", *up.command()], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1 and "needs root" in done.stderr
    assert not up.state.exists()


def test_folder_that_lets_nobody_through(up):
    up.folder.chmod(0o700)
    done = subprocess.run(up.command(), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1 and str(up.folder) in done.stderr and "chmod o+x" in done.stderr
