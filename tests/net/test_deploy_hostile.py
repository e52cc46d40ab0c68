# SPDX-License-Identifier: BSD-2-Clause
"""A gateway whose uid does what it can against the deployment worker: no other gateway waits for it, and it is ended and removed.

Its agent here is a script that was broken into; everything that it does, it does with a gateway's own rights.
"""

import os
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

from deploy_lab import AGENT, processes, run, wait_for
from test_deploy import database, host  # noqa: F401  fixtures

MOST_DELAY = 1.0  # seconds: what another gateway may wait for a hostile one, at most


def hostile(worker, name, script):
    """From now on the agent of a gateway of this uid does this first; other gateways' agents are good."""
    worker.agent.write_text(AGENT.replace("trap ", f'if [ -e "$base/{name}" ]; then\n{script}\nfi\ntrap ', 1))


def turn_hostile(worker, gateway, name):
    """The agent of this gateway begins anew and is hostile."""
    uid = worker.base(gateway).stat().st_uid
    flag = worker.base(gateway) / name
    flag.touch()
    os.chown(flag, uid, uid)
    os.kill(worker.pid(gateway), signal.SIGKILL)


def of_user(uid):
    """What lives, or is only waiting to be collected by a process other than 1, under this uid."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = dict(line.split(":\t", 1) for line in (entry / "status").read_text().splitlines() if ":\t" in line)
            except OSError:
                continue
            if str(uid) in fields["Uid"].split() and not fields["State"].startswith("Z"):
                found.append((int(entry.name), fields["Name"]))
    return found


def other(inventory, number):
    return inventory.gateway(f"good{number}", private=f"10.{number}.0.0/24", first=f"10.{number}.0.2", last=f"10.{number}.0.9",
                             route_netns=())


def deploy_seconds(worker, inventory, number):
    begun = time.monotonic()
    gateway = other(inventory, number)
    wait_for("the other gateway's agent runs", lambda: worker.pid(gateway), step=0.005)
    return time.monotonic() - begun


def deploys_promptly(worker, inventory, number, undelayed):
    """No more than a second later than without the hostile one. Another one when it took longer: the machine may have been busy, but
    not each time."""
    seconds = []
    while not seconds or (min(seconds) > undelayed + MOST_DELAY and len(seconds) < 5):
        seconds.append(deploy_seconds(worker, inventory, number + len(seconds)))
    assert min(seconds) <= undelayed + MOST_DELAY, (seconds, undelayed)


FIFOS = """
for name in bootstrap.json agent.json bootstrap.json.new agent.log agent.log.1 wireguard.log private.key record.json; do
    rm -rf "$base/$name"; mkfifo "$base/$name" 2>/dev/null
done
touch "$base/ready"
"""


def test_h3_fifos_in_place_of_every_file_delay_nobody(host):
    worker, inventory = host
    undelayed = max(deploy_seconds(worker, inventory, number) for number in (240, 241))
    hostile(worker, "evil", FIFOS)
    gateway = inventory.gateway("bad")
    worker.wait_deployed(inventory, gateway)
    turn_hostile(worker, gateway, "evil")
    wait_for("the FIFOs are there", lambda: (worker.base(gateway) / "ready").exists())
    # Every way to look at the gateway: its processes end, the worker begins anew, the job comes again, a retry, a deletion.
    for program in ("agent", "wireguard"):
        os.kill(wait_for(program, lambda: worker.pid(gateway, program)), signal.SIGKILL)
    deploys_promptly(worker, inventory, 10, undelayed)
    worker.stop()
    worker.start()
    inventory.db.query("UPDATE gateway.job SET finished = false WHERE gateway = %s", gateway)
    inventory.db.query("NOTIFY wiretoll_job")
    wait_for("the same job is finished again", lambda: inventory.job(gateway)["finished"])
    deploys_promptly(worker, inventory, 20, undelayed)
    inventory.retry(gateway)
    wait_for("the second attempt", lambda: worker.netns(gateway, 2) in os.listdir("/run/netns") and inventory.job(gateway)["finished"])
    deploys_promptly(worker, inventory, 30, undelayed)
    inventory.delete(gateway)
    deploys_promptly(worker, inventory, 40, undelayed)
    wait_for("it is deleted", lambda: inventory.status(gateway)[0] == "deleted")
    assert not worker.base(gateway).exists()


def test_h3_a_program_stopped_before_it_executes_delays_nobody(host):
    """A process of the uid stops all others of it, again and again: also those that are only about to become its programs."""
    worker, inventory = host
    undelayed = max(deploy_seconds(worker, inventory, number) for number in (240, 241))
    hostile(worker, "evil", "touch $base/ready; while :; do kill -STOP -1; done")
    gateway = inventory.gateway("bad")
    worker.wait_deployed(inventory, gateway)
    turn_hostile(worker, gateway, "evil")
    wait_for("it stops everything", lambda: (worker.base(gateway) / "ready").exists())
    killed = wait_for("wireguard-go", lambda: worker.pid(gateway, "wireguard"))
    os.kill(killed, signal.SIGKILL)
    wait_for("it is started anew", lambda: worker.pid(gateway, "wireguard") not in (None, killed))
    deploys_promptly(worker, inventory, 10, undelayed)
    uid = worker.base(gateway).stat().st_uid
    inventory.delete(gateway)
    wait_for("it is deleted", lambda: inventory.status(gateway)[0] == "deleted")
    assert of_user(uid) == []


LINKS = """
mkdir -p $base/d; rm -f $base/agent.json $base/bootstrap.json
ln -s {victim} $base/agent.json; ln -s {victim}/inner $base/bootstrap.json; ln -s {victim} $base/d/link; ln -s / $base/d/root
touch $base/ready
while :; do
    rm -rf $base/flip; mkdir $base/flip; touch $base/flip/a $base/flip/inner; mv $base/flip $base/gone-$$ 2>/dev/null
    ln -sfn {victim} $base/flip; rm -rf $base/gone-$$
done &
"""


def test_h4_removal_follows_no_link(host, tmp_path):
    worker, inventory = host
    undelayed = max(deploy_seconds(worker, inventory, number) for number in (240, 241))
    victim = Path("/run") / f"victim-{os.getpid()}"
    victim.mkdir(exist_ok=True)
    (victim / "inner").write_text("stays")
    hostile(worker, "evil", LINKS.format(victim=victim))
    gateway = inventory.gateway("bad")
    worker.wait_deployed(inventory, gateway)
    turn_hostile(worker, gateway, "evil")
    wait_for("the links are there", lambda: (worker.base(gateway) / "ready").exists())
    inventory.delete(gateway)
    deploys_promptly(worker, inventory, 10, undelayed)
    wait_for("it is deleted", lambda: inventory.status(gateway)[0] == "deleted")
    assert not worker.base(gateway).exists() and (victim / "inner").read_text() == "stays"
    shutil.rmtree(victim)


def flood(folder, uid, files, depth):
    """As the uid, by one process that makes many files and one deep tree."""
    script = ("import os, sys\n"
              "base, files, depth = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])\n"
              "os.mkdir(base + '/flood'); fd = os.open(base + '/flood', os.O_RDONLY)\n"
              "os.mknod('0', dir_fd=fd)\n"
              "for i in range(1, files): os.link('0', str(i), src_dir_fd=fd, dst_dir_fd=fd)\n"
              "fd = os.open(base, os.O_RDONLY)\n"
              "for i in range(depth):\n"
              "    os.mkdir('deep', dir_fd=fd); inner = os.open('deep', os.O_RDONLY, dir_fd=fd); os.close(fd); fd = inner\n")
    run("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "/usr/bin/python3", "-c", script, folder, files, depth)


def test_h3_a_flood_of_files_and_depths_delays_nobody(host):
    worker, inventory = host
    undelayed = max(deploy_seconds(worker, inventory, number) for number in (240, 241))
    gateway = inventory.gateway("bad")
    worker.wait_deployed(inventory, gateway)
    flood(worker.base(gateway), worker.base(gateway).stat().st_uid, 200_000, 3000)
    (worker.base(gateway) / "gone").touch()
    inventory.delete(gateway)
    deploys_promptly(worker, inventory, 10, undelayed)
    wait_for("it is deleted", lambda: inventory.status(gateway)[0] == "deleted")
    assert not worker.base(gateway).exists()
    wait_for("all of it goes", lambda: os.listdir(worker.state / "trash") == [])


ESCAPE = """
# Out of the network namespace, the session and the process group, deaf to polite signals, and not dumpable; and a crowd.
setsid unshare --user --net --map-root-user sh -c 'trap "" TERM HUP INT; while :; do sleep 1000; done' &
(trap "" TERM HUP; while :; do (trap "" TERM; sleep 0.05; sleep 1000) & sleep 0.01; done) &
touch "$base/ready"
"""


@pytest.mark.parametrize("how", ["deletion", "retry", "destroy-all"])
def test_h4_what_left_the_namespace_is_ended_too(host, how):
    worker, inventory = host
    hostile(worker, "evil", ESCAPE)
    gateway = inventory.gateway("bad")
    worker.wait_deployed(inventory, gateway)
    uid = worker.base(gateway).stat().st_uid
    mine = os.stat(f"/run/netns/{worker.netns(gateway)}").st_ino
    turn_hostile(worker, gateway, "evil")

    def escaped():
        for pid, _ in of_user(uid):
            try:
                if os.stat(f"/proc/{pid}/ns/net").st_ino != mine:
                    return True
            except OSError:
                continue
        return False

    wait_for("one has left the namespace", escaped)
    bystander = subprocess.Popen(["setpriv", f"--reuid={uid + 1}", "--clear-groups", "--inh-caps=-all", "sleep", "1000"])
    try:
        if how == "deletion":
            inventory.delete(gateway)
            wait_for("it is deleted", lambda: inventory.status(gateway)[0] == "deleted")
        elif how == "retry":
            worker.agent.write_text(AGENT)
            inventory.retry(gateway)
            wait_for("the second attempt runs", lambda: worker.netns(gateway, 2) in os.listdir("/run/netns") and
                     inventory.job(gateway)["finished"] and worker.pid(gateway))
            left = {os.stat(f"/proc/{pid}/ns/net").st_ino for pid, _ in of_user(uid)}
            assert left == {os.stat(f"/run/netns/{worker.netns(gateway, 2)}").st_ino}
        else:
            worker.stop()
            assert worker.destroy_all().returncode == 0
        if how != "retry":
            assert of_user(uid) == []
        assert bystander.poll() is None, "the next gateway's are not its"
    finally:
        bystander.kill()
        bystander.wait()


def test_h4_two_states_on_one_host_share_no_uid(host, tmp_path):
    worker, _ = host
    wait_for("the range is chosen", lambda: (worker.state / "first_uid").exists())
    ranges = {worker.first_uid()}
    for name in ("one", "two"):
        state, again = Path(f"/run/range-{os.getpid()}-{name}"), []
        for _ in range(2):
            run(worker.base_command()[0], "--state", state, "--run", f"{state}-run", "--destroy-all")
            again.append(int((state / "first_uid").read_text()))
            (state / "first_uid").unlink()
        assert again[0] == again[1], "chosen alike when the state is made anew"
        ranges.add(again[0])
        # A state of before there were ranges keeps its uids: its files are theirs.
        (state / "gw" / "00000000-0000-0000-0000-000000000001").mkdir()
        subprocess.run([worker.base_command()[0], "--state", state, "--run", f"{state}-run", "--destroy-all"], check=True, timeout=60)
        assert int((state / "first_uid").read_text()) == 1_000_000_000
        shutil.rmtree(state)
    assert len(ranges) == 3 and 1_000_000_000 not in ranges


def test_h4_a_gateway_cannot_fill_the_process_table(host):
    worker, inventory = host
    gateway = inventory.gateway("gw")
    worker.wait_deployed(inventory, gateway)
    for program in ("agent", "wireguard"):
        limits = Path(f"/proc/{wait_for(program, lambda: worker.pid(gateway, program))}/limits").read_text()
        assert [line.split()[2:4] for line in limits.splitlines() if line.startswith("Max processes")] == [["512", "512"]]


def test_c3_logs_are_bounded_and_keep_their_latest_part(host):
    worker, inventory = host
    hostile(worker, "evil", 'i=0; while [ $i -lt 3000 ]; do echo "$i $(printf %01000d 0)"; i=$((i + 1)); done; touch $base/ready')
    gateway = inventory.gateway("gw")
    worker.wait_deployed(inventory, gateway)
    log, before = worker.log_of(gateway), worker.log_of(gateway).with_suffix(".log.1")
    turn_hostile(worker, gateway, "evil")
    wait_for("the log was begun anew", lambda: before.exists() and log.stat().st_size <= 1 << 20 and
             (worker.base(gateway) / "ready").exists())
    for file in (log, before):
        assert file.stat().st_size <= 1 << 20 and stat.S_IMODE(file.stat().st_mode) == 0o600 and file.stat().st_uid == 0
    lines = [line.split()[0] for line in (before.read_text() + log.read_text()).splitlines() if " " in line]
    assert lines[-1] == "2999", "the latest part is there"
    assert worker.pid(gateway), "and its program goes on"
