/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What a packet weighs on the wire, and the address it is attributed by. The same code is compiled for user
 * space, where the tests drive it with aggregates that BPF_PROG_TEST_RUN does not take. All access to packet
 * bytes goes through wt_load(), which checks the bounds. Offsets count from the IP header.
 */
#ifndef WIRETOLL_BPF_PARSE_H
#define WIRETOLL_BPF_PARSE_H

#include <linux/types.h>

#define WT_IPV4_HEADER 20
#define WT_IPV6_HEADER 40

/* Chains of IPv6 extension headers longer than this are not followed; none is seen in practice. */
#define WT_MAX_EXTENSIONS 8

#ifdef __bpf__
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define WT_INLINE static __always_inline

struct wt_packet {
	struct __sk_buff *skb;
	__u32 start;  /* of the IP header in the packet's data */
	__u32 length; /* from the IP header on */
};

/* Takes the bytes from beyond the linear part, too. */
WT_INLINE int wt_load(const struct wt_packet *packet, __u32 offset, void *to, const __u32 size)
{
	return bpf_skb_load_bytes(packet->skb, packet->start + offset, to, size);
}
#else
#include <string.h>

#define WT_INLINE static inline

struct wt_packet {
	const void *data; /* the IP header */
	__u32 length;     /* from the IP header on */
	__u32 captured;   /* bytes that data really holds */
};

WT_INLINE int wt_load(const struct wt_packet *packet, __u32 offset, void *to, const __u32 size)
{
	if (packet->captured < size || offset > packet->captured - size)
		return -1;
	memcpy(to, (const char *)packet->data + offset, size);
	return 0;
}
#endif

/* Only what repeats its header in every segment can be an aggregate that is followed. */
enum wt_protocol {
	WT_PROTO_HOP_BY_HOP = 0,
	WT_PROTO_TCP = 6,
	WT_PROTO_UDP = 17,
	WT_PROTO_ROUTING = 43,
	WT_PROTO_FRAGMENT = 44,
	WT_PROTO_AH = 51,
	WT_PROTO_DESTINATION = 60,
	WT_PROTO_MOBILITY = 135,
};

struct wt_weight {
	__u64 bytes;
	__u64 packets;
	__u32 unparsed; /* the headers could not be followed; bytes is the packet's length */
};

/* 4, 6, or 0 for what is not a whole IP header. */
WT_INLINE __u32 wt_ip_version(const struct wt_packet *packet)
{
	__u8 first;

	if (packet->length < WT_IPV4_HEADER || wt_load(packet, 0, &first, 1))
		return 0;
	if (first >> 4 == 4)
		return 4;
	return first >> 4 == 6 && packet->length >= WT_IPV6_HEADER ? 6 : 0;
}

/* Offset of the TCP or UDP header, and which of the two; 0 when there is none to be followed. */
WT_INLINE __u32 wt_find_transport4(const struct wt_packet *packet, __u8 *ret_protocol)
{
	__u8 header[WT_IPV4_HEADER];
	__u32 size;

	if (wt_load(packet, 0, header, sizeof(header)))
		return 0;
	size = (header[0] & 15) * 4;
	/* A fragment (more fragments, or an offset) has no header to repeat. */
	if (size < WT_IPV4_HEADER || (header[6] & 0x3f) || header[7])
		return 0;
	*ret_protocol = header[9];
	return size;
}

/* Bytes of one extension header, 0 when this is not one that may be passed. */
WT_INLINE __u32 wt_extension_size(__u8 protocol, const __u8 head[4])
{
	switch (protocol) {
	case WT_PROTO_HOP_BY_HOP:
	case WT_PROTO_ROUTING:
	case WT_PROTO_DESTINATION:
	case WT_PROTO_MOBILITY:
		return (head[1] + 1) * 8;
	case WT_PROTO_AH:
		return (head[1] + 2) * 4;
	case WT_PROTO_FRAGMENT: /* a whole packet may carry one, with no offset and nothing to follow */
		return head[2] || (head[3] & 0xf9) ? 0 : 8;
	default:
		return 0;
	}
}

WT_INLINE __u32 wt_find_transport6(const struct wt_packet *packet, __u8 *ret_protocol)
{
	__u32 offset = WT_IPV6_HEADER;
	__u8 head[4], protocol;
	__u32 size;

	if (wt_load(packet, 6, &protocol, 1))
		return 0;
	for (int i = 0; i < WT_MAX_EXTENSIONS; i++) {
		if (protocol == WT_PROTO_TCP || protocol == WT_PROTO_UDP)
			break;
		if (wt_load(packet, offset, head, sizeof(head)))
			return 0;
		size = wt_extension_size(protocol, head);
		if (!size)
			return 0;
		protocol = head[0];
		offset += size;
	}
	*ret_protocol = protocol;
	return offset;
}

/* Bytes in front of the payload, which every segment repeats; 0 when they cannot be told. */
WT_INLINE __u32 wt_repeated_header(const struct wt_packet *packet, __u32 version)
{
	__u8 protocol = 0, doff;
	__u32 offset;

	if (!version)
		return 0;
	offset = version == 4 ? wt_find_transport4(packet, &protocol) : wt_find_transport6(packet, &protocol);
	if (!offset)
		return 0;
	if (protocol == WT_PROTO_UDP)
		return offset + 8;
	if (protocol != WT_PROTO_TCP || wt_load(packet, offset + 12, &doff, 1) || doff >> 4 < 5)
		return 0;
	return offset + (doff >> 4) * 4;
}

/*
 * The bytes and packets that an aggregate becomes on the wire: every segment but the first adds the headers
 * that it repeats. Neither gso_segs nor the IP length is believed: a guest or a TUN writer chooses the
 * first, and large aggregates leave the second 0. Never less than the packet's length.
 */
WT_INLINE struct wt_weight wt_weigh_segments(__u32 length, __u32 header, __u32 gso_size)
{
	struct wt_weight weight = {.bytes = length, .packets = 1};

	if (!header || header >= length) {
		weight.unparsed = 1;
		return weight;
	}
	weight.packets = ((__u64)(length - header) + gso_size - 1) / gso_size;
	weight.bytes += (weight.packets - 1) * header;
	return weight;
}

/* What is no aggregate; `version` is what wt_ip_version() tells of it. */
WT_INLINE struct wt_weight wt_weigh_single(__u32 length, __u32 version, __u32 gso_segs)
{
	return (struct wt_weight){.bytes = length, .packets = 1, .unparsed = gso_segs > 1 || !version};
}

WT_INLINE struct wt_weight wt_weigh(const struct wt_packet *packet, __u32 gso_size, __u32 gso_segs)
{
	__u32 version = wt_ip_version(packet);

	if (!gso_size)
		return wt_weigh_single(packet->length, version, gso_segs);
	return wt_weigh_segments(packet->length, wt_repeated_header(packet, version), gso_size);
}

#endif
