/* SPDX-License-Identifier: BSD-2-Clause */
/* Whether a prefix holds an address, by looking at one bit after the other: shares no code with what is
 * tested. */
#ifndef WIRETOLL_TESTS_PREFIX_ORACLE_H
#define WIRETOLL_TESTS_PREFIX_ORACLE_H

#include "base/cidr.h"

/* Of an address of the prefix's family. */
static bool holds_bytes(const struct cidr *prefix, const uint8_t *address)
{
	for (unsigned bit = 0; bit < prefix->prefix_length; bit++) {
		if ((prefix->bytes[bit / 8] ^ address[bit / 8]) & 0x80 >> bit % 8)
			return false;
	}
	return true;
}

static inline bool holds(const struct cidr *prefix, const struct cidr *address)
{
	return prefix->family == address->family && holds_bytes(prefix, address->bytes);
}

#endif
