/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The counters. Plain adds are exact here: a count belongs to one CPU and one interface, and both hooks run
 * with bottom halves disabled on the CPU whose counts they take (ingress in the receive softirq, egress under
 * rcu_read_lock_bh in __dev_queue_xmit), so no second program can run on this CPU between the load and the
 * store. User space only reads. An aligned 64-bit store is never seen by halves.
 */
#ifndef WIRETOLL_BPF_COUNT_H
#define WIRETOLL_BPF_COUNT_H

#include "maps.h"
#include "parse.h"

/* Never NULL: the arrays have room for every possible CPU, and slots are below the capacity. */
WT_INLINE struct wt_count *count_of(__u32 cpu, enum wt_kind kind, __u32 slot)
{
	__u32 index = wt_count_index(cpu, kind, slot, stride);

	return bpf_map_lookup_elem(&counts, &index);
}

WT_INLINE struct wt_interface_cell *interface_cell(__u32 cpu)
{
	return &interface_cells.of[cpu & (WT_MAX_CPUS - 1)];
}

WT_INLINE void count_refused(__u32 slot, __u64 bytes, __u64 packets)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct wt_count *count = count_of(cpu, WT_REFUSED, slot);
	struct wt_interface_cell *cell = interface_cell(cpu);

	if (count) {
		count->bytes += bytes;
		count->packets += packets;
	}
	cell->refused_bytes += bytes;
	cell->refused_packets += packets;
}

WT_INLINE void count_unparsed(void)
{
	interface_cell(bpf_get_smp_processor_id())->unparsed_packets++;
}

#endif
