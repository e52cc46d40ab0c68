/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * What a packet weighs on the wire, and the address it is attributed by. The same code is compiled for user
 * space, where the tests drive it with aggregates that BPF_PROG_TEST_RUN does not take. All access to packet
 * bytes goes through wt_load() and wt_look(), which check the bounds. Offsets count from the IP header.
 */
#ifndef WIRETOLL_BPF_PARSE_H
#define WIRETOLL_BPF_PARSE_H

#include <linux/types.h>

#define WT_IPV4_HEADER 20
#define WT_IPV6_HEADER 40

/* Tunnels within the tunnel that are followed: their headers are repeated, too. */
#define WT_MAX_LAYERS 3

/* Headers of all kinds that are followed; more are not seen in practice. */
#define WT_MAX_HEADERS 24

/* The gso_size of what is cut along the parts that it was put together from. */
#define WT_BY_FRAGMENTS 0xffff

/* The longest packet that an IP header can tell the length of, more or less; longer ones say 0. */
#define WT_LONGEST_TOLD 65535

/* Longer IPv6 packets than this had an option of 8 bytes to say so (to Linux 6.19), which segments lose. */
#define WT_JUMBO_FROM 65536
#define WT_JUMBO_SIZE 8

#define WT_FRAGMENT_HEADER 8

/* The smallest there is, and a packet of SCTP has one. */
#define WT_SCTP_CHUNK 4

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

/*
 * For what most packets do not need. In the programs these are global functions: the kernel verifies each of
 * them once, for any arguments, and not again on every path that leads to it.
 */
#ifdef __bpf__
#define WT_SELDOM __attribute__((noinline))
#else
#define WT_SELDOM static __attribute__((noinline))
#endif

/* What can stand behind a header, by its number as an IP protocol. */
enum wt_protocol {
	WT_PROTO_HOP_BY_HOP = 0,
	WT_PROTO_IPV4 = 4,
	WT_PROTO_TCP = 6,
	WT_PROTO_UDP = 17,
	WT_PROTO_IPV6 = 41,
	WT_PROTO_ROUTING = 43,
	WT_PROTO_FRAGMENT = 44,
	WT_PROTO_GRE = 47,
	WT_PROTO_AH = 51,
	WT_PROTO_DESTINATION = 60,
	WT_PROTO_SCTP = 132,
	WT_PROTO_MOBILITY = 135,
	WT_PROTO_ETHERNET = 143,
	WT_PROTO_END = 256, /* none: the headers end, or are not understood */
};

enum wt_ethertype {
	WT_ETHERTYPE_IPV4 = 0x0800,
	WT_ETHERTYPE_BRIDGED = 0x6558, /* an Ethernet frame */
	WT_ETHERTYPE_VLAN = 0x8100,
	WT_ETHERTYPE_IPV6 = 0x86dd,
	WT_ETHERTYPE_QINQ = 0x88a8,
};

/* Into what an aggregate of UDP is cut. */
enum wt_cut {
	WT_CUT_UNKNOWN,   /* the headers tell a tunnel from datagrams */
	WT_CUT_DATAGRAMS, /* with a UDP header each */
	WT_CUT_FRAGMENTS, /* of one datagram */
};

/* What the kernel says of an aggregate. */
struct wt_gso {
	__u32 size; /* of a segment's payload; 0: this is no aggregate */
	__u32 segs;
	__u32 cut; /* enum wt_cut */
};

struct wt_weight {
	__u64 bytes;
	__u64 packets;
	__u32 unparsed; /* the headers could not be followed; bytes is the packet's length */
};

/* A walk along the headers of an aggregate. */
struct wt_walk {
	__u32 start;   /* of the IP header in the packet's data */
	__u32 length;  /* from the IP header on */
	__u32 offset;  /* of the next header, from the IP header on */
	__u32 next;    /* its protocol */
	__u32 layers;  /* IP headers passed */
	__u32 version; /* of the last of them */
	__u32 header;  /* what each segment repeats, up to the payload; 0: not known */
	__u32 jumbo;   /* that had the jumbo option, right before TCP */
	__u32 less;    /* bytes of the header that segments do not have */
	__u32 more;    /* bytes that each segment has besides */
	__u32 cut;     /* enum wt_cut */
	__u32 sctp;    /* it carries SCTP, whose packets are of any size */
};

/* Of a header, or of what stands behind it, as much as is asked. */
struct wt_head {
	union {
		__u32 words[3];
		__u8 bytes[12];
	};
};

/* What a function of its own can be given in the programs. */
#ifdef __bpf__
typedef struct __sk_buff wt_source;

/* Headers that begin behind this are read by the kernel's helper, which knows no bounds but the packet's. */
#define WT_DIRECT 1024

/* Nearly all headers are in the linear part, where the helper would be most of what a walk costs. */
WT_INLINE int wt_look(wt_source *skb, const struct wt_walk *walk, __u32 offset, struct wt_head *to,
		      const __u32 words)
{
	const __u32 at = walk->start + offset;
	const __u8 *from = (const __u8 *)(long)skb->data + (at & (WT_DIRECT - 1)),
		   *end = (const __u8 *)(long)skb->data_end;

	if (at >= WT_DIRECT || from + words * 4 > end)
		return bpf_skb_load_bytes(skb, at, to, words * 4);
	for (__u32 i = 0; i < words; i++)
		to->words[i] = ((const __u32 *)from)[i];
	return 0;
}
#else
typedef const struct wt_packet wt_source;

WT_INLINE int wt_look(wt_source *packet, const struct wt_walk *walk, __u32 offset, struct wt_head *to,
		      const __u32 words)
{
	(void)walk;
	return wt_load(packet, offset, to, words * 4);
}
#endif

WT_INLINE __u32 wt_number16(const __u8 bytes[2])
{
	return bytes[0] << 8 | bytes[1];
}

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

/* Bytes of an IPv6 extension header; all kinds are repeated, whatever they say. */
WT_INLINE __u32 wt_extension_size(__u32 protocol, const __u8 head[2])
{
	if (protocol == WT_PROTO_FRAGMENT)
		return 8;
	return protocol == WT_PROTO_AH ? (head[1] + 2) * 4 : (head[1] + 1) * 8;
}

/* Whether the IP header at the offset says that its packet ends where the aggregate does. */
WT_INLINE int wt_reaches_end(wt_source *source, const struct wt_walk *walk, __u32 offset, __u32 protocol)
{
	__u32 left = walk->length - offset, size;
	struct wt_head head;

	if (offset > walk->length || wt_look(source, walk, offset, &head, 2))
		return 0;
	if (protocol == WT_PROTO_IPV4)
		size = head.bytes[0] >> 4 == 4 ? wt_number16(head.bytes + 2) : 1;
	else
		size = head.bytes[0] >> 4 == 6 ? wt_number16(head.bytes + 4) + WT_IPV6_HEADER : 1;
	/* Too large for the field, which is 0 then. */
	if (size == (protocol == WT_PROTO_IPV4 ? 0 : WT_IPV6_HEADER) && left > WT_LONGEST_TOLD)
		return 1;
	return size == left;
}

WT_INLINE __u32 wt_protocol_of(__u32 ethertype)
{
	switch (ethertype) {
	case WT_ETHERTYPE_IPV4:
		return WT_PROTO_IPV4;
	case WT_ETHERTYPE_IPV6:
		return WT_PROTO_IPV6;
	case WT_ETHERTYPE_BRIDGED:
		return WT_PROTO_ETHERNET;
	default:
		return WT_PROTO_END;
	}
}

/* An Ethernet header with at most two VLAN tags. */
WT_INLINE void wt_pass_ethernet(wt_source *source, const struct wt_walk *walk, __u32 *offset, __u32 *next)
{
	struct wt_head types;
	__u32 at = 0, type;

	*next = WT_PROTO_END;
	if (wt_look(source, walk, *offset + 12, &types, 3))
		return;
	type = wt_number16(types.bytes);
	if (type == WT_ETHERTYPE_VLAN || type == WT_ETHERTYPE_QINQ) {
		at = 4;
		type = wt_number16(types.bytes + 4);
	}
	if (at && type == WT_ETHERTYPE_VLAN) {
		at = 8;
		type = wt_number16(types.bytes + 8);
	}
	*offset += 14 + at;
	*next = wt_protocol_of(type);
}

/* Version 0, RFC 2784 and 2890; RFC 1701's routing is not followed. */
WT_INLINE void wt_pass_gre(wt_source *source, const struct wt_walk *walk, __u32 *offset, __u32 *next)
{
	struct wt_head head;

	*next = WT_PROTO_END;
	if (wt_look(source, walk, *offset, &head, 1) || (head.bytes[0] & 0x40) || (head.bytes[1] & 7))
		return;
	*offset += 4 + (head.bytes[0] >> 7) * 4 + (head.bytes[0] >> 5 & 1) * 4 + (head.bytes[0] >> 4 & 1) * 4;
	*next = wt_protocol_of(wt_number16(head.bytes + 2));
}

/*
 * Goes on behind a UDP header if a tunnel of this kind begins there: its innermost IP packet reaches to the
 * end of the aggregate, where a datagram's own would end with the first segment.
 */
WT_SELDOM int wt_enter(wt_source *source, struct wt_walk *walk, __u32 offset, __u32 next)
{
	if (!walk)
		return 0;
	if (next == WT_PROTO_GRE)
		wt_pass_gre(source, walk, &offset, &next);
	if (next == WT_PROTO_ETHERNET)
		wt_pass_ethernet(source, walk, &offset, &next);
	if ((next != WT_PROTO_IPV4 && next != WT_PROTO_IPV6) || !wt_reaches_end(source, walk, offset, next))
		return 0;
	walk->offset = offset;
	walk->next = next;
	return 1;
}

/* FOU (also GUE without a header), VXLAN (GPE, GBP), Geneve, GUE, GRE in UDP; any port may be one's. */
WT_INLINE void wt_try_tunnels(wt_source *source, struct wt_walk *walk, __u32 inside)
{
	struct wt_head head;
	__u32 inner;

	if (wt_look(source, walk, inside, &head, 1))
		return;
	inner = head.bytes[0] >> 4 == 4   ? WT_PROTO_IPV4
		: head.bytes[0] >> 4 == 6 ? WT_PROTO_IPV6
					  : WT_PROTO_END;
	if (inner != WT_PROTO_END && wt_enter(source, walk, inside, inner))
		return;
	if (head.bytes[0] & 0x08) {
		inner = head.bytes[0] & 0x04 && head.bytes[3] == 1   ? WT_PROTO_IPV4
			: head.bytes[0] & 0x04 && head.bytes[3] == 2 ? WT_PROTO_IPV6
								     : WT_PROTO_ETHERNET;
		if (wt_enter(source, walk, inside + 8, inner))
			return;
	}
	inner = wt_protocol_of(wt_number16(head.bytes + 2));
	if (inner != WT_PROTO_END && head.bytes[0] < 0x40 &&
	    wt_enter(source, walk, inside + 8 + head.bytes[0] * 4, inner))
		return;
	if (inner != WT_PROTO_END && wt_enter(source, walk, inside, WT_PROTO_GRE))
		return;
	if (head.bytes[0] < 0x20 && (head.bytes[1] == WT_PROTO_IPV4 || head.bytes[1] == WT_PROTO_IPV6 ||
				     head.bytes[1] == WT_PROTO_GRE))
		wt_enter(source, walk, inside + 4 + head.bytes[0] * 4, head.bytes[1]);
}

/* Plain datagrams, if nothing behind says otherwise. */
WT_INLINE void wt_pass_udp(wt_source *source, struct wt_walk *walk)
{
	walk->next = WT_PROTO_END;
	if (walk->cut == WT_CUT_FRAGMENTS) {
		walk->header = walk->offset;
		walk->more = walk->version == 6 ? WT_FRAGMENT_HEADER : 0;
		return;
	}
	walk->header = walk->offset + 8;
	if (walk->cut == WT_CUT_UNKNOWN)
		wt_try_tunnels(source, walk, walk->header);
}

/* Whatever its fragment bits say: what is an aggregate still is cut into segments with this header. */
WT_INLINE void wt_pass_ipv4(wt_source *source, struct wt_walk *walk)
{
	struct wt_head head;

	walk->next = WT_PROTO_END;
	walk->version = 4;
	if (wt_look(source, walk, walk->offset, &head, 3) || head.bytes[0] >> 4 != 4 ||
	    (head.bytes[0] & 15) * 4 < WT_IPV4_HEADER)
		return;
	walk->offset += (head.bytes[0] & 15) * 4;
	walk->next = head.bytes[9];
	walk->jumbo = 0;
}

WT_INLINE int wt_has_jumbo(wt_source *source, const struct wt_walk *walk)
{
	struct wt_head option;

	return walk->length > WT_JUMBO_FROM && !wt_look(source, walk, walk->offset, &option, 2) &&
	       option.bytes[0] == WT_PROTO_TCP && option.bytes[1] == 0 && option.bytes[2] == 0xc2 &&
	       option.bytes[3] == 4;
}

WT_INLINE void wt_pass_ipv6(wt_source *source, struct wt_walk *walk)
{
	struct wt_head head;

	walk->next = WT_PROTO_END;
	walk->version = 6;
	if (wt_look(source, walk, walk->offset, &head, 2) || head.bytes[0] >> 4 != 6)
		return;
	walk->offset += WT_IPV6_HEADER;
	walk->next = head.bytes[6];
	walk->jumbo = walk->next == WT_PROTO_HOP_BY_HOP && wt_has_jumbo(source, walk);
}

WT_INLINE void wt_pass_extension(wt_source *source, struct wt_walk *walk)
{
	__u32 protocol = walk->next;
	struct wt_head head;

	walk->next = WT_PROTO_END;
	if (walk->version != 6 || wt_look(source, walk, walk->offset, &head, 1))
		return;
	walk->offset += wt_extension_size(protocol, head.bytes);
	walk->next = head.bytes[0];
}

WT_INLINE void wt_pass_tcp(wt_source *source, struct wt_walk *walk)
{
	struct wt_head head;

	walk->next = WT_PROTO_END;
	if (wt_look(source, walk, walk->offset + 12, &head, 1) || head.bytes[0] >> 4 < 5)
		return;
	walk->header = walk->offset + (head.bytes[0] >> 4) * 4;
	walk->less = walk->jumbo ? WT_JUMBO_SIZE : 0;
}

/* Segments are packets of SCTP with chunks of their own; they repeat its common header. */
WT_INLINE void wt_pass_sctp(struct wt_walk *walk)
{
	walk->next = WT_PROTO_END;
	walk->header = walk->offset + 12;
	walk->sctp = 1;
}

/* Passes one header. */
WT_INLINE void wt_step(wt_source *source, struct wt_walk *walk)
{
	switch (walk->next) {
	case WT_PROTO_IPV4:
	case WT_PROTO_IPV6:
		if (walk->layers++ > WT_MAX_LAYERS)
			walk->next = WT_PROTO_END;
		else if (walk->next == WT_PROTO_IPV4)
			wt_pass_ipv4(source, walk);
		else
			wt_pass_ipv6(source, walk);
		break;
	case WT_PROTO_TCP:
		wt_pass_tcp(source, walk);
		break;
	case WT_PROTO_UDP:
		wt_pass_udp(source, walk);
		break;
	case WT_PROTO_SCTP:
		wt_pass_sctp(walk);
		break;
	case WT_PROTO_GRE:
		wt_pass_gre(source, walk, &walk->offset, &walk->next);
		break;
	case WT_PROTO_ETHERNET:
		wt_pass_ethernet(source, walk, &walk->offset, &walk->next);
		break;
	case WT_PROTO_HOP_BY_HOP:
	case WT_PROTO_ROUTING:
	case WT_PROTO_FRAGMENT:
	case WT_PROTO_AH:
	case WT_PROTO_DESTINATION:
	case WT_PROTO_MOBILITY:
		wt_pass_extension(source, walk);
		break;
	default:
		walk->next = WT_PROTO_END;
	}
}

/* The protocol of the outermost header, of which wt_ip_version() tells. */
WT_INLINE __u32 wt_outermost(__u32 version)
{
	return version == 4 ? WT_PROTO_IPV4 : version == 6 ? WT_PROTO_IPV6 : WT_PROTO_END;
}

/* Follows the headers of an aggregate to its payload. */
WT_SELDOM int wt_follow(wt_source *source, struct wt_walk *walk)
{
	for (int i = 0; walk && i < WT_MAX_HEADERS && walk->next != WT_PROTO_END; i++)
		wt_step(source, walk);
	return 0;
}

/* As many as are claimed, or 0 if there are not so many chunks. */
WT_INLINE __u32 wt_sctp_packets(__u32 payload, __u32 gso_segs)
{
	return gso_segs <= payload / WT_SCTP_CHUNK ? gso_segs : 0;
}

/*
 * The bytes and packets that an aggregate becomes on the wire: every segment but the first adds the headers
 * that it repeats. Neither gso_segs nor the IP length is believed: a guest or a TUN writer chooses the
 * first, and large aggregates leave the second 0. Only SCTP's have nothing else to go by. Never less than the
 * packet's length.
 */
WT_INLINE struct wt_weight wt_weigh_segments(const struct wt_walk *walk, const struct wt_gso *gso)
{
	const __u32 length = walk->length - walk->less, header = walk->header - walk->less;
	struct wt_weight weight = {.bytes = walk->length, .packets = 1};
	__u64 packets = 0;

	if (walk->header && walk->header < walk->length)
		packets = walk->sctp && gso->size == WT_BY_FRAGMENTS
				  ? wt_sctp_packets(length - header, gso->segs)
				  : ((__u64)(length - header) + gso->size - 1) / gso->size;
	if (!packets)
		weight.unparsed = 1;
	if (packets <= 1)
		return weight;
	weight.packets = packets;
	weight.bytes = length + (packets - 1) * header + packets * walk->more;
	return weight;
}

/* What is no aggregate; `version` is what wt_ip_version() tells of it. */
WT_INLINE struct wt_weight wt_weigh_single(__u32 length, __u32 version, __u32 gso_segs)
{
	return (struct wt_weight){.bytes = length, .packets = 1, .unparsed = gso_segs > 1 || !version};
}

#ifndef __bpf__
WT_INLINE struct wt_weight wt_weigh(const struct wt_packet *packet, const struct wt_gso *gso)
{
	__u32 version = wt_ip_version(packet);
	struct wt_walk walk = {.length = packet->length, .next = wt_outermost(version), .cut = gso->cut};

	if (!gso->size)
		return wt_weigh_single(packet->length, version, gso->segs);
	wt_follow(packet, &walk);
	return wt_weigh_segments(&walk, gso);
}
#endif

#endif
