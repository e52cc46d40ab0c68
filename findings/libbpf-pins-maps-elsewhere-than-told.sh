#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# libbpf 1.1.2 (Debian 12, 1:1.1.2-0+deb12u1), bpf_object__pin_maps(), bpf_object__pin_programs(), on the BPF file system of Linux 6.18.
#
# Seen: the BPF file system takes no name with a dot: EPERM, to root as well. bpf_object__pin_maps() therefore changes every dot of its path
# into "_", also those outside the BPF file system and in the names of folders that exist, makes the folder of that name, and returns 0;
# bpf_object__pin_programs() does not. With the folder "eth0.100" the maps lie in "eth0_100"; below a mount point like /run/v1.0 they are
# looked for below another, and the call fails.
# Why it matters: the natural name of a folder for a VLAN's pins, the interface's, is refused, or is one that another interface may have.
# What to do: name pins by something without dots (an index, an id), and mount the BPF file system where the path has none.
# shellcheck source=lib/pinned.sh
. "$(dirname "$0")/lib/pinned.sh"

unpack libbpf1=1:1.1.2-0+deb12u1 libbpf-dev=1:1.1.2-0+deb12u1
echo "kernel $(uname -r)"
cat > "$work/object.bpf.c" << 'END'
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");
SEC("tc") int program(struct __sk_buff *skb)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&counts, &zero) ? 0 : 2;
}
char _license[] SEC("license") = "Dual BSD/GPL";
END
clang -O2 -g -target bpf -I"$root/usr/include" -I/usr/include/x86_64-linux-gnu -c "$work/object.bpf.c" -o "$work/object.o"
cat > "$work/pin.c" << 'END'
#include <bpf/libbpf.h>
#include <stdio.h>
int main(int argc, char **argv)
{
	struct bpf_object *object = bpf_object__open_file(argc > 1 ? argv[1] : "", NULL);

	if (argc != 3 || !object || bpf_object__load(object) != 0)
		return 1;
	printf("maps %d", bpf_object__pin_maps(object, argv[2]));
	printf(", programs %d\n", bpf_object__pin_programs(object, argv[2]));
	bpf_object__close(object);
	return 0;
}
END
compile "$work/pin.c" "$work/pin" -lbpf
cat > "$work/try.sh" << 'END'
mount -t tmpfs tmpfs /run
mkdir /run/v1.0 /run/bpf
mount -t bpf bpf /run/bpf
mount -t bpf bpf /run/v1.0
list() { (cd /run && find bpf v1* -mindepth 2 | sort | paste -sd ' '); }
mkdir /run/bpf/eth0.100 2>&1 | sed 's/.*: //'
"$work/pin" "$work/object.o" /run/bpf/eth0 2> /run/log
list
"$work/pin" "$work/object.o" /run/bpf/eth0.100 2> /run/log
list
rm -r /run/bpf/eth0 /run/bpf/eth0_100
"$work/pin" "$work/object.o" /run/v1.0/eth0 2> /run/log
list
END
export work LC_ALL=C
mapfile -t lines < <(unshare --mount --pid --fork --kill-child bash "$work/try.sh")

seen 'mkdir eth0.100' 'Operation not permitted' "${lines[0]}"
seen 'eth0' 'maps 0, programs 0' "${lines[1]}"
seen 'files' 'bpf/eth0/counts bpf/eth0/program' "${lines[2]}"
seen 'eth0.100' 'maps 0, programs -1' "${lines[3]}"
seen 'files' 'bpf/eth0/counts bpf/eth0/program bpf/eth0_100/counts' "${lines[4]}"
seen 'v1.0/eth0' 'maps -2, programs 0' "${lines[5]}"
seen 'files' 'v1.0/eth0/program' "${lines[6]}"
