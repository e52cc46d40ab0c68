#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Process 1 of a virtual machine that is a gateway: a disk that outlives it, a network to the host, the kernel's own
# WireGuard, a VPC with one instance, and the agent, started again whenever it ends.
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o mode=0755 run /run
mount -t tmpfs tmp /tmp
mkdir -p /run/netns /run/wireguard /run/bpf /dev/net /disk
mount -t bpf -o mode=0700 bpf /run/bpf
export PATH=/bin HOME=/root
umask 077
exec > /dev/ttyS1 2>&1 < /dev/null

while read -r module; do
	modprobe "$module" || echo "no module $module"
done < /etc/modules
mount -t ext4 /dev/vda /disk || echo "no disk"
# Names in full: busybox's own applets would win.
/bin/sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.default.addr_gen_mode=1
/bin/ip link set lo up
/bin/ip addr add 10.0.2.15/24 dev eth0
/bin/ip link set eth0 up
/bin/ip route add default via 10.0.2.2
/bin/ip netns add inst
/bin/ip link add vpc0 type veth peer name eth0 netns inst
/bin/ip addr add 10.1.0.2/24 dev vpc0
/bin/ip link set vpc0 up
/bin/ip -n inst addr add 10.1.0.10/24 dev eth0
/bin/ip -n inst link set eth0 up
/bin/ip -n inst route add default via 10.1.0.2
/bin/ip link add wg0 type wireguard
sh < /dev/ttyS2 & # what a test does to the machine from inside
echo "up"
while true; do
	/tests/bin/wiretoll-agent --base /disk/base --bpf /run/bpf
	sleep 0.2
done
