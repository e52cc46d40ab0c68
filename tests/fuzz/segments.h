/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The oracle of true lengths (I2): it descends through the headers by rules of its own, from the RFCs, and
 * cuts the payload into segments one by one. It shares nothing with bpf/parse.h but what that promises to
 * follow.
 */
#ifndef WIRETOLL_TESTS_FUZZ_SEGMENTS_H
#define WIRETOLL_TESTS_FUZZ_SEGMENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define FOLLOWED_HEADERS 24
#define FOLLOWED_TUNNELS 3

/* What the kernel is going to do with UDP, where it says so. */
enum cutting { CUT_AS_IT_LOOKS, CUT_DATAGRAMS, CUT_FRAGMENTS };

struct segments {
	uint64_t bytes, packets;
	bool unparsed;
};

/* An aggregate: `size` of its `length` bytes are at hand. */
struct aggregate {
	const uint8_t *bytes;
	size_t size, length;
	uint32_t gso_size, gso_segs;
	enum cutting cutting;
};

/* How it is cut: the bytes before the payload, and how far those of a segment differ from them. */
struct scissors {
	size_t header; /* 0: it cannot be cut */
	long difference;
	bool by_parts; /* gso_segs of them, of any size */
};

/* Where a descent stands. */
struct place {
	size_t at;
	unsigned protocol, version, headers, packets; /* passed: headers of all kinds, and of IP */
	bool jumbo; /* the option before TCP says how long the packet is, RFC 2675 */
};

static const struct scissors none;

static inline bool has(const struct aggregate *a, size_t at, size_t count)
{
	return at <= a->size && a->size - at >= count;
}

static inline unsigned pair_at(const struct aggregate *a, size_t at)
{
	return a->bytes[at] * 256U + a->bytes[at + 1];
}

static inline struct scissors descend(const struct aggregate *a, struct place place);

static inline struct scissors behind(const struct aggregate *a, struct place place, size_t size,
				     unsigned next)
{
	place.at += size;
	place.protocol = next;
	place.headers++;
	return descend(a, place);
}

/* The protocol that an EtherType stands for, as one of IP's; 255 for others. */
static inline unsigned as_protocol(unsigned ethertype)
{
	return ethertype == 0x0800 ? 4 : ethertype == 0x86dd ? 41 : ethertype == 0x6558 ? 143 : 255;
}

/* IEEE 802.3 with 802.1Q: the size of the header, 0 if it is not whole. */
static inline size_t ethernet_size(const struct aggregate *a, size_t at, unsigned *ret_next)
{
	size_t size = 14;

	if (!has(a, at, 24))
		return 0;
	if (pair_at(a, at + 12) == 0x88a8 || pair_at(a, at + 12) == 0x8100) {
		size = pair_at(a, at + 16) == 0x8100 ? 22 : 18;
	}
	*ret_next = as_protocol(pair_at(a, at + size - 2));
	return size;
}

/* RFC 2784, 2890: checksum, key and sequence number, of four bytes each. */
static inline size_t gre_size(const struct aggregate *a, size_t at, unsigned *ret_next)
{
	static const uint8_t present[] = {0x80, 0x20, 0x10};
	size_t size = 4;

	if (!has(a, at, 4) || a->bytes[at] & 0x40 || a->bytes[at + 1] % 8)
		return 0;
	for (int i = 0; i < 3; i++)
		size += a->bytes[at] & present[i] ? 4 : 0;
	*ret_next = as_protocol(pair_at(a, at + 2));
	return size;
}

/* Whether the IP packet at this place ends with the aggregate; large ones say 0. */
static inline bool fills(const struct aggregate *a, size_t at, unsigned protocol)
{
	size_t rest = a->length - at, said;

	if (at > a->length || !has(a, at, 8) || a->bytes[at] / 16 != (protocol == 4 ? 4 : 6))
		return false;
	said = pair_at(a, at + (protocol == 4 ? 2 : 4));
	if (said == 0 && rest > 65535)
		return true;
	return rest == said + (protocol == 4 ? 0 : 40);
}

/* Whether a tunnel's packet is there, through GRE and Ethernet; moves the place to its IP header. */
static inline bool carries(const struct aggregate *a, struct place *place, size_t at, unsigned protocol)
{
	size_t size = 1;

	if (protocol == 47) {
		size = gre_size(a, at, &protocol);
		at += size;
	}
	if (size && protocol == 143) {
		size = ethernet_size(a, at, &protocol);
		at += size;
	}
	if (!size || (protocol != 4 && protocol != 41) || !fills(a, at, protocol))
		return false;
	place->at = at;
	place->protocol = protocol;
	return true;
}

/* What may be behind a UDP header: RFC 7348 (and GPE), 8926, and Linux's FOU and GUE. */
static inline bool is_tunnel(const struct aggregate *a, struct place *place)
{
	const size_t at = place->at + 8;
	const uint8_t *head = a->bytes + at;
	unsigned type;

	if (!has(a, at, 4))
		return false;
	type = as_protocol(pair_at(a, at + 2));
	if (carries(a, place, at, head[0] / 16 == 4 ? 4 : head[0] / 16 == 6 ? 41 : 255))
		return true;
	if (head[0] & 8) {
		bool generic = head[0] & 4;

		if (carries(a, place, at + 8,
			    generic && head[3] == 1   ? 4
			    : generic && head[3] == 2 ? 41
						      : 143))
			return true;
	}
	if (type != 255 && head[0] / 64 == 0 && carries(a, place, at + 8 + head[0] % 64 * 4, type))
		return true;
	if (type != 255 && carries(a, place, at, 47))
		return true;
	if (head[0] / 32 || (head[1] != 4 && head[1] != 41 && head[1] != 47))
		return false;
	return carries(a, place, at + 4 + head[0] * 4, head[1]);
}

static inline struct scissors cut_udp(const struct aggregate *a, struct place place)
{
	const struct scissors datagrams = {.header = place.at + 8};
	const struct scissors fragments = {.header = place.at, .difference = place.version == 6 ? 8 : 0};
	struct scissors inner;

	if (a->cutting == CUT_FRAGMENTS)
		return fragments;
	if (a->cutting == CUT_DATAGRAMS || !is_tunnel(a, &place))
		return datagrams;
	inner = behind(a, place, 0, place.protocol);
	return inner.header ? inner : datagrams;
}

static inline struct scissors cut_tcp(const struct aggregate *a, const struct place *place)
{
	if (!has(a, place->at + 12, 4) || a->bytes[place->at + 12] / 16 < 5)
		return none;
	return (struct scissors){.header = place->at + a->bytes[place->at + 12] / 16 * 4U,
				 .difference = place->jumbo ? -8 : 0};
}

static inline bool has_jumbo(const struct aggregate *a, size_t at)
{
	static const uint8_t option[] = {6, 0, 0xc2, 4};

	return a->length > 65536 && has(a, at, 8) && memcmp(a->bytes + at, option, sizeof(option)) == 0;
}

static inline struct scissors descend_ip(const struct aggregate *a, struct place place)
{
	const uint8_t *ip = a->bytes + place.at;

	if (place.packets++ > FOLLOWED_TUNNELS)
		return none;
	if (place.protocol == 4) {
		place.version = 4;
		place.jumbo = false;
		if (!has(a, place.at, 12) || ip[0] / 16 != 4 || ip[0] % 16 < 5)
			return none;
		return behind(a, place, ip[0] % 16 * 4U, ip[9]);
	}
	place.version = 6;
	if (!has(a, place.at, 8) || ip[0] / 16 != 6)
		return none;
	place.jumbo = ip[6] == 0 && has_jumbo(a, place.at + 40);
	return behind(a, place, 40, ip[6]);
}

/* RFC 8200, 4302, 6275 */
static inline struct scissors descend_extension(const struct aggregate *a, struct place place)
{
	size_t size = 8;

	if (place.version != 6 || !has(a, place.at, 4))
		return none;
	if (place.protocol == 51)
		size = 8 + 4U * a->bytes[place.at + 1];
	else if (place.protocol != 44)
		size = 8 + 8U * a->bytes[place.at + 1];
	return behind(a, place, size, a->bytes[place.at]);
}

static inline struct scissors descend(const struct aggregate *a, struct place place)
{
	unsigned next = 255;
	size_t size;

	if (place.headers >= FOLLOWED_HEADERS)
		return none;
	switch (place.protocol) {
	case 4:
	case 41:
		return descend_ip(a, place);
	case 6:
		return cut_tcp(a, &place);
	case 17:
		return cut_udp(a, place);
	case 132:
		return (struct scissors){.header = place.at + 12, .by_parts = true};
	case 47:
		size = gre_size(a, place.at, &next);
		return size ? behind(a, place, size, next) : none;
	case 143:
		size = ethernet_size(a, place.at, &next);
		return size ? behind(a, place, size, next) : none;
	case 0:
	case 43:
	case 44:
	case 51:
	case 60:
	case 135:
		return descend_extension(a, place);
	default:
		return none;
	}
}

/* 4, 6, or 0 for what is no whole IP header. */
static inline unsigned ip_version(const uint8_t *bytes, size_t captured, size_t length)
{
	unsigned version = captured ? bytes[0] >> 4 : 0;

	return (version == 4 && length >= 20) || (version == 6 && length >= 40) ? version : 0;
}

/* What the packet is on the wire; gso_size 0: no aggregate. */
static inline struct segments cut(const struct aggregate *a)
{
	const unsigned version = ip_version(a->bytes, a->size, a->length);
	const struct segments whole = {a->length, 1, true};
	struct segments segments = {0};
	struct scissors scissors = none;

	if (!a->gso_size)
		return (struct segments){a->length, 1, a->gso_segs > 1 || !version};
	if (version)
		scissors = descend(a, (struct place){.protocol = version == 4 ? 4 : 41});
	if (!scissors.header || scissors.header >= a->length)
		return whole;
	if (scissors.by_parts && a->gso_size == 0xffff) {
		/* A chunk of SCTP is no shorter than its header, RFC 9260. */
		if (a->gso_segs == 0 || a->gso_segs > (a->length - scissors.header) / 4)
			return whole;
		return (struct segments){a->length + (a->gso_segs - 1ULL) * scissors.header, a->gso_segs,
					 false};
	}
	for (size_t left = a->length - scissors.header; left; segments.packets++) {
		size_t part = left < a->gso_size ? left : a->gso_size;

		segments.bytes += (size_t)((long)scissors.header + scissors.difference) + part;
		left -= part;
	}
	/* What is one segment is left as it is. */
	return segments.packets > 1 ? segments : (struct segments){a->length, 1, false};
}

#endif
