# SPDX-License-Identifier: BSD-2-Clause
"""A machine of its own as far as systemd can tell: the host's /usr, Wiretoll installed below /usr/local, everything else fresh.

systemd runs as process 1 of a process namespace, in a network namespace of the caller's choice and a control group of its own.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from agent_lab import run, wait_for

ROOT = Path(__file__).resolve().parents[2]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # the machine's, whatever the caller's

BOOT = """
set -eu
root=$1
mount --make-rprivate /
mount -t tmpfs -o mode=0755 root "$root"
mkdir -p "$root"/{usr,proc,sys,dev,run,tmp,etc/systemd/system,etc/alternatives,var/lib,var/log,var/tmp,root}
for link in bin sbin lib lib64; do [ ! -e "/$link" ] || ln -s "usr/$link" "$root/$link"; done
mount --rbind /usr "$root/usr"
mount -t tmpfs -o mode=0755 local "$root/usr/local"
cp -a /etc/alternatives/. "$root/etc/alternatives"
cp -a /etc/passwd /etc/group /etc/nsswitch.conf /etc/ld.so.cache "$root/etc"
: > "$root/etc/machine-id"
: > "$root/etc/fstab"
# The plain programs: the sanitizers' need memory that is written and executed, and terabytes of address space.
make -s -C "$2" install DESTDIR="$root" PREFIX=/usr/local
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=0755 dev "$root/dev"
for node in null zero full random urandom tty net/tun; do
	mkdir -p "$(dirname "$root/dev/$node")"
	touch "$root/dev/$node"
	mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
touch "$root/dev/console"
mount --bind "$3/console" "$root/dev/console"
mount -t tmpfs -o mode=0755 run "$root/run"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mkdir -p "$root/run/wireguard" "$root/run/host"
mount --bind /run/wireguard "$root/run/wireguard"
mount --bind "$3" "$root/run/host"
printf '[Unit]\\nRequires=basic.target\\nAfter=basic.target\\nAllowIsolate=yes\\n' > "$root/etc/systemd/system/test.target"
mkdir "$root/etc/systemd/journald.conf.d"
printf '[Journal]\\nStorage=volatile\\nRateLimitBurst=0\\n' > "$root/etc/systemd/journald.conf.d/test.conf"
# Not chroot: units with file systems of their own are built on the root of the mount namespace.
cd "$root"
mkdir old
pivot_root . old
umount -l old
rmdir old
exec env -i container=wiretoll-test PATH=/usr/local/bin:/usr/sbin:/usr/bin /lib/systemd/systemd --unit=test.target --log-target=journal
"""


class Machine:
    """Folder `shared` is /run/host inside."""

    def __init__(self, folder, netns=None):
        self.folder = Path(folder)
        self.root, self.shared = self.folder / "root", self.folder / "shared"
        for path in (self.folder, self.root, self.shared):
            path.mkdir(mode=0o755, exist_ok=True)
        (self.shared / "console").touch()
        # Unlike all else here, control groups are the host's: others may run the same test.
        self.group = Path(tempfile.mkdtemp(prefix="wiretoll-test-", dir="/sys/fs/cgroup"))
        enter = ["nsenter", f"--net=/run/netns/{netns}"] if netns else []
        self.process = subprocess.Popen(
            [*enter, "unshare", "--mount", "--pid", "--fork", "--kill-child", "--ipc", "--uts", "--cgroup", "--mount-proc",
             "bash", "-c", BOOT, "boot", self.root, ROOT, self.shared],
            preexec_fn=lambda: (self.group / "cgroup.procs").write_text(str(os.getpid())),
            stdin=subprocess.DEVNULL, stdout=open(self.folder / "boot.log", "w"), stderr=subprocess.STDOUT)
        self.pid = wait_for("systemd is process 1", self._find)
        wait_for("it has booted", lambda: self.systemctl("is-active", "test.target", check=False).strip() == "active")

    def _find(self):
        assert self.process.poll() is None, (self.folder / "boot.log").read_text()
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        # Its own mount of /proc is there only once it is systemd that has been executed.
        with contextlib.suppress(OSError):  # gone: the boot has failed
            return int(children[0]) if children and Path(f"/proc/{children[0]}/comm").read_text() == "systemd\n" else None

    def run(self, *command, **options):
        return run("nsenter", "-t", self.pid, "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd", *command,
                   env={**os.environ, "PATH": PATH}, timeout=180, **options)

    def systemctl(self, *arguments, **options):
        return self.run("systemctl", *arguments, **options)

    def show(self, unit, name):
        return self.systemctl("show", "-P", name, unit).strip()

    def main_pid(self, unit):
        """As it is known outside: systemd's numbers are of its own namespace."""
        inner = int(self.show(unit, "MainPID"))
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                numbers = [line.split()[1:] for line in status.read_text().splitlines() if line.startswith("NSpid:")][0]
                if inner and len(numbers) > 1 and numbers[-1] == str(inner) and self._is_ours(status.parent):
                    return int(status.parent.name)
        return None

    def _is_ours(self, process):
        return os.stat(process / "ns/pid").st_ino == os.stat(f"/proc/{self.pid}/ns/pid").st_ino

    def log(self, unit):
        return self.run("journalctl", "--no-pager", "-o", "cat", "-u", unit, check=False)

    def uid(self, name):
        return int([line.split(":")[2] for line in (self.path("/etc/passwd")).read_text().splitlines() if line.startswith(name + ":")][0])

    def path(self, inside):
        """A path of the machine, seen from outside."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def close(self):
        print(self.run("journalctl", "--no-pager", "-o", "short-monotonic", "-u", "wiretoll*", "-u", "run-wiretoll*", check=False))
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        wait_for("its processes are gone", lambda: not (self.group / "cgroup.procs").read_text())
        for folder, _, _ in os.walk(self.group, topdown=False):
            wait_for("its control groups are empty", lambda f=folder: self._remove(f))
        shutil.rmtree(self.folder)

    @staticmethod
    def _remove(folder):
        with contextlib.suppress(OSError):
            os.rmdir(folder)
        return not os.path.exists(folder)
