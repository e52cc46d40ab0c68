/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* What the benchmark's BPF programs and its harness share. */
#ifndef WIRETOLL_BENCH_ABI_H
#define WIRETOLL_BENCH_ABI_H

#include <linux/types.h>

/* Packets of a run, and most addresses that they take in turn: what every peer must have been counted is
 * known. */
#define BENCH_KEYS 131072
#define BENCH_CPUS 64

/* A CPU's place in the addresses, on a pair of cache lines of its own. */
struct bench_cursor {
	__u64 next;
	__u64 reserved[15];
} __attribute__((aligned(128)));

struct naive_key4 {
	__u32 prefix_length;
	__u8 address[4];
};

struct naive_key6 {
	__u32 prefix_length;
	__u8 address[16];
};

struct naive_count {
	__u64 bytes;
	__u64 packets;
};

_Static_assert(sizeof(struct bench_cursor) == 128, "layout");
_Static_assert(sizeof(struct naive_key4) == 8, "layout");
_Static_assert(sizeof(struct naive_key6) == 20, "layout");
_Static_assert(sizeof(struct naive_count) == 16, "layout");

#endif
