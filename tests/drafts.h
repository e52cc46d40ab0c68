/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Packets of many headers, written front to back, and what their segments weigh: cut one by one, each with
 * its own copy of the headers. Tunnels of all kinds, within one another.
 */
#ifndef WIRETOLL_TESTS_DRAFTS_H
#define WIRETOLL_TESTS_DRAFTS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum number {
	HOP_BY_HOP = 0,
	IPV4 = 4,
	TCP = 6,
	UDP = 17,
	IPV6 = 41,
	ROUTING = 43,
	FRAGMENT = 44,
	GRE = 47,
	AH = 51,
	DESTINATION = 60,
	SCTP = 132,
	MOBILITY = 135,
	ETHERNET_FRAME = 143,
};

/* How a header says what comes behind it. */
enum naming { BY_NOTHING, BY_NUMBER, BY_ETHERTYPE, BY_GPE };

struct draft {
	uint8_t bytes[8192];
	uint32_t size;
	uint32_t next; /* where the type of the following header goes */
	enum naming naming;
	uint32_t headers; /* IP and UDP headers so far; each says how long it is */
	struct {
		uint32_t at;
		enum number number;
	} header[32];
};

/* What each segment has in front of its payload, and the sum of them all. */
struct pile {
	uint64_t bytes, packets;
};

static inline uint8_t *draft_add(struct draft *draft, uint32_t size)
{
	uint8_t *at = draft->bytes + draft->size;

	memset(at, 0, size);
	draft->size += size;
	return at;
}

static inline void draft_expect(struct draft *draft, uint32_t next, enum naming naming)
{
	draft->next = next;
	draft->naming = naming;
}

static inline void draft_put16(uint8_t *at, uint32_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

/* Writes into the header before what begins here. */
static inline void draft_name(struct draft *draft, enum number number)
{
	uint8_t *at = draft->bytes + draft->next;

	if (draft->naming == BY_NUMBER)
		*at = (uint8_t)number;
	else if (draft->naming == BY_GPE)
		*at = number == IPV4 ? 1 : number == IPV6 ? 2 : 3;
	else if (draft->naming == BY_ETHERTYPE)
		draft_put16(at, number == IPV4 ? 0x0800 : number == IPV6 ? 0x86dd : 0x6558);
}

static inline void draft_measured(struct draft *draft, enum number number)
{
	draft->header[draft->headers].at = draft->size;
	draft->header[draft->headers++].number = number;
}

static inline void draft_begin(struct draft *draft)
{
	memset(draft, 0, sizeof(*draft));
}

static inline void draft_ipv4(struct draft *draft, uint32_t option_words)
{
	uint8_t *header;

	draft_name(draft, IPV4);
	draft_measured(draft, IPV4);
	draft_expect(draft, draft->size + 9, BY_NUMBER);
	header = draft_add(draft, 20 + option_words * 4);
	header[0] = (uint8_t)(0x40 | (5 + option_words));
	header[6] = 0x40; /* don't fragment */
}

static inline void draft_ipv6(struct draft *draft)
{
	draft_name(draft, IPV6);
	draft_measured(draft, IPV6);
	draft_expect(draft, draft->size + 6, BY_NUMBER);
	draft_add(draft, 40)[0] = 0x60;
}

/* An extension header of the type with `units` beyond its smallest size. */
static inline void draft_extension(struct draft *draft, enum number type, uint8_t units)
{
	uint32_t size = type == AH ? (units + 2U) * 4 : type == FRAGMENT ? 8 : (units + 1U) * 8;

	draft_name(draft, type);
	draft_expect(draft, draft->size, BY_NUMBER);
	draft_add(draft, size)[1] = type == FRAGMENT ? 0 : units;
}

/* `flags`: of 0x80 checksum, 0x20 key, 0x10 sequence number */
static inline void draft_gre(struct draft *draft, uint8_t flags)
{
	uint32_t words = 1U + (flags >> 7) + (flags >> 5 & 1) + (flags >> 4 & 1);

	draft_name(draft, GRE);
	draft_expect(draft, draft->size + 2, BY_ETHERTYPE);
	draft_add(draft, words * 4)[0] = flags;
}

static inline void draft_ethernet(struct draft *draft, uint32_t tags)
{
	uint8_t *header;

	draft_name(draft, ETHERNET_FRAME);
	draft_expect(draft, draft->size + 12 + tags * 4, BY_ETHERTYPE);
	header = draft_add(draft, 14 + tags * 4);
	for (uint32_t i = 0; i < tags; i++)
		draft_put16(header + 12 + i * 4, i + 1 < tags ? 0x88a8 : 0x8100);
}

static inline void draft_tcp(struct draft *draft, uint32_t option_words)
{
	draft_name(draft, TCP);
	draft_add(draft, 20 + option_words * 4)[12] = (uint8_t)((5 + option_words) << 4);
}

static inline void draft_udp(struct draft *draft)
{
	draft_name(draft, UDP);
	draft_measured(draft, UDP);
	draft_add(draft, 8);
	draft_expect(draft, 0, BY_NOTHING);
}

static inline void draft_sctp(struct draft *draft)
{
	draft_name(draft, SCTP);
	draft_add(draft, 12);
}

/* Behind the last of the headers come so many bytes: all lengths say so, as far as they can. */
static inline void draft_seal(struct draft *draft, uint32_t payload)
{
	for (uint32_t i = 0; i < draft->headers; i++) {
		uint32_t size = draft->size + payload - draft->header[i].at, place = 4;

		if (draft->header[i].number == IPV4)
			place = 2;
		if (draft->header[i].number == IPV6)
			size -= 40;
		if (size > 65535)
			size = 0;
		draft_put16(draft->bytes + draft->header[i].at + place, size);
	}
}

/* ---- tunnels: what stands between the IP header before and the one behind ---- */

enum tunnel {
	T_IP,
	T_GRE,
	T_GRE_KEY,
	T_GRE_CHECKSUM,
	T_GRE_ALL,
	T_GRETAP,
	T_GRETAP_VLAN,
	T_ETHERNET, /* SRv6's L2 */
	T_VXLAN,
	T_VXLAN_QINQ,
	T_VXLAN_GPE,
	T_VXLAN_GPE_ETHERNET,
	T_GENEVE,
	T_GENEVE_OPTIONS,
	T_GENEVE_IP,
	T_FOU,
	T_FOU_GRE,
	T_FOU_GRETAP,
	T_GUE,
	T_GUE_GRE,
	TUNNELS
};

static inline void draft_shim(struct draft *draft, uint32_t size, uint32_t next, enum naming naming)
{
	draft_udp(draft);
	draft_expect(draft, draft->size + next, naming);
	draft_add(draft, size);
}

static inline void draft_vxlan(struct draft *draft, uint8_t flags)
{
	draft_shim(draft, 8, 3, flags & 4 ? BY_GPE : BY_NOTHING);
	draft->bytes[draft->size - 8] = flags;
	draft->bytes[draft->size - 2] = 42;
}

static inline void draft_geneve(struct draft *draft, uint8_t option_words)
{
	draft_shim(draft, 8 + option_words * 4U, 2, BY_ETHERTYPE);
	draft->bytes[draft->size - 8 - option_words * 4U] = option_words;
}

static inline void draft_tunnel(struct draft *draft, enum tunnel tunnel)
{
	switch (tunnel) {
	case T_GRE:
		draft_gre(draft, 0);
		break;
	case T_GRE_KEY:
		draft_gre(draft, 0x20);
		break;
	case T_GRE_CHECKSUM:
		draft_gre(draft, 0x80);
		break;
	case T_GRE_ALL:
		draft_gre(draft, 0xb0);
		break;
	case T_GRETAP:
	case T_GRETAP_VLAN:
		draft_gre(draft, 0x20);
		draft_ethernet(draft, tunnel == T_GRETAP_VLAN);
		break;
	case T_ETHERNET:
		draft_ethernet(draft, 0);
		break;
	case T_VXLAN:
	case T_VXLAN_QINQ:
		draft_vxlan(draft, 0x08);
		draft_ethernet(draft, tunnel == T_VXLAN_QINQ ? 2 : 0);
		break;
	case T_VXLAN_GPE:
		draft_vxlan(draft, 0x0c);
		break;
	case T_VXLAN_GPE_ETHERNET:
		draft_vxlan(draft, 0x0c);
		draft_ethernet(draft, 0);
		break;
	case T_GENEVE:
	case T_GENEVE_OPTIONS:
		draft_geneve(draft, tunnel == T_GENEVE ? 0 : 3);
		draft_ethernet(draft, 0);
		break;
	case T_GENEVE_IP:
		draft_geneve(draft, 2);
		break;
	case T_FOU:
		draft_udp(draft);
		break;
	case T_FOU_GRE:
	case T_FOU_GRETAP:
		draft_udp(draft);
		draft_gre(draft, 0xa0);
		if (tunnel == T_FOU_GRETAP)
			draft_ethernet(draft, 0);
		break;
	case T_GUE:
	case T_GUE_GRE:
		draft_shim(draft, 4, 1, BY_NUMBER);
		if (tunnel == T_GUE_GRE)
			draft_gre(draft, 0);
		break;
	default:
		break;
	}
}

/* ---- IP headers of some kinds, and what they carry ---- */

enum ip_kind { IP4, IP4_OPTIONS, IP6, IP6_EXTENSIONS, IP6_ROUTED, IP_KINDS };
enum transport { BY_TCP, BY_TCP_OPTIONS, BY_UDP, BY_SCTP, TRANSPORTS };

static inline void draft_ip(struct draft *draft, enum ip_kind kind)
{
	if (kind == IP4 || kind == IP4_OPTIONS) {
		draft_ipv4(draft, kind == IP4 ? 0 : 6);
		return;
	}
	draft_ipv6(draft);
	if (kind == IP6_EXTENSIONS) {
		draft_extension(draft, HOP_BY_HOP, 0);
		draft_extension(draft, DESTINATION, 1);
	}
	if (kind == IP6_ROUTED)
		draft_extension(draft, ROUTING, 4); /* two segments of SRv6 */
}

static inline void draft_transport(struct draft *draft, enum transport transport)
{
	if (transport == BY_UDP)
		draft_udp(draft);
	else if (transport == BY_SCTP)
		draft_sctp(draft);
	else
		draft_tcp(draft, transport == BY_TCP ? 0 : 3);
}

/* ---- the scales ---- */

static inline void pile_add(struct pile *pile, uint32_t header, uint32_t payload)
{
	pile->bytes += header + payload;
	pile->packets++;
}

/* What becomes of the draft with so many bytes behind it, cut into parts of `size`. */
static inline struct pile draft_cut(const struct draft *draft, uint32_t payload, uint32_t size)
{
	struct pile pile = {0};

	for (uint32_t left = payload, part; left; left -= part) {
		part = left < size ? left : size;
		pile_add(&pile, draft->size, part);
	}
	return pile;
}

#endif
