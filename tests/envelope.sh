#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Runs a command in an envelope of namespaces of its own: network, mounts, processes, shared memory, with a private /run,
# /sys and BPF file system. When the command ends, or is killed however, everything made inside vanishes with it.
#   tests/envelope.sh COMMAND [ARGUMENT…]
set -euo pipefail

if [ "${WIRETOLL_ENVELOPE:-}" != 1 ]; then
	exec env WIRETOLL_ENVELOPE=1 unshare --net --mount --pid --ipc --fork --kill-child --mount-proc -- "$0" "$@"
fi

# Nothing of the host's comes along: no BPF file system, no pinned namespace, not even beneath what is mounted here.
for folder in /run /dev/shm /sys; do
	while mountpoint -q "$folder"; do
		umount --recursive --lazy "$folder"
	done
done
while read -r pin; do
	umount --lazy "$(printf '%b' "$pin")" 2> /dev/null || true # it went with another
done < <(awk '/ - (bpf|nsfs) / {print $5}' /proc/self/mountinfo | tac)

mount -t tmpfs -o mode=0755 wiretoll-run /run
mkdir -p /run/netns /run/wireguard /run/lock
mount -t tmpfs -o mode=1777 wiretoll-shm /dev/shm
mount -t sysfs sysfs /sys
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup 2>/dev/null || true

# Other user numbers run the programs under test, too, and need not get through the home that they were built in.
if [ -n "${WIRETOLL_BIN:-}" ]; then
	if [ "$(basename "$WIRETOLL_BIN")" != bin ]; then
		echo "tests/envelope.sh: WIRETOLL_BIN is $WIRETOLL_BIN; accepted is a folder named bin" >&2
		exit 2
	fi
	built=$(realpath "$WIRETOLL_BIN/..")
	reachable=/run/built/$(basename "$built")
	mkdir -p "$reachable"
	mount --bind "$built" "$reachable"
	export WIRETOLL_BIN=$reachable/bin
fi
# Whose device counts packets, for hosts whose device is a test's truth.
install -D -m 0755 "$(dirname "$0")/plain_wireguard.py" /run/plain/wireguard-go
ip link set lo up
sysctl -qw net.ipv6.conf.default.addr_gen_mode=1
unset WIRETOLL_ENVELOPE

# This shell is process 1 here: it stays, to reap orphans, until the command has ended. A trap cuts the wait short.
"$@" &
child=$!
trap 'kill -TERM $child 2>/dev/null' TERM
trap 'kill -INT $child 2>/dev/null' INT
status=0
while true; do
	wait "$child" && status=0 || status=$?
	kill -0 "$child" 2>/dev/null || break
done
exit "$status"
