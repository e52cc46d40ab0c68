/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The oracle of true lengths (I2): it walks the headers by rules of its own, from the RFCs, and cuts the
 * payload into segments one by one. It shares nothing with bpf/parse.h but what that promises to follow.
 */
#ifndef WIRETOLL_TESTS_FUZZ_SEGMENTS_H
#define WIRETOLL_TESTS_FUZZ_SEGMENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FOLLOWED_EXTENSIONS 8

struct segments {
	uint64_t bytes, packets;
	bool unparsed;
};

/* A walk along the headers; `at` is the next one. Nothing is read beyond the end of the bytes. */
struct walk {
	const uint8_t *bytes;
	size_t size, at;
	unsigned next; /* protocol of the header there */
	bool lost;
};

static inline unsigned byte_at(struct walk *walk, size_t offset)
{
	if (offset < walk->size)
		return walk->bytes[offset];
	walk->lost = true;
	return 0;
}

static inline void walk_ipv4(struct walk *walk)
{
	walk->at = 4 * (byte_at(walk, 0) % 16);
	walk->next = byte_at(walk, 9);
	/* Of the 16 bits of flags and offset only "don't fragment" and the one above it may be set. */
	walk->lost |=
		walk->at < 20 || ((byte_at(walk, 6) << 8 | byte_at(walk, 7)) & ~0xc000u) || walk->size < 20;
}

/* One extension header, RFC 8200; false when there is none of a kind that every segment repeats. */
static inline bool walk_extension(struct walk *walk)
{
	size_t at = walk->at;

	if (walk->next == 0 || walk->next == 43 || walk->next == 60 || walk->next == 135)
		walk->at += 8 + 8 * byte_at(walk, at + 1);
	else if (walk->next == 51)
		walk->at += 8 + 4 * byte_at(walk, at + 1);
	else if (walk->next == 44 && byte_at(walk, at + 2) == 0 && (byte_at(walk, at + 3) | 6) == 6)
		walk->at += 8;
	else
		return false;
	walk->next = byte_at(walk, at);
	byte_at(walk, at + 3);
	return !walk->lost;
}

static inline void walk_ipv6(struct walk *walk)
{
	unsigned extensions = 0;

	walk->at = 40;
	walk->next = byte_at(walk, 6);
	while (!walk->lost && walk->next != 6 && walk->next != 17)
		walk->lost |= extensions++ == FOLLOWED_EXTENSIONS || !walk_extension(walk);
}

/* 4, 6, or 0 for what is no whole IP header. */
static inline unsigned ip_version(const uint8_t *bytes, size_t captured, size_t length)
{
	unsigned version = captured ? bytes[0] >> 4 : 0;

	return (version == 4 && length >= 20) || (version == 6 && length >= 40) ? version : 0;
}

/* Bytes in front of the payload; 0 when the packet cannot be cut. */
static inline size_t header_of(const uint8_t *bytes, size_t captured, size_t length)
{
	struct walk walk = {.bytes = bytes, .size = captured};
	unsigned version = ip_version(bytes, captured, length), words;

	if (!version)
		return 0;
	if (version == 4)
		walk_ipv4(&walk);
	else
		walk_ipv6(&walk);
	if (walk.lost)
		return 0;
	if (walk.next == 17)
		return walk.at + 8;
	if (walk.next != 6)
		return 0;
	words = byte_at(&walk, walk.at + 12) >> 4;
	return walk.lost || words < 5 ? 0 : walk.at + 4 * words;
}

/* What the packet is on the wire; gso_size 0: no aggregate. */
static inline struct segments cut(const uint8_t *bytes, size_t captured, size_t length, uint32_t gso_size,
				  uint32_t gso_segs)
{
	size_t header = gso_size ? header_of(bytes, captured, length) : 0;
	struct segments segments = {0};

	if (!gso_size)
		return (struct segments){length, 1, gso_segs > 1 || !ip_version(bytes, captured, length)};
	if (!header || header >= length)
		return (struct segments){length, 1, true};
	for (size_t left = length - header; left; segments.packets++) {
		size_t part = left < gso_size ? left : gso_size;

		segments.bytes += header + part;
		left -= part;
	}
	return segments;
}

#endif
