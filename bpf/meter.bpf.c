// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * The meter: counts every packet of a WireGuard interface for its peer, by its true wire length, and refuses
 * what has no credit. A packet that may pass goes on to the next program (never OK, which would end the
 * chain); a refused one is dropped.
 *
 * Nearly every packet is plain: an IP header in the linear part, and no aggregate. What it needs is in line;
 * the rest are global functions, which the kernel verifies once.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "attribute.h"
#include "count.h"
#include "credit.h"
#include "gso_type.h"
#include "maps.h"
#include "parse.h"

#define WT_SMALLEST_EXTENSION 8

/* The largest offset that bpf_skb_load_bytes_relative() takes. */
#define WT_FARTHEST_RELATIVE 0xffff

static __always_inline struct wt_packet whole(struct __sk_buff *skb)
{
	return (struct wt_packet){
		.skb = skb,
		.start = l3_offset,
		.length = skb->len > l3_offset ? skb->len - l3_offset : 0,
	};
}

__attribute__((noinline)) int refuse(__u32 slot, __u64 bytes, __u64 packets)
{
	count_refused(slot, bytes, packets);
	return TC_ACT_SHOT;
}

/* The count is found first: what cannot be counted does not pass. */
static __always_inline int judge(__u32 slot, __u64 bytes, __u64 packets, __u32 direction)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct wt_count *count = count_of(cpu, direction - 1, slot);

	if (!count || !admit(cpu, slot, direction, bytes))
		return refuse(slot, bytes, packets);
	count->bytes += bytes;
	count->packets += packets;
	return TC_ACT_UNSPEC;
}

/*
 * An option of this hook's side only: whether it leaves with the segments is each kernel's own affair. Linux
 * 6.2 to 6.19 take it off behind the hook; earlier ones as if every device had an Ethernet header, and where
 * it has none they write it over the header of TCP, from which they then cut segments of some other length;
 * later ones leave it to each segment. Without it all do the same, and it is what is counted.
 */
static __always_inline int take_jumbo_off(struct __sk_buff *skb, __u32 start)
{
	const __u8 next = WT_PROTO_TCP;
	int r = bpf_skb_adjust_room(skb, -WT_JUMBO_SIZE, BPF_ADJ_ROOM_NET,
				    BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET);

	return r ? r : bpf_skb_store_bytes(skb, start + 6, &next, sizeof(next), 0);
}

/* Aggregates, and what has segments but no size of them. */
__attribute__((noinline)) int meter_aggregate(struct __sk_buff *skb, __u32 version, __u32 slot,
					      __u32 direction)
{
	const struct wt_packet packet = whole(skb);
	const struct wt_gso gso = {.size = skb->gso_size, .segs = skb->gso_segs};
	struct wt_walk walk = {.start = packet.start,
			       .length = packet.length,
			       .next = wt_outermost(version),
			       .cut = cut_of(skb)};
	struct wt_weight weight;

	if (gso.size) {
		wt_follow(skb, &walk);
		weight = wt_weigh_segments(&walk, &gso);
	} else {
		weight = wt_weigh_single(packet.length, version, gso.segs);
	}
	if (weight.unparsed)
		count_unparsed();
	if (direction == WT_DOWNLOADS && walk.less && walk.layers == 1 && take_jumbo_off(skb, packet.start))
		return refuse(slot, weight.bytes, weight.packets);
	return judge(slot, weight.bytes, weight.packets, direction);
}

/* What has its IP header elsewhere, or none. */
__attribute__((noinline)) int meter_any(struct __sk_buff *skb, __u32 direction)
{
	struct wt_packet packet = whole(skb);
	__u32 version = wt_ip_version(&packet);

	return meter_aggregate(skb, version, slot_of(attribute_any(&packet, version, direction)), direction);
}

/* Behind which a routing header may stand, or which is one. */
static __always_inline int has_extension(__u8 next)
{
	return next == WT_PROTO_ROUTING || next == WT_PROTO_HOP_BY_HOP || next == WT_PROTO_DESTINATION ||
	       next == WT_PROTO_FRAGMENT || next == WT_PROTO_AH;
}

/*
 * What has been here before. Where segment routing (SRv6, RPL) ends, the kernel takes the inner packet out
 * and hands it to the same device again; the MAC header, where this hook's data begins, still stands before
 * the outer one, which was counted and admitted then. Only the network header is elsewhere: behind an IPv6
 * header and a routing header at least. The kernel sets it to where the data begins before every packet's
 * first time here, so nothing that comes from outside can look like this, whatever is written in it.
 *
 * It is asked for by a byte that lies in the linear part if the network header is where it was, and else not.
 */
__attribute__((noinline)) int was_here(struct __sk_buff *skb)
{
	const __u8 *ip = (const __u8 *)(long)skb->data + l3_offset, *end = (const __u8 *)(long)skb->data_end;
	__s64 byte = end - ip - (WT_IPV6_HEADER + WT_SMALLEST_EXTENSION);
	__u8 any;

	if (ip + WT_IPV6_HEADER > end || !has_extension(ip[6]))
		return 0;
	return byte >= 0 && byte <= WT_FARTHEST_RELATIVE &&
	       bpf_skb_load_bytes_relative(skb, byte, &any, sizeof(any), BPF_HDR_START_NET);
}

/* Of an IPv6 packet, by what stands behind its first header. */
static __always_inline int is_plain(__u8 next)
{
	return next == WT_PROTO_TCP || next == WT_PROTO_UDP;
}

static __always_inline int meter(struct __sk_buff *skb, __u32 direction)
{
	const __u32 start = l3_offset;
	const __u8 *ip = (const __u8 *)(long)skb->data + start, *end = (const __u8 *)(long)skb->data_end;
	__u32 version, slot;

	if (ip + WT_IPV4_HEADER > end)
		return meter_any(skb, direction);
	version = ip[0] >> 4;
	if (version == 4) {
		slot = slot_of(attribute4(ip + address_offset(4, direction)));
	} else if (version == 6 && ip + WT_IPV6_HEADER <= end) {
		if (direction == WT_UPLOADS && !is_plain(ip[6]) && was_here(skb))
			return TC_ACT_UNSPEC;
		slot = slot_of(attribute6(ip + address_offset(6, direction)));
	} else {
		return meter_any(skb, direction);
	}
	if (skb->gso_size || skb->gso_segs > 1)
		return meter_aggregate(skb, version, slot, direction);
	return judge(slot, skb->len - start, 1, direction);
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

/* A frame of XDP's, which is no aggregate. */
__attribute__((noinline)) int meter_frame(__u32 slot, __u32 length, __u32 parsed)
{
	if (!parsed)
		count_unparsed();
	return judge(slot, length, 1, WT_UPLOADS) == TC_ACT_SHOT ? XDP_DROP : XDP_PASS;
}

/*
 * In the place of ingress, where that is asked for: XDP sees neither what leaves nor the segment size of an
 * aggregate, so it is loaded only where there are none. What it gets is linear.
 */
SEC("xdp")
int meter_xdp(struct xdp_md *context)
{
	const __u8 *ip = (const __u8 *)(long)context->data + l3_offset,
		   *end = (const __u8 *)(long)context->data_end;
	__u32 length = ip < end ? end - ip : 0;
	__u32 version = 0;

	if (ip + WT_IPV4_HEADER <= end)
		version = ip[0] >> 4;
	if (version == 4)
		return meter_frame(slot_of(attribute4(ip + address_offset(4, WT_UPLOADS))), length, 1);
	if (version == 6 && ip + WT_IPV6_HEADER <= end)
		return meter_frame(slot_of(attribute6(ip + address_offset(6, WT_UPLOADS))), length, 1);
	return meter_frame(WT_SLOT_UNATTRIBUTED, length, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
