#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Linux 6.18 (tcx exists since 6.6), `ip link set X netns N`.
#
# Seen: a program that was attached to the interface through tcx goes on in the other network namespace; one in a clsact qdisc is gone with
# the qdisc, without a message, as is every other filter there. The same program on the same hook lives or dies by how it was attached.
# Why it matters: what drops, limits or counts packets ends in silence when an interface is given to a container.
# What to do: attach through tcx where the kernel has it; with clsact look again after each move, and attach anew in the new namespace.
# shellcheck source=lib/pinned.sh
. "$(dirname "$0")/lib/pinned.sh"

echo "kernel $(uname -r)"
cat > "$work/attach.c" << 'END'
/* attach BPFFS IFINDEX: pins a program that drops everything as BPFFS/drop, and a tcx link of it, on IFINDEX's ingress, as BPFFS/link. */
#include <linux/bpf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
enum { TCX_INGRESS = 46 }; /* not in the headers of Debian 12 */

static int bpf(int command, union bpf_attr *attr)
{
	int r = (int)syscall(SYS_bpf, command, attr, sizeof(*attr));

	if (r < 0)
		perror("bpf");
	return r;
}

static int pin(const char *folder, const char *name, int fd)
{
	union bpf_attr attr = {.bpf_fd = (unsigned int)fd};
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	attr.pathname = (uintptr_t)path;
	return bpf(BPF_OBJ_PIN, &attr);
}

int main(int argc, char **argv)
{
	const struct bpf_insn drop[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 2},
		{.code = BPF_JMP | BPF_EXIT},
	};
	union bpf_attr load = {.prog_type = BPF_PROG_TYPE_SCHED_CLS, .insn_cnt = 2};
	union bpf_attr attach = {.link_create = {.attach_type = TCX_INGRESS}};
	int program, link;

	load.insns = (uintptr_t)drop;
	load.license = (uintptr_t) "Dual BSD/GPL";
	if (argc != 3 || (program = bpf(BPF_PROG_LOAD, &load)) < 0)
		return 1;
	attach.link_create.prog_fd = (unsigned int)program;
	attach.link_create.target_ifindex = (unsigned int)atoi(argv[2]);
	link = bpf(BPF_LINK_CREATE, &attach);
	return link < 0 || pin(argv[1], "drop", program) != 0 || pin(argv[1], "link", link) != 0;
}
END
gcc -std=gnu17 -O1 -o "$work/attach" "$work/attach.c"
cat > "$work/try.sh" << 'END'
set -euo pipefail
mount -t tmpfs tmpfs /run
mkdir /run/bpf
mount -t bpf bpf /run/bpf
ip netns add other
for n in 1 2; do
	ip link add name "far$n" type veth peer name "near$n"
	ip address add "10.0.$n.1/24" dev "far$n"
	ip link set dev "far$n" up
done
near() { # settings of both near ends, in the namespace that the options of ip name; a move takes addresses and "up" away
	for n in 1 2; do
		ip "$@" address replace "10.0.$n.2/24" dev "near$n"
		ip "$@" link set dev "near$n" up
	done
}
answered() { if ping -q -c 5 -i 0.2 -W 2 "10.0.$1.2" > /run/ping 2>&1; then echo yes; else echo no; fi; }
# Both ends in one namespace would answer each other over loopback.
ip netns add near
for n in 1 2; do ip link set dev "near$n" netns near; done
near -n near
answered 1
ip -n near -j link show dev near1 | grep -o '"ifindex":[0-9]*' | cut -d: -f2 > /run/index
nsenter --net=/run/netns/near "$work/attach" /run/bpf "$(cat /run/index)"
nsenter --net=/run/netns/near bash -c 'tc qdisc add dev near2 clsact; tc filter add dev near2 ingress bpf direct-action object-pinned /run/bpf/drop'
answered 1
answered 2
for n in 1 2; do ip -n near link set dev "near$n" netns other; done
near -n other
answered 1
answered 2
nsenter --net=/run/netns/other tc qdisc show dev near2 clsact | wc -l
rm /run/bpf/link
answered 1
END
export work
mapfile -t lines < <(unshare --net --mount --pid --fork --kill-child bash "$work/try.sh")

seen 'pings answered without a program' yes "${lines[0]}"
seen 'with one that drops, tcx' no "${lines[1]}"
seen 'with one that drops, clsact' no "${lines[2]}"
seen 'after the move, tcx' no "${lines[3]}"
seen 'after the move, clsact' yes "${lines[4]}"
seen 'clsact qdiscs after the move' 0 "${lines[5]}"
seen 'after the tcx link is given up' yes "${lines[6]}"
