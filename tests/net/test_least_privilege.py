# SPDX-License-Identifier: BSD-2-Clause
"""What each process may do: read from the kernel, and tried: by its user, and by the process itself, taken over."""

import errno
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import inject
from agent_lab import BIN, UID, inside, laboratory, run, unprivileged, wait_for
from test_agent import STATE, deploy, wait_truth

CAPABILITIES = 1 << 12 | 1 << 38 | 1 << 39  # CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF
FILTERED = 2

needs_injection = pytest.mark.skipif(not inject.SUPPORTED, reason="the injection is written for x86-64")


@pytest.fixture
def lab():
    with laboratory() as parts:
        yield parts


def status_of(pid):
    text = Path(f"/proc/{pid}/status").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def core_limit(pid):
    """(soft, hard), as words."""
    return re.search(r"Max core file size +(\S+) +(\S+)", Path(f"/proc/{pid}/limits").read_text()).groups()


def is_dumpable(pid):
    """The files of a process that is not dumpable belong to root in /proc."""
    return os.stat(f"/proc/{pid}/status").st_uid != 0


def test_the_agent_holds_three_capabilities_and_nothing_else(lab):
    _, gateway, _ = lab
    deploy(lab, connect=False)
    status = status_of(gateway.agent.pid)
    assert status["Uid"].split() == [str(UID)] * 4 and status["Groups"].strip() == ""
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == CAPABILITIES, kind
    assert status["NoNewPrivs"] == "1" and int(status["Seccomp"]) == FILTERED
    for task in os.listdir(f"/proc/{gateway.agent.pid}/task"):
        assert int(status_of(f"{gateway.agent.pid}/task/{task}")["Seccomp"]) == FILTERED
    assert core_limit(gateway.agent.pid) == ("0", "0") and not is_dumpable(gateway.agent.pid)


def test_started_with_all_rights_it_keeps_none_of_the_others(lab):
    """By hand as root, without the driver's or the unit's care."""
    _, gateway, _ = lab
    folder = gateway.base.parent / "roots"
    folder.mkdir(mode=0o700)
    (folder / "bootstrap.json").write_text((gateway.base / "bootstrap.json").read_text())
    agent = subprocess.Popen(inside("gw", BIN / "wiretoll-agent", "--base", folder, "--bpf", gateway.bpf), stderr=subprocess.DEVNULL)
    try:
        wait_for("its filter", lambda: int(status_of(agent.pid)["Seccomp"]) == FILTERED)
        status = status_of(agent.pid)
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[kind], 16) == CAPABILITIES, kind
        assert status["NoNewPrivs"] == "1"
    finally:
        agent.kill()
        agent.wait()


@needs_injection
def test_taken_over_it_cannot_leave_its_place(lab):
    _, gateway, _ = lab
    deploy(lab, connect=False)
    pid = gateway.agent.pid
    forbidden = [("socket", socket.AF_PACKET, socket.SOCK_RAW, 0), ("io_uring_setup", 8, 0), ("setuid", 0),
                 ("clone", 0x10000000 | signal.SIGCHLD)]  # CLONE_NEWUSER
    for name, *arguments in forbidden:
        assert inject.call(pid, name, *arguments) == -errno.EPERM, name
    # Within the filter, and yet not: the capability is missing. And the injection works at all.
    assert inject.call(pid, "socket", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) == -errno.EPERM
    assert inject.call(pid, "getuid") == UID
    assert inject.call(pid, "kill", 1, 0) == -errno.EPERM
    # Unharmed: it still serves.
    api = lab[0]
    api.wait_applied(api.set_state(**{**STATE, "refuse": ["admin"]}))


@needs_injection
@pytest.mark.parametrize("name", ["setns", "mount", "unshare", "ptrace"])
def test_taken_over_it_dies_of_what_only_an_intruder_does(lab, name):
    api, gateway, clients = lab
    deploy(lab)
    pid = gateway.agent.pid
    with pytest.raises(inject.Killed):
        inject.call(pid, name, 0, 0)
    # Metering and traffic do not depend on it, and its next start goes on where it was.
    assert clients[0].ping(count=3) == 3
    gateway.agent.returncode = -signal.SIGSYS
    gateway.start_agent()
    wait_truth(api, clients)


ABORT = """
import ctypes, os, resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
os.execvp(sys.argv[1], sys.argv[1:])
"""


def dumps_core(folder, log, *command, until=None):
    """Whether a process says so that is aborted in a folder where it may write, and what is left there."""
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    with log.open("a") as output:
        process = subprocess.Popen([sys.executable, "-c", ABORT, *map(str, command)], cwd=folder, stderr=output)
    wait_for("it is at work", lambda: until(process.pid))
    os.kill(process.pid, signal.SIGABRT)
    status = os.waitpid(process.pid, 0)[1]
    process.returncode = -signal.SIGABRT
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGABRT
    return os.WCOREDUMP(status), os.listdir(folder)


def test_an_aborted_agent_leaves_no_core(lab):
    api, gateway, _ = lab
    folder = gateway.base.parent
    if Path("/proc/sys/kernel/core_pattern").read_text().startswith("core"):
        # Else the next lines would prove nothing.
        sleeper = unprivileged("sleep", "60")
        assert dumps_core(folder / "other", gateway.log, *sleeper, until=lambda pid: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")[0]
    api.set_state(**STATE, peers=[])
    gateway.start_wireguard()
    command = inside("gw", *unprivileged(BIN / "wiretoll-agent", "--base", gateway.base, "--bpf", gateway.bpf))
    assert dumps_core(folder / "agents", gateway.log, *command, until=lambda _: api.batches and api.batches[-1]["active_since"]) == (False, [])


def test_its_user_reaches_no_other_gateway(lab):
    """Another gateway's agent, under a uid of its own with the same capabilities, as one that was broken into."""
    _, gateway, _ = lab
    deploy(lab, connect=False)
    other = ["setpriv", f"--reuid={UID + 1}", f"--regid={UID + 1}", "--clear-groups", "--no-new-privs",
             "--inh-caps=+net_admin,+bpf,+perfmon", "--ambient-caps=+net_admin,+bpf,+perfmon",
             "--bounding-set=-all,+net_admin,+bpf,+perfmon"]
    pid = gateway.agent.pid
    for path in (gateway.base, gateway.base / "private.key", gateway.base / "agent.json", gateway.bpf, gateway.bpf / "meter",
                 f"/proc/{pid}/mem", f"/proc/{pid}/environ", f"/proc/{pid}/ns/net", "/etc/shadow"):
        done = subprocess.run([*other, "cat" if not Path(path).is_dir() else "ls", str(path)], capture_output=True, text=True)
        assert done.returncode != 0 and re.search("Permission denied|Operation not permitted", done.stderr), path
    # Nor does its own user, once it is not the agent itself.
    for path in (f"/proc/{pid}/mem", f"/proc/{pid}/environ"):
        done = subprocess.run(unprivileged("cat", path), capture_output=True, text=True)
        assert done.returncode != 0 and "Permission denied" in done.stderr, path
    assert stat.S_IMODE(gateway.base.stat().st_mode) == stat.S_IMODE(gateway.bpf.stat().st_mode) == 0o700
