/* SPDX-License-Identifier: BSD-2-Clause */
/* IP addresses and prefixes, IPv4 and IPv6. */
#ifndef WIRETOLL_BASE_CIDR_H
#define WIRETOLL_BASE_CIDR_H

#include "base/base.h"

/* "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255/128" and its NUL. */
#define CIDR_TEXT_SIZE 50

/* An address with a prefix length. family is AF_INET or AF_INET6; an IPv4 address is in bytes[0..3]. */
struct cidr {
	int family;
	unsigned prefix_length;
	uint8_t bytes[16];
};

/*
 * Parses "ADDRESS/LENGTH" or "ADDRESS" (then /32 or /128). The whole text must be consumed. Host bits are
 * kept: see cidr_is_network(). Returns -EINVAL.
 */
WT_MUST_CHECK int cidr_parse(const char *text, struct cidr *ret_cidr);

/* Parses an address without a length. Returns -EINVAL. */
WT_MUST_CHECK int cidr_parse_address(const char *text, struct cidr *ret_cidr);

/* "10.0.0.0/24"; the buffer has CIDR_TEXT_SIZE bytes; returns it. */
const char *cidr_format(const struct cidr *cidr, char *buffer);

/* "10.0.0.1", without the length. */
const char *cidr_format_address(const struct cidr *cidr, char *buffer);

/* 32 or 128. */
unsigned cidr_max_length(const struct cidr *cidr);

/* Whether no bit beyond the prefix is set, as WireGuard and route tables want it. */
bool cidr_is_network(const struct cidr *cidr);

/* The same prefix with the host bits cleared. */
struct cidr cidr_network(const struct cidr *cidr);

/* Whether every address of `inner` is in `outer`. Families must agree; otherwise false. */
bool cidr_contains(const struct cidr *outer, const struct cidr *inner);

bool cidr_overlaps(const struct cidr *a, const struct cidr *b);
bool cidr_equal(const struct cidr *a, const struct cidr *b);

/* Total order (family, address, length), for sorting and bsearch. */
int cidr_compare(const void *a, const void *b);

#endif
