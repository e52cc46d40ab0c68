# SPDX-License-Identifier: BSD-2-Clause
"""What each program of the tests runs in, begun where a home is closed to others and a host has its usual mounts."""

import os
import shutil
import subprocess
from pathlib import Path

# This one's own programs are out of reach of the envelopes within.
OUTSIDE = {name: value for name, value in os.environ.items() if name != "WIRETOLL_BIN"}
ENVELOPE = Path(__file__).resolve().parents[1] / "envelope.sh"


def run(*command, **environment):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60, env={**OUTSIDE, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_d8_any_user_runs_the_programs_of_a_closed_home(tmp_path):
    programs = tmp_path / "home/tree/build/sanitize/bin"
    programs.mkdir(parents=True)
    shutil.copy("/bin/echo", programs / "program")
    (tmp_path / "home").chmod(0o700)
    # env, as setpriv still has root's rights over files when it executes.
    assert run(ENVELOPE, "setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "env", "sh", "-c", "$WIRETOLL_BIN/program here",
               WIRETOLL_BIN=str(programs)) == "here\n"


def test_d9_nothing_of_the_hosts_mounts_comes_along(tmp_path):
    """A host as systemd leaves it, on which tools have mounted more."""
    host = tmp_path / "host.sh"
    host.write_text(f"""set -e
        mount -t bpf bpf /sys/fs/bpf
        mount -t bpf bpf /sys/fs/bpf
        mount -t debugfs debugfs /sys/kernel/debug
        mount -t tracefs tracefs /sys/kernel/tracing
        mkdir -p /run/netns "/run/a place"
        touch /run/netns/theirs
        mount --bind /proc/self/ns/net /run/netns/theirs
        mount -t bpf bpf "/run/a place"
        mkdir "{tmp_path}/a place"
        mount -t bpf bpf "{tmp_path}/a place"
        mount -t tmpfs tmpfs /run
        exec {ENVELOPE} cat /proc/self/mountinfo
        """)
    lines = [line.split() for line in run("unshare", "--mount", "bash", host).splitlines()]
    assert [line[4] for line in lines if line[line.index("-") + 1] in ("bpf", "nsfs")] == ["/sys/fs/bpf"]
    assert [line[4] for line in lines if line[4].startswith(("/run", "/sys/kernel"))] == ["/run"]
