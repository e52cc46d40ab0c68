// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * The meter: counts every packet of a WireGuard interface for its peer, by its true wire length, and refuses
 * what has no credit. A packet that may pass goes on to the next program (never OK, which would end the
 * chain); a refused one is dropped.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "attribute.h"
#include "count.h"
#include "credit.h"
#include "maps.h"
#include "parse.h"

static __always_inline int meter(struct __sk_buff *skb, __u32 direction)
{
	struct wt_packet packet = {
		.skb = skb,
		.start = l3_offset,
		.length = skb->len > l3_offset ? skb->len - l3_offset : 0,
	};
	struct wt_weight weight = wt_weigh(&packet, skb->gso_size, skb->gso_segs);
	__u32 slot = attribute(&packet, direction);
	__u32 cpu = bpf_get_smp_processor_id(), zero = 0;
	struct wt_interface_cell *iface = bpf_map_lookup_elem(&iface_cells, &cpu);
	struct wt_pool *p = bpf_map_lookup_elem(&pool, &zero);
	struct wt_cell *cell = cell_of(cpu, slot);

	/* Cannot be: the arrays have room for every possible CPU. What cannot be counted does not pass. */
	if (!iface || !p || !cell)
		return TC_ACT_SHOT;
	iface->unparsed_packets += weight.unparsed;
	if (!admit(p, iface, cell, slot, direction, weight.bytes)) {
		count_refused(cell, iface, &weight);
		return TC_ACT_SHOT;
	}
	count_passed(cell, &weight, direction);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int meter_ingress(struct __sk_buff *skb)
{
	return meter(skb, WT_UPLOADS);
}

SEC("tc")
int meter_egress(struct __sk_buff *skb)
{
	return meter(skb, WT_DOWNLOADS);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
