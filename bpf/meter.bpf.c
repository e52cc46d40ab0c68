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

/* What the hook asks first of every packet. */
struct identity {
	__u32 version; /* as wt_ip_version() tells it */
	__u32 found;   /* as lookup4() and lookup6() do */
};

static __always_inline struct wt_packet whole(struct __sk_buff *skb)
{
	return (struct wt_packet){
		.skb = skb,
		.start = l3_offset,
		.length = skb->len > l3_offset ? skb->len - l3_offset : 0,
	};
}

/* Version in the upper half. Out of line, as nearly every packet has its header in the linear part. */
static __attribute__((noinline)) __u64 identify_any(struct __sk_buff *skb, __u32 direction)
{
	struct wt_packet packet = whole(skb);
	__u32 version = wt_ip_version(&packet);

	return (__u64)version << 32 | attribute_any(&packet, version, direction);
}

static __attribute__((noinline)) __u32 repeated_header(struct __sk_buff *skb, __u32 version)
{
	struct wt_packet packet = whole(skb);

	return wt_repeated_header(&packet, version);
}

static __always_inline struct identity identify(struct __sk_buff *skb, __u32 direction)
{
	const __u8 *ip = (const __u8 *)(long)skb->data + l3_offset, *end = (const __u8 *)(long)skb->data_end;
	__u64 any;

	if (ip + WT_IPV4_HEADER <= end) {
		__u32 version = ip[0] >> 4;

		if (version == 4)
			return (struct identity){4, attribute4(ip + address_offset(4, direction))};
		if (version == 6 && ip + WT_IPV6_HEADER <= end)
			return (struct identity){6, attribute6(ip + address_offset(6, direction))};
	}
	any = identify_any(skb, direction);
	return (struct identity){any >> 32, any};
}

static __always_inline struct wt_weight weigh(struct __sk_buff *skb, __u32 version)
{
	__u32 length = skb->len > l3_offset ? skb->len - l3_offset : 0, gso_size = skb->gso_size;

	if (!gso_size)
		return wt_weigh_single(length, version, skb->gso_segs);
	return wt_weigh_segments(length, repeated_header(skb, version), gso_size);
}

static __always_inline int meter(struct __sk_buff *skb, __u32 direction)
{
	struct identity identity = identify(skb, direction);
	__u32 slot = slot_of(identity.found), cpu = bpf_get_smp_processor_id();
	struct wt_weight weight = weigh(skb, identity.version);
	struct wt_interface_cell *iface = bpf_map_lookup_elem(&iface_cells, &cpu);
	struct wt_cell *cell = cell_of(cpu, slot);

	/* Cannot be: the arrays have room for every possible CPU. What cannot be counted does not pass. */
	if (!iface || !cell)
		return TC_ACT_SHOT;
	if (weight.unparsed)
		iface->unparsed_packets++;
	if (!admit(&pool, iface, cell, slot, direction, weight.bytes)) {
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
