// SPDX-License-Identifier: BSD-2-Clause
#include "base/special_range.h"

#include <string.h>
#include <sys/socket.h>

#define V4(a, b, c, d, length, name, use)                                                                    \
	{                                                                                                    \
		{AF_INET, length, {a, b, c, d}}, name, use                                                   \
	}
#define V6(a, b, c, d, length, name, use)                                                                    \
	{                                                                                                    \
		{AF_INET6,                                                                                   \
		 length,                                                                                     \
		 {(a) >> 8, (a)&0xff, (b) >> 8, (b)&0xff, (c) >> 8, (c)&0xff, (d) >> 8, (d)&0xff}},          \
			name, use                                                                            \
	}
#define V6_FULL(length, name, ...)                                                                           \
	{                                                                                                    \
		{AF_INET6, length, {__VA_ARGS__}}, name, SPECIAL_UNUSABLE                                    \
	}

/*
 * The entries of the registries that are not "true" for source, destination and forwardable at once, the
 * multicast and reserved blocks of the address space registries, and of IPv6 what is neither global unicast
 * (2000::/3), unique local (fc00::/7) nor RFC 6052's translation (64:ff9b::/96, 64:ff9b:1::/48).
 */
static const struct special_range ranges[] = {
	V4(0, 0, 0, 0, 8, "\"this network\"", SPECIAL_UNUSABLE),
	V4(127, 0, 0, 0, 8, "loopback", SPECIAL_UNUSABLE),
	V4(169, 254, 0, 0, 16, "link-local", SPECIAL_UNUSABLE),
	V4(192, 0, 0, 0, 24, "IETF protocol assignments", SPECIAL_UNUSABLE),
	V4(192, 0, 2, 0, 24, "documentation", SPECIAL_DOCUMENTATION),
	V4(192, 88, 99, 0, 24, "deprecated 6to4 relays", SPECIAL_UNUSABLE),
	V4(198, 51, 100, 0, 24, "documentation", SPECIAL_DOCUMENTATION),
	V4(203, 0, 113, 0, 24, "documentation", SPECIAL_DOCUMENTATION),
	V4(224, 0, 0, 0, 4, "multicast", SPECIAL_UNUSABLE),
	V4(255, 255, 255, 255, 32, "limited broadcast", SPECIAL_UNUSABLE),
	V4(240, 0, 0, 0, 4, "reserved", SPECIAL_UNUSABLE),

	V6_FULL(128, "the unspecified address", 0),
	V6_FULL(128, "loopback", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1),
	V6_FULL(96, "IPv4-mapped", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff),
	V6(0x0000, 0, 0, 0, 8, "reserved", SPECIAL_UNUSABLE),
	V6(0x0100, 0, 0, 0, 64, "discard-only", SPECIAL_UNUSABLE),
	V6(0x0100, 0, 0, 1, 64, "dummy prefix", SPECIAL_UNUSABLE),
	V6(0x0100, 0, 0, 0, 8, "reserved", SPECIAL_UNUSABLE),
	V6(0x0200, 0, 0, 0, 7, "reserved", SPECIAL_UNUSABLE),
	V6(0x0400, 0, 0, 0, 6, "reserved", SPECIAL_UNUSABLE),
	V6(0x0800, 0, 0, 0, 5, "reserved", SPECIAL_UNUSABLE),
	V6(0x1000, 0, 0, 0, 4, "reserved", SPECIAL_UNUSABLE),
	V6(0x2001, 0, 0, 0, 23, "IETF protocol assignments", SPECIAL_UNUSABLE),
	V6(0x2001, 0x0db8, 0, 0, 32, "documentation", SPECIAL_DOCUMENTATION),
	V6(0x3fff, 0, 0, 0, 20, "documentation", SPECIAL_DOCUMENTATION),
	V6(0x5f00, 0, 0, 0, 16, "segment routing", SPECIAL_UNUSABLE),
	V6(0x4000, 0, 0, 0, 2, "reserved", SPECIAL_UNUSABLE),
	V6(0x8000, 0, 0, 0, 2, "reserved", SPECIAL_UNUSABLE),
	V6(0xc000, 0, 0, 0, 3, "reserved", SPECIAL_UNUSABLE),
	V6(0xe000, 0, 0, 0, 4, "reserved", SPECIAL_UNUSABLE),
	V6(0xf000, 0, 0, 0, 5, "reserved", SPECIAL_UNUSABLE),
	V6(0xf800, 0, 0, 0, 6, "reserved", SPECIAL_UNUSABLE),
	V6(0xfe80, 0, 0, 0, 10, "link-local", SPECIAL_UNUSABLE),
	V6(0xfec0, 0, 0, 0, 10, "deprecated site-local", SPECIAL_UNUSABLE),
	V6(0xfe00, 0, 0, 0, 9, "reserved", SPECIAL_UNUSABLE),
	V6(0xff00, 0, 0, 0, 8, "multicast", SPECIAL_UNUSABLE),
};

/* What can be used within these. */
static const struct special_range usable[] = {
	V6(0x0064, 0xff9b, 0, 0, 96, "translation", 0),
	V6(0x0064, 0xff9b, 1, 0, 48, "local translation", 0),
	V6(0x2001, 2, 0, 0, 48, "benchmarks", 0),
};

/* The address that a translator (RFC 6052) makes of one of its own. */
static bool is_translated(const struct cidr *address, struct cidr *ret_behind)
{
	if (address->prefix_length != cidr_max_length(address) || !cidr_contains(&usable[0].prefix, address))
		return false;
	*ret_behind = (struct cidr){.family = AF_INET, .prefix_length = 32};
	memcpy(ret_behind->bytes, address->bytes + 12, 4);
	return true;
}

const struct special_range *special_range_find(const struct cidr *prefix, unsigned uses)
{
	struct cidr behind;

	if (is_translated(prefix, &behind))
		prefix = &behind;
	for (size_t i = 0; i < ARRAY_SIZE(usable); i++) {
		if (cidr_contains(&usable[i].prefix, prefix))
			return NULL;
	}
	for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
		if (ranges[i].use & uses && cidr_overlaps(&ranges[i].prefix, prefix))
			return &ranges[i];
	}
	return NULL;
}
