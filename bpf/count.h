/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The counters. Plain adds are exact here: a cell belongs to one CPU and one interface, and both hooks run
 * with bottom halves disabled on the CPU whose cell they take (ingress in the receive softirq, egress under
 * rcu_read_lock_bh in __dev_queue_xmit), so no second program can run on this CPU between the load and the
 * store. User space only reads. An aligned 64-bit store is never seen by halves.
 */
#ifndef WIRETOLL_BPF_COUNT_H
#define WIRETOLL_BPF_COUNT_H

#include "maps.h"
#include "parse.h"

WT_INLINE struct wt_cell *cell_of(__u32 cpu, __u32 slot)
{
	__u32 index = cpu * stride + slot;

	return bpf_map_lookup_elem(&cells, &index);
}

WT_INLINE void count_passed(struct wt_cell *cell, const struct wt_weight *weight, __u32 direction)
{
	if (direction == WT_UPLOADS) {
		cell->upload_bytes += weight->bytes;
		cell->upload_packets += weight->packets;
	} else {
		cell->download_bytes += weight->bytes;
		cell->download_packets += weight->packets;
	}
}

WT_INLINE void count_refused(struct wt_cell *cell, struct wt_interface_cell *iface,
			     const struct wt_weight *weight)
{
	cell->refused_bytes += weight->bytes;
	cell->refused_packets += weight->packets;
	iface->refused_bytes += weight->bytes;
	iface->refused_packets += weight->packets;
}

#endif
