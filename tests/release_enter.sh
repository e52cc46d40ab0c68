#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Makes a folder the root and runs a command in its /root/wiretoll. For tests/release.sh, in namespaces of mounts and processes
# that are made for it. As on a machine that systemd has started, /sys has its file systems.
#   tests/release_enter.sh ROOT COMMAND [ARGUMENT…]
set -euo pipefail
root=$1
shift

mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount -t sysfs sysfs sys
for folder in cgroup2:sys/fs/cgroup bpf:sys/fs/bpf debugfs:sys/kernel/debug tracefs:sys/kernel/tracing; do
	mount -t "${folder%%:*}" "${folder%%:*}" "${folder#*:}" 2> /dev/null || true # not every kernel has all
done
mount -t tmpfs -o mode=0755 dev dev
mkdir dev/pts dev/shm dev/net
for device in null zero full random urandom tty net/tun; do
	cp -a "/dev/$device" "dev/$device"
done
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=1777 shm dev/shm
mount -t tmpfs -o mode=0755 run run
mkdir run/lock old
pivot_root . old
umount --lazy /old
rmdir /old
cd /root/wiretoll
mapfile -t proxies < <(env | grep -iE '^(http|https|no)_proxy=' || true)
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 "${proxies[@]}" "$@"
