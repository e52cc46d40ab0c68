/* SPDX-License-Identifier: BSD-2-Clause */
/* A program of a few instructions beside the meter: what the kernel itself says of the same packets. */
#ifndef WIRETOLL_TESTS_VM_PROBE_H
#define WIRETOLL_TESTS_VM_PROBE_H

#include <stdbool.h>
#include <stdint.h>

struct probe {
	int map, program;
};

struct probe_totals {
	uint64_t length;      /* sum of skb->len */
	uint64_t wire_length; /* sum of skb->wire_len */
	uint64_t packets;     /* an aggregate is one */
	uint64_t largest;     /* skb->len so far */
};

/*
 * Attaches to clsact of the interface: between the meter's places there, or behind the meter's where that is
 * tcx. The qdisc is the caller's to remove, with all that is attached to it. Fails the test when it cannot.
 */
struct probe probe_attach(int ifindex, bool egress);
struct probe_totals probe_read(const struct probe *probe);
void probe_close(struct probe *probe);

#endif
