/* SPDX-License-Identifier: BSD-2-Clause */
/* Addresses with a meaning of their own: IANA's IPv4 and IPv6 Special-Purpose Address Registries. */
#ifndef WIRETOLL_BASE_SPECIAL_RANGE_H
#define WIRETOLL_BASE_SPECIAL_RANGE_H

#include "base/cidr.h"

enum special_use {
	SPECIAL_UNUSABLE = 1, /* no host has such an address, or no router forwards it */
	SPECIAL_DOCUMENTATION =
		2, /* for examples: no network's own, though a laboratory's may be made of them */
};

struct special_range {
	struct cidr prefix;
	const char *name; /* "loopback" */
	enum special_use use;
};

/*
 * The first special range of one of these uses (bits of enum special_use) that the prefix lies in or holds;
 * NULL when there is none. What is for private use (RFC 1918, RFC 6598, RFC 4193), benchmarks or translation
 * (RFC 6052) can be used like any other range and is never found.
 */
const struct special_range *special_range_find(const struct cidr *prefix, unsigned uses);

#endif
